use std::fmt;

/// Which of the two kinds of records something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Entities.
    Entity,
    /// Relationships.
    Relationship,
}

impl RecordKind {
    /// Both kinds, in the order in which they are reported.
    pub const ALL: [Self; 2] = [Self::Entity, Self::Relationship];

    /// Returns the name: `entity` or `relationship`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Relationship => "relationship",
        }
    }

    /// Returns the name of many: `entities` or `relationships`.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Entity => "entities",
            Self::Relationship => "relationships",
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What a commit did, as counts.
        ///
        /// For entities and for relationships, each for itself:
        /// `emitted = created + updated + unchanged + duplicates + rejected`, and of the records
        /// that were live before, `live before = updated + unchanged + deleted + kept + held`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SyncStats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl SyncStats {
            /// The names of the fields, in the order of [`values`](Self::values).
            pub const FIELDS: [&str; [$(stringify!($field)),*].len()] = [$(stringify!($field)),*];

            /// Returns the values of the fields, in the order of [`FIELDS`](Self::FIELDS).
            pub const fn values(&self) -> [u64; Self::FIELDS.len()] {
                [$(self.$field),*]
            }

            /// Makes stats of values in the order of [`FIELDS`](Self::FIELDS).
            pub const fn from_values(values: [u64; Self::FIELDS.len()]) -> Self {
                let [$($field),*] = values;
                Self { $($field),* }
            }
        }
    };
}

stats! {
    /// Entities that were not live before.
    entities_created,
    /// Entities whose content changed.
    entities_updated,
    /// Entities that were emitted as they were.
    entities_unchanged,
    /// Entities that everyone who claimed them looked for and did not find.
    entities_deleted,
    /// Entities that were not emitted, or only in rejected form, and are live because someone who
    /// claimed them could not look everywhere.
    entities_kept,
    /// Entities that would be deleted, if the deletes were not held for approval.
    entities_held,
    /// Emissions of entities that broke a rule, or contradicted an earlier emission.
    entities_rejected,
    /// Emissions of entities that repeated an earlier one.
    entities_duplicates,
    /// Relationships that were not live before.
    relationships_created,
    /// Relationships whose content changed.
    relationships_updated,
    /// Relationships that were emitted as they were.
    relationships_unchanged,
    /// Relationships that everyone who claimed them looked for and did not find.
    relationships_deleted,
    /// Relationships that were not emitted, or only in rejected form, and are live because
    /// someone who claimed them could not look everywhere.
    relationships_kept,
    /// Relationships that would be deleted, if the deletes were not held for approval.
    relationships_held,
    /// Emissions of relationships that broke a rule, or contradicted an earlier emission.
    relationships_rejected,
    /// Emissions of relationships that repeated an earlier one.
    relationships_duplicates,
}

impl SyncStats {
    /// Joins the counts of the two kinds.
    pub fn new(entities: Counts, relationships: Counts) -> Self {
        Self {
            entities_created: entities.created,
            entities_updated: entities.updated,
            entities_unchanged: entities.unchanged,
            entities_deleted: entities.deleted,
            entities_kept: entities.kept,
            entities_held: entities.held,
            entities_rejected: entities.rejected,
            entities_duplicates: entities.duplicates,
            relationships_created: relationships.created,
            relationships_updated: relationships.updated,
            relationships_unchanged: relationships.unchanged,
            relationships_deleted: relationships.deleted,
            relationships_kept: relationships.kept,
            relationships_held: relationships.held,
            relationships_rejected: relationships.rejected,
            relationships_duplicates: relationships.duplicates,
        }
    }

    /// Returns the counts of one kind.
    pub fn counts(&self, kind: RecordKind) -> Counts {
        match kind {
            RecordKind::Entity => Counts {
                created: self.entities_created,
                updated: self.entities_updated,
                unchanged: self.entities_unchanged,
                deleted: self.entities_deleted,
                kept: self.entities_kept,
                held: self.entities_held,
                rejected: self.entities_rejected,
                duplicates: self.entities_duplicates,
            },
            RecordKind::Relationship => Counts {
                created: self.relationships_created,
                updated: self.relationships_updated,
                unchanged: self.relationships_unchanged,
                deleted: self.relationships_deleted,
                kept: self.relationships_kept,
                held: self.relationships_held,
                rejected: self.relationships_rejected,
                duplicates: self.relationships_duplicates,
            },
        }
    }
}

/// The counts of one kind of records, or of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not live before.
    pub created: u64,
    /// Content changed.
    pub updated: u64,
    /// Emitted as it was.
    pub unchanged: u64,
    /// Looked for everywhere and not found.
    pub deleted: u64,
    /// Not found, but not looked for everywhere either.
    pub kept: u64,
    /// Delete held for approval.
    pub held: u64,
    /// Emissions not accepted.
    pub rejected: u64,
    /// Emissions that repeated an earlier one.
    pub duplicates: u64,
}

impl Counts {
    /// Checks the books of a commit against what was emitted and what is stored.
    ///
    /// # Errors
    ///
    /// Returns the first sum that does not come out.
    pub fn balance(
        &self,
        kind: RecordKind,
        emitted: u64,
        live_before: u64,
        live_after: u64,
    ) -> Result<(), Imbalance> {
        let books = [
            (
                "emitted = created + updated + unchanged + duplicates + rejected",
                emitted,
                self.created + self.updated + self.unchanged + self.duplicates + self.rejected,
            ),
            (
                "live before = updated + unchanged + deleted + held + kept",
                live_before,
                self.updated + self.unchanged + self.deleted + self.held + self.kept,
            ),
            (
                "live after + deleted = live before + created",
                live_after + self.deleted,
                live_before + self.created,
            ),
        ];
        for (sum, left, right) in books {
            if left != right {
                return Err(Imbalance {
                    kind,
                    sum,
                    left,
                    right,
                });
            }
        }
        Ok(())
    }
}

/// A sum of a commit's books that does not come out: a defect, caught before it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the books do not balance: {kind}: {sum}: {left} is not {right}")]
pub struct Imbalance {
    /// The kind of records.
    pub kind: RecordKind,
    /// The sum.
    pub sum: &'static str,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_values_speak_of_the_same_counts() {
        let stats = SyncStats::from_values(std::array::from_fn(|place| place as u64));
        assert_eq!(SyncStats::FIELDS[0], "entities_created");
        assert_eq!(stats.entities_created, 0);
        assert_eq!(SyncStats::FIELDS[15], "relationships_duplicates");
        assert_eq!(stats.relationships_duplicates, 15);
        let joined = SyncStats::new(
            stats.counts(RecordKind::Entity),
            stats.counts(RecordKind::Relationship),
        );
        assert_eq!(joined, stats);
    }

    #[test]
    fn a_wrong_count_does_not_balance() {
        let counts = Counts {
            created: 2,
            unchanged: 3,
            deleted: 1,
            ..Counts::default()
        };
        assert_eq!(counts.balance(RecordKind::Entity, 5, 4, 5), Ok(()));
        for (emitted, before, after) in [(6, 4, 5), (5, 3, 5), (5, 4, 6)] {
            assert!(
                counts
                    .balance(RecordKind::Entity, emitted, before, after)
                    .is_err()
            );
        }
    }
}

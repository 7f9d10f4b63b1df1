use std::time::Duration;

use parallax_core::RecordKind;

use crate::explain::{ClaimName, RecordName, SyncRef};

/// Which records are listed: those that have all that is asked for.
///
/// Without more, all of a kind, in the order in which they were stored.
#[derive(Clone, Debug)]
pub struct Browse {
    pub(crate) kind: RecordKind,
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) name: Option<String>,
    pub(crate) source: Option<(String, String)>,
    pub(crate) prefix: Option<String>,
    pub(crate) end: Option<([u8; 16], Direction)>,
    pub(crate) after: u64,
    pub(crate) limit: u32,
    pub(crate) time: Duration,
}

/// Which way a relationship goes, seen from an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It begins there.
    Out,
    /// It ends there.
    In,
    /// Either.
    Both,
}

impl Browse {
    /// Lists entities.
    pub fn entities() -> Self {
        Self::all(RecordKind::Entity)
    }

    /// Lists relationships: those that are shown, whose ends both live.
    pub fn relationships() -> Self {
        Self::all(RecordKind::Relationship)
    }

    /// Lists the relationships of an entity.
    pub fn neighbours(entity: [u8; 16], direction: Direction) -> Self {
        Self {
            end: Some((entity, direction)),
            ..Self::relationships()
        }
    }

    fn all(kind: RecordKind) -> Self {
        Self {
            kind,
            id: None,
            name: None,
            source: None,
            prefix: None,
            end: None,
            after: 0,
            limit: 100,
            time: Duration::from_secs(1),
        }
    }

    /// Of this id: each source that has the record has one.
    #[must_use]
    pub fn id(mut self, id: [u8; 16]) -> Self {
        self.id = Some(id);
        self
    }

    /// Of this type, or with this verb.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Of this source.
    #[must_use]
    pub fn source(
        mut self,
        connector_id: impl Into<String>,
        account_id: impl Into<String>,
    ) -> Self {
        self.source = Some((connector_id.into(), account_id.into()));
        self
    }

    /// Whose key or, of an entity, display name begins so; upper and lower case of ASCII letters
    /// are alike.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Goes on after the place that [`Page::next`] told.
    #[must_use]
    pub fn after(mut self, place: u64) -> Self {
        self.after = place;
        self
    }

    /// Sets how many are listed at most, 100 if nobody says.
    #[must_use]
    pub fn limit(mut self, records: u32) -> Self {
        self.limit = records;
        self
    }

    /// Sets how long is looked at most, a second if nobody says. No index is over keys, so that
    /// finding the next record may take a look at all of them.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }
}

/// Some of the records that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The records, in the order in which they were stored.
    pub records: Vec<Stored>,
    /// Where to go on, if this may not have been all.
    pub next: Option<u64>,
    /// Whether the time was up before the limit was reached.
    pub timed_out: bool,
}

/// How many records of a type, or with a verb, there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordType {
    /// Of which kind they are.
    pub kind: RecordKind,
    /// The type of entities, the verb of relationships.
    pub name: String,
    /// How many: one that several sources have is counted for each of them.
    pub records: u64,
}

/// A record as one source has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub record: RecordName,
    /// The class of an entity, if it has one.
    pub class: Option<String>,
    /// Its properties, as a JSON object.
    pub properties: String,
    /// The connector of the source.
    pub connector_id: String,
    /// The account of the source.
    pub account_id: String,
    /// The steps and scopes on whose word it is stored.
    pub claims: Vec<ClaimName>,
    /// The changeset that holds its delete, if one does.
    pub held_changeset: Option<u64>,
    /// The sync that created it.
    pub created: Option<SyncRef>,
    /// The sync that changed its content last; the one that created it if none did.
    pub changed: Option<SyncRef>,
}

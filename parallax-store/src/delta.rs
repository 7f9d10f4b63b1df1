use parallax_core::{Counts, SyncReport};

use crate::claims::{ClaimSets, Judge, SetNo};
use crate::emissions::{ContentHash, Emissions, Emitted};

/// A stored record, as far as the comparison needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// The store's own number of the row.
    pub(crate) row: i64,
    pub(crate) id: [u8; 16],
    pub(crate) hash: ContentHash,
    pub(crate) claims: SetNo,
    /// The store's own number of the type or verb.
    pub(crate) name: i64,
}

/// What a sync means for the stored records of one kind.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// In the order of ids.
    pub(crate) creates: Vec<Emitted>,
    pub(crate) updates: Vec<Update>,
    /// Rows whose content stays and whose claims change.
    pub(crate) reclaims: Vec<(i64, SetNo)>,
    pub(crate) deletes: Vec<Stored>,
    pub(crate) counts: Counts,
    /// The counts by name: of emitted records by [`Emitted::name`], of stored ones by
    /// [`Stored::name`].
    pub(crate) by_emitted_name: Vec<Counts>,
    pub(crate) by_stored_name: std::collections::HashMap<i64, Counts>,
    pub(crate) live_before: u64,
}

/// A stored row whose content changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) row: i64,
    pub(crate) record: Emitted,
    pub(crate) claims: SetNo,
}

impl Delta {
    /// Compares what was emitted with what is stored, both sorted by id.
    ///
    /// # Errors
    ///
    /// Those of reading `stored`.
    pub(crate) fn compare<E>(
        emissions: &Emissions,
        stored: impl Iterator<Item = Result<Stored, E>>,
        report: &SyncReport,
        sets: &mut ClaimSets,
    ) -> Result<Self, E> {
        let mut delta = Self {
            by_emitted_name: vec![Counts::default(); emissions.names.len()],
            ..Self::default()
        };
        delta.counts.duplicates = emissions.duplicates;
        delta.counts.rejected = emissions.rejected;
        let mut judge = Judge::new(report);
        let mut emitted = emissions.records.iter().copied().peekable();
        for stored in stored {
            let stored = stored?;
            delta.live_before += 1;
            while let Some(record) = emitted.next_if(|record| record.id < stored.id) {
                delta.create(record);
            }
            match emitted.next_if(|record| record.id == stored.id) {
                Some(record) => {
                    let standing = judge.verdict(sets, stored.claims).standing;
                    let claims = sets.union(record.claims, standing);
                    delta.both(record, stored, claims);
                }
                None => {
                    let earned = judge.verdict(sets, stored.claims).earned;
                    delta.only_stored(stored, earned);
                }
            }
        }
        for record in emitted {
            delta.create(record);
        }
        Ok(delta)
    }

    fn create(&mut self, record: Emitted) {
        // A rejected record that is not stored has nothing to keep.
        if record.hash.is_some() {
            self.count_emitted(record, |counts| &mut counts.created);
            self.creates.push(record);
        }
    }

    fn both(&mut self, record: Emitted, stored: Stored, claims: SetNo) {
        match record.hash {
            // Seen, but not in a form that can be stored: what is stored stays.
            None => self.count_stored(stored, |counts| &mut counts.kept),
            Some(hash) if hash == stored.hash => {
                self.count_emitted(record, |counts| &mut counts.unchanged);
            }
            Some(_) => {
                self.count_emitted(record, |counts| &mut counts.updated);
                self.updates.push(Update {
                    row: stored.row,
                    record,
                    claims,
                });
                return;
            }
        }
        if claims != stored.claims {
            self.reclaims.push((stored.row, claims));
        }
    }

    fn only_stored(&mut self, stored: Stored, earned: bool) {
        if earned {
            self.count_stored(stored, |counts| &mut counts.deleted);
            self.deletes.push(stored);
        } else {
            self.count_stored(stored, |counts| &mut counts.kept);
        }
    }

    fn count_emitted(&mut self, record: Emitted, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.counts) += 1;
        if let Some(counts) = self.by_emitted_name.get_mut(record.name as usize) {
            *count(counts) += 1;
        }
    }

    fn count_stored(&mut self, stored: Stored, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.counts) += 1;
        *count(self.by_stored_name.entry(stored.name).or_default()) += 1;
    }
}

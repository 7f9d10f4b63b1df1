use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use parallax_core::{Counts, SyncReport};

use crate::claims::{ClaimSets, Judge, SetNo};
use crate::digest::{self, BUCKETS, Sums, bucket_of, first_of};
use crate::emissions::{Emissions, Emitted};

/// A stored record, as far as the comparison needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// The store's own number of the row.
    pub(crate) row: i64,
    pub(crate) id: u128,
    pub(crate) hash: u128,
    pub(crate) claims: SetNo,
    /// The changeset that holds its delete; negative once that was rejected.
    pub(crate) held: Option<i64>,
    /// The store's own number of the type or verb.
    pub(crate) name: i64,
}

/// What a sync means for the stored records of one kind.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// In the order of ids, as all others here.
    pub(crate) creates: Vec<Emitted>,
    pub(crate) updates: Vec<Update>,
    /// Rows whose content stays and whose claims change.
    pub(crate) reclaims: Vec<(i64, SetNo)>,
    /// Rows that were held and have been seen again.
    pub(crate) releases: Vec<(i64, i64)>,
    /// Deletes that are earned.
    pub(crate) deletes: Vec<Candidate>,
    /// Deletes that are earned and wait for somebody's word, beginning with this commit.
    pub(crate) holds: Vec<Candidate>,
    pub(crate) counts: Counts,
    /// The counts by name: of emitted records by [`Emitted::name`], of stored ones by
    /// [`Stored::name`].
    pub(crate) by_emitted_name: Vec<Counts>,
    pub(crate) by_stored_name: HashMap<i64, Counts>,
    pub(crate) live_before: u64,
    /// Those of them that do not come and go.
    pub(crate) lasting_before: u64,
    /// What the sums are after the commit, if there are many records.
    pub(crate) sums: Option<Sums>,
}

/// A stored row whose content changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) row: i64,
    pub(crate) record: Emitted,
    pub(crate) claims: SetNo,
}

/// A stored record that nobody claims any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) stored: Stored,
    /// Whether it is of a step whose records come and go.
    pub(crate) ephemeral: bool,
    /// Whether a step that claimed it is no longer declared.
    pub(crate) vanished: bool,
}

/// What a source has stored of a kind.
pub(crate) struct Stock<'a, E> {
    /// Its sums, if the store keeps them.
    pub(crate) sums: Option<Sums>,
    /// The ids of the records that are held: they are in no sum.
    pub(crate) held: Vec<u128>,
    /// Reads the records of a range of ids, in the order of ids.
    pub(crate) read: Read<'a, E>,
}

type Read<'a, E> = &'a mut dyn FnMut(RangeInclusive<u128>, &mut dyn FnMut(Stored)) -> Result<(), E>;

impl Delta {
    /// Compares what was emitted with what is stored. Buckets of equal sums are not read.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(crate) fn compare<E>(
        emissions: &Emissions,
        stock: Stock<'_, E>,
        report: &SyncReport,
        sets: &mut ClaimSets,
        seed: u64,
    ) -> Result<Self, E> {
        let mut comparison = Comparison {
            delta: Self {
                sums: (stock.sums.is_some() || emissions.buckets.is_some()).then(Sums::default),
                ..Self::default()
            },
            judge: Judge::new(report),
            sets,
            seed,
        };
        comparison.delta.counts.duplicates = emissions.duplicates;
        comparison.delta.counts.rejected = emissions.rejected;
        let ranges = ranges(emissions, stock.sums.as_ref(), &stock.held);
        for (buckets, differ) in ranges {
            let emitted = emissions.of_buckets(buckets.clone());
            if !differ {
                comparison.equal(emitted);
                if let (Some(sums), Some(stored)) = (&mut comparison.delta.sums, &stock.sums) {
                    sums.take(stored, buckets);
                }
                continue;
            }
            let mut rest = emitted;
            let first = first_of(buckets.start).unwrap_or(0);
            let last = first_of(buckets.end).map_or(u128::MAX, |next| next - 1);
            (stock.read)(first..=last, &mut |stored| {
                let before = rest
                    .iter()
                    .take_while(|record| record.id < stored.id)
                    .count();
                let (new, others) = rest.split_at_checked(before).unwrap_or((rest, &[]));
                for record in new {
                    comparison.only_emitted(*record);
                }
                rest = match others.split_first() {
                    Some((record, others)) if record.id == stored.id => {
                        comparison.both(*record, stored);
                        others
                    }
                    _ => {
                        comparison.only_stored(stored);
                        others
                    }
                };
            })?;
            for record in rest {
                comparison.only_emitted(*record);
            }
        }
        Ok(comparison.delta)
    }

    /// Holds the deletes of records that do not come and go.
    pub(crate) fn hold(&mut self) {
        let (deletes, holds) = self.deletes.iter().partition(|delete| delete.ephemeral);
        (self.deletes, self.holds) = (deletes, holds);
    }

    /// Counts what is deleted and what is held, once that is decided.
    pub(crate) fn count_deletes(&mut self) {
        for delete in &self.deletes {
            self.counts.deleted += 1;
            self.by_stored_name
                .entry(delete.stored.name)
                .or_default()
                .deleted += 1;
        }
        for hold in &self.holds {
            self.counts.held += 1;
            self.by_stored_name
                .entry(hold.stored.name)
                .or_default()
                .held += 1;
        }
    }
}

/// Divides the buckets into ranges that have to be compared and ranges that need not.
fn ranges(
    emissions: &Emissions,
    stored: Option<&Sums>,
    held: &[u128],
) -> Vec<(Range<usize>, bool)> {
    let (Some(stored), Some(emitted)) = (stored, &emissions.buckets) else {
        return vec![(0..BUCKETS, true)];
    };
    let mut differ: Vec<bool> = (0..BUCKETS)
        .map(|bucket| stored.get(bucket) != emitted.sums.get(bucket))
        .collect();
    // Records that are held are in no sum.
    for id in held {
        if let Some(differs) = differ.get_mut(bucket_of(*id)) {
            *differs = true;
        }
    }
    // Reading on is faster than looking for the next place.
    if differ.iter().filter(|differs| **differs).count() > BUCKETS / 4 {
        return vec![(0..BUCKETS, true)];
    }
    let mut ranges: Vec<(Range<usize>, bool)> = Vec::new();
    for (bucket, differs) in differ.into_iter().enumerate() {
        match ranges.last_mut() {
            Some((range, last)) if *last == differs => range.end = bucket + 1,
            _ => ranges.push((bucket..bucket + 1, differs)),
        }
    }
    ranges
}

struct Comparison<'a> {
    delta: Delta,
    judge: Judge<'a>,
    sets: &'a mut ClaimSets,
    seed: u64,
}

impl Comparison<'_> {
    /// Notes records that are stored just as they were emitted.
    fn equal(&mut self, emitted: &[Emitted]) {
        for record in emitted {
            self.live(record.claims);
            self.count_emitted(*record, |counts| &mut counts.unchanged);
        }
    }

    fn only_emitted(&mut self, record: Emitted) {
        // A rejected record that is not stored has nothing to keep.
        if record.is_accepted() {
            self.count_emitted(record, |counts| &mut counts.created);
            self.stays(record.id, record.hash, record.claims);
            self.delta.creates.push(record);
        }
    }

    fn both(&mut self, record: Emitted, stored: Stored) {
        self.live(stored.claims);
        let standing = self.judge.verdict(self.sets, stored.claims).standing;
        let claims = self.sets.union(record.claims, standing);
        if let Some(changeset) = stored.held {
            self.delta.releases.push((stored.row, changeset));
        }
        let is_update = record.is_accepted() && record.hash != stored.hash;
        if is_update {
            self.count_emitted(record, |counts| &mut counts.updated);
            self.delta.updates.push(Update {
                row: stored.row,
                record,
                claims,
            });
        } else {
            if record.is_accepted() {
                self.count_emitted(record, |counts| &mut counts.unchanged);
            } else {
                // Seen, but not in a form that can be stored: what is stored stays.
                self.count_stored(stored, |counts| &mut counts.kept);
            }
            if claims != stored.claims {
                self.delta.reclaims.push((stored.row, claims));
            }
        }
        let hash = if is_update { record.hash } else { stored.hash };
        self.stays(stored.id, hash, claims);
    }

    fn only_stored(&mut self, stored: Stored) {
        self.live(stored.claims);
        match stored.held {
            // Whether to delete it has been asked, and not been answered.
            Some(1..) => return self.count_stored(stored, |counts| &mut counts.held),
            // It has been answered.
            Some(_) => return self.count_stored(stored, |counts| &mut counts.kept),
            None => {}
        }
        let verdict = self.judge.verdict(self.sets, stored.claims);
        if verdict.earned {
            self.delta.deletes.push(Candidate {
                stored,
                ephemeral: verdict.ephemeral,
                vanished: verdict.vanished,
            });
        } else {
            self.count_stored(stored, |counts| &mut counts.kept);
            self.stays(stored.id, stored.hash, stored.claims);
        }
    }

    fn live(&mut self, claims: SetNo) {
        self.delta.live_before += 1;
        let is_ephemeral = self.judge.verdict(self.sets, claims).ephemeral;
        self.delta.lasting_before += u64::from(!is_ephemeral);
    }

    fn stays(&mut self, id: u128, hash: u128, claims: SetNo) {
        if let Some(sums) = &mut self.delta.sums {
            let claims = self.sets.hash(claims);
            sums.add(id, digest::of_record(id, hash, claims, self.seed));
        }
    }

    fn count_emitted(&mut self, record: Emitted, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.delta.counts) += 1;
        let names = &mut self.delta.by_emitted_name;
        if names.len() <= record.name as usize {
            names.resize(record.name as usize + 1, Counts::default());
        }
        if let Some(counts) = names.get_mut(record.name as usize) {
            *count(counts) += 1;
        }
    }

    fn count_stored(&mut self, stored: Stored, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.delta.counts) += 1;
        *count(self.delta.by_stored_name.entry(stored.name).or_default()) += 1;
    }
}

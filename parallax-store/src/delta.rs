use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use parallax_core::{Counts, SyncReport};

use crate::claims::{ClaimSets, Judge, SetNo};
use crate::digest::{self, Sums, first_of};
use crate::emissions::{Emissions, Emitted, NameNo};

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
    /// Places among the emissions, in the order of ids, as all others here.
    pub(crate) creates: Vec<u32>,
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
    /// The sets of claims of what was live before, each once.
    pub(crate) live_sets: Vec<SetNo>,
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
    pub(crate) sums: Option<&'a Sums>,
    /// The ids of the records that are held: they are in no sum.
    pub(crate) held: &'a [u128],
    /// Reads the records of a range of ids, in the order of ids.
    pub(crate) read: Read<'a, E>,
}

type Read<'a, E> = &'a mut dyn FnMut(RangeInclusive<u128>, &mut dyn FnMut(Stored)) -> Result<(), E>;

impl Delta {
    /// Compares what was emitted with what is stored, in some buckets. Those of equal sums are not
    /// read; those that differ are settled.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(crate) fn compare<E>(
        emissions: &Emissions,
        stock: Stock<'_, E>,
        part: Range<usize>,
        report: &SyncReport,
        sets: &mut ClaimSets,
        seed: u64,
    ) -> Result<Self, E> {
        let mut comparison = Comparison {
            delta: Self {
                sums: (stock.sums.is_some() || emissions.is_many()).then(Sums::default),
                ..Self::default()
            },
            judge: Judge::new(report),
            sets,
            seed,
        };
        // What is told of no bucket belongs to the first.
        if part.start == 0 {
            comparison.delta.counts.duplicates = emissions.duplicates;
            comparison.delta.counts.rejected = emissions.rejected;
            for (claims, name, count) in emissions.unsettled() {
                comparison.equal(claims, name, count);
            }
        }
        let differ = emissions.differ(stock.sums, stock.held);
        for (buckets, differ) in differ.ranges(part) {
            let (mut place, emitted) = emissions.of_buckets(buckets.clone());
            if !differ {
                for record in emitted {
                    comparison.equal(record.claims, record.name, 1);
                }
                if let (Some(sums), Some(stored)) = (&mut comparison.delta.sums, stock.sums) {
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
                    comparison.only_emitted(place, *record);
                    place += 1;
                }
                rest = match others.split_first() {
                    Some((record, others)) if record.id == stored.id => {
                        comparison.both(*record, stored);
                        place += 1;
                        others
                    }
                    _ => {
                        comparison.only_stored(stored);
                        others
                    }
                };
            })?;
            for record in rest {
                comparison.only_emitted(place, *record);
                place += 1;
            }
        }
        let Comparison {
            mut delta, judge, ..
        } = comparison;
        delta.live_sets = judge.judged().collect();
        Ok(delta)
    }

    /// Adds the delta of the buckets that follow.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.creates.append(&mut next.creates);
        self.updates.append(&mut next.updates);
        self.reclaims.append(&mut next.reclaims);
        self.releases.append(&mut next.releases);
        self.deletes.append(&mut next.deletes);
        add(&mut self.counts, next.counts);
        let names = next.by_emitted_name.len();
        if self.by_emitted_name.len() < names {
            self.by_emitted_name.resize(names, Counts::default());
        }
        for (counts, more) in self.by_emitted_name.iter_mut().zip(next.by_emitted_name) {
            add(counts, more);
        }
        for (name, more) in next.by_stored_name {
            add(self.by_stored_name.entry(name).or_default(), more);
        }
        self.live_sets.append(&mut next.live_sets);
        self.live_sets.sort_unstable();
        self.live_sets.dedup();
        self.live_before += next.live_before;
        self.lasting_before += next.lasting_before;
        if let (Some(sums), Some(more)) = (&mut self.sums, &next.sums) {
            sums.add_all(more);
        }
    }

    /// Names sets of claims by other numbers: of each, what stands at its place.
    pub(crate) fn renumber(&mut self, numbers: &[SetNo]) {
        let updates = self.updates.iter_mut().map(|update| &mut update.claims);
        let reclaims = self.reclaims.iter_mut().map(|(_, claims)| claims);
        for claims in updates.chain(reclaims).chain(&mut self.live_sets) {
            if let Some(number) = numbers.get(*claims as usize) {
                *claims = *number;
            }
        }
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

/// Adds counts to others.
pub(crate) fn add(counts: &mut Counts, more: Counts) {
    counts.created += more.created;
    counts.updated += more.updated;
    counts.unchanged += more.unchanged;
    counts.deleted += more.deleted;
    counts.kept += more.kept;
    counts.held += more.held;
    counts.rejected += more.rejected;
    counts.duplicates += more.duplicates;
}

struct Comparison<'a> {
    delta: Delta,
    /// Asked about the claims of all that is live, and of nothing else.
    judge: Judge<'a>,
    sets: &'a mut ClaimSets,
    seed: u64,
}

impl Comparison<'_> {
    /// Notes records that are stored just as they were emitted.
    fn equal(&mut self, claims: SetNo, name: NameNo, records: u64) {
        self.live(claims, records);
        self.count_emitted(name, records, |counts| &mut counts.unchanged);
    }

    #[expect(clippy::cast_possible_truncation, reason = "they are at most `MOST`")]
    fn only_emitted(&mut self, place: usize, record: Emitted) {
        // A rejected record that is not stored has nothing to keep.
        if record.is_accepted() {
            self.count_emitted(record.name, 1, |counts| &mut counts.created);
            self.stays(record.id, record.hash, record.claims);
            self.delta.creates.push(place as u32);
        }
    }

    fn both(&mut self, record: Emitted, stored: Stored) {
        self.live(stored.claims, 1);
        let standing = self.judge.verdict(self.sets, stored.claims).standing;
        let claims = self.sets.union(record.claims, standing);
        if let Some(changeset) = stored.held {
            self.delta.releases.push((stored.row, changeset));
        }
        let is_update = record.is_accepted() && record.hash != stored.hash;
        if is_update {
            self.count_emitted(record.name, 1, |counts| &mut counts.updated);
            self.delta.updates.push(Update {
                row: stored.row,
                record,
                claims,
            });
        } else {
            if record.is_accepted() {
                self.count_emitted(record.name, 1, |counts| &mut counts.unchanged);
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
        self.live(stored.claims, 1);
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

    fn live(&mut self, claims: SetNo, records: u64) {
        self.delta.live_before += records;
        if !self.judge.verdict(self.sets, claims).ephemeral {
            self.delta.lasting_before += records;
        }
    }

    fn stays(&mut self, id: u128, hash: u128, claims: SetNo) {
        if let Some(sums) = &mut self.delta.sums {
            let claims = self.sets.hash(claims);
            sums.add(id, digest::of_record(id, hash, claims, self.seed));
        }
    }

    fn count_emitted(
        &mut self,
        name: NameNo,
        records: u64,
        count: impl Fn(&mut Counts) -> &mut u64,
    ) {
        *count(&mut self.delta.counts) += records;
        let names = &mut self.delta.by_emitted_name;
        if names.len() <= name as usize {
            names.resize(name as usize + 1, Counts::default());
        }
        if let Some(counts) = names.get_mut(name as usize) {
            *count(counts) += records;
        }
    }

    fn count_stored(&mut self, stored: Stored, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.delta.counts) += 1;
        *count(self.delta.by_stored_name.entry(stored.name).or_default()) += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use parallax_core::{StepReport, StepStatus};
    use proptest::prelude::*;

    use super::*;
    use crate::digest::BUCKETS;
    use crate::emissions::tests::gathered;

    const SEED: u64 = 7;

    /// What a source has stored: by id the hash, and the changeset that holds it.
    type Rows = BTreeMap<u128, (u128, Option<i64>)>;

    /// A delta, and the ids of what it creates.
    type Compared = (Delta, Vec<u128>);

    /// Compares in parts that end with these buckets. Returns the delta with the ids of what is
    /// created, and how many rows were read.
    fn compare(
        emitted: &[(u128, u128)],
        rows: &Rows,
        sums: Option<Sums>,
        parts: &[usize],
        report: &SyncReport,
    ) -> (Compared, usize) {
        let mut sets = ClaimSets::default();
        let claims = sets.single("hosts", None);
        let mut emissions = gathered(emitted, claims, &sets, SEED);
        let mut reads = 0;
        let mut read = |ids: RangeInclusive<u128>, each: &mut dyn FnMut(Stored)| {
            for (row, (&id, &(hash, held))) in (1i64..).zip(rows) {
                if ids.contains(&id) {
                    reads += 1;
                    each(Stored {
                        row,
                        id,
                        hash,
                        claims,
                        held,
                        name: 0,
                    });
                }
            }
            Ok::<_, Infallible>(())
        };
        let held = rows.iter().filter(|(_, row)| row.1.is_some());
        let held: Vec<u128> = held.map(|(id, _)| *id).collect();
        emissions.settle(&emissions.differ(sums.as_ref(), &held), &mut sets, SEED);
        // In parts, which are one delta again.
        let mut compare = |buckets| {
            let stock = Stock {
                sums: sums.as_ref(),
                held: &held,
                read: &mut read,
            };
            let Ok(delta) = Delta::compare(&emissions, stock, buckets, report, &mut sets, SEED);
            delta
        };
        let mut delta = compare(0..parts[0]);
        for part in parts.windows(2) {
            delta.append(compare(part[0]..part[1]));
        }
        let creates = emissions.at(&delta.creates).map(|record| record.id);
        let creates = creates.collect();
        ((delta, creates), reads)
    }

    /// All that a delta says, but for the places of what was emitted.
    fn said((delta, creates): &Compared) -> impl PartialEq + std::fmt::Debug {
        let updates: Vec<_> = delta
            .updates
            .iter()
            .map(|u| (u.row, u.record.hash, u.claims))
            .collect();
        let deletes: Vec<_> = delta.deletes.iter().map(|d| d.stored.row).collect();
        let live = (delta.live_before, delta.lasting_before);
        let releases = delta.releases.clone();
        let changes = (creates.clone(), updates, deletes, releases);
        (changes, delta.counts, live)
    }

    fn digest_of(id: u128, hash: u128) -> u128 {
        let mut sets = ClaimSets::default();
        let claims = sets.single("hosts", None);
        digest::of_record(id, hash, sets.hash(claims), SEED)
    }

    /// The sums of what is stored once this has been committed.
    fn sums_after(emitted: &[(u128, u128)], rows: &Rows, step_failed: bool) -> Sums {
        let mut seen = BTreeMap::new();
        for &(id, hash) in emitted {
            let seen = seen.entry(id).or_insert(hash);
            if *seen == 0 {
                *seen = hash;
            }
        }
        let mut sums = Sums::default();
        for (id, hash) in &seen {
            match (hash, rows.get(id)) {
                (0, None) => {}
                (0, Some((stored, _))) => sums.add(*id, digest_of(*id, *stored)),
                _ => sums.add(*id, digest_of(*id, *hash)),
            }
        }
        let kept = rows.iter().filter(|(id, _)| !seen.contains_key(*id));
        for (id, (hash, held)) in kept {
            if step_failed && held.is_none() {
                sums.add(*id, digest_of(*id, *hash));
            }
        }
        sums
    }

    fn ids() -> impl Iterator<Item = u128> {
        (0u128..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn sums_change_what_is_read_and_nothing_else(
            changed in prop::collection::vec((0..20_000usize, 0..6u8), 0..600),
            step_failed in prop::bool::weighted(0.2),
        ) {
            let emitted: Vec<(u128, u128)> = ids().map(|id| (id, id ^ 1)).take(20_000).collect();
            let mut rows: Rows = emitted.iter().map(|(id, hash)| (*id, (*hash, None))).collect();
            let ended = |status| {
                let mut step = StepReport::new("hosts", "");
                step.status = status;
                SyncReport::new(vec![step])
            };
            let complete = ended(StepStatus::Completed);
            // Sums as the commit before left them.
            let (before, _) = compare(&emitted, &rows, None, &[BUCKETS], &complete);
            let mut sums = before.0.sums.clone().unwrap();
            let mut now = emitted.clone();
            for (place, what) in changed {
                let (id, hash) = emitted[place];
                match what {
                    0 => now[place].1 = hash ^ 2,                       // updated
                    1 => now[place].0 = id ^ 1,                         // gone, and another there
                    2 => now[place].0 = emitted[(place + 1) % 20_000].0, // a duplicate
                    3 => now[place].1 = 0,                              // rejected
                    _ => {
                        // Held, or kept for good: in no sum.
                        let held = if what == 4 { 3 } else { -3 };
                        if rows.insert(id, (hash, Some(held))) == Some((hash, None)) {
                            sums.add(id, digest_of(id, hash).wrapping_neg());
                        }
                    }
                }
            }
            let report = if step_failed { ended(StepStatus::Failed) } else { complete };
            let (with, few) = compare(&now, &rows, Some(sums), &[1000, BUCKETS / 2, BUCKETS], &report);
            let (without, all) = compare(&now, &rows, None, &[BUCKETS], &report);
            prop_assert_eq!(said(&with), said(&without));
            prop_assert_eq!(&with.0.sums, &without.0.sums);
            prop_assert_eq!(with.0.sums, Some(sums_after(&now, &rows, step_failed)));
            prop_assert_eq!(all, 20_000);
            prop_assert!(few <= all);
        }
    }

    #[test]
    fn equal_buckets_are_not_read() {
        let emitted: Vec<(u128, u128)> = ids().map(|id| (id, id ^ 1)).take(20_000).collect();
        let rows: Rows = emitted
            .iter()
            .map(|(id, hash)| (*id, (*hash, None)))
            .collect();
        let report = SyncReport::default();
        let (first, all) = compare(&emitted, &rows, None, &[BUCKETS / 2, BUCKETS], &report);
        let (second, none) = compare(&emitted, &rows, first.0.sums.clone(), &[BUCKETS], &report);
        assert_eq!((all, none), (20_000, 0));
        assert_eq!(said(&first), said(&second));

        let mut one_changed = emitted.clone();
        one_changed[77].1 ^= 2;
        let (third, few) = compare(
            &one_changed,
            &rows,
            first.0.sums.clone(),
            &[BUCKETS],
            &report,
        );
        assert_eq!(
            (third.0.counts.updated, third.0.counts.unchanged),
            (1, 19_999)
        );
        assert!((1..=20).contains(&few), "{few} rows of one bucket");

        // Whether what is emitted twice is as it was shows only once that is one record.
        let mut one_twice = emitted.clone();
        one_twice.push(emitted[77]);
        let (fourth, none) = compare(&one_twice, &rows, first.0.sums, &[BUCKETS], &report);
        let counts = fourth.0.counts;
        assert_eq!((counts.unchanged, counts.duplicates, none), (20_000, 1, 0));
    }
}

use std::num::NonZero;
use std::ops::Range;
use std::thread;

use parallax_core::{Batch, EmissionRef, RecordKind, SyncReport};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::claims::{ClaimSets, SetNo};
use crate::contents::{Place, Spooled};
use crate::digest::{self, BUCKETS, Buckets, Sums, bucket_of};
use crate::findings::Names;

/// The place of a type or verb among the names of a run.
pub(crate) type NameNo = u32;

/// An emission, and once it is settled all emissions of one record.
///
/// 48 bytes: what a run holds in memory of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Emitted {
    pub(crate) id: u128,
    /// A hash of its content, seeded with the store's secret, so that no source can prepare two
    /// contents with one hash to hide a change.
    pub(crate) hash: u128,
    pub(crate) place: Place,
    /// Who emitted it. Before the merge: the scope, by its place in the step's report.
    pub(crate) claims: SetNo,
    /// Its type or verb.
    pub(crate) name: NameNo,
}

const _: () = assert!(size_of::<Emitted>() == 48);

impl Emitted {
    const NO_SCOPE: u32 = u32::MAX;

    pub(crate) fn new(emission: EmissionRef<'_>, name: NameNo, place: Place, seed: u64) -> Self {
        Self {
            id: u128::from_be_bytes(emission.id),
            hash: emission
                .content
                .map_or(0, |content| xxh3_128_with_seed(content, seed)),
            place: emission.content.map_or(Place::NOWHERE, |_| place),
            claims: emission.scope.unwrap_or(Self::NO_SCOPE),
            name,
        }
    }

    /// Returns its digest. A rejected record has the hash 0, and so equals no stored one.
    fn digest(&self, sets: &ClaimSets, seed: u64) -> u128 {
        digest::of_record(self.id, self.hash, sets.hash(self.claims), seed)
    }

    /// Tells whether some emission of it was accepted.
    pub(crate) fn is_accepted(&self) -> bool {
        self.place != Place::NOWHERE
    }
}

/// Emissions in order, in pieces, so that they can be given back piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Vec<Emitted>>);

impl Pieces {
    const SMALLEST: usize = 16;
    const LARGEST: usize = 16 << 10;

    fn push(&mut self, emission: Emitted) {
        match self.0.last_mut() {
            Some(last) if last.len() < last.capacity() => last.push(emission),
            last => {
                let capacity = last.map_or(Self::SMALLEST, |last| last.capacity() * 4);
                let mut piece = Vec::with_capacity(capacity.min(Self::LARGEST));
                piece.push(emission);
                self.0.push(piece);
            }
        }
    }

    /// Adds the emissions of one kind of a batch.
    pub(crate) fn add(
        &mut self,
        batch: &Batch,
        kind: RecordKind,
        spooled: Spooled,
        names: &mut Names,
        seed: u64,
    ) {
        for (emission, place) in spooled.emissions(batch, kind) {
            let name = names.of(emission);
            self.push(Emitted::new(emission, name, place, seed));
        }
    }

    /// Adds others that come after. Their names are told by other numbers: what they are here
    /// stands at the place of each.
    pub(crate) fn append(&mut self, mut others: Self, names: &[NameNo]) {
        if !(0..).zip(names).all(|(there, here)| there == *here) {
            for emission in others.0.iter_mut().flatten() {
                if let Some(here) = names.get(emission.name as usize) {
                    emission.name = *here;
                }
            }
        }
        self.0.append(&mut others.0);
    }

    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// What a step emitted of one kind, and whose claims that makes.
#[derive(Debug)]
pub(crate) struct StepPieces {
    pub(crate) pieces: Pieces,
    pub(crate) claims: StepClaims,
}

/// The claims that a step makes: in each of its scopes, and in none.
#[derive(Clone, Debug)]
pub(crate) struct StepClaims {
    scopes: Vec<SetNo>,
    unscoped: SetNo,
}

impl StepClaims {
    /// Returns the claims of an emission: of a scope by its place, or of none.
    fn of_scope(&self, scope: u32) -> SetNo {
        let set = self.scopes.get(scope as usize);
        set.copied().unwrap_or(self.unscoped)
    }
}

/// What a sync emitted of one kind.
///
/// Emissions are summed up as they came. Only those of buckets that differ from what is stored are
/// brought into order, by [`settle`](Self::settle): of the others nothing is asked but how many
/// they are.
#[derive(Debug)]
pub(crate) struct Emissions {
    /// As they came, steps in the order of their declaration; none once all are settled.
    unsorted: Vec<Vec<Emitted>>,
    /// Which buckets are settled.
    settled: Buckets,
    /// All emissions.
    tally: Tally,
    /// Those of buckets that are not settled.
    unsettled: Tally,
    /// Of the buckets that are: one entry per id, sorted by id.
    records: Vec<Emitted>,
    /// Of many emissions: where the records of each bucket begin, and where the last one ends.
    starts: Vec<usize>,
    /// The sum of the digests of all.
    pub(crate) total: u128,
    /// Of many emissions. A bucket with a rejected record equals no stored one.
    sums: Option<Sums>,
    /// Types or verbs, each once.
    pub(crate) names: Vec<String>,
    /// All emissions, accepted or not.
    pub(crate) emitted: u64,
    rejected_by_emit: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
    is_many: bool,
}

impl Emissions {
    /// Fewer are not worth a thread, nor being divided into buckets.
    pub(crate) const MANY: usize = 16_384;
    /// More have no place: see [`Delta::creates`](crate::delta::Delta::creates).
    pub(crate) const MOST: u64 = u32::MAX as u64;

    /// Sums up the emissions of each step, steps in the order of their declaration.
    pub(crate) fn new(
        steps: Vec<StepPieces>,
        names: Vec<String>,
        [emitted, rejected]: [u64; 2],
        sets: &ClaimSets,
        seed: u64,
    ) -> Self {
        let count: usize = steps.iter().map(|step| step.pieces.len()).sum();
        let is_many = count >= Self::MANY;
        let steps = steps.into_iter().map(|step| (step.pieces.0, step.claims));
        let (pieces, claims): (Vec<_>, Vec<_>) = steps.unzip();
        let pieces = pieces.into_iter().zip(&claims);
        let mut pieces: Vec<(Vec<Emitted>, &StepClaims)> = pieces
            .flat_map(|(pieces, claims)| pieces.into_iter().map(move |piece| (piece, claims)))
            .collect();
        let parts = in_parts(is_many, &mut pieces, |pieces| {
            let mut sums = is_many.then(Sums::default);
            let (mut total, mut tally) = (0u128, Tally::default());
            for (piece, claims) in pieces {
                for emission in piece {
                    emission.claims = claims.of_scope(emission.claims);
                    let digest = emission.digest(sets, seed);
                    total = total.wrapping_add(digest);
                    if let Some(sums) = &mut sums {
                        sums.add(emission.id, digest);
                    }
                    tally.add(emission);
                }
            }
            (total, sums, tally)
        });
        let mut parts = parts.into_iter();
        let (mut total, mut sums, mut tally) = parts.next().unwrap_or_default();
        for (more_total, more_sums, more) in parts {
            total = total.wrapping_add(more_total);
            if let (Some(sums), Some(more)) = (&mut sums, &more_sums) {
                sums.add_all(more);
            }
            tally.add_all(&more);
        }
        Self {
            unsorted: pieces.into_iter().map(|(piece, _)| piece).collect(),
            settled: Buckets::none(),
            unsettled: tally.clone(),
            tally,
            records: Vec::new(),
            starts: Vec::new(),
            total,
            sums,
            names,
            emitted,
            rejected_by_emit: rejected,
            duplicates: 0,
            rejected,
            is_many,
        }
    }

    /// Tells whether they are divided into buckets.
    pub(crate) fn is_many(&self) -> bool {
        self.is_many
    }

    /// Tells whether some were accepted, and none is here.
    pub(crate) fn are_gone(&self) -> bool {
        self.emitted > self.rejected_by_emit && self.tally.counts().next().is_none()
    }

    /// Tells of each bucket whether it differs from what is stored: of few emissions each does, and
    /// of all if the store keeps no sums. Records that are held are in no sum.
    pub(crate) fn differ(&self, stored: Option<&Sums>, held: &[u128]) -> Buckets {
        let (Some(stored), Some(sums)) = (stored, &self.sums) else {
            return Buckets::All;
        };
        let mut differ: Vec<bool> = (0..BUCKETS)
            .map(|bucket| stored.get(bucket) != sums.get(bucket))
            .collect();
        for id in held {
            if let Some(differs) = differ.get_mut(bucket_of(*id)) {
                *differs = true;
            }
        }
        let differ = Buckets::These(differ);
        // Reading on is faster than looking for the next place.
        if differ.len() > BUCKETS / 4 {
            return Buckets::All;
        }
        differ
    }

    /// Sorts and merges the emissions of some buckets, and of those that were settled before.
    ///
    /// Of all emissions of an id one record is made: of different contents the first wins, whoever
    /// emitted it claims it. Arrival plays no part. In a bucket that equals what is stored no id
    /// was emitted twice: the sum would be another one.
    pub(crate) fn settle(&mut self, buckets: &Buckets, sets: &mut ClaimSets, seed: u64) {
        let wanted = self.settled.union(buckets);
        if wanted == self.settled {
            return;
        }
        if wanted == Buckets::All {
            self.unsettled = Tally::default();
            let pieces = std::mem::take(&mut self.unsorted);
            self.sort(pieces);
        } else {
            self.unsettled = self.tally.clone();
            let pieces = self.unsorted.iter().map(|piece| {
                let wanted = piece
                    .iter()
                    .filter(|emission| wanted.contains(bucket_of(emission.id)));
                wanted.copied().collect::<Vec<_>>()
            });
            let pieces: Vec<Vec<Emitted>> = pieces.collect();
            for emission in pieces.iter().flatten() {
                self.unsettled.remove(emission);
            }
            self.sort(pieces);
        }
        self.settled = wanted;
        self.merge(sets, seed);
    }

    /// Sorts emissions by id.
    fn sort(&mut self, pieces: Vec<Vec<Emitted>>) {
        let nothing = Emitted {
            id: 0,
            hash: 0,
            place: Place::NOWHERE,
            claims: 0,
            name: 0,
        };
        // Into buckets first, in one pass: sorting what fits the cache is twice as fast.
        let is_many = self.is_many;
        let place_of = |emission: &Emitted| if is_many { bucket_of(emission.id) } else { 0 };
        let mut next = vec![0; if is_many { BUCKETS } else { 1 }];
        for emission in pieces.iter().flatten() {
            if let Some(count) = next.get_mut(place_of(emission)) {
                *count += 1;
            }
        }
        let mut begin = 0;
        for count in &mut next {
            begin += std::mem::replace(count, begin);
        }
        let mut sorted = vec![nothing; begin];
        for piece in pieces {
            for emission in piece {
                if let Some(next) = next.get_mut(place_of(&emission))
                    && let Some(slot) = sorted.get_mut(*next)
                {
                    *slot = emission;
                    *next += 1;
                }
            }
        }
        let mut rest = sorted.as_mut_slice();
        let mut begin = 0;
        let buckets = next.into_iter().map(|end| {
            let (bucket, after) = std::mem::take(&mut rest).split_at_mut(end - begin);
            (rest, begin) = (after, end);
            bucket
        });
        in_parts(self.is_many, &mut buckets.collect::<Vec<_>>(), |buckets| {
            for bucket in buckets {
                // Stable: of equal ids the one that was declared, then emitted, first comes first.
                bucket.sort_by_key(|emission| emission.id);
            }
        });
        self.records = sorted;
    }

    /// Makes one record of all emissions of an id.
    fn merge(&mut self, sets: &mut ClaimSets, seed: u64) {
        (self.duplicates, self.rejected) = (0, self.rejected_by_emit);
        let mut changed = Vec::new();
        self.records.dedup_by(|record, first| {
            if record.id != first.id {
                return false;
            }
            // Whoever emits it has seen it, whether or not the content is taken.
            first.claims = sets.union(first.claims, record.claims);
            match (first.is_accepted(), record.is_accepted()) {
                (_, false) => {} // counted when `emit` rejected it
                (false, true) => {
                    *first = Emitted {
                        claims: first.claims,
                        ..*record
                    }
                }
                (true, true) if first.hash == record.hash => self.duplicates += 1,
                (true, true) => self.rejected += 1,
            }
            if changed.last() != Some(&bucket_of(first.id)) {
                changed.push(bucket_of(first.id));
            }
            true
        });
        if self.is_many {
            self.starts.clear();
            for bucket in 0..BUCKETS {
                let from = self.starts.last().copied().unwrap_or(0);
                let rest = self.records.get(from..).unwrap_or_default();
                let before = rest.partition_point(|record| bucket_of(record.id) < bucket);
                self.starts.push(from + before);
            }
            self.starts.push(self.records.len());
        }
        if changed.is_empty() {
            return;
        }
        let Some(mut sums) = self.sums.take() else {
            self.total = self.sum(0..BUCKETS, sets, seed);
            return;
        };
        for bucket in changed {
            sums.set(bucket, self.sum(bucket..bucket + 1, sets, seed));
        }
        self.total = sums.total();
        self.sums = Some(sums);
    }

    /// Sums up the digests of the settled records of some buckets.
    fn sum(&self, buckets: Range<usize>, sets: &ClaimSets, seed: u64) -> u128 {
        let (_, records) = self.of_buckets(buckets);
        let digests = records.iter().map(|record| record.digest(sets, seed));
        digests.fold(0, u128::wrapping_add)
    }

    /// Returns the settled records of some buckets, in the order of ids, and the place of the first.
    pub(crate) fn of_buckets(&self, buckets: Range<usize>) -> (usize, &[Emitted]) {
        let start = |bucket: usize| {
            if self.is_many {
                return self.starts.get(bucket).copied().unwrap_or_default();
            }
            let before = |record: &Emitted| bucket_of(record.id) < bucket;
            self.records.partition_point(before)
        };
        let places = start(buckets.start)..start(buckets.end);
        (places.start, self.records.get(places).unwrap_or_default())
    }

    /// Returns the settled records at some places.
    pub(crate) fn at<'a>(&'a self, places: &[u32]) -> impl Iterator<Item = &'a Emitted> {
        places
            .iter()
            .filter_map(|place| self.records.get(*place as usize))
    }

    /// Returns how many emissions of each name and set of claims are in buckets that are not
    /// settled.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = (SetNo, NameNo, u64)> {
        self.unsettled.counts()
    }

    /// Finds a settled record by its id.
    pub(crate) fn find(&self, id: u128) -> Option<&Emitted> {
        let bucket = bucket_of(id);
        let (_, records) = self.of_buckets(bucket..bucket + 1);
        let place = records.binary_search_by_key(&id, |record| record.id).ok()?;
        records.get(place)
    }
}

/// How many emissions there are of each set of claims and name.
#[derive(Clone, Debug, Default)]
struct Tally(Vec<Vec<u64>>);

impl Tally {
    fn add(&mut self, emission: &Emitted) {
        self.change(emission.claims, emission.name, |count| count + 1);
    }

    fn remove(&mut self, emission: &Emitted) {
        self.change(emission.claims, emission.name, |count| count - 1);
    }

    fn add_all(&mut self, others: &Self) {
        for (claims, name, more) in others.counts() {
            self.change(claims, name, |count| count + more);
        }
    }

    fn change(&mut self, claims: SetNo, name: NameNo, change: impl FnOnce(u64) -> u64) {
        let (claims, name) = (claims as usize, name as usize);
        if self.0.len() <= claims {
            self.0.resize(claims + 1, Vec::new());
        }
        if let Some(names) = self.0.get_mut(claims) {
            if names.len() <= name {
                names.resize(name + 1, 0);
            }
            if let Some(count) = names.get_mut(name) {
                *count = change(*count);
            }
        }
    }

    fn counts(&self) -> impl Iterator<Item = (SetNo, NameNo, u64)> {
        (0..).zip(&self.0).flat_map(|(claims, names)| {
            let counts = (0..).zip(names).filter(|(_, count)| **count > 0);
            counts.map(move |(name, count)| (claims, name, *count))
        })
    }
}

/// Does a job for parts of the items, each on a thread of its own if that is worth it. Returns what
/// came of them, in order.
pub(crate) fn in_parts<T: Send, U: Send>(
    is_worth_it: bool,
    items: &mut [T],
    job: impl Fn(&mut [T]) -> U + Sync,
) -> Vec<U> {
    // Asked only then: the answer is read from files of the system.
    let threads = match items.len() {
        2.. if is_worth_it => thread::available_parallelism().map_or(1, NonZero::get),
        _ => 1,
    };
    if threads == 1 {
        return vec![job(items)];
    }
    let size = items.len().div_ceil(threads);
    thread::scope(|scope| {
        let parts = items.chunks_mut(size).map(|part| scope.spawn(|| job(part)));
        let parts: Vec<_> = parts.collect();
        let done = parts.into_iter().map(|part| match part.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}

/// Returns the claims of each step.
pub(crate) fn claims_of_steps(report: &SyncReport, sets: &mut ClaimSets) -> Vec<StepClaims> {
    let mut claims = |step_id: &str, scope: Option<&str>| sets.single(step_id, scope);
    let steps = report.steps().iter().map(|step| {
        let scopes = step.scopes.iter();
        let scopes = scopes.map(|scope| claims(&step.step_id, Some(&scope.name)));
        StepClaims {
            scopes: scopes.collect(),
            unscoped: claims(&step.step_id, None),
        }
    });
    steps.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Gathers emissions of one step: each an id and a hash, which is 0 if it was rejected.
    pub(crate) fn gathered(
        emitted: &[(u128, u128)],
        claims: SetNo,
        sets: &ClaimSets,
        seed: u64,
    ) -> Emissions {
        let mut pieces = Pieces::default();
        for &(id, hash) in emitted {
            let place = if hash == 0 {
                Place::NOWHERE
            } else {
                Place::default()
            };
            pieces.push(Emitted {
                id,
                hash,
                place,
                claims: Emitted::NO_SCOPE,
                name: 0,
            });
        }
        let claims = StepClaims {
            scopes: Vec::new(),
            unscoped: claims,
        };
        let steps = vec![StepPieces { pieces, claims }];
        let names = vec!["host".to_owned()];
        Emissions::new(steps, names, [emitted.len() as u64, 0], sets, seed)
    }

    #[test]
    fn many_are_sorted_as_few_are() {
        let ids = (0u128..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let mut emitted: Vec<(u128, u128)> =
            ids.map(|id| (id, 1)).take(Emissions::MANY + 1).collect();
        // Of equal ids the first wins.
        let (first, last) = (emitted[0].0, emitted.len() - 1);
        emitted[last] = (first, 2);
        let mut sets = ClaimSets::default();
        let claims = sets.single("hosts", None);
        let mut emissions = gathered(&emitted, claims, &sets, 7);
        assert!(emissions.is_many());
        emissions.settle(&Buckets::All, &mut sets, 7);
        assert_eq!((emissions.duplicates, emissions.rejected), (0, 1));
        assert_eq!(emissions.find(first).unwrap().hash, 1);
        assert_eq!(emissions.find(first ^ 1).map(|record| record.hash), None);
        assert!(emissions.records.is_sorted_by_key(|record| record.id));
        assert_eq!(emissions.records.len(), Emissions::MANY);
        let (_, all) = emissions.of_buckets(0..BUCKETS);
        let halves = [0..BUCKETS / 2, BUCKETS / 2..BUCKETS];
        let halves = halves.map(|half| emissions.of_buckets(half));
        assert_eq!(all, [halves[0].1, halves[1].1].concat());
        assert_eq!(halves[1].0, halves[0].1.len());
    }

    /// All that emissions say, but for how many are settled.
    fn said(emissions: &Emissions) -> impl PartialEq + std::fmt::Debug {
        let counts = (emissions.duplicates, emissions.rejected);
        (emissions.total, emissions.sums.clone(), counts)
    }

    #[test]
    fn settled_piece_by_piece_they_are_what_they_are_settled_at_once() {
        let ids = (0u128..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let mut emitted: Vec<(u128, u128)> = ids.map(|id| (id, id ^ 1)).take(20_000).collect();
        // Duplicates, another content, and rejected ones, in one bucket in eight.
        let twice = emitted
            .clone()
            .into_iter()
            .filter(|(id, _)| bucket_of(*id).is_multiple_of(8));
        emitted.extend(twice.map(|(id, hash)| match bucket_of(id) % 24 {
            0 => (id, hash),
            8 => (id, hash ^ 2),
            _ => (id, 0),
        }));
        let mut sets = ClaimSets::default();
        let claims = sets.single("hosts", None);
        let gathered = || gathered(&emitted, claims, &ClaimSets::default(), 7);

        let mut at_once = gathered();
        at_once.settle(&Buckets::All, &mut sets, 7);
        assert_eq!(at_once.unsettled().count(), 0);

        let mut by_piece = gathered();
        let of = |place| Buckets::These((0..BUCKETS).map(|b| b % 8 == place).collect());
        // Only these hold ids that were emitted twice.
        by_piece.settle(&of(0), &mut sets, 7);
        assert_eq!(said(&by_piece), said(&at_once));
        for place in 1..8 {
            let settled = by_piece.records.len() as u64;
            let unsettled: u64 = by_piece.unsettled().map(|(.., count)| count).sum();
            assert_eq!(settled + unsettled, at_once.records.len() as u64);
            by_piece.settle(&of(place), &mut sets, 7);
            assert_eq!(said(&by_piece), said(&at_once));
        }
        assert_eq!(by_piece.records, at_once.records);
        assert_eq!(by_piece.unsorted.len(), 0);
    }
}

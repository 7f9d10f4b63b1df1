use std::ops::Range;

use parallax_core::{Batch, EmissionRef, RecordKind, SyncReport};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::claims::{ClaimSets, SetNo};
use crate::contents::{Place, Spooled};
use crate::digest::{self, BUCKETS, Sums, bucket_of};
use crate::findings::Names;

/// The place of a type or verb among the names of a run.
pub(crate) type NameNo = u32;

/// An emission, and after [`Emissions::merge`] all emissions of one record.
///
/// 48 bytes: what a run holds in memory of each record.
#[derive(Clone, Copy, Debug)]
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

/// What a sync emitted of one kind: one entry per id, sorted by id.
#[derive(Debug)]
pub(crate) struct Emissions {
    records: Vec<Emitted>,
    /// The sum of all digests.
    pub(crate) total: u128,
    /// Of many records: their buckets.
    pub(crate) buckets: Option<Buckets>,
    /// Types or verbs, each once.
    pub(crate) names: Vec<String>,
    /// All emissions, accepted or not.
    pub(crate) emitted: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
}

/// Where the buckets of emissions begin, and what they sum up to.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// One more than there are buckets: where the last one ends.
    starts: Vec<usize>,
    /// A bucket with a rejected record equals no other.
    pub(crate) sums: Sums,
}

impl Emissions {
    /// Fewer are not worth the buckets.
    pub(crate) const MANY: usize = 16_384;

    /// Sorts the emissions of each step, steps in the order of their declaration.
    pub(crate) fn sort(steps: Vec<StepPieces>) -> Vec<Emitted> {
        let count = steps.iter().map(|step| step.pieces.len()).sum();
        let claimed = |mut emission: Emitted, claims: &StepClaims| {
            let scope = claims.scopes.get(emission.claims as usize);
            emission.claims = scope.copied().unwrap_or(claims.unscoped);
            emission
        };
        if count < Self::MANY {
            let mut sorted = Vec::with_capacity(count);
            for StepPieces { pieces, claims } in steps {
                let emissions = pieces.0.into_iter().flatten();
                sorted.extend(emissions.map(|emission| claimed(emission, &claims)));
            }
            sorted.sort_by_key(|emission| emission.id);
            return sorted;
        }
        let mut next = [0; BUCKETS];
        for emission in steps.iter().flat_map(|step| &step.pieces.0).flatten() {
            if let Some(count) = next.get_mut(bucket_of(emission.id)) {
                *count += 1;
            }
        }
        let mut begin = 0;
        for count in &mut next {
            begin += std::mem::replace(count, begin);
        }
        // Into buckets first, in one pass: sorting what fits the cache is twice as fast.
        let nothing = Emitted {
            id: 0,
            hash: 0,
            place: Place::NOWHERE,
            claims: 0,
            name: 0,
        };
        let mut sorted = vec![nothing; count];
        for StepPieces { pieces, claims } in steps {
            for piece in pieces.0 {
                for emission in piece {
                    let emission = claimed(emission, &claims);
                    if let Some(next) = next.get_mut(bucket_of(emission.id))
                        && let Some(slot) = sorted.get_mut(*next)
                    {
                        *slot = emission;
                        *next += 1;
                    }
                }
            }
        }
        let mut begin = 0;
        for end in next {
            if let Some(bucket) = sorted.get_mut(begin..end) {
                // Stable: of equal ids the one that was declared, then emitted, first comes first.
                bucket.sort_by_key(|emission| emission.id);
            }
            begin = end;
        }
        sorted
    }

    /// Makes one record of all emissions of an id: of different contents the first wins, whoever
    /// emitted it claims it. Arrival plays no part.
    pub(crate) fn merge(
        mut sorted: Vec<Emitted>,
        names: Vec<String>,
        emitted: u64,
        rejected_by_emit: u64,
        sets: &mut ClaimSets,
    ) -> Self {
        let mut duplicates = 0;
        let mut rejected = rejected_by_emit;
        sorted.dedup_by(|record, first| {
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
                (true, true) if first.hash == record.hash => duplicates += 1,
                (true, true) => rejected += 1,
            }
            true
        });
        Self {
            records: sorted,
            total: 0,
            buckets: None,
            names,
            emitted,
            duplicates,
            rejected,
        }
    }

    /// Sums up the digests of the records.
    pub(crate) fn digest(&mut self, sets: &ClaimSets, seed: u64) {
        let mut sums = (self.records.len() >= Self::MANY).then(Sums::default);
        for record in &self.records {
            let claims = sets.hash(record.claims);
            // A rejected record has the hash 0 and so equals no stored one.
            let digest = digest::of_record(record.id, record.hash, claims, seed);
            self.total = self.total.wrapping_add(digest);
            if let Some(sums) = &mut sums {
                sums.add(record.id, digest);
            }
        }
        self.buckets = sums.map(|sums| {
            let mut starts = Vec::with_capacity(BUCKETS + 1);
            for bucket in 0..BUCKETS {
                let from = starts.last().copied().unwrap_or(0);
                let rest = self.records.get(from..).unwrap_or_default();
                let before = rest.partition_point(|record| bucket_of(record.id) < bucket);
                starts.push(from + before);
            }
            starts.push(self.records.len());
            Buckets { starts, sums }
        });
    }

    /// Returns the records of some buckets, in the order of ids.
    pub(crate) fn of_buckets(&self, buckets: Range<usize>) -> &[Emitted] {
        let Some(Buckets { starts, .. }) = &self.buckets else {
            return &self.records;
        };
        let start = |bucket: usize| starts.get(bucket).copied().unwrap_or_default();
        self.records
            .get(start(buckets.start)..start(buckets.end))
            .unwrap_or_default()
    }

    /// Finds the record of an id.
    pub(crate) fn find(&self, id: u128) -> Option<&Emitted> {
        let bucket = bucket_of(id);
        let records = self.of_buckets(bucket..bucket + 1);
        let place = records.binary_search_by_key(&id, |record| record.id).ok()?;
        records.get(place)
    }
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

    /// Merges emissions of one step: each an id and a hash, which is 0 if it was rejected.
    pub(crate) fn merged(
        emitted: &[(u128, u128)],
        claims: SetNo,
        sets: &mut ClaimSets,
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
        let sorted = Emissions::sort(vec![StepPieces { pieces, claims }]);
        let names = vec!["host".to_owned()];
        let mut emissions = Emissions::merge(sorted, names, emitted.len() as u64, 0, sets);
        emissions.digest(sets, seed);
        emissions
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
        let emissions = merged(&emitted, claims, &mut sets, 7);
        assert!(emissions.buckets.is_some());
        assert_eq!((emissions.duplicates, emissions.rejected), (0, 1));
        assert_eq!(emissions.find(first).unwrap().hash, 1);
        assert_eq!(emissions.find(first ^ 1).map(|record| record.hash), None);
        assert!(emissions.records.is_sorted_by_key(|record| record.id));
        assert_eq!(emissions.records.len(), Emissions::MANY);
        let all = emissions.of_buckets(0..BUCKETS).len();
        let halves = [0..BUCKETS / 2, BUCKETS / 2..BUCKETS];
        let halves = halves.map(|half| emissions.of_buckets(half).len());
        assert_eq!(all, halves[0] + halves[1]);
    }
}

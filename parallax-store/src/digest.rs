use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Ids are hashes, so that their first bits divide them evenly.
pub(crate) const BUCKETS: usize = 1 << BITS;
const BITS: u32 = 12;

/// Sources with fewer records of a kind are read whole: that is as fast.
pub(crate) const LARGE: u64 = 50_000;

/// Returns the bucket that an id belongs to.
pub(crate) const fn bucket_of(id: u128) -> usize {
    (id >> (128 - BITS)) as usize
}

/// Returns the lowest id of a bucket; of the one after the last, none.
pub(crate) fn first_of(bucket: usize) -> Option<u128> {
    (bucket < BUCKETS).then_some((bucket as u128) << (128 - BITS))
}

/// Returns the digest of a record: of its id, its content and who claims it.
pub(crate) fn of_record(id: u128, hash: u128, claims: u64, seed: u64) -> u128 {
    let mut bytes = [0; 40];
    let (id_bytes, rest) = bytes.split_at_mut(16);
    let (hash_bytes, claims_bytes) = rest.split_at_mut(16);
    id_bytes.copy_from_slice(&id.to_le_bytes());
    hash_bytes.copy_from_slice(&hash.to_le_bytes());
    claims_bytes.copy_from_slice(&claims.to_le_bytes());
    xxh3_128_with_seed(&bytes, seed)
}

/// Some of the buckets, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Buckets {
    All,
    /// Those of which it says so.
    These(Vec<bool>),
}

impl Buckets {
    pub(crate) fn none() -> Self {
        Self::These(vec![false; BUCKETS])
    }

    pub(crate) fn contains(&self, bucket: usize) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.get(bucket) == Some(&true),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All => BUCKETS,
            Self::These(these) => these.iter().filter(|is_one| **is_one).count(),
        }
    }

    /// Returns those that are among these or others.
    pub(crate) fn union(&self, others: &Self) -> Self {
        let (Self::These(these), Self::These(those)) = (self, others) else {
            return Self::All;
        };
        let either = these.iter().zip(those).map(|(this, that)| *this || *that);
        let either: Vec<bool> = either.collect();
        if either.iter().all(|is_one| *is_one) {
            return Self::All;
        }
        Self::These(either)
    }

    /// Divides a part of all buckets into ranges of these and ranges of others.
    pub(crate) fn ranges(&self, part: Range<usize>) -> Vec<(Range<usize>, bool)> {
        let Self::These(these) = self else {
            return vec![(part, true)];
        };
        let mut ranges: Vec<(Range<usize>, bool)> = Vec::new();
        let these = these.iter().enumerate().skip(part.start);
        for (bucket, &is_one) in these.take(part.len()) {
            match ranges.last_mut() {
                Some((range, last)) if *last == is_one => range.end = bucket + 1,
                _ => ranges.push((bucket..bucket + 1, is_one)),
            }
        }
        ranges
    }
}

/// For each bucket the sum of its records' digests: equal sums mean equal records.
///
/// A shortcut, not a proof: two different sets of records have equal sums once in 2^128.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sums(Vec<u128>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Sums {
    pub(crate) fn get(&self, bucket: usize) -> u128 {
        self.0.get(bucket).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, id: u128, digest: u128) {
        if let Some(sum) = self.0.get_mut(bucket_of(id)) {
            *sum = sum.wrapping_add(digest);
        }
    }

    /// Adds other sums, bucket by bucket.
    pub(crate) fn add_all(&mut self, others: &Self) {
        for (sum, other) in self.0.iter_mut().zip(&others.0) {
            *sum = sum.wrapping_add(*other);
        }
    }

    pub(crate) fn set(&mut self, bucket: usize, sum: u128) {
        if let Some(slot) = self.0.get_mut(bucket) {
            *slot = sum;
        }
    }

    /// Returns the sum of all digests.
    pub(crate) fn total(&self) -> u128 {
        self.0.iter().copied().fold(0, u128::wrapping_add)
    }

    /// Takes the sums of some buckets from others.
    pub(crate) fn take(&mut self, others: &Self, buckets: Range<usize>) {
        let (sums, others) = (self.0.get_mut(buckets.clone()), others.0.get(buckets));
        if let (Some(sums), Some(others)) = (sums, others) {
            sums.copy_from_slice(others);
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` if it is something else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sums, rest) = bytes.as_chunks::<16>();
        let sums: Vec<u128> = sums.iter().map(|sum| u128::from_le_bytes(*sum)).collect();
        (sums.len() == BUCKETS && rest.is_empty()).then_some(Self(sums))
    }
}

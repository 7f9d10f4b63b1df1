use std::collections::HashMap;

use parallax_core::{ConnectorOutput, EmissionRef, RecordKind};
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use crate::claims::{ClaimSets, SetNo};

/// A hash of a record's content, seeded with the store's secret, so that no source can prepare two
/// contents with one hash to hide a change.
pub(crate) type ContentHash = [u8; 16];

/// A record that a sync emitted, after duplicates were merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emitted {
    pub(crate) id: [u8; 16],
    /// `None` if every emission of it was rejected.
    pub(crate) hash: Option<ContentHash>,
    /// Who emitted it.
    pub(crate) claims: SetNo,
    /// Its type or verb.
    pub(crate) name: NameNo,
    place: Place,
}

/// The place of a type or verb in [`Emissions::names`].
pub(crate) type NameNo = u32;

/// Where in an output an emission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    step: u32,
    batch: u32,
    place: u32,
}

/// What a sync emitted of one kind: one entry per id, sorted by id.
#[derive(Debug, Default)]
pub(crate) struct Emissions {
    pub(crate) records: Vec<Emitted>,
    /// Types or verbs, each once.
    pub(crate) names: Vec<String>,
    /// All emissions, accepted or not.
    pub(crate) emitted: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
}

impl Emissions {
    /// Collects the emissions of one kind: of equal ids the one that was declared, then emitted,
    /// first wins. Arrival plays no part.
    pub(crate) fn collect(
        output: &ConnectorOutput,
        kind: RecordKind,
        seed: u64,
        sets: &mut ClaimSets,
    ) -> Self {
        let mut emissions = Self::default();
        let mut names = Names::default();
        let mut all = Vec::new();
        for ((step, batches), report) in (0u32..).zip(output.batches()).zip(output.report().steps())
        {
            let (emitted, rejected) = match kind {
                RecordKind::Entity => (report.entities, report.entities_rejected),
                RecordKind::Relationship => (report.relationships, report.relationships_rejected),
            };
            emissions.emitted += emitted;
            emissions.rejected += rejected;

            let mut claims_of_scope: HashMap<Option<u32>, SetNo> = HashMap::new();
            for (batch_no, batch) in (0u32..).zip(batches) {
                for (place, emission) in (0u32..).zip(batch.emissions(kind)) {
                    let claims = *claims_of_scope.entry(emission.scope).or_insert_with(|| {
                        let scope = emission.scope.and_then(|s| report.scopes.get(s as usize));
                        sets.single(&report.step_id, scope.map(|scope| scope.name.as_str()))
                    });
                    all.push(Emitted {
                        id: emission.id,
                        hash: emission.content.map(|c| hash_content(c, seed)),
                        claims,
                        name: names.of(&emission),
                        place: Place {
                            step,
                            batch: batch_no,
                            place,
                        },
                    });
                }
            }
        }
        all.sort_unstable_by_key(|record| (record.id, record.place));

        for record in all {
            match emissions
                .records
                .last_mut()
                .filter(|first| first.id == record.id)
            {
                None => emissions.records.push(record),
                Some(first) => {
                    // Whoever emits it has seen it, whether or not the content is taken.
                    first.claims = sets.union(first.claims, record.claims);
                    match (first.hash, record.hash) {
                        (_, None) => {} // counted when `emit` rejected it
                        (None, Some(_)) => {
                            *first = Emitted {
                                claims: first.claims,
                                ..record
                            }
                        }
                        (Some(a), Some(b)) if a == b => emissions.duplicates += 1,
                        (Some(_), Some(_)) => emissions.rejected += 1,
                    }
                }
            }
        }
        emissions.names = names.names;
        emissions
    }

    /// Returns the emission that won.
    pub(crate) fn emission<'a>(
        output: &'a ConnectorOutput,
        kind: RecordKind,
        record: &Emitted,
    ) -> Option<EmissionRef<'a>> {
        let Place { step, batch, place } = record.place;
        let batch = output.batches().get(step as usize)?.get(batch as usize)?;
        batch.emission(kind, place as usize)
    }
}

#[derive(Default)]
struct Names {
    names: Vec<String>,
    nos: HashMap<String, NameNo>,
    last: NameNo,
}

impl Names {
    fn of(&mut self, emission: &EmissionRef<'_>) -> NameNo {
        let name = emission.name();
        // Emissions of one type come in runs.
        if self
            .names
            .get(self.last as usize)
            .is_some_and(|last| last == name)
        {
            return self.last;
        }
        self.last = match self.nos.get(name) {
            Some(&no) => no,
            None => {
                #[expect(clippy::cast_possible_truncation, reason = "memory ends long before")]
                let no = self.names.len() as NameNo;
                self.names.push(name.to_owned());
                self.nos.insert(name.to_owned(), no);
                no
            }
        };
        self.last
    }
}

fn hash_content(content: &[u8], seed: u64) -> ContentHash {
    xxh3_128_with_seed(content, seed).to_be_bytes()
}

/// Returns the fingerprint of a sync: equal for two outputs that say the same, whatever the order
/// in which steps ended and records arrived.
pub(crate) fn fingerprint(
    output: &ConnectorOutput,
    kinds: [&Emissions; 2],
    sets: &ClaimSets,
    seed: u64,
) -> [u8; 16] {
    let mut hasher = Xxh3::with_seed(seed);
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(b"sync 1");
    for step in output.report().steps() {
        put(step.step_id.as_bytes());
        put(step.status.as_str().as_bytes());
        put(&[
            u8::from(step.incomplete.is_empty()),
            u8::from(step.all_scopes_listed),
        ]);
        for dependency in &step.dependencies {
            put(&(*dependency as u64).to_le_bytes());
        }
        for scope in &step.scopes {
            put(scope.name.as_bytes());
            put(&[u8::from(scope.complete)]);
        }
    }
    let mut texts: HashMap<SetNo, String> = HashMap::new();
    for emissions in kinds {
        for count in [emissions.emitted, emissions.duplicates, emissions.rejected] {
            put(&count.to_le_bytes());
        }
        for record in &emissions.records {
            put(&record.id);
            put(record.hash.as_ref().map_or(&[][..], |hash| hash));
            put(texts
                .entry(record.claims)
                .or_insert_with(|| sets.text(record.claims))
                .as_bytes());
        }
    }
    hasher.digest128().to_be_bytes()
}

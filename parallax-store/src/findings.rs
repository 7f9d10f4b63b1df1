use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use parallax_core::{Batch, ConnectorOutput, EmissionRef, RecordKind, StepReport};
use xxhash_rust::xxh3::Xxh3;

use crate::claims::ClaimSets;
use crate::contents::{Contents, Spooled};
use crate::digest::Sums;
use crate::emissions::{Emissions, NameNo, Pieces, StepPieces, claims_of_steps, in_parts};
use crate::journal::SessionJournal;

/// What the accepted attempts of a run have emitted so far, by step.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) contents: Contents,
    pub(crate) journal: Arc<SessionJournal>,
    /// The store's secret.
    seed: u64,
    /// Types, and verbs.
    names: [Names; 2],
    steps: Vec<StepEmissions>,
}

/// What one attempt of one step emitted: entities, and relationships.
pub(crate) type StepEmissions = [Pieces; 2];

impl Collected {
    /// Nothing yet. What does not fit into memory goes to a file in `spool`.
    pub(crate) fn new(seed: u64, spool: PathBuf, journal: Arc<SessionJournal>) -> Self {
        Self {
            contents: Contents::new(spool),
            journal,
            seed,
            names: Default::default(),
            steps: Vec::new(),
        }
    }

    /// Adds a batch to an attempt. Returns its number if it is in memory.
    pub(crate) fn write(
        &mut self,
        attempt: &mut StepEmissions,
        batch: &Arc<Batch>,
    ) -> std::io::Result<Option<usize>> {
        let spooled = self.contents.spool(batch)?;
        let kinds = attempt.iter_mut().zip(&mut self.names);
        for ((pieces, names), kind) in kinds.zip(RecordKind::ALL) {
            pieces.add(batch, kind, spooled, names, self.seed);
        }
        Ok(spooled.in_memory())
    }

    /// Accepts an attempt of the `step`-th declared step.
    pub(crate) fn accept(&mut self, step: usize, attempt: StepEmissions) {
        if self.steps.len() <= step {
            self.steps.resize_with(step + 1, StepEmissions::default);
        }
        if let Some(slot) = self.steps.get_mut(step) {
            *slot = attempt;
        }
    }
}

/// All that a run found, ready to be compared with what is stored.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) output: ConnectorOutput,
    pub(crate) journal: Arc<SessionJournal>,
    pub(crate) contents: Contents,
    pub(crate) sets: ClaimSets,
    pub(crate) entities: Emissions,
    pub(crate) relationships: Emissions,
    /// The store's secret.
    seed: u64,
}

impl Findings {
    /// Sums up what was emitted, into the session or into memory. Blocks for about 0.1 s per million
    /// records.
    pub(crate) fn new(output: ConnectorOutput, collected: Collected) -> Self {
        let Collected {
            mut contents,
            journal,
            seed,
            mut names,
            steps: spooled,
        } = collected;
        let report = output.report();
        let mut sets = ClaimSets::default();
        let claims = claims_of_steps(report, &mut sets);
        let mut kinds: [Vec<StepPieces>; 2] = Default::default();
        let mut spooled = spooled.into_iter();
        for claims in claims {
            for (kind, pieces) in kinds.iter_mut().zip(spooled.next().unwrap_or_default()) {
                kind.push(StepPieces {
                    pieces,
                    claims: claims.clone(),
                });
            }
        }
        let steps = report.steps().iter();
        let emitted: u64 = steps.map(|step| step.entities + step.relationships).sum();
        let is_many = emitted >= Emissions::MANY as u64;
        let mut in_memory: Vec<(usize, &Arc<Batch>, Spooled)> = Vec::new();
        for (step, batches) in output.batches().iter().enumerate() {
            let kept = batches
                .iter()
                .map(|batch| (step, batch, contents.keep(batch)));
            in_memory.extend(kept);
        }
        let hashed = in_parts(is_many, &mut in_memory, |batches| {
            let mut names = names.clone();
            let mut steps: Vec<(usize, StepEmissions)> = Vec::new();
            for &mut (step, batch, spooled) in batches {
                if steps.last().is_none_or(|(last, _)| *last != step) {
                    steps.push((step, StepEmissions::default()));
                }
                let pieces = steps.last_mut().into_iter().flat_map(|(_, pieces)| pieces);
                for ((pieces, names), kind) in pieces.zip(&mut names).zip(RecordKind::ALL) {
                    pieces.add(batch, kind, spooled, names, seed);
                }
            }
            (steps, names)
        });
        for (steps, others) in hashed {
            let mut numbers = names
                .iter_mut()
                .zip(others)
                .map(|(names, others)| names.take(others));
            let numbers: [Vec<NameNo>; 2] =
                std::array::from_fn(|_| numbers.next().unwrap_or_default());
            for (step, kinds_of_step) in steps {
                for ((kind, pieces), names) in kinds.iter_mut().zip(kinds_of_step).zip(&numbers) {
                    if let Some(step) = kind.get_mut(step) {
                        step.pieces.append(pieces, names);
                    }
                }
            }
        }

        let [entities, relationships] = kinds;
        let [entity_names, relationship_names] = names.map(|names| names.names);
        let counts = |count: fn(&StepReport) -> [u64; 2]| {
            let steps = report.steps().iter().map(count);
            steps.fold([0, 0], |a, b| [a[0] + b[0], a[1] + b[1]])
        };
        let entities = Emissions::new(
            entities,
            entity_names,
            counts(|step| [step.entities, step.entities_rejected]),
            &sets,
            seed,
        );
        let relationships = Emissions::new(
            relationships,
            relationship_names,
            counts(|step| [step.relationships, step.relationships_rejected]),
            &sets,
            seed,
        );
        Self {
            contents,
            journal,
            sets,
            entities,
            relationships,
            seed,
            output,
        }
    }

    /// Settles what has to be compared: of each kind the buckets that differ from what is stored,
    /// going by its sums, if there are any, and the ids of what is held.
    pub(crate) fn settle(&mut self, sums: &[Option<Sums>; 2], held: &[Vec<u128>; 2]) {
        let kinds = [&mut self.entities, &mut self.relationships];
        for (emissions, (sums, held)) in kinds.into_iter().zip(sums.iter().zip(held)) {
            let differ = emissions.differ(sums.as_ref(), held);
            emissions.settle(&differ, &mut self.sets, self.seed);
        }
    }

    /// Returns a hash that is equal for two runs that say the same, whatever the order in which
    /// steps ended and records arrived. To be asked for once what differs is settled: only then it
    /// is known what was emitted twice.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        fingerprint(
            &self.output,
            [&self.entities, &self.relationships],
            self.seed,
        )
    }

    pub(crate) fn of_kind(&self, kind: RecordKind) -> &Emissions {
        match kind {
            RecordKind::Entity => &self.entities,
            RecordKind::Relationship => &self.relationships,
        }
    }
}

/// Types or verbs, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) names: Vec<String>,
    nos: HashMap<String, NameNo>,
    /// How the content of an emission of the last few begins.
    recent: VecDeque<(Vec<u8>, NameNo)>,
}

impl Names {
    const RECENT: usize = 8;

    pub(crate) fn of(&mut self, emission: EmissionRef<'_>) -> NameNo {
        let content = emission.content.unwrap_or_default();
        // A step emits few types, and by turns: most need not be read for it.
        let mut recent = self.recent.iter();
        if let Some((_, no)) = recent.find(|(begins, _)| content.starts_with(begins)) {
            return *no;
        }
        let name = emission.name();
        let no = self.number(name);
        let end = (name.as_ptr() as usize + name.len()).checked_sub(content.as_ptr() as usize);
        // What was rejected has no content, and everything begins with nothing.
        let begins = end.and_then(|end| content.get(..end));
        if let Some(begins) = begins.filter(|begins| !begins.is_empty()) {
            if self.recent.len() == Self::RECENT {
                self.recent.pop_back();
            }
            self.recent.push_front((begins.to_owned(), no));
        }
        no
    }

    /// Takes others in. Returns the number of each.
    fn take(&mut self, others: Self) -> Vec<NameNo> {
        let names = others.names.iter();
        names.map(|name| self.number(name)).collect()
    }

    fn number(&mut self, name: &str) -> NameNo {
        if let Some(&no) = self.nos.get(name) {
            return no;
        }
        #[expect(clippy::cast_possible_truncation, reason = "memory ends long before")]
        let no = self.names.len() as NameNo;
        self.names.push(name.to_owned());
        self.nos.insert(name.to_owned(), no);
        no
    }
}

fn fingerprint(output: &ConnectorOutput, kinds: [&Emissions; 2], seed: u64) -> [u8; 16] {
    let mut hasher = Xxh3::with_seed(seed);
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(b"sync 2");
    for step in output.report().steps() {
        put(step.step_id.as_bytes());
        put(step.status.as_str().as_bytes());
        put(&[
            u8::from(step.incomplete.is_empty()),
            u8::from(step.all_scopes_listed),
            u8::from(step.ephemeral),
        ]);
        for dependency in &step.dependencies {
            put(&(*dependency as u64).to_le_bytes());
        }
        for scope in &step.scopes {
            put(scope.name.as_bytes());
            put(&[u8::from(scope.complete)]);
        }
    }
    for emissions in kinds {
        for count in [emissions.emitted, emissions.duplicates, emissions.rejected] {
            put(&count.to_le_bytes());
        }
        put(&emissions.total.to_le_bytes());
    }
    hasher.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use parallax_core::{BatchBuilder, entity};

    use super::*;

    #[test]
    fn each_emission_has_its_own_name() {
        let mut batch = BatchBuilder::new("acme".into());
        let mut expected = Vec::new();
        for round in 0..3 {
            // More types than are remembered, one the beginning of another, and a rejected record.
            for number in 0..12 {
                let name = "a".repeat(number + 1);
                let host = entity(name.clone(), round).property("b", 1);
                batch.push(&mut host.into(), None).unwrap();
                expected.push(name);
                let bad = entity("bad", round).property("b", f64::NAN);
                batch.push(&mut bad.into(), None).unwrap_err();
                expected.push(String::new());
            }
        }
        let batch = batch.take().unwrap();
        let mut names = Names::default();
        let found: Vec<NameNo> = batch
            .emissions(RecordKind::Entity)
            .map(|emission| names.of(emission))
            .collect();
        let found: Vec<_> = found.iter().map(|no| &names.names[*no as usize]).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>());
        assert_eq!(names.names.len(), 13);
    }
}

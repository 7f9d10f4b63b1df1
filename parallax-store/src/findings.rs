use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use parallax_core::{Batch, ConnectorOutput, RecordKind};
use xxhash_rust::xxh3::Xxh3;

use crate::claims::ClaimSets;
use crate::contents::{Contents, Place, places};
use crate::emissions::{Emissions, Emitted, NameNo, Pieces, claims_of_steps};

/// What the accepted attempts of a run have emitted so far, by step.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) contents: Contents,
    /// The store's secret.
    seed: u64,
    names: Names,
    steps: Vec<StepEmissions>,
}

/// What one attempt of one step emitted.
#[derive(Debug, Default)]
pub(crate) struct StepEmissions {
    entities: Pieces,
    relationships: Pieces,
}

impl StepEmissions {
    fn push(&mut self, kind: RecordKind, emission: Emitted) {
        match kind {
            RecordKind::Entity => self.entities.push(emission),
            RecordKind::Relationship => self.relationships.push(emission),
        }
    }
}

impl Collected {
    /// Nothing yet. What does not fit into memory goes to a file in `spool`.
    pub(crate) fn new(seed: u64, spool: PathBuf) -> Self {
        Self {
            contents: Contents::new(spool),
            seed,
            names: Names::default(),
            steps: Vec::new(),
        }
    }

    /// Adds a batch to an attempt. Returns its number if it is in memory.
    pub(crate) fn write(
        &mut self,
        attempt: &mut StepEmissions,
        batch: &Arc<Batch>,
    ) -> std::io::Result<Option<usize>> {
        let Self {
            contents,
            seed,
            names,
            ..
        } = self;
        contents.spool(batch, |kind, emission, place| {
            let name = names.of(emission.name());
            attempt.push(kind, Emitted::new(emission, name, place, *seed));
        })
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

    /// Adds what an output holds in memory.
    fn add(&mut self, output: &ConnectorOutput) {
        for (step, batches) in output.batches().iter().enumerate() {
            let mut emissions = StepEmissions::default();
            for batch in batches {
                let number = self.contents.keep(Arc::clone(batch));
                places(batch, number, |kind, emission, place: Place| {
                    let name = self.names.of(emission.name());
                    emissions.push(kind, Emitted::new(emission, name, place, self.seed));
                });
            }
            if !batches.is_empty() {
                self.accept(step, emissions);
            }
        }
    }
}

/// All that a run found, ready to be compared with what is stored.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) output: ConnectorOutput,
    pub(crate) contents: Contents,
    /// Types and verbs.
    pub(crate) names: Vec<String>,
    pub(crate) sets: ClaimSets,
    pub(crate) entities: Emissions,
    pub(crate) relationships: Emissions,
    /// Equal for two runs that say the same, whatever the order in which steps ended and records
    /// arrived.
    pub(crate) fingerprint: [u8; 16],
}

impl Findings {
    /// Sorts and merges what was emitted. Blocks for about 0.1 s per million records.
    pub(crate) fn new(output: ConnectorOutput, mut collected: Collected) -> Self {
        collected.add(&output);
        let seed = collected.seed;
        let report = output.report();
        let mut sets = ClaimSets::default();
        let claims = claims_of_steps(report, &mut sets);
        let mut steps = [Vec::new(), Vec::new()];
        for (step, (scopes, unscoped)) in collected.steps.into_iter().zip(claims) {
            let [entities, relationships] = &mut steps;
            entities.push((step.entities, scopes.clone(), unscoped));
            relationships.push((step.relationships, scopes, unscoped));
        }
        let many = report
            .steps()
            .iter()
            .map(|step| step.entities + step.relationships);
        let many = many.sum::<u64>() >= Emissions::MANY as u64;
        let [entities, relationships] = both(many, steps, Emissions::sort);
        let steps = report.steps().iter();
        let rejected = steps.fold((0, 0), |(entities, relationships), step| {
            (
                entities + step.entities_rejected,
                relationships + step.relationships_rejected,
            )
        });
        let mut entities = Emissions::merge(entities, rejected.0, &mut sets);
        let mut relationships = Emissions::merge(relationships, rejected.1, &mut sets);
        both(many, [&mut entities, &mut relationships], |emissions| {
            emissions.digest(&sets, seed);
        });
        for step in report.steps() {
            entities.emitted += step.entities;
            relationships.emitted += step.relationships;
        }
        let fingerprint = fingerprint(&output, [&entities, &relationships], seed);
        Self {
            contents: collected.contents,
            names: collected.names.names,
            sets,
            entities,
            relationships,
            fingerprint,
            output,
        }
    }

    pub(crate) fn of_kind(&self, kind: RecordKind) -> &Emissions {
        match kind {
            RecordKind::Entity => &self.entities,
            RecordKind::Relationship => &self.relationships,
        }
    }
}

/// Does the same to both kinds, at the same time if that is worth a thread.
fn both<T: Send, U: Send>(
    in_parallel: bool,
    [a, b]: [T; 2],
    work: impl Fn(T) -> U + Sync,
) -> [U; 2] {
    if !in_parallel {
        return [work(a), work(b)];
    }
    thread::scope(|scope| {
        let a = scope.spawn(|| work(a));
        let b = work(b);
        match a.join() {
            Ok(a) => [a, b],
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Types and verbs, each once.
#[derive(Debug, Default)]
struct Names {
    names: Vec<String>,
    nos: HashMap<String, NameNo>,
    last: NameNo,
}

impl Names {
    fn of(&mut self, name: &str) -> NameNo {
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

use std::collections::{BTreeMap, BTreeSet};

use parallax_core::{Counts, RecordKind, SyncStats};

use crate::script::{End, Rec, Script};

/// A commit in two hundred lines: plain, slow, and written from the promises instead of from the
/// store's code.
#[derive(Clone, Debug)]
pub struct Model {
    /// Deletes above this many of a kind, and above this share of it, are held.
    guard: (u64, f64),
    sources: BTreeMap<(&'static str, String), Source>,
    /// The number of the next changeset.
    next_changeset: u64,
}

#[derive(Clone, Debug, Default)]
struct Source {
    records: BTreeMap<Id, Stored>,
    /// The steps of the last sync in which all was done.
    settled: Option<BTreeSet<&'static str>>,
}

/// An entity's key, or the keys of a relationship's ends.
type Id = (u8, Option<u8>);
type Claim = (&'static str, Option<&'static str>);

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its content.
    pub value: u8,
    /// Who emitted it.
    pub claims: BTreeSet<Claim>,
    /// The changeset that holds its delete.
    pub held: Option<u64>,
    /// Whether a changeset that held its delete was rejected.
    pub pinned: bool,
}

/// What a script's step saw, by the words of the promise.
struct Saw {
    id: &'static str,
    ok: bool,
    missed: bool,
    scopes: BTreeMap<&'static str, bool>,
    all_listed: bool,
    ephemeral: bool,
    ancestors: BTreeSet<usize>,
    /// Whether it emitted something that others were not given.
    rejected: bool,
    emitted: Vec<(Id, Option<u8>, Option<&'static str>)>,
    nameless: u64,
}

impl Model {
    /// Makes an empty one that holds deletes above a number and a share. Changesets are numbered
    /// from `next_changeset`.
    pub fn new(guard: (u64, f64), next_changeset: u64) -> Self {
        Self {
            guard,
            sources: BTreeMap::new(),
            next_changeset,
        }
    }

    /// Commits what `script` emits in `account`. Returns the number of the changeset that holds
    /// deletes, if some are held.
    pub fn commit(&mut self, account: &str, script: &Script) -> (SyncStats, Option<u64>) {
        let saw = see(script);
        let mut emissions: BTreeMap<Id, (Option<u8>, BTreeSet<Claim>)> = BTreeMap::new();
        let mut entities = Counts::default();
        let mut relationships = Counts::default();
        let mut count = |id: &Id, what: fn(&mut Counts) -> &mut u64| match id.1 {
            None => *what(&mut entities) += 1,
            Some(_) => *what(&mut relationships) += 1,
        };
        for step in saw.iter().filter(|step| step.ok) {
            for (id, value, scope) in &step.emitted {
                let (first, claims) = emissions.entry(*id).or_default();
                claims.insert((step.id, *scope));
                match (*first, *value) {
                    (_, None) => count(id, |c| &mut c.rejected),
                    (None, Some(value)) => *first = Some(value),
                    (Some(a), Some(b)) if a == b => count(id, |c| &mut c.duplicates),
                    (Some(_), Some(_)) => count(id, |c| &mut c.rejected),
                }
            }
            for _ in 0..step.nameless {
                count(&(0, None), |c| &mut c.rejected);
            }
        }

        let source = self
            .sources
            .entry((script.name, account.to_owned()))
            .or_default();
        let everyone_looked = saw
            .iter()
            .all(|step| looked(&saw, (step.id, None)) == Some(true));
        let done = |&claim: &Claim| looked(&saw, claim).unwrap_or(everyone_looked);
        let ephemeral = |row: &Stored| {
            let mut claims = row.claims.iter();
            claims.all(|claim| saw.iter().any(|step| step.id == claim.0 && step.ephemeral))
        };
        let live: BTreeMap<Id, bool> = source
            .records
            .iter()
            .map(|(id, row)| (*id, ephemeral(row)))
            .collect();

        let mut stay = emissions.keys().copied().collect::<BTreeSet<Id>>();
        let mut gone = BTreeMap::new();
        for (id, row) in &source.records {
            if stay.contains(id) {
                continue;
            }
            if row.held.is_some() {
                count(id, |c| &mut c.held);
                stay.insert(*id);
            } else if row.pinned || !row.claims.iter().all(done) {
                count(id, |c| &mut c.kept);
                stay.insert(*id);
            } else {
                gone.insert(*id, row.clone());
            }
        }
        let steps: BTreeSet<&'static str> = saw.iter().map(|step| step.id).collect();
        let changed = source
            .settled
            .as_ref()
            .is_some_and(|settled| *settled != steps);
        let is_held = self.is_alarming(&live, &gone, &stay, &steps) || changed;
        let source = self
            .sources
            .entry((script.name, account.to_owned()))
            .or_default();
        let mut changeset = None;
        for (id, row) in &gone {
            if is_held && !ephemeral(row) {
                count(id, |c| &mut c.held);
                changeset = Some(self.next_changeset);
                if let Some(row) = source.records.get_mut(id) {
                    row.held = changeset;
                }
            } else {
                count(id, |c| &mut c.deleted);
                source.records.remove(id);
            }
        }
        self.next_changeset += u64::from(changeset.is_some());

        for (id, (value, emitters)) in &emissions {
            match (source.records.get_mut(id), value) {
                (None, None) => {}
                (None, Some(value)) => {
                    count(id, |c| &mut c.created);
                    let row = Stored {
                        value: *value,
                        claims: emitters.clone(),
                        held: None,
                        pinned: false,
                    };
                    source.records.insert(*id, row);
                }
                (Some(row), value) => {
                    (row.held, row.pinned) = (None, false);
                    row.claims.retain(|claim| !done(claim));
                    row.claims.extend(emitters);
                    match value {
                        None => count(id, |c| &mut c.kept),
                        Some(value) if *value == row.value => count(id, |c| &mut c.unchanged),
                        Some(value) => {
                            row.value = *value;
                            count(id, |c| &mut c.updated);
                        }
                    }
                }
            }
        }
        let complete = |step: &Saw| step.ok && !step.missed && step.scopes.values().all(|c| *c);
        if saw.iter().all(complete) {
            source.settled = Some(steps);
        }
        (SyncStats::new(entities, relationships), changeset)
    }

    /// Whether the deletes of `gone` are such as nobody would expect. `live` says of each record
    /// whether it comes and goes.
    fn is_alarming(
        &self,
        live: &BTreeMap<Id, bool>,
        gone: &BTreeMap<Id, Stored>,
        stay: &BTreeSet<Id>,
        steps: &BTreeSet<&'static str>,
    ) -> bool {
        let lasting = |id: &Id| live.get(id) == Some(&false);
        let vanished = gone
            .iter()
            .filter(|(id, _)| lasting(id))
            .any(|(_, row)| row.claims.iter().any(|(step, _)| !steps.contains(step)));
        let is_link = |id: &Id| id.1.is_some();
        let many = [false, true].into_iter().any(|links| {
            let dies_with_end = |id: &&Id| {
                let goes = |key| gone.contains_key(&(key, None));
                id.1.is_some_and(|to| goes(id.0) || goes(to))
            };
            let deletes = gone.keys().filter(|id| is_link(id) == links && lasting(id));
            let deletes = deletes.filter(|id| !dies_with_end(id)).count();
            let live = live
                .keys()
                .filter(|id| is_link(id) == links && lasting(id))
                .count();
            let is_last = deletes >= 10 && !stay.iter().any(|id| is_link(id) == links);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let is_share = deletes as f64 > live as f64 * self.guard.1;
            is_last || (deletes as u64 > self.guard.0 && is_share)
        });
        vanished || many
    }

    /// Says of a changeset that it is right, or wrong. Returns how many records it was about.
    pub fn decide(&mut self, changeset: u64, is_right: bool) -> usize {
        let mut decided = 0;
        for source in self.sources.values_mut() {
            source.records.retain(|_, row| {
                if row.held != Some(changeset) {
                    return true;
                }
                decided += 1;
                (row.held, row.pinned) = (None, true);
                !is_right
            });
        }
        decided
    }

    /// Returns the changesets that hold something.
    pub fn open_changesets(&self) -> BTreeSet<u64> {
        let sources = self.sources.values();
        sources
            .flat_map(|source| source.records.values())
            .filter_map(|row| row.held)
            .collect()
    }

    /// Returns what a source has stored.
    pub fn stored(&self, connector: &'static str, account: &str) -> BTreeMap<Id, Stored> {
        let source = self.sources.get(&(connector, account.to_owned()));
        source
            .map(|source| source.records.clone())
            .unwrap_or_default()
    }

    /// Returns the records of a source that are shown: a relationship only while both of its ends
    /// are live somewhere in its account.
    pub fn shown(&self, connector: &'static str, account: &str) -> BTreeMap<Id, Stored> {
        let mut shown = self.stored(connector, account);
        let lives = |key: u8| {
            let mut sources = self
                .sources
                .iter()
                .filter(|((_, other), _)| *other == account);
            sources.any(|(_, source)| source.records.contains_key(&(key, None)))
        };
        shown.retain(|(from, to), _| to.is_none_or(|to| lives(*from) && lives(to)));
        // Nobody sees that.
        shown.values_mut().for_each(|row| row.pinned = false);
        shown
    }

    /// Counts the records of a source.
    pub fn live(&self, connector: &'static str, account: &str, kind: RecordKind) -> usize {
        let stored = self.stored(connector, account);
        stored
            .keys()
            .filter(|id| id.1.is_some() == (kind == RecordKind::Relationship))
            .count()
    }
}

fn see(script: &Script) -> Vec<Saw> {
    let mut saw: Vec<Saw> = Vec::new();
    for step in &script.steps {
        let mut ancestors = BTreeSet::new();
        let mut ok = matches!(step.end, End::Ok | End::Incomplete);
        for &on in &step.dependencies {
            let dependency = saw.get(on);
            ok &= dependency.is_some_and(|dependency| dependency.ok);
            ancestors.insert(on);
            ancestors.extend(dependency.iter().flat_map(|d| d.ancestors.iter().copied()));
        }
        let mut this = Saw {
            id: step.id,
            ok,
            missed: step.end == End::Incomplete,
            scopes: BTreeMap::new(),
            all_listed: step.all_scopes_listed,
            ephemeral: step.ephemeral,
            ancestors,
            rejected: false,
            emitted: Vec::new(),
            nameless: 0,
        };
        let mut missed_in = BTreeSet::new();
        for part in &step.parts {
            let scope = part.scope;
            if let Some(scope) = scope {
                this.scopes.entry(scope).or_insert(false);
            }
            for record in &part.records {
                match *record {
                    Rec::Entity { key, value } => {
                        this.emitted.push(((key, None), Some(value), scope));
                    }
                    Rec::Link { from, to, value } => {
                        this.emitted.push(((from, Some(to)), Some(value), scope));
                    }
                    Rec::BadEntity { key } => {
                        this.rejected = true;
                        this.emitted.push(((key, None), None, scope));
                    }
                    Rec::BadLink { from, to } => {
                        this.rejected = true;
                        this.emitted.push(((from, Some(to)), None, scope));
                    }
                    Rec::Nameless => {
                        this.rejected = true;
                        this.nameless += 1;
                        missed_in.insert(scope);
                    }
                }
            }
            if let Some(scope) = scope
                && part.complete
            {
                this.scopes.insert(scope, true);
            }
        }
        for scope in missed_in {
            match scope {
                None => this.missed = true,
                Some(scope) => {
                    this.scopes.insert(scope, false);
                }
            }
        }
        saw.push(this);
    }
    saw
}

/// Whether whoever made a claim has looked everywhere; `None` if there is no such step.
fn looked(saw: &[Saw], (step_id, scope): Claim) -> Option<bool> {
    let step = saw.iter().find(|step| step.id == step_id)?;
    let itself = step.ok
        && !step.missed
        && match scope {
            None => step.scopes.values().all(|complete| *complete),
            Some(scope) => step.scopes.get(scope).copied().unwrap_or(step.all_listed),
        };
    let upstream = step
        .ancestors
        .iter()
        .filter_map(|&place| saw.get(place))
        .all(|ancestor| {
            let all = ancestor.scopes.values().all(|complete| *complete);
            let same = scope.is_some_and(|scope| ancestor.scopes.get(scope) == Some(&true));
            ancestor.ok && !ancestor.missed && !ancestor.rejected && (all || same)
        });
    Some(itself && upstream)
}

use std::collections::{BTreeMap, BTreeSet};

use parallax_core::{Counts, RecordKind, SyncStats};

use crate::script::{End, Rec, Script};

/// A commit in a hundred lines: plain, slow, and written from the promises instead of from the
/// store's code.
#[derive(Clone, Debug, Default)]
pub struct Model {
    sources: BTreeMap<(&'static str, &'static str), BTreeMap<Id, Stored>>,
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
}

/// What a script's step saw, by the words of the promise.
struct Saw {
    id: &'static str,
    ok: bool,
    missed: bool,
    scopes: BTreeMap<&'static str, bool>,
    all_listed: bool,
    ancestors: BTreeSet<usize>,
    emitted: Vec<(Id, Option<u8>, Option<&'static str>)>,
    nameless: u64,
}

impl Model {
    /// Commits what `script` emits in `account`.
    pub fn commit(&mut self, account: &'static str, script: &Script) -> SyncStats {
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

        let stored = self.sources.entry((script.name, account)).or_default();
        let everyone_looked = saw
            .iter()
            .all(|step| looked(&saw, (step.id, None)) == Some(true));
        for (id, (value, emitters)) in &emissions {
            match (stored.get_mut(id), value) {
                (None, None) => {}
                (None, Some(value)) => {
                    count(id, |c| &mut c.created);
                    stored.insert(
                        *id,
                        Stored {
                            value: *value,
                            claims: emitters.clone(),
                        },
                    );
                }
                (Some(row), value) => {
                    row.claims
                        .retain(|&claim| !looked(&saw, claim).unwrap_or(everyone_looked));
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
        stored.retain(|id, row| {
            if emissions.contains_key(id) {
                return true;
            }
            let gone = row
                .claims
                .iter()
                .all(|&claim| looked(&saw, claim) == Some(true));
            count(
                id,
                if gone {
                    |c| &mut c.deleted
                } else {
                    |c| &mut c.kept
                },
            );
            !gone
        });
        SyncStats::new(entities, relationships)
    }

    /// Returns what a source has stored.
    pub fn stored(&self, connector: &'static str, account: &'static str) -> BTreeMap<Id, Stored> {
        self.sources
            .get(&(connector, account))
            .cloned()
            .unwrap_or_default()
    }

    /// Returns the records of a source that are shown: a relationship only while both of its ends
    /// are live somewhere in its account.
    pub fn shown(&self, connector: &'static str, account: &'static str) -> BTreeMap<Id, Stored> {
        let mut shown = self.stored(connector, account);
        let lives = |key: u8| {
            let mut sources = self
                .sources
                .iter()
                .filter(|((_, other), _)| *other == account);
            sources.any(|(_, stored)| stored.contains_key(&(key, None)))
        };
        shown.retain(|(from, to), _| to.is_none_or(|to| lives(*from) && lives(to)));
        shown
    }

    /// Counts the records of a source.
    pub fn live(&self, connector: &'static str, account: &'static str, kind: RecordKind) -> usize {
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
            ancestors,
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
                    Rec::BadEntity { key } => this.emitted.push(((key, None), None, scope)),
                    Rec::BadLink { from, to } => {
                        this.emitted.push(((from, Some(to)), None, scope));
                    }
                    Rec::Nameless => {
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
            ancestor.ok && !ancestor.missed && (all || same)
        });
    Some(itself && upstream)
}

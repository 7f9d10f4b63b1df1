//! The life of a store: it is opened, committed to and closed, again and again.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use parallax_connect::{ConnectorOutput, run_connector};
use parallax_core::SyncStats;
use parallax_store::{CommitError, CommitResult, Store, StoreError};
use parallax_tests::{End, Model, Part, Rec, Script, ScriptStep, scripts};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::state::State;

const ACCOUNTS: [&str; 2] = ["111", "222"];
const CONNECTORS: [&str; 2] = ["left", "right"];

/// What happens to a store.
#[derive(Debug)]
pub(crate) enum Act {
    Open,
    Commit(Box<Commit>),
    Close,
}

/// A commit, and what comes of it.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) output: ConnectorOutput,
    pub(crate) stats: SyncStats,
    /// What the store shows then, if all commits before were done.
    pub(crate) shown: State,
}

/// A life of a store, and what runs it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) acts: Vec<Act>,
    /// What the store shows before the first commit.
    pub(crate) shown_at_first: State,
    runtime: Runtime,
}

impl Act {
    pub(crate) fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit(commit) => Some(commit),
            Self::Open | Self::Close => None,
        }
    }
}

impl Life {
    /// Makes a random life with so many commits; of one seed it is always the same but for what SQLite and the clock
    /// bring: secrets and times.
    pub(crate) fn random(seed: u64, commits: RangeInclusive<usize>) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let mut bytes = [0; 32];
        let mut rng = fastrand::Rng::with_seed(seed);
        rng.fill(&mut bytes);
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), random);

        // In memory nothing fails: what comes of a life there has to come of it everywhere.
        let mut store = runtime.block_on(Store::open("sqlite::memory:"))?;
        // Deletes are held as they are by default.
        let mut model = Model::new((100, 0.2), 1);
        let shown_at_first = runtime.block_on(State::shown(&store))?;
        let mut acts = vec![Act::Open];
        for number in 0..rng.usize(commits) {
            let account = ACCOUNTS[rng.usize(..2)];
            let name = CONNECTORS[rng.usize(..2)];
            let script = if rng.u8(..4) == 0 {
                wide(name, &mut rng)
            } else {
                let tree = scripts(name).new_tree(&mut runner);
                tree.map_err(|reason| anyhow!("no script: {reason}"))?
                    .current()
            };
            let sync_id = format!("sync-{number}");
            let output = run_connector(&script, account, &sync_id, None);
            let output = runtime.block_on(output)?;
            let (stats, _) = model.commit(account, &script);
            let result = store.commit_sync_exclusive(&output)?;
            ensure!(result.stats == stats, "the model expects {stats:?}");
            acts.push(Act::Commit(Box::new(Commit {
                output,
                stats,
                shown: runtime.block_on(State::shown(&store))?,
            })));
            if rng.u8(..5) == 0 {
                acts.extend([Act::Close, Act::Open]);
            }
        }
        acts.push(Act::Close);
        Ok(Self {
            acts,
            shown_at_first,
            runtime,
        })
    }

    /// Does what an act says to the store at `path`; returns what a commit did.
    pub(crate) fn act(
        &self,
        act: &Act,
        store: &mut Option<Store>,
        path: &Path,
    ) -> Result<Option<CommitResult>, CommitError> {
        match act {
            Act::Open => *store = Some(self.open(path)?),
            Act::Commit(commit) => {
                let store = store.as_mut().ok_or(StoreError::ReadOnly)?;
                // The one that checkpoints before it returns: what the disk does then belongs to
                // the act.
                return store.commit_sync_exclusive(&commit.output).map(Some);
            }
            Act::Close => *store = None,
        }
        Ok(None)
    }

    pub(crate) fn open(&self, path: &Path) -> Result<Store, StoreError> {
        let url = format!("sqlite:{}", path.display());
        self.runtime.block_on(Store::open(&url))
    }

    /// Commits by the handle that tasks share.
    pub(crate) fn commit(
        &self,
        store: &Store,
        commit: &Commit,
    ) -> Result<CommitResult, CommitError> {
        self.runtime.block_on(store.commit_sync(&commit.output))
    }

    /// Reads the tables of a store.
    pub(crate) fn state(&self, store: &Store) -> Result<State> {
        let state = self.runtime.block_on(State::read(store));
        state.context("the tables cannot be read")
    }

    /// Checks what a store shows.
    pub(crate) fn check_shown(&self, store: &Store, expected: &State) -> Result<()> {
        let shown = self.runtime.block_on(State::shown(store));
        let shown = shown.context("the views cannot be read")?;
        ensure!(
            shown == *expected,
            "not what a disk without faults would have, but {}",
            shown.differences(expected)
        );
        Ok(())
    }
}

/// A script with so many records that they take several pages.
fn wide(name: &'static str, rng: &mut fastrand::Rng) -> Script {
    let value = rng.u8(..);
    let first = rng.u8(..100);
    let keys = first..first + rng.u8(50..150);
    let links = keys.clone().zip(keys.clone().rev());
    let links = links.map(|(from, to)| Rec::Link { from, to, value });
    let entities = keys.map(|key| Rec::Entity { key, value });
    let part = Part {
        scope: None,
        records: entities.chain(links).collect(),
        complete: false,
    };
    Script {
        name,
        steps: vec![ScriptStep {
            id: "a",
            dependencies: Vec::new(),
            parts: vec![part],
            all_scopes_listed: false,
            ephemeral: false,
            end: End::Ok,
        }],
    }
}

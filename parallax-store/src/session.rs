use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parallax_core::{
    Attempt, Batch, ConnectorError, ConnectorOutput, JournalSink, ResultExt, Sink,
};

use crate::error::CommitError;
use crate::findings::{Collected, StepEmissions};
use crate::guard::Guard;
use crate::journal::SessionJournal;
use crate::result::CommitResult;
use crate::store::Store;

/// One sync on its way into a store: the sink that a run emits into, and then its commit.
///
/// Records go through it instead of being gathered in the output: 48 bytes of each stay in memory,
/// and the content of more than 8 MiB of them goes to a file beside the store that has no name. The
/// commit needs more: docs/src/performance.md has the figures for ten million records.
///
/// ```
/// # use parallax_store::{CommitError, Store};
/// # use parallax_core::{ConnectorOutput, Sink};
/// # async fn sync(
/// #     store: &Store,
/// #     run: impl AsyncFnOnce(&dyn Sink) -> ConnectorOutput,
/// # ) -> Result<(), CommitError> {
/// let session = store.session();
/// let output = run(&session).await; // Runner::new(&connector).sink(&session).run(…)
/// let result = session.commit(&output).await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it forgets what was emitted.
#[must_use = "nothing is written before `commit`"]
pub struct Session<'a> {
    store: &'a Store,
    options: Options,
    journal: Arc<SessionJournal>,
    collected: Arc<Mutex<Collected>>,
}

/// How a commit is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) guard: Guard,
    /// How many changes of each action and kind are listed.
    pub(crate) changes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            changes: CommitResult::CHANGES,
        }
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        let collected = store.collect();
        let journal = Arc::clone(&collected.journal);
        Self {
            store,
            options: Options::default(),
            collected: Arc::new(Mutex::new(collected)),
            journal,
        }
    }

    /// Sets which deletes are held.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.options.guard = guard;
        self
    }

    /// Returns what keeps the journal of the run that emits into the session, to be given to it. It
    /// is stored within a second, and at the latest with the commit, which has the last word in it.
    ///
    /// ```
    /// # use parallax_store::Store;
    /// # use std::sync::Arc;
    /// # fn kept(store: &Store, runner: impl FnOnce(Arc<dyn parallax_core::JournalSink>)) {
    /// let session = store.session();
    /// runner(session.journal()); // Runner::new(&connector).sink(&session).journal(…)
    /// # }
    /// ```
    pub fn journal(&self) -> Arc<dyn JournalSink> {
        Arc::clone(&self.journal) as _
    }

    /// Passes the entries of the journal on to `watcher`, one by one and as they come: those of
    /// the run, and then those of the commit, once they are stored.
    pub fn watcher(mut self, watcher: Arc<dyn JournalSink>) -> Self {
        self.journal = Arc::new(self.journal.watched(watcher));
        self
    }

    /// Sets how many changes of each action and kind [`CommitResult::changes`] lists, instead of
    /// [`CommitResult::CHANGES`].
    pub fn list_changes(mut self, changes: usize) -> Self {
        self.options.changes = changes;
        self
    }

    /// Commits what was emitted into the session, or what `output` holds in memory: as
    /// [`Store::commit_sync`].
    ///
    /// What was emitted into the session goes with it, whatever comes of the commit. To try again, run
    /// the connector again; under the same sync id, that is a replay if this one was committed.
    ///
    /// # Errors
    ///
    /// As [`Store::commit_sync`]; and [`CommitError::RecordsGone`] if it was emitted into another
    /// session.
    ///
    /// # Cancel safety
    ///
    /// A commit that has begun goes on when the future is dropped.
    pub async fn commit(self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        let (store, options) = (self.store, self.options);
        let journal = Arc::clone(&self.journal);
        let collected = self.into_collected();
        let committed = store.engine().commit(output.clone(), collected, options);
        let result = committed.await;
        journal.note_end(output.run(), &result);
        result
    }

    /// Returns what [`commit`](Self::commit) would do now, and writes nothing.
    ///
    /// # Errors
    ///
    /// As [`Store::commit_sync`].
    pub async fn plan(self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        let (store, options) = (self.store, self.options);
        let collected = self.into_collected();
        store
            .engine()
            .plan(output.clone(), collected, options)
            .await
    }

    fn into_collected(self) -> Collected {
        // An attempt that is still open has lost its run, and with it its say.
        let mut collected = std::mem::replace(&mut *lock(&self.collected), self.store.collect());
        collected.journal = self.journal;
        collected
    }
}

impl Sink for Session<'_> {
    fn open(&self, step: usize) -> Box<dyn Attempt> {
        Box::new(SpooledAttempt {
            collected: Arc::clone(&self.collected),
            step,
            emissions: StepEmissions::default(),
            in_memory: Vec::new(),
        })
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("store", &self.store)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

struct SpooledAttempt {
    collected: Arc<Mutex<Collected>>,
    step: usize,
    emissions: StepEmissions,
    /// The numbers of its batches that are in memory.
    in_memory: Vec<usize>,
}

impl Attempt for SpooledAttempt {
    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError> {
        let number = lock(&self.collected)
            .write(&mut self.emissions, &batch)
            .fatal("keep what was emitted until it is committed")?;
        self.in_memory.extend(number);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConnectorError> {
        self.in_memory.clear();
        let emissions = std::mem::take(&mut self.emissions);
        lock(&self.collected).accept(self.step, emissions);
        Ok(())
    }
}

impl Drop for SpooledAttempt {
    fn drop(&mut self) {
        let mut collected = lock(&self.collected);
        for number in self.in_memory.drain(..) {
            collected.contents.release(number);
        }
    }
}

fn lock(collected: &Mutex<Collected>) -> MutexGuard<'_, Collected> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}

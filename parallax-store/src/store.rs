use std::path::Path;

use parallax_core::ConnectorOutput;

use crate::backup::Backup;
use crate::browse::{Browse, Page, RecordType};
use crate::engine::{self, Engine, Word};
use crate::error::{CommitError, StoreError};
use crate::explain::{Explanation, Subject};
use crate::findings::Collected;
use crate::history::History;
use crate::journal::{JournalName, JournalPage};
use crate::result::{CommitResult, Decided, Forgotten, Rows};
use crate::session::Session;
use crate::verify::Verification;

/// A store: where syncs are committed and read.
///
/// A handle; any number of tasks may share it by reference. One process at a time writes to a
/// store; others may read. Dropping the handle waits for whatever has begun to write, and releases
/// the lock.
#[derive(Debug)]
pub struct Store {
    engine: Box<dyn Engine>,
}

impl Store {
    /// Opens a store for writing, and creates it if there is none.
    ///
    /// `sqlite:PATH` is a file, relative to the current directory; `sqlite::memory:` lives as long
    /// as the handle.
    ///
    /// Needs a tokio runtime, as every async method here: engines work on its blocking threads.
    ///
    /// # Errors
    ///
    /// [`StoreError`] says why not. A file that is not a store, or one of a newer version, is left
    /// as it is.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self {
            engine: engine::open(url, false).await?,
        })
    }

    /// Opens a store that exists, for reading; another process may be writing to it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`StoreError::NotFound`].
    pub async fn open_read_only(url: &str) -> Result<Self, StoreError> {
        Ok(Self {
            engine: engine::open(url, true).await?,
        })
    }

    /// Returns the store's URL with the absolute path.
    pub fn url(&self) -> &str {
        self.engine.url()
    }

    /// Commits what a run emitted: compares it with what the same source committed before, and
    /// writes the difference in one transaction.
    ///
    /// The output holds the records in memory; those of a run that emitted into a
    /// [session](Self::session) are committed by that.
    ///
    /// Idempotent: committing the same output again changes nothing and returns the first result's
    /// counts, with [`CommitResult::replayed`]. If no step returned `Ok`, the sync is recorded and
    /// no data is written: [`Outcome::Failed`](crate::Outcome::Failed).
    ///
    /// # Errors
    ///
    /// [`CommitError`] says why nothing was changed.
    ///
    /// # Cancel safety
    ///
    /// A commit that has begun goes on when the future is dropped, and dropping the handle waits for
    /// it. Commit the same output again to learn what became of it.
    pub async fn commit_sync(&self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        self.session().commit(output).await
    }

    /// Commits as [`commit_sync`](Self::commit_sync) does, on this thread and blocking it: for
    /// tools and tests.
    ///
    /// # Errors
    ///
    /// As [`commit_sync`](Self::commit_sync).
    pub fn commit_sync_exclusive(
        &mut self,
        output: &ConnectorOutput,
    ) -> Result<CommitResult, CommitError> {
        self.engine.commit_blocking(output)
    }

    /// Returns what [`commit_sync`](Self::commit_sync) would do now, by the same code, and writes
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`commit_sync`](Self::commit_sync).
    pub async fn plan_sync(&self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        self.session().plan(output).await
    }

    /// Begins a sync that is not gathered in memory, or that is committed in another way than
    /// [`commit_sync`](Self::commit_sync) does.
    pub fn session(&self) -> Session<'_> {
        Session::new(self)
    }

    /// Deletes what a changeset still holds, in one transaction.
    ///
    /// Idempotent: approving it again changes nothing and returns the same.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchChangeset`], or [`StoreError::ChangesetClosed`] if it was rejected or
    /// all of its records came back.
    pub async fn approve(&self, changeset: u64) -> Result<Decided, StoreError> {
        self.engine.decide(changeset, Word::Approve).await
    }

    /// Keeps what a changeset holds: it is not held again before it has been emitted again.
    ///
    /// Idempotent: rejecting it again changes nothing, and counts what it still keeps.
    ///
    /// # Errors
    ///
    /// As [`approve`](Self::approve).
    pub async fn reject(&self, changeset: u64) -> Result<Decided, StoreError> {
        self.engine.decide(changeset, Word::Reject).await
    }

    /// Removes a source with all that it committed and its history, in one transaction.
    ///
    /// What other sources have is not touched: an entity that they emit, too, lives on with them.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchSource`] if there is none.
    pub async fn forget(
        &self,
        connector_id: &str,
        account_id: &str,
    ) -> Result<Forgotten, StoreError> {
        self.engine
            .forget(connector_id.to_owned(), account_id.to_owned(), false)
            .await
    }

    /// Returns what [`forget`](Self::forget) would remove now, and removes nothing.
    ///
    /// # Errors
    ///
    /// As [`forget`](Self::forget).
    pub async fn plan_forget(
        &self,
        connector_id: &str,
        account_id: &str,
    ) -> Result<Forgotten, StoreError> {
        self.engine
            .forget(connector_id.to_owned(), account_id.to_owned(), true)
            .await
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    pub(crate) fn collect(&self) -> Collected {
        self.engine.collect()
    }

    /// Runs one SQL statement that reads.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`] if it is not one statement, not valid, or does more than read.
    pub async fn query(&self, sql: &str) -> Result<Rows, StoreError> {
        self.engine.query(sql.to_owned()).await
    }

    /// Lists records, in the order in which they were stored, page by page.
    ///
    /// Pages are read one by one, so that a commit may come between two of them: what is there all
    /// the time is listed once, and what comes or goes meanwhile may be or not.
    ///
    /// # Errors
    ///
    /// Those of the disk, and [`StoreError::Corrupt`].
    pub async fn browse(&self, browse: &Browse) -> Result<Page, StoreError> {
        self.engine.browse(browse.clone()).await
    }

    /// Lists the types of entities, then the verbs of relationships that are shown, by name.
    ///
    /// Reads an index over all of them: some 0.15 s for a million records.
    ///
    /// # Errors
    ///
    /// As [`browse`](Self::browse).
    pub async fn types(&self) -> Result<Vec<RecordType>, StoreError> {
        self.engine.types().await
    }

    /// Says of each record that `subject` names who claims it, and why it is there or gone; in the
    /// order of ids. Nothing if no such record is stored, nor in the history.
    ///
    /// # Errors
    ///
    /// Those of the disk, and [`StoreError::Corrupt`].
    pub async fn explain(&self, subject: &Subject) -> Result<Vec<Explanation>, StoreError> {
        self.engine.explain(subject.clone()).await
    }

    /// Says of each record that `subject` names what happened to it; in the order of ids, and of
    /// each the newest `limit` events. Nothing if no such record is stored, nor in the history.
    ///
    /// # Errors
    ///
    /// As [`explain`](Self::explain).
    pub async fn history(&self, subject: &Subject, limit: u32) -> Result<Vec<History>, StoreError> {
        self.engine.history(subject.clone(), limit).await
    }

    /// Names the journals of syncs whose id begins with `prefix`, at most `limit`: the one that was
    /// last written to first.
    ///
    /// # Errors
    ///
    /// As [`explain`](Self::explain).
    pub async fn journals(&self, prefix: &str, limit: u32) -> Result<Vec<JournalName>, StoreError> {
        self.engine.journals(prefix.to_owned(), limit).await
    }

    /// Reads the journal of a sync from the entry numbered `from` on, as far as it is stored. Of a
    /// sync that was run again under its id, the last run's.
    ///
    /// Entries are kept for 30 days, and 64 MiB of them: the oldest go first.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchJournal`], those of the disk, and [`StoreError::Corrupt`].
    pub async fn journal(&self, name: &JournalName, from: u64) -> Result<JournalPage, StoreError> {
        self.engine.journal(name.clone(), from).await
    }

    /// Reads the whole store and checks all that must hold in it: the engine's pages and indexes,
    /// the checksum of every row, every reference and every count. Commits go on meanwhile, but
    /// for a store in memory.
    ///
    /// # Errors
    ///
    /// Those of the disk. Damage is no error: it is what the answer tells.
    pub async fn verify(&self) -> Result<Verification, StoreError> {
        self.engine.verify().await
    }

    /// Copies the store, as it is at one moment, into a new file at `path`: a store of its own.
    /// Commits go on meanwhile, but for a store in memory.
    ///
    /// The file appears whole, on disk and readable by its owner only, or not at all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if there is anything at `path`, since a backup replaces nothing, or the
    /// log of a store that was there, which SQLite would take for the copy's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the copy, and what was written of it is removed.
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<Backup, StoreError> {
        self.engine.backup(path.as_ref().to_owned()).await
    }
}

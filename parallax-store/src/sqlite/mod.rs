//! The embedded engine: a connection that writes, a few that read, one transaction per commit.

mod alarm;
mod backup;
mod browse;
mod bulk;
mod changes;
mod changeset;
mod commit;
mod compare;
mod decide;
mod delete;
mod error;
mod explain;
mod forget;
mod history;
mod insert;
mod journal;
mod lock;
mod open;
mod prepare;
mod query;
mod records;
mod retain;
mod row;
#[cfg(test)]
mod testing;
mod verify;
mod write;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use parallax_core::{ConnectorOutput, Escaped};
use rusqlite::{Connection, OptionalExtension};
use tokio::task::spawn_blocking;

use crate::backup::Backup;
use crate::browse::{Browse, Page, RecordType};
use crate::engine::{Answer, Engine, Word};
use crate::error::{CommitError, StoreError};
use crate::explain::{Explanation, Subject};
use crate::findings::{Collected, Findings};
use crate::history::History;
use crate::journal::{JournalName, JournalPage, JournalQueue, SessionJournal};
use crate::result::{CommitResult, Decided, Forgotten, Rows};
use crate::session::Options;
use crate::sqlite::decide::Decided as Meant;
use crate::sqlite::open::{Location, Opened};
use crate::verify::Verification;

/// How many connections that read are kept.
const READERS: usize = 2;
/// How often a commit is decided on a snapshot before it decides where it writes.
const SNAPSHOTS: usize = 3;

/// SQLite has one writer and blocks: a mutex is the queue that commits wait in, and the runtime's
/// blocking threads keep the waiting away from the async tasks. Readers have connections of their
/// own, and wait for nobody.
pub(crate) struct Sqlite {
    url: String,
    read_only: bool,
    /// The store's secret.
    seed: u64,
    spool: PathBuf,
    files: Arc<Files>,
    /// Each write that has begun has a copy of it, until it has ended.
    writing: Option<Sender<()>>,
    /// Hangs up once nobody is writing any more.
    written: Mutex<Receiver<()>>,
}

struct Files {
    location: Location,
    /// `None` once the handle is dropped.
    writer: Mutex<Option<Opened>>,
    /// Those that nobody reads with; `None` once the handle is dropped.
    readers: Mutex<Option<Vec<Connection>>>,
    /// What runs have told and is not stored yet.
    journal: Arc<JournalQueue>,
    /// Done once somebody keeps a journal.
    storing: Once,
}

impl Sqlite {
    /// Opens the store at `path`, which is what follows the scheme in `url`.
    pub(crate) async fn open(url: &str, path: &str, read_only: bool) -> Result<Self, StoreError> {
        let location = Location::parse(url, path)?;
        let opening = location.clone();
        let open = move || {
            let opened = if read_only {
                opening.open_read_only()?
            } else {
                opening.open()?
            };
            let seed = "SELECT value FROM px_meta WHERE key = 'hash_seed'";
            let seed = opened.connection.query_row(seed, [], |row| row.get(0));
            let seed = seed.optional()?.ok_or_else(|| StoreError::Corrupt {
                details: "px_meta holds no hash_seed".to_owned(),
            })?;
            Ok::<_, StoreError>((opened, u64::from_be_bytes(seed)))
        };
        let (opened, seed) = spawn_blocking(open).await.map_err(|_| panicked())??;
        let (writing, written) = mpsc::channel();
        Ok(Self {
            writing: Some(writing),
            written: Mutex::new(written),
            url: location.url(),
            read_only,
            seed,
            spool: location.directory(),
            files: Arc::new(Files {
                location,
                writer: Mutex::new(Some(opened)),
                readers: Mutex::new(Some(Vec::new())),
                journal: Arc::default(),
                storing: Once::new(),
            }),
        })
    }

    /// Does a job on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = Arc::clone(&self.files);
        spawn_blocking(move || job(&files))
            .await
            .map_err(|_| panicked())?
    }

    /// Does a job that writes on a blocking thread, to its end: dropping the handle waits for it, also
    /// if nobody else does.
    async fn run_to_end<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let writing = self.writing.clone();
        let job = move |files: &Files| {
            let done = job(files);
            drop(writing);
            done
        };
        self.run(job).await
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.read_only {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// Moves the log into the file once the caller has its answer.
    fn checkpoint_later(&self) {
        let files = Arc::clone(&self.files);
        // Were it not to run, the next one would.
        drop(spawn_blocking(move || {
            files.write(|opened| opened.checkpoint())
        }));
    }
}

impl Files {
    /// Waits for its turn and does a job with the connection that writes.
    fn write<T>(&self, job: impl FnOnce(&mut Opened) -> T) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let opened = writer.as_mut().ok_or_else(closed)?;
        // A panic has rolled its transaction back when it gets here.
        catch_unwind(AssertUnwindSafe(|| job(opened))).map_err(|_| panicked())
    }

    /// Does a job with a connection that reads, while others write.
    fn read<T>(&self, job: impl FnOnce(&mut Connection) -> T) -> Result<T, StoreError> {
        let idle = lock(&self.readers).as_mut().ok_or_else(closed)?.pop();
        let reader = match idle {
            Some(reader) => Some(reader),
            None => self.location.open_reader()?,
        };
        let Some(mut reader) = reader else {
            // What is in memory has one connection.
            return self.write(|opened| job(&mut opened.connection));
        };
        let done = catch_unwind(AssertUnwindSafe(|| job(&mut reader))).map_err(|_| panicked())?;
        if let Some(readers) = lock(&self.readers).as_mut()
            && readers.len() < READERS
        {
            readers.push(reader);
        }
        Ok(done)
    }

    /// Stores what is in the queue of journals.
    fn store_journal(&self) -> Result<(), StoreError> {
        self.write(|opened| {
            // Taken while nobody else writes: a commit stores what its run told before.
            let chunks = self.journal.take_all();
            if chunks.is_empty() {
                return Ok(());
            }
            let stored = opened.write(0, |transaction| {
                journal::write(transaction, &chunks).map(Some)
            });
            stored
                .map(|_| ())
                .inspect_err(|_| self.journal.put_back(chunks))
        })?
    }

    fn commit(
        &self,
        findings: &mut Findings,
        options: &Options,
        seed: u64,
    ) -> Result<CommitResult, CommitError> {
        for _ in 0..SNAPSHOTS {
            let decided = self.read(|connection| {
                commit::decide(connection, &self.location, findings, options, seed)
            })??;
            let decision = match decided {
                Meant::Replay(result) => return Ok(*result),
                Meant::Commit(decision) => decision,
            };
            let written = self.write(|opened| commit::write(opened, findings, *decision))??;
            if let Some(result) = written {
                return Ok(result);
            }
        }
        let written =
            self.write(|opened| commit::decide_and_write(opened, findings, options, seed))??;
        Ok(written.ok_or_else(panicked)?)
    }
}

impl Engine for Sqlite {
    fn url(&self) -> &str {
        &self.url
    }

    fn collect(&self) -> Collected {
        let queue = (!self.read_only).then(|| {
            let files = &self.files;
            files.storing.call_once(|| journal::begin_storing(files));
            Arc::clone(&files.journal)
        });
        let journal = Arc::new(SessionJournal::new(queue));
        Collected::new(self.seed, self.spool.clone(), journal)
    }

    fn commit(
        &self,
        output: ConnectorOutput,
        collected: Collected,
        options: Options,
    ) -> Answer<'_, Result<CommitResult, CommitError>> {
        Box::pin(async move {
            self.check_writable()?;
            let seed = self.seed;
            let committed = self.run_to_end(move |files| {
                let mut findings = Findings::new(output, collected);
                Ok(files.commit(&mut findings, &options, seed))
            });
            let committed = committed.await?;
            self.checkpoint_later();
            committed
        })
    }

    fn commit_blocking(&self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        self.check_writable()?;
        let mut findings = Findings::new(output.clone(), self.collect());
        let committed = self
            .files
            .commit(&mut findings, &Options::default(), self.seed);
        self.files.write(|opened| opened.checkpoint())?;
        committed
    }

    fn plan(
        &self,
        output: ConnectorOutput,
        collected: Collected,
        options: Options,
    ) -> Answer<'_, Result<CommitResult, CommitError>> {
        Box::pin(async move {
            let seed = self.seed;
            let decided = self.run(move |files| {
                let mut findings = Findings::new(output, collected);
                files.read(|connection| {
                    commit::decide(connection, &files.location, &mut findings, &options, seed)
                })
            });
            match decided.await?? {
                Meant::Replay(result) => Ok(*result),
                Meant::Commit(decision) => Ok(decision.result),
            }
        })
    }

    fn decide(&self, changeset: u64, word: Word) -> Answer<'_, Result<Decided, StoreError>> {
        Box::pin(async move {
            self.check_writable()?;
            let decided = self.run_to_end(move |files| {
                files.write(|opened| {
                    opened.write(0, |transaction| {
                        changeset::decide(transaction, changeset, word).map(Some)
                    })
                })?
            });
            decided.await?.ok_or_else(panicked)
        })
    }

    fn forget(
        &self,
        connector_id: String,
        account_id: String,
        plan: bool,
    ) -> Answer<'_, Result<Forgotten, StoreError>> {
        Box::pin(async move {
            if plan {
                let plan = move |files: &Files| {
                    files.read(|connection| forget::plan(connection, &connector_id, &account_id))?
                };
                return self.run(plan).await;
            }
            self.check_writable()?;
            let forgotten = self.run_to_end(move |files| {
                files.write(|opened| {
                    opened.write(u64::MAX, |transaction| {
                        forget::forget(transaction, &connector_id, &account_id).map(Some)
                    })
                })?
            });
            let forgotten = forgotten.await?;
            self.checkpoint_later();
            forgotten.ok_or_else(panicked)
        })
    }

    fn query(&self, sql: String) -> Answer<'_, Result<Rows, StoreError>> {
        Box::pin(self.run(move |files| files.read(|connection| query::query(connection, &sql))?))
    }

    fn browse(&self, browse: Browse) -> Answer<'_, Result<Page, StoreError>> {
        let browse =
            move |files: &Files| files.read(|connection| browse::browse(connection, &browse))?;
        Box::pin(self.run(browse))
    }

    fn types(&self) -> Answer<'_, Result<Vec<RecordType>, StoreError>> {
        Box::pin(self.run(|files| files.read(browse::types)?))
    }

    fn explain(&self, subject: Subject) -> Answer<'_, Result<Vec<Explanation>, StoreError>> {
        let explain =
            move |files: &Files| files.read(|connection| explain::explain(connection, &subject))?;
        Box::pin(self.run(explain))
    }

    fn history(
        &self,
        subject: Subject,
        limit: u32,
    ) -> Answer<'_, Result<Vec<History>, StoreError>> {
        let history = move |files: &Files| {
            files.read(|connection| history::history(connection, &subject, limit))?
        };
        Box::pin(self.run(history))
    }

    fn journals(
        &self,
        prefix: String,
        limit: u32,
    ) -> Answer<'_, Result<Vec<JournalName>, StoreError>> {
        let find = move |files: &Files| {
            files.read(|connection| journal::find(connection, &prefix, limit))?
        };
        Box::pin(self.run(find))
    }

    fn journal(&self, name: JournalName, from: u64) -> Answer<'_, Result<JournalPage, StoreError>> {
        let read =
            move |files: &Files| files.read(|connection| journal::read(connection, &name, from))?;
        Box::pin(self.run(read))
    }

    fn verify(&self) -> Answer<'_, Result<Verification, StoreError>> {
        let seed = self.seed;
        Box::pin(self.run(move |files| files.read(|connection| verify::verify(connection, seed))?))
    }

    fn backup(&self, path: PathBuf) -> Answer<'_, Result<Backup, StoreError>> {
        Box::pin(async move {
            // Gone with the future: whoever holds the other half sees that nobody waits any more.
            let wanted = Arc::new(());
            let watch = Arc::downgrade(&wanted);
            let backup = move |files: &Files| {
                files.read(|connection| backup::backup(connection, &path, &watch))?
            };
            self.run(backup).await
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // What has begun to write ends first, also where it compares what it has with what is there,
        // or waits for a thread. Nothing is ever sent.
        self.writing = None;
        let written = self.written.get_mut();
        written.unwrap_or_else(PoisonError::into_inner).recv().ok();
        self.files.journal.close();
        if !self.read_only
            && let Err(error) = self.files.store_journal()
        {
            tracing::warn!(code = error.code(), error = %Escaped(&error), "Journal not stored");
        }
        // So that the lock is free once the handle is gone. The writer last: it moves the log into
        // the file.
        let mut writer = lock(&self.files.writer);
        lock(&self.files.readers).take();
        writer.take();
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("url", &self.url)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> StoreError {
    StoreError::Engine {
        details: "the store was closed".to_owned(),
    }
}

fn panicked() -> StoreError {
    StoreError::Engine {
        details: "the engine panicked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use crate::sqlite::testing::{findings, hosts};
    use crate::store::Store;

    /// A commit that somebody had begun and no longer waited for was dropped with the handle, unless
    /// it was writing just then.
    #[tokio::test]
    async fn commit_that_has_begun_ends_before_the_handle_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/parallax.db", directory.path().display());
        let found = hosts("hosts", (0..20_000).map(|host| (host, 1)));
        let output = findings(1, [found]).output;
        let store = Store::open(&url).await.unwrap();
        tokio::select! {
            biased;
            _ = store.commit_sync(&output) => panic!("it has ended at once"),
            () = ready(()) => {}
        }
        drop(store);
        let store = Store::open(&url).await.unwrap();
        assert!(store.commit_sync(&output).await.unwrap().replayed);
    }
}

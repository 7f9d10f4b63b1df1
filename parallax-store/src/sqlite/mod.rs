//! The embedded engine: one thread, one connection, one transaction per commit.

mod commit;
mod error;
mod open;
mod query;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parallax_core::ConnectorOutput;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{CommitError, StoreError};
use crate::result::{CommitResult, Rows};
use crate::sqlite::open::{Location, Opened};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the thread that owns the connection.
///
/// SQLite blocks and has one writer: a thread of its own keeps both away from the async tasks, and
/// is the queue that commits wait in.
pub(crate) struct Sqlite {
    url: String,
    read_only: bool,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Sqlite {
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        Self::start(Location::parse(url)?, false).await
    }

    pub(crate) async fn open_read_only(url: &str) -> Result<Self, StoreError> {
        Self::start(Location::parse(url)?, true).await
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn commit(
        &self,
        output: ConnectorOutput,
    ) -> Result<CommitResult, CommitError> {
        if self.read_only {
            return Err(StoreError::ReadOnly.into());
        }
        self.run(move |connection| commit::commit(connection, &output))
            .await?
    }

    pub(crate) fn commit_blocking(
        &mut self,
        output: ConnectorOutput,
    ) -> Result<CommitResult, CommitError> {
        if self.read_only {
            return Err(StoreError::ReadOnly.into());
        }
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Box::new(move |connection| {
            let _ = reply.send(commit::commit(connection, &output));
        }))?;
        answer.recv().map_err(|_| thread_ended())?
    }

    pub(crate) async fn plan(&self, output: ConnectorOutput) -> Result<CommitResult, CommitError> {
        self.run(move |connection| commit::plan(connection, &output))
            .await?
    }

    pub(crate) async fn query(&self, sql: String) -> Result<Rows, StoreError> {
        self.run(move |connection| query::query(connection, &sql))
            .await?
    }

    async fn start(location: Location, read_only: bool) -> Result<Self, StoreError> {
        let url = location.url();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (reply, answer) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("parallax-store".to_owned())
            .spawn(move || {
                let opened = if read_only {
                    location.open_read_only()
                } else {
                    location.open()
                };
                match opened {
                    Ok(opened) => {
                        // The lock goes last: when it is free, the connection is closed.
                        let Opened {
                            mut connection,
                            lock,
                        } = opened;
                        let _ = reply.send(Ok(()));
                        for job in queue {
                            // A panic rolls its transaction back; its caller gets an error.
                            let _ = catch_unwind(AssertUnwindSafe(|| job(&mut connection)));
                        }
                        drop(connection);
                        drop(lock);
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            })
            .map_err(|error| StoreError::Engine {
                details: error.to_string(),
            })?;
        let sqlite = Self {
            url,
            read_only,
            jobs: Some(jobs),
            thread: Some(thread),
        };
        answer.await.map_err(|_| thread_ended())??;
        Ok(sqlite)
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |connection| {
            let _ = reply.send(job(connection));
        }))?;
        answer.await.map_err(|_| thread_ended())
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().ok_or_else(thread_ended)?;
        jobs.send(job).map_err(|_| thread_ended())
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.jobs = None;
        // Waits for a commit under way, so that the lock is free once the handle is gone.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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

fn thread_ended() -> StoreError {
    StoreError::Engine {
        details: "the store's thread panicked".to_owned(),
    }
}

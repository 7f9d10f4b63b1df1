//! The embedded engine: one connection, one transaction per commit.

mod commit;
mod decide;
mod error;
mod forget;
mod open;
mod query;
mod write;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use parallax_core::ConnectorOutput;
use rusqlite::Connection;
use tokio::task::spawn_blocking;

use crate::engine::{Answer, Engine};
use crate::error::{CommitError, StoreError};
use crate::result::{CommitResult, Forgotten, Rows};
use crate::sqlite::open::{Location, Opened};

/// SQLite has one writer and blocks: a mutex is the queue that commits wait in, and the runtime's
/// blocking threads keep the waiting away from the async tasks.
pub(crate) struct Sqlite {
    url: String,
    read_only: bool,
    /// `None` once the handle is dropped.
    opened: Arc<Mutex<Option<Opened>>>,
}

impl Sqlite {
    /// Opens the store at `path`, which is what follows the scheme in `url`.
    pub(crate) async fn open(url: &str, path: &str, read_only: bool) -> Result<Self, StoreError> {
        let location = Location::parse(url, path)?;
        let url = location.url();
        let open = move || {
            if read_only {
                location.open_read_only()
            } else {
                location.open()
            }
        };
        let opened = spawn_blocking(open).await.map_err(|_| panicked())??;
        Ok(Self {
            url,
            read_only,
            opened: Arc::new(Mutex::new(Some(opened))),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let opened = Arc::clone(&self.opened);
        spawn_blocking(move || run_on(&opened, job))
            .await
            .map_err(|_| panicked())?
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.read_only {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }
}

impl Engine for Sqlite {
    fn url(&self) -> &str {
        &self.url
    }

    fn commit(&self, output: ConnectorOutput) -> Answer<'_, Result<CommitResult, CommitError>> {
        Box::pin(async move {
            self.check_writable()?;
            self.run(move |connection| commit::commit(connection, &output))
                .await?
        })
    }

    fn commit_blocking(&self, output: &ConnectorOutput) -> Result<CommitResult, CommitError> {
        self.check_writable()?;
        run_on(&self.opened, |connection| {
            commit::commit(connection, output)
        })?
    }

    fn plan(&self, output: ConnectorOutput) -> Answer<'_, Result<CommitResult, CommitError>> {
        Box::pin(async move {
            self.run(move |connection| commit::plan(connection, &output))
                .await?
        })
    }

    fn forget(
        &self,
        connector_id: String,
        account_id: String,
        plan: bool,
    ) -> Answer<'_, Result<Forgotten, StoreError>> {
        Box::pin(async move {
            if !plan {
                self.check_writable()?;
            }
            self.run(move |connection| forget::forget(connection, &connector_id, &account_id, plan))
                .await?
        })
    }

    fn query(&self, sql: String) -> Answer<'_, Result<Rows, StoreError>> {
        Box::pin(async move {
            self.run(move |connection| query::query(connection, &sql))
                .await?
        })
    }
}

fn run_on<T>(
    opened: &Mutex<Option<Opened>>,
    job: impl FnOnce(&mut Connection) -> T,
) -> Result<T, StoreError> {
    let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
    let connection = match opened.as_mut() {
        Some(opened) => &mut opened.connection,
        None => {
            return Err(StoreError::Engine {
                details: "the store was closed".to_owned(),
            });
        }
    };
    // A panic has rolled its transaction back when it gets here.
    catch_unwind(AssertUnwindSafe(|| job(connection))).map_err(|_| panicked())
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // Waits for a commit under way, so that the lock is free once the handle is gone.
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
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

fn panicked() -> StoreError {
    StoreError::Engine {
        details: "the engine panicked".to_owned(),
    }
}

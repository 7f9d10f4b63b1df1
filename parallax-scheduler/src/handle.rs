use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::job::{DuplicateSource, Job};
use crate::timetable::Skip;

/// How many requests may wait for a scheduler to take them.
const WAITING: usize = 64;

/// Asks a scheduler that runs for something, from any task.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    commits: Arc<AtomicUsize>,
}

/// A commit that is under way, until this is dropped.
pub(crate) struct Commit(Arc<AtomicUsize>);

impl Commit {
    pub(crate) fn begin(commits: &Arc<AtomicUsize>) -> Self {
        commits.fetch_add(1, Relaxed);
        Self(Arc::clone(commits))
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a scheduler is asked for, each with the place for its answer.
#[derive(Debug)]
pub(crate) enum Request {
    Jobs(oneshot::Sender<Vec<JobStatus>>),
    Trigger {
        connector_id: String,
        account_id: String,
        answer: oneshot::Sender<Result<String, TriggerError>>,
    },
    Add {
        job: Box<Job>,
        answer: oneshot::Sender<Result<(), AddError>>,
    },
    Cancel {
        sync_id: String,
        answer: oneshot::Sender<Result<(), CancelError>>,
    },
}

/// How a job is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// The connector.
    pub connector_id: String,
    /// The account.
    pub account_id: String,
    /// What it is at.
    pub activity: Activity,
    /// How long until it is due next, as far as is known now.
    pub due_in: Duration,
    /// How many of its syncs failed in a row.
    pub failures: u32,
}

/// What a job is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It waits for its time.
    Idle,
    /// It is due, and waits for a sync of another job to end.
    Waiting {
        /// The sync that will run, if somebody asked for it.
        sync_id: Option<String>,
    },
    /// Its sync runs, or is being committed.
    Running {
        /// The sync.
        sync_id: String,
        /// How long it has been.
        elapsed: Duration,
    },
}

impl Activity {
    /// Returns the sync that runs or, if somebody asked for it, waits.
    pub fn sync_id(&self) -> Option<&str> {
        match self {
            Self::Idle => None,
            Self::Waiting { sync_id } => sync_id.as_deref(),
            Self::Running { sync_id, .. } => Some(sync_id),
        }
    }
}

/// Why a sync does not start on request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// No job has such a source.
    #[error("no job syncs {connector_id} in account {account_id:?}")]
    NoSuchJob {
        /// The connector.
        connector_id: String,
        /// The account.
        account_id: String,
    },
    /// The source has at most one sync at a time.
    #[error("{reason}")]
    Busy {
        /// What it is at.
        reason: Skip,
        /// The sync that runs or, if somebody asked for it, will.
        sync_id: Option<String>,
    },
    /// The scheduler stops, or has stopped.
    #[error("no sync starts any more")]
    Stopped,
}

/// Why a job is not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// There is one for the same connector and account.
    #[error(transparent)]
    Duplicate(DuplicateSource),
    /// The scheduler stops, or has stopped.
    #[error("no sync starts any more")]
    Stopped,
}

/// Why a sync is not cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// No such sync runs or waits.
    #[error("sync {sync_id:?} does not run")]
    NotRunning {
        /// The sync.
        sync_id: String,
    },
    /// The scheduler has stopped.
    #[error("no sync runs any more")]
    Stopped,
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let handle = Self {
            requests,
            commits: Arc::default(),
        };
        (handle, receiver)
    }

    /// Counts a commit.
    pub(crate) fn commit(&self) -> Commit {
        Commit::begin(&self.commits)
    }

    /// Returns how many commits are under way. The scheduler need not answer.
    pub fn commits(&self) -> usize {
        self.commits.load(Relaxed)
    }

    /// Returns how each job is, in the order in which they were added; nothing once the scheduler
    /// has stopped. Before it runs, this waits until it does.
    pub async fn jobs(&self) -> Vec<JobStatus> {
        let (answer, answered) = oneshot::channel();
        let asked = self.requests.send(Request::Jobs(answer)).await;
        match asked {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Adds a job to those that run, as [`Scheduler::job`](crate::Scheduler::job) does before.
    ///
    /// # Errors
    ///
    /// [`AddError`] if it was not added.
    pub async fn add(&self, job: Job) -> Result<(), AddError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(job);
        let asked = self.requests.send(Request::Add { job, answer }).await;
        asked.map_err(|_| AddError::Stopped)?;
        answered.await.unwrap_or(Err(AddError::Stopped))
    }

    /// Starts a sync of a source now, or as soon as fewer syncs run than may at a time, and returns
    /// its id. A source that waits longer because its syncs failed does not wait any more.
    ///
    /// # Errors
    ///
    /// [`TriggerError`] if no sync was started. None waits behind one that runs.
    pub async fn trigger(
        &self,
        connector_id: impl Into<String>,
        account_id: impl Into<String>,
    ) -> Result<String, TriggerError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Trigger {
            connector_id: connector_id.into(),
            account_id: account_id.into(),
            answer,
        };
        let asked = self.requests.send(request).await;
        asked.map_err(|_| TriggerError::Stopped)?;
        answered.await.unwrap_or(Err(TriggerError::Stopped))
    }

    /// Cancels a sync that runs, or that was asked for and waits. What it read is dropped; once its
    /// commit has begun, the commit goes on.
    ///
    /// Returns when the sync was told, not when it has ended. The source is due at its next tick,
    /// as if the sync had not been.
    ///
    /// # Errors
    ///
    /// [`CancelError`] if there is nothing to cancel.
    pub async fn cancel(&self, sync_id: impl Into<String>) -> Result<(), CancelError> {
        let (answer, answered) = oneshot::channel();
        let sync_id = sync_id.into();
        let asked = self
            .requests
            .send(Request::Cancel { sync_id, answer })
            .await;
        asked.map_err(|_| CancelError::Stopped)?;
        answered.await.unwrap_or(Err(CancelError::Stopped))
    }
}

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parallax_connect::{RunError, Runner};
use parallax_core::Escaped;
use parallax_store::{Outcome, Store};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::job::{DuplicateSource, Job};
use crate::run_once::{SyncError, Synced, run_once};
use crate::timetable::{Skip, Tick, Timetable};

/// Runs the syncs of many sources when they are due.
///
/// A source has at most one sync at a time. At each tick of a job, its sync starts, or one log line
/// says why not.
pub struct Scheduler {
    store: Arc<Store>,
    jobs: Vec<Job>,
    concurrency: usize,
    watcher: Box<dyn Fn(&Notice<'_>) + Send + Sync>,
}

/// What a scheduler tells its watcher.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// A sync starts.
    Started {
        /// The job.
        job: &'a Job,
        /// The sync.
        sync_id: &'a str,
    },
    /// A job does not run at a tick.
    Skipped {
        /// The job.
        job: &'a Job,
        /// Why not.
        reason: Skip,
    },
    /// A sync ended.
    Ended {
        /// The job.
        job: &'a Job,
        /// The sync.
        sync_id: &'a str,
        /// What became of it.
        result: &'a Result<Synced, SyncError>,
    },
}

impl Scheduler {
    /// Makes a scheduler that commits to `store`, and runs at most four syncs at a time.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            jobs: Vec::new(),
            concurrency: 4,
            watcher: Box::new(|_| {}),
        }
    }

    /// Adds a job.
    ///
    /// # Errors
    ///
    /// [`DuplicateSource`] if there is one for the same connector and account.
    pub fn job(mut self, job: Job) -> Result<Self, DuplicateSource> {
        let source = |job: &Job| (job.connector_id().to_owned(), job.account_id.clone());
        let (connector_id, account_id) = source(&job);
        let known: HashSet<_> = self.jobs.iter().map(source).collect();
        if known.contains(&(connector_id.clone(), account_id.clone())) {
            return Err(DuplicateSource {
                connector_id,
                account_id,
            });
        }
        self.jobs.push(job);
        Ok(self)
    }

    /// Sets how many syncs run at a time, at least one.
    #[must_use]
    pub fn concurrency(mut self, syncs: usize) -> Self {
        self.concurrency = syncs.max(1);
        self
    }

    /// Calls `watcher` for each [`Notice`], from the scheduler's task: it must not block.
    #[must_use]
    pub fn watcher(mut self, watcher: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.watcher = Box::new(watcher);
        self
    }

    /// Runs until `stop` ends.
    ///
    /// Then no sync starts any more, those that run are cancelled and commit nothing, and commits
    /// under way are waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops as `stop` does, without waiting for commits under way.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.boxed().shared();
        let begin = Instant::now();
        let seeds = self.jobs.iter().map(|job| (job.every, seed(job)));
        let mut timetable = Timetable::new(seeds, self.concurrency);
        let mut syncs = JoinSet::new();
        let mut sync_ids: HashMap<Id, (usize, String)> = HashMap::new();
        let mut stopping = false;
        loop {
            if !stopping {
                for tick in timetable.tick(begin.elapsed()) {
                    match tick {
                        Tick::Start { job } => {
                            if let Some((id, sync_id)) = self.start(job, &stop, &mut syncs) {
                                sync_ids.insert(id, (job, sync_id));
                            }
                        }
                        Tick::Skip { job, reason } => self.skip(job, reason),
                    }
                }
            } else if syncs.is_empty() {
                return;
            }

            let wake = timetable.next().map_or_else(far_away, |next| begin + next);
            tokio::select! {
                Some(ended) = syncs.join_next_with_id() => {
                    let (id, result) = match ended {
                        Ok((id, result)) => (id, Some(result)),
                        Err(error) => (error.id(), None),
                    };
                    if let Some((job, sync_id)) = sync_ids.remove(&id) {
                        let ok = self.end(job, &sync_id, result.as_ref());
                        timetable.ended(job, begin.elapsed(), ok);
                    }
                }
                () = sleep_until(wake), if !stopping => {}
                () = stop.clone(), if !stopping => stopping = true,
            }
        }
    }

    fn start(
        &self,
        place: usize,
        stop: &(impl Future<Output = ()> + Clone + Send + 'static),
        syncs: &mut JoinSet<Result<Synced, SyncError>>,
    ) -> Option<(Id, String)> {
        let job = self.jobs.get(place)?.clone();
        let sync_id = uuid::Uuid::now_v7().to_string();
        tracing::info!(
            connector_id = %job.connector_id(),
            account_id = %Escaped(&job.account_id),
            sync_id = %sync_id,
            "Sync due"
        );
        (self.watcher)(&Notice::Started {
            job: &job,
            sync_id: &sync_id,
        });
        let (store, stop, id) = (Arc::clone(&self.store), stop.clone(), sync_id.clone());
        let sync = async move {
            let runner = Runner::new(&job.connector).cancel_on(stop);
            let session = store.session().guard(job.guard);
            run_once(runner, &job.account_id, &id, session).await
        };
        let handle = syncs.spawn(sync.in_current_span());
        Some((handle.id(), sync_id))
    }

    fn skip(&self, place: usize, reason: Skip) {
        let Some(job) = self.jobs.get(place) else {
            return;
        };
        tracing::warn!(
            connector_id = %job.connector_id(),
            account_id = %Escaped(&job.account_id),
            %reason,
            "Sync skipped"
        );
        (self.watcher)(&Notice::Skipped { job, reason });
    }

    /// Reports the end of a sync, and returns whether anything of it counted. No result is a panic
    /// of what is not a step, as of the runner itself: a defect, already printed by the panic hook.
    fn end(&self, place: usize, sync_id: &str, result: Option<&Result<Synced, SyncError>>) -> bool {
        let (Some(job), Some(result)) = (self.jobs.get(place), result) else {
            return false;
        };
        match result {
            // Told by the runner, and meant.
            Err(SyncError::Run(RunError::Cancelled { .. })) => {}
            Err(SyncError::Run(error)) => tracing::error!(
                connector_id = %job.connector_id(),
                account_id = %Escaped(&job.account_id),
                sync_id = %sync_id,
                error = %Escaped(error),
                "Sync not run"
            ),
            _ => {}
        }
        (self.watcher)(&Notice::Ended {
            job,
            sync_id,
            result,
        });
        result
            .as_ref()
            .is_ok_and(|synced| synced.result.outcome != Outcome::Failed)
    }
}

/// When nothing is due, a scheduler without jobs looks again.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(24 * 60 * 60)
}

/// Spreads the jobs' jitter, the same way in each process.
fn seed(job: &Job) -> u64 {
    let mut hasher = DefaultHasher::new();
    (job.connector_id(), &job.account_id).hash(&mut hasher);
    hasher.finish()
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("jobs", &self.jobs)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

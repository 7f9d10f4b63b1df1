use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use parallax_connect::{RunError, Runner};
use parallax_core::{Escaped, JournalSink, excerpt};
use parallax_store::{Cell, Outcome, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::clock::Clock;
use crate::cron::since;
use crate::handle::{Activity, AddError, CancelError, Handle, JobStatus, Request, TriggerError};
use crate::job::{DuplicateSource, Job};
use crate::run_once::{self, SyncError, Synced};
use crate::timetable::{Skip, Tick, Timetable};

/// How often the clock is looked at, while nothing is due: somebody may set it, and timers stand
/// still while a machine is suspended.
const LOOK: Duration = Duration::from_secs(60);

/// Runs the syncs of many sources when they are due.
///
/// A source has at most one sync at a time. At each tick of a job, its sync starts, or one log line
/// says why not. Whether ticks were missed before it ran follows from when the store says that a
/// sync was committed last.
pub struct Scheduler {
    store: Arc<Store>,
    jobs: Vec<Job>,
    concurrency: usize,
    watcher: Box<dyn Fn(&Notice<'_>) + Send + Sync>,
    journal: Option<Arc<dyn JournalSink>>,
    handle: Handle,
    requests: mpsc::Receiver<Request>,
}

/// A sync that runs.
struct Running {
    job: usize,
    sync_id: String,
    since: Instant,
    cancel: Option<oneshot::Sender<()>>,
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
        let (handle, requests) = Handle::new();
        Self {
            store,
            jobs: Vec::new(),
            concurrency: 4,
            watcher: Box::new(|_| {}),
            journal: None,
            handle,
            requests,
        }
    }

    /// Adds a job.
    ///
    /// # Errors
    ///
    /// [`DuplicateSource`] if there is one for the same connector and account.
    pub fn job(mut self, job: Job) -> Result<Self, DuplicateSource> {
        self.push(job)?;
        Ok(self)
    }

    fn push(&mut self, job: Job) -> Result<(), DuplicateSource> {
        let is_same = |other: &Job| {
            other.connector_id() == job.connector_id() && other.account_id == job.account_id
        };
        if self.jobs.iter().any(is_same) {
            return Err(DuplicateSource {
                connector_id: job.connector_id().to_owned(),
                account_id: job.account_id,
            });
        }
        self.jobs.push(job);
        Ok(())
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

    /// Passes the entries of every sync's journal on to `journal`, as
    /// [`Session::watcher`](parallax_store::Session::watcher) does.
    #[must_use]
    pub fn journal(mut self, journal: Arc<dyn JournalSink>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Returns what asks it for something while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `stop` ends.
    ///
    /// Then no sync starts any more, those that run are cancelled and commit nothing, and commits
    /// under way are waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops as `stop` does, without waiting for commits under way.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.boxed().shared();
        let mut clock = Clock::new();
        let last = self.last_successes().await;
        let jobs = self.jobs.iter().map(|job| {
            let source = (job.connector_id().to_owned(), job.account_id.clone());
            (job.schedule.clone(), seed(job), last.get(&source).copied())
        });
        let mut timetable = Timetable::new(jobs, self.concurrency, clock.now());
        let mut syncs = JoinSet::new();
        let mut running: HashMap<Id, Running> = HashMap::new();
        // The ids of syncs that were asked for and wait, by their jobs.
        let mut asked: HashMap<usize, String> = HashMap::new();
        let mut stopping = false;
        loop {
            if !stopping {
                for tick in timetable.tick(clock.now()) {
                    match tick {
                        Tick::Start { job } => {
                            let asked = asked.remove(&job);
                            if let Some((id, sync)) = self.start(job, asked, &stop, &mut syncs) {
                                running.insert(id, sync);
                            }
                        }
                        Tick::Skip { job, reason } => self.skip(job, reason),
                    }
                }
            } else if syncs.is_empty() {
                return;
            }

            let next = timetable.next().map(|next| since(next, clock.now()));
            let pause = next.unwrap_or(LOOK).min(LOOK);
            tokio::select! {
                Some(ended) = syncs.join_next_with_id() => {
                    let (id, result) = ended.unwrap_or_else(|error| (error.id(), Err(panicked(error))));
                    if let Some(Running { job, sync_id, .. }) = running.remove(&id) {
                        self.end(job, &sync_id, &result);
                        match counted(&result) {
                            Some(ok) => timetable.ended(job, clock.now(), ok),
                            None => timetable.withdrawn(job),
                        }
                    }
                }
                () = sleep(pause), if !stopping => {}
                Some(request) = self.requests.recv() => match request {
                    Request::Jobs(answer) => {
                        let jobs = self.statuses(&timetable, clock.now(), &running, &asked);
                        answer.send(jobs).ok();
                    }
                    Request::Trigger { connector_id, account_id, answer } => {
                        let triggered = if stopping {
                            Err(TriggerError::Stopped)
                        } else {
                            let source = (connector_id, account_id);
                            self.trigger(source, &mut timetable, &running, &mut asked)
                        };
                        answer.send(triggered).ok();
                    }
                    Request::Add { job, answer } => {
                        let added = if stopping {
                            Err(AddError::Stopped)
                        } else {
                            self.add(*job, &mut timetable).await
                        };
                        answer.send(added).ok();
                    }
                    Request::Cancel { sync_id, answer } => {
                        let cancelled = cancel(sync_id, &mut timetable, &mut running, &mut asked);
                        answer.send(cancelled).ok();
                    }
                },
                () = stop.clone(), if !stopping => stopping = true,
            }
        }
    }

    async fn last_successes(&self) -> HashMap<(String, String), Timestamp> {
        last_successes(&self.store).await.unwrap_or_else(|error| {
            tracing::warn!(error = %Escaped(error), "Last syncs not known: all sources are due");
            HashMap::new()
        })
    }

    async fn add(&mut self, job: Job, timetable: &mut Timetable) -> Result<(), AddError> {
        let source = (job.connector_id().to_owned(), job.account_id.clone());
        let (schedule, seed) = (job.schedule.clone(), seed(&job));
        self.push(job).map_err(AddError::Duplicate)?;
        let last = self.last_successes().await.get(&source).copied();
        timetable.add(schedule, seed, last);
        Ok(())
    }

    /// Returns how each job is.
    fn statuses(
        &self,
        timetable: &Timetable,
        now: Timestamp,
        running: &HashMap<Id, Running>,
        asked: &HashMap<usize, String>,
    ) -> Vec<JobStatus> {
        let running: HashMap<usize, &Running> =
            running.values().map(|sync| (sync.job, sync)).collect();
        let status = |(place, job): (usize, &Job)| {
            let due = timetable.due(place).unwrap_or(Timestamp::MAX);
            JobStatus {
                connector_id: job.connector_id().to_owned(),
                account_id: job.account_id.clone(),
                activity: match running.get(&place) {
                    Some(sync) => Activity::Running {
                        sync_id: sync.sync_id.clone(),
                        elapsed: sync.since.elapsed(),
                    },
                    None if timetable.is_waiting(place) => Activity::Waiting {
                        sync_id: asked.get(&place).cloned(),
                    },
                    None => Activity::Idle,
                },
                due_in: since(due, now),
                failures: timetable.failures(place),
            }
        };
        self.jobs.iter().enumerate().map(status).collect()
    }

    fn trigger(
        &self,
        (connector_id, account_id): (String, String),
        timetable: &mut Timetable,
        running: &HashMap<Id, Running>,
        asked: &mut HashMap<usize, String>,
    ) -> Result<String, TriggerError> {
        let is_meant =
            |job: &Job| job.connector_id() == connector_id && job.account_id == account_id;
        let Some(place) = self.jobs.iter().position(is_meant) else {
            return Err(TriggerError::NoSuchJob {
                connector_id,
                account_id,
            });
        };
        timetable.trigger(place).map_err(|reason| {
            let running = running.values().find(|sync| sync.job == place);
            let sync_id = running.map(|sync| &sync.sync_id).or(asked.get(&place));
            TriggerError::Busy {
                reason,
                sync_id: sync_id.cloned(),
            }
        })?;
        let sync_id = uuid::Uuid::now_v7().to_string();
        asked.insert(place, sync_id.clone());
        Ok(sync_id)
    }

    fn start(
        &self,
        place: usize,
        asked: Option<String>,
        stop: &(impl Future<Output = ()> + Clone + Send + 'static),
        syncs: &mut JoinSet<Result<Synced, SyncError>>,
    ) -> Option<(Id, Running)> {
        let job = self.jobs.get(place)?.clone();
        let requested = asked.is_some();
        let sync_id = asked.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        tracing::info!(
            connector_id = %job.connector_id(),
            account_id = %Escaped(&job.account_id),
            sync_id = %sync_id,
            requested,
            "Sync due"
        );
        (self.watcher)(&Notice::Started {
            job: &job,
            sync_id: &sync_id,
        });
        let (store, stop, id) = (Arc::clone(&self.store), stop.clone(), sync_id.clone());
        let (cancel, cancelled) = oneshot::channel();
        let (journal, handle) = (self.journal.clone(), self.handle.clone());
        let sync = async move {
            let stop = async move {
                tokio::select! {
                    () = stop => {}
                    // Dropped, it says nothing.
                    Ok(()) = cancelled => {}
                }
            };
            let runner = Runner::new(&job.connector).cancel_on(stop);
            let mut session = store.session().guard(job.guard);
            if let Some(journal) = journal {
                session = session.watcher(journal);
            }
            let output = run_once::run(runner, &job.account_id, &id, &session).await?;
            let _commit = handle.commit();
            run_once::commit(output, session).await
        };
        let handle = syncs.spawn(sync.in_current_span());
        let running = Running {
            job: place,
            sync_id,
            since: Instant::now(),
            cancel: Some(cancel),
        };
        Some((handle.id(), running))
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

    /// Reports the end of a sync.
    fn end(&self, place: usize, sync_id: &str, result: &Result<Synced, SyncError>) {
        let Some(job) = self.jobs.get(place) else {
            return;
        };
        match result {
            // Told by the runner, and meant.
            Err(SyncError::Run(RunError::Cancelled { .. })) => {}
            // Told by whoever committed it.
            Ok(_) | Err(SyncError::Commit { .. }) => {}
            Err(error) => tracing::error!(
                connector_id = %job.connector_id(),
                account_id = %Escaped(&job.account_id),
                sync_id = %sync_id,
                error = %Escaped(error),
                "Sync not run"
            ),
        }
        (self.watcher)(&Notice::Ended {
            job,
            sync_id,
            result,
        });
    }
}

/// Tells whether anything of a sync counted; of one that was cancelled there is nothing to tell.
fn counted(result: &Result<Synced, SyncError>) -> Option<bool> {
    match result {
        Ok(synced) => Some(synced.result.outcome != Outcome::Failed),
        Err(SyncError::Run(RunError::Cancelled { .. })) => None,
        Err(_) => Some(false),
    }
}

/// Tells what ended a sync's task. Nobody aborts one.
fn panicked(error: JoinError) -> SyncError {
    let message = match error.try_into_panic() {
        Ok(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            excerpt(text.unwrap_or("no message"), 300)
        }
        Err(error) => error.to_string(),
    };
    SyncError::Panicked { message }
}

fn cancel(
    sync_id: String,
    timetable: &mut Timetable,
    running: &mut HashMap<Id, Running>,
    asked: &mut HashMap<usize, String>,
) -> Result<(), CancelError> {
    if let Some(sync) = running.values_mut().find(|sync| sync.sync_id == sync_id) {
        if let Some(cancel) = sync.cancel.take() {
            // One that has ended in this moment needs no telling.
            cancel.send(()).ok();
        }
        return Ok(());
    }
    let waiting = asked.iter().find(|(_, asked)| **asked == sync_id);
    let Some(place) = waiting.map(|(place, _)| *place) else {
        return Err(CancelError::NotRunning { sync_id });
    };
    asked.remove(&place);
    timetable.withdrawn(place);
    Ok(())
}

/// Returns when a sync of each source was committed last, by connector and account.
///
/// # Errors
///
/// [`StoreError`] if the store cannot be read.
pub async fn last_successes(
    store: &Store,
) -> Result<HashMap<(String, String), Timestamp>, StoreError> {
    let sql = "SELECT connector_id, account_id, last_success_at FROM parallax_source";
    let rows = store.query(sql).await?.rows;
    let last = rows.iter().filter_map(|row| match row.as_slice() {
        [
            Cell::Text(connector_id),
            Cell::Text(account_id),
            Cell::Text(at),
        ] => {
            let source = (connector_id.clone(), account_id.clone());
            Some((source, at.parse().ok()?))
        }
        _ => None,
    });
    Ok(last.collect())
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

#[cfg(test)]
mod tests;

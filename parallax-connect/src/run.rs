use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};
use parallax_core::{
    ConnectorOutput, JournalError, JournalKind, JournalSink, MemorySink, Run, Sink, SyncEvent,
    SyncReport, escape, excerpt, is_identifier, is_plain_name,
};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::connector::Connector;
use crate::context::{RunNames, RunningStep, SharedRun};
use crate::graph::{Graph, GraphError};
use crate::journal::Journal;
use crate::prior::Prior;
use crate::pulse::{Pulse, Ticker};
use crate::retries::Retries;
use crate::select::select;
use crate::step::Step;
use crate::telemetry::{Telemetry, sync_span};
use crate::watchdog::Watch;

use self::attempt::{Attempted, Policy, RunningAttempts, Tries, panic_message, run_attempt};
use self::schedule::Schedule;

mod attempt;
mod schedule;

/// Runs every step of `connector` and returns what they emitted.
///
/// A step starts once all steps it depends on have completed, at most 64 at a time. An attempt may
/// take an hour; an error that may not come again is followed by up to three more, after
/// [pauses](Retries). When a step fails or panics, the steps that depend on it are skipped; all
/// others still run. The output then names the failed steps in its report, and committing it
/// deletes nothing that they would have emitted.
///
/// Everything runs inside the caller's task and span. A step that blocks its thread delays the
/// others: long computations belong in `tokio::task::spawn_blocking`.
///
/// With a sender in `events`, the receiver gets every [`SyncEvent`] as it happens. It never slows
/// the steps down. After the last step the run waits for a receiver that still has events to take:
/// 250 ms since the last one taken, 5 s in all. Events it did not take are counted in
/// [`ConnectorOutput::undelivered_events`]. A receiver that is gone is ignored.
///
/// # Errors
///
/// [`RunError`] if the run cannot start: the steps form no DAG, a name is not valid, the connector
/// panics while it describes itself, or there is no tokio runtime with time. No step has run then,
/// and no event was sent. A failed step is not an error of the run.
///
/// # Cancel safety
///
/// Dropping the future stops each step at its next await point. No [`SyncEvent::Completed`]
/// follows, and nothing is left running.
pub async fn run_connector(
    connector: &dyn Connector,
    account_id: &str,
    sync_id: &str,
    events: Option<&Sender<SyncEvent>>,
) -> Result<ConnectorOutput, RunError> {
    let mut runner = Runner::new(connector);
    runner.events = events;
    runner.run(account_id, sync_id).await
}

/// Runs a connector with other settings than [`run_connector`]'s.
///
/// ```
/// use std::time::Duration;
///
/// use parallax_connect::{Connector, ConnectorOutput, RunError, Runner};
///
/// /// Users and what they need, four steps at a time, for an hour at most.
/// async fn sync(connector: &dyn Connector) -> Result<ConnectorOutput, RunError> {
///     let too_long = tokio::time::sleep(Duration::from_secs(3600));
///     let runner = Runner::new(connector).select(["users"]).concurrency(4).cancel_on(too_long);
///     runner.run("acme", "sync-001").await
/// }
/// # drop(sync);
/// ```
#[must_use = "nothing runs before `run`"]
pub struct Runner<'a> {
    connector: &'a dyn Connector,
    concurrency: usize,
    timeout: Duration,
    retries: Retries,
    selectors: Vec<String>,
    events: Option<&'a Sender<SyncEvent>>,
    sink: Option<&'a dyn Sink>,
    journal: Option<Arc<dyn JournalSink>>,
    stall_after: Duration,
    cancel: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    grace: Duration,
}

/// Long enough for what is slow, and short enough that what hangs is noticed the same day.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Longer than a slow answer takes, and soon enough for somebody who waits for it.
const DEFAULT_STALL: Duration = Duration::from_secs(60);

impl<'a> Runner<'a> {
    /// Makes a runner with the settings of [`run_connector`].
    pub fn new(connector: &'a dyn Connector) -> Self {
        Self {
            connector,
            concurrency: 64,
            timeout: DEFAULT_TIMEOUT,
            retries: Retries::default(),
            selectors: Vec::new(),
            events: None,
            sink: None,
            journal: None,
            stall_after: DEFAULT_STALL,
            cancel: Box::pin(future::pending()),
            grace: Duration::ZERO,
        }
    }

    /// Sets how many steps run at a time, at least one. Default: 64.
    ///
    /// A step that pauses before it is tried again is not running. When its pause is over it goes
    /// before those that have not begun.
    pub fn concurrency(mut self, steps: usize) -> Self {
        self.concurrency = steps.max(1);
        self
    }

    /// Sets how long an attempt of a step may take that does not
    /// [say so itself](Step::timeout). Default: an hour. `Duration::MAX` is no timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a step is tried again that does not [say so itself](Step::retries).
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Runs only some of the steps, and those that they depend on.
    ///
    /// `users` selects one step; in `net*`, `*` stands for any characters; `users+` selects also
    /// all that depend on it. What is selected by several calls adds up; without any selector all
    /// steps run.
    ///
    /// A step that is not selected has no events. It is in the report as
    /// [`NotSelected`](crate::StepStatus::NotSelected), and committing the output deletes nothing
    /// that it would have emitted.
    pub fn select<S: Into<String>>(mut self, selectors: impl IntoIterator<Item = S>) -> Self {
        self.selectors.extend(selectors.into_iter().map(Into::into));
        self
    }

    /// Sends events to a receiver, as [`run_connector`] does.
    pub fn events(mut self, events: &'a Sender<SyncEvent>) -> Self {
        self.events = Some(events);
        self
    }

    /// Emits into a sink instead of memory: the output then holds the report, but no records.
    pub fn sink(mut self, sink: &'a dyn Sink) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Tells `journal` all that happens, in [entries](parallax_core::JournalEntry) that are numbered
    /// from 1. A store's session has one that keeps them.
    pub fn journal(mut self, journal: Arc<dyn JournalSink>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Sets how long a step may run without emitting anything before that is told, in the log and in
    /// the journal. Default: a minute. `Duration::MAX` is never.
    ///
    /// A step that keeps its thread, so that no other step can go on either, is told of after five
    /// seconds, or after this if it is shorter.
    pub fn stall_after(mut self, idle: Duration) -> Self {
        self.stall_after = idle;
        self
    }

    /// Cancels the run when `cancel` ends: [`RunError::Cancelled`].
    ///
    /// No step starts or is tried again after that, and those that run are dropped at their await
    /// points, after a [grace](Self::grace) if there is one.
    pub fn cancel_on(mut self, cancel: impl Future<Output = ()> + Send + 'a) -> Self {
        self.cancel = Box::pin(cancel);
        self
    }

    /// Sets how long the steps that run when the run is cancelled may go on, so that those which
    /// [look for it](crate::StepContext::is_cancelled) can end by themselves. Default: not at all.
    ///
    /// The run returns as soon as the last of them has ended. Nothing that they emit counts.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs the connector.
    ///
    /// # Errors
    ///
    /// As [`run_connector`], and [`RunError::Cancelled`] and [`RunError::UnknownStep`].
    ///
    /// # Cancel safety
    ///
    /// As [`run_connector`].
    pub async fn run(
        mut self,
        account_id: &str,
        sync_id: &str,
    ) -> Result<ConnectorOutput, RunError> {
        let (names, version) = self.name_run(account_id, sync_id)?;
        let journal = Arc::new(Journal::new(names.clone(), self.journal.take()));
        let span = sync_span(&names);
        let cannot_start = |error: &RunError| {
            journal.append(|| JournalKind::Failed {
                error: JournalError {
                    kind: error.code().to_owned(),
                    message: escape(&error.to_string()).into_owned(),
                },
            });
        };
        let plan = span.in_scope(|| self.plan()).and_then(|plan| {
            // A timer is needed as soon as a receiver lags: better no run than one that ends in a
            // panic.
            match catch_unwind(|| drop(sleep(Duration::ZERO))) {
                Ok(()) => Ok(plan),
                Err(_) => Err(RunError::NoTimer),
            }
        });
        let plan = plan.inspect_err(cannot_start)?;
        let schedule = Schedule::new(&plan.steps, &plan.graph, &plan.selected);
        self.run_steps(&plan.steps, schedule, names, version, Arc::clone(&journal))
            .instrument(span)
            .await
    }

    /// Checks that a run can start, and returns its steps as they are before it: their titles,
    /// what they depend on, and which are not selected. Runs nothing and logs nothing.
    ///
    /// # Errors
    ///
    /// As [`run_connector`], but for the runtime, which is not asked for.
    pub fn outline(&self, account_id: &str, sync_id: &str) -> Result<SyncReport, RunError> {
        self.name_run(account_id, sync_id)?;
        let plan = self.plan()?;
        Ok(Schedule::new(&plan.steps, &plan.graph, &plan.selected).into_report())
    }

    /// Asks the connector for its name and version, and checks the names of the run.
    fn name_run(&self, account_id: &str, sync_id: &str) -> Result<(RunNames, &'a str), RunError> {
        let connector = self.connector;
        let (name, version) = ask(|| (connector.name(), connector.version()))?;
        let names = RunNames {
            connector_id: check("connector name", name, is_identifier)?,
            account_id: check("account", account_id, is_plain_name)?,
            sync_id: check("sync id", sync_id, is_plain_name)?,
        };
        Ok((names, version))
    }

    /// Asks the connector for its steps, checks them, and picks those of the run.
    fn plan(&self) -> Result<Plan<'a>, RunError> {
        let connector = self.connector;
        let steps = ask(|| connector.steps())?;
        let graph = Graph::try_new(&steps)?;
        let selected =
            select(&self.selectors, &steps, &graph).map_err(|unmatched| RunError::UnknownStep {
                selector: unmatched.selector,
                nearest: unmatched.nearest,
            })?;
        Ok(Plan {
            steps,
            graph,
            selected,
        })
    }

    async fn run_steps(
        self,
        steps: &[Step<'_>],
        mut schedule: Schedule<'_>,
        names: RunNames,
        version: &str,
        journal: Arc<Journal>,
    ) -> Result<ConnectorOutput, RunError> {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let mut facts = Run::new(
            &*names.connector_id,
            &*names.account_id,
            &*names.sync_id,
            RUNS.fetch_add(1, Ordering::Relaxed),
            SystemTime::now(),
        );
        facts.connector_version = excerpt(version, 100);
        let started = Instant::now();
        let memory = MemorySink::default();
        let sink = self.sink.unwrap_or(&memory);
        let (cancelling, cancelled) = watch::channel(false);
        let run = Arc::new(SharedRun {
            names,
            cancelled,
            pulse: Pulse::default(),
        });
        let telemetry = Telemetry::new(&run.names, Arc::clone(&journal), self.events);
        telemetry.sync_started(&facts.connector_version, schedule.reports());
        let step_ids = steps.iter().map(Step::id);
        let _watched = Watch::begin(&run, &journal, step_ids, self.stall_after);

        // Counted by the attempts themselves: one that is dropped before its first poll is none.
        let attempts: Vec<AtomicU32> = steps.iter().map(|_| AtomicU32::new(0)).collect();
        let is_cancelled = {
            let mut cancel = self.cancel;
            let mut deliver = pin!(telemetry.deliver());
            let mut running = RunningAttempts::new();
            let mut pausing = FuturesUnordered::new();
            let mut ticker = Ticker::new(self.stall_after);
            // Those whose pause is over.
            let mut rested = VecDeque::new();
            loop {
                while running.len() < self.concurrency
                    && let Some((place, tries)) = rested.pop_front().or_else(|| {
                        let place = schedule.next_ready()?;
                        Some((place, Tries::new(steps.get(place)?)))
                    })
                    && let (Some(step), Some(attempts)) = (steps.get(place), attempts.get(place))
                {
                    schedule.start(place);
                    let account_id = Arc::clone(&run.names.account_id);
                    let span = tries.span.clone();
                    let attempt = RunningStep::open(
                        &step.id,
                        Arc::clone(&run),
                        Prior::new(account_id, schedule.prior_of(place)),
                        sink.open(place),
                        schedule.is_read(place),
                        span.clone(),
                    );
                    let policy = Policy {
                        timeout: step.timeout.unwrap_or(self.timeout),
                        retries: step.retries.unwrap_or(self.retries),
                    };
                    let attempt = run_attempt(
                        (place, step),
                        attempt,
                        tries,
                        attempts,
                        policy,
                        &run,
                        &telemetry,
                    );
                    running.push(attempt.map(move |ended| (place, ended)).instrument(span));
                }
                let next = poll_fn(|cx| {
                    if cancel.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Cancel);
                    }
                    if !pausing.is_empty()
                        && let Poll::Ready(Some((place, tries))) = pausing.poll_next_unpin(cx)
                    {
                        return Poll::Ready(Next::Retry(place, tries));
                    }
                    let next = running.poll_next(cx);
                    ticker.poll(&run.pulse, &telemetry, cx);
                    // After the steps, because they may just have queued an event.
                    let _ = deliver.as_mut().poll(cx);
                    match next {
                        Poll::Ready(Some((place, ended))) => Poll::Ready(Next::Ended(place, ended)),
                        Poll::Ready(None) if pausing.is_empty() => Poll::Ready(Next::Done),
                        _ => Poll::Pending,
                    }
                });
                match next.await {
                    Next::Ended(place, Attempted::Ended { report, sealed }) => {
                        for skipped in schedule.end(place, report, sealed) {
                            telemetry.step_ended(&skipped.step_id, skipped);
                        }
                    }
                    Next::Ended(place, Attempted::Failed { tries, kind, pause }) => {
                        schedule.pause(place, kind, pause);
                        pausing.push(async move {
                            sleep(pause).await;
                            (place, tries)
                        });
                    }
                    Next::Retry(place, tries) => rested.push_back((place, tries)),
                    Next::Done => break *cancelling.borrow(),
                    // The grace is over, if there was one.
                    Next::Cancel if *cancelling.borrow() => break true,
                    Next::Cancel => {
                        cancelling.send_replace(true);
                        if self.grace.is_zero() {
                            break true;
                        }
                        pausing.clear();
                        rested.clear();
                        for step in schedule.cancel_what_waits(&attempts) {
                            telemetry.step_ended(&step.step_id, step);
                        }
                        cancel = Box::pin(sleep(self.grace));
                    }
                }
            }
        };

        if is_cancelled {
            for step in schedule.cancel_the_rest(&attempts) {
                telemetry.step_ended(&step.step_id, step);
            }
            telemetry.sync_cancelled().await;
            let report = Box::new(schedule.into_report());
            return Err(RunError::Cancelled { report });
        }
        facts.duration = started.elapsed();
        let report = schedule.into_report();
        let undelivered = telemetry
            .sync_completed(report.steps(), facts.duration)
            .await;
        facts.journal_seq = journal.last_seq();
        Ok(ConnectorOutput::new(
            facts,
            report,
            memory.take(),
            undelivered,
        ))
    }
}

impl fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("selectors", &self.selectors)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// The steps of a connector, and which of them run.
struct Plan<'a> {
    steps: Vec<Step<'a>>,
    graph: Graph,
    selected: Vec<bool>,
}

/// What the run turns to next.
enum Next {
    /// An attempt of the step ended.
    Ended(usize, Attempted),
    /// The step has paused.
    Retry(usize, Tries),
    Done,
    Cancel,
}

/// Why a run did not start, or did not end by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The steps form no DAG.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A selector matches no step.
    #[error("no step is selected by \"{selector}\"; the nearest is {nearest}")]
    UnknownStep {
        /// The selector, escaped; of a long one, the beginning.
        selector: String,
        /// The step whose id is most like it.
        nearest: String,
    },
    /// A name is not valid.
    #[error("{what} \"{value}\" is not {}", form(what))]
    InvalidName {
        /// What it should name.
        what: &'static str,
        /// The name, escaped; of a long one, the beginning.
        value: String,
    },
    /// The connector panicked while it named itself or its steps.
    #[error("the connector panicked while naming its steps: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// There is no tokio runtime with its time driver around the run.
    #[error("a run needs a tokio runtime with time enabled (Builder::enable_time)")]
    NoTimer,
    /// The run was cancelled by [`Runner::cancel_on`].
    #[error("the run was cancelled")]
    Cancelled {
        /// What each step had done by then.
        report: Box<SyncReport>,
    },
}

impl RunError {
    /// Returns the error's label, in `snake_case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Graph(_) => "invalid_graph",
            Self::UnknownStep { .. } => "unknown_step",
            Self::InvalidName { .. } => "invalid_name",
            Self::Panicked { .. } => "connector_panicked",
            Self::NoTimer => "no_timer",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

fn form(what: &str) -> &'static str {
    match what {
        "connector name" => "of the form [a-z0-9_.-]{1,64}",
        _ => "1 to 256 bytes without control characters",
    }
}

fn check(
    what: &'static str,
    value: &str,
    is_valid: fn(&str) -> bool,
) -> Result<Arc<str>, RunError> {
    if is_valid(value) {
        Ok(value.into())
    } else {
        Err(RunError::InvalidName {
            what,
            value: excerpt(value, 64),
        })
    }
}

/// Asks the connector something about itself.
fn ask<T>(question: impl FnOnce() -> T) -> Result<T, RunError> {
    catch_unwind(AssertUnwindSafe(question)).map_err(|payload| RunError::Panicked {
        message: panic_message(payload),
    })
}

#[cfg(test)]
mod tests;

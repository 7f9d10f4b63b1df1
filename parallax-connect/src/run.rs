use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};
use parallax_core::{
    ConnectorError, ConnectorOutput, MemorySink, Run, Sink, StepReport, StepStatus, SyncEvent,
    SyncReport, excerpt, is_identifier, is_plain_name,
};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tracing::Instrument;

use crate::connector::Connector;
use crate::context::{RunNames, RunningStep};
use crate::graph::{Graph, GraphError};
use crate::prior::{Prior, Sealed};
use crate::step::Step;
use crate::telemetry::{Telemetry, step_span, sync_span};

/// Runs every step of `connector` and returns what they emitted.
///
/// A step starts once all steps it depends on have completed, at most 64 at a time. When one fails
/// or panics, the steps that depend on it are skipped; all others still run. The output then names
/// the failed steps in its report, and committing it deletes nothing that they would have emitted.
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
/// /// Four steps at a time, for an hour at most.
/// async fn sync(connector: &dyn Connector) -> Result<ConnectorOutput, RunError> {
///     let too_long = tokio::time::sleep(Duration::from_secs(3600));
///     Runner::new(connector).concurrency(4).cancel_on(too_long).run("acme", "sync-001").await
/// }
/// # drop(sync);
/// ```
#[must_use = "nothing runs before `run`"]
pub struct Runner<'a> {
    connector: &'a dyn Connector,
    concurrency: usize,
    events: Option<&'a Sender<SyncEvent>>,
    sink: Option<&'a dyn Sink>,
    cancel: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl<'a> Runner<'a> {
    /// Makes a runner with the settings of [`run_connector`].
    pub fn new(connector: &'a dyn Connector) -> Self {
        Self {
            connector,
            concurrency: 64,
            events: None,
            sink: None,
            cancel: Box::pin(future::pending()),
        }
    }

    /// Sets how many steps run at a time, at least one.
    pub fn concurrency(mut self, steps: usize) -> Self {
        self.concurrency = steps.max(1);
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

    /// Cancels the run when `cancel` ends: [`RunError::Cancelled`].
    pub fn cancel_on(mut self, cancel: impl Future<Output = ()> + Send + 'a) -> Self {
        self.cancel = Box::pin(cancel);
        self
    }

    /// Runs the connector.
    ///
    /// # Errors
    ///
    /// As [`run_connector`], and [`RunError::Cancelled`].
    ///
    /// # Cancel safety
    ///
    /// As [`run_connector`].
    pub async fn run(self, account_id: &str, sync_id: &str) -> Result<ConnectorOutput, RunError> {
        let (run, version) = self.name_run(account_id, sync_id)?;
        let span = sync_span(&run);
        let steps = span.in_scope(|| self.ask_steps())?;
        let graph = Graph::try_new(&steps)?;
        // A timer is needed as soon as a receiver lags: better no run than one that ends in a panic.
        if catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err() {
            return Err(RunError::NoTimer);
        }
        self.run_steps(&steps, &graph, &run, version)
            .instrument(span)
            .await
    }

    /// Checks that a run can start, and returns its steps as they are before it: their titles and
    /// what they depend on. Runs nothing and logs nothing.
    ///
    /// # Errors
    ///
    /// As [`run_connector`], but for the runtime, which is not asked for.
    pub fn outline(&self, account_id: &str, sync_id: &str) -> Result<SyncReport, RunError> {
        self.name_run(account_id, sync_id)?;
        let steps = self.ask_steps()?;
        let graph = Graph::try_new(&steps)?;
        Ok(SyncReport::new(Schedule::new(&steps, &graph).reports))
    }

    /// Asks the connector for its name and version, and checks the names of the run.
    fn name_run(
        &self,
        account_id: &str,
        sync_id: &str,
    ) -> Result<(Arc<RunNames>, &'a str), RunError> {
        let connector = self.connector;
        let (name, version) = ask(|| (connector.name(), connector.version()))?;
        let run = Arc::new(RunNames {
            connector_id: check("connector name", name, is_identifier)?,
            account_id: check("account", account_id, is_plain_name)?.into(),
            sync_id: check("sync id", sync_id, is_plain_name)?,
        });
        Ok((run, version))
    }

    fn ask_steps(&self) -> Result<Vec<Step<'a>>, RunError> {
        let connector = self.connector;
        ask(|| connector.steps())
    }

    async fn run_steps(
        self,
        steps: &[Step<'_>],
        graph: &Graph,
        run: &Arc<RunNames>,
        version: &str,
    ) -> Result<ConnectorOutput, RunError> {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let mut facts = Run::new(
            run.connector_id.clone(),
            &*run.account_id,
            run.sync_id.clone(),
            RUNS.fetch_add(1, Ordering::Relaxed),
            SystemTime::now(),
        );
        facts.connector_version = excerpt(version, 100);
        let started = Instant::now();
        let memory = MemorySink::default();
        let sink = self.sink.unwrap_or(&memory);
        let telemetry = Telemetry::new(run, self.events);
        telemetry.sync_started();

        let mut schedule = Schedule::new(steps, graph);
        let cancelled = {
            let mut cancel = self.cancel;
            let mut deliver = pin!(telemetry.deliver());
            let mut running = FuturesUnordered::new();
            loop {
                while running.len() < self.concurrency
                    && let Some(place) = schedule.ready.pop_front()
                    && let Some(step) = steps.get(place)
                {
                    let span = step_span(&step.id);
                    let attempt = RunningStep::open(
                        schedule.report_of(place),
                        Arc::clone(run),
                        Prior::new(Arc::clone(&run.account_id), schedule.prior_of(place)),
                        sink.open(place),
                        schedule.is_read(place),
                        span.clone(),
                    );
                    running.push(run_step(step, place, attempt, &telemetry).instrument(span));
                }
                let next = poll_fn(|cx| {
                    if cancel.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Cancelled);
                    }
                    let next = running.poll_next_unpin(cx);
                    // After the steps, because they may just have queued an event.
                    let _ = deliver.as_mut().poll(cx);
                    next.map(|ended| ended.map_or(Next::Done, Next::Ended))
                });
                match next.await {
                    Next::Ended((place, report, sealed)) => {
                        for skipped in schedule.end(place, report, sealed) {
                            telemetry.step_ended(skipped);
                        }
                    }
                    Next::Done => break false,
                    Next::Cancelled => break true,
                }
            }
        };

        if cancelled {
            for step in schedule.cancel_the_rest() {
                telemetry.step_ended(step);
            }
            telemetry.sync_cancelled().await;
            let report = Box::new(SyncReport::new(schedule.reports));
            return Err(RunError::Cancelled { report });
        }
        facts.duration = started.elapsed();
        let report = SyncReport::new(schedule.reports);
        let undelivered = telemetry
            .sync_completed(report.steps(), facts.duration)
            .await;
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
            .finish_non_exhaustive()
    }
}

enum Next<T> {
    Ended(T),
    Done,
    Cancelled,
}

async fn run_step(
    step: &Step<'_>,
    place: usize,
    running: RunningStep,
    telemetry: &Telemetry<'_>,
) -> (usize, StepReport, Option<Sealed>) {
    let started = Instant::now();
    telemetry.step_started(&step.id);
    let ctx = running.context();
    // The call as well as the future: a step may panic before its first await.
    let attempt = async { step.run.run(ctx).await };
    let result = AssertUnwindSafe(attempt)
        .catch_unwind()
        .await
        .unwrap_or_else(|payload| {
            Err(ConnectorError::Panicked {
                message: panic_message(payload),
            })
        });
    let (mut report, sealed) = running
        .end(result)
        .unwrap_or_else(|| (StepReport::new(&step.id, &step.title), None));
    report.duration = started.elapsed();
    telemetry.step_ended(&report);
    (place, report, sealed)
}

/// Which steps may start, and what has become of the others.
struct Schedule<'a> {
    graph: &'a Graph,
    reports: Vec<StepReport>,
    ended: Vec<bool>,
    /// For each step, how many of those it waits for have not completed yet.
    waits: Vec<usize>,
    ready: VecDeque<usize>,
    /// What completed steps emitted, until the last step that reads it has ended.
    sealed: Vec<Option<Arc<Sealed>>>,
    readers: Vec<usize>,
}

impl<'a> Schedule<'a> {
    fn new(steps: &[Step<'_>], graph: &'a Graph) -> Self {
        let waits: Vec<usize> = graph.dependencies.iter().map(Vec::len).collect();
        let mut readers = vec![0; steps.len()];
        for read in graph.reads.iter().flatten() {
            if let Some(readers) = readers.get_mut(*read) {
                *readers += 1;
            }
        }
        let report = |(step, dependencies): (&Step<'_>, &Vec<usize>)| {
            let mut report = StepReport::new(&step.id, &step.title);
            report.dependencies.clone_from(dependencies);
            report.ephemeral = step.ephemeral;
            report
        };
        Self {
            graph,
            reports: steps.iter().zip(&graph.dependencies).map(report).collect(),
            ended: vec![false; steps.len()],
            ready: waits
                .iter()
                .enumerate()
                .filter(|(_, w)| **w == 0)
                .map(|(p, _)| p)
                .collect(),
            waits,
            sealed: vec![None; steps.len()],
            readers,
        }
    }

    fn report_of(&self, place: usize) -> StepReport {
        self.reports
            .get(place)
            .cloned()
            .unwrap_or_else(|| StepReport::new("", ""))
    }

    fn prior_of(&self, place: usize) -> Arc<[Arc<Sealed>]> {
        let reads = self.graph.reads.get(place).into_iter().flatten();
        reads
            .filter_map(|&read| self.sealed.get(read).cloned().flatten())
            .collect()
    }

    fn is_read(&self, place: usize) -> bool {
        self.readers.get(place).is_some_and(|&readers| readers > 0)
    }

    /// Notes the end of a step that ran. Returns the steps that are skipped because of it.
    fn end(
        &mut self,
        place: usize,
        report: StepReport,
        sealed: Option<Sealed>,
    ) -> Vec<&StepReport> {
        let ok = report.status.is_ok();
        // Those that would have read it may have been skipped meanwhile.
        if self.is_read(place)
            && let Some(slot) = self.sealed.get_mut(place)
        {
            *slot = sealed.map(Arc::new);
        }
        self.note(place, report);
        let mut skipped = Vec::new();
        if ok {
            for &dependent in self.graph.dependents.get(place).into_iter().flatten() {
                if let Some(waits) = self.waits.get_mut(dependent) {
                    *waits -= 1;
                    if *waits == 0 {
                        self.ready.push_back(dependent);
                    }
                }
            }
        } else {
            let mut failed = VecDeque::from([place]);
            while let Some(cause) = failed.pop_front() {
                let error = ConnectorError::DependencyFailed {
                    step_id: self.report_of(cause).step_id,
                };
                for &dependent in self.graph.dependents.get(cause).into_iter().flatten() {
                    if self.ended.get(dependent) == Some(&false) {
                        self.note_not_run(dependent, StepStatus::Skipped, &error);
                        skipped.push(dependent);
                        failed.push_back(dependent);
                    }
                }
            }
        }
        skipped
            .into_iter()
            .filter_map(|place| self.reports.get(place))
            .collect()
    }

    /// Notes that every step which has not ended is cancelled, and returns those.
    fn cancel_the_rest(&mut self) -> Vec<&StepReport> {
        let rest: Vec<usize> = (0..self.ended.len())
            .filter(|&place| self.ended.get(place) == Some(&false))
            .collect();
        for &place in &rest {
            self.note_not_run(place, StepStatus::Cancelled, &ConnectorError::Cancelled);
        }
        rest.into_iter()
            .filter_map(|place| self.reports.get(place))
            .collect()
    }

    fn note_not_run(&mut self, place: usize, status: StepStatus, error: &ConnectorError) {
        let mut report = self.report_of(place);
        report.status = status;
        report.error = Some(error.clone());
        self.note(place, report);
    }

    fn note(&mut self, place: usize, report: StepReport) {
        if let (Some(slot), Some(ended)) = (self.reports.get_mut(place), self.ended.get_mut(place))
        {
            *slot = report;
            *ended = true;
        }
        for &read in self.graph.reads.get(place).into_iter().flatten() {
            if let (Some(readers), Some(sealed)) =
                (self.readers.get_mut(read), self.sealed.get_mut(read))
            {
                *readers -= 1;
                if *readers == 0 {
                    *sealed = None;
                }
            }
        }
    }
}

/// Why a run did not start, or did not end by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The steps form no DAG.
    #[error(transparent)]
    Graph(#[from] GraphError),
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

fn form(what: &str) -> &'static str {
    match what {
        "connector name" => "of the form [a-z0-9_.-]{1,64}",
        _ => "1 to 256 bytes without control characters",
    }
}

fn check(what: &'static str, value: &str, is_valid: fn(&str) -> bool) -> Result<String, RunError> {
    if is_valid(value) {
        Ok(value.to_owned())
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

fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let message = excerpt(message, 300);
    // What a step panicked with may panic again when it is dropped; then it is better not dropped.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
    message
}

#[cfg(test)]
mod tests;

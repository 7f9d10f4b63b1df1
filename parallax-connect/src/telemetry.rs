//! The one place where a fact becomes a log line, an entry of the journal and a [`SyncEvent`], so that
//! they cannot drift apart.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use parallax_core::{
    ConnectorError, Escaped, JournalKind, StepOutline, StepReport, StepStatus, SyncEvent,
};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout};
use tracing::Span;
use tracing::field::Empty;

use crate::context::{Rejected, RunNames};
use crate::journal::Journal;

/// A receiver that takes nothing for this long, once the steps are done, is not waited for.
const DRAIN_IDLE: Duration = Duration::from_millis(250);
/// Nor is one that takes events, but so slowly that this passes.
const DRAIN_TOTAL: Duration = Duration::from_secs(5);
/// Tells the story of one run.
pub(crate) struct Telemetry<'a> {
    run: &'a RunNames,
    journal: Arc<Journal>,
    watcher: Option<&'a Sender<SyncEvent>>,
    queue: Mutex<VecDeque<SyncEvent>>,
    ended: bool,
}

pub(crate) fn sync_span(run: &RunNames) -> Span {
    tracing::info_span!(
        "sync",
        connector_id = %run.connector_id,
        account_id = %Escaped(&run.account_id),
        sync_id = %Escaped(&run.sync_id),
        error.type = Empty,
        otel.status_code = Empty,
    )
}

pub(crate) fn step_span(step_id: &str) -> Span {
    tracing::info_span!("step", %step_id, error.type = Empty, otel.status_code = Empty)
}

/// Marks the current span as failed, in OpenTelemetry's words.
fn mark_failed(error_type: &str) {
    let span = Span::current();
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

/// Logs which records of an attempt were rejected: a line for each rule that they broke.
pub(crate) fn log_rejected(run: &RunNames, step_id: &str, rejected: &[Rejected]) {
    for Rejected {
        rule,
        count,
        samples,
    } in rejected
    {
        tracing::warn!(
            connector_id = %run.connector_id,
            sync_id = %Escaped(&run.sync_id),
            %step_id,
            %rule,
            count,
            samples = %samples.join("; "),
            "Records rejected"
        );
    }
}

/// Tells that a step has kept its thread for so long.
pub(crate) fn step_blocks(journal: &Journal, run: &RunNames, step_id: &str, blocked: Duration) {
    step_idle(journal, run, step_id, blocked, true);
}

fn step_idle(journal: &Journal, run: &RunNames, step_id: &str, idle: Duration, blocking: bool) {
    let idle_ms = millis(idle);
    tracing::warn!(
        connector_id = %run.connector_id,
        sync_id = %Escaped(&run.sync_id),
        %step_id,
        idle_ms,
        blocking,
        "Step stalled"
    );
    journal.append(|| JournalKind::StepStalled {
        step_id: step_id.to_owned(),
        idle_ms,
        blocking,
    });
}

impl<'a> Telemetry<'a> {
    pub(crate) fn new(
        run: &'a RunNames,
        journal: Arc<Journal>,
        watcher: Option<&'a Sender<SyncEvent>>,
    ) -> Self {
        Self {
            run,
            journal,
            watcher,
            queue: Mutex::default(),
            ended: false,
        }
    }

    /// Tells that the run begins, and which steps it has.
    pub(crate) fn sync_started(&self, connector_version: &str, steps: &[StepReport]) {
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            "Sync started"
        );
        let not_selected = steps
            .iter()
            .filter(|step| step.status == StepStatus::NotSelected)
            .count();
        if not_selected > 0 {
            tracing::info!(
                connector_id = %self.run.connector_id,
                sync_id = %Escaped(&self.run.sync_id),
                steps = not_selected,
                "Steps not selected"
            );
        }
        self.journal.append(|| JournalKind::Started {
            connector_version: connector_version.to_owned(),
            steps: outline(steps),
        });
        self.send(|| SyncEvent::Started {
            connector_id: self.run.connector_id.to_string(),
            sync_id: self.run.sync_id.to_string(),
        });
    }

    pub(crate) fn step_started(&self, step_id: &str) {
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            %step_id,
            "Step started"
        );
        self.journal.append(|| JournalKind::StepStarted {
            step_id: step_id.to_owned(),
        });
        self.send(|| SyncEvent::StepStarted {
            step_id: step_id.to_owned(),
        });
    }

    /// Tells how much a running step has emitted by now.
    pub(crate) fn step_progress(&self, step_id: &str, entities: u64, relationships: u64) {
        tracing::debug!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            %step_id,
            entities,
            relationships,
            "Step progress"
        );
        self.journal.append(|| JournalKind::StepProgress {
            step_id: step_id.to_owned(),
            entities,
            relationships,
        });
    }

    /// Tells that a running step has emitted nothing for so long.
    pub(crate) fn step_stalled(&self, step_id: &str, idle: Duration) {
        step_idle(&self.journal, self.run, step_id, idle, false);
    }

    /// Tells which records of an attempt were rejected.
    pub(crate) fn records_rejected(&self, step_id: &str, rejected: Vec<Rejected>) {
        log_rejected(self.run, step_id, &rejected);
        for rejected in rejected {
            self.journal.append(|| JournalKind::RecordsRejected {
                step_id: step_id.to_owned(),
                rule: rejected.rule.to_owned(),
                count: rejected.count,
                samples: rejected.samples,
            });
        }
    }

    /// Tells that an attempt of a step failed, and that another follows after a pause.
    pub(crate) fn step_retrying(
        &self,
        step_id: &str,
        attempt: u32,
        error: &ConnectorError,
        pause: Duration,
    ) {
        tracing::warn!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            %step_id,
            attempt,
            kind = %error.kind(),
            error = %Escaped(error),
            pause_ms = millis(pause),
            "Step retrying"
        );
        self.journal.append(|| JournalKind::StepRetrying {
            step_id: step_id.to_owned(),
            attempt,
            error: error.into(),
            pause_ms: millis(pause),
        });
    }

    /// Tells that the next attempt of a step begins.
    pub(crate) fn step_restarted(&self, step_id: &str, attempt: u32) {
        tracing::debug!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            %step_id,
            attempt,
            "Step restarted"
        );
        self.journal.append(|| JournalKind::StepRestarted {
            step_id: step_id.to_owned(),
            attempt,
        });
    }

    /// Tells how a step ended, whichever way.
    pub(crate) fn step_ended(&self, step_id: &str, step: &StepReport) {
        let connector_id = &*self.run.connector_id;
        let sync_id = Escaped(&self.run.sync_id);
        let duration_ms = millis(step.duration);
        // Only where it says something: nearly all steps have one.
        let attempts = Some(step.attempts).filter(|attempts| *attempts > 1);
        let throttled_ms = Some(millis(step.throttled)).filter(|millis| *millis > 0);
        let Some(error) = &step.error else {
            let (entities, relationships) = (step.entities, step.relationships);
            let rejected = step.entities_rejected + step.relationships_rejected;
            match step.reason() {
                None => tracing::info!(
                    %connector_id, %sync_id, %step_id, entities, relationships, rejected,
                    attempts, throttled_ms, duration_ms, "Step completed"
                ),
                Some(reason) => tracing::warn!(
                    %connector_id, %sync_id, %step_id, entities, relationships, rejected,
                    attempts, throttled_ms, duration_ms, reason = %Escaped(reason), "Step incomplete"
                ),
            }
            self.journal.append(|| JournalKind::StepCompleted {
                step_id: step_id.to_owned(),
                status: step.status.as_str().to_owned(),
                reason: step.reason(),
                attempts: step.attempts,
                entities,
                relationships,
                rejected,
                duration_ms,
                throttled_ms: millis(step.throttled),
            });
            return self.send(|| SyncEvent::StepCompleted {
                step_id: step_id.to_owned(),
                entities: as_usize(entities),
                relationships: as_usize(relationships),
                duration: step.duration,
            });
        };
        let kind = error.kind();
        let shown = Escaped(error);
        match step.status {
            StepStatus::Skipped => tracing::warn!(
                %connector_id, %sync_id, %step_id, %kind, error = %shown, "Step skipped"
            ),
            StepStatus::Cancelled => tracing::warn!(
                %connector_id, %sync_id, %step_id, %kind, error = %shown, attempts, "Step cancelled"
            ),
            _ => {
                tracing::warn!(
                    %connector_id, %sync_id, %step_id, %kind, error = %shown, attempts,
                    throttled_ms, duration_ms, "Step failed"
                );
                mark_failed(kind.as_str());
            }
        }
        self.journal.append(|| match step.status {
            StepStatus::Skipped => JournalKind::StepSkipped {
                step_id: step_id.to_owned(),
                error: error.into(),
            },
            status => JournalKind::StepFailed {
                step_id: step_id.to_owned(),
                status: status.as_str().to_owned(),
                error: error.into(),
                attempts: step.attempts,
                duration_ms,
                throttled_ms: millis(step.throttled),
            },
        });
        self.send(|| SyncEvent::StepFailed {
            step_id: step_id.to_owned(),
            error: error.clone(),
        });
    }

    /// Tells that the run is over, once the receiver has taken what it will take. Returns how
    /// many events it did not take.
    pub(crate) async fn sync_completed(mut self, steps: &[StepReport], duration: Duration) -> u64 {
        self.send(|| SyncEvent::Completed {
            connector_id: self.run.connector_id.to_string(),
            sync_id: self.run.sync_id.to_string(),
        });
        let undelivered = self.drain().await;
        // Not before: until here the run can be dropped, and each run has one last line.
        self.ended = true;
        let entities = steps.iter().map(|step| step.entities).sum::<u64>();
        let relationships = steps.iter().map(|step| step.relationships).sum::<u64>();
        let duration_ms = millis(duration);
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            entities,
            relationships,
            duration_ms,
            "Sync completed"
        );
        if !steps.iter().any(|step| step.status.is_ok()) {
            mark_failed("no_step_completed");
        }
        self.journal.append(|| JournalKind::Completed {
            entities,
            relationships,
            duration_ms,
        });
        undelivered
    }

    /// Tells that the run is over before its time; so does a run that is dropped.
    pub(crate) async fn sync_cancelled(self) {
        self.drain().await;
    }

    /// Hands queued events to the receiver as it makes room. Never ends; it is polled after the
    /// steps, since only they add to the queue.
    pub(crate) async fn deliver(&self) {
        loop {
            let Some(watcher) = self.watcher else {
                return std::future::pending().await;
            };
            poll_fn(|_| {
                if self.queue().is_empty() {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
            self.deliver_one(watcher).await;
        }
    }

    /// Waits for the receiver to take what is still queued, as long as it takes something.
    /// Returns how many events it did not take.
    async fn drain(&self) -> u64 {
        let Some(watcher) = self.watcher else {
            return 0;
        };
        let deadline = Instant::now() + DRAIN_TOTAL;
        while !self.queue().is_empty() {
            let patience = DRAIN_IDLE.min(deadline.saturating_duration_since(Instant::now()));
            if timeout(patience, self.deliver_one(watcher)).await.is_err() {
                break;
            }
        }
        let undelivered = self.queue().len() as u64;
        if undelivered > 0 {
            tracing::warn!(
                connector_id = %self.run.connector_id,
                sync_id = %Escaped(&self.run.sync_id),
                undelivered,
                "Events not taken by their receiver"
            );
        }
        undelivered
    }

    async fn deliver_one(&self, watcher: &Sender<SyncEvent>) {
        match watcher.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.queue().pop_front() {
                    permit.send(event);
                }
            }
            // Nobody listens any more, so nobody misses anything.
            Err(_) => self.queue().clear(),
        }
    }

    /// Sends an event without ever waiting: a receiver that sleeps must not slow the steps down.
    /// There are O(steps) of them, so the queue is bounded by the graph.
    fn send(&self, event: impl FnOnce() -> SyncEvent) {
        let Some(watcher) = self.watcher else { return };
        let event = event();
        let mut queue = self.queue();
        if queue.is_empty() {
            match watcher.try_send(event) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(event)) => queue.push_back(event),
            }
        } else {
            queue.push_back(event);
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<SyncEvent>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Telemetry<'_> {
    fn drop(&mut self) {
        if !self.ended {
            tracing::warn!(
                connector_id = %self.run.connector_id,
                sync_id = %Escaped(&self.run.sync_id),
                "Sync cancelled"
            );
            mark_failed("cancelled");
            self.journal.append(|| JournalKind::Cancelled);
        }
    }
}

fn outline(steps: &[StepReport]) -> Vec<StepOutline> {
    let step_id = |place: &usize| steps.get(*place).map(|step| step.step_id.clone());
    steps
        .iter()
        .map(|step| StepOutline {
            step_id: step.step_id.clone(),
            title: step.title.clone(),
            depends_on: step.dependencies.iter().filter_map(step_id).collect(),
            selected: step.status != StepStatus::NotSelected,
        })
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

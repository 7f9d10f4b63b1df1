//! The one place where a fact becomes a log line and a [`SyncEvent`], so that they cannot drift
//! apart.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use parallax_core::{ConnectorError, Escaped, Rejection, StepReport, StepStatus, SyncEvent};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout};
use tracing::Span;

use crate::context::RunNames;

/// A receiver that takes nothing for this long, once the steps are done, is not waited for.
const DRAIN_IDLE: Duration = Duration::from_millis(250);
/// Nor is one that takes events, but so slowly that this passes.
const DRAIN_TOTAL: Duration = Duration::from_secs(5);
/// Of the rejected records of a step, the first few are logged one by one.
const REJECTIONS_LOGGED: u64 = 3;

/// Tells the story of one run.
pub(crate) struct Telemetry<'a> {
    run: &'a RunNames,
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
    )
}

pub(crate) fn step_span(step_id: &str) -> Span {
    tracing::info_span!("step", %step_id)
}

pub(crate) fn record_rejected(
    run: &RunNames,
    step_id: &str,
    record: &str,
    rejection: &Rejection,
    so_far: u64,
) {
    if so_far <= REJECTIONS_LOGGED {
        tracing::warn!(
            connector_id = %run.connector_id,
            sync_id = %Escaped(&run.sync_id),
            %step_id,
            record = %Escaped(record),
            error = %Escaped(rejection),
            "Record rejected"
        );
    }
}

impl<'a> Telemetry<'a> {
    pub(crate) fn new(run: &'a RunNames, watcher: Option<&'a Sender<SyncEvent>>) -> Self {
        Self {
            run,
            watcher,
            queue: Mutex::default(),
            ended: false,
        }
    }

    /// Tells that the run begins, without so many of the declared steps.
    pub(crate) fn sync_started(&self, not_selected: usize) {
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            "Sync started"
        );
        if not_selected > 0 {
            tracing::info!(
                connector_id = %self.run.connector_id,
                sync_id = %Escaped(&self.run.sync_id),
                steps = not_selected,
                "Steps not selected"
            );
        }
        self.send(SyncEvent::Started {
            connector_id: self.run.connector_id.clone(),
            sync_id: self.run.sync_id.clone(),
        });
    }

    pub(crate) fn step_started(&self, step_id: &str) {
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            %step_id,
            "Step started"
        );
        self.send(SyncEvent::StepStarted {
            step_id: step_id.to_owned(),
        });
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
    }

    /// Tells how a step ended, whichever way.
    pub(crate) fn step_ended(&self, step_id: &str, step: &StepReport) {
        let connector_id = self.run.connector_id.as_str();
        let sync_id = Escaped(&self.run.sync_id);
        let duration_ms = millis(step.duration);
        // Only where it says something: nearly all steps have one.
        let attempts = Some(step.attempts).filter(|attempts| *attempts > 1);
        let Some(error) = &step.error else {
            let (entities, relationships) = (step.entities, step.relationships);
            let rejected = step.entities_rejected + step.relationships_rejected;
            match step.reason() {
                None => tracing::info!(
                    %connector_id, %sync_id, %step_id, entities, relationships, rejected,
                    attempts, duration_ms, "Step completed"
                ),
                Some(reason) => tracing::warn!(
                    %connector_id, %sync_id, %step_id, entities, relationships, rejected,
                    attempts, duration_ms, reason = %Escaped(reason), "Step incomplete"
                ),
            }
            return self.send(SyncEvent::StepCompleted {
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
            _ => tracing::warn!(
                %connector_id, %sync_id, %step_id, %kind, error = %shown, attempts, duration_ms,
                "Step failed"
            ),
        }
        self.send(SyncEvent::StepFailed {
            step_id: step_id.to_owned(),
            error: error.clone(),
        });
    }

    /// Tells that the run is over, once the receiver has taken what it will take. Returns how
    /// many events it did not take.
    pub(crate) async fn sync_completed(mut self, steps: &[StepReport], duration: Duration) -> u64 {
        self.send(SyncEvent::Completed {
            connector_id: self.run.connector_id.clone(),
            sync_id: self.run.sync_id.clone(),
        });
        let undelivered = self.drain().await;
        // Not before: until here the run can be dropped, and each run has one last line.
        self.ended = true;
        tracing::info!(
            connector_id = %self.run.connector_id,
            sync_id = %Escaped(&self.run.sync_id),
            entities = steps.iter().map(|step| step.entities).sum::<u64>(),
            relationships = steps.iter().map(|step| step.relationships).sum::<u64>(),
            duration_ms = millis(duration),
            "Sync completed"
        );
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
    fn send(&self, event: SyncEvent) {
        let Some(watcher) = self.watcher else { return };
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
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parallax_core::{
    ErrorKind, JournalEntry, JournalKind, JournalSink, StepReport, StepRetries, StepStatus,
    SyncReport, Timestamp,
};

use crate::connector::{RETRIED, STATUSES, lock};
use crate::outcome::SyncOutcome;
use crate::parallax_metrics::ParallaxMetrics;

/// Counts what journals tell, for whoever runs and commits syncs by themselves: hand it to the
/// session as its watcher.
///
/// It is what [`ParallaxMetrics`] would be told of a sync, but for two things that are in no journal:
/// the events that a watcher of the run did not take, and how much is live in the store
/// ([`ParallaxMetrics::live`]). Times are those of the entries, so journals that were stored can be
/// counted, too; each entry once, and those of a sync in their order. A run that is not committed
/// ends, as an `error`, when the next one of its source begins.
///
/// ```
/// use std::sync::Arc;
///
/// use parallax_core::{JournalEntry, JournalKind, JournalSink, Timestamp};
/// use parallax_metrics::{JournalMetrics, ParallaxMetrics};
///
/// let metrics = ParallaxMetrics::new();
/// let watcher = Arc::new(JournalMetrics::new(metrics));
/// // store.session().watcher(watcher.clone())
/// watcher.append(&JournalEntry {
///     seq: 1,
///     at: Timestamp::UNIX_EPOCH,
///     connector_id: "okta".into(),
///     account_id: "acme".into(),
///     sync_id: "monday".into(),
///     kind: JournalKind::Started { connector_version: String::new(), steps: Vec::new() },
/// });
/// ```
#[derive(Debug)]
pub struct JournalMetrics {
    metrics: ParallaxMetrics,
    /// Of each source the sync that runs, or the last one that was a replay.
    runs: Mutex<HashMap<SourceId, Run>>,
}

/// A connector and an account.
type SourceId = (Arc<str>, Arc<str>);

/// What is remembered of a sync until it ends.
#[derive(Debug, Default)]
struct Run {
    /// Nothing for one that was committed before.
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    retries: HashMap<String, Vec<StepRetries>>,
}

impl JournalMetrics {
    /// Counts with these metrics.
    pub fn new(metrics: ParallaxMetrics) -> Self {
        Self {
            metrics,
            runs: Mutex::default(),
        }
    }

    fn started(&self, source: SourceId, at: Timestamp) {
        let run = Run {
            started_at: Some(at),
            ..Run::default()
        };
        let before = lock(&self.runs).insert(source.clone(), run);
        if let Some(before) = before.filter(|before| before.started_at.is_some()) {
            self.ended(&source, &before, SyncOutcome::Error, at);
        }
        self.metrics.sync_started(&source.0);
    }

    /// Counts the end of a sync that ran.
    fn ended(&self, source: &SourceId, run: &Run, outcome: SyncOutcome, at: Timestamp) {
        let duration = between(run.started_at, at);
        let (connector_id, account_id) = source;
        self.metrics
            .sync_ended(connector_id, account_id, outcome, duration, time(at));
    }

    /// Forgets a sync that has ended, and returns what was known of it.
    fn taken(&self, source: &SourceId) -> Run {
        lock(&self.runs).remove(source).unwrap_or_default()
    }

    fn step_ended(
        &self,
        source: &SourceId,
        step_id: &str,
        status: StepStatus,
        duration_ms: u64,
        throttled_ms: u64,
    ) {
        let mut report = StepReport::new(step_id, "");
        report.status = status;
        report.duration = Duration::from_millis(duration_ms);
        report.throttled = Duration::from_millis(throttled_ms);
        if let Some(run) = lock(&self.runs).get_mut(source) {
            report.retries = run.retries.remove(step_id).unwrap_or_default();
        }
        self.metrics
            .steps_ended(&source.0, &SyncReport::new(vec![report]));
    }
}

impl JournalSink for JournalMetrics {
    fn append(&self, entry: &JournalEntry) {
        let source = (
            Arc::clone(&entry.connector_id),
            Arc::clone(&entry.account_id),
        );
        let (connector_id, account_id) = (&*source.0, &*source.1);
        let (metrics, at) = (&self.metrics, entry.at);
        match &entry.kind {
            JournalKind::Started { steps, .. } => {
                let selected = steps.iter().filter(|step| step.selected);
                let step_ids: Vec<&str> = selected.map(|step| step.step_id.as_str()).collect();
                metrics.register(connector_id, &step_ids);
                self.started(source, at);
            }
            JournalKind::StepRetrying {
                step_id,
                error,
                pause_ms,
                ..
            } => {
                let kind = RETRIED.iter().find(|kind| kind.as_str() == error.kind);
                let waited = Duration::from_millis(*pause_ms);
                if let Some(run) = lock(&self.runs).get_mut(&source) {
                    let retries = run.retries.entry(step_id.clone()).or_default();
                    // Any that is not tried again stands for one that a later version tries again.
                    let kind = kind.copied().unwrap_or(ErrorKind::Fatal);
                    retries.push(StepRetries {
                        kind,
                        count: 1,
                        waited,
                    });
                }
            }
            JournalKind::StepCompleted {
                step_id,
                status,
                duration_ms,
                throttled_ms,
                ..
            }
            | JournalKind::StepFailed {
                step_id,
                status,
                duration_ms,
                throttled_ms,
                ..
            } => {
                let mut known = STATUSES.iter().filter(|known| known.as_str() == status);
                if let Some(status) = known.next() {
                    self.step_ended(&source, step_id, *status, *duration_ms, *throttled_ms);
                }
            }
            JournalKind::StepSkipped { step_id, .. } => {
                self.step_ended(&source, step_id, StepStatus::Skipped, 0, 0);
            }
            JournalKind::Completed { .. } => {
                if let Some(run) = lock(&self.runs).get_mut(&source) {
                    run.completed_at = Some(at);
                }
            }
            JournalKind::Cancelled => {
                let run = self.taken(&source);
                self.ended(&source, &run, SyncOutcome::Cancelled, at);
            }
            JournalKind::Failed { .. } => {
                let run = self.taken(&source);
                self.ended(&source, &run, SyncOutcome::Error, at);
            }
            JournalKind::Committed {
                outcome,
                replayed,
                stats,
            } => {
                let mut known = SyncOutcome::ALL.into_iter();
                let outcome = known.find(|known| known.as_str() == outcome);
                let outcome = outcome.unwrap_or(SyncOutcome::Error);
                let run = self.taken(&source);
                let took = between(run.completed_at, at);
                if *replayed {
                    // Its deletes were held the first time, which is told again.
                    lock(&self.runs).insert(source.clone(), Run::default());
                } else {
                    metrics.committed(connector_id, account_id, outcome, stats, took, time(at));
                }
                self.ended(&source, &run, outcome, at);
            }
            JournalKind::CommitFailed { error } => {
                let run = self.taken(&source);
                if error.kind == "imbalance" {
                    metrics.reconciliation_mismatched(connector_id);
                }
                self.ended(&source, &run, SyncOutcome::Error, at);
            }
            JournalKind::DeletesHeld { .. } => {
                let is_replayed = |run: &Run| run.started_at.is_none();
                if !lock(&self.runs).get(&source).is_some_and(is_replayed) {
                    metrics.changeset_held(connector_id);
                }
            }
            JournalKind::DeletesApproved {
                entities,
                relationships,
                ..
            } => metrics.changeset_approved(connector_id, *entities, *relationships),
            JournalKind::DeletesRejected { .. } => metrics.changeset_rejected(connector_id),
            // How far a step is, and what is told of a rejected record by the stats.
            _ => {}
        }
    }
}

fn between(start: Option<Timestamp>, end: Timestamp) -> Duration {
    // A clock that was set back makes no time.
    let micros = start.map_or(0, |start| end.as_micros().saturating_sub(start.as_micros()));
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn time(at: Timestamp) -> SystemTime {
    let micros = u64::try_from(at.as_micros()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests;

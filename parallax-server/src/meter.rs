use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use parallax_connect::RunError;
use parallax_core::{Escaped, SyncReport};
use parallax_metrics::{Live, ParallaxMetrics, Past, SyncOutcome};
use parallax_scheduler::{Notice, SyncError, Synced};
use parallax_store::{CommitError, Outcome, Store, StoreError};
use tokio::sync::mpsc;

use crate::connectors::ListedStep;
use crate::decide::Decision;
use crate::plan::{Broken, Source};
use crate::rows::{Row, quoted, rows};

/// Makes metrics of what the scheduler tells.
pub(crate) struct Meter {
    metrics: ParallaxMetrics,
    /// When each sync that runs has started.
    started: Mutex<HashMap<String, Instant>>,
    /// Sources whose records may have changed.
    changed: mpsc::UnboundedSender<SourceId>,
}

/// A connector and an account.
pub(crate) type SourceId = (String, String);

/// Makes every series exist, and sets those that outlive a process to what the store knows.
pub(crate) async fn begin(
    metrics: &ParallaxMetrics,
    store: &Store,
    sources: &[Source],
) -> Result<(), StoreError> {
    for source in sources {
        let source_id = source.id();
        let (connector_id, account_id) = &source_id;
        metrics.scheduled(connector_id, account_id, source.interval, SystemTime::now());
        begin_one(metrics, store, &source_id, &source.steps).await?;
    }
    Ok(())
}

/// The same for a source that cannot be synced: what is expected of it is not met.
pub(crate) async fn begin_broken(
    metrics: &ParallaxMetrics,
    store: &Store,
    broken: &Broken,
) -> Result<(), StoreError> {
    let source_id = broken_id(broken);
    let (connector_id, account_id) = &source_id;
    metrics.scheduled(connector_id, account_id, broken.interval, SystemTime::now());
    begin_one(metrics, store, &source_id, &[]).await
}

/// Expects nothing any more of a source that could not be synced, because it can be.
pub(crate) fn mended(metrics: &ParallaxMetrics, broken: &Broken) {
    let (connector_id, account_id) = broken_id(broken);
    metrics.unscheduled(&connector_id, &account_id);
}

/// Names a source that cannot be synced. One whose account is not known has a name that no account
/// has, and no other such source.
fn broken_id(broken: &Broken) -> SourceId {
    let account_id = match broken.account_id() {
        "" => format!("\0{}", broken.config.line),
        account_id => account_id.to_owned(),
    };
    (broken.config.name.clone(), account_id)
}

/// The same for one source, of which nothing is expected.
pub(crate) async fn begin_one(
    metrics: &ParallaxMetrics,
    store: &Store,
    source_id: &SourceId,
    steps: &[ListedStep],
) -> Result<(), StoreError> {
    let (connector_id, account_id) = source_id;
    let steps: Vec<&str> = steps.iter().map(|step| step.step_id.as_str()).collect();
    metrics.register(connector_id, &steps);
    if let Some(stored) = stored(store, source_id).await? {
        let past = past(store, source_id).await?;
        metrics.restore(connector_id, account_id, &past);
        stored.tell(metrics, source_id);
    }
    Ok(())
}

/// Sets the gauges of a source to what the store knows.
pub(crate) async fn refresh(metrics: &ParallaxMetrics, store: &Store, source_id: &SourceId) {
    let (connector_id, account_id) = source_id;
    match stored(store, source_id).await {
        Ok(Some(stored)) => stored.tell(metrics, source_id),
        Ok(None) => metrics.forget(connector_id, account_id, SystemTime::now()),
        Err(error) => tracing::warn!(
            connector_id,
            account_id = %Escaped(account_id),
            error = %Escaped(error),
            "Gauges not refreshed"
        ),
    }
}

/// Counts what came of a sync that took so long.
pub(crate) fn count(
    metrics: &ParallaxMetrics,
    (connector_id, account_id): (&str, &str),
    result: &Result<Synced, SyncError>,
    duration: Duration,
) {
    if let Some(report) = report(result) {
        metrics.steps_ended(connector_id, report);
    }
    if let Err(SyncError::Commit { error, .. }) = result
        && matches!(error, CommitError::Imbalance(_))
    {
        metrics.reconciliation_mismatched(connector_id);
    }
    let now = SystemTime::now();
    if let Ok(synced) = result {
        metrics.events_undelivered(connector_id, synced.output.undelivered_events());
        // What is replayed was counted the first time.
        if !synced.result.replayed {
            let (stats, took) = (&synced.result.stats, synced.commit_duration);
            metrics.committed(connector_id, account_id, outcome(result), stats, took, now);
            if synced.result.held_changeset.is_some() {
                metrics.changeset_held(connector_id);
            }
        }
    }
    metrics.sync_ended(connector_id, account_id, outcome(result), duration, now);
}

impl Meter {
    /// Makes a meter, and the task that keeps the gauges of what is stored.
    pub(crate) fn new(
        metrics: ParallaxMetrics,
        store: Arc<Store>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        // As many wait as syncs have ended since the store was last asked: few.
        let (changed, receiver) = mpsc::unbounded_channel();
        let live = keep_live(metrics.clone(), store, receiver);
        let meter = Self {
            metrics,
            started: Mutex::default(),
            changed,
        };
        (meter, live)
    }

    /// Counts what a notice tells. Never waits: the scheduler does.
    pub(crate) fn note(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Started { job, sync_id } => {
                self.running().insert((*sync_id).to_owned(), Instant::now());
                self.metrics.sync_started(job.connector_id());
            }
            Notice::Ended {
                job,
                sync_id,
                result,
            } => {
                let started = self.running().remove(*sync_id);
                let duration = started.map_or(Duration::ZERO, |started| started.elapsed());
                let (connector_id, account_id) = (job.connector_id(), job.account_id());
                count(&self.metrics, (connector_id, account_id), result, duration);
                if result.is_ok() {
                    // The receiver goes away when the process ends, and not before.
                    let source_id = (connector_id.to_owned(), account_id.to_owned());
                    self.changed.send(source_id).ok();
                }
            }
            // The log says which tick was skipped, and why.
            _ => {}
        }
    }

    /// Returns what is told of a source whose records were changed by something else than a sync.
    pub(crate) fn changed(&self) -> impl Fn(SourceId) + Send + Sync + 'static {
        let changed = self.changed.clone();
        move |source_id| {
            changed.send(source_id).ok();
        }
    }

    /// Returns what is told of a decision about a changeset.
    pub(crate) fn decided(&self) -> impl Fn(&Decision) + Send + Sync + 'static {
        let metrics = self.metrics.clone();
        move |decision| decision.count(&metrics)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(result: &Result<Synced, SyncError>) -> Option<&SyncReport> {
    match result {
        Ok(synced) => Some(synced.output.report()),
        Err(SyncError::Commit { output, .. }) => Some(output.report()),
        Err(SyncError::Run(RunError::Cancelled { report })) => Some(report),
        Err(_) => None,
    }
}

fn outcome(result: &Result<Synced, SyncError>) -> SyncOutcome {
    match result {
        Ok(synced) => match synced.result.outcome {
            Outcome::Committed => SyncOutcome::Committed,
            Outcome::Partial => SyncOutcome::Partial,
            Outcome::Failed => SyncOutcome::Failed,
        },
        Err(SyncError::Run(RunError::Cancelled { .. })) => SyncOutcome::Cancelled,
        Err(_) => SyncOutcome::Error,
    }
}

async fn keep_live(
    metrics: ParallaxMetrics,
    store: Arc<Store>,
    mut changed: mpsc::UnboundedReceiver<SourceId>,
) {
    let mut sources = Vec::new();
    while changed.recv_many(&mut sources, 1024).await > 0 {
        // The store is asked once for each, however often it changed meanwhile.
        for source_id in sources.drain(..).collect::<BTreeSet<_>>() {
            refresh(&metrics, &store, &source_id).await;
        }
    }
}

/// What the store knows of a source.
struct Stored {
    live: Live,
    entities_held: u64,
    relationships_held: u64,
}

impl Stored {
    /// Sets the gauges of what is stored.
    fn tell(&self, metrics: &ParallaxMetrics, (connector_id, account_id): &SourceId) {
        metrics.live(connector_id, account_id, self.live);
        let (entities, relationships) = (self.entities_held, self.relationships_held);
        metrics.held(connector_id, account_id, entities, relationships);
    }
}

async fn stored(
    store: &Store,
    (connector_id, account_id): &SourceId,
) -> Result<Option<Stored>, StoreError> {
    let sql = format!(
        "SELECT entities, relationships, relationships_waiting, entities_held, \
             relationships_held \
         FROM parallax_source WHERE connector_id = {} AND account_id = {}",
        quoted(connector_id),
        quoted(account_id),
    );
    let found = store.query(&sql).await?;
    let stored = rows(&found).next().map(|row| Stored {
        live: Live {
            entities: row.number("entities"),
            relationships: row.number("relationships"),
            waiting: row.number("relationships_waiting"),
        },
        entities_held: row.number("entities_held"),
        relationships_held: row.number("relationships_held"),
    });
    Ok(stored)
}

/// What the store knows of a source's syncs.
async fn past(store: &Store, (connector_id, account_id): &SourceId) -> Result<Past, StoreError> {
    // What is kept is as of the last commit, and since when follows from those before it that kept
    // something because not all steps completed or something was rejected, back to one that did
    // not. An approval keeps and finds nothing.
    let sql = format!(
        "WITH commits AS (\
             SELECT committed_at, \
                 (outcome = 'partial' OR entities_rejected + relationships_rejected > 0) \
                 AND entities_kept + relationships_kept > 0 AS keeps \
             FROM parallax_sync WHERE connector_id = {connector} AND account_id = {account} \
                 AND outcome IN ('committed', 'partial')\
         ) \
         SELECT last_success_at, last_complete_at, entities_kept, relationships_kept, \
             (SELECT min(committed_at) FROM commits WHERE keeps AND committed_at > \
                 coalesce((SELECT max(committed_at) FROM commits WHERE NOT keeps), '')) \
                 AS kept_since \
         FROM parallax_source WHERE connector_id = {connector} AND account_id = {account}",
        connector = quoted(connector_id),
        account = quoted(account_id),
    );
    let found = store.query(&sql).await?;
    let past = rows(&found).next().map(|row| Past {
        last_success: time(row, "last_success_at"),
        last_complete: time(row, "last_complete_at"),
        kept_since: time(row, "kept_since"),
        entities_kept: row.number("entities_kept"),
        relationships_kept: row.number("relationships_kept"),
    });
    Ok(past.unwrap_or_default())
}

fn time(row: Row<'_>, column: &str) -> Option<SystemTime> {
    let time: jiff::Timestamp = row.text(column)?.parse().ok()?;
    Some(time.into())
}

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, SharedString};
use parallax_core::{StepStatus, SyncReport, SyncStats};

use crate::connector::{Connector, Remembered, Room, STATUSES, Scheduled, SourceKey, Step, lock};
use crate::label::{self, INVALID, OTHER};
use crate::names;
use crate::outcome::SyncOutcome;

/// Parallax's metrics, with what they need to remember.
///
/// Make one per recorder, after the recorder is installed, and clone it: clones share what they
/// remember, and two that were made apart would overwrite each other's gauges. Recording never
/// fails, never blocks on anything outside and never panics; without a recorder it does nothing.
///
/// # Sources
///
/// A source, one account of a connector, is no label: series would be as many as accounts. Each
/// source's numbers are remembered, and a gauge is their sum over the connector's sources. The
/// timestamps are those of the source that waits the longest, among the connector's sources that
/// ever succeeded. One that never did is overdue three intervals after it was scheduled, as one is
/// that did not for so long. They are what the clock said, also after it was set back.
///
/// # Hostile ids
///
/// A connector or step whose id is not `[a-z0-9_.-]{1,64}` is recorded as `__invalid__`. No family
/// has more than 2,000 series (a histogram counts as one): 398 connectors and 399 steps have
/// series of their own. Those that come later share `__other__`, a step of theirs under
/// `__other__` in both labels, so that counters stay exact in total. 50,000 sources are remembered;
/// later ones are left out of the gauges. `parallax_series_overflow_total` counts what was recorded
/// under `__other__` or left out. Memory is bounded by this, whatever the ids.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use parallax_core::SyncStats;
/// use parallax_metrics::{Live, ParallaxMetrics, SyncOutcome};
///
/// let metrics = ParallaxMetrics::new();
/// metrics.register("okta", &["users", "groups"]);
///
/// metrics.sync_started("okta");
/// let stats = SyncStats::from_values([1; SyncStats::FIELDS.len()]);
/// let now = SystemTime::now();
/// let took = Duration::from_millis(20);
/// metrics.committed("okta", "acme", SyncOutcome::Committed, &stats, took, now);
/// metrics.live("okta", "acme", Live { entities: 120, relationships: 80, waiting: 0 });
/// let duration = Duration::from_secs(3);
/// metrics.sync_ended("okta", "acme", SyncOutcome::Committed, duration, now);
/// ```
#[derive(Clone, Debug)]
pub struct ParallaxMetrics {
    shared: Arc<Shared>,
}

/// How much of a source is live in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Entities that are live.
    pub entities: u64,
    /// Relationships that are live.
    pub relationships: u64,
    /// Relationships that wait for an entity at one of their ends.
    pub waiting: u64,
}

/// What a store knows of a source's syncs before the program was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// When a sync was last committed.
    pub last_success: Option<SystemTime>,
    /// When a sync was last committed in which every step completed.
    pub last_complete: Option<SystemTime>,
    /// The first commit since which each has kept records, if the last one did.
    pub kept_since: Option<SystemTime>,
    /// Entities that the last commit kept.
    pub entities_kept: u64,
    /// Relationships that the last commit kept.
    pub relationships_kept: u64,
}

#[derive(Debug)]
struct Shared {
    /// By label. It never shrinks, so whoever once had to share [`OTHER`] always does.
    connectors: Mutex<HashMap<Box<str>, Arc<Connector>>>,
    max_connectors: usize,
    room_for_steps: Room,
    other_step: OnceLock<Step>,
    room_for_sources: Room,
    source_hasher: RandomState,
    overflow: Counter,
}

/// As many as OpenTelemetry's SDKs allow a metric by default.
const SERIES_PER_FAMILY: usize = 2_000;

/// About 14 MB in one map.
const SOURCES: usize = 50_000;

impl Default for ParallaxMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ParallaxMetrics {
    /// Describes every metric and sets `parallax_build_info`.
    ///
    /// The installed recorder is asked now and when a connector or step is first heard of, and its
    /// answer is kept, because asking costs more than recording. What was made before a recorder
    /// is installed stays silent for ever: install first.
    pub fn new() -> Self {
        Self::with_room_for(SERIES_PER_FAMILY, SOURCES)
    }

    fn with_room_for(series: usize, sources: usize) -> Self {
        names::describe();
        let version = env!("CARGO_PKG_VERSION").into();
        names::BUILD_INFO.gauge(&[&version]).set(1.0);
        names::REFUSED_TOKENS.counter(&[]).increment(0);
        names::SOURCES_BROKEN.gauge(&[]).increment(0.0);
        // The families with the most series per connector and per step tell how there ended.
        let connectors = series / SyncOutcome::ALL.len();
        let steps = series / STATUSES.len();
        let shared = Shared {
            connectors: Mutex::default(),
            // Without those that share a series.
            max_connectors: connectors.saturating_sub([INVALID, OTHER].len()),
            room_for_steps: Room::for_up_to(steps.saturating_sub([OTHER].len())),
            other_step: OnceLock::new(),
            room_for_sources: Room::for_up_to(sources),
            source_hasher: RandomState::new(),
            overflow: names::SERIES_OVERFLOW.counter(&[]),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes every series of a connector exist, at 0, if it does not yet.
    ///
    /// Prometheus sees no increase in a series that begins with 1: the first failure of a connector
    /// that was not registered goes unnoticed.
    pub fn register(&self, connector_id: &str, step_ids: &[&str]) {
        let connector = self.shared.connector(connector_id);
        for step_id in step_ids {
            self.shared.with_step(&connector, step_id, |_| {});
        }
    }

    /// Records that a source is synced by itself, how often, and that the clock said `at` when that
    /// began.
    pub fn scheduled(
        &self,
        connector_id: &str,
        account_id: &str,
        interval: Duration,
        at: SystemTime,
    ) {
        let key = self.shared.source(connector_id, account_id);
        let connector = self.shared.recorded(connector_id);
        let (since, room) = (since_1970(at), &self.shared.room_for_sources);
        let scheduled = Scheduled { interval, since };
        self.shared.noted(connector.scheduled(key, scheduled, room));
    }

    /// Records that a sync begins. [`sync_ended`](Self::sync_ended) must follow, whatever happens.
    pub fn sync_started(&self, connector_id: &str) {
        self.shared.recorded(connector_id).sync_started();
    }

    /// Records that a sync ended, after `duration`, when the clock said `at`.
    ///
    /// The source had its last success if the sync was committed, and its last complete sync if
    /// every step completed.
    pub fn sync_ended(
        &self,
        connector_id: &str,
        account_id: &str,
        outcome: SyncOutcome,
        duration: Duration,
        at: SystemTime,
    ) {
        let connector = self.shared.recorded(connector_id);
        connector.sync_ended(outcome, duration);
        if outcome.is_success() {
            let at = since_1970(at);
            self.shared.noted(connector.succeeded(
                self.shared.source(connector_id, account_id),
                Some(at),
                outcome.is_complete().then_some(at),
                &self.shared.room_for_sources,
            ));
        }
    }

    /// Records how each step of a run ended, how long those took that ran, and what they were tried
    /// again after. Steps that were not selected are no part of it.
    pub fn steps_ended(&self, connector_id: &str, report: &SyncReport) {
        let connector = self.shared.connector(connector_id);
        let steps = report.steps().iter();
        for step in steps.filter(|step| step.status != StepStatus::NotSelected) {
            self.shared.with_step(&connector, &step.step_id, |series| {
                series.ended(step);
                if series.is_other() {
                    self.shared.overflow.increment(1);
                }
            });
        }
    }

    /// Records what a commit did, how long it took, and that the clock said `at` when it was done.
    ///
    /// Gauges are of the last sync that was committed: where no step returned, the outcome is
    /// `Failed`, and they stay. Since when records are kept follows from syncs that were `Partial`.
    ///
    /// Call it once per commit, not for one that was replayed: its counts were recorded the first
    /// time.
    pub fn committed(
        &self,
        connector_id: &str,
        account_id: &str,
        outcome: SyncOutcome,
        stats: &SyncStats,
        duration: Duration,
        at: SystemTime,
    ) {
        let key = self.shared.source(connector_id, account_id);
        let connector = self.shared.recorded(connector_id);
        let (at, room) = (since_1970(at), &self.shared.room_for_sources);
        self.shared
            .noted(connector.committed(key, outcome, stats, duration, at, room));
    }

    /// Records that a commit was undone because its books did not balance.
    pub fn reconciliation_mismatched(&self, connector_id: &str) {
        self.shared
            .recorded(connector_id)
            .reconciliation_mismatched();
    }

    /// Records how much of a source is live.
    pub fn live(&self, connector_id: &str, account_id: &str, live: Live) {
        let key = self.shared.source(connector_id, account_id);
        let connector = self.shared.recorded(connector_id);
        self.shared
            .noted(connector.live(key, live, &self.shared.room_for_sources));
    }

    /// Records how many deletes of a source are held.
    ///
    /// A commit's stats tell it, too; this is for what happens between commits, and before the
    /// first one of a program.
    pub fn held(&self, connector_id: &str, account_id: &str, entities: u64, relationships: u64) {
        let key = self.shared.source(connector_id, account_id);
        let connector = self.shared.recorded(connector_id);
        let room = &self.shared.room_for_sources;
        self.shared
            .noted(connector.held(key, entities, relationships, room));
    }

    /// Records that a commit held deletes, as a new changeset.
    pub fn changeset_held(&self, connector_id: &str) {
        self.shared.recorded(connector_id).changeset("held");
    }

    /// Records that somebody approved a changeset, which deleted so many records.
    ///
    /// Call it once, not when the same is said again. What is live and held then is told by
    /// [`live`](Self::live) and [`held`](Self::held).
    pub fn changeset_approved(&self, connector_id: &str, entities: u64, relationships: u64) {
        let connector = self.shared.recorded(connector_id);
        connector.changeset("approved");
        connector.deleted(entities, relationships);
    }

    /// Records that somebody rejected a changeset, which deleted nothing.
    pub fn changeset_rejected(&self, connector_id: &str) {
        self.shared.recorded(connector_id).changeset("rejected");
    }

    /// Records events that a sync's watcher did not take.
    pub fn events_undelivered(&self, connector_id: &str, events: u64) {
        self.shared
            .recorded(connector_id)
            .events_undelivered(events);
    }

    /// Takes what is stored of a source, and when it was synced, out of the gauges, because the
    /// store has forgotten it.
    ///
    /// What it added to counters stays. If it is scheduled, it is expected as one is that was
    /// scheduled when the clock said `at`.
    pub fn forget(&self, connector_id: &str, account_id: &str, at: SystemTime) {
        let key = self.shared.source(connector_id, account_id);
        if let Some(connector) = self.shared.known(connector_id) {
            connector.forget(key, since_1970(at), &self.shared.room_for_sources);
        }
    }

    /// Records that a source is not synced by itself any more.
    pub fn unscheduled(&self, connector_id: &str, account_id: &str) {
        let key = self.shared.source(connector_id, account_id);
        if let Some(connector) = self.shared.known(connector_id) {
            connector.unscheduled(key, &self.shared.room_for_sources);
        }
    }

    /// Tells what became of a source's syncs before the program was started.
    ///
    /// What was recorded since then stays.
    pub fn restore(&self, connector_id: &str, account_id: &str, past: &Past) {
        // One that never succeeded needs no room.
        if *past == Past::default() {
            self.shared.connector(connector_id);
            return;
        }
        let key = self.shared.source(connector_id, account_id);
        let connector = self.shared.recorded(connector_id);
        let room = &self.shared.room_for_sources;
        self.shared.noted(connector.restored(key, past, room));
    }
}

impl Shared {
    /// Returns the connector that something is recorded under.
    fn recorded(&self, connector_id: &str) -> Arc<Connector> {
        let connector = self.connector(connector_id);
        if connector.is_other() {
            self.overflow.increment(1);
        }
        connector
    }

    fn connector(&self, connector_id: &str) -> Arc<Connector> {
        let label = label::checked(connector_id);
        let mut connectors = lock(&self.connectors);
        if let Some(connector) = connectors.get(label) {
            return Arc::clone(connector);
        }
        let label = match label == INVALID || connectors.len() < self.max_connectors {
            true => label,
            false => OTHER,
        };
        let connector = connectors.entry(label.into());
        Arc::clone(connector.or_insert_with(|| Arc::new(Connector::new(label))))
    }

    /// Returns the connector if anything was recorded under it.
    fn known(&self, connector_id: &str) -> Option<Arc<Connector>> {
        let connectors = lock(&self.connectors);
        let own = connectors.get(label::checked(connector_id));
        own.or_else(|| connectors.get(OTHER)).map(Arc::clone)
    }

    fn with_step(&self, connector: &Connector, step_id: &str, record: impl FnOnce(&Step)) {
        let own = match connector.is_other() {
            true => None,
            false => connector.step(label::checked(step_id), &self.room_for_steps),
        };
        match own {
            Some(step) => record(&step),
            None => record(
                self.other_step
                    .get_or_init(|| Step::new(SharedString::const_str(OTHER), OTHER)),
            ),
        }
    }

    /// Names a source. The hash is keyed anew in every program, so that nobody can make ids up
    /// that share one; by chance, two of 50,000 do once in ten billion programs.
    fn source(&self, connector_id: &str, account_id: &str) -> SourceKey {
        self.source_hasher.hash_one((connector_id, account_id))
    }

    fn noted(&self, remembered: Remembered) {
        if remembered == Remembered::No {
            self.overflow.increment(1);
        }
    }
}

/// Returns 0 for a time before 1970: a clock may say anything.
pub(crate) fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;

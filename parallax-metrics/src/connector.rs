use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};
use parallax_core::{ErrorKind, StepReport, StepRetries, StepStatus, SyncStats};

use crate::label::OTHER;
use crate::names::{self, Kind};
use crate::outcome::SyncOutcome;
use crate::parallax_metrics::{Live, Past, since_1970};
use crate::record::float;

/// The series of one connector, and what each of its sources adds to the gauges.
///
/// Making one makes its series exist.
#[derive(Debug)]
pub(crate) struct Connector {
    label: SharedString,
    /// One for each field of the stats, unless that is a gauge.
    counters: Vec<Option<Counter>>,
    /// In the order of [`Sum`].
    gauges: [Gauge; SUMS],
    syncs: Vec<Counter>,
    sync_duration: Histogram,
    syncs_in_progress: Gauge,
    sync_interval: Gauge,
    last_success: Gauge,
    last_complete: Gauge,
    overdue: Gauge,
    kept_since: Gauge,
    commit_duration: Histogram,
    /// In the order of [`CHANGESETS`].
    changesets: Vec<Counter>,
    events_undelivered: Counter,
    reconciliation_mismatches: Counter,
    memory: Mutex<Memory>,
}

/// One lock for all of it: a gauge is set under the lock, so that the last to set it is the one
/// that knew most.
#[derive(Debug, Default)]
struct Memory {
    steps: HashMap<Box<str>, Arc<Step>>,
    sources: HashMap<SourceKey, Source>,
    all: All,
    in_progress: u64,
}

/// What the sources come to together: kept up to date, because a connector may have tens of
/// thousands of them, and each sync changes one.
#[derive(Debug, Default)]
struct All {
    /// In the order of [`Sum`]. Wide enough for any number of any `u64`.
    sums: [u128; SUMS],
    intervals: Times,
    last_success: Times,
    last_complete: Times,
    overdue: Times,
    kept_since: Times,
}

/// Times in their order, each with how many sources have it.
#[derive(Debug, Default)]
struct Times(BTreeMap<Duration, usize>);

/// Names a source by a hash of its ids, so that it takes as little room as they may take much.
pub(crate) type SourceKey = u64;

/// The gauges that are sums over sources.
#[derive(Clone, Copy, Debug)]
enum Sum {
    EntitiesKept,
    EntitiesHeld,
    RelationshipsKept,
    RelationshipsHeld,
    Entities,
    Relationships,
    RelationshipsWaiting,
}

const SUMS: usize = Sum::ALL.len();

impl Sum {
    const ALL: [Self; 7] = [
        Self::EntitiesKept,
        Self::EntitiesHeld,
        Self::RelationshipsKept,
        Self::RelationshipsHeld,
        Self::Entities,
        Self::Relationships,
        Self::RelationshipsWaiting,
    ];

    const fn metric(self) -> &'static names::Metric {
        match self {
            Self::EntitiesKept => &names::ENTITIES_KEPT,
            Self::EntitiesHeld => &names::ENTITIES_HELD,
            Self::RelationshipsKept => &names::RELATIONSHIPS_KEPT,
            Self::RelationshipsHeld => &names::RELATIONSHIPS_HELD,
            Self::Entities => &names::ENTITIES,
            Self::Relationships => &names::RELATIONSHIPS,
            Self::RelationshipsWaiting => &names::RELATIONSHIPS_WAITING,
        }
    }
}

/// Times are since 1970.
#[derive(Debug, Default, PartialEq)]
struct Source {
    /// What it adds, in the order of [`Sum`].
    shares: [u64; SUMS],
    scheduled: Option<Scheduled>,
    last_success: Option<Duration>,
    last_complete: Option<Duration>,
    /// Follows from the others.
    overdue: Option<Duration>,
    kept_since: Option<Duration>,
    /// Whether a commit of this program has told what it kept.
    has_committed: bool,
}

/// How often a source is synced, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub(crate) interval: Duration,
    pub(crate) since: Duration,
}

/// After how many intervals without a success a source is overdue.
const MISSED: u32 = 3;

/// The series of one step.
#[derive(Debug)]
pub(crate) struct Step {
    label: SharedString,
    connector: SharedString,
    /// In the order of [`STATUSES`].
    ended: Vec<Counter>,
    duration: Histogram,
    /// In the order of [`RETRIED`].
    retries: Vec<Retries>,
    throttled: Waited,
}

/// The series of a step's retries after one kind of error.
#[derive(Debug)]
struct Retries {
    count: Counter,
    waited: Waited,
}

/// Time, as a counter of whole seconds.
#[derive(Debug)]
struct Waited {
    seconds: Counter,
    /// What is less than a second, and not counted yet.
    rest: Mutex<Duration>,
}

/// The ends of a step whose series exist before one ended so.
pub(crate) const STATUSES: [StepStatus; 5] = [
    StepStatus::Completed,
    StepStatus::Incomplete,
    StepStatus::Failed,
    StepStatus::Skipped,
    StepStatus::Cancelled,
];

/// What happens to a changeset.
pub(crate) const CHANGESETS: [&str; 3] = ["held", "approved", "rejected"];

/// The kinds of errors after which a step is tried again.
pub(crate) const RETRIED: [ErrorKind; 3] = [
    ErrorKind::Retryable,
    ErrorKind::RateLimited,
    ErrorKind::TimedOut,
];

impl Connector {
    pub(crate) fn new(label: &str) -> Self {
        let label = SharedString::from(Arc::<str>::from(label));
        let labels = &[&label];
        let counter = |metric: &names::Metric| {
            let is_counter = metric.kind == Kind::Counter;
            is_counter.then(|| metric.counter(labels))
        };
        Self {
            counters: names::STATS.iter().map(counter).collect(),
            gauges: Sum::ALL.map(|sum| sum.metric().gauge(labels)),
            syncs: SyncOutcome::ALL
                .iter()
                .map(|outcome| names::SYNCS.counter(&[&label, &outcome.as_str().into()]))
                .collect(),
            sync_duration: names::SYNC_DURATION.histogram(labels),
            syncs_in_progress: names::SYNCS_IN_PROGRESS.gauge(labels),
            sync_interval: names::SYNC_INTERVAL.gauge(labels),
            last_success: names::LAST_SUCCESS.gauge(labels),
            last_complete: names::LAST_COMPLETE.gauge(labels),
            overdue: names::OVERDUE.gauge(labels),
            kept_since: names::KEPT_SINCE.gauge(labels),
            commit_duration: names::COMMIT_DURATION.histogram(labels),
            changesets: CHANGESETS
                .iter()
                .map(|outcome| names::CHANGESETS.counter(&[&label, &(*outcome).into()]))
                .collect(),
            events_undelivered: names::EVENTS_UNDELIVERED.counter(labels),
            reconciliation_mismatches: names::RECONCILIATION_MISMATCHES.counter(labels),
            memory: Mutex::default(),
            label,
        }
    }

    /// Tells whether it stands for those for which there was no room.
    pub(crate) fn is_other(&self) -> bool {
        &*self.label == OTHER
    }

    pub(crate) fn sync_started(&self) {
        let mut memory = lock(&self.memory);
        memory.in_progress = memory.in_progress.saturating_add(1);
        self.syncs_in_progress.set(float(memory.in_progress.into()));
    }

    pub(crate) fn sync_ended(&self, outcome: SyncOutcome, duration: Duration) {
        let mut syncs = SyncOutcome::ALL.iter().zip(&self.syncs);
        if let Some((_, syncs)) = syncs.find(|(of, _)| **of == outcome) {
            syncs.increment(1);
        }
        self.sync_duration.record(duration);
        let mut memory = lock(&self.memory);
        // Whoever ends a sync without having started it must not hide another one.
        memory.in_progress = memory.in_progress.saturating_sub(1);
        self.syncs_in_progress.set(float(memory.in_progress.into()));
    }

    /// Notes when a source's last syncs ended, as far as they are told.
    pub(crate) fn succeeded(
        &self,
        key: SourceKey,
        success: Option<Duration>,
        complete: Option<Duration>,
        room: &Room,
    ) -> Remembered {
        let mut memory = lock(&self.memory);
        let remembered = memory.with_source(key, room, |source, all| {
            let success = success.or(source.last_success);
            all.last_success.replace(&mut source.last_success, success);
            let complete = complete.or(source.last_complete);
            all.last_complete
                .replace(&mut source.last_complete, complete);
            all.expect(source);
        });
        self.set_times(&memory.all);
        remembered
    }

    /// Notes what is known of a source's past, unless it is known better.
    pub(crate) fn restored(&self, key: SourceKey, past: &Past, room: &Room) -> Remembered {
        let Past {
            last_success,
            last_complete,
            kept_since,
            entities_kept,
            relationships_kept,
        } = *past;
        let mut memory = lock(&self.memory);
        let remembered = memory.with_source(key, room, |source, all| {
            let success = source.last_success.or(last_success.map(since_1970));
            all.last_success.replace(&mut source.last_success, success);
            let complete = source.last_complete.or(last_complete.map(since_1970));
            all.last_complete
                .replace(&mut source.last_complete, complete);
            all.expect(source);
            if !source.has_committed {
                let since = kept_since.map(since_1970);
                all.kept_since.replace(&mut source.kept_since, since);
                let kept = [
                    (Sum::EntitiesKept, entities_kept),
                    (Sum::RelationshipsKept, relationships_kept),
                ];
                self.share(source, all, kept);
            }
        });
        self.set_times(&memory.all);
        remembered
    }

    /// Notes how often a source is synced.
    pub(crate) fn scheduled(
        &self,
        key: SourceKey,
        scheduled: Scheduled,
        room: &Room,
    ) -> Remembered {
        let mut memory = lock(&self.memory);
        let remembered = memory.with_source(key, room, |source, all| {
            all.schedule(source, Some(scheduled));
        });
        self.set_times(&memory.all);
        remembered
    }

    /// Notes that a source is not synced by itself any more.
    pub(crate) fn unscheduled(&self, key: SourceKey, room: &Room) {
        let mut memory = lock(&self.memory);
        let Memory { sources, all, .. } = &mut *memory;
        if let Some(source) = sources.get_mut(&key) {
            all.schedule(source, None);
        }
        memory.let_go(key, room);
        self.set_times(&memory.all);
    }

    pub(crate) fn committed(
        &self,
        key: SourceKey,
        outcome: SyncOutcome,
        stats: &SyncStats,
        duration: Duration,
        at: Duration,
        room: &Room,
    ) -> Remembered {
        self.count(stats);
        self.commit_duration.record(duration);
        // It has read nothing, and so leaves all as it was.
        if !outcome.is_success() {
            return Remembered::Yes;
        }
        // What is kept by a complete sync that had nothing rejected is kept by somebody's word.
        let has_missed =
            !outcome.is_complete() || stats.entities_rejected + stats.relationships_rejected > 0;
        let keeps = has_missed && stats.entities_kept + stats.relationships_kept > 0;
        lock(&self.memory).with_source(key, room, |source, all| {
            source.has_committed = true;
            if keeps != source.kept_since.is_some() {
                let since = keeps.then_some(at);
                all.kept_since.replace(&mut source.kept_since, since);
                self.kept_since.set(all.kept_since.earliest());
            }
            let shares = [
                (Sum::EntitiesKept, stats.entities_kept),
                (Sum::EntitiesHeld, stats.entities_held),
                (Sum::RelationshipsKept, stats.relationships_kept),
                (Sum::RelationshipsHeld, stats.relationships_held),
            ];
            self.share(source, all, shares);
        })
    }

    fn count(&self, stats: &SyncStats) {
        for (counter, value) in self.counters.iter().zip(stats.values()) {
            // Most are 0 in most commits.
            if let Some(counter) = counter
                && value > 0
            {
                counter.increment(value);
            }
        }
    }

    pub(crate) fn live(&self, key: SourceKey, live: Live, room: &Room) -> Remembered {
        let Live {
            entities,
            relationships,
            waiting,
        } = live;
        let live = [
            (Sum::Entities, entities),
            (Sum::Relationships, relationships),
            (Sum::RelationshipsWaiting, waiting),
        ];
        lock(&self.memory).with_source(key, room, |source, all| self.share(source, all, live))
    }

    /// Sets what a source adds to the gauges of what is held.
    pub(crate) fn held(
        &self,
        key: SourceKey,
        entities: u64,
        relationships: u64,
        room: &Room,
    ) -> Remembered {
        let held = [
            (Sum::EntitiesHeld, entities),
            (Sum::RelationshipsHeld, relationships),
        ];
        lock(&self.memory).with_source(key, room, |source, all| self.share(source, all, held))
    }

    /// Counts a changeset to which one of [`CHANGESETS`] happened.
    pub(crate) fn changeset(&self, outcome: &str) {
        let mut changesets = CHANGESETS.iter().zip(&self.changesets);
        if let Some((_, changesets)) = changesets.find(|(of, _)| **of == outcome) {
            changesets.increment(1);
        }
    }

    /// Counts records that were deleted by an approval.
    pub(crate) fn deleted(&self, entities: u64, relationships: u64) {
        let mut stats = SyncStats::default();
        stats.entities_deleted = entities;
        stats.relationships_deleted = relationships;
        self.count(&stats);
    }

    pub(crate) fn events_undelivered(&self, events: u64) {
        self.events_undelivered.increment(events);
    }

    pub(crate) fn reconciliation_mismatched(&self) {
        self.reconciliation_mismatches.increment(1);
    }

    /// Notes that nothing of a source is stored any more.
    pub(crate) fn forget(&self, key: SourceKey, at: Duration, room: &Room) {
        let mut memory = lock(&self.memory);
        let Memory { sources, all, .. } = &mut *memory;
        if let Some(source) = sources.get_mut(&key) {
            self.share(source, all, Sum::ALL.map(|sum| (sum, 0)));
            all.last_success.replace(&mut source.last_success, None);
            all.last_complete.replace(&mut source.last_complete, None);
            all.kept_since.replace(&mut source.kept_since, None);
            source.has_committed = false;
            let scheduled = source.scheduled;
            let again = scheduled.map(|scheduled| Scheduled {
                since: at,
                ..scheduled
            });
            all.schedule(source, again);
        }
        memory.let_go(key, room);
        self.set_times(&memory.all);
    }

    /// Returns the series of a step, if there are or may be such.
    pub(crate) fn step(&self, label: &str, room: &Room) -> Option<Arc<Step>> {
        let mut memory = lock(&self.memory);
        if let Some(step) = memory.steps.get(label) {
            return Some(Arc::clone(step));
        }
        room.take().then(|| {
            let step = Arc::new(Step::new(self.label.clone(), label));
            memory.steps.insert(label.into(), Arc::clone(&step));
            step
        })
    }

    /// Replaces what a source adds to some gauges.
    fn share<const N: usize>(&self, source: &mut Source, all: &mut All, shares: [(Sum, u64); N]) {
        for (of, value) in shares {
            let place = of as usize;
            let (Some(share), Some(sum), Some(gauge)) = (
                source.shares.get_mut(place),
                all.sums.get_mut(place),
                self.gauges.get(place),
            ) else {
                continue;
            };
            // Most do not change.
            if *share != value {
                *sum = *sum - u128::from(*share) + u128::from(value);
                *share = value;
                gauge.set(float(*sum));
            }
        }
    }

    /// Sets the gauges that are of the source which waits the longest.
    fn set_times(&self, all: &All) {
        self.sync_interval.set(all.intervals.latest());
        self.last_success.set(all.last_success.earliest());
        self.last_complete.set(all.last_complete.earliest());
        self.overdue.set(all.overdue.earliest());
        self.kept_since.set(all.kept_since.earliest());
    }
}

impl All {
    /// Sets how often a source is synced, if it is by itself.
    fn schedule(&mut self, source: &mut Source, scheduled: Option<Scheduled>) {
        let mut before = source.scheduled.map(|scheduled| scheduled.interval);
        let interval = scheduled.map(|scheduled| scheduled.interval);
        self.intervals.replace(&mut before, interval);
        source.scheduled = scheduled;
        self.expect(source);
    }

    /// Sets when a source is overdue.
    fn expect(&mut self, source: &mut Source) {
        let overdue = source.scheduled.map(|Scheduled { interval, since }| {
            let last = source.last_success.unwrap_or(since);
            last.saturating_add(interval.saturating_mul(MISSED))
        });
        self.overdue.replace(&mut source.overdue, overdue);
    }
}

impl Times {
    /// Puts another time, or none, in the place of a source's.
    fn replace(&mut self, old: &mut Option<Duration>, new: Option<Duration>) {
        let Self(times) = self;
        if let Some(time) = *old
            && let Some(count) = times.get_mut(&time)
        {
            *count -= 1;
            if *count == 0 {
                times.remove(&time);
            }
        }
        if let Some(time) = new {
            *times.entry(time).or_default() += 1;
        }
        *old = new;
    }

    /// Returns the earliest in seconds; 0 if there is none.
    fn earliest(&self) -> f64 {
        let earliest = self.0.first_key_value();
        earliest.map_or(0.0, |(time, _)| time.as_secs_f64())
    }

    /// Returns the latest in seconds; 0 if there is none.
    fn latest(&self) -> f64 {
        let latest = self.0.last_key_value();
        latest.map_or(0.0, |(time, _)| time.as_secs_f64())
    }
}

/// Whether there was room for what a source adds to the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Remembered {
    Yes,
    No,
}

impl Memory {
    fn with_source(
        &mut self,
        key: SourceKey,
        room: &Room,
        change: impl FnOnce(&mut Source, &mut All),
    ) -> Remembered {
        let source = match self.sources.entry(key) {
            Entry::Occupied(source) => source.into_mut(),
            Entry::Vacant(_) if !room.take() => return Remembered::No,
            Entry::Vacant(place) => place.insert(Source::default()),
        };
        change(source, &mut self.all);
        Remembered::Yes
    }

    /// Gives the room of a source back if nothing is known of it.
    fn let_go(&mut self, key: SourceKey, room: &Room) {
        if let Entry::Occupied(source) = self.sources.entry(key)
            && *source.get() == Source::default()
        {
            source.remove();
            room.give_back();
        }
    }
}

impl Step {
    pub(crate) fn new(connector: SharedString, label: &str) -> Self {
        let label = SharedString::from(Arc::<str>::from(label));
        let ended = STATUSES
            .iter()
            .map(|status| names::STEPS.counter(&[&connector, &label, &status.as_str().into()]));
        Self {
            ended: ended.collect(),
            duration: names::STEP_DURATION.histogram(&[&connector, &label]),
            retries: RETRIED
                .iter()
                .map(|kind| Retries::new(&connector, &label, kind.as_str()))
                .collect(),
            throttled: Waited::new(&connector, &label, "throttled"),
            label,
            connector,
        }
    }

    /// Tells whether it stands for those for which there was no room.
    pub(crate) fn is_other(&self) -> bool {
        &*self.label == OTHER
    }

    pub(crate) fn ended(&self, report: &StepReport) {
        let status = report.status;
        let mut ended = STATUSES.iter().zip(&self.ended);
        match ended.find(|(of, _)| **of == status) {
            Some((_, ended)) => ended.increment(1),
            // A status that core got after this was written: counted, if not from 0 on.
            None => names::STEPS
                .counter(&[&self.connector, &self.label, &status.as_str().into()])
                .increment(1),
        }
        let has_run = match status {
            StepStatus::Skipped => false,
            // One that was waiting has taken no time.
            StepStatus::Cancelled => !report.duration.is_zero(),
            _ => true,
        };
        if has_run {
            self.duration.record(report.duration);
        }
        if !report.throttled.is_zero() {
            self.throttled.add(report.throttled);
        }
        for retries in &report.retries {
            let mut known = RETRIED.iter().zip(&self.retries);
            match known.find(|(kind, _)| **kind == retries.kind) {
                Some((_, of)) => of.add(retries),
                // One name for all that may come, for the number of series to stay bounded.
                None => Retries::new(&self.connector, &self.label, "other").add(retries),
            }
        }
    }
}

impl Retries {
    fn new(connector: &SharedString, step: &SharedString, kind: &'static str) -> Self {
        Self {
            count: names::STEP_RETRIES.counter(&[connector, step, &kind.into()]),
            waited: Waited::new(connector, step, kind),
        }
    }

    fn add(&self, retries: &StepRetries) {
        self.count.increment(retries.count.into());
        self.waited.add(retries.waited);
    }
}

impl Waited {
    fn new(connector: &SharedString, step: &SharedString, kind: &'static str) -> Self {
        Self {
            seconds: names::STEP_WAITED.counter(&[connector, step, &kind.into()]),
            rest: Mutex::default(),
        }
    }

    fn add(&self, time: Duration) {
        // A counter counts whole numbers: the rest comes with a later pause.
        let mut rest = lock(&self.rest);
        let waited = rest.saturating_add(time);
        self.seconds.increment(waited.as_secs());
        *rest = Duration::from_nanos(waited.subsec_nanos().into());
    }
}

/// How many more there may be of something.
#[derive(Debug)]
pub(crate) struct Room(AtomicUsize);

impl Room {
    pub(crate) const fn for_up_to(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// Takes the room of one, unless there is none.
    fn take(&self) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Locks, also after a panic: a sum that a recorder's panic left half updated is better than every
/// later sync failing over its metrics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

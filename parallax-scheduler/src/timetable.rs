use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cron::since;
use crate::schedule::{Missed, Overlap, Schedule, Ticks};

/// Decides what is due. Pure: it is told the time, and asked.
///
/// Each job has the ticks of its schedule. At each tick the job starts, or waits for its turn, or is
/// skipped for a reason: no tick is lost, and none is counted twice, whatever the clock does.
///
/// - One that goes forward, as after the machine was suspended, has the ticks between missed.
/// - One that goes back leaves the next tick where it was: of an interval so long from now, of a
///   pattern at its time. If it goes back by more than three hours, it was wrong before, and
///   patterns begin anew.
#[derive(Clone, Debug)]
pub struct Timetable {
    jobs: Vec<Entry>,
    /// Jobs that are due, in the order in which they became so.
    waiting: VecDeque<usize>,
    running: usize,
    concurrency: usize,
    /// The time it was told last.
    now: Timestamp,
}

#[derive(Clone, Debug)]
struct Entry {
    schedule: Schedule,
    seed: u64,
    /// How many ticks were before the next.
    number: u64,
    /// The next tick.
    tick: Timestamp,
    /// The same with its jitter.
    due: Timestamp,
    state: State,
    /// Whether a sync follows the one that runs.
    is_queued: bool,
    /// Failed syncs in a row.
    failures: u32,
    not_before: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Running,
}

/// The ticks up to a time.
struct Passed {
    ticks: u32,
    /// When the last of them was, if there are any.
    last: Timestamp,
}

/// What a tick of a job comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// The job starts now.
    Start {
        /// The job's place.
        job: usize,
    },
    /// The job does not run at this tick.
    Skip {
        /// The job's place.
        job: usize,
        /// Why not.
        reason: Skip,
    },
}

/// Why a job does not run at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Skip {
    /// Its last sync is still running.
    #[error("the last sync is still running")]
    StillRunning,
    /// A sync waits for the last one to end.
    #[error("a sync waits already for the last one to end")]
    StillQueued,
    /// It waits for one of the syncs that run to end.
    #[error("as many syncs are running as may run at a time")]
    StillWaiting,
    /// Its last syncs failed.
    #[error("the last {failures} syncs failed: waiting longer before the next")]
    BackingOff {
        /// How many in a row.
        failures: u32,
    },
    /// Ticks passed while nothing could run, as after a machine was suspended.
    #[error("{ticks} ticks passed while nothing could run")]
    Missed {
        /// How many, besides the one that is judged by itself, if one is. Of a pattern, some ten
        /// thousand are counted at most.
        ticks: u32,
    },
}

/// A source that keeps failing is tried at least this often, or at its interval if that is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// A tick that comes later was missed.
const LATE: Duration = Duration::from_secs(60);
/// A clock that goes back further was wrong before. Vixie's cron has the same limit: nothing that a
/// clock goes back by in its ordinary life, summer time included, is as much.
const CORRECTION: Duration = Duration::from_secs(3 * 60 * 60);
/// How many ticks of a pattern are counted one by one: a week of minutes.
const COUNTED: u32 = 10_000;

impl Timetable {
    /// Makes a timetable of jobs, of which at most `concurrency` run at a time. Each has its
    /// schedule, a seed for its jitter, and the time of its last sync that was committed, if there
    /// was one, from which follows what was missed.
    pub fn new(
        jobs: impl IntoIterator<Item = (Schedule, u64, Option<Timestamp>)>,
        concurrency: usize,
        now: Timestamp,
    ) -> Self {
        let jobs = jobs
            .into_iter()
            .map(|(schedule, seed, last)| Entry::new(schedule, seed, last, now));
        Self {
            jobs: jobs.collect(),
            waiting: VecDeque::new(),
            running: 0,
            concurrency: concurrency.max(1),
            now,
        }
    }

    /// Adds a job, as to [`new`](Self::new): its place is behind all others.
    pub fn add(&mut self, schedule: Schedule, seed: u64, last: Option<Timestamp>) {
        self.jobs.push(Entry::new(schedule, seed, last, self.now));
    }

    /// Returns what the ticks up to `now` come to, in the order of jobs; a start may also be that
    /// of a job that has waited since an earlier tick.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Tick> {
        self.go_back(now);
        self.now = now;
        let mut ticks = Vec::new();
        for (job, entry) in self.jobs.iter_mut().enumerate() {
            let mut skip = |reason| ticks.push(Tick::Skip { job, reason });
            // Of the tick that was queued, then of those that have passed since.
            let mut becomes_due = false;
            if entry.is_queued && entry.state == State::Idle {
                entry.is_queued = false;
                match entry.judge(now) {
                    Some(reason) => skip(reason),
                    None => becomes_due = true,
                }
            }
            let passed = entry.pass(now);
            let is_missed = entry.schedule.missed == Missed::Skip && since(now, passed.last) > LATE;
            let missed = match is_missed {
                true => passed.ticks,
                false => passed.ticks.saturating_sub(1),
            };
            if missed > 0 {
                skip(Skip::Missed { ticks: missed });
            }
            if passed.ticks > missed {
                match entry.judge(now) {
                    _ if becomes_due => skip(Skip::StillWaiting),
                    Some(Skip::StillRunning) if entry.schedule.overlap == Overlap::Queue => {
                        if entry.is_queued {
                            skip(Skip::StillQueued);
                        }
                        entry.is_queued = true;
                    }
                    Some(reason) => skip(reason),
                    None => becomes_due = true,
                }
            }
            if becomes_due {
                entry.state = State::Waiting;
                self.waiting.push_back(job);
            }
        }
        while self.running < self.concurrency
            && let Some(job) = self.waiting.pop_front()
            && let Some(entry) = self.jobs.get_mut(job)
        {
            entry.state = State::Running;
            self.running += 1;
            ticks.push(Tick::Start { job });
        }
        ticks
    }

    /// Notes that a job's sync has ended, and whether anything of it counted.
    pub fn ended(&mut self, job: usize, now: Timestamp, ok: bool) {
        let Some(entry) = self.jobs.get_mut(job).filter(|e| e.state == State::Running) else {
            return;
        };
        entry.state = State::Idle;
        self.running -= 1;
        if ok {
            entry.failures = 0;
            entry.not_before = Timestamp::MIN;
        } else {
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = later(now, backoff(entry.interval(), entry.failures));
        }
    }

    /// Puts a job among those that are due, whatever its schedule and its failures say. It starts at
    /// a [`tick`](Self::tick) that follows.
    ///
    /// # Errors
    ///
    /// [`Skip::StillRunning`] or [`Skip::StillWaiting`] if it cannot start once more.
    pub fn trigger(&mut self, job: usize) -> Result<(), Skip> {
        let Some(entry) = self.jobs.get_mut(job) else {
            return Ok(());
        };
        match entry.state {
            State::Running => Err(Skip::StillRunning),
            State::Waiting => Err(Skip::StillWaiting),
            State::Idle => {
                entry.state = State::Waiting;
                self.waiting.push_back(job);
                Ok(())
            }
        }
    }

    /// Takes back what was neither success nor failure: a job that waits, or whose sync has been
    /// cancelled, is idle until its next tick. A sync that was to follow is taken back, too.
    pub fn withdrawn(&mut self, job: usize) {
        let Some(entry) = self.jobs.get_mut(job) else {
            return;
        };
        match entry.state {
            State::Running => self.running -= 1,
            State::Waiting => self.waiting.retain(|waiting| *waiting != job),
            State::Idle => {}
        }
        entry.state = State::Idle;
        entry.is_queued = false;
    }

    /// Tells whether a job is due and has not started.
    pub(crate) fn is_waiting(&self, job: usize) -> bool {
        let entry = self.jobs.get(job);
        entry.is_some_and(|entry| entry.state == State::Waiting)
    }

    /// Returns how often a job failed in a row.
    pub(crate) fn failures(&self, job: usize) -> u32 {
        self.jobs.get(job).map_or(0, |entry| entry.failures)
    }

    /// Returns when a job is due next if nothing ends before. What was missed is due now.
    pub fn due(&self, job: usize) -> Option<Timestamp> {
        self.jobs.get(job).map(|entry| entry.due_after(self.now))
    }

    /// Returns when [`tick`](Self::tick) has something to say next, if nothing ends before.
    pub fn next(&self) -> Option<Timestamp> {
        let next = |entry: &Entry| match entry.is_queued && entry.state == State::Idle {
            true => self.now,
            false => entry.due,
        };
        self.jobs.iter().map(next).min()
    }

    /// Sees to a clock that has gone back.
    fn go_back(&mut self, now: Timestamp) {
        let by = since(self.now, now);
        if by.is_zero() {
            return;
        }
        for entry in &mut self.jobs {
            entry.not_before = earlier(entry.not_before, by);
            match &entry.schedule.ticks {
                Ticks::Every(_) => {
                    entry.tick = earlier(entry.tick, by);
                    entry.due = earlier(entry.due, by);
                }
                Ticks::Cron(cron) if by > CORRECTION => {
                    let next = cron.next_after(now);
                    entry.place(next);
                }
                Ticks::Cron(_) => {}
            }
        }
    }
}

impl Entry {
    fn new(schedule: Schedule, seed: u64, last: Option<Timestamp>, now: Timestamp) -> Self {
        // A clock that was wrong once must not hold anything up for long.
        let last = last.map(|last| last.min(now));
        let first = match &schedule.ticks {
            Ticks::Every(interval) => Some(match last {
                Some(last) if schedule.missed == Missed::Skip => later(last, *interval),
                _ => now,
            }),
            Ticks::Cron(cron) => cron.next_after(last.unwrap_or(now)),
        };
        let mut entry = Self {
            schedule,
            seed,
            number: 0,
            tick: now,
            due: now,
            state: State::Idle,
            is_queued: false,
            failures: 0,
            not_before: Timestamp::MIN,
        };
        entry.place(first);
        entry
    }

    /// Returns why it does not become due at a tick, if it does not.
    fn judge(&self, now: Timestamp) -> Option<Skip> {
        match self.state {
            State::Running => Some(Skip::StillRunning),
            State::Waiting => Some(Skip::StillWaiting),
            State::Idle if now < self.not_before => Some(Skip::BackingOff {
                failures: self.failures,
            }),
            State::Idle => None,
        }
    }

    /// Sets the next tick; without one, it never comes.
    fn place(&mut self, tick: Option<Timestamp>) {
        self.tick = tick.unwrap_or(Timestamp::MAX);
        self.due = later(self.tick, self.jitter());
    }

    /// Goes some ticks ahead.
    fn step(&mut self, ticks: u32) {
        let next = match &self.schedule.ticks {
            Ticks::Every(interval) => Some(later(self.tick, interval.saturating_mul(ticks))),
            Ticks::Cron(cron) => cron.next_after(self.tick),
        };
        self.number = self.number.wrapping_add(ticks.into());
        self.place(next);
    }

    /// Moves behind `now`, and returns the ticks up to there.
    fn pass(&mut self, now: Timestamp) -> Passed {
        let mut passed = Passed {
            ticks: 0,
            last: self.due,
        };
        while self.due <= now {
            // Far behind, as after a long sleep: no need to count one by one.
            let ticks = match &self.schedule.ticks {
                Ticks::Every(interval) => {
                    let behind = since(now, self.due).as_nanos() / interval.as_nanos();
                    let behind = u32::try_from(behind).unwrap_or(u32::MAX);
                    behind.saturating_sub(1).max(1)
                }
                Ticks::Cron(cron) => {
                    let near = earlier(now, LONGEST_BACKOFF);
                    if passed.ticks == COUNTED && self.tick < near {
                        let next = cron.next_after(near);
                        self.place(next);
                        continue;
                    }
                    1
                }
            };
            passed.last = self.due;
            passed.ticks = passed.ticks.saturating_add(ticks);
            self.step(ticks);
        }
        passed
    }

    /// Returns the first tick at which the job is not skipped for its failures.
    fn due_after(&self, now: Timestamp) -> Timestamp {
        let mut ahead = self.clone();
        let passed = ahead.pass(now);
        let is_missed = self.schedule.missed == Missed::Skip && since(now, passed.last) > LATE;
        let waits = self.is_queued && self.state == State::Idle;
        if self.not_before <= now && (waits || (passed.ticks > 0 && !is_missed)) {
            return now;
        }
        ahead.pass(earlier(self.not_before, Duration::from_nanos(1)));
        ahead.due
    }

    /// Returns how long it is between two ticks about now.
    fn interval(&self) -> Duration {
        match &self.schedule.ticks {
            Ticks::Every(interval) => *interval,
            Ticks::Cron(cron) => {
                let next = cron.next_after(self.tick);
                since(next.unwrap_or(Timestamp::MAX), self.tick)
            }
        }
    }

    /// How late the next tick is: other for each, the same in each process. The first of an interval
    /// is not late, since a start is when people look.
    fn jitter(&self) -> Duration {
        if self.number == 0 && matches!(self.schedule.ticks, Ticks::Every(_)) {
            return Duration::ZERO;
        }
        let most = self.schedule.jitter_within(Duration::MAX);
        if most.is_zero() {
            return most;
        }
        // Less than an interval, so that ticks keep their order.
        let most = self.schedule.jitter_within(self.interval());
        let tick = match self.schedule.ticks {
            Ticks::Every(_) => self.number,
            Ticks::Cron(_) => self.tick.as_second().cast_unsigned(),
        };
        let mut x = self.seed ^ tick.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The finaliser of SplitMix64: neighbours come out far apart.
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let thousandths = u32::try_from(x % 1_000).unwrap_or_default();
        most / 1_000 * thousandths
    }
}

/// How much longer than its interval a job waits: nothing after one failed sync, then an interval,
/// three, seven, ... up to [`LONGEST_BACKOFF`].
fn backoff(interval: Duration, failures: u32) -> Duration {
    let intervals = 2u32.saturating_pow(failures.saturating_sub(1)) - 1;
    interval.saturating_mul(intervals).min(LONGEST_BACKOFF)
}

/// Returns the time so long after another, or the end of the calendar.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Returns the time so long before another, or the beginning of the calendar.
fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;

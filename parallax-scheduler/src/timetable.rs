use std::collections::VecDeque;
use std::time::Duration;

/// Decides what is due. Pure: it is told the time, and asked.
///
/// Times are durations since some beginning. Each job has a tick once per interval, moved by a
/// jitter of up to a tenth of the interval, so that jobs of one interval do not all start at once.
/// At each tick the job starts, or is skipped for a reason: it never waits for a second tick.
#[derive(Clone, Debug)]
pub struct Timetable {
    jobs: Vec<Entry>,
    /// Jobs that are due, in the order in which they became so.
    waiting: VecDeque<usize>,
    running: usize,
    concurrency: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    every: Duration,
    seed: u64,
    /// Which tick is next.
    tick: u32,
    state: State,
    /// Failed syncs in a row.
    failures: u32,
    not_before: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Running,
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
    /// It waits for one of the syncs that run to end.
    #[error("as many syncs are running as may run at a time")]
    StillWaiting,
    /// Its last syncs failed.
    #[error("the last {failures} syncs failed: waiting longer before the next")]
    BackingOff {
        /// How many in a row.
        failures: u32,
    },
    /// The time of several ticks passed at once, as after a machine was suspended.
    #[error("{ticks} ticks passed while nothing could run")]
    Missed {
        /// How many, besides the one that is judged by itself.
        ticks: u32,
    },
}

/// A source that keeps failing is tried at least this often, or at its interval if that is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60 * 60);

impl Timetable {
    /// Makes a timetable of jobs, each with its interval and a seed for its jitter, of which at
    /// most `concurrency` run at a time.
    pub fn new(jobs: impl IntoIterator<Item = (Duration, u64)>, concurrency: usize) -> Self {
        let jobs = jobs.into_iter().map(|(every, seed)| Entry {
            every: every.max(Duration::from_millis(1)),
            seed,
            tick: 0,
            state: State::Idle,
            failures: 0,
            not_before: Duration::ZERO,
        });
        Self {
            jobs: jobs.collect(),
            waiting: VecDeque::new(),
            running: 0,
            concurrency: concurrency.max(1),
        }
    }

    /// Returns what the ticks up to `now` come to, in the order of jobs; a start may also be that
    /// of a job that has waited since an earlier tick.
    pub fn tick(&mut self, now: Duration) -> Vec<Tick> {
        let mut ticks = Vec::new();
        for (job, entry) in self.jobs.iter_mut().enumerate() {
            let passed = entry.pass_ticks(now);
            if passed > 1 {
                let reason = Skip::Missed { ticks: passed - 1 };
                ticks.push(Tick::Skip { job, reason });
            }
            if passed == 0 {
                continue;
            }
            let reason = match entry.state {
                State::Running => Skip::StillRunning,
                State::Waiting => Skip::StillWaiting,
                State::Idle if now < entry.not_before => Skip::BackingOff {
                    failures: entry.failures,
                },
                State::Idle => {
                    entry.state = State::Waiting;
                    self.waiting.push_back(job);
                    continue;
                }
            };
            ticks.push(Tick::Skip { job, reason });
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
    pub fn ended(&mut self, job: usize, now: Duration, ok: bool) {
        let Some(entry) = self.jobs.get_mut(job).filter(|e| e.state == State::Running) else {
            return;
        };
        entry.state = State::Idle;
        self.running -= 1;
        if ok {
            entry.failures = 0;
            entry.not_before = Duration::ZERO;
        } else {
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = now + backoff(entry.every, entry.failures);
        }
    }

    /// Puts a job among those that are due, whatever its interval and its failures say. It starts at
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
    /// cancelled, is idle until its next tick.
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
    }

    /// Tells whether a job is due and has not started.
    pub(crate) fn is_waiting(&self, job: usize) -> bool {
        let entry = self.jobs.get(job);
        entry.is_some_and(|entry| entry.state == State::Waiting)
    }

    /// Returns when a job is due next if nothing ends before, and how often it failed in a row.
    pub(crate) fn outlook(&self, job: usize) -> (Duration, u32) {
        let outlook = |entry: &Entry| (entry.due(), entry.failures);
        self.jobs.get(job).map(outlook).unwrap_or_default()
    }

    /// Returns when [`tick`](Self::tick) has something to say next, if nothing ends before.
    pub fn next(&self) -> Option<Duration> {
        self.jobs.iter().map(Entry::next).min()
    }
}

impl Entry {
    fn next(&self) -> Duration {
        self.at(self.tick)
    }

    /// Returns when a tick is.
    fn at(&self, tick: u32) -> Duration {
        self.every.saturating_mul(tick) + self.jitter(tick)
    }

    /// Returns the first tick at which the job is not skipped for its failures.
    fn due(&self) -> Duration {
        let whole = self.not_before.as_nanos() / self.every.as_nanos();
        // The jitter is less than an interval.
        let near = u32::try_from(whole).unwrap_or(u32::MAX).saturating_sub(1);
        let mut ticks = (self.tick.max(near)..).map(|tick| self.at(tick));
        let due = ticks.find(|at| *at >= self.not_before);
        due.unwrap_or(self.not_before)
    }

    /// Moves behind `now`, and returns how many ticks that were.
    fn pass_ticks(&mut self, now: Duration) -> u32 {
        let mut passed = 0;
        while self.next() <= now {
            // Far behind, as after a long sleep: no need to count one by one.
            let behind = now.saturating_sub(self.next()).as_nanos() / self.every.as_nanos();
            let jump = u32::try_from(behind)
                .unwrap_or(u32::MAX)
                .saturating_sub(1)
                .max(1);
            self.tick = self.tick.saturating_add(jump);
            passed += jump;
        }
        passed
    }

    /// Up to a tenth of the interval, other for each tick, the same in each process.
    fn jitter(&self, tick: u32) -> Duration {
        let mut x = self.seed ^ u64::from(tick).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The finaliser of SplitMix64: neighbours come out far apart.
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let thousandths = u32::try_from(x % 1_000).unwrap_or_default();
        self.every / 10 * thousandths / 1_000
    }
}

/// How much longer than its interval a job waits: nothing after one failed sync, then an interval,
/// three, seven, ... up to [`LONGEST_BACKOFF`].
fn backoff(every: Duration, failures: u32) -> Duration {
    let intervals = 2u32.saturating_pow(failures.saturating_sub(1)) - 1;
    every
        .saturating_mul(intervals)
        .min(LONGEST_BACKOFF.max(every))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Runs a timetable for `minutes`, each sync taking `takes` and failing as told, and tells what
    /// happened: `3 +0` is job 0 starting in minute 3.
    fn story(
        mut timetable: Timetable,
        minutes: u32,
        takes: Duration,
        fails: impl Fn(u32) -> bool,
    ) -> String {
        let mut story = Vec::new();
        let mut ends: Vec<(Duration, usize)> = Vec::new();
        let mut now = Duration::ZERO;
        while now < MINUTE * minutes {
            let minute = u32::try_from(now.as_secs() / 60).unwrap();
            for tick in timetable.tick(now) {
                match tick {
                    Tick::Start { job } => {
                        story.push(format!("{minute} +{job}"));
                        ends.push((now + takes, job));
                    }
                    Tick::Skip { job, reason } => story.push(format!("{minute} -{job} {reason}")),
                }
            }
            let wake = timetable
                .next()
                .unwrap()
                .max(now + Duration::from_millis(1));
            now = ends.iter().map(|(at, _)| *at).chain([wake]).min().unwrap();
            if let Some(place) = ends.iter().position(|(at, _)| *at <= now) {
                let (_, job) = ends.remove(place);
                timetable.ended(job, now, !fails(u32::try_from(now.as_secs() / 60).unwrap()));
            }
        }
        story.join("\n")
    }

    #[test]
    fn job_runs_once_per_interval() {
        let timetable = Timetable::new([(MINUTE, 1)], 4);
        let story = story(timetable, 4, Duration::from_secs(1), |_| false);
        assert_eq!(story, "0 +0\n1 +0\n2 +0\n3 +0");
    }

    #[test]
    fn job_never_overlaps_itself() {
        let timetable = Timetable::new([(MINUTE, 1)], 4);
        insta::assert_snapshot!(story(timetable, 5, MINUTE * 2 + MINUTE / 2, |_| false), @r"
        0 +0
        1 -0 the last sync is still running
        2 -0 the last sync is still running
        3 +0
        4 -0 the last sync is still running
        ");
    }

    #[test]
    fn job_waits_for_a_free_slot_and_not_twice() {
        let timetable = Timetable::new([(MINUTE, 1), (MINUTE, 2)], 1);
        let takes = MINUTE + MINUTE / 2;
        insta::assert_snapshot!(story(timetable, 4, takes, |_| false), @r"
        0 +1
        1 -1 the last sync is still running
        1 -0 as many syncs are running as may run at a time
        1 +0
        2 -0 the last sync is still running
        3 -0 the last sync is still running
        3 +1
        3 -1 the last sync is still running
        ");
    }

    #[test]
    fn failing_job_is_tried_less_and_less_often() {
        let timetable = Timetable::new([(MINUTE, 1)], 4);
        let story = story(timetable, 14, Duration::from_secs(1), |minute| minute < 8);
        let starts: Vec<_> = story.lines().filter(|line| line.contains('+')).collect();
        assert_eq!(
            starts,
            ["0 +0", "1 +0", "3 +0", "7 +0", "15 +0"][..4].to_vec()
        );
        assert!(story.contains("2 -0 the last 2 syncs failed: waiting longer before the next"));
    }

    #[test]
    fn long_sleep_is_one_start_and_one_reason() {
        let mut timetable = Timetable::new([(MINUTE, 1)], 4);
        timetable.tick(MINUTE / 5);
        timetable.ended(0, MINUTE / 5, true);
        let ticks = timetable.tick(MINUTE * 600 + MINUTE / 5);
        assert_eq!(
            ticks,
            [
                Tick::Skip {
                    job: 0,
                    reason: Skip::Missed { ticks: 599 }
                },
                Tick::Start { job: 0 }
            ]
        );
    }

    proptest! {
        /// Each tick of each job is a start or a reason; no job runs twice at a time, and never
        /// more jobs than allowed.
        #[test]
        fn no_tick_is_lost(
            intervals in prop::collection::vec((1u64..50, any::<u64>()), 1..6),
            concurrency in 1usize..4,
            steps in prop::collection::vec((0u64..30, 0u8..4, any::<bool>(), 0usize..6), 1..200),
        ) {
            let jobs: Vec<_> =
                intervals.iter().map(|(s, seed)| (Duration::from_secs(*s), *seed)).collect();
            let mut timetable = Timetable::new(jobs.clone(), concurrency);
            let mut now = Duration::ZERO;
            let mut running: Vec<usize> = Vec::new();
            let mut told = vec![0u64; jobs.len()];
            let mut waiting = vec![0u64; jobs.len()];
            // Somebody asks for a job, or takes it back.
            let mut asked = vec![0u64; jobs.len()];
            for (pause, action, ok, job) in steps {
                now += Duration::from_secs(pause);
                if action == 1 && job < jobs.len() {
                    let was = timetable.jobs[job].state;
                    let triggered = timetable.trigger(job);
                    prop_assert_eq!(triggered.is_ok(), was == State::Idle);
                    asked[job] += u64::from(triggered.is_ok());
                }
                if action == 2 && job < jobs.len() {
                    // A job that waited has its word in that it was taken back.
                    told[job] += u64::from(timetable.is_waiting(job));
                    timetable.withdrawn(job);
                    running.retain(|running| *running != job);
                }
                for tick in timetable.tick(now) {
                    match tick {
                        Tick::Start { job } => {
                            prop_assert!(!running.contains(&job));
                            running.push(job);
                            told[job] += 1;
                        }
                        Tick::Skip { job, reason: Skip::Missed { ticks } } => {
                            told[job] += u64::from(ticks);
                        }
                        Tick::Skip { job, .. } => told[job] += 1,
                    }
                }
                prop_assert!(running.len() <= concurrency);
                for (job, entry) in timetable.jobs.iter().enumerate() {
                    waiting[job] = u64::from(entry.state == State::Waiting);
                    prop_assert_eq!(told[job] + waiting[job], u64::from(entry.tick) + asked[job]);
                    prop_assert!(entry.next() > now);
                    prop_assert!(entry.due() >= entry.next().max(entry.not_before));
                    let late = now.as_secs_f64() / jobs[job].0.as_secs_f64();
                    prop_assert!((f64::from(entry.tick) - late).abs() <= 1.2);
                }
                if action == 3 && !running.is_empty() {
                    let job = running.remove(0);
                    timetable.ended(job, now, ok);
                }
            }
        }
    }
}

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::cron::Cron;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A Monday.
fn start() -> Timestamp {
    "2026-03-02T00:00:00Z".parse().unwrap()
}

fn cron(pattern: &str) -> Schedule {
    Schedule::cron(Cron::try_new(pattern, "UTC").unwrap())
}

fn timetable<const N: usize>(schedules: [Schedule; N], concurrency: usize) -> Timetable {
    let jobs = schedules.into_iter().zip(1..);
    let jobs = jobs.map(|(schedule, seed)| (schedule, seed, None));
    Timetable::new(jobs, concurrency, start())
}

fn every(interval: Duration) -> Schedule {
    Schedule::every(interval)
}

/// Runs a timetable for `minutes`, each sync taking `takes` and failing as told, and tells what
/// happened: `3 +0` is job 0 starting in minute 3.
fn story(
    mut timetable: Timetable,
    minutes: u32,
    takes: Duration,
    fails: impl Fn(u32) -> bool,
) -> String {
    let mut story = Vec::new();
    let mut ends: Vec<(Timestamp, usize)> = Vec::new();
    let mut now = start();
    let minute = |now| u32::try_from(since(now, start()).as_secs() / 60).unwrap();
    while now < later(start(), MINUTE * minutes) {
        for tick in timetable.tick(now) {
            let minute = minute(now);
            match tick {
                Tick::Start { job } => {
                    story.push(format!("{minute} +{job}"));
                    ends.push((later(now, takes), job));
                }
                Tick::Skip { job, reason } => story.push(format!("{minute} -{job} {reason}")),
            }
        }
        let wake = timetable
            .next()
            .unwrap()
            .max(later(now, Duration::from_millis(1)));
        now = ends.iter().map(|(at, _)| *at).chain([wake]).min().unwrap();
        if let Some(place) = ends.iter().position(|(at, _)| *at <= now) {
            let (_, job) = ends.remove(place);
            timetable.ended(job, now, !fails(minute(now)));
        }
    }
    story.join("\n")
}

#[test]
fn job_runs_once_per_interval() {
    let timetable = timetable([every(MINUTE)], 4);
    let story = story(timetable, 4, Duration::from_secs(1), |_| false);
    assert_eq!(story, "0 +0\n1 +0\n2 +0\n3 +0");
}

#[test]
fn job_runs_at_the_times_of_its_pattern() {
    let timetable = timetable([cron("*/20 1 * * *"), cron("40 * * * *")], 4);
    insta::assert_snapshot!(story(timetable, 120, MINUTE, |_| false), @r"
    40 +1
    60 +0
    80 +0
    100 +0
    100 +1
    ");
}

#[test]
fn job_never_overlaps_itself() {
    let timetable = timetable([every(MINUTE)], 4);
    insta::assert_snapshot!(story(timetable, 5, MINUTE * 2 + MINUTE / 2, |_| false), @r"
    0 +0
    1 -0 the last sync is still running
    2 -0 the last sync is still running
    3 +0
    4 -0 the last sync is still running
    ");
}

#[test]
fn job_that_queues_follows_itself_at_once() {
    let timetable = timetable([every(MINUTE).overlap(Overlap::Queue)], 4);
    insta::assert_snapshot!(story(timetable, 6, MINUTE * 2 + MINUTE / 2, |_| false), @r"
    0 +0
    2 -0 a sync waits already for the last one to end
    2 +0
    4 -0 a sync waits already for the last one to end
    5 +0
    ");
}

#[test]
fn job_that_queues_does_not_hammer_what_fails() {
    let timetable = timetable([every(MINUTE * 10).overlap(Overlap::Queue)], 4);
    insta::assert_snapshot!(story(timetable, 70, MINUTE * 12, |_| true), @r"
    0 +0
    12 +0
    24 -0 the last 2 syncs failed: waiting longer before the next
    30 -0 the last 2 syncs failed: waiting longer before the next
    40 +0
    52 -0 the last 3 syncs failed: waiting longer before the next
    60 -0 the last 3 syncs failed: waiting longer before the next
    ");
}

#[test]
fn job_waits_for_a_free_slot_and_not_twice() {
    let timetable = timetable([every(MINUTE), every(MINUTE)], 1);
    let takes = MINUTE + MINUTE / 2;
    insta::assert_snapshot!(story(timetable, 4, takes, |_| false), @r"
    0 +0
    1 -1 as many syncs are running as may run at a time
    1 -0 the last sync is still running
    1 +1
    2 -1 the last sync is still running
    3 +0
    3 -0 the last sync is still running
    ");
}

#[test]
fn failing_job_is_tried_less_and_less_often() {
    let timetable = timetable([every(MINUTE)], 4);
    let story = story(timetable, 14, Duration::from_secs(1), |minute| minute < 8);
    let starts: Vec<_> = story.lines().filter(|line| line.contains('+')).collect();
    assert_eq!(starts, ["0 +0", "1 +0", "3 +0", "7 +0"]);
    assert!(story.contains("2 -0 the last 2 syncs failed: waiting longer before the next"));
}

#[test]
fn failing_job_is_tried_at_each_tick_if_these_are_rare() {
    // It was a day later that one of each day was tried again.
    for schedule in [every(HOUR * 24).jitter(Duration::ZERO), cron("@daily")] {
        let timetable = timetable([schedule], 4);
        let story = story(timetable, 24 * 60 * 5 + 1, MINUTE, |_| true);
        let starts = story.lines().filter(|line| line.contains('+')).count();
        assert!(starts >= 5, "{story}");
        assert!(!story.contains('-'), "{story}");
    }
}

#[test]
fn long_sleep_is_one_start_and_one_reason() {
    let mut timetable = timetable([every(MINUTE), cron("* * * * *")], 4);
    let begin = later(start(), MINUTE + MINUTE / 5);
    timetable.tick(begin);
    timetable.ended(0, begin, true);
    timetable.ended(1, begin, true);
    let reason = Skip::Missed { ticks: 599 };
    assert_eq!(
        timetable.tick(later(begin, MINUTE * 600)),
        [
            Tick::Skip { job: 0, reason },
            Tick::Skip { job: 1, reason },
            Tick::Start { job: 0 },
            Tick::Start { job: 1 },
        ]
    );
}

#[test]
fn ticks_of_years_are_passed_at_once() {
    let mut timetable = timetable([every(Duration::ZERO), cron("* * * * *")], 4);
    let ticks = timetable.tick(later(start(), HOUR * 24 * 366 * 50));
    let missed: Vec<_> = ticks
        .iter()
        .filter_map(|tick| match tick {
            Tick::Skip {
                reason: Skip::Missed { ticks },
                ..
            } => Some(*ticks),
            _ => None,
        })
        .collect();
    assert_eq!(missed, [u32::MAX - 1, COUNTED + 59]);
}

/// Returns what happens at the start of a job whose last sync was so long ago.
fn resumed(schedule: Schedule, ago: Option<Duration>) -> String {
    let last = ago.map(|ago| earlier(start(), ago));
    let mut timetable = Timetable::new([(schedule.jitter(Duration::ZERO), 1, last)], 4, start());
    let due = since(timetable.due(0).unwrap(), start()).as_secs() / 60;
    let ticks: Vec<_> = timetable
        .tick(start())
        .iter()
        .map(|tick| match tick {
            Tick::Start { .. } => "starts".to_owned(),
            Tick::Skip { reason, .. } => reason.to_string(),
        })
        .collect();
    let next = since(timetable.next().unwrap(), start()).as_secs() / 60;
    format!("due in {due}: {ticks:?}, next in {next}")
}

#[test]
fn what_was_missed_is_made_up_for_unless_told_otherwise() {
    let mut lines = Vec::new();
    for missed in [Missed::RunOnce, Missed::Skip] {
        for (name, schedule) in [("hourly", every(HOUR)), ("cron", cron("30 * * * *"))] {
            let schedule = schedule.missed(missed);
            for ago in [None, Some(MINUTE * 20), Some(MINUTE * 200)] {
                let told = resumed(schedule.clone(), ago);
                let ago = ago.map(|ago| ago.as_secs() / 60);
                lines.push(format!("{missed:?} {name} {ago:?}: {told}"));
            }
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    RunOnce hourly None: due in 0: ["starts"], next in 60
    RunOnce hourly Some(20): due in 0: ["starts"], next in 60
    RunOnce hourly Some(200): due in 0: ["starts"], next in 60
    RunOnce cron None: due in 30: [], next in 30
    RunOnce cron Some(20): due in 30: [], next in 30
    RunOnce cron Some(200): due in 0: ["2 ticks passed while nothing could run", "starts"], next in 30
    Skip hourly None: due in 0: ["starts"], next in 60
    Skip hourly Some(20): due in 40: [], next in 40
    Skip hourly Some(200): due in 40: ["3 ticks passed while nothing could run"], next in 40
    Skip cron None: due in 30: [], next in 30
    Skip cron Some(20): due in 30: [], next in 30
    Skip cron Some(200): due in 30: ["3 ticks passed while nothing could run"], next in 30
    "#);
}

#[test]
fn last_sync_of_the_future_holds_nothing_up() {
    let last = later(start(), HOUR * 24 * 365);
    let jobs = [every(HOUR), cron("30 * * * *")].map(|schedule| (schedule, 1, Some(last)));
    let timetable = Timetable::new(jobs, 4, start());
    for job in [0, 1] {
        assert!(timetable.due(job).unwrap() < later(start(), HOUR * 2));
    }
}

#[test]
fn clock_that_goes_back_repeats_nothing() {
    let mut timetable = timetable([every(HOUR).jitter(Duration::ZERO), cron("0 * * * *")], 4);
    let at = |minutes: u32| later(start(), MINUTE * minutes);
    assert_eq!(timetable.tick(at(60)).len(), 3);
    for job in [0, 1] {
        timetable.ended(job, at(60), true);
    }
    // By an hour, half an hour after its tick.
    assert_eq!(timetable.tick(at(90)), []);
    assert_eq!(timetable.tick(at(30)), []);
    assert_eq!(timetable.due(0), Some(at(60)));
    assert_eq!(timetable.due(1), Some(at(120)));
    assert_eq!(timetable.tick(at(60)), [Tick::Start { job: 0 }]);
    timetable.ended(0, at(60), true);
    assert_eq!(timetable.tick(at(119)), []);
    assert_eq!(timetable.tick(at(120)).len(), 2);
    // By so much that it was wrong before.
    for job in [0, 1] {
        timetable.ended(job, at(120), true);
    }
    timetable.tick(at(60 * 24 * 365));
    timetable.tick(at(90));
    assert_eq!(timetable.due(1), Some(at(120)));
}

#[test]
fn jobs_of_one_schedule_are_spread_by_their_jitter() {
    let of = |schedule: Schedule| {
        let jobs = (0..100).map(|seed| (schedule.clone(), seed, None));
        let mut timetable = Timetable::new(jobs, 4, start());
        let at_start = |job: &Entry| job.due == start();
        // The first of an interval is at the start, and not a moment later.
        let is_interval = matches!(schedule.ticks, Ticks::Every(_));
        assert!(
            timetable
                .jobs
                .iter()
                .all(|job| at_start(job) == is_interval)
        );
        let mut due: Vec<_> = timetable
            .jobs
            .iter_mut()
            .map(|job| {
                job.pass(start());
                since(job.due, start())
            })
            .collect();
        due.sort();
        due.dedup();
        (due.len(), due[0], due[due.len() - 1])
    };
    let (different, first, last) = of(every(HOUR));
    assert!(different > 80 && first >= HOUR && first < HOUR + MINUTE);
    assert!(last > HOUR + MINUTE * 5 && last < HOUR + MINUTE * 6);
    assert_eq!(of(every(HOUR).jitter(Duration::ZERO)), (1, HOUR, HOUR));
    assert_eq!(of(cron("0 * * * *")), (1, HOUR, HOUR));
    let (different, first, last) = of(cron("0 * * * *").jitter(MINUTE));
    assert!(different > 80 && first >= HOUR && last < HOUR + MINUTE);
}

/// What a job should be at, by the rules and one tick at a time.
struct Model {
    schedule: Schedule,
    state: State,
    queued: bool,
    failures: u32,
    not_before: Timestamp,
    /// When the next tick is.
    next: Timestamp,
}

impl Model {
    /// Returns the ticks up to `now`, one by one.
    fn passed(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let mut passed = Vec::new();
        while self.next <= now {
            passed.push(self.next);
            self.next = match &self.schedule.ticks {
                Ticks::Every(interval) => later(self.next, *interval),
                Ticks::Cron(cron) => cron.next_after(self.next).unwrap(),
            };
        }
        passed
    }

    /// Tells what a tick comes to; nothing if it waits.
    fn tick(&mut self, now: Timestamp, job: usize, waiting: &mut VecDeque<usize>) -> Option<Skip> {
        match self.state {
            State::Running if self.schedule.overlap == Overlap::Queue && self.queued => {
                Some(Skip::StillQueued)
            }
            State::Running if self.schedule.overlap == Overlap::Queue => {
                self.queued = true;
                None
            }
            State::Running => Some(Skip::StillRunning),
            State::Waiting => Some(Skip::StillWaiting),
            State::Idle if now < self.not_before => Some(Skip::BackingOff {
                failures: self.failures,
            }),
            State::Idle => {
                self.state = State::Waiting;
                waiting.push_back(job);
                None
            }
        }
    }
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let ticks = prop_oneof![
        (1u64..4000).prop_map(|seconds| every(Duration::from_secs(seconds))),
        prop::sample::select(vec!["* * * * *", "*/7 * * * *", "5 * * * *", "30 2 * * *"])
            .prop_map(cron),
    ];
    let overlap = prop::sample::select(vec![Overlap::Skip, Overlap::Queue]);
    let missed = prop::sample::select(vec![Missed::Skip, Missed::RunOnce]);
    (ticks, overlap, missed)
        .prop_map(|(schedule, overlap, missed)| schedule.overlap(overlap).missed(missed))
}

/// How the clock goes on: mostly a little, sometimes far, sometimes back.
fn moves() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0i64..300, 2 => 0i64..20_000, 1 => -4_000i64..0, 1 => -40_000i64..0]
}

proptest! {
    /// Whatever the clock, the syncs and people do, each tick comes to what the rules say, and to
    /// nothing else; no job runs twice at a time, and never more jobs than allowed.
    #[test]
    fn each_tick_comes_to_what_the_rules_say(
        schedules in prop::collection::vec((schedules(), prop::option::of(0u64..100_000)), 1..5),
        concurrency in 1usize..4,
        steps in prop::collection::vec((moves(), 0u8..5, any::<bool>(), 0usize..5), 1..150),
    ) {
        let jobs = schedules.into_iter().map(|(schedule, ago)| {
            let last = ago.map(|ago| earlier(start(), Duration::from_secs(ago)));
            (schedule.jitter(Duration::ZERO), 7, last)
        });
        let jobs: Vec<_> = jobs.collect();
        let mut models: Vec<_> = jobs.iter().map(|(schedule, _, last)| Model {
            schedule: schedule.clone(),
            state: State::Idle,
            queued: false,
            failures: 0,
            not_before: Timestamp::MIN,
            next: match (&schedule.ticks, last) {
                (Ticks::Every(interval), Some(last)) if schedule.missed == Missed::Skip => {
                    later(*last, *interval)
                }
                (Ticks::Every(_), _) => start(),
                (Ticks::Cron(cron), last) => cron.next_after(last.unwrap_or(start())).unwrap(),
            },
        }).collect();
        let mut waiting = VecDeque::new();
        let mut timetable = Timetable::new(jobs, concurrency, start());
        let mut now = start();
        for (seconds, action, ok, job) in steps {
            let moved = SignedDuration::from_secs(seconds);
            let before = now;
            now += moved;
            for model in models.iter_mut().filter(|_| now < before) {
                match &model.schedule.ticks {
                    Ticks::Every(_) => model.next += moved,
                    Ticks::Cron(cron) if since(before, now) > HOUR * 3 => {
                        model.next = cron.next_after(now).unwrap();
                    }
                    Ticks::Cron(_) => {}
                }
                if model.not_before > Timestamp::MIN {
                    model.not_before += moved;
                }
            }

            let mut expected = Vec::new();
            for (job, model) in models.iter_mut().enumerate() {
                let mut skips = Vec::new();
                if model.state == State::Idle && std::mem::take(&mut model.queued) {
                    skips.extend(model.tick(now, job, &mut waiting));
                }
                let mut passed = model.passed(now);
                let late = passed.last().is_some_and(|last| since(now, *last) > MINUTE);
                let last = passed.pop_if(|_| !(late && model.schedule.missed == Missed::Skip));
                if !passed.is_empty() {
                    let ticks = u32::try_from(passed.len()).unwrap();
                    skips.push(Skip::Missed { ticks });
                }
                if last.is_some() {
                    skips.extend(model.tick(now, job, &mut waiting));
                }
                expected.extend(skips.into_iter().map(|reason| Tick::Skip { job, reason }));
            }
            while models.iter().filter(|model| model.state == State::Running).count() < concurrency
                && let Some(job) = waiting.pop_front()
            {
                models[job].state = State::Running;
                expected.push(Tick::Start { job });
            }
            prop_assert_eq!(timetable.tick(now), expected);
            for (job, model) in models.iter().enumerate() {
                let due = timetable.due(job).unwrap();
                prop_assert!(due > now && due >= model.next && due >= model.not_before);
                let exact = model.not_before <= model.next;
                prop_assert!(!exact || due == model.next);
            }
            let next = models.iter().map(|model| model.next).min();
            prop_assert_eq!(timetable.next(), next);

            let Some(model) = models.get_mut(job) else { continue };
            match action {
                1 => {
                    let triggered = timetable.trigger(job);
                    prop_assert_eq!(triggered.is_ok(), model.state == State::Idle);
                    if triggered.is_ok() {
                        model.state = State::Waiting;
                        waiting.push_back(job);
                    }
                }
                2 => {
                    timetable.withdrawn(job);
                    waiting.retain(|waiting| *waiting != job);
                    (model.state, model.queued) = (State::Idle, false);
                }
                3 if model.state == State::Running => {
                    timetable.ended(job, now, ok);
                    model.state = State::Idle;
                    model.failures = if ok { 0 } else { model.failures + 1 };
                    let interval = match &model.schedule.ticks {
                        Ticks::Every(interval) => *interval,
                        Ticks::Cron(cron) => since(cron.next_after(model.next).unwrap(), model.next),
                    };
                    model.not_before = match model.failures {
                        0 => Timestamp::MIN,
                        n => later(now, (interval * (2u32.pow(n.min(20) - 1) - 1)).min(HOUR)),
                    };
                }
                _ => {}
            }
        }
    }

    /// With a jitter each tick is there once, too, and not before its time.
    #[test]
    fn jitter_moves_ticks_and_loses_none(
        schedule in schedules(),
        jitter in 0u64..8000,
        seed: u64,
        steps in prop::collection::vec(1u64..2000, 1..60),
    ) {
        let jitter = Duration::from_secs(jitter);
        let mut entry = Entry::new(schedule.jitter(jitter), seed, None, start());
        let mut plain = Entry::new(entry.schedule.clone().jitter(Duration::ZERO), seed, None, start());
        let (mut now, mut ticks) = (start(), 0);
        for seconds in steps {
            now = later(now, Duration::from_secs(seconds));
            ticks += entry.pass(now).ticks;
            let late = since(entry.due, entry.tick);
            prop_assert!(late <= jitter && late <= entry.interval());
            prop_assert!(entry.due > now);
        }
        let due = plain.pass(now).ticks;
        prop_assert!(ticks <= due);
        // Those whose time has come, and not their jitter.
        let pending = plain.tick > entry.tick;
        prop_assert!(due - ticks <= 1 && pending == (due > ticks));
    }
}

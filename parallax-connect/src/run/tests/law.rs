//! Random runs against a model of what must come of them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::atomic::AtomicUsize;

use parallax_core::{Attempt, Batch, StepReport, StepRetries};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::runtime::{self, Runtime};

use super::*;
use crate::retries::jitter;

/// A run: its steps in an order in which they can run, the order in which they are declared, and
/// what is asked of it. Times are milliseconds since the start.
#[derive(Clone, Debug)]
struct Plan {
    scripts: Vec<Script>,
    declared: Vec<usize>,
    /// The ids that are selected, each with or without what depends on it; all if there is none.
    selected: Vec<(String, bool)>,
    cancel: Option<Cancel>,
    watch: Watch,
}

#[derive(Clone, Copy, Debug)]
struct Cancel {
    at: u64,
    grace: u64,
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Watch {
    Nobody,
    Reads(usize),
    /// Takes one event after each pause.
    Slow(usize, u64),
    Never(usize),
    /// Takes some events and goes.
    Leaves(usize, usize),
}

/// What must become of a step, by the model.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    NotSelected,
    Ends(Life),
    /// By the first dependency to fail or be skipped; of several at once, by any.
    Skipped {
        at: u64,
        because: BTreeSet<String>,
    },
    /// The last attempt was running, if there is one that ends just then.
    Cancelled {
        tries: Vec<Try>,
        at: u64,
    },
}

/// What an attempt of a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Completed,
    Incomplete,
    OutOfLuck,
    OutOfMind,
    Reset,
    Limited(Duration),
    TimedOut(Duration),
    Cancelled,
}

/// The attempts of a step that ended by itself; there is at least one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Life {
    tries: Vec<Try>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Try {
    begun: u64,
    end: u64,
    how: How,
    /// The pause after it.
    pause: Option<Duration>,
}

type Fates<'a> = BTreeMap<&'a str, Fate>;

impl How {
    fn error(self) -> Option<ConnectorError> {
        Some(match self {
            Self::Completed | Self::Incomplete => return None,
            Self::OutOfLuck => ConnectorError::fatal("out of luck"),
            Self::OutOfMind => ConnectorError::Panicked {
                message: "out of mind".to_owned(),
            },
            Self::Reset => ConnectorError::retryable("connection reset"),
            Self::Limited(retry_after) => ConnectorError::RateLimited {
                service: "it".to_owned(),
                retry_after,
            },
            Self::TimedOut(after) => ConnectorError::TimedOut { after },
            Self::Cancelled => ConnectorError::Cancelled,
        })
    }

    fn status(self) -> StepStatus {
        match self {
            Self::Completed => StepStatus::Completed,
            Self::Incomplete => StepStatus::Incomplete,
            Self::Cancelled => StepStatus::Cancelled,
            _ => StepStatus::Failed,
        }
    }
}

impl Life {
    /// A step that begins then, and that nobody cancels.
    fn of(script: &Script, begun: u64) -> Self {
        let timeout = script.timeout.unwrap_or(Duration::from_secs(3_600));
        let retries = script.retries.unwrap_or_default();
        let names = RunNames {
            connector_id: "scripted".into(),
            account_id: "acme".into(),
            sync_id: "sync-001".into(),
        };
        let mut begun = begun;
        let mut tries = Vec::new();
        for attempt in 1.. {
            let lasts = millis_of(script.lasts);
            let (lasts, how) = match script.end {
                _ if attempt <= script.flaky => {
                    (lasts, script.asks.map_or(How::Reset, How::Limited))
                }
                End::Ok => (lasts, How::Completed),
                End::Incomplete => (lasts, How::Incomplete),
                End::Error => (lasts, How::OutOfLuck),
                End::PanicAtOnce => (0, How::OutOfMind),
                End::PanicLater => (lasts, How::OutOfMind),
                End::Hang => (u64::MAX, How::Completed),
            };
            let (lasts, how) = match millis_of(timeout) {
                timeout_ms if timeout_ms < lasts => (timeout_ms, How::TimedOut(timeout)),
                _ => (lasts, how),
            };
            let end = begun + lasts;
            let pause = how.error().and_then(|error| {
                retries.pause(attempt, &error, jitter(&names, &script.id, attempt))
            });
            tries.push(Try {
                begun,
                end,
                how,
                pause,
            });
            match pause {
                // To the timer's next tick.
                Some(pause) => {
                    begun = end + u64::try_from(pause.as_nanos().div_ceil(1_000_000)).unwrap();
                }
                None => break,
            }
        }
        Self { tries }
    }

    fn last(&self) -> Try {
        *self.tries.last().unwrap()
    }

    /// What becomes of it if the run is cancelled.
    fn cancelled(self, script: &Script, cancel: Option<Cancel>) -> Fate {
        let Some(Cancel { at, grace }) = cancel else {
            return Fate::Ends(self);
        };
        let done = self.tries.iter().take_while(|attempt| attempt.end < at);
        let mut tries: Vec<_> = done.copied().collect();
        let Some(now) = self.tries.get(tries.len()) else {
            return Fate::Ends(self);
        };
        if now.begun >= at {
            return Fate::Cancelled { tries, at };
        }
        let mut now = Try {
            pause: None,
            ..*now
        };
        if let Some(polite) = script.polite {
            let end = at + millis_of(polite);
            // What ends just when its time is over has ended.
            let is_timeout = matches!(now.how, How::TimedOut(_));
            if end < now.end || (end == now.end && is_timeout) {
                now.end = end;
                now.how = How::Cancelled;
            }
        }
        if now.end < at + grace {
            tries.push(now);
            return Fate::Ends(Self { tries });
        }
        let at = at + grace;
        tries.push(Try { end: at, ..now });
        Fate::Cancelled { tries, at }
    }
}

impl Fate {
    fn tries(&self) -> &[Try] {
        match self {
            Self::Ends(Life { tries }) | Self::Cancelled { tries, .. } => tries,
            Self::NotSelected | Self::Skipped { .. } => &[],
        }
    }

    /// When the step's last event comes.
    fn at(&self) -> Option<u64> {
        match self {
            Self::NotSelected => None,
            Self::Ends(life) => Some(life.last().end),
            Self::Skipped { at, .. } | Self::Cancelled { at, .. } => Some(*at),
        }
    }

    fn status(&self) -> StepStatus {
        match self {
            Self::NotSelected => StepStatus::NotSelected,
            Self::Ends(life) => life.last().how.status(),
            Self::Skipped { .. } => StepStatus::Skipped,
            Self::Cancelled { .. } => StepStatus::Cancelled,
        }
    }

    fn waited(&self) -> Duration {
        self.tries()
            .iter()
            .filter_map(|attempt| attempt.pause)
            .sum()
    }

    /// What it was tried again after, each kind of error once.
    fn retries(&self) -> Vec<StepRetries> {
        let mut retries: Vec<StepRetries> = Vec::new();
        for attempt in self.tries() {
            let (Some(pause), Some(error)) = (attempt.pause, attempt.how.error()) else {
                continue;
            };
            let kind = error.kind();
            if !retries.iter().any(|of| of.kind == kind) {
                let (count, waited) = (0, Duration::ZERO);
                retries.push(StepRetries {
                    kind,
                    count,
                    waited,
                });
            }
            let of = retries.iter_mut().find(|of| of.kind == kind).unwrap();
            of.count += 1;
            of.waited += pause;
        }
        retries
    }

    fn duration(&self) -> Duration {
        match self {
            Self::Ends(life) => Duration::from_millis(life.last().end - life.tries[0].begun),
            _ => Duration::ZERO,
        }
    }
}

impl Plan {
    fn script(&self, id: &str) -> &Script {
        self.scripts.iter().find(|script| script.id == id).unwrap()
    }

    /// The steps upstream of one, itself included.
    fn upstream(&self, id: &str) -> BTreeSet<&str> {
        let script = self.script(id);
        let after = script.after.iter().flat_map(|on| self.upstream(on));
        after.chain(iter::once(script.id.as_str())).collect()
    }

    fn is_selected(&self, id: &str) -> bool {
        // It is needed by one that was selected, or by one downstream of one.
        self.selected.is_empty()
            || self.scripts.iter().any(|needs| {
                let upstream = self.upstream(&needs.id);
                let named = |(named, with_dependents): &(String, bool)| match with_dependents {
                    true => upstream.contains(named.as_str()),
                    false => *named == needs.id,
                };
                upstream.contains(id) && self.selected.iter().any(named)
            })
    }

    fn fates(&self) -> Fates<'_> {
        let over = self.cancel.map_or(u64::MAX, |cancel| cancel.at);
        let mut fates = Fates::new();
        for script in &self.scripts {
            let upstream = || script.after.iter().map(|id| (id, &fates[id.as_str()]));
            let breaks = upstream().filter(|(_, fate)| !fate.status().is_ok());
            let breaks: Vec<_> = breaks.map(|(id, fate)| (fate.at(), id)).collect();
            let ready = upstream().map(|(_, fate)| fate.at()).max().flatten();
            let fate = match breaks.iter().min() {
                _ if !self.is_selected(&script.id) => Fate::NotSelected,
                None => match ready.unwrap_or(0) {
                    begun if begun < over => Life::of(script, begun).cancelled(script, self.cancel),
                    _ => Fate::Cancelled {
                        tries: Vec::new(),
                        at: over,
                    },
                },
                Some((at, _)) => match at.unwrap() {
                    first if first < over => {
                        let first_of = breaks.iter().filter(|(when, _)| when == at);
                        Fate::Skipped {
                            at: first,
                            because: first_of.map(|(_, id)| id.to_string()).collect(),
                        }
                    }
                    _ => Fate::Cancelled {
                        tries: Vec::new(),
                        at: over,
                    },
                },
            };
            fates.insert(&script.id, fate);
        }
        fates
    }

    /// Whether a step has not ended when the run is cancelled.
    fn is_cancelled(&self, fates: &Fates<'_>) -> bool {
        let over = self.cancel.map_or(u64::MAX, |cancel| cancel.at);
        fates.values().any(|fate| fate.at() >= Some(over))
    }

    /// What a receiver that misses nothing hears, and when.
    fn expected(&self, fates: &Fates<'_>) -> Vec<(u64, String)> {
        let mut expected = vec![(0, "started".to_owned())];
        for (id, fate) in fates {
            let begun = fate.tries().first().map(|first| first.begun);
            expected.extend(begun.map(|begun| (begun, format!("{id}: started"))));
            expected.extend(fate.at().map(|at| (at, self.told_end(id, fate))));
        }
        if !self.is_cancelled(fates) {
            expected.push((last(&expected), "completed".to_owned()));
        }
        expected
    }

    fn told_end(&self, id: &str, fate: &Fate) -> String {
        let script = self.script(id);
        let error = match fate {
            Fate::NotSelected => return String::new(),
            Fate::Skipped { .. } => return format!("{id}: skipped"),
            Fate::Ends(life) => life.last().how.error(),
            Fate::Cancelled { .. } => Some(ConnectorError::Cancelled),
        };
        match error {
            Some(error) => format!("{id}: failed, {error}"),
            None => format!(
                "{id}: completed, {} + {}, {:?}",
                script.entities + script.rejected,
                script.relationships,
                fate.duration()
            ),
        }
    }
}

fn last(expected: &[(u64, String)]) -> u64 {
    expected.iter().map(|(at, _)| *at).max().unwrap()
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// Tells an event as [`Plan::expected`] does, which does not know why a step was skipped.
fn told(event: &SyncEvent) -> String {
    match event {
        SyncEvent::StepFailed {
            step_id,
            error: ConnectorError::DependencyFailed { .. },
        } => format!("{step_id}: skipped"),
        event => crate::scripted::line(event),
    }
}

/// What came of a run.
struct Outcome {
    result: Result<ConnectorOutput, RunError>,
    returned_at: u64,
    times: BTreeMap<String, Vec<(u64, Option<u64>)>>,
    heard: Vec<SyncEvent>,
    journal: Vec<JournalEntry>,
    most_running: usize,
}

impl Outcome {
    fn report(&self) -> Result<&SyncReport, TestCaseError> {
        match &self.result {
            Ok(output) => Ok(output.report()),
            Err(RunError::Cancelled { report }) => Ok(report),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    }
}

fn paused_runtime() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn scripted(plan: &Plan) -> Scripted {
    let declared = plan.declared.iter();
    Scripted::new(declared.map(|&place| plan.scripts[place].clone()))
}

fn runner<'a>(plan: &Plan, scripted: &'a Scripted) -> Runner<'a> {
    let selected = plan.selected.iter();
    let selectors = selected.map(|(id, with_dependents)| match with_dependents {
        true => format!("{id}+"),
        false => id.clone(),
    });
    let runner = Runner::new(scripted).select(selectors);
    match plan.cancel {
        Some(Cancel { at, grace }) => runner
            .cancel_on(sleep(Duration::from_millis(at)))
            .grace(Duration::from_millis(grace)),
        None => runner,
    }
}

fn run(plan: &Plan, concurrency: usize) -> Outcome {
    paused_runtime().block_on(async {
        let start = Instant::now();
        let scripted = scripted(plan);
        let (tx, rx) = mpsc::channel(match plan.watch {
            Watch::Nobody => 1,
            Watch::Reads(capacity) | Watch::Never(capacity) => capacity,
            Watch::Slow(capacity, _) | Watch::Leaves(capacity, _) => capacity,
        });
        // Everyone who still listens takes what is in the channel when the run has returned.
        let (over, is_over) = tokio::sync::oneshot::channel::<()>();
        let heard = tokio::spawn(listen(plan.watch, rx, is_over));

        let journal = Arc::new(Kept::default());
        let mut runner = runner(plan, &scripted)
            .concurrency(concurrency)
            .journal(Arc::clone(&journal) as _);
        if plan.watch != Watch::Nobody {
            runner = runner.events(&tx);
        }
        let result = runner.run("acme", "sync-001").await;

        let since = |at: Instant| millis_of(at - start);
        let returned_at = since(Instant::now());
        drop((tx, over));
        let times = scripted.times().into_iter().map(|(id, times)| {
            let times = times.into_iter();
            let times = times.map(|(begun, end)| (since(begun), end.map(since)));
            (id, times.collect())
        });
        Outcome {
            result,
            returned_at,
            times: times.collect(),
            heard: heard.await.unwrap(),
            journal: journal.take(),
            most_running: scripted.most_running(),
        }
    })
}

async fn listen(
    watch: Watch,
    mut rx: mpsc::Receiver<SyncEvent>,
    is_over: tokio::sync::oneshot::Receiver<()>,
) -> Vec<SyncEvent> {
    match watch {
        Watch::Nobody => Vec::new(),
        Watch::Reads(_) => hear(rx).await,
        Watch::Slow(_, pause) => {
            let mut events = Vec::new();
            loop {
                sleep(Duration::from_millis(pause)).await;
                match rx.recv().await {
                    Some(event) => events.push(event),
                    None => return events,
                }
            }
        }
        Watch::Never(_) => {
            is_over.await.unwrap_err();
            hear(rx).await
        }
        Watch::Leaves(_, after) => {
            let mut events = Vec::new();
            while events.len() < after
                && let Some(event) = rx.recv().await
            {
                events.push(event);
            }
            events
        }
    }
}

fn holds(plan: &Plan) -> Result<(), TestCaseError> {
    let fates = plan.fates();
    let outcome = run(plan, 64);
    let report = outcome.report()?;
    prop_assert_eq!(outcome.result.is_err(), plan.is_cancelled(&fates));
    watching_does_not_change_when_a_step_runs(plan, &fates, &outcome)?;
    the_report_tells_what_became_of_each_step(plan, &fates, report)?;
    for step in report.steps() {
        let fate = &fates[step.step_id.as_str()];
        prop_assert_eq!(step.duration, fate.duration(), "{}", step.step_id);
    }
    only_who_looked_everywhere_has(plan, &fates, report)?;
    what_is_heard_has_no_gap(plan, &fates, &outcome)?;
    the_journal_tells_it_all(plan, &fates, &outcome)?;
    if let Ok(output) = &outcome.result {
        the_books_balance(plan, &fates, output)?;
    }
    Ok(())
}

/// With fewer places than steps everything comes later, and nothing comes out otherwise.
fn holds_in_few_places(plan: &Plan, places: usize) -> Result<(), TestCaseError> {
    let in_time = plan.fates();
    let mut fates = in_time.clone();
    for (id, fate) in &mut fates {
        // Which of those that break the chain is the first depends on who got a place.
        if let Fate::Skipped { because, .. } = fate {
            let after = plan.script(id).after.iter();
            let breaks = after.filter(|on| !in_time[on.as_str()].status().is_ok());
            *because = breaks.cloned().collect();
        }
    }
    let outcome = run(plan, places);
    prop_assert!(outcome.most_running <= places);
    let report = outcome.report()?;
    the_report_tells_what_became_of_each_step(plan, &fates, report)?;
    only_who_looked_everywhere_has(plan, &fates, report)?;
    the_books_balance(plan, &fates, outcome.result.as_ref().unwrap())
}

fn watching_does_not_change_when_a_step_runs(
    plan: &Plan,
    fates: &Fates<'_>,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let no_times = Vec::new();
    for (id, fate) in fates {
        let script = plan.script(id);
        let tries = fate.tries().iter().enumerate();
        let expected = tries.map(|(number, attempt)| {
            let at_once = script.end == End::PanicAtOnce && number >= script.flaky as usize;
            (attempt.begun, (!at_once).then_some(attempt.end))
        });
        let times = outcome.times.get(*id).unwrap_or(&no_times);
        prop_assert_eq!(times, &expected.collect::<Vec<_>>(), "{}", id);
    }
    Ok(())
}

fn the_report_tells_what_became_of_each_step(
    plan: &Plan,
    fates: &Fates<'_>,
    report: &SyncReport,
) -> Result<(), TestCaseError> {
    let declared = plan.declared.iter().map(|&place| &plan.scripts[place].id);
    prop_assert!(report.steps().iter().map(|step| &step.step_id).eq(declared));
    for step in report.steps() {
        let script = plan.script(&step.step_id);
        let fate = &fates[step.step_id.as_str()];
        prop_assert_eq!(step.status, fate.status(), "{}", step.step_id);
        prop_assert_eq!(
            step.attempts as usize,
            fate.tries().len(),
            "{}",
            step.step_id
        );
        prop_assert_eq!(step.waited, fate.waited(), "{}", step.step_id);
        prop_assert_eq!(&step.retries, &fate.retries(), "{}", step.step_id);
        prop_assert!(step.scopes.is_empty());
        let after = step
            .dependencies
            .iter()
            .map(|&on| &report.steps()[on].step_id);
        prop_assert!(after.eq(&script.after));
        let error = step.error.as_ref().map(ToString::to_string);
        match fate {
            Fate::NotSelected => prop_assert_eq!(error, None),
            Fate::Ends(life) => {
                let expected = life.last().how.error();
                prop_assert_eq!(error, expected.map(|error| error.to_string()));
            }
            Fate::Cancelled { .. } => prop_assert_eq!(error.unwrap(), "cancelled"),
            Fate::Skipped { because, .. } => {
                let Some(ConnectorError::DependencyFailed { step_id }) = &step.error else {
                    return Err(TestCaseError::fail(format!("{:?}", step.error)));
                };
                prop_assert!(
                    because.contains(step_id),
                    "{} because of {}",
                    step.step_id,
                    step_id
                );
            }
        }
    }
    Ok(())
}

/// The claims of a step fall if it and all upstream of it saw everything, and it was given all that
/// they emitted, and in no other case.
fn only_who_looked_everywhere_has(
    plan: &Plan,
    fates: &Fates<'_>,
    report: &SyncReport,
) -> Result<(), TestCaseError> {
    for script in &plan.scripts {
        let mut upstream = plan.upstream(&script.id).into_iter();
        let withheld = |id: &str| id != script.id && plan.script(id).rejected > 0;
        let looked =
            upstream.all(|id| fates[id].status() == StepStatus::Completed && !withheld(id));
        prop_assert_eq!(
            report.has_looked_everywhere(&script.id, None),
            looked,
            "{}",
            script.id
        );
    }
    Ok(())
}

/// Nothing that is missing is older than the last that was heard, and the missing are counted.
fn what_is_heard_has_no_gap(
    plan: &Plan,
    fates: &Fates<'_>,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let expected = plan.expected(fates);
    let heard: Vec<_> = outcome.heard.iter().map(told).collect();
    let mut missing = expected.clone();
    let mut last_heard = 0;
    for line in &heard {
        let place = missing.iter().position(|(_, expected)| expected == line);
        let place = place.ok_or_else(|| TestCaseError::fail(format!("{line:?} is too much")))?;
        let (at, _) = missing.remove(place);
        prop_assert!(at >= last_heard, "{} comes too late", line);
        last_heard = at;
    }
    prop_assert!(
        missing.iter().all(|(at, _)| *at >= last_heard),
        "missing {:?}",
        missing
    );
    // At one instant, too, things come in their order.
    let place_of = |line: &str| heard.iter().position(|heard| heard == line);
    for (id, fate) in fates {
        let begun = place_of(&format!("{id}: started"));
        let ended = place_of(&plan.told_end(id, fate));
        prop_assert!(
            ended.is_none() || (begun.is_some() != fate.tries().is_empty() && begun < ended),
            "{}",
            id
        );
        for on in &plan.script(id).after {
            let before = place_of(&plan.told_end(on, &fates[on.as_str()]));
            prop_assert!(begun.is_none() || before < begun, "{} before {}", id, on);
        }
    }
    if let Some(first) = heard.first() {
        prop_assert_eq!(first, "started");
    }
    if missing.is_empty() {
        let is_completed = heard.last().unwrap() == "completed";
        prop_assert_eq!(is_completed, outcome.result.is_ok());
    }
    let undelivered = outcome
        .result
        .as_ref()
        .map_or(missing.len() as u64, ConnectorOutput::undelivered_events);
    match plan.watch {
        Watch::Nobody => prop_assert!(outcome.result.is_err() || undelivered == 0),
        Watch::Reads(_) => prop_assert!(missing.is_empty(), "missing {:?}", missing),
        Watch::Slow(..) | Watch::Never(_) => prop_assert_eq!(undelivered, missing.len() as u64),
        // The one that leaves misses nothing that it wants.
        Watch::Leaves(_, after) => prop_assert_eq!(heard.len(), after.min(expected.len())),
    }

    // Who does not listen is not waited for.
    let delay = outcome.returned_at - last(&expected);
    match plan.watch {
        Watch::Nobody | Watch::Reads(_) | Watch::Leaves(..) => prop_assert_eq!(delay, 0),
        Watch::Slow(..) => prop_assert!(delay <= 5_000, "{} ms", delay),
        Watch::Never(_) => prop_assert_eq!(delay, if missing.is_empty() { 0 } else { 250 }),
    }
    Ok(())
}

/// Tells an entry as [`told`] tells the event of the same; `None` for what is no event.
fn as_event(entry: &JournalKind) -> Option<String> {
    Some(match entry {
        JournalKind::Started { .. } => "started".to_owned(),
        JournalKind::StepStarted { step_id } => format!("{step_id}: started"),
        JournalKind::StepCompleted {
            step_id,
            entities,
            relationships,
            duration_ms,
            ..
        } => {
            let duration = Duration::from_millis(*duration_ms);
            format!("{step_id}: completed, {entities} + {relationships}, {duration:?}")
        }
        JournalKind::StepFailed { step_id, error, .. } => format!("{step_id}: failed, {error}"),
        JournalKind::StepSkipped { step_id, .. } => format!("{step_id}: skipped"),
        JournalKind::Completed { .. } => "completed".to_owned(),
        _ => return None,
    })
}

/// The journal has no gap and one end, holds every event in its order, and the retries, rejections
/// and sums beside them.
fn the_journal_tells_it_all(
    plan: &Plan,
    fates: &Fates<'_>,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let journal = &outcome.journal;
    prop_assert!(
        journal
            .iter()
            .map(|entry| entry.seq)
            .eq(1..=journal.len() as u64)
    );
    let ends: Vec<_> = journal
        .iter()
        .filter(|entry| entry.kind.ends_run())
        .collect();
    prop_assert_eq!(ends.len(), 1);
    prop_assert_eq!(Some(ends[0]), journal.last());

    let events: Vec<_> = journal
        .iter()
        .filter_map(|entry| as_event(&entry.kind))
        .collect();
    let heard: Vec<_> = outcome.heard.iter().map(told).collect();
    prop_assert!(events.starts_with(&heard), "{:?} of {:?}", heard, events);
    let mut expected: Vec<_> = plan
        .expected(fates)
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    let mut events = events;
    events.sort();
    expected.sort();
    prop_assert_eq!(events, expected);

    for (id, fate) in fates {
        let of_step = || {
            journal
                .iter()
                .filter(|entry| entry.kind.step_id() == Some(id))
        };
        let retries = of_step().filter_map(|entry| match &entry.kind {
            JournalKind::StepRetrying {
                attempt, pause_ms, ..
            } => Some((*attempt, *pause_ms)),
            _ => None,
        });
        let pauses = (1..).zip(fate.tries());
        let pauses = pauses.filter_map(|(n, attempt)| Some((n, millis_of(attempt.pause?))));
        prop_assert!(retries.eq(pauses), "retries of {}", id);
        let restarts = of_step().filter_map(|entry| match &entry.kind {
            JournalKind::StepRestarted { attempt, .. } => Some(*attempt),
            _ => None,
        });
        let begun = u32::try_from(fate.tries().len()).unwrap();
        prop_assert!(restarts.eq(2..=begun), "restarts of {}", id);
        let script = plan.script(id);
        let most = (script.entities + script.rejected, script.relationships);
        for entry in of_step() {
            match &entry.kind {
                JournalKind::StepProgress {
                    entities,
                    relationships,
                    ..
                } => prop_assert!(*entities <= most.0 as u64 && *relationships <= most.1 as u64),
                JournalKind::RecordsRejected { count, samples, .. } => {
                    prop_assert!(
                        *count == script.rejected as u64 && samples.len() as u64 == *count
                    );
                }
                _ => {}
            }
        }
        let rejected = of_step()
            .filter(|entry| matches!(entry.kind, JournalKind::RecordsRejected { .. }))
            .count();
        if fate.status().is_ok() {
            prop_assert!(rejected >= script.rejected, "rejected by {}", id);
        }
    }
    match (&outcome.result, &ends[0].kind) {
        (
            Ok(output),
            JournalKind::Completed {
                entities,
                relationships,
                ..
            },
        ) => {
            prop_assert_eq!(output.run().journal_seq, journal.len() as u64);
            let steps = output.report().steps();
            let sum = |count: fn(&StepReport) -> u64| steps.iter().map(count).sum::<u64>();
            prop_assert_eq!(*entities, sum(|step| step.entities));
            prop_assert_eq!(*relationships, sum(|step| step.relationships));
        }
        (result, kind) => prop_assert!(
            result.is_err() && *kind == JournalKind::Cancelled,
            "{:?}",
            kind
        ),
    }
    Ok(())
}

/// Events, report and output tell the same numbers: the events' are in [`Plan::expected`].
fn the_books_balance(
    plan: &Plan,
    fates: &Fates<'_>,
    output: &ConnectorOutput,
) -> Result<(), TestCaseError> {
    let steps = output.report().steps();
    let ok = |script: &&Script| fates[script.id.as_str()].status().is_ok();
    let ok: Vec<_> = plan.scripts.iter().filter(ok).collect();
    let entities: usize = ok.iter().map(|script| script.entities).sum();
    let rejected: u64 = ok.iter().map(|script| script.rejected as u64).sum();
    let relationships: usize = ok.iter().map(|script| script.relationships).sum();
    prop_assert_eq!(output.entities().count(), entities);
    prop_assert_eq!(output.relationships().count(), relationships);
    let sum = |count: fn(&StepReport) -> u64| steps.iter().map(count).sum::<u64>();
    prop_assert_eq!(sum(|step| step.entities_rejected), rejected);
    prop_assert_eq!(sum(|step| step.entities), entities as u64 + rejected);
    prop_assert_eq!(sum(|step| step.relationships), relationships as u64);
    Ok(())
}

fn any_script() -> impl Strategy<Value = Script> {
    let end = prop_oneof![
        12 => Just(End::Ok),
        2 => Just(End::Incomplete),
        2 => Just(End::Error),
        1 => Just(End::PanicAtOnce),
        1 => Just(End::PanicLater),
        1 => Just(End::Hang),
    ];
    let retries = (0..4_u32, 0..80_u64).prop_map(|(limit, first_pause)| {
        let longest = Duration::from_millis(100);
        let retries = Retries::up_to(limit).longest_pause(longest);
        retries.first_pause(Duration::from_millis(first_pause))
    });
    let fails = (
        prop_oneof![5 => Just(0), 2 => 1..4_u32, 1 => Just(u32::MAX)],
        prop::option::weighted(0.3, select(vec![0, 1, 30, 299_999, 300_000, 300_001])),
        prop::option::weighted(0.8, retries),
        prop::option::weighted(0.3, (0..7_u64).prop_map(|tens| tens * 10 + 5)),
        prop::option::weighted(0.4, 0..40_u64),
    );
    let emits = (0..4_usize, prop::bool::weighted(0.1), 0..3_usize);
    (end, 0..6_u64, emits, fails).prop_map(
        |(end, tens, (entities, rejects, relationships), fails)| {
            let (flaky, asks, retries, timeout, polite) = fails;
            let mut script = script("")
                .lasts(tens * 10)
                .emits(entities, relationships)
                .ends(end);
            script.rejected = usize::from(rejects);
            script.flaky = flaky;
            script.retries = retries;
            script.asks = asks.map(Duration::from_millis);
            script.timeout = timeout.map(Duration::from_millis);
            script.polite = polite.map(Duration::from_millis);
            script
        },
    )
}

/// Whether a run is cancelled, and when.
fn sometimes() -> impl Strategy<Value = Option<Cancel>> {
    let grace = prop_oneof![Just(0), 1..60_u64];
    let cancel = (1..250_u64, grace).prop_map(|(at, grace)| Cancel { at, grace });
    prop::option::weighted(0.2, cancel)
}

fn plan(
    watch: impl Strategy<Value = Watch>,
    cancel: impl Strategy<Value = Option<Cancel>>,
) -> impl Strategy<Value = Plan> {
    let steps = prop_oneof![3 => 1..=8_usize, 1 => 9..=30_usize];
    let shape = steps.prop_flat_map(|count| {
        let selected = prop::collection::vec((0..count, any::<bool>()), 1..4);
        (
            prop::collection::vec(any_script(), count),
            prop::collection::vec((0..count, 0..count), 0..=count + 4),
            Just((0..count).collect::<Vec<_>>()).prop_shuffle(),
            prop::option::weighted(0.2, selected),
        )
    });
    (shape, cancel, watch).prop_map(
        |((mut scripts, edges, declared, selected), cancel, watch)| {
            for (place, script) in scripts.iter_mut().enumerate() {
                let after: BTreeSet<_> = edges
                    .iter()
                    .filter(|(a, b)| a != b && *a.max(b) == place)
                    .map(|(a, b)| a.min(b))
                    .collect();
                script.id = format!("s{place}");
                script.after = after.into_iter().map(|place| format!("s{place}")).collect();
            }
            let selected = selected.unwrap_or_default().into_iter();
            Plan {
                scripts,
                declared,
                selected: selected
                    .map(|(place, with_dependents)| (format!("s{place}"), with_dependents))
                    .collect(),
                cancel,
                watch,
            }
        },
    )
}

fn pauses() -> impl Strategy<Value = u64> {
    select(vec![1, 7, 33, 240, 251, 700])
}

// 50,000 runs in all, in tests of about the same length, so that they share the cores.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_run_that_nobody_watches_keeps_its_promises(plan in plan(Just(Watch::Nobody), sometimes())) {
        holds(&plan)?;
    }

    #[test]
    fn a_run_that_is_watched_keeps_its_promises(
        plan in plan((1..=64_usize).prop_map(Watch::Reads), sometimes()),
    ) {
        holds(&plan)?;
    }

    #[test]
    fn a_run_keeps_its_promises_to_a_slow_watcher(
        plan in plan((1..=64_usize, pauses()).prop_map(|(n, pause)| Watch::Slow(n, pause)), sometimes()),
    ) {
        holds(&plan)?;
    }

    #[test]
    fn a_run_keeps_its_promises_to_a_watcher_that_sleeps_or_leaves(
        plan in plan(
            prop_oneof![
                (1..=64_usize).prop_map(Watch::Never),
                (1..=64_usize, 0..60_usize).prop_map(|(n, after)| Watch::Leaves(n, after)),
            ],
            sometimes(),
        ),
    ) {
        holds(&plan)?;
    }

    #[test]
    fn a_run_in_few_places_comes_to_the_same(
        plan in plan(Just(Watch::Nobody), Just(None)),
        places in 1..5_usize,
    ) {
        holds_in_few_places(&plan, places)?;
    }
}

/// Counts the attempts that are neither accepted nor discarded.
#[derive(Default)]
struct OpenAttempts(Arc<AtomicUsize>);

struct OpenAttempt(Arc<AtomicUsize>);

impl Sink for OpenAttempts {
    fn open(&self, _: usize) -> Box<dyn Attempt> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::new(OpenAttempt(Arc::clone(&self.0)))
    }
}

impl Attempt for OpenAttempt {
    fn write(&mut self, _: Arc<Batch>) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

impl Drop for OpenAttempt {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls a run so many times and drops it. Returns whether it was done by then.
fn dropped_after(plan: &Plan, polls: usize) -> bool {
    paused_runtime().block_on(async {
        let scripted = scripted(plan);
        let sink = OpenAttempts::default();
        let journal = Arc::new(Kept::default());
        let (tx, rx) = mpsc::channel(3);
        let heard = tokio::spawn(hear(rx));
        let mut run = runner(plan, &scripted)
            .events(&tx)
            .journal(Arc::clone(&journal) as _)
            .sink(&sink)
            .run("acme", "sync-001")
            .boxed();
        let mut left = polls;
        let result = poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            run.as_mut().poll(cx).map(Some)
        })
        .await;
        drop(run);

        assert_eq!(scripted.running(), 0, "steps are left");
        assert_eq!(sink.0.load(Ordering::Relaxed), 0, "attempts are left");
        let tasks = runtime::Handle::current().metrics().num_alive_tasks();
        assert!(tasks <= 1, "{tasks} tasks: more than the receiver");
        drop(tx);
        let heard: Vec<_> = heard.await.unwrap().iter().map(told).collect();
        let is_completed = heard.last().is_some_and(|last| last == "completed");
        assert_eq!(is_completed, matches!(result, Some(Ok(_))), "{heard:?}");
        for script in &plan.scripts {
            let of = format!("{}: ", script.id);
            let lines: Vec<_> = heard.iter().filter(|line| line.starts_with(&of)).collect();
            let ends = lines.iter().filter(|line| !line.ends_with("started"));
            assert!(ends.count() <= 1 && lines.len() <= 2, "{lines:?}");
        }
        let journal = journal.take();
        let ends = journal.iter().filter(|entry| entry.kind.ends_run());
        assert_eq!(ends.count(), usize::from(polls > 0), "{journal:?}");
        if let Some(last) = journal.last() {
            let is_completed = matches!(last.kind, JournalKind::Completed { .. });
            assert_eq!(is_completed, matches!(result, Some(Ok(_))), "{last:?}");
            assert!(is_completed || last.kind == JournalKind::Cancelled);
            assert_eq!(last.seq, journal.len() as u64);
        }
        result.is_some()
    })
}

#[test]
fn nothing_is_left_of_a_run_wherever_it_is_dropped() {
    let mut random = TestRunner::deterministic();
    let plans = plan(Just(Watch::Nobody), sometimes());
    let mut drops = 0;
    for _ in 0..50 {
        let plan = plans.new_tree(&mut random).unwrap().current();
        let polls = (0..).find(|&polls| dropped_after(&plan, polls)).unwrap();
        drops += polls;
    }
    assert!(drops > 500, "only {drops} await points in 50 runs");
}

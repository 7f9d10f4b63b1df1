//! Random runs against a model of what must come of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime;

use super::*;

/// A run: its steps in an order in which they can run, the order in which they are declared, and
/// when it is cancelled.
#[derive(Clone, Debug)]
struct Plan {
    scripts: Vec<Script>,
    declared: Vec<usize>,
    cancel_at: Option<u64>,
    watch: Watch,
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

/// What must become of a step, by the model. Times are milliseconds since the start.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Ends {
        begun: u64,
        at: u64,
    },
    /// By the first dependency to fail or be skipped; of several at once, by any.
    Skipped {
        at: u64,
        because: BTreeSet<String>,
    },
    Cancelled {
        begun: Option<u64>,
        at: u64,
    },
}

type Fates<'a> = BTreeMap<&'a str, Fate>;

impl Plan {
    fn fates(&self) -> Fates<'_> {
        let last = self.cancel_at.unwrap_or(u64::MAX);
        let mut fates = Fates::new();
        for script in &self.scripts {
            let upstream = script.after.iter().map(|id| (id, &fates[id.as_str()]));
            // Which of them break the chain, and when.
            let breaks: Vec<_> = upstream
                .clone()
                .filter_map(|(id, fate)| match fate {
                    Fate::Ends { at, .. } => self.is_bad(id).then_some((*at, id)),
                    Fate::Skipped { at, .. } => Some((*at, id)),
                    Fate::Cancelled { .. } => None,
                })
                .collect();
            let all_end: Option<Vec<_>> = upstream
                .map(|(_, fate)| match fate {
                    Fate::Ends { at, .. } => Some(*at),
                    _ => None,
                })
                .collect();
            let fate = if let Some(&(at, _)) = breaks.iter().min() {
                let because = breaks.iter().filter(|(when, _)| *when == at);
                let because = because.map(|(_, id)| id.to_string()).collect();
                Fate::Skipped { at, because }
            } else if let Some(ends) = all_end {
                let begun = ends.into_iter().max().unwrap_or(0);
                match script.end {
                    End::Hang => Fate::Ends {
                        begun,
                        at: u64::MAX,
                    },
                    End::PanicAtOnce => Fate::Ends { begun, at: begun },
                    _ => Fate::Ends {
                        begun,
                        at: begun + millis_of(script.lasts),
                    },
                }
            } else {
                Fate::Cancelled {
                    begun: None,
                    at: last,
                }
            };
            let fate = match fate {
                Fate::Ends { begun, .. } if begun > last => Fate::Cancelled {
                    begun: None,
                    at: last,
                },
                Fate::Ends { begun, at } if at > last => Fate::Cancelled {
                    begun: Some(begun),
                    at: last,
                },
                Fate::Skipped { at, .. } if at > last => Fate::Cancelled {
                    begun: None,
                    at: last,
                },
                fate => fate,
            };
            fates.insert(&script.id, fate);
        }
        fates
    }

    fn script(&self, id: &str) -> &Script {
        self.scripts.iter().find(|script| script.id == id).unwrap()
    }

    fn is_bad(&self, id: &str) -> bool {
        !matches!(self.script(id).end, End::Ok | End::Incomplete)
    }

    /// What a receiver that misses nothing hears, and when.
    fn expected(&self, fates: &Fates<'_>) -> Vec<(u64, String)> {
        let mut expected = vec![(0, "started".to_owned())];
        for (id, fate) in fates {
            let (begun, at, how) = match fate {
                Fate::Ends { begun, at } => (Some(*begun), *at, self.told_end(id)),
                Fate::Skipped { at, .. } => (None, *at, "skipped".to_owned()),
                Fate::Cancelled { begun, at } => (*begun, *at, "failed, cancelled".to_owned()),
            };
            expected.extend(begun.map(|begun| (begun, format!("{id}: started"))));
            expected.push((at, format!("{id}: {how}")));
        }
        let last = expected.iter().map(|(at, _)| *at).max().unwrap();
        if !is_cancelled(fates) {
            expected.push((last, "completed".to_owned()));
        }
        expected
    }

    fn told_end(&self, id: &str) -> String {
        let script = self.script(id);
        match script.end {
            End::Ok | End::Incomplete => format!(
                "completed, {} + {}, {:?}",
                script.entities + script.rejected,
                script.relationships,
                script.lasts
            ),
            End::Error => "failed, out of luck".to_owned(),
            _ => "failed, panicked: out of mind".to_owned(),
        }
    }
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
    times: BTreeMap<String, (u64, Option<u64>)>,
    heard: Vec<SyncEvent>,
}

fn run(plan: &Plan) -> Outcome {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let scripts = plan
            .declared
            .iter()
            .map(|&place| plan.scripts[place].clone());
        let scripted = Scripted::new(scripts);
        let (tx, rx) = mpsc::channel(match plan.watch {
            Watch::Nobody => 1,
            Watch::Reads(capacity) | Watch::Never(capacity) => capacity,
            Watch::Slow(capacity, _) | Watch::Leaves(capacity, _) => capacity,
        });
        // Everyone who still listens takes what is in the channel when the run has returned.
        let (over, is_over) = tokio::sync::oneshot::channel::<()>();
        let heard = tokio::spawn(listen(plan.watch, rx, is_over));

        let mut runner = Runner::new(&scripted);
        if plan.watch != Watch::Nobody {
            runner = runner.events(&tx);
        }
        if let Some(millis) = plan.cancel_at {
            runner = runner.cancel_on(sleep(Duration::from_millis(millis)));
        }
        let result = runner.run("acme", "sync-001").await;

        let since = |at: Instant| millis_of(at - start);
        let returned_at = since(Instant::now());
        drop((tx, over));
        let times = scripted.times().into_iter();
        Outcome {
            result,
            returned_at,
            times: times
                .map(|(id, (begun, end))| (id, (since(begun), end.map(since))))
                .collect(),
            heard: heard.await.unwrap(),
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
    let outcome = run(plan);
    let report = match &outcome.result {
        Ok(output) => output.report(),
        Err(RunError::Cancelled { report }) => report,
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    prop_assert_eq!(outcome.result.is_err(), is_cancelled(&fates));
    watching_does_not_change_when_a_step_runs(plan, &fates, &outcome)?;
    the_report_tells_what_became_of_each_step(plan, &fates, report)?;
    what_is_heard_has_no_gap(plan, &fates, &outcome)?;
    if let Ok(output) = &outcome.result {
        the_books_balance(plan, &fates, output)?;
    }
    Ok(())
}

fn is_cancelled(fates: &Fates<'_>) -> bool {
    fates
        .values()
        .any(|fate| matches!(fate, Fate::Cancelled { .. }))
}

fn watching_does_not_change_when_a_step_runs(
    plan: &Plan,
    fates: &Fates<'_>,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    for (id, fate) in fates {
        let times = outcome.times.get(*id);
        match *fate {
            Fate::Ends { begun, .. } if plan.script(id).end == End::PanicAtOnce => {
                prop_assert_eq!(times, Some(&(begun, None)), "{}", id);
            }
            Fate::Ends { begun, at } => prop_assert_eq!(times, Some(&(begun, Some(at))), "{}", id),
            Fate::Cancelled {
                begun: Some(begun),
                at,
            } => {
                prop_assert_eq!(times, Some(&(begun, Some(at))), "{}", id);
            }
            Fate::Skipped { .. } | Fate::Cancelled { begun: None, .. } => {
                prop_assert_eq!(times, None, "{}", id);
            }
        }
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
        let status = match (&fates[step.step_id.as_str()], script.end) {
            (Fate::Skipped { .. }, _) => StepStatus::Skipped,
            (Fate::Cancelled { .. }, _) => StepStatus::Cancelled,
            (Fate::Ends { .. }, End::Ok) => StepStatus::Completed,
            (Fate::Ends { .. }, End::Incomplete) => StepStatus::Incomplete,
            (Fate::Ends { .. }, _) => StepStatus::Failed,
        };
        prop_assert_eq!(step.status, status, "{}", step.step_id);
        prop_assert_eq!(step.error.is_none(), status.is_ok());
        let after = step
            .dependencies
            .iter()
            .map(|&on| &report.steps()[on].step_id);
        prop_assert!(after.eq(&script.after));
        if let Fate::Skipped { because, .. } = &fates[step.step_id.as_str()] {
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
        let began = match fate {
            Fate::Ends { .. } => true,
            Fate::Cancelled { begun, .. } => begun.is_some(),
            Fate::Skipped { .. } => false,
        };
        let begun = place_of(&format!("{id}: started"));
        let ended = place_of(&format!("{id}: {}", plan.told_end(id)));
        prop_assert!(
            ended.is_none() || (begun.is_some() == began && begun < ended),
            "{}",
            id
        );
        for on in &plan.script(id).after {
            let before = place_of(&format!("{on}: {}", plan.told_end(on)));
            prop_assert!(begun.is_none() || before < begun, "{} before {}", id, on);
        }
    }
    if let Some(first) = heard.first() {
        prop_assert_eq!(first, "started");
    }
    if missing.is_empty() {
        prop_assert_eq!(heard.last().unwrap() == "completed", !is_cancelled(fates));
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
    let delay = outcome.returned_at - expected.iter().map(|(at, _)| *at).max().unwrap();
    match plan.watch {
        Watch::Nobody | Watch::Reads(_) | Watch::Leaves(..) => prop_assert_eq!(delay, 0),
        Watch::Slow(..) => prop_assert!(delay <= 5_000, "{} ms", delay),
        Watch::Never(_) => prop_assert_eq!(delay, if missing.is_empty() { 0 } else { 250 }),
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
    let ok = |script: &&Script| {
        !plan.is_bad(&script.id) && matches!(fates[script.id.as_str()], Fate::Ends { .. })
    };
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

fn plan() -> impl Strategy<Value = Plan> {
    let end = prop_oneof![
        12 => Just(End::Ok),
        2 => Just(End::Incomplete),
        2 => Just(End::Error),
        1 => Just(End::PanicAtOnce),
        1 => Just(End::PanicLater),
        1 => Just(End::Hang),
    ];
    let step = (
        end,
        0..6_u64,
        0..4_usize,
        prop::bool::weighted(0.1),
        0..3_usize,
    );
    let watch = (1..=8_usize).prop_flat_map(|capacity| {
        prop_oneof![
            Just(Watch::Nobody),
            Just(Watch::Reads(capacity)),
            select(vec![1, 7, 33, 240, 251, 700])
                .prop_map(move |pause| Watch::Slow(capacity, pause)),
            Just(Watch::Never(capacity)),
            (0..30_usize).prop_map(move |after| Watch::Leaves(capacity, after)),
        ]
    });
    (1..=12_usize)
        .prop_flat_map(move |count| {
            (
                prop::collection::vec(step.clone(), count),
                prop::collection::vec((0..count, 0..count), 0..=count + 4),
                Just((0..count).collect::<Vec<_>>()).prop_shuffle(),
                prop::option::weighted(0.1, 0..20_u64),
                watch.clone(),
            )
        })
        .prop_map(|(steps, edges, declared, cancel, watch)| {
            let mut scripts = Vec::new();
            for (place, (end, tens, entities, rejects, relationships)) in
                steps.into_iter().enumerate()
            {
                let after: BTreeSet<_> = edges
                    .iter()
                    .filter(|(a, b)| a != b && *a.max(b) == place)
                    .map(|(a, b)| a.min(b))
                    .collect();
                let mut script = script(format!("s{place}"))
                    .after(after.into_iter().map(|place| format!("s{place}")))
                    .lasts(tens * 10)
                    .emits(entities, relationships)
                    .ends(end);
                script.rejected = usize::from(rejects);
                scripts.push(script);
            }
            let hangs = scripts.iter().any(|script| script.end == End::Hang);
            Plan {
                scripts,
                declared,
                // Between the times at which steps end, so that it is clear who was first.
                cancel_at: cancel.or(hangs.then_some(13)).map(|tens| tens * 10 + 5),
                watch,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn every_run_keeps_its_promises(plan in plan()) {
        holds(&plan)?;
    }
}

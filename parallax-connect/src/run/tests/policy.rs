//! Timeouts, retries, selection and grace, one by one.

use std::sync::Mutex;

use futures::future::BoxFuture;
use tokio::task::yield_now;

use super::*;
use crate::scripted::Given;
use crate::{Prior, entity};

type Attempt = fn(StepContext) -> BoxFuture<'static, Result<(), ConnectorError>>;

/// When each attempt of each step began, in milliseconds.
#[derive(Clone)]
struct Begun {
    start: Instant,
    attempts: Arc<Mutex<Vec<(&'static str, u128)>>>,
}

impl Begun {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            attempts: Arc::default(),
        }
    }

    /// A step that does another thing in each attempt; the last is repeated.
    fn step(&self, id: &'static str, attempts: &'static [Attempt]) -> Step<'static> {
        let this = self.clone();
        step(id, "", move |ctx| {
            let mut begun = this.attempts.lock().unwrap();
            let attempt = begun.iter().filter(|(of, _)| *of == id).count();
            begun.push((id, this.start.elapsed().as_millis()));
            attempts[attempt.min(attempts.len() - 1)](ctx)
        })
    }

    fn lines(&self) -> String {
        let begun = self.attempts.lock().unwrap();
        let lines = begun.iter().map(|(id, at)| format!("{id} at {at}"));
        lines.collect::<Vec<_>>().join(", ")
    }
}

const OK: Attempt = |_| Box::pin(async { Ok(()) });
const RESET: Attempt = |_| Box::pin(async { Err(ConnectorError::retryable("connection reset")) });
const HANGS: Attempt = |_| Box::pin(future::pending());
const TAKES_2_S: Attempt = |_| {
    Box::pin(async {
        sleep(Duration::from_secs(2)).await;
        Ok(())
    })
};

/// One retry, at once.
fn once() -> Retries {
    Retries::up_to(1).first_pause(Duration::ZERO)
}

/// How each step ended, from its report.
fn ends(report: &SyncReport) -> String {
    let ends = report.steps().iter().map(|step| {
        let reason = step.reason().map(|reason| format!(" ({reason})"));
        format!(
            "{}: {}{}, {} attempts in {:?}, {} + {}",
            step.step_id,
            step.status.as_str(),
            reason.unwrap_or_default(),
            step.attempts,
            step.duration,
            step.entities,
            step.relationships,
        )
    });
    ends.collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_of_an_attempt_that_failed() {
    const LOSES_CONNECTION: Attempt = |ctx| {
        Box::pin(async move {
            // More than one batch, so that a part of it has left the step.
            for n in 0..20_000 {
                ctx.emit(entity("user", n))?;
            }
            ctx.emit(entity("user", "")).unwrap_err();
            let eu = ctx.scope("eu");
            eu.emit(entity("user", "eu"))?;
            ctx.incomplete("page 2 timed out");
            ctx.all_scopes_listed();
            Err(ConnectorError::retryable("connection reset"))
        })
    };
    const FINDS_TWO: Attempt = |ctx| {
        Box::pin(async move {
            ctx.emit(entity("user", "ann"))?;
            ctx.emit(entity("user", "bob"))?;
            Ok(())
        })
    };
    let begun = Begun::new();
    let given = Given(move || {
        let users = begun.step("users", &[LOSES_CONNECTION, LOSES_CONNECTION, FINDS_TWO]);
        let read = step("read", "", async |ctx: StepContext| {
            let count = |prior: &Prior| prior.entities("user").count();
            assert_eq!(count(ctx.prior()), 2);
            Ok(())
        });
        vec![
            users.retries(Retries::up_to(2).first_pause(Duration::ZERO)),
            read.reads(["users"]),
        ]
    });
    let (story, output) = story(&given).await;
    insta::assert_snapshot!(story, @"
    started
    users: started
    users: completed, 2 + 0, 0ns
    read: started
    read: completed, 0 + 0, 0ns
    completed
    ");
    let keys: Vec<_> = output.entities().map(|user| user.key()).collect();
    assert_eq!(keys, ["ann", "bob"]);
    let report = output.report();
    assert!(report.is_complete() && report.has_looked_everywhere("users", None));
    let users = &report.steps()[0];
    assert_eq!(users.attempts, 3);
    assert_eq!(users.entities_rejected, 0);
    assert!(users.scopes.is_empty() && users.incomplete.is_empty() && !users.all_scopes_listed);
}

#[tokio::test(start_paused = true)]
async fn a_step_is_tried_again_as_often_as_is_allowed() {
    let begun = Begun::new();
    let steps = begun.clone();
    let given = Given(move || {
        let limited: Attempt = |_| {
            Box::pin(async {
                Err(ConnectorError::RateLimited {
                    service: "iam".to_owned(),
                    retry_after: Duration::from_secs(301),
                })
            })
        };
        vec![
            steps.step("default", &[RESET]),
            steps.step("never", &[RESET]).retries(Retries::up_to(0)),
            steps.step("heals", &[RESET, OK]),
            steps.step("limited", Box::leak(Box::new([limited]))),
            steps.step("after", &[OK]).depends_on(["heals"]),
        ]
    });
    let runner = Runner::new(&given).retries(Retries::up_to(2).first_pause(Duration::ZERO));
    let output = runner.run("acme", "sync-001").await.unwrap();
    insta::assert_snapshot!(ends(output.report()), @"
    default: failed (connection reset), 3 attempts in 0ns, 0 + 0
    never: failed (connection reset), 1 attempts in 0ns, 0 + 0
    heals: completed, 2 attempts in 0ns, 0 + 0
    limited: failed (iam asked for a pause of 301s), 1 attempts in 0ns, 0 + 0
    after: completed, 1 attempts in 0ns, 0 + 0
    ");
    insta::assert_snapshot!(begun.lines(), @"default at 0, never at 0, heals at 0, limited at 0, default at 0, heals at 0, default at 0, after at 0");
}

#[tokio::test(start_paused = true)]
async fn pauses_are_waited_out_and_counted() {
    let given = Given(|| {
        let asks = |_| {
            future::ready(Err(ConnectorError::RateLimited {
                service: "iam".to_owned(),
                retry_after: Duration::from_secs(100),
            }))
        };
        vec![
            Begun::new().step("reset", &[RESET]),
            step("asks", "", asks).retries(Retries::up_to(1)),
        ]
    });
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    for (step, least, most) in [(0, 3_500, 7_000), (1, 100_000, 105_000)] {
        let step = &output.report().steps()[step];
        let millis = step.waited.as_millis();
        assert!((least..=most).contains(&millis), "{millis}");
        // To the next tick of the timer, for each pause.
        let late = step.duration - step.waited;
        assert!(late < Duration::from_millis(3), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_when_its_time_is_over() {
    let steps = Begun::new();
    let begun = steps.clone();
    let given = Given(move || {
        vec![
            steps.step("hangs", &[HANGS]),
            steps.step("own", &[HANGS]).timeout(Duration::from_secs(1)),
            steps.step("heals", &[HANGS, OK]),
            steps.step("slow", &[TAKES_2_S]).timeout(Duration::MAX),
            steps.step("empty", &[OK]).timeout(Duration::ZERO),
        ]
    });
    let runner = Runner::new(&given).retries(once());
    let runner = runner.timeout(Duration::from_millis(1_500));
    let output = runner.run("acme", "sync-001").await.unwrap();
    insta::assert_snapshot!(ends(output.report()), @"
    hangs: failed (timed out after 1.5s), 2 attempts in 3s, 0 + 0
    own: failed (timed out after 1s), 2 attempts in 2s, 0 + 0
    heals: completed, 2 attempts in 1.5s, 0 + 0
    slow: completed, 1 attempts in 2s, 0 + 0
    empty: completed, 1 attempts in 0ns, 0 + 0
    ");
    insta::assert_snapshot!(begun.lines(), @"hangs at 0, own at 0, heals at 0, slow at 0, empty at 0, own at 1000, hangs at 1500, heals at 1500");

    let steps = Begun::new();
    let given = Given(move || vec![steps.step("hangs", &[HANGS])]);
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    let hangs = &output.report().steps()[0];
    assert_eq!(hangs.reason().unwrap(), "timed out after 3600s");
    assert_eq!(hangs.attempts, 4);
}

/// A step that yields lets the others go on before it does, timeout or not.
#[tokio::test(start_paused = true)]
async fn a_step_that_yields_is_not_polled_twice_in_a_row() {
    let polls: Arc<Mutex<String>> = Arc::default();
    let noted = Arc::clone(&polls);
    let given = Given(move || {
        let yields = |id: &'static str| {
            let polls = Arc::clone(&polls);
            step(id, "", move |_| {
                let polls = Arc::clone(&polls);
                async move {
                    for _ in 0..3 {
                        polls.lock().unwrap().push_str(id);
                        yield_now().await;
                    }
                    Ok(())
                }
            })
        };
        vec![yields("a"), yields("b")]
    });
    run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    let noted = noted.lock().unwrap();
    for round in noted.as_bytes().chunks(2) {
        assert!(round.contains(&b'a') && round.contains(&b'b'), "{noted}");
    }
}

/// What an attempt that is given up leaves behind is dropped, and may panic.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_drop_fails_its_step_only() {
    struct Sore;
    impl Drop for Sore {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("out of mind"));
        }
    }
    let given = Given(|| {
        let sore = step("sore", "", async |_| {
            let _sore = Sore;
            future::pending().await
        });
        vec![
            sore.timeout(Duration::from_secs(1)),
            Begun::new().step("fine", &[TAKES_2_S]),
        ]
    });
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    insta::assert_snapshot!(ends(output.report()), @"
    sore: failed (panicked: out of mind), 1 attempts in 1s, 0 + 0
    fine: completed, 1 attempts in 2s, 0 + 0
    ");
}

/// The panic came out of the run, instead of its report, and what the other steps held was never
/// given back.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_drop_does_not_keep_a_run_from_being_cancelled() {
    struct Sore(#[expect(dead_code, reason = "held")] Arc<()>);
    impl Drop for Sore {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("out of mind"));
        }
    }
    let held = Arc::new(());
    let given = || {
        let held = Arc::clone(&held);
        Given(move || {
            let sore = |id| {
                let held = Arc::clone(&held);
                step(id, "", move |_| {
                    let sore = Sore(Arc::clone(&held));
                    async move {
                        let _sore = sore;
                        future::pending().await
                    }
                })
            };
            let held = Arc::clone(&held);
            let fine = step("fine", "", move |_| {
                let held = Arc::clone(&held);
                async move {
                    pending_with(held).await;
                    Ok(())
                }
            });
            vec![sore("first"), fine, sore("last")]
        })
    };
    for grace in [Duration::ZERO, Duration::from_secs(1)] {
        let given = given();
        let (tx, rx) = mpsc::channel(100);
        let runner = Runner::new(&given).grace(grace).events(&tx);
        let result = runner
            .cancel_on(sleep(Duration::from_secs(1)))
            .run("acme", "sync-001")
            .await;
        let Err(RunError::Cancelled { report }) = result else {
            panic!("{result:?}");
        };
        insta::allow_duplicates! {
            insta::assert_snapshot!(ends(&report), @"
            first: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
            fine: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
            last: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
            ");
        }
        drop(tx);
        let heard = lines(&hear(rx).await);
        assert_eq!(heard.matches("failed, cancelled").count(), 3, "{heard}");
        drop(given);
        assert_eq!(Arc::strong_count(&held), 1);
    }
    // Also of a run that is dropped.
    let given = given();
    let mut run = Box::pin(run_connector(&given, "acme", "sync-001", None));
    assert!(futures::poll!(run.as_mut()).is_pending());
    drop(run);
    drop(given);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_pauses_lets_others_run() {
    let begun = Begun::new();
    let steps = begun.clone();
    let given = Given(move || {
        let asks: Attempt = |_| {
            Box::pin(async {
                Err(ConnectorError::RateLimited {
                    service: "iam".to_owned(),
                    retry_after: Duration::from_millis(0),
                })
            })
        };
        let asks: &'static [Attempt] = Box::leak(Box::new([asks, OK]));
        vec![
            steps.step("asks", asks),
            steps.step("b", &[TAKES_2_S]),
            steps.step("c", &[TAKES_2_S]),
        ]
    });
    let runner = Runner::new(&given).concurrency(1);
    runner.run("acme", "sync-001").await.unwrap();
    // Before `c`, which has not begun, and not before `b` has ended.
    assert_eq!(begun.lines(), "asks at 0, b at 0, asks at 2000, c at 2000");
}

/// Steps that are running, pausing and waiting when they are cancelled after 5 s.
async fn cancelled(grace: u64) -> (String, String, u128) {
    let begun = Begun::new();
    let steps = begun.clone();
    let given = Given(move || {
        let polite = step("polite", "", async |ctx: StepContext| {
            while !ctx.is_cancelled() {
                sleep(Duration::from_millis(1_500)).await;
            }
            Err(ConnectorError::Cancelled)
        });
        let told = step("told", "", async |ctx: StepContext| {
            ctx.cancelled().await;
            assert!(ctx.is_cancelled());
            sleep(Duration::from_millis(300)).await;
            ctx.emit(entity("session", "closed"))?;
            Ok(())
        });
        let resets = step("resets", "", async |ctx: StepContext| {
            ctx.cancelled().await;
            Err(ConnectorError::retryable("connection reset"))
        });
        let pauses = Retries::up_to(9).first_pause(Duration::from_secs(60));
        vec![
            polite,
            told,
            resets,
            steps.step("hangs", &[HANGS]),
            steps.step("pauses", &[RESET]).retries(pauses),
            steps.step("after", &[OK]).depends_on(["told"]),
        ]
    });
    let (tx, rx) = mpsc::channel(1);
    let heard = tokio::spawn(hear(rx));
    let start = Instant::now();
    let runner = Runner::new(&given).events(&tx);
    let result = runner
        .cancel_on(sleep(Duration::from_secs(5)))
        .grace(Duration::from_millis(grace))
        .run("acme", "sync-001")
        .await;
    let took = start.elapsed().as_millis();
    let Err(RunError::Cancelled { report }) = result else {
        panic!("{result:?}")
    };
    drop(tx);
    (ends(&report), lines(&heard.await.unwrap()), took)
}

#[tokio::test(start_paused = true)]
async fn who_runs_when_the_run_is_cancelled_gets_its_grace() {
    let (report, story, took) = cancelled(2_000).await;
    assert_eq!(took, 7_000, "one of them hangs");
    insta::assert_snapshot!(report, @"
    polite: cancelled (cancelled), 1 attempts in 6s, 0 + 0
    told: completed, 1 attempts in 5.3s, 1 + 0
    resets: failed (connection reset), 1 attempts in 5s, 0 + 0
    hangs: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    pauses: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    after: cancelled (cancelled), 0 attempts in 0ns, 0 + 0
    ");
    insta::assert_snapshot!(story, @"
    started
    polite: started
    told: started
    resets: started
    hangs: started
    pauses: started
    pauses: failed, cancelled
    after: failed, cancelled
    resets: failed, connection reset
    told: completed, 1 + 0, 5.3s
    polite: failed, cancelled
    hangs: failed, cancelled
    ");

    let (report, _, took) = cancelled(0).await;
    assert_eq!(took, 5_000);
    insta::assert_snapshot!(report, @"
    polite: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    told: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    resets: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    hangs: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    pauses: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    after: cancelled (cancelled), 0 attempts in 0ns, 0 + 0
    ");
}

/// A step whose pause was over, and that only waited for its place, must not begin in the grace.
#[tokio::test(start_paused = true)]
async fn no_step_is_tried_again_once_the_run_is_cancelled() {
    let begun = Begun::new();
    let steps = begun.clone();
    let given = Given(move || {
        vec![
            steps.step("resets", &[RESET, OK]).retries(once()),
            steps.step("busy", &[TAKES_2_S]),
        ]
    });
    let result = Runner::new(&given)
        .concurrency(1)
        .cancel_on(sleep(Duration::from_secs(1)))
        .grace(Duration::from_secs(60))
        .run("acme", "sync-001")
        .await;
    let Err(RunError::Cancelled { report }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(begun.lines(), "resets at 0, busy at 0");
    insta::assert_snapshot!(ends(&report), @"
    resets: cancelled (cancelled), 1 attempts in 0ns, 0 + 0
    busy: completed, 1 attempts in 2s, 0 + 0
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_returns_when_the_last_step_has_ended_in_its_grace() {
    let given = Given(|| {
        vec![step("told", "", async |ctx: StepContext| {
            ctx.cancelled().await;
            sleep(Duration::from_millis(300)).await;
            Ok(())
        })]
    });
    let start = Instant::now();
    let result = Runner::new(&given)
        .cancel_on(sleep(Duration::from_secs(5)))
        .grace(Duration::from_secs(60))
        .run("acme", "sync-001")
        .await;
    assert_eq!(start.elapsed(), Duration::from_millis(5_300));
    // Even if all of them completed: who cancels a run wants nothing of it.
    assert!(matches!(result, Err(RunError::Cancelled { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_run_is_told() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let given = Given(move || {
        let tell = tell.clone();
        vec![step("spawns", "", move |ctx| {
            let tell = tell.clone();
            tokio::spawn(async move {
                assert!(!ctx.is_cancelled());
                ctx.cancelled().await;
                tell.send(ctx.is_cancelled()).unwrap();
            });
            sleep(Duration::from_secs(1)).map(Ok)
        })]
    });
    run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    assert_eq!(told.recv().await, Some(true));

    let run = run_connector(&given, "acme", "sync-001", None);
    let dropped = tokio::time::timeout(Duration::from_millis(10), run).await;
    assert!(dropped.is_err());
    assert_eq!(told.recv().await, Some(true));
}

fn network() -> impl Connector {
    Given(|| {
        let step = |id, on: &'static [&'static str]| {
            step(id, "", async |ctx: StepContext| {
                ctx.emit(entity("thing", ctx.step_id()))?;
                Ok(())
            })
            .reads(on.iter().copied())
        };
        vec![
            step("users", &[]),
            step("nets", &[]),
            step("hosts", &["nets"]),
            step("ports", &["hosts", "users"]),
            step("disks", &["hosts"]),
        ]
    })
}

#[tokio::test(start_paused = true)]
async fn only_what_is_selected_runs() {
    let (tx, rx) = mpsc::channel(100);
    let network = network();
    let runner = Runner::new(&network)
        .select(["hosts"])
        .select(["user*"])
        .events(&tx);
    let output = runner.run("acme", "sync-001").await.unwrap();
    drop(tx);
    insta::assert_snapshot!(lines(&hear(rx).await), @"
    started
    users: started
    users: completed, 1 + 0, 0ns
    nets: started
    nets: completed, 1 + 0, 0ns
    hosts: started
    hosts: completed, 1 + 0, 0ns
    completed
    ");
    let report = output.report();
    insta::assert_snapshot!(ends(report), @"
    users: completed, 1 attempts in 0ns, 1 + 0
    nets: completed, 1 attempts in 0ns, 1 + 0
    hosts: completed, 1 attempts in 0ns, 1 + 0
    ports: not_selected (was not selected), 0 attempts in 0ns, 0 + 0
    disks: not_selected (was not selected), 0 attempts in 0ns, 0 + 0
    ");
    let looked: Vec<_> = report
        .steps()
        .iter()
        .map(|step| &*step.step_id)
        .filter(|id| {
            report.has_looked_everywhere(id, None) || report.has_looked_everywhere(id, Some("eu"))
        })
        .collect();
    assert_eq!(looked, ["users", "nets", "hosts"]);
    assert!(!report.is_complete() && !report.is_failed());
    assert_eq!(output.entities().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_selector_of_no_step_is_an_error_before_anything_runs() {
    let (tx, mut rx) = mpsc::channel(100);
    let network = network();
    let runner = || {
        Runner::new(&network)
            .select(["hosts", "prots+"])
            .events(&tx)
    };
    let error = runner().run("acme", "sync-001").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no step is selected by \"prots+\"; the nearest is ports"
    );
    assert!(rx.try_recv().is_err());
    let error = runner().outline("acme", "sync-001").unwrap_err();
    assert!(matches!(error, RunError::UnknownStep { nearest, .. } if nearest == "ports"));

    let runner = Runner::new(&network).select(["users+"]);
    insta::assert_snapshot!(ends(&runner.outline("acme", "sync-001").unwrap()), @"
    users: cancelled, 0 attempts in 0ns, 0 + 0
    nets: cancelled, 0 attempts in 0ns, 0 + 0
    hosts: cancelled, 0 attempts in 0ns, 0 + 0
    ports: cancelled, 0 attempts in 0ns, 0 + 0
    disks: not_selected (was not selected), 0 attempts in 0ns, 0 + 0
    ");
}

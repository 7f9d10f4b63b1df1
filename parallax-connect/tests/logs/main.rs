//! What a run logs. A test binary of its own: whether a line is logged at all is decided once for
//! the process, when it is first met, and here every test has a subscriber by then.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::poll;
use parallax_connect::{
    Connector, ConnectorError, Entity, RateLimiter, Retries, RunError, Runner, Step, StepContext,
    entity, relationship, run_connector, step,
};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::instrument::{Instrument, WithSubscriber};
use tracing::{Dispatch, dispatcher, info_span};
use tracing_subscriber::fmt::MakeWriter;

use crate::captured::Captured;

mod captured;

fn captured() -> (Captured, dispatcher::DefaultGuard) {
    let captured = Captured::default();
    let guard = dispatcher::set_default(&captured.dispatch());
    (captured, guard)
}

/// Steps that end in every way.
struct Varied;

impl Connector for Varied {
    fn name(&self) -> &str {
        "varied"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            step("users", "", async |ctx: StepContext| {
                ctx.emit(entity("user", "ann"))?;
                ctx.emit(entity("user", "bob"))?;
                ctx.emit(relationship(("user", "ann"), "KNOWS", ("user", "bob")))?;
                sleep(Duration::from_millis(10)).await;
                Ok(())
            }),
            step("roles", "", async |ctx: StepContext| {
                ctx.emit(entity("role", "dev"))?;
                Err(ConnectorError::retryable("connection reset"))
            })
            .retries(Retries::up_to(1).first_pause(Duration::ZERO)),
            step("grants", "", async |_| Ok(())).depends_on(["roles"]),
            step("hosts", "", async |ctx: StepContext| {
                ctx.emit(entity("host", "web-1").property("load", f64::NAN))
                    .ok();
                sleep(Duration::from_millis(1_500)).await;
                ctx.scope("eu").incomplete("page 2 timed out");
                Ok(())
            }),
        ]
    }
}

/// The lines without the sync's span, which is the same in each.
fn without_sync(captured: &Captured, connector_id: &str) -> String {
    let sync =
        format!("sync{{connector_id=~{connector_id} account_id=~acme sync_id=~sync-001}} > ");
    captured.lines().join("\n").replace(&sync, "")
}

#[tokio::test(start_paused = true)]
async fn a_run_is_logged_line_by_line() {
    let (captured, _guard) = captured();
    run_connector(&Varied, "acme", "sync-001", None)
        .await
        .unwrap();
    insta::assert_snapshot!(without_sync(&captured, "varied"), @r#"
    INFO Sync started connector_id=~varied sync_id=~sync-001
    step{step_id=~users} > INFO Step started connector_id=~varied sync_id=~sync-001 step_id=~users
    step{step_id=~roles} > INFO Step started connector_id=~varied sync_id=~sync-001 step_id=~roles
    step{step_id=~roles} > WARN Step retrying connector_id=~varied sync_id=~sync-001 step_id=~roles attempt=1 kind=~retryable error=~connection reset pause_ms=0
    step{step_id=~hosts} > INFO Step started connector_id=~varied sync_id=~sync-001 step_id=~hosts
    step{step_id=~roles} > DEBUG Step restarted connector_id=~varied sync_id=~sync-001 step_id=~roles attempt=2
    step{step_id=~roles} > WARN Step failed connector_id=~varied sync_id=~sync-001 step_id=~roles kind=~retryable error=~connection reset attempts=2 duration_ms=0
    WARN Step skipped connector_id=~varied sync_id=~sync-001 step_id=~grants kind=~dependency_failed error=~step roles did not complete
    step{step_id=~users} > INFO Step completed connector_id=~varied sync_id=~sync-001 step_id=~users entities=2 relationships=1 rejected=0 duration_ms=10
    step{step_id=~hosts} > DEBUG Step progress connector_id=~varied sync_id=~sync-001 step_id=~hosts entities=1 relationships=0
    step{step_id=~hosts} > WARN Records rejected connector_id=~varied sync_id=~sync-001 step_id=~hosts rule=~not_finite count=1 samples=~host "web-1": property load is not a finite number
    step{step_id=~hosts} > WARN Step incomplete connector_id=~varied sync_id=~sync-001 step_id=~hosts entities=1 relationships=0 rejected=1 duration_ms=1500 reason=~eu: page 2 timed out
    INFO Sync completed connector_id=~varied sync_id=~sync-001 entities=3 relationships=1 duration_ms=1500
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_a_rate_limit_held_up_says_how_long() {
    struct Slow(RateLimiter);
    impl Connector for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn steps(&self) -> Vec<Step<'_>> {
            let waits = move |ctx: StepContext| async move {
                self.0.until_ready(&ctx, ctx.step_id()).await?;
                self.0.until_ready(&ctx, ctx.step_id()).await?;
                match ctx.step_id() {
                    "fails" => Err(ConnectorError::fatal("no")),
                    "misses" => {
                        ctx.incomplete("page 2");
                        Ok(())
                    }
                    _ => Ok(()),
                }
            };
            vec![
                step("fails", "", waits),
                step("misses", "", waits),
                step("sees", "", waits),
            ]
        }
    }
    let (captured, _guard) = captured();
    let slow = Slow(RateLimiter::new(4, Duration::from_secs(1)));
    run_connector(&slow, "acme", "sync-001", None)
        .await
        .unwrap();
    let told = without_sync(&captured, "slow");
    let ends: Vec<_> = told.lines().filter(|line| line.contains("_ms=")).collect();
    insta::assert_snapshot!(ends.join("\n"), @"
    step{step_id=~fails} > WARN Step failed connector_id=~slow sync_id=~sync-001 step_id=~fails kind=~fatal error=~no throttled_ms=250 duration_ms=250
    step{step_id=~misses} > WARN Step incomplete connector_id=~slow sync_id=~sync-001 step_id=~misses entities=0 relationships=0 rejected=0 throttled_ms=250 duration_ms=250 reason=~page 2
    step{step_id=~sees} > INFO Step completed connector_id=~slow sync_id=~sync-001 step_id=~sees entities=0 relationships=0 rejected=0 throttled_ms=250 duration_ms=250
    INFO Sync completed connector_id=~slow sync_id=~sync-001 entities=0 relationships=0 duration_ms=250
    ");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_is_logged_to_its_end() {
    let (captured, _guard) = captured();
    let stop = sleep(Duration::from_millis(100));
    let result = Runner::new(&Varied)
        .cancel_on(stop)
        .run("acme", "sync-001")
        .await;
    assert!(matches!(result, Err(RunError::Cancelled { .. })));
    let lines = without_sync(&captured, "varied");
    let cancelled: Vec<_> = lines
        .lines()
        .filter(|line| line.contains("cancelled"))
        .collect();
    insta::assert_snapshot!(cancelled.join("\n"), @"
    WARN Step cancelled connector_id=~varied sync_id=~sync-001 step_id=~hosts kind=~cancelled error=~cancelled
    WARN Sync cancelled connector_id=~varied sync_id=~sync-001
    ");
}

/// One step that fails for good.
struct Refused;

impl Connector for Refused {
    fn name(&self) -> &str {
        "refused"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let refused = async |_| Err(ConnectorError::unauthorized("403"));
        vec![
            step("users", "", refused),
            step("grants", "", async |_| Ok(())).depends_on(["users"]),
        ]
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_failed_for_good_is_marked_as_failed() {
    let (captured, _guard) = captured();
    run_connector(&Varied, "acme", "sync-001", None)
        .await
        .unwrap();
    run_connector(&Refused, "acme", "sync-002", None)
        .await
        .unwrap();
    let stop = sleep(Duration::from_millis(100));
    let cancelled = Runner::new(&Varied).cancel_on(stop).run("acme", "sync-003");
    cancelled.await.unwrap_err();
    insta::assert_snapshot!(captured.marks().join("\n"), @r#"
    step{step_id=~roles} error.type="retryable"
    step{step_id=~roles} otel.status_code="ERROR"
    step{step_id=~users} error.type="unauthorized"
    step{step_id=~users} otel.status_code="ERROR"
    sync{connector_id=~refused account_id=~acme sync_id=~sync-002} error.type="no_step_completed"
    sync{connector_id=~refused account_id=~acme sync_id=~sync-002} otel.status_code="ERROR"
    step{step_id=~roles} error.type="retryable"
    step{step_id=~roles} otel.status_code="ERROR"
    sync{connector_id=~varied account_id=~acme sync_id=~sync-003} error.type="cancelled"
    sync{connector_id=~varied account_id=~acme sync_id=~sync-003} otel.status_code="ERROR"
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_run_has_one_last_line_wherever_it_is_dropped() {
    // With a receiver that reads nothing there is something to wait for after the steps.
    for is_watched in [false, true] {
        let (tx, _rx) = mpsc::channel(1);
        for polls in 0.. {
            let (captured, _guard) = captured();
            let events = is_watched.then_some(&tx);
            let mut run = Box::pin(run_connector(&Varied, "acme", "sync-001", events));
            let mut is_done = false;
            for _ in 0..polls {
                is_done = poll!(run.as_mut()).is_ready();
                tokio::time::advance(Duration::from_millis(50)).await;
            }
            drop(run);

            let lines = captured.lines();
            let is_last =
                |line: &&String| line.contains("INFO Sync c") || line.contains("WARN Sync");
            let last: Vec<_> = lines.iter().filter(is_last).collect();
            assert_eq!(last.len(), usize::from(polls > 0), "{lines:#?}");
            for line in last {
                let word = if is_done {
                    "INFO Sync completed"
                } else {
                    "WARN Sync cancelled"
                };
                assert!(line.contains(word), "after {polls}: {line}");
                assert_eq!(Some(line), lines.last());
            }
            if is_done {
                assert!(polls > 30);
                break;
            }
        }
    }
}

/// Logs wherever a connector can.
struct Talks;

impl Connector for Talks {
    fn name(&self) -> &str {
        "talks"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        tracing::info!("naming its steps");
        vec![
            step("early", "", |ctx| {
                tracing::info!("called");
                self.step(ctx)
            }),
            step("late", "", |ctx| self.step(ctx)).depends_on(["early"]),
            step("mute", "", async |_| Err(ConnectorError::fatal("no"))),
        ]
    }
}

impl Talks {
    async fn step(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        tracing::info!("listing");
        tokio::task::yield_now().await;
        sleep(Duration::from_millis(1)).await;
        ctx.emit(entity("host", "")).unwrap_err();
        tracing::info!("listed");
        Ok(())
    }
}

/// Checks that each line is under the caller's span, the sync's and, where there is one, the step's.
fn assert_nested(lines: &[String]) {
    let sync = "sync_run{connector=\"my-service\"} > \
                sync{connector_id=~talks account_id=~acme sync_id=~sync-001} > ";
    for line in lines {
        let rest = line.strip_prefix(sync).unwrap_or_else(|| panic!("{line}"));
        let of_sync = ["Sync", "naming"].iter().any(|word| rest.contains(word));
        let of_step = ["early", "late", "mute"]
            .iter()
            .find(|step_id| rest.starts_with(&format!("step{{step_id=~{step_id}}} > ")));
        assert_eq!(of_step.is_none(), of_sync, "{line}");
        if let Some(step_id) = of_step {
            let others = ["early", "late", "mute"]
                .iter()
                .filter(|other| *other != step_id);
            assert!(
                !others.into_iter().any(|other| rest.contains(other)),
                "{line}"
            );
        }
    }
    assert_eq!(lines.len(), 16, "{}", lines.join("\n"));
}

#[tokio::test]
async fn all_log_output_is_nested_under_the_callers_span() {
    let (captured, _guard) = captured();
    let span = info_span!("sync_run", connector = "my-service");
    let output = async move { run_connector(&Talks, "acme", "sync-001", None).await }
        .instrument(span)
        .await;
    assert!(output.is_ok());
    assert_nested(&captured.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_nest_in_a_spawned_task_on_any_thread() {
    let captured = Captured::default();
    let dispatch = captured.dispatch();
    let span = dispatcher::with_default(&dispatch, || {
        info_span!("sync_run", connector = "my-service")
    });
    let connector: Arc<dyn Connector> = Arc::new(Talks);
    let (tx, mut rx) = mpsc::channel(1);
    let watcher = tokio::spawn(async move { while rx.recv().await.is_some() {} });
    let run = async move { run_connector(&connector, "acme", "sync-001", Some(&tx)).await };
    let run = tokio::spawn(run.instrument(span).with_subscriber(dispatch));
    run.await.unwrap().unwrap();
    watcher.await.unwrap();
    assert_nested(&captured.lines());
}

#[tokio::test]
async fn rejected_records_are_grouped_under_the_span_of_their_step() {
    let (captured, _guard) = captured();
    struct Threads;
    impl Connector for Threads {
        fn name(&self) -> &str {
            "threads"
        }

        fn steps(&self) -> Vec<Step<'_>> {
            vec![step("hosts", "", async |ctx: StepContext| {
                let dispatch = dispatcher::get_default(Dispatch::clone);
                let thread = std::thread::spawn(move || {
                    dispatcher::with_default(&dispatch, || {
                        for key in ["", "a\nb", "c\0", "d\0", "e\0"] {
                            ctx.emit(entity("host", key)).unwrap_err();
                        }
                    });
                });
                thread.join().unwrap();
                Ok(())
            })]
        }
    }
    run_connector(&Threads, "acme", "sync-001", None)
        .await
        .unwrap();
    let lines = captured.lines();

    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("Records rejected"))
        .map(|line| line.split_once(" > ").unwrap().1)
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    step{step_id=~hosts} > WARN Records rejected connector_id=~threads sync_id=~sync-001 step_id=~hosts rule=~empty_key count=1 samples=~host "": a key is empty
    step{step_id=~hosts} > WARN Records rejected connector_id=~threads sync_id=~sync-001 step_id=~hosts rule=~control_in_key count=4 samples=~host "a\nb": key "a\nb" holds a control character; host "c\u{0}": key "c\u{0}" holds a control character; host "d\u{0}": key "d\u{0}" holds a control character
    "#);
}

/// Everything that can be said from outside, said with ill will.
struct Hostile;

const HOSTILE: &str = "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}";

impl Connector for Hostile {
    fn name(&self) -> &str {
        "hostile"
    }

    fn version(&self) -> &str {
        HOSTILE
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let emits = |id: &'static str, record: fn() -> Entity| {
            step(id, "", move |ctx| async move { Ok(ctx.emit(record())?) })
        };
        vec![
            step("fatal", HOSTILE, async |_| {
                Err(ConnectorError::fatal(HOSTILE))
            }),
            step("panic", "", async |_| panic!("{HOSTILE}")),
            emits("key", || entity("host", HOSTILE)),
            emits("type", || entity(HOSTILE, "a")),
            emits("name", || {
                entity("host", "a").property("\u{202e}", f64::NAN)
            }),
            step("limited", "", async |_| {
                Err(ConnectorError::RateLimited {
                    service: HOSTILE.to_owned(),
                    retry_after: Duration::ZERO,
                })
            })
            .retries(Retries::up_to(1)),
            step("missed", "", async |ctx: StepContext| {
                ctx.incomplete(HOSTILE);
                Ok(())
            }),
            step("scoped", "", async |ctx: StepContext| {
                ctx.scope(HOSTILE).incomplete(HOSTILE);
                ctx.scope("\u{202e}").complete();
                Ok(())
            }),
            step("open", "", async |ctx: StepContext| {
                let _ = ctx.scope("\u{202e}");
                Ok(())
            }),
        ]
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn outside_text_stays_one_line() {
    let buffer = Buffer::default();
    let plain = tracing_subscriber::fmt()
        .with_writer(buffer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false);
    let guard = dispatcher::set_default(&Dispatch::new(plain.finish()));
    let (tx, rx) = mpsc::channel(1);
    let runner = Runner::new(&Hostile).events(&tx);
    let output = runner.run("\u{202e}acme", "sync\u{202e}100").await.unwrap();
    drop((guard, tx, rx));
    assert!(output.undelivered_events() > 0);

    let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    for line in text.lines() {
        assert_eq!(line, parallax_core::escape(line));
    }
    // Without what is the same in every line.
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_once("}: ").unwrap().1)
        .filter(|line| !line.starts_with("Step started"))
        .map(|line| line.replace(r"connector_id=hostile sync_id=sync\u{202e}100 ", ""))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    Sync started connector_id=hostile sync_id=sync\u{202e}100
    Step failed step_id=fatal kind=fatal error=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} duration_ms=0
    Step failed step_id=panic kind=panicked error=panicked: a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} duration_ms=0
    Records rejected step_id=key rule=control_in_key count=1 samples=host "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}": key "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}" holds a control character
    Step failed step_id=key kind=emit error=step key: host "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}" was rejected: key "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}" holds a control character duration_ms=0
    Records rejected step_id=type rule=invalid_type count=1 samples=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} "a": type "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}" is not snake_case of at most 64 bytes
    Step failed step_id=type kind=emit error=step type: a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} "a" was rejected: type "a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}" is not snake_case of at most 64 bytes duration_ms=0
    Records rejected step_id=name rule=not_finite count=1 samples=host "a": property \u{202e} is not a finite number
    Step failed step_id=name kind=emit error=step name: host "a" was rejected: property \u{202e} is not a finite number duration_ms=0
    Step retrying step_id=limited attempt=1 kind=rate_limited error=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} asked for a pause of 0ns pause_ms=0
    Step incomplete step_id=missed entities=0 relationships=0 rejected=0 duration_ms=0 reason=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}
    Step incomplete step_id=scoped entities=0 relationships=0 rejected=0 duration_ms=0 reason=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0}: its name is not 1 to 256 bytes without control characters
    Step incomplete step_id=open entities=0 relationships=0 rejected=0 duration_ms=0 reason=\u{202e}: was not completed
    Step failed step_id=limited kind=rate_limited error=a\r\nb\u{1b}[31m\u{9b}31m\u{202e}gpj\u{2028}\u{0} asked for a pause of 0ns attempts=2 duration_ms=0
    Events not taken by their receiver undelivered=19
    Sync completed entities=0 relationships=0 duration_ms=0
    "#);
}

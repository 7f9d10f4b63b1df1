use std::fmt::Write;
use std::sync::Weak;
use std::time::Duration;

use futures::FutureExt;
use parallax_core::{RecordKind, Sink, SyncReport};
use tokio::time::sleep;

use super::*;
use crate::scripted::Given;
use crate::{
    ConnectorOutput, Retries, RunError, Runner, Step, entity, relationship, run_connector, step,
};

/// Runs one step that does something and returns `Ok`.
async fn run_one(act: fn(&StepContext)) -> ConnectorOutput {
    let given = Given(move || {
        vec![step("hosts", "", move |ctx| async move {
            act(&ctx);
            Ok(())
        })]
    });
    run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap()
}

/// Tells what a report says of each step and scope.
fn told(report: &SyncReport) -> String {
    let mut text = String::new();
    for step in report.steps() {
        write!(text, "{}: {}", step.step_id, step.status.as_str()).unwrap();
        write!(text, ", {} + {}", step.entities, step.relationships).unwrap();
        let (entities, relationships) = (step.entities_rejected, step.relationships_rejected);
        if entities + relationships > 0 {
            write!(text, " ({entities} + {relationships} rejected)").unwrap();
        }
        if step.all_scopes_listed {
            text += ", no other scopes";
        }
        if let Some(error) = &step.error {
            write!(text, ", {error}").unwrap();
        }
        for reason in &step.incomplete {
            write!(text, "\n  {reason}").unwrap();
        }
        for scope in &step.scopes {
            let state = if scope.complete { "complete" } else { "open" };
            write!(text, "\n  {}: {state}", scope.name).unwrap();
            for reason in &scope.incomplete {
                write!(text, "\n    {reason}").unwrap();
            }
        }
        text += "\n";
    }
    text
}

#[tokio::test]
async fn scopes_are_complete_when_the_step_says_so_and_nothing_speaks_against_it() {
    let output = run_one(|ctx| {
        let [eu, us, asia, africa] = ["eu", "us", "asia", "africa"].map(|name| ctx.scope(name));
        eu.emit(entity("host", "a")).unwrap();
        eu.complete();
        us.incomplete("page 2 timed out");
        us.complete();
        asia.complete();
        asia.emit(entity("host", "")).unwrap_err();
        // The same name is the same scope, and a scope of a scope is one of the step.
        africa
            .scope("europe")
            .scope("eu")
            .emit(entity("host", "b"))
            .unwrap();
        // Says nothing, on a context without scope.
        ctx.complete();
    })
    .await;
    insta::assert_snapshot!(told(output.report()), @r#"
    hosts: incomplete, 3 + 0 (1 + 0 rejected)
      eu: complete
      us: open
        page 2 timed out
      asia: open
        rejected host "": a key is empty
      africa: open
      europe: open
    "#);
    let scopes = output.batches()[0][0].emissions(RecordKind::Entity);
    assert!(scopes.map(|emission| emission.scope).eq([Some(0), Some(0)]));

    let output = run_one(|ctx| {
        ctx.scope("eu").complete();
        ctx.all_scopes_listed();
    })
    .await;
    insta::assert_snapshot!(told(output.report()), @"
    hosts: completed, 0 + 0, no other scopes
      eu: complete
    ");
}

#[tokio::test]
async fn a_rejected_record_leaves_the_step_complete_only_if_its_id_is_known() {
    let output = run_one(|ctx| {
        ctx.emit(entity("host", "a").property("load", f64::NAN))
            .unwrap_err();
        ctx.emit(relationship(("host", "a"), "RUNS", ("service", "b")).property("", 1))
            .unwrap_err();
    })
    .await;
    insta::assert_snapshot!(told(output.report()), @"hosts: completed, 1 + 1 (1 + 1 rejected)");
    // Noted, so that what is stored of them is not taken for gone.
    let batch = &output.batches()[0][0];
    assert_eq!(
        RecordKind::ALL.map(|kind| batch.emissions(kind).len()),
        [1, 1]
    );
    assert_eq!(
        (output.entities().count(), output.relationships().count()),
        (0, 0)
    );

    let output = run_one(|ctx| {
        ctx.emit(entity("host", "")).unwrap_err();
        ctx.emit(relationship(("host", "a"), "runs", ("service", "b")))
            .unwrap_err();
        ctx.scope("eu").emit(entity("host", "\0")).unwrap_err();
    })
    .await;
    insta::assert_snapshot!(told(output.report()), @r#"
    hosts: incomplete, 2 + 1 (2 + 1 rejected)
      rejected host "": a key is empty
      rejected host "a" runs service "b": verb "runs" is not SCREAMING_SNAKE of at most 64 bytes
      eu: open
        rejected host "\u{0}": key "\u{0}" holds a control character
    "#);
}

#[tokio::test]
async fn emit_says_what_is_wrong_with_which_record_of_which_step() {
    let given = Given(|| {
        vec![step("hosts", "", async |ctx: StepContext| {
            Ok(ctx.emit(entity("host", "a").class("web host"))?)
        })]
    });
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    insta::assert_snapshot!(told(output.report()), @r#"hosts: failed, 0 + 0, step hosts: host "a" was rejected: class "web host" is not PascalCase of at most 64 bytes"#);
}

#[tokio::test]
async fn reasons_are_few_and_short() {
    let output = run_one(|ctx| {
        for n in 0..10_000 {
            ctx.incomplete(format!("{n}\n{}", "x".repeat(10_000)));
            ctx.scope("eu").incomplete(n);
        }
    })
    .await;
    let text = told(output.report()).replace(&"x".repeat(298), "x…298…x");
    insta::assert_snapshot!(text, @r"
    hosts: incomplete, 0 + 0
      0\nx…298…x…
      1\nx…298…x…
      2\nx…298…x…
      eu: open
        0
        1
        2
    ");
}

#[tokio::test]
async fn a_scope_whose_name_is_not_valid_cannot_be_completed() {
    let output = run_one(|ctx| {
        for name in ["", "a\nb", &"x".repeat(257), &"\u{1b}".repeat(1_000)] {
            let scope = ctx.scope(name);
            scope.emit(entity("host", "a")).unwrap();
            scope.complete();
        }
        // Looks like one of those: better both are open than one deletes what is the other's.
        ctx.scope(r"a\nb").complete();
        ctx.scope("Ünïcode 1").complete();
    })
    .await;
    let report = output.report();
    insta::assert_snapshot!(told(report).replace("\u{5c}u{1b}", "␛"), @r"
    hosts: incomplete, 4 + 0
      : open
        its name is not 1 to 256 bytes without control characters
      a\nb: open
        its name is not 1 to 256 bytes without control characters
      xxxxxxxxxxxxxxxxxxxxxxxx…: open
        its name is not 1 to 256 bytes without control characters
      ␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛␛…: open
        its name is not 1 to 256 bytes without control characters
      Ünïcode 1: complete
    ");
    assert!(
        report.steps()[0]
            .scopes
            .iter()
            .all(|scope| scope.name.len() <= 256)
    );
}

#[tokio::test]
async fn a_context_knows_its_run() {
    run_one(|ctx| {
        let known = [
            ctx.connector_id(),
            ctx.account_id(),
            ctx.sync_id(),
            ctx.step_id(),
        ];
        assert_eq!(known, ["given", "acme", "sync-001", "hosts"]);
        assert_eq!(
            format!("{ctx:?}"),
            r#"StepContext { step_id: "hosts", scope: None, .. }"#
        );
    })
    .await;
}

#[tokio::test]
async fn what_the_tasks_and_threads_of_a_step_emit_counts() {
    let given = Given(|| {
        vec![step("hosts", "", async |ctx: StepContext| {
            let emit = |ctx: StepContext, name: &'static str| {
                move || {
                    for n in 0..1_000 {
                        ctx.emit(entity("host", format!("{name}-{n}"))).unwrap();
                    }
                }
            };
            let thread = std::thread::spawn(emit(ctx.clone(), "thread"));
            let blocking = tokio::task::spawn_blocking(emit(ctx.clone(), "blocking"));
            let task = emit(ctx.clone(), "task");
            let task = tokio::spawn(async move { task() });
            emit(ctx, "step")();
            task.await.unwrap();
            blocking.await.unwrap();
            thread.join().unwrap();
            Ok(())
        })]
    });
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    assert_eq!(output.entities().count(), 4_000);
    assert_eq!(output.report().steps()[0].entities, 4_000);
}

/// A step that ends in some way, of which a context is left behind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Ok,
    Error,
    Panic,
    Cancelled,
    Dropped,
}

#[tokio::test(start_paused = true)]
async fn nothing_is_emitted_after_the_end() {
    for way in [
        Way::Ok,
        Way::Error,
        Way::Panic,
        Way::Cancelled,
        Way::Dropped,
    ] {
        let left_behind = Arc::new(Mutex::new(None));
        let leave = Arc::clone(&left_behind);
        let steps = move || -> Vec<Step<'static>> {
            let leave = Arc::clone(&leave);
            vec![step("hosts", "", move |ctx: StepContext| {
                // A task that outlives its step, and the run.
                let outlives = ctx.clone();
                let late = tokio::spawn(async move {
                    outlives.emit(entity("host", "early"))?;
                    sleep(Duration::from_secs(60)).await;
                    outlives.scope("eu").complete();
                    outlives.scope("eu").emit(entity("host", "late"))
                });
                *leave.lock().unwrap() = Some((ctx, late));
                async move {
                    sleep(Duration::from_secs(1)).await;
                    match way {
                        Way::Ok => Ok(()),
                        Way::Error => Err(ConnectorError::fatal("no")),
                        Way::Panic => panic!("no"),
                        Way::Cancelled | Way::Dropped => std::future::pending().await,
                    }
                }
            })]
        };
        let sink = Recorder::default();
        let given = Given(steps);
        let mut runner = Runner::new(&given).sink(&sink);
        if way == Way::Cancelled {
            runner = runner.cancel_on(sleep(Duration::from_secs(5)));
        }
        let mut run = Box::pin(runner.run("acme", "sync-001"));
        let limit = sleep(Duration::from_secs(10));
        let result = tokio::select! {
            result = &mut run => Some(result),
            () = limit => None,
        };
        drop(run);
        assert_eq!(result.is_none(), way == Way::Dropped);
        assert_eq!(
            sink.calls(),
            if way == Way::Ok {
                "open 0, write 0, finish 0"
            } else {
                "open 0, discard 0"
            },
            "{way:?}"
        );

        let (ctx, late) = left_behind.lock().unwrap().take().unwrap();
        let closed = EmitError::Closed {
            step_id: "hosts".to_owned(),
        };
        assert_eq!(
            ctx.emit(entity("host", "b")),
            Err(closed.clone()),
            "{way:?}"
        );
        assert_eq!(
            ctx.scope("us").emit(entity("host", "b")),
            Err(closed.clone())
        );
        ctx.incomplete("too late");
        ctx.all_scopes_listed();
        assert_eq!(late.await.unwrap(), Err(closed), "{way:?}");
        if let Some(Ok(output)) = result {
            let step = &output.report().steps()[0];
            assert_eq!(step.entities, u64::from(way == Way::Ok));
            assert!(step.scopes.is_empty() && !step.all_scopes_listed);
        }
    }
}

/// Notes what a sink is asked, keeps nothing, and fails when it is told to.
#[derive(Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    batches: Arc<Mutex<Vec<Weak<Batch>>>>,
    /// How many batches each attempt takes before it fails.
    takes: Option<usize>,
    cannot_finish: bool,
}

impl Recorder {
    fn calls(&self) -> String {
        self.calls.lock().unwrap().join(", ")
    }

    /// How many of the batches are still held by someone.
    fn held(&self) -> usize {
        let batches = self.batches.lock().unwrap();
        batches
            .iter()
            .filter(|batch| batch.strong_count() > 0)
            .count()
    }
}

struct RecordedAttempt {
    step: usize,
    calls: Arc<Mutex<Vec<String>>>,
    batches: Arc<Mutex<Vec<Weak<Batch>>>>,
    takes: Option<usize>,
    cannot_finish: bool,
    is_finished: bool,
}

impl Sink for Recorder {
    fn open(&self, step: usize) -> Box<dyn Attempt> {
        self.calls.lock().unwrap().push(format!("open {step}"));
        Box::new(RecordedAttempt {
            step,
            calls: Arc::clone(&self.calls),
            batches: Arc::clone(&self.batches),
            takes: self.takes,
            cannot_finish: self.cannot_finish,
            is_finished: false,
        })
    }
}

impl RecordedAttempt {
    fn note(&self, call: &str) {
        self.calls
            .lock()
            .unwrap()
            .push(format!("{call} {}", self.step));
    }
}

impl Attempt for RecordedAttempt {
    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError> {
        self.note("write");
        self.batches.lock().unwrap().push(Arc::downgrade(&batch));
        match &mut self.takes {
            Some(0) => Err(ConnectorError::retryable("disk full")),
            takes => {
                takes.iter_mut().for_each(|takes| *takes -= 1);
                Ok(())
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConnectorError> {
        self.note("finish");
        self.is_finished = true;
        match self.cannot_finish {
            true => Err(ConnectorError::fatal("store closed")),
            false => Ok(()),
        }
    }
}

impl Drop for RecordedAttempt {
    fn drop(&mut self) {
        if !self.is_finished {
            self.note("discard");
        }
    }
}

/// A step that emits more than one batch, and does or does not care for the errors.
fn many(cares: bool) -> Given<impl Fn() -> Vec<Step<'static>>> {
    Given(move || {
        let many = step("many", "", move |ctx: StepContext| async move {
            for n in 0..20_000 {
                let emitted = ctx.emit(entity("host", n));
                if cares {
                    emitted?;
                }
            }
            Ok(())
        });
        vec![
            many,
            step("none", "", async |_| Ok(())),
            step("next", "", async |_| Ok(())).reads(["many"]),
        ]
    })
}

#[tokio::test]
async fn a_sink_that_fails_fails_the_step_whether_it_cares_or_not() {
    for cares in [true, false] {
        for takes in 0.. {
            let sink = Recorder {
                takes: Some(takes),
                ..Recorder::default()
            };
            let given = many(cares);
            let output = Runner::new(&given)
                .sink(&sink)
                .retries(Retries::up_to(0))
                .run("acme", "sync-001")
                .await
                .unwrap();
            let report = output.report();
            let writes = sink.calls().matches("write 0").count();
            if sink.calls().contains("finish 0") {
                assert!(takes > 3 && writes == takes && report.is_complete());
                break;
            }
            assert_eq!(writes, takes + 1, "nothing is written after the failure");
            assert!(sink.calls().contains("discard 0"));
            insta::allow_duplicates! {
                insta::assert_snapshot!(told(report), @"
                many: failed, 0 + 0, disk full
                none: completed, 0 + 0
                next: skipped, 0 + 0, step many did not complete
                ");
            }
            assert!(report.steps()[0].error.as_ref().unwrap().is_retryable());
        }
    }
}

#[tokio::test]
async fn a_sink_that_cannot_finish_fails_the_step() {
    let sink = Recorder {
        cannot_finish: true,
        ..Recorder::default()
    };
    let given = many(true);
    let output = Runner::new(&given)
        .sink(&sink)
        .run("acme", "sync-001")
        .await
        .unwrap();
    insta::assert_snapshot!(told(output.report()), @"
    many: failed, 0 + 0, store closed
    none: failed, 0 + 0, store closed
    next: skipped, 0 + 0, step many did not complete
    ");
}

#[tokio::test]
async fn a_panic_in_a_sink_fails_the_step_that_writes() {
    struct Panics;
    impl Sink for Panics {
        fn open(&self, _: usize) -> Box<dyn Attempt> {
            Box::new(Panics)
        }
    }
    impl Attempt for Panics {
        fn write(&mut self, _: Arc<Batch>) -> Result<(), ConnectorError> {
            panic!("no disk")
        }

        fn finish(self: Box<Self>) -> Result<(), ConnectorError> {
            Ok(())
        }
    }
    let given = many(true);
    let output = Runner::new(&given)
        .sink(&Panics)
        .run("acme", "sync-001")
        .await
        .unwrap();
    insta::assert_snapshot!(told(output.report()), @"
    many: failed, 0 + 0, panicked: no disk
    none: completed, 0 + 0
    next: skipped, 0 + 0, step many did not complete
    ");
}

#[tokio::test(start_paused = true)]
async fn what_a_step_emitted_is_freed_with_its_last_reader() {
    let sink = Arc::new(Recorder::default());
    let held = Arc::new(Mutex::new(Vec::new()));
    let steps = {
        let (sink, held) = (Arc::clone(&sink), Arc::clone(&held));
        move || {
            let (sink, held) = (Arc::clone(&sink), Arc::clone(&held));
            let waits = |id: &'static str, seconds| {
                step(id, "", move |ctx: StepContext| async move {
                    sleep(Duration::from_secs(seconds)).await;
                    assert_eq!(ctx.prior().entities("host").count() as u64, seconds % 2);
                    Ok(())
                })
            };
            vec![
                step("hosts", "", async |ctx: StepContext| {
                    Ok(ctx.emit(entity("host", "a"))?)
                }),
                waits("disks", 1).reads(["hosts"]),
                waits("ports", 3).reads(["hosts"]),
                // Depends on it, but does not read it.
                waits("owners", 6).depends_on(["hosts"]),
                step("watch", "", move |_| {
                    let (sink, held) = (Arc::clone(&sink), Arc::clone(&held));
                    async move {
                        for _ in 0..5 {
                            sleep(Duration::from_millis(990)).await;
                            held.lock().unwrap().push(sink.held());
                        }
                        Ok(())
                    }
                }),
            ]
        }
    };
    let given = Given(steps);
    let output = Runner::new(&given)
        .sink(&*sink)
        .run("acme", "sync-001")
        .await
        .unwrap();
    assert!(output.report().is_complete(), "{}", told(output.report()));
    assert_eq!(*held.lock().unwrap(), [1, 1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_is_left_to_read_is_not_kept() {
    // The reader is skipped, or was not selected.
    for selected in [&[] as &[&str], &["hosts", "long"]] {
        let sink = Recorder::default();
        let given = Given(|| {
            vec![
                step("fails", "", async |_| Err(ConnectorError::fatal("no"))),
                step("hosts", "", async |ctx: StepContext| {
                    sleep(Duration::from_secs(1)).await;
                    Ok(ctx.emit(entity("host", "a"))?)
                }),
                step("disks", "", async |_| Ok(())).reads(["hosts", "fails"]),
                step("long", "", async |_| std::future::pending().await),
            ]
        });
        let runner = Runner::new(&given).sink(&sink);
        let mut run = Box::pin(
            runner
                .select(selected.iter().copied())
                .run("acme", "sync-001"),
        );
        let held = tokio::select! {
            _ = &mut run => unreachable!(),
            () = sleep(Duration::from_secs(2)) => sink.held(),
        };
        assert_eq!(held, 0, "{selected:?}");
    }
}

#[test]
fn a_run_and_its_contexts_can_go_anywhere() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_everything<T: Clone + Send + Sync + 'static>() {}
    is_everything::<StepContext>();
    let given = Given(Vec::new);
    let run = is_send(
        Runner::new(&given)
            .cancel_on(async {})
            .run("acme", "sync-001"),
    );
    assert!(matches!(run.now_or_never(), Some(Err(RunError::Graph(_)))));
}

use parallax_core::{ConnectorError, StepStatus};
use tokio::sync::mpsc;

use super::*;
use crate::scripted::{End, Kept, Script, Scripted, hear, lines, script, story};
use crate::{JournalEntry, StepContext, step};

mod journal;
mod law;
mod policy;

#[tokio::test(start_paused = true)]
async fn failed_step_leaves_its_siblings_running() {
    let (story, output) = story(&Scripted::new([
        script("users").lasts(10).emits(2, 1),
        script("roles").lasts(20).emits(5, 0).ends(End::Error),
        script("grants").after(["users", "roles"]),
        script("audit").after(["grants"]),
        script("hosts")
            .lasts(30)
            .after(["users"])
            .ends(End::Incomplete),
    ]))
    .await;
    insta::assert_snapshot!(story, @"
    started
    users: started
    roles: started
    users: completed, 2 + 1, 10ms
    hosts: started
    roles: failed, out of luck
    grants: failed, step roles did not complete
    audit: failed, step grants did not complete
    hosts: completed, 0 + 0, 30ms
    completed
    ");
    let report = output.report();
    let statuses: Vec<_> = report
        .steps()
        .iter()
        .map(|step| step.status.as_str())
        .collect();
    assert_eq!(
        statuses,
        ["completed", "failed", "skipped", "skipped", "incomplete"]
    );
    assert_eq!(output.entities().count(), 2);
    assert_eq!(output.relationships().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn any_panic_fails_its_step_only() {
    struct Sore;
    impl Drop for Sore {
        fn drop(&mut self) {
            panic!("and again");
        }
    }
    struct Panics;
    impl Connector for Panics {
        fn name(&self) -> &str {
            "panics"
        }

        fn steps(&self) -> Vec<Step<'_>> {
            vec![
                step("str", "", async |_| panic!("a\nb")),
                step("string", "", async |_| panic!("{}", "c".repeat(1_000))),
                step("number", "", async |_| std::panic::panic_any(7)),
                step("sore", "", async |_| std::panic::panic_any(Sore)),
                step("early", "", |_| -> future::Ready<_> {
                    panic!("before its future")
                }),
                step("late", "", async |_: StepContext| {
                    sleep(Duration::from_secs(1)).await;
                    panic!("after an await")
                }),
                step("fine", "", async |_| Ok(())),
            ]
        }
    }
    let (story, _) = story(&Panics).await;
    insta::assert_snapshot!(story.replace(&"c".repeat(300), "c…300…c"), @r"
    started
    str: started
    str: failed, panicked: a\nb
    string: started
    string: failed, panicked: c…300…c…
    number: started
    number: failed, panicked: no message
    sore: started
    sore: failed, panicked: no message
    early: started
    early: failed, panicked: before its future
    late: started
    fine: started
    fine: completed, 0 + 0, 0ns
    late: failed, panicked: after an await
    completed
    ");
}

#[tokio::test(start_paused = true)]
async fn a_step_waits_for_those_it_depends_on_and_for_no_other() {
    let started = Instant::now();
    run_all([
        script("a").lasts(10),
        script("b").lasts(100).after(["a"]),
        script("c").lasts(100),
        script("d").lasts(10).after(["c"]),
    ])
    .await;
    // By waves of {a, c} and {b, d} it would be 200 ms.
    assert_eq!(started.elapsed(), Duration::from_millis(110));
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_run_at_a_time_than_the_limit() {
    for (limit, millis, most) in [
        (0, 100, 1),
        (1, 100, 1),
        (3, 40, 3),
        (10, 10, 10),
        (64, 10, 10),
    ] {
        let started = Instant::now();
        let scripted = Scripted::new((0..10).map(|n| script(format!("s{n}")).lasts(10)));
        let runner = Runner::new(&scripted).concurrency(limit);
        runner.run("acme", "sync-001").await.unwrap();
        assert_eq!(
            started.elapsed(),
            Duration::from_millis(millis),
            "limit {limit}"
        );
        assert_eq!(scripted.most_running(), most, "limit {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn wide_and_deep_graphs_finish() {
    let id = |n: usize| format!("s{n}");
    let wide = (0..10_000).map(|n| script(id(n)));
    assert!(run_all(wide).await.report().is_complete());
    let deep = (0..2_000).map(|n| script(id(n)).after((n > 0).then(|| id(n - 1))));
    assert!(run_all(deep).await.report().is_complete());
    let fan_in = script("last").after((0..10_000).map(id));
    let fan_in = (0..10_000).map(|n| script(id(n))).chain([fan_in]);
    assert!(run_all(fan_in).await.report().is_complete());
    let fan_out = (0..10_000).map(|n| script(id(n)).after((n > 0).then(|| id(0))));
    assert!(run_all(fan_out).await.report().is_complete());
}

async fn run_all(scripts: impl IntoIterator<Item = Script>) -> ConnectorOutput {
    let scripted = Scripted::new(scripts);
    run_connector(&scripted, "acme", "sync-001", None)
        .await
        .unwrap()
}

/// Runs ten steps of one second with a receiver, and returns how long the run took beyond that.
async fn delay_of(
    capacity: usize,
    receive: impl AsyncFnOnce(mpsc::Receiver<SyncEvent>),
) -> (Duration, u64) {
    let scripted = Scripted::new((0..10).map(|n| script(format!("s{n}")).lasts(1_000)));
    let (tx, rx) = mpsc::channel(capacity);
    let started = Instant::now();
    let run = async {
        let output = run_connector(&scripted, "acme", "sync-001", Some(&tx))
            .await
            .unwrap();
        (
            started.elapsed() - Duration::from_secs(1),
            output.undelivered_events(),
        )
    };
    let mut run = pin!(run.fuse());
    let mut receive = pin!(receive(rx).fuse());
    loop {
        futures::select! {
            delay = run => return delay,
            () = receive => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_waited_for_as_long_as_it_takes_something() {
    async fn every(millis: u64, mut rx: mpsc::Receiver<SyncEvent>) {
        loop {
            sleep(Duration::from_millis(millis)).await;
            rx.recv().await;
        }
    }
    // 22 events in all.
    let reads = async |rx| drop(hear(rx).await);
    assert_eq!(delay_of(1, reads).await, (Duration::ZERO, 0));
    let sleeps = async |rx| pending_with(rx).await;
    assert_eq!(delay_of(2, sleeps).await, (Duration::from_millis(250), 20));
    assert_eq!(delay_of(100, sleeps).await, (Duration::ZERO, 0));
    assert_eq!(
        delay_of(1, async |rx| every(400, rx).await).await,
        (Duration::from_millis(450), 18)
    );
    let leaves = async |rx| drop(rx);
    assert_eq!(delay_of(1, leaves).await, (Duration::ZERO, 0));
    let leaves_late = async |rx| {
        sleep(Duration::from_millis(1_100)).await;
        drop(rx);
    };
    assert_eq!(
        delay_of(1, leaves_late).await,
        (Duration::from_millis(100), 0)
    );

    // Slow, but never too slow: of 102 events, one every 199 ms.
    let scripted = Scripted::new((0..50).map(|n| script(format!("s{n}"))));
    let (tx, rx) = mpsc::channel(1);
    let slow = tokio::spawn(every(199, rx));
    let started = Instant::now();
    let output = run_connector(&scripted, "acme", "sync-001", Some(&tx))
        .await
        .unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(output.undelivered_events(), 102 - 1 - 25);
    slow.abort();
}

async fn pending_with<T>(held: T) {
    future::pending::<()>().await;
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_start_sends_nothing() {
    struct Odd(&'static str, fn() -> Vec<Step<'static>>);
    impl Connector for Odd {
        fn name(&self) -> &str {
            self.0
        }

        fn steps(&self) -> Vec<Step<'_>> {
            self.1()
        }
    }
    let good = || vec![step("a", "", async |_: StepContext| Ok(()))];
    let cases: [(Odd, &str, &str); 9] = [
        (Odd("odd", Vec::new), "acme", "sync-001"),
        (
            Odd("odd", || vec![step("a", "", async |_| Ok(())).reads(["a"])]),
            "acme",
            "sync-001",
        ),
        (
            Odd("odd", || vec![step("a b", "", async |_| Ok(()))]),
            "acme",
            "sync-001",
        ),
        (Odd("odd", || panic!("no\nconfig")), "acme", "sync-001"),
        (Odd("Odd", good), "acme", "sync-001"),
        (Odd("", good), "acme", "sync-001"),
        (Odd("odd", good), "", "sync-001"),
        (Odd("odd", good), "a\nb", "sync-001"),
        (Odd("odd", good), "acme", "\u{1b}[31m"),
    ];
    let mut errors = Vec::new();
    for (connector, account_id, sync_id) in cases {
        let (tx, mut rx) = mpsc::channel(1);
        let result = run_connector(&connector, account_id, sync_id, Some(&tx)).await;
        errors.push(result.unwrap_err().to_string());
        assert!(rx.try_recv().is_err());
    }
    insta::assert_snapshot!(errors.join("\n"), @r#"
    the connector has no steps
    steps depend on each other: a -> a
    step id "a b" is not of the form [a-z0-9_.-]{1,64}
    the connector panicked while naming its steps: no\nconfig
    connector name "Odd" is not of the form [a-z0-9_.-]{1,64}
    connector name "" is not of the form [a-z0-9_.-]{1,64}
    account "" is not 1 to 256 bytes without control characters
    account "a\nb" is not 1 to 256 bytes without control characters
    sync id "\u{1b}[31m" is not 1 to 256 bytes without control characters
    "#);
}

#[test]
fn a_run_without_a_timer_is_refused() {
    let scripted = Scripted::new([script("a")]);
    let mut run = run_connector(&scripted, "acme", "sync-001", None).boxed();
    let refused = run.as_mut().now_or_never().unwrap();
    assert!(matches!(refused, Err(RunError::NoTimer)));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let refused = runtime.block_on(run_connector(&scripted, "acme", "sync-001", None));
    assert!(matches!(refused, Err(RunError::NoTimer)));
    assert!(scripted.times().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_reports_what_was_done() {
    let scripted = Scripted::new([
        script("users").lasts(10).emits(2, 0),
        script("roles").lasts(10).ends(End::Error),
        script("grants").after(["roles"]),
        script("hosts").ends(End::Hang),
        script("disks").after(["hosts"]),
    ]);
    let (tx, rx) = mpsc::channel(1);
    let heard = tokio::spawn(hear(rx));
    let runner = Runner::new(&scripted).events(&tx);
    let result = runner
        .cancel_on(sleep(Duration::from_millis(15)))
        .run("acme", "sync-001")
        .await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "the run was cancelled");
    let RunError::Cancelled { report } = error else {
        panic!()
    };
    let statuses: Vec<_> = report
        .steps()
        .iter()
        .map(|step| step.status.as_str())
        .collect();
    assert_eq!(
        statuses,
        ["completed", "failed", "skipped", "cancelled", "cancelled"]
    );
    assert_eq!(scripted.running(), 0);
    drop(tx);
    insta::assert_snapshot!(lines(&heard.await.unwrap()), @"
    started
    users: started
    roles: started
    hosts: started
    users: completed, 2 + 0, 10ms
    roles: failed, out of luck
    grants: failed, step roles did not complete
    hosts: failed, cancelled
    disks: failed, cancelled
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_before_it_begins_starts_no_step() {
    let scripted = Scripted::new([script("users")]);
    let runner = Runner::new(&scripted).cancel_on(future::ready(()));
    let result = runner.run("acme", "sync-001").await;
    assert!(matches!(result, Err(RunError::Cancelled { .. })));
    assert!(scripted.times().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_run_that_is_dropped() {
    let scripted = || {
        Scripted::new([
            script("users").lasts(10).emits(2, 0),
            script("roles").lasts(20).ends(End::PanicLater),
            script("grants").after(["users"]).lasts(30),
            script("audit").after(["roles"]),
            script("hosts").lasts(5).after(["grants"]),
        ])
    };
    for polls in 0.. {
        let scripted = scripted();
        let (tx, rx) = mpsc::channel(1);
        let heard = tokio::spawn(hear(rx));
        let mut run = Box::pin(run_connector(&scripted, "acme", "sync-001", Some(&tx)));
        let mut is_done = false;
        for _ in 0..polls {
            is_done = futures::poll!(run.as_mut()).is_ready();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let was_running = scripted.running();
        drop(run);
        assert_eq!(scripted.running(), 0);

        drop(tx);
        let heard = lines(&heard.await.unwrap());
        assert_eq!(heard.ends_with("completed"), is_done, "{heard}");
        assert_eq!(heard.is_empty(), polls == 0);
        assert!(polls > 1 || heard.lines().count() <= 2);
        if is_done {
            // One a millisecond.
            assert!(polls > 45, "{polls}");
            break;
        }
        assert_eq!(was_running > 0, (1..=45).contains(&polls), "after {polls}");
    }
}

/// The forms of the contract, each from inside a spawned task.
#[tokio::test]
async fn every_form_of_a_connector_runs() {
    fn scripted() -> Scripted {
        Scripted::new([script("users").emits(1, 0)])
    }
    let (tx, rx) = mpsc::channel(100);
    let heard = tokio::spawn(hear(rx));
    let mut runs = tokio::task::JoinSet::new();

    let connector = scripted();
    let events = tx.clone();
    runs.spawn(
        async move { run_connector(&connector, "account", "sync-001", Some(&events)).await },
    );
    let connector: Arc<dyn Connector> = Arc::new(scripted());
    let events = tx.clone();
    runs.spawn(
        async move { run_connector(&connector, "account", "sync-001", Some(&events)).await },
    );
    let connector: Box<dyn Connector> = Box::new(scripted());
    runs.spawn(async move { run_connector(&connector, "account", "sync-001", Some(&tx)).await });
    let connector: Arc<dyn Connector> = Arc::new(scripted());
    runs.spawn(async move { run_connector(&*connector, "account", "sync-001", None).await });
    let connector = scripted();
    runs.spawn(async move {
        let by_reference: &dyn Connector = &connector;
        run_connector(by_reference, "account", "sync-001", None).await?;
        run_connector(&by_reference, "account", "sync-001", None).await
    });

    for output in runs.join_all().await {
        let output = output.unwrap();
        assert_eq!(output.entities().count(), 1);
        let run = output.run();
        assert_eq!(run.connector_id, "scripted");
        assert_eq!(run.account_id, "account");
        assert_eq!(run.sync_id, "sync-001");
    }
    assert_eq!(heard.await.unwrap().len(), 3 * 4);
}

#[tokio::test]
async fn steps_that_borrow_nothing_stand_beside_those_that_do() {
    fn common() -> Vec<Step<'static>> {
        vec![step("common", "", async |_| Ok(()))]
    }
    struct Mixed(String);
    impl Connector for Mixed {
        fn name(&self) -> &str {
            &self.0
        }

        fn steps(&self) -> Vec<Step<'_>> {
            let mut steps = common();
            steps.push(step("own", "", |ctx| self.own(ctx)));
            steps
        }
    }
    impl Mixed {
        async fn own(&self, ctx: StepContext) -> Result<(), ConnectorError> {
            ctx.emit(crate::entity("name", &self.0))?;
            Ok(())
        }
    }
    let output = run_connector(&Mixed("mixed".to_owned()), "acme", "sync-001", None)
        .await
        .unwrap();
    assert_eq!(output.entities().count(), 1);
}

#[tokio::test]
async fn runs_are_numbered_in_the_order_of_their_start() {
    let run = || run_all([script("users")]);
    let (first, second) = (run().await, run().await);
    assert!(first.run().run_no < second.run().run_no);
}

#[test]
fn outline_starts_nothing_and_finds_what_a_run_would() {
    struct Untouchable;
    impl Connector for Untouchable {
        fn name(&self) -> &str {
            "untouchable"
        }

        fn steps(&self) -> Vec<Step<'_>> {
            vec![
                step("a", "Collect a", async |_| panic!("was touched")),
                step("b", "Collect b", async |_| panic!("was touched")).depends_on(["a"]),
            ]
        }
    }
    let runner = Runner::new(&Untouchable);
    let report = runner.outline("acme", "s-1").unwrap();
    let steps: Vec<_> = report
        .steps()
        .iter()
        .map(|step| (&*step.title, &*step.dependencies))
        .collect();
    assert_eq!(steps, [("Collect a", &[] as &[usize]), ("Collect b", &[0])]);
    let error = runner.outline("", "s-1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "account \"\" is not 1 to 256 bytes without control characters"
    );
}

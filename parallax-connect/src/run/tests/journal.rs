//! What only the journal tells: progress, stalls, rejections, and runs that do not start.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use futures::future::BoxFuture;
use parallax_core::{entity, relationship};

use super::*;
use crate::RateLimiter;

/// A connector of one step.
struct One<'a>(
    Box<dyn Fn(StepContext) -> BoxFuture<'a, Result<(), ConnectorError>> + Send + Sync + 'a>,
);

fn one<'a, Fut>(run: impl Fn(StepContext) -> Fut + Send + Sync + 'a) -> One<'a>
where
    Fut: Future<Output = Result<(), ConnectorError>> + Send + 'a,
{
    One(Box::new(move |ctx| run(ctx).boxed()))
}

impl Connector for One<'_> {
    fn name(&self) -> &str {
        "one"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("list", "List it", |ctx| (self.0)(ctx))]
    }
}

/// Runs a connector and returns its journal, each entry with its time: `0 started …`.
async fn journal(connector: &dyn Connector, stall_after: Duration) -> Vec<String> {
    let kept = Arc::new(Timed {
        start: Instant::now(),
        lines: Mutex::default(),
    });
    let runner = Runner::new(connector)
        .journal(Arc::clone(&kept) as _)
        .stall_after(stall_after);
    runner.run("acme", "sync-001").await.ok();
    std::mem::take(&mut *kept.lines.lock().unwrap())
}

/// Keeps what each entry says, with the milliseconds since the start.
struct Timed {
    start: Instant,
    lines: Mutex<Vec<String>>,
}

impl JournalSink for Timed {
    fn append(&self, entry: &JournalEntry) {
        let json = entry.to_json();
        let (_, kind) = json.split_once("\"kind\":").unwrap();
        let at = self.start.elapsed().as_millis();
        let line = format!("{at} {}", kind.trim_end_matches('}').replace('"', ""));
        self.lines.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_at_intervals() {
    let lists = one(async |ctx: StepContext| {
        sleep(Duration::from_millis(40)).await;
        for page in 0..400 {
            ctx.emit(entity("host", page))?;
            ctx.emit(relationship(("host", page), "RUNS_ON", ("host", 0)))?;
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_secs(5)).await;
        ctx.emit(entity("host", "last"))?;
        sleep(Duration::from_secs(5)).await;
        Ok(())
    });
    let journal = journal(&lists, Duration::MAX).await;
    let progress: Vec<_> = journal
        .iter()
        .filter_map(|line| line.split_once(" step_progress,step_id:list,"))
        .collect();
    insta::assert_snapshot!(
        progress.iter().take(3).map(|(at, counts)| format!("{at} {counts}\n")).collect::<String>(),
        @"
    100 entities:7,relationships:7
    200 entities:17,relationships:17
    300 entities:27,relationships:27
    "
    );
    // 100 ms apart, as long as the step is young.
    assert_eq!(progress.len(), 42, "{progress:#?}");
    let last = progress.last().unwrap();
    assert_eq!(*last, ("9040", "entities:401,relationships:400"));
}

#[tokio::test(start_paused = true)]
async fn long_step_tells_its_progress_less_often() {
    let lists = one(async |ctx: StepContext| {
        for page in 0..36_000 {
            ctx.emit(entity("host", page))?;
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    });
    let journal = journal(&lists, Duration::MAX).await;
    let progress = journal.iter().filter(|line| line.contains("step_progress"));
    let times: Vec<u64> = progress
        .map(|line| line.split_once(' ').unwrap().0.parse().unwrap())
        .collect();
    let apart: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        apart.iter().all(|ms| (100..=1_100).contains(ms)),
        "{apart:?}"
    );
    // An hour: ten a second would be 36,000.
    assert!((3_500..4_000).contains(&times.len()), "{}", times.len());
}

#[tokio::test(start_paused = true)]
async fn stalled_step_is_told_once_until_it_goes_on() {
    let stalls = one(async |ctx: StepContext| {
        sleep(Duration::from_secs(200)).await;
        ctx.emit(entity("host", "a"))?;
        sleep(Duration::from_secs(30)).await;
        ctx.emit(entity("host", "b"))?;
        sleep(Duration::from_secs(100)).await;
        Ok(())
    });
    let journal = journal(&stalls, Duration::from_secs(60)).await;
    insta::assert_snapshot!(journal.join("\n"), @"
    0 started,connector_version:,steps:[{step_id:list,title:List it,depends_on:[],selected:true}]
    0 step_started,step_id:list
    60000 step_stalled,step_id:list,idle_ms:60000,blocking:false
    200000 step_progress,step_id:list,entities:1,relationships:0
    230000 step_progress,step_id:list,entities:2,relationships:0
    290000 step_stalled,step_id:list,idle_ms:60000,blocking:false
    330000 step_completed,step_id:list,status:completed,attempts:1,entities:2,relationships:0,rejected:0,duration_ms:330000
    330000 completed,entities:2,relationships:0,duration_ms:330000
    ");
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_rate_limit_is_no_stall() {
    let limiter = RateLimiter::new(1, Duration::from_secs(250));
    let waits = one(async |ctx: StepContext| {
        limiter.until_ready(&ctx, "it").await?;
        limiter.until_ready(&ctx, "it").await?;
        sleep(Duration::from_secs(150)).await;
        Ok(())
    });
    let journal = journal(&waits, Duration::from_secs(60)).await;
    insta::assert_snapshot!(journal.join("\n"), @"
    0 started,connector_version:,steps:[{step_id:list,title:List it,depends_on:[],selected:true}]
    0 step_started,step_id:list
    300000 step_stalled,step_id:list,idle_ms:60000,blocking:false
    400000 step_completed,step_id:list,status:completed,attempts:1,entities:0,relationships:0,rejected:0,duration_ms:400000,throttled_ms:250000
    400000 completed,entities:0,relationships:0,duration_ms:400000
    ");
}

#[test]
fn step_that_blocks_its_thread_is_told_from_another() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let (told, is_told) = channel();
    /// Sends the kind of each entry.
    struct Sends(Mutex<std::sync::mpsc::Sender<JournalKind>>);
    impl JournalSink for Sends {
        fn append(&self, entry: &JournalEntry) {
            self.0.lock().unwrap().send(entry.kind.clone()).ok();
        }
    }
    let is_told = Mutex::new(is_told);
    let blocks = one(|_| async {
        // Until the watchdog has told of it: without one, for ever.
        let is_told = is_told.lock().unwrap();
        loop {
            if let JournalKind::StepStalled {
                step_id, blocking, ..
            } = is_told.recv().unwrap()
            {
                assert_eq!((step_id.as_str(), blocking), ("list", true));
                return Ok(());
            }
        }
    });
    runtime.unwrap().block_on(async {
        let runner = Runner::new(&blocks)
            .journal(Arc::new(Sends(Mutex::new(told))))
            .stall_after(Duration::from_millis(1));
        let output = runner.run("acme", "sync-001").await.unwrap();
        assert!(output.report().is_complete());
    });
}

#[tokio::test(start_paused = true)]
async fn rejected_records_are_grouped_by_rule() {
    let rejects = one(async |ctx: StepContext| {
        for n in 0..5 {
            ctx.emit(entity("host", "")).ok();
            ctx.emit(entity("host", n).property("load", f64::NAN)).ok();
        }
        ctx.emit(entity("Host", "a\nb")).ok();
        Ok(())
    });
    let journal = journal(&rejects, Duration::MAX).await;
    let rejected = journal.iter().filter(|line| line.contains("rejected,"));
    let rejected: Vec<_> = rejected.map(String::as_str).collect();
    insta::assert_snapshot!(rejected.join("\n"), @r"
    0 records_rejected,step_id:list,rule:empty_key,count:5,samples:[host \\: a key is empty,host \\: a key is empty,host \\: a key is empty]
    0 records_rejected,step_id:list,rule:not_finite,count:5,samples:[host \0\: property load is not a finite number,host \1\: property load is not a finite number,host \2\: property load is not a finite number]
    0 records_rejected,step_id:list,rule:invalid_type,count:1,samples:[Host \a\\nb\: type \Host\ is not snake_case of at most 64 bytes]
    ");
}

#[tokio::test(start_paused = true)]
async fn run_that_cannot_start_says_why() {
    let cycle = Scripted::new([script("a").after(["b"]), script("b").after(["a"])]);
    let journal = journal(&cycle, Duration::MAX).await;
    insta::assert_snapshot!(journal.join("\n"), @"
    0 failed,error:{kind:invalid_graph,message:steps depend on each other: a -> b -> a
    ");
}

#[tokio::test(start_paused = true)]
async fn sink_that_panics_ends_the_journal_and_not_the_run() {
    struct Panics(Mutex<u32>);
    impl JournalSink for Panics {
        fn append(&self, entry: &JournalEntry) {
            *self.0.lock().unwrap() += 1;
            assert!(entry.seq < 2, "no more");
        }
    }
    let sink = Arc::new(Panics(Mutex::default()));
    let lists = one(async |ctx: StepContext| Ok(ctx.emit(entity("host", "a"))?));
    let runner = Runner::new(&lists).journal(Arc::clone(&sink) as _);
    let output = runner.run("acme", "sync-001").await.unwrap();
    assert!(output.report().is_complete());
    assert_eq!(*sink.0.lock().unwrap(), 2);
}

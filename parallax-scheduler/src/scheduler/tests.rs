use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use parallax_connect::{Connector, ConnectorError, Step, entity, step};
use tokio::time::sleep;

use super::*;
use crate::schedule::{Missed, Schedule};

const MINUTE: Duration = Duration::from_secs(60);

/// A connector whose only step takes ten seconds.
struct Slow {
    name: &'static str,
    fails: AtomicBool,
}

impl Connector for Slow {
    fn name(&self) -> &str {
        self.name
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("a", "Collect a", async |ctx| {
            sleep(Duration::from_secs(10)).await;
            ctx.emit(entity("thing", "1"))?;
            match self.fails.load(Ordering::Relaxed) {
                true => Err(ConnectorError::fatal("told to")),
                false => Ok(()),
            }
        })]
    }
}

/// A scheduler that runs the connectors `a` and `b` every ten minutes, one at a time.
struct Running {
    handle: Handle,
    story: Arc<Mutex<Vec<String>>>,
    begin: Instant,
    fails: Arc<Slow>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn running() -> Running {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let slow = |name| {
        Arc::new(Slow {
            name,
            fails: AtomicBool::new(false),
        })
    };
    let (a, b) = (slow("a"), slow("b"));
    let story: Arc<Mutex<Vec<String>>> = Arc::default();
    let (told, begin) = (Arc::clone(&story), Instant::now());
    let scheduler = Scheduler::new(store)
        .concurrency(1)
        .job(Job::new(
            Arc::clone(&a) as Arc<dyn Connector>,
            "acme",
            MINUTE * 10,
        ))
        .unwrap()
        .job(Job::new(b, "acme", MINUTE * 10))
        .unwrap()
        .watcher(move |notice| {
            let (job, what) = match notice {
                Notice::Started { job, .. } => (job, "starts"),
                Notice::Skipped { job, .. } => (job, "is skipped"),
                Notice::Ended { job, result, .. } => (
                    job,
                    match result {
                        Ok(synced) => synced.result.outcome.as_str(),
                        Err(_) => "cancelled",
                    },
                ),
            };
            let minutes = begin.elapsed().as_secs() / 60;
            let line = format!("{minutes} {} {what}", job.connector_id());
            told.lock().unwrap().push(line);
        });
    let handle = scheduler.handle();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(scheduler.run(async { drop(stopped.await) }));
    // Both have had their first tick, which is within the first minute.
    sleep(MINUTE * 2).await;
    story.lock().unwrap().clear();
    Running {
        handle,
        story,
        begin,
        fails: a,
        stop,
        ended,
    }
}

impl Running {
    fn story(&self) -> String {
        self.story.lock().unwrap().join("\n")
    }

    async fn activity(&self, place: usize) -> Activity {
        self.handle.jobs().await[place].activity.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn sync_that_is_asked_for_runs_out_of_turn_and_once() {
    let running = running().await;
    let due = running.handle.jobs().await[0].due_in;
    let sync_id = running.handle.trigger("a", "acme").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    match running.activity(0).await {
        Activity::Running {
            sync_id: runs,
            elapsed,
        } => {
            assert_eq!((runs, elapsed.as_secs()), (sync_id.clone(), 1));
        }
        other => panic!("{other:?}"),
    }
    let again = running.handle.trigger("a", "acme").await;
    let busy = TriggerError::Busy {
        reason: Skip::StillRunning,
        sync_id: Some(sync_id),
    };
    assert_eq!(again, Err(busy));
    let nobody = running.handle.trigger("a", "nobody").await;
    assert!(
        matches!(nobody, Err(TriggerError::NoSuchJob { .. })),
        "{nobody:?}"
    );
    sleep(MINUTE).await;
    assert_eq!(running.story(), "2 a starts\n2 a committed");
    // Its tick is where it was.
    let later = running.handle.jobs().await[0].due_in;
    assert_eq!((later + MINUTE).as_secs() + 1, due.as_secs());
}

#[tokio::test(start_paused = true)]
async fn sync_that_is_asked_for_waits_for_its_turn_among_those_that_run() {
    let running = running().await;
    let first = running.handle.trigger("a", "acme").await.unwrap();
    let second = running.handle.trigger("b", "acme").await.unwrap();
    assert_eq!(
        running.activity(1).await,
        Activity::Waiting {
            sync_id: Some(second.clone())
        }
    );
    let busy = running.handle.trigger("b", "acme").await;
    assert_eq!(
        busy,
        Err(TriggerError::Busy {
            reason: Skip::StillWaiting,
            sync_id: Some(second.clone())
        })
    );
    // One that waits can be taken back.
    running.handle.cancel(&second).await.unwrap();
    assert_eq!(running.activity(1).await, Activity::Idle);
    let third = running.handle.trigger("b", "acme").await.unwrap();
    assert_ne!(third, second);
    sleep(Duration::from_secs(15)).await;
    match running.activity(1).await {
        Activity::Running { sync_id, .. } => assert_eq!(sync_id, third),
        other => panic!("{other:?}"),
    }
    sleep(MINUTE).await;
    let gone = running.handle.cancel(&first).await;
    assert_eq!(gone, Err(CancelError::NotRunning { sync_id: first }));
    assert_eq!(
        running.story(),
        "2 a starts\n2 a committed\n2 b starts\n2 b committed"
    );
}

#[tokio::test(start_paused = true)]
async fn cancelled_sync_commits_nothing_and_is_no_failure() {
    let running = running().await;
    running.fails.fails.store(true, Ordering::Relaxed);
    running.handle.trigger("a", "acme").await.unwrap();
    sleep(MINUTE).await;
    let failed = running.handle.jobs().await[0].clone();
    assert_eq!((failed.failures, &failed.activity), (1, &Activity::Idle));
    let sync_id = running.handle.trigger("a", "acme").await.unwrap();
    sleep(Duration::from_secs(5)).await;
    running.handle.cancel(&sync_id).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let cancelled = running.handle.jobs().await[0].clone();
    assert_eq!(
        (cancelled.failures, &cancelled.activity),
        (1, &Activity::Idle)
    );
    assert_eq!(
        running.story(),
        "2 a starts\n2 a failed\n3 a starts\n3 a cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn source_that_backs_off_says_when_it_is_due_and_starts_when_asked() {
    let running = running().await;
    running.fails.fails.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        running.handle.trigger("a", "acme").await.unwrap();
        sleep(Duration::from_secs(15)).await;
    }
    let backing_off = running.handle.jobs().await[0].clone();
    assert_eq!(backing_off.failures, 3);
    running.story.lock().unwrap().clear();
    sleep(backing_off.due_in - Duration::from_secs(1)).await;
    assert!(!running.story().contains("a starts"), "{}", running.story());
    sleep(Duration::from_secs(2)).await;
    assert!(running.story().contains("a starts"), "{}", running.story());
    assert!(running.begin.elapsed() > MINUTE * 30);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_once_the_scheduler_stops() {
    let running = running().await;
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    let triggered = running.handle.trigger("a", "acme").await;
    assert_eq!(triggered, Err(TriggerError::Stopped));
    assert_eq!(running.handle.cancel("x").await, Err(CancelError::Stopped));
    assert_eq!(running.handle.jobs().await, []);
}

#[tokio::test]
async fn sync_whose_task_panics_has_an_end() {
    let joined = tokio::spawn(async { panic!("out of\nmind") }).await;
    let error = panicked(joined.unwrap_err());
    assert_eq!(error.to_string(), r"the sync panicked: out of\nmind");
    assert_eq!(counted(&Err(error)), Some(false));
}

#[tokio::test(start_paused = true)]
async fn next_process_goes_on_where_the_last_one_ended() {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let once = async |store: &Arc<Store>, wait: Duration| {
        let connector = Arc::new(Slow {
            name: "a",
            fails: AtomicBool::new(false),
        });
        let schedule = Schedule::every(MINUTE * 10).missed(Missed::Skip);
        let job = Job::new(connector, "acme", schedule);
        let scheduler = Scheduler::new(Arc::clone(store)).job(job).unwrap();
        let handle = scheduler.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(scheduler.run(async { drop(stopped.await) }));
        let at_first = handle.jobs().await[0].due_in;
        sleep(wait).await;
        drop(stop);
        ended.await.unwrap();
        at_first
    };
    // The first of all is at once, so that this is the second.
    let due_in = once(&store, MINUTE * 2).await;
    assert!((MINUTE * 9..MINUTE * 11).contains(&due_in), "{due_in:?}");
    // The store goes by the real clock, of which next to nothing has passed.
    let due_in = once(&store, Duration::ZERO).await;
    assert!((MINUTE * 9..MINUTE * 11).contains(&due_in), "{due_in:?}");
}

#[tokio::test(start_paused = true)]
async fn job_may_come_later() {
    let running = running().await;
    let job = |name| {
        let connector = Slow {
            name,
            fails: AtomicBool::new(false),
        };
        Job::new(Arc::new(connector), "acme", MINUTE * 10)
    };
    running.handle.add(job("c")).await.unwrap();
    sleep(MINUTE * 2).await;
    assert_eq!(running.story(), "2 c starts\n2 c committed");
    let again = running.handle.add(job("c")).await;
    assert!(matches!(again, Err(AddError::Duplicate(_))), "{again:?}");
    assert_eq!(running.handle.jobs().await.len(), 3);
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    assert_eq!(running.handle.add(job("d")).await, Err(AddError::Stopped));
}

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use parallax_connect::{Connector, Step, entity, step};
use parallax_core::{JournalEntry, JournalKind, JournalSink};
use parallax_scheduler::Notice;
use parallax_store::{Cell, Guard};
use tokio::sync::Notify;

use super::*;
use crate::plan::Source;

/// A connector that blocks its thread, so that nothing can cancel it.
struct Stubborn {
    begun: mpsc::Sender<()>,
}

impl Connector for Stubborn {
    fn name(&self) -> &str {
        "stubborn"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("a", "Collect a", async |_| {
            self.begun.send(()).ok();
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        })]
    }
}

#[tokio::test]
async fn step_that_blocks_delays_the_end_no_longer_than_the_grace_period() {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let (begun, begins) = mpsc::channel();
    let every = Duration::from_secs(1);
    let job = Job::new(Arc::new(Stubborn { begun }), "acme", every);
    let scheduler = Scheduler::new(Arc::clone(&store)).job(job).unwrap();
    let (send, signals) = Signals::by_hand();
    let pages = Arc::new(Pages::new(|_| String::new()));
    let watched = Arc::clone(&pages);
    let signalled = tokio::task::spawn_blocking(move || {
        begins.recv().unwrap();
        send(Signal::Terminate);
        Instant::now()
    });
    let grace = Duration::from_millis(50);
    until_signal(scheduler, &signals, &watched, grace)
        .await
        .unwrap();
    let took = signalled.await.unwrap().elapsed();
    assert!(took >= grace && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(pages.state(), State::Draining);
    let syncs = store.query("SELECT * FROM parallax_sync").await.unwrap();
    assert_eq!(syncs.rows.len(), 0);
}

/// A watcher that takes its time to hear of a commit, which is as long under way.
struct Slow {
    begun: mpsc::Sender<()>,
    release: Mutex<mpsc::Receiver<()>>,
    is_over: AtomicBool,
}

impl JournalSink for Slow {
    fn append(&self, entry: &JournalEntry) {
        if matches!(entry.kind, JournalKind::Committed { .. }) {
            self.begun.send(()).ok();
            self.release.lock().unwrap().recv().ok();
            self.is_over.store(true, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn commit_that_has_begun_is_finished_however_long_it_takes() {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let connector = Arc::new(Forgetful(AtomicBool::new(false)));
    let job = Job::new(connector, "acme", Duration::from_secs(60));
    let ((begun, begins), (releases, release)) = (mpsc::channel(), mpsc::channel());
    let slow = Arc::new(Slow {
        begun,
        release: Mutex::new(release),
        is_over: AtomicBool::new(false),
    });
    let scheduler = Scheduler::new(Arc::clone(&store)).job(job).unwrap();
    let scheduler = scheduler.journal(Arc::clone(&slow) as _);
    let (send, signals) = Signals::by_hand();
    let grace = Duration::from_millis(10);
    let released = tokio::task::spawn_blocking(move || {
        begins.recv().unwrap();
        send(Signal::Terminate);
        std::thread::sleep(10 * grace);
        releases.send(()).unwrap();
    });
    let pages = Pages::new(|_| String::new());
    until_signal(scheduler, &signals, &pages, grace)
        .await
        .unwrap();
    assert!(slow.is_over.load(Ordering::Relaxed));
    released.await.unwrap();
}

/// A connector that finds a dozen of a type in its first run, and none later.
struct Forgetful(AtomicBool);

impl Connector for Forgetful {
    fn name(&self) -> &str {
        "forgetful"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("a", "Collect a", async |ctx| {
            if !self.0.swap(true, Ordering::Relaxed) {
                for n in 0..12 {
                    ctx.emit(entity("user", format!("{n}")))?;
                }
            }
            Ok(())
        })]
    }
}

fn plan(sources: Vec<Source>) -> Plan {
    Plan {
        store: String::new(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tokens: None,
        tls: None,
        protects_reads: false,
        concurrency: std::num::NonZeroU64::new(16),
        broken: Vec::new(),
        unusable: None,
        sources,
    }
}

#[tokio::test]
async fn as_many_syncs_run_at_a_time_as_the_configuration_says() {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let scheduler = format!("{:?}", scheduler(&plan(Vec::new()), &store).unwrap());
    assert!(scheduler.contains("concurrency: 16"), "{scheduler}");
}

#[tokio::test(start_paused = true)]
async fn deletes_are_held_as_the_source_says() {
    let mut left = Vec::new();
    for guard in [Guard::default(), Guard::OFF] {
        let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
        let plan = plan(vec![Source {
            line: 1,
            connector: Arc::new(Forgetful(AtomicBool::new(false))),
            kind: "forgetful".to_owned(),
            connector_id: "forgetful".to_owned(),
            account_id: "acme".to_owned(),
            schedule: Duration::from_secs(60).into(),
            interval: Duration::from_secs(60),
            guard,
            steps: Vec::new(),
        }]);
        let ended = Arc::new(Notify::new());
        let watched = Arc::clone(&ended);
        let scheduler = scheduler(&plan, &store).unwrap().watcher(move |notice| {
            if matches!(notice, Notice::Ended { .. }) {
                watched.notify_one();
            }
        });
        let two_syncs = async move {
            ended.notified().await;
            ended.notified().await;
        };
        scheduler.run(two_syncs).await;
        let sql = "SELECT entities, entities_held FROM parallax_source";
        left.push(store.query(sql).await.unwrap().rows);
    }
    let held = |n| vec![vec![Cell::Integer(n), Cell::Integer(n)]];
    assert_eq!(left, [held(12), held(0)]);
}

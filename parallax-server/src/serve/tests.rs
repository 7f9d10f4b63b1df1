use std::sync::mpsc;
use std::time::Instant;

use hyper::Method;
use parallax_connect::{Connector, Step, step};

use super::*;

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
    let pages = Arc::new(Pages::new(String::new));
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
    assert_eq!(pages.answer(&Method::GET, "/readyz").status(), 503);
    let syncs = store.query("SELECT * FROM parallax_sync").await.unwrap();
    assert_eq!(syncs.rows.len(), 0);
}

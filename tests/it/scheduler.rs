//! Thirty days of a fleet in virtual time: no overlap, no tick unexplained, memory flat, books
//! balanced.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, step};
use parallax_core::SyncStats;
use parallax_scheduler::{Job, Notice, Scheduler, Skip};
use parallax_store::Store;

use crate::support::lines;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const EVERY: Duration = Duration::from_secs(15 * 60);

/// A system of a dozen things that come and go, and that is sometimes slow or down.
struct Flaky {
    name: String,
    runs: AtomicU64,
}

impl Flaky {
    fn dice(&self, run: u64, salt: u64) -> u64 {
        let seed = self
            .name
            .bytes()
            .fold(salt, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let mixed = (seed ^ run).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
    }
}

impl Connector for Flaky {
    fn name(&self) -> &str {
        &self.name
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        vec![
            step("things", "Things", move |ctx| self.things(ctx, run)),
            step("parts", "Parts", move |ctx| self.parts(ctx, run)),
        ]
    }
}

impl Flaky {
    async fn things(&self, ctx: StepContext, run: u64) -> Result<(), ConnectorError> {
        // Now and then longer than the interval.
        tokio::time::sleep(Duration::from_secs(self.dice(run, 1) % 1_000)).await;
        for key in 0..12 {
            if self.dice(run / 20, key + 100) % 3 != 1 {
                ctx.emit(entity("thing", key))?;
            }
        }
        match self.dice(run, 2) % 10 {
            0 => Err(ConnectorError::retryable("the system is down")),
            _ => Ok(()),
        }
    }

    async fn parts(&self, ctx: StepContext, run: u64) -> Result<(), ConnectorError> {
        tokio::time::sleep(Duration::from_secs(self.dice(run, 3) % 60)).await;
        ctx.emit(entity("part", run % 5))?;
        match self.dice(run, 4) % 20 {
            0 => Err(ConnectorError::retryable("the system is down")),
            1 => panic!("told to"),
            _ => Ok(()),
        }
    }
}

/// What the watcher saw of one source.
#[derive(Default)]
struct Seen {
    running: bool,
    starts: u64,
    ends: u64,
    skipped: u64,
    created: u64,
    deleted: u64,
}

#[tokio::test(start_paused = true)]
async fn thirty_days_of_a_fleet() {
    parallax_tests::silence_scripted_panics();
    // In memory, but not in the process: an fsync costs nothing there, and pages do not count.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let url = format!("sqlite:{}/parallax.db", directory.path().display());
    let store = Arc::new(Store::open(&url).await.unwrap());
    let seen: Arc<Mutex<HashMap<String, Seen>>> = Arc::default();

    let mut scheduler = Scheduler::new(Arc::clone(&store)).concurrency(16);
    for number in 0..20 {
        let flaky = Flaky {
            name: format!("flaky-{number}"),
            runs: AtomicU64::new(0),
        };
        scheduler = scheduler
            .job(Job::new(Arc::new(flaky), "acme", EVERY))
            .unwrap();
    }
    let watched = Arc::clone(&seen);
    let scheduler = scheduler.watcher(move |notice| watch(&watched, notice));
    let stop = async {
        // By then, the engine's cache is filled.
        tokio::time::sleep(15 * DAY).await;
        let early = resident_kib();
        tokio::time::sleep(15 * DAY).await;
        let late = resident_kib();
        assert!(
            late < early + 8 * 1024,
            "memory grew from {early} KiB to {late} KiB"
        );
    };
    scheduler.run(stop).await;

    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 20);
    let ticks = (30 * DAY).as_secs() / EVERY.as_secs();
    for (name, seen) in &seen {
        assert!(!seen.running && seen.starts == seen.ends, "{name}");
        // The last tick may be a jitter away.
        let told = seen.starts + seen.skipped;
        assert!(
            (ticks - 1..=ticks + 1).contains(&told),
            "{name}: {told} of {ticks} ticks told"
        );
        assert!(seen.starts > ticks / 2, "{name} ran {} times", seen.starts);
        let sql = format!(
            "SELECT entities FROM parallax_source WHERE connector_id = '{name}'
             UNION ALL SELECT count(*) FROM parallax_entity WHERE connector_id = '{name}'"
        );
        let live = (seen.created - seen.deleted).to_string();
        assert_eq!(lines(&store, &sql).await, [live.clone(), live], "{name}");
    }
    let summed = SyncStats::FIELDS
        .map(|field| format!("sum({field})"))
        .join(", ");
    let sums = lines(&store, &format!("SELECT {summed} FROM parallax_sync")).await;
    let created: u64 = seen.values().map(|seen| seen.created).sum();
    assert_eq!(
        sums[0].split(' ').next(),
        Some(created.to_string().as_str())
    );
}

fn watch(seen: &Mutex<HashMap<String, Seen>>, notice: &Notice<'_>) {
    let mut seen = seen.lock().unwrap();
    match notice {
        Notice::Started { job, .. } => {
            let seen = seen.entry(job.connector_id().to_owned()).or_default();
            assert!(
                !seen.running,
                "two syncs of {} at a time",
                job.connector_id()
            );
            seen.running = true;
            seen.starts += 1;
        }
        Notice::Skipped { job, reason } => {
            let seen = seen.entry(job.connector_id().to_owned()).or_default();
            seen.skipped += match reason {
                Skip::Missed { ticks } => u64::from(*ticks),
                _ => 1,
            };
        }
        Notice::Ended { job, result, .. } => {
            let seen = seen.entry(job.connector_id().to_owned()).or_default();
            seen.running = false;
            seen.ends += 1;
            if let Ok(synced) = result {
                seen.created += synced.result.stats.entities_created;
                seen.deleted += synced.result.stats.entities_deleted;
            }
        }
        _ => {}
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

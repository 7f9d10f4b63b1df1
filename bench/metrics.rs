//! What metrics cost: recording a commit, a step and a sync, a scrape, a flood of hostile ids, and a
//! week without a scrape.
//!
//! `cargo xtask bench metrics`, in a release build, takes half a minute. Times are medians of CPU
//! time, so that other programs matter little.
#![allow(clippy::print_stdout, reason = "what the program is for")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, SystemTime};

use parallax_core::{StepReport, StepStatus, SyncReport, SyncStats};
use parallax_metrics::{Live, ParallaxMetrics, Prometheus, SyncOutcome, record_commit};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    // Silent: no recorder is there yet.
    let silent = ParallaxMetrics::new();
    let prometheus = Prometheus::install()?;
    let metrics = ParallaxMetrics::new();
    recording(&silent, &metrics, &prometheus);
    rendering(&metrics, &prometheus);
    week_without_scrape(&metrics, &prometheus)?;
    // Last, because it leaves no room for anything else.
    flood(&metrics, &prometheus)
}

/// Something to record.
type Act<'a> = &'a dyn Fn(&ParallaxMetrics);

/// The stats of a commit as most are: some records changed, and of each kind some did not.
fn usual_stats() -> SyncStats {
    let mut stats = SyncStats::default();
    stats.entities_updated = 3;
    stats.entities_unchanged = 900;
    stats.relationships_created = 2;
    stats.relationships_unchanged = 3_000;
    stats
}

fn steps(count: usize) -> SyncReport {
    let step = |place: usize| {
        let mut step = StepReport::new(format!("step-{place}"), "");
        step.status = StepStatus::Completed;
        step.duration = Duration::from_millis(120);
        step
    };
    SyncReport::new((0..count).map(step).collect())
}

fn recording(silent: &ParallaxMetrics, metrics: &ParallaxMetrics, prometheus: &Prometheus) {
    const TIMES: usize = 10_000;
    let (usual, all) = (usual_stats(), SyncStats::from_values([7; _]));
    let (took, now) = (Duration::from_millis(20), SystemTime::now());
    let report = steps(10);
    let each = |parts: usize, act: &dyn Fn()| {
        let mut times = Vec::new();
        for _ in 0..21 {
            let before = cpu_time();
            (0..TIMES).for_each(|_| act());
            times.push((cpu_time() - before).as_secs_f64() * 1e9 / (TIMES * parts) as f64);
            // What the daemon does every 5 seconds; it is not what is measured.
            prometheus.upkeep();
        }
        median(&mut times)
    };
    println!("recording: ns of CPU time, without a recorder and with Prometheus's");
    let lines: [(&str, usize, Act<'_>); 5] = [
        ("a commit, 4 of 16 counts", 1, &|metrics| {
            metrics.committed(
                "aws",
                "acme",
                SyncOutcome::Committed,
                black_box(&usual),
                took,
                now,
            );
        }),
        ("a commit, all counts", 1, &|metrics| {
            metrics.committed(
                "aws",
                "acme",
                SyncOutcome::Committed,
                black_box(&all),
                took,
                now,
            );
        }),
        ("a step, of ten", 10, &|metrics| {
            metrics.steps_ended("aws", black_box(&report));
        }),
        ("a sync's start and end", 1, &|metrics| {
            metrics.sync_started("aws");
            metrics.sync_ended("aws", "acme", SyncOutcome::Committed, took, now);
        }),
        ("what is live", 1, &|metrics| {
            metrics.live("aws", "acme", black_box(Live::default()));
        }),
    ];
    for (what, parts, act) in lines {
        let without = each(parts, &|| act(silent));
        let with = each(parts, &|| act(metrics));
        println!("{what:>26} {without:>8.0} {with:>8.0}");
    }
    let free = each(1, &|| record_commit("aws", black_box(&usual)));
    println!("{:>26} {:>8} {free:>8.0}\n", "record_commit", "");
}

fn rendering(metrics: &ParallaxMetrics, prometheus: &Prometheus) {
    let samples = || {
        let page = prometheus.render();
        let is_sample = |line: &&str| !line.is_empty() && !line.starts_with('#');
        page.lines().filter(is_sample).count()
    };
    let millis = |act: &dyn Fn() -> String| {
        let mut times = Vec::new();
        for _ in 0..21 {
            let before = cpu_time();
            black_box(act());
            times.push((cpu_time() - before).as_secs_f64() * 1e3);
        }
        median(&mut times)
    };
    println!("a scrape: ms of CPU time, as text and as OpenMetrics");
    let mut connectors = 0;
    for entities in [10, 1_000_000_000] {
        while samples() < 1_000 {
            connectors += 1;
            metrics.register(&format!("connector-{connectors}"), &["users"]);
        }
        let live = Live {
            entities,
            ..Live::default()
        };
        metrics.live("aws", "acme", live);
        let text = millis(&|| prometheus.render());
        let openmetrics = millis(&|| prometheus.render_openmetrics());
        let (samples, bytes) = (samples(), prometheus.render().len());
        println!(
            "{samples:>8} series, {bytes} bytes, {entities} entities: {text:.2} {openmetrics:.2}"
        );
    }
    println!();
}

/// Twenty sources, synced every 15 minutes, and upkeep every 5 seconds.
fn week_without_scrape(metrics: &ParallaxMetrics, prometheus: &Prometheus) -> Outcome<()> {
    const UPKEEPS_A_DAY: u64 = 24 * 60 * 60 / 5;
    let (report, stats) = (steps(5), usual_stats());
    let (took, now) = (Duration::from_millis(20), SystemTime::now());
    let names: Vec<String> = (0..20).map(|n| format!("source-{n}")).collect();
    let mut after = Vec::new();
    for day in 1..=7 {
        for upkeep in 0..UPKEEPS_A_DAY {
            if upkeep % (15 * 60 / 5) == 0 {
                for name in &names {
                    metrics.sync_started(name);
                    metrics.steps_ended(name, &report);
                    metrics.committed(name, "acme", SyncOutcome::Committed, &stats, took, now);
                    metrics.sync_ended(name, "acme", SyncOutcome::Committed, took, now);
                }
            }
            prometheus.upkeep();
        }
        after.push(format!("day {day}: {:.1}", resident_mb()?));
    }
    println!("a week of 20 sources without a scrape: MB resident");
    println!("  {}\n", after.join(", "));
    Ok(())
}

fn flood(metrics: &ParallaxMetrics, prometheus: &Prometheus) -> Outcome<()> {
    const IDS: u64 = 1_000_000;
    let (stats, took, now) = (usual_stats(), Duration::from_millis(20), SystemTime::now());
    let counted_before = syncs_of(&prometheus.render()).1;
    let memory = resident_mb()?;
    let before = cpu_time();
    for n in 0..IDS {
        // One in four is no id at all.
        let id = match n % 4 {
            0 => format!("\"}}\n# {n}\u{1b}[31m"),
            _ => format!("id-{n}"),
        };
        metrics.register(&id, &[&id]);
        metrics.sync_started(&id);
        metrics.committed(&id, &id, SyncOutcome::Committed, &stats, took, now);
        metrics.sync_ended(&id, &id, SyncOutcome::Committed, took, now);
        if n % 10_000 == 0 {
            prometheus.upkeep();
        }
    }
    let us = (cpu_time() - before).as_secs_f64() * 1e6 / IDS as f64;
    prometheus.upkeep();
    let grown = resident_mb()? - memory;
    let before = cpu_time();
    let page = prometheus.render();
    let ms = (cpu_time() - before).as_secs_f64() * 1e3;
    let (series, counted) = syncs_of(&page);
    println!("a million ids, of which a quarter is hostile: {us:.1} us each, {grown:.1} MB more");
    println!(
        "  {series} series of parallax_syncs_total, in which {} were counted; rendered in {ms:.1} ms",
        counted - counted_before
    );
    Ok(())
}

/// Returns how many series tell of ended syncs, and how many syncs those are.
fn syncs_of(page: &str) -> (usize, u64) {
    let lines = || {
        let lines = page.lines();
        lines.filter(|line| line.starts_with("parallax_syncs_total{"))
    };
    let value = |line: &str| -> Option<u64> { line.rsplit_once(' ')?.1.parse().ok() };
    (lines().count(), lines().filter_map(value).sum())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_mb() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = value.and_then(|value| value.split_whitespace().next());
    Ok(kib.ok_or("no such field")?.parse::<f64>()? / 1_024.0)
}

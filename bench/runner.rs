//! What the runner costs beside the work it runs: steps, events, records, and time lost between
//! steps. Each figure stands beside a bare one of the same run: futures in a `FuturesUnordered`,
//! events in a channel, records that are made and dropped.
//!
//! `cargo xtask bench runner`, in a release build, takes a minute or two. Figures are medians of
//! CPU time, so that other programs matter little; only the makespans are wall time.
#![allow(clippy::print_stdout, reason = "what the program is for")]

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parallax_connect::{
    Connector, ConnectorError, ConnectorOutput, Entity, Prior, Step, StepContext, SyncEvent,
    entity, run_connector, step,
};
use parallax_metrics::{ParallaxMetrics, Prometheus};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    empty_steps().await?;
    chains().await?;
    events().await?;
    observability().await?;
    records().await?;
    makespans().await
}

/// Steps that do nothing, made when the run asks for them.
struct Empty {
    steps: usize,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    Wide,
    Chain,
}

impl Connector for Empty {
    fn name(&self) -> &str {
        "empty"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let id = |place: usize| format!("step-{place:05}");
        let empty = |place| step(id(place), "", async |_| Ok(()));
        match self.shape {
            Shape::Wide => (0..self.steps).map(empty).collect(),
            Shape::Chain => (0..self.steps)
                .map(|place| empty(place).depends_on(place.checked_sub(1).map(id)))
                .collect(),
        }
    }
}

/// As many runs that the shortest takes some milliseconds.
fn runs_of(steps: usize) -> usize {
    (20_000 / steps).max(1)
}

async fn empty_steps() -> Outcome<()> {
    println!("empty steps, side by side: us per step, and how often the bare futures' time");
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>8}",
        "steps", "bare", "run", "ratio", "watched"
    );
    for steps in [1, 100, 1_000, 10_000] {
        let runs = runs_of(steps);
        let bare = per(steps * runs, || bare_futures(steps, runs)).await?;
        let run = per(steps * runs, || run_empty(steps, Shape::Wide, runs)).await?;
        let watched = per(steps * runs, || run_watched(steps, runs)).await?;
        let ratio = run / bare;
        println!("{steps:>8} {bare:>8.3} {run:>8.3} {ratio:>8.1} {watched:>8.3}");
    }
    println!();
    Ok(())
}

async fn bare_futures(steps: usize, runs: usize) -> Outcome<()> {
    for _ in 0..runs {
        let mut futures = FuturesUnordered::new();
        for place in 0..steps {
            let future: BoxFuture<'_, usize> = Box::pin(async move { black_box(place) });
            futures.push(future);
        }
        while futures.next().await.is_some() {}
    }
    Ok(())
}

async fn run_empty(steps: usize, shape: Shape, runs: usize) -> Outcome<()> {
    for _ in 0..runs {
        black_box(run_connector(&Empty { steps, shape }, "acme", "sync-001", None).await?);
    }
    Ok(())
}

/// With a receiver that has room for every event, and takes them when the run is over.
async fn run_watched(steps: usize, runs: usize) -> Outcome<()> {
    let shape = Shape::Wide;
    for _ in 0..runs {
        let (tx, rx) = mpsc::channel(2 * steps + 2);
        black_box(run_connector(&Empty { steps, shape }, "acme", "sync-001", Some(&tx)).await?);
        drop(rx);
    }
    Ok(())
}

async fn chains() -> Outcome<()> {
    println!("chains");
    for steps in [100, 1_000, 10_000] {
        let runs = runs_of(steps);
        let us = per(steps * runs, || run_empty(steps, Shape::Chain, runs)).await?;
        println!("{steps:>8} empty steps, one after the other: {us:.3} us per step");
    }
    let emit = per(1_000, || run_readers(0)).await?;
    let read = per(1_000, || run_readers(100)).await?;
    println!("   after a step that emits 10,000 entities (alone: {emit:.1} ms),");
    println!(
        "     100 steps that each read the one before and the first: {:.1} ms\n",
        read - emit
    );
    Ok(())
}

/// A step that emits, and a chain of steps that read it.
struct Readers(usize);

impl Connector for Readers {
    fn name(&self) -> &str {
        "readers"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let first = step("first", "", async |ctx: StepContext| {
            for host in 0..10_000 {
                ctx.emit(record(host))?;
            }
            Ok(())
        });
        let reader = |place: usize| {
            let before = match place {
                0 => "first".to_owned(),
                _ => format!("reader-{}", place - 1),
            };
            let read = async |ctx: StepContext| {
                let prior: &Prior = ctx.prior();
                black_box(prior.entity(("bench_host", "host-000005000-abcdefghij")));
                Ok(())
            };
            step(format!("reader-{place}"), "", read).reads(["first".to_owned(), before])
        };
        std::iter::once(first)
            .chain((0..self.0).map(reader))
            .collect()
    }
}

async fn run_readers(readers: usize) -> Outcome<()> {
    black_box(run_connector(&Readers(readers), "acme", "sync-001", None).await?);
    Ok(())
}

async fn events() -> Outcome<()> {
    const STEPS: usize = 10_000;
    const EVENTS: usize = 2 * STEPS + 2;
    let unwatched = per(EVENTS, || run_empty(STEPS, Shape::Wide, 1)).await?;
    let watched = per(EVENTS, || run_watched(STEPS, 1)).await?;
    let bare = per(EVENTS, || async {
        let (tx, rx) = mpsc::channel(EVENTS);
        for place in 0..EVENTS {
            let step_id = format!("step-{place:05}");
            tx.try_send(SyncEvent::StepStarted { step_id })?;
        }
        drop(rx);
        Ok(())
    });
    let (event, bare) = ((watched - unwatched) * 1e3, bare.await? * 1e3);
    println!("an event costs a run {event:.0} ns; made and sent by itself it takes {bare:.0} ns\n");
    Ok(())
}

async fn observability() -> Outcome<()> {
    const STEPS: usize = 10_000;
    let bare = per(STEPS, || bare_futures(STEPS, 1)).await?;
    let off = per(STEPS, || run_empty(STEPS, Shape::Wide, 1)).await?;
    let prometheus = Prometheus::install()?;
    let metrics = ParallaxMetrics::new();
    let json = || {
        let subscriber = tracing_subscriber::fmt().json().with_writer(io::sink);
        Dispatch::new(subscriber.finish())
    };
    let on = per(STEPS, || {
        let run = async {
            let (tx, rx) = mpsc::channel(2 * STEPS + 2);
            let connector = Empty {
                steps: STEPS,
                shape: Shape::Wide,
            };
            let output = run_connector(&connector, "acme", "sync-001", Some(&tx)).await?;
            metrics.steps_ended("empty", output.report());
            drop(rx);
            Ok(())
        };
        run.with_subscriber(json())
    });
    let on = on.await?;
    drop(prometheus);
    println!(
        "us per empty step: {bare:.3} as a bare future, {off:.3} in a run that nobody watches,"
    );
    println!("  {on:.3} with events, JSON logs in spans, and metrics\n");
    Ok(())
}

/// A record of eight properties and 215 bytes.
fn record(host: usize) -> Entity {
    entity("bench_host", format!("host-{host:09}-abcdefghij"))
        .class("Host")
        .display_name(format!("Host number {host}"))
        .property(
            "arn",
            format!("arn:aws:ec2:eu-west-1:1234567890:instance/i-{host:017}"),
        )
        .property("region", "eu-west-1")
        .property("zone", "eu-west-1a")
        .property("owner", format!("team-{}", host % 50))
        .property("image", "ami-0123456789abcdef0")
        .property("cpus", host % 64)
        .property("public", host.is_multiple_of(2))
        .property("revision", 0)
}

struct Emits(usize);

impl Connector for Emits {
    fn name(&self) -> &str {
        "emits"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let emit = move |ctx: StepContext| async move {
            for host in 0..self.0 {
                ctx.emit(record(host))?;
            }
            Ok::<_, ConnectorError>(())
        };
        vec![step("hosts", "", emit)]
    }
}

async fn emit(records: usize) -> Outcome<ConnectorOutput> {
    Ok(run_connector(&Emits(records), "acme", "sync-001", None).await?)
}

async fn records() -> Outcome<()> {
    const RECORDS: usize = 100_000;
    let made = per(RECORDS, || async {
        (0..RECORDS).for_each(|host| drop(black_box(record(host))));
        Ok(())
    });
    let made = made.await? * 1e3;
    let emitted = per(RECORDS, || async { emit(RECORDS).await.map(drop) }).await? * 1e3;
    println!(
        "an entity of eight properties takes {made:.0} ns to make, and {:.0} ns to emit",
        emitted - made
    );

    const MANY: usize = 1_000_000;
    let before = memory_kib("VmRSS:")?;
    let output = emit(MANY).await?;
    let (held, peak) = (memory_kib("VmRSS:")?, memory_kib("VmHWM:")?);
    let each = |kib: u64| (kib - before) * 1_024 / MANY as u64;
    println!(
        "  of a million in one step, each holds {} bytes, {} at the most\n",
        each(held),
        each(peak)
    );
    drop(output);
    Ok(())
}

/// A graph of steps that take their time and do nothing.
struct Sleeps {
    durations: Vec<Duration>,
    after: Vec<Vec<usize>>,
}

impl Connector for Sleeps {
    fn name(&self) -> &str {
        "sleeps"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let step = |(place, (duration, after)): (usize, (&Duration, &Vec<usize>))| {
            let duration = *duration;
            let sleep = move |_| async move {
                tokio::time::sleep(duration).await;
                Ok(())
            };
            step(format!("s{place}"), "", sleep).depends_on(after.iter().map(|on| format!("s{on}")))
        };
        self.durations
            .iter()
            .zip(&self.after)
            .enumerate()
            .map(step)
            .collect()
    }
}

impl Sleeps {
    /// Forty steps, each after up to three earlier ones; their times are log-normal, most of them
    /// between 5 and 70 ms.
    fn random(random: &mut Random) -> Self {
        let step = |place: usize| {
            let after = (0..random.below(4)).map(|_| random.below(place.max(1)));
            let mut after: Vec<usize> = after.filter(|&on| on < place).collect();
            after.sort_unstable();
            after.dedup();
            let millis = 20.0 * (1.2 * random.normal()).exp();
            (Duration::from_secs_f64(millis / 1e3), after)
        };
        let (durations, after) = (0..40).map(step).unzip();
        Self { durations, after }
    }

    /// The longest chain of steps.
    fn critical_path(&self, durations: &[Duration]) -> Duration {
        let mut ends: Vec<Duration> = Vec::new();
        for (duration, after) in durations.iter().zip(&self.after) {
            let begun = after.iter().filter_map(|&on| ends.get(on)).max();
            ends.push(begun.copied().unwrap_or_default() + *duration);
        }
        ends.into_iter().max().unwrap_or_default()
    }
}

async fn makespans() -> Outcome<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut observed, mut nominal) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let sleeps = Sleeps::random(&mut random);
        let started = Instant::now();
        let sync_id = format!("sync-{number}");
        let output = run_connector(&sleeps, "acme", &sync_id, None).await?;
        let makespan = started.elapsed();
        let steps = output.report().steps().iter();
        let durations: Vec<Duration> = steps.map(|step| step.duration).collect();
        let ratio = |path: Duration| makespan.as_secs_f64() / path.as_secs_f64();
        observed.push(ratio(sleeps.critical_path(&durations)));
        nominal.push(ratio(sleeps.critical_path(&sleeps.durations)));
    }
    println!("50 random graphs of 40 steps that sleep: makespan as multiple of the critical path");
    println!("{:>24} {:>8} {:>8}", "", "median", "worst");
    for (name, mut ratios) in [
        ("of the times observed", observed),
        ("of the times asked for", nominal),
    ] {
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        println!("{name:>24} {:>8.4} {worst:>8.4}", median(&mut ratios));
    }
    Ok(())
}

/// Random numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    /// Of mean 0 and deviation 1, by the sum of twelve.
    fn normal(&mut self) -> f64 {
        let unit =
            |bits: u64| f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        (0..12).map(|_| unit(self.next())).sum::<f64>() - 6.0
    }
}

/// Does something again and again; returns the median CPU time of one of `parts`, in microseconds.
async fn per<F: Future<Output = Outcome<()>>>(
    parts: usize,
    mut act: impl FnMut() -> F,
) -> Outcome<f64> {
    let mut times = Vec::new();
    act().await?;
    for _ in 0..21 {
        let before = cpu_time();
        act().await?;
        times.push((cpu_time() - before).as_secs_f64() * 1e6 / parts as f64);
    }
    Ok(median(&mut times))
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

fn memory_kib(field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.split_whitespace().next());
    Ok(kib.ok_or("no such field")?.parse()?)
}

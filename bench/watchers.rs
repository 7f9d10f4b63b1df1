//! What it costs a sync that many clients watch it over HTTP, and what they cost the daemon.
//!
//! `cargo xtask bench watchers [CLIENTS]`, in a release build, takes two minutes. The program is the
//! daemon, too: it starts itself.
#![allow(clippy::print_stdout, reason = "what the program is for")]
#![allow(
    clippy::indexing_slicing,
    reason = "of JSON: what is not there is null"
)]

mod daemon;

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, step};
use parallax_server::{App, Opened};
use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use daemon::{Daemon, Outcome, median};

/// Syncs with clients, and as many without, in turns.
const ROUNDS: usize = 9;
const STEPS: usize = 1_000;
/// What a step waits, as for an answer; 64 of them run at a time.
const STEP: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("serve") {
        return App::new()
            .register("busy", "A system of a thousand parts", || {
                Ok(Opened::new(Busy))
            })
            .main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Who holds up nobody, and how often that is seen.
const HALF_OPEN: usize = 500;
const ASKED: usize = 1_000;

struct Busy;

impl Connector for Busy {
    fn name(&self) -> &str {
        "busy"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let part = |n: usize| step(format!("part-{n}"), "", move |ctx| collect(ctx, n));
        (0..STEPS).map(part).collect()
    }
}

async fn collect(ctx: StepContext, part: usize) -> Result<(), ConnectorError> {
    tokio::time::sleep(STEP).await;
    for key in 0..10 {
        ctx.emit(entity("thing", format!("{part}-{key}")))?;
    }
    Ok(())
}

fn measure() -> Outcome<()> {
    let clients: usize = env::args()
        .nth(1)
        .map_or(Ok(1_000), |count| count.parse())?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;

    let config = "store = { url = 'sqlite:parallax.db' }
        server = { listen = '127.0.0.1:0' }
        connector = [{ kind = 'busy', account = '1', every = '300d' }]";
    let daemon = Daemon::start(TempDir::new()?, config)?;
    sync(&daemon)?;
    let before = daemon.memory()?;
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for _ in 0..ROUNDS {
        alone.push(sync(&daemon)?);
        let audience = Audience::gather(&daemon.address, clients)?;
        watched.push(sync(&daemon)?);
        taken = audience.leave();
    }
    let after = daemon.memory()?;
    let (middle, late) = answers_beside_half_open(&daemon.address)?;
    let (alone, watched) = (median(&mut alone), median(&mut watched));
    println!("a sync of {STEPS} steps, each {STEP:?}, 64 at a time; {ROUNDS} times each, medians");
    println!("nobody watches            {alone:>8.0} ms");
    println!(
        "{clients} clients, half asleep  {watched:>8.0} ms, {:.3} times as long",
        watched / alone
    );
    println!(
        "a client that reads takes {:>8} bytes",
        taken * 2 / clients.max(1) as u64
    );
    println!("the daemon's memory       {:>8.1} MB before", before.now);
    println!("                          {:>8.1} MB after", after.now);
    println!(
        "                          {:>8.1} MB at the most",
        after.peak
    );
    println!("/livez, beside {HALF_OPEN} half-open connections, of {ASKED} times asked");
    println!("                          {middle:>8.2} ms median, {late:.2} ms p99");
    Ok(())
}

/// Syncs, and returns how long the steps took, in milliseconds.
fn sync(daemon: &Daemon) -> Outcome<f64> {
    let sync_id = loop {
        let answer = daemon.ask("POST", "/api/v1/sources/busy/1/syncs")?;
        // The first sync is due at the start.
        if let Some(sync_id) = answer["sync_id"].as_str() {
            break sync_id.to_owned();
        }
        sleep(Duration::from_millis(50));
    };
    let path = format!("/api/v1/syncs/{sync_id}/journal?from={}", 2 * STEPS);
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let journal = daemon.ask("GET", &path)?;
        let entries = journal["items"].as_array();
        let of_kind = |kind: &str| entries?.iter().find(|entry| entry["kind"] == kind);
        if of_kind("committed").is_some()
            && let Some(completed) = of_kind("completed")
        {
            return Ok(completed["duration_ms"].as_f64().unwrap_or_default());
        }
        sleep(Duration::from_millis(100));
    }
    Err("a sync did not end".into())
}

/// Returns the median and the 99th percentile of how long an answer takes, in milliseconds, while
/// others do not get to the end of their questions.
fn answers_beside_half_open(address: &str) -> Outcome<(f64, f64)> {
    let half_open: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|_| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /livez HTTP/1.1\r\nHos")?;
            Ok(stream)
        })
        .collect::<Outcome<_>>()?;
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /livez HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new())?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    drop(half_open);
    let middle = median(&mut times);
    Ok((
        middle,
        times.get(ASKED * 99 / 100).copied().unwrap_or_default(),
    ))
}

/// Clients that follow all events. Every second one never reads.
struct Audience {
    /// Ends them when it is dropped.
    _runtime: tokio::runtime::Runtime,
    taken: Arc<AtomicU64>,
}

impl Audience {
    fn gather(address: &str, clients: usize) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let taken = Arc::new(AtomicU64::new(0));
        let seated = Arc::new(AtomicU64::new(0));
        for n in 0..clients {
            let (address, taken, seated) =
                (address.to_owned(), Arc::clone(&taken), Arc::clone(&seated));
            runtime.spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(&address).await?;
                let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut buffer = vec![0; 64 << 10];
                // The head of the answer: it is followed from here on.
                if stream.read(&mut buffer).await? == 0 {
                    return std::io::Result::Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                seated.fetch_add(1, Ordering::Relaxed);
                if n % 2 == 1 {
                    std::future::pending::<()>().await;
                }
                loop {
                    let bytes = stream.read(&mut buffer).await?;
                    if bytes == 0 {
                        return Ok(());
                    }
                    taken.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while seated.load(Ordering::Relaxed) < clients as u64 {
            if Instant::now() > deadline {
                return Err("not every client was let in".into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(Self {
            _runtime: runtime,
            taken,
        })
    }

    /// Returns how many bytes they took.
    fn leave(self) -> u64 {
        // What was sent at the end is on its way.
        sleep(Duration::from_millis(500));
        self.taken.load(Ordering::Relaxed)
    }
}

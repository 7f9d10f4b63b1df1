//! What a store makes of failing disks and power cuts: proofs that take as long as one lets them.
//!
//! SQLite, below the store that is tested, keeps its files on a disk in memory: see [`vfs`]. The
//! store does not know.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the terminal of the person who started a proof is where its verdict goes"
)]

mod disk;
mod images;
mod life;
mod medium;
mod operations;
mod state;
mod vfs;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vfs::locked;

const HELP: &str = "\
Usage: parallax-fault <proof> [--seed N] [--count N | --seconds N]

Proofs:
  images      Open what power cuts leave; counts images
  operations  Let each operation of the disk fail; counts the trials

The first violation ends a proof. Without a count, one life of a store is looked at.
";

/// A proof: looks at the life of a store that a seed makes, with files in a directory of its own,
/// and returns how much it has looked at.
type Proof = fn(u64, Share, &Path) -> Result<u64>;

/// The n-th of so many shares, which threads have in a life that takes long to look at.
#[derive(Clone, Copy, Debug)]
struct Share {
    nth: usize,
    of: usize,
}

struct Arguments {
    proof: Proof,
    what: &'static str,
    /// Whether threads share a life.
    shares: bool,
    seed: u64,
    count: u64,
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let (proof, what, shares): (Proof, _, _) = match words.next().as_deref() {
        Some("images") => (images::check, "crash images", false),
        Some("operations") => (operations::check, "failing operations", true),
        _ => bail!("no such proof\n\n{HELP}"),
    };
    let mut arguments = Arguments {
        proof,
        what,
        shares,
        seed: fastrand::u64(..),
        count: 1,
        duration: None,
    };
    while let Some(option) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok());
        let number = number.with_context(|| format!("{option} needs a number"))?;
        match option.as_str() {
            "--seed" => arguments.seed = number,
            "--count" => arguments.count = number,
            "--seconds" => {
                arguments.duration = Some(Duration::from_secs(number));
                arguments.count = u64::MAX;
            }
            _ => bail!("no such option: {option}\n\n{HELP}"),
        }
    }
    Ok(arguments)
}

/// How far all threads together have got.
#[derive(Default)]
struct Progress {
    /// How many lives were begun, and how many shares of the last.
    lives: u64,
    shares: usize,
    checked: u64,
    violation: Option<anyhow::Error>,
}

fn run(arguments: &Arguments) -> Result<()> {
    vfs::install()?;
    parallax_tests::silence_scripted_panics();
    let start = Instant::now();
    let threads = std::thread::available_parallelism()?.get();
    println!(
        "{}, seed {}, {threads} threads",
        arguments.what, arguments.seed
    );
    let progress = Mutex::new(Progress::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let shares = if arguments.shares { threads } else { 1 };
            let progress = &progress;
            scope.spawn(move || work(arguments, shares, start, progress));
        }
    });
    let progress = progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} {} of {} stores in {seconds:.1} s",
        progress.checked, arguments.what, progress.lives
    );
    progress.violation.map_or(Ok(()), Err)
}

/// Looks at lives until there are enough, time is over, or a promise is broken.
fn work(arguments: &Arguments, shares: usize, start: Instant, progress: &Mutex<Progress>) {
    loop {
        let (seed, share) = {
            let mut progress = locked(progress);
            let is_over = arguments.duration.is_some_and(|d| start.elapsed() >= d);
            let is_enough = is_over || progress.checked >= arguments.count;
            let is_whole = progress.shares.is_multiple_of(shares);
            if is_enough && is_whole || progress.violation.is_some() {
                return;
            }
            if is_whole {
                progress.lives += 1;
                progress.shares = 0;
            }
            progress.shares += 1;
            let share = Share {
                nth: progress.shares - 1,
                of: shares,
            };
            (arguments.seed.wrapping_add(progress.lives - 1), share)
        };
        let checked = directory()
            .context("no directory for the lock file")
            .and_then(|directory| (arguments.proof)(seed, share, directory.path()));
        let mut progress = locked(progress);
        match checked {
            Ok(checked) => progress.checked += checked,
            Err(error) => {
                let error = error.context(format!("violation; repeat it with --seed {seed}"));
                progress.violation.get_or_insert(error);
            }
        }
    }
}

/// Makes a directory for the lock files, in memory if there is such a place: they are written so
/// often that a disk would be what is measured.
fn directory() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
}

//! Developer tasks: `cargo xtask <command>`.
//!
//! A task is Rust, so that it runs the same on every desk and in CI. It names
//! each command line that it runs, so that one can repeat it alone.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the terminal of the person who started a task is where its output goes"
)]

mod ci;
mod command;
mod layers;
mod manifests;
mod setup;
mod torture;

use std::path::Path;
use std::process::ExitCode;
use std::{env, iter};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Developer tasks of Parallax.

Usage: cargo xtask <command>

Commands:
  bench commit [N] [stream]
                    Measure committing N entities, or running them into a session, too
  bench metrics     Measure recording metrics, a scrape, and a flood of ids
  bench requests    Measure how long a daemon of a thousand sources takes to answer
  bench runner      Measure what the runner costs beside the work it runs
  bench watchers [CLIENTS]
                    Measure what it costs a sync to be watched over HTTP
  ci                Run everything that must pass before a change is merged
  layers            Check the manifests: who depends on whom, what crates.io asks for
  pictures          Make the pictures of the dashboard in docs/src/images
  setup             Find or install the tools that the tests need
  torture [PROOF] [SECONDS]
                    Run a proof, or each, for a minute or SECONDS: images and operations
                    (failing disks), kills, histories
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    // Every path and command line below is relative to the root.
    env::set_current_dir(root.context("xtask lies in no workspace")?)?;

    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] | ["help" | "--help" | "-h"] => print!("{HELP}"),
        [
            "bench",
            bench @ ("commit" | "metrics" | "requests" | "runner" | "watchers"),
            size @ ..,
        ] => {
            let features = match *bench {
                "requests" | "watchers" => "",
                _ => "--no-default-features",
            };
            command::run(&format!(
                "cargo run --release --locked --package parallax-bench {features} --bin {bench} -- {}",
                size.join(" ")
            ))?;
        }
        ["ci"] => ci::run()?,
        ["layers"] => layers::run()?,
        ["pictures"] => pictures()?,
        ["setup"] => drop(setup::run()?),
        ["torture", words @ ..] => torture::run(words)?,
        _ => {
            let line: Vec<&str> = iter::once("cargo xtask").chain(args).collect();
            bail!("no such command: {}\n\n{HELP}", line.join(" "));
        }
    }
    Ok(())
}

/// Makes the pictures of the documentation, in the browser that the tests use.
fn pictures() -> Result<()> {
    let tools = setup::run()?;
    command::run(&format!(
        "CHROMIUM={} PLAYWRIGHT={} cargo test --locked --package parallax-server --test dashboard -- \
         pictures {}/docs/src/images",
        tools.chromium,
        tools.playwright,
        env::current_dir()?.display()
    ))
}

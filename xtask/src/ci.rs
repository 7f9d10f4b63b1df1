//! `cargo xtask ci`: everything that must pass before a change is merged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{command, layers, setup, torture};

/// The same for all steps, because another choice builds most crates again. No other feature of the
/// workspace is off by default and on nowhere in it.
const FEATURES: &str = "--features parallax-server/otlp";

/// Runs the steps in order, up to the first that fails.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    let result = run_all(&mut steps);
    print!("{}", steps.table());
    result
}

/// The list. Cheap steps come before dear ones, so that a slip costs seconds.
fn run_all(steps: &mut Steps) -> Result<()> {
    let tools = steps.run("setup", "cargo xtask setup", |_| setup::run())?;
    steps.run("format", "cargo fmt --all --check", command::run)?;
    steps.run("layers", "cargo xtask layers", |_| layers::run())?;
    let deny = format!("{} --locked check bans licenses sources", tools.deny);
    steps.run("licences", &deny, command::run)?;
    let clippy =
        format!("cargo clippy --workspace {FEATURES} --all-targets --locked -- -D warnings");
    steps.run("clippy", &clippy, command::run)?;
    // As it is built by default. The whole workspace, because another choice of packages is another
    // choice of features, for which most dependencies would be checked again.
    let plain = "cargo clippy --workspace --all-targets --locked -- -D warnings";
    steps.run("clippy: plain", plain, command::run)?;
    let docs =
        format!("RUSTDOCFLAGS=-Dwarnings cargo doc --workspace {FEATURES} --no-deps --locked");
    steps.run("docs", &docs, command::run)?;
    let doctests = format!("cargo test --doc --workspace {FEATURES} --locked");
    steps.run("doctests", &doctests, command::run)?;
    // nextest asks the cargo that started it, by its path with links resolved. Where a toolchain
    // is a link, that looks like another compiler, and everything would be built twice.
    let tests = format!(
        "CARGO=cargo PROMETHEUS={} PROMTOOL={} PROMETHEUS_CLIENT={} GRAFANA_SDK={} STRACE={} \
         CHROMIUM={} PLAYWRIGHT={} OTLP_PYTHONPATH={} SCHEMATHESIS={} {} run --workspace {FEATURES} \
         --locked --profile ci",
        tools.prometheus,
        tools.promtool,
        tools.prometheus_client,
        tools.grafana_sdk,
        tools.strace,
        tools.chromium,
        tools.playwright,
        tools.otlp_pythonpath,
        tools.schemathesis,
        tools.nextest
    );
    steps.run("tests", &tests, command::run)?;
    faults(steps)
}

/// What the workspace leaves out, because its build needs libclang: see its manifest.
fn faults(steps: &mut Steps) -> Result<()> {
    let variables = setup::find_or_fetch_libclang()?;
    let package = "--manifest-path tests/fault/Cargo.toml";
    let format = format!("cargo fmt {package} --check");
    steps.run("faults: format", &format, command::run)?;
    for (name, command, more) in [
        ("faults: clippy", "clippy", "--all-targets -- -D warnings"),
        ("faults: tests", "test", "--quiet"),
    ] {
        let line = format!(
            "{variables} cargo {command} {package} --locked --target-dir target/fault {more}"
        );
        steps.run(name, &line, command::run)?;
    }
    for (name, arguments) in [
        ("faults: images", "images --count 12000"),
        ("faults: operations", "operations"),
    ] {
        steps.run(name, &torture::fault(arguments)?, command::run)?;
    }
    Ok(())
}

/// The steps that have ended, the failed one included.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    /// Runs one step. `line` is the command line that does the same alone.
    fn run<T>(
        &mut self,
        name: &'static str,
        line: &str,
        step: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        println!("\n==> {name}: {line}");
        let start = Instant::now();
        let result = step(line);
        let duration = start.elapsed();
        self.0.push((name, duration));
        let outcome = if result.is_ok() { "passed" } else { "failed" };
        println!(
            "==> {name}: {outcome} after {:.1} s",
            duration.as_secs_f64()
        );
        result.with_context(|| format!("{name} failed; repeat it with `{line}`"))
    }

    fn table(&self) -> String {
        let mut table = "\nstep                seconds\n".to_owned();
        let total = ("total", self.0.iter().map(|(_, duration)| duration).sum());
        for (name, duration) in self.0.iter().chain([&total]) {
            table += &format!("{name:<19} {:>7.1}\n", duration.as_secs_f64());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn failed_step_names_the_command_that_repeats_it() {
        let mut steps = Steps::default();
        let result: Result<()> = steps.run("clippy", "cargo clippy", |_| bail!("exit status: 101"));
        let error = format!("{:#}", result.unwrap_err());
        assert_eq!(
            error,
            "clippy failed; repeat it with `cargo clippy`: exit status: 101"
        );
    }

    #[test]
    fn table_lists_the_steps_in_order_and_their_sum() {
        let steps = Steps(vec![
            ("setup", Duration::from_millis(400)),
            ("clippy", Duration::from_millis(62_300)),
        ]);
        assert_eq!(
            steps.table(),
            "
step                seconds
setup                   0.4
clippy                 62.3
total                  62.7
"
        );
    }
}

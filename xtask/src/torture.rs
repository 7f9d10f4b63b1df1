//! `cargo xtask torture`: the proofs that get better the longer they run.

use anyhow::{Result, bail};

use crate::{command, setup};

/// How long each proof runs if nobody says.
const SECONDS: u64 = 60;

/// Each proof, and how many cases of it take a second, if it counts cases.
const PROOFS: [(&str, u64); 4] = [
    ("images", 0),
    ("operations", 0),
    ("kills", 6),
    ("histories", 150),
];

/// Runs the proof of a name, or all, one after the other.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (name, seconds) = match words {
        [] => (None, SECONDS),
        [word] => match word.parse() {
            Ok(seconds) => (None, seconds),
            Err(_) => (Some(*word), SECONDS),
        },
        [name, seconds] => (Some(*name), seconds.parse()?),
        _ => bail!("`cargo xtask torture` takes a proof and a number of seconds"),
    };
    let names = PROOFS.map(|(name, _)| name);
    if let Some(name) = name.filter(|name| !names.contains(name)) {
        bail!("no such proof: {name}; there are {}", names.join(", "));
    }
    for (proof, rate) in PROOFS {
        if name.is_none_or(|name| name == proof) {
            let line = line(proof, rate, seconds)?;
            println!("\n==> {proof}: {line}");
            command::run(&line)?;
        }
    }
    Ok(())
}

fn line(proof: &str, rate: u64, seconds: u64) -> Result<String> {
    let count = rate * seconds;
    let nextest = |variable, test| -> Result<String> {
        Ok(format!(
            "CARGO=cargo {variable}={count} {} run --locked --package parallax-tests \
             --profile torture --success-output final {test}",
            setup::find_nextest()?
        ))
    };
    match proof {
        "kills" => nextest("PARALLAX_TEST_KILLS", "killed_writer"),
        "histories" => nextest("PROPTEST_CASES", "every_commit_equals_the_model"),
        proof => fault(&format!("{proof} --seconds {seconds}")),
    }
}

/// Returns the command line of a proof of `tests/fault`.
pub(crate) fn fault(arguments: &str) -> Result<String> {
    Ok(format!(
        "{} cargo run --quiet --locked --manifest-path tests/fault/Cargo.toml \
         --target-dir target/fault -- {arguments}",
        setup::find_or_fetch_libclang()?
    ))
}

//! Collects and commits N entities and about 2N relationships: a first sync, one that finds
//! nothing changed, one that finds 1 % changed and 1 % gone, and one more without a change.
//!
//! `cargo xtask bench commit [N]`, in a release build, prints a row per sync. Times are wall time; compare
//! rows of one run, since machines differ and are noisy.
#![allow(clippy::print_stdout, reason = "what the program is for")]

use std::error::Error;
use std::fs;
use std::time::Instant;

use parallax_connect::{
    Connector, ConnectorError, Step, StepContext, entity, relationship, run_connector, step,
};
use parallax_store::Store;

/// A fleet of hosts that talk to each other; 241 bytes and eight properties each.
struct Fleet {
    hosts: usize,
    /// Whether 1 % have changed, and 1 % are gone.
    churned: bool,
}

impl Connector for Fleet {
    fn name(&self) -> &str {
        "fleet"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("hosts", "Collect hosts", |ctx| self.hosts(ctx))]
    }
}

impl Fleet {
    async fn hosts(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        let key = |host: usize| ("fleet_host", format!("host-{host:09}-abcdefghij"));
        let gone = if self.churned { self.hosts / 100 } else { 0 };
        for host in gone..self.hosts {
            let (entity_type, host_key) = key(host);
            let revision = u32::from(self.churned && host % 100 == 1);
            ctx.emit(
                entity(entity_type, host_key)
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
                    .property("public", host % 2 == 0)
                    .property("revision", revision),
            )?;
            for (number, verb) in [(1, "TALKS_TO"), (2, "DEPENDS_ON")] {
                let other = (host * 7 + number * 13) % self.hosts;
                if other >= gone {
                    ctx.emit(relationship(key(host), verb, key(other)))?;
                }
            }
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let hosts = match std::env::args().nth(1) {
        Some(hosts) => hosts.parse()?,
        None => 100_000,
    };
    let directory = tempfile::tempdir_in(".")?;
    let path = directory.path().join("parallax.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await?;
    println!("{hosts} entities  collect s  commit s  records/s  peak MB  file MB");
    let syncs = [
        ("first", false),
        ("unchanged", false),
        ("1 % + 1 %", true),
        ("unchanged", true),
    ];
    for (number, (name, churned)) in syncs.into_iter().enumerate() {
        let started = Instant::now();
        let fleet = Fleet { hosts, churned };
        let output = run_connector(&fleet, "acme", &format!("sync-{number}"), None).await?;
        let collected = started.elapsed();
        let started = Instant::now();
        let stats = store.commit_sync(&output).await?.stats;
        let committed = started.elapsed();
        let [created, updated, unchanged] = [
            stats.entities_created + stats.relationships_created,
            stats.entities_updated + stats.relationships_updated,
            stats.entities_unchanged + stats.relationships_unchanged,
        ];
        let records = u32::try_from(created + updated + unchanged)?;
        println!(
            "{name:>15}  {:>9.2}  {:>8.2}  {:>9.0}  {:>7}  {:>7}",
            collected.as_secs_f64(),
            committed.as_secs_f64(),
            f64::from(records) / committed.as_secs_f64(),
            peak_mb()?,
            fs::metadata(&path)?.len() / 1_000_000,
        );
    }
    Ok(())
}

fn peak_mb() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak
        .and_then(|peak| peak.split_whitespace().next())
        .unwrap_or("0")
        .parse()?;
    Ok(kib / 1_000)
}

//! Commits N entities and about 2N relationships, eight properties and 215 bytes an entity: a first
//! sync, one that finds nothing changed, and ones that find a little changed.
//!
//! `cargo xtask bench commit [N]`, in a release build, prints a row per sync: wall and CPU time of
//! the commit, and the memory it needed above its input, which is collected before. `stream` runs
//! the connector into a session instead, and counts the run, too; `entities` does so without the
//! relationships. Compare rows of one run, since machines differ and are noisy: "bare SQLite" is what
//! SQLite takes for the rows of the first sync, "made" what making the records takes that nobody
//! collects.
#![allow(clippy::print_stdout, reason = "what the program is for")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use parallax_connect::{
    Connector, ConnectorError, Entity, Runner, Step, StepContext, entity, relationship,
    run_connector, step,
};
use parallax_store::{Guard, Store};
use rusqlite::Connection;

/// A fleet of hosts that talk to each other; 241 bytes and eight properties each.
#[derive(Clone, Copy)]
struct Fleet {
    hosts: usize,
    /// How many hosts have changed, and as many others are gone.
    churned: usize,
    /// Whether they talk.
    related: bool,
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
        let each = self.each();
        let is_gone = |host: usize| host % each == 2;
        for host in (0..self.hosts).filter(|host| !is_gone(*host)) {
            ctx.emit(self.host(host))?;
            for (number, verb) in [(1, "TALKS_TO"), (2, "DEPENDS_ON")] {
                let other = (host * 7 + number * 13) % self.hosts;
                if self.related && !is_gone(other) {
                    ctx.emit(relationship(key(host), verb, key(other)))?;
                }
            }
        }
        Ok(())
    }

    fn host(&self, host: usize) -> Entity {
        let (entity_type, host_key) = key(host);
        let revision = u32::from(host % self.each() == 1);
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
            .property("public", host.is_multiple_of(2))
            .property("revision", revision)
    }

    /// One of how many hosts has changed.
    fn each(&self) -> usize {
        self.hosts.checked_div(self.churned).unwrap_or(usize::MAX)
    }
}

fn key(host: usize) -> (&'static str, String) {
    ("fleet_host", format!("host-{host:09}-abcdefghij"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let hosts = match args.next() {
        Some(hosts) => hosts.parse()?,
        None => 100_000,
    };
    let directory = tempfile::tempdir_in(".")?;
    let path = directory.path().join("parallax.db");
    let url = format!("sqlite:{}", path.display());
    let fleet = Fleet {
        hosts,
        churned: 0,
        related: true,
    };
    match args.next().as_deref() {
        Some("stream") => return stream(&url, fleet).await,
        Some("entities") => {
            let related = false;
            return stream(&url, Fleet { related, ..fleet }).await;
        }
        _ => {}
    }
    let mut store = Store::open(&url).await?;
    println!("{hosts} entities   wall s    CPU s  memory MB  log into file s");
    let syncs = [
        ("first", 0),
        ("unchanged", 0),
        ("100 + 100", 100),
        ("100 back", 0),
        ("1 % + 1 %", hosts / 100),
        ("unchanged", hosts / 100),
    ];
    for (number, (name, churned)) in syncs.into_iter().enumerate() {
        let fleet = Fleet { churned, ..fleet };
        let output = run_connector(&fleet, "acme", &format!("sync-{number}"), None).await?;
        let meter = Meter::start()?;
        let result = store.session().guard(Guard::OFF).commit(&output).await?;
        let (wall, cpu, memory) = meter.stop()?;
        // Whoever writes next waits until the log is in the file.
        let checkpoint = Instant::now();
        drop(store.reject(u64::MAX).await);
        let checkpoint = checkpoint.elapsed().as_secs_f64();
        println!("{name:>15}  {wall:>7.3}  {cpu:>7.2}  {memory:>9}  {checkpoint:>15.3}");
        let written = result.stats.entities_created + result.stats.entities_updated;
        assert_eq!(written == 0, name == "unchanged", "{name}");
        if name == "first" {
            let meter = Meter::start()?;
            bare(&path, &directory.path().join("bare.db"))?;
            let (wall, cpu, memory) = meter.stop()?;
            println!(
                "{:>15}  {wall:>7.3}  {cpu:>7.2}  {memory:>9}",
                "bare SQLite"
            );
        }
    }
    drop(store);
    let meter = Meter::start()?;
    store = Store::open(&url).await?;
    let one = "SELECT properties FROM parallax_entity WHERE id = (SELECT id FROM
         parallax_entity LIMIT 1 OFFSET 100)";
    assert_eq!(store.query(one).await?.rows.len(), 1);
    let (wall, cpu, memory) = meter.stop()?;
    println!(
        "{:>15}  {wall:>7.3}  {cpu:>7.2}  {memory:>9}",
        "reopen + read"
    );
    Ok(())
}

/// Writes the rows of a store into a new file, in the order that suits each table best, in one
/// transaction: what SQLite takes for them if nobody makes, binds or compares any.
fn bare(store: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut connection = Connection::open(file)?;
    // As the store does.
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -262144;",
    )?;
    let store = store.to_str().ok_or("the directory's name is no text")?;
    connection.execute("ATTACH ?1 AS store", [store])?;
    let transaction = connection.transaction()?;
    for (table, key) in [
        ("px_entity", "n"),
        ("px_relationship", "n"),
        ("px_edge_from", "entity, relationship"),
        ("px_edge_to", "entity, relationship"),
    ] {
        let made = format!(
            "SELECT sql FROM store.sqlite_schema WHERE tbl_name = '{table}' AND sql IS NOT NULL
             ORDER BY type DESC"
        );
        let mut made = transaction.prepare(&made)?;
        let made = made.query_map([], |row| row.get::<_, String>(0))?;
        for sql in made.collect::<Result<Vec<_>, _>>()? {
            transaction.execute_batch(&sql)?;
        }
        // With an order, it goes row by row; without, SQLite would copy pages.
        let copy = format!("INSERT INTO main.{table} SELECT * FROM store.{table} ORDER BY {key}");
        transaction.execute(&copy, [])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Runs and commits twice, without gathering the records in memory.
async fn stream(url: &str, fleet: Fleet) -> Result<(), Box<dyn Error>> {
    let store = Store::open(url).await?;
    let hosts = fleet.hosts;
    println!("{hosts} entities    run s  commit s    CPU s  memory MB");
    let meter = Meter::start()?;
    for host in 0..hosts {
        drop(black_box(fleet.host(host)));
        if fleet.related {
            for verb in ["TALKS_TO", "DEPENDS_ON"] {
                drop(black_box(relationship(key(host), verb, key(host))));
            }
        }
    }
    let (made, cpu, _) = meter.stop()?;
    println!("{:>15}  {made:>7.3}  {:>8}  {cpu:>7.2}", "made", "");
    for name in ["first", "unchanged"] {
        let meter = Meter::start()?;
        let session = store.session();
        let output = Runner::new(&fleet).sink(&session).run("acme", name).await?;
        let run = output.run().duration.as_secs_f64();
        session.commit(&output).await?;
        let (wall, cpu, memory) = meter.stop()?;
        let commit = wall - run;
        println!("{name:>15}  {run:>7.3}  {commit:>8.3}  {cpu:>7.2}  {memory:>9}");
    }
    Ok(())
}

/// Measures wall time, CPU time, and memory above what there was.
struct Meter {
    started: Instant,
    cpu: f64,
    memory: u64,
}

impl Meter {
    fn start() -> Result<Self, Box<dyn Error>> {
        // Forgets the peak of what came before.
        fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self {
            started: Instant::now(),
            cpu: cpu()?,
            memory: memory("VmRSS:")?,
        })
    }

    fn stop(self) -> Result<(f64, f64, u64), Box<dyn Error>> {
        let wall = self.started.elapsed().as_secs_f64();
        let memory = memory("VmHWM:")?.saturating_sub(self.memory);
        Ok((wall, cpu()? - self.cpu, memory))
    }
}

/// CPU time of the process and its threads, in seconds.
fn cpu() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// A figure of the process's memory, in MB.
fn memory(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.unwrap_or("0").parse::<u64>()? / 1_000)
}

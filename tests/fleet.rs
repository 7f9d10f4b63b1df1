//! `parallax` with a connector that has good and bad days: what the tests let Prometheus watch.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parallax_connect::{
    Connector, ConnectorError, Relationship, Retries, Step, StepContext, entity, relationship, step,
};
use parallax_server::{App, Opened};

fn main() -> ExitCode {
    App::new()
        .register("moody", "A system with good and bad days", || {
            Ok(Opened::new(Moody::default()))
        })
        .main()
}

/// A system of which everything that can happen happens in the first eight runs, and then a last
/// time, for good.
#[derive(Default)]
struct Moody {
    runs: AtomicU64,
}

impl Connector for Moody {
    fn name(&self) -> &str {
        "moody"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        // Steps are asked for more often than they are run.
        let first = Arc::new(OnceLock::new());
        let run = move || *first.get_or_init(|| self.runs.fetch_add(1, Relaxed));
        let attempts = AtomicU64::new(0);
        let (of_users, of_groups) = (run.clone(), run.clone());
        let users = move |ctx| users(ctx, of_users(), attempts.fetch_add(1, Relaxed));
        vec![
            step("users", "Users", users)
                .retries(Retries::up_to(2).first_pause(Duration::from_millis(20))),
            step("groups", "Groups", move |ctx| groups(ctx, of_groups())).depends_on(["users"]),
            step("hosts", "Hosts", move |ctx| hosts(ctx, run())),
        ]
    }
}

async fn users(ctx: StepContext, run: u64, attempt: u64) -> Result<(), ConnectorError> {
    // A metric of its own, as hostile as it can be.
    metrics::counter!("moody_requests", "path" => "a\"b\\c\nd\u{1b}[31m le=\"1\"").increment(1);
    match (run % 7, attempt) {
        (2, _) => return Err(ConnectorError::unauthorized("the token has expired")),
        (3, 0) => {
            return Err(ConnectorError::RateLimited {
                service: "moody".to_owned(),
                retry_after: Duration::from_millis(1_100),
            });
        }
        (4, 0 | 1) => return Err(ConnectorError::retryable("connection reset")),
        _ => {}
    }
    for key in 0..20 + run % 3 {
        ctx.emit(entity("user", key).property("revision", run / 2))?;
    }
    ctx.emit(entity("user", 0).property("revision", run / 2))?;
    // Rejected, and known which user it is. A group is deleted only in a run without that.
    if run != 1 {
        ctx.emit(entity("user", 7).property("weight", f64::NAN))
            .ok();
    }
    Ok(())
}

async fn groups(ctx: StepContext, run: u64) -> Result<(), ConnectorError> {
    for key in 0..if matches!(run, 1 | 7..) { 4 } else { 5 } {
        ctx.emit(entity("group", key))?;
        // There are hosts up to 11: some of them wait.
        ctx.emit(relationship(("group", key), "USES", ("host", key + 9)))?;
        ctx.emit(member(key, run))?;
    }
    ctx.emit(member(0, run))?;
    ctx.emit(member(1, run).property("weight", f64::NAN)).ok();
    if matches!(run, 5 | 7..) {
        ctx.incomplete("the last page timed out");
    }
    Ok(())
}

fn member(key: u64, run: u64) -> Relationship {
    relationship(("user", key), "MEMBER_OF", ("group", key)).property("revision", run / 2)
}

async fn hosts(ctx: StepContext, run: u64) -> Result<(), ConnectorError> {
    match run {
        2 => Err(ConnectorError::fatal("the system is down")),
        #[expect(clippy::panic, reason = "what is tested")]
        6 => panic!("told to"),
        // All are gone at once: held.
        5 | 7.. => Ok(()),
        _ => {
            for key in 0..12 {
                ctx.emit(entity("host", key))?;
                ctx.emit(relationship(("host", key), "RUNS_ON", ("host", key % 3)))?;
            }
            Ok(())
        }
    }
}

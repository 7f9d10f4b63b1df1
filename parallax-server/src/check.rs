use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use parallax_core::Escaped;
use parallax_scheduler::{Schedule, Timetable, last_successes};
use parallax_store::{Store, StoreError};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::app::App;
use crate::args::CheckArgs;
use crate::config::schedule_in_short;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::plan::{Overrides, Plan};
use crate::serve::{Reason, Tokens};
use crate::text::count;

/// `parallax check`: says what `parallax serve` would do, and runs and writes nothing.
pub(crate) async fn run(
    app: &App,
    args: &CheckArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let overrides = Overrides {
        store: args.config.store.clone(),
        listen: None,
        insecure_http: args.config.insecure_http,
    };
    let file = &args.config.file;
    let plan = Plan::make(app, file, &overrides).await?;
    let opened = Store::open_read_only(&plan.store).await;
    let last = match &opened {
        Ok(store) => last_successes(store).await?,
        Err(_) => HashMap::new(),
    };
    let mut lines = vec![format!("config     {}", Escaped(file.display()))];
    lines.push(format!("listen     {}://{}", plan.scheme(), plan.listen));
    if let Some(tls) = &plan.tls {
        let path = Escaped(tls.files.certificate.display());
        let valid_until = tls.certificate().valid_until;
        lines.push(format!("tls        {path}, valid until {valid_until}"));
    }
    for source in &plan.sources {
        let steps = count(source.steps.len() as u64, "step", "steps");
        let account = Escaped(&source.account_id);
        let schedule = schedule_in_short(&source.schedule, source.interval);
        lines.push(format!(
            "connector  {}, account {account}: {steps}, {schedule}",
            source.connector_id
        ));
        let id = (source.connector_id.clone(), source.account_id.clone());
        let due = due(&source.schedule, last.get(&id).copied(), Timestamp::now());
        lines.push(format!("  due      {due}"));
    }
    console.print(&(lines.join("\n") + "\n"))?;
    let store = store(&plan.store, opened)?;
    console.print(&format!("store      {}\n", Escaped(store)))?;
    if let Some(path) = &plan.tokens {
        console.print(&format!("tokens     {}\n", Escaped(tokens(path)?)))?;
    }
    match plan.unusable {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Ok),
    }
}

/// Says when a source would be due: the next three times of a pattern, by its clock.
fn due(schedule: &Schedule, last: Option<Timestamp>, now: Timestamp) -> String {
    let jobs = [(schedule.clone().jitter(Duration::ZERO), 0, last)];
    let due = Timetable::new(jobs, 1, now).due(0);
    let is_due = due.is_some_and(|due| due <= now);
    let (zone, times) = match schedule.as_cron() {
        Some(cron) => {
            let times = cron.iter_after(now).take(3).collect();
            (cron.time_zone().clone(), times)
        }
        None if is_due => (TimeZone::UTC, Vec::new()),
        None => (TimeZone::UTC, Vec::from_iter(due)),
    };
    let times = times.into_iter().map(|at: Timestamp| {
        let at = at.to_zoned(zone.clone());
        at.strftime("%Y-%m-%d %H:%M %:z").to_string()
    });
    let at_once = is_due.then(|| "at once".to_owned());
    let told: Vec<_> = at_once.into_iter().chain(times).collect();
    told.join(", ")
}

/// Says what `parallax serve` would find.
fn store(url: &str, opened: Result<Store, StoreError>) -> Result<String, StoreError> {
    match opened {
        Ok(store) => {
            let path = store.url().strip_prefix("sqlite:").map(Path::new);
            let paths = path.into_iter().chain(path.and_then(Path::parent));
            for path in paths {
                may_write(path)?;
            }
            Ok(store.url().to_owned())
        }
        Err(StoreError::NotFound { path }) if path == Path::new(":memory:") => {
            Ok(format!("{url}, gone when the process ends"))
        }
        Err(StoreError::NotFound { path }) => {
            if let Some(directory) = path.parent() {
                may_write(directory)?;
            }
            Ok(format!("sqlite:{}, to be created", path.display()))
        }
        Err(error) => Err(error),
    }
}

/// Says where `parallax serve` would find its tokens, or make them.
fn tokens(path: &Path) -> Result<String, Failure> {
    let found = match Tokens::read(path) {
        Ok(_) => "",
        Err(Failure::Tokens {
            reason: Reason::Missing,
            ..
        }) => {
            let directory = path.parent().unwrap_or(path);
            writable(directory).map_err(|error| Failure::Tokens {
                path: path.to_owned(),
                reason: Reason::Io(error.to_string()),
            })?;
            ", to be made"
        }
        Err(failure) => return Err(failure),
    };
    Ok(format!("{}{found}", path.display()))
}

fn may_write(path: &Path) -> Result<(), StoreError> {
    writable(path).map_err(|error| StoreError::Permission {
        path: path.to_owned(),
        source: std::sync::Arc::new(error),
    })
}

fn writable(path: &Path) -> io::Result<()> {
    Ok(accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use parallax_scheduler::{Cron, Missed};

    use super::*;

    #[test]
    fn due_times_are_those_of_the_zone() {
        let now = "2026-03-28T12:00:00Z".parse::<Timestamp>().unwrap();
        let nightly = Schedule::cron(Cron::try_new("30 2 * * *", "Europe/Berlin").unwrap());
        let hourly = Schedule::every(Duration::from_secs(3600));
        let skips = |schedule: &Schedule| schedule.clone().missed(Missed::Skip);
        let ago = |minutes: u64| Some(now - Duration::from_secs(minutes * 60));
        let told = [
            due(&nightly, None, now),
            due(&nightly, ago(60), now),
            due(&nightly, ago(24 * 60), now),
            due(&skips(&nightly), ago(24 * 60), now),
            due(&hourly, None, now),
            due(&hourly, ago(20), now),
            due(&skips(&hourly), ago(20), now),
            due(&skips(&hourly), ago(100), now),
        ];
        insta::assert_snapshot!(told.join("\n"), @r"
        2026-03-29 03:00 +02:00, 2026-03-30 02:30 +02:00, 2026-03-31 02:30 +02:00
        2026-03-29 03:00 +02:00, 2026-03-30 02:30 +02:00, 2026-03-31 02:30 +02:00
        at once, 2026-03-29 03:00 +02:00, 2026-03-30 02:30 +02:00, 2026-03-31 02:30 +02:00
        2026-03-29 03:00 +02:00, 2026-03-30 02:30 +02:00, 2026-03-31 02:30 +02:00
        at once
        at once
        2026-03-28 12:40 +00:00
        2026-03-28 12:20 +00:00
        ");
    }
}

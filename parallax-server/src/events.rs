use std::io;
use std::time::Duration;

use indicatif::HumanCount;
use parallax_connect::{JournalEntry, JournalKind};
use parallax_core::{Escaped, SyncStats};
use parallax_store::{JournalName, Store};
use tokio::time::sleep;

use crate::args::EventsArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::text::{FAINT, GOOD, ODD, WRONG, count, counts, paint, seconds};

/// How often a journal that is followed is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// `parallax events`: tells what happened in a sync, as it was told while it happened.
pub(crate) async fn run(args: &EventsArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    let name = find(&store, args).await?;
    let mut next = args.from;
    let mut is_first = true;
    let mut is_over = false;
    loop {
        let page = store.journal(&name, next).await?;
        if is_first && !args.json {
            console.print(&heading(&name))?;
        }
        if is_first && next < page.first_kept {
            console.complain(&format!(
                "entries before {} are no longer kept\n",
                page.first_kept
            ));
        }
        is_first = false;
        let mut text = String::new();
        for line in &page.lines {
            // One that this version cannot read is shown as it is.
            let entry = JournalEntry::from_json(line).ok();
            is_over = entry.as_ref().is_some_and(|entry| ends(&entry.kind));
            match entry {
                Some(entry) if !args.json => text += &as_text(&entry),
                _ => text += &format!("{line}\n"),
            }
        }
        if !written(console, &text)? || (page.lines.is_empty() && (is_over || !args.follow)) {
            return Ok(Exit::Ok);
        }
        if page.lines.is_empty() {
            sleep(FOLLOW_EVERY).await;
        }
        next = page.next;
    }
}

/// Finds the one journal of this id or, if there is none, the one whose id begins so.
async fn find(store: &Store, args: &EventsArgs) -> Result<JournalName, Failure> {
    let prefix = args.sync_id.as_deref().unwrap_or_default();
    let mut found = store.journals(prefix, u32::MAX).await?;
    let is_wanted =
        |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    found.retain(|name| {
        is_wanted(&args.connector, &name.connector_id) && is_wanted(&args.account, &name.account_id)
    });
    if found.iter().any(|name| name.sync_id == prefix) {
        found.retain(|name| name.sync_id == prefix);
    }
    let is_one = found.len() == 1 || args.sync_id.is_none();
    match (found.into_iter().next(), &args.sync_id) {
        (Some(name), _) if is_one => Ok(name),
        (Some(_), _) => Err(Failure::Usage {
            message: format!("{prefix:?} may be several syncs"),
            help: "write more of the id, or name its --connector and --account".to_owned(),
        }),
        (None, Some(sync_id)) => Err(Failure::Usage {
            message: format!("there is no journal of a sync {sync_id:?}"),
            help: "`parallax syncs` lists the syncs; journals are kept for 30 days".to_owned(),
        }),
        (None, None) => Err(Failure::Usage {
            message: "no journal is kept here".to_owned(),
            help: "the next `parallax sync` or `parallax serve` writes one".to_owned(),
        }),
    }
}

/// Prints, and returns whether somebody still reads.
fn written(console: &mut Console<'_>, text: &str) -> Result<bool, Failure> {
    let out = &mut console.out;
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// Tells whether nothing comes after it while somebody waits.
fn ends(kind: &JournalKind) -> bool {
    matches!(
        kind,
        JournalKind::Cancelled
            | JournalKind::Failed { .. }
            | JournalKind::Committed { .. }
            | JournalKind::CommitFailed { .. }
            | JournalKind::DeletesHeld { .. }
            | JournalKind::DeletesApproved { .. }
            | JournalKind::DeletesRejected { .. }
    )
}

fn heading(name: &JournalName) -> String {
    format!(
        "{}, account {}, sync {}\n",
        Escaped(&name.connector_id),
        Escaped(&name.account_id),
        Escaped(&name.sync_id)
    )
}

/// Returns the line of an entry: its number, when, and what.
fn as_text(entry: &JournalEntry) -> String {
    let at = entry.at.to_string();
    let seconds = at.get(..19).unwrap_or(&at).replace('T', " ");
    let millis = entry.at.as_micros().rem_euclid(1_000_000) / 1_000;
    let when = paint(FAINT, format!("{:>4}  {seconds}.{millis:03}", entry.seq));
    format!("{when}  {}\n", words(&entry.kind))
}

/// Says in words what happened.
pub(crate) fn words(kind: &JournalKind) -> String {
    let took = |ms: u64| paint(FAINT, seconds(Duration::from_millis(ms)));
    let steps = |n: usize| format!("{n} step{}", if n == 1 { "" } else { "s" });
    let took_throttled = |ms: u64, throttled: u64| match throttled {
        0 => took(ms),
        throttled => {
            let throttled = seconds(Duration::from_millis(throttled));
            format!("{} ({throttled} of it throttled)", took(ms))
        }
    };
    let several = |attempts: u32| match attempts {
        0..=1 => String::new(),
        n => format!(" in {n} attempts"),
    };
    match kind {
        JournalKind::Started { steps: all, .. } => {
            let selected = all.iter().filter(|step| step.selected).count();
            match selected == all.len() {
                true => format!("sync started: {}", steps(selected)),
                false => format!("sync started: {selected} of {}", steps(all.len())),
            }
        }
        JournalKind::StepStarted { step_id } => format!("{step_id}: started"),
        JournalKind::StepProgress {
            step_id,
            entities,
            relationships,
        } => format!("{step_id}: {} so far", counts(*entities, *relationships)),
        JournalKind::StepRetrying {
            step_id,
            attempt,
            error,
            pause_ms,
        } => {
            let pause = seconds(Duration::from_millis(*pause_ms));
            let failed = paint(ODD, format!("attempt {attempt} failed"));
            format!("{step_id}: {failed}, the next after {pause}: {error}")
        }
        JournalKind::StepRestarted { step_id, attempt } => {
            format!("{step_id}: attempt {attempt} started")
        }
        JournalKind::StepStalled {
            step_id,
            idle_ms,
            blocking,
        } => {
            let idle = seconds(Duration::from_millis(*idle_ms));
            let what = match blocking {
                true => format!("blocks its thread, for {idle} so far"),
                false => format!("has emitted nothing for {idle}"),
            };
            format!("{step_id}: {}", paint(ODD, what))
        }
        JournalKind::RecordsRejected {
            step_id,
            rule,
            count,
            samples,
        } => {
            let rejected = paint(ODD, format!("{} rejected", HumanCount(*count)));
            format!("{step_id}: {rejected} by {rule}: {}", samples.join("; "))
        }
        JournalKind::StepCompleted {
            step_id,
            reason,
            attempts,
            entities,
            relationships,
            duration_ms,
            throttled_ms,
            ..
        } => {
            let how = match reason {
                None => paint(GOOD, "completed"),
                Some(_) => paint(ODD, "incomplete"),
            };
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!(
                "{step_id}: {how}{}, {}, {}{}",
                several(*attempts),
                counts(*entities, *relationships),
                took_throttled(*duration_ms, *throttled_ms),
                reason.unwrap_or_default()
            )
        }
        JournalKind::StepFailed {
            step_id,
            status,
            error,
            attempts,
            duration_ms,
            throttled_ms,
        } => format!(
            "{step_id}: {}{}, {}: {error}",
            paint(WRONG, status),
            several(*attempts),
            took_throttled(*duration_ms, *throttled_ms)
        ),
        JournalKind::StepSkipped { step_id, error } => {
            format!("{step_id}: {}: {error}", paint(ODD, "skipped"))
        }
        JournalKind::Completed {
            entities,
            relationships,
            duration_ms,
        } => format!(
            "run completed: {}, {}",
            counts(*entities, *relationships),
            took(*duration_ms)
        ),
        JournalKind::Cancelled => paint(ODD, "cancelled: nothing is committed"),
        JournalKind::Failed { error } => {
            format!("{}: {error}", paint(WRONG, "could not start"))
        }
        JournalKind::Committed {
            outcome,
            replayed,
            stats,
        } => {
            let outcome = match outcome.as_str() {
                "committed" => paint(GOOD, outcome),
                _ => paint(ODD, outcome),
            };
            let again = if *replayed { ", as before" } else { "" };
            format!("{outcome}{again}: {}", changed(stats))
        }
        JournalKind::DeletesHeld {
            changeset,
            entities,
            relationships,
            reason,
        } => format!(
            "{}: {}, as changeset {changeset}: {reason}",
            paint(ODD, "deletes held"),
            counts(*entities, *relationships)
        ),
        JournalKind::DeletesApproved {
            changeset,
            entities,
            relationships,
        } => format!(
            "deletes approved: {} of changeset {changeset} gone",
            counts(*entities, *relationships)
        ),
        JournalKind::DeletesRejected {
            changeset,
            entities,
            relationships,
        } => format!(
            "deletes rejected: {} of changeset {changeset} kept",
            counts(*entities, *relationships)
        ),
        JournalKind::CommitFailed { error } => {
            format!("{}: {error}", paint(WRONG, "not committed"))
        }
        // What a later version tells; its JSON says more.
        _ => "something that this version does not know".to_owned(),
    }
}

/// The counts of a commit that are not zero, but for what stayed as it was.
fn changed(stats: &SyncStats) -> String {
    let fields = SyncStats::FIELDS.iter().zip(stats.values());
    let changed: Vec<String> = fields
        .filter(|(field, count)| *count > 0 && !field.ends_with("unchanged"))
        .map(|(field, n)| {
            let (kind, what) = field.split_once('_').unwrap_or((field, ""));
            let records = match kind {
                "entities" => count(n, "entity", "entities"),
                _ => count(n, "relationship", "relationships"),
            };
            match what {
                "duplicates" => format!("{records} emitted twice"),
                what => format!("{records} {what}"),
            }
        })
        .collect();
    match changed.is_empty() {
        true => "nothing changed".to_owned(),
        false => changed.join(", "),
    }
}

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parallax_core::{Escaped, RecordKind, SyncStats};
use parallax_store::{JournalName, Rows, Store};
use serde::Serialize;

use crate::args::SyncsArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json::{self, Stats};
use crate::query::{Object, objects};
use crate::rows::{Row, quoted, rows};
use crate::story::{StepStory, Story};
use crate::syncs::{Filter, select, to_the_second};
use crate::table::Plain;
use crate::text::{FAINT, millis, paint, seconds};

/// `parallax syncs ID`: shows a sync with its steps.
pub(crate) async fn run(
    store: &Store,
    sync_id: &str,
    args: &SyncsArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let detail = Detail::find(store, sync_id, &Filter::from(args)).await?;
    let text = if args.json {
        json::line(&detail.object())
    } else {
        detail.as_text(console.width)
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// A sync with its steps and what it changed.
pub(crate) struct Detail {
    /// One row.
    sync: Rows,
    steps: Rows,
    changes: Rows,
    /// What its journal tells, if that is still kept.
    story: Story,
}

impl Detail {
    /// Finds the one sync of this id or, if there is none, the one whose id begins so.
    pub(crate) async fn find(
        store: &Store,
        sync_id: &str,
        filter: &Filter<'_>,
    ) -> Result<Self, Failure> {
        let found = find(store, sync_id, filter).await?;
        let Some(sync) = rows(&found).next() else {
            return Err(Failure::NoSuchSync {
                sync_id: sync_id.to_owned(),
            });
        };
        let steps = store.query(&of_sync(sync, STEPS)).await?;
        let changes = store.query(&of_sync(sync, CHANGES)).await?;
        let column = |name| sync.text(name).unwrap_or_default().to_owned();
        let name = JournalName {
            connector_id: column("connector_id"),
            account_id: column("account_id"),
            sync_id: column("sync_id"),
        };
        let (story, _) = Story::read(store, &name).await?;
        Ok(Self {
            sync: found,
            steps,
            changes,
            story,
        })
    }

    pub(crate) fn object(&self) -> impl Serialize {
        DetailObject {
            sync: objects(&self.sync).into_iter().next(),
            steps: rows(&self.steps)
                .zip(objects(&self.steps))
                .map(|(row, object)| {
                    let step_id = row.text("step_id").unwrap_or_default();
                    let told = self.story.step(step_id);
                    StepObject {
                        step: object,
                        depends_on: told.map(|told| told.depends_on.as_slice()),
                        attempts: told.map(|told| told.attempts),
                        started_after_ms: told.and_then(|told| told.started_after_ms),
                    }
                })
                .collect(),
            changes: objects(&self.changes),
        }
    }

    fn as_text(&self, width: Option<u16>) -> String {
        let sync = rows(&self.sync).next();
        sync.map_or_else(String::new, |sync| {
            as_text(sync, &self.steps, &self.changes, width)
        })
    }
}

/// By type, what was updated and deleted: the history keeps what was there before.
const CHANGES: &str = "SELECT kind, type, sum(action = 'updated') AS updated, \
     sum(action = 'deleted') AS deleted FROM parallax_change WHERE {} \
     GROUP BY kind, type ORDER BY kind, type";
const STEPS: &str = "SELECT step_id, status, entities, relationships, duration_ms, reason \
     FROM parallax_sync_step WHERE {} ORDER BY place";

fn of_sync(sync: Row<'_>, sql: &str) -> String {
    let is = |column| {
        let value = sync.text(column).unwrap_or_default();
        format!("{column} = {}", quoted(value))
    };
    let sync = ["connector_id", "account_id", "sync_id"]
        .map(is)
        .join(" AND ");
    sql.replace("{}", &sync)
}

async fn find(store: &Store, sync_id: &str, filter: &Filter<'_>) -> Result<Rows, Failure> {
    let value = quoted(sync_id);
    let conditions = [format!("sync_id = {value}"), begins_so(sync_id)];
    let mut found = Rows {
        columns: Vec::new(),
        rows: Vec::new(),
    };
    for condition in conditions {
        found = store
            .query(&(select(filter, Some(condition)) + " LIMIT 2"))
            .await?;
        match found.rows.len() {
            0 => {}
            1 => break,
            _ => {
                return Err(Failure::Usage {
                    message: format!("{sync_id:?} may be several syncs"),
                    help: "write more of the id, or name its --connector and --account".to_owned(),
                });
            }
        }
    }
    Ok(found)
}

/// Returns the condition for ids that begin so: they lie between it and it with the last of all
/// characters behind.
pub(crate) fn begins_so(sync_id: &str) -> String {
    let value = quoted(sync_id);
    format!("sync_id >= {value} AND sync_id < {value} || char(1114111)")
}

#[derive(Serialize)]
struct DetailObject<'a> {
    #[serde(flatten)]
    sync: Option<Object<'a>>,
    steps: Vec<StepObject<'a, Object<'a>>>,
    changes: Vec<Object<'a>>,
}

/// A step with what the journal tells; nothing where that is no longer kept.
#[derive(Serialize)]
struct StepObject<'a, S> {
    #[serde(flatten)]
    step: S,
    depends_on: Option<&'a [String]>,
    attempts: Option<u32>,
    started_after_ms: Option<u64>,
}

/// Returns the same object for a sync that is under way, from what is told of it so far.
pub(crate) fn under_way<'a>(
    name: &'a JournalName,
    story: &'a Story,
    now: Timestamp,
) -> impl Serialize + 'a {
    let began = story.began();
    let elapsed = began.map_or(SignedDuration::ZERO, |began| now.duration_since(began));
    let elapsed = Duration::try_from(elapsed).unwrap_or_default();
    let step = |told: &'a StepStory| {
        let so_far = told.started_after_ms.unwrap_or(millis(elapsed));
        StepObject {
            step: StepUnderWay {
                step_id: &told.step_id,
                status: &told.status,
                entities: told.entities,
                relationships: told.relationships,
                duration_ms: match told.duration_ms {
                    Some(duration_ms) => duration_ms,
                    None => millis(elapsed).saturating_sub(so_far),
                },
                reason: told.reason.as_deref(),
            },
            depends_on: Some(told.depends_on.as_slice()),
            attempts: Some(told.attempts),
            started_after_ms: told.started_after_ms,
        }
    };
    UnderWay {
        connector_id: &name.connector_id,
        account_id: &name.account_id,
        sync_id: &name.sync_id,
        connector_version: &story.connector_version,
        outcome: match began {
            Some(_) => "running",
            None => "waiting",
        },
        started_at: began.map(|began| format!("{began:.3}")),
        duration_ms: millis(elapsed),
        committed_at: None,
        stats: Stats::default(),
        steps: story.steps.iter().map(step).collect(),
        changes: [],
    }
}

#[derive(Serialize)]
struct UnderWay<'a> {
    connector_id: &'a str,
    account_id: &'a str,
    sync_id: &'a str,
    connector_version: &'a str,
    outcome: &'static str,
    started_at: Option<String>,
    duration_ms: u64,
    committed_at: Option<String>,
    #[serde(flatten)]
    stats: Stats,
    steps: Vec<StepObject<'a, StepUnderWay<'a>>>,
    changes: [(); 0],
}

#[derive(Serialize)]
struct StepUnderWay<'a> {
    step_id: &'a str,
    status: &'a str,
    entities: u64,
    relationships: u64,
    duration_ms: u64,
    reason: Option<&'a str>,
}

fn as_text(sync: Row<'_>, steps: &Rows, changes: &Rows, width: Option<u16>) -> String {
    let text = |column| sync.text(column).unwrap_or_default();
    let mut outcome = text("outcome").to_owned();
    if let Some(first) = outcome.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut parts = vec![format!(
        "{outcome}: {}, account {}, sync {}\n{}",
        text("connector_id"),
        Escaped(text("account_id")),
        Escaped(text("sync_id")),
        paint(
            FAINT,
            format!(
                "started {} UTC, took {}",
                to_the_second(text("started_at")),
                seconds(Duration::from_millis(sync.number("duration_ms"))),
            )
        ),
    )];
    // An approval is a commit without a run.
    if !steps.rows.is_empty() {
        parts.push(steps_table(steps, width));
    }
    parts.push(stats_table(sync, width));
    if !changes.rows.is_empty() {
        parts.push(changes_table(changes, width));
    }
    parts.join("\n\n") + "\n"
}

fn steps_table(steps: &Rows, width: Option<u16>) -> String {
    let header = [
        "step",
        "status",
        "entities",
        "relationships",
        "took",
        "reason",
    ];
    let mut table = Plain::new(header);
    (2..=4).for_each(|place| table.align_right(place));
    for step in rows(steps) {
        let text = |column| step.text(column).unwrap_or_default();
        table.row([
            text("step_id"),
            text("status"),
            &step.number("entities").to_string(),
            &step.number("relationships").to_string(),
            &seconds(Duration::from_millis(step.number("duration_ms"))),
            text("reason"),
        ]);
    }
    table.lines(width).join("\n")
}

fn stats_table(sync: Row<'_>, width: Option<u16>) -> String {
    let values = SyncStats::FIELDS.map(|field| sync.number(field));
    let stats = SyncStats::from_values(values);
    let columns = |kind| {
        let counts = stats.counts(kind);
        [
            ("created", counts.created),
            ("updated", counts.updated),
            ("unchanged", counts.unchanged),
            ("deleted", counts.deleted),
            ("kept", counts.kept),
            ("held", counts.held),
            ("rejected", counts.rejected),
            ("duplicates", counts.duplicates),
        ]
    };
    let names = columns(RecordKind::Entity).map(|(name, _)| name);
    let mut table = Plain::new([""].into_iter().chain(names));
    (1..=names.len()).for_each(|place| table.align_right(place));
    for (name, kind) in [
        ("entities", RecordKind::Entity),
        ("relationships", RecordKind::Relationship),
    ] {
        let cells = columns(kind).map(|(_, count)| count.to_string());
        table.row([name].into_iter().chain(cells.iter().map(String::as_str)));
    }
    table.lines(width).join("\n")
}

fn changes_table(changes: &Rows, width: Option<u16>) -> String {
    let mut table = Plain::new(["changed", "updated", "deleted"]);
    (1..=2).for_each(|place| table.align_right(place));
    for change in rows(changes) {
        let mut cells = vec![change.text("type").unwrap_or_default().to_owned()];
        for action in ["updated", "deleted"] {
            cells.push(change.number(action).to_string());
        }
        table.row(cells.iter().map(String::as_str));
    }
    table.lines(width).join("\n")
}

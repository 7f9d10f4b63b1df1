use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use parallax_scheduler::{Activity, JobStatus};
use parallax_store::{Rows, Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Daemon;
use super::answer::{Json, Page};
use super::problem::Problem;
use super::request::{self, Live, Params, Place};
use crate::config::schedule_in_short;
use crate::plan::Reason;
use crate::rows::{Row, quoted, row_at, rows};
use crate::text::millis;

/// How many syncs of a source are told in short.
const RECENT: u32 = 30;

/// A source: what one connector reads in one account.
#[derive(Serialize, ToSchema)]
struct Source<'a> {
    connector_id: &'a str,
    /// Empty if it is not known, as where it is kept in a file that is not there.
    account_id: &'a str,
    /// Whether it is in the configuration; if not, it is stored and nothing syncs it.
    configured: bool,
    /// The kind of connector that the configuration says.
    kind: Option<&'a str>,
    /// Why it cannot be synced as things are, if so. It is tried again when it is due.
    broken: Option<&'a Fault>,
    /// When it is synced: `every 15m`, or a cron pattern with its time zone.
    schedule: Option<&'a str>,
    /// How far two of these times are apart at the most.
    every_ms: Option<u64>,
    /// `idle`, `waiting` for other syncs to end, `running`, `broken`, or
    /// `not_scheduled`.
    activity: &'static str,
    /// The sync that runs or, if somebody asked for it, waits.
    running_sync_id: Option<&'a str>,
    /// When that began.
    #[schema(format = DateTime)]
    running_since: Option<String>,
    /// When it is due next, as far as is known.
    #[schema(format = DateTime)]
    next_due_at: Option<String>,
    /// How many of its syncs failed in a row.
    failures: u32,
    entities: u64,
    relationships: u64,
    /// Those whose delete waits for somebody's word.
    entities_held: u64,
    relationships_held: u64,
    /// Those that the last sync that did not fail could not look for.
    entities_kept: u64,
    relationships_kept: u64,
    /// Those with an end that is gone.
    relationships_waiting: u64,
    /// How many syncs are on record.
    syncs: u64,
    last_sync_id: Option<&'a str>,
    last_outcome: Option<&'a str>,
    #[schema(format = DateTime)]
    last_sync_at: Option<&'a str>,
    /// When a sync was committed last, whole or in part.
    #[schema(format = DateTime)]
    last_success_at: Option<&'a str>,
    /// When a sync with every step done was committed last.
    #[schema(format = DateTime)]
    last_complete_at: Option<&'a str>,
    /// Its last syncs, newest first.
    recent: Vec<Recent<'a>>,
}

/// Why a source cannot be synced.
#[derive(Serialize, ToSchema)]
#[schema(as = SourceFault)]
struct Fault {
    reason: String,
    /// What to do.
    help: String,
    #[serde(skip)]
    due_in: Duration,
}

/// A sync in short: entities and relationships together.
#[derive(Serialize, ToSchema)]
#[schema(as = RecentSync)]
struct Recent<'a> {
    sync_id: &'a str,
    outcome: &'a str,
    #[schema(format = DateTime)]
    committed_at: &'a str,
    duration_ms: u64,
    created: u64,
    updated: u64,
    deleted: u64,
}

impl<'a> Recent<'a> {
    fn new(row: Row<'a>) -> Self {
        let both = |what| {
            row.number(&format!("entities_{what}")) + row.number(&format!("relationships_{what}"))
        };
        Self {
            sync_id: row.text("sync_id").unwrap_or_default(),
            outcome: row.text("outcome").unwrap_or_default(),
            committed_at: row.text("committed_at").unwrap_or_default(),
            duration_ms: row.number("duration_ms"),
            created: both("created"),
            updated: both("updated"),
            deleted: both("deleted"),
        }
    }
}

/// Which sources are listed, and how much of each.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SourcesParams {
    /// How many of their last syncs are told, 30 if nothing is said.
    #[param(minimum = 0, maximum = 30)]
    recent: Option<u32>,
    /// How many sources at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

/// Lists the sources with how fresh they are, by connector and account.
#[utoipa::path(get, path = "/api/v1/sources", tag = "sources", params(SourcesParams),
    responses((status = OK, body = Page<Source>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn sources(
    Live(daemon): Live,
    Params(params): Params<SourcesParams>,
) -> Result<Json, Problem> {
    let limit = request::limit(params.limit)? as usize;
    let recent = match params.recent.unwrap_or(RECENT) {
        recent @ 0..=RECENT => recent,
        recent => {
            return Err(Problem::invalid(
                "recent",
                format!("recent={recent} is more than {RECENT}"),
                "ask /api/v1/syncs for more",
            ));
        }
    };
    let after: Option<SourceId> = match &params.cursor {
        Some(cursor) => Some(request::cursor(cursor)?),
        None => None,
    };
    let known = Known::read(&daemon, None).await?;
    let mut ids: Vec<&SourceId> = known.sources.keys().collect();
    ids.retain(|id| after.as_ref().is_none_or(|after| *id > after));
    let more = ids.len() > limit;
    ids.truncate(limit);
    let syncs = recent_syncs(&daemon.store, &ids, recent).await?;
    let next = ids.last().filter(|_| more).map(request::as_cursor);
    Ok(Json::of(&Page {
        items: known.objects(&ids, &syncs),
        next,
    }))
}

/// Shows a source with how fresh it is.
#[utoipa::path(get, path = "/api/v1/sources/{connector_id}/{account_id}", tag = "sources",
    params(("connector_id" = String, Path), ("account_id" = String, Path)),
    responses((status = OK, body = Source), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn source(
    Live(daemon): Live,
    Place(id): Place<SourceId>,
) -> Result<Json, Problem> {
    let known = Known::read(&daemon, Some(&id)).await?;
    let syncs = recent_syncs(&daemon.store, &[&id], RECENT).await?;
    let objects = known.objects(&[&id], &syncs);
    match objects.first() {
        Some(object) => Ok(Json::of(object)),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_source",
            format!(
                "{} in account {:?} is neither configured nor stored",
                id.0, id.1
            ),
            "/api/v1/sources lists those there are",
        )),
    }
}

/// A connector and an account.
type SourceId = (String, String);

/// What the configuration says of a source.
struct Configured {
    kind: String,
    /// When it is synced, in words.
    schedule: String,
    /// How far that is apart.
    every: Duration,
}

/// What is known of sources, but for their syncs.
struct Known {
    now: Timestamp,
    stored: Rows,
    /// Each with its row, and with its job.
    sources: BTreeMap<SourceId, (Option<usize>, Option<JobStatus>)>,
    configured: HashMap<SourceId, Configured>,
    faults: HashMap<SourceId, Fault>,
}

impl Known {
    /// Reads all, or one.
    async fn read(daemon: &Daemon, one: Option<&SourceId>) -> Result<Self, StoreError> {
        let is_wanted = |connector_id: &str, account_id: &str| {
            one.is_none_or(|(c, a)| c == connector_id && a == account_id)
        };
        let jobs = daemon.scheduler.jobs().await;
        let condition = one.map_or_else(String::new, |(connector_id, account_id)| {
            let (connector_id, account_id) = (quoted(connector_id), quoted(account_id));
            format!("WHERE connector_id = {connector_id} AND account_id = {account_id}")
        });
        let sql = format!(
            "SELECT connector_id, account_id, entities, relationships, entities_held, \
                 relationships_held, entities_kept, relationships_kept, relationships_waiting, \
                 syncs, last_sync_id, last_outcome, last_sync_at, last_success_at, \
                 last_complete_at \
             FROM parallax_source {condition}"
        );
        let stored = daemon.store.query(&sql).await?;
        let mut sources: BTreeMap<_, (Option<usize>, Option<JobStatus>)> = BTreeMap::new();
        for (place, row) in rows(&stored).enumerate() {
            let text = |column| row.text(column).unwrap_or_default().to_owned();
            let id = (text("connector_id"), text("account_id"));
            sources.entry(id).or_default().0 = Some(place);
        }
        for job in jobs {
            if !is_wanted(&job.connector_id, &job.account_id) {
                continue;
            }
            let id = (job.connector_id.clone(), job.account_id.clone());
            sources.entry(id).or_default().1 = Some(job);
        }
        let mut configured = HashMap::new();
        let mut faults: HashMap<SourceId, Fault> = HashMap::new();
        let listed = daemon.roster.read();
        for source in &listed.sources {
            if !is_wanted(&source.connector_id, &source.account_id) {
                continue;
            }
            let of_it = Configured {
                kind: source.kind.clone(),
                schedule: schedule_in_short(&source.schedule, source.interval),
                every: source.interval,
            };
            configured.insert(source.id(), of_it);
        }
        for waiting in &listed.broken {
            let (broken, due_in) = (&waiting.broken, waiting.due_in());
            if !is_wanted(&broken.config.name, broken.account_id()) {
                continue;
            }
            let id = (broken.config.name.clone(), broken.account_id().to_owned());
            sources.entry(id.clone()).or_default();
            let of_it = Configured {
                kind: broken.config.kind.clone(),
                schedule: schedule_in_short(&broken.config.schedule, broken.interval),
                every: broken.interval,
            };
            configured.insert(id.clone(), of_it);
            let Reason { what, help } = &broken.reason;
            // Several of which no account is known are one here.
            let fault = faults.entry(id);
            fault
                .and_modify(|fault| {
                    fault.reason = format!("{}; {what}", fault.reason);
                    fault.due_in = fault.due_in.min(due_in);
                })
                .or_insert_with(|| Fault {
                    reason: what.clone(),
                    help: help.clone(),
                    due_in,
                });
        }
        drop(listed);
        Ok(Self {
            now: Timestamp::now(),
            stored,
            sources,
            configured,
            faults,
        })
    }

    fn objects<'a>(&'a self, ids: &[&'a SourceId], syncs: &'a Syncs) -> Vec<Source<'a>> {
        let known = |id: &&'a SourceId| {
            let (id, (row, job)) = self.sources.get_key_value(*id)?;
            let row = row.and_then(|place| row_at(&self.stored, place));
            Some(self.object(id, row, job.as_ref(), syncs))
        };
        ids.iter().filter_map(known).collect()
    }

    fn object<'a>(
        &'a self,
        id: &'a SourceId,
        row: Option<Row<'a>>,
        job: Option<&'a JobStatus>,
        syncs: &'a Syncs,
    ) -> Source<'a> {
        let configured = self.configured.get(id);
        let number = |column| row.map_or(0, |row| row.number(column));
        let text = |column| row.and_then(|row| row.text(column));
        let fault = self.faults.get(id);
        let due_in = job.map(|job| job.due_in);
        let due_in = due_in.or(fault.map(|fault| fault.due_in));
        let (activity, elapsed) = match job.map(|job| &job.activity) {
            None if fault.is_some() => ("broken", None),
            None => ("not_scheduled", None),
            Some(Activity::Idle) => ("idle", None),
            Some(Activity::Waiting { .. }) => ("waiting", None),
            Some(Activity::Running { elapsed, .. }) => ("running", Some(*elapsed)),
        };
        let recent = syncs.by_source.get(id).into_iter().flatten();
        let recent = recent.filter_map(|place| row_at(&syncs.rows, *place));
        Source {
            connector_id: &id.0,
            account_id: &id.1,
            configured: configured.is_some(),
            kind: configured.map(|of_it| of_it.kind.as_str()),
            broken: fault,
            schedule: configured.map(|of_it| of_it.schedule.as_str()),
            every_ms: configured.map(|of_it| millis(of_it.every)),
            activity,
            running_sync_id: job.and_then(|job| job.activity.sync_id()),
            running_since: elapsed.and_then(|elapsed| time(self.now.checked_sub(elapsed))),
            next_due_at: due_in.and_then(|due_in| time(self.now.checked_add(due_in))),
            failures: job.map_or(0, |job| job.failures),
            entities: number("entities"),
            relationships: number("relationships"),
            entities_held: number("entities_held"),
            relationships_held: number("relationships_held"),
            entities_kept: number("entities_kept"),
            relationships_kept: number("relationships_kept"),
            relationships_waiting: number("relationships_waiting"),
            syncs: number("syncs"),
            last_sync_id: text("last_sync_id"),
            last_outcome: text("last_outcome"),
            last_sync_at: text("last_sync_at"),
            last_success_at: text("last_success_at"),
            last_complete_at: text("last_complete_at"),
            recent: recent.map(Recent::new).collect(),
        }
    }
}

/// Returns a moment to the millisecond, as the store's views have it.
fn time(at: Result<Timestamp, jiff::Error>) -> Option<String> {
    at.ok().map(|at| format!("{at:.3}"))
}

/// Syncs of some sources.
struct Syncs {
    rows: Rows,
    /// The places of a source's syncs in the rows, the newest first.
    by_source: HashMap<SourceId, Vec<usize>>,
}

/// Finds the last syncs of sources.
async fn recent_syncs(store: &Store, ids: &[&SourceId], recent: u32) -> Result<Syncs, StoreError> {
    let mut syncs = Syncs {
        rows: Rows {
            columns: Vec::new(),
            rows: Vec::new(),
        },
        by_source: HashMap::new(),
    };
    if ids.is_empty() || recent == 0 {
        return Ok(syncs);
    }
    syncs.rows = store.query(&select_recent(ids, recent)).await?;
    for (at, row) in rows(&syncs.rows).enumerate() {
        let text = |column| row.text(column).unwrap_or_default().to_owned();
        let id = (text("connector_id"), text("account_id"));
        syncs.by_source.entry(id).or_default().push(at);
    }
    Ok(syncs)
}

/// Returns the statement that finds the last syncs of sources, newest first.
fn select_recent(ids: &[&SourceId], recent: u32) -> String {
    let id = |(connector_id, account_id): &&SourceId| {
        format!("({}, {})", quoted(connector_id), quoted(account_id))
    };
    let ids: Vec<String> = ids.iter().map(id).collect();
    // Source by source, each from its newest sync on: what else is on record is not looked at.
    format!(
        "WITH wanted (connector_id, account_id) AS (VALUES {}) \
         SELECT y.connector_id, y.account_id, y.sync_id, y.outcome, y.committed_at, \
             y.duration_ms, y.entities_created, y.entities_updated, y.entities_deleted, \
             y.relationships_created, y.relationships_updated, y.relationships_deleted \
         FROM wanted w CROSS JOIN parallax_sync y ON y.number IN ( \
             SELECT r.number FROM parallax_sync r \
             WHERE r.connector_id = w.connector_id AND r.account_id = w.account_id \
             ORDER BY r.number DESC LIMIT {recent}) \
         ORDER BY y.number DESC",
        ids.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;

    #[tokio::test]
    async fn recent_syncs_are_found_without_looking_at_others() {
        let id = ("team".to_owned(), "acme".to_owned());
        insta::assert_snapshot!(plan(&select_recent(&[&id], 20)).await, @r"
        CO-ROUTINE wanted
        SCAN CONSTANT ROW
        SCAN w
        SEARCH y USING INTEGER PRIMARY KEY (rowid=?)
        CORRELATED LIST SUBQUERY 2
        SEARCH s USING COVERING INDEX sqlite_autoindex_px_source_1 (connector_id=? AND account_id=?)
        SEARCH y USING COVERING INDEX px_sync_source (source_id=?)
        SEARCH s USING INTEGER PRIMARY KEY (rowid=?)
        USE TEMP B-TREE FOR ORDER BY
        ");
    }
}

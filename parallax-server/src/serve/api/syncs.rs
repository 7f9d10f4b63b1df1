use axum::http::StatusCode;
use jiff::Timestamp;
use parallax_store::{JournalName, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Daemon;
use super::answer::{Json, Page};
use super::journal::PIECE;
use super::problem::Problem;
use super::request::{self, Live, Params, Place};
use super::schema::{Sync, SyncDetail};
use crate::error::Failure;
use crate::json::SyncObject;
use crate::plan::Source;
use crate::query::objects;
use crate::rows::rows;
use crate::story::Story;
use crate::sync_detail::{self, Detail};
use crate::syncs::{Filter, select_numbered};

/// Which syncs are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SyncsParams {
    /// Of this connector only.
    connector_id: Option<String>,
    /// Of this account only.
    account_id: Option<String>,
    /// With this outcome only: committed, partial, failed or approved.
    outcome: Option<String>,
    /// How many at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

/// Lists syncs with their counts, newest first.
#[utoipa::path(get, path = "/api/v1/syncs", tag = "syncs", params(SyncsParams),
    responses((status = OK, body = Page<Sync>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn syncs(
    Live(daemon): Live,
    Params(params): Params<SyncsParams>,
) -> Result<Json, Problem> {
    let filter = Filter {
        connector_id: params.connector_id.as_deref(),
        account_id: params.account_id.as_deref(),
        outcome: params.outcome.as_deref(),
    };
    let limit = request::limit(params.limit)? as usize;
    let after = match &params.cursor {
        Some(cursor) => {
            let number: u64 = request::cursor(cursor)?;
            Some(format!("number < {number}"))
        }
        None => None,
    };
    let sql = format!("{} LIMIT {}", select_numbered(&filter, after), limit + 1);
    let mut found = daemon.store.query(&sql).await?;
    let more = found.rows.len() > limit;
    found.rows.truncate(limit);
    let last = rows(&found).last().filter(|_| more);
    let next = last.map(|row| request::as_cursor(&row.number("number")));
    // Where the list goes on is nobody else's business.
    found.columns.pop();
    Ok(Json::of(&Page {
        items: objects(&found),
        next,
    }))
}

/// Of which source a sync is, where several have one of its id.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SourceParams {
    /// Of this connector.
    connector_id: Option<String>,
    /// Of this account.
    account_id: Option<String>,
}

/// Shows a sync with its steps, and what it changed by type.
///
/// One that is under way has no counts yet. Its outcome is `running`, and its steps may be `waiting`,
/// `running` or `retrying`; or it is `waiting` for fewer syncs to run, if somebody asked for it.
#[utoipa::path(get, path = "/api/v1/syncs/{sync_id}", tag = "syncs",
    params(("sync_id" = String, Path, description = "Its id, or how that begins"), SourceParams),
    responses((status = OK, body = SyncDetail), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn sync(
    Live(daemon): Live,
    Place(sync_id): Place<String>,
    Params(params): Params<SourceParams>,
) -> Result<Json, Problem> {
    let filter = Filter {
        connector_id: params.connector_id.as_deref(),
        account_id: params.account_id.as_deref(),
        outcome: None,
    };
    match Detail::find(&daemon.store, &sync_id, &filter).await {
        Err(Failure::NoSuchSync { .. }) => {}
        found => return Ok(Json::of(&found?.object())),
    }
    if let Some(found) = under_way(&daemon, &sync_id, &filter).await? {
        return Ok(found);
    }
    // One may have ended in between.
    let found = Detail::find(&daemon.store, &sync_id, &filter).await?;
    Ok(Json::of(&found.object()))
}

/// Shows the one sync of this id that runs or waits, if there is one.
async fn under_way(
    daemon: &Daemon,
    sync_id: &str,
    filter: &Filter<'_>,
) -> Result<Option<Json>, StoreError> {
    let is = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
    let mut names = daemon.hub.running(sync_id);
    // Those of which no journal tells yet.
    let jobs = daemon.scheduler.jobs().await;
    for job in jobs {
        let Some(id) = job.activity.sync_id().filter(|id| id.starts_with(sync_id)) else {
            continue;
        };
        let name = JournalName {
            sync_id: id.to_owned(),
            connector_id: job.connector_id,
            account_id: job.account_id,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.retain(|name| {
        is(filter.connector_id, &name.connector_id) && is(filter.account_id, &name.account_id)
    });
    let [name] = names.as_slice() else {
        return Ok(None);
    };
    let (mut story, mut next) = Story::read(&daemon.store, name).await?;
    // What is not stored yet.
    loop {
        let entries = daemon.hub.entries(name, next, PIECE);
        let Some((last, _)) = entries.last() else {
            break;
        };
        next = last + 1;
        entries.iter().for_each(|(_, line)| story.note(line));
    }
    if story.began().is_none() {
        let listed = daemon.roster.read();
        let is_its = |source: &&Source| {
            source.connector_id == name.connector_id && source.account_id == name.account_id
        };
        if let Some(source) = listed.sources.iter().find(is_its) {
            story = Story::awaited(source.connector.version(), &source.steps);
        }
    }
    let object = sync_detail::under_way(name, &story, Timestamp::now());
    Ok(Some(Json::of(&object)))
}

/// Shows what a sync came to, as `parallax sync --json` prints it, once it has ended.
///
/// The last 64 that ended since the daemon was started are known.
#[utoipa::path(get, path = "/api/v1/syncs/{sync_id}/result", tag = "syncs",
    params(("sync_id" = String, Path, description = "All of its id")),
    responses((status = OK, body = SyncObject), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn result(
    Live(daemon): Live,
    Place(sync_id): Place<String>,
) -> Result<Json, Problem> {
    // Asked first: one that ends in between is found below.
    let jobs = daemon.scheduler.jobs().await;
    if let Some(result) = daemon.results.of(&sync_id) {
        return Ok(Json::rendered(&result));
    }
    let mut under_way = jobs.iter().filter_map(|job| job.activity.sync_id());
    let is_under_way = under_way.any(|id| id == sync_id);
    Err(match is_under_way {
        true => Problem::new(
            StatusCode::CONFLICT,
            "still_running",
            format!("sync {sync_id:?} has not ended"),
            "ask again; its journal tells how far it is",
        ),
        false => Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_result",
            format!("nothing is known of how sync {sync_id:?} ended"),
            "/api/v1/syncs/{sync_id} has what is stored of it",
        ),
    })
}

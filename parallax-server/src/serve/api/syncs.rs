use axum::http::StatusCode;
use parallax_scheduler::Activity;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Json, Page};
use super::problem::Problem;
use super::request::{self, Live, Params, Place};
use super::schema::{Sync, SyncDetail};
use crate::json::SyncObject;
use crate::rows::quoted;
use crate::sync_detail::Detail;
use crate::syncs::{Filter, ORDER, select};

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
            let place: [String; ORDER.len()] = request::cursor(cursor)?;
            let place = place.map(|value| quoted(&value)).join(", ");
            Some(format!("({}) < ({place})", ORDER.join(", ")))
        }
        None => None,
    };
    let sql = format!("{} LIMIT {}", select(&filter, after), limit + 1);
    let found = daemon.store.query(&sql).await?;
    Ok(Json::page(found, limit, ORDER))
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
    let detail = Detail::find(&daemon.store, &sync_id, &filter).await?;
    Ok(Json::of(&detail.object()))
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
    let is_under_way = jobs.iter().any(|job| match &job.activity {
        Activity::Running { sync_id: runs, .. } => *runs == sync_id,
        Activity::Waiting { sync_id: waits } => waits.as_ref() == Some(&sync_id),
        Activity::Idle => false,
    });
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

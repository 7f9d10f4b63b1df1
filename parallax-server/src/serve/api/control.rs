use std::sync::Arc;

use axum::Extension;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parallax_core::Escaped;
use parallax_scheduler::{CancelError, TriggerError};
use serde::Serialize;
use utoipa::ToSchema;

use super::Daemon;
use super::answer::Json;
use super::changesets::Number;
use super::problem::Problem;
use super::request::{Live, Place};
use crate::decide::Decision;
use crate::forget::Removal;
use crate::plan::Reason;
use crate::serve::access::Caller;

/// A sync that was asked for.
#[derive(Serialize, ToSchema)]
struct Accepted {
    sync_id: String,
}

impl Accepted {
    fn answer(self) -> Response {
        let place = HeaderValue::try_from(format!("/api/v1/syncs/{}", self.sync_id));
        let mut response = (StatusCode::ACCEPTED, Json::of(&self)).into_response();
        if let Ok(place) = place {
            response.headers_mut().insert(LOCATION, place);
        }
        response
    }
}

/// Starts a sync of a source now, or as soon as fewer syncs run than may at a time.
///
/// Needs the admin token, as all that follows. A source has at most one sync at a time.
#[utoipa::path(post, path = "/api/v1/sources/{connector_id}/{account_id}/syncs", tag = "sources",
    params(("connector_id" = String, Path), ("account_id" = String, Path)),
    responses((status = ACCEPTED, body = Accepted), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn trigger(
    Live(daemon): Live,
    caller: Extension<Caller>,
    Place(source): Place<(String, String)>,
) -> Result<Response, Problem> {
    let triggered = daemon.to_the_end(|daemon| triggered(daemon, caller.0, source));
    Ok(triggered.await?.answer())
}

async fn triggered(
    daemon: Arc<Daemon>,
    caller: Caller,
    (connector_id, account_id): (String, String),
) -> Result<Accepted, Problem> {
    let triggered = daemon.scheduler.trigger(&connector_id, &account_id).await;
    let source = format!("{connector_id}, account {account_id}");
    audit(&caller, "trigger", &source, triggered.is_ok());
    let fault = daemon.roster.reason(&connector_id, &account_id);
    if let (Err(TriggerError::NoSuchJob { .. }), Some(Reason { what, help })) = (&triggered, fault)
    {
        let conflict = StatusCode::CONFLICT;
        return Err(Problem::new(conflict, "source_broken", what, help));
    }
    let sync_id = triggered.map_err(|error| match &error {
        TriggerError::NoSuchJob { .. } => Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_source",
            error.to_string(),
            "only what is configured can be synced; /api/v1/sources says what is",
        ),
        TriggerError::Busy { sync_id, .. } => {
            let which = sync_id.as_ref().map(|sync_id| format!(": sync {sync_id}"));
            Problem::new(
                StatusCode::CONFLICT,
                "sync_running",
                format!("{error}{}", which.unwrap_or_default()),
                "wait for it, or cancel it: POST /api/v1/syncs/{sync_id}/cancel",
            )
        }
        _ => stopping(error.to_string()),
    })?;
    Ok(Accepted { sync_id })
}

/// Cancels a sync that runs, or that was asked for and waits: nothing of it is committed.
///
/// A commit that has begun goes on.
#[utoipa::path(post, path = "/api/v1/syncs/{sync_id}/cancel", tag = "syncs",
    params(("sync_id" = String, Path)),
    responses((status = ACCEPTED, body = Accepted), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    Live(daemon): Live,
    caller: Extension<Caller>,
    Place(sync_id): Place<String>,
) -> Result<Response, Problem> {
    let cancelled = daemon.to_the_end(|daemon| cancelled(daemon, caller.0, sync_id));
    Ok(cancelled.await?.answer())
}

async fn cancelled(
    daemon: Arc<Daemon>,
    caller: Caller,
    sync_id: String,
) -> Result<Accepted, Problem> {
    let cancelled = daemon.scheduler.cancel(&sync_id).await;
    audit(&caller, "cancel", &sync_id, cancelled.is_ok());
    cancelled.map_err(|error| match error {
        CancelError::NotRunning { .. } => Problem::new(
            StatusCode::CONFLICT,
            "not_running",
            error.to_string(),
            "/api/v1/sources says what runs",
        ),
        _ => stopping(error.to_string()),
    })?;
    Ok(Accepted { sync_id })
}

fn stopping(detail: String) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stopping",
        detail,
        "try again once the daemon has been started again",
    )
}

/// Deletes what a changeset holds. Saying so again changes nothing.
#[utoipa::path(post, path = "/api/v1/changesets/{changeset}/approve", tag = "changesets",
    params(("changeset" = u32, Path, description = "Its number")),
    responses((status = OK, body = Decision), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn approve(
    Live(daemon): Live,
    caller: Extension<Caller>,
    Place(changeset): Place<Number>,
) -> Result<Json, Problem> {
    let decided = daemon.to_the_end(|daemon| async move {
        let decision = Decision::approve(&daemon.store, changeset.0).await;
        let subject = changeset.0.to_string();
        audit(&caller, "approve", &subject, decision.is_ok());
        decided(&daemon, decision?)
    });
    decided.await
}

/// Keeps what a changeset holds. Saying so again changes nothing.
#[utoipa::path(post, path = "/api/v1/changesets/{changeset}/reject", tag = "changesets",
    params(("changeset" = u32, Path, description = "Its number")),
    responses((status = OK, body = Decision), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn reject(
    Live(daemon): Live,
    caller: Extension<Caller>,
    Place(changeset): Place<Number>,
) -> Result<Json, Problem> {
    let decided = daemon.to_the_end(|daemon| async move {
        let decision = Decision::reject(&daemon.store, changeset.0).await;
        let subject = changeset.0.to_string();
        audit(&caller, "reject", &subject, decision.is_ok());
        decided(&daemon, decision?)
    });
    decided.await
}

fn decided(daemon: &Arc<Daemon>, decision: Decision) -> Result<Json, Problem> {
    (daemon.decided)(&decision);
    daemon.tell_changed(decision.source());
    Ok(Json::of(&decision))
}

/// Removes a source with all that it committed and its history.
///
/// A source of the configuration is there again after its next sync.
#[utoipa::path(delete, path = "/api/v1/sources/{connector_id}/{account_id}", tag = "sources",
    params(("connector_id" = String, Path), ("account_id" = String, Path)),
    responses((status = OK, body = Removal), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn forget(
    Live(daemon): Live,
    caller: Extension<Caller>,
    Place((connector_id, account_id)): Place<(String, String)>,
) -> Result<Json, Problem> {
    let removed = daemon.to_the_end(|daemon| async move {
        let removal = Removal::forget(&daemon.store, &connector_id, &account_id).await;
        let source = format!("{connector_id}, account {account_id}");
        audit(&caller, "forget", &source, removal.is_ok());
        let removal = removal?;
        daemon.tell_changed((connector_id, account_id));
        Ok(Json::of(&removal))
    });
    removed.await
}

/// Logs who asked for what.
fn audit(caller: &Caller, action: &'static str, subject: &str, done: bool) {
    tracing::info!(
        target: "parallax::audit",
        who = caller.role.map_or("nobody", |role| role.as_str()),
        peer = caller.peer.map(|peer| tracing::field::display(peer.0)),
        action,
        subject = %Escaped(subject),
        done,
        "Request to change something"
    );
}

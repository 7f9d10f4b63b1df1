use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Json;
use super::problem::Problem;
use super::request::Live;
use crate::connectors::Configured;

/// What serves this API.
#[derive(Serialize, ToSchema)]
pub(super) struct Status<'a> {
    version: &'static str,
    /// When the process began to serve.
    #[schema(value_type = String, format = DateTime)]
    started_at: String,
    /// The store's URL.
    store: &'a str,
    /// How many sources are configured.
    sources: usize,
    /// How many of them cannot be synced.
    broken_sources: usize,
}

/// Says what serves this API, since when, and from which store.
#[utoipa::path(get, path = "/api/v1/status", tag = "daemon",
    responses((status = OK, body = Status), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn status(Live(daemon): Live) -> Json {
    let listed = daemon.roster.read();
    Json::of(&Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at: daemon.started_at.to_string(),
        store: daemon.store.url(),
        sources: listed.sources.len() + listed.broken.len(),
        broken_sources: listed.broken.len(),
    })
}

/// Lists the connectors of the configuration with their step graphs, but for those that cannot run.
#[utoipa::path(get, path = "/api/v1/connectors", tag = "daemon",
    responses((status = OK, body = [Configured]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn connectors(Live(daemon): Live) -> Json {
    let listed = daemon.roster.read();
    let mut connectors: Vec<_> = listed.sources.iter().map(Configured::new).collect();
    // One for all of its accounts.
    connectors.sort_by(|a, b| a.connector_id.cmp(&b.connector_id));
    connectors.dedup_by(|a, b| a.connector_id == b.connector_id);
    Json::array(&connectors)
}

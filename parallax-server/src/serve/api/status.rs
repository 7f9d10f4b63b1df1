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
}

/// Says what serves this API, since when, and from which store.
#[utoipa::path(get, path = "/api/v1/status", tag = "daemon",
    responses((status = OK, body = Status), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn status(Live(daemon): Live) -> Json {
    Json::of(&Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at: daemon.started_at.to_string(),
        store: daemon.store.url(),
        sources: daemon.sources.len(),
    })
}

/// Lists the connectors of the configuration with their step graphs.
#[utoipa::path(get, path = "/api/v1/connectors", tag = "daemon",
    responses((status = OK, body = [Configured]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn connectors(Live(daemon): Live) -> Json {
    Json::array(&daemon.connectors)
}

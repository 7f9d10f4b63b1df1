//! The HTTP API, `/api/v1`: what the commands print with `--json`, over HTTP.
//!
//! The document that describes it is made of the code: each handler says what it answers, and the
//! serialisers say how that looks.

mod answer;
mod changesets;
mod control;
mod journal;
mod problem;
mod records;
mod request;
mod schema;
mod sources;
mod status;
mod syncs;

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parallax_scheduler::Handle;
use parallax_store::Store;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, SemaphorePermit};
use tokio::task::JoinError;
use utoipa::openapi::{Info, License, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::decide::Decision;
use crate::serve::hub::Hub;
use crate::serve::pages::Pages;
use crate::serve::results::Results;
use crate::serve::roster::Roster;

use answer::Json;
pub(super) use problem::Problem;

/// How many requests at a time may look through all records.
const SCANS: usize = 2;

/// What the API is served from.
pub(super) struct Server {
    pub(super) pages: Arc<Pages>,
    /// Empty while the store is being opened.
    pub(super) daemon: OnceLock<Arc<Daemon>>,
}

/// What runs in a process that is ready.
pub(super) struct Daemon {
    pub(super) store: Arc<Store>,
    pub(super) roster: Arc<Roster>,
    pub(super) scheduler: Handle,
    /// Told of a source whose records somebody changed.
    changed: Box<dyn Fn((String, String)) + Send + Sync>,
    /// Told of a decision about a changeset.
    decided: Box<dyn Fn(&Decision) + Send + Sync>,
    pub(super) started_at: jiff::Timestamp,
    pub(super) hub: Arc<Hub>,
    results: Arc<Results>,
    /// Read by each change that is under way.
    changes: Arc<RwLock<()>>,
    scans: Semaphore,
    streams: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(pages: Arc<Pages>) -> Self {
        Self {
            pages,
            daemon: OnceLock::new(),
        }
    }
}

impl Daemon {
    pub(super) fn new(
        store: Arc<Store>,
        roster: Arc<Roster>,
        scheduler: Handle,
        hub: Arc<Hub>,
        results: Arc<Results>,
        streams: usize,
        changed: impl Fn((String, String)) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            roster,
            scheduler,
            changed: Box::new(changed),
            decided: Box::new(|_| {}),
            started_at: jiff::Timestamp::now(),
            hub,
            results,
            changes: Arc::default(),
            scans: Semaphore::new(SCANS),
            streams: Arc::new(Semaphore::new(streams)),
        }
    }

    /// Says who is told of a decision about a changeset.
    pub(super) fn telling_of_decisions(
        mut self,
        decided: impl Fn(&Decision) + Send + Sync + 'static,
    ) -> Self {
        self.decided = Box::new(decided);
        self
    }

    /// Makes a change to its end, with all that is told of it, also when whoever asked for it goes
    /// away in the middle.
    async fn to_the_end<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        self: Arc<Self>,
        change: impl FnOnce(Arc<Self>) -> F,
    ) -> T {
        let under_way = Arc::clone(&self.changes).read_owned().await;
        let change = change(self);
        let ended = tokio::spawn(async move {
            let done = change.await;
            drop(under_way);
            done
        });
        match ended.await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => resume_unwind(panic),
            // The program ends, and nobody waits any more.
            Err(Err(_)) => pending().await,
        }
    }

    /// Waits until no change is under way.
    pub(super) async fn settled(&self) {
        drop(self.changes.write().await);
    }

    /// Says that somebody changed the records of a source.
    fn tell_changed(&self, source: (String, String)) {
        self.hub.changed(&source.0, &source.1);
        (self.changed)(source);
    }

    /// Takes a place among those that follow events.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                "as many clients follow events as may at a time",
                "try again later, or read the journal as JSON",
            )
        })
    }

    /// Waits for a place among those that look through all records.
    async fn scan(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.scans.acquire().await.ok()
    }
}

/// Routes to all of the API.
pub(super) fn router(server: Arc<Server>) -> Router {
    let (router, document) = parts();
    let document = Json::document(&document);
    router
        .route("/api/v1/openapi.json", get(async move || document.clone()))
        .with_state(server)
}

fn parts() -> (Router<Arc<Server>>, OpenApi) {
    let mut info = Info::new("Parallax", env!("CARGO_PKG_VERSION"));
    info.license = Some(License::new("MIT OR Apache-2.0"));
    OpenApiRouter::with_openapi(OpenApi::new(info, utoipa::openapi::Paths::new()))
        .routes(routes!(status::status))
        .routes(routes!(status::connectors))
        .routes(routes!(sources::sources))
        .routes(routes!(sources::source, control::forget))
        .routes(routes!(control::trigger))
        .routes(routes!(syncs::syncs))
        .routes(routes!(syncs::sync))
        .routes(routes!(syncs::result))
        .routes(routes!(control::cancel))
        .routes(routes!(journal::journal))
        .routes(routes!(journal::all_events))
        .routes(routes!(changesets::changesets))
        .routes(routes!(changesets::changeset))
        .routes(routes!(changesets::records))
        .routes(routes!(control::approve))
        .routes(routes!(control::reject))
        .routes(routes!(records::types))
        .routes(routes!(records::entities))
        .routes(routes!(records::entity))
        .routes(routes!(records::neighbours))
        .routes(routes!(records::relationships))
        .routes(routes!(records::relationship))
        .routes(routes!(records::search))
        .routes(routes!(records::explain))
        .routes(routes!(records::history))
        .split_for_parts()
}

pub(super) async fn no_such_place() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_place",
        "there is nothing at this path",
        "/api/v1/openapi.json lists what there is",
    )
}

pub(super) async fn not_that_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take the method",
        "the header Allow says which it takes",
    )
}

#[cfg(test)]
mod tests;

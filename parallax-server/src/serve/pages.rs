use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::serve::exposition::Exposition;

/// What machines ask a process: how it is, and what it counted.
pub(super) struct Pages {
    state: watch::Sender<State>,
    /// How many sources cannot be synced, and how many there are.
    broken: watch::Sender<(usize, usize)>,
    metrics: Box<dyn Fn(Exposition) -> String + Send + Sync>,
}

/// What the process is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The store is being opened.
    Starting,
    /// Syncs are run.
    Ready,
    /// A signal came.
    Draining,
}

impl Pages {
    /// Makes the pages of a process that starts; `metrics` renders them.
    pub(super) fn new(metrics: impl Fn(Exposition) -> String + Send + Sync + 'static) -> Self {
        Self {
            state: watch::Sender::new(State::Starting),
            broken: watch::Sender::default(),
            metrics: Box::new(metrics),
        }
    }

    /// Returns what the process is at.
    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Sets what `/readyz` says.
    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Sets how many of the sources cannot be synced, for `/readyz` to say.
    pub(super) fn count_broken(&self, broken: usize, sources: usize) {
        self.broken.send_replace((broken, sources));
    }

    /// Routes to the pages.
    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get("alive\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn metrics(Shared(pages): Shared<Arc<Pages>>, headers: HeaderMap) -> Response {
    let exposition = Exposition::asked_for(&headers);
    let metrics = (pages.metrics)(exposition);
    ([(CONTENT_TYPE, exposition.content_type())], metrics).into_response()
}

async fn readyz(Shared(pages): Shared<Arc<Pages>>) -> (StatusCode, String) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let broken = *pages.broken.borrow();
    let (status, text) = match (pages.state(), broken) {
        (State::Ready, (0, _)) => (StatusCode::OK, "ready\n"),
        // It serves the page that tells which, and the others are synced.
        (State::Ready, (broken, sources)) => {
            let text = format!(
                "ready, but {broken} of {sources} sources cannot be synced: see /api/v1/sources\n"
            );
            return (StatusCode::OK, text);
        }
        (State::Starting, _) => (unavailable, "starting: the store is being opened\n"),
        (State::Draining, _) => (unavailable, "stopping: no sync starts any more\n"),
    };
    (status, text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::serve::access::Access;
    use crate::serve::testing::{answer, body, header};
    use crate::serve::{api, router};

    async fn told(router: &Router, method: Method, path: &str) -> String {
        let line = format!("{method} {path}");
        let (path, accept) = path.split_once(" as ").unwrap_or((path, "*/*"));
        let response = answer(router, method, path, &[("accept", accept)]).await;
        let (content_type, allow) = (
            header(&response, "content-type"),
            header(&response, "allow"),
        );
        let status = response.status().as_u16();
        let text = body(response).await;
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let first = problem["code"].as_str().unwrap_or(first);
        format!("{line}: {status} {content_type} {allow} {first}")
    }

    #[tokio::test]
    async fn pages_are_there_and_say_how_it_is() {
        let pages = Arc::new(Pages::new(|exposition| format!("{exposition:?}\n")));
        let server = Arc::new(api::Server::new(Arc::clone(&pages)));
        let router = router(&server, Access::new(None, false));
        let mut lines = Vec::new();
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/metrics",
            "/metrics as application/openmetrics-text",
            "/metrics/",
            "/nope",
            "*",
        ] {
            lines.push(told(&router, Method::GET, path).await);
        }
        for method in [Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            lines.push(told(&router, method, "/metrics").await);
        }
        for state in [State::Ready, State::Draining] {
            pages.set(state);
            lines.push(told(&router, Method::GET, "/readyz").await);
            pages.count_broken(2, 3);
            lines.push(told(&router, Method::GET, "/readyz").await);
        }
        lines.push(told(&router, Method::GET, "/livez").await);
        insta::assert_snapshot!(lines.join("\n"), @"
        GET /: 200 text/html; charset=utf-8 - <!doctype html>
        GET /livez: 200 text/plain; charset=utf-8 - alive
        GET /readyz: 503 text/plain; charset=utf-8 - starting: the store is being opened
        GET /metrics: 200 text/plain; version=0.0.4; charset=utf-8 - Text
        GET /metrics as application/openmetrics-text: 200 application/openmetrics-text; version=1.0.0; charset=utf-8 - OpenMetrics
        GET /metrics/: 404 application/problem+json - no_such_place
        GET /nope: 404 application/problem+json - no_such_place
        GET *: 404 application/problem+json - no_such_place
        HEAD /metrics: 200 text/plain; version=0.0.4; charset=utf-8 - 
        POST /metrics: 403 application/problem+json GET,HEAD no_tokens
        DELETE /metrics: 403 application/problem+json GET,HEAD no_tokens
        OPTIONS /metrics: 405 application/problem+json GET,HEAD method_not_allowed
        GET /readyz: 200 text/plain; charset=utf-8 - ready
        GET /readyz: 200 text/plain; charset=utf-8 - ready, but 2 of 3 sources cannot be synced: see /api/v1/sources
        GET /readyz: 503 text/plain; charset=utf-8 - stopping: no sync starts any more
        GET /readyz: 503 text/plain; charset=utf-8 - stopping: no sync starts any more
        GET /livez: 200 text/plain; charset=utf-8 - alive
        ");
    }
}

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use tokio::sync::watch;

use crate::serve::exposition::Exposition;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const FRONT: &str = "\
Parallax

/metrics  what the syncs did, for Prometheus
/livez    200 while the process works
/readyz   200 while syncs are run; 503 while it starts or stops, and why
";

/// What is served over HTTP.
pub(super) struct Pages {
    state: watch::Sender<State>,
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
            metrics: Box::new(metrics),
        }
    }

    /// Sets what `/readyz` says.
    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Answers a request. The answer to HEAD is that to GET: the server leaves the body out.
    pub(super) fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        let page: fn(&Self, &HeaderMap) -> (StatusCode, HeaderValue, Bytes) = match path {
            "/" => |_, _| ok(TEXT, FRONT),
            "/livez" => |_, _| ok(TEXT, "alive\n"),
            "/readyz" => |pages, _| pages.readyz(),
            "/metrics" => |pages, headers| {
                let exposition = Exposition::asked_for(headers);
                ok(exposition.content_type(), (pages.metrics)(exposition))
            },
            _ => |_, _| {
                let body = "there is no such page; / lists those there are\n";
                (
                    StatusCode::NOT_FOUND,
                    TEXT,
                    Bytes::from_static(body.as_bytes()),
                )
            },
        };
        let may_read = matches!(*method, Method::GET | Method::HEAD);
        let (status, content_type, body) = if may_read {
            page(self, headers)
        } else {
            let body = "this can be read only: GET or HEAD\n";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            (status, TEXT, Bytes::from_static(body.as_bytes()))
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if !may_read {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    fn readyz(&self) -> (StatusCode, HeaderValue, Bytes) {
        let why_not = match *self.state.borrow() {
            State::Ready => return ok(TEXT, "ready\n"),
            State::Starting => "starting: the store is being opened\n",
            State::Draining => "stopping: no sync starts any more\n",
        };
        (
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            Bytes::from_static(why_not.as_bytes()),
        )
    }
}

fn ok(content_type: HeaderValue, body: impl Into<Bytes>) -> (StatusCode, HeaderValue, Bytes) {
    (StatusCode::OK, content_type, body.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::header::ACCEPT;

    use super::*;

    async fn told(pages: &Pages, method: Method, path: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some((_, accept)) = path.split_once(" as ") {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        let path = path.split(" as ").next().unwrap();
        let response = pages.answer(&method, path, &headers);
        let (status, headers) = (response.status(), response.headers().clone());
        let header = |name| {
            headers
                .get(name)
                .map_or("-", |value| value.to_str().unwrap())
        };
        let (content_type, allow) = (header("content-type"), header("allow"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let first = String::from_utf8(body.to_vec()).unwrap();
        let first = first.lines().next().unwrap_or_default().to_owned();
        format!(
            "{method} {path}: {} {content_type} {allow} {first}",
            status.as_u16()
        )
    }

    #[tokio::test]
    async fn pages_are_there_and_say_how_it_is() {
        let pages = Pages::new(|exposition| format!("{exposition:?}\n"));
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
            lines.push(told(&pages, Method::GET, path).await);
        }
        for method in [Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            lines.push(told(&pages, method, "/metrics").await);
        }
        for state in [State::Ready, State::Draining] {
            pages.set(state);
            lines.push(told(&pages, Method::GET, "/readyz").await);
        }
        lines.push(told(&pages, Method::GET, "/livez").await);
        insta::assert_snapshot!(lines.join("\n"), @"
        GET /: 200 text/plain; charset=utf-8 - Parallax
        GET /livez: 200 text/plain; charset=utf-8 - alive
        GET /readyz: 503 text/plain; charset=utf-8 - starting: the store is being opened
        GET /metrics: 200 text/plain; version=0.0.4; charset=utf-8 - Text
        GET /metrics: 200 application/openmetrics-text; version=1.0.0; charset=utf-8 - OpenMetrics
        GET /metrics/: 404 text/plain; charset=utf-8 - there is no such page; / lists those there are
        GET /nope: 404 text/plain; charset=utf-8 - there is no such page; / lists those there are
        GET *: 404 text/plain; charset=utf-8 - there is no such page; / lists those there are
        HEAD /metrics: 200 text/plain; version=0.0.4; charset=utf-8 - Text
        POST /metrics: 405 text/plain; charset=utf-8 GET, HEAD this can be read only: GET or HEAD
        DELETE /metrics: 405 text/plain; charset=utf-8 GET, HEAD this can be read only: GET or HEAD
        OPTIONS /metrics: 405 text/plain; charset=utf-8 GET, HEAD this can be read only: GET or HEAD
        GET /readyz: 200 text/plain; charset=utf-8 - ready
        GET /readyz: 503 text/plain; charset=utf-8 - stopping: no sync starts any more
        GET /livez: 200 text/plain; charset=utf-8 - alive
        ");
    }
}

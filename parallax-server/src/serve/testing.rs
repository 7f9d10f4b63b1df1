//! Requests without a socket.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

/// Answers a request with headers and no body; its host is this machine if no header says so.
pub(super) async fn answer(
    router: &Router,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let answer = TowerToHyperService::new(router.clone()).call(request);
    answer.await.unwrap()
}

/// Returns a header of an answer, or a dash.
pub(super) fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value
        .map_or("-", |value| value.to_str().unwrap())
        .to_owned()
}

/// Returns the body of an answer.
pub(super) async fn body(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

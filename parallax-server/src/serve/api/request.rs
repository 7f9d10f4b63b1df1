//! What requests are made of.

use std::error::Error;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{Daemon, Server};
use crate::serve::pages::State;

/// The query of a request's address, each parameter known.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Server>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Server>) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(refuse(&rejection)),
        }
    }
}

/// The variable parts of a request's path.
pub(super) struct Place<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Server>> for Place<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, server).await {
            Ok(Path(place)) => Ok(Self(place)),
            Err(rejection) => Err(refuse(&rejection)),
        }
    }
}

/// Names the parameter that cannot be used. The parser says which, before a colon.
fn refuse(rejection: &dyn Error) -> Problem {
    let mut root = rejection;
    while let Some(source) = root.source() {
        root = source;
    }
    let reason = root.to_string();
    let help = "/api/v1/openapi.json says which parameters there are, and their form";
    let quoted = || reason.split('`').nth(1);
    let named = match reason.split_once(": ") {
        Some((name, _)) if !name.contains(' ') => Some(name),
        // `unknown field `x`, ...`, `missing field `x``, `duplicate field `x``.
        _ => quoted(),
    };
    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", &*reason, help);
    match named {
        Some(name) => problem.of(name),
        None => problem,
    }
}

/// What is served once the store is open.
pub(super) struct Live(pub(super) Arc<Daemon>);

impl FromRequestParts<Arc<Server>> for Live {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        let unavailable = |detail: &str| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                detail,
                "try again in a moment; /readyz says when",
            )
        };
        match (server.pages.state(), server.daemon.get()) {
            (State::Ready | State::Draining, Some(daemon)) => Ok(Self(Arc::clone(daemon))),
            _ => Err(unavailable("the store is being opened")),
        }
    }
}

/// Returns how many of a list are wanted.
pub(super) fn limit(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(100) {
        limit @ 1..=1_000 => Ok(limit),
        limit => Err(Problem::invalid(
            "limit",
            format!("limit={limit} is not between 1 and 1000"),
            "ask for up to 1000, and go on with cursor",
        )),
    }
}

/// Returns a place in a list, as a client gives it back.
pub(super) fn as_cursor(place: &impl Serialize) -> String {
    let json = serde_json::to_string(place).unwrap_or_default();
    json.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`as_cursor`] wrote.
pub(super) fn cursor<T: DeserializeOwned>(cursor: &str) -> Result<T, Problem> {
    let digits = cursor.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|digits| {
            let digits = str::from_utf8(digits).ok().filter(|digits| {
                digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            })?;
            u8::from_str_radix(digits, 16).ok()
        })
        .collect();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| {
            Problem::invalid(
                "cursor",
                "cursor is not one that this list has given",
                "give what stood in next, or nothing to begin at the start",
            )
        })
}

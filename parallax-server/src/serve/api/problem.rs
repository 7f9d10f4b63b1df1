use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parallax_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Failure;
use crate::json;

/// Why a request was not answered as asked, by RFC 9457. Its type is `about:blank`: `code` says which
/// problem it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The name of the status.
    title: &'static str,
    status: u16,
    /// What is wrong, for people.
    detail: String,
    /// A stable name for this kind of problem, in `snake_case`.
    code: String,
    /// What to do.
    help: String,
    /// The parameter, header or field that is wrong, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<String>,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            help: help.into(),
            field: None,
        }
    }

    /// Returns the problem that a parameter cannot be used.
    pub(crate) fn invalid(field: &str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail, help).of(field)
    }

    /// Names what is wrong.
    pub(crate) fn of(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let content_type = HeaderValue::from_static("application/problem+json");
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            [(CONTENT_TYPE, content_type)],
            json::line(&self),
        )
            .into_response()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = match &failure {
            Failure::Usage { .. } => StatusCode::BAD_REQUEST,
            Failure::NoSuchRecord { .. }
            | Failure::NoSuchSync { .. }
            | Failure::NoSuchChangeset { .. } => StatusCode::NOT_FOUND,
            Failure::Store(error) => status(error),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(
            status,
            failure.code(),
            failure.to_string(),
            failure.help().into_owned(),
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Failure::Store(error).into()
    }
}

fn status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::NoSuchChangeset { .. }
        | StoreError::NoSuchSource { .. }
        | StoreError::NoSuchJournal { .. } => StatusCode::NOT_FOUND,
        StoreError::ChangesetClosed { .. } => StatusCode::CONFLICT,
        StoreError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

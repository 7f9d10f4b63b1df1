use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use parallax_store::Rows;
use serde::Serialize;
use utoipa::ToSchema;

use super::request::as_cursor;
use crate::json;
use crate::query::objects;
use crate::rows::rows;

/// A JSON text, as the command line prints it.
#[derive(Clone, Debug)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn of(value: &impl Serialize) -> Self {
        Self(json::line(value))
    }

    /// Takes one that is such a text already.
    pub(super) fn rendered(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns values as an array, one in each line.
    pub(super) fn array(values: &[impl Serialize]) -> Self {
        Self(json::array(values))
    }

    /// Returns the first `limit` rows and, if there are more, where to go on: after the last one's
    /// place in the `order` of the list. One row more than the limit tells that there are.
    pub(super) fn page<const N: usize>(mut found: Rows, limit: usize, order: [&str; N]) -> Self {
        let more = found.rows.len() > limit;
        found.rows.truncate(limit);
        let last = rows(&found).last().filter(|_| more);
        let next = last.map(|row| {
            let place = order.map(|column| row.text(column).unwrap_or_default());
            as_cursor(&place.as_slice())
        });
        let items = objects(&found);
        Self::of(&Page { items, next })
    }

    /// Returns a document for people, too.
    pub(super) fn document(value: &impl Serialize) -> Self {
        Self(serde_json::to_string_pretty(value).unwrap_or_default())
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, content_type)], self.0).into_response()
    }
}

/// Some of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// What to give as `cursor` for more, if there may be more.
    pub(super) next: Option<String>,
}

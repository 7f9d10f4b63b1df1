use serde::de::Error;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;

use super::answer::{Json, Page};
use super::problem::Problem;
use super::request::{self, Live, Params, Place};
use super::schema::{self, ChangesetDetail, ChangesetRecord};
use crate::changesets::{self, Changeset};
use crate::query::objects;

/// Which changesets are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesetsParams {
    /// Those that were decided, too.
    all: Option<bool>,
}

/// Lists the changesets that wait for somebody's word, those that were opened first before others.
#[utoipa::path(get, path = "/api/v1/changesets", tag = "changesets", params(ChangesetsParams),
    responses((status = OK, body = [schema::Changeset]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn changesets(
    Live(daemon): Live,
    Params(params): Params<ChangesetsParams>,
) -> Result<Json, Problem> {
    let listed = changesets::list(&daemon.store, params.all.unwrap_or(false)).await?;
    Ok(Json::array(&objects(&listed)))
}

/// The number of a changeset.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.parse::<u32>();
        let number =
            number.map_err(|_| D::Error::custom(format!("changeset: {text:?} is not a number")))?;
        Ok(Self(number.into()))
    }
}

/// Shows a changeset with the first records of each type.
#[utoipa::path(get, path = "/api/v1/changesets/{changeset}", tag = "changesets",
    params(("changeset" = u32, Path, description = "Its number")),
    responses((status = OK, body = ChangesetDetail), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn changeset(
    Live(daemon): Live,
    Place(changeset): Place<Number>,
) -> Result<Json, Problem> {
    let changeset = Changeset::find(&daemon.store, changeset.0).await?;
    Ok(Json::of(&changeset.object()))
}

/// Which records of a changeset are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordsParams {
    /// How many at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

/// Lists the records that a changeset holds, or that were deleted by it.
#[utoipa::path(get, path = "/api/v1/changesets/{changeset}/records", tag = "changesets",
    params(("changeset" = u32, Path, description = "Its number"), RecordsParams),
    responses((status = OK, body = Page<ChangesetRecord>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn records(
    Live(daemon): Live,
    Place(changeset): Place<Number>,
    Params(params): Params<RecordsParams>,
) -> Result<Json, Problem> {
    let limit = request::limit(params.limit)? as usize;
    let after = match &params.cursor {
        Some(cursor) => Some(request::cursor::<[String; 4]>(cursor)?),
        None => None,
    };
    let found = Changeset::records(&daemon.store, changeset.0, after, limit + 1).await?;
    Ok(Json::page(found, limit, changesets::ORDER))
}

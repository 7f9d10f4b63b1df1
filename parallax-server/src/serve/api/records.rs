use std::time::Duration;

use axum::http::StatusCode;
use parallax_store::{Browse, Direction, RecordType, Stored, Subject};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Daemon;
use super::answer::Json;
use super::problem::Problem;
use super::request::{self, Live, Params, Place};
use crate::records::{ClaimObject, RecordObject, SyncObject, unknown};
use crate::{explain, history};

/// How long a request may look through all records.
const PATIENCE: Duration = Duration::from_secs(1);

/// A record as one source has it.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredRecord)]
struct StoredObject<'a> {
    #[serde(flatten)]
    record: RecordObject<'a>,
    class: Option<&'a str>,
    #[schema(value_type = Object)]
    properties: Option<&'a RawValue>,
    connector_id: &'a str,
    account_id: &'a str,
    claims: Vec<ClaimObject<'a>>,
    held_changeset: Option<u64>,
    created: Option<SyncObject<'a>>,
    changed: Option<SyncObject<'a>>,
}

impl<'a> StoredObject<'a> {
    fn new(stored: &'a Stored) -> Self {
        Self {
            record: RecordObject::new(&stored.id, &stored.record),
            class: stored.class.as_deref(),
            // It is JSON already.
            properties: serde_json::from_str(&stored.properties).ok(),
            connector_id: &stored.connector_id,
            account_id: &stored.account_id,
            claims: stored.claims.iter().map(ClaimObject::new).collect(),
            held_changeset: stored.held_changeset,
            created: SyncObject::new(stored.created.as_ref()),
            changed: SyncObject::new(stored.changed.as_ref()),
        }
    }
}

/// A type of entities or a verb of relationships, and how many records it has.
#[derive(Serialize, ToSchema)]
#[schema(as = RecordType)]
struct TypeObject<'a> {
    kind: &'static str,
    name: &'a str,
    records: u64,
}

impl<'a> TypeObject<'a> {
    fn new(found: &'a RecordType) -> Self {
        Self {
            kind: found.kind.as_str(),
            name: &found.name,
            records: found.records,
        }
    }
}

/// Some of the records that were asked for.
#[derive(Serialize, ToSchema)]
struct RecordPage<'a> {
    /// In the order in which they were stored.
    items: Vec<StoredObject<'a>>,
    /// What to give as `cursor` for more, if there may be more.
    next: Option<String>,
    /// Whether the time was up before all records were looked at, or as many found as were wanted.
    partial: bool,
}

/// Which records are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordParams {
    /// Of this type, or with this verb.
    r#type: Option<String>,
    /// Of this connector; with `account_id`.
    connector_id: Option<String>,
    /// Of this account; with `connector_id`.
    account_id: Option<String>,
    /// How many at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

impl RecordParams {
    fn apply(self, mut browse: Browse) -> Result<Browse, Problem> {
        if let Some(name) = self.r#type {
            browse = browse.name(name);
        }
        browse = match (self.connector_id, self.account_id) {
            (Some(connector_id), Some(account_id)) => browse.source(connector_id, account_id),
            (None, None) => browse,
            (connector_id, _) => {
                let (given, missing) = match connector_id {
                    Some(_) => ("connector_id", "account_id"),
                    None => ("account_id", "connector_id"),
                };
                return Err(Problem::invalid(
                    missing,
                    format!("{given} is given without {missing}"),
                    "a source is a connector and an account: give both, or neither",
                ));
            }
        };
        page(browse, self.limit, self.cursor.as_deref())
    }
}

fn page(browse: Browse, limit: Option<u32>, cursor: Option<&str>) -> Result<Browse, Problem> {
    let browse = browse.limit(request::limit(limit)?).time(PATIENCE);
    Ok(match cursor {
        Some(cursor) => browse.after(request::cursor(cursor)?),
        None => browse,
    })
}

async fn browse(daemon: &Daemon, browse: &Browse) -> Result<Json, Problem> {
    let _place = daemon.scan().await;
    let page = daemon.store.browse(browse).await?;
    Ok(Json::of(&RecordPage {
        items: page.records.iter().map(StoredObject::new).collect(),
        next: page.next.map(|place| request::as_cursor(&place)),
        partial: page.timed_out,
    }))
}

/// Lists entities, in the order in which they were stored.
#[utoipa::path(get, path = "/api/v1/entities", tag = "records", params(RecordParams),
    responses((status = OK, body = RecordPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn entities(
    Live(daemon): Live,
    Params(params): Params<RecordParams>,
) -> Result<Json, Problem> {
    browse(&daemon, &params.apply(Browse::entities())?).await
}

/// Lists relationships whose ends both live, in the order in which they were stored.
#[utoipa::path(get, path = "/api/v1/relationships", tag = "records", params(RecordParams),
    responses((status = OK, body = RecordPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn relationships(
    Live(daemon): Live,
    Params(params): Params<RecordParams>,
) -> Result<Json, Problem> {
    browse(&daemon, &params.apply(Browse::relationships())?).await
}

/// Shows an entity, as each source that has it does.
#[utoipa::path(get, path = "/api/v1/entities/{id}", tag = "records",
    params(("id" = String, Path, description = "32 hexadecimal digits", pattern = "^[0-9a-f]{32}$")),
    responses((status = OK, body = [StoredObject]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn entity(Live(daemon): Live, Place(id): Place<String>) -> Result<Json, Problem> {
    one(&daemon, Browse::entities(), &id).await
}

/// Shows a relationship, as each source that has it does.
#[utoipa::path(get, path = "/api/v1/relationships/{id}", tag = "records",
    params(("id" = String, Path, description = "32 hexadecimal digits", pattern = "^[0-9a-f]{32}$")),
    responses((status = OK, body = [StoredObject]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn relationship(
    Live(daemon): Live,
    Place(id): Place<String>,
) -> Result<Json, Problem> {
    one(&daemon, Browse::relationships(), &id).await
}

async fn one(daemon: &Daemon, browse: Browse, id: &str) -> Result<Json, Problem> {
    let page = daemon
        .store
        .browse(&browse.id(parse_id(id)?).limit(1_000))
        .await?;
    if page.records.is_empty() {
        return Err(no_such_record(id));
    }
    let objects: Vec<_> = page.records.iter().map(StoredObject::new).collect();
    Ok(Json::array(&objects))
}

fn parse_id(id: &str) -> Result<[u8; 16], Problem> {
    match id.parse() {
        Ok(Subject::Id(id)) => Ok(id),
        _ => Err(Problem::invalid(
            "id",
            "id is not of the form [0-9a-f]{32}",
            "take it from a list, or from /api/v1/search",
        )),
    }
}

fn no_such_record(id: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_record",
        "no source has such a record, or it is not shown because one of its ends is gone",
        format!("/api/v1/explain?subject={id} says whether it was there"),
    )
}

/// Which way.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// Relationships that begin there.
    Out,
    /// Relationships that end there.
    In,
    /// Either.
    Both,
}

/// Which relationships of an entity are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NeighbourParams {
    /// Which way they go, seen from the entity; both if nothing is said.
    #[param(inline)]
    direction: Option<Way>,
    /// With this verb.
    r#type: Option<String>,
    /// How many at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

/// Lists the relationships of an entity with the entities at their ends.
#[utoipa::path(get, path = "/api/v1/entities/{id}/relationships", tag = "records",
    params(("id" = String, Path, description = "32 hexadecimal digits", pattern = "^[0-9a-f]{32}$"), NeighbourParams),
    responses((status = OK, body = RecordPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn neighbours(
    Live(daemon): Live,
    Place(id): Place<String>,
    Params(params): Params<NeighbourParams>,
) -> Result<Json, Problem> {
    let entity = parse_id(&id)?;
    let direction = match params.direction {
        Some(Way::Out) => Direction::Out,
        Some(Way::In) => Direction::In,
        Some(Way::Both) | None => Direction::Both,
    };
    let mut wanted = Browse::neighbours(entity, direction);
    if let Some(name) = params.r#type {
        wanted = wanted.name(name);
    }
    let wanted = page(wanted, params.limit, params.cursor.as_deref())?;
    let page = browse(&daemon, &wanted).await?;
    // What is not there has no relationships either: the difference is worth a look.
    if params.cursor.is_none() {
        let there = Browse::entities().id(entity).limit(1);
        if daemon.store.browse(&there).await?.records.is_empty() {
            return Err(no_such_record(&id));
        }
    }
    Ok(page)
}

/// What is looked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// How the key or the display name begins; upper and lower case of ASCII letters are alike.
    q: String,
    /// Of this type.
    r#type: Option<String>,
    /// How many at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the answer before.
    cursor: Option<String>,
}

/// Finds entities whose key or display name begins so, in the order in which they were stored.
///
/// Looks for a second at most. Then it says where to go on, and that it is `partial`.
#[utoipa::path(get, path = "/api/v1/search", tag = "records", params(SearchParams),
    responses((status = OK, body = RecordPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn search(
    Live(daemon): Live,
    Params(params): Params<SearchParams>,
) -> Result<Json, Problem> {
    let mut wanted = Browse::entities().prefix(params.q);
    if let Some(name) = params.r#type {
        wanted = wanted.name(name);
    }
    let wanted = page(wanted, params.limit, params.cursor.as_deref())?;
    browse(&daemon, &wanted).await
}

/// Lists the types of entities and the verbs of relationships, with how many records have them.
#[utoipa::path(get, path = "/api/v1/types", tag = "records",
    responses((status = OK, body = [TypeObject]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn types(Live(daemon): Live) -> Result<Json, Problem> {
    let _place = daemon.scan().await;
    let types = daemon.store.types().await?;
    let types: Vec<_> = types.iter().map(TypeObject::new).collect();
    Ok(Json::array(&types))
}

/// What is asked about.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubjectParams {
    /// `TYPE:KEY`, or an id of 32 hexadecimal digits.
    #[param(pattern = "^([^:]+:.+|[0-9a-f]{32})$")]
    subject: String,
}

/// Says who claims a record, and why it is there or gone.
#[utoipa::path(get, path = "/api/v1/explain", tag = "records", params(SubjectParams),
    responses((status = OK, body = [explain::Object]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn explain(
    Live(daemon): Live,
    Params(params): Params<SubjectParams>,
) -> Result<Json, Problem> {
    let subject = parse_subject(&params.subject)?;
    let _place = daemon.scan().await;
    let explanations = daemon.store.explain(&subject).await?;
    if explanations.is_empty() {
        return Err(unknown(&daemon.store, &subject).await?.into());
    }
    let objects: Vec<_> = explanations.iter().map(explain::Object::new).collect();
    Ok(Json::array(&objects))
}

/// What is asked about, and how far back.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// `TYPE:KEY`, or an id of 32 hexadecimal digits.
    #[param(pattern = "^([^:]+:.+|[0-9a-f]{32})$")]
    subject: String,
    /// How many events of each record at most, 100 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Says what happened to a record, newest first.
#[utoipa::path(get, path = "/api/v1/history", tag = "records", params(HistoryParams),
    responses((status = OK, body = [history::Object]), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn history(
    Live(daemon): Live,
    Params(params): Params<HistoryParams>,
) -> Result<Json, Problem> {
    let subject = parse_subject(&params.subject)?;
    let limit = request::limit(params.limit)?;
    let _place = daemon.scan().await;
    let histories = daemon.store.history(&subject, limit).await?;
    if histories.is_empty() {
        return Err(unknown(&daemon.store, &subject).await?.into());
    }
    let objects: Vec<_> = histories.iter().map(history::Object::new).collect();
    Ok(Json::array(&objects))
}

fn parse_subject(subject: &str) -> Result<Subject, Problem> {
    subject.parse().map_err(|error| {
        Problem::invalid(
            "subject",
            format!("subject cannot be read: {error}"),
            "write it as host_package:bash, or take an id from a list",
        )
    })
}

//! What the commands that look at single records share.

use parallax_core::{Escaped, RecordKind, Timestamp, escape};
use parallax_store::{ClaimName, Deletion, End, EntityName, RecordName, Store, Subject, SyncRef};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Failure;
use crate::rows::{quoted, rows};
use crate::syncs::to_the_second;
use crate::text::{FAINT, paint};

/// How many records that may have been meant are named.
const NEAR: usize = 3;
/// Of more keys than these none is looked for that is written a bit differently.
const KEYS: usize = 10_000;

/// Returns a record's name and id: how an answer about it begins.
pub(crate) fn title(record: &RecordName, id: &str) -> String {
    let name = match record {
        RecordName::Entity(name) => {
            let mut text = entity(name);
            if name.display_name != name.key {
                text += &format!(" ({})", Escaped(&name.display_name));
            }
            text
        }
        RecordName::Relationship {
            from,
            verb,
            to,
            key,
        } => {
            let key = key.as_deref().map(|key| format!(" [{}]", Escaped(key)));
            let (from, to) = (end(from), end(to));
            format!("{from} {verb} {to}{}", key.unwrap_or_default())
        }
    };
    let id = paint(FAINT, format_args!("id {id}"));
    format!(
        "{}\n{id}",
        paint(clap::builder::styling::Style::new().bold(), name)
    )
}

/// Returns an entity as it is typed.
fn entity(name: &EntityName) -> String {
    format!("{}:{}", name.entity_type, Escaped(&name.key))
}

/// Returns an end as it is typed; one that nothing is known of by its id.
pub(crate) fn end(end: &End) -> String {
    end.entity.as_ref().map_or_else(|| end.id.clone(), entity)
}

/// Returns a time and a sync: `2026-11-22 14:03:11 UTC, sync s-1`.
pub(crate) fn sync_text(sync: Option<&SyncRef>) -> String {
    match sync {
        Some(SyncRef {
            sync_id,
            committed_at,
        }) => format!("{}, sync {}", time(*committed_at), Escaped(sync_id)),
        None => "at a time that is no longer on record".to_owned(),
    }
}

/// Returns a time to the second.
pub(crate) fn time(at: Timestamp) -> String {
    to_the_second(&at.to_string()) + " UTC"
}

/// Returns claims as `users, hosts (scope eu)`.
pub(crate) fn claims_text<'a>(claims: impl IntoIterator<Item = &'a ClaimName>) -> String {
    let texts = claims.into_iter().map(|claim| match &claim.scope {
        Some(scope) => format!("{} (scope {})", Escaped(&claim.step_id), Escaped(scope)),
        None => escape(&claim.step_id).into_owned(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Says why a record was deleted.
pub(crate) fn because(deletion: &Deletion) -> String {
    let claims = claims_text(&deletion.claims);
    match deletion.changeset {
        Some(changeset) => {
            format!("nobody found it, and changeset {changeset} was approved; claimed by: {claims}")
        }
        None => {
            format!("every step that claimed it looked everywhere and did not find it: {claims}")
        }
    }
}

/// A record's name, as the fields of an object.
#[derive(Serialize, ToSchema)]
#[schema(as = Record)]
pub(crate) struct RecordObject<'a> {
    id: &'a str,
    kind: &'static str,
    #[serde(rename = "type")]
    name: &'a str,
    key: Option<&'a str>,
    display_name: Option<&'a str>,
    from: Option<EndObject<'a>>,
    to: Option<EndObject<'a>>,
}

/// An end of a relationship.
#[derive(Serialize, ToSchema)]
#[schema(as = End)]
struct EndObject<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    entity_type: Option<&'a str>,
    key: Option<&'a str>,
    display_name: Option<&'a str>,
    live: bool,
}

impl<'a> RecordObject<'a> {
    pub(crate) fn new(id: &'a str, record: &'a RecordName) -> Self {
        match record {
            RecordName::Entity(name) => Self {
                id,
                kind: "entity",
                name: &name.entity_type,
                key: Some(&name.key),
                display_name: Some(&name.display_name),
                from: None,
                to: None,
            },
            RecordName::Relationship {
                from,
                verb,
                to,
                key,
            } => Self {
                id,
                kind: "relationship",
                name: verb,
                key: key.as_deref(),
                display_name: None,
                from: Some(EndObject::new(from)),
                to: Some(EndObject::new(to)),
            },
        }
    }
}

impl<'a> EndObject<'a> {
    fn new(end: &'a End) -> Self {
        let entity = end.entity.as_ref();
        Self {
            id: &end.id,
            entity_type: entity.map(|entity| entity.entity_type.as_str()),
            key: entity.map(|entity| entity.key.as_str()),
            display_name: entity.map(|entity| entity.display_name.as_str()),
            live: end.is_live,
        }
    }
}

/// A sync, as an object.
#[derive(Serialize, ToSchema)]
#[schema(as = SyncReference)]
pub(crate) struct SyncObject<'a> {
    sync_id: &'a str,
    committed_at: String,
}

impl<'a> SyncObject<'a> {
    pub(crate) fn new(sync: Option<&'a SyncRef>) -> Option<Self> {
        sync.map(Self::of)
    }

    pub(crate) fn of(sync: &'a SyncRef) -> Self {
        Self {
            sync_id: &sync.sync_id,
            committed_at: sync.committed_at.to_string(),
        }
    }
}

/// A claim, as an object.
#[derive(Serialize, ToSchema)]
#[schema(as = Claim)]
pub(crate) struct ClaimObject<'a> {
    step_id: &'a str,
    scope: Option<&'a str>,
}

impl<'a> ClaimObject<'a> {
    pub(crate) fn new(claim: &'a ClaimName) -> Self {
        Self {
            step_id: &claim.step_id,
            scope: claim.scope.as_deref(),
        }
    }
}

/// Says that a subject is not known, and what may have been meant.
pub(crate) async fn unknown(store: &Store, subject: &Subject) -> Result<Failure, Failure> {
    let help = match subject {
        Subject::Id(_) => "the views parallax_entity, parallax_relationship and parallax_change \
                           have the ids"
            .to_owned(),
        Subject::Entity { entity_type, key } => help(store, entity_type, key).await?,
    };
    Ok(Failure::NoSuchRecord {
        subject: subject.to_string(),
        help,
    })
}

async fn help(store: &Store, entity_type: &str, key: &str) -> Result<String, Failure> {
    let types = store.types().await?.into_iter();
    let entities = types.filter(|found| found.kind == RecordKind::Entity);
    let types: Vec<String> = entities.map(|found| found.name).collect();
    if !types.iter().any(|known| known == entity_type) {
        return Ok(match types.as_slice() {
            [] => "the store has no entities: sync something into it".to_owned(),
            types => format!(
                "there is no type {entity_type:?}; nearest: {}",
                nearest(types, entity_type).join(", ")
            ),
        });
    }
    let of_type = format!(
        "SELECT DISTINCT key AS found FROM parallax_entity WHERE type = {}",
        quoted(entity_type)
    );
    // Who does not know a key writes a name, or a part of the key.
    let part = quoted(key);
    let mut near = Vec::new();
    for condition in [
        format!("display_name = {part}"),
        format!("instr(key, {part}) > 0"),
    ] {
        if near.is_empty() {
            near = texts(
                store,
                &format!("{of_type} AND {condition} ORDER BY length(key), key LIMIT {NEAR}"),
            )
            .await?;
        }
    }
    if near.is_empty() {
        let keys = texts(store, &format!("{of_type} LIMIT {KEYS}")).await?;
        near = nearest(&keys, key);
    }
    let near: Vec<_> = near
        .iter()
        .map(|key| format!("{entity_type}:{key}"))
        .collect();
    Ok(format!("nearest: {}", near.join(", ")))
}

async fn texts(store: &Store, sql: &str) -> Result<Vec<String>, Failure> {
    let found = store.query(sql).await?;
    let texts = rows(&found).filter_map(|row| row.text("found").map(str::to_owned));
    Ok(texts.collect())
}

/// Returns those that are written most alike, the nearest first.
fn nearest(known: &[String], wanted: &str) -> Vec<String> {
    let mut known: Vec<_> = known
        .iter()
        .map(|known| (strsim::jaro_winkler(known, wanted), known))
        .collect();
    known.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    known.truncate(NEAR);
    known.into_iter().map(|(_, known)| known.clone()).collect()
}

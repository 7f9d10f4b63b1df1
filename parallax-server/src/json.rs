mod read;

use std::borrow::Cow;

use parallax_connect::{StepReport, SyncReport};
use parallax_core::{Counts, RecordKind, SyncStats, escape_json};
use parallax_store::{Change, PropertyChange};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::conclusion::Conclusion;
use crate::error::Failure;
use crate::text::millis;

pub(crate) use read::Told;

/// The version of the object that `parallax sync --json` prints. Fields may be added to a version,
/// never changed or removed.
const SCHEMA: u32 = 1;

/// Returns the JSON object of a sync, in one line.
pub(crate) fn render(conclusion: &Conclusion) -> String {
    let committed = conclusion.committed.as_ref();
    let report = conclusion.report.as_ref();
    line(&SyncObject {
        schema: SCHEMA,
        connector_id: conclusion.connector_id.as_deref(),
        account_id: conclusion.account_id.as_deref(),
        sync_id: conclusion.sync_id.as_deref(),
        outcome: conclusion.outcome(),
        replayed: committed.is_some_and(|committed| committed.replayed),
        stats: Stats(
            committed
                .map(|committed| committed.stats)
                .unwrap_or_default(),
        ),
        held_changeset: committed.and_then(|committed| committed.held_changeset),
        held_because: committed.and_then(|committed| committed.held_because.as_deref()),
        steps: report
            .into_iter()
            .flat_map(SyncReport::steps)
            .map(StepObject::new)
            .collect(),
        undelivered_events: conclusion.undelivered_events,
        duration_ms: millis(conclusion.duration),
        store: conclusion.store.as_deref(),
        error: conclusion.failure.as_ref().map(ErrorObject::new),
        exit_code: conclusion.exit().code(),
        types: committed
            .into_iter()
            .flat_map(|committed| &committed.types)
            .map(|counted| TypeObject::new(counted.kind.as_str(), &counted.name, &counted.counts))
            .collect(),
        changes: committed
            .into_iter()
            .flat_map(|committed| &committed.changes)
            .map(ChangeObject::new)
            .collect(),
    })
}

/// Returns a value as one line of JSON that cannot steer a terminal.
pub(crate) fn line(value: &impl Serialize) -> String {
    let Ok(json) = serde_json::to_string(value) else {
        // Only a map with keys that are no strings cannot be written, and none here has such.
        return "null\n".to_owned();
    };
    escaped(&json)
}

/// Returns values as a JSON array, one in each line.
pub(crate) fn array(values: &[impl Serialize]) -> String {
    let lines: Vec<String> = values
        .iter()
        .map(|value| line(value).trim_end().to_owned())
        .collect();
    match lines.as_slice() {
        [] => "[]\n".to_owned(),
        lines => format!("[\n{}\n]\n", lines.join(",\n")),
    }
}

/// Returns JSON as one line that cannot steer a terminal.
pub(crate) fn escaped(json: &str) -> String {
    escape_json(json).into_owned() + "\n"
}

/// What a sync came to, as `parallax sync --json` prints it.
#[derive(serde::Serialize, ToSchema)]
#[schema(as = SyncResult)]
pub(crate) struct SyncObject<'a> {
    schema: u32,
    connector_id: Option<&'a str>,
    account_id: Option<&'a str>,
    sync_id: Option<&'a str>,
    outcome: &'static str,
    replayed: bool,
    #[schema(value_type = BTreeMap<String, u64>)]
    stats: Stats,
    held_changeset: Option<u64>,
    held_because: Option<&'a str>,
    steps: Vec<StepObject<'a>>,
    undelivered_events: u64,
    duration_ms: u64,
    store: Option<&'a str>,
    error: Option<ErrorObject>,
    /// How `parallax sync` ends.
    exit_code: u8,
    /// The counts by type.
    types: Vec<TypeObject<'a>>,
    /// The first changes of each action and kind.
    changes: Vec<ChangeObject<'a>>,
}

/// Every field of the stats by its name, in their order.
#[derive(Default)]
pub(crate) struct Stats(SyncStats);

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SyncStats::FIELDS.len()))?;
        for (field, value) in SyncStats::FIELDS.iter().zip(self.0.values()) {
            map.serialize_entry(field, &value)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize, ToSchema)]
#[schema(as = SyncResultStep)]
struct StepObject<'a> {
    step_id: &'a str,
    status: &'static str,
    entities: u64,
    relationships: u64,
    throttled_ms: u64,
    duration_ms: u64,
    error: Option<String>,
}

impl<'a> StepObject<'a> {
    fn new(step: &'a StepReport) -> Self {
        Self {
            step_id: &step.step_id,
            status: step.status.as_str(),
            entities: step.entities,
            relationships: step.relationships,
            throttled_ms: millis(step.throttled),
            duration_ms: millis(step.duration),
            error: step.reason(),
        }
    }
}

#[derive(serde::Serialize, ToSchema)]
#[schema(as = SyncResultError)]
struct ErrorObject {
    code: Cow<'static, str>,
    message: String,
    help: String,
}

impl ErrorObject {
    fn new(failure: &Failure) -> Self {
        Self {
            code: failure.code(),
            message: failure.to_string(),
            help: failure.help().into_owned(),
        }
    }
}

#[derive(serde::Serialize, ToSchema)]
#[schema(as = SyncResultType)]
struct TypeObject<'a> {
    kind: &'static str,
    name: &'a str,
    created: u64,
    updated: u64,
    unchanged: u64,
    deleted: u64,
    kept: u64,
    held: u64,
}

impl<'a> TypeObject<'a> {
    fn new(kind: &'static str, name: &'a str, counts: &Counts) -> Self {
        let &Counts {
            created,
            updated,
            unchanged,
            deleted,
            kept,
            held,
            ..
        } = counts;
        Self {
            kind,
            name,
            created,
            updated,
            unchanged,
            deleted,
            kept,
            held,
        }
    }
}

#[derive(serde::Serialize, ToSchema)]
#[schema(as = SyncResultChange)]
struct ChangeObject<'a> {
    action: &'static str,
    kind: &'static str,
    id: &'a str,
    /// The type or the verb.
    name: &'a str,
    /// The type of an entity.
    entity_type: Option<&'a str>,
    key: &'a str,
    display_name: &'a str,
    reason: Option<&'a str>,
    properties: Vec<PropertyObject<'a>>,
}

impl<'a> ChangeObject<'a> {
    fn new(change: &'a Change) -> Self {
        let properties = change.properties.iter();
        Self {
            action: change.action.as_str(),
            kind: change.kind.as_str(),
            id: &change.id,
            name: &change.name,
            entity_type: (change.kind == RecordKind::Entity).then_some(&change.name),
            key: &change.key,
            display_name: &change.display_name,
            reason: change.reason.as_deref(),
            properties: properties.map(PropertyObject::new).collect(),
        }
    }
}

/// A property before and after. What is not there has no field: null is a value like others.
#[derive(serde::Serialize, ToSchema)]
#[schema(as = PropertyChange)]
pub(crate) struct PropertyObject<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    before: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    after: Option<&'a RawValue>,
}

impl<'a> PropertyObject<'a> {
    pub(crate) fn new(change: &'a PropertyChange) -> Self {
        // The values are JSON already.
        let raw = |value: &'a Option<String>| serde_json::from_str(value.as_deref()?).ok();
        Self {
            name: &change.name,
            before: raw(&change.before),
            after: raw(&change.after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Misuse;
    use crate::testing::{later, partial};

    fn pretty(conclusion: &Conclusion) -> String {
        let text = render(conclusion);
        assert_eq!(text.lines().count(), 1);
        // Not through a `Value`, which would sort the fields.
        text.replace("},{", "},\n  {")
            .replace("[{", "[\n  {")
            .replace(",\"", ",\n\"")
    }

    #[test]
    fn object_has_every_field_in_order() {
        let mut partial = partial();
        partial.connector_id = Some("a\u{202e}b".to_owned());
        insta::assert_snapshot!(pretty(&partial), @r#"
        {"schema":1,
        "connector_id":"a\u202eb",
        "account_id":"acme",
        "sync_id":"s-1",
        "outcome":"partial",
        "replayed":false,
        "stats":{"entities_created":0,
        "entities_updated":0,
        "entities_unchanged":1198,
        "entities_deleted":0,
        "entities_kept":4,
        "entities_held":0,
        "entities_rejected":0,
        "entities_duplicates":0,
        "relationships_created":0,
        "relationships_updated":0,
        "relationships_unchanged":0,
        "relationships_deleted":0,
        "relationships_kept":1201,
        "relationships_held":0,
        "relationships_rejected":0,
        "relationships_duplicates":0},
        "held_changeset":null,
        "held_because":null,
        "steps":[
          {"step_id":"users",
        "status":"incomplete",
        "entities":2,
        "relationships":0,
        "throttled_ms":5,
        "duration_ms":20,
        "error":"page 3 is missing"},
          {"step_id":"roles",
        "status":"failed",
        "entities":2,
        "relationships":0,
        "throttled_ms":5,
        "duration_ms":20,
        "error":"list roles: connection reset"},
          {"step_id":"role_users",
        "status":"skipped",
        "entities":2,
        "relationships":0,
        "throttled_ms":5,
        "duration_ms":20,
        "error":"step roles did not complete"},
          {"step_id":"badges",
        "status":"completed",
        "entities":2,
        "relationships":0,
        "throttled_ms":5,
        "duration_ms":20,
        "error":null}],
        "undelivered_events":0,
        "duration_ms":1234,
        "store":"sqlite:/srv/parallax.db",
        "error":null,
        "exit_code":3,
        "types":[
          {"kind":"entity",
        "name":"team_role",
        "created":0,
        "updated":0,
        "unchanged":0,
        "deleted":0,
        "kept":2,
        "held":0},
          {"kind":"entity",
        "name":"team_user",
        "created":0,
        "updated":0,
        "unchanged":1198,
        "deleted":0,
        "kept":2,
        "held":0},
          {"kind":"relationship",
        "name":"HAS",
        "created":0,
        "updated":0,
        "unchanged":0,
        "deleted":0,
        "kept":1201,
        "held":0}],
        "changes":[]}
        "#);
    }

    #[test]
    fn changes_are_listed() {
        let text = render(&later());
        let (_, changes) = text.split_once("\"changes\":").unwrap();
        insta::assert_snapshot!(changes.replace("},{", "},\n{"), @r#"
        [{"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 1","display_name":"New 1","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 2","display_name":"New 2","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 3","display_name":"New 3","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 4","display_name":"New 4","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 5","display_name":"New 5","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 6","display_name":"New 6","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 7","display_name":"New 7","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 8","display_name":"New 8","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 9","display_name":"New 9","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 10","display_name":"New 10","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 11","display_name":"New 11","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 12","display_name":"New 12","reason":null,"properties":[]},
        {"action":"created","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"new 13","display_name":"New 13","reason":null,"properties":[]},
        {"action":"updated","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"ann\u001b[2j","display_name":"Ann\u001b[2J","reason":null,"properties":[{"name":"floor","before":3,"after":null},
        {"name":"share","after":0.30000000000000004},
        {"name":"size","before":18446744073709551615}]},
        {"action":"deleted","kind":"entity","id":"","name":"team_user","entity_type":"team_user","key":"bob","display_name":"Bob","reason":null,"properties":[]}]}
        "#);
    }

    #[test]
    fn early_failure_is_an_object_too() {
        let failure = Misuse::DuplicateKind {
            kind: "host".to_owned(),
        }
        .into();
        let text = render(&Conclusion::of_failure(failure));
        insta::assert_snapshot!(text, @r#"{"schema":1,"connector_id":null,"account_id":null,"sync_id":null,"outcome":"failed","replayed":false,"stats":{"entities_created":0,"entities_updated":0,"entities_unchanged":0,"entities_deleted":0,"entities_kept":0,"entities_held":0,"entities_rejected":0,"entities_duplicates":0,"relationships_created":0,"relationships_updated":0,"relationships_unchanged":0,"relationships_deleted":0,"relationships_kept":0,"relationships_held":0,"relationships_rejected":0,"relationships_duplicates":0},"held_changeset":null,"held_because":null,"steps":[],"undelivered_events":0,"duration_ms":0,"store":null,"error":{"code":"duplicate_connector","message":"two connectors are registered as host","help":"this is a defect of the program: please tell its author"},"exit_code":2,"types":[],"changes":[]}"#);
    }
}

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ConnectorError;
use crate::stats::SyncStats;
use crate::text::escape_json;
use crate::value::Timestamp;

/// One thing that happened in a sync.
///
/// The entries of a sync are its journal: all that a [`SyncEvent`](crate::SyncEvent) tells, and
/// more, numbered without gaps, so that a reader who was away goes on where it left off. `started`
/// comes first, unless the run could not start. Exactly one entry ends the run: `completed`,
/// `cancelled` or `failed`. After `completed` come `committed` or `commit_failed`, if the output is
/// committed, and what becomes of deletes that are held.
///
/// As JSON it is one object in one line, the same wherever it is read. Kinds and fields may be
/// added to a version, so readers pass over what they do not know; nothing is changed or removed.
/// docs/src/journal.schema.json is its schema.
///
/// ```
/// use parallax_core::{JournalEntry, JournalKind, Timestamp};
///
/// let entry = JournalEntry {
///     seq: 2,
///     at: Timestamp::from_micros(1_764_000_000_000_000).unwrap(),
///     connector_id: "okta".into(),
///     account_id: "acme".into(),
///     sync_id: "sync-001".into(),
///     kind: JournalKind::StepStarted { step_id: "users".to_owned() },
/// };
/// let line = entry.to_json();
/// assert_eq!(
///     line,
///     r#"{"v":1,"seq":2,"at":"2025-11-24T16:00:00Z","connector_id":"okta","account_id":"acme","sync_id":"sync-001","kind":"step_started","step_id":"users"}"#
/// );
/// assert_eq!(JournalEntry::from_json(&line).unwrap(), entry);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// Its place in the journal: 1, 2, 3 and so on.
    pub seq: u64,
    /// When it happened, by the machine's clock: for people, not for ordering.
    pub at: Timestamp,
    /// The connector.
    pub connector_id: Arc<str>,
    /// The account that is read.
    pub account_id: Arc<str>,
    /// The sync.
    pub sync_id: Arc<str>,
    /// What happened.
    pub kind: JournalKind,
}

/// What a [`JournalEntry`] tells. Durations are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JournalKind {
    /// The run began.
    Started {
        /// The connector's version; may be empty.
        connector_version: String,
        /// All declared steps, in order.
        steps: Vec<StepOutline>,
    },
    /// A step began.
    StepStarted {
        /// The step.
        step_id: String,
    },
    /// A running attempt has emitted so much by now. Told when something was emitted since the last
    /// time, at most ten times a second, and less often the longer the step runs.
    StepProgress {
        /// The step.
        step_id: String,
        /// Entities of this attempt.
        entities: u64,
        /// Relationships of this attempt.
        relationships: u64,
    },
    /// An attempt failed, and another follows after a pause.
    StepRetrying {
        /// The step.
        step_id: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Why it failed.
        error: JournalError,
        /// The pause.
        pause_ms: u64,
    },
    /// The next attempt began, after the pause. Nothing of the one before counts.
    StepRestarted {
        /// The step.
        step_id: String,
        /// The attempt that began: 2 after the first.
        attempt: u32,
    },
    /// A running step has done nothing that can be seen for so long. Told once, until it emits
    /// again. A wait for a rate limit is no stall.
    StepStalled {
        /// The step.
        step_id: String,
        /// How long.
        idle_ms: u64,
        /// Whether it keeps its thread busy or blocked, so that no other step can go on either.
        blocking: bool,
    },
    /// An attempt emitted records that broke a rule: one entry for each rule, when the attempt has
    /// ended.
    RecordsRejected {
        /// The step.
        step_id: String,
        /// The rule's label.
        rule: String,
        /// How many records.
        count: u64,
        /// The first few, each with what is wrong with it.
        samples: Vec<String>,
    },
    /// A step returned `Ok`; all it emitted counts.
    StepCompleted {
        /// The step.
        step_id: String,
        /// `completed`, or `incomplete` if it said that it did not see everything.
        status: String,
        /// Why it is incomplete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How often it was begun.
        attempts: u32,
        /// Entities it emitted, duplicates and rejected ones included.
        entities: u64,
        /// Relationships it emitted, duplicates and rejected ones included.
        relationships: u64,
        /// Records that were rejected.
        rejected: u64,
        /// Time since it began.
        duration_ms: u64,
        /// How much of that it waited for rate limits.
        #[serde(default, skip_serializing_if = "is_zero")]
        throttled_ms: u64,
    },
    /// A step failed, panicked, timed out or was cancelled; nothing it emitted counts.
    StepFailed {
        /// The step.
        step_id: String,
        /// `failed` or `cancelled`.
        status: String,
        /// Why.
        error: JournalError,
        /// How often it was begun; 0 if it was cancelled before.
        attempts: u32,
        /// Time since it began.
        duration_ms: u64,
        /// How much of that it waited for rate limits.
        #[serde(default, skip_serializing_if = "is_zero")]
        throttled_ms: u64,
    },
    /// A step did not run, because one that it depends on failed or was skipped.
    StepSkipped {
        /// The step.
        step_id: String,
        /// Why.
        error: JournalError,
    },
    /// Every step has ended.
    Completed {
        /// Entities of all steps, duplicates and rejected ones included.
        entities: u64,
        /// Relationships of all steps, duplicates and rejected ones included.
        relationships: u64,
        /// How long the run took.
        duration_ms: u64,
    },
    /// The run was cancelled, or dropped before its end. Nothing of it is committed.
    Cancelled,
    /// The run could not start.
    Failed {
        /// Why.
        error: JournalError,
    },
    /// The output was committed.
    Committed {
        /// `committed`, `partial` or `failed`: how much of the run counted.
        outcome: String,
        /// Whether it had been committed before: nothing changed now.
        replayed: bool,
        /// The counts.
        #[serde(with = "stats_by_name")]
        #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, u64>"))]
        stats: SyncStats,
    },
    /// Deletes of the commit are held until somebody approves them.
    DeletesHeld {
        /// The changeset that holds them.
        changeset: u64,
        /// How many entities.
        entities: u64,
        /// How many relationships.
        relationships: u64,
        /// What is suspicious about them.
        reason: String,
    },
    /// Somebody approved the deletes that the sync had held.
    DeletesApproved {
        /// The changeset that held them.
        changeset: u64,
        /// How many entities were deleted.
        entities: u64,
        /// How many relationships were deleted.
        relationships: u64,
    },
    /// Somebody rejected the deletes that the sync had held.
    DeletesRejected {
        /// The changeset that held them.
        changeset: u64,
        /// How many entities are kept.
        entities: u64,
        /// How many relationships are kept.
        relationships: u64,
    },
    /// The output could not be committed. Nothing was changed.
    CommitFailed {
        /// Why.
        error: JournalError,
    },
    /// What a later version of this library tells, and this one does not know.
    #[serde(other)]
    Unknown,
}

/// A declared step, as it is before the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StepOutline {
    /// The step.
    pub step_id: String,
    /// Its title, for people.
    pub title: String,
    /// The steps it depends on or reads.
    pub depends_on: Vec<String>,
    /// Whether it is a step of the run.
    pub selected: bool,
}

/// An error, as a journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JournalError {
    /// A label, such as those of [`ErrorKind`](crate::ErrorKind).
    pub kind: String,
    /// The error's text, in one line.
    pub message: String,
}

/// What takes the entries of a journal: a store, a screen, the clients of a server.
pub trait JournalSink: Send + Sync {
    /// Takes the next entry of a sync.
    ///
    /// Called in the order of [`seq`](JournalEntry::seq), from any thread, and never awaited: it
    /// must not block, or the run waits. If it panics, the journal ends there, and the run goes on.
    fn append(&self, entry: &JournalEntry);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The version of the JSON object.
const VERSION: u32 = 1;

impl JournalEntry {
    /// Returns the entry as a JSON object in one line, which cannot steer a terminal.
    pub fn to_json(&self) -> String {
        // Only a map with keys that are no strings cannot be written, and there is none.
        let json = serde_json::to_string(self).unwrap_or_default();
        escape_json(&json).into_owned()
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    ///
    /// [`JournalFormatError`] if it is not an entry, or one of a version that is not known here.
    pub fn from_json(line: &str) -> Result<Self, JournalFormatError> {
        serde_json::from_str(line).map_err(|error| JournalFormatError(error.to_string()))
    }
}

impl JournalKind {
    /// Returns the step that it is about.
    pub fn step_id(&self) -> Option<&str> {
        match self {
            Self::StepStarted { step_id }
            | Self::StepProgress { step_id, .. }
            | Self::StepRetrying { step_id, .. }
            | Self::StepRestarted { step_id, .. }
            | Self::StepStalled { step_id, .. }
            | Self::RecordsRejected { step_id, .. }
            | Self::StepCompleted { step_id, .. }
            | Self::StepFailed { step_id, .. }
            | Self::StepSkipped { step_id, .. } => Some(step_id),
            _ => None,
        }
    }

    /// Tells whether it ends the run.
    pub fn ends_run(&self) -> bool {
        matches!(
            self,
            Self::Completed { .. } | Self::Cancelled | Self::Failed { .. }
        )
    }
}

impl From<&ConnectorError> for JournalError {
    fn from(error: &ConnectorError) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Not an entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of a journal: {0}")]
pub struct JournalFormatError(String);

/// An entry as JSON: the names first, then what happened.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Line<K> {
    /// The version of the format.
    v: u32,
    /// Its place in the journal of the sync, from 1, without gaps.
    seq: u64,
    /// When it happened: RFC 3339, UTC.
    at: String,
    connector_id: Arc<str>,
    account_id: Arc<str>,
    sync_id: Arc<str>,
    #[serde(flatten)]
    kind: K,
}

impl Serialize for JournalEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = Line {
            v: VERSION,
            seq: self.seq,
            at: self.at.to_string(),
            connector_id: Arc::clone(&self.connector_id),
            account_id: Arc::clone(&self.account_id),
            sync_id: Arc::clone(&self.sync_id),
            kind: &self.kind,
        };
        line.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JournalEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line: Line<JournalKind> = Line::deserialize(deserializer)?;
        if line.v != VERSION {
            return Err(D::Error::custom(format_args!("of version {}", line.v)));
        }
        Ok(Self {
            seq: line.seq,
            at: line.at.parse().map_err(D::Error::custom)?,
            connector_id: line.connector_id,
            account_id: line.account_id,
            sync_id: line.sync_id,
            kind: line.kind,
        })
    }
}

/// Every field of the stats by its name, in their order. One that is not there is 0, and one that
/// is not known is passed over.
mod stats_by_name {
    use std::collections::HashMap;

    use serde::ser::SerializeMap;

    use super::{Deserialize, Deserializer, Serializer, SyncStats};

    pub(super) fn serialize<S: Serializer>(
        stats: &SyncStats,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SyncStats::FIELDS.len()))?;
        for (field, value) in SyncStats::FIELDS.iter().zip(stats.values()) {
            map.serialize_entry(field, &value)?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SyncStats, D::Error> {
        let values: HashMap<String, u64> = HashMap::deserialize(deserializer)?;
        let value = |field| values.get(field).copied().unwrap_or_default();
        Ok(SyncStats::from_values(SyncStats::FIELDS.map(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: JournalKind) -> JournalEntry {
        JournalEntry {
            seq: 7,
            at: Timestamp::from_micros(1_764_000_000_123_456).unwrap(),
            connector_id: "okta".into(),
            account_id: "acme".into(),
            sync_id: "sync-001".into(),
            kind,
        }
    }

    fn error() -> JournalError {
        (&ConnectorError::retryable("list users: 503")).into()
    }

    /// One of each kind.
    fn kinds() -> Vec<JournalKind> {
        let step_id = || "users".to_owned();
        vec![
            JournalKind::Started {
                connector_version: "1.2".to_owned(),
                steps: vec![StepOutline {
                    step_id: step_id(),
                    title: "Collect users".to_owned(),
                    depends_on: vec!["login".to_owned()],
                    selected: true,
                }],
            },
            JournalKind::StepStarted { step_id: step_id() },
            JournalKind::StepProgress {
                step_id: step_id(),
                entities: 3,
                relationships: 1,
            },
            JournalKind::StepRetrying {
                step_id: step_id(),
                attempt: 1,
                error: error(),
                pause_ms: 500,
            },
            JournalKind::StepRestarted {
                step_id: step_id(),
                attempt: 2,
            },
            JournalKind::StepStalled {
                step_id: step_id(),
                idle_ms: 60_000,
                blocking: false,
            },
            JournalKind::RecordsRejected {
                step_id: step_id(),
                rule: "empty_key".to_owned(),
                count: 2,
                samples: vec!["okta_user \"\": a key is empty".to_owned()],
            },
            JournalKind::StepCompleted {
                step_id: step_id(),
                status: "completed".to_owned(),
                reason: None,
                attempts: 2,
                entities: 10,
                relationships: 4,
                rejected: 2,
                duration_ms: 1_500,
                throttled_ms: 0,
            },
            JournalKind::StepFailed {
                step_id: step_id(),
                status: "failed".to_owned(),
                error: error(),
                attempts: 4,
                duration_ms: 9_000,
                throttled_ms: 250,
            },
            JournalKind::StepSkipped {
                step_id: step_id(),
                error: error(),
            },
            JournalKind::Completed {
                entities: 10,
                relationships: 4,
                duration_ms: 1_600,
            },
            JournalKind::Cancelled,
            JournalKind::Failed { error: error() },
            JournalKind::Committed {
                outcome: "committed".to_owned(),
                replayed: false,
                stats: SyncStats {
                    entities_created: 10,
                    ..SyncStats::default()
                },
            },
            JournalKind::DeletesHeld {
                changeset: 3,
                entities: 120,
                relationships: 0,
                reason: "120 of 200 records would go".to_owned(),
            },
            JournalKind::DeletesApproved {
                changeset: 3,
                entities: 120,
                relationships: 0,
            },
            JournalKind::DeletesRejected {
                changeset: 3,
                entities: 120,
                relationships: 0,
            },
            JournalKind::CommitFailed { error: error() },
        ]
    }

    #[test]
    fn lines_are_a_promise() {
        let names = r#""v":1,"seq":7,"at":"2025-11-24T16:00:00.123456Z","connector_id":"okta","account_id":"acme","sync_id":"sync-001","#;
        let lines: Vec<_> = kinds()
            .into_iter()
            .map(|kind| entry(kind).to_json().replace(names, "… "))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {… "kind":"started","connector_version":"1.2","steps":[{"step_id":"users","title":"Collect users","depends_on":["login"],"selected":true}]}
        {… "kind":"step_started","step_id":"users"}
        {… "kind":"step_progress","step_id":"users","entities":3,"relationships":1}
        {… "kind":"step_retrying","step_id":"users","attempt":1,"error":{"kind":"retryable","message":"list users: 503"},"pause_ms":500}
        {… "kind":"step_restarted","step_id":"users","attempt":2}
        {… "kind":"step_stalled","step_id":"users","idle_ms":60000,"blocking":false}
        {… "kind":"records_rejected","step_id":"users","rule":"empty_key","count":2,"samples":["okta_user \"\": a key is empty"]}
        {… "kind":"step_completed","step_id":"users","status":"completed","attempts":2,"entities":10,"relationships":4,"rejected":2,"duration_ms":1500}
        {… "kind":"step_failed","step_id":"users","status":"failed","error":{"kind":"retryable","message":"list users: 503"},"attempts":4,"duration_ms":9000,"throttled_ms":250}
        {… "kind":"step_skipped","step_id":"users","error":{"kind":"retryable","message":"list users: 503"}}
        {… "kind":"completed","entities":10,"relationships":4,"duration_ms":1600}
        {… "kind":"cancelled"}
        {… "kind":"failed","error":{"kind":"retryable","message":"list users: 503"}}
        {… "kind":"committed","outcome":"committed","replayed":false,"stats":{"entities_created":10,"entities_updated":0,"entities_unchanged":0,"entities_deleted":0,"entities_kept":0,"entities_held":0,"entities_rejected":0,"entities_duplicates":0,"relationships_created":0,"relationships_updated":0,"relationships_unchanged":0,"relationships_deleted":0,"relationships_kept":0,"relationships_held":0,"relationships_rejected":0,"relationships_duplicates":0}}
        {… "kind":"deletes_held","changeset":3,"entities":120,"relationships":0,"reason":"120 of 200 records would go"}
        {… "kind":"deletes_approved","changeset":3,"entities":120,"relationships":0}
        {… "kind":"deletes_rejected","changeset":3,"entities":120,"relationships":0}
        {… "kind":"commit_failed","error":{"kind":"retryable","message":"list users: 503"}}
        "#);
    }

    #[test]
    fn what_was_written_is_read() {
        for kind in kinds() {
            let entry = entry(kind);
            assert_eq!(JournalEntry::from_json(&entry.to_json()), Ok(entry));
        }
    }

    #[test]
    fn later_kinds_and_fields_are_passed_over() {
        let line = entry(JournalKind::Cancelled).to_json();
        let later = line.replace("cancelled\"", "suspended\",\"until\":5");
        let read = JournalEntry::from_json(&later).unwrap();
        assert_eq!(read, entry(JournalKind::Unknown));
        let more = line.replace("}", ",\"by\":\"ann\"}");
        assert_eq!(
            JournalEntry::from_json(&more),
            Ok(entry(JournalKind::Cancelled))
        );
        let version = line.replace("\"v\":1", "\"v\":2");
        let error = JournalEntry::from_json(&version).unwrap_err();
        assert!(error.to_string().contains("of version 2"), "{error}");
    }

    #[test]
    fn hostile_names_stay_in_their_line() {
        let mut hostile = entry(JournalKind::Failed {
            error: JournalError {
                kind: "graph".to_owned(),
                message: "a\nb\u{1b}[31m\u{9b}\u{202e}\u{7f}".to_owned(),
            },
        });
        hostile.sync_id = "s\u{2028}\u{feff}\"".into();
        let line = hostile.to_json();
        assert_eq!(line, crate::escape(&line));
        assert_eq!(JournalEntry::from_json(&line), Ok(hostile));
    }

    #[test]
    fn schema_is_published() {
        let schema = schemars::schema_for!(Line<JournalKind>);
        let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/src/journal.schema.json"
        );
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &schema).unwrap();
        }
        // Written anew by `UPDATE_SCHEMA=1 cargo test -p parallax-core schema`.
        assert_eq!(std::fs::read_to_string(path).unwrap(), schema);
    }
}

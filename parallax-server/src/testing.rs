//! What several tests share: syncs that came to something, and what is logged.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parallax_connect::{ConnectorError, StepReport, StepStatus, SyncReport};
use parallax_core::{Counts, RecordKind, SyncStats};
use parallax_store::{Action, Change, Outcome, PropertyChange, Store, TypeCounts};
use tracing_subscriber::fmt::MakeWriter;

use crate::conclusion::{Committed, Conclusion};
use crate::rows::rows;

/// Returns how the store would find what a statement asks for, line by line.
pub(crate) async fn plan(sql: &str) -> String {
    let store = Store::open("sqlite::memory:").await.unwrap();
    let sql = format!("EXPLAIN QUERY PLAN {sql}");
    let plan = store.query(&sql).await.unwrap();
    let lines: Vec<_> = rows(&plan).filter_map(|row| row.text("detail")).collect();
    lines.join("\n")
}

/// Returns a sync that committed these counts.
pub(crate) fn concluded(outcome: Outcome, types: &[(RecordKind, &str, Counts)]) -> Conclusion {
    let sum = |wanted: RecordKind| {
        let of_kind = types.iter().filter(|(kind, ..)| *kind == wanted);
        of_kind.fold(Counts::default(), |sum, (.., counts)| Counts {
            created: sum.created + counts.created,
            updated: sum.updated + counts.updated,
            unchanged: sum.unchanged + counts.unchanged,
            deleted: sum.deleted + counts.deleted,
            kept: sum.kept + counts.kept,
            held: sum.held + counts.held,
            ..Counts::default()
        })
    };
    let steps = vec![
        step("users", StepStatus::Completed),
        step("roles", StepStatus::Completed),
    ];
    Conclusion {
        connector_id: Some("team".to_owned()),
        account_id: Some("acme".to_owned()),
        sync_id: Some("s-1".to_owned()),
        report: Some(SyncReport::new(steps)),
        committed: Some(Committed {
            stats: SyncStats::new(sum(RecordKind::Entity), sum(RecordKind::Relationship)),
            outcome,
            replayed: false,
            held_changeset: None,
            held_because: None,
            types: types
                .iter()
                .map(|(kind, name, counts)| TypeCounts {
                    kind: *kind,
                    name: (*name).to_owned(),
                    counts: *counts,
                })
                .collect(),
            changes: Vec::new(),
        }),
        duration: Duration::from_millis(1_234),
        store: Some("sqlite:/srv/parallax.db".to_owned()),
        store_exists: true,
        ..Conclusion::default()
    }
}

/// Returns a first sync.
pub(crate) fn first() -> Conclusion {
    let created = |created| Counts {
        created,
        ..Counts::default()
    };
    concluded(
        Outcome::Committed,
        &[
            (RecordKind::Entity, "team_role", created(2)),
            (RecordKind::Entity, "team_user", created(1_200)),
            (RecordKind::Relationship, "HAS", created(1_201)),
        ],
    )
}

/// Returns a later sync, which changed a bit of everything.
pub(crate) fn later() -> Conclusion {
    let unchanged = |unchanged| Counts {
        unchanged,
        ..Counts::default()
    };
    let mut later = concluded(
        Outcome::Committed,
        &[
            (RecordKind::Entity, "team_badge", unchanged(7)),
            (RecordKind::Entity, "team_role", unchanged(2)),
            (
                RecordKind::Entity,
                "team_user",
                Counts {
                    created: 13,
                    updated: 1,
                    unchanged: 1_188,
                    deleted: 1,
                    ..Counts::default()
                },
            ),
            (RecordKind::Relationship, "HAS", unchanged(1_201)),
        ],
    );
    if let Some(committed) = &mut later.committed {
        let change = |action, name: &str| Change {
            action,
            kind: RecordKind::Entity,
            id: String::new(),
            name: "team_user".to_owned(),
            key: name.to_lowercase(),
            display_name: name.to_owned(),
            reason: None,
            properties: Vec::new(),
        };
        committed.changes = (1..=13)
            .map(|n| change(Action::Created, &format!("New {n}")))
            .collect();
        let mut ann = change(Action::Updated, "Ann\u{1b}[2J");
        let property = |name: &str, before: Option<&str>, after: Option<&str>| PropertyChange {
            name: name.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        ann.properties = vec![
            property("floor", Some("3"), Some("null")),
            property("share", None, Some("0.30000000000000004")),
            property("size", Some("18446744073709551615"), None),
        ];
        committed.changes.push(ann);
        committed.changes.push(change(Action::Deleted, "Bob"));
    }
    later
}

/// Returns a sync in which not every step saw everything.
pub(crate) fn partial() -> Conclusion {
    let counts = |unchanged, kept| Counts {
        unchanged,
        kept,
        ..Counts::default()
    };
    let mut partial = concluded(
        Outcome::Partial,
        &[
            (RecordKind::Entity, "team_role", counts(0, 2)),
            (RecordKind::Entity, "team_user", counts(1_198, 2)),
            (RecordKind::Relationship, "HAS", counts(0, 1_201)),
        ],
    );
    let mut users = step("users", StepStatus::Incomplete);
    users.incomplete = vec![
        "page 3 is missing".to_owned(),
        "page 4 is missing".to_owned(),
    ];
    let mut roles = step("roles", StepStatus::Failed);
    roles.error = Some(ConnectorError::retryable("list roles: connection reset"));
    let mut role_users = step("role_users", StepStatus::Skipped);
    role_users.error = Some(ConnectorError::DependencyFailed {
        step_id: "roles".to_owned(),
    });
    let badges = step("badges", StepStatus::Completed);
    partial.report = Some(SyncReport::new(vec![users, roles, role_users, badges]));
    partial
}

fn step(step_id: &str, status: StepStatus) -> StepReport {
    let mut step = StepReport::new(step_id, format!("Collect {step_id}"));
    step.status = status;
    step.entities = 2;
    step.throttled = Duration::from_millis(5);
    step.duration = Duration::from_millis(20);
    step
}

/// Returns what is logged on this thread meanwhile, from INFO on.
pub(crate) fn logged(what: impl FnOnce()) -> String {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .finish();
    tracing::subscriber::with_default(subscriber, what);
    let text = log.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

use parallax_connect::JournalError;
use parallax_core::{StepOutline, Timestamp};

use super::*;

fn error(message: &str) -> JournalError {
    JournalError {
        kind: "retryable".to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn each_entry_is_a_line() {
    let step_id = || "users".to_owned();
    let step = |step_id: &str, selected| StepOutline {
        step_id: step_id.to_owned(),
        title: String::new(),
        depends_on: Vec::new(),
        selected,
    };
    let stats = SyncStats::from_values(SyncStats::FIELDS.map(|field| match field {
        "entities_created" => 1_200,
        "entities_unchanged" => 40,
        "relationships_deleted" => 1,
        "relationships_duplicates" => 2,
        _ => 0,
    }));
    let committed = |outcome: &str, replayed, stats| JournalKind::Committed {
        outcome: outcome.to_owned(),
        replayed,
        stats,
    };
    let kinds = [
        JournalKind::Started {
            connector_version: String::new(),
            steps: vec![step("users", true), step("roles", false)],
        },
        JournalKind::StepStarted { step_id: step_id() },
        JournalKind::StepProgress {
            step_id: step_id(),
            entities: 1_000,
            relationships: 1,
        },
        JournalKind::StepRetrying {
            step_id: step_id(),
            attempt: 1,
            error: error("503"),
            pause_ms: 1_500,
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
        JournalKind::StepStalled {
            step_id: step_id(),
            idle_ms: 5_000,
            blocking: true,
        },
        JournalKind::RecordsRejected {
            step_id: step_id(),
            rule: "empty_key".to_owned(),
            count: 2,
            samples: vec!["user \"\": a key is empty".to_owned()],
        },
        JournalKind::StepCompleted {
            step_id: step_id(),
            status: "incomplete".to_owned(),
            reason: Some("page 2 timed out".to_owned()),
            attempts: 2,
            entities: 1_200,
            relationships: 0,
            rejected: 2,
            duration_ms: 1_234,
            throttled_ms: 600,
        },
        JournalKind::StepFailed {
            step_id: step_id(),
            status: "failed".to_owned(),
            error: error("503"),
            attempts: 4,
            duration_ms: 9_000,
            throttled_ms: 0,
        },
        JournalKind::StepSkipped {
            step_id: step_id(),
            error: error("step login did not complete"),
        },
        JournalKind::Completed {
            entities: 1_200,
            relationships: 0,
            duration_ms: 1_300,
        },
        JournalKind::Cancelled,
        JournalKind::Failed {
            error: error("steps depend on each other"),
        },
        committed("partial", false, stats),
        committed("committed", true, SyncStats::default()),
        JournalKind::DeletesHeld {
            changeset: 3,
            entities: 120,
            relationships: 0,
            reason: "120 of 200 entities would go".to_owned(),
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
        JournalKind::CommitFailed {
            error: error("no space left"),
        },
        JournalKind::Unknown,
    ];
    let lines = (1..).zip(kinds).map(|(seq, kind)| {
        as_text(&JournalEntry {
            seq,
            at: Timestamp::from_micros(1_764_000_000_120_000).unwrap(),
            connector_id: "okta".into(),
            account_id: "acme".into(),
            sync_id: "sync-1".into(),
            kind,
        })
    });
    let text: String = lines.collect();
    insta::assert_snapshot!(anstream::adapter::strip_str(&text), @r#"
     1  2025-11-24 16:00:00.120  sync started: 1 of 2 steps
     2  2025-11-24 16:00:00.120  users: started
     3  2025-11-24 16:00:00.120  users: 1,000 entities, 1 relationship so far
     4  2025-11-24 16:00:00.120  users: attempt 1 failed, the next after 1.50 s: 503
     5  2025-11-24 16:00:00.120  users: attempt 2 started
     6  2025-11-24 16:00:00.120  users: has emitted nothing for 1 min 0 s
     7  2025-11-24 16:00:00.120  users: blocks its thread, for 5.00 s so far
     8  2025-11-24 16:00:00.120  users: 2 rejected by empty_key: user "": a key is empty
     9  2025-11-24 16:00:00.120  users: incomplete in 2 attempts, 1,200 entities, 1.23 s (600 ms of it throttled): page 2 timed out
    10  2025-11-24 16:00:00.120  users: failed in 4 attempts, 9.00 s: 503
    11  2025-11-24 16:00:00.120  users: skipped: step login did not complete
    12  2025-11-24 16:00:00.120  run completed: 1,200 entities, 1.30 s
    13  2025-11-24 16:00:00.120  cancelled: nothing is committed
    14  2025-11-24 16:00:00.120  could not start: steps depend on each other
    15  2025-11-24 16:00:00.120  partial: 1,200 entities created, 1 relationship deleted, 2 relationships emitted twice
    16  2025-11-24 16:00:00.120  committed, as before: nothing changed
    17  2025-11-24 16:00:00.120  deletes held: 120 entities, as changeset 3: 120 of 200 entities would go
    18  2025-11-24 16:00:00.120  deletes approved: 120 entities of changeset 3 gone
    19  2025-11-24 16:00:00.120  deletes rejected: 120 entities of changeset 3 kept
    20  2025-11-24 16:00:00.120  not committed: no space left
    21  2025-11-24 16:00:00.120  something that this version does not know
    "#);
}

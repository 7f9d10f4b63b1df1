use parallax_core::{JournalError, StepOutline, SyncStats};

use super::*;
use crate::parallax_metrics::tests::changed;

/// Tells entries of one source, each with its second, and returns what they changed.
fn told(entries: Vec<(i64, JournalKind)>) -> String {
    changed(|metrics| {
        let journal = JournalMetrics::new(metrics.clone());
        for (seq, (second, kind)) in (1..).zip(entries) {
            journal.append(&JournalEntry {
                seq,
                at: Timestamp::from_micros(second * 1_000_000).unwrap(),
                connector_id: "aws".into(),
                account_id: "acme".into(),
                sync_id: "sync".into(),
                kind,
            });
        }
    })
}

fn started() -> JournalKind {
    let step = |(step_id, selected): (&str, bool)| StepOutline {
        step_id: step_id.to_owned(),
        title: String::new(),
        depends_on: Vec::new(),
        selected,
    };
    JournalKind::Started {
        connector_version: String::new(),
        steps: [("users", true), ("roles", true), ("logs", false)]
            .map(step)
            .to_vec(),
    }
}

fn error(kind: &str) -> JournalError {
    JournalError {
        kind: kind.to_owned(),
        message: String::new(),
    }
}

fn retrying(kind: &str) -> JournalKind {
    JournalKind::StepRetrying {
        step_id: "users".to_owned(),
        attempt: 1,
        error: error(kind),
        pause_ms: 1_500,
    }
}

fn users_completed() -> JournalKind {
    JournalKind::StepCompleted {
        step_id: "users".to_owned(),
        status: "incomplete".to_owned(),
        reason: None,
        attempts: 4,
        entities: 3,
        relationships: 0,
        rejected: 0,
        duration_ms: 2_500,
        throttled_ms: 7_000,
    }
}

fn completed() -> JournalKind {
    JournalKind::Completed {
        entities: 3,
        relationships: 0,
        duration_ms: 0,
    }
}

fn committed(outcome: &str, replayed: bool) -> JournalKind {
    let mut stats = SyncStats::default();
    stats.entities_created = 3;
    stats.entities_held = 2;
    JournalKind::Committed {
        outcome: outcome.to_owned(),
        replayed,
        stats,
    }
}

fn held() -> JournalKind {
    JournalKind::DeletesHeld {
        changeset: 1,
        entities: 2,
        relationships: 0,
        reason: String::new(),
    }
}

#[test]
fn a_sync_is_counted_from_its_steps_to_what_becomes_of_its_deletes() {
    let lines = told(vec![
        (10, started()),
        (11, retrying("timed_out")),
        (12, retrying("rate_limited")),
        (12, retrying("rate_limited")),
        (13, retrying("of_later_versions")),
        (20, users_completed()),
        (
            20,
            JournalKind::StepSkipped {
                step_id: "roles".to_owned(),
                error: error("dependency_failed"),
            },
        ),
        (21, completed()),
        (24, committed("partial", false)),
        (24, held()),
        (
            30,
            JournalKind::DeletesApproved {
                changeset: 1,
                entities: 2,
                relationships: 1,
            },
        ),
        (
            31,
            JournalKind::DeletesRejected {
                changeset: 2,
                entities: 2,
                relationships: 1,
            },
        ),
    ]);
    insta::assert_snapshot!(lines, @"
    changesets_total{aws,approved} 1
    changesets_total{aws,held} 1
    changesets_total{aws,rejected} 1
    commit_duration_seconds{aws} [3.0]
    entities_created_total{aws} 3
    entities_deleted_total{aws} 2
    entities_held{aws} 2
    relationships_deleted_total{aws} 1
    step_duration_seconds{aws,users} [2.5]
    step_retries_total{aws,users,other} 1
    step_retries_total{aws,users,rate_limited} 2
    step_retries_total{aws,users,timed_out} 1
    step_waited_seconds_total{aws,users,other} 1
    step_waited_seconds_total{aws,users,rate_limited} 3
    step_waited_seconds_total{aws,users,throttled} 7
    step_waited_seconds_total{aws,users,timed_out} 1
    steps_total{aws,roles,skipped} 1
    steps_total{aws,users,incomplete} 1
    sync_duration_seconds{aws} [14.0]
    sync_last_success_timestamp_seconds{aws} 24
    syncs_total{aws,partial} 1
    ");
}

#[test]
fn every_end_is_counted_once() {
    let failed = JournalKind::StepFailed {
        step_id: "users".to_owned(),
        status: "failed".to_owned(),
        error: error("fatal"),
        attempts: 1,
        duration_ms: 1_000,
        throttled_ms: 0,
    };
    let commit_failed = |kind| JournalKind::CommitFailed { error: error(kind) };
    let could_not_start = JournalKind::Failed {
        error: error("cycle"),
    };
    let lines = told(vec![
        (1, could_not_start),
        (2, started()),
        (4, JournalKind::Cancelled),
        (5, started()),
        (6, failed),
        (7, completed()),
        (7, committed("failed", false)),
        (8, started()),
        (9, completed()),
        (9, commit_failed("imbalance")),
        (10, started()),
        (11, completed()),
        (11, commit_failed("locked")),
    ]);
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [0.0]
    entities_created_total{aws} 3
    reconciliation_mismatches_total{aws} 1
    step_duration_seconds{aws,users} [1.0]
    steps_total{aws,users,failed} 1
    sync_duration_seconds{aws} [0.0, 2.0, 2.0, 1.0, 1.0]
    syncs_total{aws,cancelled} 1
    syncs_total{aws,error} 3
    syncs_total{aws,failed} 1
    ");
}

#[test]
fn what_was_committed_before_is_not_counted_again() {
    let lines = told(vec![
        (1, started()),
        (2, completed()),
        (2, committed("committed", true)),
        (2, held()),
        // One that is new.
        (3, started()),
        (4, completed()),
        (4, committed("committed", false)),
        (4, held()),
    ]);
    insta::assert_snapshot!(lines, @"
    changesets_total{aws,held} 1
    commit_duration_seconds{aws} [0.0]
    entities_created_total{aws} 3
    entities_held{aws} 2
    sync_duration_seconds{aws} [1.0, 1.0]
    sync_last_complete_timestamp_seconds{aws} 4
    sync_last_success_timestamp_seconds{aws} 4
    syncs_total{aws,committed} 2
    ");
}

#[test]
fn run_that_nobody_commits_ends_when_the_next_one_begins() {
    let lines = told(vec![
        (1, started()),
        (2, completed()),
        (5, started()),
        // The clock was set back.
        (3, completed()),
        (3, committed("committed", false)),
        (6, started()),
    ]);
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [0.0]
    entities_created_total{aws} 3
    entities_held{aws} 2
    sync_duration_seconds{aws} [4.0, 0.0]
    sync_last_complete_timestamp_seconds{aws} 3
    sync_last_success_timestamp_seconds{aws} 3
    syncs_in_progress{aws} 1
    syncs_total{aws,committed} 1
    syncs_total{aws,error} 1
    ");
}

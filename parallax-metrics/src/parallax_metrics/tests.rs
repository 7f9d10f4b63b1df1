use std::fmt::Write as _;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use parallax_core::{ErrorKind, StepReport, StepRetries, StepStatus};
use proptest::prelude::*;

use super::*;

/// What the recorder got to know, one series a line.
fn recorded(act: impl FnOnce()) -> Vec<String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, act);
    let mut lines = Vec::new();
    for (key, unit, help, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let name = key.name().trim_start_matches("parallax_");
        assert!(unit.is_some() && help.is_some(), "{name} is not described");
        let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
        let mut line = format!("{name}{{{}}}", labels.join(","));
        let _ = match value {
            DebugValue::Counter(value) => write!(line, " {value}"),
            DebugValue::Gauge(value) => write!(line, " {value}"),
            DebugValue::Histogram(values) => write!(line, " {values:?}"),
        };
        lines.push(line);
    }
    lines.sort_unstable();
    lines
}

/// The series that are not at 0, but for the build's.
pub(crate) fn changed(act: impl FnOnce(&ParallaxMetrics)) -> String {
    let mut lines = recorded(|| act(&ParallaxMetrics::new()));
    lines.retain(|line| {
        !line.ends_with(" 0") && !line.ends_with(" []") && !line.starts_with("build_info")
    });
    lines.join("\n")
}

/// The sum of a counter over all of its series.
fn total(lines: &[String], name: &str) -> u64 {
    lines
        .iter()
        .filter(|line| line.split('{').next() == Some(name))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Every count of it is another number, the first one `first`.
fn stats(first: u64) -> SyncStats {
    SyncStats::from_values(std::array::from_fn(|place| first + place as u64))
}

fn report(steps: &[(&str, StepStatus, u64)]) -> SyncReport {
    let steps = steps.iter().map(|&(step_id, status, duration)| {
        let mut step = StepReport::new(step_id, "");
        step.status = status;
        step.duration = seconds(duration);
        step
    });
    SyncReport::new(steps.collect())
}

#[test]
fn registered_connector_has_every_series_at_0() {
    let lines = recorded(|| {
        let metrics = ParallaxMetrics::new();
        metrics.register("aws", &["users"]);
        metrics.register("aws", &["users"]);
    });
    for metric in names::all() {
        let name = metric.name.trim_start_matches("parallax_");
        let labels = metric.labels.join(",");
        let of_the_metric = lines
            .iter()
            .filter(|line| line.split('{').next() == Some(name));
        let expected = match labels.as_str() {
            "connector_id,outcome" if metric.name == names::CHANGESETS.name => 3,
            "connector_id,outcome" | "connector_id,step_id,outcome" => 5,
            "connector_id,step_id,kind" if metric.name == names::STEP_RETRIES.name => 3,
            "connector_id,step_id,kind" => 4,
            _ => 1,
        };
        assert_eq!(of_the_metric.count(), expected, "{name}");
    }
    let not_at_0 = |line: &&String| !line.ends_with(" 0") && !line.ends_with(" []");
    let rest: Vec<_> = lines.iter().filter(not_at_0).collect();
    assert_eq!(
        rest,
        [&format!("build_info{{{}}} 1", env!("CARGO_PKG_VERSION"))]
    );
}

#[test]
fn commit_adds_to_counters_and_sets_gauges() {
    let lines = changed(|metrics| {
        metrics.committed(
            "aws",
            "acme",
            SyncOutcome::Partial,
            &stats(1),
            Duration::from_millis(20),
            at(7),
        );
        metrics.committed(
            "aws",
            "acme",
            SyncOutcome::Partial,
            &stats(101),
            Duration::from_millis(30),
            at(8),
        );
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [0.02, 0.03]
    entities_created_total{aws} 102
    entities_deleted_total{aws} 108
    entities_duplicates_total{aws} 116
    entities_held{aws} 106
    entities_kept{aws} 105
    entities_rejected_total{aws} 114
    entities_unchanged_total{aws} 106
    entities_updated_total{aws} 104
    kept_since_timestamp_seconds{aws} 7
    relationships_created_total{aws} 118
    relationships_deleted_total{aws} 124
    relationships_duplicates_total{aws} 132
    relationships_held{aws} 114
    relationships_kept{aws} 113
    relationships_rejected_total{aws} 130
    relationships_unchanged_total{aws} 122
    relationships_updated_total{aws} 120
    ");
}

#[test]
fn gauge_is_the_sum_over_the_accounts() {
    let live = |entities, relationships, waiting| Live {
        entities,
        relationships,
        waiting,
    };
    let lines = changed(|metrics| {
        metrics.live("aws", "acme", live(100, 10, 1));
        metrics.live("aws", "umbrella", live(200, 20, 2));
        metrics.live("gcp", "acme", live(7, 7, 7));
        metrics.live("aws", "acme", live(50, 5, 0));
        let mut held = SyncStats::default();
        held.entities_held = 3;
        metrics.committed(
            "aws",
            "acme",
            SyncOutcome::Partial,
            &held,
            seconds(1),
            at(7),
        );
        metrics.committed(
            "aws",
            "umbrella",
            SyncOutcome::Partial,
            &held,
            seconds(2),
            at(7),
        );
        // Clones share what they remember.
        metrics.clone().forget("gcp", "acme", at(100));
        metrics.forget("gcp", "nobody", at(100));
        metrics.forget("nobody", "acme", at(100));
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [1.0, 2.0]
    entities_held{aws} 6
    entities{aws} 250
    relationships_waiting{aws} 2
    relationships{aws} 25
    ");
}

#[test]
fn approved_deletes_are_counted_as_deletes_and_rejected_ones_are_not() {
    let lines = changed(|metrics| {
        metrics.changeset_held("aws");
        metrics.changeset_held("aws");
        metrics.changeset_approved("aws", 12, 7);
        metrics.changeset_rejected("aws");
    });
    insta::assert_snapshot!(lines, @"
    changesets_total{aws,approved} 1
    changesets_total{aws,held} 2
    changesets_total{aws,rejected} 1
    entities_deleted_total{aws} 12
    relationships_deleted_total{aws} 7
    ");
}

#[test]
fn what_is_held_is_what_was_told_last() {
    let lines = changed(|metrics| {
        metrics.held("aws", "acme", 3, 4);
        metrics.held("aws", "umbrella", 10, 20);
        let mut stats = SyncStats::default();
        stats.entities_held = 5;
        stats.relationships_kept = 7;
        metrics.committed(
            "aws",
            "acme",
            SyncOutcome::Partial,
            &stats,
            seconds(1),
            at(7),
        );
        metrics.changeset_held("aws");
        metrics.held("aws", "umbrella", 0, 1);
    });
    insta::assert_snapshot!(lines, @"
    changesets_total{aws,held} 1
    commit_duration_seconds{aws} [1.0]
    entities_held{aws} 5
    kept_since_timestamp_seconds{aws} 7
    relationships_held{aws} 1
    relationships_kept{aws} 7
    ");
}

#[test]
fn sums_hold_whatever_is_told() {
    let most = || Live {
        entities: u64::MAX,
        ..Live::default()
    };
    let lines = changed(|metrics| {
        metrics.live("aws", "acme", most());
        metrics.live("aws", "umbrella", most());
        metrics.live("aws", "acme", Live::default());
        metrics.forget("aws", "umbrella", at(100));
        metrics.forget("aws", "umbrella", at(100));
        metrics.live(
            "aws",
            "initech",
            Live {
                entities: 1,
                ..Live::default()
            },
        );
    });
    assert_eq!(lines, "entities{aws} 1");
}

#[test]
fn sync_is_in_progress_until_it_ends() {
    let lines = changed(|metrics| {
        for connector_id in ["aws", "aws", "gcp"] {
            metrics.sync_started(connector_id);
        }
        metrics.sync_ended("aws", "acme", SyncOutcome::Failed, seconds(3), at(9));
        // Nobody started these.
        metrics.sync_ended("k8s", "acme", SyncOutcome::Cancelled, seconds(1), at(9));
        metrics.sync_ended("k8s", "acme", SyncOutcome::Error, seconds(1), at(9));
        metrics.sync_started("k8s");
    });
    insta::assert_snapshot!(lines, @"
    sync_duration_seconds{aws} [3.0]
    sync_duration_seconds{k8s} [1.0, 1.0]
    syncs_in_progress{aws} 1
    syncs_in_progress{gcp} 1
    syncs_in_progress{k8s} 1
    syncs_total{aws,failed} 1
    syncs_total{k8s,cancelled} 1
    syncs_total{k8s,error} 1
    ");
}

#[test]
fn timestamps_are_of_the_source_that_waits_the_longest() {
    let ended = |metrics: &ParallaxMetrics, account_id, outcome, second| {
        metrics.sync_ended("aws", account_id, outcome, seconds(1), at(second));
    };
    use SyncOutcome::{Cancelled, Committed, Error, Failed, Partial};
    let stamps = |act: &dyn Fn(&ParallaxMetrics)| -> String {
        let lines = recorded(|| act(&ParallaxMetrics::new()));
        let stamps = lines.iter().filter(|line| line.starts_with("sync_last"));
        let stamps: Vec<_> = stamps
            .map(|line| line.rsplit(' ').next().unwrap())
            .collect();
        // In the order of their names: complete, success.
        stamps.join(" ")
    };
    assert_eq!(stamps(&|m| m.register("aws", &[])), "0 0");
    assert_eq!(stamps(&|m| ended(m, "acme", Committed, 7)), "7 7");
    assert_eq!(stamps(&|m| ended(m, "acme", Partial, 7)), "0 7");
    for outcome in [Failed, Error, Cancelled] {
        assert_eq!(stamps(&|m| ended(m, "acme", outcome, 7)), "0 0");
    }
    let two = |m: &ParallaxMetrics| {
        ended(m, "acme", Committed, 7);
        ended(m, "umbrella", Committed, 8);
        ended(m, "initech", Failed, 1);
        ended(m, "acme", Partial, 9);
    };
    assert_eq!(stamps(&two), "7 8");
    let without_acme = |m: &ParallaxMetrics| {
        two(m);
        m.forget("aws", "acme", at(100));
    };
    assert_eq!(stamps(&without_acme), "8 8");
    let without_both = |m: &ParallaxMetrics| {
        without_acme(m);
        m.forget("aws", "umbrella", at(100));
    };
    assert_eq!(stamps(&without_both), "0 0");
}

#[test]
fn what_is_known_of_the_past_gives_way_to_what_comes() {
    let past = Past {
        last_success: Some(at(50)),
        last_complete: Some(at(40)),
        kept_since: Some(at(45)),
        entities_kept: 3,
        relationships_kept: 4,
    };
    let lines = changed(|metrics| {
        metrics.restore("aws", "acme", &past);
        metrics.restore("aws", "never", &Past::default());
        metrics.restore("gcp", "acme", &past);
        metrics.committed(
            "gcp",
            "acme",
            SyncOutcome::Partial,
            &SyncStats::default(),
            seconds(1),
            at(60),
        );
        metrics.sync_ended("gcp", "acme", SyncOutcome::Partial, seconds(1), at(60));
        metrics.restore("gcp", "acme", &past);
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{gcp} [1.0]
    entities_kept{aws} 3
    kept_since_timestamp_seconds{aws} 45
    relationships_kept{aws} 4
    sync_duration_seconds{gcp} [1.0]
    sync_last_complete_timestamp_seconds{aws} 40
    sync_last_complete_timestamp_seconds{gcp} 40
    sync_last_success_timestamp_seconds{aws} 50
    sync_last_success_timestamp_seconds{gcp} 60
    syncs_total{gcp,partial} 1
    ");
}

#[test]
fn kept_since_is_of_the_first_commit_of_those_that_keep() {
    let keeps = |entities, relationships| {
        let mut stats = SyncStats::default();
        stats.entities_kept = entities;
        stats.relationships_kept = relationships;
        stats
    };
    let since = |commits: &[(&str, SyncStats, u64)]| {
        let lines = recorded(|| {
            let metrics = ParallaxMetrics::new();
            metrics.register("aws", &[]);
            for (account_id, stats, second) in commits {
                metrics.committed(
                    "aws",
                    account_id,
                    SyncOutcome::Partial,
                    stats,
                    seconds(1),
                    at(*second),
                );
            }
        });
        let line = lines
            .into_iter()
            .find(|line| line.starts_with("kept_since"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let mut commits = vec![("acme", keeps(0, 0), 1)];
    assert_eq!(since(&commits), "0");
    commits.push(("acme", keeps(2, 0), 2));
    commits.push(("acme", keeps(0, 1), 3));
    assert_eq!(since(&commits), "2");
    // Another account keeps for longer, until it finds all again.
    commits.insert(0, ("umbrella", keeps(1, 0), 1));
    assert_eq!(since(&commits), "1");
    commits.push(("umbrella", keeps(0, 0), 4));
    assert_eq!(since(&commits), "2");
    commits.push(("acme", keeps(0, 0), 5));
    assert_eq!(since(&commits), "0");
    commits.push(("acme", keeps(7, 7), 6));
    assert_eq!(since(&commits), "6");
}

#[test]
fn what_is_kept_by_a_complete_sync_is_no_alarm_and_a_failed_one_changes_nothing() {
    let mut kept = SyncStats::default();
    kept.entities_kept = 2;
    let nothing = SyncStats::default();
    let mut all = SyncStats::default();
    all.entities_kept = 9;
    all.entities_rejected = 1;
    let commit = |metrics: &ParallaxMetrics, outcome, stats, second| {
        metrics.committed("aws", "acme", outcome, stats, seconds(1), at(second));
    };
    let lines = changed(|metrics| {
        // Somebody has said that they stay.
        commit(metrics, SyncOutcome::Committed, &kept, 1);
        commit(metrics, SyncOutcome::Failed, &all, 2);
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [1.0, 1.0]
    entities_kept{aws} 2
    entities_rejected_total{aws} 1
    ");
    let lines = changed(|metrics| {
        commit(metrics, SyncOutcome::Partial, &kept, 1);
        commit(metrics, SyncOutcome::Failed, &all, 2);
        commit(metrics, SyncOutcome::Failed, &nothing, 3);
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [1.0, 1.0, 1.0]
    entities_kept{aws} 2
    entities_rejected_total{aws} 1
    kept_since_timestamp_seconds{aws} 1
    ");
}

#[test]
fn what_is_kept_for_a_rejected_record_is_an_alarm() {
    let mut kept = SyncStats::default();
    kept.entities_kept = 2;
    kept.relationships_rejected = 1;
    let lines = changed(|metrics| {
        let outcome = SyncOutcome::Committed;
        metrics.committed("aws", "acme", outcome, &kept, seconds(1), at(1));
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [1.0]
    entities_kept{aws} 2
    kept_since_timestamp_seconds{aws} 1
    relationships_rejected_total{aws} 1
    ");
}

#[test]
fn interval_is_the_longest_of_the_sources() {
    let lines = changed(|metrics| {
        metrics.scheduled("aws", "acme", seconds(900), at(0));
        metrics.scheduled("aws", "umbrella", Duration::from_millis(3_600_500), at(0));
        metrics.scheduled("gcp", "acme", seconds(60), at(0));
        metrics.scheduled("gcp", "acme", seconds(30), at(0));
        metrics.scheduled("k8s", "acme", seconds(60), at(0));
        metrics.unscheduled("k8s", "acme");
        metrics.unscheduled("k8s", "nobody");
        metrics.unscheduled("nobody", "acme");
    });
    insta::assert_snapshot!(lines, @"
    sync_interval_seconds{aws} 3600.5
    sync_interval_seconds{gcp} 30
    sync_overdue_timestamp_seconds{aws} 2700
    sync_overdue_timestamp_seconds{gcp} 90
    ");
}

#[test]
fn source_is_overdue_three_intervals_after_its_last_success() {
    use SyncOutcome::{Committed, Error, Failed, Partial};
    let metrics = |acts: &[&dyn Fn(&ParallaxMetrics)]| {
        let lines = recorded(|| {
            let metrics = ParallaxMetrics::new();
            metrics.register("aws", &[]);
            acts.iter().for_each(|act| act(&metrics));
        });
        let line = lines
            .into_iter()
            .find(|line| line.starts_with("sync_overdue"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let ended = |account_id: &'static str, outcome, second| {
        move |m: &ParallaxMetrics| m.sync_ended("aws", account_id, outcome, seconds(1), at(second))
    };
    let acme = |m: &ParallaxMetrics| m.scheduled("aws", "acme", seconds(10), at(1_000));
    let umbrella = |m: &ParallaxMetrics| m.scheduled("aws", "umbrella", seconds(500), at(1_000));
    let forgotten = |m: &ParallaxMetrics| m.forget("aws", "acme", at(1_300));
    let restored = |m: &ParallaxMetrics| {
        let past = Past {
            last_success: Some(at(900)),
            ..Past::default()
        };
        m.restore("aws", "acme", &past);
    };

    assert_eq!(metrics(&[]), "0");
    // Nobody expects anything of it.
    assert_eq!(metrics(&[&ended("acme", Committed, 1_100)]), "0");
    // One that never succeeds is seen beside one that does.
    assert_eq!(metrics(&[&acme]), "1030");
    let failures = [ended("acme", Failed, 1_100), ended("acme", Error, 1_200)];
    assert_eq!(metrics(&[&acme, &failures[0], &failures[1]]), "1030");
    assert_eq!(metrics(&[&umbrella, &acme]), "1030");
    assert_eq!(metrics(&[&acme, &ended("acme", Partial, 1_100)]), "1130");
    assert_eq!(metrics(&[&ended("acme", Committed, 1_100), &acme]), "1130");
    assert_eq!(metrics(&[&acme, &restored]), "930");
    // Each by its own interval.
    let both: [&dyn Fn(&ParallaxMetrics); 4] = [
        &acme,
        &umbrella,
        &ended("acme", Committed, 2_000),
        &ended("umbrella", Committed, 1_200),
    ];
    assert_eq!(metrics(&both), "2030");
    // Forgotten, it is still scheduled, and as good as new.
    assert_eq!(metrics(&[&acme, &restored, &forgotten]), "1330");
    let not_any_more = |m: &ParallaxMetrics| m.unscheduled("aws", "acme");
    assert_eq!(metrics(&[&acme, &restored, &not_any_more]), "0");
}

#[test]
fn forgotten_source_is_still_scheduled() {
    let lines = changed(|metrics| {
        metrics.scheduled("aws", "acme", seconds(60), at(0));
        metrics.live(
            "aws",
            "acme",
            Live {
                entities: 5,
                ..Live::default()
            },
        );
        metrics.forget("aws", "acme", at(100));
        // Nothing is left of the past.
        let past = Past {
            kept_since: Some(at(50)),
            entities_kept: 3,
            ..Past::default()
        };
        metrics.committed(
            "aws",
            "umbrella",
            SyncOutcome::Partial,
            &stats(1),
            seconds(1),
            at(7),
        );
        metrics.forget("aws", "umbrella", at(100));
        metrics.restore("aws", "umbrella", &past);
    });
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.retain(|line| !line.contains("_total") && !line.contains("duration"));
    insta::assert_snapshot!(lines.join("\n"), @"
    entities_kept{aws} 3
    kept_since_timestamp_seconds{aws} 50
    sync_interval_seconds{aws} 60
    sync_overdue_timestamp_seconds{aws} 280
    ");
}

#[test]
fn retries_are_counted_by_kind_and_pauses_add_up() {
    let tried = |step_id: &str, retries: &[(ErrorKind, u32, u64)]| {
        let mut step = StepReport::new(step_id, "");
        step.status = StepStatus::Completed;
        let retries = retries.iter().map(|&(kind, count, millis)| StepRetries {
            kind,
            count,
            waited: Duration::from_millis(millis),
        });
        step.retries = retries.collect();
        step.throttled = Duration::from_millis(600);
        SyncReport::new(vec![step])
    };
    use ErrorKind::{Fatal, RateLimited, Retryable, TimedOut};
    let mut lines = recorded(|| {
        let metrics = ParallaxMetrics::new();
        // Half seconds are not lost.
        let users = tried("users", &[(Retryable, 2, 1_500), (RateLimited, 1, 700)]);
        for _ in 0..3 {
            metrics.steps_ended("aws", &users);
        }
        let hosts = tried("hosts", &[(TimedOut, 1, 0), (Fatal, 4, 2_000)]);
        metrics.steps_ended("aws", &hosts);
        let most = tried("most", &[(Retryable, u32::MAX, u64::MAX)]);
        metrics.steps_ended("aws", &most);
    });
    lines.retain(|line| line.contains("retries") || line.contains("waited"));
    insta::assert_snapshot!(lines.join("\n"), @"
    step_retries_total{aws,hosts,other} 4
    step_retries_total{aws,hosts,rate_limited} 0
    step_retries_total{aws,hosts,retryable} 0
    step_retries_total{aws,hosts,timed_out} 1
    step_retries_total{aws,most,rate_limited} 0
    step_retries_total{aws,most,retryable} 4294967295
    step_retries_total{aws,most,timed_out} 0
    step_retries_total{aws,users,rate_limited} 3
    step_retries_total{aws,users,retryable} 6
    step_retries_total{aws,users,timed_out} 0
    step_waited_seconds_total{aws,hosts,other} 2
    step_waited_seconds_total{aws,hosts,rate_limited} 0
    step_waited_seconds_total{aws,hosts,retryable} 0
    step_waited_seconds_total{aws,hosts,throttled} 0
    step_waited_seconds_total{aws,hosts,timed_out} 0
    step_waited_seconds_total{aws,most,rate_limited} 0
    step_waited_seconds_total{aws,most,retryable} 18446744073709551
    step_waited_seconds_total{aws,most,throttled} 0
    step_waited_seconds_total{aws,most,timed_out} 0
    step_waited_seconds_total{aws,users,rate_limited} 2
    step_waited_seconds_total{aws,users,retryable} 4
    step_waited_seconds_total{aws,users,throttled} 1
    step_waited_seconds_total{aws,users,timed_out} 0
    ");
}

#[test]
fn renamed_connector_leaves_what_it_counted() {
    let lines = changed(|metrics| {
        let live = Live {
            entities: 5,
            ..Live::default()
        };
        let mut stats = SyncStats::default();
        stats.entities_created = 5;
        metrics.committed(
            "old",
            "acme",
            SyncOutcome::Partial,
            &stats,
            seconds(1),
            at(1),
        );
        metrics.live("old", "acme", live);
        metrics.scheduled("old", "acme", seconds(60), at(0));
        metrics.sync_ended("old", "acme", SyncOutcome::Committed, seconds(1), at(1));
        metrics.forget("old", "acme", at(100));
        metrics.unscheduled("old", "acme");
        metrics.committed(
            "new",
            "acme",
            SyncOutcome::Partial,
            &stats,
            seconds(1),
            at(2),
        );
        metrics.live("new", "acme", live);
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{new} [1.0]
    commit_duration_seconds{old} [1.0]
    entities_created_total{new} 5
    entities_created_total{old} 5
    entities{new} 5
    sync_duration_seconds{old} [1.0]
    syncs_total{old,committed} 1
    ");
}

#[test]
fn two_connectors_of_one_name_add_up() {
    let lines = changed(|metrics| {
        let mut stats = SyncStats::default();
        stats.entities_created = 5;
        stats.entities_held = 2;
        for steps in [["users"], ["hosts"]] {
            metrics.register("aws", &steps);
            metrics.steps_ended("aws", &report(&[(steps[0], StepStatus::Completed, 1)]));
        }
        metrics.committed(
            "aws",
            "acme",
            SyncOutcome::Partial,
            &stats,
            seconds(1),
            at(1),
        );
        metrics.committed(
            "aws",
            "umbrella",
            SyncOutcome::Partial,
            &stats,
            seconds(1),
            at(1),
        );
    });
    insta::assert_snapshot!(lines, @"
    commit_duration_seconds{aws} [1.0, 1.0]
    entities_created_total{aws} 10
    entities_held{aws} 4
    step_duration_seconds{aws,hosts} [1.0]
    step_duration_seconds{aws,users} [1.0]
    steps_total{aws,hosts,completed} 1
    steps_total{aws,users,completed} 1
    ");
}

#[test]
fn clock_may_jump() {
    let lines = changed(|metrics| {
        let ended = |second: SystemTime| {
            metrics.sync_ended(
                "aws",
                "acme",
                SyncOutcome::Committed,
                Duration::ZERO,
                second,
            );
        };
        // A clock that was years ahead must not hide that nothing has succeeded since.
        ended(at(4_000_000_000));
        ended(at(1_000));
        ended(UNIX_EPOCH - seconds(1));
        ended(at(2_000));
        let past = Past {
            last_success: Some(UNIX_EPOCH - seconds(1)),
            ..Past::default()
        };
        metrics.restore("gcp", "acme", &past);
        metrics.sync_ended(
            "k8s",
            "acme",
            SyncOutcome::Failed,
            Duration::MAX,
            UNIX_EPOCH,
        );
    });
    insta::assert_snapshot!(lines, @"
    sync_duration_seconds{aws} [0.0, 0.0, 0.0, 0.0]
    sync_duration_seconds{k8s} [1.8446744073709552e19]
    sync_last_complete_timestamp_seconds{aws} 2000
    sync_last_success_timestamp_seconds{aws} 2000
    syncs_total{aws,committed} 4
    syncs_total{k8s,failed} 1
    ");
}

#[test]
fn step_that_did_not_run_took_no_time() {
    use StepStatus::{Cancelled, Completed, Failed, Incomplete, NotSelected, Skipped};
    let lines = changed(|metrics| {
        metrics.steps_ended(
            "aws",
            &report(&[
                ("regions", Completed, 1),
                ("hosts", Incomplete, 2),
                ("users", Failed, 3),
                ("roles", Skipped, 0),
                ("disks", Cancelled, 4),
                ("tags", Cancelled, 0),
                ("logs", NotSelected, 0),
            ]),
        );
        metrics.steps_ended("aws", &report(&[("regions", Completed, 0)]));
    });
    insta::assert_snapshot!(lines, @"
    step_duration_seconds{aws,disks} [4.0]
    step_duration_seconds{aws,hosts} [2.0]
    step_duration_seconds{aws,regions} [1.0, 0.0]
    step_duration_seconds{aws,users} [3.0]
    steps_total{aws,disks,cancelled} 1
    steps_total{aws,hosts,incomplete} 1
    steps_total{aws,regions,completed} 2
    steps_total{aws,roles,skipped} 1
    steps_total{aws,tags,cancelled} 1
    steps_total{aws,users,failed} 1
    ");
}

#[test]
fn undelivered_events_add_up() {
    let lines = changed(|metrics| {
        metrics.events_undelivered("aws", 2);
        metrics.events_undelivered("aws", 3);
    });
    assert_eq!(lines, "events_undelivered_total{aws} 5");
}

#[test]
fn mismatches_add_up() {
    let lines = changed(|metrics| {
        metrics.reconciliation_mismatched("aws");
        metrics.reconciliation_mismatched("aws");
    });
    assert_eq!(lines, "reconciliation_mismatches_total{aws} 2");
}

#[test]
fn hostile_ids_share_a_series() {
    let lines = changed(|metrics| {
        for id in [
            "",
            "A",
            "a b",
            "a\n# HELP",
            "\"}",
            "__other__",
            &"a".repeat(1_000_000),
        ] {
            metrics.events_undelivered(id, 1);
            metrics.live(
                id,
                "acme",
                Live {
                    entities: 1,
                    ..Live::default()
                },
            );
            metrics.steps_ended(id, &report(&[(id, StepStatus::Failed, 0)]));
            metrics.steps_ended("aws", &report(&[(id, StepStatus::Failed, 0)]));
        }
        metrics.forget("a b", "acme", at(100));
        crate::record_commit("Aws", &SyncStats::from_values([1; _]));
    });
    insta::assert_snapshot!(lines, @"
    entities_created_total{__invalid__} 1
    entities_deleted_total{__invalid__} 1
    entities_duplicates_total{__invalid__} 1
    entities_held{__invalid__} 1
    entities_kept{__invalid__} 1
    entities_rejected_total{__invalid__} 1
    entities_unchanged_total{__invalid__} 1
    entities_updated_total{__invalid__} 1
    entities{__invalid__} 6
    events_undelivered_total{__invalid__} 7
    relationships_created_total{__invalid__} 1
    relationships_deleted_total{__invalid__} 1
    relationships_duplicates_total{__invalid__} 1
    relationships_held{__invalid__} 1
    relationships_kept{__invalid__} 1
    relationships_rejected_total{__invalid__} 1
    relationships_unchanged_total{__invalid__} 1
    relationships_updated_total{__invalid__} 1
    step_duration_seconds{__invalid__,__invalid__} [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    step_duration_seconds{aws,__invalid__} [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    steps_total{__invalid__,__invalid__,failed} 7
    steps_total{aws,__invalid__,failed} 7
    ");
}

#[test]
fn what_has_no_room_is_other_and_adds_up() {
    // Two connectors and three steps have series of their own.
    let lines = recorded(|| {
        let metrics = ParallaxMetrics::with_room_for(20, 4);
        metrics.register("c0", &["s0"]);
        for connector_id in ["c0", "c1", "c2", "c3"] {
            metrics.sync_started(connector_id);
            metrics.live(
                connector_id,
                "acme",
                Live {
                    entities: 1,
                    ..Live::default()
                },
            );
            let steps = [("s0", StepStatus::Failed, 1), ("s1", StepStatus::Failed, 1)];
            metrics.steps_ended(connector_id, &report(&steps));
            let outcome = SyncOutcome::Committed;
            metrics.sync_ended(connector_id, "acme", outcome, seconds(1), at(5));
        }
        metrics.events_undelivered("c0", 7);
        // There is no room for a fifth source, until another one leaves.
        metrics.live(
            "c0",
            "umbrella",
            Live {
                entities: 9,
                ..Live::default()
            },
        );
        metrics.forget("c3", "acme", at(100));
        metrics.live(
            "c1",
            "umbrella",
            Live {
                entities: 20,
                ..Live::default()
            },
        );
    });
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| {
            [
                "entities{",
                "events_",
                "series_",
                "steps_",
                "syncs_in_progress",
            ]
            .iter()
            .any(|name| line.starts_with(name))
                && !line.ends_with(" 0")
        })
        .map(String::as_str)
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    entities{__other__} 1
    entities{c0} 1
    entities{c1} 21
    events_undelivered_total{c0} 7
    series_overflow_total{} 12
    steps_total{__other__,__other__,failed} 5
    steps_total{c0,s0,failed} 1
    steps_total{c0,s1,failed} 1
    steps_total{c1,s0,failed} 1
    ");
}

#[test]
fn a_flood_of_ids_takes_bounded_memory_and_loses_no_count() {
    const IDS: u64 = 5_000;
    let mut metrics = None;
    let lines = recorded(|| {
        let metrics = metrics.insert(ParallaxMetrics::with_room_for(200, 1_000));
        for n in 0..IDS {
            let id = format!("id-{n}");
            metrics.register(&id, &[&id]);
            metrics.sync_started(&id);
            metrics.committed(&id, &id, SyncOutcome::Partial, &stats(1), seconds(1), at(n));
            metrics.live(
                "aws",
                &id,
                Live {
                    entities: 1,
                    ..Live::default()
                },
            );
            metrics.steps_ended(&id, &report(&[(&id, StepStatus::Completed, 1)]));
            metrics.steps_ended("aws", &report(&[(&id, StepStatus::Completed, 1)]));
            metrics.sync_ended(&id, &id, SyncOutcome::Partial, seconds(1), at(n));
            let past = Past {
                last_success: Some(at(n)),
                ..Past::default()
            };
            metrics.restore(&id, &id, &past);
        }
    });
    assert_eq!(total(&lines, "syncs_total"), IDS);
    assert_eq!(total(&lines, "steps_total"), 2 * IDS);
    assert_eq!(total(&lines, "entities_deleted_total"), 4 * IDS);
    assert!(total(&lines, "series_overflow_total") > 2 * IDS);
    for metric in names::all() {
        let name = metric.name.trim_start_matches("parallax_");
        let series = lines
            .iter()
            .filter(|line| line.split('{').next() == Some(name))
            .count();
        assert!((1..=200).contains(&series), "{series} series of {name}");
    }
    let remembered = format!("{:?}", metrics.unwrap());
    assert!(remembered.len() < 1_000_000, "{}", remembered.len());
}

/// A connector whose accounts are many pays for each sync with one of them, not with all.
#[test]
fn times_are_right_whatever_the_number_of_sources() {
    let lines = changed(|metrics| {
        for round in 1..4_u64 {
            for account in 0..5_000 {
                let (account_id, second) = (account.to_string(), at(round * 100_000 + account));
                let (outcome, took) = (SyncOutcome::Committed, Duration::ZERO);
                metrics.sync_ended("aws", &account_id, outcome, took, second);
                metrics.scheduled("aws", &account_id, seconds(account), at(0));
            }
        }
    });
    let times = lines
        .lines()
        .filter(|line| line.contains("_seconds{aws} ") && !line.ends_with(']'));
    let times: Vec<_> = times.collect();
    insta::assert_snapshot!(times.join("\n"), @"
    sync_interval_seconds{aws} 4999
    sync_last_complete_timestamp_seconds{aws} 300000
    sync_last_success_timestamp_seconds{aws} 300000
    sync_overdue_timestamp_seconds{aws} 300000
    ");
}

#[test]
fn nothing_breaks_without_a_recorder() {
    let metrics = ParallaxMetrics::new();
    metrics.register("aws", &["users"]);
    metrics.sync_started("aws");
    metrics.committed(
        "aws",
        "acme",
        SyncOutcome::Partial,
        &stats(1),
        seconds(1),
        at(1),
    );
    metrics.sync_ended("aws", "acme", SyncOutcome::Committed, seconds(1), at(1));
}

#[derive(Clone, Debug)]
enum Act {
    Live(u8, u64),
    Succeeded(u8, u64),
    Scheduled(u8, u64, u64),
    Unscheduled(u8),
    Forget(u8),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..4_u8, any::<u32>()).prop_map(|(source, n)| Act::Live(source, n.into())),
        (0..4_u8, 1..100_u64).prop_map(|(source, second)| Act::Succeeded(source, second)),
        (0..4_u8, 0..50_u64, 1..100_u64)
            .prop_map(|(source, interval, second)| { Act::Scheduled(source, interval, second) }),
        (0..4_u8).prop_map(Act::Unscheduled),
        (0..4_u8).prop_map(Act::Forget),
    ]
}

proptest! {
    #[test]
    fn gauges_follow_the_sources(acts in prop::collection::vec(any_act(), 0..20)) {
        let mut entities = [0; 4];
        let mut succeeded = [None; 4];
        let mut scheduled: [Option<(u64, u64)>; 4] = [None; 4];
        let lines = recorded(|| {
            let metrics = ParallaxMetrics::new();
            metrics.register("aws", &[]);
            for act in acts {
                match act {
                    Act::Live(source, n) => {
                        entities[usize::from(source)] = n;
                        let live = Live { entities: n, ..Live::default() };
                        metrics.live("aws", &source.to_string(), live);
                    }
                    Act::Succeeded(source, second) => {
                        succeeded[usize::from(source)] = Some(second);
                        let (outcome, account_id) = (SyncOutcome::Committed, source.to_string());
                        metrics.sync_ended("aws", &account_id, outcome, seconds(1), at(second));
                    }
                    Act::Scheduled(source, interval, second) => {
                        scheduled[usize::from(source)] = Some((interval, second));
                        let account_id = source.to_string();
                        metrics.scheduled("aws", &account_id, seconds(interval), at(second));
                    }
                    Act::Unscheduled(source) => {
                        scheduled[usize::from(source)] = None;
                        metrics.unscheduled("aws", &source.to_string());
                    }
                    Act::Forget(source) => {
                        entities[usize::from(source)] = 0;
                        succeeded[usize::from(source)] = None;
                        if let Some((_, since)) = &mut scheduled[usize::from(source)] {
                            *since = 100;
                        }
                        metrics.forget("aws", &source.to_string(), at(100));
                    }
                }
            }
        });
        let oldest = succeeded.into_iter().flatten().min().unwrap_or_default();
        let overdue = scheduled.iter().zip(succeeded).filter_map(|(scheduled, succeeded)| {
            let (interval, since) = (*scheduled)?;
            Some(succeeded.unwrap_or(since) + 3 * interval)
        });
        let overdue = overdue.min().unwrap_or_default();
        let interval = scheduled.iter().flatten().map(|(interval, _)| *interval).max();
        let interval = interval.unwrap_or_default();
        for expected in [
            format!("sync_interval_seconds{{aws}} {interval}"),
            format!("sync_overdue_timestamp_seconds{{aws}} {overdue}"),
            format!("entities{{aws}} {}", entities.iter().sum::<u64>()),
            format!("sync_last_complete_timestamp_seconds{{aws}} {oldest}"),
            format!("sync_last_success_timestamp_seconds{{aws}} {oldest}"),
        ] {
            prop_assert!(lines.contains(&expected), "{} is not in {:?}", expected, lines);
        }
    }
}

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use metrics_exporter_prometheus::PrometheusRecorder;
use parallax_core::{StepReport, StepStatus, SyncReport, SyncStats};

use super::*;
use crate::names::{self, Kind};
use crate::{Live, ParallaxMetrics, SyncOutcome};

fn recorder() -> PrometheusRecorder {
    builder().unwrap().build_recorder()
}

/// What a scrape finds after `act`.
fn rendered(act: impl FnOnce(&ParallaxMetrics)) -> String {
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || act(&ParallaxMetrics::new()));
    let handle = recorder.handle();
    Prometheus { handle }.render()
}

/// One sync of one account with one step.
fn one_sync(metrics: &ParallaxMetrics) {
    metrics.register("okta", &["users"]);
    metrics.sync_started("okta");
    let mut step = StepReport::new("users", "Collect users");
    step.status = StepStatus::Completed;
    step.duration = Duration::from_millis(1_500);
    metrics.steps_ended("okta", &SyncReport::new(vec![step]));
    let mut stats = SyncStats::default();
    stats.entities_created = 120;
    stats.relationships_created = 80;
    stats.entities_kept = 2;
    let at = UNIX_EPOCH + Duration::from_millis(1_790_000_000_500);
    metrics.committed(
        "okta",
        "acme",
        SyncOutcome::Partial,
        &stats,
        Duration::from_millis(20),
        at,
    );
    let live = Live {
        entities: 122,
        relationships: 80,
        waiting: 1,
    };
    metrics.live("okta", "acme", live);
    let duration = Duration::from_secs(2);
    metrics.sync_ended("okta", "acme", SyncOutcome::Partial, duration, at);
}

/// The exporter renders in the order of its hash maps: sorts families, and within them what is not
/// a histogram's.
fn sorted(rendering: &str) -> String {
    let mut families: Vec<String> = rendering
        .trim_end()
        .split("\n\n")
        .map(|family| {
            let mut lines: Vec<_> = family.lines().collect();
            if !family.contains(" histogram") {
                // HELP and TYPE begin with `#`, which sorts before letters.
                lines.sort_unstable();
            }
            lines.join("\n")
        })
        .collect();
    families.sort_unstable();
    families.join("\n\n")
}

#[test]
fn one_sync_is_rendered() {
    let rendering = sorted(&rendered(one_sync)).replace(env!("CARGO_PKG_VERSION"), "[version]");
    insta::assert_snapshot!(rendering, @r#"
    # HELP parallax_build_info Always 1; the version is its label.
    # TYPE parallax_build_info gauge
    parallax_build_info{version="[version]"} 1

    # HELP parallax_changesets_total Changesets, by what happened to them.
    # TYPE parallax_changesets_total counter
    parallax_changesets_total{connector_id="okta",outcome="approved"} 0
    parallax_changesets_total{connector_id="okta",outcome="held"} 0
    parallax_changesets_total{connector_id="okta",outcome="rejected"} 0

    # HELP parallax_commit_duration_seconds Time a commit took, from the diff to the end of the transaction.
    # TYPE parallax_commit_duration_seconds histogram
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.001"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.0025"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.005"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.01"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.025"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.05"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.1"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.25"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.5"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="1"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="2.5"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="5"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="10"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="30"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="60"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="120"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="300"} 1
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="+Inf"} 1
    parallax_commit_duration_seconds_sum{connector_id="okta"} 0.02
    parallax_commit_duration_seconds_count{connector_id="okta"} 1

    # HELP parallax_entities Entities that are live.
    # TYPE parallax_entities gauge
    parallax_entities{connector_id="okta"} 122

    # HELP parallax_entities_created_total Entities that were not live before.
    # TYPE parallax_entities_created_total counter
    parallax_entities_created_total{connector_id="okta"} 120

    # HELP parallax_entities_deleted_total Entities that were looked for and not found.
    # TYPE parallax_entities_deleted_total counter
    parallax_entities_deleted_total{connector_id="okta"} 0

    # HELP parallax_entities_duplicates_total Emissions of entities that repeated another.
    # TYPE parallax_entities_duplicates_total counter
    parallax_entities_duplicates_total{connector_id="okta"} 0

    # HELP parallax_entities_held Entities whose delete is held for approval.
    # TYPE parallax_entities_held gauge
    parallax_entities_held{connector_id="okta"} 0

    # HELP parallax_entities_kept Entities that the last committed sync kept: not looked for everywhere, or kept by somebody's word.
    # TYPE parallax_entities_kept gauge
    parallax_entities_kept{connector_id="okta"} 2

    # HELP parallax_entities_rejected_total Emissions of entities that were not accepted.
    # TYPE parallax_entities_rejected_total counter
    parallax_entities_rejected_total{connector_id="okta"} 0

    # HELP parallax_entities_unchanged_total Entities that were emitted as they were.
    # TYPE parallax_entities_unchanged_total counter
    parallax_entities_unchanged_total{connector_id="okta"} 0

    # HELP parallax_entities_updated_total Entities whose content changed.
    # TYPE parallax_entities_updated_total counter
    parallax_entities_updated_total{connector_id="okta"} 0

    # HELP parallax_events_undelivered_total Events that the watcher of a sync did not take in time.
    # TYPE parallax_events_undelivered_total counter
    parallax_events_undelivered_total{connector_id="okta"} 0

    # HELP parallax_kept_since_timestamp_seconds Since when the source that keeps records the longest does so because steps do not complete, or records are rejected; 0: none.
    # TYPE parallax_kept_since_timestamp_seconds gauge
    parallax_kept_since_timestamp_seconds{connector_id="okta"} 1790000000.5

    # HELP parallax_reconciliation_mismatches_total Commits that were undone because their books did not balance.
    # TYPE parallax_reconciliation_mismatches_total counter
    parallax_reconciliation_mismatches_total{connector_id="okta"} 0

    # HELP parallax_refused_tokens_total Requests to the daemon that were refused for their token.
    # TYPE parallax_refused_tokens_total counter
    parallax_refused_tokens_total 0

    # HELP parallax_relationships Relationships that are live.
    # TYPE parallax_relationships gauge
    parallax_relationships{connector_id="okta"} 80

    # HELP parallax_relationships_created_total Relationships that were not live before.
    # TYPE parallax_relationships_created_total counter
    parallax_relationships_created_total{connector_id="okta"} 80

    # HELP parallax_relationships_deleted_total Relationships that were looked for and not found.
    # TYPE parallax_relationships_deleted_total counter
    parallax_relationships_deleted_total{connector_id="okta"} 0

    # HELP parallax_relationships_duplicates_total Emissions of relationships that repeated another.
    # TYPE parallax_relationships_duplicates_total counter
    parallax_relationships_duplicates_total{connector_id="okta"} 0

    # HELP parallax_relationships_held Relationships whose delete is held for approval.
    # TYPE parallax_relationships_held gauge
    parallax_relationships_held{connector_id="okta"} 0

    # HELP parallax_relationships_kept Relationships that the last committed sync kept: not looked for everywhere, or kept by somebody's word.
    # TYPE parallax_relationships_kept gauge
    parallax_relationships_kept{connector_id="okta"} 0

    # HELP parallax_relationships_rejected_total Emissions of relationships that were not accepted.
    # TYPE parallax_relationships_rejected_total counter
    parallax_relationships_rejected_total{connector_id="okta"} 0

    # HELP parallax_relationships_unchanged_total Relationships that were emitted as they were.
    # TYPE parallax_relationships_unchanged_total counter
    parallax_relationships_unchanged_total{connector_id="okta"} 0

    # HELP parallax_relationships_updated_total Relationships whose content changed.
    # TYPE parallax_relationships_updated_total counter
    parallax_relationships_updated_total{connector_id="okta"} 0

    # HELP parallax_relationships_waiting Relationships that wait for an entity at one of their ends.
    # TYPE parallax_relationships_waiting gauge
    parallax_relationships_waiting{connector_id="okta"} 1

    # HELP parallax_series_overflow_total Recordings under __other__, or left out of a gauge, because a cap was reached.
    # TYPE parallax_series_overflow_total counter
    parallax_series_overflow_total 0

    # HELP parallax_sources_broken Sources of the daemon's configuration that cannot be synced.
    # TYPE parallax_sources_broken gauge
    parallax_sources_broken 0

    # HELP parallax_step_duration_seconds Time a step took, from its start to its end.
    # TYPE parallax_step_duration_seconds histogram
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.005"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.01"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.025"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.05"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.1"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.25"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="0.5"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="1"} 0
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="2.5"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="5"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="10"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="30"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="60"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="120"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="300"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="600"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="1800"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="3600"} 1
    parallax_step_duration_seconds_bucket{connector_id="okta",step_id="users",le="+Inf"} 1
    parallax_step_duration_seconds_sum{connector_id="okta",step_id="users"} 1.5
    parallax_step_duration_seconds_count{connector_id="okta",step_id="users"} 1

    # HELP parallax_step_retries_total Attempts after the first, by the kind of error before.
    # TYPE parallax_step_retries_total counter
    parallax_step_retries_total{connector_id="okta",step_id="users",kind="rate_limited"} 0
    parallax_step_retries_total{connector_id="okta",step_id="users",kind="retryable"} 0
    parallax_step_retries_total{connector_id="okta",step_id="users",kind="timed_out"} 0

    # HELP parallax_step_waited_seconds_total Whole seconds of pauses, by the kind of error before; throttled: for a rate limit.
    # TYPE parallax_step_waited_seconds_total counter
    parallax_step_waited_seconds_total{connector_id="okta",step_id="users",kind="rate_limited"} 0
    parallax_step_waited_seconds_total{connector_id="okta",step_id="users",kind="retryable"} 0
    parallax_step_waited_seconds_total{connector_id="okta",step_id="users",kind="throttled"} 0
    parallax_step_waited_seconds_total{connector_id="okta",step_id="users",kind="timed_out"} 0

    # HELP parallax_steps_total Steps that ended, by how.
    # TYPE parallax_steps_total counter
    parallax_steps_total{connector_id="okta",step_id="users",outcome="cancelled"} 0
    parallax_steps_total{connector_id="okta",step_id="users",outcome="completed"} 1
    parallax_steps_total{connector_id="okta",step_id="users",outcome="failed"} 0
    parallax_steps_total{connector_id="okta",step_id="users",outcome="incomplete"} 0
    parallax_steps_total{connector_id="okta",step_id="users",outcome="skipped"} 0

    # HELP parallax_sync_duration_seconds Time a sync took, its commit included.
    # TYPE parallax_sync_duration_seconds histogram
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.005"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.01"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.025"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.05"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.1"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.25"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="0.5"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="1"} 0
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="2.5"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="5"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="10"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="30"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="60"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="120"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="300"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="600"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="1800"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="3600"} 1
    parallax_sync_duration_seconds_bucket{connector_id="okta",le="+Inf"} 1
    parallax_sync_duration_seconds_sum{connector_id="okta"} 2
    parallax_sync_duration_seconds_count{connector_id="okta"} 1

    # HELP parallax_sync_interval_seconds The longest interval at which a source is synced; 0: none is scheduled.
    # TYPE parallax_sync_interval_seconds gauge
    parallax_sync_interval_seconds{connector_id="okta"} 0

    # HELP parallax_sync_last_complete_timestamp_seconds When the source longest without a complete sync had its last; 0: none had one.
    # TYPE parallax_sync_last_complete_timestamp_seconds gauge
    parallax_sync_last_complete_timestamp_seconds{connector_id="okta"} 0

    # HELP parallax_sync_last_success_timestamp_seconds When the source longest without a committed sync had its last; 0: none had one.
    # TYPE parallax_sync_last_success_timestamp_seconds gauge
    parallax_sync_last_success_timestamp_seconds{connector_id="okta"} 1790000000.5

    # HELP parallax_sync_overdue_timestamp_seconds When the first of the scheduled sources is overdue: three intervals after its last committed sync or, before the first one, after it was scheduled; 0: none is scheduled.
    # TYPE parallax_sync_overdue_timestamp_seconds gauge
    parallax_sync_overdue_timestamp_seconds{connector_id="okta"} 0

    # HELP parallax_syncs_in_progress Syncs that have not ended.
    # TYPE parallax_syncs_in_progress gauge
    parallax_syncs_in_progress{connector_id="okta"} 0

    # HELP parallax_syncs_total Syncs that ended, by how.
    # TYPE parallax_syncs_total counter
    parallax_syncs_total{connector_id="okta",outcome="cancelled"} 0
    parallax_syncs_total{connector_id="okta",outcome="committed"} 0
    parallax_syncs_total{connector_id="okta",outcome="error"} 0
    parallax_syncs_total{connector_id="okta",outcome="failed"} 0
    parallax_syncs_total{connector_id="okta",outcome="partial"} 1
    "#);
}

#[test]
fn openmetrics_says_the_same_in_its_own_way() {
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || {
        let metrics = ParallaxMetrics::new();
        metrics.register("okta", &[]);
        metrics.scheduled("okta", "acme", Duration::from_secs(60), UNIX_EPOCH);
        // A connector's own, of whatever kind.
        metrics::describe_counter!("own_requests", "Asked of the \"API\"\\.");
        metrics::counter!("own_requests", "path" => "a\"b\n\\le=\"1\"").increment(3);
        metrics::counter!("own_errors_total").increment(1);
        metrics::gauge!("own_ratio").set(0.5);
        metrics::histogram!("own_bytes", "le" => "7").record(8.0);
    });
    let handle = recorder.handle();
    let rendering = Prometheus { handle }.render_openmetrics();
    assert!(!rendering.contains("\n\n"));
    let families = rendering.strip_suffix("# EOF\n").unwrap();
    let mut families: Vec<String> = families
        .split("# TYPE ")
        .filter(|family| {
            [
                "own_",
                "parallax_sync_interval",
                "parallax_commit",
                "parallax_events",
            ]
            .iter()
            .any(|name| family.starts_with(name))
        })
        .map(|family| format!("# TYPE {family}"))
        .collect();
    families.sort_unstable();
    insta::assert_snapshot!(families.concat(), @r#"
    # TYPE own_bytes summary
    own_bytes{le="7",quantile="0.0"} 8
    own_bytes{le="7",quantile="0.5"} 8.000467695685316
    own_bytes{le="7",quantile="0.9"} 8.000467695685316
    own_bytes{le="7",quantile="0.95"} 8.000467695685316
    own_bytes{le="7",quantile="0.99"} 8.000467695685316
    own_bytes{le="7",quantile="0.999"} 8.000467695685316
    own_bytes{le="7",quantile="1.0"} 8
    own_bytes_sum{le="7"} 8
    own_bytes_count{le="7"} 1
    # TYPE own_errors counter
    own_errors_total 1
    # TYPE own_ratio gauge
    own_ratio 0.5
    # TYPE own_requests unknown
    # HELP own_requests Asked of the \"API\"\\.
    own_requests{path="a\"b\n\\le=\"1\""} 3
    # TYPE parallax_commit_duration_seconds histogram
    # UNIT parallax_commit_duration_seconds seconds
    # HELP parallax_commit_duration_seconds Time a commit took, from the diff to the end of the transaction.
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.001"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.0025"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.005"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.01"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.025"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.05"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.1"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.25"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="0.5"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="1.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="2.5"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="5.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="10.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="30.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="60.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="120.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="300.0"} 0
    parallax_commit_duration_seconds_bucket{connector_id="okta",le="+Inf"} 0
    parallax_commit_duration_seconds_sum{connector_id="okta"} 0
    parallax_commit_duration_seconds_count{connector_id="okta"} 0
    # TYPE parallax_events_undelivered counter
    # HELP parallax_events_undelivered Events that the watcher of a sync did not take in time.
    parallax_events_undelivered_total{connector_id="okta"} 0
    # TYPE parallax_sync_interval_seconds gauge
    # UNIT parallax_sync_interval_seconds seconds
    # HELP parallax_sync_interval_seconds The longest interval at which a source is synced; 0: none is scheduled.
    parallax_sync_interval_seconds{connector_id="okta"} 60
    "#);
}

/// What the exporter writes, OpenMetrics must say with as many samples, of the same values.
#[test]
fn openmetrics_has_every_sample() {
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || one_sync(&ParallaxMetrics::new()));
    let handle = recorder.handle();
    let prometheus = Prometheus { handle };
    let samples = |rendering: String| {
        let lines = rendering.lines();
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut lines: Vec<_> = lines.map(|line| line.replace(".0\"", "\"")).collect();
        lines.sort_unstable();
        lines
    };
    let text = samples(prometheus.render());
    assert_eq!(samples(prometheus.render_openmetrics()), text);
    assert!(text.len() > 80, "{}", text.len());
}

#[test]
fn promtool_finds_no_fault() {
    let promtool =
        Command::new(std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned()))
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("not checked: promtool (Debian package prometheus) is not on PATH");
            return;
        }
        promtool => promtool.unwrap(),
    };
    let rendering = rendered(|metrics| {
        one_sync(metrics);
        metrics.register("a\"\n\\", &["{}"]);
    });
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(rendering.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Where memory can be read; elsewhere the sums alone.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() / 1_024)
}

#[test]
fn a_million_hostile_ids_take_bounded_memory_and_lose_no_count() {
    const IDS: u64 = 1_000_000;
    let recorder = recorder();
    let prometheus = Prometheus {
        handle: recorder.handle(),
    };
    let before = resident_mib();
    metrics::with_local_recorder(&recorder, || {
        let metrics = ParallaxMetrics::new();
        for n in 0..IDS {
            let id = match n % 4 {
                0 => format!("\"}}\n# {n}\u{1b}[31m"),
                _ => format!("id-{n}"),
            };
            metrics.register(&id, &[&id]);
            metrics.events_undelivered(&id, 3);
            let outcome = SyncOutcome::Committed;
            metrics.sync_ended(&id, &id, outcome, Duration::ZERO, UNIX_EPOCH);
            if n % 10_000 == 0 {
                prometheus.upkeep();
            }
        }
    });
    let grown = resident_mib() - before;
    assert!(grown <= 32, "{grown} MiB");
    let page = prometheus.render();
    let values = |name: &str| -> Vec<u64> {
        let lines = page
            .lines()
            .filter(|line| line.split('{').next() == Some(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    assert_eq!(
        values("parallax_events_undelivered_total")
            .iter()
            .sum::<u64>(),
        3 * IDS
    );
    let syncs = values("parallax_syncs_total");
    assert_eq!((syncs.len(), syncs.iter().sum::<u64>()), (1_995, IDS));
    for metric in names::all().filter(|metric| metric.kind != Kind::Histogram) {
        assert!(
            (1..=2_000).contains(&series_of(&page, metric.name)),
            "{}",
            metric.name
        );
    }
    assert!(!page.contains('\u{1b}'));
}

/// How many series a metric has.
fn series_of(page: &str, name: &str) -> usize {
    page.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .count()
}

#[test]
fn every_histogram_has_buckets() {
    let histograms = names::all().filter(|metric| metric.kind == Kind::Histogram);
    let names: Vec<_> = histograms.map(|metric| metric.name).collect();
    assert_eq!(names, BUCKETS.map(|(metric, _)| metric.name));
    for (metric, buckets) in BUCKETS {
        assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
    }
    assert!(!rendered(one_sync).contains("quantile"));
}

#[test]
fn second_recorder_is_refused() {
    // Whatever order the tests of this process run in, the second of these is not the first.
    let _ = Prometheus::install();
    let error = Prometheus::install().unwrap_err();
    insta::assert_snapshot!(error, @"the recorder for Prometheus cannot be installed: failed to install exporter as global recorder: attempted to set a recorder after the metrics system was already initialized");
}

#[test]
fn upkeep_empties_what_no_scrape_came_for() {
    let recorder = recorder();
    let prometheus = Prometheus {
        handle: recorder.handle(),
    };
    metrics::with_local_recorder(&recorder, || {
        let metrics = ParallaxMetrics::new();
        for _ in 0..1_000 {
            one_sync(&metrics);
            prometheus.upkeep();
        }
    });
    let rendering = prometheus.render();
    for line in [
        r#"parallax_syncs_total{connector_id="okta",outcome="partial"} 1000"#,
        r#"parallax_sync_duration_seconds_count{connector_id="okta"} 1000"#,
        r#"parallax_sync_duration_seconds_sum{connector_id="okta"} 2000"#,
    ] {
        assert!(rendering.lines().any(|rendered| rendered == line), "{line}");
    }
}

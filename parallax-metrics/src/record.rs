use metrics::{counter, gauge};
use parallax_core::SyncStats;

use crate::names::{METRICS, Metric};

/// Records what a commit did, under the label `connector_id`.
///
/// Call it once per commit, not for one that was replayed: its counts were recorded the first time.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; exact below 2^53 records"
)]
pub fn record_commit(connector_id: &str, stats: &SyncStats) {
    for (metric, value) in METRICS.iter().zip(stats.values()) {
        match metric {
            Metric::Counter(name, _) => {
                counter!(*name, "connector_id" => connector_id.to_owned()).increment(value);
            }
            Metric::Gauge(name, _) => {
                gauge!(*name, "connector_id" => connector_id.to_owned()).set(value as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn every_count_reaches_the_recorder() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let stats = SyncStats::from_values(std::array::from_fn(|place| place as u64 + 1));
        metrics::with_local_recorder(&recorder, || {
            crate::describe();
            record_commit("aws", &stats);
            record_commit("aws", &stats);
        });

        let seen: Vec<String> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, unit, help, value)| {
                let labels: Vec<_> = key
                    .key()
                    .labels()
                    .map(|l| format!("{}={}", l.key(), l.value()))
                    .collect();
                assert_eq!(labels, ["connector_id=aws"]);
                assert!(
                    unit.is_some() && help.is_some(),
                    "{} is not described",
                    key.key().name()
                );
                match value {
                    DebugValue::Counter(n) => format!("{} {n}", key.key().name()),
                    DebugValue::Gauge(n) => format!("{} {n}", key.key().name()),
                    DebugValue::Histogram(_) => unreachable!("no count is a histogram"),
                }
            })
            .collect();
        for expected in [
            "parallax_entities_created_total 2",
            "parallax_entities_deleted_total 8",
            "parallax_entities_kept 5",
            "parallax_relationships_created_total 18",
            "parallax_relationships_duplicates_total 32",
        ] {
            assert!(
                seen.iter().any(|line| line == expected),
                "{expected} is not in {seen:?}"
            );
        }
        assert_eq!(seen.len(), 16);
    }
}

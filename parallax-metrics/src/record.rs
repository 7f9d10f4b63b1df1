use std::sync::Arc;

use metrics::SharedString;
use parallax_core::SyncStats;

use crate::label;
use crate::names::{Kind, REFUSED_TOKENS, SOURCES_BROKEN, STATS};

/// Records what a commit did, under the label `connector_id`.
///
/// Call it once per commit, not for one that was replayed: its counts were recorded the first time.
///
/// It remembers nothing, so its gauges are of the connector's last commit, whichever account that
/// was of. Where a connector reads several accounts,
/// [`ParallaxMetrics::committed`](crate::ParallaxMetrics::committed) adds them up. Nor does it
/// bound how many connectors there are; one whose id is not `[a-z0-9_.-]{1,64}` is recorded as
/// `__invalid__`.
pub fn record_commit(connector_id: &str, stats: &SyncStats) {
    let connector_id = SharedString::from(Arc::<str>::from(label::checked(connector_id)));
    for (metric, value) in STATS.iter().zip(stats.values()) {
        match metric.kind {
            Kind::Counter => metric.counter(&[&connector_id]).increment(value),
            Kind::Gauge => metric.gauge(&[&connector_id]).set(float(value.into())),
            Kind::Histogram => {}
        }
    }
}

/// Records how many sources of the daemon's configuration cannot be synced.
pub fn record_broken_sources(sources: usize) {
    SOURCES_BROKEN.gauge(&[]).set(float(sources as u128));
}

/// Records that the daemon refused a request for its token.
pub fn record_refused_token() {
    REFUSED_TOKENS.counter(&[]).increment(1);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; exact below 2^53 records"
)]
pub(crate) const fn float(value: u128) -> f64 {
    value as f64
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

use metrics::{Unit, describe_counter, describe_gauge};
use parallax_core::SyncStats;

/// How a field of [`SyncStats`] is told to a metrics system.
pub(crate) enum Metric {
    /// Adds up over commits.
    Counter(&'static str, &'static str),
    /// Is what it was at the last commit.
    Gauge(&'static str, &'static str),
}

use Metric::{Counter, Gauge};

/// One metric per field of [`SyncStats`], in its order: a field added there without a metric here
/// is a compile error.
pub(crate) const METRICS: [Metric; SyncStats::FIELDS.len()] = [
    Counter(
        "parallax_entities_created_total",
        "Entities that were not live before.",
    ),
    Counter(
        "parallax_entities_updated_total",
        "Entities whose content changed.",
    ),
    Counter(
        "parallax_entities_unchanged_total",
        "Entities that were emitted as they were.",
    ),
    Counter(
        "parallax_entities_deleted_total",
        "Entities that were looked for and not found.",
    ),
    Gauge(
        "parallax_entities_kept",
        "Entities kept at the last commit: not looked for everywhere.",
    ),
    Gauge(
        "parallax_entities_held",
        "Entities whose delete is held for approval.",
    ),
    Counter(
        "parallax_entities_rejected_total",
        "Emissions of entities that were not accepted.",
    ),
    Counter(
        "parallax_entities_duplicates_total",
        "Emissions of entities that repeated another.",
    ),
    Counter(
        "parallax_relationships_created_total",
        "Relationships that were not live before.",
    ),
    Counter(
        "parallax_relationships_updated_total",
        "Relationships whose content changed.",
    ),
    Counter(
        "parallax_relationships_unchanged_total",
        "Relationships that were emitted as they were.",
    ),
    Counter(
        "parallax_relationships_deleted_total",
        "Relationships that were looked for and not found.",
    ),
    Gauge(
        "parallax_relationships_kept",
        "Relationships kept at the last commit: not looked for everywhere.",
    ),
    Gauge(
        "parallax_relationships_held",
        "Relationships whose delete is held for approval.",
    ),
    Counter(
        "parallax_relationships_rejected_total",
        "Emissions of relationships that were not accepted.",
    ),
    Counter(
        "parallax_relationships_duplicates_total",
        "Emissions of relationships that repeated another.",
    ),
];

/// Gives the installed recorder the unit and the help text of every metric.
pub fn describe() {
    for metric in &METRICS {
        match metric {
            Counter(name, help) => describe_counter!(*name, Unit::Count, *help),
            Gauge(name, help) => describe_gauge!(*name, Unit::Count, *help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_fields() {
        for (metric, field) in METRICS.iter().zip(SyncStats::FIELDS) {
            match metric {
                Counter(name, _) => assert_eq!(*name, format!("parallax_{field}_total")),
                Gauge(name, _) => assert_eq!(*name, format!("parallax_{field}")),
            }
        }
    }
}

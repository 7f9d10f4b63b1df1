use metrics::{
    Counter, Gauge, Histogram, Label, SharedString, Unit, counter, describe_counter,
    describe_gauge, describe_histogram, gauge, histogram,
};
use parallax_core::SyncStats;

/// What a metrics system is told of a metric.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Its labels' names, in the order in which its handles are asked for.
    pub(crate) labels: &'static [&'static str],
    unit: Unit,
    help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Adds up.
    Counter,
    /// Is what it was when last told.
    Gauge,
    /// Adds up, by size.
    Histogram,
}

const CONNECTOR: &[&str] = &["connector_id"];
const STEP: &[&str] = &["connector_id", "step_id"];

/// One metric per field of [`SyncStats`], in its order: a field added there without a metric here
/// is a compile error.
pub(crate) const STATS: [Metric; SyncStats::FIELDS.len()] = [
    count(
        "parallax_entities_created_total",
        "Entities that were not live before.",
    ),
    count(
        "parallax_entities_updated_total",
        "Entities whose content changed.",
    ),
    count(
        "parallax_entities_unchanged_total",
        "Entities that were emitted as they were.",
    ),
    count(
        "parallax_entities_deleted_total",
        "Entities that were looked for and not found.",
    ),
    ENTITIES_KEPT,
    ENTITIES_HELD,
    count(
        "parallax_entities_rejected_total",
        "Emissions of entities that were not accepted.",
    ),
    count(
        "parallax_entities_duplicates_total",
        "Emissions of entities that repeated another.",
    ),
    count(
        "parallax_relationships_created_total",
        "Relationships that were not live before.",
    ),
    count(
        "parallax_relationships_updated_total",
        "Relationships whose content changed.",
    ),
    count(
        "parallax_relationships_unchanged_total",
        "Relationships that were emitted as they were.",
    ),
    count(
        "parallax_relationships_deleted_total",
        "Relationships that were looked for and not found.",
    ),
    RELATIONSHIPS_KEPT,
    RELATIONSHIPS_HELD,
    count(
        "parallax_relationships_rejected_total",
        "Emissions of relationships that were not accepted.",
    ),
    count(
        "parallax_relationships_duplicates_total",
        "Emissions of relationships that repeated another.",
    ),
];

pub(crate) const ENTITIES_KEPT: Metric = number(
    "parallax_entities_kept",
    "Entities that the last committed sync kept: not looked for everywhere, or kept by somebody's word.",
);

pub(crate) const ENTITIES_HELD: Metric = number(
    "parallax_entities_held",
    "Entities whose delete is held for approval.",
);

pub(crate) const RELATIONSHIPS_KEPT: Metric = number(
    "parallax_relationships_kept",
    "Relationships that the last committed sync kept: not looked for everywhere, or kept by somebody's word.",
);

pub(crate) const RELATIONSHIPS_HELD: Metric = number(
    "parallax_relationships_held",
    "Relationships whose delete is held for approval.",
);

pub(crate) const ENTITIES: Metric = number("parallax_entities", "Entities that are live.");

pub(crate) const RELATIONSHIPS: Metric =
    number("parallax_relationships", "Relationships that are live.");

pub(crate) const RELATIONSHIPS_WAITING: Metric = number(
    "parallax_relationships_waiting",
    "Relationships that wait for an entity at one of their ends.",
);

pub(crate) const SYNCS: Metric = Metric {
    labels: &["connector_id", "outcome"],
    ..count("parallax_syncs_total", "Syncs that ended, by how.")
};

pub(crate) const SYNCS_IN_PROGRESS: Metric =
    number("parallax_syncs_in_progress", "Syncs that have not ended.");

pub(crate) const SYNC_DURATION: Metric = duration(
    "parallax_sync_duration_seconds",
    "Time a sync took, its commit included.",
);

pub(crate) const LAST_SUCCESS: Metric = timestamp(
    "parallax_sync_last_success_timestamp_seconds",
    "When the source longest without a committed sync had its last; 0: none had one.",
);

pub(crate) const LAST_COMPLETE: Metric = timestamp(
    "parallax_sync_last_complete_timestamp_seconds",
    "When the source longest without a complete sync had its last; 0: none had one.",
);

pub(crate) const SYNC_INTERVAL: Metric = Metric {
    unit: Unit::Seconds,
    ..number(
        "parallax_sync_interval_seconds",
        "The longest interval at which a source is synced; 0: none is scheduled.",
    )
};

pub(crate) const OVERDUE: Metric = timestamp(
    "parallax_sync_overdue_timestamp_seconds",
    "When the first of the scheduled sources is overdue: three intervals after its last committed sync or, before the first one, after it was scheduled; 0: none is scheduled.",
);

pub(crate) const KEPT_SINCE: Metric = timestamp(
    "parallax_kept_since_timestamp_seconds",
    "Since when the source that keeps records the longest does so because steps do not complete, or records are rejected; 0: none.",
);

pub(crate) const STEPS: Metric = Metric {
    labels: &["connector_id", "step_id", "outcome"],
    ..count("parallax_steps_total", "Steps that ended, by how.")
};

pub(crate) const STEP_DURATION: Metric = Metric {
    labels: STEP,
    ..duration(
        "parallax_step_duration_seconds",
        "Time a step took, from its start to its end.",
    )
};

pub(crate) const STEP_RETRIES: Metric = Metric {
    labels: &["connector_id", "step_id", "kind"],
    ..count(
        "parallax_step_retries_total",
        "Attempts after the first, by the kind of error before.",
    )
};

pub(crate) const STEP_WAITED: Metric = Metric {
    labels: STEP_RETRIES.labels,
    unit: Unit::Seconds,
    ..count(
        "parallax_step_waited_seconds_total",
        "Whole seconds of pauses, by the kind of error before; throttled: for a rate limit.",
    )
};

pub(crate) const COMMIT_DURATION: Metric = duration(
    "parallax_commit_duration_seconds",
    "Time a commit took, from the diff to the end of the transaction.",
);

pub(crate) const CHANGESETS: Metric = Metric {
    labels: &["connector_id", "outcome"],
    ..count(
        "parallax_changesets_total",
        "Changesets, by what happened to them.",
    )
};

pub(crate) const EVENTS_UNDELIVERED: Metric = count(
    "parallax_events_undelivered_total",
    "Events that the watcher of a sync did not take in time.",
);

pub(crate) const RECONCILIATION_MISMATCHES: Metric = count(
    "parallax_reconciliation_mismatches_total",
    "Commits that were undone because their books did not balance.",
);

pub(crate) const SERIES_OVERFLOW: Metric = Metric {
    labels: &[],
    ..count(
        "parallax_series_overflow_total",
        "Recordings under __other__, or left out of a gauge, because a cap was reached.",
    )
};

pub(crate) const SOURCES_BROKEN: Metric = Metric {
    labels: &[],
    ..number(
        "parallax_sources_broken",
        "Sources of the daemon's configuration that cannot be synced.",
    )
};

pub(crate) const REFUSED_TOKENS: Metric = Metric {
    labels: &[],
    ..count(
        "parallax_refused_tokens_total",
        "Requests to the daemon that were refused for their token.",
    )
};

pub(crate) const BUILD_INFO: Metric = Metric {
    labels: &["version"],
    ..number("parallax_build_info", "Always 1; the version is its label.")
};

const OTHERS: [Metric; 23] = [
    ENTITIES,
    RELATIONSHIPS,
    RELATIONSHIPS_WAITING,
    SYNCS,
    SYNCS_IN_PROGRESS,
    SYNC_DURATION,
    SYNC_INTERVAL,
    LAST_SUCCESS,
    LAST_COMPLETE,
    OVERDUE,
    KEPT_SINCE,
    STEPS,
    STEP_DURATION,
    STEP_RETRIES,
    STEP_WAITED,
    COMMIT_DURATION,
    CHANGESETS,
    EVENTS_UNDELIVERED,
    RECONCILIATION_MISMATCHES,
    SERIES_OVERFLOW,
    SOURCES_BROKEN,
    REFUSED_TOKENS,
    BUILD_INFO,
];

/// Gives the installed recorder the unit and the help text of every metric.
///
/// [`ParallaxMetrics::new`](crate::ParallaxMetrics::new) has done it already.
pub fn describe() {
    for metric in all() {
        let Metric {
            name, unit, help, ..
        } = *metric;
        match metric.kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
    }
}

/// Every metric there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Metric> {
    const STATS_FIRST: &[Metric] = &STATS;
    const THE_REST: &[Metric] = &OTHERS;
    [STATS_FIRST, THE_REST].into_iter().flatten()
}

impl Metric {
    /// Returns the counter with these values of its labels; it exists from here on.
    pub(crate) fn counter(&self, values: &[&SharedString]) -> Counter {
        counter!(self.name, self.labels_with(values))
    }

    /// Returns the gauge with these values of its labels; it exists from here on.
    pub(crate) fn gauge(&self, values: &[&SharedString]) -> Gauge {
        gauge!(self.name, self.labels_with(values))
    }

    /// Returns the histogram with these values of its labels; it exists from here on.
    pub(crate) fn histogram(&self, values: &[&SharedString]) -> Histogram {
        histogram!(self.name, self.labels_with(values))
    }

    #[cfg(feature = "prometheus")]
    pub(crate) fn is_in_seconds(&self) -> bool {
        self.unit == Unit::Seconds
    }

    fn labels_with(&self, values: &[&SharedString]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let labels = self.labels.iter().zip(values);
        labels
            .map(|(&name, &value)| Label::new(name, value.clone()))
            .collect()
    }
}

const fn count(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels: CONNECTOR,
        unit: Unit::Count,
        help,
    }
}

const fn number(name: &'static str, help: &'static str) -> Metric {
    Metric {
        kind: Kind::Gauge,
        ..count(name, help)
    }
}

const fn timestamp(name: &'static str, help: &'static str) -> Metric {
    Metric {
        unit: Unit::Seconds,
        ..number(name, help)
    }
}

const fn duration(name: &'static str, help: &'static str) -> Metric {
    Metric {
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        ..count(name, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_fields() {
        for (metric, field) in STATS.iter().zip(SyncStats::FIELDS) {
            match metric.kind {
                Kind::Counter => assert_eq!(metric.name, format!("parallax_{field}_total")),
                Kind::Gauge => assert_eq!(metric.name, format!("parallax_{field}")),
                Kind::Histogram => unreachable!("{field} is a count"),
            }
        }
    }

    #[test]
    fn every_metric_is_in_the_table_of_the_front_page() {
        let of_the_page: Vec<&str> = include_str!("lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .filter(|line| line.starts_with("| `"))
            .collect();
        let of_the_names: Vec<String> = all()
            .map(|metric| {
                let labels: Vec<String> = metric
                    .labels
                    .iter()
                    .map(|label| format!("`{label}`"))
                    .collect();
                format!(
                    "| `{}` | {} | {} | {} |",
                    metric.name,
                    format!("{:?}", metric.kind).to_lowercase(),
                    labels.join(", "),
                    metric.help
                )
            })
            .collect();
        assert_eq!(of_the_page, of_the_names);
    }
}

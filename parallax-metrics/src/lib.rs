//! What happens in Parallax, as metrics.
//!
//! [`ParallaxMetrics`] is told what happens and hands it to the recorder that the program has
//! installed; without one it costs next to nothing. It works with any recorder of the [`metrics`]
//! crate; the feature `prometheus` brings [`Prometheus`], the one that the server installs. This
//! crate alone names Parallax's metrics.
#![cfg_attr(feature = "prometheus", doc = "```")]
#![cfg_attr(not(feature = "prometheus"), doc = "```text")]
//! use std::time::{Duration, SystemTime};
//!
//! use parallax_core::SyncStats;
//! use parallax_metrics::{ParallaxMetrics, Prometheus, SyncOutcome};
//!
//! let prometheus = Prometheus::install()?;
//! let metrics = ParallaxMetrics::new();
//! metrics.register("okta", &["users"]);
//!
//! let mut stats = SyncStats::default();
//! stats.entities_created = 5;
//! let (took, now) = (Duration::from_millis(20), SystemTime::now());
//! metrics.committed("okta", "acme", SyncOutcome::Committed, &stats, took, now);
//!
//! let scrape = prometheus.render();
//! assert!(scrape.contains(r#"parallax_entities_created_total{connector_id="okta"} 5"#));
//! # Ok::<(), parallax_metrics::InstallError>(())
//! ```
//!
//! Who has the journals of syncs hands them to [`JournalMetrics`]; who only has the stats of a commit
//! calls [`record_commit`].
//!
//! # Metrics
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `parallax_entities_created_total` | counter | `connector_id` | Entities that were not live before. |
//! | `parallax_entities_updated_total` | counter | `connector_id` | Entities whose content changed. |
//! | `parallax_entities_unchanged_total` | counter | `connector_id` | Entities that were emitted as they were. |
//! | `parallax_entities_deleted_total` | counter | `connector_id` | Entities that were looked for and not found. |
//! | `parallax_entities_kept` | gauge | `connector_id` | Entities that the last committed sync kept: not looked for everywhere, or kept by somebody's word. |
//! | `parallax_entities_held` | gauge | `connector_id` | Entities whose delete is held for approval. |
//! | `parallax_entities_rejected_total` | counter | `connector_id` | Emissions of entities that were not accepted. |
//! | `parallax_entities_duplicates_total` | counter | `connector_id` | Emissions of entities that repeated another. |
//! | `parallax_relationships_created_total` | counter | `connector_id` | Relationships that were not live before. |
//! | `parallax_relationships_updated_total` | counter | `connector_id` | Relationships whose content changed. |
//! | `parallax_relationships_unchanged_total` | counter | `connector_id` | Relationships that were emitted as they were. |
//! | `parallax_relationships_deleted_total` | counter | `connector_id` | Relationships that were looked for and not found. |
//! | `parallax_relationships_kept` | gauge | `connector_id` | Relationships that the last committed sync kept: not looked for everywhere, or kept by somebody's word. |
//! | `parallax_relationships_held` | gauge | `connector_id` | Relationships whose delete is held for approval. |
//! | `parallax_relationships_rejected_total` | counter | `connector_id` | Emissions of relationships that were not accepted. |
//! | `parallax_relationships_duplicates_total` | counter | `connector_id` | Emissions of relationships that repeated another. |
//! | `parallax_entities` | gauge | `connector_id` | Entities that are live. |
//! | `parallax_relationships` | gauge | `connector_id` | Relationships that are live. |
//! | `parallax_relationships_waiting` | gauge | `connector_id` | Relationships that wait for an entity at one of their ends. |
//! | `parallax_syncs_total` | counter | `connector_id`, `outcome` | Syncs that ended, by how. |
//! | `parallax_syncs_in_progress` | gauge | `connector_id` | Syncs that have not ended. |
//! | `parallax_sync_duration_seconds` | histogram | `connector_id` | Time a sync took, its commit included. |
//! | `parallax_sync_interval_seconds` | gauge | `connector_id` | The longest interval at which a source is synced; 0: none is scheduled. |
//! | `parallax_sync_last_success_timestamp_seconds` | gauge | `connector_id` | When the source longest without a committed sync had its last; 0: none had one. |
//! | `parallax_sync_last_complete_timestamp_seconds` | gauge | `connector_id` | When the source longest without a complete sync had its last; 0: none had one. |
//! | `parallax_sync_overdue_timestamp_seconds` | gauge | `connector_id` | When the first of the scheduled sources is overdue: three intervals after its last committed sync or, before the first one, after it was scheduled; 0: none is scheduled. |
//! | `parallax_kept_since_timestamp_seconds` | gauge | `connector_id` | Since when the source that keeps records the longest does so because steps do not complete, or records are rejected; 0: none. |
//! | `parallax_steps_total` | counter | `connector_id`, `step_id`, `outcome` | Steps that ended, by how. |
//! | `parallax_step_duration_seconds` | histogram | `connector_id`, `step_id` | Time a step took, from its start to its end. |
//! | `parallax_step_retries_total` | counter | `connector_id`, `step_id`, `kind` | Attempts after the first, by the kind of error before. |
//! | `parallax_step_waited_seconds_total` | counter | `connector_id`, `step_id`, `kind` | Whole seconds of pauses, by the kind of error before; throttled: for a rate limit. |
//! | `parallax_commit_duration_seconds` | histogram | `connector_id` | Time a commit took, from the diff to the end of the transaction. |
//! | `parallax_changesets_total` | counter | `connector_id`, `outcome` | Changesets, by what happened to them. |
//! | `parallax_events_undelivered_total` | counter | `connector_id` | Events that the watcher of a sync did not take in time. |
//! | `parallax_reconciliation_mismatches_total` | counter | `connector_id` | Commits that were undone because their books did not balance. |
//! | `parallax_series_overflow_total` | counter |  | Recordings under __other__, or left out of a gauge, because a cap was reached. |
//! | `parallax_sources_broken` | gauge |  | Sources of the daemon's configuration that cannot be synced. |
//! | `parallax_refused_tokens_total` | counter |  | Requests to the daemon that were refused for their token. |
//! | `parallax_build_info` | gauge | `version` | Always 1; the version is its label. |
//!
//! `outcome` of a sync is `committed`, `partial`, `failed`, `error` or `cancelled`; of a step,
//! `completed`, `incomplete`, `failed`, `skipped` or `cancelled`; of a changeset, `held`,
//! `approved` or `rejected`. `kind` is `retryable`, `rate_limited`, `timed_out`, or `other` for any that a
//! later version may have; of pauses also `throttled`, for what the connector's own rate limit held
//! up. No label holds an account, a sync's id, a key or an error's text: [`ParallaxMetrics`] says how
//! the accounts of a connector share its gauges, and what bounds the number of series.
//!
//! `dashboards/` in the repository has alert rules and dashboards made of these.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod connector;
mod journal;
mod label;
mod names;
mod outcome;
mod parallax_metrics;
#[cfg(feature = "prometheus")]
mod prometheus;
mod record;

pub use self::parallax_metrics::{Live, ParallaxMetrics, Past};
#[cfg(feature = "prometheus")]
pub use self::prometheus::{Family, InstallError, Prometheus, Series, Value};
pub use journal::JournalMetrics;
pub use names::describe;
pub use outcome::SyncOutcome;
pub use record::{record_broken_sources, record_commit, record_refused_token};

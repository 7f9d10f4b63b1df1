//! Stats to metrics.
//!
//! [`record_commit`] hands the stats of a commit to the recorder that the program has installed;
//! without one it costs next to nothing. This crate alone names Parallax's metrics.
//!
//! ```
//! use parallax_core::SyncStats;
//!
//! let mut stats = SyncStats::default();
//! stats.entities_created = 5;
//! parallax_metrics::record_commit("okta", &stats);
//! ```

mod names;
mod record;

pub use names::describe;
pub use record::record_commit;

//! Syncs over time.
//!
//! [`run_once`] is one sync: run, commit, log. [`Scheduler`] runs the syncs of many sources when
//! they are due: once per interval, or at the times of a [`Cron`] pattern, as their [`Schedule`]
//! says. What is due is a pure function of time, in [`Timetable`]; the scheduler only sleeps, runs
//! and reports. A [`Handle`] asks it for a sync out of turn, or for the end of one.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use parallax_connect::Connector;
//! use parallax_scheduler::{DuplicateSource, Job, Scheduler};
//! use parallax_store::Store;
//!
//! async fn nightly(
//!     store: Arc<Store>,
//!     okta: Arc<dyn Connector>,
//!     stop: impl Future<Output = ()> + Send + 'static,
//! ) -> Result<(), DuplicateSource> {
//!     let every = Duration::from_secs(15 * 60);
//!     Scheduler::new(store).job(Job::new(okta, "acme", every))?.run(stop).await;
//!     Ok(())
//! }
//! ```

mod clock;
mod cron;
mod handle;
mod job;
mod run_once;
mod schedule;
mod scheduler;
mod timetable;

pub use cron::{Cron, CronError};
pub use handle::{Activity, AddError, CancelError, Handle, JobStatus, TriggerError};
pub use job::{DuplicateSource, Job};
pub use run_once::{SyncError, Synced, run_once};
pub use schedule::{Missed, Overlap, Schedule};
pub use scheduler::{Notice, Scheduler, last_successes};
pub use timetable::{Skip, Tick, Timetable};

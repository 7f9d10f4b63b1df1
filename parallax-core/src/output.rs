use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::batch::{Batch, EntityRef, RelationshipRef};
use crate::report::SyncReport;

/// Names a run: who read what, when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The connector.
    pub connector_id: String,
    /// The connector's version; may be empty.
    pub connector_version: String,
    /// The account that was read.
    pub account_id: String,
    /// This run.
    pub sync_id: String,
    /// The place among all runs of this process, in the order of their start.
    pub run_no: u64,
    /// When the run began, by the machine's clock: for people, not for ordering.
    pub started_at: SystemTime,
    /// How long the run took.
    pub duration: Duration,
    /// The number of the last entry of its journal; 0 if it keeps none.
    pub journal_seq: u64,
}

impl Run {
    /// Names a run that begins now.
    pub fn new(
        connector_id: impl Into<String>,
        account_id: impl Into<String>,
        sync_id: impl Into<String>,
        run_no: u64,
        started_at: SystemTime,
    ) -> Self {
        Self {
            connector_id: connector_id.into(),
            connector_version: String::new(),
            account_id: account_id.into(),
            sync_id: sync_id.into(),
            run_no,
            started_at,
            duration: Duration::ZERO,
            journal_seq: 0,
        }
    }
}

/// All that a run emitted, and what each step did.
///
/// Only accepted attempts are in it: a step that failed has no records here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectorOutput {
    run: Arc<Run>,
    report: Arc<SyncReport>,
    batches: Arc<Vec<Vec<Arc<Batch>>>>,
    undelivered_events: u64,
}

impl ConnectorOutput {
    /// Joins the parts: `batches` holds, for each step of the report, what it emitted.
    pub fn new(
        run: Run,
        report: SyncReport,
        mut batches: Vec<Vec<Arc<Batch>>>,
        undelivered_events: u64,
    ) -> Self {
        batches.resize_with(report.steps().len(), Vec::new);
        Self {
            run: Arc::new(run),
            report: Arc::new(report),
            batches: Arc::new(batches),
            undelivered_events,
        }
    }

    /// Returns who read what, when.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Returns what each step did.
    pub fn report(&self) -> &SyncReport {
        &self.report
    }

    /// Returns the accepted entities, by declaration of their step, then by emission.
    pub fn entities(&self) -> impl Iterator<Item = EntityRef<'_>> {
        self.batches
            .iter()
            .flatten()
            .flat_map(|batch| batch.entities())
    }

    /// Returns the accepted relationships, by declaration of their step, then by emission.
    pub fn relationships(&self) -> impl Iterator<Item = RelationshipRef<'_>> {
        self.batches
            .iter()
            .flatten()
            .flat_map(|batch| batch.relationships())
    }

    /// Returns the batches of each step, in the order of the report.
    pub fn batches(&self) -> &[Vec<Arc<Batch>>] {
        &self.batches
    }

    /// Returns how many events a receiver that was still there did not take in time.
    pub fn undelivered_events(&self) -> u64 {
        self.undelivered_events
    }
}

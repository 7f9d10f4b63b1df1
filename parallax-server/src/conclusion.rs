use std::time::Duration;

use parallax_connect::{ConnectorOutput, RunError, StepStatus, SyncReport};
use parallax_core::{RecordKind, SyncStats};
use parallax_scheduler::SyncError;
use parallax_store::{Change, CommitResult, Outcome, TypeCounts};

use crate::args::SyncArgs;
use crate::error::Failure;
use crate::exit::Exit;

/// What a sync came to, as far as it got.
#[derive(Debug, Default)]
pub(crate) struct Conclusion {
    pub(crate) connector_id: Option<String>,
    pub(crate) account_id: Option<String>,
    pub(crate) sync_id: Option<String>,
    pub(crate) dry_run: bool,
    /// Whether every change is shown.
    pub(crate) show: bool,
    /// Whether the exit code tells if there are changes.
    pub(crate) exit_code: bool,
    /// What the steps did, if they ran.
    pub(crate) report: Option<SyncReport>,
    /// What was committed or, in a dry run, would be.
    pub(crate) committed: Option<Committed>,
    pub(crate) undelivered_events: u64,
    pub(crate) duration: Duration,
    /// The store's URL.
    pub(crate) store: Option<String>,
    /// The option that names this store on another command line.
    pub(crate) store_option: String,
    /// Whether there is such a store: a dry run does without.
    pub(crate) store_exists: bool,
    pub(crate) failure: Option<Failure>,
}

/// What a commit did, or would do: [`CommitResult`], but so that tests can make one.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) stats: SyncStats,
    pub(crate) outcome: Outcome,
    pub(crate) replayed: bool,
    pub(crate) held_changeset: Option<u64>,
    pub(crate) held_because: Option<String>,
    pub(crate) types: Vec<TypeCounts>,
    pub(crate) changes: Vec<Change>,
}

impl Conclusion {
    /// Begins a sync.
    pub(crate) fn new(args: &SyncArgs) -> Self {
        Self {
            account_id: args.account.clone(),
            sync_id: args.sync_id.clone(),
            dry_run: args.dry_run,
            show: args.show,
            exit_code: args.exit_code,
            store: Some(args.store.url.clone()),
            store_option: args.store.again(),
            ..Self::default()
        }
    }

    /// Concludes a sync that did not even begin.
    pub(crate) fn of_failure(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            ..Self::default()
        }
    }

    /// Notes what a run did.
    pub(crate) fn ran(&mut self, output: &ConnectorOutput) {
        self.report = Some(output.report().clone());
        self.undelivered_events = output.undelivered_events();
    }

    /// Notes how a sync ended; of one that was cancelled, `cancelled` says why.
    ///
    /// # Errors
    ///
    /// [`Failure`] if nothing was committed.
    pub(crate) fn ended(
        &mut self,
        ended: Result<(&ConnectorOutput, CommitResult), &SyncError>,
        cancelled: impl FnOnce() -> Failure,
    ) -> Result<(), Failure> {
        let (output, result) = match ended {
            Ok(synced) => synced,
            Err(SyncError::Run(RunError::Cancelled { report })) => {
                self.report = Some((**report).clone());
                return Err(cancelled());
            }
            Err(SyncError::Run(error)) => return Err(Failure::Run(error.clone())),
            Err(SyncError::Commit { output, error }) => {
                self.ran(output);
                return Err(error.clone().into());
            }
            Err(error) => {
                return Err(Failure::Defect {
                    message: error.to_string(),
                });
            }
        };
        self.ran(output);
        let failed = result.outcome == Outcome::Failed;
        self.committed = Some(result.into());
        match failed {
            true => Err(Failure::of_run(output.report())),
            false => Ok(()),
        }
    }

    /// Returns the outcome's name.
    pub(crate) fn outcome(&self) -> &'static str {
        match &self.committed {
            Some(_) if self.dry_run => "planned",
            Some(committed) => committed.outcome.as_str(),
            None => Outcome::Failed.as_str(),
        }
    }

    /// Returns how the process ends. A dry run ends as the sync would.
    pub(crate) fn exit(&self) -> Exit {
        if let Some(failure) = &self.failure {
            return failure.exit();
        }
        let Some(committed) = &self.committed else {
            return Exit::Failed;
        };
        match committed.outcome {
            Outcome::Failed => Exit::Failed,
            Outcome::Partial if self.missed_something() => Exit::Partial,
            _ if committed.held_changeset.is_some() => Exit::Held,
            _ if self.exit_code && committed.has_changes() => Exit::Changes,
            _ => Exit::Ok,
        }
    }

    /// Tells whether a step that was asked for did not see everything.
    fn missed_something(&self) -> bool {
        let steps = self.report.iter().flat_map(SyncReport::steps);
        let mut statuses = steps.map(|step| step.status);
        statuses.any(|status| !matches!(status, StepStatus::Completed | StepStatus::NotSelected))
    }
}

impl Committed {
    /// Tells whether a record is created, updated or deleted.
    pub(crate) fn has_changes(&self) -> bool {
        let counts = RecordKind::ALL.map(|kind| self.stats.counts(kind));
        counts
            .iter()
            .any(|counts| counts.created + counts.updated + counts.deleted > 0)
    }
}

impl From<CommitResult> for Committed {
    fn from(result: CommitResult) -> Self {
        Self {
            stats: result.stats,
            outcome: result.outcome,
            replayed: result.replayed,
            held_changeset: result.held_changeset,
            held_because: result.held_because,
            types: result.types,
            changes: result.changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use parallax_connect::SyncReport;
    use parallax_store::StoreError;

    use super::*;
    use crate::testing::{first, later, partial};

    #[test]
    fn exit_code_tells_the_worst() {
        let held = |mut conclusion: Conclusion| {
            if let Some(committed) = &mut conclusion.committed {
                committed.held_changeset = Some(1);
            }
            conclusion
        };
        let with = |conclusion, failure| Conclusion {
            failure: Some(failure),
            ..conclusion
        };
        let dry = |conclusion| Conclusion {
            dry_run: true,
            ..conclusion
        };
        let exit_code = |conclusion| Conclusion {
            exit_code: true,
            ..dry(conclusion)
        };
        let same = || {
            let mut same = later();
            if let Some(committed) = &mut same.committed {
                committed.stats = SyncStats::default();
            }
            same
        };
        let full = || {
            Failure::Store(StoreError::Full {
                details: String::new(),
            })
        };
        let table = [
            ("committed", first()),
            ("held", held(later())),
            ("partial", partial()),
            ("partial and held", held(partial())),
            ("partial plan", dry(partial())),
            ("plan", dry(later())),
            ("plan with changes", exit_code(later())),
            ("plan without", exit_code(same())),
            ("plan that holds", exit_code(held(later()))),
            ("partial plan with changes", exit_code(partial())),
            ("store full", with(partial(), full())),
            (
                "no step",
                with(partial(), Failure::of_run(&SyncReport::default())),
            ),
            ("did not begin", Conclusion::default()),
        ];
        let table: Vec<String> = table
            .iter()
            .map(|(name, conclusion)| {
                format!(
                    "{name}: {} {}",
                    conclusion.outcome(),
                    conclusion.exit().code()
                )
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @"
        committed: committed 0
        held: committed 6
        partial: partial 3
        partial and held: partial 3
        partial plan: planned 3
        plan: planned 0
        plan with changes: planned 7
        plan without: planned 0
        plan that holds: planned 6
        partial plan with changes: planned 3
        store full: partial 5
        no step: partial 1
        did not begin: failed 1
        ");
    }
}

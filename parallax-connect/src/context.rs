use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parallax_core::{
    Attempt, Batch, BatchBuilder, ConnectorError, EmitError, Escaped, Record, Rejection,
    ScopeReport, StepReport, StepStatus, escape,
};

use crate::prior::{Prior, Sealed};
use crate::telemetry;

/// What a step emits through, and what it knows about its run.
///
/// Cheap to clone; clones speak for the same step. It can be moved into spawned tasks and threads,
/// but what they emit after the step has returned does not count: it is [`EmitError::Closed`].
#[derive(Clone)]
pub struct StepContext {
    step: Arc<RunningStep>,
    scope: Option<u32>,
}

/// One attempt of a step, shared by the runner and all contexts of the attempt.
pub(crate) struct RunningStep {
    step_id: String,
    run: Arc<RunNames>,
    prior: Prior,
    /// `None` once the step has ended.
    attempt: Mutex<Option<OpenAttempt>>,
}

/// The names that every step of a run shares.
pub(crate) struct RunNames {
    pub(crate) connector_id: String,
    pub(crate) account_id: Arc<str>,
    pub(crate) sync_id: String,
}

struct OpenAttempt {
    builder: BatchBuilder,
    sink: Box<dyn Attempt>,
    /// The batches for the steps that read this one; `None` if none does.
    sealed: Option<Vec<Arc<Batch>>>,
    scope_places: HashMap<String, u32>,
    report: StepReport,
}

/// More reasons of one kind than a person wants to read are not kept.
const REASONS_KEPT: usize = 3;
const REASON_CHARS: usize = 300;

impl StepContext {
    pub(crate) fn new(step: Arc<RunningStep>) -> Self {
        Self { step, scope: None }
    }

    /// Emits an entity or a relationship.
    ///
    /// A plain call: it validates, packs the record and returns. Records count when the step
    /// returns `Ok`; if it fails, none does. The same id twice with equal content is a duplicate;
    /// with other content, the step that is declared first wins, then the earlier emission.
    ///
    /// # Errors
    ///
    /// [`EmitError::Rejected`] if the record breaks a rule. It is counted and logged, and nothing
    /// that is stored is deleted for it, whatever the caller does with the error: `?` fails the
    /// step, `.ok()` goes on without the record.
    pub fn emit(&self, record: impl Into<Record>) -> Result<(), EmitError> {
        let mut record = record.into();
        let mut attempt = self.step.lock();
        let Some(attempt) = attempt.as_mut() else {
            return Err(EmitError::Closed {
                step_id: self.step.step_id.clone(),
            });
        };
        match &record {
            Record::Entity(_) => attempt.report.entities += 1,
            Record::Relationship(_) => attempt.report.relationships += 1,
        }
        match attempt.builder.push(&mut record, self.scope) {
            Ok(()) => match attempt.builder.take_full() {
                Some(batch) => attempt.write(batch).map_err(|error| EmitError::Sink {
                    step_id: self.step.step_id.clone(),
                    message: error.to_string(),
                }),
                None => Ok(()),
            },
            Err((rejection, id_known)) => Err(self.reject(attempt, &record, rejection, id_known)),
        }
    }

    /// Returns a context whose records belong to a scope: a part of the system that can be listed,
    /// or fail to be, by itself, such as a region or a project.
    ///
    /// What was stored in a scope is deleted only after the scope was
    /// [completed](Self::complete). Scopes do not nest: a scope of a scope is a scope of the step.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        let mut attempt = self.step.lock();
        let scope = attempt
            .as_mut()
            .map(|attempt| attempt.open_scope(name.as_ref()));
        Self {
            step: Arc::clone(&self.step),
            scope: scope.or(Some(u32::MAX - 1)),
        }
    }

    /// Says that the whole scope was listed. On a context without scope it says nothing that the
    /// step's `Ok` does not say.
    pub fn complete(&self) {
        self.update(|attempt, scope| {
            if let Some(scope) = scope.and_then(|place| attempt.scope_mut(place)) {
                scope.complete = scope.incomplete.is_empty();
            }
        });
    }

    /// Says that the scopes which the step opened are all there are: what was stored in any other
    /// scope is gone with it.
    pub fn all_scopes_listed(&self) {
        self.update(|attempt, _| attempt.report.all_scopes_listed = true);
    }

    /// Says that the scope, or the whole step for a context without one, did not see everything:
    /// what it does not emit is kept.
    pub fn incomplete(&self, reason: impl fmt::Display) {
        let reason = reason.to_string();
        self.update(|attempt, scope| attempt.miss(scope, &reason));
    }

    /// Returns what the steps that this one reads have emitted.
    pub fn prior(&self) -> &Prior {
        &self.step.prior
    }

    /// Returns the connector's name.
    pub fn connector_id(&self) -> &str {
        &self.step.run.connector_id
    }

    /// Returns the account that is read.
    pub fn account_id(&self) -> &str {
        &self.step.run.account_id
    }

    /// Returns the id of this run.
    pub fn sync_id(&self) -> &str {
        &self.step.run.sync_id
    }

    /// Returns the id of this step.
    pub fn step_id(&self) -> &str {
        &self.step.step_id
    }

    fn update(&self, change: impl FnOnce(&mut OpenAttempt, Option<u32>)) {
        if let Some(attempt) = self.step.lock().as_mut() {
            change(attempt, self.scope);
        }
    }

    fn reject(
        &self,
        attempt: &mut OpenAttempt,
        record: &Record,
        rejection: Rejection,
        id_known: bool,
    ) -> EmitError {
        let rejected = match record {
            Record::Entity(_) => &mut attempt.report.entities_rejected,
            Record::Relationship(_) => &mut attempt.report.relationships_rejected,
        };
        *rejected += 1;
        let name = record.describe();
        telemetry::record_rejected(
            &self.step.run,
            &self.step.step_id,
            &name,
            &rejection,
            *rejected,
        );
        if !id_known {
            attempt.miss(self.scope, &format!("rejected {name}: {rejection}"));
        }
        EmitError::Rejected {
            step_id: self.step.step_id.clone(),
            record: name,
            rejection,
        }
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("step_id", &self.step.step_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl RunningStep {
    pub(crate) fn new(
        report: StepReport,
        run: Arc<RunNames>,
        prior: Prior,
        sink: Box<dyn Attempt>,
        is_read: bool,
    ) -> Self {
        Self {
            step_id: report.step_id.clone(),
            prior,
            attempt: Mutex::new(Some(OpenAttempt {
                builder: BatchBuilder::new(Arc::clone(&run.account_id)),
                sink,
                sealed: is_read.then(Vec::new),
                scope_places: HashMap::new(),
                report,
            })),
            run,
        }
    }

    /// Ends the attempt, so that nothing can be emitted any more, and reports on it. What it
    /// emitted is accepted if `result` is `Ok` and the sink takes all of it, else discarded.
    pub(crate) fn end(
        &self,
        result: Result<(), ConnectorError>,
    ) -> Option<(StepReport, Option<Sealed>)> {
        let mut attempt = self.lock().take()?;
        let last = attempt.builder.take();
        let accepted = result
            .and_then(|()| last.map_or(Ok(()), |batch| attempt.write(batch)))
            .and_then(|()| attempt.sink.finish());
        let mut report = attempt.report;
        let sealed = match accepted {
            Ok(()) => {
                let complete =
                    report.incomplete.is_empty() && report.scopes.iter().all(|s| s.complete);
                report.status = if complete {
                    StepStatus::Completed
                } else {
                    StepStatus::Incomplete
                };
                attempt.sealed.map(Sealed::new)
            }
            Err(error) => {
                // Nothing of a failed attempt counts: neither its records nor what it saw.
                let mut failed = StepReport::new(report.step_id, report.title);
                failed.dependencies = report.dependencies;
                failed.status = StepStatus::Failed;
                failed.error = Some(error);
                report = failed;
                None
            }
        };
        Some((report, sealed))
    }

    fn lock(&self) -> MutexGuard<'_, Option<OpenAttempt>> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenAttempt {
    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError> {
        if let Some(sealed) = &mut self.sealed {
            sealed.push(Arc::clone(&batch));
        }
        self.sink.write(batch)
    }

    fn open_scope(&mut self, name: &str) -> u32 {
        if let Some(&place) = self.scope_places.get(name) {
            return place;
        }
        #[expect(clippy::cast_possible_truncation, reason = "memory ends long before")]
        let place = self.report.scopes.len() as u32;
        self.scope_places.insert(name.to_owned(), place);
        self.report.scopes.push(ScopeReport {
            name: name.to_owned(),
            complete: false,
            incomplete: Vec::new(),
        });
        place
    }

    fn scope_mut(&mut self, place: u32) -> Option<&mut ScopeReport> {
        self.report.scopes.get_mut(place as usize)
    }

    fn miss(&mut self, scope: Option<u32>, reason: &str) {
        let reasons = match scope.and_then(|place| self.scope_mut(place)) {
            Some(scope) => {
                scope.complete = false;
                &mut scope.incomplete
            }
            None => &mut self.report.incomplete,
        };
        if reasons.len() < REASONS_KEPT {
            reasons.push(
                Escaped(
                    escape(reason)
                        .chars()
                        .take(REASON_CHARS)
                        .collect::<String>(),
                )
                .to_string(),
            );
        }
    }
}

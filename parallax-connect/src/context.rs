use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use parallax_core::{
    Attempt, Batch, BatchBuilder, ConnectorError, EmitError, Record, Rejection, ScopeReport,
    StepReport, StepStatus, excerpt, is_plain_name,
};
use tokio::sync::watch;
use tracing::Span;

use crate::limiter::Throttle;
use crate::prior::{Prior, Sealed};
use crate::pulse::Pulse;
use crate::telemetry;

/// What a step emits through, and what it knows about its run.
///
/// Cheap to clone; clones speak for the same step. It can be moved into spawned tasks and threads,
/// but what they emit after the step has ended does not count: it is [`EmitError::Closed`]. One
/// that is left behind keeps what [`prior`](Self::prior) gives in memory.
#[derive(Clone)]
pub struct StepContext {
    step: Arc<SharedStep>,
    scope: Option<u32>,
}

/// The runner's hold on one attempt of a step. Dropped before its [`end`](Self::end), as in a
/// cancelled run, it discards the attempt.
pub(crate) struct RunningStep(Arc<SharedStep>);

/// Counts as held up by a rate limit until it is dropped, however that comes about.
pub(crate) struct Throttled<'a>(&'a StepContext);

/// What the runner and all contexts of an attempt share.
struct SharedStep {
    step_id: String,
    run: Arc<SharedRun>,
    prior: Prior,
    /// `None` once the step has ended.
    attempt: Mutex<Option<OpenAttempt>>,
}

/// What all steps of a run share.
pub(crate) struct SharedRun {
    pub(crate) names: RunNames,
    /// True once the run is cancelled; closed once it is over.
    pub(crate) cancelled: watch::Receiver<bool>,
    pub(crate) pulse: Pulse,
}

/// The names of a run.
#[derive(Clone)]
pub(crate) struct RunNames {
    pub(crate) connector_id: Arc<str>,
    pub(crate) account_id: Arc<str>,
    pub(crate) sync_id: Arc<str>,
}

struct OpenAttempt {
    builder: BatchBuilder,
    sink: Box<dyn Attempt>,
    /// Why the sink took no more: the step fails, even if it passes over the error of `emit`.
    broken: Option<ConnectorError>,
    /// The batches for the steps that read this one; `None` if none does.
    sealed: Option<Vec<Arc<Batch>>>,
    scope_places: HashMap<String, u32>,
    report: Box<StepReport>,
    throttle: Throttle,
    rejected: Vec<Rejected>,
    span: Span,
}

/// The records of an attempt that broke one rule.
pub(crate) struct Rejected {
    pub(crate) rule: &'static str,
    pub(crate) count: u64,
    /// The first few, each with what is wrong with it.
    pub(crate) samples: Vec<String>,
}

/// What came of an attempt.
pub(crate) struct Ended {
    /// Without the step's names.
    pub(crate) report: Box<StepReport>,
    /// What the steps that read this one are given.
    pub(crate) sealed: Option<Arc<Sealed>>,
    pub(crate) rejected: Vec<Rejected>,
}

/// More reasons of one kind than a person wants to read are not kept.
const REASONS_KEPT: usize = 3;
const REASON_CHARS: usize = 300;
const SAMPLES_KEPT: usize = 3;
/// Of a scope's name that is not valid: few enough to make a valid one.
const SCOPE_CHARS: usize = 24;

impl StepContext {
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
    /// step, `.ok()` goes on without the record. [`EmitError::Closed`] if the step has ended, and
    /// [`EmitError::Sink`] if the records cannot be kept, which fails the step in any case.
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
        self.step.run.pulse.note_emission();
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
    /// [completed](Self::complete); a step that leaves one open counts as incomplete. Scopes do
    /// not nest: a scope of a scope is a scope of the step. The same name is the same scope.
    ///
    /// Names have 1 to 256 bytes without control characters. A scope of another name can be
    /// emitted in, but not be completed.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        let mut attempt = self.step.lock();
        let scope = attempt
            .as_mut()
            .map(|attempt| attempt.open_scope(name.as_ref()));
        Self {
            step: Arc::clone(&self.step),
            scope,
        }
    }

    /// Says that the whole scope was listed. On a context without scope it says nothing that the
    /// step's `Ok` does not say; after [`incomplete`](Self::incomplete) it is not believed.
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
        &self.step.run.names.connector_id
    }

    /// Returns the account that is read.
    pub fn account_id(&self) -> &str {
        &self.step.run.names.account_id
    }

    /// Returns the id of this run.
    pub fn sync_id(&self) -> &str {
        &self.step.run.names.sync_id
    }

    /// Returns the id of this step.
    pub fn step_id(&self) -> &str {
        &self.step.step_id
    }

    /// Tells whether what the step does has become pointless: the run was cancelled, or is over.
    ///
    /// A step that looks, between two pages say, and then returns [`ConnectorError::Cancelled`] can
    /// leave the system as it should be left. It gets [the grace](crate::Runner::grace) of the run
    /// for that.
    pub fn is_cancelled(&self) -> bool {
        self.step.run.is_cancelled()
    }

    /// Ends when the run is cancelled or over; see [`is_cancelled`](Self::is_cancelled).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn cancelled(&self) {
        let mut cancelled = self.step.run.cancelled.clone();
        // An error says that the run is over.
        let _ = cancelled.wait_for(|is_cancelled| *is_cancelled).await;
    }

    /// Counts the time until the guard is dropped as held up by a rate limit.
    pub(crate) fn throttled(&self) -> Throttled<'_> {
        self.update(|attempt, _| attempt.throttle.begin());
        Throttled(self)
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
        attempt.note_rejected(&name, &rejection);
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

impl Drop for Throttled<'_> {
    fn drop(&mut self) {
        let Self(ctx) = self;
        ctx.update(|attempt, _| attempt.report.throttled += attempt.throttle.end_one());
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

impl SharedRun {
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow() || self.cancelled.has_changed().is_err()
    }
}

impl RunningStep {
    /// Opens an attempt of a step.
    pub(crate) fn open(
        step_id: &str,
        run: Arc<SharedRun>,
        prior: Prior,
        sink: Box<dyn Attempt>,
        is_read: bool,
        span: Span,
    ) -> Self {
        Self(Arc::new(SharedStep {
            step_id: step_id.to_owned(),
            prior,
            attempt: Mutex::new(Some(OpenAttempt {
                builder: BatchBuilder::new(Arc::clone(&run.names.account_id)),
                sink,
                broken: None,
                sealed: is_read.then(Vec::new),
                scope_places: HashMap::new(),
                report: Box::new(StepReport::new("", "")),
                throttle: Throttle::default(),
                rejected: Vec::new(),
                span,
            })),
            run,
        }))
    }

    pub(crate) fn context(&self) -> StepContext {
        StepContext {
            step: Arc::clone(&self.0),
            scope: None,
        }
    }

    /// Ends the attempt, so that nothing can be emitted any more, and reports on it. What it emitted
    /// is accepted if `result` is `Ok` and the sink takes all of it, else discarded.
    pub(crate) fn end(self, result: Result<(), ConnectorError>) -> Ended {
        let attempt = self.0.lock().take();
        match attempt {
            Some(attempt) => attempt.end(result),
            // Only this ends it, and consumes it.
            None => Ended {
                report: Box::new(StepReport::new("", "")),
                sealed: None,
                rejected: Vec::new(),
            },
        }
    }

    /// Returns an eye on the attempt that does not keep it alive.
    pub(crate) fn observe(&self) -> Observed {
        Observed(Arc::downgrade(&self.0))
    }
}

/// What can be seen of an attempt from outside.
pub(crate) struct Observed(Weak<SharedStep>);

/// An attempt at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Glance {
    /// How many entities and relationships it has emitted.
    pub(crate) counts: (u64, u64),
    /// Whether it waits for a rate limit.
    pub(crate) is_throttled: bool,
}

impl Observed {
    /// Returns what it has done by now; `None` once it has ended.
    pub(crate) fn glance(&self) -> Option<Glance> {
        let step = self.0.upgrade()?;
        let attempt = step.lock();
        let attempt = attempt.as_ref()?;
        Some(Glance {
            counts: (attempt.report.entities, attempt.report.relationships),
            is_throttled: attempt.throttle.is_waiting(),
        })
    }

    /// Calls `tell` with the step's id and inside of its span, unless the attempt has ended.
    pub(crate) fn inspect(&self, tell: impl FnOnce(&str)) {
        let Some(step) = self.0.upgrade() else { return };
        let span = step.lock().as_ref().map(|attempt| attempt.span.clone());
        if let Some(span) = span {
            span.in_scope(|| tell(&step.step_id));
        }
    }
}

impl Drop for RunningStep {
    fn drop(&mut self) {
        // A context may outlive the run in a task of its own: what it emits goes nowhere.
        let discarded = self.0.lock().take();
        if let Some(discarded) = &discarded {
            discarded.span.in_scope(|| {
                let names = &self.0.run.names;
                telemetry::log_rejected(names, &self.0.step_id, &discarded.rejected);
            });
        }
        drop(discarded);
    }
}

impl SharedStep {
    fn lock(&self) -> MutexGuard<'_, Option<OpenAttempt>> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenAttempt {
    fn end(mut self, result: Result<(), ConnectorError>) -> Ended {
        let last = self.builder.take();
        let accepted = match self.broken.take() {
            None => result,
            Some(error) => Err(error),
        }
        .and_then(|()| last.map_or(Ok(()), |batch| self.write(batch)))
        .and_then(|()| self.sink.finish());

        // What a task waits for that outlives the step holds up nothing any more.
        let throttled = self.report.throttled + self.throttle.end();
        self.report.throttled = throttled;
        let (report, sealed) = match accepted {
            Ok(()) => {
                let mut report = self.report;
                let saw_all = report.incomplete.is_empty()
                    && report.scopes.iter().all(|scope| scope.complete);
                report.status = match saw_all {
                    true => StepStatus::Completed,
                    false => StepStatus::Incomplete,
                };
                let sealed = self.sealed.map(|batches| Arc::new(Sealed::new(batches)));
                (report, sealed)
            }
            Err(error) => {
                // Nothing of a failed attempt counts: neither its records nor what it saw. But the
                // time it took is gone.
                let mut failed = Box::new(StepReport::new("", ""));
                failed.status = StepStatus::Failed;
                failed.error = Some(error);
                failed.throttled = throttled;
                (failed, None)
            }
        };
        Ended {
            report,
            sealed,
            rejected: self.rejected,
        }
    }

    fn note_rejected(&mut self, record: &str, rejection: &Rejection) {
        let rule = rejection.rule();
        let known = self.rejected.iter().position(|known| known.rule == rule);
        let place = known.unwrap_or_else(|| {
            self.rejected.push(Rejected {
                rule,
                count: 0,
                samples: Vec::new(),
            });
            self.rejected.len() - 1
        });
        if let Some(rejected) = self.rejected.get_mut(place) {
            rejected.count += 1;
            if rejected.samples.len() < SAMPLES_KEPT {
                let sample = format!("{record}: {rejection}");
                rejected.samples.push(excerpt(&sample, REASON_CHARS));
            }
        }
    }

    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if let Some(sealed) = &mut self.sealed {
            sealed.push(Arc::clone(&batch));
        }
        self.sink
            .write(batch)
            .inspect_err(|error| self.broken = Some(error.clone()))
    }

    fn open_scope(&mut self, name: &str) -> u32 {
        let is_valid = is_plain_name(name);
        let name = match is_valid {
            true => name.to_owned(),
            // Where it then looks like another name it is that scope, which cannot be completed
            // any more either.
            false => excerpt(name, SCOPE_CHARS),
        };
        let scopes = &mut self.report.scopes;
        let place = *self.scope_places.entry(name).or_insert_with_key(|name| {
            scopes.push(ScopeReport {
                name: name.clone(),
                complete: false,
                incomplete: Vec::new(),
            });
            #[expect(clippy::cast_possible_truncation, reason = "memory ends long before")]
            let place = (scopes.len() - 1) as u32;
            place
        });
        if !is_valid {
            let reason = "its name is not 1 to 256 bytes without control characters";
            self.miss(Some(place), reason);
        }
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
            reasons.push(excerpt(reason, REASON_CHARS));
        }
    }
}

#[cfg(test)]
mod tests;

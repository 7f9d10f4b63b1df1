use std::time::Duration;

use crate::error::ConnectorError;

/// What each step of a run did, in the order of their declaration.
///
/// It travels with the output, so that "not emitted" is never taken for "gone": see
/// [`has_looked_everywhere`](Self::has_looked_everywhere).
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    steps: Vec<StepReport>,
}

/// What a step did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The step.
    pub step_id: String,
    /// Its title, for people.
    pub title: String,
    /// The steps it depends on or reads, as places in [`SyncReport::steps`].
    pub dependencies: Vec<usize>,
    /// How it ended.
    pub status: StepStatus,
    /// Why it failed, was skipped or was cancelled.
    pub error: Option<ConnectorError>,
    /// What the step said it did not see, outside of scopes: the first few reasons.
    pub incomplete: Vec<String>,
    /// The scopes that it opened, in order of opening.
    pub scopes: Vec<ScopeReport>,
    /// Whether the step said that there are no scopes but those it opened.
    pub all_scopes_listed: bool,
    /// Entities of the accepted attempt, duplicates and rejected ones included.
    pub entities: u64,
    /// Relationships of the accepted attempt, duplicates and rejected ones included.
    pub relationships: u64,
    /// Entities that `emit` rejected.
    pub entities_rejected: u64,
    /// Relationships that `emit` rejected.
    pub relationships_rejected: u64,
    /// Time from its first poll to its end.
    pub duration: Duration,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepStatus {
    /// It returned `Ok` and saw everything.
    Completed,
    /// It returned `Ok` and said that it did not see everything, in one scope or at all.
    Incomplete,
    /// It returned an error or panicked.
    Failed,
    /// It did not run, because a step that it depends on failed or was skipped.
    Skipped,
    /// It was running or waiting when the run was cancelled.
    Cancelled,
}

impl StepStatus {
    /// Returns the name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Tells whether the step returned `Ok`, so that what it emitted counts.
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Completed | Self::Incomplete)
    }
}

/// A part of what a step looks at, such as a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeReport {
    /// Its name, unique within the step.
    pub name: String,
    /// Whether the step said that it listed the whole scope, and nothing contradicts it.
    pub complete: bool,
    /// What the step said it did not see there: the first few reasons.
    pub incomplete: Vec<String>,
}

impl StepReport {
    /// Makes the report of a step that has not run.
    pub fn new(step_id: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            step_id: step_id.into(),
            title: title.into(),
            dependencies: Vec::new(),
            status: StepStatus::Cancelled,
            error: None,
            incomplete: Vec::new(),
            scopes: Vec::new(),
            all_scopes_listed: false,
            entities: 0,
            relationships: 0,
            entities_rejected: 0,
            relationships_rejected: 0,
            duration: Duration::ZERO,
        }
    }

    /// Returns the first reason why the step did not see everything, for people.
    pub fn reason(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(error.to_string());
        }
        if let Some(reason) = self.incomplete.first() {
            return Some(reason.clone());
        }
        let scope = self.scopes.iter().find(|scope| !scope.complete)?;
        Some(match scope.incomplete.first() {
            Some(reason) => format!("{}: {reason}", scope.name),
            None => format!("{}: was not completed", scope.name),
        })
    }

    /// Tells whether the step returned `Ok` and did not say that it missed something outside of
    /// its scopes.
    fn has_listed_its_scopes(&self) -> bool {
        self.status.is_ok() && self.incomplete.is_empty()
    }

    fn all_scopes_complete(&self) -> bool {
        self.scopes.iter().all(|scope| scope.complete)
    }

    fn scope_complete(&self, name: &str) -> bool {
        match self.scopes.iter().find(|scope| scope.name == name) {
            Some(scope) => scope.complete,
            None => self.all_scopes_listed,
        }
    }
}

impl SyncReport {
    /// Makes a report of steps in the order of their declaration.
    pub fn new(steps: Vec<StepReport>) -> Self {
        Self { steps }
    }

    /// Returns the steps in the order of their declaration.
    pub fn steps(&self) -> &[StepReport] {
        &self.steps
    }

    /// Finds a step by its id.
    pub fn step(&self, step_id: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.step_id == step_id)
    }

    /// Tells whether every declared step completed.
    pub fn is_complete(&self) -> bool {
        self.steps
            .iter()
            .all(|step| step.status == StepStatus::Completed)
    }

    /// Tells whether nothing of the run counts: no step returned `Ok`.
    pub fn is_failed(&self) -> bool {
        !self.steps.iter().any(|step| step.status.is_ok())
    }

    /// Tells whether a record that `step_id` once emitted in `scope` must be gone if it did not
    /// emit it again: the rule that earns every delete.
    ///
    /// The step returned `Ok` and missed nothing. It completed the scope; for a record without
    /// scope, every scope that it opened; for a scope it did not open, it said that there are no
    /// others. Every step upstream returned `Ok`, missed nothing, and completed all of its scopes
    /// or the one of the same name. Of a step that is no longer declared nothing can be known.
    pub fn has_looked_everywhere(&self, step_id: &str, scope: Option<&str>) -> bool {
        let Some(place) = self.steps.iter().position(|step| step.step_id == step_id) else {
            return false;
        };
        let own = self.steps.get(place).is_some_and(|step| {
            step.has_listed_its_scopes()
                && scope.map_or_else(
                    || step.all_scopes_complete(),
                    |name| step.scope_complete(name),
                )
        });
        own && self.ancestors(place).into_iter().all(|ancestor| {
            ancestor.has_listed_its_scopes()
                && (ancestor.all_scopes_complete()
                    || scope.is_some_and(|name| {
                        ancestor
                            .scopes
                            .iter()
                            .any(|scope| scope.name == name && scope.complete)
                    }))
        })
    }

    fn ancestors(&self, place: usize) -> Vec<&StepReport> {
        let mut seen = vec![false; self.steps.len()];
        let mut todo = vec![place];
        let mut ancestors = Vec::new();
        while let Some(step) = todo.pop().and_then(|place| self.steps.get(place)) {
            for &dependency in &step.dependencies {
                if let (Some(seen), Some(ancestor)) =
                    (seen.get_mut(dependency), self.steps.get(dependency))
                    && !std::mem::replace(seen, true)
                {
                    ancestors.push(ancestor);
                    todo.push(dependency);
                }
            }
        }
        ancestors
    }
}

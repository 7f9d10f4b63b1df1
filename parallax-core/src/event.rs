use std::time::Duration;

use crate::error::ConnectorError;

/// What happens in a run, as it happens.
///
/// `Started` comes first. Each step of the run ends exactly once, in `StepCompleted` or
/// `StepFailed`, after its `StepStarted`, however often it was tried; only a step that is skipped
/// because one it depends on failed, or cancelled before it began, has no `StepStarted`. A step
/// that was not selected is no step of the run, and has no event. `Completed` comes last, in every
/// run that returns `Ok`.
///
/// The five variants and their fields are a promise: they can be matched without a `_` arm.
#[derive(Clone, Debug)]
pub enum SyncEvent {
    /// The run began.
    Started {
        /// The connector.
        connector_id: String,
        /// This run.
        sync_id: String,
    },
    /// A step began.
    StepStarted {
        /// The step.
        step_id: String,
    },
    /// A step returned `Ok`; all it emitted counts.
    StepCompleted {
        /// The step.
        step_id: String,
        /// Entities it emitted, duplicates and rejected ones included.
        entities: usize,
        /// Relationships it emitted, duplicates and rejected ones included.
        relationships: usize,
        /// Time since its `StepStarted`, attempts that failed and pauses between them included.
        duration: Duration,
    },
    /// A step failed, panicked, timed out, was skipped or cancelled; nothing it emitted counts.
    StepFailed {
        /// The step.
        step_id: String,
        /// Why.
        error: ConnectorError,
    },
    /// The run ended; its output is returned.
    Completed {
        /// The connector.
        connector_id: String,
        /// This run.
        sync_id: String,
    },
}

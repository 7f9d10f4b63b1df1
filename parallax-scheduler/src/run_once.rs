use std::time::{Duration, Instant};

use parallax_connect::{RunError, Runner};
use parallax_core::{ConnectorOutput, Escaped, StepStatus};
use parallax_store::{CommitError, CommitResult, Outcome, Session};

/// A sync that was run and committed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Synced {
    /// What the run emitted, and what each step did.
    pub output: ConnectorOutput,
    /// What the commit did.
    pub result: CommitResult,
    /// How long the commit took.
    pub commit_duration: Duration,
}

/// Why a sync was not committed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The run did not start, or was cancelled.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run ended, and the commit failed.
    #[error("{error}")]
    Commit {
        /// What the run emitted.
        output: Box<ConnectorOutput>,
        /// Why the commit failed.
        #[source]
        error: CommitError,
    },
    /// What is no step panicked, such as a foreign sink: the sync ended there, and nothing of it
    /// was committed, unless that was under way. Only a [`Scheduler`](crate::Scheduler) tells so.
    #[error("the sync panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// Runs a connector into a session, commits what it found, and logs what the commit did in one line;
/// in one more, if deletes are held. The store keeps the journal of both.
///
/// The output holds the report and no records: those are in the session. A sync of which only a part
/// counted is committed and logged as partial, with what was kept and why. One of which nothing
/// counted is recorded and logged as failed; it is no error.
///
/// # Errors
///
/// [`SyncError`] if nothing was committed.
///
/// # Cancel safety
///
/// Dropping the future cancels the run, and nothing is committed. A commit that has begun goes on.
pub async fn run_once(
    runner: Runner<'_>,
    account_id: &str,
    sync_id: &str,
    session: Session<'_>,
) -> Result<Synced, SyncError> {
    let output = run(runner, account_id, sync_id, &session).await?;
    commit(output, session).await
}

/// Runs a connector into a session.
pub(crate) async fn run(
    runner: Runner<'_>,
    account_id: &str,
    sync_id: &str,
    session: &Session<'_>,
) -> Result<ConnectorOutput, RunError> {
    let runner = runner.sink(session).journal(session.journal());
    runner.run(account_id, sync_id).await
}

/// Commits what a run found, and logs what that did.
pub(crate) async fn commit(
    output: ConnectorOutput,
    session: Session<'_>,
) -> Result<Synced, SyncError> {
    let started = Instant::now();
    match session.commit(&output).await {
        Ok(result) => {
            let synced = Synced {
                output,
                result,
                commit_duration: started.elapsed(),
            };
            log_commit(&synced);
            Ok(synced)
        }
        Err(error) => {
            let run = output.run();
            tracing::error!(
                connector_id = %run.connector_id,
                account_id = %Escaped(&run.account_id),
                sync_id = %Escaped(&run.sync_id),
                code = error.code(),
                error = %Escaped(&error),
                "Commit failed"
            );
            Err(SyncError::Commit {
                output: Box::new(output),
                error,
            })
        }
    }
}

fn log_commit(
    Synced {
        output,
        result,
        commit_duration,
    }: &Synced,
) {
    let run = output.run();
    let steps = output.report().steps();
    let stats = result.stats;
    // One macro call per level and message, since both are static; the fields are the same.
    macro_rules! line {
        ($level:ident, $message:literal $(, $name:ident = $value:expr)*) => {
            tracing::$level!(
                connector_id = %run.connector_id,
                account_id = %Escaped(&run.account_id),
                sync_id = %Escaped(&run.sync_id),
                entities = steps.iter().map(|step| step.entities).sum::<u64>(),
                relationships = steps.iter().map(|step| step.relationships).sum::<u64>(),
                entities_created = stats.entities_created,
                entities_updated = stats.entities_updated,
                entities_unchanged = stats.entities_unchanged,
                entities_deleted = stats.entities_deleted,
                entities_kept = stats.entities_kept,
                relationships_created = stats.relationships_created,
                relationships_updated = stats.relationships_updated,
                relationships_unchanged = stats.relationships_unchanged,
                relationships_deleted = stats.relationships_deleted,
                relationships_kept = stats.relationships_kept,
                replayed = result.replayed,
                duration_ms = millis(run.duration),
                commit_duration_ms = millis(*commit_duration),
                $($name = $value,)*
                $message
            )
        };
    }
    match result.outcome {
        Outcome::Committed => line!(info, "Sync committed"),
        Outcome::Partial => line!(warn, "Sync partial", reason = reasons(output)),
        Outcome::Failed => line!(warn, "Sync failed", reason = reasons(output)),
    }
    if let Some(changeset) = result.held_changeset {
        tracing::warn!(
            connector_id = %run.connector_id,
            account_id = %Escaped(&run.account_id),
            sync_id = %Escaped(&run.sync_id),
            changeset,
            entities_held = stats.entities_held,
            relationships_held = stats.relationships_held,
            reason = %Escaped(result.held_because.as_deref().unwrap_or_default()),
            "Deletes held"
        );
    }
}

/// Why records were kept, step by step: the first few.
fn reasons(output: &ConnectorOutput) -> String {
    let steps = output.report().steps().iter();
    let mut reasons = steps
        .filter(|step| step.status != StepStatus::Completed)
        .map(|step| {
            let reason = step.reason().unwrap_or_default();
            format!("step {} {}: {reason}", step.step_id, step.status.as_str())
        });
    let mut text = reasons.by_ref().take(3).collect::<Vec<_>>().join("; ");
    let more = reasons.count();
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

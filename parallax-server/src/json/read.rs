use std::collections::HashMap;
use std::time::Duration;

use parallax_connect::{ConnectorError, StepReport, StepStatus, SyncReport};
use parallax_core::{Counts, RecordKind, SyncStats};
use parallax_store::{Action, Change, Outcome, PropertyChange, TypeCounts};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::conclusion::{Committed, Conclusion};
use crate::error::{Failure, Unreachable};
use crate::exit::Exit;

/// What a sync came to, read from its JSON object.
#[derive(Deserialize)]
pub(crate) struct Told {
    outcome: String,
    replayed: bool,
    stats: HashMap<String, u64>,
    held_changeset: Option<u64>,
    held_because: Option<String>,
    steps: Vec<Step>,
    undelivered_events: u64,
    error: Option<Error>,
    exit_code: u8,
    types: Vec<Type>,
    changes: Vec<ToldChange>,
}

#[derive(Deserialize)]
struct Step {
    step_id: String,
    status: String,
    entities: u64,
    relationships: u64,
    throttled_ms: u64,
    duration_ms: u64,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Error {
    code: String,
    message: String,
    help: String,
}

#[derive(Deserialize)]
struct Type {
    kind: String,
    name: String,
    created: u64,
    updated: u64,
    unchanged: u64,
    deleted: u64,
    kept: u64,
    held: u64,
}

#[derive(Deserialize)]
struct ToldChange {
    action: String,
    kind: String,
    id: String,
    name: String,
    key: String,
    display_name: String,
    reason: Option<String>,
    properties: Vec<Property>,
}

#[derive(Deserialize)]
struct Property {
    name: String,
    #[serde(default, deserialize_with = "raw")]
    before: Option<String>,
    #[serde(default, deserialize_with = "raw")]
    after: Option<String>,
}

/// Null is a value, and what is not there is none.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    Ok(Some(value.get().to_owned()))
}

impl Told {
    /// Notes it in the conclusion of a sync that somebody else has run. What a later version tells,
    /// and this one has no name for, is left out.
    ///
    /// # Errors
    ///
    /// [`Failure`] if nothing was committed.
    pub(crate) fn note(self, conclusion: &mut Conclusion) -> Result<(), Failure> {
        let steps = self.steps.into_iter().filter_map(Step::report).collect();
        conclusion.report = Some(SyncReport::new(steps));
        conclusion.undelivered_events = self.undelivered_events;
        let failure = self.error.map(|error| error.failure(self.exit_code));
        // One of which no step completed has been recorded, with counts.
        let is_recorded = matches!(&failure, None | Some(Failure::NoStepCompleted { .. }));
        let outcomes = [Outcome::Committed, Outcome::Partial, Outcome::Failed];
        let outcome = outcomes.into_iter().find(|it| it.as_str() == self.outcome);
        if let Some(outcome) = outcome.filter(|_| is_recorded) {
            let stat = |name: &str| self.stats.get(name).copied().unwrap_or_default();
            let changes = self.changes.into_iter();
            conclusion.committed = Some(Committed {
                stats: SyncStats::from_values(SyncStats::FIELDS.map(stat)),
                outcome,
                replayed: self.replayed,
                held_changeset: self.held_changeset,
                held_because: self.held_because,
                types: self.types.into_iter().filter_map(Type::counts).collect(),
                changes: changes.filter_map(ToldChange::change).collect(),
            });
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Step {
    fn report(self) -> Option<StepReport> {
        let statuses = [
            StepStatus::Completed,
            StepStatus::Incomplete,
            StepStatus::Failed,
            StepStatus::Skipped,
            StepStatus::Cancelled,
            StepStatus::NotSelected,
        ];
        let mut report = StepReport::new(self.step_id, "");
        report.status = statuses.into_iter().find(|it| it.as_str() == self.status)?;
        report.entities = self.entities;
        report.relationships = self.relationships;
        report.throttled = Duration::from_millis(self.throttled_ms);
        report.duration = Duration::from_millis(self.duration_ms);
        match report.status {
            StepStatus::NotSelected => {}
            StepStatus::Incomplete => report.incomplete.extend(self.error),
            _ => report.error = self.error.map(ConnectorError::fatal),
        }
        Some(report)
    }
}

impl Error {
    fn failure(self, exit_code: u8) -> Failure {
        let cause = match self.code.as_str() {
            "no_step_completed" => None,
            "unauthorized" => Some(Unreachable::Unauthorized),
            "unreachable" => Some(Unreachable::Unavailable),
            _ => {
                return Failure::Told {
                    code: self.code,
                    message: self.message,
                    help: self.help,
                    exit: Exit::of(exit_code).unwrap_or(Exit::Failed),
                };
            }
        };
        Failure::NoStepCompleted { cause }
    }
}

impl Type {
    fn counts(self) -> Option<TypeCounts> {
        Some(TypeCounts {
            kind: kind(&self.kind)?,
            name: self.name,
            counts: Counts {
                created: self.created,
                updated: self.updated,
                unchanged: self.unchanged,
                deleted: self.deleted,
                kept: self.kept,
                held: self.held,
                ..Counts::default()
            },
        })
    }
}

impl ToldChange {
    fn change(self) -> Option<Change> {
        let actions = [
            Action::Created,
            Action::Updated,
            Action::Deleted,
            Action::Held,
        ];
        let properties = self.properties.into_iter().map(|property| PropertyChange {
            name: property.name,
            before: property.before,
            after: property.after,
        });
        Some(Change {
            action: actions
                .into_iter()
                .find(|action| action.as_str() == self.action)?,
            kind: kind(&self.kind)?,
            id: self.id,
            name: self.name,
            key: self.key,
            display_name: self.display_name,
            reason: self.reason,
            properties: properties.collect(),
        })
    }
}

fn kind(name: &str) -> Option<RecordKind> {
    RecordKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::render;
    use crate::summary;
    use crate::testing::{first, later, partial};

    #[test]
    fn what_is_read_is_told_the_same() {
        let mut held = later();
        if let Some(committed) = &mut held.committed {
            committed.held_changeset = Some(7);
            committed.held_because = Some("\"all\" of it\u{1b}".to_owned());
        }
        let mut failed = partial();
        if let Some(committed) = &mut failed.committed {
            committed.outcome = Outcome::Failed;
        }
        failed.failure = Some(Failure::NoStepCompleted {
            cause: Some(Unreachable::Unavailable),
        });
        let superseded = Conclusion {
            failure: Some(Failure::Told {
                code: "superseded".to_owned(),
                message: "a later run has been committed".to_owned(),
                help: "nothing".to_owned(),
                exit: Exit::Failed,
            }),
            report: partial().report,
            ..Conclusion::default()
        };
        for conclusion in [first(), later(), partial(), held, failed, superseded] {
            let json = render(&conclusion);
            let told: Told = serde_json::from_str(&json).unwrap();
            let mut read = Conclusion {
                report: None,
                committed: None,
                failure: None,
                ..conclusion
            };
            read.failure = told.note(&mut read).err();
            assert_eq!(render(&read), json);
            let whole = summary::render(&read);
            assert_eq!(whole.is_empty(), read.committed.is_none(), "{whole}");
        }
    }
}

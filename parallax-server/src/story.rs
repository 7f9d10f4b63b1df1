use std::collections::HashMap;

use parallax_core::{JournalEntry, JournalKind};
use parallax_store::{JournalName, Store, StoreError};

use crate::connectors::ListedStep;

/// What a journal tells of the steps of a sync, as far as it goes.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// The connector's version; may be empty.
    pub(crate) connector_version: String,
    /// When the run began, in microseconds, once it has.
    began: Option<i64>,
    /// In the order in which they are declared.
    pub(crate) steps: Vec<StepStory>,
    places: HashMap<String, usize>,
}

/// What is told of a step.
#[derive(Debug, Default)]
pub(crate) struct StepStory {
    pub(crate) step_id: String,
    pub(crate) depends_on: Vec<String>,
    /// How it ended, or `waiting`, `running` or `retrying`.
    pub(crate) status: String,
    /// How often it was begun.
    pub(crate) attempts: u32,
    /// How long after the run.
    pub(crate) started_after_ms: Option<u64>,
    pub(crate) entities: u64,
    pub(crate) relationships: u64,
    /// How long it took, once it has ended.
    pub(crate) duration_ms: Option<u64>,
    /// Why it did not complete.
    pub(crate) reason: Option<String>,
}

impl Story {
    /// Reads what a store has of a journal, and returns the number of the entry that comes next;
    /// nothing of one that it has not, or no longer from the beginning.
    pub(crate) async fn read(store: &Store, name: &JournalName) -> Result<(Self, u64), StoreError> {
        let mut story = Self::default();
        let mut next = 1;
        loop {
            let page = match store.journal(name, next).await {
                Ok(page) => page,
                Err(StoreError::NoSuchJournal { .. }) => return Ok((story, next)),
                Err(error) => return Err(error),
            };
            if page.lines.is_empty() {
                return Ok((story, next));
            }
            page.lines.iter().for_each(|line| story.note(line));
            next = page.next;
        }
    }

    /// Tells of a sync that is yet to begin.
    pub(crate) fn awaited(connector_version: &str, steps: &[ListedStep]) -> Self {
        let steps = steps.iter().map(|step| StepStory {
            step_id: step.step_id.clone(),
            depends_on: step.depends_on.clone(),
            status: "waiting".to_owned(),
            ..StepStory::default()
        });
        Self {
            connector_version: connector_version.to_owned(),
            steps: steps.collect(),
            ..Self::default()
        }
    }

    /// Returns when the run began.
    pub(crate) fn began(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(self.began?).ok()
    }

    /// Returns what is told of a step.
    pub(crate) fn step(&self, step_id: &str) -> Option<&StepStory> {
        self.steps.get(*self.places.get(step_id)?)
    }

    /// Takes the next entry. One that this version cannot read tells nothing.
    pub(crate) fn note(&mut self, line: &str) {
        let Ok(entry) = JournalEntry::from_json(line) else {
            return;
        };
        let at = entry.at.as_micros();
        if let JournalKind::Started {
            connector_version,
            steps,
        } = entry.kind
        {
            *self = Self {
                connector_version,
                began: Some(at),
                ..Self::default()
            };
            for step in steps {
                self.places.insert(step.step_id.clone(), self.steps.len());
                let status = if step.selected {
                    "waiting"
                } else {
                    "not_selected"
                };
                self.steps.push(StepStory {
                    step_id: step.step_id,
                    depends_on: step.depends_on,
                    status: status.to_owned(),
                    ..StepStory::default()
                });
            }
            return;
        }
        let after_ms = at.saturating_sub(self.began.unwrap_or(at)) / 1_000;
        let place = entry.kind.step_id().and_then(|id| self.places.get(id));
        if let Some(step) = place.and_then(|place| self.steps.get_mut(*place)) {
            step.note(entry.kind, u64::try_from(after_ms).unwrap_or_default());
        }
    }
}

impl StepStory {
    fn note(&mut self, kind: JournalKind, after_ms: u64) {
        match kind {
            JournalKind::StepStarted { .. } => {
                self.status = "running".to_owned();
                self.attempts = 1;
                self.started_after_ms = Some(after_ms);
            }
            JournalKind::StepProgress {
                entities,
                relationships,
                ..
            } => (self.entities, self.relationships) = (entities, relationships),
            JournalKind::StepRetrying { error, .. } => {
                self.status = "retrying".to_owned();
                (self.entities, self.relationships) = (0, 0);
                self.reason = Some(error.message);
            }
            JournalKind::StepRestarted { attempt, .. } => {
                self.status = "running".to_owned();
                self.attempts = attempt;
                self.reason = None;
            }
            JournalKind::StepCompleted {
                status,
                reason,
                attempts,
                entities,
                relationships,
                duration_ms,
                ..
            } => {
                (self.status, self.reason, self.attempts) = (status, reason, attempts);
                (self.entities, self.relationships) = (entities, relationships);
                self.duration_ms = Some(duration_ms);
            }
            JournalKind::StepFailed {
                status,
                error,
                attempts,
                duration_ms,
                ..
            } => {
                (self.status, self.reason, self.attempts) = (status, Some(error.message), attempts);
                (self.entities, self.relationships) = (0, 0);
                self.duration_ms = Some(duration_ms);
            }
            JournalKind::StepSkipped { error, .. } => {
                self.status = "skipped".to_owned();
                self.reason = Some(error.message);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_what_was_told_last() {
        let mut story = Story::default();
        let mut told = Vec::new();
        let error = r#""error":{"kind":"retryable","message":"503"}"#;
        let entries = [
            (
                0,
                r#""kind":"started","connector_version":"7","steps":[
                {"step_id":"a","title":"A","depends_on":[],"selected":true},
                {"step_id":"b","title":"B","depends_on":["a"],"selected":true},
                {"step_id":"c","title":"C","depends_on":[],"selected":false}]"#
                    .to_owned(),
            ),
            (1, r#""kind":"step_started","step_id":"a""#.to_owned()),
            (
                2,
                r#""kind":"step_progress","step_id":"a","entities":5,"relationships":1"#.to_owned(),
            ),
            (
                3,
                format!(r#""kind":"step_retrying","step_id":"a","attempt":1,{error},"pause_ms":9"#),
            ),
            (
                4,
                r#""kind":"step_restarted","step_id":"a","attempt":2"#.to_owned(),
            ),
            (
                5,
                format!(
                    r#""kind":"step_failed","step_id":"a","status":"failed",{error},"attempts":2,"duration_ms":4000"#
                ),
            ),
            (6, format!(r#""kind":"step_skipped","step_id":"b",{error}"#)),
        ];
        for (second, entry) in entries {
            story.note(&format!(
                r#"{{"v":1,"seq":1,"at":"2026-01-01T00:00:0{second}Z","connector_id":"t","account_id":"a","sync_id":"s",{entry}}}"#
            ));
            let steps = story.steps.iter().map(|step| {
                let reason = step.reason.as_deref().unwrap_or("-");
                let (status, attempts, n) = (&step.status, step.attempts, step.entities);
                format!(
                    "{}: {status} {attempts} {n} {reason} {:?}",
                    step.step_id, step.started_after_ms
                )
            });
            told.push(steps.collect::<Vec<_>>().join(", "));
        }
        insta::assert_snapshot!(told.join("\n"), @"
        a: waiting 0 0 - None, b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: running 1 0 - Some(1000), b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: running 1 5 - Some(1000), b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: retrying 1 0 503 Some(1000), b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: running 2 0 - Some(1000), b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: failed 2 0 503 Some(1000), b: waiting 0 0 - None, c: not_selected 0 0 - None
        a: failed 2 0 503 Some(1000), b: skipped 0 0 503 None, c: not_selected 0 0 - None
        ");
        assert_eq!(story.step("b").unwrap().depends_on, ["a"]);
        story.note("not an entry");
    }
}

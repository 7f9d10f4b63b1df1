use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parallax_connect::{JournalEntry, JournalKind, JournalSink};
use parallax_core::escape;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use crate::text::{FAINT, GOOD, ODD, WRONG, counts, paint, seconds};

/// More running steps than this are a number.
const STEPS_SHOWN: usize = 8;
const REDRAWS_PER_SECOND: u8 = 8;

/// Returns bars on the standard error, hidden unless it is a terminal.
pub(crate) fn bars() -> MultiProgress {
    MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND))
}

/// Returns bars that nobody sees.
pub(crate) fn no_bars() -> MultiProgress {
    MultiProgress::with_draw_target(ProgressDrawTarget::hidden())
}

/// Passes the entries of a journal on to whoever [shows](show) them.
pub(crate) struct Watcher(UnboundedSender<JournalKind>);

impl Watcher {
    /// Makes one, and what it passes on.
    pub(crate) fn new() -> (Arc<Self>, UnboundedReceiver<JournalKind>) {
        let (sender, entries) = unbounded_channel();
        (Arc::new(Self(sender)), entries)
    }
}

impl JournalSink for Watcher {
    fn append(&self, entry: &JournalEntry) {
        // An error says that nobody watches any more.
        self.0.send(entry.kind.clone()).ok();
    }
}

/// What a step did the last time that all steps of its connector completed.
pub(crate) struct Past {
    pub(crate) records: u64,
    pub(crate) duration: Duration,
}

/// Shows a run from its journal, until there is no more: a line for each running step, and one that
/// stays for each that has ended. `then` is what goes on after the last step.
pub(crate) async fn show(
    mut entries: UnboundedReceiver<JournalKind>,
    past: HashMap<String, Past>,
    then: &'static str,
    bars: MultiProgress,
) {
    let mut board = Board::new(past);
    let mut lines: Vec<ProgressBar> = Vec::new();
    let mut redraw = interval(Duration::from_secs(1) / u32::from(REDRAWS_PER_SECOND));
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = None;
    loop {
        tokio::select! {
            entry = entries.recv() => match entry {
                Some(JournalKind::Completed { .. }) => waiting = Some(show_waiting(then, &bars)),
                Some(entry) => {
                    if let Some(ended) = board.note(entry) {
                        bars.println(styled(ended)).ok();
                    }
                }
                None => break,
            },
            _ = redraw.tick() => {}
        }
        let texts = board.lines();
        while lines.len() > texts.len() {
            if let Some(line) = lines.pop() {
                bars.remove(&line);
            }
        }
        while lines.len() < texts.len() {
            lines.push(bars.add(spinner()));
        }
        for (line, text) in lines.iter().zip(texts) {
            line.set_message(styled(text));
            line.tick();
        }
    }
    drop(waiting);
    for line in lines {
        bars.remove(&line);
    }
}

/// Shows that something is going on, until the answer is dropped.
fn show_waiting(what: &'static str, bars: &MultiProgress) -> Waiting {
    let line = bars.add(spinner());
    line.set_message(what);
    line.enable_steady_tick(Duration::from_secs(1) / u32::from(REDRAWS_PER_SECOND));
    Waiting(line)
}

/// A line on the terminal, gone when it is dropped.
struct Waiting(ProgressBar);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn styled(line: String) -> String {
    match anstream::AutoStream::choice(&std::io::stderr()) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(&line).to_string(),
        _ => line,
    }
}

/// What is known of the run.
struct Board {
    past: HashMap<String, Past>,
    titles: HashMap<String, String>,
    id_width: usize,
    running: Vec<Running>,
}

/// A step that has begun and not ended.
struct Running {
    step_id: String,
    since: Instant,
    entities: u64,
    relationships: u64,
    /// What is not as it should be.
    trouble: Option<String>,
}

impl Board {
    fn new(past: HashMap<String, Past>) -> Self {
        Self {
            past,
            titles: HashMap::new(),
            id_width: 0,
            running: Vec::new(),
        }
    }

    /// Returns the line of each running step, oldest first, and of how many more there are.
    fn lines(&self) -> Vec<String> {
        let steps = self.running.iter().take(STEPS_SHOWN);
        let mut lines: Vec<String> = steps.map(|step| self.line(step)).collect();
        if let more @ 1.. = self.running.len().saturating_sub(STEPS_SHOWN) {
            lines.push(format!("{more} more"));
        }
        lines
    }

    fn line(&self, step: &Running) -> String {
        let width = self.id_width;
        let title = self.titles.get(&step.step_id).map_or("", String::as_str);
        let mut parts = vec![format!("{:<width$}", step.step_id), title.to_owned()];
        let records = step.entities + step.relationships;
        let running = step.since.elapsed();
        if records > 0 {
            parts.push(counts(step.entities, step.relationships));
            // Before that it is nothing but noise.
            if running.as_secs() >= 2 {
                let rate = records / running.as_secs();
                parts.push(format!("{}/s", HumanCount(rate)));
            }
        }
        parts.push(seconds_running(running));
        if let Some(past) = self.past.get(&step.step_id) {
            parts.push(paint(FAINT, past.compared(records, running)));
        }
        parts.extend(step.trouble.as_ref().map(|trouble| paint(ODD, trouble)));
        parts.retain(|part| !part.is_empty());
        parts.join("  ").trim_end().to_owned()
    }

    /// Takes note of an entry. Returns the line of a step that it ends.
    fn note(&mut self, entry: JournalKind) -> Option<String> {
        let width = self.id_width;
        match entry {
            JournalKind::Started { steps, .. } => {
                self.id_width = steps.iter().map(|step| step.step_id.len()).max()?;
                let titles = steps.into_iter();
                self.titles = titles
                    .map(|step| (step.step_id, escape(&step.title).into_owned()))
                    .collect();
                None
            }
            JournalKind::StepStarted { step_id } => {
                self.running.push(Running {
                    step_id,
                    since: Instant::now(),
                    entities: 0,
                    relationships: 0,
                    trouble: None,
                });
                None
            }
            JournalKind::StepProgress {
                step_id,
                entities,
                relationships,
            } => {
                let step = self.step(&step_id)?;
                (step.entities, step.relationships) = (entities, relationships);
                step.trouble = None;
                None
            }
            JournalKind::StepRetrying {
                step_id,
                attempt,
                error,
                pause_ms,
            } => {
                let step = self.step(&step_id)?;
                (step.entities, step.relationships) = (0, 0);
                let pause = seconds(Duration::from_millis(pause_ms));
                step.trouble = Some(format!(
                    "attempt {attempt} failed: {error}; the next after {pause}"
                ));
                None
            }
            JournalKind::StepRestarted { step_id, attempt } => {
                self.step(&step_id)?.trouble = Some(format!("attempt {attempt}"));
                None
            }
            JournalKind::StepStalled {
                step_id,
                idle_ms,
                blocking,
            } => {
                let idle = seconds(Duration::from_millis(idle_ms));
                self.step(&step_id)?.trouble = Some(match blocking {
                    true => format!("has blocked its thread for {idle}"),
                    false => format!("nothing new for {idle}"),
                });
                None
            }
            JournalKind::StepCompleted {
                step_id,
                entities,
                relationships,
                duration_ms,
                reason,
                ..
            } => {
                self.running.retain(|step| step.step_id != step_id);
                let mark = match reason {
                    None => paint(GOOD, "✓"),
                    Some(_) => paint(ODD, "✓"),
                };
                let found = counts(entities, relationships);
                let took = paint(FAINT, seconds(Duration::from_millis(duration_ms)));
                let reason = reason.map(|reason| format!("  {}", paint(ODD, reason)));
                let reason = reason.unwrap_or_default();
                Some(format!("{mark} {step_id:<width$}  {found}  {took}{reason}"))
            }
            JournalKind::StepFailed {
                step_id,
                status,
                error,
                ..
            } => {
                self.running.retain(|step| step.step_id != step_id);
                let mark = match status.as_str() {
                    "cancelled" => paint(ODD, "-"),
                    _ => paint(WRONG, "✗"),
                };
                Some(format!("{mark} {step_id:<width$}  {error}"))
            }
            JournalKind::StepSkipped { step_id, error } => {
                let mark = paint(ODD, "-");
                Some(format!("{mark} {step_id:<width$}  {error}"))
            }
            _ => None,
        }
    }

    fn step(&mut self, step_id: &str) -> Option<&mut Running> {
        self.running.iter_mut().find(|step| step.step_id == step_id)
    }
}

impl Past {
    /// Says how far a step has got that has emitted so much in so long; nothing of a short one.
    fn compared(&self, records: u64, running: Duration) -> String {
        if self.duration.as_secs() == 0 {
            return String::new();
        }
        let (done, all) = match (records, self.records) {
            (0, _) | (_, 0) => (running.as_secs_f64(), self.duration.as_secs_f64()),
            (some, all) => (some as f64, all as f64),
        };
        match 100.0 * done / all {
            percent @ 0.0..=100.0 => format!("about {percent:.0} %"),
            _ => "more than the last time".to_owned(),
        }
    }
}

/// Whole seconds, once there are some: digits that change eight times a second only distract.
fn seconds_running(duration: Duration) -> String {
    match duration.as_secs() {
        0 => String::new(),
        s @ 1..60 => format!("{s} s"),
        _ => seconds(duration),
    }
}

#[cfg(test)]
mod tests {
    use parallax_connect::JournalError;
    use parallax_core::StepOutline;

    use super::*;

    fn board(steps: &[&str]) -> Board {
        let outline = |id: &&str| StepOutline {
            step_id: (*id).to_owned(),
            title: format!("Collect {id}"),
            depends_on: Vec::new(),
            selected: true,
        };
        let mut board = Board::new(HashMap::new());
        board.note(JournalKind::Started {
            connector_version: String::new(),
            steps: steps.iter().map(outline).collect(),
        });
        board
    }

    fn start(step_id: &str) -> JournalKind {
        JournalKind::StepStarted {
            step_id: step_id.to_owned(),
        }
    }

    fn progress(step_id: &str, entities: u64) -> JournalKind {
        JournalKind::StepProgress {
            step_id: step_id.to_owned(),
            entities,
            relationships: 0,
        }
    }

    fn error(message: &str) -> JournalError {
        JournalError {
            kind: "retryable".to_owned(),
            message: message.to_owned(),
        }
    }

    fn shown(board: &Board) -> String {
        anstream::adapter::strip_str(&board.lines().join("\n")).to_string()
    }

    #[test]
    fn each_running_step_has_a_line_and_each_ended_one_leaves_one() {
        let mut board = board(&["users", "roles", "role_users"]);
        board.note(start("users"));
        board.note(start("roles"));
        insta::assert_snapshot!(shown(&board), @"
        users       Collect users
        roles       Collect roles
        ");
        let ended = [
            board.note(JournalKind::StepCompleted {
                step_id: "users".to_owned(),
                status: "incomplete".to_owned(),
                reason: Some("page 2 timed out".to_owned()),
                attempts: 1,
                entities: 1_200,
                relationships: 0,
                rejected: 0,
                duration_ms: 1_234,
                throttled_ms: 0,
            }),
            board.note(JournalKind::StepFailed {
                step_id: "roles".to_owned(),
                status: "failed".to_owned(),
                error: error(r"connection\nreset"),
                attempts: 4,
                duration_ms: 9_000,
                throttled_ms: 0,
            }),
            board.note(JournalKind::StepSkipped {
                step_id: "role_users".to_owned(),
                error: error("step roles did not complete"),
            }),
        ];
        let ended: Vec<String> = ended.into_iter().flatten().collect();
        insta::assert_snapshot!(anstream::adapter::strip_str(&ended.join("\n")), @r"
        ✓ users       1,200 entities  1.23 s  page 2 timed out
        ✗ roles       connection\nreset
        - role_users  step roles did not complete
        ");
        assert!(board.lines().is_empty());
    }

    #[test]
    fn running_step_shows_how_far_it_is_and_what_is_wrong() {
        let mut board = board(&["users"]);
        let past = Past {
            records: 4_000,
            duration: Duration::from_secs(60),
        };
        board.past.insert("users".to_owned(), past);
        board.note(start("users"));
        board.note(progress("users", 1_000));
        let mut story = vec![shown(&board)];
        if let Some(step) = board.step("users") {
            step.since = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        }
        story.push(shown(&board));
        board.note(JournalKind::StepRetrying {
            step_id: "users".to_owned(),
            attempt: 1,
            error: error("503"),
            pause_ms: 2_000,
        });
        story.push(shown(&board));
        board.note(JournalKind::StepRestarted {
            step_id: "users".to_owned(),
            attempt: 2,
        });
        story.push(shown(&board));
        board.note(JournalKind::StepStalled {
            step_id: "users".to_owned(),
            idle_ms: 60_000,
            blocking: false,
        });
        story.push(shown(&board));
        board.note(progress("users", 4_100));
        story.push(shown(&board));
        if let Some(step) = board.step("users") {
            step.since = Instant::now().checked_sub(Duration::from_secs(70)).unwrap();
        }
        story.push(shown(&board));
        insta::assert_snapshot!(story.join("\n"), @"
        users  Collect users  1,000 entities  about 25 %
        users  Collect users  1,000 entities  200/s  5 s  about 25 %
        users  Collect users  5 s  about 8 %  attempt 1 failed: 503; the next after 2.00 s
        users  Collect users  5 s  about 8 %  attempt 2
        users  Collect users  5 s  about 8 %  nothing new for 1 min 0 s
        users  Collect users  4,100 entities  820/s  5 s  more than the last time
        users  Collect users  4,100 entities  58/s  1 min 10 s  more than the last time
        ");
    }

    #[test]
    fn steps_beyond_the_eighth_are_a_number() {
        let ids: Vec<String> = (0..11).map(|n| format!("s{n}")).collect();
        let mut board = board(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        for id in &ids {
            board.note(start(id));
        }
        assert_eq!(board.lines().len(), STEPS_SHOWN + 1);
        assert_eq!(board.lines().pop().as_deref(), Some("3 more"));
    }
}

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parallax_connect::{ErrorKind, SyncEvent, SyncReport};
use tokio::sync::mpsc::Receiver;
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

/// Shows a run from its events, until there are no more: a line for each running step, and one
/// that stays for each that has ended. `then` is what goes on after the last step.
pub(crate) async fn show(
    mut events: Receiver<SyncEvent>,
    outline: SyncReport,
    then: &'static str,
    bars: MultiProgress,
) {
    let mut board = Board::new(&outline);
    let mut lines: Vec<ProgressBar> = Vec::new();
    let mut redraw = interval(Duration::from_secs(1) / u32::from(REDRAWS_PER_SECOND));
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = None;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(SyncEvent::Completed { .. }) => waiting = Some(show_waiting(then, &bars)),
                Some(event) => {
                    if let Some(ended) = board.note(event) {
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
            line.set_message(text);
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
    titles: Vec<(String, String)>,
    id_width: usize,
    running: Vec<(String, Instant)>,
}

impl Board {
    fn new(outline: &SyncReport) -> Self {
        let titles: Vec<_> = outline
            .steps()
            .iter()
            .map(|step| (step.step_id.clone(), step.title.clone()))
            .collect();
        let id_width = titles.iter().map(|(id, _)| id.len()).max().unwrap_or(0);
        Self {
            titles,
            id_width,
            running: Vec::new(),
        }
    }

    /// Returns the line of each running step, oldest first, and of how many more there are.
    fn lines(&self) -> Vec<String> {
        let line = |(step_id, since): &(String, Instant)| {
            let title = self.titles.iter().find(|(id, _)| id == step_id);
            let title = title.map_or("", |(_, title)| title.as_str());
            let width = self.id_width;
            let title = parallax_core::escape(title);
            let so_far = seconds_running(since.elapsed());
            format!("{step_id:<width$}  {title}  {so_far}")
                .trim_end()
                .to_owned()
        };
        let mut lines: Vec<String> = self.running.iter().take(STEPS_SHOWN).map(line).collect();
        if let more @ 1.. = self.running.len().saturating_sub(STEPS_SHOWN) {
            lines.push(format!("{more} more"));
        }
        lines
    }

    /// Takes note of an event. Returns the line of a step that it ends.
    fn note(&mut self, event: SyncEvent) -> Option<String> {
        let width = self.id_width;
        match event {
            SyncEvent::Started { .. } | SyncEvent::Completed { .. } => None,
            SyncEvent::StepStarted { step_id } => {
                self.running.push((step_id, Instant::now()));
                None
            }
            SyncEvent::StepCompleted {
                step_id,
                entities,
                relationships,
                duration,
            } => {
                self.running.retain(|(id, _)| *id != step_id);
                let found = counts(entities as u64, relationships as u64);
                let (mark, took) = (paint(GOOD, "✓"), paint(FAINT, seconds(duration)));
                Some(format!("{mark} {step_id:<width$}  {found}  {took}"))
            }
            SyncEvent::StepFailed { step_id, error } => {
                self.running.retain(|(id, _)| *id != step_id);
                let mark = match error.kind() {
                    ErrorKind::DependencyFailed | ErrorKind::Cancelled => paint(ODD, "-"),
                    _ => paint(WRONG, "✗"),
                };
                Some(format!("{mark} {step_id:<width$}  {error}"))
            }
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
    use parallax_connect::{ConnectorError, StepReport};

    use super::*;

    fn board(steps: &[&str]) -> Board {
        let step = |id: &&str| StepReport::new(*id, format!("Collect {id}"));
        Board::new(&SyncReport::new(steps.iter().map(step).collect()))
    }

    fn start(step_id: &str) -> SyncEvent {
        SyncEvent::StepStarted {
            step_id: step_id.to_owned(),
        }
    }

    #[test]
    fn each_running_step_has_a_line_and_each_ended_one_leaves_one() {
        let mut board = board(&["users", "roles", "role_users"]);
        board.note(start("users"));
        board.note(start("roles"));
        insta::assert_snapshot!(board.lines().join("\n"), @"
        users       Collect users
        roles       Collect roles
        ");
        let ended = [
            board.note(SyncEvent::StepCompleted {
                step_id: "users".to_owned(),
                entities: 1_200,
                relationships: 0,
                duration: Duration::from_millis(1_234),
            }),
            board.note(SyncEvent::StepFailed {
                step_id: "roles".to_owned(),
                error: ConnectorError::retryable("connection\nreset"),
            }),
            board.note(SyncEvent::StepFailed {
                step_id: "role_users".to_owned(),
                error: ConnectorError::DependencyFailed {
                    step_id: "roles".to_owned(),
                },
            }),
        ];
        let ended: Vec<String> = ended.into_iter().flatten().collect();
        insta::assert_snapshot!(anstream::adapter::strip_str(&ended.join("\n")), @r"
        ✓ users       1,200 entities  1.23 s
        ✗ roles       connection\nreset
        - role_users  step roles did not complete
        ");
        assert!(board.lines().is_empty());
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

//! A connector that does what a test tells it to, and what a receiver hears of it, as text.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::{
    Connector, ConnectorError, ConnectorOutput, Runner, Step, StepContext, SyncEvent, entity,
    relationship, step,
};

/// What one step does: emits its entities, waits, emits its relationships, and ends.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) id: String,
    pub(crate) after: Vec<String>,
    pub(crate) lasts: Duration,
    pub(crate) entities: usize,
    /// Entities that are rejected.
    pub(crate) rejected: usize,
    pub(crate) relationships: usize,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Ok,
    Incomplete,
    Error,
    /// Before its first await, even before there is a future.
    PanicAtOnce,
    PanicLater,
    /// Never, unless it is cancelled.
    Hang,
}

/// A step that takes no time, emits nothing and completes.
pub(crate) fn script(id: impl Into<String>) -> Script {
    Script {
        id: id.into(),
        after: Vec::new(),
        lasts: Duration::ZERO,
        entities: 0,
        rejected: 0,
        relationships: 0,
        end: End::Ok,
    }
}

impl Script {
    pub(crate) fn after<S: Into<String>>(mut self, steps: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(steps.into_iter().map(Into::into));
        self
    }

    pub(crate) fn lasts(mut self, millis: u64) -> Self {
        self.lasts = Duration::from_millis(millis);
        self
    }

    pub(crate) fn emits(mut self, entities: usize, relationships: usize) -> Self {
        (self.entities, self.relationships) = (entities, relationships);
        self
    }

    pub(crate) fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    async fn run(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for n in 0..self.entities {
            ctx.emit(entity("thing", format!("{}-{n}", self.id)))?;
        }
        for n in 0..self.rejected {
            let bad = entity("thing", format!("{}-bad-{n}", self.id)).property("size", f64::NAN);
            ctx.emit(bad).unwrap_err();
        }
        if self.lasts.is_zero() {
            tokio::task::yield_now().await;
        } else {
            sleep(self.lasts).await;
        }
        for n in 0..self.relationships {
            let thing = ("thing", format!("{}-{n}", self.id));
            ctx.emit(relationship(thing, "BELONGS_TO", ("thing", &self.id)))?;
        }
        match self.end {
            End::Ok => Ok(()),
            End::Incomplete => {
                ctx.incomplete("page 2 timed out");
                Ok(())
            }
            End::Error => Err(ConnectorError::fatal("out of luck")),
            End::PanicAtOnce | End::PanicLater => panic_quietly(),
            End::Hang => pending().await,
        }
    }
}

/// A panic without its message and backtrace on stderr, for tests with thousands of them.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("out of mind"))
}

/// Runs its scripts and notes when each of them began and ended.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    scripts: Vec<Script>,
    times: Mutex<BTreeMap<String, (Instant, Option<Instant>)>>,
    running: Arc<AtomicUsize>,
    most_running: AtomicUsize,
}

impl Scripted {
    pub(crate) fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            scripts: scripts.into_iter().collect(),
            ..Self::default()
        }
    }

    /// When each step began and ended. Who is cancelled or panics at once has not ended.
    pub(crate) fn times(&self) -> BTreeMap<String, (Instant, Option<Instant>)> {
        self.times.lock().unwrap().clone()
    }

    /// How many steps run now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// How many steps ran at a time.
    pub(crate) fn most_running(&self) -> usize {
        self.most_running.load(Ordering::SeqCst)
    }

    async fn play(&self, script: &Script, ctx: StepContext) -> Result<(), ConnectorError> {
        let _running = Running::new(&self.running);
        self.most_running
            .fetch_max(self.running(), Ordering::SeqCst);
        let ending = NoteEnd(self, &script.id);
        let result = script.run(ctx).await;
        drop(ending);
        result
    }
}

impl Connector for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        self.scripts
            .iter()
            .map(|script| {
                let run = |ctx| {
                    let begun = (Instant::now(), None);
                    self.times.lock().unwrap().insert(script.id.clone(), begun);
                    if script.end == End::PanicAtOnce {
                        panic_quietly();
                    }
                    self.play(script, ctx)
                };
                step(&script.id, "", run).reads(&script.after)
            })
            .collect()
    }
}

/// A connector of the steps that a function makes.
pub(crate) struct Given<F>(pub(crate) F);

impl<F: Fn() -> Vec<Step<'static>> + Send + Sync> Connector for Given<F> {
    fn name(&self) -> &str {
        "given"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        (self.0)()
    }
}

/// Counts as running until it is dropped, however that comes about.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct NoteEnd<'a>(&'a Scripted, &'a str);

impl Drop for NoteEnd<'_> {
    fn drop(&mut self) {
        if let Some((_, end)) = self.0.times.lock().unwrap().get_mut(self.1) {
            *end = Some(Instant::now());
        }
    }
}

/// Tells an event in one line.
pub(crate) fn line(event: &SyncEvent) -> String {
    match event {
        SyncEvent::Started { .. } => "started".to_owned(),
        SyncEvent::StepStarted { step_id } => format!("{step_id}: started"),
        SyncEvent::StepCompleted {
            step_id,
            entities,
            relationships,
            duration,
        } => format!("{step_id}: completed, {entities} + {relationships}, {duration:?}"),
        SyncEvent::StepFailed { step_id, error } => format!("{step_id}: failed, {error}"),
        SyncEvent::Completed { .. } => "completed".to_owned(),
    }
}

/// What a receiver hears of a run, and what comes of it.
pub(crate) async fn story(connector: &dyn Connector) -> (String, ConnectorOutput) {
    let (tx, rx) = mpsc::channel(1);
    let heard = tokio::spawn(hear(rx));
    let output = Runner::new(connector)
        .events(&tx)
        .run("acme", "sync-001")
        .await;
    drop(tx);
    let heard = heard.await.unwrap();
    (lines(&heard), output.unwrap())
}

/// Receives until there is nothing more to come.
pub(crate) async fn hear(mut rx: mpsc::Receiver<SyncEvent>) -> Vec<SyncEvent> {
    let mut events = Vec::new();
    while let Some(event) = rx.recv().await {
        events.push(event);
    }
    events
}

pub(crate) fn lines(events: &[SyncEvent]) -> String {
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

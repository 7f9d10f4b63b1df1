//! A connector that does what a test tells it to, and what a receiver hears of it, as text.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::{
    Connector, ConnectorError, ConnectorOutput, JournalEntry, JournalSink, Retries, Runner, Step,
    StepContext, SyncEvent, entity, relationship, step,
};

/// Keeps the entries of a journal.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<JournalEntry>>);

impl Kept {
    pub(crate) fn take(&self) -> Vec<JournalEntry> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl JournalSink for Kept {
    fn append(&self, entry: &JournalEntry) {
        self.0.lock().unwrap().push(entry.clone());
    }
}

/// What one attempt of a step does: emits its entities, waits, emits its relationships, and ends.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) id: String,
    pub(crate) after: Vec<String>,
    pub(crate) lasts: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<Retries>,
    /// So many attempts fail before one ends as it should.
    pub(crate) flaky: u32,
    /// Those ask for this pause.
    pub(crate) asks: Option<Duration>,
    /// It ends by itself so long after it is told to.
    pub(crate) polite: Option<Duration>,
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
    /// Never, unless it times out or is cancelled.
    Hang,
}

/// A step that takes no time, emits nothing and completes.
pub(crate) fn script(id: impl Into<String>) -> Script {
    Script {
        id: id.into(),
        after: Vec::new(),
        lasts: Duration::ZERO,
        timeout: None,
        retries: None,
        flaky: 0,
        asks: None,
        polite: None,
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

    async fn run(&self, ctx: StepContext, attempt: u32) -> Result<(), ConnectorError> {
        let told = async {
            ctx.cancelled().await;
            match self.polite {
                None => pending().await,
                Some(Duration::ZERO) => {}
                Some(polite) => sleep(polite).await,
            }
            Err(ConnectorError::Cancelled)
        };
        let act = self.act(&ctx, attempt);
        future::select(pin!(act), pin!(told)).await.factor_first().0
    }

    async fn act(&self, ctx: &StepContext, attempt: u32) -> Result<(), ConnectorError> {
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
        if attempt <= self.flaky {
            // Of an attempt that fails, this counts as little as what it emitted.
            ctx.incomplete("lost the connection");
            let _ = ctx.scope("left open");
            return Err(match self.asks {
                None => ConnectorError::retryable("connection reset"),
                Some(retry_after) => ConnectorError::RateLimited {
                    service: "it".to_owned(),
                    retry_after,
                },
            });
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

/// When each attempt of each step began and ended. One that panics at once has no end.
pub(crate) type Times = BTreeMap<String, Vec<(Instant, Option<Instant>)>>;

/// Runs its scripts and notes when each of them began and ended.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    scripts: Vec<Script>,
    times: Mutex<Times>,
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

    pub(crate) fn times(&self) -> Times {
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

    async fn play(
        &self,
        script: &Script,
        ctx: StepContext,
        attempt: u32,
    ) -> Result<(), ConnectorError> {
        let _running = Running::new(&self.running);
        self.most_running
            .fetch_max(self.running(), Ordering::SeqCst);
        let ending = NoteEnd(self, &script.id);
        let result = script.run(ctx, attempt).await;
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
                    let attempt = {
                        let mut times = self.times.lock().unwrap();
                        let attempts = times.entry(script.id.clone()).or_default();
                        attempts.push((Instant::now(), None));
                        u32::try_from(attempts.len()).unwrap()
                    };
                    if script.end == End::PanicAtOnce && attempt > script.flaky {
                        panic_quietly();
                    }
                    self.play(script, ctx, attempt)
                };
                let mut step = step(&script.id, "", run).reads(&script.after);
                if let Some(timeout) = script.timeout {
                    step = step.timeout(timeout);
                }
                if let Some(retries) = script.retries {
                    step = step.retries(retries);
                }
                step
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
        let mut times = self.0.times.lock().unwrap();
        if let Some((_, end)) = times.get_mut(self.1).and_then(|times| times.last_mut()) {
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

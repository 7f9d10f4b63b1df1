use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::dispatcher::{self, Dispatch};

use crate::context::SharedRun;
use crate::journal::Journal;
use crate::telemetry;

/// A step that keeps its thread for so long is told of, unless the run is more impatient.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// How often the runs are looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// A run, as it is watched for as long as this is kept.
pub(crate) struct Watch {
    run: Arc<SharedRun>,
    journal: Arc<Journal>,
    step_ids: Box<str>,
    blocked_after: Duration,
    span: Span,
    dispatch: Dispatch,
}

/// A run, as the watchdog knows it.
struct Watched {
    watch: Weak<Watch>,
    /// The poll that was under way when the run was last looked at, since when at least, and
    /// whether it has been told of.
    polling: Option<(u64, Instant, bool)>,
}

/// Whoever keeps its thread keeps the whole run from going on, its timers included. So another
/// thread must tell: one for the process, which sleeps while there are no runs.
struct Watchdog {
    runs: Mutex<Vec<Watched>>,
    is_needed: Condvar,
}

impl Watch {
    /// Begins to watch a run of these steps, and tells of it in the current span.
    pub(crate) fn begin<'a>(
        run: &Arc<SharedRun>,
        journal: &Arc<Journal>,
        step_ids: impl Iterator<Item = &'a str>,
        stall_after: Duration,
    ) -> Arc<Self> {
        let watch = Arc::new(Self {
            run: Arc::clone(run),
            journal: Arc::clone(journal),
            step_ids: step_ids.flat_map(|step_id| [step_id, "\n"]).collect(),
            blocked_after: stall_after.min(BLOCKED_AFTER),
            span: Span::current(),
            dispatch: dispatcher::get_default(Dispatch::clone),
        });
        let watchdog = Watchdog::get();
        let mut runs = watchdog.runs();
        runs.push(Watched {
            watch: Arc::downgrade(&watch),
            polling: None,
        });
        if runs.len() == 1 {
            watchdog.is_needed.notify_one();
        }
        watch
    }

    fn tell(&self, place: usize, blocked: Duration) {
        let Some(step_id) = self.step_ids.split('\n').nth(place) else {
            return;
        };
        dispatcher::with_default(&self.dispatch, || {
            self.span.in_scope(|| {
                telemetry::step_blocks(&self.journal, &self.run.names, step_id, blocked);
            });
        });
    }
}

impl Watched {
    /// Looks at the run, and returns whether it goes on.
    fn look(&mut self) -> bool {
        let Some(watch) = self.watch.upgrade() else {
            return false;
        };
        let polling = watch.run.pulse.polling();
        match (&mut self.polling, polling) {
            (Some((same, since, is_told)), Some((poll, place))) if *same == poll => {
                let blocked = since.elapsed();
                if !*is_told && blocked >= watch.blocked_after {
                    *is_told = true;
                    watch.tell(place, blocked);
                }
            }
            (seen, polling) => *seen = polling.map(|(poll, _)| (poll, Instant::now(), false)),
        }
        true
    }
}

impl Watchdog {
    fn get() -> &'static Self {
        static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
        static THREAD: Once = Once::new();
        let watchdog = WATCHDOG.get_or_init(|| Self {
            runs: Mutex::default(),
            is_needed: Condvar::new(),
        });
        THREAD.call_once(|| {
            let thread = thread::Builder::new().name("parallax-watchdog".to_owned());
            // Without it nothing but its warnings is lost.
            thread.spawn(|| watchdog.run()).ok();
        });
        watchdog
    }

    fn run(&self) {
        let mut runs = self.runs();
        loop {
            runs.retain_mut(Watched::look);
            runs = if runs.is_empty() {
                let woken = self.is_needed.wait(runs);
                woken.unwrap_or_else(PoisonError::into_inner)
            } else {
                drop(runs);
                thread::sleep(PERIOD);
                self.runs()
            };
        }
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

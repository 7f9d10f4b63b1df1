use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::context::{Glance, Observed, RunningStep};
use crate::telemetry::Telemetry;

/// The least time between two entries about the progress of a step.
const PROGRESS_MIN: Duration = Duration::from_millis(100);
/// The most, of one that emits all the time.
const PROGRESS_MAX: Duration = Duration::from_secs(1);
/// In between, the time for which the step has run over this: so that the journal of a step that
/// runs ten times as long is not ten times as long.
const PROGRESS_SHARE: u32 = 100;

/// What the steps of a run let others see while they run.
///
/// It costs a step that emits one load, and one that never waits nothing.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Attempts that have waited for the first time, and are watched from now on.
    incoming: Mutex<Vec<Observed>>,
    has_incoming: AtomicBool,
    /// Whether somebody wants to know of the next emission.
    wanted: AtomicBool,
    waker: AtomicWaker,
    /// The poll that is under way: its number, and in the lowest bits the place of its step, from 1.
    /// 0 between two.
    polling: AtomicU64,
    polls: AtomicU64,
}

/// How many bits of [`Pulse::polling`] are a place: more steps than memory has room for.
const PLACE_BITS: u32 = 24;

impl Pulse {
    /// Notes that a step has emitted something; called while its attempt is locked.
    pub(crate) fn note_emission(&self) {
        // The lock orders this against a ticker that has just set it and now reads the counts.
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    /// Watches an attempt that waits.
    pub(crate) fn watch(&self, step: &RunningStep) {
        self.incoming().push(step.observe());
        self.has_incoming.store(true, Ordering::Relaxed);
    }

    /// Notes for the watchdog when the step at `place` is being polled.
    pub(crate) async fn note_polls<F: Future + Unpin>(
        &self,
        place: usize,
        mut step: F,
    ) -> F::Output {
        poll_fn(|cx| {
            let _polling = self.begin_poll(place);
            Pin::new(&mut step).poll(cx)
        })
        .await
    }

    /// Returns the number of the poll that is under way, and the place of its step.
    pub(crate) fn polling(&self) -> Option<(u64, usize)> {
        let polling = self.polling.load(Ordering::Relaxed);
        let place = usize::try_from(polling & ((1 << PLACE_BITS) - 1)).ok()?;
        Some((polling >> PLACE_BITS, place.checked_sub(1)?))
    }

    fn incoming(&self) -> MutexGuard<'_, Vec<Observed>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_poll(&self, place: usize) -> Polling<'_> {
        // One task polls all steps of a run.
        let number = self.polls.load(Ordering::Relaxed).wrapping_add(1);
        self.polls.store(number, Ordering::Relaxed);
        let place = (place as u64 + 1) & ((1 << PLACE_BITS) - 1);
        self.polling
            .store((number << PLACE_BITS) | place, Ordering::Relaxed);
        Polling(self)
    }
}

/// Until it is dropped, which a panic does as well, a step is being polled.
struct Polling<'a>(&'a Pulse);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.store(0, Ordering::Relaxed);
    }
}

/// Tells how far the steps that wait have got, and which of them do nothing.
pub(crate) struct Ticker {
    stall_after: Duration,
    /// Those that have waited; some may have ended since the last tick.
    steps: Vec<Watched>,
    /// With so many of them it is time to look which.
    enough: usize,
    /// Whether the next emission is waited for.
    is_waiting: bool,
    /// When there is something to look at, whatever is emitted.
    next: Option<Instant>,
    /// Made when the first step waits.
    sleep: Option<Pin<Box<Sleep>>>,
}

struct Watched {
    step: Observed,
    since: Instant,
    /// What it had emitted when it was last looked at, and when that had changed, or it waited for a
    /// rate limit.
    seen: (u64, u64),
    changed: Instant,
    /// What was last told of it, and when.
    told: (u64, u64),
    told_at: Instant,
    is_stalled: bool,
}

/// As many steps as run at a time are looked at in a microsecond.
const FEW: usize = 64;

impl Ticker {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Self {
            stall_after,
            steps: Vec::new(),
            enough: FEW,
            is_waiting: false,
            next: None,
            sleep: None,
        }
    }

    /// Does what is due. To be polled after the steps.
    pub(crate) fn poll(&mut self, pulse: &Pulse, telemetry: &Telemetry<'_>, cx: &mut Context<'_>) {
        let mut is_due = false;
        if pulse.has_incoming.swap(false, Ordering::Relaxed) {
            is_due = self.take_incoming(pulse);
        }
        if self.is_waiting {
            pulse.waker.register(cx.waker());
            is_due |= !pulse.wanted.load(Ordering::Relaxed);
        }
        loop {
            if is_due {
                pulse.waker.register(cx.waker());
                self.tick(pulse, telemetry);
            }
            let Some(next) = self.next else { return };
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(sleep_until(next)));
            if sleep.deadline() != next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            is_due = true;
        }
    }

    /// Returns whether it is time for a tick.
    fn take_incoming(&mut self, pulse: &Pulse) -> bool {
        let incoming = std::mem::take(&mut *pulse.incoming());
        let was_empty = self.steps.is_empty();
        let now = Instant::now();
        for step in incoming {
            let Some(Glance { counts: seen, .. }) = step.glance() else {
                continue;
            };
            self.steps.push(Watched {
                step,
                since: now,
                seen,
                changed: now,
                told: (0, 0),
                told_at: now,
                is_stalled: false,
            });
            if seen != (0, 0) {
                self.wake_at(now + PROGRESS_MIN);
            }
        }
        was_empty || self.steps.len() >= self.enough
    }

    fn tick(&mut self, pulse: &Pulse, telemetry: &Telemetry<'_>) {
        // Before the counts are read: what is emitted later wakes.
        pulse.wanted.store(true, Ordering::Relaxed);
        self.is_waiting = true;
        self.next = None;
        let now = Instant::now();
        let mut steps = std::mem::take(&mut self.steps);
        steps.retain_mut(|step| step.look(now));
        for step in &mut steps {
            if step.seen != step.told {
                let due = step.told_at + progress_interval(now.duration_since(step.since));
                if due <= now {
                    let (entities, relationships) = step.seen;
                    step.step.inspect(|step_id| {
                        telemetry.step_progress(step_id, entities, relationships);
                    });
                    (step.told, step.told_at) = (step.seen, now);
                } else {
                    // Until then nobody needs to be told of an emission.
                    self.is_waiting = false;
                    self.wake_at(due);
                }
            }
            if !step.is_stalled
                && let Some(due) = step.changed.checked_add(self.stall_after)
            {
                if due <= now {
                    step.is_stalled = true;
                    let idle = now.duration_since(step.changed);
                    step.step
                        .inspect(|step_id| telemetry.step_stalled(step_id, idle));
                } else {
                    self.wake_at(due);
                }
            }
        }
        self.steps = steps;
        self.enough = FEW.max(2 * self.steps.len());
        self.is_waiting &= !self.steps.is_empty();
        if !self.is_waiting {
            pulse.wanted.store(false, Ordering::Relaxed);
        }
    }

    fn wake_at(&mut self, time: Instant) {
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }
}

impl Watched {
    /// Notes what the step has emitted by `now`, and returns whether it still runs.
    fn look(&mut self, now: Instant) -> bool {
        let Some(glance) = self.step.glance() else {
            return false;
        };
        if glance.counts != self.seen {
            (self.seen, self.changed) = (glance.counts, now);
            self.is_stalled = false;
        }
        if glance.is_throttled {
            // It does what it was asked for, and ends by itself.
            self.changed = now;
        }
        true
    }
}

fn progress_interval(running: Duration) -> Duration {
    (running / PROGRESS_SHARE).clamp(PROGRESS_MIN, PROGRESS_MAX)
}

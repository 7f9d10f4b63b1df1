use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Fuse;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parallax_core::{ConnectorError, ErrorKind, StepReport, StepStatus, excerpt};
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use crate::context::{Ended, RunningStep, SharedRun};
use crate::prior::Sealed;
use crate::retries::{Retries, jitter};
use crate::step::Step;
use crate::telemetry::{Telemetry, step_span};

/// What a step is carried through its attempts with.
pub(super) struct Tries {
    /// One for all attempts.
    pub(super) span: Span,
    /// When the first attempt was first polled.
    begun: Option<Instant>,
    /// How long the attempts so far were held up by a rate limit.
    throttled: Duration,
}

/// How long an attempt may take, and what follows one that failed.
pub(super) struct Policy {
    pub(super) timeout: Duration,
    pub(super) retries: Retries,
}

/// What came of an attempt.
pub(super) enum Attempted {
    /// The step has ended.
    Ended {
        // Boxed because it is large, and passed on by several hands.
        report: Box<StepReport>,
        sealed: Option<Arc<Sealed>>,
    },
    /// The step is to be tried again.
    Failed {
        tries: Tries,
        kind: ErrorKind,
        pause: Duration,
    },
}

impl Tries {
    pub(super) fn new(step: &Step<'_>) -> Self {
        Self {
            span: step_span(&step.id),
            begun: None,
            throttled: Duration::ZERO,
        }
    }
}

/// The attempts that run. Those that do not come to their end are dropped one by one, because the
/// drop of each may panic, and is to take no other along.
pub(super) struct RunningAttempts<F: Future>(FuturesUnordered<Fuse<F>>);

impl<F: Future> RunningAttempts<F> {
    pub(super) fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&self, attempt: F) {
        self.0.push(attempt.fuse());
    }

    /// Returns what came of the next that ends; `None` if none runs.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<F: Future> Drop for RunningAttempts<F> {
    fn drop(&mut self) {
        for mut attempt in Pin::new(&mut self.0).iter_pin_mut() {
            let dropped = catch_unwind(AssertUnwindSafe(|| attempt.set(Fuse::terminated())));
            if let Err(payload) = dropped {
                // Its step is cancelled, whatever it panicked with.
                panic_message(payload);
            }
        }
    }
}

/// Runs a step once, counts that, and decides whether it was its end.
pub(super) async fn run_attempt(
    (place, step): (usize, &Step<'_>),
    running: RunningStep,
    mut tries: Tries,
    attempts: &AtomicU32,
    policy: Policy,
    run: &SharedRun,
    telemetry: &Telemetry<'_>,
) -> Attempted {
    let now = Instant::now();
    let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
    match attempt {
        1 => telemetry.step_started(&step.id),
        _ => telemetry.step_restarted(&step.id, attempt),
    }
    let begun = *tries.begun.get_or_insert(now);

    // The call as well as the future, and its drop when it takes too long: each may panic.
    let run_once = async {
        let mut ctx = Some(running.context());
        let mut called = None;
        let polled = poll_fn(|cx| {
            if let Some(ctx) = ctx.take() {
                called = Some(step.run.run(ctx));
            }
            match &mut called {
                Some(called) => called.as_mut().poll(cx),
                None => Poll::Pending,
            }
        });
        let polled = run.pulse.note_polls(place, polled);
        within(policy.timeout, now, pin!(polled), || {
            run.pulse.watch(&running);
        })
        .await
    };
    let result = AssertUnwindSafe(run_once)
        .catch_unwind()
        .await
        .unwrap_or_else(|payload| {
            Err(ConnectorError::Panicked {
                message: panic_message(payload),
            })
        });
    let Ended {
        mut report,
        sealed,
        rejected,
    } = running.end(result);
    telemetry.records_rejected(&step.id, rejected);
    tries.throttled += report.throttled;

    if let Some(error) = &report.error {
        let jitter = jitter(&run.names, &step.id, attempt);
        if let Some(pause) = policy.retries.pause(attempt, error, jitter)
            && !run.is_cancelled()
        {
            telemetry.step_retrying(&step.id, attempt, error, pause);
            let kind = error.kind();
            return Attempted::Failed { tries, kind, pause };
        }
        if matches!(error, ConnectorError::Cancelled) && run.is_cancelled() {
            report.status = StepStatus::Cancelled;
        }
    }
    report.attempts = attempt;
    report.throttled = tries.throttled;
    report.duration = begun.elapsed();
    telemetry.step_ended(&step.id, &report);
    Attempted::Ended { report, sealed }
}

/// Waits for an attempt that began at `begun`, as long as it may take. `has_waited` is called when
/// it first waits.
async fn within(
    timeout: Duration,
    begun: Instant,
    mut attempt: Pin<&mut impl Future<Output = Result<(), ConnectorError>>>,
    has_waited: impl FnOnce(),
) -> Result<(), ConnectorError> {
    let first = poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = first {
        // Without a timer, which costs more than everything else about an empty step.
        return result;
    }
    has_waited();
    let Some(deadline) = begun.checked_add(timeout) else {
        return attempt.await;
    };
    // It was polled just now. To poll it again at once would swallow a `yield_now`.
    let mut is_polled = true;
    let rest = poll_fn(|cx| match std::mem::take(&mut is_polled) {
        true => Poll::Pending,
        false => attempt.as_mut().poll(cx),
    });
    // Boxed, so that a step which never comes here is not made larger by a timer.
    Box::pin(timeout_at(deadline, rest))
        .await
        .unwrap_or(Err(ConnectorError::TimedOut { after: timeout }))
}

pub(super) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let message = excerpt(message, 300);
    // What a step panicked with may panic again when it is dropped; then it is better not dropped.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
    message
}

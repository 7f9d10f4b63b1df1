use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{self, Either};
use parallax_core::ConnectorError;
use tokio::time::{Instant, sleep_until};

use crate::context::StepContext;
use crate::retries::LONGEST_ASKED_FOR;

/// Keeps the requests of all steps below the rate that a system allows.
///
/// A connector makes one, and its steps wait for it before each request:
///
/// ```
/// use std::time::Duration;
///
/// use parallax_connect::{ConnectorError, RateLimiter, StepContext};
/// # enum Answer { Page(String), SlowDown(Duration) }
/// # struct Api;
/// # impl Api {
/// #     async fn get(&self, _path: &str) -> Answer { Answer::Page(String::new()) }
/// # }
///
/// struct Shop {
///     api: Api,
///     // RateLimiter::new(10, Duration::from_secs(1)): ten requests in a second.
///     limiter: RateLimiter,
/// }
///
/// impl Shop {
///     async fn get(&self, ctx: &StepContext, path: &str) -> Result<String, ConnectorError> {
///         loop {
///             self.limiter.until_ready(ctx, "shop").await?;
///             match self.api.get(path).await {
///                 Answer::Page(page) => return Ok(page),
///                 // 429, with `Retry-After`.
///                 Answer::SlowDown(pause) => self.limiter.pause("shop", pause),
///             }
///         }
///     }
/// }
/// # let _ = Shop::get;
/// ```
///
/// Each key has a rate of its own: what the system counts by, such as an API or a tenant. Keys are
/// for a connector to choose; one that is at rest takes no memory.
///
/// Requests are spaced evenly. Whoever waits first goes first, whichever step it belongs to, and an
/// attempt that follows a failed one waits as any other. Time is tokio's, so a test can pause it.
pub struct RateLimiter {
    /// Between two requests of one key.
    interval: Duration,
    burst: u32,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_key: HashMap<String, Lane>,
    /// With so many, those that are at rest are forgotten.
    limit: usize,
}

/// Where the requests of one key wait.
struct Lane {
    /// Held by the one whose turn it is next; tokio's mutex is first come, first served.
    queue: Arc<tokio::sync::Mutex<()>>,
    /// When all requests made so far have had their interval (the theoretical arrival time of the
    /// generic cell rate algorithm).
    busy_until: Instant,
    paused_until: Instant,
}

/// How much of an attempt waits for a rate limit, and since when something does.
#[derive(Default)]
pub(crate) struct Throttle {
    waiting: usize,
    since: Option<Instant>,
}

/// Tokio's timers are as coarse as a millisecond: with less, a rate above that would not be reached.
const TIMER_SLACK: Duration = Duration::from_millis(2);
const FEW_LANES: usize = 64;
/// What is further away is never reached, and what is reached is within what a clock can tell.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl RateLimiter {
    /// Allows so many requests, at least one, in each `period`.
    pub fn new(requests: u32, period: Duration) -> Self {
        Self {
            interval: (period / requests.max(1)).min(FAR_FUTURE),
            burst: 1,
            lanes: Mutex::default(),
        }
    }

    /// Sets how many requests may go at once after a rest, at least one. Default: 1.
    ///
    /// The rate holds in the long run: in any one period there may be as many more.
    #[must_use]
    pub fn burst(mut self, requests: u32) -> Self {
        self.burst = requests.max(1);
        self
    }

    /// Waits until the next request of this key may be made, and counts it as made.
    ///
    /// The time waited is in the step's report, [`throttled`](crate::StepReport::throttled), and
    /// counts for its timeout.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Cancelled`] if the run is cancelled, and [`ConnectorError::RateLimited`] if
    /// the key is [paused](Self::pause) for more than 5 minutes from now: such a step fails, and is
    /// not tried again.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has counted nothing, and lets the next one pass.
    /// One that is neither polled nor dropped holds up those behind it.
    pub async fn until_ready(&self, ctx: &StepContext, key: &str) -> Result<(), ConnectorError> {
        if ctx.is_cancelled() {
            return Err(ConnectorError::Cancelled);
        }
        let queue = self.queue(key);
        if let Ok(_turn) = queue.try_lock()
            && self.take(key).is_ok()
        {
            return Ok(());
        }
        let _throttled = ctx.throttled();
        let turn = async {
            let _turn = queue.lock().await;
            while let Err(ready) = self.take(key) {
                let retry_after = self.paused_for(key);
                if retry_after > LONGEST_ASKED_FOR {
                    let service = key.to_owned();
                    return Err(ConnectorError::RateLimited {
                        service,
                        retry_after,
                    });
                }
                // Whoever pauses the key meanwhile does not wake this one; it then looks again.
                sleep_until(ready).await;
            }
            Ok(())
        };
        match future::select(pin!(turn), pin!(ctx.cancelled())).await {
            Either::Left((turn, _)) => turn,
            Either::Right(_) => Err(ConnectorError::Cancelled),
        }
    }

    /// Lets no request of this key pass for a while: what a system asks for, with `Retry-After`, by
    /// whichever step it was asked. A pause that ends earlier than another shortens nothing.
    pub fn pause(&self, key: &str, pause: Duration) {
        let now = Instant::now();
        let until = now.checked_add(pause).unwrap_or(now + FAR_FUTURE);
        let mut lanes = self.lanes();
        let lane = lanes.lane(key);
        lane.paused_until = lane.paused_until.max(until);
    }

    fn queue(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.lanes().lane(key).queue)
    }

    /// Counts a request as made, or returns when it may be made at the earliest.
    fn take(&self, key: &str) -> Result<(), Instant> {
        let mut lanes = self.lanes();
        let lane = lanes.lane(key);
        let now = Instant::now();
        let busy_until = lane.busy_until.max(now) + self.interval;
        let ahead = self.interval.saturating_mul(self.burst).max(TIMER_SLACK);
        let ready = busy_until.checked_sub(ahead).unwrap_or(now);
        let ready = ready.max(lane.paused_until);
        if ready > now {
            return Err(ready);
        }
        lane.busy_until = busy_until;
        Ok(())
    }

    fn paused_for(&self, key: &str) -> Duration {
        let until = self.lanes().lane(key).paused_until;
        until.saturating_duration_since(Instant::now())
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("interval", &self.interval)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl Lanes {
    fn lane(&mut self, key: &str) -> &mut Lane {
        if self.by_key.len() >= self.limit.max(FEW_LANES) && !self.by_key.contains_key(key) {
            let now = Instant::now();
            self.by_key.retain(|_, lane| !lane.is_at_rest(now));
            self.limit = 2 * self.by_key.len();
        }
        self.by_key.entry(key.to_owned()).or_insert_with(Lane::new)
    }
}

impl Lane {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            queue: Arc::default(),
            busy_until: now,
            paused_until: now,
        }
    }

    /// Tells whether a new one would be the same.
    fn is_at_rest(&self, now: Instant) -> bool {
        Arc::strong_count(&self.queue) == 1 && self.busy_until <= now && self.paused_until <= now
    }
}

impl Throttle {
    pub(crate) fn begin(&mut self) {
        self.waiting += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Ends the wait of one. Returns how long something has waited, if nothing does any more.
    pub(crate) fn end_one(&mut self) -> Duration {
        self.waiting = self.waiting.saturating_sub(1);
        match self.waiting {
            0 => self.end(),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Ends every wait. Returns how long something has waited.
    pub(crate) fn end(&mut self) -> Duration {
        let since = self.since.take();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests;

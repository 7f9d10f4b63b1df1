use std::time::{Duration, Instant as RealInstant};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that drifts by less is taken to be right: it is corrected all the time.
const DRIFT: Duration = Duration::from_millis(10);

/// The time of day, as tokio's time goes on.
///
/// With a paused time, as in tests, only what tokio says passes. Otherwise this is the system's
/// clock, with whatever sets it, and with the time for which the machine was suspended.
#[derive(Debug)]
pub(crate) struct Clock {
    begin: Instant,
    /// When that was, by the system's clock as it goes now.
    began_at: Timestamp,
    real_begin: RealInstant,
    /// The same for the time that really passes.
    really_began_at: Timestamp,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Timestamp::now();
        Self {
            begin: Instant::now(),
            began_at: now,
            real_begin: RealInstant::now(),
            really_began_at: now,
        }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        self.follow(Timestamp::now(), self.real_begin.elapsed());
        let elapsed = SignedDuration::try_from(self.begin.elapsed());
        let now = elapsed.map(|elapsed| self.began_at.checked_add(elapsed));
        now.ok().and_then(Result::ok).unwrap_or(Timestamp::MAX)
    }

    /// Takes over what has set the system's clock: it shows `now` after `elapsed`.
    fn follow(&mut self, now: Timestamp, elapsed: Duration) {
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        let Ok(began_at) = now.checked_sub(elapsed) else {
            return;
        };
        let drift = began_at.duration_since(self.really_began_at);
        if drift.unsigned_abs() > DRIFT {
            self.really_began_at = began_at;
            let moved = self.began_at.checked_add(drift);
            self.began_at = moved.unwrap_or(self.began_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clock_that_is_set_is_followed() {
        let mut clock = Clock::new();
        let begin = clock.began_at;
        let minute = Duration::from_secs(60);
        let hour = SignedDuration::from_hours(1);
        tokio::time::advance(minute).await;
        clock.follow(begin + SignedDuration::from_millis(9), Duration::ZERO);
        assert_eq!(clock.began_at, begin);
        // Ahead, and back again some time later.
        clock.follow(begin + hour, Duration::ZERO);
        assert_eq!(clock.began_at, begin + hour);
        clock.follow(begin + SignedDuration::from_secs(60), minute);
        assert_eq!(clock.began_at, begin);
        let passed = clock.now().duration_since(begin);
        assert_eq!(passed, SignedDuration::from_mins(1));
    }
}

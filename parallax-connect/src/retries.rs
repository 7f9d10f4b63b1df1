use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use parallax_core::ConnectorError;

use crate::context::RunNames;

/// How often a step is tried again after an error that
/// [may not come again](ConnectorError::is_retryable), and after what pauses.
///
/// The pause doubles from one attempt to the next. Each is shortened by up to half, so that steps
/// which failed together do not come back together; by how much depends on nothing but the names
/// of the run and the step. Default: three times, after pauses of 1 s, 2 s and 4 s at most.
///
/// A system that [asks for a pause](ConnectorError::RateLimited) gets that pause, lengthened by up
/// to a twentieth. If it asks for more than 5 minutes the step fails at once: others of its source
/// should not wait for it.
///
/// ```
/// use std::time::Duration;
///
/// use parallax_connect::{Retries, Step, StepContext, step};
///
/// let users: Step<'_> = step("users", "Collect users", async |_: StepContext| Ok(()))
///     .retries(Retries::up_to(5).first_pause(Duration::from_millis(200)));
/// # drop(users);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    limit: u32,
    first_pause: Duration,
    longest_pause: Duration,
}

/// A system that asks for more is not waited for.
pub(crate) const LONGEST_ASKED_FOR: Duration = Duration::from_secs(5 * 60);

impl Retries {
    /// Makes a policy of that many attempts after the first; 0 for none.
    pub const fn up_to(limit: u32) -> Self {
        Self {
            limit,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }

    /// Sets the pause after the first attempt. Default: 1 s.
    #[must_use]
    pub const fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Sets the pause that no other is longer than, but one that the system asks for. Default: 60 s.
    #[must_use]
    pub const fn longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }

    /// Returns the pause after the `attempt`-th attempt (the first is 1) has failed; `None` if
    /// there is no other attempt. `jitter` is in thousandths.
    pub(crate) fn pause(
        &self,
        attempt: u32,
        error: &ConnectorError,
        jitter: u32,
    ) -> Option<Duration> {
        if attempt > self.limit || !error.is_retryable() {
            return None;
        }
        if let ConnectorError::RateLimited { retry_after, .. } = error {
            let longer = *retry_after / 20 / 1_000 * jitter;
            return (*retry_after <= LONGEST_ASKED_FOR).then(|| *retry_after + longer);
        }
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let pause = self.first_pause.saturating_mul(doubled);
        let pause = pause.min(self.longest_pause);
        Some(pause - pause / 2 / 1_000 * jitter)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::up_to(3)
    }
}

/// Returns the jitter, in thousandths, of the pause after an attempt: the same whenever the same
/// run is repeated, another for each step and attempt.
pub(crate) fn jitter(run: &RunNames, step_id: &str, attempt: u32) -> u32 {
    let mut hasher = DefaultHasher::new();
    (&run.connector_id, &run.account_id, &run.sync_id).hash(&mut hasher);
    (step_id, attempt).hash(&mut hasher);
    u32::try_from(hasher.finish() % 1_001).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pauses(retries: Retries, error: &ConnectorError, jitter: u32) -> String {
        let pauses = (1..).map_while(|attempt| retries.pause(attempt, error, jitter));
        let pauses: Vec<_> = pauses.map(|pause| format!("{pause:?}")).collect();
        pauses.join(" ")
    }

    fn limited(retry_after: Duration) -> ConnectorError {
        ConnectorError::RateLimited {
            service: "iam".to_owned(),
            retry_after,
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let reset = ConnectorError::retryable("reset");
        let retries = Retries::up_to(6).longest_pause(Duration::from_secs(10));
        assert_eq!(pauses(retries, &reset, 0), "1s 2s 4s 8s 10s 10s");
        assert_eq!(pauses(retries, &reset, 1_000), "500ms 1s 2s 4s 5s 5s");
        assert_eq!(pauses(Retries::default(), &reset, 0), "1s 2s 4s");
        assert_eq!(pauses(Retries::up_to(0), &reset, 0), "");
    }

    #[test]
    fn only_what_may_succeed_is_tried_again() {
        let retries = Retries::up_to(1);
        let timed_out = ConnectorError::TimedOut {
            after: Duration::from_secs(9),
        };
        assert_eq!(pauses(retries, &timed_out, 0), "1s");
        let panicked = ConnectorError::Panicked {
            message: String::new(),
        };
        for error in [
            ConnectorError::fatal("no"),
            ConnectorError::unauthorized("no"),
            ConnectorError::Cancelled,
            panicked,
        ] {
            assert_eq!(pauses(retries, &error, 0), "", "{error}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_unless_it_is_too_long() {
        let seconds = |seconds| limited(Duration::from_secs(seconds));
        let retries = Retries::up_to(2).longest_pause(Duration::from_secs(1));
        assert_eq!(pauses(retries, &seconds(30), 0), "30s 30s");
        assert_eq!(pauses(retries, &seconds(30), 1_000), "31.5s 31.5s");
        assert_eq!(pauses(retries, &seconds(300), 0), "300s 300s");
        assert_eq!(pauses(retries, &seconds(301), 0), "");
        assert_eq!(pauses(retries, &limited(Duration::MAX), 1_000), "");
    }

    proptest! {
        #[test]
        fn jitter_is_spread_and_stays_in_bounds(
            first: u64, longest: u64, attempt in 1..=200_u32, step_id in "[a-z]{1,9}", asked in 0..=300_u64,
        ) {
            let run = RunNames {
                connector_id: "team".into(),
                account_id: "acme".into(),
                sync_id: "sync-001".into(),
            };
            let drawn = jitter(&run, &step_id, attempt);
            prop_assert!(drawn <= 1_000);
            let other: Vec<_> = (201..206).map(|n| jitter(&run, &step_id, n)).collect();
            prop_assert!(other.iter().any(|other| *other != drawn));

            let retries = Retries::up_to(u32::MAX)
                .first_pause(Duration::from_nanos(first))
                .longest_pause(Duration::from_nanos(longest));
            let reset = ConnectorError::retryable("reset");
            let most = retries.pause(attempt, &reset, 0).unwrap();
            let pause = retries.pause(attempt, &reset, drawn).unwrap();
            prop_assert!(most / 2 <= pause && pause <= most, "{:?} of {:?}", pause, most);
            let next = retries.pause(attempt + 1, &reset, 0).unwrap();
            let cap = Duration::from_nanos(longest);
            prop_assert_eq!(next, most.saturating_mul(2).min(cap).max(most));

            let asked = Duration::from_secs(asked);
            let pause = retries.pause(attempt, &limited(asked), drawn).unwrap();
            prop_assert!(asked <= pause && pause <= asked + asked / 20);
        }
    }
}

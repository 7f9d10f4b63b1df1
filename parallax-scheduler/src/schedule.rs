use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::cron::Cron;

/// When a job runs, and what happens at a tick at which it cannot.
///
/// A [`Duration`] is the schedule of that interval.
#[derive(Clone, PartialEq)]
pub struct Schedule {
    pub(crate) ticks: Ticks,
    jitter: Option<Duration>,
    pub(crate) overlap: Overlap,
    pub(crate) missed: Missed,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Ticks {
    Every(Duration),
    // Boxed: it is a hundred times as large.
    Cron(Box<Cron>),
}

/// What a tick comes to while the job's last sync still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing: the job runs at the next tick.
    #[default]
    Skip,
    /// A sync as soon as the last one has ended. One waits at most.
    Queue,
}

/// What becomes of ticks that passed while nothing could run: the process was not there, or the
/// machine was suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// The job runs once for all of them, as soon as it can.
    #[default]
    RunOnce,
    /// Nothing: the job runs at the next tick.
    Skip,
}

impl Schedule {
    /// Makes a schedule with a tick at once, and then once per interval, which is a millisecond at
    /// least.
    ///
    /// With [`Missed::Skip`], the first tick is an interval after the job's last sync that was
    /// committed, also by an earlier process, or at once if there was none.
    pub fn every(interval: Duration) -> Self {
        Self::new(Ticks::Every(interval.max(Duration::from_millis(1))))
    }

    /// Makes a schedule with a tick at each time of a pattern.
    ///
    /// What an earlier process missed are those since the job's last sync that was committed. A job
    /// that never had one has missed nothing.
    pub fn cron(cron: Cron) -> Self {
        Self::new(Ticks::Cron(Box::new(cron)))
    }

    fn new(ticks: Ticks) -> Self {
        Self {
            ticks,
            jitter: None,
            overlap: Overlap::default(),
            missed: Missed::default(),
        }
    }

    /// Sets how late a tick may be: by another part of `jitter` each time, so that jobs of one
    /// schedule do not all start at once. Where ticks are closer together, their distance counts.
    ///
    /// Without it, a tenth of the interval, and nothing for a pattern.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// Sets what a tick comes to while the last sync still runs: it is skipped if nothing is said.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Sets what becomes of ticks that were missed: one sync for all of them if nothing is said.
    ///
    /// The tick that came last is missed, too, if it is more than a minute ago.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Returns the pattern, if it has one.
    pub fn as_cron(&self) -> Option<&Cron> {
        match &self.ticks {
            Ticks::Cron(cron) => Some(cron),
            Ticks::Every(_) => None,
        }
    }

    /// Returns the longest time between two ticks; of a pattern, in the year after `at`.
    pub fn longest_interval(&self, at: Timestamp) -> Duration {
        match &self.ticks {
            Ticks::Every(interval) => *interval,
            Ticks::Cron(cron) => cron.longest_pause(at),
        }
    }

    /// Returns how late a tick may be that is followed by another after `distance`.
    pub(crate) fn jitter_within(&self, distance: Duration) -> Duration {
        let default = || match self.ticks {
            Ticks::Every(interval) => interval / 10,
            Ticks::Cron(_) => Duration::ZERO,
        };
        self.jitter.unwrap_or_else(default).min(distance)
    }
}

impl From<Duration> for Schedule {
    fn from(interval: Duration) -> Self {
        Self::every(interval)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Schedule");
        match &self.ticks {
            Ticks::Every(interval) => debug.field("every", interval),
            Ticks::Cron(cron) => debug.field("cron", &format_args!("{cron}")),
        };
        debug
            .field("jitter", &self.jitter)
            .field("overlap", &self.overlap)
            .field("missed", &self.missed)
            .finish()
    }
}

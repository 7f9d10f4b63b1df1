use std::fmt;
use std::time::Duration;

use croner::errors::CronError as PatternError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

/// When to run, as a crontab says it, by the clock of a time zone.
///
/// The pattern has five fields: minute, hour, day of the month, month, day of the week. It may name
/// months and days (`MON-FRI`), and stand for a whole (`@daily`). Where both days are given, either
/// is enough; with a `+` before the day of the week both must hold. `L` is the last day of a month,
/// `15W` the working day nearest to the 15th, `5#2` the second Friday, `5#L` the last one.
///
/// Where clocks change, it keeps to the rules of Vixie's cron. A pattern with a `*` in its minute or
/// its hour runs whenever the clock shows a time that it names: not in an hour that is left out, and
/// again in one that is repeated. Any other names times of the day, and runs once for each: when the
/// time is left out, as soon as the clock has gone forward, and when it is repeated, the first time.
#[derive(Clone, PartialEq)]
pub struct Cron {
    pattern: String,
    cron: croner::Cron,
    zone: TimeZone,
    zone_name: String,
    /// Whether it goes by the clock, whatever the clock does.
    has_wildcard: bool,
}

/// Why there is no such [`Cron`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// The pattern is not one.
    #[error("{pattern:?} is not a cron pattern: {reason}")]
    InvalidPattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pattern is one, and no time is ever like it: there is no 30th of February.
    #[error("the time of {pattern:?} never comes")]
    NeverDue {
        /// What was given.
        pattern: String,
    },
    /// No time zone has that name.
    #[error("there is no time zone {zone:?}")]
    UnknownZone {
        /// What was given.
        zone: String,
    },
}

const FIELDS: [&str; 5] = [
    "minute",
    "hour",
    "day of the month",
    "month",
    "day of the week",
];

impl Cron {
    /// Reads a pattern, for the clock of a time zone by its IANA name, such as `Europe/Berlin`.
    ///
    /// Zones are those of the system and, where it lacks one, those that were current when the
    /// program was built.
    ///
    /// # Errors
    ///
    /// [`CronError`] if it means nothing, or nothing that ever comes.
    pub fn try_new(pattern: &str, zone: &str) -> Result<Self, CronError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(pattern)
            .map_err(|error| CronError::InvalidPattern {
                pattern: pattern.to_owned(),
                reason: reason(&parser, pattern, error),
            })?;
        let unknown = || CronError::UnknownZone {
            zone: zone.to_owned(),
        };
        let known = TimeZone::get(zone).or_else(|_| TimeZoneDatabase::bundled().get(zone));
        let known = known.map_err(|_| unknown())?;
        // By its own name: what is meant must not depend on how it is written.
        let zone_name = known.iana_name().ok_or_else(unknown)?.to_owned();
        // Here, nicknames have become fields.
        let mut clock = cron.as_str().split_whitespace().take(2);
        let has_wildcard = clock.any(|field| field.starts_with('*'));
        let cron = Self {
            pattern: pattern.trim().to_owned(),
            cron,
            zone: known,
            zone_name,
            has_wildcard,
        };
        if cron.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(CronError::NeverDue {
                pattern: cron.pattern,
            });
        }
        Ok(cron)
    }

    /// Returns the pattern as it was given.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Returns the time zone.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Returns the first time after `at`, or nothing at the end of the calendar.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        if self.has_wildcard {
            let at = at.to_zoned(self.zone.clone());
            let next = self.cron.find_next_occurrence(&at, false).ok()?;
            return Some(next.timestamp());
        }
        let mut civil = self.zone.to_datetime(at);
        loop {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            // Of times that the clock shows again, those to come were there already.
            if let Some(next) = self.first(civil).filter(|next| *next > at) {
                return Some(next);
            }
        }
    }

    /// Returns the times after `at`, in their order.
    pub fn iter_after(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(at), |at| self.next_after(*at))
    }

    /// Returns the longest that it pauses in the year after `at`, as far as 400 times tell, or as
    /// many as there are in a week: it may pause at night, or on Sundays.
    pub(crate) fn longest_pause(&self, at: Timestamp) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let (mut longest, mut last) = (Duration::ZERO, None);
        for (count, next) in self.iter_after(at).enumerate() {
            if let Some(last) = last.replace(next) {
                longest = longest.max(since(next, last));
            }
            let seen = since(next, at);
            let is_enough = seen > 366 * DAY || (count >= 400 && seen > 8 * DAY);
            if is_enough && count > 0 {
                break;
            }
        }
        longest
    }

    /// Returns when the clock shows a time first or, if it never does, when it is past it.
    fn first(&self, civil: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the offset to come, it is before the clock goes forward.
                let earlier = after.to_timestamp(civil).ok()?;
                let forward = self.zone.following(earlier).next()?;
                Some(forward.timestamp())
            }
        }
    }
}

/// Returns how long `later` is after `earlier`; nothing if it is not.
pub(crate) fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// Says what is wrong, as a part of a sentence.
fn reason(parser: &CronParser, pattern: &str, error: PatternError) -> String {
    let what = match error {
        PatternError::EmptyPattern => return "it is empty".to_owned(),
        _ if pattern.contains('@') => return "there is no such nickname".to_owned(),
        PatternError::InvalidPattern(_) => return "it does not have five fields".to_owned(),
        PatternError::IllegalCharacters(_) => "a character that means nothing there".to_owned(),
        PatternError::ComponentError(reason) => {
            // What follows is advice.
            let reason = reason.split(". ").next().unwrap_or_default();
            let mut letters = reason.trim_end_matches('.').chars();
            let first = letters.next().map(|letter| letter.to_ascii_lowercase());
            first.into_iter().chain(letters).collect()
        }
        error => return error.to_string(),
    };
    // The first field with which nothing else is a pattern.
    let mut fields = pattern.split_whitespace().zip(FIELDS).enumerate();
    let is_wrong = |(place, (field, _)): &(usize, (&str, &str))| {
        let mut alone = ["*"; FIELDS.len()];
        if let Some(place) = alone.get_mut(*place) {
            *place = field;
        }
        parser.parse(&alone.join(" ")).is_err()
    };
    match fields.find(is_wrong) {
        Some((_, (_, name))) => format!("{what}, in the {name}"),
        None => what,
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self})")
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pattern, self.zone_name)
    }
}

#[cfg(test)]
mod tests;

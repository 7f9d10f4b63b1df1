use std::ops::Range;
use std::time::Duration;

use parallax_scheduler::{Cron, CronError, Missed, Overlap, Schedule};

use super::interval::{duration, in_short, interval};
use super::section::{Section, suggestion};

/// Whose clock a pattern goes by if nothing is said.
const ZONE: &str = "UTC";

/// Takes when a source is synced.
///
/// Returns nothing if something is wrong with it; then there is a problem.
pub(super) fn schedule(section: &mut Section<'_, '_>, header: &Range<usize>) -> Option<Schedule> {
    let named = section.has("every") || section.has("cron");
    let every = every(section);
    let cron = cron(section);
    let overlap = choice(
        section,
        "overlap",
        [("skip", Overlap::Skip), ("queue", Overlap::Queue)],
    );
    let missed = choice(
        section,
        "missed",
        [("run-once", Missed::RunOnce), ("skip", Missed::Skip)],
    );
    let jitter = jitter(section, every.as_ref().ok().copied().flatten());
    if !named {
        let what = "this [[connector]] lacks \"every\" or \"cron\"".to_owned();
        let help = "add every = \"15m\", or cron = \"30 2 * * *\" for a time of the day";
        section.problems.note_at(header, what, help);
    }
    let schedule = match (every.ok()?, cron.ok()?) {
        (Some(interval), None) => Schedule::every(interval),
        (None, Some(cron)) => Schedule::cron(cron),
        _ => return None,
    };
    let schedule = schedule.overlap(overlap?).missed(missed?);
    Some(match jitter.ok()? {
        Some(jitter) => schedule.jitter(jitter),
        None => schedule,
    })
}

/// Something is wrong, and there is a problem that says what.
struct Noted;

fn every(section: &mut Section<'_, '_>) -> Result<Option<Duration>, Noted> {
    if !section.has("every") {
        section.text("every");
        return Ok(None);
    }
    let (text, span) = section.text("every").ok_or(Noted)?;
    let read = interval(text).map_err(|reason| {
        let what = format!("every = {text:?} is not an interval: {reason}");
        let help = "write a number and s, m, h or d, for example \"15m\"";
        section.problems.note_at(&span, what, help);
        Noted
    });
    read.map(Some)
}

fn cron(section: &mut Section<'_, '_>) -> Result<Option<Cron>, Noted> {
    let is_cron = section.has("cron");
    let pattern = section.text("cron");
    let names_zone = section.has("timezone");
    let zone = section.text("timezone");
    if names_zone && !is_cron {
        let help = "remove it, or write cron = \"30 2 * * *\" in place of every";
        if let Some((_, span)) = zone {
            let what = "timezone is there without cron".to_owned();
            section.problems.note_at(&span, what, help);
        }
        return Err(Noted);
    }
    if !is_cron {
        return Ok(None);
    }
    let (pattern, span) = pattern.ok_or(Noted)?;
    if section.has("every") {
        let what = "both every and cron are given".to_owned();
        section.problems.note_at(&span, what, "keep one of them");
        return Err(Noted);
    }
    let (zone, zone_span) = match zone {
        Some(zone) => zone,
        None if names_zone => return Err(Noted),
        None => (ZONE, span.clone()),
    };
    let read = Cron::try_new(pattern, zone).map_err(|error| {
        let (span, help) = match &error {
            CronError::UnknownZone { .. } => (
                zone_span,
                "write its IANA name, for example \"Europe/Berlin\"; UTC if you leave it out",
            ),
            CronError::NeverDue { .. } => (span, "check the day and the month"),
            _ => (
                span,
                "write minute, hour, day of the month, month and day of the week, for example \
                 \"30 2 * * MON-FRI\"",
            ),
        };
        section.problems.note_at(&span, error.to_string(), help);
        Noted
    });
    read.map(Some)
}

fn jitter(
    section: &mut Section<'_, '_>,
    every: Option<Duration>,
) -> Result<Option<Duration>, Noted> {
    if !section.has("jitter") {
        section.text("jitter");
        return Ok(None);
    }
    let (text, span) = section.text("jitter").ok_or(Noted)?;
    let reason = match duration(text) {
        Ok(jitter) if every.is_none_or(|every| jitter < every) => return Ok(Some(jitter)),
        Ok(_) => "it is not shorter than the interval",
        Err(reason) => reason,
    };
    let what = format!("jitter = {text:?} is not how late a sync may be: {reason}");
    let help = "write a number and s, m, h or d, for example \"30s\"; \"0s\" for none";
    section.problems.note_at(&span, what, help);
    Err(Noted)
}

/// Takes one of some words, or nothing for its default.
fn choice<T: Default + Copy, const N: usize>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    words: [(&'static str, T); N],
) -> Option<T> {
    if !section.has(key) {
        section.text(key);
        return Some(T::default());
    }
    let (text, span) = section.text(key)?;
    let known = words.map(|(word, _)| word);
    let found = words.into_iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let what = format!("{key} = {text:?} is none of its words");
        section
            .problems
            .note_at(&span, what, suggestion(text, &known));
    }
    found.map(|(_, value)| value)
}

/// Writes a schedule as it was given: `every 15m`.
pub(crate) fn schedule_in_short(schedule: &Schedule, interval: Duration) -> String {
    match schedule.as_cron() {
        Some(cron) => cron.to_string(),
        None => format!("every {}", in_short(interval)),
    }
}

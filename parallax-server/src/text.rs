use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};
use indicatif::HumanCount;
use parallax_core::escape;

/// For what went as it should, and what is new.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For what did not go as it should, and what has changed.
pub(crate) const ODD: Style = AnsiColor::Yellow.on_default();
/// For what is gone.
pub(crate) const GONE: Style = AnsiColor::Red.on_default();
/// For what failed.
pub(crate) const WRONG: Style = AnsiColor::Red.on_default().bold();
/// For hints.
pub(crate) const GOOD_TO_KNOW: Style = AnsiColor::Cyan.on_default();
/// For what few will read.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Returns `text` with the escape sequences of a style around it.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Returns `n` with the word that goes with it: `1 entity`, `2,000 entities`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", HumanCount(n), if n == 1 { one } else { many })
}

/// Returns the counts of both kinds, without what is zero: `2 entities, 1 relationship`.
pub(crate) fn counts(entities: u64, relationships: u64) -> String {
    let entities_text = count(entities, "entity", "entities");
    let relationships_text = count(relationships, "relationship", "relationships");
    match (entities, relationships) {
        (_, 0) => entities_text,
        (0, _) => relationships_text,
        _ => format!("{entities_text}, {relationships_text}"),
    }
}

/// Returns a duration with as many digits as anyone wants to read.
pub(crate) fn seconds(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Returns whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a panic's message in one line.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    escape(message).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(counts(1, 2_000), "1 entity, 2,000 relationships");
        assert_eq!(counts(0, 1), "1 relationship");
        assert_eq!(counts(0, 0), "0 entities");
        let texts =
            [0.004, 9.99, 59.94, 61.0, 7_325.0].map(|s| seconds(Duration::from_secs_f64(s)));
        assert_eq!(
            texts,
            ["4 ms", "9.99 s", "59.9 s", "1 min 1 s", "2 h 2 min"]
        );
    }
}

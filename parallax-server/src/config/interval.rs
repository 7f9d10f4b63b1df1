use std::time::Duration;

/// Longer ones are more likely a slip than a wish.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads an interval: a whole number and its unit, such as `15m`.
pub(super) fn interval(text: &str) -> Result<Duration, &'static str> {
    match duration(text)? {
        Duration::ZERO => Err("it is zero"),
        interval => Ok(interval),
    }
}

/// Reads a time that may be none at all.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "" if !number.is_empty() => return Err("it has no unit"),
        _ => return Err("it is not a whole number with a unit"),
    };
    if number.is_empty() {
        return Err("it has no number");
    }
    let duration = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs);
    let duration = duration.filter(|duration| *duration <= LONGEST);
    duration.ok_or("it is longer than a year")
}

/// Writes an interval as it can be read: `15m`.
pub(crate) fn in_short(interval: Duration) -> String {
    let seconds = interval.as_secs();
    let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
    let whole = units.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (unit, name) = whole.copied().unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_reads_as_the_same() {
        for text in ["1s", "90s", "15m", "36h", "7d"] {
            assert_eq!(in_short(interval(text).unwrap()), text);
        }
    }

    #[test]
    fn intervals_are_a_number_and_a_unit() {
        let texts = [
            "1s",
            "15m",
            "36h",
            "7d",
            "",
            "s",
            "15",
            "0m",
            "1.5h",
            "15 m",
            "-1m",
            "1M",
            "367d",
            "99999999999999999999s",
            "9223372036854775807d",
            "１s",
        ];
        let read: Vec<String> = texts
            .iter()
            .map(|text| format!("{text:?}: {:?}", interval(text)))
            .collect();
        insta::assert_snapshot!(read.join("\n"), @r#"
        "1s": Ok(1s)
        "15m": Ok(900s)
        "36h": Ok(129600s)
        "7d": Ok(604800s)
        "": Err("it is not a whole number with a unit")
        "s": Err("it has no number")
        "15": Err("it has no unit")
        "0m": Err("it is zero")
        "1.5h": Err("it is not a whole number with a unit")
        "15 m": Err("it is not a whole number with a unit")
        "-1m": Err("it is not a whole number with a unit")
        "1M": Err("it is not a whole number with a unit")
        "367d": Err("it is longer than a year")
        "99999999999999999999s": Err("it is longer than a year")
        "9223372036854775807d": Err("it is longer than a year")
        "１s": Err("it is not a whole number with a unit")
        "#);
    }
}

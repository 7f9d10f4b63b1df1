//! What may be the value of a label.

/// Stands for every id that is not one.
pub(crate) const INVALID: &str = "__invalid__";

/// Stands for every id that came when there was no more room.
pub(crate) const OTHER: &str = "__other__";

/// Returns `id` if it may be a label's value, else [`INVALID`].
///
/// An id comes from a connector's author or a configuration. What is let through here ends up in a
/// scrape, a dashboard and an alert's text: no control character, no quote, no megabyte.
pub(crate) fn checked(id: &str) -> &str {
    let is_valid = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
    // Nobody is called like those that are told together.
    match is_valid && id != OTHER {
        true => id,
        false => INVALID,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_become_labels() {
        for id in ["aws", "a", "0", "aws-prod_2.eu", &"a".repeat(64)] {
            assert_eq!(checked(id), id);
        }
        for id in [
            "",
            "Aws",
            "a b",
            "a\nb",
            "a\"b",
            "a\\b",
            "a\0",
            "\u{1b}[31m",
            "gr\u{fc}n",
            "{}",
            "a/b",
            OTHER,
            &"a".repeat(65),
        ] {
            assert_eq!(checked(id), INVALID, "{id:?}");
        }
    }
}

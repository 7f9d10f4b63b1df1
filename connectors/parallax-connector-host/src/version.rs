use std::cmp::Ordering;

/// Compares two versions of Debian packages, as deb-version(7) says.
///
/// Own code, because the crate for it brings regular expressions, big integers and a calendar.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let ((a_epoch, a), (b_epoch, b)) = (split_epoch(a), split_epoch(b));
    let ((a, a_revision), (b, b_revision)) = (split_revision(a), split_revision(b));
    compare_part(a_epoch, b_epoch)
        .then_with(|| compare_part(a, b))
        .then_with(|| compare_part(a_revision, b_revision))
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("", version))
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares texts and numbers in turn, starting with a text that may be empty.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !(a.is_empty() && b.is_empty()) {
        let ((a_text, a_rest), (b_text, b_rest)) = (split_text(a), split_text(b));
        let ((a_number, a_rest), (b_number, b_rest)) = (split_number(a_rest), split_number(b_rest));
        let order = weights(a_text)
            .cmp(weights(b_text))
            // A longer number is a larger one; there is no end to how long it may be.
            .then_with(|| a_number.len().cmp(&b_number.len()))
            .then_with(|| a_number.cmp(b_number));
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

fn split_text(part: &str) -> (&str, &str) {
    split_where(part, |c| c.is_ascii_digit())
}

/// Splits off a number, without its leading zeros: none is zero.
fn split_number(part: &str) -> (&str, &str) {
    let (number, rest) = split_where(part, |c| !c.is_ascii_digit());
    (number.trim_start_matches('0'), rest)
}

fn split_where(part: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    part.split_at(part.find(ends).unwrap_or(part.len()))
}

/// Returns what a text is sorted by: `~` before its end, its end before letters, letters before
/// everything else.
fn weights(text: &str) -> impl Iterator<Item = (i8, char)> {
    let weight = |c: char| match c {
        '~' => (-1, c),
        c if c.is_ascii_alphabetic() => (1, c),
        c => (2, c),
    };
    text.chars().map(weight).chain([(0, '\0')])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "~~",
            "~~a",
            "~",
            "0",
            "0a",
            "0.1",
            "1~rc1",
            "1",
            "1-0.1",
            "1-1",
            "1a",
            "1+b1",
            "1.2",
            "1.10",
            "1.10-1~bpo12+1",
            "1.10-1",
            "1.10-1+deb12u1",
            "1.10.1",
            "99999999999999999999999",
            "1:0.1",
            "2:0~",
            "10:0",
        ];
        for (place, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), place.cmp(&other), "{a} and {b}");
            }
        }
    }

    #[test]
    fn different_spellings_of_a_version_are_equal() {
        for (a, b) in [
            ("1", "0:1"),
            ("1", "1-0"),
            ("1.01", "1.1"),
            ("", "0"),
            ("1.", "1.0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} and {b}");
        }
    }
}

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Displays a text from outside so that it stays one line and cannot steer a terminal.
///
/// Control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls and the
/// byte order mark are written as Rust escapes (`\n`, `\u{202e}`); everything else is written as it
/// is, backslashes included: escaping twice changes nothing.
///
/// ```
/// use parallax_core::Escaped;
///
/// assert_eq!(Escaped("a\nb\u{1b}[31m").to_string(), r"a\nb\u{1b}[31m");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

/// Returns `text` as [`Escaped`] displays it, without copying where nothing needs an escape.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(needs_escape) {
        Cow::Owned(Escaped(text).to_string())
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns JSON that stays one line and cannot steer a terminal, and means the same.
///
/// JSON lets DEL, C1, line separators and bidirectional controls stand as they are. They can stand
/// inside of strings only, where its own escapes mean the same.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(needs_escape) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if needs_escape(c) {
            text += &format!("\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

/// Returns the beginning of a text from outside, escaped: enough to find it, too little to flood a
/// log. A text of more than `chars` characters ends in `…`.
///
/// ```
/// use parallax_core::excerpt;
///
/// assert_eq!(excerpt("404\nNot Found", 5), r"404\nN…");
/// ```
pub fn excerpt(text: &str, chars: usize) -> String {
    match text
        .char_indices()
        .nth(chars)
        .and_then(|(end, _)| text.get(..end))
    {
        Some(beginning) => format!("{}…", Escaped(beginning)),
        None => escape(text).into_owned(),
    }
}

struct EscapingWriter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(needs_escape) {
            match piece.char_indices().next_back() {
                Some((end, c)) if needs_escape(c) => {
                    self.0.write_str(piece.get(..end).unwrap_or_default())?;
                    write!(self.0, "{}", c.escape_default())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// Tells whether `text` can name a connector or a step: `[a-z0-9_.-]{1,64}`.
///
/// Such names need no escape in logs, metric labels and URLs.
pub fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
}

/// Tells whether `text` can name an account, a sync or a scope: 1 to 256 bytes without control
/// characters.
pub fn is_plain_name(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outside_text_stays_one_line() {
        let hostile = "a\r\nb\u{1b}]0;x\u{7}\u{9b}31m\u{2028}\u{202e}gpj.exe\0";
        let shown = r"a\r\nb\u{1b}]0;x\u{7}\u{9b}31m\u{2028}\u{202e}gpj.exe\u{0}";
        assert_eq!(Escaped(hostile).to_string(), shown);
        assert_eq!(escape("plain – text"), "plain – text");
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt("ünïcode", 7), "ünïcode");
        assert_eq!(excerpt("ünïcode", 3), "ünï…");
        assert_eq!(excerpt("", 0), "");
        assert_eq!(excerpt("a\0", 1), "a…");
        assert_eq!(excerpt("a\0", 2), r"a\u{0}");
    }

    #[test]
    fn names_have_a_form() {
        for name in ["a", "0", "-", "okta.users_2-x", &"x".repeat(64)] {
            assert!(is_identifier(name), "{name:?}");
        }
        for name in ["", "A", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_identifier(name), "{name:?}");
        }
        for name in ["a", "Ünïcode 1", "a\u{202e}b", &"x".repeat(256)] {
            assert!(is_plain_name(name), "{name:?}");
        }
        for name in ["", "a\n", "a\0", "\u{9b}", "\u{7f}", &"x".repeat(257)] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_needs_no_escape(text: String, steering in r"[\x00-\x1f\x7f-\x9f\u{200e}-\u{202e}a]*") {
            for text in [text, steering] {
                let escaped = escape(&text);
                prop_assert!(!escaped.contains(needs_escape));
                prop_assert_eq!(escape(&escaped), escaped.as_ref());
            }
        }
    }
}

//! Hides secrets in what a system sent before it becomes part of an error or a log line.
//!
//! An error that cites the URL it asked for, or what a server answered, is worth much to whoever
//! looks for the cause, and it is stored and shown in many places. What looks like a secret becomes
//! `***`; all else stays readable.
//!
//! ```
//! use parallax_connect::redact;
//!
//! assert_eq!(
//!     redact::url("https://ann:xyz@shop.example/v1/orders?page=2&api_key=1234"),
//!     "https://***@shop.example/v1/orders?page=2&api_key=***"
//! );
//! assert_eq!(
//!     redact::body(r#"{"error": "expired", "refresh_token": "abc", "status": 401}"#),
//!     r#"{"error": "expired", "refresh_token": "***", "status": 401}"#
//! );
//! ```
//!
//! It is a net, not a wall: a secret that stands alone in a sentence, and looks like a word, cannot
//! be known for one. Do not send what need not be sent.

use std::borrow::Cow;

/// Stands for what was hidden.
const HIDDEN: &str = "***";
/// Of a longer text, the beginning is enough to find it.
const CHARS: usize = 500;
/// What is further behind is not looked at.
const BYTES: usize = 64 * 1024;
/// A text that is not stable by then is hidden.
const PASSES: u8 = 8;
/// What is encoded more often than this is hidden.
const ENCODINGS: u8 = 4;
/// So is what is longer, so that much of it does not take long.
const LONGEST_ENCODED: usize = 4096;

/// Returns a URL, or a part of one, without its secrets: user and password, the values of parameters
/// whose names say that they are secret (token, key, signature, password, code, …), and whatever is
/// long and looks random.
///
/// At most 500 characters; of a longer one the beginning, and `…`. Applied twice it changes nothing
/// more. It does not have to be a valid URL.
pub fn url(url: &str) -> String {
    redact(url, Place::Url)
}

/// Returns the beginning of a body, of headers, or of any text, without its secrets.
///
/// Hidden are values that stand behind the name of a secret, in JSON, forms, headers, XML, YAML and
/// the like; credentials behind `Bearer` and `Basic`; PEM blocks; users and passwords in URLs; and
/// whatever is long and looks random, but for UUIDs, by which systems name their requests.
///
/// At most 500 characters; of a longer one the beginning, and `…`. Applied twice it changes nothing
/// more. Control characters stay: errors and logs escape them.
pub fn body(body: &str) -> String {
    redact(body, Place::Body)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Url,
    Body,
}

fn redact(text: &str, place: Place) -> String {
    let mut shown = redact_once(text, place);
    // Where something was hidden, what stands around it may have become a secret's place.
    for _ in 0..PASSES {
        let again = redact_once(&shown, place);
        if again == shown {
            return shown;
        }
        shown = again;
    }
    HIDDEN.to_owned()
}

fn redact_once(text: &str, place: Place) -> String {
    let mut shown = String::new();
    let mut room = CHARS;
    // By whole pieces, so that what is shown is known for what it is when it is redacted again.
    for piece in Pieces::new(beginning(text), place, 0) {
        let chars = piece.chars().count();
        if chars > room {
            shown.push('…');
            break;
        }
        room -= chars;
        shown += &piece;
    }
    shown
}

/// Returns as much of a text as is looked at. A word that is cut is left out: it may be the beginning
/// of a secret.
fn beginning(text: &str) -> &str {
    if text.len() <= BYTES {
        return text;
    }
    let end = (0..=BYTES).rev().find(|end| text.is_char_boundary(*end));
    let beginning = text.get(..end.unwrap_or(0)).unwrap_or_default();
    beginning.trim_end_matches(|c| is_word(c, true))
}

/// A text in pieces that are shown as they are, or with something hidden.
struct Pieces<'a> {
    rest: &'a str,
    place: Place,
    /// How often the text was decoded.
    depth: u8,
    /// The last character shown.
    last: char,
    /// Within double quotes.
    in_string: bool,
    /// At the beginning of a URL without a scheme.
    is_bare_url: bool,
    /// Behind a URL's `?` or `#`.
    in_query: bool,
    /// Whether the name of a secret was given as a value, as in `{"name": "password", "value": …`.
    is_named: bool,
}

/// What stands between a name and its value.
struct Glue<'a> {
    text: &'a str,
    /// The name is in quotes, and this ends them.
    is_quoted: bool,
    separator: Separator,
    /// There is space around the separator.
    is_spaced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    Colon,
    Equals,
    /// The end of an element's tag.
    Tag,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        let first = self.rest.chars().next()?;
        let may_be_user = std::mem::take(&mut self.is_bare_url);
        let piece = if may_be_user
            && let user = self.authority("")
            && !user.is_empty()
        {
            user
        } else if self.rest.starts_with(PEM_BEGIN) {
            self.pem()
        } else if self.rest.starts_with("://") {
            self.authority("://")
        } else if is_word(first, self.takes_slash()) {
            self.word()
        } else {
            Cow::Borrowed(self.mark(first))
        };
        self.last = piece.chars().next_back().unwrap_or(self.last);
        Some(piece)
    }
}

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

impl<'a> Pieces<'a> {
    fn new(rest: &'a str, place: Place, depth: u8) -> Self {
        Self {
            rest,
            place,
            depth,
            last: '\n',
            in_string: false,
            is_bare_url: place == Place::Url && depth == 0 && !rest.contains("://"),
            in_query: false,
            is_named: false,
        }
    }

    /// Tells whether `/` is part of a word: it is in base64, but parts a path.
    fn takes_slash(&self) -> bool {
        self.place == Place::Body || self.in_query
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn pem(&mut self) -> Cow<'a, str> {
        self.take(end_of_pem(self.rest));
        Cow::Borrowed(HIDDEN)
    }

    /// Takes what leads to a host, and user and password before it.
    fn authority(&mut self, scheme_end: &'static str) -> Cow<'a, str> {
        self.take(scheme_end.len());
        let is_end = |c: char| match self.place {
            Place::Url => false,
            Place::Body => c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\'),
        };
        let url = self.rest.find(is_end).unwrap_or(self.rest.len());
        let url = self.rest.get(..url).unwrap_or_default();
        const MARKS: [char; 3] = ['/', '?', '#'];
        let end = url.find(MARKS).unwrap_or(url.len());
        let (host, path) = url.split_at_checked(end).unwrap_or_default();
        let user = host.rfind('@').or_else(|| {
            // A password that holds a `/` or the like, which it should not.
            let (_, password) = host.rsplit_once(':')?;
            let end = if host.starts_with('[') {
                return None;
            } else if password.bytes().all(|b| b.is_ascii_digit()) {
                // Or a port, and a path, in which an `@` is more often further behind.
                let next = path.get(1..)?.find(MARKS);
                next.map_or(url.len(), |next| end + 1 + next)
            } else {
                url.len()
            };
            url.get(..end)?.rfind('@')
        });
        let Some(user) = user else {
            return Cow::Borrowed(scheme_end);
        };
        self.take(user + 1);
        Cow::Owned(format!("{scheme_end}{HIDDEN}@"))
    }

    /// Takes a character that is part of no word, or an escape.
    fn mark(&mut self, first: char) -> &'a str {
        match (self.place, first) {
            (Place::Url, '?' | '#') => self.in_query = true,
            (Place::Body, '"') => self.in_string = !self.in_string,
            (Place::Body, '}') => self.is_named = false,
            // What is escaped is no quote, and `n` no part of a word.
            (Place::Body, '\\')
                if self
                    .rest
                    .chars()
                    .nth(1)
                    .is_some_and(|c| "\"'\\nr".contains(c)) =>
            {
                return self.take(2);
            }
            _ => {}
        }
        self.take(first.len_utf8())
    }

    fn word(&mut self) -> Cow<'a, str> {
        let takes_slash = self.takes_slash();
        let end = self.rest.find(|c| !is_word(c, takes_slash));
        let end = end.unwrap_or(self.rest.len());
        // The dashes of a PEM block are part of a word, too.
        let whole = self.rest.get(..end).unwrap_or_default();
        let pem = self.rest.find(PEM_BEGIN).filter(|pem| *pem < end);
        let word = pem.and_then(|pem| whole.get(..pem)).unwrap_or(whole);
        let tail = self.rest.get(word.len()..).unwrap_or_default();

        let decoded = decode(word);
        if let Cow::Owned(decoded) = &decoded
            && (self.depth == ENCODINGS
                || decoded.len() > LONGEST_ENCODED
                || hides(decoded, self.place, self.depth + 1))
        {
            self.take(word.len());
            return Cow::Borrowed(HIDDEN);
        }
        if let Some(glue) = self.glue(tail)
            && (is_secret(&decoded, glue.separator) || self.is_named_value(&decoded))
        {
            return self.value(word, &glue, tail);
        }
        if self.place == Place::Body {
            if self.last == '"' && tail.starts_with('"') && is_secret(&decoded, Separator::Colon) {
                self.is_named = true;
            }
            if let Some(credentials) = credentials(word, tail) {
                let shown = word.len() + (tail.len() - credentials.len());
                let shown = self.take(shown);
                let is_end = |c: char| c.is_whitespace() || "\"'\\,;<>".contains(c);
                let end = credentials.find(is_end).unwrap_or(credentials.len());
                let hidden = hide(self.take(end));
                return Cow::Owned(format!("{shown}{hidden}"));
            }
        }
        let is_password = self.last == ':' && tail.starts_with('@');
        self.take(word.len());
        match is_password || looks_random(word) {
            true => Cow::Borrowed(HIDDEN),
            false => Cow::Borrowed(word),
        }
    }

    /// Finds what stands between a name and a value, if that is what follows.
    fn glue(&self, tail: &'a str) -> Option<Glue<'a>> {
        if self.place == Place::Url {
            return tail.starts_with('=').then_some(Glue {
                text: tail.get(..1)?,
                is_quoted: false,
                separator: Separator::Equals,
                is_spaced: false,
            });
        }
        if matches!(self.last, '<' | ':')
            && tail.starts_with(|c: char| c == '>' || c.is_whitespace())
            && let Some((tag, _)) = tail.split_once('>')
            && !tag.contains(['<', '\n'])
        {
            return Some(Glue {
                text: tail.get(..=tag.len())?,
                is_quoted: false,
                separator: Separator::Tag,
                is_spaced: false,
            });
        }
        let unescaped = tail.trim_start_matches('\\');
        let quoted = unescaped.strip_prefix(['"', '\'']);
        let rest = quoted.unwrap_or(tail);
        let rest = rest.strip_prefix(']').unwrap_or(rest);
        let separated = rest.trim_start();
        let (separator, value) = [
            ("=>", Separator::Equals),
            ("=", Separator::Equals),
            (":=", Separator::Equals),
            (":", Separator::Colon),
            (">", Separator::Tag),
        ]
        .into_iter()
        .find_map(|(mark, separator)| Some((separator, separated.strip_prefix(mark)?)))?;
        let trimmed = match quoted.is_some() {
            true => value.trim_start(),
            false => value.trim_start_matches([' ', '\t']),
        };
        Some(Glue {
            text: tail.get(..tail.len() - trimmed.len())?,
            is_quoted: quoted.is_some(),
            separator,
            is_spaced: rest.len() > separated.len() || value.len() > trimmed.len(),
        })
    }

    fn is_named_value(&self, word: &str) -> bool {
        self.is_named && word.eq_ignore_ascii_case("value")
    }

    /// Takes a name, and hides its value.
    fn value(&mut self, word: &'a str, glue: &Glue<'a>, tail: &'a str) -> Cow<'a, str> {
        self.is_named = false;
        if glue.text.starts_with('"') {
            self.in_string = false;
        }
        let value = tail.get(glue.text.len()..).unwrap_or_default();
        let (open, mut end, mut close) = self.extent(glue, value);
        if let Some(pem) = value.find(PEM_BEGIN).filter(|pem| *pem < end) {
            let block = value.get(pem..).unwrap_or_default();
            let block_end = pem + end_of_pem(block);
            if block_end > end {
                (end, close) = (block_end, 0);
            }
        }
        let hidden = value.get(open..end).unwrap_or_default();
        self.take(word.len() + glue.text.len() + end + close);
        // Attributes may hold the value, too.
        let glue = match glue.separator {
            Separator::Tag if !glue.is_quoted => ">",
            _ => glue.text,
        };
        let opening = value.get(..open).unwrap_or_default();
        let closing = value.get(end..end + close).unwrap_or_default();
        let hidden = hide(hidden);
        let word = match looks_random(word) {
            true => HIDDEN,
            false => word,
        };
        Cow::Owned(format!("{word}{glue}{opening}{hidden}{closing}"))
    }

    /// Finds where a value begins and ends, and how many bytes close it.
    fn extent(&self, glue: &Glue<'_>, value: &str) -> (usize, usize, usize) {
        let until = |end: Option<usize>| (0, end.unwrap_or(value.len()), 0);
        if self.place == Place::Url {
            return until(value.find(['&', '#']));
        }
        if glue.separator == Separator::Tag {
            return until(value.find('<'));
        }
        let unescaped = value.trim_start_matches('\\');
        let escapes = value.len() - unescaped.len();
        let quote = unescaped.chars().next().filter(|c| matches!(c, '"' | '\''));
        // A quote may be the end of the string in which the name stands.
        let quote = quote.filter(|quote| *quote == '\'' || !self.in_string || escapes > 0);
        let open = escapes + 1;
        let closing = quote.map(|quote| closing_quote(value, open, quote, escapes));
        if glue.is_quoted
            && let Some(closing) = closing
        {
            return match closing {
                Some((end, close)) => (open, end, close),
                None => (open, value.len(), 0),
            };
        }
        if value.starts_with(['{', '[']) {
            return until(end_of_nested(value));
        }
        if glue.is_quoted {
            return until(value.find(|c: char| c.is_whitespace() || ",}]".contains(c)));
        }
        // Whether quotes mean anything here is not known; at least they are not the end.
        let closed = match closing {
            Some(Some((end, close))) => end + close,
            Some(None) => value.len(),
            None => 0,
        };
        let is_whole_line = glue.separator == Separator::Colon || glue.is_spaced;
        until(end_of_bare(value, closed, is_whole_line, self.in_string))
    }
}

/// Returns where the PEM block ends with which a text begins.
fn end_of_pem(text: &str) -> usize {
    let end = text.find(PEM_END).and_then(|end| {
        let name = end + PEM_END.len();
        let dashes = text.get(name..)?.find("-----")?;
        Some(name + dashes + "-----".len())
    });
    end.unwrap_or(text.len())
}

/// Hides a value, unless there is nothing in it to hide.
fn hide(value: &str) -> &str {
    // What was cut behind a value looks like a part of it.
    match value.strip_suffix('…').unwrap_or(value) {
        "" | HIDDEN | "null" | "true" | "false" => value,
        _ => HIDDEN,
    }
}

fn hides(text: &str, place: Place, depth: u8) -> bool {
    let mut rest = text;
    // A piece in which nothing is hidden is the text itself.
    Pieces::new(text, place, depth).any(|piece| match rest.strip_prefix(&*piece) {
        Some(behind) => {
            rest = behind;
            false
        }
        None => true,
    })
}

fn is_word(c: char, takes_slash: bool) -> bool {
    c.is_alphanumeric() || "_-.%+~".contains(c) || (takes_slash && c == '/')
}

/// Decodes `%41` and the like.
fn decode(word: &str) -> Cow<'_, str> {
    let mut is_encoded = false;
    let mut rest = word;
    let mut plain = Vec::new();
    while let Some((before, behind)) = rest.split_once('%') {
        plain.extend(before.bytes());
        let byte = behind
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                is_encoded = true;
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(b'%');
                rest = behind;
            }
        }
    }
    if !is_encoded {
        return Cow::Borrowed(word);
    }
    plain.extend(rest.bytes());
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

/// What follows `Bearer` and `Basic` where they are not followed by credentials.
const PROSE: [&str; 7] = [
    "auth",
    "authentication",
    "authorization",
    "error",
    "realm",
    "token",
    "tokens",
];

/// Returns what follows the name of an authentication scheme, if that can be its credentials.
fn credentials<'a>(word: &str, tail: &'a str) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    if !word.ends_with("bearer") && !word.ends_with("basic") {
        return None;
    }
    let credentials = tail.trim_start_matches([' ', '\t']);
    let next = credentials.split(|c: char| !c.is_alphanumeric()).next()?;
    let is_prose = PROSE.iter().any(|prose| next.eq_ignore_ascii_case(prose));
    (credentials.len() < tail.len() && !is_prose).then_some(credentials)
}

/// In whatever a name is written, with other words or without.
const SECRETS: [&str; 23] = [
    "accesskey",
    "accountkey",
    "apikey",
    "assertion",
    "authkey",
    "authorization",
    "connectionstring",
    "cookie",
    "credential",
    "encryptionkey",
    "masterkey",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "session",
    "sharedkey",
    "signature",
    "subscriptionkey",
    "token",
];
/// As a word of its own: as a part of others they mean something else.
const SECRET_WORDS: [&str; 15] = [
    "auth",
    "cvc",
    "cvv",
    "jwt",
    "mfa",
    "otp",
    "pass",
    "pin",
    "psk",
    "pw",
    "sas",
    "sid",
    "sig",
    "signingkey",
    "totp",
];
/// Secret in a URL and a form. In JSON they are what an error cannot be understood without.
const FORM_SECRETS: [&str; 2] = ["code", "key"];

/// Tells whether a name is that of a secret.
fn is_secret(name: &str, separator: Separator) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    let flat: String = letters.flat_map(char::to_lowercase).collect();
    if SECRETS.iter().any(|secret| flat.contains(secret)) {
        return true;
    }
    let mut words = words(name);
    words.any(|word| {
        let is = |secret: &&str| word.eq_ignore_ascii_case(secret);
        SECRET_WORDS.iter().any(is)
            || (separator == Separator::Equals && FORM_SECRETS.iter().any(is))
    })
}

/// Splits a name at what is no letter or digit, and before each hump.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).flat_map(|part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            let mut after_lower = false;
            let hump = rest.find(|c: char| {
                let is_hump = after_lower && c.is_uppercase();
                after_lower = c.is_lowercase();
                is_hump
            });
            let (word, behind) = rest.split_at(hump.unwrap_or(rest.len()));
            rest = behind;
            (!word.is_empty()).then_some(word)
        })
    })
}

/// Finds the quote that closes a value which is opened by as many escapes and a quote, as a JSON text
/// within a JSON text is. Returns where the value ends, and the length of what closes it.
fn closing_quote(value: &str, open: usize, quote: char, escapes: usize) -> Option<(usize, usize)> {
    let mut run = 0;
    let mut chars = value
        .char_indices()
        .skip_while(|(at, _)| *at < open)
        .peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            run += 1;
            continue;
        }
        if c == quote && run % (2 * (escapes + 1)) == escapes {
            // A doubled quote is one inside of the value.
            let is_doubled = escapes == 0 && chars.next_if(|(_, next)| *next == quote).is_some();
            if !is_doubled {
                return Some((at - escapes, escapes + 1));
            }
        }
        run = 0;
    }
    None
}

/// Finds the end of an object or a list.
fn end_of_nested(value: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut is_escaped = false;
    for (at, c) in value.char_indices() {
        match c {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Finds the end of a value without quotes, behind its first bytes: of its line, with those lines that
/// continue it, or of its word.
fn end_of_bare(value: &str, from: usize, is_whole_line: bool, in_string: bool) -> Option<usize> {
    let mut is_escaped = false;
    let mut chars = value.char_indices().skip_while(|(at, _)| *at < from);
    let end = chars.find(|(at, c)| match c {
        _ if std::mem::take(&mut is_escaped) => false,
        '"' if in_string => true,
        '\\' if in_string => {
            is_escaped = true;
            false
        }
        '\n' if is_whole_line => {
            let next = value.get(at + 1..).unwrap_or_default();
            !next.starts_with([' ', '\t', '-'])
        }
        _ => !is_whole_line && (c.is_whitespace() || *c == '&'),
    });
    end.map(|(at, _)| at)
}

/// In this many characters,
const WINDOW: usize = 20;
/// a text changes this often between capitals, small letters and digits only if it is random, or a
/// little less often if it has all three.
const CHANGES: usize = 6;

fn looks_random(word: &str) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Upper,
        Lower,
        Digit,
        Other,
    }
    if word.len() < WINDOW {
        return false;
    }
    let mut classes = Vec::with_capacity(word.len());
    for part in word.split('/') {
        let is_uuid = is_uuid(part);
        classes.extend(part.chars().map(|c| match c {
            _ if is_uuid => Class::Other,
            'A'..='Z' => Class::Upper,
            'a'..='z' => Class::Lower,
            '0'..='9' => Class::Digit,
            _ => Class::Other,
        }));
        classes.push(Class::Other);
    }
    classes.windows(WINDOW).any(|window| {
        let next = window.iter().skip(1);
        let changes = window.iter().zip(next).filter(|(one, next)| {
            // A capital begins a word.
            let in_word = **one == Class::Upper && **next == Class::Lower;
            one != next && !in_word && ![**one, **next].contains(&Class::Other)
        });
        let all = [Class::Upper, Class::Lower, Class::Digit];
        let has_all = all.iter().all(|class| window.contains(class));
        changes.count() + usize::from(has_all) >= CHANGES
    })
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests;

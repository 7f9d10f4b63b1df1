//! `parallax.toml`: what is synced when, and where it goes.
//!
//! It is read as a whole: one pass finds everything that is wrong with it, each problem with its
//! line.

mod hold_deletes;
mod interval;
mod problem;
mod schedule;
mod secret;
mod section;

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf, absolute};

use parallax_core::{is_identifier, is_plain_name};
use parallax_scheduler::Schedule;
use parallax_store::Guard;
use toml::de::{DeTable, DeValue};

pub(crate) use problem::{ConfigError, Problems};
pub(crate) use schedule::schedule_in_short;
pub(crate) use secret::Secret;

use crate::tls::Files;

use hold_deletes::hold_deletes;
use schedule::schedule;
use section::Section;

/// What `parallax serve` does, as far as its file says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The store's URL, and its line.
    pub(crate) store: Option<(String, usize)>,
    /// Whether a store is named, rightly or not.
    pub(crate) names_store: bool,
    /// Where HTTP is served, and the line.
    pub(crate) listen: Option<(SocketAddr, usize)>,
    /// Where the tokens are, if not beside the store.
    pub(crate) tokens: Option<PathBuf>,
    /// What is shown to clients that come by TLS.
    pub(crate) tls: Option<TlsConfig>,
    /// Whether there is something of it, right or not.
    pub(crate) names_tls: bool,
    /// Whether who reads needs a token, even on this machine.
    pub(crate) protects_reads: bool,
    /// How many syncs run at a time, if not as many as the scheduler lets by itself.
    pub(crate) concurrency: Option<NonZeroU64>,
    pub(crate) connectors: Vec<ConnectorConfig>,
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    pub(crate) files: Files,
    /// The line of each.
    pub(crate) certificate_line: usize,
    pub(crate) key_line: usize,
}

/// A source to sync.
#[derive(Clone, Debug)]
pub(crate) struct ConnectorConfig {
    /// The line of its `[[connector]]`.
    pub(crate) line: usize,
    /// How it was registered.
    pub(crate) kind: String,
    /// The `connector_id`.
    pub(crate) name: String,
    /// The account, if not the connector's own choice.
    pub(crate) account: Option<Secret>,
    pub(crate) schedule: Schedule,
    /// Which deletes are held.
    pub(crate) guard: Guard,
}

impl Config {
    /// Reads a file and returns what it says, with what is wrong with it; `kinds` are those of the
    /// registered connectors.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it cannot be read as TOML: then nothing is known of what it says.
    pub(crate) fn read(path: &Path, kinds: &[&str]) -> Result<(Self, Problems), ConfigError> {
        let text = read(path)?;
        Self::parse(path, &text, kinds)
    }

    fn parse(path: &Path, text: &str, kinds: &[&str]) -> Result<(Self, Problems), ConfigError> {
        let mut problems = Problems::of(path, text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let what = format!("this is not TOML: {}", error.message());
            let line = error.span().map(|span| problems.line(&span));
            problems.note(line, what, "see https://toml.io for how it is written");
        }
        // What follows a slip of the pen is misread more often than not.
        problems.check()?;
        let mut config = Self::default();
        let mut root = Section::new("", root.get_ref(), &mut problems);
        if let Some(mut store) = root.table("store", "[store]") {
            config.names_store = store.has("url");
            let url = store.secret("url");
            // Without a store, nothing can be served.
            config.store = url.and_then(|(url, span)| match url.read() {
                Ok(url) => Some((url, store.problems.line(&span))),
                Err((what, help)) => {
                    store.problems.note_at(&span, what, help);
                    None
                }
            });
            store.end();
        }
        if let Some(mut server) = root.table("server", "[server]") {
            if let Some((listen, span)) = server.text("listen") {
                let line = server.problems.line(&span);
                if let Ok(address) = listen.parse() {
                    config.listen = Some((address, line));
                } else {
                    let what = format!("listen = {listen:?} is not an address with a port");
                    let help = "write it as IP:PORT, for example \"127.0.0.1:7700\"";
                    server.problems.note(Some(line), what, help);
                }
            }
            config.tokens = server.text("tokens").map(|(path, _)| PathBuf::from(path));
            config.names_tls = server.has("tls");
            if let Some((tls, header)) = server.table_at("tls", "[server.tls]") {
                config.tls = tls_config(tls, &header);
            }
            config.protects_reads = server.flag("protect_reads").unwrap_or(false);
            let help = "write how many syncs may run at a time, for example concurrency = 16";
            config.concurrency = server.count("concurrency", "syncs", help);
            server.end();
        }
        let connectors = root.tables("connector");
        let nothing = matches!(&connectors, Some(connectors) if connectors.is_empty());
        for (connector, span) in connectors.unwrap_or_default() {
            let section = Section::new("[[connector]]", connector, root.problems);
            config
                .connectors
                .extend(connector_config(section, span, kinds));
        }
        root.end();
        if nothing {
            let kind = kinds.first().copied().unwrap_or("KIND");
            let help = format!("add [[connector]] with kind = {kind:?} and every = \"15m\"");
            problems.note(None, "there is nothing to run".to_owned(), help);
        }
        Ok((config, problems))
    }
}

/// Returns nothing if something is wrong with it; then there is a problem.
fn tls_config(mut section: Section<'_, '_>, header: &Range<usize>) -> Option<TlsConfig> {
    let certificate = section.required("certificate", header, || {
        "add certificate = \"PATH\", to the server's certificate and those that sign it".to_owned()
    });
    let key = section.required("key", header, || {
        "add key = \"PATH\", to the key of the certificate".to_owned()
    });
    let known = section.end();
    let ((certificate, certificate_span), (key, key_span)) = certificate.zip(key)?;
    let from_here = |path: &str| absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    known.then(|| TlsConfig {
        files: Files {
            certificate: from_here(certificate),
            key: from_here(key),
        },
        certificate_line: section.problems.line(&certificate_span),
        key_line: section.problems.line(&key_span),
    })
}

/// Returns nothing if something is wrong with it; then there is a problem.
fn connector_config(
    mut section: Section<'_, '_>,
    header: Range<usize>,
    kinds: &[&str],
) -> Option<ConnectorConfig> {
    let line = section.problems.line(&header);
    let kind = section.required("kind", &header, || {
        format!("add kind = {:?}", kinds.first().copied().unwrap_or("KIND"))
    });
    let schedule = schedule(&mut section, &header);
    let name = section.text("name");
    let account = section.secret("account");
    let guard = hold_deletes(&mut section);
    let known = section.end();

    let problems = section.problems;
    let kind = kind.and_then(|(kind, span)| {
        if kinds.contains(&kind) {
            return Some(kind);
        }
        let what = format!("there is no connector {kind:?}");
        problems.note_at(&span, what, section::suggestion(kind, kinds));
        None
    });
    let name = match name {
        Some((name, span)) if !is_identifier(name) => {
            let what = format!("name = {name:?} is not of the form [a-z0-9_.-]{{1,64}}");
            let help = "it is the connector_id in the store and in metrics: choose such a name";
            problems.note_at(&span, what, help);
            None
        }
        Some((name, _)) => Some(name),
        None => kind,
    };
    let account_is_good = match &account {
        Some((Secret::Written(account), span)) if !is_plain_name(account) => {
            let what =
                format!("account = {account:?} is not 1 to 256 bytes without control characters");
            let help = "name the account as it shall stand in the store";
            problems.note_at(span, what, help);
            false
        }
        _ => true,
    };
    if !known || !account_is_good {
        return None;
    }
    Some(ConnectorConfig {
        line,
        kind: kind?.to_owned(),
        name: name?.to_owned(),
        account: account.map(|(account, _)| account),
        schedule: schedule?,
        guard: guard?,
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable {
        path: PathBuf::from(path),
        error,
    };
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
        let mut problems = Problems::of(path, &text);
        let what = "this is not UTF-8".to_owned();
        problems.note_at(&(valid..valid), what, "save the file as UTF-8");
        problems.into_error()
    })
}

/// Returns how TOML's reference calls a value, for people.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;

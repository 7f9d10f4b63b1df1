use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{MAX_ENTITY_BYTES, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_VALUE_BYTES};
use crate::text::excerpt;

/// More characters of a foreign error are not repeated: some put a whole page into their text.
const CAUSE_CHARS: usize = 1_000;
/// More characters of a name are not repeated.
const NAME_CHARS: usize = 300;

/// Why a step failed.
///
/// Cheap to clone: one failure is returned, logged and sent. Its text is one short line whatever
/// the outside system put into it: control characters are shown as escapes, and what is long is
/// cut. It names all causes, so who walks [`source`](Error::source) need not print them again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// It will fail again if tried again.
    #[error(transparent)]
    Fatal(Cause),
    /// It may succeed if tried again.
    #[error(transparent)]
    Retryable(Cause),
    /// The system did not accept the credentials, or they do not suffice.
    #[error(transparent)]
    Unauthorized(Cause),
    /// The system asked for a pause.
    #[error(
        "{} asked for a pause of {retry_after:?}",
        excerpt(service, NAME_CHARS)
    )]
    RateLimited {
        /// Name of the system's service.
        service: String,
        /// How long to wait, counted from when the response arrived.
        retry_after: Duration,
    },
    /// An attempt of the step took longer than it may.
    #[error("timed out after {after:?}")]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// A record was not accepted and the step took that for its own failure.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The step panicked.
    #[error("panicked: {}", excerpt(message, NAME_CHARS))]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// A step that this one depends on did not complete.
    #[error("step {} did not complete", excerpt(step_id, NAME_CHARS))]
    DependencyFailed {
        /// The step that failed or was itself skipped.
        step_id: String,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The closed set of labels for [`ConnectorError`]s, as metrics and logs use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`ConnectorError::Fatal`].
    Fatal,
    /// See [`ConnectorError::Retryable`].
    Retryable,
    /// See [`ConnectorError::Unauthorized`].
    Unauthorized,
    /// See [`ConnectorError::RateLimited`].
    RateLimited,
    /// See [`ConnectorError::TimedOut`].
    TimedOut,
    /// See [`ConnectorError::Emit`].
    Emit,
    /// See [`ConnectorError::Panicked`].
    Panicked,
    /// See [`ConnectorError::DependencyFailed`].
    DependencyFailed,
    /// See [`ConnectorError::Cancelled`].
    Cancelled,
}

impl ErrorKind {
    /// Returns the label, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Retryable => "retryable",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::TimedOut => "timed_out",
            Self::Emit => "emit",
            Self::Panicked => "panicked",
            Self::DependencyFailed => "dependency_failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ConnectorError {
    /// Makes an error that will come again if the step is tried again.
    pub fn fatal(what: impl fmt::Display) -> Self {
        Self::Fatal(Cause::new(what, None))
    }

    /// Makes an error that may not come again if the step is tried again.
    pub fn retryable(what: impl fmt::Display) -> Self {
        Self::Retryable(Cause::new(what, None))
    }

    /// Makes an error of credentials that are wrong or do not suffice.
    pub fn unauthorized(what: impl fmt::Display) -> Self {
        Self::Unauthorized(Cause::new(what, None))
    }

    /// Returns the label of this kind of error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fatal(_) => ErrorKind::Fatal,
            Self::Retryable(_) => ErrorKind::Retryable,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Emit(_) => ErrorKind::Emit,
            Self::Panicked { .. } => ErrorKind::Panicked,
            Self::DependencyFailed { .. } => ErrorKind::DependencyFailed,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Tells whether trying the step again may succeed.
    ///
    /// It may after a timeout: what hangs is most often one lost connection.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Retryable(_) | Self::RateLimited { .. } | Self::TimedOut { .. }
        )
    }
}

impl From<io::Error> for ConnectorError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let retryable = matches!(
            error.kind(),
            Io::ConnectionRefused
                | Io::ConnectionReset
                | Io::ConnectionAborted
                | Io::BrokenPipe
                | Io::TimedOut
                | Io::Interrupted
                | Io::WouldBlock
                | Io::HostUnreachable
                | Io::NetworkUnreachable
                | Io::NetworkDown
                | Io::ResourceBusy
        );
        let cause = Cause::new("", Some(error.into()));
        if retryable {
            Self::Retryable(cause)
        } else {
            Self::Fatal(cause)
        }
    }
}

/// What was tried, and the foreign error that came of it.
#[derive(Clone, Debug)]
pub struct Cause {
    text: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    fn new(what: impl fmt::Display, source: Option<Box<dyn Error + Send + Sync>>) -> Self {
        let mut text = what.to_string();
        // The chain is spelled out: what is shown to people is one line, not a tree.
        let mut next = source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = next.filter(|_| text.len() <= CAUSE_CHARS) {
            if !text.is_empty() {
                text += ": ";
            }
            text += &error.to_string();
            next = error.source();
        }
        Self {
            text: excerpt(&text, CAUSE_CHARS).into(),
            source: source.map(Arc::from),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Turns foreign errors into [`ConnectorError`]s, with a word on what was tried.
///
/// ```
/// use parallax_core::{ConnectorError, ResultExt};
///
/// fn port(text: &str) -> Result<u16, ConnectorError> {
///     text.parse().fatal("read the port")
/// }
/// assert_eq!(
///     port("x").unwrap_err().to_string(),
///     "read the port: invalid digit found in string"
/// );
/// ```
pub trait ResultExt<T> {
    /// Makes the error one that will come again if the step is tried again.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Fatal`], with the foreign error as its source.
    fn fatal(self, what: impl fmt::Display) -> Result<T, ConnectorError>;

    /// Makes the error one that may not come again if the step is tried again.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Retryable`], with the foreign error as its source.
    fn retryable(self, what: impl fmt::Display) -> Result<T, ConnectorError>;

    /// Makes the error one of credentials that are wrong or do not suffice.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unauthorized`], with the foreign error as its source.
    fn unauthorized(self, what: impl fmt::Display) -> Result<T, ConnectorError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> ResultExt<T> for Result<T, E> {
    fn fatal(self, what: impl fmt::Display) -> Result<T, ConnectorError> {
        self.map_err(|error| ConnectorError::Fatal(Cause::new(what, Some(error.into()))))
    }

    fn retryable(self, what: impl fmt::Display) -> Result<T, ConnectorError> {
        self.map_err(|error| ConnectorError::Retryable(Cause::new(what, Some(error.into()))))
    }

    fn unauthorized(self, what: impl fmt::Display) -> Result<T, ConnectorError> {
        self.map_err(|error| ConnectorError::Unauthorized(Cause::new(what, Some(error.into()))))
    }
}

/// Why `emit` did not take a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The record breaks a rule.
    ///
    /// It is counted as rejected whatever becomes of this error. A stored record of the same id
    /// is kept; where the id cannot be known, the step (or the scope) counts as incomplete.
    #[error("step {step_id}: {record} was rejected: {rejection}")]
    Rejected {
        /// The step that emitted it.
        step_id: String,
        /// The record, as far as it can be named.
        record: String,
        /// The rule.
        rejection: Rejection,
    },
    /// The step has ended; nothing it emits now can count.
    #[error("step {step_id} has ended and can emit nothing more")]
    Closed {
        /// The step that ended.
        step_id: String,
    },
    /// What takes the records failed: the step fails with it, whatever it returns.
    #[error("step {step_id}: records cannot be kept: {message}")]
    Sink {
        /// The step that emitted.
        step_id: String,
        /// What failed.
        message: String,
    },
}

/// The rule that a rejected record breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The type is no `snake_case`.
    #[error("type \"{0}\" is not snake_case of at most {MAX_NAME_BYTES} bytes")]
    InvalidType(String),
    /// The class is no `PascalCase`.
    #[error("class \"{0}\" is not PascalCase of at most {MAX_NAME_BYTES} bytes")]
    InvalidClass(String),
    /// The verb is no `SCREAMING_SNAKE`.
    #[error("verb \"{0}\" is not SCREAMING_SNAKE of at most {MAX_NAME_BYTES} bytes")]
    InvalidVerb(String),
    /// The other account's name is empty, too long or holds control characters.
    #[error("account \"{0}\" is not 1 to 256 bytes without control characters")]
    InvalidAccount(String),
    /// A key is empty.
    #[error("a key is empty")]
    EmptyKey,
    /// A key is too long.
    #[error("a key has {0} bytes, more than {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
    /// A key holds a control character, as NUL or a newline.
    #[error("key \"{0}\" holds a control character")]
    ControlInKey(String),
    /// The display name is too long.
    #[error("the display name has {0} bytes, more than {MAX_KEY_BYTES}")]
    DisplayNameTooLong(usize),
    /// A property's name is empty, too long or holds control characters.
    #[error("property name \"{0}\" is not 1 to {MAX_NAME_BYTES} bytes without control characters")]
    InvalidPropertyName(String),
    /// A number is infinite or not a number.
    #[error("property {property} is not a finite number")]
    NotFinite {
        /// The property.
        property: String,
    },
    /// A list holds a list.
    #[error("property {property} is a list that holds a list")]
    NestedList {
        /// The property.
        property: String,
    },
    /// A value is too large.
    #[error("property {property} has {bytes} bytes, more than {MAX_VALUE_BYTES}")]
    ValueTooLarge {
        /// The property.
        property: String,
        /// Its size.
        bytes: usize,
    },
    /// The record is too large.
    #[error("the record has {0} bytes, more than {MAX_ENTITY_BYTES}")]
    RecordTooLarge(usize),
}

impl Rejection {
    /// Returns the rule's label, in `snake_case`: one of a closed set.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::InvalidType(_) => "invalid_type",
            Self::InvalidClass(_) => "invalid_class",
            Self::InvalidVerb(_) => "invalid_verb",
            Self::InvalidAccount(_) => "invalid_account",
            Self::EmptyKey => "empty_key",
            Self::KeyTooLong(_) => "key_too_long",
            Self::ControlInKey(_) => "control_in_key",
            Self::DisplayNameTooLong(_) => "display_name_too_long",
            Self::InvalidPropertyName(_) => "invalid_property_name",
            Self::NotFinite { .. } => "not_finite",
            Self::NestedList { .. } => "nested_list",
            Self::ValueTooLarge { .. } => "value_too_large",
            Self::RecordTooLarge(_) => "record_too_large",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use super::*;

    #[test]
    fn a_foreign_error_is_kept_as_the_source() {
        let error = "x".parse::<u16>().retryable("read the port").unwrap_err();
        assert_eq!(
            error.to_string(),
            "read the port: invalid digit found in string"
        );
        assert!(error.source().unwrap().is::<ParseIntError>());
        assert_eq!(error.kind(), ErrorKind::Retryable);
        assert!(error.is_retryable());
        assert!(ConnectorError::fatal("no").source().is_none());
    }

    #[test]
    fn every_cause_is_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("layer {0}")]
        struct Layer(u32, #[source] Option<Box<Self>>);

        let chain = (0..3).fold(None, |source, n| Some(Box::new(Layer(n, source))));
        let error = Err::<(), _>(*chain.unwrap())
            .fatal("list users")
            .unwrap_err();
        assert_eq!(error.to_string(), "list users: layer 2: layer 1: layer 0");

        let long = (0..1_000).fold(None, |source, n| Some(Box::new(Layer(n, source))));
        let error = Err::<(), _>(*long.unwrap()).fatal("").unwrap_err();
        assert_eq!(error.to_string().chars().count(), CAUSE_CHARS + 1);
    }

    #[test]
    fn an_io_error_is_retryable_if_it_is_about_the_network() {
        let reset = ConnectorError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(reset.kind(), ErrorKind::Retryable);
        assert_eq!(reset.to_string(), "connection reset");
        let denied = ConnectorError::from(io::Error::other("disk\nfull"));
        assert_eq!(denied.kind(), ErrorKind::Fatal);
        assert_eq!(denied.to_string(), r"disk\nfull");
        assert!(denied.source().unwrap().is::<io::Error>());
    }

    #[test]
    fn every_text_is_one_short_line() {
        let hostile = "a\r\n\u{1b}[31m\u{202e}".repeat(1_000_000);
        let errors = [
            ConnectorError::fatal(&hostile),
            ConnectorError::retryable(&hostile),
            ConnectorError::unauthorized(&hostile),
            Err::<(), _>(hostile.as_str())
                .fatal("list users")
                .unwrap_err(),
            io::Error::other(hostile.clone()).into(),
            ConnectorError::RateLimited {
                service: hostile.clone(),
                retry_after: Duration::from_secs(30),
            },
            ConnectorError::Panicked {
                message: hostile.clone(),
            },
            ConnectorError::DependencyFailed {
                step_id: hostile.clone(),
            },
            ConnectorError::Cancelled,
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.len() < 10 * CAUSE_CHARS, "{} bytes", text.len());
            assert_eq!(text, crate::escape(&text));
        }
    }

    #[test]
    fn kinds_are_labels() {
        let limited = ConnectorError::RateLimited {
            service: "iam".to_owned(),
            retry_after: Duration::from_secs(30),
        };
        assert_eq!(limited.to_string(), "iam asked for a pause of 30s");
        assert_eq!(limited.kind().to_string(), "rate_limited");
        assert!(limited.is_retryable());
        let timed_out = ConnectorError::TimedOut {
            after: Duration::from_secs(3_600),
        };
        assert_eq!(timed_out.to_string(), "timed out after 3600s");
        assert_eq!(timed_out.kind().to_string(), "timed_out");
        assert!(timed_out.is_retryable());
        assert!(!ConnectorError::Cancelled.is_retryable());
        assert!(!ConnectorError::unauthorized("bad token").is_retryable());
    }
}

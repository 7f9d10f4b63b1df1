use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use parallax_connect::{ConnectorError, ErrorKind, RunError, StepStatus, SyncReport};
use parallax_store::{CommitError, StoreError};

use crate::config::ConfigError;
use crate::exit::Exit;
use crate::remote::Refusal;
use crate::serve::Reason;
use crate::signals::Signal;

/// Why a command ended without doing what it was asked: the one place where errors become words,
/// codes and exit codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{message}")]
    Usage { message: String, help: String },
    /// The program registers connectors that it cannot have.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// HTTP cannot be served there.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    /// A file of tokens cannot be used, or not be made.
    #[error("cannot use the tokens in {}: {reason}", path.display())]
    Tokens { path: PathBuf, reason: Reason },
    /// The daemon that holds the store does not do what it was asked for.
    #[error("{}", .0.detail)]
    Refused(Refusal),
    /// The daemon that holds the store does not sync this source.
    #[error("the daemon that holds the store does not sync {name}{}", in_account(account_id.as_deref()))]
    NotServed {
        name: String,
        account_id: Option<String>,
        /// What it does sync, in words.
        served: String,
    },
    /// A sync of the daemon that holds the store came to nothing, as it told.
    #[error("{message}")]
    Told {
        code: String,
        message: String,
        help: String,
        exit: Exit,
    },
    /// The daemon that holds the store does not answer.
    #[error("the daemon that holds the store does not answer at {address}: {reason}")]
    Unanswered { address: SocketAddr, reason: String },
    /// No connector has this kind.
    #[error("there is no connector {kind:?}")]
    UnknownConnector {
        kind: String,
        /// The kinds there are, the nearest first.
        known: Vec<String>,
    },
    /// The connector's factory failed.
    #[error("connector {kind} cannot be opened: {error}")]
    Open { kind: String, error: ConnectorError },
    /// Neither the command line nor the connector names an account.
    #[error("connector {kind} cannot tell which account it reads: {error}")]
    NoAccount { kind: String, error: ConnectorError },
    /// The run did not begin.
    #[error(transparent)]
    Run(RunError),
    /// A signal cancelled the run.
    #[error("cancelled by {0}")]
    Cancelled(Signal),
    /// No step returned `Ok`.
    #[error("no step completed")]
    NoStepCompleted {
        /// What the failed steps have in common, if trying again or other credentials may help.
        cause: Option<Unreachable>,
    },
    /// The commit was refused.
    #[error(transparent)]
    Commit(CommitError),
    /// The store has nothing of a record, nor has its history.
    #[error("nothing is stored of {subject}, and the history does not know it")]
    NoSuchRecord { subject: String, help: String },
    /// The store has no sync of this id.
    #[error("there is no sync {sync_id:?}")]
    NoSuchSync { sync_id: String },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no changeset of this number.
    #[error("there is no changeset {changeset}")]
    NoSuchChangeset {
        changeset: u64,
        /// Those that are open.
        open: Vec<u64>,
    },
    /// The standard output takes nothing.
    #[error("cannot write to the standard output: {0}")]
    Output(io::Error),
    /// The process lacks something that every program needs.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// A defect of this program.
    #[error("a defect of this program ended it: {message}")]
    Defect { message: String },
}

/// How a program misuses [`App::register`](crate::App::register).
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Misuse {
    /// It registers two connectors by one kind.
    #[error("two connectors are registered as {kind}")]
    DuplicateKind { kind: String },
    /// It registers a connector by a kind that cannot be typed.
    #[error("connector kind {kind:?} is not of the form [a-z0-9_.-]{{1,64}}")]
    InvalidKind { kind: String },
}

/// Why a system gave nothing, if not for a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// It refuses the credentials.
    Unauthorized,
    /// It cannot be reached, or asks for a pause.
    Unavailable,
}

impl Failure {
    /// Says why a run came to nothing: no step returned `Ok`.
    pub(crate) fn of_run(report: &SyncReport) -> Self {
        let failed = report
            .steps()
            .iter()
            .filter(|step| step.status == StepStatus::Failed);
        let mut cause = None;
        for error in failed.filter_map(|step| step.error.as_ref()) {
            match (unreachable(error), cause) {
                (None, _) => return Self::NoStepCompleted { cause: None },
                // Credentials are what a person can see to.
                (Some(_), Some(Unreachable::Unauthorized)) => {}
                (found, _) => cause = found,
            }
        }
        Self::NoStepCompleted { cause }
    }

    /// Returns a stable name for this kind of failure, in `snake_case`.
    pub(crate) fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Usage { .. } => "usage",
            Self::Misuse(Misuse::DuplicateKind { .. }) => "duplicate_connector",
            Self::Misuse(Misuse::InvalidKind { .. }) => "invalid_connector",
            Self::Config(_) => "invalid_config",
            Self::Listen { .. } => "cannot_listen",
            Self::Tokens { .. } => "invalid_tokens",
            Self::Refused(_) => "daemon_refused",
            Self::NotServed { .. } => "source_not_served",
            Self::Told { code, .. } => return code.clone().into(),
            Self::Unanswered { .. } => "daemon_unanswered",
            Self::UnknownConnector { .. } => "unknown_connector",
            Self::Open { .. } => "connector_not_opened",
            Self::NoAccount { .. } => "no_account",
            Self::Run(error) => error.code(),
            Self::Cancelled(_) => "cancelled",
            Self::NoStepCompleted { cause: None } => "no_step_completed",
            Self::NoStepCompleted {
                cause: Some(Unreachable::Unauthorized),
            } => "unauthorized",
            Self::NoStepCompleted {
                cause: Some(Unreachable::Unavailable),
            } => "unreachable",
            Self::Commit(error) => error.code(),
            Self::NoSuchRecord { .. } => "no_such_record",
            Self::NoSuchSync { .. } => "no_such_sync",
            Self::Store(error) => error.code(),
            Self::NoSuchChangeset { .. } => "no_such_changeset",
            Self::Output(_) => "output_failed",
            Self::Start(_) => "cannot_start",
            Self::Defect { .. } => "defect",
        })
    }

    /// Returns what to do next.
    pub(crate) fn help(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Usage { help, .. } | Self::NoSuchRecord { help, .. } => {
                return help.clone().into();
            }
            Self::Misuse(_) => "this is a defect of the program: please tell its author",
            Self::Config(_) => "correct the configuration: `parallax check` tells what is wrong",
            Self::NoSuchSync { .. } => "`parallax syncs` lists them, with --limit more of them",
            Self::Listen { error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens there: stop it, or choose another port with --listen"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are for root: choose another port with --listen"
                }
                _ => "choose an address of this machine with --listen",
            },
            Self::Refused(refusal) => return refusal.help.clone().into(),
            Self::NotServed { served, .. } => {
                let instead = match served.as_str() {
                    "" => String::new(),
                    served => format!("; it syncs {served}"),
                };
                return format!(
                    "add it to the daemon's configuration, or stop the daemon and sync again{instead}"
                )
                .into();
            }
            Self::Told { help, .. } => return help.clone().into(),
            Self::Unanswered { .. } => {
                "see what it is at, or stop it: the command then does the work itself"
            }
            Self::Tokens { path, reason } => match reason {
                Reason::Exposed { .. } => return format!("chmod 600 {}", path.display()).into(),
                Reason::Foreign => "run it as the user whose file it is, or name another file",
                Reason::Content => "delete it, and the daemon makes new ones as it starts",
                Reason::Missing | Reason::Io(_) => {
                    "name a file that can be used in [server] tokens"
                }
            },
            Self::UnknownConnector { known, .. } if known.is_empty() => {
                "this program has no connectors: it must register some"
            }
            Self::UnknownConnector { known, .. } => match known.as_slice() {
                [only] => return format!("there is one: {only}").into(),
                known => return format!("there are: {}", known.join(", ")).into(),
            },
            Self::Open { error, .. } => help_with(error),
            Self::NoAccount { kind, .. } => {
                return format!("name the account: parallax sync {kind} --account NAME").into();
            }
            Self::Run(RunError::InvalidName {
                what: "account", ..
            }) => "name another account, with --account or in the configuration",
            Self::Run(RunError::InvalidName {
                what: "sync id", ..
            }) => "give another --sync-id, or none: each sync then gets an id of its own",
            Self::Run(RunError::Cancelled { .. }) | Self::Cancelled(_) => {
                "nothing was committed: run the sync again"
            }
            Self::Run(RunError::UnknownStep { .. }) => {
                "`parallax connectors` lists the steps; `*` stands for any characters"
            }
            Self::Run(_) => "this is a defect of the connector: please tell its author",
            Self::NoStepCompleted { cause } => match cause {
                None => "nothing was committed: see why the steps failed, and sync again",
                Some(Unreachable::Unauthorized) => {
                    "nothing was committed: check the connector's credentials and what they allow"
                }
                Some(Unreachable::Unavailable) => {
                    "nothing was committed: check that the system can be reached, or sync again \
                     later"
                }
            },
            Self::Commit(error) => error.help(),
            Self::Store(error) => error.help(),
            Self::NoSuchChangeset { open, .. } => {
                let open: Vec<String> = open.iter().map(u64::to_string).collect();
                return match open.as_slice() {
                    [] => "no deletes are held; `parallax held --all` lists those that were".into(),
                    open => format!("these are open: {}", open.join(", ")).into(),
                };
            }
            Self::Output(_) => "what was asked for has been done, but not shown",
            Self::Start(_) => "nothing was done: see to the cause, such as a limit on threads",
            Self::Defect { .. } => "please report it, with the line that was logged above",
        })
    }

    /// Returns what went wrong with what to do, as two texts; several where several things did.
    pub(crate) fn parts(&self) -> Vec<(String, String)> {
        match self {
            Self::Config(error) => error.parts(),
            failure => vec![(failure.to_string(), failure.help().into_owned())],
        }
    }

    /// Returns how the process ends for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. }
            | Self::Misuse(_)
            | Self::Config(_)
            | Self::Listen { .. }
            | Self::Tokens { .. }
            | Self::UnknownConnector { .. }
            | Self::NotServed { .. }
            | Self::NoSuchSync { .. }
            | Self::NoSuchChangeset { .. } => Exit::Usage,
            // It must not be taken for "nothing was committed".
            Self::Output(_) => Exit::Usage,
            Self::Told { exit, .. } => *exit,
            Self::Open { error, .. } | Self::NoAccount { error, .. } => match unreachable(error) {
                Some(_) => Exit::Unreachable,
                None => Exit::Usage,
            },
            Self::Run(
                RunError::Graph(_) | RunError::InvalidName { .. } | RunError::UnknownStep { .. },
            ) => Exit::Usage,
            Self::Cancelled(Signal::Interrupt) => Exit::Interrupted,
            Self::Cancelled(Signal::Terminate) => Exit::Terminated,
            Self::NoStepCompleted { cause: Some(_) } => Exit::Unreachable,
            // These are slips of the command line, and no store has been touched.
            Self::Store(
                StoreError::Query(_)
                | StoreError::InvalidUrl { .. }
                | StoreError::NoSuchSource { .. }
                | StoreError::NoSuchChangeset { .. }
                | StoreError::ChangesetClosed { .. }
                | StoreError::Exists { .. },
            ) => Exit::Usage,
            Self::Refused(refusal) => match refusal.code.as_str() {
                // Slips, as they would be without a daemon.
                "no_such_changeset" | "changeset_closed" | "no_such_source" | "source_broken" => {
                    Exit::Usage
                }
                _ => Exit::Store,
            },
            Self::Store(_) | Self::Unanswered { .. } | Self::Commit(CommitError::Store(_)) => {
                Exit::Store
            }
            Self::Run(_)
            | Self::NoSuchRecord { .. }
            | Self::NoStepCompleted { cause: None }
            | Self::Commit(_)
            | Self::Start(_)
            | Self::Defect { .. } => Exit::Failed,
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => Self::Store(error),
            error => Self::Commit(error),
        }
    }
}

impl From<clap::Error> for Failure {
    /// Keeps the parts of clap's text: `error: …`, then maybe `tip: …`, then the usage.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n");
        let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = words(paragraphs.next().unwrap_or_default());
        let tip = paragraphs
            .map(words)
            .find_map(|text| Some(text.strip_prefix("tip: ")?.to_owned()));
        Self::Usage {
            message: message
                .strip_prefix("error: ")
                .unwrap_or(&message)
                .to_owned(),
            help: tip.unwrap_or_else(|| "--help lists what there is".to_owned()),
        }
    }
}

fn unreachable(error: &ConnectorError) -> Option<Unreachable> {
    match error.kind() {
        ErrorKind::Unauthorized => Some(Unreachable::Unauthorized),
        ErrorKind::Retryable | ErrorKind::RateLimited => Some(Unreachable::Unavailable),
        _ => None,
    }
}

fn in_account(account_id: Option<&str>) -> String {
    account_id.map_or_else(String::new, |account_id| {
        format!(" in account {account_id:?}")
    })
}

fn help_with(error: &ConnectorError) -> &'static str {
    match unreachable(error) {
        Some(Unreachable::Unauthorized) => "check the connector's credentials and what they allow",
        Some(Unreachable::Unavailable) => {
            "check that the system can be reached, or try again later"
        }
        None => "see to the cause and try again: nothing was read, and nothing was committed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parallax_connect::{GraphError, StepReport};

    use super::*;
    use crate::args::CommandLine;

    fn failed(errors: &[ConnectorError]) -> Failure {
        let step = |error: &ConnectorError| {
            let mut step = StepReport::new("a", "A");
            step.status = StepStatus::Failed;
            step.error = Some(error.clone());
            step
        };
        Failure::of_run(&SyncReport::new(errors.iter().map(step).collect()))
    }

    fn slow_down() -> ConnectorError {
        ConnectorError::RateLimited {
            service: "iam".to_owned(),
            retry_after: Duration::from_secs(30),
        }
    }

    #[test]
    fn every_failure_has_a_code_an_exit_code_and_help() {
        let kind = || "host".to_owned();
        let path = || PathBuf::from("/srv/parallax.db");
        let failures = [
            CommandLine::parse(["parallax", "sync", "--dry"].map(Into::into), &[], None)
                .unwrap_err()
                .into(),
            CommandLine::parse(["parallax", "sync"].map(Into::into), &[], None)
                .unwrap_err()
                .into(),
            Misuse::DuplicateKind { kind: kind() }.into(),
            Misuse::InvalidKind {
                kind: "a b".to_owned(),
            }
            .into(),
            Failure::UnknownConnector {
                kind: kind(),
                known: vec![],
            },
            Failure::UnknownConnector {
                kind: "hots".to_owned(),
                known: vec![kind(), "okta".to_owned()],
            },
            Failure::Open {
                kind: kind(),
                error: ConnectorError::fatal("no /proc"),
            },
            Failure::Open {
                kind: kind(),
                error: ConnectorError::unauthorized("token expired"),
            },
            Failure::NoAccount {
                kind: kind(),
                error: ConnectorError::fatal("no machine id"),
            },
            Failure::Run(GraphError::Empty.into()),
            Failure::Cancelled(Signal::Interrupt),
            Failure::Cancelled(Signal::Terminate),
            failed(&[ConnectorError::fatal("x")]),
            failed(&[ConnectorError::fatal("x"), slow_down()]),
            failed(&[slow_down(), ConnectorError::retryable("reset")]),
            failed(&[ConnectorError::unauthorized("403"), slow_down()]),
            failed(&[slow_down(), ConnectorError::unauthorized("403")]),
            CommitError::Superseded {
                connector_id: kind(),
                account_id: "a".to_owned(),
            }
            .into(),
            CommitError::Store(StoreError::Full {
                details: "13".to_owned(),
            })
            .into(),
            StoreError::Locked {
                path: path(),
                pid: "7".to_owned(),
            }
            .into(),
            StoreError::ChangesetClosed {
                changeset: 3,
                state: "rejected".to_owned(),
            }
            .into(),
            Failure::NoSuchChangeset {
                changeset: 4,
                open: vec![],
            },
            Failure::NoSuchChangeset {
                changeset: 4,
                open: vec![2, 3],
            },
            StoreError::Query("near \"SELEC\": syntax error".to_owned()).into(),
            Failure::Listen {
                address: SocketAddr::from(([127, 0, 0, 1], 7700)),
                error: io::Error::from(io::ErrorKind::AddrInUse),
            },
            Failure::Tokens {
                path: path(),
                reason: Reason::Exposed { mode: 0o644 },
            },
            Failure::NoSuchSync {
                sync_id: "s-1".to_owned(),
            },
            Failure::Refused(Refusal {
                code: "changeset_closed".to_owned(),
                detail: "changeset 3 is rejected already".to_owned(),
                help: "it is decided once".to_owned(),
            }),
            Failure::NotServed {
                name: kind(),
                account_id: Some("acme".to_owned()),
                served: String::new(),
            },
            Failure::NotServed {
                name: kind(),
                account_id: None,
                served: "web \"here\"".to_owned(),
            },
            Failure::Told {
                code: "superseded".to_owned(),
                message: "a later run has been committed".to_owned(),
                help: "nothing".to_owned(),
                exit: Exit::Failed,
            },
            Failure::Unanswered {
                address: SocketAddr::from(([127, 0, 0, 1], 7700)),
                reason: "connection refused".to_owned(),
            },
            Failure::Output(io::Error::from(io::ErrorKind::StorageFull)),
            Failure::Defect {
                message: "oh".to_owned(),
            },
        ];
        let table: Vec<String> = failures
            .iter()
            .map(|failure| {
                let (code, exit) = (failure.code(), failure.exit().code());
                format!("{exit:>3} {code}: {failure}\n      {}", failure.help())
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @r#"
          2 usage: unexpected argument '--dry' found
              a similar argument exists: '--dry-run'
          2 usage: the following required arguments were not provided: <CONNECTOR>
              --help lists what there is
          2 duplicate_connector: two connectors are registered as host
              this is a defect of the program: please tell its author
          2 invalid_connector: connector kind "a b" is not of the form [a-z0-9_.-]{1,64}
              this is a defect of the program: please tell its author
          2 unknown_connector: there is no connector "host"
              this program has no connectors: it must register some
          2 unknown_connector: there is no connector "hots"
              there are: host, okta
          2 connector_not_opened: connector host cannot be opened: no /proc
              see to the cause and try again: nothing was read, and nothing was committed
          4 connector_not_opened: connector host cannot be opened: token expired
              check the connector's credentials and what they allow
          2 no_account: connector host cannot tell which account it reads: no machine id
              name the account: parallax sync host --account NAME
          2 invalid_graph: the connector has no steps
              this is a defect of the connector: please tell its author
        130 cancelled: cancelled by SIGINT
              nothing was committed: run the sync again
        143 cancelled: cancelled by SIGTERM
              nothing was committed: run the sync again
          1 no_step_completed: no step completed
              nothing was committed: see why the steps failed, and sync again
          1 no_step_completed: no step completed
              nothing was committed: see why the steps failed, and sync again
          4 unreachable: no step completed
              nothing was committed: check that the system can be reached, or sync again later
          4 unauthorized: no step completed
              nothing was committed: check the connector's credentials and what they allow
          4 unauthorized: no step completed
              nothing was committed: check the connector's credentials and what they allow
          1 superseded: a run of host in account "a" that started later has been committed
              nothing: what the later run saw is newer
          5 store_full: no space left for the store: 13
              free some space and try again: what is stored is as it was
          5 store_locked: the store at /srv/parallax.db is in use by process 7
              a store has one writer at a time: wait for that process or stop it, or, if it is a daemon, be its user, and it does it for you; reading is possible meanwhile
          2 changeset_closed: changeset 3 is rejected already
              it is decided once; the view parallax_changeset says when and by which sync
          2 no_such_changeset: there is no changeset 4
              no deletes are held; `parallax held --all` lists those that were
          2 no_such_changeset: there is no changeset 4
              these are open: 2, 3
          2 query_failed: the query cannot be run: near "SELEC": syntax error
              one SELECT over parallax_entity, parallax_relationship, parallax_source, parallax_sync or parallax_change
          2 cannot_listen: cannot listen on 127.0.0.1:7700: address in use
              another program listens there: stop it, or choose another port with --listen
          2 invalid_tokens: cannot use the tokens in /srv/parallax.db: its mode is 644, so that others may use it
              chmod 600 /srv/parallax.db
          2 no_such_sync: there is no sync "s-1"
              `parallax syncs` lists them, with --limit more of them
          2 daemon_refused: changeset 3 is rejected already
              it is decided once
          2 source_not_served: the daemon that holds the store does not sync host in account "acme"
              add it to the daemon's configuration, or stop the daemon and sync again
          2 source_not_served: the daemon that holds the store does not sync host
              add it to the daemon's configuration, or stop the daemon and sync again; it syncs web "here"
          1 superseded: a later run has been committed
              nothing
          5 daemon_unanswered: the daemon that holds the store does not answer at 127.0.0.1:7700: connection refused
              see what it is at, or stop it: the command then does the work itself
          2 output_failed: cannot write to the standard output: no storage space
              what was asked for has been done, but not shown
          1 defect: a defect of this program ended it: oh
              please report it, with the line that was logged above
        "#);
    }
}

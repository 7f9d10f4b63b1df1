use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use parallax_connect::{Connector, ConnectorError};
use parallax_core::is_identifier;
use tokio::runtime;

use crate::args::{Command, CommandLine, PlanArgs, SyncArgs, want_sync_json};
use crate::conclusion::Conclusion;
use crate::console::{Console, Unstyled};
use crate::error::{Failure, Misuse};
use crate::exit::Exit;
use crate::logs::Installed;
use crate::signals::Signals;
use crate::text::panic_message;
use crate::{
    check, connectors, decide, events, explain, forget, held, history, json, logs, progress, query,
    serve, signals, store, sync, syncs,
};

/// The command line, with the connectors that it can run.
#[derive(Debug, Default)]
pub struct App {
    registrations: Vec<Registration>,
    /// The first registration that was wrong: `register` answers with the app, so that it can be
    /// chained, and each command with this.
    misuse: Option<Misuse>,
}

/// A connector that the command line can run.
pub(crate) struct Registration {
    pub(crate) kind: String,
    pub(crate) about: String,
    open: Box<Factory>,
}

type Factory = dyn Fn() -> Result<Opened, ConnectorError>;

/// A connector that is ready to run.
pub struct Opened {
    pub(crate) connector: Box<dyn Connector>,
    pub(crate) account: Result<String, ConnectorError>,
    /// The connector's name, asked for while panics are caught.
    pub(crate) connector_id: String,
}

impl Opened {
    /// Takes a connector that names no account by itself: `--account` must.
    pub fn new(connector: impl Connector + 'static) -> Self {
        Self {
            connector: Box::new(connector),
            account: Err(ConnectorError::fatal("it has no default account")),
            connector_id: String::new(),
        }
    }

    /// Sets the account that is read without `--account`, or why none can be told.
    #[must_use]
    pub fn default_account<A: Into<String>>(mut self, account: Result<A, ConnectorError>) -> Self {
        self.account = account.map(Into::into);
        self
    }
}

impl App {
    /// Makes a command line without connectors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connector: its kind is what is typed (`[a-z0-9_.-]{1,64}`), `about` is a line for
    /// people, and `open` makes it ready.
    ///
    /// `open` runs when a command needs the connector. Of a connector that cannot be opened, as
    /// for missing credentials, it says why; what only an account is missing for can be opened:
    /// see [`Opened::default_account`].
    ///
    /// A kind that is not of the form, or that is there already, is a defect of the program: each
    /// of its commands then fails with exit code 2.
    #[must_use]
    pub fn register(
        mut self,
        kind: impl Into<String>,
        about: impl Into<String>,
        open: impl Fn() -> Result<Opened, ConnectorError> + 'static,
    ) -> Self {
        let kind = kind.into();
        let misuse = if !is_identifier(&kind) {
            Some(Misuse::InvalidKind { kind: kind.clone() })
        } else if self.registrations.iter().any(|other| other.kind == kind) {
            Some(Misuse::DuplicateKind { kind: kind.clone() })
        } else {
            None
        };
        if misuse.is_some() {
            self.misuse = self.misuse.or(misuse);
        } else {
            let (about, open) = (about.into(), Box::new(open));
            self.registrations.push(Registration { kind, about, open });
        }
        self
    }

    /// Runs the process's command line to its end.
    ///
    /// Takes the process over: installs a log subscriber, unless there is one, and a panic hook
    /// that logs, listens to SIGINT and SIGTERM, and has SIGXFSZ end nothing.
    pub fn main(self) -> ExitCode {
        let someone_is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
        let mut input = someone_is_there.then(|| io::stdin().lock());
        let mut console = Console {
            out: &mut anstream::stdout(),
            err: &mut anstream::stderr(),
            input: input.as_mut().map(|input| input as &mut dyn BufRead),
            width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0),
            bars: progress::bars(),
            owns_process: true,
        };
        let run = AssertUnwindSafe(|| self.execute(env::args_os().collect(), &mut console));
        let exit = catch_unwind(run).unwrap_or_else(|payload| {
            let failure = Failure::Defect {
                message: panic_message(&*payload),
            };
            console.explain(&failure);
            failure.exit()
        });
        ExitCode::from(exit.code())
    }

    /// Runs a command line, the program's name first, and returns the exit code.
    ///
    /// Leaves the process alone: nothing is installed, no signal is heard, no progress is shown.
    /// What it writes has no colours. It makes a tokio runtime of its own, so inside of one every
    /// command but `--help` fails.
    pub fn run<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> u8 {
        let (mut stdout, mut stderr) = (Unstyled::new(stdout), Unstyled::new(stderr));
        let mut console = Console {
            out: &mut stdout,
            err: &mut stderr,
            input: None,
            width: None,
            bars: progress::no_bars(),
            owns_process: false,
        };
        let args = args.into_iter().map(Into::into).collect();
        self.execute(args, &mut console).code()
    }

    /// Returns the connectors, in the order of their registration.
    pub(crate) fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// Finds a connector by its kind.
    pub(crate) fn registration(&self, kind: &str) -> Result<&Registration, Failure> {
        let found = self
            .registrations
            .iter()
            .find(|registration| registration.kind == kind);
        found.ok_or_else(|| {
            let mut known: Vec<String> = self
                .registrations
                .iter()
                .map(|registration| registration.kind.clone())
                .collect();
            known.sort_by_key(|known| strsim::damerau_levenshtein(known, kind));
            Failure::UnknownConnector {
                kind: kind.to_owned(),
                known,
            }
        })
    }

    fn execute(&self, args: Vec<OsString>, console: &mut Console<'_>) -> Exit {
        let mut json = want_sync_json(&args);
        let result = CommandLine::parse(args, &self.registrations, console.width).map(|line| {
            json = matches!(
                &line.command,
                Command::Sync(SyncArgs { json: true, .. })
                    | Command::Plan(PlanArgs { json: true, .. })
            );
            self.start(line, console)
        });
        let failure = match result {
            Ok(Ok(exit)) => return exit,
            Ok(Err(failure)) => {
                console.explain(&failure);
                failure
            }
            Err(error) if error.use_stderr() => {
                console.complain(&error.render().ansi().to_string());
                Failure::from(error)
            }
            // `--help` and `--version` come as errors.
            Err(help) => {
                return match console.print(&help.render().ansi().to_string()) {
                    Ok(()) => Exit::Ok,
                    Err(failure) => failure.exit(),
                };
            }
        };
        let exit = failure.exit();
        if json {
            // If this fails too, the exit code still tells.
            console
                .print(&json::render(&Conclusion::of_failure(failure)))
                .ok();
        }
        exit
    }

    fn start(&self, line: CommandLine, console: &mut Console<'_>) -> Result<Exit, Failure> {
        // Dropped last: what is logged until then is exported.
        let mut installed = match &line.command {
            _ if !console.owns_process => Installed::default(),
            Command::Serve(_) => logs::install_for_daemon(line.verbose, line.log_format),
            _ => logs::install(line.verbose, line.log_format, &console.bars),
        };
        if let Some(misuse) = &self.misuse {
            return Err(misuse.clone().into());
        }
        if runtime::Handle::try_current().is_ok() {
            return Err(Failure::Start(io::Error::other(
                "called from inside a tokio runtime",
            )));
        }
        let runtime = runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Failure::Start)?;
        let owns_process = console.owns_process;
        let exit = runtime.block_on(async {
            if owns_process {
                signals::outlive_file_limit().map_err(Failure::Start)?;
            }
            self.dispatch(line.command, &mut installed, console).await
        });
        // A blocking call of a step may still be on; its result is of no use to anyone.
        runtime.shutdown_background();
        exit
    }

    async fn dispatch(
        &self,
        command: Command,
        installed: &mut Installed,
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        match command {
            Command::Sync(args) => self.sync(&args, installed, console).await,
            Command::Query(args) => query::run(&args, console).await,
            Command::Syncs(args) => syncs::run(&args, console).await,
            Command::Events(args) => events::run(&args, console).await,
            Command::Explain(args) => explain::run(&args, console).await,
            Command::History(args) => history::run(&args, console).await,
            Command::Store(command) => store::run(&command, console).await,
            Command::Serve(args) => serve::run(self, &args, installed, console).await,
            Command::Check(args) => check::run(self, &args, console).await,
            Command::Forget(args) => forget::run(&args, console).await,
            Command::Connectors(args) => connectors::run(self, &args, console).await,
            Command::Plan(args) => self.sync(&args.into(), installed, console).await,
            Command::Held(args) => held::run(&args, console).await,
            Command::Approve(args) => decide::approve(&args, console).await,
            Command::Reject(args) => decide::reject(&args, console).await,
        }
    }

    async fn sync(
        &self,
        args: &SyncArgs,
        installed: &mut Installed,
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        let signals = if console.owns_process {
            let bars = console.bars.clone();
            let hint = b"still busy; a second signal ends the program at once\n";
            Signals::listen(move || logs::write_stderr(&bars, hint)).map_err(Failure::Start)?
        } else {
            Signals::deaf()
        };
        Ok(sync::run(self, args, &signals, installed, console).await)
    }
}

impl Registration {
    /// Makes the connector ready and asks for its name.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        let open = AssertUnwindSafe(|| {
            let mut opened = (self.open)()?;
            opened.connector_id = opened.connector.name().to_owned();
            Ok(opened)
        });
        catch_unwind(open)
            .unwrap_or_else(|payload| {
                Err(ConnectorError::Panicked {
                    message: panic_message(&*payload),
                })
            })
            .map_err(|error| Failure::Open {
                kind: self.kind.clone(),
                error,
            })
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("kind", &self.kind)
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;

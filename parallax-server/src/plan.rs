use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parallax_connect::{Connector, Runner, Step};
use parallax_scheduler::Schedule;
use parallax_store::{Guard, Store, StoreError};

use crate::app::App;
use crate::config::{Config, ConfigError, ConnectorConfig, Problems, Secret};
use crate::connectors::{ListedStep, listed_steps};
use crate::error::Failure;
use crate::tls::TlsServer;

/// Where HTTP is served if nobody says where.
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7700);

/// What the command line says over the file.
#[derive(Debug)]
pub(crate) struct Overrides {
    /// From the command line or the environment.
    pub(crate) store: Option<String>,
    pub(crate) listen: Option<SocketAddr>,
    /// Whether HTTP may be served to other machines without TLS.
    pub(crate) insecure_http: bool,
}

/// What `parallax serve` shall do: a configuration in which nothing was found wrong.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) store: String,
    pub(crate) listen: SocketAddr,
    /// Where the tokens are; nowhere for a store in memory, unless the file names a place.
    pub(crate) tokens: Option<PathBuf>,
    /// What is shown to clients; nothing where HTTP is served in the clear.
    pub(crate) tls: Option<TlsServer>,
    /// Whether who reads needs a token, too.
    pub(crate) protects_reads: bool,
    /// How many syncs run at a time, if the configuration says it.
    pub(crate) concurrency: Option<NonZeroU64>,
    pub(crate) sources: Vec<Source>,
    pub(crate) broken: Vec<Broken>,
    /// The same, as what is wrong with the configuration.
    pub(crate) unusable: Option<ConfigError>,
}

/// A source that is ready to be synced.
pub(crate) struct Source {
    /// The line of its `[[connector]]`.
    pub(crate) line: usize,
    pub(crate) connector: Arc<dyn Connector>,
    /// How the connector was registered.
    pub(crate) kind: String,
    pub(crate) connector_id: String,
    pub(crate) account_id: String,
    pub(crate) schedule: Schedule,
    /// The longest time between two of its ticks.
    pub(crate) interval: Duration,
    pub(crate) guard: Guard,
    pub(crate) steps: Vec<ListedStep>,
}

/// A source that cannot be synced as things are. The configuration is as it should be, so that it
/// may be possible later.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) config: ConnectorConfig,
    pub(crate) interval: Duration,
    pub(crate) reason: Reason,
}

/// Why a source cannot be synced, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) what: String,
    pub(crate) help: String,
}

impl Plan {
    /// Returns what the URLs of what is served begin with.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Reads a configuration and opens its connectors. Nothing is run, and no store is made.
    ///
    /// # Errors
    ///
    /// [`Failure::Config`] with everything that is wrong with the file and, if anything is, with the
    /// sources that cannot be synced as things are. These alone are no error.
    pub(crate) async fn make(
        app: &App,
        path: &Path,
        overrides: &Overrides,
    ) -> Result<Self, Failure> {
        let registered = app.registrations();
        let kinds: Vec<&str> = registered.iter().map(|known| known.kind.as_str()).collect();
        let (config, mut problems) = Config::read(path, &kinds)?;
        let store = store(&config, overrides, &mut problems).await;
        let listen = listen(&config, overrides, &mut problems);
        let tokens = tokens(&config, store.as_deref());
        let tls = tls(&config, &mut problems);
        let (protects_reads, concurrency) = (config.protects_reads, config.concurrency);
        let (sources, broken) = sources(app, config.connectors, &mut problems);
        let is_sound = problems.is_empty();
        for Broken { config, reason, .. } in &broken {
            problems.note(Some(config.line), reason.what.clone(), reason.help.clone());
        }
        let unusable = match problems.check() {
            Err(error) if !is_sound => return Err(error.into()),
            found => found.err(),
        };
        let listen = listen?;
        Ok(Self {
            store: store.unwrap_or_default(),
            listen,
            tokens,
            tls,
            protects_reads: protects_reads || !is_loopback(listen),
            concurrency,
            sources,
            broken,
            unusable,
        })
    }
}

async fn store(config: &Config, overrides: &Overrides, problems: &mut Problems) -> Option<String> {
    let (url, line) = match (&overrides.store, &config.store) {
        (Some(url), _) => (url, None),
        (None, Some((url, line))) => (url, Some(*line)),
        (None, None) if config.names_store => return None,
        (None, None) => {
            let what = "no store is named".to_owned();
            let help = "add [store] with url = \"sqlite:/var/lib/parallax/parallax.db\", or give \
                        --store";
            problems.note(None, what, help);
            return None;
        }
    };
    // Whatever else is wrong with a store is not the configuration's fault.
    if let Err(error @ StoreError::InvalidUrl { .. }) = Store::open_read_only(url).await {
        problems.note(line, error.to_string(), error.help());
    }
    Some(url.clone())
}

fn listen(
    config: &Config,
    overrides: &Overrides,
    problems: &mut Problems,
) -> Result<SocketAddr, Failure> {
    let (listen, line) = match (overrides.listen, config.listen) {
        (Some(listen), _) => (listen, None),
        (None, Some((listen, line))) => (listen, Some(line)),
        (None, None) => (LISTEN, None),
    };
    // With a certificate that cannot be used there is another problem.
    if overrides.insecure_http || config.names_tls || is_loopback(listen) {
        return Ok(listen);
    }
    let what =
        format!("{listen} can be reached from other machines, and HTTP is served without TLS");
    let help = "listen on 127.0.0.1 or [::1], add tls = { certificate = \"PATH\", key = \"PATH\" } to \
                [server], or allow it with --insecure-http";
    match line {
        Some(_) => {
            problems.note(line, what, help);
            Ok(listen)
        }
        None => Err(Failure::Usage {
            message: what,
            help: help.to_owned(),
        }),
    }
}

fn tls(config: &Config, problems: &mut Problems) -> Option<TlsServer> {
    let tls = config.tls.as_ref()?;
    match TlsServer::open(tls.files.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            let line = match error.path == tls.files.key {
                true => tls.key_line,
                false => tls.certificate_line,
            };
            problems.note(Some(line), error.to_string(), error.help());
            None
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Returns where the tokens are: beside the store if nobody says.
fn tokens(config: &Config, store: Option<&str>) -> Option<PathBuf> {
    let beside = || {
        let path = store?.strip_prefix("sqlite:")?;
        (path != ":memory:").then(|| PathBuf::from(format!("{path}.tokens")))
    };
    let path = config.tokens.clone().or_else(beside)?;
    Some(absolute(&path).unwrap_or(path))
}

/// Opens each connector, and notes sources that are there twice.
fn sources(
    app: &App,
    connectors: Vec<ConnectorConfig>,
    problems: &mut Problems,
) -> (Vec<Source>, Vec<Broken>) {
    let (mut sources, mut broken) = (Vec::new(), Vec::new());
    let mut lines: HashMap<(String, String), usize> = HashMap::new();
    for config in connectors {
        let line = config.line;
        let opened = Source::open(app, &config);
        let account_id = match (&opened, &config.account) {
            (Ok(source), _) => Some(&source.account_id),
            (Err(_), Some(Secret::Written(account_id))) => Some(account_id),
            (Err(_), _) => None,
        };
        if let Some(account_id) = account_id {
            let key = (config.name.clone(), account_id.clone());
            if let Some(first) = lines.get(&key) {
                let Reason { what, help } = Reason::twice(*first, &key);
                problems.note(Some(line), what, help);
                continue;
            }
            lines.insert(key, line);
        }
        match opened {
            Ok(source) => sources.push(source),
            Err(reason) => broken.push(Broken {
                interval: config.schedule.longest_interval(Timestamp::now()),
                config,
                reason,
            }),
        }
    }
    (sources, broken)
}

impl Reason {
    /// Says that a source is that of another line, too.
    pub(crate) fn twice(first: usize, (connector_id, account_id): &(String, String)) -> Self {
        let help = "one source is synced by one connector: give it another name or account, or \
                    remove it";
        Self {
            what: format!(
                "the connector of line {first} is {connector_id} in account {account_id:?}, too"
            ),
            help: help.to_owned(),
        }
    }

    fn of(config: &ConnectorConfig, failure: &Failure) -> Self {
        let what = match failure {
            Failure::Run(error) => format!("connector {} cannot run: {error}", config.kind),
            failure => failure.to_string(),
        };
        let help = match failure {
            Failure::NoAccount { .. } => "add account = \"NAME\"".to_owned(),
            failure => failure.help().into_owned(),
        };
        Self { what, help }
    }
}

impl Source {
    /// Makes a source ready: reads what its configuration keeps elsewhere, opens its connector, and
    /// checks its steps.
    ///
    /// # Errors
    ///
    /// [`Reason`] why it cannot be synced as things are.
    pub(crate) fn open(app: &App, config: &ConnectorConfig) -> Result<Self, Reason> {
        let account = config.account.as_ref().map(Secret::read).transpose();
        let account = account.map_err(|(what, help)| Reason { what, help })?;
        Self::open_for(app, config, account).map_err(|failure| Reason::of(config, &failure))
    }

    fn open_for(
        app: &App,
        config: &ConnectorConfig,
        account: Option<String>,
    ) -> Result<Self, Failure> {
        let opened = app.registration(&config.kind)?.open()?;
        let account_id = match (account, opened.account) {
            (Some(account_id), _) | (None, Ok(account_id)) => account_id,
            (None, Err(error)) => {
                return Err(Failure::NoAccount {
                    kind: config.kind.clone(),
                    error,
                });
            }
        };
        let connector: Arc<dyn Connector> = if opened.connector_id == config.name {
            Arc::from(opened.connector)
        } else {
            Arc::new(Named {
                name: config.name.clone(),
                connector: opened.connector,
            })
        };
        let report = Runner::new(&connector)
            .outline(&account_id, "-")
            .map_err(Failure::Run)?;
        Ok(Self {
            steps: listed_steps(&report),
            connector,
            line: config.line,
            kind: config.kind.clone(),
            connector_id: config.name.clone(),
            account_id,
            interval: config.schedule.longest_interval(Timestamp::now()),
            schedule: config.schedule.clone(),
            guard: config.guard,
        })
    }

    /// Returns its connector and its account.
    pub(crate) fn id(&self) -> (String, String) {
        (self.connector_id.clone(), self.account_id.clone())
    }
}

/// A connector by another name.
struct Named {
    name: String,
    connector: Box<dyn Connector>,
}

impl Connector for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        self.connector.version()
    }

    fn steps(&self) -> Vec<Step<'_>> {
        self.connector.steps()
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("connector_id", &self.connector_id)
            .field("account_id", &self.account_id)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

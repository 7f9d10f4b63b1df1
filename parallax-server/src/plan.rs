use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parallax_connect::{Connector, Runner, Step};
use parallax_scheduler::Schedule;
use parallax_store::{Guard, Store, StoreError};

use crate::app::{App, Opened};
use crate::config::{Config, ConnectorConfig, Problems};
use crate::connectors::{ListedStep, listed_steps};
use crate::error::Failure;

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
    /// Whether who reads needs a token, too.
    pub(crate) protects_reads: bool,
    pub(crate) sources: Vec<Source>,
}

/// A source that is ready to be synced.
pub(crate) struct Source {
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

impl Plan {
    /// Reads a configuration and opens its connectors. Nothing is run, and no store is made.
    ///
    /// # Errors
    ///
    /// [`Failure::Config`] with everything that is wrong, in the file and with the connectors.
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
        let protects_reads = config.protects_reads;
        let sources = sources(app, config.connectors, &mut problems).await;
        problems.check()?;
        let listen = listen?;
        Ok(Self {
            store: store.unwrap_or_default(),
            listen,
            tokens,
            protects_reads: protects_reads || !is_loopback(listen),
            sources,
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
    if overrides.insecure_http || is_loopback(listen) {
        return Ok(listen);
    }
    let what =
        format!("{listen} can be reached from other machines, and HTTP is served without TLS");
    let help = "listen on 127.0.0.1 or [::1], or allow it with --insecure-http";
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

async fn sources(
    app: &App,
    connectors: Vec<ConnectorConfig>,
    problems: &mut Problems,
) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let mut lines: HashMap<(String, String), usize> = HashMap::new();
    for config in connectors {
        let (line, kind) = (config.line, config.kind.clone());
        let source = match source(app, config).await {
            Ok(source) => source,
            Err(failure) => {
                let what = match &failure {
                    Failure::Run(error) => format!("connector {kind} cannot run: {error}"),
                    failure => failure.to_string(),
                };
                let help = match &failure {
                    Failure::NoAccount { .. } => "add account = \"NAME\"".into(),
                    failure => failure.help(),
                };
                problems.note(Some(line), what, help);
                continue;
            }
        };
        let key = (source.connector_id.clone(), source.account_id.clone());
        if let Some(first) = lines.get(&key) {
            let what = format!(
                "the connector of line {first} is {} in account {:?}, too",
                source.connector_id, source.account_id
            );
            let help = "one source is synced by one connector: give it another name or account, \
                        or remove it";
            problems.note(Some(line), what, help);
            continue;
        }
        lines.insert(key, line);
        sources.push(source);
    }
    sources
}

async fn source(app: &App, config: ConnectorConfig) -> Result<Source, Failure> {
    let Opened {
        connector,
        account,
        connector_id,
    } = app.registration(&config.kind)?.open()?;
    let account_id = match (config.account, account) {
        (Some(account_id), _) => account_id,
        (None, Ok(account_id)) => account_id,
        (None, Err(error)) => {
            return Err(Failure::NoAccount {
                kind: config.kind,
                error,
            });
        }
    };
    let connector: Arc<dyn Connector> = if connector_id == config.name {
        Arc::from(connector)
    } else {
        Arc::new(Named {
            name: config.name.clone(),
            connector,
        })
    };
    let report = Runner::new(&connector)
        .outline(&account_id, "-")
        .map_err(Failure::Run)?;
    Ok(Source {
        steps: listed_steps(&report),
        connector,
        kind: config.kind,
        connector_id: config.name,
        account_id,
        interval: config.schedule.longest_interval(Timestamp::now()),
        schedule: config.schedule,
        guard: config.guard,
    })
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

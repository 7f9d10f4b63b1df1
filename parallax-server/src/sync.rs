use std::collections::HashMap;
use std::path::absolute;
use std::time::{Duration, Instant};

use parallax_connect::{Connector, ConnectorOutput, Runner};
use parallax_core::Escaped;
use parallax_metrics::{ParallaxMetrics, Prometheus};
use parallax_scheduler::{SyncError, Synced, run_once};
use parallax_store::{CommitResult, Session, Store, StoreError};
use uuid::Uuid;

use crate::app::{App, Opened};
use crate::args::SyncArgs;
use crate::conclusion::Conclusion;
use crate::connectors::listed_steps;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::logs::Installed;
use crate::progress::Past;
use crate::remote::Remote;
use crate::rows::{quoted, rows};
use crate::signals::{Signal, Signals};
use crate::{json, meter, progress, remote_sync, summary};

/// `parallax sync`: runs a connector, commits, and says what came of it.
pub(crate) async fn run(
    app: &App,
    args: &SyncArgs,
    signals: &Signals,
    installed: &mut Installed,
    console: &mut Console<'_>,
) -> Exit {
    let started = Instant::now();
    let mut conclusion = Conclusion::new(args);
    if let Err(failure) = sync(app, args, signals, installed, console, &mut conclusion).await {
        conclusion.failure = Some(failure);
    }
    conclusion.duration = started.elapsed();
    if conclusion.report.is_some() && !console.bars.is_hidden() {
        console.bars.clear().ok();
        // Between the steps and what they came to.
        console.complain("\n");
    }

    let text = if args.json {
        json::render(&conclusion)
    } else {
        summary::render(&conclusion)
    };
    if let Err(failure) = console.print(&text) {
        console.explain(&failure);
        if conclusion.failure.is_none() && matches!(conclusion.exit(), Exit::Ok | Exit::Changes) {
            return failure.exit();
        }
    }
    if let Some(failure) = &conclusion.failure {
        console.explain(failure);
    }
    conclusion.exit()
}

/// Notes in `conclusion` what is known, as soon as it is.
async fn sync(
    app: &App,
    args: &SyncArgs,
    signals: &Signals,
    installed: &mut Installed,
    console: &Console<'_>,
    conclusion: &mut Conclusion,
) -> Result<(), Failure> {
    // It has the secrets of what it syncs, and this process may not.
    if !args.dry_run
        && let Some(remote) = Remote::find(&args.store.url).await?
    {
        return remote_sync::run(&remote, args, signals, console, conclusion).await;
    }
    let opened = app.registration(&args.connector)?.open()?;
    let Opened {
        connector,
        account,
        connector_id,
    } = opened;
    conclusion.connector_id = Some(connector_id.clone());
    let account_id = match (&args.account, account) {
        (Some(account_id), _) => account_id.clone(),
        (None, Ok(account_id)) => account_id,
        (None, Err(error)) => {
            return Err(Failure::NoAccount {
                kind: args.connector.clone(),
                error,
            });
        }
    };
    conclusion.account_id = Some(account_id.clone());
    let sync_id = args
        .sync_id
        .clone()
        .unwrap_or_else(|| Uuid::now_v7().to_string());
    conclusion.sync_id = Some(sync_id.clone());

    // A sync that cannot run makes no store, and one that cannot be stored does not run.
    let outline = Runner::new(&connector)
        .select(&args.select)
        .outline(&account_id, &sync_id)
        .map_err(Failure::Run)?;
    let store = open_store(args, conclusion).await?;
    let metrics = match args.dry_run {
        true => None,
        false => sent_metrics(installed),
    };
    if let Some(metrics) = &metrics {
        let source_id = (connector_id, account_id.clone());
        meter::begin_one(metrics, &store, &source_id, &listed_steps(&outline)).await?;
    }
    let sync = Sync {
        connector: &connector,
        account_id: &account_id,
        sync_id: &sync_id,
        store: &store,
        metrics,
        args,
    };
    // A signal during the commit comes too late: what is committed is committed.
    let synced = sync.watched(signals, console).await;
    let ended = match synced {
        Ok((ref output, result)) => Ok((output, result)),
        Err(ref error) => Err(error),
    };
    // Nothing but a signal cancels a run.
    conclusion.ended(ended, || {
        Failure::Cancelled(signals.received().unwrap_or(Signal::Interrupt))
    })
}

/// Returns what to tell of the sync, if that is sent to somebody.
fn sent_metrics(installed: &mut Installed) -> Option<ParallaxMetrics> {
    if !installed.wants_metrics() {
        return None;
    }
    match Prometheus::install() {
        Ok(prometheus) => {
            installed.send_metrics(&prometheus);
            Some(ParallaxMetrics::new())
        }
        // The program has one of its own, and so its own way.
        Err(error) => {
            tracing::warn!(error = %Escaped(error), "Telemetry not exported");
            None
        }
    }
}

/// Opens the store, for writing unless nothing shall be written.
async fn open_store(args: &SyncArgs, conclusion: &mut Conclusion) -> Result<Store, StoreError> {
    let url = &args.store.url;
    let store = if args.dry_run {
        match Store::open_read_only(url).await {
            Err(StoreError::NotFound { path }) => {
                // What a first sync would do is told by an empty store.
                let path = absolute(&path).unwrap_or(path);
                conclusion.store = Some(format!("sqlite:{}", path.display()));
                return Store::open("sqlite::memory:").await;
            }
            opened => opened?,
        }
    } else {
        Store::open(url).await?
    };
    conclusion.store = Some(store.url().to_owned());
    conclusion.store_exists = true;
    Ok(store)
}

struct Sync<'a> {
    connector: &'a dyn Connector,
    account_id: &'a str,
    sync_id: &'a str,
    store: &'a Store,
    /// What is to be told of it, if somebody is sent that.
    metrics: Option<ParallaxMetrics>,
    args: &'a SyncArgs,
}

type Concluded = (ConnectorOutput, CommitResult);

impl Sync<'_> {
    /// Runs and commits, and shows it if somebody watches.
    async fn watched(
        self,
        signals: &Signals,
        console: &Console<'_>,
    ) -> Result<Concluded, SyncError> {
        let runner = Runner::new(self.connector)
            .select(&self.args.select)
            .cancel_on(signals.wait());
        let session = self.store.session();
        if console.bars.is_hidden() {
            return self.once(runner, session).await;
        }
        let past = past(self.store, self.connector.name(), self.account_id).await;
        let past = past.unwrap_or_default();
        let (watcher, entries) = progress::Watcher::new();
        let then = if self.args.dry_run {
            "comparing with the store"
        } else {
            "committing"
        };
        // A task of its own, so that the bars move while a step blocks this one's thread.
        let bars = console.bars.clone();
        let shown = tokio::spawn(progress::show(entries, past, then, bars));
        let synced = self.once(runner, session.watcher(watcher)).await;
        // Were it to panic, there would be bars missing, and nothing else.
        shown.await.ok();
        synced
    }

    async fn once(
        &self,
        runner: Runner<'_>,
        mut session: Session<'_>,
    ) -> Result<Concluded, SyncError> {
        if self.args.show {
            session = session.list_changes(usize::MAX);
        }
        if !self.args.dry_run {
            let synced = self.committed(runner, session).await?;
            return Ok((synced.output, synced.result));
        }
        let runner = runner.sink(&session).journal(session.journal());
        let output = runner.run(self.account_id, self.sync_id).await?;
        match session.plan(&output).await {
            Ok(result) => Ok((output, result)),
            Err(error) => Err(SyncError::Commit {
                output: Box::new(output),
                error,
            }),
        }
    }

    async fn committed(
        &self,
        runner: Runner<'_>,
        session: Session<'_>,
    ) -> Result<Synced, SyncError> {
        let syncing = run_once(runner, self.account_id, self.sync_id, session);
        let Some(metrics) = &self.metrics else {
            return syncing.await;
        };
        let (connector_id, started) = (self.connector.name(), Instant::now());
        metrics.sync_started(connector_id);
        let result = syncing.await;
        let source = (connector_id, self.account_id);
        meter::count(metrics, source, &result, started.elapsed());
        let source_id = (connector_id.to_owned(), self.account_id.to_owned());
        meter::refresh(metrics, self.store, &source_id).await;
        result
    }
}

/// Returns what each step of a source did the last time that all of them completed.
pub(crate) async fn past(
    store: &Store,
    connector_id: &str,
    account_id: &str,
) -> Result<HashMap<String, Past>, StoreError> {
    let source = format!(
        "connector_id = {} AND account_id = {}",
        quoted(connector_id),
        quoted(account_id)
    );
    let sql = format!(
        "SELECT step_id, entities + relationships AS records, duration_ms
         FROM parallax_sync_step WHERE {source} AND sync_id = (
             SELECT sync_id FROM parallax_sync WHERE {source} AND outcome = 'committed'
             ORDER BY committed_at DESC LIMIT 1)"
    );
    let found = store.query(&sql).await?;
    let steps = rows(&found).map(|step| {
        let past = Past {
            records: step.number("records"),
            duration: Duration::from_millis(step.number("duration_ms")),
        };
        (step.text("step_id").unwrap_or_default().to_owned(), past)
    });
    Ok(steps.collect())
}

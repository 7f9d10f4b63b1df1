use std::collections::HashMap;
use std::path::absolute;
use std::time::{Duration, Instant};

use parallax_connect::{Connector, ConnectorOutput, RunError, Runner};
use parallax_scheduler::{SyncError, run_once};
use parallax_store::{CommitResult, Outcome, Session, Store, StoreError};
use uuid::Uuid;

use crate::app::{App, Opened};
use crate::args::SyncArgs;
use crate::conclusion::Conclusion;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::progress::Past;
use crate::rows::{quoted, rows};
use crate::signals::{Signal, Signals};
use crate::{json, progress, summary};

/// `parallax sync`: runs a connector, commits, and says what came of it.
pub(crate) async fn run(
    app: &App,
    args: &SyncArgs,
    signals: &Signals,
    console: &mut Console<'_>,
) -> Exit {
    let started = Instant::now();
    let mut conclusion = Conclusion::new(args);
    if let Err(failure) = sync(app, args, signals, console, &mut conclusion).await {
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
    console: &Console<'_>,
    conclusion: &mut Conclusion,
) -> Result<(), Failure> {
    let opened = app.registration(&args.connector)?.open()?;
    let Opened {
        connector,
        account,
        connector_id,
    } = opened;
    conclusion.connector_id = Some(connector_id);
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
    Runner::new(&connector)
        .select(&args.select)
        .outline(&account_id, &sync_id)
        .map_err(Failure::Run)?;
    let store = open_store(args, conclusion).await?;
    let sync = Sync {
        connector: &connector,
        account_id: &account_id,
        sync_id: &sync_id,
        store: &store,
        args,
    };
    // A signal during the commit comes too late: what is committed is committed.
    let (output, result) = match sync.watched(signals, console).await {
        Ok(synced) => synced,
        Err(SyncError::Run(RunError::Cancelled { report })) => {
            conclusion.report = Some(*report);
            // Nothing but a signal cancels a run.
            let signal = signals.received().unwrap_or(Signal::Interrupt);
            return Err(Failure::Cancelled(signal));
        }
        Err(SyncError::Run(error)) => return Err(Failure::Run(error)),
        Err(SyncError::Commit { output, error }) => {
            conclusion.ran(&output);
            return Err(error.into());
        }
        Err(error) => {
            return Err(Failure::Defect {
                message: error.to_string(),
            });
        }
    };
    conclusion.ran(&output);
    let failed = result.outcome == Outcome::Failed;
    conclusion.committed = Some(result.into());
    if failed {
        Err(Failure::of_run(output.report()))
    } else {
        Ok(())
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
    args: &'a SyncArgs,
}

type Synced = (ConnectorOutput, CommitResult);

impl Sync<'_> {
    /// Runs and commits, and shows it if somebody watches.
    async fn watched(self, signals: &Signals, console: &Console<'_>) -> Result<Synced, SyncError> {
        let runner = Runner::new(self.connector)
            .select(&self.args.select)
            .cancel_on(signals.wait());
        let session = self.store.session();
        if console.bars.is_hidden() {
            return self.once(runner, session).await;
        }
        let past = self.past().await.unwrap_or_default();
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
    ) -> Result<Synced, SyncError> {
        if self.args.show {
            session = session.list_changes(usize::MAX);
        }
        if !self.args.dry_run {
            let synced = run_once(runner, self.account_id, self.sync_id, session).await?;
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

    /// Returns what each step did the last time that all of them completed.
    async fn past(&self) -> Result<HashMap<String, Past>, StoreError> {
        let source = format!(
            "connector_id = {} AND account_id = {}",
            quoted(self.connector.name()),
            quoted(self.account_id)
        );
        let sql = format!(
            "SELECT step_id, entities + relationships AS records, duration_ms
             FROM parallax_sync_step WHERE {source} AND sync_id = (
                 SELECT sync_id FROM parallax_sync WHERE {source} AND outcome = 'committed'
                 ORDER BY committed_at DESC LIMIT 1)"
        );
        let found = self.store.query(&sql).await?;
        let steps = rows(&found).map(|step| {
            let past = Past {
                records: step.number("records"),
                duration: Duration::from_millis(step.number("duration_ms")),
            };
            (step.text("step_id").unwrap_or_default().to_owned(), past)
        });
        Ok(steps.collect())
    }
}

use std::path::absolute;
use std::time::Instant;

use parallax_connect::{Connector, ConnectorOutput, RunError, Runner, SyncReport};
use parallax_scheduler::{SyncError, run_once};
use parallax_store::{CommitResult, Outcome, Store, StoreError};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::app::{App, Opened};
use crate::args::SyncArgs;
use crate::conclusion::Conclusion;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::signals::{Signal, Signals};
use crate::{json, progress, summary};

/// The runner queues what is more than this, so it need not be exact.
const EVENTS: usize = 256;

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
    let outline = Runner::new(&connector)
        .outline(&account_id, &sync_id)
        .map_err(Failure::Run)?;
    let store = open_store(args, conclusion).await?;
    let sync = Sync {
        connector: &connector,
        account_id: &account_id,
        sync_id: &sync_id,
        store: &store,
        dry_run: args.dry_run,
        show: args.show,
    };
    // A signal during the commit comes too late: what is committed is committed.
    let (output, result) = match sync.watched(outline, signals, console).await {
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
    dry_run: bool,
    /// Whether every change is listed.
    show: bool,
}

type Synced = (ConnectorOutput, CommitResult);

impl Sync<'_> {
    /// Runs and commits, and shows it if somebody watches.
    async fn watched(
        self,
        outline: SyncReport,
        signals: &Signals,
        console: &Console<'_>,
    ) -> Result<Synced, SyncError> {
        let runner = Runner::new(self.connector).cancel_on(signals.wait());
        if console.bars.is_hidden() {
            return self.once(runner).await;
        }
        let (sender, receiver) = mpsc::channel(EVENTS);
        let then = if self.dry_run {
            "comparing with the store"
        } else {
            "committing"
        };
        // A task of its own, so that the bars move while a step blocks this one's thread.
        let bars = console.bars.clone();
        let shown = tokio::spawn(progress::show(receiver, outline, then, bars));
        let synced = self.once(runner.events(&sender)).await;
        drop(sender);
        // Were it to panic, there would be bars missing, and nothing else.
        shown.await.ok();
        synced
    }

    async fn once(&self, runner: Runner<'_>) -> Result<Synced, SyncError> {
        let mut session = self.store.session();
        if self.show {
            session = session.list_changes(usize::MAX);
        }
        if !self.dry_run {
            let synced = run_once(runner, self.account_id, self.sync_id, session).await?;
            return Ok((synced.output, synced.result));
        }
        let output = runner
            .sink(&session)
            .run(self.account_id, self.sync_id)
            .await?;
        match session.plan(&output).await {
            Ok(result) => Ok((output, result)),
            Err(error) => Err(SyncError::Commit {
                output: Box::new(output),
                error,
            }),
        }
    }
}

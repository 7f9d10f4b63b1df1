use std::path::absolute;
use std::time::Instant;

use parallax_connect::{Connector, ConnectorOutput, RunError, Runner, SyncReport};
use parallax_store::{Outcome, Store, StoreError};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::app::{App, Opened};
use crate::args::SyncArgs;
use crate::conclusion::Conclusion;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::outline::outline;
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
        if conclusion.failure.is_none() && conclusion.exit() == Exit::Ok {
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
    let outline = outline(&connector, &account_id, &sync_id)
        .await
        .map_err(Failure::Run)?;
    let store = open_store(args, conclusion).await?;
    let run = Run {
        connector: &connector,
        account_id: &account_id,
        sync_id: &sync_id,
    };
    let output = match run.watched(outline, signals, console).await {
        Ok(output) => output,
        Err(RunError::Cancelled { report }) => {
            conclusion.report = Some(*report);
            return Err(cancelled(signals));
        }
        Err(error) => return Err(Failure::Run(error)),
    };
    conclusion.report = Some(output.report().clone());
    conclusion.undelivered_events = output.undelivered_events();
    if signals.received().is_some() {
        return Err(cancelled(signals));
    }

    // From here on a signal comes too late: what is committed is committed.
    let result = if args.dry_run {
        let _waiting = progress::show_waiting("comparing with the store", &console.bars);
        store.plan_sync(&output).await?
    } else {
        let _waiting = progress::show_waiting("committing", &console.bars);
        store.commit_sync(&output).await?
    };
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

struct Run<'a> {
    connector: &'a dyn Connector,
    account_id: &'a str,
    sync_id: &'a str,
}

impl Run<'_> {
    /// Runs the connector, and shows it if somebody watches.
    async fn watched(
        self,
        outline: SyncReport,
        signals: &Signals,
        console: &Console<'_>,
    ) -> Result<ConnectorOutput, RunError> {
        let runner = Runner::new(self.connector).cancel_on(signals.wait());
        if console.bars.is_hidden() {
            return runner.run(self.account_id, self.sync_id).await;
        }
        let (sender, receiver) = mpsc::channel(EVENTS);
        // A task of its own, so that the bars move while a step blocks this one's thread.
        let shown = tokio::spawn(progress::show(receiver, outline, console.bars.clone()));
        let output = runner
            .events(&sender)
            .run(self.account_id, self.sync_id)
            .await;
        drop(sender);
        // Were it to panic, there would be bars missing, and nothing else.
        shown.await.ok();
        output
    }
}

fn cancelled(signals: &Signals) -> Failure {
    // Nothing but a signal cancels a run.
    Failure::Cancelled(signals.received().unwrap_or(Signal::Interrupt))
}

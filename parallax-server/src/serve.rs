//! `parallax serve`: syncs again and again, and tells how it goes over HTTP.

mod access;
mod api;
mod exposition;
mod http;
mod hub;
mod page;
mod pages;
mod results;
mod roster;
mod stall;
mod tokens;
mod workers;

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use parallax_core::Escaped;
use parallax_metrics::{ParallaxMetrics, Prometheus, record_broken_sources};
use parallax_scheduler::{Job, Notice, Scheduler};
use parallax_store::{JournalName, Store, StoreError};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use crate::app::App;
use crate::args::ServeArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::logs::Installed;
use crate::meter::{self, Meter};
use crate::plan::{Overrides, Plan, Source};
use crate::remote::Announcement;
use crate::signals::{Signal, Signals};
use crate::text::{millis, panic_message};
use crate::tls::TlsServer;

use access::Access;
use http::{Limits, Listener};
use hub::Hub;
use pages::{Pages, State};
use results::Results;
use roster::{Mender, Roster};
use workers::Workers;

pub(crate) use tokens::{Reason, Tokens, read_secret};

/// How long runs may take to stop once a signal came.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether commits are still under way.
const LOOK: Duration = Duration::from_millis(100);
/// How often the metrics are tidied: else they grow while nobody scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often it is looked whether the certificate was renewed.
const RENEWAL: Duration = Duration::from_secs(2);

/// `parallax serve`: runs until a signal.
pub(crate) async fn run(
    app: &App,
    args: &ServeArgs,
    installed: &mut Installed,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let overrides = Overrides {
        store: args.config.store.clone(),
        listen: args.listen,
        insecure_http: args.config.insecure_http,
    };
    let plan = Plan::make(app, &args.config.file, &overrides).await?;
    if !console.owns_process {
        return Err(Failure::Usage {
            message: "serve needs a process of its own".to_owned(),
            help: "run it with App::main".to_owned(),
        });
    }
    let signals = Signals::listen(|| {
        tracing::warn!("Still stopping; a second signal ends the program at once");
    })
    .map_err(Failure::Start)?;
    let prometheus = Prometheus::install().map_err(|error| Failure::Defect {
        message: error.to_string(),
    })?;
    installed.send_metrics(&prometheus);

    let scheme = plan.scheme();
    let limits = Limits::within(raise_file_limit());
    let listener = match Listener::bind(plan.listen).await {
        Ok(listener) => listener,
        Err(failure) => return Err(prefer_lock(&plan.store, failure).await),
    };
    let tokens = match plan.tokens.as_deref().map(Tokens::read_or_make) {
        Some(Err(failure)) => {
            // Where there is no place for a store, there is none for its tokens.
            Store::open(&plan.store).await?;
            return Err(failure);
        }
        tokens => tokens.transpose()?,
    };
    let acceptor = plan.tls.as_ref().map(TlsServer::acceptor).transpose();
    let acceptor = acceptor.map_err(|error| Failure::Defect {
        message: error.to_string(),
    })?;
    let address = listener.address();
    let pages = {
        let prometheus = prometheus.clone();
        Arc::new(Pages::new(move |exposition| exposition.render(&prometheus)))
    };
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let server = Arc::new(api::Server::new(Arc::clone(&pages)));
    let http = tokio::spawn(http::serve(
        listener,
        router(
            &server,
            Access::new(tokens, plan.protects_reads).over_tls(plan.tls.is_some()),
        ),
        acceptor,
        limits,
        async { drop(http_stopped.await) },
    ));

    let store = Arc::new(Store::open(&plan.store).await?);
    let metrics = ParallaxMetrics::new();
    meter::begin(&metrics, &store, &plan.sources).await?;
    for broken in &plan.broken {
        meter::begin_broken(&metrics, &store, broken).await?;
    }
    let upkeep = tokio::spawn(async move {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            prometheus.upkeep();
        }
    });
    let (meter, live) = Meter::new(metrics.clone(), Arc::clone(&store));
    let live = tokio::spawn(live);
    let (changed, decided) = (meter.changed(), meter.decided());
    let hub = Arc::new(Hub::new());
    let pulse = tokio::spawn(Arc::clone(&hub).beat());
    let results = Arc::new(Results::new(store.url()));
    let (ended, concluded) = (Arc::clone(&hub), Arc::clone(&results));
    let scheduler = scheduler(&plan, &store)?
        .journal(Arc::clone(&hub) as _)
        .watcher(move |notice| {
            meter.note(notice);
            concluded.note(notice);
            forget_ended(&ended, notice);
        });
    let sources = plan.sources.len() + plan.broken.len();
    let roster = Arc::new(Roster::new(plan.sources, plan.broken));
    let measured = Arc::clone(&roster);
    let tell = |listed: &roster::Listed| {
        pages.count_broken(listed.broken.len(), sources);
        record_broken_sources(listed.broken.len());
    };
    let mender = Mender {
        app,
        roster: Arc::clone(&roster),
        scheduler: scheduler.handle(),
        metrics,
        store: Arc::clone(&store),
        tell: &tell,
    };
    let daemon = api::Daemon::new(
        Arc::clone(&store),
        roster,
        scheduler.handle(),
        Arc::clone(&hub),
        results,
        limits.streams(),
        move |source_id| {
            // What the store has of others is in no gauge.
            if measured.has(&source_id) {
                changed(source_id);
            }
        },
    )
    .telling_of_decisions(decided);
    let daemon = Arc::new(daemon);
    server.daemon.set(Arc::clone(&daemon)).ok();
    let certificate = plan.tls.as_ref().map(|tls| tls.certificate().fingerprint);
    let mut announcement =
        Announcement::make(store.url(), address, plan.tokens.as_deref(), certificate);
    console.print(&format!("listening on {scheme}://{address}\n"))?;
    tracing::info!(
        listen = %address,
        tls = plan.tls.is_some(),
        store = %Escaped(store.url()),
        sources,
        tokens = plan.tokens.as_ref().map(|path| tracing::field::display(Escaped(path.display()))),
        version = env!("CARGO_PKG_VERSION"),
        "Serving"
    );
    tell(&mender.roster.read());
    pages.set(State::Ready);
    let ended = tokio::select! {
        ended = until_signal(scheduler, &signals, &pages, GRACE) => ended,
        never = mender.run() => match never {},
        never = keep_certificate(plan.tls, announcement.as_mut()) => match never {},
    };
    drop(announcement);
    hub.close();
    upkeep.abort();
    pulse.abort();
    live.abort();
    drop(stop_http);
    http.await.ok();
    daemon.settled().await;
    ended?;
    tracing::info!("Stopped");
    Ok(signals.received().unwrap_or(Signal::Terminate).exit())
}

/// Routes to all that is served.
fn router(server: &Arc<api::Server>, access: Access) -> Router {
    api::router(Arc::clone(server))
        .merge(Arc::clone(&server.pages).router())
        .merge(page::router())
        .fallback(api::no_such_place)
        .method_not_allowed_fallback(api::not_that_method)
        .layer(middleware::from_fn_with_state(
            Arc::new(access),
            access::check,
        ))
}

/// Lets the process have as many files as it may: each connection is one, and the store must not
/// lack any. Most systems give a process 1,024 unless it asks. Returns how many, unless there is no
/// limit.
fn raise_file_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "Limit of files not raised");
            before
        }
    }
}

/// Lets go of what a sync has told, once it has ended.
fn forget_ended(hub: &Hub, notice: &Notice<'_>) {
    if let Notice::Ended { job, sync_id, .. } = notice {
        hub.ended(&JournalName {
            connector_id: job.connector_id().to_owned(),
            account_id: job.account_id().to_owned(),
            sync_id: (*sync_id).to_owned(),
        });
    }
}

/// Shows clients the certificate that is on disk, and tells commands of it, for as long as it is
/// polled.
async fn keep_certificate(
    tls: Option<TlsServer>,
    mut announcement: Option<&mut Announcement>,
) -> Infallible {
    let Some(tls) = tls.map(Arc::new) else {
        return pending().await;
    };
    let mut ticks = interval(RENEWAL);
    loop {
        ticks.tick().await;
        let looking = Arc::clone(&tls);
        // A file system may hang.
        let Ok(Some(certificate)) = spawn_blocking(move || looking.renewed()).await else {
            continue;
        };
        if let Some(announcement) = announcement.as_deref_mut() {
            announcement.certify(certificate.fingerprint);
        }
        tls.show(certificate);
    }
}

/// Runs the scheduler until a signal comes and everything under way has ended, or all commits and
/// the grace period have.
async fn until_signal(
    scheduler: Scheduler,
    signals: &Signals,
    pages: &Pages,
    grace: Duration,
) -> Result<(), Failure> {
    let workers = Workers::try_new().map_err(Failure::Start)?;
    let handle = scheduler.handle();
    let mut syncs = workers.spawn(scheduler.run(signals.wait()));
    tokio::select! {
        () = signals.wait() => {}
        ended = &mut syncs => return well(ended),
    }
    pages.set(State::Draining);
    let signal = signals.received().unwrap_or(Signal::Terminate);
    tracing::info!(%signal, "Stopping: no sync starts, runs are cancelled, commits finish");
    let mut pause = grace;
    loop {
        match timeout(pause, &mut syncs).await {
            Ok(ended) => return well(ended),
            // Cut off, it would be undone, and all that it read be read again.
            Err(_) if handle.commits() > 0 => pause = LOOK,
            Err(_) => break,
        }
    }
    tracing::warn!(
        grace_ms = millis(grace),
        "Not every step has stopped in time; what it read is dropped"
    );
    Ok(())
}

fn scheduler(plan: &Plan, store: &Arc<Store>) -> Result<Scheduler, Failure> {
    let mut scheduler = Scheduler::new(Arc::clone(store));
    if let Some(syncs) = plan.concurrency {
        scheduler = scheduler.concurrency(usize::try_from(syncs.get()).unwrap_or(usize::MAX));
    }
    for source in &plan.sources {
        scheduler = scheduler
            .job(job(source))
            .map_err(|error| Failure::Defect {
                message: error.to_string(),
            })?;
    }
    Ok(scheduler)
}

/// Returns what the scheduler is to do of a source.
fn job(source: &Source) -> Job {
    let (connector, schedule) = (Arc::clone(&source.connector), source.schedule.clone());
    Job::new(connector, &source.account_id, schedule).guard(source.guard)
}

/// A scheduler ends by itself only if it panics.
fn well(ended: Result<(), tokio::task::JoinError>) -> Result<(), Failure> {
    let Err(error) = ended else {
        return Ok(());
    };
    Err(Failure::Defect {
        message: match error.try_into_panic() {
            Ok(payload) => panic_message(&*payload),
            Err(error) => error.to_string(),
        },
    })
}

/// Returns the failure that tells more. Where the address is in use, it is most often the same
/// daemon that has been started twice, and the store's lock names it.
async fn prefer_lock(store: &str, failure: Failure) -> Failure {
    if Store::open_read_only(store).await.is_err() {
        return failure;
    }
    match Store::open(store).await {
        Err(error @ StoreError::Locked { .. }) => error.into(),
        _ => failure,
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::pending;
use std::slice;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use parallax_core::Escaped;
use parallax_metrics::ParallaxMetrics;
use parallax_scheduler::{AddError, Handle};
use parallax_store::Store;
use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::config::Secret;
use crate::meter::SourceId;
use crate::plan::{Broken, Reason, Source};
use crate::serve::{job, meter};

/// How soon a source that cannot be synced is tried again the first time; each pause is twice as long
/// as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The sources of the configuration: those that are synced, and those that cannot be.
pub(super) struct Roster(RwLock<Listed>);

pub(super) struct Listed {
    pub(super) sources: Vec<Source>,
    pub(super) broken: Vec<Waiting>,
}

/// A source that cannot be synced, until it is tried again.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) broken: Broken,
    pause: Duration,
    until: Instant,
}

impl Waiting {
    /// Returns how long it waits.
    pub(super) fn due_in(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Broken {
    /// Returns its account, empty as long as it is not known.
    pub(crate) fn account_id(&self) -> &str {
        match &self.config.account {
            Some(Secret::Written(account_id)) => account_id,
            _ => "",
        }
    }
}

impl Roster {
    pub(super) fn new(sources: Vec<Source>, broken: Vec<Broken>) -> Self {
        let broken = broken.into_iter().map(|broken| Waiting {
            broken,
            pause: FIRST_PAUSE,
            until: Instant::now() + FIRST_PAUSE,
        });
        Self(RwLock::new(Listed {
            sources,
            broken: broken.collect(),
        }))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Listed> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Listed> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a source is of the configuration.
    pub(super) fn has(&self, id: &SourceId) -> bool {
        self.line_of(id).is_some() || self.reason(&id.0, &id.1).is_some()
    }

    /// Returns why a source cannot be synced, if it cannot.
    pub(super) fn reason(&self, connector_id: &str, account_id: &str) -> Option<Reason> {
        let is_meant = |one: &&Waiting| {
            one.broken.config.name == connector_id && one.broken.account_id() == account_id
        };
        let listed = self.read();
        let found = listed.broken.iter().find(is_meant);
        found.map(|one| one.broken.reason.clone())
    }

    /// Returns the line of the source that is synced by this name already.
    fn line_of(&self, id: &SourceId) -> Option<usize> {
        let listed = self.read();
        let found = listed.sources.iter().find(|source| source.id() == *id);
        found.map(|source| source.line)
    }
}

/// Tries again what cannot be synced, and has it synced once it can be.
pub(super) struct Mender<'a> {
    pub(super) app: &'a App,
    pub(super) roster: Arc<Roster>,
    pub(super) scheduler: Handle,
    pub(super) metrics: ParallaxMetrics,
    pub(super) store: Arc<Store>,
    /// Told how many cannot be synced, when that changes.
    pub(super) tell: &'a dyn Fn(&Listed),
}

impl Mender<'_> {
    /// Says what is wrong, then tries for ever.
    pub(super) async fn run(self) -> Infallible {
        for Waiting { broken, .. } in &self.roster.read().broken {
            complain(broken);
        }
        loop {
            let next = self.roster.read().broken.iter().map(|one| one.until).min();
            let Some(next) = next else {
                return pending().await;
            };
            sleep_until(next).await;
            let now = Instant::now();
            let mut due = self.roster.read().broken.clone();
            due.retain(|one| one.until <= now);
            for Waiting { broken, .. } in due {
                self.attempt(broken).await;
            }
        }
    }

    async fn attempt(&self, mut broken: Broken) {
        let line = broken.config.line;
        let opened = Source::open(self.app, &broken.config);
        let ready = opened.and_then(|source| match self.roster.line_of(&source.id()) {
            Some(first) => Err(Reason::twice(first, &source.id())),
            None => Ok(source),
        });
        match ready {
            Ok(source) => self.begin(&broken, source).await,
            Err(reason) => {
                let is_news = reason != broken.reason;
                broken.reason = reason;
                if is_news {
                    complain(&broken);
                }
                let mut listed = self.roster.write();
                let same = |one: &&mut Waiting| one.broken.config.line == line;
                if let Some(waiting) = listed.broken.iter_mut().find(same) {
                    waiting.broken = broken;
                    waiting.pause = (waiting.pause * 2).min(LONGEST_PAUSE);
                    waiting.until = Instant::now() + waiting.pause;
                }
            }
        }
    }

    /// Has a source synced that could not be before.
    async fn begin(&self, broken: &Broken, source: Source) {
        meter::mended(&self.metrics, broken);
        let begun = meter::begin(&self.metrics, &self.store, slice::from_ref(&source)).await;
        if let Err(error) = begun {
            tracing::warn!(error = %Escaped(error), "Gauges not restored");
        }
        match self.scheduler.add(job(&source)).await {
            Ok(()) => {}
            Err(AddError::Stopped) => return,
            // No other has this source, so that there is no such job.
            Err(error) => tracing::error!(error = %Escaped(error), "Source not added"),
        }
        tracing::info!(
            connector_id = %source.connector_id,
            account_id = %Escaped(&source.account_id),
            "Source can be synced now"
        );
        let mut listed = self.roster.write();
        let line = broken.config.line;
        listed.broken.retain(|one| one.broken.config.line != line);
        listed.sources.push(source);
        (self.tell)(&listed);
    }
}

fn complain(broken: &Broken) {
    tracing::error!(
        connector_id = %broken.config.name,
        account_id = %Escaped(broken.account_id()),
        line = broken.config.line,
        reason = %Escaped(&broken.reason.what),
        help = %Escaped(&broken.reason.help),
        "Source cannot be synced"
    );
}

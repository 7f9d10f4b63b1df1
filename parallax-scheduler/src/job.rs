use std::fmt;
use std::sync::Arc;

use parallax_connect::Connector;
use parallax_store::Guard;

use crate::schedule::Schedule;

/// A source that is synced again and again.
#[derive(Clone)]
pub struct Job {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) account_id: String,
    pub(crate) schedule: Schedule,
    pub(crate) guard: Guard,
}

impl Job {
    /// Makes a job: `connector` reads `account_id` once per interval, or as a [`Schedule`] says.
    pub fn new(
        connector: Arc<dyn Connector>,
        account_id: impl Into<String>,
        schedule: impl Into<Schedule>,
    ) -> Self {
        Self {
            connector,
            account_id: account_id.into(),
            schedule: schedule.into(),
            guard: Guard::default(),
        }
    }

    /// Sets which deletes of its syncs are held.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Returns the connector's name.
    pub fn connector_id(&self) -> &str {
        self.connector.name()
    }

    /// Returns the account that is read.
    pub fn account_id(&self) -> &str {
        &self.account_id
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("connector_id", &self.connector_id())
            .field("account_id", &self.account_id)
            .field("schedule", &self.schedule)
            .finish()
    }
}

/// Two jobs have one source.
///
/// They would take each other's records for gone: a source is what one connector finds in one
/// account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two jobs sync {connector_id} in account {account_id:?}")]
pub struct DuplicateSource {
    /// The connector.
    pub connector_id: String,
    /// The account.
    pub account_id: String,
}

use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;

use parallax_core::ConnectorOutput;

use crate::backup::Backup;
use crate::browse::{Browse, Page, RecordType};
use crate::error::{CommitError, StoreError};
use crate::explain::{Explanation, Subject};
use crate::findings::Collected;
use crate::history::History;
use crate::journal::{JournalName, JournalPage};
use crate::result::{CommitResult, Decided, Forgotten, Rows};
use crate::session::Options;
use crate::verify::Verification;

/// What is to come of a call to an engine.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What keeps the records: the part of a store that differs between databases.
pub(crate) trait Engine: Debug + Send + Sync {
    fn url(&self) -> &str;

    /// Begins to collect what a run emits.
    fn collect(&self) -> Collected;

    fn commit(
        &self,
        output: ConnectorOutput,
        collected: Collected,
        options: Options,
    ) -> Answer<'_, Result<CommitResult, CommitError>>;

    fn commit_blocking(&self, output: &ConnectorOutput) -> Result<CommitResult, CommitError>;

    fn plan(
        &self,
        output: ConnectorOutput,
        collected: Collected,
        options: Options,
    ) -> Answer<'_, Result<CommitResult, CommitError>>;

    fn decide(&self, changeset: u64, word: Word) -> Answer<'_, Result<Decided, StoreError>>;

    fn forget(
        &self,
        connector_id: String,
        account_id: String,
        plan: bool,
    ) -> Answer<'_, Result<Forgotten, StoreError>>;

    fn query(&self, sql: String) -> Answer<'_, Result<Rows, StoreError>>;

    fn browse(&self, browse: Browse) -> Answer<'_, Result<Page, StoreError>>;

    fn types(&self) -> Answer<'_, Result<Vec<RecordType>, StoreError>>;

    fn explain(&self, subject: Subject) -> Answer<'_, Result<Vec<Explanation>, StoreError>>;

    fn history(&self, subject: Subject, limit: u32)
    -> Answer<'_, Result<Vec<History>, StoreError>>;

    fn journals(
        &self,
        prefix: String,
        limit: u32,
    ) -> Answer<'_, Result<Vec<JournalName>, StoreError>>;

    fn journal(&self, name: JournalName, from: u64) -> Answer<'_, Result<JournalPage, StoreError>>;

    fn verify(&self) -> Answer<'_, Result<Verification, StoreError>>;

    fn backup(&self, path: PathBuf) -> Answer<'_, Result<Backup, StoreError>>;
}

/// What somebody says of a changeset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Approve,
    Reject,
}

/// Opens the engine that a URL names, if it is compiled in.
pub(crate) async fn open(url: &str, read_only: bool) -> Result<Box<dyn Engine>, StoreError> {
    #[cfg(feature = "sqlite")]
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Box::new(
            crate::sqlite::Sqlite::open(url, path, read_only).await?,
        ));
    }
    let _ = read_only;
    Err(StoreError::InvalidUrl {
        url: url.to_owned(),
        reason: "it does not begin with sqlite:",
    })
}

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parallax_core::{Imbalance, RecordKind};

/// Why a store cannot be opened or read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL names no store that this build can open.
    #[error("{url:?} is not a store URL: {reason}")]
    InvalidUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no store.
    #[error("there is no store at {}", path.display())]
    NotFound {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no directory to create the store in.
    #[error("there is no directory {}", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The path leads to a directory.
    #[error("{} is a directory, not a store", path.display())]
    IsDirectory {
        /// The path.
        path: PathBuf,
    },
    /// There is a file where a new one was to be made.
    #[error("there is a file at {} already", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The file, or its directory, may not be read or written.
    #[error("no permission to use the store at {}: {source}", path.display())]
    Permission {
        /// The store's path.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process, or another handle in this one, writes to the store.
    #[error("the store at {} is in use by process {pid}", path.display())]
    Locked {
        /// The store's path.
        path: PathBuf,
        /// The process, as it wrote itself into the lock file; `?` if that cannot be read.
        pid: String,
    },
    /// The file is not a Parallax store.
    #[error("{} is not a Parallax store: {reason}", path.display())]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// What it is instead, as far as is known.
        reason: String,
    },
    /// The store was written by a newer version of Parallax.
    #[error(
        "the store at {} has version {found}, newer than version {supported} of this program",
        path.display()
    )]
    Newer {
        /// The path.
        path: PathBuf,
        /// The store's version.
        found: i64,
        /// The newest version that this program knows.
        supported: i64,
    },
    /// The store was written by an older version of Parallax, and is opened for reading.
    #[error(
        "the store at {} has version {found}; this program reads version {current}",
        path.display()
    )]
    Older {
        /// The path.
        path: PathBuf,
        /// The store's version.
        found: i64,
        /// The version that this program reads.
        current: i64,
    },
    /// The store is damaged.
    #[error("the store is damaged: {details}")]
    Corrupt {
        /// What was found, and where.
        details: String,
    },
    /// The disk is full. Nothing was changed; once there is space, the store works again.
    #[error("no space left for the store: {details}")]
    Full {
        /// What the engine said.
        details: String,
    },
    /// The store was opened for reading.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The store has nothing of this connector in this account.
    #[error("nothing is stored of {connector_id} in account {account_id:?}")]
    NoSuchSource {
        /// The connector.
        connector_id: String,
        /// The account.
        account_id: String,
    },
    /// There is no journal of this sync, or none that is kept.
    #[error("there is no journal of sync {sync_id:?}")]
    NoSuchJournal {
        /// The sync.
        sync_id: String,
    },
    /// There is no changeset of this number.
    #[error("there is no changeset {changeset}")]
    NoSuchChangeset {
        /// The number.
        changeset: u64,
    },
    /// The changeset has been closed otherwise.
    #[error("changeset {changeset} is {state} already")]
    ChangesetClosed {
        /// The number.
        changeset: u64,
        /// What became of it: `approved`, `rejected`, or `released` when all of its records came
        /// back.
        state: String,
    },
    /// The query is not one statement that reads.
    #[error("the query cannot be run: {0}")]
    Query(String),
    /// The engine or the disk failed.
    #[error("the store failed: {details}")]
    Engine {
        /// What it said.
        details: String,
    },
}

impl StoreError {
    /// Returns a stable name for this kind of error, in `snake_case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "store_invalid_url",
            Self::NotFound { .. } => "store_not_found",
            Self::NoDirectory { .. } => "store_no_directory",
            Self::IsDirectory { .. } => "store_is_directory",
            Self::Exists { .. } => "store_exists",
            Self::Permission { .. } => "store_permission",
            Self::Locked { .. } => "store_locked",
            Self::NotAStore { .. } => "not_a_store",
            Self::Newer { .. } => "store_newer",
            Self::Older { .. } => "store_older",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Full { .. } => "store_full",
            Self::ReadOnly => "store_read_only",
            Self::NoSuchSource { .. } => "no_such_source",
            Self::NoSuchJournal { .. } => "no_such_journal",
            Self::NoSuchChangeset { .. } => "no_such_changeset",
            Self::ChangesetClosed { .. } => "changeset_closed",
            Self::Query(_) => "query_failed",
            Self::Engine { .. } => "store_failed",
        }
    }

    /// Returns what to do next.
    pub fn help(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => {
                "name a store as sqlite:PATH, for example sqlite:parallax.db"
            }
            Self::NotFound { .. } => "check the path, or create the store by a first sync into it",
            Self::NoDirectory { .. } => "create the directory, or check the path",
            Self::IsDirectory { .. } => {
                "name a file in the directory, for example sqlite:DIRECTORY/parallax.db"
            }
            Self::Exists { .. } => "nothing is replaced: name a file that is not there yet",
            Self::Permission { .. } => {
                "a store needs read and write access to its file and to the directory around it: \
                 SQLite keeps its write-ahead log there"
            }
            Self::Locked { .. } => {
                "a store has one writer at a time: wait for that process or stop it, or, if it is a \
                 daemon, be its user, and it does it for you; reading is possible meanwhile"
            }
            Self::NotAStore { .. } => {
                "nothing was changed in the file: choose another path, or move it away"
            }
            Self::Newer { .. } => "use the version of Parallax that wrote it, or a newer one",
            Self::Older { .. } => "the next sync into it brings it up to date",
            Self::Corrupt { .. } => {
                "nothing was changed: keep a copy of the file with its -wal, and restore a backup"
            }
            Self::Full { .. } => "free some space and try again: what is stored is as it was",
            Self::ReadOnly => "open the store for writing",
            Self::NoSuchSource { .. } => "the view parallax_source lists what is stored",
            Self::NoSuchJournal { .. } => {
                "journals are kept for 30 days, and 64 MiB of them; the view parallax_sync lists all syncs"
            }
            Self::NoSuchChangeset { .. } => "the view parallax_changeset lists them",
            Self::ChangesetClosed { .. } => {
                "it is decided once; the view parallax_changeset says when and by which sync"
            }
            Self::Query(_) => {
                "one SELECT over parallax_entity, parallax_relationship, parallax_source, \
                 parallax_sync or parallax_change"
            }
            Self::Engine { .. } => "nothing was committed: see to the cause and sync again",
        }
    }
}

/// Why a sync was not committed. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The source has committed another sync under this id.
    #[error(
        "sync id {sync_id:?} of {connector_id} in account {account_id:?} was used for another \
         run, which emitted something else"
    )]
    SyncIdReused {
        /// The connector.
        connector_id: String,
        /// The account.
        account_id: String,
        /// The id.
        sync_id: String,
    },
    /// A run of the same source that started later has committed already.
    #[error(
        "a run of {connector_id} in account {account_id:?} that started later has been committed"
    )]
    Superseded {
        /// The connector.
        connector_id: String,
        /// The account.
        account_id: String,
    },
    /// The run emitted more records of a kind than a commit can take: some four billion.
    #[error("{records} {} are more than a commit takes", kind.plural())]
    TooManyRecords {
        /// The kind.
        kind: RecordKind,
        /// How many records of it were emitted.
        records: u64,
    },
    /// The run emitted into a session that is gone, and its records with it.
    #[error(
        "the {records} records of the run are gone: they went with the session that it emitted into"
    )]
    RecordsGone {
        /// How many were emitted.
        records: u64,
    },
    /// The counts of the commit do not add up: a defect of Parallax, caught before it was stored.
    #[error(transparent)]
    Imbalance(#[from] Imbalance),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommitError {
    /// Returns a stable name for this kind of error, in `snake_case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SyncIdReused { .. } => "sync_id_reused",
            Self::Superseded { .. } => "superseded",
            Self::TooManyRecords { .. } => "too_many_records",
            Self::RecordsGone { .. } => "records_gone",
            Self::Imbalance(_) => "imbalance",
            Self::Store(error) => error.code(),
        }
    }

    /// Returns what to do next.
    pub fn help(&self) -> &'static str {
        match self {
            Self::SyncIdReused { .. } => "give each run an id of its own, or none",
            Self::Superseded { .. } => "nothing: what the later run saw is newer",
            Self::TooManyRecords { .. } => "nothing was committed: divide them among accounts",
            Self::RecordsGone { .. } => {
                "run the connector again: under the same sync id, if it may have been committed"
            }
            Self::Imbalance(_) => "nothing was committed: please report this as a defect",
            Self::Store(error) => error.help(),
        }
    }
}

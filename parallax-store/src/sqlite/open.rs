use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::StoreError;
use crate::sqlite::error::open_error;

/// Forward-only; each in one transaction. A store's version is how many it has seen.
const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
];
const SCHEMA_VERSION: i64 = 2;

/// "PRLX": marks a SQLite file as ours.
const APPLICATION_ID: i64 = 0x5052_4c58;

/// The first version without the WAL-reset defect, which could corrupt a file. SQLite is compiled
/// in, so this holds for every build or for none.
const _: () = assert!(rusqlite::ffi::SQLITE_VERSION_NUMBER >= 3_051_003);

/// What a connection holds in memory between commits, in negative KiB as the engine wants it.
pub(super) const CACHE: i64 = -16_384;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Memory,
    File(PathBuf),
}

/// An open store, and what keeps other writers away from it.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    // Dropped after the connection: when the lock is free, the file is closed.
    _lock: Option<File>,
}

impl Location {
    pub(crate) fn parse(url: &str, path: &str) -> Result<Self, StoreError> {
        let invalid = |reason| StoreError::InvalidUrl {
            url: url.to_owned(),
            reason,
        };
        match path {
            ":memory:" => Ok(Self::Memory),
            "" => Err(invalid("it names no file")),
            path if path.contains('\0') => Err(invalid("the path holds a NUL")),
            path => std::path::absolute(path)
                .map(Self::File)
                .map_err(|_| invalid("the path cannot be made absolute")),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::File(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// Opens for writing; creates what is not there.
    pub(crate) fn open(&self) -> Result<Opened, StoreError> {
        let Self::File(path) = self else {
            let mut connection = Connection::open_in_memory()?;
            configure(&connection)?;
            migrate(Path::new(":memory:"), &mut connection)?;
            return Ok(Opened {
                connection,
                _lock: None,
            });
        };
        let existed = check_path(path)?;
        if existed {
            // Before the lock, which would leave a file beside something that is not a store.
            let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            check_identity(path, &connection)?;
        }
        let lock = lock(path)?;
        if !existed {
            // Before SQLite does, because it would be readable for everyone.
            let created = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path);
            drop(created.map_err(|error| io_error(path, error))?);
        }
        let mut connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Again, now that nobody else can change it.
        check_identity(path, &connection)?;
        configure(&connection).map_err(|error| open_error(path, error))?;
        migrate(path, &mut connection)?;
        Ok(Opened {
            connection,
            _lock: Some(lock),
        })
    }

    /// Opens for reading, without a lock: the write-ahead log gives a reader its own snapshot.
    pub(crate) fn open_read_only(&self) -> Result<Opened, StoreError> {
        let Self::File(path) = self else {
            return Err(StoreError::NotFound {
                path: ":memory:".into(),
            });
        };
        if !check_path(path)? {
            return Err(StoreError::NotFound { path: path.clone() });
        }
        let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match check_identity(path, &connection)? {
            0 => Err(StoreError::NotAStore {
                path: path.clone(),
                reason: "it is empty".to_owned(),
            }),
            _ => Ok(Opened {
                connection,
                _lock: None,
            }),
        }
    }
}

fn open_file(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Tells whether a file is there.
fn check_path(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(StoreError::IsDirectory {
            path: path.to_owned(),
        }),
        Ok(metadata) if !metadata.is_file() => Err(StoreError::NotAStore {
            path: path.to_owned(),
            reason: "it is not a regular file".to_owned(),
        }),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.is_dir() => Err(StoreError::NoDirectory {
                path: parent.to_owned(),
            }),
            _ => Ok(false),
        },
        Err(error) => Err(io_error(path, error)),
    }
}

/// Takes the writer's lock: on a file beside the store, because closing any handle of the store's
/// own file would drop the locks that SQLite holds on it.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| io_error(path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&file).take(64).read_to_string(&mut holder);
            let pid = holder
                .lines()
                .next()
                .filter(|pid| pid.parse::<u32>().is_ok());
            return Err(StoreError::Locked {
                path: path.to_owned(),
                pid: pid.unwrap_or("?").to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(path, error)),
    }
    // For people and for the message above; the lock itself does not depend on it.
    let written = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}\nsqlite:{}", std::process::id(), path.display()));
    if let Err(error) = written {
        tracing::warn!(%error, "Lock file not written");
    }
    Ok(file)
}

/// Returns the store's version, 0 for an empty file. Fails for a file that is not ours to write.
fn check_identity(path: &Path, connection: &Connection) -> Result<i64, StoreError> {
    let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let failed = |error| open_error(path, error);
    let tables = read("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let application = read("PRAGMA application_id").map_err(failed)?;
    let version = read("PRAGMA user_version").map_err(failed)?;
    if application != APPLICATION_ID && (tables > 0 || application != 0) {
        return Err(StoreError::NotAStore {
            path: path.to_owned(),
            reason: "it is a SQLite database of another program".to_owned(),
        });
    }
    let supported = SCHEMA_VERSION;
    if version > supported {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found: version,
            supported,
        });
    }
    Ok(version)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        // Checkpoints are explicit, after the commit is acknowledged. No mmap: an I/O error would
        // be a signal, and it made the WAL-reset defect worse.
        "PRAGMA page_size = 8192;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;",
    )?;
    connection.pragma_update(None, "cache_size", CACHE)
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let failed = |error| open_error(path, error);
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    for (number, migration) in (1i64..).zip(MIGRATIONS) {
        if number > version {
            let transaction = connection.transaction().map_err(failed)?;
            transaction.execute_batch(migration).map_err(failed)?;
            transaction
                .pragma_update(None, "user_version", number)
                .map_err(failed)?;
            transaction
                .pragma_update(None, "application_id", APPLICATION_ID)
                .map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
            details: error.to_string(),
        },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Permission {
                path: path.to_owned(),
                source: error.into(),
            }
        }
        _ => StoreError::Engine {
            details: format!("{}: {error}", path.display()),
        },
    }
}

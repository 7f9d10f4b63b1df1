use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::StoreError;
use crate::sqlite::error::{io_error, open_error};
use crate::sqlite::lock::{Acknowledged, LockFile};
use crate::sqlite::query;

/// Forward-only; each in one transaction. A store's version is how many it has seen.
const MIGRATIONS: [&str; 5] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
];
const SCHEMA_VERSION: i64 = 5;
/// The first version that counts its commits.
const FIRST_WITH_EPOCH: i64 = 2;

/// "PRLX": marks a SQLite file as ours.
const APPLICATION_ID: i64 = 0x5052_4c58;

/// The first version without the WAL-reset defect, which could corrupt a file. SQLite is compiled
/// in, so this holds for every build or for none.
const _: () = assert!(rusqlite::ffi::SQLITE_VERSION_NUMBER >= 3_051_003);

/// What a connection holds in memory between commits, in negative KiB as the engine wants it.
pub(super) const CACHE: i64 = -16_384;
/// More than a commit has.
const STATEMENTS: usize = 256;
/// More changes than this are a large commit. Each of them touches some five pages of 8 KiB.
const LARGE: u64 = 500;
/// What a large commit may hold in memory: ids are hashes, so its writes go all over the indexes.
pub(super) const LARGE_CACHE: i64 = -262_144;
/// More pages than this are a long log: 64 MiB.
const LARGE_LOG: i64 = 8_192;
/// How long to wait for another process that has the file to itself for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Memory,
    File(PathBuf),
}

/// An open store, and what keeps other writers away from it.
pub(crate) struct Opened {
    pub(super) connection: Connection,
    // Dropped after the connection: when the lock is free, the file is closed.
    lock: Option<LockFile>,
}

impl Opened {
    /// Writes in one transaction, and counts it; rolls back if `work` has nothing to write.
    pub(super) fn write<T, E: From<rusqlite::Error>>(
        &mut self,
        rows: u64,
        work: impl FnOnce(&Transaction<'_>) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let is_large = rows > LARGE;
        if is_large {
            self.connection
                .pragma_update(None, "cache_size", LARGE_CACHE)?;
        }
        let written = self.write_in_transaction(work);
        if is_large {
            // Gives the memory back; a daemon waits much longer than it works.
            self.connection.pragma_update(None, "cache_size", CACHE)?;
        }
        written
    }

    fn write_in_transaction<T, E: From<rusqlite::Error>>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some(written) = work(&transaction)? else {
            return Ok(None);
        };
        let epoch = transaction
            .prepare_cached(
                "UPDATE px_meta SET value = value + 1 WHERE key = 'epoch' RETURNING value",
            )?
            .query_row([], |row| row.get(0))?;
        transaction.commit()?;
        if let Some(lock) = &self.lock {
            lock.acknowledge(epoch);
        }
        Ok(Some(written))
    }

    /// Moves the write-ahead log into the file. The commits stand without it.
    pub(super) fn checkpoint(&self) {
        if let Err(error) = self.move_log() {
            tracing::warn!(%error, "Checkpoint failed");
        }
    }

    fn move_log(&self) -> rusqlite::Result<()> {
        let passive = "PRAGMA wal_checkpoint(PASSIVE)";
        let (pages, moved): (i64, i64) = self
            .connection
            .query_row(passive, [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        if pages > LARGE_LOG && moved == pages {
            // A long log is cut off here, which takes a while. Else the next commit would do it, and
            // be waited for. While somebody reads from it, it stays: nobody waits for readers.
            self.connection.busy_timeout(Duration::ZERO)?;
            let cut = "PRAGMA wal_checkpoint(TRUNCATE)";
            let cut = self.connection.query_row(cut, [], |_| Ok(()));
            self.connection.busy_timeout(BUSY_TIMEOUT)?;
            cut?;
        }
        Ok(())
    }
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
            set_up(&mut connection)?;
            configure(&connection)?;
            migrate(Path::new(":memory:"), &mut connection)?;
            return Ok(Opened {
                connection,
                lock: None,
            });
        };
        let existed = check_path(path)?;
        if existed {
            // Before the lock, which would leave a file beside something that is not a store.
            let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            if !needs_rollback(&connection) {
                check_identity(path, &connection)?;
            }
        }
        let (mut lock, acknowledged) = LockFile::take(path)?;
        lock.announce(path, acknowledged);
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
        let failed = |error| open_error(path, error);
        let mut connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The last one to close a file moves its log into it: not that of a store that is refused.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(keep_log, true).map_err(failed)?;
        // Again, now that nobody else can change it.
        let version = check_identity(path, &connection)?;
        if let Some(acknowledged) = acknowledged
            && version >= FIRST_WITH_EPOCH
        {
            acknowledged.check(path, epoch(&connection).map_err(failed)?)?;
        }
        configure(&connection).map_err(failed)?;
        migrate(path, &mut connection)?;
        let at = epoch(&connection).map_err(failed)?;
        connection.set_db_config(keep_log, false).map_err(failed)?;
        lock.announce(path, Some(at));
        Ok(Opened {
            connection,
            lock: Some(lock),
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
        // Before the store: what is committed in between is acknowledged later.
        let acknowledged = Acknowledged::read(path);
        let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match check_identity(path, &connection)? {
            0 => {
                return Err(StoreError::NotAStore {
                    path: path.clone(),
                    reason: "it is empty".to_owned(),
                });
            }
            found if found < SCHEMA_VERSION => {
                return Err(StoreError::Older {
                    path: path.clone(),
                    found,
                    current: SCHEMA_VERSION,
                });
            }
            _ => {}
        }
        if let Some(acknowledged) = acknowledged {
            let at = epoch(&connection).map_err(|error| open_error(path, error))?;
            acknowledged.check(path, at)?;
        }
        Ok(Opened {
            connection,
            lock: None,
        })
    }

    /// Opens one more connection to a store that is open; `None` if there can be only one.
    pub(crate) fn open_reader(&self) -> Result<Option<Connection>, StoreError> {
        match self {
            Self::Memory => Ok(None),
            Self::File(path) => {
                let reader = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                reader.pragma_update(None, "cache_size", CACHE)?;
                Ok(Some(reader))
            }
        }
    }

    /// Returns where files go that do not outlive the store.
    pub(crate) fn directory(&self) -> PathBuf {
        let beside = match self {
            Self::Memory => None,
            Self::File(path) => path.parent().map(Path::to_owned),
        };
        beside.unwrap_or_else(std::env::temp_dir)
    }
}

/// Returns how many write transactions the store has seen.
pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<Acknowledged> {
    connection.query_row(
        "SELECT (SELECT value FROM px_meta WHERE key = 'lineage'),
                (SELECT value FROM px_meta WHERE key = 'epoch')",
        [],
        |row| {
            Ok(Acknowledged {
                lineage: row.get(0)?,
                epoch: row.get(1)?,
            })
        },
    )
}

fn open_file(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    set_up(&mut connection)?;
    Ok(connection)
}

/// Tells whether a file is there.
pub(super) fn check_path(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(StoreError::IsDirectory {
            path: path.to_owned(),
        }),
        Ok(metadata) if !metadata.is_file() => Err(StoreError::NotAStore {
            path: path.to_owned(),
            reason: "it is not a regular file".to_owned(),
        }),
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            match path.parent() {
                Some(parent) if !parent.is_dir() => Err(StoreError::NoDirectory {
                    path: parent.to_owned(),
                }),
                _ => Ok(false),
            }
        }
        Err(error) => Err(io_error(path, error)),
    }
}

/// Whether whoever created the file was cut off, and left a journal that only a writer can roll
/// back: what the file is shows then.
fn needs_rollback(connection: &Connection) -> bool {
    let read = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let error = read.err();
    let error = error.as_ref().and_then(rusqlite::Error::sqlite_error);
    error.is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
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

/// Sets what each connection is to do with statements.
fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // One plan for all values. Else statements that are kept are prepared again for others.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    query::set_up(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sqlite::testing::{commit, hosts};

    fn location(path: &Path) -> Location {
        Location::parse("", path.to_str().unwrap()).unwrap()
    }

    /// SQLite follows links, and the lock once did not: a store of two names had two writers.
    #[test]
    fn store_has_one_lock_by_whatever_name() {
        let names = ["data/parallax.db", "etc/parallax.db", "link.db", "chain.db"];
        for first in names {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            fs::create_dir(at("data")).unwrap();
            symlink("data", at("etc")).unwrap();
            symlink("etc/../data/parallax.db", at("link.db")).unwrap();
            symlink(at("link.db"), at("chain.db")).unwrap();
            // Not there yet: whoever opens a link makes what it leads to.
            let _store = location(&at(first)).open().unwrap();
            for other in names {
                let error = location(&at(other)).open().err();
                let Some(StoreError::Locked { path, .. }) = error else {
                    panic!("{first} and {other}: {error:?}")
                };
                assert_eq!(path, at(other));
            }
            assert!(at("data/parallax.db.lock").exists());
        }
    }

    #[test]
    fn links_in_a_circle_are_no_store() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        symlink("other.db", &path).unwrap();
        symlink("parallax.db", directory.path().join("other.db")).unwrap();
        let error = location(&path).open().err().unwrap();
        assert_eq!(error.code(), "store_failed", "{error}");
    }

    /// The next commit once cut it off, and took a quarter of a second longer after a large one.
    #[test]
    fn long_log_is_cut_off_when_nobody_reads_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let store = location(&path).open().unwrap();
        let log = directory.path().join("parallax.db-wal");
        let size = || fs::metadata(&log).unwrap().len();
        let long = "CREATE TABLE long AS SELECT zeroblob(70000000) AS zeros";
        store.connection.execute_batch(long).unwrap();
        let reader = location(&path).open_reader().unwrap().unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM long")
            .unwrap();
        store.checkpoint();
        assert!(size() > 70_000_000);

        drop(reader);
        store.checkpoint();
        assert_eq!(size(), 0);
        store.connection.execute_batch("DROP TABLE long").unwrap();
        assert!(size() > 0);
    }

    /// Whoever refused a store that had lost commits was the last to close it. So what was left of
    /// its log went into the file, though the error says that nothing was changed.
    #[test]
    fn store_that_has_lost_commits_is_left_as_it_is() {
        for version in [SCHEMA_VERSION, SCHEMA_VERSION - 1] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("parallax.db");
            let mut store = location(&path).open().unwrap();
            commit(&mut store, 1, [hosts("hosts", [(1, 1)])]);
            let older = format!("PRAGMA user_version = {version}");
            store.connection.execute_batch(&older).unwrap();
            store.checkpoint();
            commit(&mut store, 2, [hosts("hosts", [(1, 2)])]);
            commit(&mut store, 3, [hosts("hosts", [(1, 3)])]);

            // What a killed process leaves, on a disk that has changed a byte of it.
            let other = tempfile::tempdir().unwrap();
            let damaged = other.path().join("parallax.db");
            let read = |path: &Path, suffix| {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                fs::read(name).unwrap()
            };
            for suffix in ["", "-wal", ".lock"] {
                let mut name = damaged.as_os_str().to_owned();
                name.push(suffix);
                let mut bytes = read(&path, suffix);
                if suffix == "-wal" {
                    bytes[100] ^= 1;
                }
                fs::write(name, bytes).unwrap();
            }
            drop(store);

            let files = || ["", "-wal"].map(|suffix| read(&damaged, suffix));
            let before = files();
            let error = location(&damaged).open().err().unwrap();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            assert!(files() == before, "version {version}");
        }
    }
}

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use rusqlite::{Connection, OpenFlags};

use crate::backup::Backup;
use crate::error::StoreError;
use crate::sqlite::error::{io_error, open_error};
use crate::sqlite::open::{Location, check_path};

/// How many of the engine's instructions lie between two looks at whether a copy is still wanted.
const STRIDE: i32 = 1_000;

/// Copies the store into a new file, until nobody holds what `wanted` points to.
///
/// The copy is made beside its place and moved there when it is whole and on disk.
pub(super) fn backup(
    connection: &mut Connection,
    path: &Path,
    wanted: &Weak<()>,
) -> Result<Backup, StoreError> {
    let path = std::path::absolute(path).map_err(|error| io_error(path, error))?;
    check_free(&path)?;
    let suffix: String =
        connection.query_row("SELECT lower(hex(randomblob(4)))", [], |row| row.get(0))?;
    let partial = Partial::create(&path, &suffix)?;

    let watch = wanted.clone();
    connection.progress_handler(STRIDE, Some(move || watch.strong_count() == 0))?;
    let copied = connection.execute("VACUUM INTO ?1", [partial.as_text()?]);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    copied.map_err(|error| open_error(&path, error))?;

    begin_lineage(&partial.0).map_err(|error| open_error(&path, error))?;
    // As whoever needs it will open it one day.
    let opened = Location::File(partial.0.clone()).open_read_only()?;
    let (sources, entities, relationships) = opened.connection.query_row(
        "SELECT count(*), coalesce(sum(entities), 0), coalesce(sum(relationships), 0)
         FROM px_source",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    drop(opened);
    if wanted.strong_count() == 0 {
        return Err(StoreError::Engine {
            details: "nobody waits for the backup".to_owned(),
        });
    }
    let bytes = partial.publish(&path)?;
    Ok(Backup {
        path,
        bytes,
        sources,
        entities,
        relationships,
    })
}

/// Makes the copy a store that goes its own way: what is committed to it is not what the lock file
/// of the first one counts. A copy of an older version gets its lineage when it is brought forward.
fn begin_lineage(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Nobody needs a copy that was cut short, so it needs no journal on disk.
    connection.execute_batch(
        "PRAGMA journal_mode = MEMORY;
         BEGIN;
         UPDATE px_meta SET value = 0 WHERE key = 'epoch';
         UPDATE px_meta SET value = randomblob(16) WHERE key = 'lineage';
         COMMIT;",
    )?;
    connection.close().map_err(|(_, error)| error)
}

/// Fails if something is at a path, or beside it what SQLite would take for the log of what is put
/// there.
fn check_free(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        if check_path(&path)? {
            return Err(StoreError::Exists { path });
        }
    }
    Ok(())
}

/// A copy that is not whole yet; removed when it is dropped.
struct Partial(PathBuf);

impl Partial {
    /// Makes an empty file beside the copy's place, before the engine does: its would be readable
    /// for everyone.
    fn create(path: &Path, suffix: &str) -> Result<Self, StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{suffix}.partial"));
        let partial = Self(name.into());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial.0)
            .map_err(|error| io_error(path, error))?;
        Ok(partial)
    }

    fn as_text(&self) -> Result<&str, StoreError> {
        self.0.to_str().ok_or_else(|| StoreError::Engine {
            details: format!("{}: the path is not UTF-8", self.0.display()),
        })
    }

    /// Moves the copy to its place, once it is on disk. Returns its size.
    fn publish(self, path: &Path) -> Result<u64, StoreError> {
        let failed = |error| io_error(path, error);
        let file = File::open(&self.0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        match fs::hard_link(&self.0, path) {
            Ok(()) => {}
            // Someone was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Exists {
                    path: path.to_owned(),
                });
            }
            // A file system without links. A rename would replace what is there.
            Err(_) => {
                check_free(path)?;
                fs::rename(&self.0, path).map_err(failed)?;
            }
        }
        drop(self);
        let directory = path.parent().unwrap_or(Path::new("/"));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        Ok(bytes)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename it is not there.
        fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sqlite::testing::{column, commit, hosts};

    #[test]
    fn copy_that_nobody_waits_for_is_stopped_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backup.db");
        let mut opened = Location::Memory.open().unwrap();
        opened
            .connection
            .execute_batch(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 5000)
                 INSERT INTO px_name (name) SELECT 'name ' || n FROM n",
            )
            .unwrap();
        let error = backup(&mut opened.connection, &path, &Weak::new()).unwrap_err();
        assert_eq!(error.to_string(), "the store failed: interrupted");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        // And the connection is as it was.
        let wanted = Arc::new(());
        backup(&mut opened.connection, &path, &Arc::downgrade(&wanted)).unwrap();
    }

    /// SQLite takes a log for that of the file beside it, whosever it was: a backup once came out as
    /// the store that had been at its place before.
    #[test]
    fn copy_is_not_made_beside_a_log_that_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backup.db");
        let log = directory.path().join("backup.db-wal");
        let mut former = Location::File(path.clone()).open().unwrap();
        commit(&mut former, 1, [hosts("hosts", [(1, 1), (2, 1)])]);
        let left = fs::read(&log).unwrap();
        drop(former);
        fs::remove_file(&path).unwrap();
        fs::write(&log, left).unwrap();

        let mut opened = Location::Memory.open().unwrap();
        commit(&mut opened, 1, [hosts("hosts", [(3, 1)])]);
        let wanted = Arc::new(());
        let error = match backup(&mut opened.connection, &path, &Arc::downgrade(&wanted)) {
            Ok(_) => {
                let copy = Location::File(path).open().unwrap();
                panic!(
                    "{:?}",
                    column(&copy.connection, "SELECT key FROM px_entity")
                )
            }
            Err(error) => error,
        };
        assert_eq!(error.code(), "store_exists");
        assert!(error.to_string().contains("backup.db-wal"), "{error}");

        fs::rename(&log, directory.path().join("backup.db-journal")).unwrap();
        let error = backup(&mut opened.connection, &path, &Arc::downgrade(&wanted)).unwrap_err();
        assert!(error.to_string().contains("backup.db-journal"), "{error}");
    }
}

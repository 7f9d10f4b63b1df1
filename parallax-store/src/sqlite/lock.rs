use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::sqlite::error::io_error;

/// The writer's lock: a file beside the store, because closing any handle of the store's own file
/// would drop the locks that SQLite holds on it.
///
/// Its lines are the writer's pid, the store's URL, and the last acknowledged commit.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    /// Where the epoch stands.
    epoch_at: u64,
}

/// A commit that was acknowledged: what a whole store holds at least.
///
/// Kept beside the store, without waiting for the disk: a store whose log was damaged or left
/// behind in a copy looks whole, only older. After a power cut this may be older than the store;
/// newer it cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Which line of epochs it is of.
    pub(super) lineage: [u8; 16],
    pub(super) epoch: u64,
}

impl Acknowledged {
    /// Reads what the lock file of a store says, if it says something.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = File::open(lock_path(path)).ok()?;
        file.take(64 << 10).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        let (lineage, epoch) = text.lines().nth(2)?.split_once(' ')?;
        Some(Self {
            lineage: u128::from_str_radix(lineage, 16).ok()?.to_be_bytes(),
            epoch: epoch.trim_start().parse().ok()?,
        })
    }

    /// Fails if a store that is at `found` has lost commits that were acknowledged.
    pub(super) fn check(self, path: &Path, found: Self) -> Result<(), StoreError> {
        if self.lineage != found.lineage || self.epoch <= found.epoch {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            details: format!(
                "{} is at commit {}, and commit {} was acknowledged: its write-ahead log (-wal) is \
                 damaged or missing. If an older copy was put here on purpose, remove {}",
                path.display(),
                found.epoch,
                self.epoch,
                lock_path(path).display()
            ),
        })
    }
}

impl LockFile {
    /// Takes the lock, for as long as the value lives. Returns what was acknowledged before.
    pub(super) fn take(path: &Path) -> Result<(Self, Option<Acknowledged>), StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path(path))
            .map_err(|error| io_error(path, error))?;
        let locked = file.try_lock();
        let mut text = String::new();
        // Whatever is not text says nothing.
        let _ = (&mut file).take(64 << 10).read_to_string(&mut text);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = text.lines().next();
                let pid = pid.filter(|pid| pid.parse::<u32>().is_ok());
                return Err(StoreError::Locked {
                    path: path.to_owned(),
                    pid: pid.unwrap_or("?").to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(path, error)),
        }
        let acknowledged = Acknowledged::parse(&text);
        let lock = Self { file, epoch_at: 0 };
        Ok((lock, acknowledged))
    }

    /// Says who holds the lock, and at which commit the store is.
    pub(super) fn announce(&mut self, path: &Path, at: Option<Acknowledged>) {
        let mut text = format!("{}\nsqlite:{}\n", std::process::id(), path.display());
        if let Some(Acknowledged { lineage, epoch }) = at {
            text.push_str(&format!("{:032x} ", u128::from_be_bytes(lineage)));
            // Within one sector: a power cut could tear it, and it would look like another number.
            while text.len() % SECTOR > SECTOR - EPOCH_DIGITS {
                text.push(' ');
            }
            self.epoch_at = text.len() as u64;
            text.push_str(&digits(epoch));
            text.push('\n');
        }
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
        warn(written);
    }

    /// Notes that a commit is about to be acknowledged.
    pub(super) fn acknowledge(&self, epoch: u64) {
        let digits = digits(epoch);
        warn(self.file.write_all_at(digits.as_bytes(), self.epoch_at));
    }
}

/// What a disk writes whole, at the least.
const SECTOR: usize = 512;
const EPOCH_DIGITS: usize = 20;

fn digits(epoch: u64) -> String {
    format!("{epoch:0EPOCH_DIGITS$}")
}

/// The lock holds whatever its file says.
fn warn(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, "Lock file not written");
    }
}

/// Returns the lock's place: beside the file that a path leads to, as the log is.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = follow_links(path).into_os_string();
    name.push(".lock");
    PathBuf::from(name)
}

/// As many links as the system follows.
const LINKS: usize = 40;

/// Follows links as SQLite does, also to what is not there yet: a store has one lock by whatever name
/// it is opened. What cannot be followed is left to whoever opens it.
fn follow_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if let Ok(file) = path.canonicalize() {
            return file;
        }
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path.pop();
        path.push(target);
    }
    let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
    match directory.zip(path.file_name()) {
        Some((directory, name)) => directory.join(name),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_behind_what_was_acknowledged_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let at = |lineage: u8, epoch| Acknowledged {
            lineage: [lineage; 16],
            epoch,
        };
        let (mut lock, none) = LockFile::take(&path).unwrap();
        assert_eq!(none, None);
        lock.announce(&path, Some(at(7, 41)));
        lock.acknowledge(43);
        drop(lock);

        let known = Acknowledged::read(&path).unwrap();
        assert_eq!(known, at(7, 43));
        assert_eq!(LockFile::take(&path).unwrap().1, Some(known));
        for whole in [at(7, 43), at(7, 44), at(8, 1)] {
            known.check(&path, whole).unwrap();
        }
        let error = known.check(&path, at(7, 42)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("commit 42"), "{error}");
    }

    #[test]
    fn epoch_is_within_a_sector_wherever_the_store_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        for length in 380..520 {
            let named = PathBuf::from("x".repeat(length));
            let at = Acknowledged {
                lineage: [7; 16],
                epoch: 41,
            };
            let (mut lock, _) = LockFile::take(&path).unwrap();
            lock.announce(&named, Some(at));
            let begins = usize::try_from(lock.epoch_at).unwrap();
            assert_eq!(begins / SECTOR, (begins + EPOCH_DIGITS - 1) / SECTOR);
            lock.acknowledge(42);
            drop(lock);
            assert_eq!(Acknowledged::read(&path).unwrap().epoch, 42);
        }
    }

    #[test]
    fn whatever_a_lock_file_holds_is_no_panic() {
        for text in [
            "",
            "1\n",
            "1\nurl\nzz 1\n",
            "1\nurl\n00 x\n",
            "\n\n\n",
            "1\nurl\n00",
        ] {
            assert_eq!(Acknowledged::parse(text), None, "{text:?}");
        }
    }
}

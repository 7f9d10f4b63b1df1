//! P4: on a full disk nothing is committed, nothing is lost, and once there is space the same
//! handle goes on.

use std::fs;
use std::path::Path;
use std::process::Command;

use parallax_store::{CommitError, Store, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{keys, lines, run, script, step};

/// A small disk of its own, unmounted when dropped. `None` where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            _ => {
                eprintln!("skipped: mounting a small tmpfs needs root");
                None
            }
        }
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let path = self.0.path().join("filler");
        let mut size = 1 << 20;
        let mut filler = Vec::new();
        while size >= 512 {
            filler.resize(filler.len() + size, 1);
            if fs::write(&path, &filler).is_err() {
                filler.truncate(filler.len() - size);
                size /= 2;
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[tokio::test]
async fn full_disk_loses_nothing_and_heals_without_a_restart() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let url = format!("sqlite:{}", disk.path().join("parallax.db").display());
    let count = "SELECT count(*) FROM parallax_entity";
    let sync = async |keys_emitted: std::ops::Range<u8>, id: &str| {
        run(&script([step("users", keys(keys_emitted))]), "1", id).await
    };
    let mut store = Store::open(&url).await.unwrap();
    store.commit_sync(&sync(0..100, "s-0").await).await.unwrap();

    let mut refusals = 0;
    for round in 1..=5 {
        disk.fill();
        let output = sync(50..150, &format!("s-{round}")).await;
        let mut refused = 0;
        // A commit may still fit into space that the log has already.
        while let Err(error) = store.commit_sync(&output).await {
            assert!(
                matches!(error, CommitError::Store(StoreError::Full { .. })),
                "{error}"
            );
            assert_eq!(lines(&store, count).await, ["100"]);
            refused += 1;
            if refused == 2 {
                disk.free();
            }
        }
        if refused < 2 {
            disk.free();
        }
        refusals += refused;
        assert_eq!(lines(&store, count).await, ["100"]);
        store
            .commit_sync(&sync(0..100, &format!("back-{round}")).await)
            .await
            .unwrap();

        // A new process on a full disk gets the same error, or can work.
        drop(store);
        disk.fill();
        if let Err(error) = Store::open(&url).await {
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
        }
        disk.free();
        store = Store::open(&url).await.unwrap();
        assert_eq!(lines(&store, count).await, ["100"]);
    }
    assert!(refusals > 0, "the disk was never full");
}

/// Lets no file of this process be written beyond so many bytes.
fn limit_files(bytes: Option<u64>) {
    let limit = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: bytes.or(limit.maximum),
        ..limit
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// Names the store to the child process; without it, [`limited`] is an empty test.
const STORE: &str = "PARALLAX_TEST_LIMITED_STORE";

/// Commits within a limit of file sizes, and beyond it.
#[tokio::test]
async fn limited() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let count = "SELECT count(*) FROM parallax_entity";
    let mut store = Store::open(&url).await.unwrap();
    for round in 0..5_u8 {
        let output = async |keys_emitted, what| {
            let script = script([step("users", keys(keys_emitted))]);
            run(&script, "1", &format!("{what}-{round}")).await
        };
        store
            .commit_sync(&output(0..100, "whole").await)
            .await
            .unwrap();
        let beyond = output(50..150, "beyond").await;
        // The log is longer than that as soon as something is committed.
        limit_files(Some(16 << 10));
        for _ in 0..2 {
            let error = store.commit_sync(&beyond).await.unwrap_err();
            let is_typed = matches!(
                &error,
                CommitError::Store(StoreError::Full { .. } | StoreError::Engine { .. })
            );
            assert!(is_typed, "{error}");
            assert_eq!(lines(&store, count).await, ["100"]);
        }
        limit_files(None);
        let result = store.commit_sync(&beyond).await.unwrap();
        assert_eq!(result.stats.entities_created, 50);
        drop(store);
        store = Store::open(&url).await.unwrap();
        assert_eq!(lines(&store, count).await, ["100"]);
    }
    println!("went on");
}

/// What anybody can do to whom no disk can be given: of a whole process, and so in a child.
#[test]
fn limit_of_file_sizes_loses_nothing_and_is_lifted_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("parallax.db").display());
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk_full::limited", "--nocapture"])
        .env(STORE, url)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("went on"),
        "{output:?}"
    );
}

#[tokio::test]
async fn backup_that_does_not_fit_leaves_nothing() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("parallax.db").display());
    let store = Store::open(&url).await.unwrap();
    let output = run(&script([step("users", keys(0..100))]), "1", "s-1").await;
    store.commit_sync(&output).await.unwrap();

    disk.fill();
    let copy = disk.path().join("backup.db");
    let error = store.backup(&copy).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let left: Vec<_> = fs::read_dir(disk.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    disk.free();
    store.backup(&copy).await.unwrap();
}

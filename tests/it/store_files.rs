//! P11 and bad input: a store that cannot be used says why, and is left as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use parallax_store::{Store, StoreError};

use crate::support::{keys, run, script, step};

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

async fn code(url: &str) -> &'static str {
    Store::open(url).await.unwrap_err().code()
}

#[tokio::test]
async fn what_is_no_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    assert_eq!(code("parallax.db").await, "store_invalid_url");
    assert_eq!(code("sqlite:").await, "store_invalid_url");
    assert_eq!(code("postgres://localhost/x").await, "store_invalid_url");
    assert_eq!(code(&url(directory.path())).await, "store_is_directory");
    assert_eq!(
        code(&url(&directory.path().join("no/where.db"))).await,
        "store_no_directory"
    );
    assert_eq!(code("sqlite:/dev/null").await, "not_a_store");

    fs::write(
        &path,
        "not a database, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(code(&url(&path)).await, "not_a_store");
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 7")
        .unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    assert_eq!(code(&url(&path)).await, "not_a_store");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "no lock is left beside it"
    );
}

#[tokio::test]
async fn reading_creates_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let error = Store::open_read_only(&url(&path)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn newer_store_is_refused_with_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    drop(Store::open(&url(&path)).await.unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    for error in [
        Store::open(&url(&path)).await.unwrap_err(),
        Store::open_read_only(&url(&path)).await.unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(
            message.contains("version 99") && message.contains("version 5"),
            "{message}"
        );
    }
}

/// A power cut in the first moments of a store left a journal beside it, which only a writer can
/// roll back. The store looked at the file as a reader first, took that for a missing permission,
/// and could never be opened again.
#[tokio::test]
async fn store_whose_creation_was_cut_off_is_created_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    drop(Store::open(&url(&path)).await.unwrap());
    // The header of a journal: no records, and that the file was empty before.
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for word in [0u32, 1, 0, 512, 8192] {
        journal.extend(word.to_be_bytes());
    }
    journal.resize(512, 0);
    fs::write(directory.path().join("parallax.db-journal"), &journal).unwrap();

    let store = Store::open(&url(&path)).await.unwrap();
    let output = run(&script([step("users", keys([1]))]), "1", "s-1").await;
    store.commit_sync(&output).await.unwrap();
}

#[tokio::test]
async fn second_writer_is_refused_and_readers_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let store = Store::open(&url(&path)).await.unwrap();
    let error = Store::open(&url(&path)).await.unwrap_err();
    let StoreError::Locked { pid, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*pid, std::process::id().to_string());

    let reader = Store::open_read_only(&url(&path)).await.unwrap();
    let output = run(&script([step("users", keys([1]))]), "1", "s-1").await;
    store.commit_sync(&output).await.unwrap();
    assert_eq!(
        reader
            .query("SELECT key FROM parallax_entity")
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
    drop(store);
    Store::open(&url(&path)).await.unwrap();
}

#[tokio::test]
async fn store_is_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let store = Store::open(&url(&path)).await.unwrap();
    let output = run(&script([step("users", keys([1]))]), "1", "s-1").await;
    store.commit_sync(&output).await.unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[tokio::test]
async fn damaged_store_is_an_error_or_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let output = run(&script([step("users", keys(0..100))]), "1", "s-1").await;
    Store::open(&url(&path))
        .await
        .unwrap()
        .commit_sync(&output)
        .await
        .unwrap();
    let whole = fs::read(&path).unwrap();
    let next = run(&script([step("users", keys(0..100))]), "1", "s-2").await;
    for place in (0..whole.len()).step_by(511) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        if let Ok(store) = Store::open(&url(&path)).await {
            // Whatever it says, it says so without a panic.
            if let Ok(result) = store.commit_sync(&next).await {
                assert_eq!(result.stats.entities_deleted, 0, "byte {place}");
            }
        }
    }
    for length in (0..whole.len()).step_by(whole.len() / 40) {
        fs::write(&path, &whole[..length]).unwrap();
        if let Ok(store) = Store::open(&url(&path)).await {
            store.commit_sync(&next).await.ok();
        }
    }
}

#[tokio::test]
async fn store_that_has_lost_commits_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let older = directory.path().join("older.db");
    for (sync_id, count) in [("s-1", 3), ("s-2", 5)] {
        let store = Store::open(&url(&path)).await.unwrap();
        let output = run(&script([step("users", keys(0..count))]), "1", sync_id).await;
        store.commit_sync(&output).await.unwrap();
        drop(store);
        if sync_id == "s-1" {
            fs::copy(&path, &older).unwrap();
        }
    }
    // What it looks like when the log that held the second commit is gone.
    fs::copy(&older, &path).unwrap();
    for error in [
        Store::open(&url(&path)).await.unwrap_err(),
        Store::open_read_only(&url(&path)).await.unwrap_err(),
    ] {
        let StoreError::Corrupt { details } = &error else {
            panic!("{error}")
        };
        assert!(
            details.contains("is at commit 1, and commit 2 was acknowledged"),
            "{details}"
        );
    }
    // Whoever means it can say so, as the message tells.
    fs::remove_file(directory.path().join("parallax.db.lock")).unwrap();
    let store = Store::open(&url(&path)).await.unwrap();
    let count = "SELECT count(*) FROM parallax_entity";
    assert_eq!(crate::support::lines(&store, count).await, ["3"]);
}

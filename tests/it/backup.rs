//! A backup is a whole store, or there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use parallax_store::Store;
use parallax_tests::Rec;

use crate::support::{keys, lines, run, script, step, things};

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn backup_of_a_store_that_is_written_to_is_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (
        directory.path().join("parallax.db"),
        directory.path().join("backup.db"),
    );
    let store = Store::open(&url(&path)).await.unwrap();
    let link = Rec::Link {
        from: 1,
        to: 2,
        value: 0,
    };
    let output = run(
        &script([step("a", [keys([1, 2]), vec![link]].concat())]),
        "1",
        "s-1",
    )
    .await;
    store.commit_sync(&output).await.unwrap();

    let reader = Store::open_read_only(&url(&path)).await.unwrap();
    let backup = reader.backup(&copy).await.unwrap();
    assert_eq!(backup.path, copy);
    assert_eq!(backup.bytes, fs::metadata(&copy).unwrap().len());
    assert_eq!(
        (backup.sources, backup.entities, backup.relationships),
        (1, 2, 1)
    );
    assert_eq!(
        names(directory.path()),
        [
            "backup.db",
            "parallax.db",
            "parallax.db-shm",
            "parallax.db-wal",
            "parallax.db.lock"
        ]
    );
    let mode = fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // It goes its own way: neither store knows of what is committed to the other.
    let other = Store::open(&url(&copy)).await.unwrap();
    assert!(other.verify().await.unwrap().is_sound());
    let result = other.commit_sync(&output).await.unwrap();
    assert!(result.replayed);
    let next = run(&script([step("a", keys([1]))]), "1", "s-2").await;
    let result = other.commit_sync(&next).await.unwrap();
    assert_eq!(result.stats.entities_unchanged, 1);
    assert_eq!(things(&other, "script", "1").await.len(), 1);
    assert_eq!(things(&store, "script", "1").await.len(), 2);
    let (first, second) = (line_of(&path), line_of(&copy));
    assert_ne!(first, second);
}

/// The line of epochs that a store is in.
fn line_of(path: &Path) -> Vec<u8> {
    let file = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT value FROM px_meta WHERE key = 'lineage'";
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn backup_of_a_store_in_memory_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("backup.db");
    let store = crate::support::memory().await;
    let output = run(&script([step("a", keys([1]))]), "1", "s-1").await;
    store.commit_sync(&output).await.unwrap();
    store.backup(&copy).await.unwrap();
    let copy = Store::open_read_only(&url(&copy)).await.unwrap();
    assert_eq!(lines(&copy, "SELECT key FROM parallax_entity").await, ["1"]);
}

#[tokio::test]
async fn backup_that_cannot_be_made_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    drop(Store::open(&url(&path)).await.unwrap());
    let reader = Store::open_read_only(&url(&path)).await.unwrap();
    let other = directory.path().join("other");
    fs::write(&other, "what someone needs").unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("link")).unwrap();
    let before = names(directory.path());

    for (name, code) in [
        ("other", "store_exists"),
        ("parallax.db", "store_exists"),
        ("link", "store_exists"),
        (".", "store_is_directory"),
        ("missing/backup.db", "store_no_directory"),
        ("parallax.db/backup.db", "store_no_directory"),
    ] {
        let error = reader
            .backup(directory.path().join(name))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{name}: {error}");
    }
    assert_eq!(names(directory.path()), before);
    assert_eq!(fs::read(&other).unwrap(), b"what someone needs");
}

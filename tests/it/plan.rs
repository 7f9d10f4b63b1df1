//! P9: a plan is the commit's own delta and writes nothing. (`books` holds plan = commit over
//! random histories.)

use std::fs;

use parallax_store::{Store, StoreError};

use crate::support::{keys, run, script, step, words};

#[tokio::test]
async fn plan_leaves_the_file_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let url = format!("sqlite:{}", path.display());
    let output = run(&script([step("users", keys(0..5))]), "1", "s-1").await;
    Store::open(&url)
        .await
        .unwrap()
        .commit_sync(&output)
        .await
        .unwrap();
    let before = fs::read(&path).unwrap();

    let store = Store::open_read_only(&url).await.unwrap();
    let next = run(&script([step("users", keys(3..9))]), "1", "s-2").await;
    let plan = store.plan_sync(&next).await.unwrap();
    assert_eq!(words(&plan), "entity: 4 created, 2 unchanged, 3 deleted");
    let refused = store.commit_sync(&next).await.unwrap_err();
    assert_eq!(refused.code(), StoreError::ReadOnly.code());
    drop(store);

    assert_eq!(fs::read(&path).unwrap(), before);
    let store = Store::open(&url).await.unwrap();
    assert_eq!(store.commit_sync(&next).await.unwrap(), plan);
}

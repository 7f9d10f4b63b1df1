//! A store of an older version is brought forward with all that is in it.

use std::path::Path;

use parallax_store::{JournalName, Store, StoreError};
use parallax_tests::Rec;

use crate::support::{fresh_sync_id, keys, lines, run, scope, script, step, words};

/// Loads a stored store into a file.
fn load(path: &Path, sql: &str) {
    let file = rusqlite::Connection::open(path).unwrap();
    file.execute_batch(sql).unwrap();
}

const V1: &str = include_str!("../../parallax-store/src/sqlite/testdata/store_v1.sql");
const V2: &str = include_str!("../../parallax-store/src/sqlite/testdata/store_v2.sql");
const V3: &str = include_str!("../../parallax-store/src/sqlite/testdata/store_v3.sql");
const V4: &str = include_str!("../../parallax-store/src/sqlite/testdata/store_v4.sql");

#[tokio::test]
async fn store_of_version_1_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let url = format!("sqlite:{}", path.display());
    load(&path, V1);

    // Reading brings nothing forward.
    let error = Store::open_read_only(&url).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Older {
                found: 1,
                current: 5,
                ..
            }
        ),
        "{error}"
    );

    let store = Store::open(&url).await.unwrap();
    let verification = store.verify().await.unwrap();
    assert_eq!(verification.problems, []);
    let entities = lines(
        &store,
        "SELECT account_id, key, properties, claims, created_sync_id, changed_sync_id,
                 held_changeset
             FROM parallax_entity ORDER BY account_id, key + 0",
    );
    let entities = entities.await.join("\n");
    let others = lines(
        &store,
        "SELECT 'source', account_id, entities, relationships, syncs, last_sync_id,
                 last_outcome FROM parallax_source
             UNION ALL SELECT 'relationship', account_id, verb, properties, claims,
                 created_sync_id, held_changeset FROM parallax_relationship
             UNION ALL SELECT 'sync', account_id, sync_id, outcome, entities_created,
                 entities_deleted, entities_kept FROM parallax_sync
             UNION ALL SELECT 'step', account_id, sync_id, step_id, status, entities, reason
                 FROM parallax_sync_step
             UNION ALL SELECT 'change', account_id, sync_id, action, type, key, changeset
                 FROM parallax_change",
    );
    let others = others.await.join("\n");
    insta::assert_snapshot!(entities, @r#"
    1 0 {"value":1} [["users",null]] sync-1 sync-2 -
    1 1 {"value":0} [["groups",null],["users",null]] sync-1 sync-1 -
    1 2 {"value":0} [["users",null]] sync-1 sync-1 -
    1 3 {"value":0} [["users",null]] sync-1 sync-1 -
    1 4 {"value":0} [["users",null]] sync-1 sync-1 -
    1 10 {"value":0} [["hosts","eu"]] sync-1 sync-1 -
    1 12 {"value":0} [["hosts","us"]] sync-1 sync-1 -
    1 20 {"value":0} [["groups",null]] sync-1 sync-1 -
    2 0 {"value":0} [["users",null]] sync-1 sync-1 -
    2 1 {"value":0} [["users",null]] sync-1 sync-1 -
    "#);
    insta::assert_snapshot!(others, @r#"
    source 1 8 1 2 sync-2 partial
    source 2 2 0 1 sync-1 committed
    relationship 1 KNOWS {"value":0} [["users",null]] sync-1 -
    sync 1 sync-1 committed 10 0 0
    sync 2 sync-1 committed 2 0 0
    sync 1 sync-2 partial 0 2 2
    step 1 sync-1 users completed 6 -
    step 1 sync-1 hosts completed 3 -
    step 1 sync-1 groups completed 2 -
    step 2 sync-1 users completed 2 -
    step 1 sync-2 users completed 5 -
    step 1 sync-2 hosts incomplete 1 us: was not completed
    step 1 sync-2 groups failed 0 told to
    change 1 sync-2 deleted KNOWS - -
    change 1 sync-2 deleted KNOWS - -
    change 1 sync-2 deleted thing 11 -
    change 1 sync-2 deleted thing 5 -
    change 1 sync-2 updated thing 0 -
    "#);
    next_sync_changes_nothing(&store).await;
    let verification = store.verify().await.unwrap();
    assert_eq!(verification.problems, []);
}

/// Account 1 has what these steps emitted: things 0 to 4 by one, two by scopes, and two by a step
/// that failed last, of which one was emitted by the first, too.
async fn next_sync_changes_nothing(store: &Store) {
    let users = [
        vec![Rec::Entity { key: 0, value: 1 }],
        keys(1..5),
        vec![Rec::Link {
            from: 0,
            to: 1,
            value: 0,
        }],
    ];
    let mut hosts = step("hosts", []);
    hosts.parts = vec![scope("eu", true, keys([10])), scope("us", true, keys([12]))];
    hosts.all_scopes_listed = true;
    let steps = [
        step("users", users.concat()),
        hosts,
        step("groups", keys([1, 20])),
    ];
    let output = run(&script(steps), "1", &fresh_sync_id()).await;
    let result = store.commit_sync(&output).await.unwrap();
    assert_eq!(
        words(&result),
        "entity: 8 unchanged, 1 duplicates; relationship: 1 unchanged"
    );
}

#[tokio::test]
async fn store_of_version_2_keeps_its_held_deletes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    load(&path, V2);
    let store = Store::open(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    assert_eq!(store.verify().await.unwrap().problems, []);
    let open = "SELECT changeset, state, entities, relationships FROM parallax_changeset";
    assert_eq!(lines(&store, open).await, ["1 open 9 0"]);
    let link = Rec::Link {
        from: 0,
        to: 1,
        value: 0,
    };
    let changed = Rec::Entity { key: 0, value: 1 };
    let users = [vec![changed, link], keys(1..3)].concat();
    let output = run(&script([step("users", users)]), "1", &fresh_sync_id()).await;
    let result = store.commit_sync(&output).await.unwrap();
    assert_eq!(
        words(&result),
        "entity: 3 unchanged, 9 held; relationship: 1 unchanged"
    );
    let approved = store.approve(1).await.unwrap();
    assert_eq!(approved.entities, 9);
    // Of the sync that held them no journal was kept.
    let journals = store.journals("", 10).await.unwrap();
    assert_eq!(journals.len(), 1);
    assert_eq!(store.verify().await.unwrap().problems, []);
}

#[tokio::test]
async fn store_of_version_3_keeps_its_syncs_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    load(&path, V3);
    let store = Store::open(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    assert_eq!(store.verify().await.unwrap().problems, []);
    let syncs = "SELECT number, sync_id, outcome, entities_created FROM parallax_sync
         ORDER BY number";
    let found = [
        lines(&store, syncs).await,
        lines(
            &store,
            "SELECT account_id, entities, relationships, relationships_waiting, entities_kept,
                 syncs, last_sync_id FROM parallax_source",
        )
        .await,
    ];
    insta::assert_snapshot!(found.concat().join("\n"), @r"
    1 01a20602-e374-7785-b999-b5ad3f761d21 committed 37
    2 01a20602-e3d0-72fd-a42f-737747fe3afc committed 0
    acme 37 22 2 0 2 01a20602-e3d0-72fd-a42f-737747fe3afc
    ");
    let name = JournalName {
        connector_id: "moody".to_owned(),
        account_id: "acme".to_owned(),
        sync_id: "01a20602-e374-7785-b999-b5ad3f761d21".to_owned(),
    };
    let journal = store.journal(&name, 1).await.unwrap();
    assert!(journal.lines.last().unwrap().contains("committed"));
    let found = store.journals("01a20602-e374", 10).await.unwrap();
    assert_eq!(found, [name]);
}

#[tokio::test]
async fn store_of_version_4_keeps_its_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    load(&path, V4);
    let store = Store::open(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    let history = "SELECT sync_id, action, type, key, properties_before FROM parallax_change";
    insta::assert_snapshot!(lines(&store, history).await.join("\n"), @r#"
    sync-2 deleted KNOWS - {"value":0}
    sync-2 deleted thing 3 {"value":0}
    sync-2 updated thing 0 {"value":0}
    "#);
    let checked = async || {
        let verification = store.verify().await.unwrap();
        assert_eq!(verification.problems, []);
        let mut checks = verification.checks.into_iter();
        let history = checks.find(|check| check.name == "history").unwrap();
        (history.checked, history.without_checksum)
    };
    assert_eq!(checked().await, (3, 3));

    // What becomes history from now on can be compared.
    let records = [
        Rec::Entity { key: 0, value: 2 },
        Rec::Entity { key: 1, value: 0 },
    ];
    let output = run(&script([step("users", records)]), "1", &fresh_sync_id()).await;
    let result = store.commit_sync(&output).await.unwrap();
    assert_eq!(
        words(&result),
        "entity: 1 updated, 1 unchanged, 1 deleted; relationship: 1 deleted"
    );
    assert_eq!(checked().await, (6, 3));
}

//! P4: all of a commit or nothing; the same sync once; an older run never over a newer one.

use std::sync::Arc;

use parallax_store::{CommitError, Store};
use parallax_tests::{End, Model, Rec};

use crate::support::{ending, keys, lines, memory, run, script, step, things, words};

#[tokio::test]
async fn committing_twice_changes_nothing() {
    let store = memory().await;
    let output = run(&script([step("users", keys([1, 2]))]), "1", "s-1").await;
    let first = store.commit_sync(&output).await.unwrap();
    let second = store.commit_sync(&output).await.unwrap();

    assert!(!first.replayed && second.replayed);
    assert_eq!((first.stats, &first.types), (second.stats, &second.types));
    // A run that emits the same is the same sync, too: a retry after a lost answer.
    let again = run(&script([step("users", keys([2, 1]))]), "1", "s-1").await;
    assert!(store.commit_sync(&again).await.unwrap().replayed);
    assert_eq!(
        lines(&store, "SELECT sync_id FROM parallax_sync").await,
        ["s-1"]
    );
}

#[tokio::test]
async fn sync_id_of_another_run_is_refused() {
    let store = memory().await;
    let first = run(&script([step("users", keys([1]))]), "1", "s-1").await;
    store.commit_sync(&first).await.unwrap();
    let others = [
        script([step("users", keys([2]))]),
        script([step("users", [Rec::Entity { key: 1, value: 1 }])]),
        script([step("people", keys([1]))]),
        script([ending(step("users", keys([1])), End::Incomplete)]),
    ];
    for other in others {
        let other = run(&other, "1", "s-1").await;
        let error = store.commit_sync(&other).await.unwrap_err();
        assert!(matches!(error, CommitError::SyncIdReused { .. }), "{error}");
        assert!(store.plan_sync(&other).await.is_err());
    }
    // Emitting nothing is not the same as having failed.
    let nothing = |end| script([step("other", keys([5])), ending(step("users", []), end)]);
    store
        .commit_sync(&run(&nothing(End::Ok), "1", "s-3").await)
        .await
        .unwrap();
    let failed = run(&nothing(End::Error), "1", "s-3").await;
    assert_eq!(
        store.commit_sync(&failed).await.unwrap_err().code(),
        "sync_id_reused"
    );
    // Another account is another source.
    let elsewhere = run(&script([step("users", keys([2]))]), "2", "s-1").await;
    assert!(!store.commit_sync(&elsewhere).await.unwrap().replayed);
}

#[tokio::test]
async fn run_that_started_earlier_never_overwrites_a_later_one() {
    let store = memory().await;
    let earlier = run(&script([step("users", keys([1]))]), "1", "s-1").await;
    let later = run(&script([step("users", keys([1, 2]))]), "1", "s-2").await;
    store.commit_sync(&later).await.unwrap();
    let error = store.commit_sync(&earlier).await.unwrap_err();
    assert!(matches!(error, CommitError::Superseded { .. }), "{error}");
    assert_eq!(
        lines(&store, "SELECT count(*) FROM parallax_entity").await,
        ["2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_commits_leave_exactly_one_of_them() {
    for _ in 0..50 {
        let store = Arc::new(memory().await);
        let left = run(&script([step("users", keys(0..40))]), "1", "left").await;
        let right = run(&script([step("users", keys(20..60))]), "1", "right").await;
        let commit = |output| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit_sync(&output).await })
        };
        let (a, b) = tokio::join!(commit(left), commit(right));
        let (a, b) = (a.unwrap(), b.unwrap());
        // The right run started later: it always counts.
        assert!(b.is_ok());
        let key = "SELECT min(CAST(key AS INTEGER)), max(CAST(key AS INTEGER)), count(*)
                   FROM parallax_entity";
        assert_eq!(lines(&store, key).await, ["20 59 40"]);
        if let Ok(a) = a {
            assert_eq!(words(&a), "entity: 40 created");
        }
    }
}

/// Those that count are those that no later run came before, and the store is as if they had been
/// committed one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_commits_equal_one_serial_order_in_which_no_older_run_wins() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0u8..35 {
        let url = format!("sqlite:{}/{round}.db", directory.path().display());
        let store = Arc::new(Store::open(&url).await.unwrap());
        let mut scripts = Vec::new();
        let mut commits = Vec::new();
        for racer in 0..2 + round % 7 {
            let first = racer * 7 + round % 5;
            let records = (first..first + 30).map(|key| Rec::Entity { key, value: racer });
            let script = script([step("users", records)]);
            let output = run(&script, "1", &format!("racer-{racer}")).await;
            let store = Arc::clone(&store);
            scripts.push(script);
            commits.push((store, output));
        }
        // Every other time the last to run is the first to commit.
        if round % 2 == 1 {
            commits.reverse();
        }
        let commits = commits.into_iter().map(|(store, output)| {
            tokio::task::spawn(async move {
                let sync_id = output.run().sync_id.clone();
                (sync_id, store.commit_sync(&output).await)
            })
        });
        let mut results = std::collections::BTreeMap::new();
        for commit in commits.collect::<Vec<_>>() {
            let (sync_id, result) = commit.await.unwrap();
            results.insert(sync_id, result);
        }

        // In the order of the runs, which their names have, too.
        let mut model = Model::new((100, 0.2), 1);
        let last = scripts.len() - 1;
        for (number, (script, result)) in scripts.iter().zip(results.values()).enumerate() {
            match result {
                Ok(result) => {
                    let (stats, _) = model.commit("1", script);
                    assert_eq!(result.stats, stats, "racer {number} of round {round}");
                }
                Err(CommitError::Superseded { .. }) if number < last => {}
                Err(error) => panic!("racer {number} of round {round}: {error}"),
            }
        }
        let stored = model.shown("script", "1");
        let expected = stored.keys().map(|(key, _)| key.to_string()).collect();
        assert_eq!(things(&store, "script", "1").await, expected);
    }
}

#[tokio::test]
async fn commit_survives_the_handle() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/parallax.db", directory.path().display());
    let output = run(&script([step("users", keys(0..30))]), "1", "s-1").await;
    {
        let mut store = Store::open(&url).await.unwrap();
        assert_eq!(
            words(&store.commit_sync_exclusive(&output).unwrap()),
            "entity: 30 created"
        );
    }
    let store = Store::open(&url).await.unwrap();
    assert_eq!(
        lines(&store, "SELECT count(*) FROM parallax_entity").await,
        ["30"]
    );
    assert!(store.commit_sync(&output).await.unwrap().replayed);
}

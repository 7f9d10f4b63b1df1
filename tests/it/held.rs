//! P2: suspicious deletes are held. Each test is one of the alarms, or one of the ways out.

use parallax_connect::Runner;
use parallax_store::{Action, CommitResult, Guard, Store, StoreError};
use parallax_tests::{End, Rec, Script, ScriptStep};

use crate::support::{
    after, ending, fresh_sync_id, keys, lines, memory, run, script, step, sync, things, words,
};

/// Things that know the next one.
fn ring(keys: std::ops::Range<u8>) -> Vec<Rec> {
    let (first, last) = (keys.start, keys.end - 1);
    let links = keys.clone().map(move |from| Rec::Link {
        from,
        to: if from == last { first } else { from + 1 },
        value: 0,
    });
    let things = keys.map(|key| Rec::Entity { key, value: 0 });
    things.chain(links).collect()
}

async fn open_changesets(store: &Store) -> Vec<String> {
    let open = "SELECT changeset || ': ' || entities || ' + ' || relationships || ', ' || reason
                FROM parallax_changeset WHERE state = 'open' ORDER BY changeset";
    lines(store, open).await
}

#[tokio::test]
async fn many_deletes_are_held_and_the_rest_is_committed() {
    let store = memory().await;
    sync(&store, &script([step("users", keys(0..240))]), "1").await;
    // 101 are gone, and one is new.
    let result = sync(&store, &script([step("users", keys(102..241))]), "1").await;
    assert_eq!(words(&result), "entity: 1 created, 138 unchanged, 102 held");
    assert_eq!(result.outcome.as_str(), "committed");
    assert_eq!(result.held_changeset, Some(1));
    assert_eq!(
        result.held_because.as_deref(),
        Some("102 of 240 entities would go")
    );
    let held = result.changes.iter().filter(|c| c.action == Action::Held);
    assert_eq!(held.clone().count(), CommitResult::CHANGES);
    let reasons: Vec<_> = held.filter_map(|change| change.reason.as_deref()).collect();
    assert_eq!(reasons[0], "looked everywhere and did not find it: users");
    assert_eq!(things(&store, "script", "1").await.len(), 241);
    assert_eq!(
        open_changesets(&store).await,
        ["1: 102 + 0, 102 of 240 entities would go"]
    );

    // They wait: the next sync neither holds them again nor deletes them.
    let again = sync(&store, &script([step("users", keys(102..241))]), "1").await;
    assert_eq!(words(&again), "entity: 139 unchanged, 102 held");
    assert_eq!(again.held_changeset, None);

    let approved = store.approve(1).await.unwrap();
    assert_eq!((approved.entities, approved.repeated), (102, false));
    assert_eq!(things(&store, "script", "1").await.len(), 139);
    let by = "SELECT DISTINCT action || ' ' || changeset || ' ' || sync_id FROM parallax_change";
    assert_eq!(lines(&store, by).await, ["deleted 1 approved:1"]);
    let live = "SELECT entities || ' ' || entities_held FROM parallax_source";
    assert_eq!(lines(&store, live).await, ["139 0"]);
    let after = sync(&store, &script([step("users", keys(102..241))]), "1").await;
    assert_eq!(words(&after), "entity: 139 unchanged");
}

#[tokio::test]
async fn up_to_100_and_up_to_a_fifth_are_no_alarm() {
    let store = memory().await;
    sync(&store, &script([step("users", keys(0..200))]), "1").await;
    // Half of them, and not more than a hundred.
    let result = sync(&store, &script([step("users", keys(100..200))]), "1").await;
    assert_eq!(words(&result), "entity: 100 unchanged, 100 deleted");
}

#[tokio::test]
async fn records_that_come_back_leave_their_changeset() {
    let store = memory().await;
    sync(&store, &script([step("users", keys(0..20))]), "1").await;
    let result = sync(&store, &script([step("users", [])]), "1").await;
    assert_eq!(words(&result), "entity: 20 held");
    let because = result.held_because.unwrap();
    assert_eq!(because, "all 20 of thing would go");

    let some = sync(&store, &script([step("users", keys(0..15))]), "1").await;
    assert_eq!(words(&some), "entity: 15 unchanged, 5 held");
    assert_eq!(
        open_changesets(&store).await,
        ["1: 5 + 0, all 20 of thing would go"]
    );
    sync(&store, &script([step("users", keys(0..20))]), "1").await;
    assert_eq!(open_changesets(&store).await, Vec::<String>::new());
    let error = store.approve(1).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::ChangesetClosed { state, .. } if state == "released"),
        "{error}"
    );
    assert_eq!(things(&store, "script", "1").await.len(), 20);
}

#[tokio::test]
async fn rejected_changeset_is_not_held_again_until_its_records_are_seen() {
    let store = memory().await;
    let full = script([step("users", keys(0..20))]);
    let empty = script([step("users", [])]);
    sync(&store, &full, "1").await;
    sync(&store, &empty, "1").await;
    for repeated in [false, true] {
        let rejected = store.reject(1).await.unwrap();
        assert_eq!((rejected.entities, rejected.repeated), (20, repeated));
    }
    let kept = sync(&store, &empty, "1").await;
    assert_eq!(words(&kept), "entity: 20 kept");
    assert_eq!(kept.held_changeset, None);

    sync(&store, &full, "1").await;
    let held = sync(&store, &empty, "1").await;
    assert_eq!(words(&held), "entity: 20 held");
    assert_eq!(held.held_changeset, Some(2));
}

#[tokio::test]
async fn relationships_that_go_with_an_end_are_no_alarm() {
    let store = memory().await;
    // 30 things in a ring, each knowing the next.
    sync(&store, &script([step("users", ring(0..30))]), "1").await;
    let result = sync(&store, &script([step("users", ring(0..18))]), "1").await;
    assert_eq!(
        words(&result),
        "entity: 18 unchanged, 12 deleted; relationship: 1 created, 17 unchanged, 13 deleted"
    );
    // Both ends stay, and no relationship does.
    let result = sync(&store, &script([step("users", keys(0..18))]), "1").await;
    assert_eq!(
        words(&result),
        "entity: 18 unchanged; relationship: 18 held"
    );
    assert_eq!(
        result.held_because.as_deref(),
        Some("all 18 of KNOWS would go")
    );
}

#[tokio::test]
async fn what_comes_and_goes_is_deleted_while_the_rest_is_held() {
    let store = memory().await;
    let connector = |processes: Vec<Rec>, users: Vec<Rec>| {
        let processes = ScriptStep {
            ephemeral: true,
            ..step("processes", processes)
        };
        script([processes, step("users", users)])
    };
    sync(&store, &connector(keys(0..200), keys(200..230)), "1").await;
    let result = sync(&store, &connector(keys(0..10), keys(200..230)), "1").await;
    assert_eq!(words(&result), "entity: 40 unchanged, 190 deleted");

    sync(&store, &connector(keys(0..200), keys(200..230)), "1").await;
    let without_users = script([ScriptStep {
        ephemeral: true,
        ..step("processes", keys(0..10))
    }]);
    let result = sync(&store, &without_users, "1").await;
    assert_eq!(words(&result), "entity: 10 unchanged, 190 deleted, 30 held");
    assert_eq!(
        result.held_because.as_deref(),
        Some("step users, which found some of them, is no longer declared")
    );
}

#[tokio::test]
async fn changed_connector_deletes_nothing_before_one_complete_sync() {
    let store = memory().await;
    let old = script([step("users", keys(0..20))]);
    sync(&store, &old, "1").await;

    let new = |end, users: Vec<Rec>| script([step("users", users), ending(step("mfa", []), end)]);
    // Its first sync is partial: the change is not settled.
    let result = sync(&store, &new(End::Error, keys(1..20)), "1").await;
    assert_eq!(words(&result), "entity: 19 unchanged, 1 held");
    let result = sync(&store, &new(End::Ok, keys(2..20)), "1").await;
    assert_eq!(words(&result), "entity: 18 unchanged, 2 held");
    let result = sync(&store, &new(End::Ok, keys(3..20)), "1").await;
    assert_eq!(words(&result), "entity: 17 unchanged, 1 deleted, 2 held");
}

#[tokio::test]
async fn guard_that_is_off_holds_nothing() {
    let store = memory().await;
    let commit = async |script: &Script| {
        let output = run(script, "1", &fresh_sync_id()).await;
        let session = store.session().guard(Guard::OFF);
        session.commit(&output).await.unwrap()
    };
    commit(&script([step("users", keys(0..200))])).await;
    let result = commit(&script([step("people", [])])).await;
    assert_eq!(words(&result), "entity: 200 deleted");
}

#[tokio::test]
async fn failed_step_holds_nothing_because_nothing_is_earned() {
    let store = memory().await;
    let users = || step("users", keys(0..200));
    sync(
        &store,
        &script([users(), step("groups", keys(200..220))]),
        "1",
    )
    .await;
    let failed = script([ending(users(), End::Error), after(step("groups", []), &[0])]);
    let result = sync(&store, &failed, "1").await;
    assert_eq!(words(&result), "entity: 220 kept");
}

#[tokio::test]
async fn unknown_changeset_is_an_error() {
    let store = memory().await;
    for changeset in [0, 7, u64::MAX] {
        let error = store.approve(changeset).await.unwrap_err();
        assert!(
            matches!(error, StoreError::NoSuchChangeset { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn approval_between_plan_and_commit_is_seen() {
    let store = memory().await;
    sync(&store, &script([step("users", keys(0..20))]), "1").await;
    sync(&store, &script([step("users", [])]), "1").await;
    // The session is filled before, and committed after the approval.
    let session = store.session();
    let connector = script([step("users", keys(0..3))]);
    let output = Runner::new(&connector)
        .sink(&session)
        .run("1", &fresh_sync_id())
        .await
        .unwrap();
    store.approve(1).await.unwrap();
    let result = session.commit(&output).await.unwrap();
    assert_eq!(words(&result), "entity: 3 created");
}

//! P1: every delete is earned. Each test is an incident that comparable tools have had.

use parallax_tests::{End, Rec, ScriptStep};

use crate::support::{
    after, ending, keys, lines, memory, scope, script, step, sync, sync_selected, things, words,
};

#[tokio::test]
async fn failed_step_costs_no_row() {
    for end in [End::Error, End::Panic, End::Incomplete] {
        let store = memory().await;
        sync(
            &store,
            &script([step("users", keys(0..50)), step("groups", keys(100..110))]),
            "1",
        )
        .await;
        let partial = [
            ending(step("users", keys(0..3)), end),
            step("groups", keys(101..110)),
        ];
        let result = sync(&store, &script(partial), "1").await;

        assert_eq!(result.outcome.as_str(), "partial", "{end:?}");
        assert_eq!(
            result.stats.entities_deleted, 1,
            "{end:?}: the group that is gone"
        );
        assert_eq!(things(&store, "script", "1").await.len(), 59, "{end:?}");
    }
}

#[tokio::test]
async fn step_that_was_not_selected_costs_no_row() {
    let store = memory().await;
    let before = [
        step("users", keys(0..50)),
        after(step("mfa", keys(50..60)), &[0]),
        step("groups", keys(0..5)),
    ];
    sync(&store, &script(before), "1").await;

    let now = script([
        step("users", keys([1])),
        after(step("mfa", []), &[0]),
        step("groups", []),
    ]);
    // What `groups` also found, and what `mfa` alone did, is kept.
    let users = sync_selected(&store, &now, "users").await;
    assert_eq!(users.outcome.as_str(), "partial");
    assert_eq!(words(&users), "entity: 1 unchanged, 45 deleted, 14 kept");
    let sql = "SELECT s.step_id, s.status, s.reason FROM parallax_sync_step s
               JOIN parallax_source o ON o.last_sync_id = s.sync_id ORDER BY s.place";
    assert_eq!(
        lines(&store, sql).await,
        [
            "users completed -",
            "mfa not_selected was not selected",
            "groups not_selected was not selected",
        ]
    );
    let mfa = sync_selected(&store, &now, "mfa").await;
    assert_eq!(words(&mfa), "entity: 1 unchanged, 10 deleted, 4 kept");
    let all = sync(&store, &now, "1").await;
    assert_eq!(words(&all), "entity: 1 unchanged, 4 deleted");
}

#[tokio::test]
async fn step_that_depends_on_a_failed_one_costs_no_row() {
    let store = memory().await;
    let good = [
        step("users", keys([1])),
        after(step("mfa", keys([2])), &[0]),
        step("x", keys([3])),
    ];
    sync(&store, &script(good), "1").await;

    for end in [End::Error, End::Incomplete] {
        let bad = [
            ending(step("users", keys([1])), end),
            after(step("mfa", []), &[0]),
            step("x", []),
        ];
        let result = sync(&store, &script(bad), "1").await;
        let expected = if end == End::Error {
            "entity: 1 deleted, 2 kept"
        } else {
            "entity: 1 unchanged, 1 kept"
        };
        assert_eq!(words(&result), expected);
    }
}

#[tokio::test]
async fn record_of_two_steps_lives_while_one_cannot_look() {
    let store = memory().await;
    sync(
        &store,
        &script([step("a", keys([7])), step("b", keys([7]))]),
        "1",
    )
    .await;

    let b_fails = script([step("a", []), ending(step("b", []), End::Error)]);
    assert_eq!(words(&sync(&store, &b_fails, "1").await), "entity: 1 kept");
    // Both must look in one sync: what `a` did not see an hour ago may be back.
    let a_fails = script([ending(step("a", []), End::Error), step("b", [])]);
    assert_eq!(words(&sync(&store, &a_fails, "1").await), "entity: 1 kept");
    let both = script([step("a", []), step("b", [])]);
    assert_eq!(words(&sync(&store, &both, "1").await), "entity: 1 deleted");
}

#[tokio::test]
async fn scope_that_was_not_listed_keeps_its_records() {
    let store = memory().await;
    let regions = |us_complete, eu: &[u8], us: &[u8]| {
        let mut regions = step("hosts", []);
        regions.parts = vec![
            scope("eu", true, keys(eu.iter().copied())),
            scope("us", us_complete, keys(us.iter().copied())),
        ];
        regions
    };
    sync(&store, &script([regions(true, &[1, 2], &[3, 4])]), "1").await;
    // 403 in one region: the other is still the truth.
    let result = sync(&store, &script([regions(false, &[1], &[])]), "1").await;
    assert_eq!(words(&result), "entity: 1 unchanged, 1 deleted, 2 kept");
    assert_eq!(result.outcome.as_str(), "partial");

    // A region that is not opened is not gone, until the step says that there are no others.
    let mut only_eu = step("hosts", []);
    only_eu.parts = vec![scope("eu", true, keys([1]))];
    assert_eq!(
        words(&sync(&store, &script([only_eu.clone()]), "1").await),
        "entity: 1 unchanged, 2 kept"
    );
    only_eu.all_scopes_listed = true;
    assert_eq!(
        words(&sync(&store, &script([only_eu]), "1").await),
        "entity: 1 unchanged, 2 deleted"
    );
}

#[tokio::test]
async fn rejected_record_keeps_its_stored_row() {
    let store = memory().await;
    sync(&store, &script([step("users", keys([1, 2, 3]))]), "1").await;
    let result = sync(
        &store,
        &script([step("users", [Rec::BadEntity { key: 1 }, keys([2])[0]])]),
        "1",
    )
    .await;
    assert_eq!(
        words(&result),
        "entity: 1 unchanged, 1 deleted, 1 kept, 1 rejected"
    );

    // Nobody knows which record it was: nothing of the step is gone.
    let nameless = script([step("users", [Rec::Nameless])]);
    let result = sync(&store, &nameless, "1").await;
    assert_eq!(words(&result), "entity: 2 kept, 1 rejected");
    assert_eq!(result.outcome.as_str(), "partial");
}

/// A user with a property that is not a number was left out for the steps that read users. They
/// found none of its memberships, and completed: all were deleted, while the user was kept.
#[tokio::test]
async fn rejected_record_costs_nothing_that_is_read_through_it() {
    let store = memory().await;
    let members = |users: Vec<Rec>, found: Vec<Rec>| {
        let members = after(step("members", found), &[0]);
        script([step("users", users), members, step("hosts", keys([9]))])
    };
    let both = || keys([1, 2]);
    let link = |from| Rec::Link {
        from,
        to: 9,
        value: 0,
    };
    sync(&store, &members(both(), vec![link(1), link(2)]), "1").await;

    let bad = vec![Rec::BadEntity { key: 1 }, both()[1]];
    let result = sync(&store, &members(bad, vec![link(2)]), "1").await;
    assert_eq!(
        words(&result),
        "entity: 2 unchanged, 1 kept, 1 rejected; relationship: 1 unchanged, 1 kept"
    );
    // Once it can be read again, what is gone is gone.
    let result = sync(&store, &members(both(), vec![link(2)]), "1").await;
    assert_eq!(
        words(&result),
        "entity: 3 unchanged; relationship: 1 unchanged, 1 deleted"
    );
}

#[tokio::test]
async fn step_that_is_no_longer_declared_costs_no_row() {
    let store = memory().await;
    sync(
        &store,
        &script([step("users", keys([1, 2])), step("groups", keys([9]))]),
        "1",
    )
    .await;

    let renamed = |records: Vec<Rec>| script([step("people", records), step("groups", keys([9]))]);
    let result = sync(&store, &renamed(keys([1])), "1").await;
    assert_eq!(words(&result), "entity: 2 unchanged, 1 held");
    // The renamed step has taken over what it emits, and may give it up.
    let result = sync(&store, &renamed(Vec::new()), "1").await;
    assert_eq!(words(&result), "entity: 1 unchanged, 1 deleted, 1 held");
}

#[tokio::test]
async fn run_without_a_completed_step_writes_no_data() {
    let store = memory().await;
    sync(&store, &script([step("users", keys(0..20))]), "1").await;
    let failed = script([
        ending(step("users", keys(0..3)), End::Error),
        after(step("groups", keys([50])), &[0]),
    ]);
    let result = sync(&store, &failed, "1").await;
    assert_eq!(result.outcome.as_str(), "failed");
    assert_eq!(words(&result), "entity: 20 kept");
    assert_eq!(things(&store, "script", "1").await.len(), 20);
}

#[tokio::test]
async fn declaration_decides_between_contradicting_emissions() {
    let store = memory().await;
    let saying = |id, value| ScriptStep {
        parts: vec![parallax_tests::Part {
            scope: None,
            records: vec![Rec::Entity { key: 1, value }, Rec::Entity { key: 1, value }],
            complete: false,
        }],
        ..step(id, [])
    };
    for _ in 0..2 {
        let result = sync(&store, &script([saying("a", 1), saying("b", 2)]), "1").await;
        let counts = (
            result.stats.entities_duplicates,
            result.stats.entities_rejected,
        );
        assert_eq!(counts, (1, 2));
        let value = "SELECT properties->>'value' FROM parallax_entity";
        assert_eq!(crate::support::lines(&store, value).await, ["1"]);
    }
}

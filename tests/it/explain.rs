//! Why a record is there or gone can be told from the store.

use parallax_connect::ConnectorOutput;
use parallax_store::{Claim, ClaimName, Explanation, InSource, RecordName, State, Store, SyncRef};
use parallax_tests::{End, Rec, ScriptStep};

use crate::support::{ending, keys, lines, memory, run, scope, script, step};

/// Commits syncs of account 1 as `s-1`, `s-2` and so on.
async fn sync_all<const N: usize>(store: &Store, syncs: [Vec<ScriptStep>; N]) {
    for (number, steps) in (1..).zip(syncs) {
        let output = output(steps, number).await;
        store.commit_sync(&output).await.unwrap();
    }
}

async fn output(steps: Vec<ScriptStep>, number: u32) -> ConnectorOutput {
    run(&script(steps), "1", &format!("s-{number}")).await
}

async fn explain(store: &Store, subject: &str) -> Vec<Explanation> {
    store.explain(&subject.parse().unwrap()).await.unwrap()
}

/// What is said of the one record that a subject names, a line for each source.
async fn words(store: &Store, subject: &str) -> String {
    let explanations = explain(store, subject).await;
    let [explanation] = &explanations[..] else {
        panic!("{subject}: {explanations:?}")
    };
    let sources = explanation.sources.iter().map(source_words);
    sources.collect::<Vec<_>>().join("\n")
}

fn source_words(source: &InSource) -> String {
    let state = match &source.state {
        State::Live => "live".to_owned(),
        State::Kept { perhaps_seen } => {
            format!("kept{}", if *perhaps_seen { " or seen" } else { "" })
        }
        State::Held {
            changeset,
            by,
            reason,
        } => format!("held by changeset {changeset} of {}: {reason}", sync(by)),
        State::Pinned { changeset, at } => {
            assert!(at.is_some());
            format!("pinned by changeset {changeset}")
        }
        State::Gone(deletion) => {
            let approved = deletion
                .changeset
                .map(|changeset| format!(", changeset {changeset} was approved"));
            format!(
                "gone by {}, nobody found it: {}{}",
                sync(&deletion.sync),
                names(&deletion.claims),
                approved.unwrap_or_default(),
            )
        }
    };
    let mut words = format!(
        "account {}: {state}; created {}, changed {}",
        source.account_id,
        sync(&source.created),
        sync(&source.changed)
    );
    if let Some(confirmed) = &source.confirmed {
        words += &format!(
            ", confirmed {} by {}",
            confirmed.sync.sync_id,
            names(&confirmed.claims)
        );
    }
    if let Some(failed) = &source.failed_since {
        words += &format!(", failed since {}", failed.sync_id);
    }
    for claim in &source.claims {
        words += &format!("\n  {}", claim_words(claim));
    }
    words
}

fn claim_words(claim: &Claim) -> String {
    let mut words = format!(
        "{}: looked {}",
        names(std::slice::from_ref(&claim.name)),
        sync(&claim.looked)
    );
    if let Some(missed) = &claim.missed {
        words += &format!(", missed {}: {}", sync(&missed.sync), missed.because);
    }
    words
}

fn sync(sync: &Option<SyncRef>) -> &str {
    sync.as_ref().map_or("never", |sync| &sync.sync_id)
}

fn names(claims: &[ClaimName]) -> String {
    let names = claims.iter().map(|claim| match &claim.scope {
        Some(scope) => format!("{} in {scope}", claim.step_id),
        None => claim.step_id.clone(),
    });
    names.collect::<Vec<_>>().join(" and ")
}

#[tokio::test]
async fn what_the_last_sync_saw_is_live() {
    let store = memory().await;
    let changed = Rec::Entity { key: 2, value: 1 };
    sync_all(
        &store,
        [
            vec![step("a", keys([1, 2, 3])), step("b", keys([3]))],
            vec![
                step("a", [keys([1, 3]), vec![changed]].concat()),
                step("b", keys([3])),
            ],
            vec![
                ending(step("a", keys([])), End::Error),
                ending(step("b", keys([])), End::Error),
            ],
        ],
    )
    .await;
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by a, failed since s-3
      a: looked s-2, missed s-3: step a failed: told to
    ");
    insta::assert_snapshot!(words(&store, "thing:2").await, @"
    account 1: live; created s-1, changed s-2, confirmed s-2 by a, failed since s-3
      a: looked s-2, missed s-3: step a failed: told to
    ");
    insta::assert_snapshot!(words(&store, "thing:3").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by a and b, failed since s-3
      a: looked s-2, missed s-3: step a failed: told to
      b: looked s-2, missed s-3: step b failed: told to
    ");
}

#[tokio::test]
async fn what_came_back_is_live_only() {
    let store = memory().await;
    let syncs = [keys([1, 2]), keys([2]), keys([1, 2])];
    sync_all(&store, syncs.map(|records| vec![step("a", records)])).await;
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: live; created s-3, changed s-3, confirmed s-3 by a
      a: looked s-3
    ");
}

#[tokio::test]
async fn what_could_not_be_checked_is_kept() {
    let store = memory().await;
    let all = || {
        vec![
            step("a", keys([1, 2])),
            step("b", keys([2, 3])),
            step("c", keys([4, 5])),
        ]
    };
    sync_all(
        &store,
        [
            all(),
            vec![
                ending(step("a", keys([])), End::Error),
                step("b", keys([2, 3])),
                ending(step("c", keys([4])), End::Incomplete),
            ],
        ],
    )
    .await;
    // Its step failed.
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: kept; created s-1, changed s-1, confirmed s-1 by a
      a: looked s-1, missed s-2: step a failed: told to
    ");
    // Another step saw it.
    insta::assert_snapshot!(words(&store, "thing:2").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by b
      a: looked s-1, missed s-2: step a failed: told to
      b: looked s-2
    ");
    insta::assert_snapshot!(words(&store, "thing:3").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by b
      b: looked s-2
    ");
    // Nobody notes which of its records an incomplete step saw.
    insta::assert_snapshot!(words(&store, "thing:4").await, @"
    account 1: kept or seen; created s-1, changed s-1, confirmed s-1 by c
      c: looked s-1, missed s-2: step c was incomplete: told to
    ");
    insta::assert_snapshot!(words(&store, "thing:5").await, @"
    account 1: kept or seen; created s-1, changed s-1, confirmed s-1 by c
      c: looked s-1, missed s-2: step c was incomplete: told to
    ");
}

#[tokio::test]
async fn claim_of_a_scope_is_checked_with_its_scope() {
    let store = memory().await;
    let regions = |us, eu: &[u8]| {
        let mut hosts = step("hosts", []);
        hosts.parts = vec![
            scope("eu", true, keys(eu.iter().copied())),
            scope("us", us, keys([7, 8])),
        ];
        hosts.all_scopes_listed = true;
        vec![hosts]
    };
    sync_all(&store, [regions(true, &[1, 2]), regions(false, &[1])]).await;
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by hosts in eu
      hosts in eu: looked s-2
    ");
    insta::assert_snapshot!(words(&store, "thing:2").await, @"account 1: gone by s-2, nobody found it: hosts in eu; created s-1, changed s-1");
    insta::assert_snapshot!(words(&store, "thing:7").await, @"
    account 1: live; created s-1, changed s-1, confirmed s-2 by hosts in us
      hosts in us: looked s-1, missed s-2: step hosts did not complete scope us
    ");
}

#[tokio::test]
async fn held_delete_is_told_with_what_was_said_of_it() {
    let store = memory().await;
    sync_all(
        &store,
        [vec![step("a", keys(0..20))], vec![step("a", keys([]))]],
    )
    .await;
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: held by changeset 1 of s-2: all 20 of thing would go; created s-1, changed s-1
      a: looked s-2
    ");
    store.reject(1).await.unwrap();
    insta::assert_snapshot!(words(&store, "thing:1").await, @"
    account 1: pinned by changeset 1; created s-1, changed s-1
      a: looked s-2
    ");
    for (number, emitted) in [(3, 0..20), (4, 0..0)] {
        let output = output(vec![step("a", keys(emitted))], number).await;
        store.commit_sync(&output).await.unwrap();
    }
    store.approve(2).await.unwrap();
    insta::assert_snapshot!(words(&store, "thing:1").await, @"account 1: gone by approved:2, nobody found it: a, changeset 2 was approved; created s-1, changed s-1");
    assert!(store.verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn step_that_is_gone_leaves_its_records_to_somebodys_word() {
    let store = memory().await;
    sync_all(
        &store,
        [
            vec![step("a", keys([1])), step("b", keys([2]))],
            vec![ending(step("a", keys([1])), End::Incomplete)],
        ],
    )
    .await;
    insta::assert_snapshot!(words(&store, "thing:2").await, @"
    account 1: kept; created s-1, changed s-1, confirmed s-1 by b
      b: looked s-1, missed s-2: step b is no longer declared
    ");
    store
        .commit_sync(&output(vec![step("a", keys([1]))], 3).await)
        .await
        .unwrap();
    insta::assert_snapshot!(words(&store, "thing:2").await, @"
    account 1: held by changeset 1 of s-3: step b, which found some of them, is no longer declared; created s-1, changed s-1
      b: looked never, missed s-2: step b is no longer declared
    ");
}

#[tokio::test]
async fn each_account_and_each_source_is_told_apart() {
    let store = memory().await;
    for account in ["1", "2"] {
        let output = run(&script([step("a", keys([1]))]), account, "s-1").await;
        store.commit_sync(&output).await.unwrap();
    }
    let explanations = explain(&store, "thing:1").await;
    let mut accounts: Vec<_> = explanations
        .iter()
        .map(|explanation| &explanation.sources[..])
        .map(|sources| {
            sources
                .iter()
                .map(|source| source.account_id.as_str())
                .collect::<Vec<_>>()
        })
        .collect();
    accounts.sort();
    assert_eq!(accounts, [["1"], ["2"]]);
    assert_eq!(explain(&store, "thing:7").await, []);
    assert_eq!(explain(&store, "KNOWS:1").await, []);
    assert_eq!(explain(&store, &"0".repeat(32)).await, []);
}

#[tokio::test]
async fn relationship_is_told_with_its_ends() {
    let store = memory().await;
    let link = |to| Rec::Link {
        from: 1,
        to,
        value: 0,
    };
    sync_all(
        &store,
        [
            vec![step("a", [keys([1, 2]), vec![link(2), link(9)]].concat())],
            vec![step("a", keys([1]))],
        ],
    )
    .await;
    let reader = &store;
    let ends = async |subject: String| {
        let explanations = explain(reader, &subject).await;
        let RecordName::Relationship {
            from,
            verb,
            to,
            key,
        } = &explanations[0].record
        else {
            panic!("{explanations:?}")
        };
        assert_eq!((verb.as_str(), key), ("KNOWS", &None));
        let end = |end: &parallax_store::End| {
            let key = end.entity.as_ref().map_or("?", |entity| &entity.key);
            format!("{key} {}", if end.is_live { "lives" } else { "is missing" })
        };
        format!(
            "{}, {}\n{}",
            end(from),
            end(to),
            source_words(&explanations[0].sources[0])
        )
    };
    let ids = "SELECT DISTINCT id FROM parallax_change WHERE kind = 'relationship'";
    let ids = lines(&store, ids).await;
    assert_eq!(ids.len(), 2);
    let mut texts = Vec::new();
    for id in ids {
        texts.push(ends(id).await);
    }
    texts.sort();
    insta::assert_snapshot!(texts.join("\n"), @"
    1 lives, 2 is missing
    account 1: gone by s-2, nobody found it: a; created s-1, changed s-1
    1 lives, ? is missing
    account 1: gone by s-2, nobody found it: a; created s-1, changed s-1
    ");
}

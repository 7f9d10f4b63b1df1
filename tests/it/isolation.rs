//! P5: sources never touch each other.

use parallax_tests::{Rec, Script};

use crate::support::{keys, lines, memory, script, step, sync, things, words};

fn named(name: &'static str, records: Vec<Rec>) -> Script {
    Script {
        name,
        ..script([step("all", records)])
    }
}

#[tokio::test]
async fn accounts_of_one_connector_are_apart() {
    let store = memory().await;
    let first = named("aws", keys(0..10));
    assert_eq!(
        words(&sync(&store, &first, "111").await),
        "entity: 10 created"
    );
    assert_eq!(
        words(&sync(&store, &named("aws", keys(0..4)), "222").await),
        "entity: 4 created"
    );
    assert_eq!(
        words(&sync(&store, &first, "111").await),
        "entity: 10 unchanged"
    );
    assert_eq!(
        words(&sync(&store, &named("aws", Vec::new()), "222").await),
        "entity: 4 deleted"
    );
    assert_eq!(things(&store, "aws", "111").await.len(), 10);
}

#[tokio::test]
async fn entity_of_two_sources_lives_until_the_last_lets_go() {
    let store = memory().await;
    let link = Rec::Link {
        from: 1,
        to: 2,
        value: 0,
    };
    sync(&store, &named("left", keys([1, 2])), "1").await;
    sync(
        &store,
        &named("right", [keys([1]), vec![link]].concat()),
        "1",
    )
    .await;
    let shown = "SELECT count(*) FROM parallax_relationship";
    assert_eq!(lines(&store, shown).await, ["1"]);

    // 1 is still claimed by the other source, 2 is gone: the relationship waits for it.
    assert_eq!(
        words(&sync(&store, &named("left", Vec::new()), "1").await),
        "entity: 2 deleted"
    );
    assert_eq!(things(&store, "right", "1").await.len(), 1);
    assert_eq!(lines(&store, shown).await, ["0"]);

    // And is shown again as soon as 2 is back, whoever brings it.
    sync(&store, &named("third", keys([2])), "1").await;
    assert_eq!(lines(&store, shown).await, ["1"]);
}

#[tokio::test]
async fn forgotten_source_takes_nothing_of_others_along() {
    let store = memory().await;
    let link = Rec::Link {
        from: 1,
        to: 2,
        value: 0,
    };
    sync(
        &store,
        &named("left", [keys([1, 2, 3]), vec![link]].concat()),
        "1",
    )
    .await;
    sync(
        &store,
        &named("right", [keys([1]), vec![link]].concat()),
        "1",
    )
    .await;
    let shown = "SELECT connector_id FROM parallax_relationship ORDER BY 1";
    assert_eq!(lines(&store, shown).await, ["left", "right"]);

    let planned = store.plan_forget("left", "1").await.unwrap();
    assert_eq!(things(&store, "left", "1").await.len(), 3);
    let forgotten = store.forget("left", "1").await.unwrap();
    assert_eq!(planned, forgotten);
    assert_eq!((forgotten.entities, forgotten.relationships), (3, 1));

    // 2 was left's alone, so right's relationship to it waits.
    assert_eq!(lines(&store, shown).await, Vec::<String>::new());
    assert_eq!(
        lines(
            &store,
            "SELECT connector_id, relationships_waiting FROM parallax_source"
        )
        .await,
        ["right 1"]
    );
    assert_eq!(
        store.forget("left", "1").await.unwrap_err().code(),
        "no_such_source"
    );
    let again = sync(&store, &named("left", keys([2])), "1").await;
    assert_eq!(words(&again), "entity: 1 created");
    assert_eq!(lines(&store, shown).await, ["right"]);
    for table in ["px_edge_from", "px_edge_to", "px_relationship"] {
        let connection = format!("SELECT count(*) FROM {table}");
        assert_eq!(lines(&store, &connection).await, ["1"], "{table}");
    }
}

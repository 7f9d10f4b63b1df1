//! Records are listed page by page, and every page ends in time.

use std::time::Duration;

use parallax_connect::{
    Connector, ConnectorError, Step, StepContext, entity, relationship, run_connector, step,
};
use parallax_store::{Browse, Cell, Direction, Page, RecordName, Store, Stored};

use crate::support::memory;

/// A connector of one step that emits what it is told to.
struct Told<F>(F);

impl<F: Fn(&StepContext) -> Result<(), ConnectorError> + Send + Sync> Connector for Told<F> {
    fn name(&self) -> &str {
        "told"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("all", "All", async |ctx| (self.0)(&ctx))]
    }
}

async fn stored(emit: impl Fn(&StepContext) -> Result<(), ConnectorError> + Send + Sync) -> Store {
    let store = memory().await;
    let output = run_connector(&Told(emit), "acme", "s-1", None).await;
    store.commit_sync(&output.unwrap()).await.unwrap();
    store
}

/// Follows a list in pages of one record, and checks that it is the same as whole.
async fn listed(store: &Store, browse: &Browse) -> Vec<Stored> {
    let whole = store.browse(&browse.clone().limit(1_000)).await.unwrap();
    assert_eq!((whole.next, whole.timed_out), (None, false));
    let mut records = Vec::new();
    let mut after = Some(0);
    while let Some(place) = after {
        let page = store.browse(&browse.clone().limit(1).after(place)).await;
        let Page {
            records: one, next, ..
        } = page.unwrap();
        assert!(one.len() <= 1);
        records.extend(one);
        after = next;
    }
    assert_eq!(records, whole.records);
    records
}

fn name(stored: &Stored) -> String {
    let entity = |end: &parallax_store::End| end.entity.as_ref().map(|entity| entity.key.clone());
    match &stored.record {
        RecordName::Entity(entity) => entity.key.clone(),
        RecordName::Relationship { from, verb, to, .. } => {
            let (from, to) = (entity(from).unwrap(), entity(to).unwrap());
            format!("{from} {verb} {to}")
        }
    }
}

async fn names(store: &Store, browse: Browse) -> Vec<String> {
    let mut names: Vec<_> = listed(store, &browse).await.iter().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn neighbours_are_listed_either_way_and_once() {
    let store = stored(|ctx| {
        for key in ["ann", "bob", "eve"] {
            ctx.emit(entity("user", key))?;
        }
        for (from, verb, to) in [
            ("ann", "KNOWS", "bob"),
            ("bob", "KNOWS", "ann"),
            ("ann", "KNOWS", "ann"),
            ("ann", "PAYS", "eve"),
            ("bob", "PAYS", "eve"),
            // It waits for its end, and is not shown.
            ("ann", "KNOWS", "nobody"),
        ] {
            ctx.emit(relationship(("user", from), verb, ("user", to)))?;
        }
        Ok(())
    })
    .await;
    let users = listed(&store, &Browse::entities().prefix("ann")).await;
    let hex = u128::from_str_radix(&users[0].id, 16).unwrap();
    let ann = hex.to_be_bytes();
    let of = |direction| names(&store, Browse::neighbours(ann, direction));
    let out = ["ann KNOWS ann", "ann KNOWS bob", "ann PAYS eve"];
    assert_eq!(of(Direction::Out).await, out);
    assert_eq!(of(Direction::In).await, ["ann KNOWS ann", "bob KNOWS ann"]);
    let both = [
        "ann KNOWS ann",
        "ann KNOWS bob",
        "ann PAYS eve",
        "bob KNOWS ann",
    ];
    assert_eq!(of(Direction::Both).await, both);
    let pays = Browse::neighbours(ann, Direction::Both).name("PAYS");
    assert_eq!(names(&store, pays).await, ["ann PAYS eve"]);
    assert_eq!(names(&store, Browse::relationships()).await.len(), 5);

    let all = listed(&store, &Browse::relationships()).await;
    let id = u128::from_str_radix(&all[0].id, 16).unwrap().to_be_bytes();
    let one = listed(&store, &Browse::relationships().id(id)).await;
    assert_eq!(one, all[..1]);
    assert_eq!(names(&store, Browse::entities().id(ann)).await, ["ann"]);
    let elsewhere = Browse::entities().source("told", "globex");
    assert_eq!(names(&store, elsewhere).await, [""; 0]);
    let here = Browse::entities().source("told", "acme").name("user");
    assert_eq!(names(&store, here).await, ["ann", "bob", "eve"]);
}

#[tokio::test]
async fn types_count_what_the_views_show() {
    let store = stored(|ctx| {
        for (entity_type, key) in [("user", "ann"), ("user", "bob"), ("box", "1"), ("car", "1")] {
            ctx.emit(entity(entity_type, key))?;
        }
        for (from, verb, to) in [
            ("ann", "KNOWS", "bob"),
            ("ann", "PAYS", "bob"),
            // These wait: one for both of its ends, and counts once.
            ("ann", "KNOWS", "eve"),
            ("eve", "KNOWS", "joe"),
            ("ann", "MISSES", "joe"),
        ] {
            ctx.emit(relationship(("user", from), verb, ("user", to)))?;
        }
        Ok(())
    })
    .await;
    let types = store.types().await.unwrap().into_iter();
    let types: Vec<_> = types
        .map(|found| format!("{} {} {}", found.kind, found.name, found.records))
        .collect();
    let viewed = "SELECT 'entity ' || type || ' ' || count(*) FROM parallax_entity GROUP BY type
         UNION ALL
         SELECT 'relationship ' || verb || ' ' || count(*) FROM parallax_relationship GROUP BY verb";
    let viewed = store.query(viewed).await.unwrap().rows.into_iter();
    let viewed: Vec<_> = viewed.flatten().collect();
    let expected = [
        "entity box 1",
        "entity car 1",
        "entity user 2",
        "relationship KNOWS 1",
        "relationship PAYS 1",
    ];
    assert_eq!(types, expected);
    assert_eq!(viewed, expected.map(|text| Cell::Text(text.to_owned())));
}

#[tokio::test]
async fn prefix_means_what_it_says() {
    let store = stored(|ctx| {
        for (key, display_name) in [
            ("100%", "all"),
            ("1000", "some"),
            ("a_b", "x"),
            ("axb", "y"),
            (r"c\d", "z"),
            ("ÄRGER", "Zorn"),
        ] {
            ctx.emit(entity("thing", key).display_name(display_name))?;
        }
        Ok(())
    })
    .await;
    for (prefix, expected) in [
        ("100%", &["100%"][..]),
        ("100", &["100%", "1000"]),
        ("a_", &["a_b"]),
        ("A", &["100%", "a_b", "axb"]),
        (r"c\", &[r"c\d"]),
        ("zor", &["ÄRGER"]),
        ("är", &[]),
        ("ÄR", &["ÄRGER"]),
        ("b", &[]),
        ("'", &[]),
        ("\0", &[]),
    ] {
        let found = names(&store, Browse::entities().prefix(prefix)).await;
        assert_eq!(found, expected, "{prefix:?}");
    }
}

#[tokio::test]
async fn search_without_time_gets_on_from_page_to_page() {
    let store = stored(|ctx| {
        for n in 0..45_000 {
            ctx.emit(entity("thing", format!("{n:05}")))?;
        }
        Ok(())
    })
    .await;
    let browse = Browse::entities().prefix("44999").time(Duration::ZERO);
    let (mut pages, mut found, mut after) = (0, 0, Some(0));
    while let Some(place) = after {
        let page = store.browse(&browse.clone().after(place)).await.unwrap();
        assert_eq!(page.timed_out, page.next.is_some());
        pages += 1;
        found += page.records.len();
        after = page.next;
    }
    assert_eq!((pages, found), (3, 1));
    // One that finds enough has not run out of time.
    let enough = Browse::entities().limit(10).time(Duration::ZERO);
    let page = store.browse(&enough).await.unwrap();
    assert_eq!((page.records.len(), page.timed_out), (10, false));
}

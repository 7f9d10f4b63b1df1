//! Records that are made to hurt are stored exactly, or rejected by a typed error.

use std::sync::Mutex;

use parallax_connect::{
    Connector, ConnectorError, Entity, Step, StepContext, Timestamp, entity, relationship,
    run_connector, step,
};
use parallax_store::Store;
use proptest::prelude::*;

use crate::support::{lines, memory, words};

/// Emits what it is given, and notes what was rejected.
struct Emitter {
    entities: Vec<Entity>,
    rejected: Mutex<Vec<String>>,
}

impl Connector for Emitter {
    fn name(&self) -> &str {
        "emitter"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("all", "Emit all", |ctx| self.emit(ctx))]
    }
}

impl Emitter {
    fn new(entities: impl IntoIterator<Item = Entity>) -> Self {
        Self {
            entities: entities.into_iter().collect(),
            rejected: Mutex::default(),
        }
    }

    async fn emit(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for entity in &self.entities {
            if let Err(error) = ctx.emit(entity.clone()) {
                self.rejected.lock().unwrap().push(error.to_string());
            }
        }
        Ok(())
    }
}

async fn commit(store: &Store, emitter: &Emitter, sync_id: &str) -> String {
    let output = run_connector(emitter, "1", sync_id, None).await.unwrap();
    words(&store.commit_sync(&output).await.unwrap())
}

const TEXTS: [&str; 8] = [
    "nul \0 in it",
    "two\nlines\r\n",
    "\u{1b}[2J cleared",
    "\u{202e}gnirts lautca",
    "quote \" and \\ and '",
    "\u{feff}\u{200b}\u{ffff}",
    "🦀 emoji e\u{301}",
    "",
];

#[tokio::test]
async fn texts_are_stored_exactly_or_rejected() {
    let store = memory().await;
    let as_values = (0..).zip(TEXTS).map(|(n, text)| {
        let host = entity("host", n);
        host.property("text", text).property("list", vec![text])
    });
    // A key is for people, too: one that steers a terminal is rejected.
    let as_keys = TEXTS.map(|text| entity("host", text).display_name(text));
    let emitter = Emitter::new(as_values.chain(as_keys));
    assert_eq!(
        commit(&store, &emitter, "s-1").await,
        "entity: 12 created, 4 rejected"
    );
    for (n, text) in (0..).zip(TEXTS) {
        let quoted = text.replace('\'', "''").replace('\0', "' || char(0) || '");
        let found = format!(
            "SELECT count(*) FROM parallax_entity WHERE key = '{n}'
             AND properties->>'text' = '{quoted}' AND properties->>'$.list[0]' = '{quoted}'"
        );
        assert_eq!(lines(&store, &found).await, ["1"], "{text:?}");
        if !text.is_empty() && !text.contains(char::is_control) {
            let found = format!(
                "SELECT count(*) FROM parallax_entity WHERE key = '{quoted}' AND display_name = key"
            );
            assert_eq!(lines(&store, &found).await, ["1"], "{text:?}");
        }
    }
    assert_eq!(
        commit(&store, &emitter, "s-2").await,
        "entity: 12 unchanged, 4 rejected"
    );
}

#[tokio::test]
async fn what_is_too_large_is_rejected_and_named() {
    let store = memory().await;
    let emitter = Emitter::new([
        entity("host", "k".repeat(10 << 20)),
        entity("host", "value").property("v", "v".repeat((1 << 20) + 1)),
        entity("host", "whole").property("a", "x".repeat(1 << 20)),
        (0..5).fold(entity("host", "many"), |host, n| {
            host.property(["a", "b", "c", "d", "e"][n], "x".repeat(1 << 20))
        }),
        entity("host", "nan").property("v", f64::NAN),
        entity("host", "infinite").property("v", f64::INFINITY),
        entity("Host", "type"),
        entity("host", "class").class("not pascal"),
    ]);
    assert_eq!(
        commit(&store, &emitter, "s-1").await,
        "entity: 1 created, 7 rejected"
    );
    let rejected = emitter.rejected.lock().unwrap();
    assert_eq!(rejected.len(), 7, "{rejected:?}");
    for error in rejected.iter() {
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn numbers_keep_their_value() {
    let store = memory().await;
    let numbers = entity("host", "numbers")
        .property("most", u64::MAX)
        .property("least", i64::MIN)
        .property("minus_zero", -0.0)
        .property("tiny", f64::MIN_POSITIVE)
        .property("third", 1.0 / 3.0)
        .property("time", Timestamp::from_micros(-1).unwrap());
    commit(&store, &Emitter::new([numbers.clone()]), "s-1").await;
    let properties = "SELECT properties FROM parallax_entity";
    assert_eq!(
        lines(&store, properties).await,
        [concat!(
            r#"{"least":-9223372036854775808,"minus_zero":0.0,"most":18446744073709551615,"#,
            r#""third":0.3333333333333333,"time":"1969-12-31T23:59:59.999999Z","#,
            r#""tiny":2.2250738585072014e-308}"#
        )]
    );
    let plus_zero = numbers.property("minus_zero", 0.0);
    assert_eq!(
        commit(&store, &Emitter::new([plus_zero]), "s-2").await,
        "entity: 1 unchanged"
    );
}

#[tokio::test]
async fn entity_of_100_000_relationships_is_stored_and_lets_go_of_them() {
    struct Hub(u32);
    impl Connector for Hub {
        fn name(&self) -> &str {
            "hub"
        }
        fn steps(&self) -> Vec<Step<'_>> {
            vec![step("all", "Emit all", move |ctx| async move {
                ctx.emit(entity("hub", 0))?;
                for spoke in 0..self.0 {
                    ctx.emit(entity("spoke", spoke))?;
                    ctx.emit(relationship(("spoke", spoke), "JOINS", ("hub", 0)))?;
                }
                Ok(())
            })]
        }
    }
    let store = memory().await;
    let sync = async |spokes, sync_id| {
        let output = run_connector(&Hub(spokes), "1", sync_id, None)
            .await
            .unwrap();
        words(&store.commit_sync(&output).await.unwrap())
    };
    assert_eq!(
        sync(100_000, "s-1").await,
        "entity: 100001 created; relationship: 100000 created"
    );
    // More than 50,000: what is equal is not read.
    assert_eq!(
        sync(100_000, "s-2").await,
        "entity: 100001 unchanged; relationship: 100000 unchanged"
    );
    assert_eq!(
        sync(99_000, "s-3").await,
        "entity: 99001 unchanged, 1000 deleted; relationship: 99000 unchanged, 1000 deleted"
    );
    let shown = "SELECT count(*) FROM parallax_relationship";
    assert_eq!(lines(&store, shown).await, ["99000"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Two records whose parts are cut elsewhere are two records.
    #[test]
    fn any_text_is_a_key_of_its_own(keys in prop::collection::btree_set("[\\PC]{1,12}", 2..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = memory().await;
            let emitter = Emitter::new(keys.iter().map(|key| entity("host", key)));
            let expected = format!("entity: {} created", keys.len());
            prop_assert_eq!(commit(&store, &emitter, "s-1").await, expected);
            let stored = store.query("SELECT key FROM parallax_entity").await.unwrap();
            let stored: std::collections::BTreeSet<String> = stored
                .rows
                .into_iter()
                .map(|row| match &row[..] {
                    [parallax_store::Cell::Text(key)] => key.clone(),
                    row => panic!("{row:?}"),
                })
                .collect();
            prop_assert_eq!(stored, keys);
            Ok(())
        })?;
    }
}

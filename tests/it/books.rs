//! P1, P3, P5, P9: every commit equals the reference model's, whatever steps do, and plan = commit.

use std::collections::{BTreeMap, BTreeSet};

use parallax_core::RecordKind;
use parallax_store::{Cell, Store};
use parallax_tests::{Model, Script, Stored, scripts};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{memory, run};

const ACCOUNTS: [&str; 2] = ["111", "222"];
const CONNECTORS: [&str; 2] = ["left", "right"];

/// A commit of one of four sources, and whether it is then committed a second time.
fn commits() -> impl Strategy<Value = Vec<(&'static str, Script, bool)>> {
    let commit = (0..2usize, 0..2usize).prop_flat_map(|(account, connector)| {
        (
            Just(ACCOUNTS[account]),
            scripts(CONNECTORS[connector]),
            prop::bool::weighted(0.2),
        )
    });
    vec(commit, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn every_commit_equals_the_model(commits in commits()) {
        silence_scripted_panics();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(check(commits))?;
    }
}

/// How many random histories a run checks; `PROPTEST_CASES` overrides it.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(1_000)
}

async fn check(commits: Vec<(&'static str, Script, bool)>) -> Result<(), TestCaseError> {
    let store = memory().await;
    let mut model = Model::default();
    for (number, (account, script, twice)) in commits.iter().enumerate() {
        let output = run(script, account, &format!("sync-{number}")).await;
        let expected = model.commit(account, script);

        let plan = store.plan_sync(&output).await.unwrap();
        let result = store.commit_sync(&output).await.unwrap();
        prop_assert_eq!(&plan, &result, "plan and commit {}", number);
        prop_assert_eq!(result.stats, expected, "stats of commit {}", number);

        let emitted: u64 = output
            .report()
            .steps()
            .iter()
            .map(|step| step.entities)
            .sum();
        let live = |kind| model.live(script.name, account, kind) as u64;
        for (kind, emitted) in [
            (RecordKind::Entity, Some(emitted)),
            (RecordKind::Relationship, None),
        ] {
            let counts = result.stats.counts(kind);
            let after = live(kind);
            let before = after + counts.deleted - counts.created;
            let emitted = emitted.unwrap_or_else(|| {
                output
                    .report()
                    .steps()
                    .iter()
                    .map(|step| step.relationships)
                    .sum()
            });
            prop_assert_eq!(counts.balance(kind, emitted, before, after), Ok(()));
        }
        if *twice {
            let again = store.commit_sync(&output).await.unwrap();
            prop_assert!(again.replayed);
            prop_assert_eq!(again.stats, result.stats);
            prop_assert_eq!(again.types, result.types);
        }
        check_shown(&store, &model, script.name, account, number).await?;
    }
    // The other sources, too: what one commits changes nothing of another's.
    for account in ACCOUNTS {
        for connector in CONNECTORS {
            check_shown(&store, &model, connector, account, commits.len()).await?;
        }
    }
    Ok(())
}

async fn check_shown(
    store: &Store,
    model: &Model,
    connector: &'static str,
    account: &'static str,
    number: usize,
) -> Result<(), TestCaseError> {
    let (shown, expected) = (
        shown(store, connector, account).await,
        model.shown(connector, account),
    );
    prop_assert_eq!(
        shown,
        expected,
        "shown of {} in {} after commit {}",
        connector,
        account,
        number
    );
    Ok(())
}

/// What the views show of a source, in the model's terms.
async fn shown(
    store: &Store,
    connector: &'static str,
    account: &'static str,
) -> BTreeMap<(u8, Option<u8>), Stored> {
    let source = format!("connector_id = '{connector}' AND account_id = '{account}'");
    let entities = format!(
        "SELECT key, NULL, properties->>'value', claims FROM parallax_entity WHERE {source}"
    );
    // Through every entity of the account, as a user would name the ends.
    let relationships = format!(
        "SELECT (SELECT key FROM parallax_entity e WHERE e.id = r.from_id),
                (SELECT key FROM parallax_entity e WHERE e.id = r.to_id),
                properties->>'value', claims
         FROM parallax_relationship r WHERE {source}"
    );
    let mut shown = BTreeMap::new();
    for sql in [entities, relationships] {
        for row in store.query(&sql).await.unwrap().rows {
            let [
                Cell::Text(from),
                to,
                Cell::Integer(value),
                Cell::Text(claims),
            ] = &row[..]
            else {
                panic!("unexpected row {row:?}");
            };
            let to = match to {
                Cell::Text(to) => Some(to.parse().unwrap()),
                _ => None,
            };
            let stored = Stored {
                value: u8::try_from(*value).unwrap(),
                claims: parse(claims),
            };
            assert!(shown.insert((from.parse().unwrap(), to), stored).is_none());
        }
    }
    shown
}

fn parse(claims: &str) -> BTreeSet<(&'static str, Option<&'static str>)> {
    let known = |text: &str| {
        ["a", "b", "c", "d", "eu", "us"]
            .into_iter()
            .find(|known| *known == text)
            .unwrap()
    };
    let claims: Vec<(String, Option<String>)> = serde_json::from_str(claims).unwrap();
    claims
        .iter()
        .map(|(step, scope)| (known(step), scope.as_deref().map(known)))
        .collect()
}

/// Scripted panics are part of the tests; the default hook would print each of them.
pub(crate) fn silence_scripted_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"told to") {
                default(info);
            }
        }));
    });
}

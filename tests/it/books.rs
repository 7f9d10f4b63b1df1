//! P1, P3, P5, P9: every commit equals the reference model's, whatever steps do, and plan = commit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use parallax_core::RecordKind;
use parallax_store::{Cell, CommitResult, Guard, Store, StoreError};
use parallax_tests::{Model, Script, Stored, scripts, silence_scripted_panics};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::support::{lines, memory, run};

const ACCOUNTS: [&str; 2] = ["111", "222"];
const CONNECTORS: [&str; 2] = ["left", "right"];
/// Low, so that deletes of a handful of records are held.
const GUARD: (u64, f64) = (1, 0.3);
/// A store is used for so many histories, each in accounts of its own: opening one takes longer
/// than a history.
const HISTORIES: u32 = 100;

#[derive(Clone, Debug)]
enum Act {
    /// A sync of one of four sources, and whether it is then committed a second time.
    Sync {
        account: &'static str,
        script: Script,
        twice: bool,
    },
    /// Somebody's word on the n-th open changeset.
    Decide { nth: usize, is_right: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let sync = (0..2usize, 0..2usize).prop_flat_map(|(account, connector)| {
        (scripts(CONNECTORS[connector]), prop::bool::weighted(0.1)).prop_map(
            move |(script, twice)| Act::Sync {
                account: ACCOUNTS[account],
                script,
                twice,
            },
        )
    });
    let decide =
        (0..3usize, any::<bool>()).prop_map(|(nth, is_right)| Act::Decide { nth, is_right });
    vec(prop_oneof![6 => sync, 1 => decide], 1..12)
}

/// Runs random histories on one store after another.
struct Bench {
    runtime: Runtime,
    store: Store,
    histories: u32,
    /// What has become of changesets.
    states: BTreeSet<String>,
}

impl Bench {
    fn new() -> Self {
        silence_scripted_panics();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let store = runtime.block_on(memory());
        Self {
            runtime,
            store,
            histories: 0,
            states: BTreeSet::new(),
        }
    }

    /// Goes on with a new store. Whatever happened, the old one is sound.
    fn renew(&mut self) {
        let verification = self.runtime.block_on(self.store.verify()).unwrap();
        assert_eq!(verification.problems, []);
        let states = "SELECT DISTINCT state FROM parallax_changeset";
        self.states
            .extend(self.runtime.block_on(lines(&self.store, states)));
        self.store = self.runtime.block_on(memory());
        self.histories = 0;
    }

    fn check(&mut self, acts: &[Act]) -> Result<(), TestCaseError> {
        if self.histories == HISTORIES {
            self.renew();
        }
        self.histories += 1;
        let history = format!("history-{}", self.histories);
        self.runtime.block_on(check(&self.store, &history, acts))
    }
}

/// Two tests, for two cores. How many histories each checks; `PROPTEST_CASES` overrides it.
const CASES: u32 = 25_000;

#[test]
fn every_commit_equals_the_model() {
    check_histories();
}

#[test]
fn every_commit_equals_the_model_again() {
    check_histories();
}

fn check_histories() {
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let bench = RefCell::new(Bench::new());
    runner
        .run(&acts(), |acts| bench.borrow_mut().check(&acts))
        .unwrap_or_else(|error| panic!("{error}"));
    // What never happens is not tested.
    let mut bench = bench.into_inner();
    bench.renew();
    let states: Vec<_> = bench.states.iter().collect();
    assert_eq!(states, ["approved", "open", "rejected", "released"]);
}

async fn check(store: &Store, history: &str, acts: &[Act]) -> Result<(), TestCaseError> {
    let next = "SELECT coalesce(max(changeset), 0) + 1 FROM parallax_changeset";
    let next = lines(store, next).await[0].parse().unwrap();
    let mut model = Model::new(GUARD, next);
    for (number, act) in acts.iter().enumerate() {
        match act {
            Act::Sync {
                account,
                script,
                twice,
            } => {
                let account = format!("{history}-{account}");
                check_sync(store, &mut model, &account, script, *twice, number).await?;
            }
            Act::Decide { nth, is_right } => {
                let open = model.open_changesets();
                let Some(&changeset) = open.iter().nth(nth % open.len().max(1)) else {
                    continue;
                };
                let expected = model.decide(changeset, *is_right);
                for is_again in [false, true] {
                    let decided = decide(store, changeset, *is_right).await.unwrap();
                    prop_assert_eq!(
                        usize::try_from(decided.entities + decided.relationships).unwrap(),
                        expected
                    );
                    prop_assert_eq!(decided.repeated, is_again);
                }
                let other = decide(store, changeset, !is_right).await.unwrap_err();
                let is_closed = matches!(other, StoreError::ChangesetClosed { .. });
                prop_assert!(is_closed, "{}", other);
            }
        }
    }
    check_shown(store, &model, history, acts.len()).await
}

async fn decide(
    store: &Store,
    changeset: u64,
    is_right: bool,
) -> Result<parallax_store::Decided, StoreError> {
    if is_right {
        store.approve(changeset).await
    } else {
        store.reject(changeset).await
    }
}

async fn check_sync(
    store: &Store,
    model: &mut Model,
    account: &str,
    script: &Script,
    twice: bool,
    number: usize,
) -> Result<(), TestCaseError> {
    let output = run(script, account, &format!("sync-{number}")).await;
    let live = |model: &Model, kind| model.live(script.name, account, kind) as u64;
    let before = RecordKind::ALL.map(|kind| live(model, kind));
    let (expected, changeset) = model.commit(account, script);

    let plan = session(store).plan(&output).await.unwrap();
    let result = session(store).commit(&output).await.unwrap();
    prop_assert_eq!(&plan, &result, "plan and commit {}", number);
    prop_assert_eq!(result.stats, expected, "stats of commit {}", number);
    prop_assert_eq!(result.held_changeset, changeset, "commit {}", number);

    for (kind, before) in RecordKind::ALL.into_iter().zip(before) {
        let steps = output.report().steps().iter();
        let emitted = steps.map(|step| match kind {
            RecordKind::Entity => step.entities,
            RecordKind::Relationship => step.relationships,
        });
        let counts = result.stats.counts(kind);
        let balance = counts.balance(kind, emitted.sum(), before, live(model, kind));
        prop_assert_eq!(balance, Ok(()));
    }
    if twice {
        let again: CommitResult = session(store).commit(&output).await.unwrap();
        prop_assert!(again.replayed);
        prop_assert_eq!(again.stats, result.stats);
        prop_assert_eq!(again.types, result.types);
        prop_assert_eq!(again.held_changeset, result.held_changeset);
    }
    Ok(())
}

fn session(store: &Store) -> parallax_store::Session<'_> {
    store.session().guard(Guard {
        records: GUARD.0,
        share: GUARD.1,
        enabled: true,
    })
}

/// Every source, also those that took no part: what one commits changes nothing of another's.
async fn check_shown(
    store: &Store,
    model: &Model,
    history: &str,
    number: usize,
) -> Result<(), TestCaseError> {
    let mut shown = shown(store, history).await;
    for account in ACCOUNTS {
        let account = format!("{history}-{account}");
        for connector in CONNECTORS {
            let source = (connector.to_owned(), account.clone());
            prop_assert_eq!(
                shown.remove(&source).unwrap_or_default(),
                model.shown(connector, &account),
                "shown of {:?} after {}",
                source,
                number
            );
        }
    }
    prop_assert!(shown.is_empty(), "{:?}", shown);
    Ok(())
}

type Source = (String, String);
type Shown = BTreeMap<(u8, Option<u8>), Stored>;

/// What the views show of the sources of a history, in the model's terms.
async fn shown(store: &Store, history: &str) -> BTreeMap<Source, Shown> {
    let [one, other] = ACCOUNTS;
    let sources = format!("account_id IN ('{history}-{one}', '{history}-{other}')");
    let sql = format!(
        "SELECT connector_id, account_id, id, key, NULL, properties->>'value', claims,
                held_changeset
         FROM parallax_entity WHERE {sources}
         UNION ALL
         SELECT connector_id, account_id, from_id, NULL, to_id, properties->>'value', claims,
                held_changeset
         FROM parallax_relationship WHERE {sources}"
    );
    // Both sources of an account know an entity by one id, so that ends are named by either.
    let mut keys: BTreeMap<String, u8> = BTreeMap::new();
    let mut shown: BTreeMap<Source, Shown> = BTreeMap::new();
    for row in store.query(&sql).await.unwrap().rows {
        let [
            Cell::Text(connector),
            Cell::Text(account),
            Cell::Text(id),
            key,
            to,
            Cell::Integer(value),
            Cell::Text(claims),
            held,
        ] = &row[..]
        else {
            panic!("unexpected row {row:?}");
        };
        if let Cell::Text(key) = key {
            keys.insert(id.clone(), key.parse().unwrap());
        }
        let to = match to {
            Cell::Text(to) => Some(keys[to]),
            _ => None,
        };
        let stored = Stored {
            value: u8::try_from(*value).unwrap(),
            claims: parse(claims),
            held: match held {
                Cell::Integer(changeset) => Some(changeset.unsigned_abs()),
                _ => None,
            },
            pinned: false,
        };
        let records = shown
            .entry((connector.clone(), account.clone()))
            .or_default();
        let record = (keys[id], to);
        assert!(records.insert(record, stored).is_none());
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

//! P4: a writer that is killed at any moment leaves a whole store, with all that was acknowledged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parallax_store::Store;
use parallax_tests::Rec;

use crate::support::{lines, run, script, step};

/// Names the store to the child process; without it, [`child`] is an empty test.
const STORE: &str = "PARALLAX_TEST_CRASH_STORE";

/// How many writers are killed; `PARALLAX_TEST_KILLS` overrides it.
const KILLS: u64 = 500;

/// Commits generation after generation and says so, until it is killed.
#[tokio::test]
async fn child() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let store = Store::open(&url).await.unwrap();
    let last = lines(
        &store,
        "SELECT max(properties->>'value') FROM parallax_entity",
    )
    .await;
    let first = last[0].parse::<u8>().map_or(0, |last| last + 1);
    for generation in first..=u8::MAX {
        // Half of the things change, a fifth comes and goes.
        let kept = (0..40).map(|key| Rec::Entity {
            key,
            value: generation,
        });
        let passing = (0..10).map(|n| Rec::Entity {
            key: 100 + (generation % 2) * 10 + n,
            value: generation,
        });
        let links = (0..39).map(|key| Rec::Link {
            from: key,
            to: key + 1,
            value: generation,
        });
        let records: Vec<_> = kept.chain(passing).chain(links).collect();
        let output = run(
            &script([step("all", records)]),
            "1",
            &format!("generation-{generation}"),
        )
        .await;
        store.commit_sync(&output).await.unwrap();
        println!("committed {generation}");
    }
}

fn start(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(STORE, url)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child commit for a while, kills it, and returns the last generation it acknowledged.
fn kill_after(url: &str, delay: Duration) -> Option<u8> {
    let mut child = start(url);
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = |line: String| line.strip_prefix("committed ")?.parse::<u8>().ok();
    // The delay counts from the first commit, not from the start of the process.
    let mut last = told.by_ref().map_while(Result::ok).find_map(acknowledged);
    std::thread::sleep(delay);
    child.kill().unwrap();
    for line in told.map_while(Result::ok) {
        last = acknowledged(line).or(last);
    }
    child.wait().unwrap();
    last
}

async fn check(path: &Path, url: &str, acknowledged: Option<u8>) {
    let store = Store::open(url).await.unwrap();
    let generations = "SELECT DISTINCT properties->>'value' FROM parallax_entity
                       UNION SELECT DISTINCT properties->>'value' FROM parallax_relationship";
    let generations = lines(&store, generations).await;
    let [generation] = &generations[..] else {
        panic!("a mix of generations {generations:?} in {}", path.display());
    };
    let generation: u8 = generation.parse().unwrap();
    assert!(
        Some(generation) >= acknowledged,
        "{acknowledged:?} was acknowledged, {generation} is there"
    );
    let counts = "SELECT (SELECT count(*) FROM parallax_entity),
                         (SELECT count(*) FROM parallax_relationship),
                         entities, relationships FROM parallax_source";
    assert_eq!(lines(&store, counts).await, ["50 39 50 39"]);
    drop(store);
    let file = rusqlite::Connection::open(path).unwrap();
    let verdict: String = file
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
}

#[tokio::test]
async fn killed_writer_leaves_a_whole_store() {
    let directory = tempfile::tempdir().unwrap();
    let kills = std::env::var("PARALLAX_TEST_KILLS").ok();
    let kills = kills.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    for round in 0..kills {
        // New stores now and then: a store is killed in its first moments, too.
        let path = directory.path().join(format!("{}.db", round / 8));
        let url = format!("sqlite:{}", path.display());
        // Spread over the length of a few commits, without a clock's help.
        let acknowledged = kill_after(&url, Duration::from_micros(round * 1_733 % 20_000));
        check(&path, &url, acknowledged).await;
    }
    println!("{kills} kills");
}

//! P4, P11: of several processes one writes at a time, and each sees what the one before committed.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use parallax_store::{Store, StoreError};
use parallax_tests::Rec;

use crate::support::{lines, run, script, step};

/// Names the store to a child process; without it, the tests that are children are empty.
const STORE: &str = "PARALLAX_TEST_STORE";
const COMMITS: u8 = 40;

/// Opens the store, says so, and holds it until it is killed.
#[tokio::test]
async fn holder() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let _store = Store::open(&url).await.unwrap();
    println!("open");
    std::future::pending::<()>().await;
}

/// Adds one to what is stored, again and again, opening the store each time.
#[tokio::test]
async fn adder() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    for number in 0..COMMITS {
        let store = loop {
            match Store::open(&url).await {
                Ok(store) => break store,
                Err(StoreError::Locked { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let value = stored(&store).await + 1;
        let record = Rec::Entity { key: 0, value };
        let sync_id = format!("{}-{number}", std::process::id());
        let output = run(&script([step("all", [record])]), "1", &sync_id).await;
        store.commit_sync(&output).await.unwrap();
    }
}

/// Returns the one value that is stored; 0 before there is one.
async fn stored(store: &Store) -> u8 {
    let value = "SELECT coalesce(max(properties->>'value'), 0) FROM parallax_entity";
    lines(store, value).await[0].parse().unwrap()
}

fn start(test: &str, url: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("processes::{test}"), "--nocapture"])
        .env(STORE, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, told)
}

#[tokio::test]
async fn second_process_is_refused_and_told_by_whom_until_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/parallax.db", directory.path().display());
    for _ in 0..5 {
        let (mut holder, mut told) = start("holder", &url);
        assert!(told.any(|line| line.unwrap() == "open"));
        // The holder holds it for ever: an answer at all is one without waiting.
        let error = Store::open(&url).await.unwrap_err();
        let StoreError::Locked { pid, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*pid, holder.id().to_string());

        holder.kill().unwrap();
        holder.wait().unwrap();
        Store::open(&url).await.unwrap();
    }
}

#[tokio::test]
async fn racing_processes_lose_no_commit() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/parallax.db", directory.path().display());
    let adders = [(); 2].map(|()| start("adder", &url));
    for (mut adder, told) in adders {
        told.for_each(drop);
        assert!(adder.wait().unwrap().success());
    }
    let store = Store::open(&url).await.unwrap();
    assert_eq!(stored(&store).await, 2 * COMMITS);
}

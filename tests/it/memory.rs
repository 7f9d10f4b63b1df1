//! A step that emits without end fills a disk, not the memory.

use std::process::Command;

use parallax_connect::{Connector, Runner, Step, StepContext, entity, step};
use parallax_store::Store;

/// Names the store to the child process; without it, the test that is the child is empty.
const STORE: &str = "PARALLAX_TEST_STORE";
const RECORDS: u64 = 1_000_000;
/// What is kept of each record, what else a session may keep, and some room.
const MOST: u64 = 48 * RECORDS + (8 << 20) + (16 << 20);

/// A step that emits a million records, more than 200 bytes each.
struct Talkative;

impl Connector for Talkative {
    fn name(&self) -> &str {
        "talkative"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let text = "x".repeat(200);
        let all = move |ctx: StepContext| {
            let text = text.clone();
            async move {
                for key in 0..RECORDS {
                    ctx.emit(entity("word", key).property("text", text.as_str()))?;
                }
                Ok(())
            }
        };
        vec![step("words", "All words", all)]
    }
}

/// Returns the most memory that this process had so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1_024
}

/// Runs it into a session, and says how much memory that took. In a process of its own: tests of
/// one process share their memory.
#[tokio::test]
async fn talker() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let store = Store::open(&url).await.unwrap();
    let session = store.session();
    let before = peak();
    let output = Runner::new(&Talkative)
        .sink(&session)
        .run("1", "sync-1")
        .await
        .unwrap();
    let took = peak() - before;
    assert_eq!(output.report().steps()[0].entities, RECORDS);
    println!("took {took}");
}

#[test]
fn a_million_records_take_no_more_than_their_share() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::talker", "--nocapture"])
        .env(
            STORE,
            format!("sqlite:{}/parallax.db", directory.path().display()),
        )
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let took = told.lines().find_map(|line| line.strip_prefix("took "));
    let took: u64 = took.expect(&told).parse().unwrap();
    assert!(took > 48 * RECORDS / 2, "{took} is no measure");
    assert!(took < MOST, "{took} bytes, and not {MOST}");
}

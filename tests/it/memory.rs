//! A step that emits without end fills a disk, not the memory; nor does a file that is damaged.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use parallax_connect::{
    Connector, Runner, Step, StepContext, entity, relationship, run_connector, step,
};
use parallax_store::{Store, Subject};
use proptest::prelude::*;
use proptest::sample::Index;

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

/// Runs a test of this program as a process of its own. Returns how much memory that says it took.
fn measure(test: &str, store: &Path) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(STORE, format!("sqlite:{}", store.display()))
        // How many heaps the allocator makes depends on how busy the machine is.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let took = told.lines().find_map(|line| line.strip_prefix("took "));
    let took = took.unwrap_or_else(|| panic!("{told}{errors}"));
    took.parse().unwrap()
}

#[test]
fn a_million_records_take_no_more_than_their_share() {
    let directory = tempfile::tempdir().unwrap();
    let took = measure("memory::talker", &directory.path().join("parallax.db"));
    assert!(took > 48 * RECORDS / 2, "{took} is no measure");
    assert!(took < MOST, "{took} bytes, and not {MOST}");
}

/// Users, each of whom knows the one before.
struct Users(Range<u32>);

impl Connector for Users {
    fn name(&self) -> &str {
        "users"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("users", "All users", async |ctx: StepContext| {
            for key in self.0.clone() {
                let text = "x".repeat(100);
                ctx.emit(entity("user", key).property("text", text))?;
                let [from, to] = [key, key.saturating_sub(1)].map(|key| entity("user", key));
                ctx.emit(relationship(&from, "KNOWS", &to))?;
            }
            Ok(())
        })]
    }
}

/// Does with a store all that reads much of it, and commits to it. In a process of its own.
#[tokio::test]
async fn reader() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let output = run_connector(&Users(1_000..9_000), "1", "s-3", None).await;
    let output = output.unwrap();
    let before = peak();
    if let Ok(store) = Store::open_read_only(&url).await {
        store.verify().await.ok();
        for view in ["entity", "relationship", "change", "journal", "source"] {
            let sql = format!("SELECT count(*) FROM parallax_{view}");
            store.query(&sql).await.ok();
        }
        let user: Subject = "user:7".parse().unwrap();
        store.explain(&user).await.ok();
        store.history(&user, 100).await.ok();
    }
    if let Ok(store) = Store::open(&url).await {
        store.plan_sync(&output).await.ok();
        store.commit_sync(&output).await.ok();
    }
    println!("took {}", peak() - before);
}

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Truncated(Index),
    Flipped(Vec<(Index, u8)>),
    Filled(Index, usize, u8),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let flips = prop::collection::vec((any::<Index>(), 1..=u8::MAX), 1..200);
    prop_oneof![
        1 => any::<Index>().prop_map(Damage::Truncated),
        4 => flips.prop_map(Damage::Flipped),
        2 => (any::<Index>(), 1..100_000_usize, any::<u8>())
            .prop_map(|(place, length, byte)| Damage::Filled(place, length, byte)),
    ]
}

impl Damage {
    fn of(&self, whole: &[u8]) -> Vec<u8> {
        let mut file = whole.to_vec();
        match self {
            Self::Truncated(length) => file.truncate(length.index(file.len())),
            Self::Flipped(places) => {
                for (place, bits) in places {
                    let place = place.index(file.len());
                    file[place] ^= bits;
                }
            }
            Self::Filled(place, length, byte) => {
                let place = place.index(file.len());
                let end = file.len().min(place + length);
                file[place..end].fill(*byte);
            }
        }
        file
    }
}

#[tokio::test]
async fn damaged_file_takes_no_more_memory_than_twice_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await;
    let store = store.unwrap();
    for (sync_id, users) in [("s-1", 0..20_000), ("s-2", 0..10_000)] {
        let output = run_connector(&Users(users), "1", sync_id, None).await;
        store.commit_sync(&output.unwrap()).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    // And what it takes to commit 16,000 records.
    let most = 2 * whole.len() as u64 + (16 << 20);
    let took = measure("memory::reader", &path);
    assert!(
        took < most,
        "{took} bytes, and not {most}, for the whole file"
    );
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 30,
        ..ProptestConfig::with_cases(40)
    };
    proptest!(config, |(damage in any_damage())| {
        let damaged = directory.path().join("damaged.db");
        for beside in ["", "-wal", "-shm", ".lock"] {
            std::fs::remove_file(directory.path().join(format!("damaged.db{beside}"))).ok();
        }
        std::fs::write(&damaged, damage.of(&whole)).unwrap();
        let took = measure("memory::reader", &damaged);
        prop_assert!(took < most, "{} bytes, and not {}", took, most);
    });
}

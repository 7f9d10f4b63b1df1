//! System calls on the store's files fail under the real binary, one at a time: the sync says so in
//! its exit code and a typed message, and the store is as before the sync or as after it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "how far the test went is its result, too"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::desk::{run, sync_json};

/// The calls that can fail, and how.
const FAILURES: [(&str, &[&str]); 6] = [
    ("openat", &["EIO", "ENOSPC"]),
    ("write", &["EIO", "ENOSPC"]),
    ("pwrite64", &["EIO", "ENOSPC"]),
    ("ftruncate", &["EIO", "ENOSPC"]),
    ("fsync", &["EIO"]),
    ("fdatasync", &["EIO"]),
];

const FILES: [&str; 5] = [
    "parallax.db",
    "parallax.db-wal",
    "parallax.db-shm",
    "parallax.db-journal",
    "parallax.db.lock",
];

/// Returns strace's name, or `None` where there is none. `cargo xtask ci` has seen to it.
fn strace() -> Option<String> {
    let given = std::env::var("STRACE").ok();
    let strace = given.clone().unwrap_or_else(|| "strace".to_owned());
    match Command::new(&strace).arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound && given.is_none() => {
            eprintln!("skipped: there is no strace; on Debian: apt-get install strace");
            None
        }
        output => {
            assert!(output.unwrap().status.success());
            Some(strace)
        }
    }
}

/// Syncs while the `nth` call of a kind fails, counted by thread, and returns the exit code, the
/// sync's object, and whether such a call was made at all.
fn sync_failing(
    strace: &str,
    dir: &Path,
    call: &str,
    error: &str,
    nth: usize,
) -> (i32, Value, bool) {
    let trace = dir.join("trace");
    let output = Command::new(strace)
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args(FILES.iter().flat_map(|file| ["-P".into(), dir.join(file)]))
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:error={error}:when={nth}")])
        .arg(env!("CARGO_BIN_EXE_parallax"))
        .args(["sync", "host", "--json", "--account", "here"])
        .args(["--store", &format!("sqlite:{}/parallax.db", dir.display())])
        .current_dir(dir)
        .env_remove("PARALLAX_STORE")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let object = serde_json::from_str(&stdout)
        .unwrap_or_else(|_| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    let is_injected = fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
    (output.status.code().unwrap(), object, is_injected)
}

/// Returns how many syncs a store has, and checks that its books agree with its records.
fn syncs(dir: &Path) -> u64 {
    let sql = "SELECT s.syncs, s.entities = (SELECT count(*) FROM parallax_entity) AS whole
               FROM parallax_source s";
    let (code, rows, stderr) = run(dir, &["query", "--json", sql]);
    assert_eq!(code, 0, "{stderr}");
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows[0]["whole"], 1, "{rows}");
    rows[0]["syncs"].as_u64().unwrap()
}

/// Lets the first, second, third, fifth… call of each kind fail, up to the last.
fn check(failures: &[(&str, &[&str])]) {
    let Some(strace) = strace() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let desk = dir.path();
    let (code, first) = sync_json(desk, &[]);
    assert!(code == 0 || code == 3, "{first}");
    let whole = fs::read(desk.join("parallax.db")).unwrap();
    assert!(!desk.join("parallax.db-wal").exists());

    let (mut tried, mut failed) = (0, 0);
    for &(call, errors) in failures {
        for error in errors {
            let (mut nth, mut next) = (1, 2);
            loop {
                for file in FILES {
                    fs::remove_file(desk.join(file)).ok();
                }
                fs::write(desk.join("parallax.db"), &whole).unwrap();
                let (code, object, is_injected) = sync_failing(&strace, desk, call, error, nth);
                let what = format!("{error} of {call} {nth}: exit code {code}, {object}");
                if !is_injected {
                    break;
                }
                tried += 1;
                match code {
                    0 | 3 => assert_eq!(syncs(desk), 2, "{what}"),
                    5 => {
                        let code = object["error"]["code"].as_str().unwrap();
                        let is_typed =
                            ["store_failed", "store_full", "store_permission"].contains(&code);
                        assert!(is_typed, "{what}");
                        assert_eq!(syncs(desk), 1, "{what}");
                        failed += 1;
                    }
                    _ => panic!("{what}"),
                }
                let before = syncs(desk);
                let (code, again) = sync_json(desk, &[]);
                assert!(code == 0 || code == 3, "after {what}: {again}");
                assert_eq!(syncs(desk), before + 1, "after {what}");
                (nth, next) = (next, nth + next);
            }
        }
    }
    println!("{tried} calls failed, and {failed} syncs for that");
    // What never fails is not tested.
    assert!(failed > 0, "no call failed");
}

#[test]
fn failing_write_leaves_the_store_as_before_or_after() {
    check(&FAILURES[..3]);
}

#[test]
fn failing_sync_leaves_the_store_as_before_or_after() {
    check(&FAILURES[3..]);
}

//! The binary as its callers see it: what only a process has, such as signals, pipes and a
//! current directory. What commands say is tested where they are.

use std::fs;
use std::io::{Read, Write, pipe};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn parallax(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parallax"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command.env_remove("PARALLAX_STORE").env_remove("RUST_LOG");
    command
}

/// Runs a command line and returns its exit code, standard output and standard error.
fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = parallax(dir, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs a sync of this machine and returns its exit code and object. The account is given, because
/// not every machine has an id.
fn sync_json(dir: &Path, args: &[&str]) -> (i32, Value) {
    let all = [&["sync", "host", "--json", "--account", "here"], args].concat();
    let (code, stdout, _) = run(dir, &all);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    (code, serde_json::from_str(&stdout).unwrap())
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn sync_makes_a_store_that_queries_and_syncs_read() {
    let dir = TempDir::new().unwrap();
    let (code, first) = sync_json(dir.path(), &[]);
    assert!(code == 0 || code == 3, "{first}");
    assert!(
        first["stats"]["entities_created"].as_u64() > Some(0),
        "{first}"
    );
    let (_, second) = sync_json(dir.path(), &[]);
    assert!(
        second["stats"]["entities_unchanged"].as_u64() > Some(0),
        "{second}"
    );

    let sql = "SELECT count(*) AS n FROM parallax_entity WHERE type = 'host'";
    let (code, rows, _) = run(dir.path(), &["query", "--json", sql]);
    assert_eq!((code, rows.as_str()), (0, "[\n{\"n\":1}\n]\n"));
    let (code, syncs, _) = run(dir.path(), &["syncs", "--json"]);
    let syncs: Value = serde_json::from_str(&syncs).unwrap();
    assert_eq!((code, &syncs[0]["sync_id"]), (0, &second["sync_id"]));
    assert_eq!(syncs[1]["sync_id"], first["sync_id"]);
}

#[test]
fn what_cannot_be_done_says_so_and_how() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(
        dir.path().join("text.db"),
        "no store, but a text that someone needs",
    )
    .unwrap();
    let table: [(&[&str], i32, &str); 9] = [
        (
            &["sync", "hots"],
            2,
            "there is no connector \"hots\"\n  help: there is one: host\n",
        ),
        (&["sync", "host", "--jsn"], 2, "--json"),
        (&["snyc"], 2, "sync"),
        (
            &["sync", "host", "--sync-id", ""],
            2,
            "sync id \"\" is not 1 to 256 bytes",
        ),
        (
            &["sync", "host", "--account", "a", "--store", "nope:x"],
            2,
            "is not a store URL",
        ),
        (
            &["sync", "host", "--account", "a", "--store", "sqlite:dir"],
            5,
            "is a directory",
        ),
        (
            &[
                "sync",
                "host",
                "--account",
                "a",
                "--store",
                "sqlite:text.db",
            ],
            5,
            "not a Parallax store",
        ),
        (&["query", "SELECT 1"], 5, "there is no store at"),
        (&["syncs", "--limit", "0"], 2, "--limit"),
    ];
    for (args, expected, words) in table {
        let (code, stdout, stderr) = run(dir.path(), args);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{args:?} {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(words),
            "{args:?} {stderr}"
        );
    }
    let text = fs::read_to_string(dir.path().join("text.db")).unwrap();
    assert_eq!(text, "no store, but a text that someone needs");
    assert!(!dir.path().join("parallax.db").exists());
}

#[test]
fn reading_and_planning_make_nothing() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(dir.path(), &["query", "SELECT 1"]).0, 5);
    assert_eq!(run(dir.path(), &["syncs"]).0, 5);
    let (code, plan) = sync_json(dir.path(), &["--dry-run"]);
    assert!(code == 0 || code == 3, "{plan}");
    assert_eq!(plan["outcome"], "planned");
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn failure_is_one_object_on_the_standard_output() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("text.db"), "no store").unwrap();
    let (code, object) = sync_json(dir.path(), &["--store", "sqlite:text.db", "--sync-id", "s"]);
    assert_eq!((code, &object["error"]["code"]), (5, &"not_a_store".into()));
    assert_eq!(object["sync_id"], "s");
    let (code, object) = sync_json(dir.path(), &["--nope"]);
    assert_eq!((code, &object["error"]["code"]), (2, &"usage".into()));
}

#[test]
fn reader_that_stops_reading_is_no_failure() {
    let dir = TempDir::new().unwrap();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = parallax(dir.path(), &["connectors"]);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

/// The standard error is a pipe that is full: the run waits to log that it began until it is read
/// from, and by then the signal has come. So the signal comes during the run, however short.
#[cfg(unix)]
#[test]
fn first_signal_cancels_the_run_and_commits_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = TempDir::new().unwrap();
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(&[b'.'; 64 * 1024]).unwrap();
        let args = ["sync", "host", "--json", "--account", "here", "-v"];
        let mut command = parallax(dir.path(), &args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(writer)
            .spawn()
            .unwrap();
        // The command holds another end of the pipe.
        drop(command);
        while !dir.path().join("parallax.db.lock").exists() {
            std::thread::yield_now();
        }
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{log}");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&object["outcome"], &object["error"]["code"]),
            (&"failed".into(), &"cancelled".into())
        );
        assert_eq!(run(dir.path(), &["syncs", "--json"]).1, "[]\n");
    }
}

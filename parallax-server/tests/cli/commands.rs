use std::fs;
use std::io::pipe;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::desk::{files, parallax, run, sync_json};

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
    let table = [
        (
            "sync hots",
            2,
            "there is no connector \"hots\"\n  help: there is one: host\n",
        ),
        ("sync host --jsn", 2, "--json"),
        ("snyc", 2, "sync"),
        ("syncs --limit 0", 2, "--limit"),
        (
            "sync host --account a --sync-id=",
            2,
            "sync id \"\" is not 1 to 256 bytes",
        ),
        (
            "sync host --account a --store nope:x",
            2,
            "is not a store URL",
        ),
        (
            "sync host --account a --store sqlite:dir",
            5,
            "is a directory",
        ),
        ("query SELECT", 5, "there is no store at"),
        ("plan host --sync-id x", 2, "--sync-id"),
        ("sync host --show", 2, "--dry-run"),
        ("held", 5, "there is no store at"),
        ("held --all 1", 2, "cannot be used with"),
        ("approve 1 --yes", 5, "there is no store at"),
        ("reject", 2, "<N>"),
        ("explain host", 2, "it is neither TYPE:KEY nor an id"),
        ("history host:x --limit 0", 2, "--limit"),
        ("explain host:x", 5, "there is no store at"),
        ("events", 5, "there is no store at"),
        (
            "sync host --select nope",
            2,
            "no step is selected by \"nope\"",
        ),
        ("store verify", 5, "there is no store at"),
        ("store backup backup.db", 5, "there is no store at"),
    ];
    for (line, expected, words) in table {
        let (code, stdout, stderr) = run(dir.path(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!((code, stdout.as_str()), (expected, ""), "{line}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(words),
            "{line}: {stderr}"
        );
    }
    assert_eq!(files(dir.path()), ["dir"]);
}

#[test]
fn file_that_is_no_store_or_a_damaged_one_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    assert_eq!(sync_json(dir.path(), &[]).1["error"], Value::Null);
    let mut damaged = fs::read(dir.path().join("parallax.db")).unwrap();
    // All but the first page, which names the file's format.
    damaged.iter_mut().skip(4096).for_each(|byte| *byte = b'?');
    for (name, content) in [
        ("text.db", b"what someone needs".to_vec()),
        ("damaged.db", damaged),
    ] {
        fs::write(dir.path().join(name), &content).unwrap();
        let (code, object) = sync_json(dir.path(), &["--store", &format!("sqlite:{name}")]);
        assert_eq!(code, 5, "{object}");
        assert_eq!(object["outcome"], "failed");
        assert!(
            fs::read(dir.path().join(name)).unwrap() == content,
            "{name}"
        );
    }
}

/// Syncs this machine where no file may grow beyond some tens of KiB.
fn sync_limited(dir: &Path) -> (i32, Value) {
    let parallax = env!("CARGO_BIN_EXE_parallax");
    let line = format!("ulimit -f 64; exec '{parallax}' sync host --json --account here");
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(dir)
        .env_remove("PARALLAX_STORE")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let object = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), object)
}

#[test]
fn limit_of_file_sizes_is_an_error_and_no_end_of_the_process() {
    let dir = TempDir::new().unwrap();
    for syncs in 0..2 {
        let (code, object) = sync_limited(dir.path());
        let error = &object["error"];
        assert_eq!(
            (code, &error["code"]),
            (5, &"store_failed".into()),
            "{object}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("limit of file sizes"), "{message}");

        let (code, object) = sync_json(dir.path(), &[]);
        assert!(code == 0 || code == 3, "{object}");
        let is_first = object["stats"]["entities_unchanged"] == 0;
        assert_eq!(is_first, syncs == 0, "{object}");
    }
}

#[test]
fn each_kind_of_record_of_this_machine_is_explained() {
    let dir = TempDir::new().unwrap();
    sync_json(dir.path(), &[]);
    let sql = "SELECT type || ':' || key AS subject FROM parallax_entity GROUP BY type
               UNION ALL SELECT id FROM parallax_relationship GROUP BY verb";
    let (_, rows, _) = run(dir.path(), &["query", "--json", sql]);
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let subject = row["subject"].as_str().unwrap();
        let (code, objects, stderr) = run(dir.path(), &["explain", "--json", subject]);
        assert_eq!(code, 0, "{subject}: {stderr}");
        let objects: Value = serde_json::from_str(&objects).unwrap();
        let source = &objects[0]["sources"][0];
        assert_eq!(source["state"], "live", "{subject}: {source}");
        assert!(
            source["confirmed"]["sync_id"].is_string(),
            "{subject}: {source}"
        );
        let (code, text, _) = run(dir.path(), &["history", subject]);
        assert!(
            code == 0 && text.contains("\ncreated 20"),
            "{subject}: {text}"
        );
    }
    let (code, stdout, stderr) = run(dir.path(), &["explain", "host:nowhere"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("nearest: host:"), "{stderr}");
}

#[test]
fn reading_and_planning_make_nothing() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(dir.path(), &["query", "SELECT 1"]).0, 5);
    assert_eq!(run(dir.path(), &["syncs"]).0, 5);
    let plan = ["plan", "host", "--account", "here", "--exit-code", "--show"];
    let (code, stdout, _) = run(dir.path(), &plan);
    assert!(code == 7 || code == 3, "{stdout}");
    assert!(stdout.contains("\n+ host "), "{stdout}");
    let (code, plan) = sync_json(dir.path(), &["--dry-run"]);
    assert!(code == 0 || code == 3, "{plan}");
    assert_eq!(plan["outcome"], "planned");
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn wrong_command_line_is_one_object_too() {
    let dir = TempDir::new().unwrap();
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

#[test]
fn events_tell_a_sync_as_it_was_told() {
    let dir = TempDir::new().unwrap();
    let (_, sync) = sync_json(dir.path(), &["--select", "users,groups"]);
    let sync_id = sync["sync_id"].as_str().unwrap();
    let statuses: Vec<_> = sync["steps"].as_array().unwrap().iter().collect();
    let ran = |step: &&&Value| step["status"] != "not_selected";
    assert!(
        statuses.iter().filter(ran).count() < statuses.len(),
        "{sync}"
    );

    // It is over, so there is nothing to follow.
    let (code, json, _) = run(dir.path(), &["events", "--json", "--follow"]);
    assert_eq!(code, 0);
    let entries: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seqs = entries.iter().map(|entry| entry["seq"].as_u64().unwrap());
    assert!(seqs.eq(1..=entries.len() as u64));
    assert_eq!(entries[0]["kind"], "started");
    let last = entries.last().unwrap();
    assert_eq!(last["kind"], "committed");
    assert_eq!(last["stats"], sync["stats"]);

    let (code, rest, _) = run(
        dir.path(),
        &["events", "--json", "--from", "3", &sync_id[..20]],
    );
    assert_eq!(code, 0);
    let all: Vec<_> = json.lines().collect();
    assert_eq!(rest.lines().collect::<Vec<_>>(), all[2..]);
    let (code, text, _) = run(dir.path(), &["events", sync_id]);
    assert_eq!((code, text.lines().count()), (0, entries.len() + 1));
    let (code, _, stderr) = run(dir.path(), &["events", "nope"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("there is no journal of a sync \"nope\""),
        "{stderr}"
    );
}

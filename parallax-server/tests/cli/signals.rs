use std::io::{PipeReader, Read, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::desk::{parallax, run, send};

/// A sync that waits for its standard error to be read from, before its first step begins. So a
/// signal comes during the run, however short that is.
pub(crate) fn waiting_sync(
    dir: &Path,
    configure: impl FnOnce(&mut Command),
) -> (Child, PipeReader) {
    let (reader, mut writer) = pipe().unwrap();
    // The pipe is full when the run logs that it began.
    writer.write_all(&[b'.'; 64 * 1024]).unwrap();
    let mut command = parallax(dir, &["sync", "host", "--json", "--account", "here", "-v"]);
    configure(&mut command);
    let child = command
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .unwrap();
    while !dir.join("parallax.db.lock").exists() {
        thread::yield_now();
    }
    (child, reader)
}

#[test]
fn first_signal_cancels_the_run_and_commits_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = TempDir::new().unwrap();
        let (child, mut stderr) = waiting_sync(dir.path(), |_| {});
        send(signal, &child);
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{log}");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (outcome, error) = (&object["outcome"], &object["error"]["code"]);
        assert_eq!((outcome, error), (&"failed".into(), &"cancelled".into()));
        assert_eq!(run(dir.path(), &["syncs", "--json"]).1, "[]\n");
    }
}

#[test]
fn second_signal_ends_the_program_at_once() {
    let dir = TempDir::new().unwrap();
    let (mut child, _stderr) = waiting_sync(dir.path(), |_| {});
    // Two that come together are one, so this goes on until two were seen.
    let status = loop {
        send("INT", &child);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(130));
}

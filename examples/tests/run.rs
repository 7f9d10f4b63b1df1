//! Each example does what its page says.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helper"
)]

use std::process::Command;

fn output(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn watch_events() {
    let told = output(env!("CARGO_BIN_EXE_watch_events"));
    let mut lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.remove(0), "library: monday started");
    assert_eq!(lines.pop(), Some("0 events were not taken in time"));
    assert_eq!(lines.pop(), Some("library: monday completed"));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "  books ...",
            "  books: 3 entities, 0 relationships",
            "  fines ...",
            "  fines: the accounting office asked for a pause of 3600s",
            "  loans ...",
            "  loans: 2 entities, 2 relationships",
        ]
    );
}

#[test]
fn structured_logs() {
    let told = output(env!("CARGO_BIN_EXE_structured_logs"));
    let line = told
        .lines()
        .find(|line| line.contains("Step completed") && line.contains("loans"));
    let line = line.unwrap();
    for field in [
        r#""connector_id":"library""#,
        r#""sync_id":"monday""#,
        r#""step_id":"loans""#,
        r#""entities":2"#,
        r#""relationships":2"#,
        r#""duration_ms":"#,
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}

#[test]
fn export_stats() {
    assert_eq!(
        output(env!("CARGO_BIN_EXE_export_stats")),
        "monday, partial:
  library.entities_created:5|c
  library.relationships_created:2|c
tuesday, partial:
  library.entities_unchanged:5|c
  library.relationships_unchanged:2|c
"
    );
}

#[test]
fn join_trace() {
    let told = output(env!("CARGO_BIN_EXE_join_trace"));
    let spans = "nightly{branch=\"main-street\"}:sync{connector_id=library \
                 account_id=main-street sync_id=monday}:step{step_id=loans}";
    assert!(
        told.lines()
            .any(|line| line.contains(spans) && line.contains("Loan found")),
        "{told}"
    );
}

#[test]
fn read_pages() {
    let told = output(env!("CARGO_BIN_EXE_read_pages"));
    // For how long depends on the machine.
    let words = told.split_inclusive(' ').scan("", |last, word| {
        Some(match std::mem::replace(last, word) {
            "for " => "some ",
            _ => word,
        })
    });
    assert_eq!(
        words.collect::<String>(),
        "crates: completed, 8 entities, held up for some ms
shelves: incomplete, 6 entities, held up for some ms (page 3 gives the token of page 1 again)
"
    );
}

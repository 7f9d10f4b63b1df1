//! Traces: the caller's is joined, and with the feature `otlp` they arrive at a receiver, as logs do.

use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::desk::parallax;

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Texts that try to be more than one line, or other than text.
pub(crate) const HOSTILE: [&str; 12] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n1",
    "x\r\nWARN forged",
    "\u{1b}[31mred\u{1b}]0;title\u{7}",
    "a\u{9b}31m",
    "\u{202e}txet",
    "line\u{2028}separator\u{2029}",
    "\u{feff}mark\u{7f}",
    r#""},"level":"ERROR"}"#,
    r"\u0041\n\\",
    "{} %s ${HOME} \t",
    "🦀 ünïcödé",
    "\u{85}",
];

/// Runs a command that does nothing but start, and returns its log.
fn log(variables: &[(&str, &str)], format: &str) -> String {
    let dir = TempDir::new().unwrap();
    let mut command = parallax(dir.path(), &["connectors", "-v", "--log-format", format]);
    let Output { status, stderr, .. } = command.envs(variables.iter().copied()).output().unwrap();
    let log = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{log}");
    log
}

#[test]
fn hostile_trace_parent_does_not_count_and_is_told_in_one_line() {
    for text in HOSTILE {
        let variables = [("TRACEPARENT", text)];
        let lines = log(&variables, "text");
        assert_eq!(lines.matches('\n').count(), 1, "{lines:?}");
        assert!(!lines.trim_end().chars().any(char::is_control), "{lines:?}");
        assert!(
            lines.contains(" WARN TRACEPARENT is not valid and does not count value="),
            "{lines:?}"
        );

        let lines = log(&variables, "json");
        assert_eq!(lines.matches('\n').count(), 1, "{lines:?}");
        assert!(!lines.trim_end().chars().any(char::is_control), "{lines:?}");
        let object: Value = serde_json::from_str(&lines).unwrap();
        let value = parallax_core::excerpt(text, 80);
        assert_eq!(object["value"], value);
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["trace_id"], Value::Null);
    }
}

#[test]
fn log_of_a_sync_is_in_the_callers_trace() {
    let dir = TempDir::new().unwrap();
    let line = [
        "sync",
        "host",
        "--account",
        "here",
        "-v",
        "--log-format",
        "json",
    ];
    let output = parallax(dir.path(), &line)
        .env("TRACEPARENT", CALLER)
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("Sync started") && log.contains("Sync completed"),
        "{log}"
    );
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["trace_id"], TRACE, "{line}");
        // The caller's span is not the line's, and nothing else has an id.
        assert_eq!(object["span_id"], Value::Null, "{line}");
    }
}

#[test]
fn log_is_in_no_trace_without_a_caller() {
    // Whatever is wrong is told, so that there is a line.
    let line = log(&[("TRACEPARENT", ""), ("RUST_LOG", "=[")], "json");
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        object["message"],
        "RUST_LOG is not valid and does not count"
    );
    assert_eq!(object["trace_id"], Value::Null);
}

//! What arrives at a receiver that decodes it with OpenTelemetry's own messages.
#![allow(
    clippy::print_stderr,
    reason = "what was skipped is the test's result, too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::desk::{parallax, send};
use crate::signals::waiting_sync;
use crate::traces::{CALLER, HOSTILE, TRACE};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A receiver in Python, killed when it is dropped.
struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it prints. Read as it comes: else it would wait, and the sender for it.
    printed: mpsc::Receiver<String>,
    endpoint: String,
}

impl Receiver {
    /// Starts one that answers as it is told, or returns `None` where Python has no messages of
    /// OpenTelemetry. `cargo xtask ci` has seen to it.
    fn start(answer: &str) -> Option<Self> {
        Self::start_with(&[answer])
    }

    /// Starts one that speaks TLS.
    fn start_with_tls() -> Option<Self> {
        let certificate = format!("{CERTIFICATES}/server.pem");
        let key = format!("{CERTIFICATES}/server.key");
        let mut receiver = Self::start_with(&["200", &certificate, &key])?;
        receiver.endpoint = receiver
            .endpoint
            .replace("http://127.0.0.1", "https://localhost");
        Some(receiver)
    }

    fn start_with(arguments: &[&str]) -> Option<Self> {
        let given = std::env::var_os("OTLP_PYTHONPATH");
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", given.clone().unwrap_or_default());
        python
            .args(["-c", "import opentelemetry.proto"])
            .stderr(Stdio::null());
        if given.is_none() && !python.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no receiver; pip install opentelemetry-proto");
            return None;
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/receiver.py");
        let mut child = Command::new("python3")
            .env("PYTHONPATH", given.unwrap_or_default())
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        stdout.read_line(&mut port).unwrap();
        let (print, printed) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                print.send(line.unwrap()).ok();
            }
        });
        Some(Self {
            child,
            stdin,
            printed,
            endpoint: format!("http://127.0.0.1:{}", port.trim_end()),
        })
    }

    /// Lets a command send here.
    fn listens_to(&self, command: &mut Command) {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint);
    }

    /// Waits for the next thing that it receives.
    fn next(&self) -> Value {
        serde_json::from_str(&self.printed.recv().unwrap()).unwrap()
    }

    /// Returns what else it received: everything, since the sender has ended.
    fn received(mut self) -> Vec<Value> {
        drop(self.stdin.take());
        self.printed
            .iter()
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const SYNC: [&str; 6] = ["sync", "host", "--account", "here", "--log-format", "json"];

/// Returns those with a value in a field.
fn with<'a>(received: &'a [Value], field: &str, value: &str) -> Vec<&'a Value> {
    received
        .iter()
        .filter(|what| what[field] == value)
        .collect()
}

#[test]
fn a_sync_is_one_trace_with_its_logs_in_it() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let mut command = parallax(dir.path(), &SYNC);
    receiver.listens_to(&mut command);
    command
        .env("TRACEPARENT", CALLER)
        .env("OTEL_SERVICE_NAME", "inventory")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=no,deployment=test",
        );
    let output = command.output().unwrap();
    let received = receiver.received();
    let log = String::from_utf8(output.stderr).unwrap();

    let syncs = with(&received, "span", "sync");
    let [sync] = syncs.as_slice() else {
        panic!("{received:?} {log}");
    };
    assert_eq!(sync["trace_id"], TRACE);
    assert_eq!(sync["parent"], "00f067aa0ba902b7");
    assert_eq!(sync["attributes"]["connector_id"], "host");
    assert_eq!(sync["attributes"]["account_id"], "here");

    let steps = with(&received, "span", "step");
    let names = |whats: &[&Value]| -> BTreeSet<String> {
        let names = whats.iter().map(|what| &what["attributes"]["step_id"]);
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let started = with(&received, "log", "Step started");
    assert!(names(&steps).contains("packages"));
    assert_eq!(names(&steps), names(&started));
    assert_eq!(steps.len(), started.len());
    for step in &steps {
        assert_eq!(step["parent"], sync["span_id"]);
        let of_step = |log: &&&Value| log["attributes"]["step_id"] == step["attributes"]["step_id"];
        assert_eq!(
            started.iter().find(of_step).unwrap()["span_id"],
            step["span_id"]
        );
    }
    for what in &received {
        assert_eq!(what["resource"]["service.name"], "inventory", "{what}");
        assert_eq!(what["resource"]["deployment"], "test", "{what}");
        if what["metric"].is_string() {
            continue;
        }
        assert_eq!(what["trace_id"], TRACE, "{what}");
        if what["span"].is_string() {
            // What happens in a span is logged, and not told twice.
            assert_eq!(what["events"], 0, "{what}");
            assert_eq!(what["took"], true, "{what}");
        } else {
            assert_eq!(
                what["attributes"]["sync_id"], sync["attributes"]["sync_id"],
                "{what}"
            );
        }
    }
    let last = with(&received, "log", "Sync completed");
    assert_eq!(last[0]["span_id"], sync["span_id"]);
}

#[test]
fn a_cancelled_sync_is_sent_as_failed() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let (child, mut stderr) = waiting_sync(dir.path(), |command| receiver.listens_to(command));
    send("INT", &child);
    stderr.read_to_string(&mut String::new()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let received = receiver.received();
    let sync = with(&received, "span", "sync");
    assert_eq!(sync[0]["status"], 2);
    assert_eq!(sync[0]["attributes"]["error.type"], "cancelled");
    assert_eq!(with(&received, "log", "Sync cancelled").len(), 1);
}

#[test]
fn hostile_text_arrives_as_it_is_logged() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    for text in HOSTILE {
        let mut command = parallax(dir.path(), &["connectors"]);
        receiver.listens_to(&mut command);
        let output = command.env("TRACEPARENT", text).output().unwrap();
        assert!(output.status.success());
    }
    let received = receiver.received();
    let logs: Vec<_> = received
        .iter()
        .map(|log| (log["log"].clone(), log["attributes"].clone()))
        .collect();
    let sent = HOSTILE.map(|text| {
        let value = parallax_core::excerpt(text, 80);
        let body = json!("TRACEPARENT is not valid and does not count");
        (body, json!({ "value": value }))
    });
    assert_eq!(logs, sent);
}

#[test]
fn a_daemon_sends_a_trace_for_each_sync_and_its_last_line() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let config = "store = { url = 'sqlite:parallax.db' }
        server = { listen = '127.0.0.1:0' }
        connector = [{ kind = 'host', account = 'here', every = '1s' }]";
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    let (log, stderr) = pipe().unwrap();
    let mut command = parallax(dir.path(), &["serve"]);
    receiver.listens_to(&mut command);
    let mut child = command
        .env("TRACEPARENT", CALLER)
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    drop(command);
    let mut ended = 0;
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        ended += usize::from(line.contains("\"Sync completed\""));
        if ended == 2 {
            send("TERM", &child);
            ended += 1;
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let received = receiver.received();
    assert_eq!(with(&received, "log", "Stopped").len(), 1);
    let syncs = with(&received, "span", "sync");
    let traces: BTreeSet<_> = syncs.iter().map(|sync| sync["trace_id"].as_str()).collect();
    assert!(syncs.len() >= 2, "{syncs:?}");
    assert_eq!(traces.len(), syncs.len(), "{syncs:?}");
    assert!(!traces.contains(&Some(TRACE)));
}

/// Returns the messages of a log with what was wrong.
fn told(output: &[u8]) -> Vec<(Value, Value)> {
    let log = String::from_utf8(output.to_owned()).unwrap();
    let objects = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = objects.map(|object| (object["message"].clone(), object["error"].clone()));
    told.filter(|(message, _)| message.as_str().unwrap().starts_with("Telemetry"))
        .collect()
}

#[test]
fn a_receiver_that_hangs_does_not_keep_a_sync() {
    let Some(receiver) = Receiver::start("hang") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let mut command = parallax(dir.path(), &SYNC);
    receiver.listens_to(&mut command);
    // An hour: longer than any test may take.
    command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000");
    let output = command.output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)));
    let error = "no answer within 2 s of the end";
    assert_eq!(
        told(&output.stderr),
        [("Telemetry not delivered".into(), error.into())]
    );
    assert!(!receiver.received().is_empty());
}

#[test]
fn a_receiver_that_is_not_there_or_refuses_is_told_once() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let Some(receiver) = Receiver::start("404") else {
        return;
    };
    let refusing = receiver.endpoint.trim_start_matches("http://").to_owned();
    for (address, error) in [
        (nobody.to_string(), "Connection refused (os error 111)"),
        (refusing, "answers 404 Not Found"),
    ] {
        let dir = TempDir::new().unwrap();
        let mut command = parallax(dir.path(), &SYNC);
        // What stands before the address is a secret.
        let endpoint = format!("http://anna:geheim@{address}");
        let output = command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .output()
            .unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)));
        let told = told(&output.stderr);
        assert_eq!(told.len(), 1, "{told:?}");
        let text = told[0].1.as_str().unwrap();
        assert!(
            text.starts_with(&address) && text.ends_with(error),
            "{text}"
        );
        assert!(!String::from_utf8_lossy(&output.stderr).contains("geheim"));
    }
}

#[test]
fn what_cannot_be_exported_is_told_and_what_is_not_wanted_is_not() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let told = |variables: &[(&str, &str)]| {
        let mut command = parallax(dir.path(), &["connectors", "--log-format", "json"]);
        receiver.listens_to(&mut command);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let told = told(&output.stderr);
        told.into_iter().map(|(_, error)| error).collect::<Vec<_>>()
    };
    let grpc = "OTEL_EXPORTER_OTLP_PROTOCOL is grpc: only http/protobuf is spoken, most often at \
                port 4318";
    assert_eq!(told(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), [grpc]);
    let scheme = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT must begin with http:// or https://";
    let endpoint = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "localhost:4318/v1/logs");
    assert_eq!(told(&[endpoint]), [scheme]);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4318");
    let authorities = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem");
    let missing = "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere/ca.pem: there is no such file";
    assert_eq!(told(&[endpoint, authorities]), [missing]);
    let headers = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "geheim");
    let form = "OTEL_EXPORTER_OTLP_METRICS_HEADERS is not of the form NAME=VALUE,…";
    // Nor is this sent as a log line.
    let no_logs = ("OTEL_LOGS_EXPORTER", "none");
    assert_eq!(told(&[headers, no_logs]), [form]);
    // A log line there is in each of these: it would be sent.
    let line = ("TRACEPARENT", "wrong");
    assert!(told(&[line, ("OTEL_SDK_DISABLED", "TRUE")]).is_empty());
    assert!(told(&[line, ("OTEL_LOGS_EXPORTER", "none")]).is_empty());
    assert_eq!(receiver.received(), Vec::<Value>::new());
}

#[test]
fn what_is_sent_by_tls_arrives_where_the_authority_is_trusted() {
    let Some(receiver) = Receiver::start_with_tls() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let mut command = parallax(dir.path(), &SYNC);
    receiver.listens_to(&mut command);
    // Nobody that the machine trusts has signed for it.
    let output = command.output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)));
    let errors = told(&output.stderr);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = errors[0].1.as_str().unwrap();
    assert!(error.ends_with("UnknownIssuer"), "{error}");

    let authority = format!("{CERTIFICATES}/authority.pem");
    let output = command
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)
        .output()
        .unwrap();
    assert_eq!(told(&output.stderr), []);
    let received = receiver.received();
    for (field, value) in [
        ("span", "sync"),
        ("log", "Sync completed"),
        ("metric", "parallax_syncs_total"),
    ] {
        assert_eq!(
            with(&received, field, value).len(),
            1,
            "{value}: {received:?}"
        );
    }
}

/// Returns the value of a sum or gauge for a connector, over all other labels.
fn sum_of(metrics: &[Value], name: &str) -> f64 {
    let points = with(metrics, "metric", name)
        .into_iter()
        .flat_map(|metric| metric["points"].as_array().unwrap());
    points.map(|point| point["value"].as_f64().unwrap()).sum()
}

#[test]
fn a_sync_sends_its_metrics_once() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let mut command = parallax(dir.path(), &SYNC);
    receiver.listens_to(&mut command);
    let output = command
        .arg("--json")
        .env("OTEL_SERVICE_NAME", "inventory")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none")
        .output()
        .unwrap();
    let sync: Value = serde_json::from_slice(&output.stdout).unwrap();
    // A plan is no sync, and a daemon is not asked for.
    let mut plan = parallax(dir.path(), &["plan", "host", "--account", "here"]);
    receiver.listens_to(&mut plan);
    plan.env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none");
    assert!(plan.output().unwrap().stderr.is_empty());

    let received = receiver.received();
    for (name, field) in [
        ("parallax_entities_created_total", "entities_created"),
        (
            "parallax_relationships_created_total",
            "relationships_created",
        ),
        ("parallax_entities", "entities_created"),
    ] {
        let counted = sync["stats"][field].as_f64().unwrap();
        assert!(counted > 0.0);
        assert_eq!(sum_of(&received, name), counted, "{name}");
    }
    assert_eq!(sum_of(&received, "parallax_syncs_total"), 1.0);
    assert_eq!(sum_of(&received, "parallax_syncs_in_progress"), 0.0);
    let created = with(&received, "metric", "parallax_entities_created_total");
    assert_eq!(created.len(), 1);
    let mut created = created[0].clone();
    created["points"][0]["value"] = Value::Null;
    let version = env!("CARGO_PKG_VERSION");
    let resource = &mut created["resource"];
    assert_eq!(resource["service.name"], "inventory");
    assert_eq!(resource["service.version"], version);
    *resource = Value::Null;
    assert_eq!(
        created,
        json!({
            "metric": "parallax_entities_created_total",
            "scope": "parallax",
            "resource": null,
            "help": "Entities that were not live before.",
            "unit": "",
            "kind": "sum",
            "cumulative": true,
            "monotonic": true,
            "points": [{"attributes": {"connector_id": "host"}, "start": true, "value": null}],
        })
    );
    let duration = with(&received, "metric", "parallax_sync_duration_seconds");
    assert_eq!(
        (&duration[0]["kind"], &duration[0]["unit"]),
        (&json!("histogram"), &json!("s"))
    );
    assert_eq!(duration[0]["points"][0]["count"], 1);
    let live = with(&received, "metric", "parallax_entities");
    assert_eq!(
        (&live[0]["kind"], &live[0]["points"][0]["start"]),
        (&json!("gauge"), &json!(false))
    );
}

#[test]
fn a_daemon_sends_what_it_shows_to_prometheus() {
    let Some(receiver) = Receiver::start("200") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let config = "store = { url = 'sqlite:parallax.db' }
        server = { listen = '127.0.0.1:0' }
        connector = [{ kind = 'host', account = 'here', every = '1h' }]";
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    let (log, stderr) = pipe().unwrap();
    let mut command = parallax(dir.path(), &["serve"]);
    receiver.listens_to(&mut command);
    let mut child = command
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    drop(command);
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let address = address.trim_end().rsplit('/').next().unwrap().to_owned();
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("\"Sync committed\"") || line.contains("\"Sync partial\""))
    );
    let scrape = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut scrape = String::new();
        stream.read_to_string(&mut scrape).unwrap();
        scrape
    };
    // The gauges are there a moment after the commit.
    while scrape().contains("parallax_entities{connector_id=\"host\"} 0\n") {}
    // The scrape that saw them may have read the counters before.
    let scrape = scrape();
    // Not only at the end.
    let first = receiver.next();
    send("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    lines.for_each(drop);
    let received = [vec![first], receiver.received()].concat();

    // Each metric was sent more than once; the last time, all was as it was shown.
    let mut last = BTreeMap::new();
    for metric in &received {
        last.insert(metric["metric"].as_str().unwrap(), metric);
    }
    assert!(received.len() > last.len());
    let mut sent = BTreeSet::new();
    for (name, metric) in &last {
        for point in metric["points"].as_array().unwrap() {
            let labels: BTreeSet<String> = point["attributes"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            let mut tell = |name: &str, value: &Value| {
                // To the millisecond: JSON is not read to the last bit.
                sent.insert(format!("{name} {labels:?} {:.3}", value.as_f64().unwrap()));
            };
            if metric["kind"] == "histogram" {
                tell(&format!("{name}_count"), &point["count"]);
                tell(&format!("{name}_sum"), &point["sum"]);
            } else {
                tell(name, &point["value"]);
            }
        }
    }
    let (_, body) = scrape.split_once("\r\n\r\n").unwrap();
    let shown: BTreeSet<String> = body
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty() && !line.contains("_bucket{"))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',');
            let labels: BTreeSet<&str> = labels.filter(|label| !label.is_empty()).collect();
            format!("{name} {labels:?} {:.3}", value.parse::<f64>().unwrap())
        })
        .collect();
    let differ: Vec<_> = sent.symmetric_difference(&shown).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

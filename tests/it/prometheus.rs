//! What Prometheus is told is what was committed; dashboards and alerts ask for what there is.
//!
//! With the real ones: `cargo xtask setup` finds or fetches Prometheus, promtool and the official
//! Python client, and `cargo xtask ci` names them. Where one is missing, its test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parallax_store::Store;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::lines;

mod books;

/// For whatever is waited for: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(20));
    }
}

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// Starts a tool that a variable names, or one on the path; says so where there is none.
fn tool(variable: &str, name: &str, command: &mut Command) -> Option<Child> {
    match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound && env::var_os(variable).is_none() => {
            println!("not checked: {name} is not there; `cargo xtask setup` fetches it");
            None
        }
        child => Some(child.unwrap()),
    }
}

fn named(variable: &str, name: &str) -> Command {
    Command::new(env::var(variable).unwrap_or_else(|_| name.to_owned()))
}

/// Returns the body of a page.
fn get(address: &str, path: &str, accept: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    // The older version, in which no body comes in pieces.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

/// A Prometheus, killed when it is dropped.
struct Prometheus {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` ten times a second and knows our rules.
    fn start(target: &str) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 100ms, evaluation_interval: 200ms }}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: parallax\n  \
               static_configs: [{{ targets: ['{target}'] }}]\n",
            dashboards().join("alerts.yml").display()
        );
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        // Free a moment ago: Prometheus cannot be given a socket, nor say which it took.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = named("PROMETHEUS", "prometheus");
        command
            .current_dir(directory.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log);
        let child = tool("PROMETHEUS", "Prometheus", &mut command)?;
        let mut prometheus = Self {
            child,
            address,
            _directory: directory,
        };
        wait_for("Prometheus", || {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus ended: {ended:?}");
            let ready = get(&prometheus.address, "/-/ready", "*/*")?;
            ready.contains("Ready").then_some(())
        });
        Some(prometheus)
    }

    /// Asks its API.
    fn api(&self, path: &str) -> Result<Value, String> {
        let body = get(&self.address, &format!("/api/v1/{path}"), "*/*");
        let answer: Value = serde_json::from_str(&body.unwrap_or_default())
            .map_err(|error| format!("{path}: {error}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(format!("{path}: {answer}")),
        }
    }

    /// Evaluates an expression now. Of each series, the values of its labels `by`, and its value.
    fn query(&self, expression: &str, by: &[&str]) -> Result<BTreeMap<String, f64>, String> {
        let escaped: String = expression
            .bytes()
            .map(|byte| match byte.is_ascii_alphanumeric() {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect();
        let data = self.api(&format!("query?query={escaped}"))?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let value = |series: &Value| {
            let labels = by
                .iter()
                .map(|by| series["metric"][by].as_str().unwrap_or("-"));
            let labels = labels.collect::<Vec<_>>().join(" ");
            let value = series["value"][1].as_str()?.parse().ok()?;
            Some((labels, value))
        };
        Ok(series.iter().filter_map(value).collect())
    }

    fn number(&self, expression: &str) -> Option<f64> {
        self.query(expression, &[]).unwrap().into_values().next()
    }

    /// Waits until a scrape that began after this call is stored.
    fn scrape_anew(&self) {
        // One that takes longer than the interval fails, and tells nothing.
        let last = || self.number("timestamp(up) and up == 1");
        // The first may have been under way.
        for _ in 0..2 {
            let before = last();
            wait_for("a scrape", || last().filter(|last| Some(*last) != before));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A `parallax serve` with four moody sources, killed when it is dropped.
struct Fleet {
    child: Child,
    address: String,
    directory: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = "[store]\nurl = 'sqlite:parallax.db'\n\
                          [server]\nlisten = '127.0.0.1:0'\n"
            .to_owned();
        for (name, account) in [("left", "1"), ("left", "2"), ("right", "1"), ("off", "1")] {
            let due = match name {
                "off" => "cron = '@yearly'",
                _ => "every = '1s'",
            };
            config += &format!(
                "[[connector]]\nkind = 'moody'\nname = '{name}'\naccount = '{account}'\n{due}\n"
            );
        }
        fs::write(directory.path().join("parallax.toml"), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleet"))
            .arg("serve")
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        Self {
            address: address.unwrap().to_owned(),
            child,
            directory,
        }
    }

    async fn store(&self) -> Store {
        let path = self.directory.path().join("parallax.db");
        Store::open_read_only(&format!("sqlite:{}", path.display()))
            .await
            .unwrap()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a query finds, as Prometheus would have it: the first cells are labels, the last a number.
/// A counter that is 0 has no row.
async fn stored(store: &Store, sql: &str) -> BTreeMap<String, f64> {
    let rows = lines(store, sql).await;
    rows.iter()
        .map(|row| {
            let (labels, value) = row.rsplit_once(' ').unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .filter(|(_, value)| *value > 0.0)
        .collect()
}

#[tokio::test]
async fn prometheus_knows_exactly_what_the_daemon_committed() {
    let fleet = Fleet::start();
    let Some(prometheus) = Prometheus::start(&fleet.address) else {
        return;
    };
    let told = |selector: &str, by: &[&str]| {
        // Also where the very last scrape failed: a busy machine may take too long for it.
        let last = format!("last_over_time({selector}[1m])");
        let mut told = prometheus.query(&last, by).unwrap();
        told.retain(|_, value| *value > 0.0);
        told
    };
    wait_for("the daemon", || {
        get(&fleet.address, "/readyz", "*/*")?
            .contains("ready\n")
            .then_some(())
    });
    let store = fleet.store().await;
    // Until each source has had all of its days.
    let started = Instant::now();
    let least = "SELECT coalesce(min(n), 0) FROM (
                     SELECT count(*) AS n FROM parallax_sync GROUP BY connector_id, account_id
                 ) HAVING count(*) = 3";
    while !matches!(lines(&store, least).await.first(), Some(n) if n.parse::<u64>().unwrap() > 8) {
        assert!(started.elapsed() < PATIENCE, "the syncs take too long");
        sleep(Duration::from_millis(20));
    }
    let syncs = async || lines(&store, "SELECT count(*) FROM parallax_sync").await;
    // Syncs go on: until nothing ended between the first look and the last.
    loop {
        assert!(started.elapsed() < PATIENCE, "there was never a pause");
        let before = syncs().await;
        prometheus.scrape_anew();
        let mut compared = Vec::new();
        for kind in ["entities", "relationships"] {
            for what in [
                "created",
                "updated",
                "unchanged",
                "deleted",
                "rejected",
                "duplicates",
            ] {
                let sql = format!(
                    "SELECT connector_id, sum({kind}_{what}) FROM parallax_sync GROUP BY 1"
                );
                let metric = format!("parallax_{kind}_{what}_total");
                compared.push((metric.clone(), told(&metric, &["connector_id"]), sql));
            }
            for what in [
                kind.to_owned(),
                format!("{kind}_held"),
                format!("{kind}_kept"),
            ] {
                let sql =
                    format!("SELECT connector_id, sum({what}) FROM parallax_source GROUP BY 1");
                let metric = format!("parallax_{what}");
                compared.push((metric.clone(), told(&metric, &["connector_id"]), sql));
            }
        }
        for (metric, by, sql) in [
            (
                "parallax_relationships_waiting",
                &["connector_id"][..],
                "SELECT connector_id, sum(relationships_waiting) FROM parallax_source GROUP BY 1",
            ),
            (
                "parallax_syncs_total",
                &["connector_id", "outcome"],
                "SELECT connector_id, outcome, count(*) FROM parallax_sync GROUP BY 1, 2",
            ),
            (
                "parallax_steps_total",
                &["connector_id", "step_id", "outcome"],
                "SELECT connector_id, step_id, status, count(*) FROM parallax_sync_step
                 GROUP BY 1, 2, 3",
            ),
            (
                "parallax_step_duration_seconds_count",
                &["connector_id", "step_id"],
                "SELECT connector_id, step_id, count(*) FROM parallax_sync_step
                 WHERE status <> 'skipped' GROUP BY 1, 2",
            ),
            (
                "parallax_sync_duration_seconds_bucket{le=\"+Inf\"}",
                &["connector_id"],
                "SELECT connector_id, count(*) FROM parallax_sync GROUP BY 1",
            ),
            (
                "parallax_commit_duration_seconds_count",
                &["connector_id"],
                "SELECT connector_id, count(*) FROM parallax_sync GROUP BY 1",
            ),
        ] {
            compared.push((metric.to_owned(), told(metric, by), sql.to_owned()));
        }
        let mut in_the_store = Vec::new();
        for (metric, told, sql) in compared {
            in_the_store.push((metric, told, stored(&store, &sql).await));
        }
        if syncs().await != before {
            continue;
        }
        for (metric, told, stored) in in_the_store {
            assert_eq!(told, stored, "{metric}");
            assert!(!stored.is_empty(), "{metric} was never anything");
        }
        break;
    }

    // What no view tells.
    let retries = told("parallax_step_retries_total", &["step_id", "kind"]);
    let kinds: Vec<_> = retries.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["users rate_limited", "users retryable"]);
    let waited = told("parallax_step_waited_seconds_total", &["kind"]);
    assert!(waited["rate_limited"] >= 1.0, "{waited:?}");
    let intervals = told("parallax_sync_interval_seconds", &["connector_id"]);
    assert_eq!((intervals["left"], intervals["right"]), (1.0, 1.0));
    assert!(intervals["off"] >= 365.0 * 86_400.0, "{intervals:?}");
    // It was asked for OpenMetrics, which alone has units.
    let metadata = prometheus.api("metadata?metric=parallax_sync_interval_seconds");
    let metadata = metadata.unwrap();
    assert_eq!(
        metadata["parallax_sync_interval_seconds"][0]["unit"],
        "seconds"
    );
}

/// Every query of a dashboard, with what Grafana would put in the place of its variables.
fn queries_of_dashboards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in ["overview.json", "source.json"] {
        let text = fs::read_to_string(dashboards().join(file)).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"]
                    .as_str()
                    .unwrap()
                    .replace("$__rate_interval", "1m")
                    .replace("$__range", "1h")
                    .replace("$connector_id", "left")
                    .replace("$instance", ".*")
                    .replace("$step_id", ".*");
                assert!(!expression.contains('$'), "{file}, {title}: {expression}");
                queries.push((format!("{file}, {title}"), expression));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            // label_values(SELECTOR, LABEL)
            if let Some(query) = variable["query"]["query"].as_str() {
                let inner = query.strip_prefix("label_values(").unwrap();
                let (selector, label) = inner.trim_end_matches(')').rsplit_once(", ").unwrap();
                let selector = selector
                    .replace("$connector_id", "left")
                    .replace("$instance", ".*");
                let query = format!("count by ({label}) ({selector})");
                queries.push((format!("{file}, variable {label}"), query));
            }
        }
    }
    queries
}

/// The metrics that an expression names.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expression
        .split(move |c| !is_of_a_name(c))
        .filter(|word| word.starts_with("parallax_"))
}

#[test]
fn dashboards_and_alerts_ask_for_what_there_is() {
    let fleet = Fleet::start();
    let Some(prometheus) = Prometheus::start(&fleet.address) else {
        return;
    };
    // Each series is there from the start: that of the source which is not synced, too.
    wait_for("series", || {
        prometheus.number("parallax_entities{connector_id=\"off\"}")
    });
    let names = prometheus.api("label/__name__/values").unwrap();
    let names: BTreeSet<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_str)
        .collect();

    let mut queries = queries_of_dashboards();
    let groups = wait_for("rules", || {
        let groups = prometheus.api("rules").unwrap()["groups"].clone();
        let rules = groups[0]["rules"].as_array()?;
        let evaluated = rules.iter().all(|rule| rule["health"] != "unknown");
        evaluated.then_some(groups)
    });
    for rule in groups[0]["rules"].as_array().unwrap() {
        assert_eq!(
            (&rule["health"], &rule["lastError"]),
            (&"ok".into(), &Value::Null),
            "{rule}"
        );
        let text = |field: &str| rule[field].as_str().unwrap().to_owned();
        queries.push((text("name"), text("query")));
    }
    assert!(queries.len() > 60, "{}", queries.len());

    let mut asked_for = BTreeSet::new();
    for (whose, query) in &queries {
        if let Err(error) = prometheus.query(query, &[]) {
            panic!("{whose}: {error}");
        }
        for name in metrics_in(query) {
            assert!(names.contains(name), "{whose}: there is no {name}");
            asked_for.insert(name);
        }
    }
    for (whose, query) in queries
        .iter()
        .filter(|(whose, _)| whose.contains("variable"))
    {
        assert!(!prometheus.query(query, &[]).unwrap().is_empty(), "{whose}");
    }
    // And the other way round: what is never looked at need not be recorded.
    let ours = names.iter().filter(|name| name.starts_with("parallax_"));
    let family = |name: &&str| {
        let ends = ["_bucket", "_sum", "_count"].iter();
        let mut ends = ends.filter_map(|end| name.strip_suffix(end));
        ends.next().unwrap_or(name).to_owned()
    };
    let families: BTreeSet<String> = ours.map(family).collect();
    let looked_at: BTreeSet<String> = asked_for.iter().map(family).collect();
    assert_eq!(families, looked_at);
}

#[test]
fn official_parser_reads_both_formats() {
    const PARSER: &str = "\
import sys
if sys.argv[1] == 'text':
    from prometheus_client.parser import text_string_to_metric_families as families
else:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
for family in sorted(families(sys.stdin.read()), key=lambda family: family.name):
    print(family.name, family.type, family.documentation, len(family.samples))
    if 'path' in family.samples[0].labels:
        print(repr(family.samples[0].labels['path']))
";
    let Ok(client) = env::var("PROMETHEUS_CLIENT") else {
        println!("not checked: prometheus_client is not there; `cargo xtask setup` fetches it");
        return;
    };
    let fleet = Fleet::start();
    let read = |format: &str, accept: &str| {
        let page = get(&fleet.address, "/metrics", accept).unwrap();
        let mut parser = Command::new("python3");
        parser
            .args(["-c", PARSER, format])
            .env("PYTHONPATH", &client);
        let mut parser = parser
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        parser
            .stdin
            .take()
            .unwrap()
            .write_all(page.as_bytes())
            .unwrap();
        let output = parser.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format}: {told}\n{page}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (text, openmetrics) = wait_for("a connector's own metric", || {
        let text = read("text", "*/*");
        let openmetrics = read("openmetrics", "application/openmetrics-text");
        let both = text.contains("moody_requests") && openmetrics.contains("moody_requests");
        both.then_some((text, openmetrics))
    });
    assert_eq!(text.lines().count(), openmetrics.lines().count());
    for (text, openmetrics) in text.lines().zip(openmetrics.lines()) {
        // A counter that is not called so has no type there.
        assert_eq!(
            text.replace("moody_requests counter", "moody_requests unknown"),
            openmetrics
        );
    }
    let hostile = r#"'a"b\\c\nd\x1b[31m le="1"'"#;
    assert!(text.lines().any(|line| line == hostile), "{text}");
    assert!(text.lines().count() > 30, "{text}");
}

/// A misspelt option changes nothing and is no error: Grafana shows its default.
#[test]
fn dashboards_are_made_of_what_grafana_knows() {
    const CHECKER: &str = "\
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

def lost(ours, known, path):
    if isinstance(ours, dict):
        for name, value in ours.items():
            if name in known:
                lost(value, known[name], f'{path}/{name}')
            else:
                print(f'{path}/{name}')
    elif isinstance(ours, list):
        for place, (value, same) in enumerate(zip(ours, known, strict=True)):
            lost(value, same, f'{path}/{place}')
    elif ours != known:
        print(f'{path}: {ours!r} {known!r}')

plugins.register_default_plugins()
ours = json.load(sys.stdin)
known = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
# What the editor shows of a variable; the query itself is known.
for variable in ours['templating']['list']:
    variable.pop('definition', None)
lost(ours, known, '')
";
    let Ok(sdk) = env::var("GRAFANA_SDK") else {
        println!("not checked: Grafana's SDK is not there; `cargo xtask setup` fetches it");
        return;
    };
    for name in ["overview.json", "source.json"] {
        let checked = Command::new("python3")
            .args(["-c", CHECKER])
            .env("PYTHONPATH", &sdk)
            .stdin(fs::File::open(dashboards().join(name)).unwrap())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{name}: {told}");
        assert_eq!(String::from_utf8(checked.stdout).unwrap(), "", "{name}");
    }
}

/// The alerts, by name.
fn alerts() -> Vec<String> {
    let rules = fs::read_to_string(dashboards().join("alerts.yml")).unwrap();
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

#[test]
fn alerts_do_as_their_tests_say() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let mut promtool = named("PROMTOOL", "promtool");
        promtool
            .args(arguments)
            .current_dir(dashboards())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let Some(promtool) = tool("PROMTOOL", "promtool", &mut promtool) else {
            return;
        };
        let output = promtool.wait_with_output().unwrap();
        let told =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
}

#[test]
fn every_alert_has_a_test_and_a_page_of_the_runbook() {
    let tests = fs::read_to_string(dashboards().join("alerts_test.yml")).unwrap();
    let runbook = fs::read_to_string(dashboards().join("../docs/src/runbook.md")).unwrap();
    let rules = fs::read_to_string(dashboards().join("alerts.yml")).unwrap();
    let alerts = alerts();
    assert_eq!(alerts.len(), 12);
    for alert in &alerts {
        let mut cases = tests.split("alertname: ");
        let fires =
            |case: &str| case.starts_with(&format!("{alert}\n")) && case.contains("- exp_labels:");
        assert!(cases.any(fires), "{alert} never fires in a test");
        let page = runbook.split(&format!("\n## {alert}\n")).nth(1);
        let page = page.and_then(|page| page.split("\n## ").next());
        let page = page.unwrap_or_else(|| panic!("{alert} is not in the runbook"));
        for part in ["**Means.**", "**Look.**", "**Do.**"] {
            assert!(page.contains(part), "{alert}: {part} is missing");
        }
        let link = format!("docs/src/runbook.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} has no link");
    }
}

//! The daemon: what it counts, how it ends, and what a crash leaves.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write, pipe};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::desk::{find_users, parallax, run, send};

mod any_request;

/// For whatever is waited for: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIG: &str = "
[store]
url = 'sqlite:parallax.db'
[server]
listen = '127.0.0.1:0'
[[connector]]
kind = 'host'
account = 'here'
every = '1s'
";

fn desk() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("parallax.toml"), CONFIG).unwrap();
    dir
}

/// Waits until `condition` gives something.
fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(5));
    }
}

/// A daemon, killed when it is dropped.
struct Daemon {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts one, and returns once it listens.
    fn start(dir: &Path) -> Self {
        let log = File::create(dir.join("log")).unwrap();
        Self::logging_to(dir, log)
    }

    fn logging_to(dir: &Path, stderr: impl Into<Stdio>) -> Self {
        let log = dir.join("log");
        let mut command = parallax(dir, &["serve"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.and_then(|url| Some(url.split_once("://")?.1));
        let address = address.map(str::to_owned).unwrap_or_else(|| {
            panic!("{line:?}: {}", fs::read_to_string(&log).unwrap());
        });
        Self {
            child,
            address,
            log,
        }
    }

    /// Returns the status and the body of a page.
    fn get(&self, path: &str) -> (String, String) {
        self.ask("GET", path, "")
    }

    /// Sends a request with more headers, and returns the status and the body of the answer.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Sends a request by TLS to whoever is `localhost` by our authority, and returns the status and
    /// body of the answer with the certificate that was shown.
    fn ask_by_tls(&self, path: &str, headers: &str) -> (String, String, Vec<u8>) {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&certificate("authority.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(tls, TcpStream::connect(self.local()).unwrap());
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
        (
            head.lines().next().unwrap().to_owned(),
            body.to_owned(),
            shown,
        )
    }

    fn local(&self) -> String {
        self.address.replace("0.0.0.0", "127.0.0.1")
    }

    /// Returns the sum of a metric's series.
    fn counted(metrics: &str, name: &str) -> u64 {
        let values = metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let series = series.split('{').next()?;
            // A time has decimals, and nobody needs them here.
            let whole = value.split('.').next()?;
            (series == name).then(|| whole.parse::<u64>().unwrap())
        });
        values.sum()
    }

    fn syncs_counted(&self) -> u64 {
        Self::counted(&self.get("/metrics").1, "parallax_syncs_total")
    }

    fn wait_for_log(&self, words: &str) {
        wait_for(words, || {
            fs::read_to_string(&self.log)
                .unwrap()
                .contains(words)
                .then_some(())
        });
    }

    /// Sends a signal, and returns the exit code and how long the end took.
    fn end(mut self, signal: &str) -> (Option<i32>, Duration, String) {
        let started = Instant::now();
        send(signal, &self.child);
        let status = self.child.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        (status.code(), started.elapsed(), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn syncs(dir: &Path) -> Vec<Value> {
    let (code, syncs, stderr) = run(dir, &["syncs", "--json", "--limit", "1000"]);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&syncs).unwrap()
}

fn sum(syncs: &[Value], field: &str) -> u64 {
    syncs.iter().map(|sync| sync[field].as_u64().unwrap()).sum()
}

fn number(dir: &Path, sql: &str) -> u64 {
    let (_, rows, stderr) = run(dir, &["query", "--json", sql]);
    let rows: Value = serde_json::from_str(&rows).unwrap_or_else(|_| panic!("{stderr}"));
    rows[0]["n"].as_u64().unwrap_or(0)
}

#[test]
fn metrics_are_the_sums_of_the_syncs_and_sigterm_ends_it() {
    let dir = desk();
    let daemon = Daemon::start(dir.path());
    wait_for("two syncs", || (daemon.syncs_counted() >= 2).then_some(()));
    assert_eq!(
        daemon.get("/readyz"),
        ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned())
    );
    // Syncs go on: until both were looked at between the same two of them.
    let (metrics, syncs) = wait_for("the same syncs on both sides", || {
        let metrics = daemon.get("/metrics").1;
        let syncs = syncs(dir.path());
        let counted = Daemon::counted(&metrics, "parallax_syncs_total");
        (counted == syncs.len() as u64).then_some((metrics, syncs))
    });
    for what in [
        "entities_created",
        "entities_deleted",
        "relationships_created",
    ] {
        let counted = Daemon::counted(&metrics, &format!("parallax_{what}_total"));
        assert_eq!(counted, sum(&syncs, what), "{what}");
    }
    assert!(sum(&syncs, "entities_created") > 0);
    check_with_promtool(&metrics);

    let (code, took, log) = daemon.end("TERM");
    assert_eq!(code, Some(143), "{log}");
    assert!(took < Duration::from_secs(11), "{took:?}");
    assert!(
        log.lines()
            .all(|line| line.starts_with('{') && line.ends_with('}')),
        "{log}"
    );
    assert!(log.contains("\"Stopped\""), "{log}");
}

/// Where there is no promtool, the metrics crate's own tests have to do.
fn check_with_promtool(metrics: &str) {
    let mut command =
        Command::new(std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned()));
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        promtool => promtool.unwrap(),
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    assert!(promtool.wait().unwrap().success());
}

#[test]
fn sigint_in_the_middle_of_a_run_commits_nothing_more() {
    let dir = desk();
    let daemon = Daemon::start(dir.path());
    daemon.wait_for_log("\"Step started\"");
    let (code, _, log) = daemon.end("INT");
    assert_eq!(code, Some(130), "{log}");
    let committed =
        log.matches("\"Sync committed\"").count() + log.matches("\"Sync partial\"").count();
    assert_eq!(syncs(dir.path()).len(), committed, "{log}");
}

#[test]
fn killed_daemon_leaves_a_store_whose_books_balance() {
    let dir = desk();
    for round in 0..3 {
        let daemon = Daemon::start(dir.path());
        // From here on the commit runs.
        daemon.wait_for_log("\"Sync completed\"");
        let (code, ..) = daemon.end("KILL");
        assert_eq!(code, None, "round {round}");
        let syncs = syncs(dir.path());
        for kind in ["entities", "relationships"] {
            let live =
                sum(&syncs, &format!("{kind}_created")) - sum(&syncs, &format!("{kind}_deleted"));
            let source = format!("SELECT sum({kind}) AS n FROM parallax_source");
            assert_eq!(number(dir.path(), &source), live, "round {round}");
        }
        let entities = number(dir.path(), "SELECT count(*) AS n FROM parallax_entity");
        let told = number(dir.path(), "SELECT sum(entities) AS n FROM parallax_source");
        assert_eq!(entities, told, "round {round}");
    }

    let before = syncs(dir.path()).len();
    let daemon = Daemon::start(dir.path());
    wait_for("two syncs", || (daemon.syncs_counted() >= 2).then_some(()));
    drop(daemon);
    // Of what does not change by itself, everything was created once and then left alone.
    let all = syncs(dir.path());
    assert!(all.len() >= before + 2);
    let sql = "SELECT count(DISTINCT created_sync_id) AS n FROM parallax_entity \
               WHERE type IN ('host_package', 'host_user', 'host_group')";
    assert_eq!(number(dir.path(), sql), 1);
    let sql = "SELECT count(*) AS n FROM parallax_change \
               WHERE type IN ('host_package', 'host_user', 'host_group')";
    assert_eq!(number(dir.path(), sql), 0);
}

#[test]
fn store_is_copied_and_verified_while_a_daemon_writes() {
    let dir = desk();
    let daemon = Daemon::start(dir.path());
    wait_for("a sync", || (!syncs(dir.path()).is_empty()).then_some(()));
    let (code, _, stderr) = run(dir.path(), &["store", "backup", "backup.db"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, found, _) = run(dir.path(), &["store", "verify"]);
    assert_eq!(code, 0, "{found}");
    drop(daemon);
    let copy = ["store", "verify", "--store", "sqlite:backup.db"];
    let (code, found, _) = run(dir.path(), &copy);
    assert_eq!(code, 0, "{found}");
    // A store of its own: nobody holds its lock, and a sync goes on where it was copied.
    let (_, synced, _) = run(
        dir.path(),
        &[
            "sync",
            "host",
            "--json",
            "--account",
            "here",
            "--store",
            "sqlite:backup.db",
        ],
    );
    let synced: Value = serde_json::from_str(&synced).unwrap();
    assert!(
        synced["stats"]["entities_unchanged"].as_u64() > Some(0),
        "{synced}"
    );
}

#[test]
fn restarted_daemon_knows_what_is_stored_before_its_first_sync() {
    let dir = desk();
    let args = ["sync", "host", "--account", "here"];
    assert!(matches!(run(dir.path(), &args).0, 0 | 3));
    let stored = number(dir.path(), "SELECT entities AS n FROM parallax_source");
    // Its first sync is due within a tenth of this.
    let rare = CONFIG.replace("1s", "300d");
    fs::write(dir.path().join("parallax.toml"), rare).unwrap();
    let daemon = Daemon::start(dir.path());
    wait_for("readiness", || {
        (daemon.get("/readyz").1 == "ready\n").then_some(())
    });
    let metrics = daemon.get("/metrics").1;
    assert_eq!(Daemon::counted(&metrics, "parallax_entities"), stored);
    assert_eq!(Daemon::counted(&metrics, "parallax_syncs_total"), 0);
    let last = Daemon::counted(&metrics, "parallax_sync_last_success_timestamp_seconds");
    assert!(last > 1_700_000_000, "{last}");
}

#[test]
fn restarted_daemon_knows_what_is_held_and_that_somebody_decided() {
    let dir = desk();
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    // Its first sync is due within a tenth of this.
    let rare = CONFIG.replace("1s", "300d");
    fs::write(dir.path().join("parallax.toml"), rare).unwrap();
    let daemon = Daemon::start(dir.path());
    wait_for("readiness", || {
        (daemon.get("/readyz").1 == "ready\n").then_some(())
    });
    let metrics = daemon.get("/metrics").1;
    assert_eq!(Daemon::counted(&metrics, "parallax_entities_held"), 12);
    assert_eq!(run(dir.path(), &["held", "1"]).0, 0);
    let (code, _, stderr) = run(dir.path(), &["approve", "1", "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    wait_for("the gauges", || {
        let metrics = daemon.get("/metrics").1;
        (Daemon::counted(&metrics, "parallax_entities_held") == 0).then_some(())
    });
}

#[test]
fn gauges_are_of_the_sources_of_the_configuration() {
    let dir = desk();
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let other = CONFIG.replace("here", "there").replace("1s", "300d");
    fs::write(dir.path().join("parallax.toml"), other).unwrap();
    let daemon = Daemon::start(dir.path());
    // What somebody decides of another account is in the gauges no more than what it has.
    let (code, _, stderr) = run(dir.path(), &["reject", "1"]);
    assert_eq!(code, 0, "{stderr}");
    wait_for("a sync", || (daemon.syncs_counted() >= 1).then_some(()));
    let sql = "SELECT entities AS n FROM parallax_source WHERE account_id = 'there'";
    let stored = number(dir.path(), sql);
    let gauge = |name: &str| Daemon::counted(&daemon.get("/metrics").1, name);
    wait_for("the gauges", || {
        (gauge("parallax_entities") == stored).then_some(())
    });
    // What is forgotten is still expected.
    let overdue = gauge("parallax_sync_overdue_timestamp_seconds");
    let (code, _, stderr) = run(dir.path(), &["forget", "host", "there", "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    wait_for("the gauges", || {
        (gauge("parallax_entities") == 0).then_some(())
    });
    let interval = 300 * 24 * 60 * 60;
    assert_eq!(gauge("parallax_sync_interval_seconds"), interval);
    let again = gauge("parallax_sync_overdue_timestamp_seconds");
    assert!(again >= overdue, "{again} {overdue}");
}

#[test]
fn daemon_counts_what_it_holds() {
    let dir = desk();
    // This machine's connector has other steps: until one sync was complete, nothing is deleted.
    assert_eq!(find_users(dir.path(), 12), 0);
    // Within a second, and then no more for long.
    let config = CONFIG.replace("1s", "10s");
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    let daemon = Daemon::start(dir.path());
    wait_for("a sync", || (daemon.syncs_counted() >= 1).then_some(()));
    let metrics = daemon.get("/metrics").1;
    assert_eq!(Daemon::counted(&metrics, "parallax_changesets_total"), 1);
    assert_eq!(Daemon::counted(&metrics, "parallax_entities_held"), 12);
    let (code, _, log) = daemon.end("TERM");
    assert_eq!(
        (code, log.matches("\"Deletes held\"").count()),
        (Some(143), 1),
        "{log}"
    );
    assert_eq!(run(dir.path(), &["reject", "1"]).0, 0);
}

#[test]
fn daemon_outlives_whoever_reads_its_log() {
    let dir = desk();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let daemon = Daemon::logging_to(dir.path(), writer);
    wait_for("two syncs", || (daemon.syncs_counted() >= 2).then_some(()));
}

#[test]
fn second_daemon_is_refused_at_once() {
    let dir = desk();
    let first = Daemon::start(dir.path());
    let (_, port) = first.address.rsplit_once(':').unwrap();
    let same_address = format!("127.0.0.1:{port}");
    for (args, expected, words) in [
        (
            &["serve"][..],
            5,
            format!("is in use by process {}", first.child.id()),
        ),
        (
            &["serve", "--listen", &same_address],
            5,
            format!("is in use by process {}", first.child.id()),
        ),
        (
            &[
                "serve",
                "--listen",
                &same_address,
                "--store",
                "sqlite:other.db",
            ],
            2,
            format!("cannot listen on {same_address}"),
        ),
    ] {
        let (code, stdout, stderr) = run(dir.path(), args);
        assert_eq!(code, expected, "{stderr}");
        assert!(stderr.contains(&words), "{stderr}");
        assert!(expected == 2 || !stdout.contains(&same_address), "{stdout}");
    }
    assert!(!dir.path().join("other.db").exists());
}

#[test]
fn wrong_configuration_starts_nothing() {
    let dir = desk();
    let wrong = CONFIG
        .replace("kind", "knd")
        .replace("127.0.0.1", "0.0.0.0");
    fs::write(dir.path().join("wrong.toml"), wrong).unwrap();
    for (line, words) in [
        (
            "serve --config wrong.toml",
            "error: wrong.toml:7: there is no \"knd\"",
        ),
        (
            "serve --config wrong.toml",
            "error: wrong.toml:5: 0.0.0.0:0 can be reached",
        ),
        ("check --config wrong.toml", "help: did you mean \"kind\"?"),
        (
            "serve --config none.toml",
            "error: cannot read none.toml: No such file",
        ),
        (
            "serve --listen 0.0.0.0:0",
            "or allow it with --insecure-http",
        ),
        ("serve --listen nowhere", "--listen"),
        ("serve --store nope:x", "is not a store URL"),
    ] {
        let (code, stdout, stderr) = run(dir.path(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!((code, stdout.as_str()), (2, ""), "{line}: {stderr}");
        assert!(stderr.contains(words), "{line}: {stderr}");
    }
    let (code, stdout, _) = run(dir.path(), &["check"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(!dir.path().join("parallax.db").exists());
}

/// The same configuration, but for another account that is synced once.
fn quiet_desk() -> TempDir {
    let dir = desk();
    let config = CONFIG.replace("'here'", "'there'").replace("1s", "1h");
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    dir
}

fn admin_token(dir: &Path) -> String {
    let tokens = fs::read_to_string(dir.join("parallax.db.tokens")).unwrap();
    let mut lines = tokens.lines();
    let token = lines.find_map(|line| line.strip_prefix("admin "));
    token.unwrap().to_owned()
}

#[test]
fn commands_that_write_go_through_the_daemon_that_holds_the_store() {
    let dir = quiet_desk();
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let daemon = Daemon::start(dir.path());
    let approve = ["approve", "1", "--yes"];
    let (code, stdout, stderr) = run(dir.path(), &approve);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        stdout,
        "Approved changeset 1: deleted 12 entities of host, account here\n"
    );
    daemon.wait_for_log("Request to change something");
    let again = run(dir.path(), &approve);
    let metrics = daemon.get("/metrics").1;
    let approved = "parallax_changesets_total{connector_id=\"host\",outcome=\"approved\"} 1\n";
    assert!(metrics.contains(approved), "{metrics}");
    let deleted = Daemon::counted(&metrics, "parallax_entities_deleted_total");
    assert_eq!(deleted, 12, "{metrics}");
    let object = run(dir.path(), &["approve", "1", "--yes", "--json"]);
    let slips = [
        ["reject", "1", "--json"],
        ["approve", "7", "--yes"],
        ["forget", "host", "nobody"],
    ];
    let slips_beside = slips.map(|line| run(dir.path(), &line));
    let forget = ["forget", "host", "here", "--yes", "--json"];
    let (code, stdout, stderr) = run(dir.path(), &forget);
    assert_eq!(code, 0, "{stderr}");
    let removed: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(removed["entities"], 0, "{removed}");
    assert!(dir.path().join("parallax.db.daemon").exists());
    // Nothing is asked of one that was killed: its lock is free.
    drop(daemon);
    assert!(dir.path().join("parallax.db.daemon").exists());
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let (code, stdout, stderr) = run(dir.path(), &["approve", "2", "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("Approved changeset 2: "), "{stdout}");
    // What is said is the same.
    let alone = run(dir.path(), &["approve", "2", "--yes"]);
    let of_two = |text: &str| {
        text.replace("changeset 1", "changeset 2")
            .replace("Changeset 1", "Changeset 2")
    };
    assert_eq!((alone.0, alone.1), (again.0, of_two(&again.1)));
    let object_alone = run(dir.path(), &["approve", "2", "--yes", "--json"]);
    assert_eq!(
        object_alone.1,
        object.1.replace("\"changeset\":1", "\"changeset\":2")
    );
    assert_eq!(slips_beside.map(|(code, ..)| code), [2, 2, 2]);
    // One that ends leaves nothing behind but its tokens.
    let daemon = Daemon::start(dir.path());
    assert_eq!(daemon.end("TERM").0, Some(143));
    assert!(!dir.path().join("parallax.db.daemon").exists());
    assert!(dir.path().join("parallax.db.tokens").exists());
}

/// Returns a file of `tests/certificates`, whose script says what is in it.
fn certificate(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    fs::read(directory.join(name)).unwrap()
}

/// Puts a certificate and its key where the configuration says they are.
fn certify(dir: &Path, name: &str) {
    for (file, end) in [("cert.pem", "pem"), ("key.pem", "key")] {
        fs::write(dir.join(file), certificate(&format!("{name}.{end}"))).unwrap();
        fs::set_permissions(dir.join(file), Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn daemon_speaks_tls_and_takes_a_renewed_certificate() {
    let dir = quiet_desk();
    let config = fs::read_to_string(dir.path().join("parallax.toml")).unwrap();
    let config = config.replace(
        "listen = '127.0.0.1:0'",
        "listen = '0.0.0.0:0'\ntls = { certificate = 'cert.pem', key = 'key.pem' }",
    );
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    let (code, _, stderr) = run(dir.path(), &["check"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("cert.pem: there is no such file"),
        "{stderr}"
    );
    certify(dir.path(), "server");
    let (code, stdout, stderr) = run(dir.path(), &["check"]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(
        stdout.contains("listen     https://0.0.0.0:0\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains("cert.pem, valid until 2120-01-01T00:00:00Z\n"),
        "{stdout}"
    );

    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let daemon = Daemon::start(dir.path());
    let (status, body, first) = daemon.ask_by_tls("/livez", "");
    assert_eq!((&*status, &*body), ("HTTP/1.1 200 OK", "alive\n"));
    assert!(daemon.ask_by_tls("/metrics", "").0.contains("401"));
    let tokens = fs::read_to_string(dir.path().join("parallax.db.tokens")).unwrap();
    let token = tokens.lines().find_map(|line| line.strip_prefix("read "));
    let bearer = format!("Authorization: Bearer {}\r\n", token.unwrap());
    assert!(daemon.ask_by_tls("/metrics", &bearer).0.contains("200"));
    let mut plain = TcpStream::connect(daemon.local()).unwrap();
    write!(plain, "GET /metrics HTTP/1.1\r\nHost: x\r\n{bearer}\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"tls_needed\""), "{answer}");

    // The commands trust the daemon's certificate, and nobody else's in its place.
    let whereabouts = dir.path().join("parallax.db.daemon");
    let right = fs::read_to_string(&whereabouts).unwrap();
    let mut wrong: Value = serde_json::from_str(&right).unwrap();
    wrong["certificate"] = "0".repeat(64).into();
    fs::write(&whereabouts, wrong.to_string()).unwrap();
    let approve = ["approve", "1", "--yes"];
    let (code, _, stderr) = run(dir.path(), &approve);
    assert_eq!(code, 5, "{stderr}");
    assert!(
        stderr.contains("another certificate than its file names"),
        "{stderr}"
    );
    fs::write(&whereabouts, right).unwrap();
    let (code, stdout, stderr) = run(dir.path(), &approve);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("Approved changeset 1: "), "{stdout}");

    certify(dir.path(), "renewed");
    daemon.wait_for_log("\"Certificate renewed\"");
    assert_ne!(daemon.ask_by_tls("/livez", "").2, first);
    let (code, _, stderr) = run(dir.path(), &approve);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, log) = daemon.end("TERM");
    assert_eq!(code, Some(143), "{log}");
    assert!(!whereabouts.exists());
}

#[test]
fn hostile_clients_are_refused_and_nobody_else_waits() {
    let dir = quiet_desk();
    let daemon = Daemon::start(dir.path());
    let half_open: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(&daemon.address).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHos").unwrap();
            stream
        })
        .collect();
    assert_eq!(daemon.get("/livez").1, "alive\n");
    let token = admin_token(dir.path());
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let path = "/api/v1/changesets/1/approve";
    let refused = |count: u64| {
        let metrics = daemon.get("/metrics").1;
        let expected = format!("\nparallax_refused_tokens_total {count}\n");
        assert!(metrics.contains(&expected), "{metrics}");
    };
    refused(0);
    for (headers, expected) in [
        (String::new(), "401"),
        ("Authorization: Bearer 0\r\n".to_owned(), "401"),
        (format!("{bearer}Origin: http://evil.example\r\n"), "403"),
        (format!("{bearer}{bearer}"), "401"),
        (format!("{bearer}Content-Length: 100000000\r\n"), "413"),
        (
            format!("{bearer}Content-Encoding: gzip\r\nContent-Length: 10\r\n"),
            "415",
        ),
        (format!("{bearer}Content-Length: 0\r\n"), "404"),
    ] {
        let (status, body) = daemon.ask("POST", path, &headers);
        assert!(status.contains(expected), "{headers}: {status}: {body}");
    }
    refused(2);
    // A body without an end is not read to its end.
    let mut endless = TcpStream::connect(&daemon.address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n",
        daemon.address
    );
    endless.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let sent = (0..10_000)
        .take_while(|_| endless.write_all(&chunk).is_ok())
        .count();
    assert!(sent < 10_000, "all of {sent} chunks were taken");
    // Whoever sends half of a head is cut off.
    for mut stream in half_open {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
    }
    assert_eq!(daemon.get("/livez").1, "alive\n");
}

/// The configuration of the account that the tests sync by hand, synced by the daemon once.
fn shared_desk() -> TempDir {
    let dir = desk();
    let config = CONFIG.replace("every = '1s'", "every = '6h'\njitter = '0s'");
    fs::write(dir.path().join("parallax.toml"), config).unwrap();
    dir
}

#[test]
fn sync_goes_through_the_daemon_that_holds_the_store() {
    let dir = shared_desk();
    let sync = ["sync", "host", "--account", "here", "--json"];
    let (code_alone, alone, _) = run(dir.path(), &sync);
    let daemon = Daemon::start(dir.path());
    wait_for("the first sync", || {
        (daemon.syncs_counted() > 0).then_some(())
    });
    let (code, beside, stderr) = run(dir.path(), &sync);
    assert_eq!(code, code_alone, "{stderr}");
    daemon.wait_for_log("Request to change something");
    // What is said is the same, but for times and ids.
    let of = |json: &str| -> Value {
        let mut object: Value = serde_json::from_str(json).unwrap();
        for step in object["steps"].as_array_mut().unwrap() {
            for field in ["duration_ms", "entities", "relationships"] {
                step[field].take();
            }
        }
        for field in ["sync_id", "duration_ms", "stats", "types", "changes"] {
            object[field].take();
        }
        object
    };
    assert_eq!(of(&beside), of(&alone));
    let object: Value = serde_json::from_str(&beside).unwrap();
    let sync_id = object["sync_id"].as_str().unwrap();
    let stored = format!("SELECT count(*) AS n FROM parallax_sync WHERE sync_id = '{sync_id}'");
    assert_eq!(number(dir.path(), &stored), 1);
    let (code, text, stderr) = run(dir.path(), &sync[..4]);
    assert_eq!(code, code_alone, "{stderr}");
    assert!(
        text.starts_with("Committed host, account here, sync "),
        "{text}"
    );

    // What cannot be passed on, and what the daemon does not sync.
    for (line, words) in [
        (
            ["sync", "host", "--account", "here", "--select", "users"],
            "--select cannot be passed on",
        ),
        (
            ["sync", "host", "--account", "here", "--sync-id", "x"],
            "--sync-id cannot be passed on",
        ),
    ] {
        let (code, stdout, stderr) = run(dir.path(), &line);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let (code, _, stderr) = run(dir.path(), &["sync", "host", "--account", "nowhere"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("does not sync host in account \"nowhere\""),
        "{stderr}"
    );
    assert!(
        stderr.contains("stop the daemon") && stderr.contains("it syncs host \"here\""),
        "{stderr}"
    );
    // The daemon knows which account that is; this process would read another.
    let (code, text, stderr) = run(dir.path(), &["sync", "host"]);
    assert_eq!(code, code_alone, "{stderr}");
    assert!(
        text.starts_with("Committed host, account here, sync "),
        "{text}"
    );
    // A plan reads beside it.
    let (code, ..) = run(dir.path(), &["plan", "host", "--account", "here"]);
    assert_eq!(code, code_alone);
}

#[test]
fn source_that_cannot_be_synced_stops_no_other_and_heals() {
    let dir = TempDir::new().unwrap();
    let late = |account: &Path, cron: &str| {
        format!(
            "[[connector]]\nkind = 'host'\nname = 'late'\naccount = {{ file = {account:?} }}\n\
             cron = '{cron}'\n"
        )
    };
    let accounts = [dir.path().join("account"), dir.path().join("other account")];
    let more = late(&accounts[1], "@daily") + &late(&accounts[0], "@hourly");
    fs::write(dir.path().join("parallax.toml"), CONFIG.to_owned() + &more).unwrap();
    let daemon = Daemon::start(dir.path());
    daemon.wait_for_log("Source cannot be synced");
    wait_for("the first sync", || {
        (daemon.syncs_counted() > 0).then_some(())
    });
    let ready = |broken| {
        format!("ready, but {broken} of 3 sources cannot be synced: see /api/v1/sources\n")
    };
    assert_eq!(
        daemon.get("/readyz"),
        ("HTTP/1.1 200 OK".to_owned(), ready(2))
    );
    let source = |account: &str| -> Value {
        let (_, body) = daemon.get(&format!("/api/v1/sources/late/{account}"));
        serde_json::from_str(&body).unwrap()
    };
    let listed: Value = serde_json::from_str(&daemon.get("/api/v1/sources").1).unwrap();
    let late = &listed["items"][1];
    assert_eq!(
        (&late["connector_id"], &late["account_id"]),
        (&"late".into(), &"".into())
    );
    assert_eq!(
        (&late["activity"], &late["schedule"]),
        (&"broken".into(), &"@hourly (UTC)".into())
    );
    let reason = late["broken"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("account is to come from the file "),
        "{reason}"
    );
    assert!(late["next_due_at"].is_string(), "{late}");
    let is_shown = |lines: [&str; 2]| {
        let metrics = daemon.get("/metrics").1;
        lines.iter().all(|line| metrics.contains(line))
    };
    // The longest interval of both.
    let interval = "parallax_sync_interval_seconds{connector_id=\"late\"} 86400\n";
    assert!(is_shown([interval, "\nparallax_sources_broken 2\n"]));

    fs::write(&accounts[0], "found\n").unwrap();
    wait_for("the source to heal", || {
        (daemon.get("/readyz").1 == ready(1)).then_some(())
    });
    assert!(is_shown([interval, "\nparallax_sources_broken 1\n"]));
    fs::write(&accounts[1], "found, too\n").unwrap();
    wait_for("the other source to heal", || {
        (daemon.get("/readyz").1 == "ready\n").then_some(())
    });
    assert!(is_shown([interval, "\nparallax_sources_broken 0\n"]));
    let late = source("found");
    assert_eq!(
        (&late["activity"], &late["broken"]),
        (&"idle".into(), &Value::Null)
    );
    let listed: Value = serde_json::from_str(&daemon.get("/api/v1/sources").1).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    // It can be synced like any other.
    let (code, _, stderr) = run(dir.path(), &["check"]);
    assert_eq!(code, 0, "{stderr}");
    let log = fs::read_to_string(&daemon.log).unwrap();
    assert!(log.contains("Source can be synced now"), "{log}");
}

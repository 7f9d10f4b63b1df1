use std::path::PathBuf;

use parallax_connect::{ResultExt, Retries, Step, StepContext, entity, relationship, step};
use parallax_store::Store;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// A connector of steps such as `users=2`, which emits two entities and as many relationships,
/// and `roles<users=reset`, which comes after and fails.
pub(crate) struct Scripted(pub(crate) String);

impl Connector for Scripted {
    fn name(&self) -> &str {
        "team"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        self.0.split(' ').map(scripted).collect()
    }
}

fn scripted(script: &str) -> Step<'_> {
    let (name, end) = script.split_once('=').unwrap();
    let (id, after) = name.split_once('<').unwrap_or((name, ""));
    step(id, format!("Collect {id}"), move |ctx| perform(ctx, end))
        .depends_on(Some(after).filter(|id| !id.is_empty()))
        .retries(Retries::up_to(0))
}

async fn perform(ctx: StepContext, end: &str) -> Result<(), ConnectorError> {
    let n: u32 = match end {
        "reset" => return Err(ConnectorError::retryable("connection reset")),
        "denied" => return Err(ConnectorError::unauthorized("403")),
        "no" => return Err(ConnectorError::fatal("no such thing")),
        n => n.parse().fatal("read the script")?,
    };
    for n in 0..n {
        let user = entity("team_user", format!("{}-{n}", ctx.step_id()));
        let first = ("team_user", format!("{}-0", ctx.step_id()));
        ctx.emit(relationship(&user, "KNOWS", first))?;
        ctx.emit(user)?;
    }
    Ok(())
}

/// A directory with a store in it, and a tool with one scripted connector.
pub(crate) struct Desk {
    dir: TempDir,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            out: String::new(),
            err: String::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("parallax.db").display())
    }

    pub(crate) fn run(&mut self, script: &str, args: &str) -> u8 {
        let script = script.to_owned();
        let app = App::new().register("team", "People", move || {
            Ok(Opened::new(Scripted(script.clone())).default_account(Ok("acme")))
        });
        self.run_app(&app, args)
    }

    pub(crate) fn run_app(&mut self, app: &App, args: &str) -> u8 {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let store = self.store();
        let args = ["parallax"].into_iter().chain(args.split_whitespace());
        let args = args.map(|arg| arg.replace("STORE", &store));
        let code = app.run(args, &mut out, &mut err);
        self.out = String::from_utf8(out).unwrap();
        self.err = String::from_utf8(err).unwrap();
        code
    }

    /// Returns a part of the one object on the standard output, as text.
    pub(crate) fn json(&self, pointer: &str) -> String {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        let object: Value = serde_json::from_str(&self.out).unwrap();
        object.pointer(pointer).unwrap().to_string()
    }
}

#[test]
fn second_sync_tells_the_difference() {
    let mut desk = Desk::new();
    assert_eq!(desk.run("users=3", "sync team --store STORE"), 0);
    let line = "sync team --store STORE --sync-id s-2";
    assert_eq!(desk.run("users=2", line), 0);
    assert_eq!(desk.err, "");
    // The last line tells how long it took.
    let (summary, _) = desk.out.trim_end().rsplit_once('\n').unwrap();
    insta::assert_snapshot!(summary, @"
    Committed team, account acme, sync s-2

                   unchanged  deleted
    ─────────────────────────────────
    team_user              2        1
    KNOWS                  2        1
    ─────────────────────────────────
    entities               2        1
    relationships          2        1

    - team_user users-2
    ");
    assert_eq!(desk.run("users=2", line), 0);
    assert!(
        desk.out.starts_with("Committed before: team"),
        "{}",
        desk.out
    );
}

#[test]
fn each_end_has_its_exit_code() {
    let table = [
        ("committed", "a=1"),
        ("partial", "a=1 b=reset c<b=1"),
        ("unreachable", "a=reset b<a=1"),
        ("unauthorized", "a=reset b=denied"),
        ("failed", "a=no b=reset"),
        ("invalid graph", "a<b=1 b<a=1"),
    ];
    let mut lines = Vec::new();
    for (name, script) in table {
        for dry_run in ["", " --dry-run"] {
            let mut desk = Desk::new();
            let code = desk.run(script, &format!("sync team --json --store STORE{dry_run}"));
            let outcome = desk.json("/outcome");
            let error = match desk.json("/error").as_str() {
                "null" => "null".to_owned(),
                _ => desk.json("/error/code"),
            };
            lines.push(format!("{name}{dry_run}: {code} {outcome} {error}"));
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    committed: 0 "committed" null
    committed --dry-run: 0 "planned" null
    partial: 3 "partial" null
    partial --dry-run: 3 "planned" null
    unreachable: 4 "failed" "unreachable"
    unreachable --dry-run: 4 "planned" "unreachable"
    unauthorized: 4 "failed" "unauthorized"
    unauthorized --dry-run: 4 "planned" "unauthorized"
    failed: 1 "failed" "no_step_completed"
    failed --dry-run: 1 "planned" "no_step_completed"
    invalid graph: 2 "failed" "invalid_graph"
    invalid graph --dry-run: 2 "failed" "invalid_graph"
    "#);
}

#[test]
fn early_failure_is_an_object_with_what_is_known() {
    let broken = App::new()
        .register("closed", "", || {
            Err(ConnectorError::unauthorized("no token"))
        })
        .register("panics", "", || panic!("oh"))
        .register("homeless", "", || {
            Ok(Opened::new(Scripted("a=1".to_owned())))
        });
    let twice = || {
        App::new()
            .register("a", "", || panic!())
            .register("a", "", || panic!())
    };
    let table = [
        (&broken, "sync nope --json"),
        (&broken, "sync closed --json"),
        (&broken, "sync panics --json --account x"),
        (&broken, "sync homeless --json --sync-id s-1"),
        (&broken, "sync homeless --json --account x --sync-id \u{7}"),
        (
            &broken,
            "sync homeless --json --account x --sync-id s --store postgres://x",
        ),
        (&broken, "sync --json"),
        (&twice(), "sync a --json"),
    ];
    let mut lines = Vec::new();
    for (app, line) in table {
        let mut desk = Desk::new();
        let store = if line.contains("--store") {
            ""
        } else {
            " --store STORE"
        };
        let code = desk.run_app(app, &format!("{line}{store}"));
        let known = ["/connector_id", "/account_id", "/sync_id", "/error/code"];
        let known = known.map(|pointer| desk.json(pointer)).join(" ");
        lines.push(format!("{}: {code} {known}", line.escape_default()));
        assert!(desk.err.starts_with("error: "), "{}", desk.err);
        assert!(!desk.dir.path().join("parallax.db").exists(), "{line}");
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    sync nope --json: 2 null null null "unknown_connector"
    sync closed --json: 4 null null null "connector_not_opened"
    sync panics --json --account x: 2 null "x" null "connector_not_opened"
    sync homeless --json --sync-id s-1: 2 "team" null "s-1" "no_account"
    sync homeless --json --account x --sync-id \u{7}: 2 "team" "x" "\u0007" "invalid_name"
    sync homeless --json --account x --sync-id s --store postgres://x: 2 "team" "x" "s" "store_invalid_url"
    sync --json: 2 null null null "usage"
    sync a --json: 2 null null null "duplicate_connector"
    "#);
}

#[test]
fn store_that_is_written_to_refuses_the_sync_before_it_runs() {
    let mut desk = Desk::new();
    let runtime = runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(&desk.store())).unwrap();
    assert_eq!(desk.run("a=no", "sync team --json --store STORE"), 5);
    assert_eq!(desk.json("/error/code"), "\"store_locked\"");
    assert_eq!(desk.json("/steps"), "[]");
    drop(store);
    assert_eq!(desk.run("a=no", "sync team --json --store STORE"), 1);
}

#[test]
fn plan_makes_no_store_and_is_what_the_sync_does() {
    let mut desk = Desk::new();
    assert_eq!(
        desk.run("a=2 b=reset", "sync team --json --dry-run --store STORE"),
        3
    );
    assert_eq!(std::fs::read_dir(desk.dir.path()).unwrap().count(), 0);
    assert_eq!(desk.json("/outcome"), "\"planned\"");
    assert_eq!(desk.json("/store"), format!("{:?}", desk.store()));
    let planned = ["/stats", "/types", "/changes"].map(|pointer| desk.json(pointer));
    assert_eq!(desk.run("a=2 b=reset", "sync team --json --store STORE"), 3);
    assert_eq!(desk.json("/outcome"), "\"partial\"");
    assert_eq!(
        ["/stats", "/types", "/changes"].map(|pointer| desk.json(pointer)),
        planned
    );
}

#[test]
fn plan_is_what_the_next_sync_does() {
    let table = [
        ("users=3 roles=2", "users=2 roles=3"),
        ("users=12", "users=0"),
        ("users=30", "users=30 roles=25"),
        ("users=3", "people=3"),
        ("users=3 roles=2", "users=2 roles=reset"),
        ("users=2", "users=2"),
    ];
    let parts = [
        "/stats",
        "/types",
        "/changes",
        "/held_changeset",
        "/held_because",
    ];
    let mut ends = Vec::new();
    for (before, after) in table {
        let mut desk = Desk::new();
        assert_eq!(desk.run(before, "sync team --store STORE"), 0);
        let database = std::fs::read(desk.path("parallax.db")).unwrap();
        let mut codes = vec![desk.run(after, "plan team --exit-code --store STORE")];
        codes.push(desk.run(after, "plan team --json --store STORE"));
        let planned = parts.map(|pointer| desk.json(pointer));
        codes.push(desk.run(after, "sync team --dry-run --json --store STORE"));
        assert_eq!(parts.map(|pointer| desk.json(pointer)), planned, "{after}");
        assert_eq!(
            std::fs::read(desk.path("parallax.db")).unwrap(),
            database,
            "{after}"
        );
        codes.push(desk.run(after, "sync team --json --store STORE"));
        assert_eq!(parts.map(|pointer| desk.json(pointer)), planned, "{after}");
        ends.push(format!("{before}, then {after}: {codes:?}"));
    }
    insta::assert_snapshot!(ends.join("\n"), @"
    users=3 roles=2, then users=2 roles=3: [7, 0, 0, 0]
    users=12, then users=0: [6, 6, 6, 6]
    users=30, then users=30 roles=25: [7, 0, 0, 0]
    users=3, then people=3: [6, 6, 6, 6]
    users=3 roles=2, then users=2 roles=reset: [3, 3, 3, 3]
    users=2, then users=2: [0, 0, 0, 0]
    ");
}

#[test]
fn plan_shows_every_change() {
    let mut desk = Desk::new();
    desk.run("users=3", "sync team --store STORE");
    desk.run("users=1 roles=25", "plan team --show --store STORE");
    let text = desk.out.clone();
    let (_, text) = text.split_once("\n\n+ ").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("roles-24"))
            .count(),
        2
    );
    let gone = lines.iter().skip_while(|line| !line.starts_with("! "));
    let gone: Vec<&str> = gone.take(4).copied().collect();
    insta::assert_snapshot!(gone.join("\n"), @"
    ! team_user users-2
        looked everywhere and did not find it: users
    ! team_user users-1
        looked everywhere and did not find it: users
    ");
    desk.run("users=1 roles=25", "plan team --json --store STORE");
    let few: Value = serde_json::from_str(&desk.out).unwrap();
    desk.run("users=1 roles=25", "plan team --show --json --store STORE");
    let all: Value = serde_json::from_str(&desk.out).unwrap();
    let len = |object: &Value| object["changes"].as_array().unwrap().len();
    assert_eq!((len(&few), len(&all)), (44, 54));
    for line in ["sync team --show", "sync team --exit-code"] {
        assert_eq!(desk.run("users=1", line), 2);
        assert!(desk.err.contains("--dry-run"), "{}", desk.err);
    }
    let mut desk = Desk::new();
    assert_eq!(desk.run("users=1", "plan team --show --store STORE"), 0);
    assert_eq!(std::fs::read_dir(desk.dir.path()).unwrap().count(), 0);
}

#[test]
fn syncs_and_queries_read_what_was_committed() {
    let mut desk = Desk::new();
    for id in ["s-1", "s-2"] {
        desk.run("a=2", &format!("sync team --store STORE --sync-id {id}"));
    }
    assert_eq!(desk.run("", "syncs --store STORE --limit 1 --json"), 0);
    let syncs: Value = serde_json::from_str(&desk.out).unwrap();
    assert_eq!(syncs[0]["sync_id"], "s-2");
    assert_eq!(syncs[0]["entities_unchanged"], 2);
    assert_eq!(syncs.as_array().unwrap().len(), 1);
    assert_eq!(desk.run("", "syncs --store STORE --account other"), 0);
    assert_eq!((desk.out.as_str(), desk.err.as_str()), ("", "no syncs\n"));
}

#[test]
fn one_sync_is_shown_with_its_steps() {
    let mut desk = Desk::new();
    for (id, script) in [
        ("s-1", "users=2 roles<users=1"),
        ("s-22", "users=1 roles<users=reset"),
    ] {
        desk.run(script, &format!("sync team --store STORE --sync-id {id}"));
    }
    assert_eq!(desk.run("", "syncs --store STORE s-2"), 0);
    let parts: Vec<&str> = desk.out.trim_end().split("\n\n").collect();
    let [head, steps, rest @ ..] = parts.as_slice() else {
        panic!("{}", desk.out)
    };
    assert!(
        head.starts_with("Partial: team, account acme, sync s-22\nstarted "),
        "{head}"
    );
    // How long they took is for each to see.
    for words in ["users  completed  ", "roles  failed  ", "connection reset"] {
        assert!(steps.contains(words), "{steps}");
    }
    insta::assert_snapshot!(rest.join("\n\n"), @"
                   created  updated  unchanged  deleted  kept  held  rejected  duplicates
    ─────────────────────────────────────────────────────────────────────────────────────
    entities             0        0          1        1     1     0         0           0
    relationships        0        0          1        1     1     0         0           0

    changed    updated  deleted
    ───────────────────────────
    team_user        0        1
    KNOWS            0        1
    ");
    assert_eq!(desk.run("", "syncs --store STORE --json s-1"), 0);
    assert_eq!(desk.json("/sync_id"), "\"s-1\"");
    assert_eq!(desk.json("/entities_created"), "3");
    assert_eq!(desk.json("/steps/1/step_id"), "\"roles\"");
    for (line, words) in [
        ("syncs --store STORE s", "\"s\" may be several syncs"),
        ("syncs --store STORE s-3", "there is no sync \"s-3\""),
        (
            "syncs --store STORE --account other s-1",
            "there is no sync \"s-1\"",
        ),
    ] {
        assert_eq!(desk.run("", line), 2);
        assert!(desk.err.contains(words), "{}", desk.err);
    }
}

#[test]
fn source_is_forgotten_once_someone_says_yes() {
    let mut desk = Desk::new();
    for account in ["acme", "globex"] {
        desk.run(
            "a=2",
            &format!("sync team --store STORE --account {account}"),
        );
    }
    assert_eq!(desk.run("", "forget team acme --store STORE"), 2);
    insta::assert_snapshot!(desk.err, @"
    error: 2 entities, 2 relationships would be removed, and there is nobody to ask
      help: say --yes if that is what you want
    ");
    assert_eq!(desk.run("", "forget team nobody --store STORE --yes"), 2);
    assert_eq!(desk.run("", "forget team acme --store STORE --yes"), 0);
    assert_eq!(
        desk.out,
        "Removed 2 entities, 2 relationships of team, account acme\n"
    );
    assert_eq!(
        desk.run("", "forget team globex --store STORE --yes --json"),
        0
    );
    assert_eq!(
        (desk.json("/entities"), desk.json("/account_id")),
        ("2".into(), "\"globex\"".into())
    );
    assert_eq!(desk.run("", "syncs --store STORE --json"), 0);
    assert_eq!(desk.out, "[]\n");
    assert_eq!(
        desk.run("", "forget team acme --store sqlite:/nowhere/x --yes"),
        5
    );
}

/// Replaces times, which no two runs have in common.
fn timeless(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split(' ') {
        let is_time = |word: &str| word.len() == 8 && word.as_bytes().get(2) == Some(&b':');
        if is_time(word) {
            words.pop();
            words.push("TIME");
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

#[test]
fn record_is_explained_and_has_a_history() {
    let mut desk = Desk::new();
    for (id, script) in [
        ("s-1", "users=2 roles=1"),
        ("s-2", "users=1 roles=reset"),
        ("s-3", "users=no roles=no"),
    ] {
        desk.run(script, &format!("sync team --store STORE --sync-id {id}"));
    }
    let mut texts = Vec::new();
    for line in [
        "explain team_user:users-0",
        "explain team_user:users-1",
        "explain team_user:roles-0",
        "history team_user:users-1",
        "history team_user:users-1 --limit 1",
    ] {
        assert_eq!(desk.run("", &format!("{line} --store STORE")), 0);
        texts.push(format!("$ {line}\n{}{}", timeless(&desk.out), desk.err));
    }
    insta::assert_snapshot!(texts.join("\n"), @"
    $ explain team_user:users-0
    team_user:users-0
    id e8807b54e3aca3aa5b7dd9a8e04ebf19

    team, account acme
    Live: the last sync that did not fail saw it
      last seen  TIME UTC, sync s-2, by users
      created    TIME UTC, sync s-1
      claim      users: could not be checked TIME UTC, sync s-3: step users failed: no such thing
      since then a sync failed and looked at nothing TIME UTC, sync s-3

    $ explain team_user:users-1
    team_user:users-1
    id 72127b3e0ed779a53318854bde913931

    team, account acme
    Gone: deleted TIME UTC, sync s-2
      because    every step that claimed it looked everywhere and did not find it: users
      created    TIME UTC, sync s-1

    $ explain team_user:roles-0
    team_user:roles-0
    id df41ef34c9e480eed5bb58e80f850666

    team, account acme
    Kept: the last sync could not look everywhere for it, so it stays
      last seen  TIME UTC, sync s-1, by roles
      created    TIME UTC, sync s-1
      claim      roles: could not be checked TIME UTC, sync s-3: step roles failed: no such thing
      since then a sync failed and looked at nothing TIME UTC, sync s-3

    $ history team_user:users-1
    team_user:users-1
    id 72127b3e0ed779a53318854bde913931

    deleted TIME UTC, sync s-2
      team, account acme
      every step that claimed it looked everywhere and did not find it: users

    created TIME UTC, sync s-1
      team, account acme

    $ history team_user:users-1 --limit 1
    team_user:users-1
    id 72127b3e0ed779a53318854bde913931

    deleted TIME UTC, sync s-2
      team, account acme
      every step that claimed it looked everywhere and did not find it: users
    there is more: --limit shows it
    ");

    let line = "explain team_user:users-1 --store STORE --json";
    assert_eq!(desk.run("", line), 0);
    let objects: Value = serde_json::from_str(&desk.out).unwrap();
    assert_eq!(objects[0]["key"], "users-1");
    assert_eq!(objects[0]["sources"][0]["state"], "gone");
    let id = objects[0]["id"].as_str().unwrap();
    let line = format!("history {id} --store STORE --json");
    assert_eq!(desk.run("", &line), 0);
    let objects: Value = serde_json::from_str(&desk.out).unwrap();
    assert_eq!(objects[0]["events"][0]["action"], "deleted");
    assert_eq!(objects[0]["events"][0]["sync"]["sync_id"], "s-2");
}

#[test]
fn record_that_is_not_known_may_have_been_another() {
    let mut desk = Desk::new();
    desk.run("users=12 roles=1", "sync team --store STORE");
    let mut lines = Vec::new();
    for line in [
        "explain team_user:users",
        "explain team_user:uesrs-3",
        "history team_usr:users-3",
        "explain 000d23b4e434bf1cb5215344924e7e27",
        "explain users-3",
    ] {
        let code = desk.run("", &format!("{line} --store STORE"));
        assert_eq!(desk.out, "");
        lines.push(format!("{code} {line}\n{}", desk.err));
    }
    insta::assert_snapshot!(lines.join(""), @r#"
    1 explain team_user:users
    error: nothing is stored of team_user:users, and the history does not know it
      help: nearest: team_user:users-0, team_user:users-1, team_user:users-2
    1 explain team_user:uesrs-3
    error: nothing is stored of team_user:uesrs-3, and the history does not know it
      help: nearest: team_user:users-3, team_user:users-7, team_user:users-5
    1 history team_usr:users-3
    error: nothing is stored of team_usr:users-3, and the history does not know it
      help: there is no type "team_usr"; nearest: team_user
    1 explain 000d23b4e434bf1cb5215344924e7e27
    error: nothing is stored of 000d23b4e434bf1cb5215344924e7e27, and the history does not know it
      help: the views parallax_entity, parallax_relationship and parallax_change have the ids
    2 explain users-3
    error: invalid value 'users-3' for '<TYPE:KEY|ID>': it is neither TYPE:KEY nor an id of 32 hexadecimal digits

    For more information, try '--help'.
    "#);
}

#[test]
fn store_is_verified_and_copied() {
    let mut desk = Desk::new();
    desk.run("users=2", "sync team --store STORE");
    assert_eq!(desk.run("", "store verify --store STORE"), 0);
    assert!(desk.out.contains("\nSound: sqlite:/"), "{}", desk.out);

    let copy = desk.path("copy.db");
    let line = format!("store backup {} --store STORE", copy.display());
    assert_eq!(desk.run("", &line), 0);
    let place = copy.display().to_string();
    assert!(
        desk.out.starts_with(&format!(
            "Copied 2 entities, 2 relationships of 1 source into {place}, "
        )),
        "{}",
        desk.out
    );
    assert_eq!(desk.run("", &format!("{line} --json")), 2);
    assert!(
        desk.err.starts_with("error: there is a file at "),
        "{}",
        desk.err
    );
    let line = format!("store verify --json --store sqlite:{place}");
    assert_eq!(desk.run("", &line), 0);
    assert_eq!(desk.json("/sound"), "true");
    assert_eq!(desk.json("/checks/6/name"), "\"entities\"");

    // Someone changes what a sync has committed.
    let mut bytes = std::fs::read(&copy).unwrap();
    let key = bytes
        .windows(7)
        .position(|bytes| bytes == b"users-1")
        .unwrap();
    bytes[key] = b'X';
    std::fs::write(&copy, bytes).unwrap();
    assert_eq!(desk.run("", &line), 5);
    assert_eq!(desk.json("/sound"), "false");
}

#[test]
fn connectors_are_listed_with_their_steps_or_why_not() {
    let app = App::new()
        .register("team", "People", || {
            Ok(Opened::new(Scripted("a=1 b<a=1".to_owned())))
        })
        .register("closed", "Nothing\tyet", || {
            Err(ConnectorError::fatal("no token"))
        });
    let mut desk = Desk::new();
    assert_eq!(desk.run_app(&app, "connectors"), 0);
    insta::assert_snapshot!(desk.out, @r"
    team  People
      a  Collect a
      b  Collect b, after a

    closed  Nothing\tyet
      connector closed cannot be opened: no token
    ");
    desk.run_app(&app, "connectors --json");
    insta::assert_snapshot!(desk.out, @r#"[{"kind":"team","about":"People","steps":[{"step_id":"a","title":"Collect a","depends_on":[]},{"step_id":"b","title":"Collect b","depends_on":["a"]}],"error":null},{"kind":"closed","about":"Nothing\tyet","steps":null,"error":"connector closed cannot be opened: no token"}]"#);
}

#[test]
fn help_leads_with_examples() {
    let mut desk = Desk::new();
    assert_eq!(desk.run("", "sync --help"), 0);
    insta::assert_snapshot!(desk.out, @"
    Runs a connector and commits what changed

    Examples:
      parallax sync team                     into ./parallax.db
      parallax sync team --store sqlite:/srv/parallax.db
      parallax sync team --dry-run           write nothing
      parallax sync team --json | jq .stats  for programs

    Usage: parallax sync [OPTIONS] <CONNECTOR>

    Arguments:
      <CONNECTOR>  Connector to run; `parallax connectors` lists them

    Options:
          --store <URL>          Store, as sqlite:PATH [env: PARALLAX_STORE] [default:
                                 sqlite:parallax.db]
          --account <NAME>       Account to read, if not the connector's own choice
          --select <STEPS>       Runs only these steps and those that they depend on: ids, with * for
                                 any characters and + for all that depend on them
          --sync-id <ID>         Id of this sync: a second sync of the same id and content changes
                                 nothing [default: a new UUID]
          --dry-run              Shows what the sync would change and writes nothing
          --show                 With --dry-run: shows every record that would change, and how
          --exit-code            With --dry-run: ends with exit code 7 if a record would change
          --json                 Prints one JSON object, whatever happens
      -v, --verbose...           Logs more: -v what happens, -vv details, -vvv everything; RUST_LOG
                                 overrules it
          --log-format <FORMAT>  Format of the log [default: text; of `serve` without a terminal json]
                                 [possible values: text, json]
      -h, --help                 Print help

    Connectors:
      team        People

    Exit codes:
      0  committed, every step completed
      1  failed, nothing was committed
      2  wrong command line, configuration or connector
      3  committed, but some steps did not complete
      4  the system cannot be reached or refuses the credentials
      5  the store cannot be used
      6  committed, but deletes were held
      7  with --exit-code: a record would change
      130, 143  cancelled by SIGINT or SIGTERM, nothing was committed
    ");
}

#[test]
fn reader_that_has_gone_away_is_no_failure() {
    struct Full(io::ErrorKind);
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(self.0))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for (kind, expected) in [
        (io::ErrorKind::BrokenPipe, 0),
        (io::ErrorKind::StorageFull, 2),
    ] {
        let mut err = Vec::new();
        let mut out = Full(kind);
        let code = App::new().run(["parallax", "connectors", "--json"], &mut out, &mut err);
        assert_eq!((code, err.is_empty()), (expected, expected == 0));
    }
}

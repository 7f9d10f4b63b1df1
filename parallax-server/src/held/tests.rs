use parallax_connect::{Connector, Step, entity, step};
use parallax_store::Store;

use crate::app::tests::Desk;
use crate::app::{App, Opened};
use crate::args::{ApproveArgs, StoreArgs};
use crate::console::{Console, Unstyled};
use crate::decide;
use crate::progress;
use crate::testing::logged;

impl Desk {
    /// Syncs twice, the second time without what the first one found.
    fn holding(before: &str, after: &str) -> Self {
        let mut desk = Self::new();
        let code = desk.run(before, "sync team --store STORE --sync-id s-1");
        assert_eq!(code, 0, "{}", desk.err);
        let code = desk.run(after, "sync team --store STORE --sync-id s-2");
        assert_eq!(code, 6, "{}", desk.out);
        desk
    }

    /// Returns what a command prints, with what differs from run to run left out.
    fn told(&mut self, script: &str, args: &str) -> String {
        let code = self.run(script, args);
        let text = format!("{code}\n{}{}", self.out, self.err).replace(&self.store(), "STORE");
        let path = self.store().replace("sqlite:", "");
        let text = without_times(&text.replace(&path, "STORE"));
        let lines = text.lines().map(|line| match line.split_once(", store ") {
            // How long it took.
            Some((_, store)) => format!("TOOK, store {store}"),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn answer(&self, sql: &str) -> String {
        let app = App::new();
        let args = ["parallax", "query", "--json", "--store", &self.store(), sql];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(app.run(args, &mut out, &mut err), 0, "{err:?}");
        String::from_utf8(out).unwrap()
    }

    /// Returns how many entities and relationships live.
    fn live(&self) -> String {
        let sql = "SELECT json_array(entities, relationships) AS n FROM parallax_source";
        let rows: serde_json::Value = serde_json::from_str(&self.answer(sql)).unwrap();
        rows[0]["n"].as_str().unwrap().to_owned()
    }
}

/// Writes `TIME` for each `2026-11-22 11:45:03` and each `2026-11-22T11:45:03.123Z`.
fn without_times(text: &str) -> String {
    let is_time = |text: &str| {
        let form = text
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c });
        let form: String = form.map(|c| if c == 'T' { ' ' } else { c }).collect();
        form == "0000-00-00 00:00:00"
    };
    let mut rest = text;
    let mut result = String::new();
    while let Some(first) = rest.chars().next() {
        if rest.get(..19).is_some_and(is_time) {
            result += "TIME";
            rest = &rest[19..];
            if rest.starts_with('.') {
                rest = &rest[5..];
            }
        } else {
            result.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    result
}

#[test]
fn last_of_a_type_is_held_until_someone_approves() {
    let mut desk = Desk::new();
    desk.run("users=12", "sync team --store STORE --sync-id s-1");
    let said = desk.told("users=0", "sync team --store STORE --sync-id s-2");
    insta::assert_snapshot!(said, @"
    6
    Committed team, account acme, sync s-2

                   held
    ───────────────────
    team_user        12
    KNOWS            12
    ───────────────────
    entities         12
    relationships    12

    ! team_user users-7
    ! team_user users-5
    ! team_user users-4
    ! team_user users-6
    ! team_user users-2
    ! team_user users-10
    ! team_user users-9
    ! team_user users-3
    ! team_user users-8
    ! team_user users-1
    ! 2 more

    Deletes are held, as changeset 1: all 12 of team_user would go
      parallax held 1 --store STORE     shows them
      parallax approve 1 --store STORE  deletes them
      parallax reject 1 --store STORE   keeps them, and does not ask again

    TOOK, store STORE
    ");
    insta::assert_snapshot!(desk.told("", "held --store STORE"), @"
    0
    changeset  connector  account  held since (UTC)     by sync  entities  relationships  reason
    ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
            1  team       acme     TIME  s-2            12             12  all 12 of team_user would go
    ");
    insta::assert_snapshot!(desk.told("", "held 1 --store STORE"), @"
    0
    Changeset 1, open: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2

               held
    ───────────────
    team_user    12
    KNOWS        12

    ! team_user users-0
    ! team_user users-1
    ! team_user users-10
    ! team_user users-11
    ! team_user users-2
    ! team_user users-3
    ! team_user users-4
    ! team_user users-5
    ! team_user users-6
    ! team_user users-7
    ! team_user: 2 more
    ! KNOWS team_user:users-4 -> team_user:users-0
    ! KNOWS team_user:users-8 -> team_user:users-0
    ! KNOWS team_user:users-3 -> team_user:users-0
    ! KNOWS team_user:users-0 -> team_user:users-0
    ! KNOWS team_user:users-9 -> team_user:users-0
    ! KNOWS team_user:users-7 -> team_user:users-0
    ! KNOWS team_user:users-10 -> team_user:users-0
    ! KNOWS team_user:users-2 -> team_user:users-0
    ! KNOWS team_user:users-6 -> team_user:users-0
    ! KNOWS team_user:users-11 -> team_user:users-0
    ! KNOWS: 2 more

    parallax approve 1 --store STORE  deletes them
    parallax reject 1 --store STORE   keeps them, and does not ask again
    ");
    // Nothing is lost meanwhile.
    insta::assert_snapshot!(desk.told("users=0", "sync team --store STORE --sync-id s-3"), @"
    0
    Committed team, account acme, sync s-3

                   held
    ───────────────────
    team_user        12
    KNOWS            12
    ───────────────────
    entities         12
    relationships    12

    Still held: 12 entities, 12 relationships.
      parallax held --store STORE  lists them

    TOOK, store STORE
    ");

    insta::assert_snapshot!(desk.told("", "approve 1 --store STORE"), @"
    2
    error: 12 entities, 12 relationships would be deleted, and there is nobody to ask
      help: say --yes if that is what you want
    ");
    insta::assert_snapshot!(desk.told("", "approve 1 --store STORE --yes"), @"
    0
    Approved changeset 1: deleted 12 entities, 12 relationships of team, account acme
    ");
    insta::assert_snapshot!(desk.told("", "approve 1 --store STORE"), @"
    0
    Changeset 1 was approved before: it deleted 12 entities, 12 relationships of team, account acme
    ");
    insta::assert_snapshot!(desk.told("", "reject 1 --store STORE"), @"
    2
    error: changeset 1 is approved already
      help: it is decided once; the view parallax_changeset says when and by which sync
    ");
    assert_eq!(desk.told("", "held --store STORE"), "0\nno held deletes");
    insta::assert_snapshot!(desk.told("", "held --all --store STORE"), @"
    0
    changeset  connector  account  held since (UTC)     by sync  entities  relationships  state     reason
    ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
            1  team       acme     TIME  s-2            12             12  approved  all 12 of team_user would go
    ");
    insta::assert_snapshot!(desk.told("", "held 1 --store STORE"), @"
    0
    Changeset 1, approved: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2
    approved TIME UTC: deleted by sync approved:1

               deleted
    ──────────────────
    team_user       12
    KNOWS           12

    - team_user users-0
    - team_user users-1
    - team_user users-10
    - team_user users-11
    - team_user users-2
    - team_user users-3
    - team_user users-4
    - team_user users-5
    - team_user users-6
    - team_user users-7
    - team_user: 2 more
    - KNOWS team_user:users-4 -> team_user:users-0
    - KNOWS team_user:users-8 -> team_user:users-0
    - KNOWS team_user:users-3 -> team_user:users-0
    - KNOWS team_user:users-0 -> team_user:users-0
    - KNOWS team_user:users-9 -> team_user:users-0
    - KNOWS team_user:users-7 -> team_user:users-0
    - KNOWS team_user:users-10 -> team_user:users-0
    - KNOWS team_user:users-2 -> team_user:users-0
    - KNOWS team_user:users-6 -> team_user:users-0
    - KNOWS team_user:users-11 -> team_user:users-0
    - KNOWS: 2 more
    ");
    insta::assert_snapshot!(desk.told("", "syncs approved:1 --store STORE"), @"
    0
    Approved: team, account acme, sync approved:1
    started TIME UTC, took 0 ms

                   created  updated  unchanged  deleted  kept  held  rejected  duplicates
    ─────────────────────────────────────────────────────────────────────────────────────
    entities             0        0          0       12     0     0         0           0
    relationships        0        0          0       12     0     0         0           0

    changed    updated  deleted
    ───────────────────────────
    team_user        0       12
    KNOWS            0       12
    ");
    let sql = "SELECT changeset, action, kind, count(*) AS n FROM parallax_change GROUP BY 2, 3";
    insta::assert_snapshot!(desk.answer(sql), @r#"
    [
    {"changeset":1,"action":"deleted","kind":"entity","n":12},
    {"changeset":1,"action":"deleted","kind":"relationship","n":12}
    ]
    "#);
    let again = desk.told("users=0", "sync team --store STORE --sync-id s-4");
    insta::assert_snapshot!(again, @"
    0
    Committed team, account acme, sync s-4

    Nothing was found, and nothing was stored before.

    TOOK, store STORE
    ");
    let replay = desk.told("users=0", "sync team --store STORE --sync-id s-2");
    insta::assert_snapshot!(replay, @"
    6
    Committed before: team, account acme, sync s-2
    This sync was committed before, with these counts: nothing changed.

                   held
    ───────────────────
    team_user        12
    KNOWS            12
    ───────────────────
    entities         12
    relationships    12

    Deletes were held, as changeset 1: all 12 of team_user would go
      parallax held 1 --store STORE  shows what became of them

    TOOK, store STORE
    ");
}

#[test]
fn records_that_come_back_are_released() {
    let mut desk = Desk::holding("users=12", "users=0");
    assert_eq!(
        desk.run("users=7", "sync team --store STORE --sync-id s-3"),
        0
    );
    insta::assert_snapshot!(desk.told("", "held 1 --store STORE"), @"
    0
    Changeset 1, open: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2
    14 of 24 records have come back since

               held
    ───────────────
    team_user     5
    KNOWS         5

    ! team_user users-10
    ! team_user users-11
    ! team_user users-7
    ! team_user users-8
    ! team_user users-9
    ! KNOWS team_user:users-8 -> team_user:users-0
    ! KNOWS team_user:users-9 -> team_user:users-0
    ! KNOWS team_user:users-7 -> team_user:users-0
    ! KNOWS team_user:users-10 -> team_user:users-0
    ! KNOWS team_user:users-11 -> team_user:users-0

    parallax approve 1 --store STORE  deletes them
    parallax reject 1 --store STORE   keeps them, and does not ask again
    ");
    assert_eq!(
        desk.run("users=12", "sync team --store STORE --sync-id s-4"),
        0
    );
    assert_eq!(desk.told("", "held --store STORE"), "0\nno held deletes");
    insta::assert_snapshot!(desk.told("", "held 1 --store STORE"), @"
    0
    Changeset 1, released: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2
    released TIME UTC: all of it had come back by sync s-4
    ");
    insta::assert_snapshot!(desk.told("", "approve 1 --store STORE --yes"), @"
    2
    error: changeset 1 is released already
      help: it is decided once; the view parallax_changeset says when and by which sync
    ");
    assert_eq!(desk.live(), "[12,12]");
}

#[test]
fn what_is_rejected_stays_and_is_not_held_again_before_it_was_found_again() {
    let mut desk = Desk::holding("users=12", "users=0");
    insta::assert_snapshot!(desk.told("", "reject 1 --store STORE"), @"
    0
    Rejected changeset 1: kept 12 entities, 12 relationships of team, account acme
    ");
    insta::assert_snapshot!(desk.told("", "reject 1 --store STORE"), @"
    0
    Changeset 1 was rejected before: it kept 12 entities, 12 relationships of team, account acme
    ");
    insta::assert_snapshot!(desk.told("", "held 1 --store STORE"), @"
    0
    Changeset 1, rejected: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2
    rejected TIME UTC: all of it was kept
    ");
    assert_eq!(desk.run("users=0", "sync team --store STORE"), 0);
    assert_eq!(desk.live(), "[12,12]");
    assert_eq!(desk.run("users=12", "sync team --store STORE"), 0);
    assert_eq!(desk.run("users=0", "sync team --store STORE"), 6);
    assert_eq!(desk.told("", "held --store STORE").lines().count(), 4);
}

#[test]
fn every_reason_is_told() {
    let table = [
        ("users=400", "users=250"),
        ("users=3", "people=3"),
        ("users=3 roles=1", "users=2"),
        ("users=3", "users=2 roles=1"),
    ];
    let reasons = table.map(|(before, after)| {
        let mut desk = Desk::holding(before, after);
        desk.run("", "held 1 --json --store STORE");
        let reason = desk.json("/reason");
        format!("{before}, then {after}: {reason}")
    });
    insta::assert_snapshot!(reasons.join("\n"), @r#"
    users=400, then users=250: "150 of 400 entities would go"
    users=3, then people=3: "step users, which found some of them, is no longer declared"
    users=3 roles=1, then users=2: "step roles, which found some of them, is no longer declared"
    users=3, then users=2 roles=1: "the connector's version or steps have changed since the last complete sync"
    "#);
}

#[test]
fn changeset_that_is_not_there_is_refused() {
    let mut desk = Desk::holding("users=12", "users=0");
    let table = ["held 9", "approve 9 --yes", "reject 9"];
    let mut said: Vec<String> = table
        .map(|line| desk.told("", &format!("{line} --store STORE")))
        .to_vec();
    desk.run("", "reject 1 --store STORE");
    said.push(desk.told("", "reject 18446744073709551615 --store STORE"));
    said.push(desk.told("", "held one --store STORE"));
    insta::assert_snapshot!(said.join("\n"), @"
    2
    error: there is no changeset 9
      help: these are open: 1
    2
    error: there is no changeset 9
      help: these are open: 1
    2
    error: there is no changeset 9
      help: these are open: 1
    2
    error: there is no changeset 18446744073709551615
      help: no deletes are held; `parallax held --all` lists those that were
    2
    error: invalid value 'one' for '[N]': invalid digit found in string

    For more information, try '--help'.
    ");
    let mut desk = Desk::new();
    for line in ["held", "held 1", "approve 1 --yes", "reject 1"] {
        assert_eq!(desk.run("", &format!("{line} --store STORE")), 5, "{line}");
    }
    assert!(!desk.path("parallax.db").exists());
}

#[test]
fn objects_are_for_programs() {
    let mut desk = Desk::holding("users=1", "people=1");
    let lines = [
        "held --json",
        "held 1 --json",
        "approve 1 --yes --json",
        "approve 1 --json",
        "held --json",
    ];
    let objects = lines.map(|line| {
        let text = desk.told("", &format!("{line} --store STORE"));
        text.replace("},{", "},\n  {")
    });
    insta::assert_snapshot!(objects.join("\n"), @r#"
    0
    [
    {"changeset":1,"connector_id":"team","account_id":"acme","state":"open","reason":"step users, which found some of them, is no longer declared","entities":1,"relationships":1,"entities_at_first":1,"relationships_at_first":1,"held_by_sync_id":"s-2","held_at":"TIME","closed_by_sync_id":null,"closed_at":null}
    ]
    0
    {"changeset":1,"connector_id":"team","account_id":"acme","state":"open","reason":"step users, which found some of them, is no longer declared","entities":1,"relationships":1,"entities_at_first":1,"relationships_at_first":1,"held_by_sync_id":"s-2","held_at":"TIME","closed_by_sync_id":null,"closed_at":null,"types":[{"kind":"entity","name":"team_user","records":1},
      {"kind":"relationship","name":"KNOWS","records":1}],"records":[{"kind":"entity","name":"team_user","id":"e8807b54e3aca3aa5b7dd9a8e04ebf19","key":"users-0","display_name":"users-0"},
      {"kind":"relationship","name":"KNOWS","id":"5be1a603fdd593fc6977b20145bc41e9","key":null,"display_name":"team_user:users-0 -> team_user:users-0"}]}
    0
    {"changeset":1,"state":"approved","connector_id":"team","account_id":"acme","entities":1,"relationships":1,"repeated":false,"store":"STORE"}
    0
    {"changeset":1,"state":"approved","connector_id":"team","account_id":"acme","entities":1,"relationships":1,"repeated":true,"store":"STORE"}
    0
    []
    "#);
    let mut desk = Desk::holding("users=1", "people=1");
    insta::assert_snapshot!(desk.told("", "reject 1 --json --store STORE"), @r#"
    0
    {"changeset":1,"state":"rejected","connector_id":"team","account_id":"acme","entities":1,"relationships":1,"repeated":false,"store":"STORE"}
    "#);
}

#[test]
fn writer_is_named_to_who_would_decide() {
    let mut desk = Desk::holding("users=12", "users=0");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(&desk.store())).unwrap();
    let pid = std::process::id().to_string();
    for line in ["approve 1 --yes", "reject 1"] {
        let said = desk.told("", &format!("{line} --store STORE"));
        insta::allow_duplicates! {
            insta::assert_snapshot!(said.replace(&pid, "PID"), @"
            5
            error: the store at STORE is in use by process PID
              help: a store has one writer at a time: wait for that process or stop it, or, if it is a daemon, be its user, and it does it for you; reading is possible meanwhile
            ");
        }
    }
    drop(store);
    assert_eq!(desk.run("", "approve 1 --yes --store STORE"), 0);
}

#[test]
fn approval_is_asked_for_with_what_it_deletes() {
    let desk = Desk::holding("users=12", "users=0");
    let args = ApproveArgs {
        changeset: 1,
        store: StoreArgs { url: desk.store() },
        yes: false,
        json: false,
    };
    let answer = |answer: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut answer = answer.as_bytes();
        let mut console = Console {
            out: &mut Unstyled::new(&mut out),
            err: &mut Unstyled::new(&mut err),
            input: Some(&mut answer),
            width: None,
            bars: progress::no_bars(),
            owns_process: false,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let exit = runtime.block_on(decide::approve(&args, &mut console));
        let text = [err, out].map(|bytes| String::from_utf8(bytes).unwrap());
        format!(
            "{}\n{}",
            exit.unwrap().code(),
            without_times(&text.concat())
        )
    };
    insta::assert_snapshot!(answer("no\n"), @"
    1
    Changeset 1, open: team, account acme
    all 12 of team_user would go
    held since TIME UTC, by sync s-2

               held
    ───────────────
    team_user    12
    KNOWS        12

    ! team_user users-0
    ! team_user users-1
    ! team_user users-10
    ! team_user users-11
    ! team_user users-2
    ! team_user users-3
    ! team_user users-4
    ! team_user users-5
    ! team_user users-6
    ! team_user users-7
    ! team_user: 2 more
    ! KNOWS team_user:users-4 -> team_user:users-0
    ! KNOWS team_user:users-8 -> team_user:users-0
    ! KNOWS team_user:users-3 -> team_user:users-0
    ! KNOWS team_user:users-0 -> team_user:users-0
    ! KNOWS team_user:users-9 -> team_user:users-0
    ! KNOWS team_user:users-7 -> team_user:users-0
    ! KNOWS team_user:users-10 -> team_user:users-0
    ! KNOWS team_user:users-2 -> team_user:users-0
    ! KNOWS team_user:users-6 -> team_user:users-0
    ! KNOWS team_user:users-11 -> team_user:users-0
    ! KNOWS: 2 more

    Delete 12 entities, 12 relationships? [y/N] nothing was deleted
    ");
    let yes = answer("y\n");
    insta::assert_snapshot!(yes.lines().last().unwrap(), @"Delete 12 entities, 12 relationships? [y/N] Approved changeset 1: deleted 12 entities, 12 relationships of team, account acme");
}

#[test]
fn decision_is_logged_in_one_line() {
    let mut desk = Desk::holding("users=12", "users=0");
    let log = logged(|| {
        desk.run("", "reject 1 --store STORE");
    });
    insta::assert_snapshot!(log.replace(&desk.store(), "STORE"), @" INFO parallax_server::decide: Changeset decided changeset=1 state=rejected connector_id=team account_id=acme entities=12 relationships=12 repeated=false store=STORE");
}

/// Names that would steer a terminal or begin a line of their own.
struct Hostile {
    names: u32,
}

impl Connector for Hostile {
    fn name(&self) -> &str {
        "team"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("users", "Collect users", async |ctx| {
            for n in 0..self.names {
                let user = entity("team_user", format!("{n:02}\u{2028}- everyone"));
                let user = user.display_name(format!("\u{1b}[2J\u{202e}{n:02}\n- everyone"));
                ctx.emit(user.property("mail", format!("\u{9b}2J{n:02}\n")))?;
            }
            Ok(())
        })]
    }
}

#[test]
fn hostile_names_stay_on_one_line() {
    let app = |names| {
        App::new().register("team", "People", move || {
            Ok(Opened::new(Hostile { names }).default_account(Ok("acme\u{202e}")))
        })
    };
    let mut desk = Desk::new();
    let code = desk.run_app(&app(11), "sync team --store STORE --sync-id s-1");
    assert_eq!(code, 0, "{}", desk.err);
    for line in [
        "plan team --show",
        "sync team",
        "held",
        "held 1",
        "held --json",
        "held 1 --json",
        "approve 1 --yes",
        "held 1",
    ] {
        desk.run_app(&app(0), &format!("{line} --store STORE"));
        let text = desk.out.clone() + &desk.err;
        let steers = |c: char| c.is_control() && c != '\n' || "\u{2028}\u{202e}".contains(c);
        assert!(!text.contains(steers), "{line}: {text}");
        assert!(!text.contains("\n- everyone"), "{line}: {text}");
        assert!(text.contains("acme"), "{line}: {text}");
    }
    assert_eq!(desk.run_app(&app(1), "plan team --show --store STORE"), 0);
    let [_, _, shown, _] = desk.out.split("\n\n").collect::<Vec<_>>()[..] else {
        panic!("{}", desk.out)
    };
    insta::assert_snapshot!(shown, @r#"
    + team_user \u{1b}[2J\u{202e}00\n- everyone (00\u{2028}- everyone)
        display_name: "\u001b[2J\u{202e}00\n- everyone"
        mail: "\u{9b}2J00\n"
    "#);
}

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use futures::StreamExt;
use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, relationship, step};
use parallax_scheduler::{Job, Notice, Scheduler};
use parallax_store::{Guard, JournalName};
use serde_json::Value;
use tokio::sync::Notify;

use super::*;
use crate::connectors::listed_steps;
use crate::plan::Source;
use crate::serve::access::Access;
use crate::serve::pages::State;
use crate::serve::testing::{answer, body, header};
use crate::serve::tokens::Tokens;

/// How many clients may follow events at a time.
const STREAMS: usize = 10;
const TOKEN: &str = "abababababababababababababababababababababababababababababababab";

thread_local! {
    /// The sources that somebody changed.
    static CHANGED: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// A team in which nobody is left at the second sync.
struct Team {
    /// How often its steps were asked for; the first time, to check them.
    runs: std::sync::atomic::AtomicU32,
}

impl Connector for Team {
    fn name(&self) -> &str {
        "team"
    }

    fn version(&self) -> &str {
        "1.2"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![
            step("users", "Collect users", move |ctx| self.users(ctx, run)),
            step("roles", "Collect roles", move |ctx| self.roles(ctx, run)).depends_on(["users"]),
        ]
    }
}

impl Team {
    async fn users(&self, ctx: StepContext, run: u32) -> Result<(), ConnectorError> {
        let users = if run < 2 { 12 } else { 0 };
        for n in 0..users {
            let user = entity("user", format!("u{n:02}")).class("User");
            ctx.emit(user.display_name(format!("User {n}")).property("run", run))?;
        }
        Ok(())
    }

    async fn roles(&self, ctx: StepContext, run: u32) -> Result<(), ConnectorError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ctx.emit(entity("role", "admin"))?;
        if run == 1 {
            ctx.emit(relationship(("user", "u00"), "HAS", ("role", "admin")))?;
        }
        Ok(())
    }
}

/// A daemon that has synced the team twice, and holds what is gone, with its router.
async fn served() -> (Router, Arc<Daemon>) {
    served_in(&["acme"]).await
}

/// The same with several accounts, one synced after another.
async fn served_in(accounts: &[&str]) -> (Router, Arc<Daemon>) {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let connector: Arc<dyn Connector> = Arc::new(Team {
        runs: std::sync::atomic::AtomicU32::new(0),
    });
    let outline = parallax_connect::Runner::new(&connector).outline("acme", "-");
    let every = Duration::from_secs(60);
    let steps = listed_steps(&outline.unwrap());
    let source = |account_id: &&str| Source {
        line: 1,
        steps: steps.clone(),
        kind: "team".to_owned(),
        connector: Arc::clone(&connector),
        connector_id: "team".to_owned(),
        account_id: (*account_id).to_owned(),
        schedule: every.into(),
        interval: every,
        guard: Guard::default(),
    };
    let hub = Arc::new(Hub::new());
    tokio::spawn(Arc::clone(&hub).beat());
    let ended_syncs = Arc::clone(&hub);
    let results = Arc::new(Results::new(store.url()));
    let concluded = Arc::clone(&results);
    let ended = Arc::new(Notify::new());
    let notify = Arc::clone(&ended);
    let mut scheduler = Scheduler::new(Arc::clone(&store)).concurrency(1);
    for account_id in accounts {
        let job = Job::new(Arc::clone(&connector), *account_id, every);
        scheduler = scheduler.job(job).unwrap();
    }
    let scheduler = scheduler
        .journal(Arc::clone(&hub) as _)
        .watcher(move |notice| {
            crate::serve::forget_ended(&ended_syncs, notice);
            concluded.note(notice);
            if matches!(notice, Notice::Ended { .. }) {
                notify.notify_one();
            }
        });
    let daemon = Daemon::new(
        store,
        Arc::new(Roster::new(
            accounts.iter().map(source).collect(),
            Vec::new(),
        )),
        scheduler.handle(),
        Arc::clone(&hub),
        results,
        STREAMS,
        |source| {
            CHANGED.with_borrow_mut(|changed| changed.push(source));
        },
    );
    let daemon = Arc::new(daemon);
    let pages = Arc::new(Pages::new(|_| String::new()));
    pages.set(State::Ready);
    let server = Arc::new(Server::new(pages));
    assert!(server.daemon.set(Arc::clone(&daemon)).is_ok());
    tokio::spawn(scheduler.run(std::future::pending()));
    ended.notified().await;
    ended.notified().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    fs::write(&path, format!("read {}\nadmin {TOKEN}\n", "0".repeat(64))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let tokens = Tokens::read_or_make(&path).unwrap();
    (
        crate::serve::router(&server, Access::new(Some(tokens), false)),
        daemon,
    )
}

async fn get(router: &Router, path: &str) -> (u16, Value) {
    let response = answer(router, Method::GET, path, &[]).await;
    let status = response.status().as_u16();
    let text = body(response).await;
    let json =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    (status, json)
}

/// Says what of a value is not as a schema of a document says; closed, so that a field without a
/// word in the document is found.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        return differences(document, schema, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let found = choices
            .iter()
            .map(|one| differences(document, one, value, at));
        return found.min_by_key(Vec::len).unwrap();
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let parts = schema["allOf"].as_array();
    let kinds = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        // Anything, or the parts say.
        _ => vec![kind],
    };
    if !kinds.contains(&kind) {
        return vec![format!("{at} is {kind}, not {kinds:?}")];
    }
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            let item =
                |(n, item)| differences(document, &schema["items"], item, &format!("{at}[{n}]"));
            items.flat_map(item).collect()
        }
        Value::Object(fields) => {
            let mut known = serde_json::Map::new();
            let mut required = Vec::new();
            collect(document, schema, &mut known, &mut required);
            if known.is_empty() && parts.is_none() {
                return Vec::new();
            }
            let missing = required.iter().filter(|name| !fields.contains_key(*name));
            let mut found: Vec<_> = missing.map(|name| format!("{at}.{name} lacks")).collect();
            for (name, value) in fields {
                match known.get(name) {
                    Some(schema) => {
                        found.extend(differences(
                            document,
                            schema,
                            value,
                            &format!("{at}.{name}"),
                        ));
                    }
                    None => found.push(format!("{at}.{name} is in no document")),
                }
            }
            found
        }
        _ => Vec::new(),
    }
}

/// Gathers the fields of an object and of the parts that it is made of.
fn collect(
    document: &Value,
    schema: &Value,
    known: &mut serde_json::Map<String, Value>,
    required: &mut Vec<String>,
) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        return collect(document, schema, known, required);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(document, part, known, required);
    }
    if let Some(fields) = schema["properties"].as_object() {
        known.extend(fields.clone());
    }
    let names = schema["required"].as_array().into_iter().flatten();
    required.extend(names.filter_map(Value::as_str).map(str::to_owned));
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_as_the_document_says() {
    let (router, _) = served().await;
    let (_, document) = get(&router, "/api/v1/openapi.json").await;
    let (_, user) = get(&router, "/api/v1/search?q=u00").await;
    let (_, relationship) = get(&router, "/api/v1/relationships").await;
    let (_, syncs) = get(&router, "/api/v1/syncs").await;
    let id = |list: &Value| list["items"][0]["id"].as_str().unwrap().to_owned();
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(operation) = methods.get("get") else {
            continue;
        };
        if path == "/api/v1/events" {
            continue;
        }
        let filled = path
            .replace("/entities/{id}", &format!("/entities/{}", id(&user)))
            .replace("{id}", &id(&relationship))
            .replace("{sync_id}", syncs["items"][0]["sync_id"].as_str().unwrap())
            .replace("{changeset}", "1")
            .replace("{connector_id}", "team")
            .replace("{account_id}", "acme");
        let query = match path.rsplit('/').next().unwrap() {
            "search" => "?q=User",
            "explain" | "history" => "?subject=user:u00",
            _ => "",
        };
        let (status, value) = get(&router, &format!("{filled}{query}")).await;
        assert_eq!(status, 200, "{filled}: {value}");
        let is_something = match &value {
            Value::Array(items) => !items.is_empty(),
            value => value["items"]
                .as_array()
                .is_none_or(|items| !items.is_empty()),
        };
        assert!(is_something, "{filled} has nothing to tell");
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let found = differences(&document, schema, &value, "");
        assert!(found.is_empty(), "{filled}: {found:#?}");
        let problem =
            &operation["responses"]["default"]["content"]["application/problem+json"]["schema"];
        let (status, value) = get(&router, &format!("{filled}?nonsense=1")).await;
        if operation["parameters"].to_string().contains("\"query\"") {
            assert_eq!(
                (status, value["field"].as_str()),
                (400, Some("nonsense")),
                "{filled}"
            );
            let found = differences(&document, problem, &value, "");
            assert!(found.is_empty(), "{filled}: {found:#?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 20);
}

#[tokio::test(start_paused = true)]
async fn list_is_the_same_in_pages() {
    let (router, _) = served().await;
    for path in [
        "/api/v1/entities?",
        "/api/v1/entities?type=user&",
        "/api/v1/entities?connector_id=team&account_id=acme&",
        "/api/v1/search?q=u&",
        "/api/v1/syncs?",
        "/api/v1/changesets/1/records?",
    ] {
        let (_, whole) = get(&router, &format!("{path}limit=1000")).await;
        assert_eq!(whole["next"], Value::Null, "{path}");
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, part) = get(&router, &format!("{path}limit=1{cursor}")).await;
            assert_eq!(status, 200, "{path}: {part}");
            items.extend(part["items"].as_array().unwrap().clone());
            match part["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(Value::Array(items), whole["items"], "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_request_names_what_is_wrong() {
    let (router, _) = served().await;
    let mut lines = Vec::new();
    for path in [
        "syncs?limit=0",
        "syncs?limit=-1",
        "syncs?limit=1&limit=2",
        "syncs?cursor=zz",
        "syncs?cursor=5b5d",
        "sources?recent=31",
        "entities?connector_id=team",
        "entities?cursor=7b",
        "entities/xyz",
        "entities/00000000000000000000000000000000",
        "entities/00000000000000000000000000000000/relationships",
        "search",
        "explain?subject=x",
        "explain?subject=user:nobody",
        "changesets/x",
        "changesets/7",
        "changesets?all=perhaps",
        "syncs/%00'",
        "syncs/%ff",
        "sources/team/nobody",
        "sources/team/a%00b",
        "nothing",
        "../../etc/passwd",
    ] {
        let response = answer(&router, Method::GET, &format!("/api/v1/{path}"), &[]).await;
        assert_eq!(
            header(&response, "content-type"),
            "application/problem+json",
            "{path}"
        );
        let status = response.status().as_u16();
        let problem: Value = serde_json::from_str(&body(response).await).unwrap();
        assert_eq!(problem["status"], status);
        assert!(!problem["help"].as_str().unwrap().is_empty());
        let (code, field) = (&problem["code"], problem["field"].as_str().unwrap_or("-"));
        let detail = problem["detail"].as_str().unwrap();
        lines.push(format!(
            "{path}: {status} {} {field}: {detail}",
            code.as_str().unwrap()
        ));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    syncs?limit=0: 400 invalid_parameter limit: limit=0 is not between 1 and 1000
    syncs?limit=-1: 400 invalid_parameter limit: limit: invalid digit found in string
    syncs?limit=1&limit=2: 400 invalid_parameter limit: duplicate field `limit`
    syncs?cursor=zz: 400 invalid_parameter cursor: cursor is not one that this list has given
    syncs?cursor=5b5d: 400 invalid_parameter cursor: cursor is not one that this list has given
    sources?recent=31: 400 invalid_parameter recent: recent=31 is more than 30
    entities?connector_id=team: 400 invalid_parameter account_id: connector_id is given without account_id
    entities?cursor=7b: 400 invalid_parameter cursor: cursor is not one that this list has given
    entities/xyz: 400 invalid_parameter id: id is not of the form [0-9a-f]{32}
    entities/00000000000000000000000000000000: 404 no_such_record -: no source has such a record, or it is not shown because one of its ends is gone
    entities/00000000000000000000000000000000/relationships: 404 no_such_record -: no source has such a record, or it is not shown because one of its ends is gone
    search: 400 invalid_parameter q: missing field `q`
    explain?subject=x: 400 invalid_parameter subject: subject cannot be read: it is neither TYPE:KEY nor an id of 32 hexadecimal digits
    explain?subject=user:nobody: 404 no_such_record -: nothing is stored of user:nobody, and the history does not know it
    changesets/x: 400 invalid_parameter changeset: changeset: "x" is not a number
    changesets/7: 404 no_such_changeset -: there is no changeset 7
    changesets?all=perhaps: 400 invalid_parameter all: all: provided string was not `true` or `false`
    syncs/%00': 404 no_such_sync -: there is no sync "\0'"
    syncs/%ff: 400 invalid_parameter sync_id: Invalid UTF-8 in `sync_id`
    sources/team/nobody: 404 no_such_source -: team in account "nobody" is neither configured nor stored
    sources/team/a%00b: 404 no_such_source -: team in account "a\0b" is neither configured nor stored
    nothing: 404 no_such_place -: there is nothing at this path
    ../../etc/passwd: 404 no_such_place -: there is nothing at this path
    "#);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_store_is_open() {
    let server = Arc::new(Server::new(Arc::new(Pages::new(|_| String::new()))));
    let router = crate::serve::router(&server, Access::new(None, false));
    let (status, problem) = get(&router, "/api/v1/sources").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("unavailable"))
    );
    let (status, _) = get(&router, "/api/v1/openapi.json").await;
    assert_eq!(status, 200);
}

/// Sends a request that changes something, with the admin token.
async fn ask(router: &Router, method: Method, path: &str) -> (u16, Value) {
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let response = answer(router, method, &format!("/api/v1/{path}"), &headers).await;
    let status = response.status().as_u16();
    (status, serde_json::from_str(&body(response).await).unwrap())
}

/// A client that goes away has its request dropped, wherever that was.
#[tokio::test(start_paused = true)]
async fn change_is_told_though_nobody_waits_for_the_answer() {
    let (router, daemon) = served().await;
    CHANGED.with_borrow_mut(Vec::clear);
    {
        let mut asked = Box::pin(ask(&router, Method::POST, "changesets/1/approve"));
        // Once around: it has begun, and waits for the store.
        assert!(futures::poll!(&mut asked).is_pending());
    }
    daemon.settled().await;
    let changed = CHANGED.with_borrow(Vec::clone);
    assert_eq!(changed, [("team".to_owned(), "acme".to_owned())]);
    let sql = "SELECT entities FROM parallax_source";
    let left = daemon.store.query(sql).await.unwrap().rows;
    assert_eq!(left, [[parallax_store::Cell::Integer(1)]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_is_done_once_and_told() {
    let (router, daemon) = served().await;
    let (status, accepted) = ask(&router, Method::POST, "sources/team/acme/syncs").await;
    let sync_id = accepted["sync_id"].as_str().unwrap().to_owned();
    assert_eq!(status, 202);
    let (status, problem) = ask(&router, Method::POST, "sources/team/acme/syncs").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("sync_running"))
    );
    assert!(problem["detail"].as_str().unwrap().contains(&sync_id));
    let (_, source) = get(&router, "/api/v1/sources/team/acme").await;
    assert_eq!(source["running_sync_id"], Value::String(sync_id.clone()));
    let path = format!("/api/v1/syncs/{sync_id}");
    loop {
        let (status, sync) = get(&router, &path).await;
        assert_eq!(status, 200, "{sync}");
        if sync["committed_at"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let (status, decision) = ask(&router, Method::POST, "changesets/1/approve").await;
    assert_eq!(
        (status, &decision["state"]),
        (200, &"approved".into()),
        "{decision}"
    );
    assert_eq!(
        (&decision["entities"], &decision["repeated"]),
        (&12.into(), &false.into())
    );
    let (status, again) = ask(&router, Method::POST, "changesets/1/approve").await;
    assert_eq!((status, &again["repeated"]), (200, &true.into()));
    let (status, problem) = ask(&router, Method::POST, "changesets/1/reject").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("changeset_closed"))
    );
    let (status, problem) = ask(&router, Method::POST, "changesets/2/reject").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (404, Some("no_such_changeset"))
    );

    for (path, status, code) in [
        ("sources/team/nobody/syncs", 404, "no_such_source"),
        ("sources/nobody/acme/syncs", 404, "no_such_source"),
        ("syncs/nothing/cancel", 409, "not_running"),
    ] {
        let (got, problem) = ask(&router, Method::POST, path).await;
        assert_eq!(
            (got, problem["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let (status, removal) = ask(&router, Method::DELETE, "sources/team/acme").await;
    assert_eq!((status, &removal["entities"]), (200, &1.into()));
    let (status, _) = ask(&router, Method::DELETE, "sources/team/acme").await;
    assert_eq!(status, 404);
    let left = daemon
        .store
        .query("SELECT * FROM parallax_source")
        .await
        .unwrap();
    assert_eq!(left.rows.len(), 0);
    let told = CHANGED.with_borrow(Vec::len);
    assert_eq!(told, 3, "two decisions and a removal");
}

/// A client of an event stream, and what has come of it.
struct Client {
    stream: std::pin::Pin<Box<dyn futures::Stream<Item = Result<Bytes, axum::Error>> + Send>>,
    text: String,
}

/// An event: its id, its name and its data.
type Event = (String, String, String);

impl Client {
    async fn connect(router: &Router, path: &str, last_event_id: Option<&str>) -> Self {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        let response = answer(router, Method::GET, path, &headers).await;
        assert_eq!(
            header(&response, "content-type"),
            "text/event-stream",
            "{path}"
        );
        Self {
            stream: Box::pin(response.into_body().into_data_stream()),
            text: String::new(),
        }
    }

    /// Returns the next event, or nothing at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                let event = (field("id: "), field("event: "), field("data: "));
                self.text = rest.to_owned();
                if event != Event::default() {
                    return Some(event);
                }
                continue;
            }
            let piece = self.stream.next().await?.unwrap();
            self.text += str::from_utf8(&piece).unwrap();
        }
    }

    /// Returns all events up to the end.
    async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

#[tokio::test(start_paused = true)]
async fn journal_is_the_same_however_it_is_read() {
    let (router, daemon) = served().await;
    let (_, accepted) = ask(&router, Method::POST, "sources/team/acme/syncs").await;
    let sync_id = accepted["sync_id"].as_str().unwrap().to_owned();
    // The sync takes a second.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let path = format!("/api/v1/syncs/{sync_id}/journal");
    let mut early = Client::connect(&router, &path, None).await;
    let (_, running) = get(&router, &path).await;
    assert_eq!(running["running"], true, "{running}");
    let first = early.next().await.unwrap();
    assert_eq!(first.0, "1");
    // A client that goes away after each event, and comes back.
    let mut restless = vec![
        Client::connect(&router, &path, None)
            .await
            .next()
            .await
            .unwrap(),
    ];
    loop {
        let last = restless.last().unwrap().0.clone();
        let event = Client::connect(&router, &path, Some(&last))
            .await
            .next()
            .await
            .unwrap();
        if event.1 == "end" {
            break;
        }
        restless.push(event);
    }
    let mut whole = vec![first];
    whole.extend(early.rest().await);
    let end = whole.pop().unwrap();
    assert_eq!(
        (end.1.as_str(), end.2.as_str()),
        ("end", r#"{"reason":"the sync has ended"}"#)
    );
    assert_eq!(whole, restless);
    let late = Client::connect(&router, &path, None).await.rest().await;
    assert_eq!(whole, late[..late.len() - 1]);
    let numbers: Vec<_> = (1..=whole.len()).map(|n| n.to_string()).collect();
    let ids: Vec<_> = whole.iter().map(|event| event.0.clone()).collect();
    assert_eq!(ids, numbers);
    let kind = |event: &Event| serde_json::from_str::<Value>(&event.2).unwrap()["kind"].clone();
    assert_eq!(
        (kind(&whole[0]), kind(whole.last().unwrap())),
        ("started".into(), "committed".into())
    );

    let name = JournalName {
        connector_id: "team".to_owned(),
        account_id: "acme".to_owned(),
        sync_id,
    };
    let stored = daemon.store.journal(&name, 1).await.unwrap().lines;
    let sent: Vec<_> = whole.iter().map(|event| event.2.clone()).collect();
    assert_eq!(sent, stored);
    let response = answer(&router, Method::GET, &path, &[]).await;
    let json = body(response).await;
    assert!(json.contains(&stored.join(",")), "{json}");
    let (_, part) = get(&router, &format!("{path}?from=3")).await;
    assert_eq!(part["items"][0]["seq"], 3);
    let (status, far) = get(&router, &format!("{path}?from={}", u64::MAX)).await;
    assert_eq!((status, &far["items"]), (200, &Value::Array(Vec::new())));
    assert_eq!(
        (&part["running"], &part["next"]),
        (&false.into(), &(stored.len() + 1).into())
    );
}

#[tokio::test(start_paused = true)]
async fn all_syncs_are_told_as_they_happen() {
    let (router, daemon) = served().await;
    let mut client = Client::connect(&router, "/api/v1/events", None).await;
    let reset = client.next().await.unwrap();
    assert_eq!(reset.1, "reset");
    ask(&router, Method::POST, "changesets/1/reject").await;
    let changed = client.next().await.unwrap();
    let source = r#"{"connector_id":"team","account_id":"acme"}"#;
    assert_eq!(
        (changed.1.as_str(), changed.2.as_str()),
        ("changed", source)
    );
    ask(&router, Method::POST, "sources/team/acme/syncs").await;
    let mut events = Vec::new();
    while !events
        .last()
        .is_some_and(|event: &Event| event.2.contains("\"kind\":\"committed\""))
    {
        events.push(client.next().await.unwrap());
    }
    // Who comes back gets what it missed, and who has never been here nothing of before.
    let mut back = Client::connect(&router, "/api/v1/events", Some(&changed.0)).await;
    for event in &events {
        assert_eq!(back.next().await.as_ref(), Some(event));
    }
    for id in ["0000000000000000-1", &format!("{}9", events[0].0)] {
        let mut other = Client::connect(&router, "/api/v1/events", Some(id)).await;
        assert_eq!(other.next().await.unwrap().1, "reset", "{id}");
    }
    for id in ["", "x", "x-1", "1"] {
        let headers = [("last-event-id", id)];
        let refused = answer(&router, Method::GET, "/api/v1/events", &headers).await;
        assert_eq!(refused.status(), 400, "{id:?}");
    }
    daemon.hub.close();
    let end = client.rest().await.pop().unwrap();
    assert_eq!(
        (end.1.as_str(), end.2.as_str()),
        ("end", r#"{"reason":"the daemon stops"}"#)
    );
}

#[tokio::test(start_paused = true)]
async fn client_that_is_too_slow_is_told_so() {
    let (router, daemon) = served().await;
    let mut client = Client::connect(&router, "/api/v1/events", None).await;
    client.next().await.unwrap();
    for _ in 0..100_000 {
        daemon.hub.changed("team", "acme");
    }
    let events = client.rest().await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].2,
        r#"{"reason":"too slow: more has happened than is kept for you"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_streams() {
    let (router, _) = served().await;
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        clients.push(Client::connect(&router, "/api/v1/events", None).await);
    }
    let (status, problem) = get(&router, "/api/v1/events").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("too_many_streams"))
    );
    clients.pop();
    Client::connect(&router, "/api/v1/events", None).await;
}

#[tokio::test(start_paused = true)]
async fn sync_is_shown_as_soon_as_it_was_asked_for() {
    let (router, _daemon) = served_in(&["acme", "other"]).await;
    let trigger = async |account: &str| {
        let path = format!("sources/team/{account}/syncs");
        let response = ask(&router, Method::POST, &path).await.1;
        format!("/api/v1/syncs/{}", response["sync_id"].as_str().unwrap())
    };
    trigger("acme").await;
    // It waits for the other.
    let path = trigger("other").await;
    let (_, document) = get(&router, "/api/v1/openapi.json").await;
    let schema =
        "/paths/~1api~1v1~1syncs~1{sync_id}/get/responses/200/content/application~1json/schema";
    let schema = document.pointer(schema).unwrap();
    let of = async |wanted: fn(&Value) -> bool| {
        loop {
            let (status, sync) = get(&router, &path).await;
            assert_eq!(status, 200, "{sync}");
            if wanted(&sync) {
                let found = differences(&document, schema, &sync, "");
                assert!(found.is_empty(), "{found:#?}");
                let step = |step: &Value| {
                    let after = step["started_after_ms"].is_number();
                    let fields = ["step_id", "status", "attempts", "depends_on"];
                    let fields = fields.map(|field| step[field].to_string());
                    format!("{}, begun: {after}", fields.join(" "))
                };
                let steps: Vec<_> = sync["steps"].as_array().unwrap().iter().map(step).collect();
                let committed = sync["committed_at"].is_string();
                let outcome = &sync["outcome"];
                return format!("{outcome}, committed: {committed}\n{}", steps.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    insta::assert_snapshot!(of(|_| true).await, @r#"
    "waiting", committed: false
    "users" "waiting" 0 [], begun: false
    "roles" "waiting" 0 ["users"], begun: false
    "#);
    insta::assert_snapshot!(of(|sync| sync["steps"][1]["status"] == "running").await, @r#"
    "running", committed: false
    "users" "completed" 1 [], begun: true
    "roles" "running" 1 ["users"], begun: true
    "#);
    insta::assert_snapshot!(of(|sync| sync["committed_at"].is_string()).await, @r#"
    "committed", committed: true
    "users" "completed" 1 [], begun: true
    "roles" "completed" 1 ["users"], begun: true
    "#);
}

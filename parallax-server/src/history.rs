use parallax_core::{Escaped, excerpt};
use parallax_store::{Event, EventKind, History, PropertyChange, Store};
use serde::Serialize;
use utoipa::ToSchema;

use crate::args::HistoryArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json::{self, PropertyObject};
use crate::records::{ClaimObject, RecordObject, SyncObject, because, sync_text, title, unknown};
use crate::text::{FAINT, GONE, GOOD, ODD, paint};

/// Of longer values, people see the beginning.
const VALUE_CHARS: usize = 120;

/// `parallax history`: says what happened to a record, newest first.
pub(crate) async fn run(args: &HistoryArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    // One more tells whether there are more.
    let limit = args.limit.saturating_add(1);
    let mut histories = store.history(&args.subject, limit).await?;
    if histories.is_empty() {
        return Err(unknown(&store, &args.subject).await?);
    }
    let shown = args.limit as usize;
    let more = histories.iter().any(|history| history.events.len() > shown);
    for history in &mut histories {
        history.events.truncate(shown);
    }
    let text = if args.json {
        let objects: Vec<_> = histories.iter().map(Object::new).collect();
        json::array(&objects)
    } else {
        let texts: Vec<_> = histories.iter().map(as_text).collect();
        texts.join("\n")
    };
    console.print(&text)?;
    if more && !args.json {
        console.complain("there is more: --limit shows it\n");
    }
    Ok(Exit::Ok)
}

fn as_text(history: &History) -> String {
    let mut text = title(&history.record, &history.id) + "\n";
    for event in &history.events {
        text += "\n";
        text += &event_text(event);
    }
    text
}

fn event_text(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Created => paint(GOOD, "created"),
        EventKind::Updated(_) => paint(ODD, "updated"),
        EventKind::Deleted(_) => paint(GONE, "deleted"),
    };
    let source = format_args!(
        "{}, account {}",
        Escaped(&event.connector_id),
        Escaped(&event.account_id)
    )
    .to_string();
    let mut text = format!(
        "{what} {}\n  {}\n",
        sync_text(event.sync.as_ref()),
        paint(FAINT, source)
    );
    match &event.kind {
        EventKind::Created => {}
        EventKind::Updated(changes) if changes.is_empty() => {
            text += "  in a way that JSON does not show\n";
        }
        EventKind::Updated(changes) => {
            for change in changes {
                text += &format!("  {}\n", change_text(change));
            }
        }
        EventKind::Deleted(deletion) => text += &format!("  {}\n", because(deletion)),
    }
    text
}

fn change_text(change: &PropertyChange) -> String {
    let value = |value: &Option<String>| match value {
        Some(json) => excerpt(json, VALUE_CHARS),
        None => "nothing".to_owned(),
    };
    format!(
        "{}: {} → {}",
        Escaped(&change.name),
        value(&change.before),
        value(&change.after)
    )
}

/// A record and what happened to it.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(crate) struct Object<'a> {
    #[serde(flatten)]
    record: RecordObject<'a>,
    events: Vec<EventObject<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEvent)]
struct EventObject<'a> {
    action: &'static str,
    connector_id: &'a str,
    account_id: &'a str,
    sync: Option<SyncObject<'a>>,
    /// Of an update.
    changes: Option<Vec<PropertyObject<'a>>>,
    /// Of a delete.
    claims: Option<Vec<ClaimObject<'a>>>,
    changeset: Option<u64>,
}

impl<'a> Object<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        Self {
            record: RecordObject::new(&history.id, &history.record),
            events: history.events.iter().map(EventObject::new).collect(),
        }
    }
}

impl<'a> EventObject<'a> {
    fn new(event: &'a Event) -> Self {
        let mut object = Self {
            action: "created",
            connector_id: &event.connector_id,
            account_id: &event.account_id,
            sync: SyncObject::new(event.sync.as_ref()),
            changes: None,
            claims: None,
            changeset: None,
        };
        match &event.kind {
            EventKind::Created => {}
            EventKind::Updated(changes) => {
                object.action = "updated";
                object.changes = Some(changes.iter().map(PropertyObject::new).collect());
            }
            EventKind::Deleted(deletion) => {
                object.action = "deleted";
                object.claims = Some(deletion.claims.iter().map(ClaimObject::new).collect());
                object.changeset = deletion.changeset;
            }
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use parallax_store::{ClaimName, Deletion, EntityName, RecordName, SyncRef};

    use super::*;

    fn event(n: u8, kind: EventKind) -> Event {
        Event {
            connector_id: "team".to_owned(),
            account_id: "a\u{202e}b".to_owned(),
            sync: Some(SyncRef {
                sync_id: format!("s-{n}"),
                committed_at: format!("2026-11-22T11:45:{n:02}.123456Z").parse().unwrap(),
            }),
            kind,
        }
    }

    fn history() -> History {
        let change = |name: &str, before: Option<&str>, after: Option<&str>| PropertyChange {
            name: name.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let long = format!("\"{}\"", "x".repeat(200));
        History {
            id: "0".repeat(32),
            record: RecordName::Entity(EntityName {
                entity_type: "team_user".to_owned(),
                key: "ann".to_owned(),
                display_name: "Ann\u{1b}[2J".to_owned(),
            }),
            events: vec![
                event(
                    4,
                    EventKind::Deleted(Deletion {
                        sync: None,
                        claims: vec![ClaimName {
                            step_id: "users".to_owned(),
                            scope: Some("eu".to_owned()),
                        }],
                        changeset: Some(7),
                    }),
                ),
                event(3, EventKind::Updated(Vec::new())),
                event(
                    2,
                    EventKind::Updated(vec![
                        change("class", None, Some("\"User\"")),
                        change("display_name", Some("\"Ann\""), Some("\"Anne\u{9b}\"")),
                        change("count", Some("18446744073709551615"), None),
                        change("\u{1b}note", Some("[1,\"a\\nb\"]"), Some(&long)),
                    ]),
                ),
                event(1, EventKind::Created),
            ],
        }
    }

    #[test]
    fn events_are_said_in_words() {
        insta::assert_snapshot!(strip_str(&as_text(&history())), @r#"
        team_user:ann (Ann\u{1b}[2J)
        id 00000000000000000000000000000000

        deleted 2026-11-22 11:45:04 UTC, sync s-4
          team, account a\u{202e}b
          nobody found it, and changeset 7 was approved; claimed by: users (scope eu)

        updated 2026-11-22 11:45:03 UTC, sync s-3
          team, account a\u{202e}b
          in a way that JSON does not show

        updated 2026-11-22 11:45:02 UTC, sync s-2
          team, account a\u{202e}b
          class: nothing → "User"
          display_name: "Ann" → "Anne\u{9b}"
          count: 18446744073709551615 → nothing
          \u{1b}note: [1,"a\nb"] → "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…

        created 2026-11-22 11:45:01 UTC, sync s-1
          team, account a\u{202e}b
        "#);
    }

    #[test]
    fn values_in_an_object_are_those_that_are_stored() {
        let text = json::array(&[Object::new(&history())]);
        insta::assert_snapshot!(text.replace("},{", "},\n  {").replace(&"x".repeat(200), "x…"), @r#"
        [
        {"id":"00000000000000000000000000000000","kind":"entity","type":"team_user","key":"ann","display_name":"Ann\u001b[2J","from":null,"to":null,"events":[{"action":"deleted","connector_id":"team","account_id":"a\u202eb","sync":{"sync_id":"s-4","committed_at":"2026-11-22T11:45:04.123456Z"},"changes":null,"claims":[{"step_id":"users","scope":"eu"}],"changeset":7},
          {"action":"updated","connector_id":"team","account_id":"a\u202eb","sync":{"sync_id":"s-3","committed_at":"2026-11-22T11:45:03.123456Z"},"changes":[],"claims":null,"changeset":null},
          {"action":"updated","connector_id":"team","account_id":"a\u202eb","sync":{"sync_id":"s-2","committed_at":"2026-11-22T11:45:02.123456Z"},"changes":[{"name":"class","after":"User"},
          {"name":"display_name","before":"Ann","after":"Anne\u009b"},
          {"name":"count","before":18446744073709551615},
          {"name":"\u001bnote","before":[1,"a\nb"],"after":"x…"}],"claims":null,"changeset":null},
          {"action":"created","connector_id":"team","account_id":"a\u202eb","sync":{"sync_id":"s-1","committed_at":"2026-11-22T11:45:01.123456Z"},"changes":null,"claims":null,"changeset":null}]}
        ]
        "#);
    }
}

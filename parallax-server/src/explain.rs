use parallax_core::Escaped;
use parallax_store::{
    Claim, ClaimName, Confirmation, Explanation, InSource, RecordName, State, Store,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::args::ExplainArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::records::{
    ClaimObject, RecordObject, SyncObject, because, claims_text, end, sync_text, time, title,
    unknown,
};
use crate::text::{GONE, GOOD, ODD, paint};

/// `parallax explain`: says who claims a record, and why it is there or gone.
pub(crate) async fn run(args: &ExplainArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    let explanations = store.explain(&args.subject).await?;
    if explanations.is_empty() {
        return Err(unknown(&store, &args.subject).await?);
    }
    let text = if args.json {
        let objects: Vec<_> = explanations.iter().map(Object::new).collect();
        json::array(&objects)
    } else {
        let again = args.store.again();
        let texts = explanations.iter();
        let texts: Vec<_> = texts.map(|explained| as_text(explained, &again)).collect();
        texts.join("\n")
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// Describes a record; `again` names the store on a command line.
fn as_text(explanation: &Explanation, again: &str) -> String {
    let mut text = title(&explanation.record, &explanation.id) + "\n";
    let is_gone = |source: &InSource| matches!(source.state, State::Gone(_));
    if let RecordName::Relationship { from, to, .. } = &explanation.record
        && !explanation.sources.iter().all(is_gone)
    {
        for missing in [from, to].into_iter().filter(|end| !end.is_live) {
            text += &format!(
                "{} no source has {}, so this relationship is not shown\n",
                paint(ODD, "Waiting:"),
                end(missing),
            );
        }
    }
    for source in &explanation.sources {
        text += &format!(
            "\n{}, account {}\n",
            Escaped(&source.connector_id),
            Escaped(&source.account_id),
        );
        text += &in_source(source, again);
    }
    text
}

fn in_source(source: &InSource, again: &str) -> String {
    let mut lines = vec![state(source)];
    let mut line = |label: &str, text: String| lines.push(format!("  {label:<10} {text}"));
    match &source.state {
        State::Held {
            changeset, reason, ..
        } => {
            line("why", Escaped(reason).to_string());
            line(
                "next",
                format!(
                    "`parallax held {changeset}{again}` shows all that is held with it, `parallax \
                     approve {changeset}{again}` deletes it, `parallax reject {changeset}{again}` \
                     keeps it"
                ),
            );
        }
        State::Gone(deletion) => line("because", because(deletion)),
        _ => {}
    }
    if let Some(confirmed) = &source.confirmed {
        let mut text = sync_text(Some(&confirmed.sync));
        if !confirmed.claims.is_empty() {
            text += &format!(", by {}", claims_text(&confirmed.claims));
        }
        line("last seen", text);
    }
    line("created", sync_text(source.created.as_ref()));
    if source.changed != source.created {
        line("changed", sync_text(source.changed.as_ref()));
    }
    for claim in &source.claims {
        line("claim", claim_text(claim, source.confirmed.as_ref()));
    }
    if let Some(failed) = &source.failed_since {
        line(
            "since then",
            format!(
                "a sync failed and looked at nothing {}",
                sync_text(Some(failed))
            ),
        );
    }
    lines.join("\n") + "\n"
}

/// Says in a sentence what has become of the record.
fn state(source: &InSource) -> String {
    let checked = source.claims.iter().any(|claim| claim.missed.is_some());
    match &source.state {
        State::Live if source.failed_since.is_some() => format!(
            "{} the last sync that did not fail saw it",
            paint(GOOD, "Live:")
        ),
        State::Live => format!("{} the last sync saw it", paint(GOOD, "Live:")),
        State::Kept {
            perhaps_seen: false,
        } => format!(
            "{} the last sync could not look everywhere for it, so it stays",
            paint(ODD, "Kept:")
        ),
        State::Kept { perhaps_seen: true } if checked => format!(
            "{} the last sync could not look everywhere for it, so it stays, seen or not",
            paint(ODD, "Live or kept:")
        ),
        State::Kept { .. } => format!(
            "{} whether the last sync saw it is not on record",
            paint(ODD, "Live or kept:")
        ),
        State::Held { by, .. } => format!(
            "{} it was not found, and its delete waits for your word since {}",
            paint(ODD, "Held:"),
            sync_text(by.as_ref()),
        ),
        State::Pinned { changeset, at } => format!(
            "{} it was not found, and its delete was refused: changeset {changeset} was \
             rejected{}; it stays until it is seen again",
            paint(ODD, "Kept:"),
            at.map(|at| format!(" {}", time(at))).unwrap_or_default(),
        ),
        State::Gone(deletion) => format!(
            "{} deleted {}",
            paint(GONE, "Gone:"),
            sync_text(deletion.sync.as_ref()),
        ),
    }
}

fn claim_text(claim: &Claim, confirmed: Option<&Confirmation>) -> String {
    let mut facts = Vec::new();
    if let Some(missed) = &claim.missed {
        facts.push(format!(
            "could not be checked {}: {}",
            sync_text(missed.sync.as_ref()),
            Escaped(&missed.because),
        ));
    }
    // When the record was seen is said above.
    let seen = confirmed.map(|confirmed| &confirmed.sync);
    if let Some(looked) = claim.looked.as_ref().filter(|looked| Some(*looked) != seen) {
        facts.push(format!("looked everywhere {}", sync_text(Some(looked))));
    }
    let name = claims_text([&claim.name]);
    match facts.as_slice() {
        [] => name,
        facts => format!("{name}: {}", facts.join("; ")),
    }
}

/// A record and what its sources know of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(crate) struct Object<'a> {
    #[serde(flatten)]
    record: RecordObject<'a>,
    sources: Vec<SourceObject<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ExplainedSource)]
struct SourceObject<'a> {
    connector_id: &'a str,
    account_id: &'a str,
    state: &'static str,
    perhaps_seen: Option<bool>,
    changeset: Option<u64>,
    reason: Option<&'a str>,
    confirmed: Option<ConfirmedObject<'a>>,
    created: Option<SyncObject<'a>>,
    changed: Option<SyncObject<'a>>,
    deleted: Option<SyncObject<'a>>,
    claims: Vec<ClaimStateObject<'a>>,
    failed_since: Option<SyncObject<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Confirmation)]
struct ConfirmedObject<'a> {
    #[serde(flatten)]
    sync: SyncObject<'a>,
    claims: Vec<ClaimObject<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ExplainedClaim)]
struct ClaimStateObject<'a> {
    #[serde(flatten)]
    name: ClaimObject<'a>,
    looked: Option<SyncObject<'a>>,
    missed: Option<SyncObject<'a>>,
    missed_because: Option<&'a str>,
}

impl<'a> Object<'a> {
    pub(crate) fn new(explanation: &'a Explanation) -> Self {
        Self {
            record: RecordObject::new(&explanation.id, &explanation.record),
            sources: explanation.sources.iter().map(SourceObject::new).collect(),
        }
    }
}

impl<'a> SourceObject<'a> {
    fn new(source: &'a InSource) -> Self {
        let mut object = Self {
            connector_id: &source.connector_id,
            account_id: &source.account_id,
            state: "live",
            perhaps_seen: None,
            changeset: None,
            reason: None,
            confirmed: source.confirmed.as_ref().map(|confirmed| ConfirmedObject {
                sync: SyncObject::of(&confirmed.sync),
                claims: confirmed.claims.iter().map(ClaimObject::new).collect(),
            }),
            created: SyncObject::new(source.created.as_ref()),
            changed: SyncObject::new(source.changed.as_ref()),
            deleted: None,
            claims: source.claims.iter().map(ClaimStateObject::new).collect(),
            failed_since: SyncObject::new(source.failed_since.as_ref()),
        };
        match &source.state {
            State::Live => {}
            State::Kept { perhaps_seen } => {
                object.state = "kept";
                object.perhaps_seen = Some(*perhaps_seen);
            }
            State::Held {
                changeset, reason, ..
            } => {
                object.state = "held";
                object.changeset = Some(*changeset);
                object.reason = Some(reason);
            }
            State::Pinned { changeset, .. } => {
                object.state = "pinned";
                object.changeset = Some(*changeset);
            }
            State::Gone(deletion) => {
                object.state = "gone";
                object.changeset = deletion.changeset;
                object.deleted = SyncObject::new(deletion.sync.as_ref());
                object.claims = deletion.claims.iter().map(ClaimStateObject::bare).collect();
            }
        }
        object
    }
}

impl<'a> ClaimStateObject<'a> {
    /// Returns the claim of a record that is gone: nobody looks for it any more.
    fn bare(name: &'a ClaimName) -> Self {
        Self {
            name: ClaimObject::new(name),
            looked: None,
            missed: None,
            missed_because: None,
        }
    }

    fn new(claim: &'a Claim) -> Self {
        let missed = claim.missed.as_ref();
        Self {
            name: ClaimObject::new(&claim.name),
            looked: SyncObject::new(claim.looked.as_ref()),
            missed: SyncObject::new(missed.and_then(|missed| missed.sync.as_ref())),
            missed_because: missed.map(|missed| missed.because.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use parallax_store::{Deletion, End, EntityName, Missed, SyncRef};

    use super::*;

    fn sync(n: u8) -> SyncRef {
        SyncRef {
            sync_id: format!("s-{n}"),
            committed_at: format!("2026-11-22T11:45:{n:02}.123456Z").parse().unwrap(),
        }
    }

    fn claim(step_id: &str, scope: Option<&str>) -> ClaimName {
        ClaimName {
            step_id: step_id.to_owned(),
            scope: scope.map(str::to_owned),
        }
    }

    fn user(key: &str) -> EntityName {
        EntityName {
            entity_type: "team_user".to_owned(),
            key: key.to_owned(),
            display_name: key.to_uppercase(),
        }
    }

    fn explained(state: State, claims: Vec<Claim>) -> Explanation {
        let is_here = matches!(state, State::Live | State::Kept { .. });
        Explanation {
            id: "0".repeat(32),
            record: RecordName::Entity(user("ann")),
            sources: vec![InSource {
                connector_id: "team".to_owned(),
                account_id: "acme".to_owned(),
                state,
                confirmed: is_here.then(|| Confirmation {
                    sync: sync(3),
                    claims: claims.iter().map(|claim| claim.name.clone()).collect(),
                }),
                claims,
                created: Some(sync(1)),
                changed: Some(sync(2)),
                failed_since: None,
            }],
        }
    }

    fn checked(name: ClaimName) -> Claim {
        Claim {
            name,
            looked: Some(sync(3)),
            missed: None,
        }
    }

    fn missed(name: ClaimName) -> Claim {
        Claim {
            missed: Some(Missed {
                sync: Some(sync(4)),
                because: "page 3\nis missing".to_owned(),
            }),
            ..checked(name)
        }
    }

    #[test]
    fn each_state_is_said_in_words() {
        let users = || claim("users", None);
        let eu = || claim("roles", Some("eu"));
        let mut failed_since = explained(State::Live, vec![checked(users())]);
        failed_since.sources[0].failed_since = Some(sync(5));
        let perhaps = |perhaps_seen| State::Kept { perhaps_seen };
        let unknown = Claim {
            name: users(),
            looked: None,
            missed: None,
        };
        let explanations = [
            failed_since,
            explained(perhaps(false), vec![missed(users())]),
            explained(perhaps(true), vec![missed(eu()), checked(users())]),
            explained(perhaps(true), vec![unknown]),
            explained(
                State::Held {
                    changeset: 7,
                    by: Some(sync(4)),
                    reason: "120 of 300 entities would go".to_owned(),
                },
                vec![checked(users())],
            ),
            explained(
                State::Pinned {
                    changeset: 7,
                    at: Some(sync(9).committed_at),
                },
                vec![checked(users())],
            ),
            explained(
                State::Gone(Deletion {
                    sync: Some(sync(4)),
                    claims: vec![users(), eu()],
                    changeset: None,
                }),
                vec![],
            ),
            explained(
                State::Gone(Deletion {
                    sync: None,
                    claims: vec![users()],
                    changeset: Some(7),
                }),
                vec![],
            ),
        ];
        let texts = explanations.map(|explanation| {
            let text = strip_str(&as_text(&explanation, " --store S")).to_string();
            let (_, text) = text.split_once("account acme\n").unwrap();
            text.to_owned()
        });
        insta::assert_snapshot!(texts.join("\n"), @r"
        Live: the last sync that did not fail saw it
          last seen  2026-11-22 11:45:03 UTC, sync s-3, by users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users
          since then a sync failed and looked at nothing 2026-11-22 11:45:05 UTC, sync s-5

        Kept: the last sync could not look everywhere for it, so it stays
          last seen  2026-11-22 11:45:03 UTC, sync s-3, by users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users: could not be checked 2026-11-22 11:45:04 UTC, sync s-4: page 3\nis missing

        Live or kept: the last sync could not look everywhere for it, so it stays, seen or not
          last seen  2026-11-22 11:45:03 UTC, sync s-3, by roles (scope eu), users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      roles (scope eu): could not be checked 2026-11-22 11:45:04 UTC, sync s-4: page 3\nis missing
          claim      users

        Live or kept: whether the last sync saw it is not on record
          last seen  2026-11-22 11:45:03 UTC, sync s-3, by users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users

        Held: it was not found, and its delete waits for your word since 2026-11-22 11:45:04 UTC, sync s-4
          why        120 of 300 entities would go
          next       `parallax held 7 --store S` shows all that is held with it, `parallax approve 7 --store S` deletes it, `parallax reject 7 --store S` keeps it
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users: looked everywhere 2026-11-22 11:45:03 UTC, sync s-3

        Kept: it was not found, and its delete was refused: changeset 7 was rejected 2026-11-22 11:45:09 UTC; it stays until it is seen again
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users: looked everywhere 2026-11-22 11:45:03 UTC, sync s-3

        Gone: deleted 2026-11-22 11:45:04 UTC, sync s-4
          because    every step that claimed it looked everywhere and did not find it: users, roles (scope eu)
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2

        Gone: deleted at a time that is no longer on record
          because    nobody found it, and changeset 7 was approved; claimed by: users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
        ");
    }

    #[test]
    fn relationship_waits_for_its_ends() {
        let mut explanation = explained(State::Live, vec![checked(claim("users", None))]);
        explanation.record = RecordName::Relationship {
            from: End {
                id: "1".repeat(32),
                entity: Some(user("ann\u{202e}")),
                is_live: false,
            },
            verb: "KNOWS".to_owned(),
            to: End {
                id: "2".repeat(32),
                entity: None,
                is_live: false,
            },
            key: Some("well".to_owned()),
        };
        insta::assert_snapshot!(strip_str(&as_text(&explanation, "")), @r"
        team_user:ann\u{202e} KNOWS 22222222222222222222222222222222 [well]
        id 00000000000000000000000000000000
        Waiting: no source has team_user:ann\u{202e}, so this relationship is not shown
        Waiting: no source has 22222222222222222222222222222222, so this relationship is not shown

        team, account acme
        Live: the last sync saw it
          last seen  2026-11-22 11:45:03 UTC, sync s-3, by users
          created    2026-11-22 11:45:01 UTC, sync s-1
          changed    2026-11-22 11:45:02 UTC, sync s-2
          claim      users
        ");
        insta::assert_snapshot!(json::array(&[Object::new(&explanation)]), @r#"
        [
        {"id":"00000000000000000000000000000000","kind":"relationship","type":"KNOWS","key":"well","display_name":null,"from":{"id":"11111111111111111111111111111111","type":"team_user","key":"ann\u202e","display_name":"ANN\u202e","live":false},"to":{"id":"22222222222222222222222222222222","type":null,"key":null,"display_name":null,"live":false},"sources":[{"connector_id":"team","account_id":"acme","state":"live","perhaps_seen":null,"changeset":null,"reason":null,"confirmed":{"sync_id":"s-3","committed_at":"2026-11-22T11:45:03.123456Z","claims":[{"step_id":"users","scope":null}]},"created":{"sync_id":"s-1","committed_at":"2026-11-22T11:45:01.123456Z"},"changed":{"sync_id":"s-2","committed_at":"2026-11-22T11:45:02.123456Z"},"deleted":null,"claims":[{"step_id":"users","scope":null,"looked":{"sync_id":"s-3","committed_at":"2026-11-22T11:45:03.123456Z"},"missed":null,"missed_because":null}],"failed_since":null}]}
        ]
        "#);
    }
}

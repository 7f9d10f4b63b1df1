//! What a commit changes, record by record, for people.

use std::fmt::Write;

use clap::builder::styling::Style;
use indicatif::HumanCount;
use parallax_core::{Escaped, RecordKind};
use parallax_store::{Action, Change, PropertyChange};

use crate::conclusion::Committed;
use crate::text::{FAINT, GONE, GOOD, ODD, paint};

/// Of the changes of each action, more than these are a number.
const SHOWN: usize = 10;

const ACTIONS: [Action; 4] = [
    Action::Created,
    Action::Updated,
    Action::Deleted,
    Action::Held,
];

/// Returns the first changes of each action, a line for each.
///
/// Entities only: that a relationship comes and goes with its ends goes without saying. Where
/// nothing but relationships is held, it is those.
pub(crate) fn first(committed: &Committed) -> String {
    let mut text = String::new();
    for action in ACTIONS {
        let of = |kind| {
            let changes = committed.changes.iter();
            changes.filter(move |change| change.action == action && change.kind == kind)
        };
        let mut kind = RecordKind::Entity;
        if action == Action::Held && of(kind).next().is_none() {
            kind = RecordKind::Relationship;
        }
        let mut shown = 0;
        for change in of(kind).take(SHOWN) {
            shown += 1;
            let name = Escaped(&change.display_name);
            writeln!(text, "{} {} {name}", mark(action), Escaped(&change.name)).ok();
        }
        let counts = committed.stats.counts(kind);
        let all = match action {
            Action::Created => counts.created,
            Action::Updated => counts.updated,
            Action::Deleted => counts.deleted,
            Action::Held => counts.held,
        };
        if let more @ 1.. = all.saturating_sub(shown)
            && shown > 0
        {
            writeln!(text, "{} {} more", mark(action), HumanCount(more)).ok();
        }
    }
    text
}

/// Returns every change with what changes in the record, and why it is deleted or held.
pub(crate) fn all(committed: &Committed) -> String {
    let mut text = String::new();
    for kind in RecordKind::ALL {
        for action in ACTIONS {
            let changes = committed.changes.iter();
            for change in changes.filter(|change| change.kind == kind && change.action == action) {
                write_whole(&mut text, change);
            }
        }
    }
    text
}

fn write_whole(text: &mut String, change: &Change) {
    let (name, display_name) = (Escaped(&change.name), Escaped(&change.display_name));
    write!(text, "{} {name} {display_name}", mark(change.action)).ok();
    if change.key != change.display_name {
        let key = format!(" ({})", Escaped(&change.key));
        text.push_str(&paint(FAINT, key));
    }
    text.push('\n');
    if let Some(reason) = &change.reason {
        writeln!(text, "    {}", paint(FAINT, Escaped(reason))).ok();
    }
    for property in &change.properties {
        let PropertyChange {
            name,
            before,
            after,
        } = property;
        let value = |value: &Option<String>| {
            // A text that says so has quotes.
            Escaped(value.clone().unwrap_or_else(|| "none".to_owned()))
        };
        let name = Escaped(name);
        match change.action {
            Action::Created => writeln!(text, "    {name}: {}", value(after)),
            Action::Updated => writeln!(text, "    {name}: {} -> {}", value(before), value(after)),
            Action::Deleted | Action::Held => writeln!(text, "    {name}: {}", value(before)),
        }
        .ok();
    }
}

/// Returns the sign of an action, in its colour.
pub(crate) fn mark(action: Action) -> String {
    let (style, mark): (Style, &str) = match action {
        Action::Created => (GOOD, "+"),
        Action::Updated => (ODD, "~"),
        Action::Deleted => (GONE, "-"),
        Action::Held => (ODD, "!"),
    };
    paint(style, mark)
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::testing::later;

    fn property(name: &str, before: Option<&str>, after: Option<&str>) -> PropertyChange {
        PropertyChange {
            name: name.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }

    fn committed(changes: Vec<Change>) -> Committed {
        let mut committed = later().committed.unwrap();
        committed.changes = changes;
        committed
    }

    fn change(action: Action, kind: RecordKind, properties: Vec<PropertyChange>) -> Change {
        let (name, key) = match kind {
            RecordKind::Entity => ("team_user", "ann"),
            RecordKind::Relationship => ("KNOWS", "team_user:ann -> team_user:bob"),
        };
        let is_gone = matches!(action, Action::Deleted | Action::Held);
        Change {
            action,
            kind,
            id: String::new(),
            name: name.to_owned(),
            key: key.to_owned(),
            display_name: key.replace("ann", "Ann"),
            reason: is_gone.then(|| "looked everywhere and did not find it: users".to_owned()),
            properties,
        }
    }

    #[test]
    fn whole_change_tells_what_was_and_what_is() {
        let (entity, relationship) = (RecordKind::Entity, RecordKind::Relationship);
        let updated = vec![
            property("floor", Some("3"), Some("null")),
            property("mail", None, Some("\"a\\nb\u{9b}\"")),
            property("none", Some("\"none\""), None),
        ];
        let committed = committed(vec![
            change(
                Action::Held,
                entity,
                vec![property("floor", Some("3"), None)],
            ),
            change(
                Action::Deleted,
                entity,
                vec![property("floor", Some("3"), None)],
            ),
            change(Action::Updated, entity, updated),
            change(Action::Deleted, relationship, vec![]),
            change(
                Action::Created,
                relationship,
                vec![property("since", None, Some("1"))],
            ),
        ]);
        insta::assert_snapshot!(strip_str(&all(&committed)), @r#"
        ~ team_user Ann (ann)
            floor: 3 -> null
            mail: none -> "a\nb\u{9b}"
            none: "none" -> none
        - team_user Ann (ann)
            looked everywhere and did not find it: users
            floor: 3
        ! team_user Ann (ann)
            looked everywhere and did not find it: users
            floor: 3
        + KNOWS team_user:Ann -> team_user:bob (team_user:ann -> team_user:bob)
            since: 1
        - KNOWS team_user:Ann -> team_user:bob (team_user:ann -> team_user:bob)
            looked everywhere and did not find it: users
        "#);
    }

    #[test]
    fn held_relationships_are_named_where_no_entity_is_held() {
        let held = |kind| change(Action::Held, kind, vec![]);
        let (entity, relationship) = (RecordKind::Entity, RecordKind::Relationship);
        let mut only = committed(vec![held(relationship)]);
        only.stats.relationships_held = 3;
        insta::assert_snapshot!(strip_str(&first(&only)), @"
        ! KNOWS team_user:Ann -> team_user:bob
        ! 2 more
        ");
        let mut both = committed(vec![held(entity), held(relationship)]);
        both.stats.entities_held = 1;
        insta::assert_snapshot!(strip_str(&first(&both)), @"! team_user Ann");
    }
}

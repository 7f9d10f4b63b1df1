use std::fmt::Write;

use clap::builder::styling::Style;
use indicatif::HumanCount;
use parallax_connect::{StepReport, StepStatus};
use parallax_core::{Counts, Escaped, RecordKind};
use parallax_store::{Outcome, TypeCounts};

use crate::changes;
use crate::changesets::{APPROVE, REJECT, commands};
use crate::conclusion::{Committed, Conclusion};
use crate::table::Plain;
use crate::text::{FAINT, GOOD, GOOD_TO_KNOW, ODD, WRONG, count, counts, paint, seconds};

/// Of the steps that did not complete, more than these are a number.
const STEPS_SHOWN: usize = 20;

/// Returns what a sync came to, for people; nothing if it came to no result.
pub(crate) fn render(conclusion: &Conclusion) -> String {
    let Some(committed) = &conclusion.committed else {
        return String::new();
    };
    let parts = [
        headline(conclusion, committed),
        table(committed),
        changed(conclusion, committed),
        steps(conclusion, committed),
        notes(conclusion, committed),
        footer(conclusion),
    ];
    let parts: Vec<&str> = parts
        .iter()
        .map(|part| part.trim_end())
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("\n\n") + "\n"
}

fn headline(conclusion: &Conclusion, committed: &Committed) -> String {
    let (style, what) = match committed.outcome {
        _ if conclusion.dry_run => (GOOD_TO_KNOW, "Planned"),
        Outcome::Committed if committed.replayed => (GOOD, "Committed before:"),
        Outcome::Committed => (GOOD, "Committed"),
        Outcome::Partial if committed.replayed => (ODD, "Partly committed before:"),
        Outcome::Partial => (ODD, "Partly committed"),
        Outcome::Failed => (WRONG, "Failed to sync"),
    };
    let known = |text: &Option<String>| Escaped(text.clone().unwrap_or_default());
    let mut line = format!(
        "{} {}, account {}, sync {}",
        paint(style.bold(), what),
        known(&conclusion.connector_id),
        known(&conclusion.account_id),
        known(&conclusion.sync_id),
    );
    if conclusion.dry_run {
        line += "\nNothing was written: this is what the sync would do.";
    }
    if committed.replayed {
        line += "\nThis sync was committed before, with these counts: nothing changed.";
    }
    line
}

/// A column of the table: its name, and what is in it.
type Column = (&'static str, fn(&Counts) -> u64);

const COLUMNS: [Column; 6] = [
    ("created", |counts| counts.created),
    ("updated", |counts| counts.updated),
    ("unchanged", |counts| counts.unchanged),
    ("deleted", |counts| counts.deleted),
    ("kept", |counts| counts.kept),
    ("held", |counts| counts.held),
];

fn table(committed: &Committed) -> String {
    if committed.outcome == Outcome::Failed {
        return String::new();
    }
    let totals = RecordKind::ALL.map(|kind| committed.stats.counts(kind));
    if !totals.iter().any(is_change) {
        let [entities, relationships] = totals.map(|counts| counts.unchanged);
        return match entities + relationships {
            0 => "Nothing was found, and nothing was stored before.".to_owned(),
            _ => format!(
                "Nothing changed: {} as before.",
                counts(entities, relationships)
            ),
        };
    }
    let names = ["entities", "relationships"].map(str::to_owned);
    let totals: Vec<(String, Counts)> = names
        .into_iter()
        .zip(totals)
        .filter(|(_, counts)| COLUMNS.iter().any(|(_, of)| of(counts) > 0))
        .collect();
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|(_, of)| totals.iter().any(|(_, counts)| of(counts) > 0))
        .collect();
    let mut table = Plain::new(std::iter::once("").chain(columns.iter().map(|(name, _)| *name)));
    for place in 1..=columns.len() {
        table.align_right(place);
    }
    for (name, counts) in rows(committed).iter().chain(&totals) {
        let cells = columns.iter().map(|(_, of)| match of(counts) {
            0 => String::new(),
            n => HumanCount(n).to_string(),
        });
        let row: Vec<String> = std::iter::once(name.clone()).chain(cells).collect();
        table.row(row.iter().map(String::as_str));
    }
    let mut lines = table.lines(None);
    // The rule under the header comes again above the totals, if there is something between.
    if let Some(rule) = lines.get(1).cloned()
        && lines.len() > 2 + totals.len()
    {
        lines.insert(lines.len() - totals.len(), rule);
    }
    lines.join("\n")
}

/// Returns a row for each type and verb that changed, and one for all others of its kind.
fn rows(committed: &Committed) -> Vec<(String, Counts)> {
    let mut rows = Vec::new();
    for kind in RecordKind::ALL {
        let of_kind = committed
            .types
            .iter()
            .filter(|counted| counted.kind == kind);
        let (changed, same): (Vec<&TypeCounts>, Vec<_>) =
            of_kind.partition(|counted| is_change(&counted.counts));
        rows.extend(
            changed
                .iter()
                .map(|counted| (counted.name.clone(), counted.counts)),
        );
        match same.as_slice() {
            [] => {}
            [only] => rows.push((only.name.clone(), only.counts)),
            same => {
                let what = match kind {
                    RecordKind::Entity => "types",
                    RecordKind::Relationship => "verbs",
                };
                let unchanged = same.iter().map(|counted| counted.counts.unchanged).sum();
                let counts = Counts {
                    unchanged,
                    ..Counts::default()
                };
                rows.push((format!("{} other {what}", same.len()), counts));
            }
        }
    }
    rows
}

fn is_change(counts: &Counts) -> bool {
    counts.created + counts.updated + counts.deleted + counts.kept + counts.held > 0
}

fn changed(conclusion: &Conclusion, committed: &Committed) -> String {
    if conclusion.show {
        return changes::all(committed);
    }
    let total = RecordKind::ALL.map(|kind| committed.stats.counts(kind));
    let was_empty = total.iter().all(|counts| {
        counts.updated + counts.unchanged + counts.deleted + counts.kept + counts.held == 0
    });
    if committed.replayed {
        return String::new();
    }
    if was_empty && total.iter().any(|counts| counts.created > 0) {
        return "All of it is new: nothing was stored of this source.".to_owned();
    }
    changes::first(committed)
}

fn steps(conclusion: &Conclusion, committed: &Committed) -> String {
    let Some(report) = &conclusion.report else {
        return String::new();
    };
    let all = report.steps();
    let (not_selected, odd): (Vec<&StepReport>, Vec<&StepReport>) = all
        .iter()
        .filter(|step| step.status != StepStatus::Completed)
        .partition(|step| step.status == StepStatus::NotSelected);
    let left_out = match not_selected.len() {
        0 => String::new(),
        n => format!(
            "{n} of {} not selected; what is stored of them is kept.\n",
            count(all.len() as u64, "step was", "steps were")
        ),
    };
    let mut text = match (committed.outcome, odd.len(), all.len()) {
        (_, 0, _) => return left_out,
        (Outcome::Failed, ..) => "No step completed:\n".to_owned(),
        (_, 1, all) => format!(
            "1 of {} did not see everything; what it may have missed is kept:\n",
            count(all as u64, "step", "steps")
        ),
        (_, odd, all) => format!(
            "{odd} of {all} steps did not see everything; what they may have missed is kept:\n"
        ),
    };
    let (shown, rest) = odd.split_at(odd.len().min(STEPS_SHOWN));
    let width = shown
        .iter()
        .map(|step| step.step_id.len())
        .max()
        .unwrap_or(0);
    for step in shown {
        let (style, status) = (
            style_of(step.status),
            format!("{:<10}", step.status.as_str()),
        );
        let (status, step_id, why) = (paint(style, status), &step.step_id, Escaped(reason(step)));
        writeln!(text, "  {status}  {step_id:<width$}  {why}").ok();
    }
    if !rest.is_empty() {
        writeln!(text, "  {} more", rest.len()).ok();
    }
    text + &left_out
}

fn style_of(status: StepStatus) -> Style {
    match status {
        StepStatus::Failed => WRONG,
        _ => ODD,
    }
}

fn reason(step: &StepReport) -> String {
    let reason = step.reason().unwrap_or_default();
    let scopes = step.scopes.iter().filter(|scope| !scope.complete).count();
    match step.incomplete.len() + scopes {
        more @ 2.. if step.error.is_none() => format!("{reason} (and {} more)", more - 1),
        _ => reason,
    }
}

fn notes(conclusion: &Conclusion, committed: &Committed) -> String {
    let stats = &committed.stats;
    let mut text = String::new();
    text += &held(conclusion, committed);
    if stats.entities_rejected + stats.relationships_rejected > 0 {
        let rejected = counts(stats.entities_rejected, stats.relationships_rejected);
        writeln!(
            text,
            "{} {rejected}; the log names the first.",
            paint(ODD, "Rejected:")
        )
        .ok();
    }
    if stats.entities_duplicates + stats.relationships_duplicates > 0 {
        let duplicates = counts(stats.entities_duplicates, stats.relationships_duplicates);
        writeln!(text, "Emitted more than once: {duplicates}.").ok();
    }
    if conclusion.undelivered_events > 0 {
        let events = count(conclusion.undelivered_events, "event", "events");
        writeln!(
            text,
            "{} {events} of the progress.",
            paint(ODD, "Not shown:")
        )
        .ok();
    }
    text
}

/// Says that deletes are held, why, and what to do about it.
fn held(conclusion: &Conclusion, committed: &Committed) -> String {
    let store = &conclusion.store_option;
    let stats = &committed.stats;
    let (text, next) = match committed.held_changeset {
        Some(changeset) => {
            let (what, next): (_, &[_]) = if conclusion.dry_run {
                ("Deletes would be held,", &[])
            } else if committed.replayed {
                let held = ("held", "shows what became of them");
                ("Deletes were held,", &[held])
            } else {
                let held = ("held", "shows them");
                ("Deletes are held,", &[held, APPROVE, REJECT])
            };
            let why = Escaped(committed.held_because.as_deref().unwrap_or_default());
            let text = format!("{} as changeset {changeset}: {why}", paint(ODD, what));
            (text, commands(changeset, store, next))
        }
        None if stats.entities_held + stats.relationships_held > 0 => {
            let held = counts(stats.entities_held, stats.relationships_held);
            let text = format!("{} {held}.", paint(ODD, "Still held:"));
            (text, format!("parallax held{store}  lists them"))
        }
        None => return String::new(),
    };
    let next: String = next.lines().map(|line| format!("  {line}\n")).collect();
    format!("{text}\n{next}")
}

fn footer(conclusion: &Conclusion) -> String {
    let url = conclusion.store.as_deref().unwrap_or_default();
    let store = match url.strip_prefix("sqlite:") {
        Some(":memory:") => "in memory",
        Some(path) => path,
        None => url,
    };
    let there = if conclusion.store_exists {
        ""
    } else {
        ", which is not there yet"
    };
    let duration = seconds(conclusion.duration);
    paint(
        FAINT,
        format!("{duration}, store {}{there}", Escaped(store)),
    )
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::testing::{concluded, first, later, partial};

    fn text(conclusion: &Conclusion) -> String {
        strip_str(&render(conclusion)).to_string()
    }

    #[test]
    fn first_sync_is_all_new() {
        insta::assert_snapshot!(text(&first()), @"
        Committed team, account acme, sync s-1

                       created
        ──────────────────────
        team_role            2
        team_user        1,200
        HAS              1,201
        ──────────────────────
        entities         1,202
        relationships    1,201

        All of it is new: nothing was stored of this source.

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn later_sync_tells_what_changed() {
        insta::assert_snapshot!(text(&later()), @r"
        Committed team, account acme, sync s-1

                       created  updated  unchanged  deleted
        ───────────────────────────────────────────────────
        team_user           13        1      1,188        1
        2 other types                            9
        HAS                                  1,201
        ───────────────────────────────────────────────────
        entities            13        1      1,197        1
        relationships                        1,201

        + team_user New 1
        + team_user New 2
        + team_user New 3
        + team_user New 4
        + team_user New 5
        + team_user New 6
        + team_user New 7
        + team_user New 8
        + team_user New 9
        + team_user New 10
        + 3 more
        ~ team_user Ann\u{1b}[2J
        - team_user Bob

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn sync_without_changes_needs_no_table() {
        let unchanged = Counts {
            unchanged: 2,
            ..Counts::default()
        };
        let same = concluded(
            Outcome::Committed,
            &[(RecordKind::Entity, "team_user", unchanged)],
        );
        insta::assert_snapshot!(text(&same), @"
        Committed team, account acme, sync s-1

        Nothing changed: 2 entities as before.

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn partial_sync_tells_what_was_not_seen() {
        insta::assert_snapshot!(text(&partial()), @"
        Partly committed team, account acme, sync s-1

                       unchanged   kept
        ───────────────────────────────
        team_role                     2
        team_user          1,198      2
        HAS                       1,201
        ───────────────────────────────
        entities           1,198      4
        relationships             1,201

        3 of 4 steps did not see everything; what they may have missed is kept:
          incomplete  users       page 3 is missing (and 1 more)
          failed      roles       list roles: connection reset
          skipped     role_users  step roles did not complete

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn selected_sync_says_what_was_left_out() {
        let mut selected = first();
        let steps = selected.report.take().unwrap().steps().to_vec();
        let mut roles = steps[1].clone();
        roles.status = StepStatus::NotSelected;
        selected.report = Some(parallax_connect::SyncReport::new(vec![
            steps[0].clone(),
            roles,
        ]));
        if let Some(committed) = &mut selected.committed {
            committed.outcome = Outcome::Partial;
        }
        insta::assert_snapshot!(text(&selected), @"
        Partly committed team, account acme, sync s-1

                       created
        ──────────────────────
        team_role            2
        team_user        1,200
        HAS              1,201
        ──────────────────────
        entities         1,202
        relationships    1,201

        All of it is new: nothing was stored of this source.

        1 of 2 steps were not selected; what is stored of them is kept.

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn failed_sync_tells_why() {
        let mut failed = partial();
        if let Some(committed) = &mut failed.committed {
            committed.outcome = Outcome::Failed;
        }
        insta::assert_snapshot!(text(&failed), @"
        Failed to sync team, account acme, sync s-1

        No step completed:
          incomplete  users       page 3 is missing (and 1 more)
          failed      roles       list roles: connection reset
          skipped     role_users  step roles did not complete

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn plan_says_that_nothing_was_written() {
        let plan = Conclusion {
            dry_run: true,
            store_exists: false,
            ..first()
        };
        let text = text(&plan);
        let [head, .., foot] = text.split("\n\n").collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        insta::assert_snapshot!(format!("{head}\n…\n{foot}"), @"
        Planned team, account acme, sync s-1
        Nothing was written: this is what the sync would do.
        …
        1.23 s, store /srv/parallax.db, which is not there yet
        ");
    }

    #[test]
    fn replay_says_that_nothing_changed() {
        let mut replay = first();
        if let Some(committed) = &mut replay.committed {
            committed.replayed = true;
            committed.types.clear();
        }
        insta::assert_snapshot!(text(&replay), @"
        Committed before: team, account acme, sync s-1
        This sync was committed before, with these counts: nothing changed.

                       created
        ──────────────────────
        entities         1,202
        relationships    1,201

        1.23 s, store /srv/parallax.db
        ");
    }

    #[test]
    fn what_is_unusual_has_a_line() {
        let held = Counts {
            unchanged: 1,
            held: 120,
            ..Counts::default()
        };
        let mut odd = concluded(
            Outcome::Committed,
            &[(RecordKind::Entity, "team_user", held)],
        );
        if let Some(committed) = &mut odd.committed {
            committed.held_changeset = Some(3);
            committed.held_because = Some("120 of 121 entities would go".to_owned());
            committed.stats.entities_rejected = 1;
            committed.stats.relationships_duplicates = 4;
        }
        odd.undelivered_events = 5;
        insta::assert_snapshot!(text(&odd), @"
        Committed team, account acme, sync s-1

                   unchanged  held
        ──────────────────────────
        team_user          1   120
        ──────────────────────────
        entities           1   120

        Deletes are held, as changeset 3: 120 of 121 entities would go
          parallax held 3     shows them
          parallax approve 3  deletes them
          parallax reject 3   keeps them, and does not ask again
        Rejected: 1 entity; the log names the first.
        Emitted more than once: 4 relationships.
        Not shown: 5 events of the progress.

        1.23 s, store /srv/parallax.db
        ");
    }
}

use parallax_store::{Rows, Store};

use crate::args::HeldArgs;
use crate::changesets::{self, APPROVE, Changeset, REJECT, commands};
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::query;
use crate::rows;
use crate::syncs::{fitting, shortened, to_the_second};
use crate::table::Plain;

/// `parallax held`: lists the changesets that wait for somebody's word, or shows one.
pub(crate) async fn run(args: &HeldArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    let text = match args.changeset {
        Some(number) => {
            let changeset = Changeset::find(&store, number).await?;
            if args.json {
                json::line(&changeset.object())
            } else {
                let mut text = changeset.as_text() + "\n";
                if changeset.state == "open" {
                    let next = commands(number, &args.store.again(), &[APPROVE, REJECT]);
                    text += &format!("\n{next}\n");
                }
                text
            }
        }
        None => {
            let listed = changesets::list(&store, args.all).await?;
            match (args.json, listed.rows.is_empty()) {
                (true, _) => query::as_json(&listed),
                (false, false) => fitting(console.width, |chars, width| {
                    as_table(&listed, args.all, chars, width)
                }),
                (false, true) => {
                    console.complain("no held deletes\n");
                    return Ok(Exit::Ok);
                }
            }
        }
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

fn as_table(listed: &Rows, all: bool, id_chars: usize, width: Option<u16>) -> String {
    let mut header = vec![
        "changeset",
        "connector",
        "account",
        "held since (UTC)",
        "by sync",
        "entities",
        "relationships",
    ];
    header.extend(all.then_some("state"));
    header.push("reason");
    let mut table = Plain::new(header);
    [0, 5, 6]
        .into_iter()
        .for_each(|place| table.align_right(place));
    for row in rows::rows(listed) {
        let text = |column| row.text(column).unwrap_or_default().to_owned();
        // Of a closed one nothing is held any more: what it once held says more.
        let open = row.text("state") == Some("open");
        let records = |now, at_first| {
            let records = row.number(if open { now } else { at_first });
            records.to_string()
        };
        let mut cells = vec![
            row.number("changeset").to_string(),
            text("connector_id"),
            shortened(text("account_id"), id_chars),
            to_the_second(&text("held_at")),
            shortened(text("held_by_sync_id"), id_chars),
            records("entities", "entities_at_first"),
            records("relationships", "relationships_at_first"),
        ];
        cells.extend(all.then(|| text("state")));
        cells.push(text("reason"));
        table.row(cells.iter().map(String::as_str));
    }
    table.lines(width).join("\n") + "\n"
}

#[cfg(test)]
mod tests;

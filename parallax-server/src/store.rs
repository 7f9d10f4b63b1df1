use indicatif::HumanBytes;
use parallax_core::Escaped;
use parallax_store::{Store, Verification};
use serde::Serialize;

use crate::args::{BackupArgs, StoreCommand, VerifyArgs};
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::table::Plain;
use crate::text::{GOOD, WRONG, count, counts, paint};

/// `parallax store`: looks after a store.
pub(crate) async fn run(
    command: &StoreCommand,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Verify(args) => verify(args, console).await,
        StoreCommand::Backup(args) => backup(args, console).await,
    }
}

/// `parallax store verify`: reads all of a store and checks it.
async fn verify(args: &VerifyArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    let verification = store.verify().await?;
    let text = if args.json {
        json::line(&VerifyObject::new(store.url(), &verification))
    } else {
        as_text(store.url(), &verification, console.width)
    };
    console.print(&text)?;
    Ok(if verification.is_sound() {
        Exit::Ok
    } else {
        Exit::Store
    })
}

fn as_text(url: &str, verification: &Verification, width: Option<u16>) -> String {
    let mut table = Plain::new(["", "checked", "without checksum", "problems"]);
    (1..=3).for_each(|place| table.align_right(place));
    for check in &verification.checks {
        let some = |n: u64| match n {
            0 => String::new(),
            n => indicatif::HumanCount(n).to_string(),
        };
        table.row([
            check.name,
            &indicatif::HumanCount(check.checked).to_string(),
            &some(check.without_checksum),
            &some(check.problems),
        ]);
    }
    let mut text = table.lines(width).join("\n") + "\n\n";
    for problem in &verification.problems {
        let wrong = paint(WRONG, format_args!("{}:", problem.check));
        text += &format!("{wrong} {}\n", Escaped(&problem.details));
    }
    let told = verification.problems.len() as u64;
    let problems: u64 = verification.checks.iter().map(|check| check.problems).sum();
    if problems > told {
        text += &format!("and {} more\n", problems - told);
    }
    text += &if problems == 0 {
        format!("{} {}\n", paint(GOOD, "Sound:"), Escaped(url))
    } else {
        let problems = count(problems, "problem", "problems");
        format!(
            "{} {problems} in {}\nKeep a copy of it with its -wal, and restore a backup.\n",
            paint(WRONG, "Damaged:"),
            Escaped(url)
        )
    };
    text
}

/// What was found in a store.
#[derive(Serialize)]
struct VerifyObject<'a> {
    store: &'a str,
    sound: bool,
    checks: Vec<CheckObject>,
    problems: Vec<ProblemObject<'a>>,
}

#[derive(Serialize)]
struct CheckObject {
    name: &'static str,
    checked: u64,
    without_checksum: u64,
    problems: u64,
}

#[derive(Serialize)]
struct ProblemObject<'a> {
    check: &'static str,
    details: &'a str,
}

impl<'a> VerifyObject<'a> {
    fn new(store: &'a str, verification: &'a Verification) -> Self {
        Self {
            store,
            sound: verification.is_sound(),
            checks: verification
                .checks
                .iter()
                .map(|check| CheckObject {
                    name: check.name,
                    checked: check.checked,
                    without_checksum: check.without_checksum,
                    problems: check.problems,
                })
                .collect(),
            problems: verification
                .problems
                .iter()
                .map(|problem| ProblemObject {
                    check: problem.check,
                    details: &problem.details,
                })
                .collect(),
        }
    }
}

/// `parallax store backup`: copies a store while it may be written to.
async fn backup(args: &BackupArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    // Only reading: a daemon that writes to the store goes on.
    let store = Store::open_read_only(&args.store.url).await?;
    let backup = store.backup(&args.file).await?;
    let file = backup.path.display().to_string();
    let text = if args.json {
        json::line(&BackupObject {
            store: store.url(),
            file: &file,
            bytes: backup.bytes,
            sources: backup.sources,
            entities: backup.entities,
            relationships: backup.relationships,
        })
    } else {
        format!(
            "{} {} of {} into {}, {}\n",
            paint(GOOD, "Copied"),
            counts(backup.entities, backup.relationships),
            count(backup.sources, "source", "sources"),
            Escaped(&file),
            HumanBytes(backup.bytes),
        )
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// A backup that was made.
#[derive(Serialize)]
struct BackupObject<'a> {
    store: &'a str,
    file: &'a str,
    bytes: u64,
    sources: u64,
    entities: u64,
    relationships: u64,
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use parallax_store::{Check, Problem};

    use super::*;

    fn verification(problems: u64) -> Verification {
        let check = |name, problems| Check {
            name,
            checked: 12_345,
            without_checksum: 7,
            problems,
        };
        Verification {
            checks: vec![check("entities", problems), check("edges", 0)],
            problems: (problems > 0)
                .then(|| Problem {
                    check: "entities",
                    details: "row 3: \u{1b}[2J".to_owned(),
                })
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn damage_is_told_and_counted() {
        let text = |problems| {
            let url = "sqlite:/srv/parallax.db";
            strip_str(&as_text(url, &verification(problems), None)).to_string()
        };
        insta::assert_snapshot!([text(0), text(1), text(21)].join("\n"), @r"
                  checked  without checksum  problems
        ─────────────────────────────────────────────
        entities   12,345                 7
        edges      12,345                 7

        Sound: sqlite:/srv/parallax.db

                  checked  without checksum  problems
        ─────────────────────────────────────────────
        entities   12,345                 7         1
        edges      12,345                 7

        entities: row 3: \u{1b}[2J
        Damaged: 1 problem in sqlite:/srv/parallax.db
        Keep a copy of it with its -wal, and restore a backup.

                  checked  without checksum  problems
        ─────────────────────────────────────────────
        entities   12,345                 7        21
        edges      12,345                 7

        entities: row 3: \u{1b}[2J
        and 20 more
        Damaged: 21 problems in sqlite:/srv/parallax.db
        Keep a copy of it with its -wal, and restore a backup.
        ");
    }
}

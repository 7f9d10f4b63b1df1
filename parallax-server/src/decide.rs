use parallax_core::Escaped;
use parallax_store::{Decided, Store, StoreError};
use serde::Serialize;

use crate::args::{ApproveArgs, RejectArgs};
use crate::changesets::Changeset;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::rows::rows;
use crate::text::{GONE, counts, paint};

/// `parallax approve`: deletes what a changeset holds, once someone has said yes.
pub(crate) async fn approve(
    args: &ApproveArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let found = find(&args.store.url, args.changeset, "approved").await?;
    if found.state == "open" && !args.yes {
        let what: String = rows(&found.row)
            .map(|row| counts(row.number("entities"), row.number("relationships")))
            .collect();
        // Only someone who sees it can be asked.
        if console.input.is_some() {
            console.complain(&format!("{}\n\n", found.as_text()));
        }
        let question = format!("{} {what}? [y/N] ", paint(GONE, "Delete"));
        match console.ask(&question) {
            Some(true) => {}
            Some(false) => {
                console.complain("nothing was deleted\n");
                return Ok(Exit::Failed);
            }
            None => {
                return Err(Failure::Usage {
                    message: format!("{what} would be deleted, and there is nobody to ask"),
                    help: "say --yes if that is what you want".to_owned(),
                });
            }
        }
    }
    let store = Store::open(&args.store.url).await?;
    let decided = store.approve(args.changeset).await?;
    tell("approved", &decided, &store, args.json, console)
}

/// `parallax reject`: keeps what a changeset holds.
pub(crate) async fn reject(args: &RejectArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    find(&args.store.url, args.changeset, "rejected").await?;
    let store = Store::open(&args.store.url).await?;
    let decided = store.reject(args.changeset).await?;
    tell("rejected", &decided, &store, args.json, console)
}

/// Finds a changeset that can get this state, or has it already.
///
/// Reading first: what is not there must not be made, nor wait for a writer to be refused.
async fn find(url: &str, number: u64, wanted: &str) -> Result<Changeset, Failure> {
    let store = Store::open_read_only(url).await?;
    let found = Changeset::find(&store, number).await?;
    if found.state != "open" && found.state != wanted {
        return Err(Failure::Store(StoreError::ChangesetClosed {
            changeset: number,
            state: found.state,
        }));
    }
    Ok(found)
}

/// Logs what was decided, and says it.
fn tell(
    state: &'static str,
    decided: &Decided,
    store: &Store,
    json: bool,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    tracing::info!(
        changeset = decided.changeset,
        state = %state,
        connector_id = %decided.connector_id,
        account_id = %Escaped(&decided.account_id),
        entities = decided.entities,
        relationships = decided.relationships,
        repeated = decided.repeated,
        store = %Escaped(store.url()),
        "Changeset decided"
    );
    let text = if json {
        json::line(&Object {
            changeset: decided.changeset,
            state,
            connector_id: &decided.connector_id,
            account_id: &decided.account_id,
            entities: decided.entities,
            relationships: decided.relationships,
            repeated: decided.repeated,
            store: store.url(),
        })
    } else {
        let changeset = decided.changeset;
        let what = counts(decided.entities, decided.relationships);
        let what = format!(
            "{what} of {}, account {}",
            decided.connector_id,
            Escaped(&decided.account_id),
        );
        match (state, decided.repeated) {
            ("approved", false) => format!("Approved changeset {changeset}: deleted {what}\n"),
            ("approved", true) => {
                format!("Changeset {changeset} was approved before: it deleted {what}\n")
            }
            (_, false) => format!("Rejected changeset {changeset}: kept {what}\n"),
            (_, true) => format!("Changeset {changeset} was rejected before: it kept {what}\n"),
        }
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// What was decided.
#[derive(Serialize)]
struct Object<'a> {
    changeset: u64,
    state: &'static str,
    connector_id: &'a str,
    account_id: &'a str,
    entities: u64,
    relationships: u64,
    repeated: bool,
    store: &'a str,
}

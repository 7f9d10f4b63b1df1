use parallax_core::Escaped;
use parallax_store::Store;
use serde::Serialize;

use crate::args::ForgetArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::text::{GONE, counts, paint};

/// `parallax forget`: removes a source, once someone has said yes.
pub(crate) async fn run(args: &ForgetArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let ForgetArgs {
        connector, account, ..
    } = args;
    // Reading first: what is not there must not be made, only to forget in it.
    let store = Store::open_read_only(&args.store.url).await?;
    let there = store.plan_forget(connector, account).await?;
    drop(store);
    if !args.yes {
        let what = counts(there.entities, there.relationships);
        let question = format!(
            "{} {what} of {}, account {}, with their history. Remove them? [y/N] ",
            paint(GONE, "This cannot be undone:"),
            Escaped(connector),
            Escaped(account),
        );
        match console.ask(&question) {
            Some(true) => {}
            Some(false) => {
                console.complain("nothing was removed\n");
                return Ok(Exit::Failed);
            }
            None => {
                return Err(Failure::Usage {
                    message: format!("{what} would be removed, and there is nobody to ask"),
                    help: "say --yes if that is what you want".to_owned(),
                });
            }
        }
    }
    let store = Store::open(&args.store.url).await?;
    let gone = store.forget(connector, account).await?;
    let text = if args.json {
        json::line(&Object {
            connector_id: connector,
            account_id: account,
            entities: gone.entities,
            relationships: gone.relationships,
            store: store.url(),
        })
    } else {
        format!(
            "Removed {} of {}, account {}\n",
            counts(gone.entities, gone.relationships),
            Escaped(connector),
            Escaped(account),
        )
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// The source that was removed, and how much of it there was.
#[derive(Serialize)]
struct Object<'a> {
    connector_id: &'a str,
    account_id: &'a str,
    entities: u64,
    relationships: u64,
    store: &'a str,
}

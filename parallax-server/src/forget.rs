use hyper::Method;
use parallax_core::Escaped;
use parallax_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::args::ForgetArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::remote::Remote;
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
    let removal = match Store::open(&args.store.url).await {
        Ok(store) => Removal::forget(&store, connector, account).await?,
        Err(error) => {
            let path = ["sources", connector, account];
            Remote::behind(error)?.ask(Method::DELETE, &path).await?
        }
    };
    let text = if args.json {
        json::line(&removal)
    } else {
        removal.as_text()
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// The source that was removed, and how much of it there was.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Removal {
    connector_id: String,
    account_id: String,
    entities: u64,
    relationships: u64,
    store: String,
}

impl Removal {
    /// Removes a source with all that it committed.
    pub(crate) async fn forget(
        store: &Store,
        connector_id: &str,
        account_id: &str,
    ) -> Result<Self, StoreError> {
        let gone = store.forget(connector_id, account_id).await?;
        Ok(Self {
            connector_id: connector_id.to_owned(),
            account_id: account_id.to_owned(),
            entities: gone.entities,
            relationships: gone.relationships,
            store: store.url().to_owned(),
        })
    }

    fn as_text(&self) -> String {
        format!(
            "Removed {} of {}, account {}\n",
            counts(self.entities, self.relationships),
            Escaped(&self.connector_id),
            Escaped(&self.account_id),
        )
    }
}

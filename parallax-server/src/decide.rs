use hyper::Method;
use parallax_core::Escaped;
use parallax_metrics::ParallaxMetrics;
use parallax_store::{Decided, Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::args::{ApproveArgs, RejectArgs};
use crate::changesets::Changeset;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::remote::Remote;
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
    let decision = match Store::open(&args.store.url).await {
        Ok(store) => Decision::approve(&store, args.changeset).await?,
        Err(error) => ask(error, args.changeset, "approve").await?,
    };
    tell(&decision, args.json, console)
}

/// `parallax reject`: keeps what a changeset holds.
pub(crate) async fn reject(args: &RejectArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    find(&args.store.url, args.changeset, "rejected").await?;
    let decision = match Store::open(&args.store.url).await {
        Ok(store) => Decision::reject(&store, args.changeset).await?,
        Err(error) => ask(error, args.changeset, "reject").await?,
    };
    tell(&decision, args.json, console)
}

/// Asks the daemon that holds the store, if it is one.
async fn ask(error: StoreError, changeset: u64, word: &str) -> Result<Decision, Failure> {
    let path = ["changesets", &changeset.to_string(), word];
    Remote::behind(error)?.ask(Method::POST, &path).await
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

/// Says what was decided.
fn tell(decision: &Decision, json: bool, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let text = if json {
        json::line(decision)
    } else {
        decision.as_text()
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

/// What was decided.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Decision {
    changeset: u64,
    /// `approved` or `rejected`.
    state: String,
    connector_id: String,
    account_id: String,
    /// How many entities were deleted, or are kept.
    entities: u64,
    relationships: u64,
    /// Whether the same had been said before: nothing changed now.
    repeated: bool,
    store: String,
}

impl Decision {
    /// Approves a changeset, and logs that.
    pub(crate) async fn approve(store: &Store, changeset: u64) -> Result<Self, StoreError> {
        let decided = store.approve(changeset).await?;
        Ok(Self::new("approved", decided, store))
    }

    /// Rejects a changeset, and logs that.
    pub(crate) async fn reject(store: &Store, changeset: u64) -> Result<Self, StoreError> {
        let decided = store.reject(changeset).await?;
        Ok(Self::new("rejected", decided, store))
    }

    fn new(state: &str, decided: Decided, store: &Store) -> Self {
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
        Self {
            changeset: decided.changeset,
            state: state.to_owned(),
            connector_id: decided.connector_id,
            account_id: decided.account_id,
            entities: decided.entities,
            relationships: decided.relationships,
            repeated: decided.repeated,
            store: store.url().to_owned(),
        }
    }

    /// Returns the source whose records were decided about.
    pub(crate) fn source(&self) -> (String, String) {
        (self.connector_id.clone(), self.account_id.clone())
    }

    /// Counts it, unless the same had been said before.
    pub(crate) fn count(&self, metrics: &ParallaxMetrics) {
        match self.state.as_str() {
            _ if self.repeated => {}
            "approved" => {
                metrics.changeset_approved(&self.connector_id, self.entities, self.relationships);
            }
            _ => metrics.changeset_rejected(&self.connector_id),
        }
    }

    fn as_text(&self) -> String {
        let changeset = self.changeset;
        let what = counts(self.entities, self.relationships);
        let what = format!(
            "{what} of {}, account {}",
            self.connector_id,
            Escaped(&self.account_id),
        );
        match (self.state.as_str(), self.repeated) {
            ("approved", false) => format!("Approved changeset {changeset}: deleted {what}\n"),
            ("approved", true) => {
                format!("Changeset {changeset} was approved before: it deleted {what}\n")
            }
            (_, false) => format!("Rejected changeset {changeset}: kept {what}\n"),
            (_, true) => format!("Changeset {changeset} was rejected before: it kept {what}\n"),
        }
    }
}

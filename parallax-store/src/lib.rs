//! The commit: what a sync means for what is stored.
//!
//! [`Store::commit_sync`] compares the output of a run with what the same source, one connector
//! reading one account, committed before. In one transaction it creates, updates and deletes the
//! difference, and answers with counts that add up.
//!
//! ```
//! # use parallax_core::{ConnectorOutput, Run, SyncReport};
//! # use parallax_store::{CommitError, Store};
//! # async fn commit(output: ConnectorOutput) -> Result<(), CommitError> {
//! let store = Store::open("sqlite:parallax.db").await?;
//! let plan = store.plan_sync(&output).await?;
//! let result = store.commit_sync(&output).await?;
//! assert_eq!(plan, result);
//! println!("{} entities created", result.stats.entities_created);
//! # Ok(())
//! # }
//! ```
//!
//! # Deletes
//!
//! Every stored record carries *claims*: the (step, scope) pairs that emitted it. A claim falls
//! only in a sync in which its step looked everywhere
//! ([`SyncReport::has_looked_everywhere`](parallax_core::SyncReport::has_looked_everywhere)) and
//! did not emit the record. A record is deleted when its last claim falls; until then it is kept.
//! Deletes that look like a mistake are held until somebody approves them: [`Guard`].
//! A relationship is stored whether or not its ends exist, and shown while both do.
//!
//! # Reading
//!
//! Tables are private. Views are the interface: `parallax_entity`, `parallax_entity_merged`,
//! `parallax_relationship`, `parallax_source`, `parallax_sync`, `parallax_sync_step`,
//! `parallax_change`, `parallax_changeset`, `parallax_journal`. [`Store::query`] reads them; so does
//! any program that reads SQLite, while syncs are committed.
//! [`Store::explain`] and [`Store::history`] say of one record why it is there or gone.
//! [`Store::verify`] checks a whole store, and [`Store::backup`] copies one.

// Without an engine, nothing calls the parts that all engines share.
#![cfg_attr(not(feature = "sqlite"), allow(dead_code))]

mod backup;
mod browse;
mod claims;
mod contents;
mod delta;
mod digest;
mod emissions;
mod engine;
mod error;
mod explain;
mod findings;
mod guard;
mod history;
mod journal;
mod json;
mod result;
mod session;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod verify;

pub use backup::Backup;
pub use browse::{Browse, Direction, Page, RecordType, Stored};
pub use error::{CommitError, StoreError};
pub use explain::{
    Claim, ClaimName, Confirmation, Deletion, End, EntityName, Explanation, InSource, Missed,
    RecordName, State, Subject, SubjectError, SyncRef,
};
pub use guard::Guard;
pub use history::{Event, EventKind, History};
pub use journal::{JournalName, JournalPage};
pub use result::{
    Action, Cell, Change, CommitResult, Decided, Forgotten, Outcome, PropertyChange, Rows,
    TypeCounts,
};
pub use session::Session;
pub use store::Store;
pub use verify::{Check, Problem, Verification};

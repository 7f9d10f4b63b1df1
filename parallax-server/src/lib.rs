//! The command line of Parallax, with whatever connectors it is given.
//!
//! The binary `parallax` is an [`App`] with the connectors of this workspace. With connectors of
//! your own, the whole tool is a few lines:
//!
//! ```
//! use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, step};
//! use parallax_server::{App, Opened};
//!
//! struct Team;
//!
//! impl Connector for Team {
//!     fn name(&self) -> &str {
//!         "team"
//!     }
//!
//!     fn steps(&self) -> Vec<Step<'_>> {
//!         vec![step("users", "Collect users", |ctx| self.users(ctx))]
//!     }
//! }
//!
//! impl Team {
//!     async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
//!         ctx.emit(entity("team_user", "ann").class("User"))?;
//!         Ok(())
//!     }
//! }
//!
//! let app = App::new().register("team", "People and what they do", || {
//!     Ok(Opened::new(Team).default_account(Ok("acme")))
//! });
//! // A program ends with `app.main()`; a test runs one command line.
//! let mut stdout = Vec::new();
//! let line = ["parallax", "sync", "team", "--store", "sqlite::memory:"];
//! assert_eq!(app.run(line, &mut stdout, &mut Vec::new()), 0);
//! assert!(String::from_utf8(stdout).unwrap().starts_with("Committed team, account acme, sync "));
//! ```
//!
//! # Output
//!
//! Data goes to the standard output, everything else to the standard error. With `--json`,
//! `parallax sync` and `parallax plan` print exactly one JSON object, also when they fail before the
//! run begins.
//!
//! # Exit codes
//!
//! | code | meaning |
//! |------|---------|
//! | 0 | done |
//! | 1 | the sync failed, nothing was committed; or the record is not known |
//! | 2 | the command line, the configuration or the connector's graph is wrong, or the output could not be written |
//! | 3 | committed, but some steps did not complete |
//! | 4 | the system cannot be reached or refuses the credentials, nothing was committed |
//! | 5 | the store cannot be used, or is damaged |
//! | 6 | committed, but deletes were held |
//! | 7 | a record would change (a plan with `--exit-code`) |
//! | 130, 143 | cancelled by SIGINT or SIGTERM, nothing was committed |
//!
//! When several apply, 5 goes before 4, 4 before 3, 3 before 6, and 6 before 7. A plan, which is a
//! dry run, ends as the sync would.

mod app;
mod args;
mod changes;
mod changesets;
mod check;
mod conclusion;
mod config;
mod connectors;
mod console;
mod decide;
mod error;
mod events;
mod exit;
mod explain;
mod forget;
mod held;
mod history;
mod json;
mod logs;
mod meter;
#[cfg(feature = "otlp")]
mod otlp;
mod plan;
mod progress;
mod query;
mod records;
mod remote;
mod remote_sync;
mod rows;
mod serve;
mod signals;
mod store;
mod story;
mod summary;
mod sync;
mod sync_detail;
mod syncs;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod tls;
mod trace_parent;

pub use app::{App, Opened};

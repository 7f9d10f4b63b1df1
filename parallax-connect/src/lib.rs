//! Write a connector, run it, watch it run.
//!
//! A [`Connector`] names its steps. A step is an async function that reads the outside system and
//! emits entities and relationships through its [`StepContext`]. [`run_connector`] runs every step
//! as soon as those it depends on are done, and returns what they emitted with a report of what
//! each step saw.
//!
//! ```
//! use parallax_connect::{
//!     Connector, ConnectorError, Step, StepContext, entity, relationship, run_connector, step,
//! };
//!
//! struct Team {
//!     members: Vec<(&'static str, &'static str)>,
//! }
//!
//! impl Connector for Team {
//!     fn name(&self) -> &str {
//!         "team"
//!     }
//!
//!     fn steps(&self) -> Vec<Step<'_>> {
//!         vec![
//!             step("users", "Collect users", |ctx| self.users(ctx)),
//!             step("roles", "Collect roles", |ctx| self.roles(ctx)).reads(["users"]),
//!         ]
//!     }
//! }
//!
//! impl Team {
//!     async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
//!         for (name, _) in &self.members {
//!             ctx.emit(entity("team_user", name).class("User"))?;
//!         }
//!         Ok(())
//!     }
//!
//!     async fn roles(&self, ctx: StepContext) -> Result<(), ConnectorError> {
//!         for (name, role) in &self.members {
//!             ctx.emit(entity("team_role", role))?;
//!             if let Some(user) = ctx.prior().entity(("team_user", name)) {
//!                 ctx.emit(relationship(user, "HAS", ("team_role", role)))?;
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), parallax_connect::RunError> {
//! let team = Team { members: vec![("ann", "lead"), ("bob", "dev")] };
//! let output = run_connector(&team, "acme", "sync-001", None).await?;
//! assert_eq!(output.entities().count(), 4);
//! assert_eq!(output.relationships().count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Watching
//!
//! A run tells what happens while it happens: as [`SyncEvent`]s to the receiver of a channel, and
//! as `tracing` log lines in the spans `sync` (`connector_id`, `account_id`, `sync_id`) and `step`
//! (`step_id`), which are inside the caller's. What a step logs is inside its span; a task that it
//! spawns takes the span along with [`in_current_span`](tracing::Instrument::in_current_span).
//!
//! Nothing that comes from outside, a name or an error, can break a log line or an error's message
//! in two: control characters are shown as escapes.

mod connector;
mod context;
mod graph;
mod journal;
mod limiter;
mod pager;
mod prior;
mod pulse;
pub mod redact;
mod retries;
mod run;
#[cfg(test)]
mod scripted;
mod select;
mod step;
mod telemetry;
mod watchdog;

pub use connector::Connector;
pub use context::StepContext;
pub use graph::GraphError;
pub use limiter::RateLimiter;
pub use pager::{Page, Pager};
pub use parallax_core::{
    ConnectorError, ConnectorOutput, EmitError, Entity, EntityId, EntityKey, EntityRef, ErrorKind,
    JournalEntry, JournalError, JournalKind, JournalSink, Record, Rejection, Relationship,
    RelationshipId, RelationshipRef, ResultExt, Run, ScopeReport, Sink, StepReport, StepStatus,
    SyncEvent, SyncReport, Timestamp, Value, ValueRef, entity, relationship,
};
pub use prior::Prior;
pub use retries::Retries;
pub use run::{RunError, Runner, run_connector};
pub use step::{Step, step};

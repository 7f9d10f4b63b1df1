//! The values of a sync.
//!
//! A *sync* is one run of a connector against one account of an outside system, and the commit of
//! what it found. The connector's *steps* emit [`Entity`]s and [`Relationship`]s. What all steps
//! emitted is the [`ConnectorOutput`]; what each step looked at, and whether it saw everything, is
//! the [`SyncReport`] inside it. A store compares the output with what the same source committed
//! before and answers with [`SyncStats`].
//!
//! ```
//! use parallax_core::{entity, relationship};
//!
//! let alice = entity("okta_user", "alice").class("User").display_name("Alice");
//! let admins = entity("okta_group", "admins").class("Group");
//! let member = relationship(&alice, "MEMBER_OF", &admins);
//! assert_eq!(member.verb(), "MEMBER_OF");
//! ```
//!
//! This crate does no I/O, awaits nothing and reads no clock. It is not a wire or disk format: the
//! bytes inside a [`Batch`] live as long as the process.

mod batch;
mod encode;
mod error;
mod event;
mod id;
mod journal;
mod output;
mod record;
mod report;
mod sink;
mod stats;
mod text;
mod value;

pub use batch::{
    Batch, BatchBuilder, EmissionRef, EndRef, EntityRef, PropertiesRef, RelationshipRef,
};
pub use error::{Cause, ConnectorError, EmitError, ErrorKind, Rejection, ResultExt};
pub use event::SyncEvent;
pub use id::{EntityId, EntityKey, Namespace, RelationshipId};
pub use journal::{
    JournalEntry, JournalError, JournalFormatError, JournalKind, JournalSink, StepOutline,
};
pub use output::{ConnectorOutput, Run};
pub use record::{
    Entity, MAX_ENTITY_BYTES, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_VALUE_BYTES, Record, Relationship,
    entity, relationship,
};
pub use report::{ScopeReport, StepReport, StepRetries, StepStatus, SyncReport};
pub use sink::{Attempt, MemorySink, Sink};
pub use stats::{Counts, Imbalance, RecordKind, SyncStats};
pub use text::{Escaped, escape, escape_json, excerpt, is_identifier, is_plain_name};
pub use value::{ListIter, ListRef, Timestamp, TimestampError, Value, ValueRef};

use crate::explain::{Deletion, RecordName, SyncRef};
use crate::result::PropertyChange;

/// What happened to a record, as far as the history goes back.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub record: RecordName,
    /// What happened to it, in every source, newest first.
    pub events: Vec<Event>,
}

/// Something that happened to a record in a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The connector.
    pub connector_id: String,
    /// The account.
    pub account_id: String,
    /// The sync that did it.
    pub sync: Option<SyncRef>,
    /// What was done.
    pub kind: EventKind,
}

/// What happened to a record.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// It was created.
    Created,
    /// Its content changed: what is different, sorted by name.
    Updated(Vec<PropertyChange>),
    /// It was deleted.
    Deleted(Deletion),
}

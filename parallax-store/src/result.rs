use parallax_core::{Counts, RecordKind, SyncStats};

/// What a commit did, or what it would do: [`Store::plan_sync`](crate::Store::plan_sync) returns
/// the same.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommitResult {
    /// The counts. They add up, as [`SyncStats`] says.
    pub stats: SyncStats,
    /// How much of the run counted.
    pub outcome: Outcome,
    /// Whether this sync had been committed before: nothing changed, and the counts are those of
    /// the first time.
    pub replayed: bool,
    /// The changeset that holds this commit's deletes, if they are held.
    pub held_changeset: Option<u64>,
    /// The counts by type, entities before relationships, then by name. Rejected emissions and
    /// duplicates are counted in [`stats`](Self::stats) only.
    pub types: Vec<TypeCounts>,
    /// The first changes, entities before relationships: at most [`CHANGES`](Self::CHANGES) of each
    /// action and kind, or as many as [`Session::list_changes`](crate::Session::list_changes) says.
    /// Empty for a replay.
    pub changes: Vec<Change>,
    /// Why deletes of this commit are held, if they are.
    pub held_because: Option<String>,
}

impl CommitResult {
    /// How many changes of each [`Action`] and kind are listed.
    pub const CHANGES: usize = 20;
}

/// How much of a run counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every step completed.
    Committed,
    /// Some step did not complete, or not everywhere: what it may have missed is kept.
    Partial,
    /// No step returned `Ok`: the sync is recorded, and no data was written.
    Failed,
}

impl Outcome {
    /// Returns the name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// The counts of one type of entities, or of one verb of relationships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCounts {
    /// Entities or relationships.
    pub kind: RecordKind,
    /// The type or the verb.
    pub name: String,
    /// The counts; `rejected` and `duplicates` are 0.
    pub counts: Counts,
}

/// A record that a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened to it.
    pub action: Action,
    /// Whether it is an entity or a relationship.
    pub kind: RecordKind,
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// Its type or verb.
    pub name: String,
    /// The key of an entity; of a relationship its ends, as `type:key -> type:key`.
    pub key: String,
    /// The name that people know it by; its key if it has none.
    pub display_name: String,
    /// Why it is deleted or held.
    pub reason: Option<String>,
    /// What changed in it, sorted by name. Of a record that is created all that it has, of one
    /// that is deleted or held all that it had.
    pub properties: Vec<PropertyChange>,
}

/// A property that a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyChange {
    /// Its name; `class` and `display_name` stand among the properties.
    pub name: String,
    /// What it was, as JSON; `None` if it was not there.
    pub before: Option<String>,
    /// What it is, as JSON; `None` if it is gone.
    pub after: Option<String>,
}

/// What a commit does to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It was not live before.
    Created,
    /// Its content changed.
    Updated,
    /// It is gone.
    Deleted,
    /// It would be gone, had its delete not been held.
    Held,
}

impl Action {
    /// Returns the name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Held => "held",
        }
    }
}

/// A changeset after somebody's word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// Its number.
    pub changeset: u64,
    /// The connector of the source.
    pub connector_id: String,
    /// The account of the source.
    pub account_id: String,
    /// How many entities were deleted, or are kept.
    pub entities: u64,
    /// How many relationships were deleted, or are kept.
    pub relationships: u64,
    /// Whether the same had been said before: nothing changed now.
    pub repeated: bool,
}

/// What went with a source that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Its entities.
    pub entities: u64,
    /// Its relationships.
    pub relationships: u64,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with one cell per column.
    pub rows: Vec<Vec<Cell>>,
}

/// A value in the answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
    /// Raw bytes.
    Blob(Vec<u8>),
}

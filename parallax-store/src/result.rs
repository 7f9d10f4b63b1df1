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
    /// The first entities that were deleted, updated and created, at most
    /// [`CHANGES`](Self::CHANGES) of each. Empty for a replay.
    pub changes: Vec<Change>,
}

impl CommitResult {
    /// How many changes of each [`Action`] are listed.
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

/// An entity that a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened to it.
    pub action: Action,
    /// Its type.
    pub entity_type: String,
    /// Its key.
    pub key: String,
    /// The name that people know it by; its key if it has none.
    pub display_name: String,
}

/// What a commit does to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It was not live before.
    Created,
    /// Its content changed.
    Updated,
    /// It is gone.
    Deleted,
}

impl Action {
    /// Returns the name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
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

use std::path::PathBuf;

/// A copy of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The file, with its absolute path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How many sources it has.
    pub sources: u64,
    /// How many entities it has, of all sources.
    pub entities: u64,
    /// How many relationships it has, of all sources.
    pub relationships: u64,
}

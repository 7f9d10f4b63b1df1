use std::fmt;

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncOutcome {
    /// Every step completed, and the commit took place.
    Committed,
    /// The commit took place; some step did not complete, or not everywhere.
    Partial,
    /// No step returned `Ok`: there was nothing to commit.
    Failed,
    /// The run or the commit could not be made: a broken graph, a store that is down.
    Error,
    /// It was cancelled.
    Cancelled,
}

impl SyncOutcome {
    /// Each of them once.
    pub(crate) const ALL: [Self; 5] = [
        Self::Committed,
        Self::Partial,
        Self::Failed,
        Self::Error,
        Self::Cancelled,
    ];

    /// Returns the value of the label `outcome`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    /// Tells whether what was read is in the store.
    pub(crate) const fn is_success(self) -> bool {
        matches!(self, Self::Committed | Self::Partial)
    }

    /// Tells whether all that there is was read.
    pub(crate) const fn is_complete(self) -> bool {
        matches!(self, Self::Committed)
    }
}

impl fmt::Display for SyncOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a command ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Ok,
    /// The sync failed and nothing was committed, or the record is not known.
    Failed,
    /// The command line, the configuration or the connector's graph is wrong.
    Usage,
    /// Committed, but some steps did not complete.
    Partial,
    /// The system cannot be reached, or refuses the credentials; nothing was committed.
    Unreachable,
    /// The store cannot be used, or is damaged.
    Store,
    /// Committed, but deletes were held.
    Held,
    /// The plan has changes, and the caller wanted to know.
    Changes,
    /// Cancelled by SIGINT; nothing was committed.
    Interrupted,
    /// Cancelled by SIGTERM; nothing was committed.
    Terminated,
}

impl Exit {
    const ALL: [Self; 10] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::Unreachable,
        Self::Store,
        Self::Held,
        Self::Changes,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// Returns what an exit code means, if anything.
    pub(crate) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// Returns the process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Unreachable => 4,
            Self::Store => 5,
            Self::Held => 6,
            Self::Changes => 7,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

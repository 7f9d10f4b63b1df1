/// What was found when all of a store was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Every check, in the order in which they were made.
    pub checks: Vec<Check>,
    /// What is wrong, by check: the first [`PROBLEMS`](Self::PROBLEMS) of each.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// How many problems of each check are told.
    pub const PROBLEMS: usize = 20;

    /// Tells whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.problems == 0)
    }
}

/// One check of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked, in one word.
    pub name: &'static str,
    /// How many there are of them, as far as they can be counted.
    pub checked: u64,
    /// How many of them have no checksum: they were written before there were any, and only what
    /// they refer to was checked.
    pub without_checksum: u64,
    /// How many problems were found.
    pub problems: u64,
}

/// Something that is wrong in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the check that found it.
    pub check: &'static str,
    /// Where, and what.
    pub details: String,
}

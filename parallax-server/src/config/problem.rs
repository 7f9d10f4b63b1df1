use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Something that is wrong with a configuration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where, unless it is nowhere in particular.
    line: Option<usize>,
    what: String,
    help: String,
}

/// What is wrong with a configuration, as it is found.
#[derive(Debug)]
pub(crate) struct Problems {
    path: PathBuf,
    /// Where each line begins.
    lines: Vec<usize>,
    found: Vec<Problem>,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// It says what cannot be.
    Wrong {
        path: PathBuf,
        /// At least one, in the order of their lines.
        problems: Vec<Problem>,
    },
}

impl Problems {
    /// Begins with none.
    pub(super) fn of(path: &Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let begins = ends.map(|(place, _)| place + 1);
        Self {
            path: path.to_owned(),
            lines: [0].into_iter().chain(begins).collect(),
            found: Vec::new(),
        }
    }

    /// Returns the line in which a span begins, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|begin| *begin <= span.start)
    }

    /// Takes note of a problem, and where it is.
    pub(super) fn note_at(&mut self, span: &Range<usize>, what: String, help: impl Into<String>) {
        self.note(Some(self.line(span)), what, help);
    }

    /// Takes note of a problem in a line, or nowhere in particular.
    pub(crate) fn note(&mut self, line: Option<usize>, what: String, help: impl Into<String>) {
        let help = help.into();
        self.found.push(Problem { line, what, help });
    }

    /// Tells whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Fails if there are any.
    pub(crate) fn check(&mut self) -> Result<(), ConfigError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(std::mem::replace(self, Self::of(Path::new(""), "")).into_error())
    }

    pub(super) fn into_error(mut self) -> ConfigError {
        // Those without a line are of the file as a whole, and come last.
        self.found
            .sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        ConfigError::Wrong {
            path: self.path,
            problems: self.found,
        }
    }
}

impl ConfigError {
    /// Returns each problem with what to do, as two texts.
    pub(crate) fn parts(&self) -> Vec<(String, String)> {
        match self {
            Self::Unreadable { path, error } => {
                let help = match error.kind() {
                    io::ErrorKind::NotFound => "check the path given with --config",
                    io::ErrorKind::PermissionDenied => "let the user who runs this read the file",
                    _ => "name a file that can be read with --config",
                };
                let what = format!("cannot read {}: {error}", path.display());
                vec![(what, help.to_owned())]
            }
            Self::Wrong { path, problems } => {
                let part = |problem: &Problem| {
                    let line = problem.line.map(|line| format!(":{line}"));
                    let line = line.unwrap_or_default();
                    let what = format!("{}{line}: {}", path.display(), problem.what);
                    (what, problem.help.clone())
                };
                problems.iter().map(part).collect()
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whats: Vec<String> = self.parts().into_iter().map(|(what, _)| what).collect();
        f.write_str(&whats.join("; "))
    }
}

impl std::error::Error for ConfigError {}

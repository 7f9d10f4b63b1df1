use std::fmt;

use deb822_fast::Paragraph;

use crate::dependency::{Alternative, Dependency, is_name};

/// An installed package.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) multi_arch: MultiArch,
    /// Whether it is kept from being upgraded.
    pub(crate) held: bool,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) provides: Vec<Alternative>,
    paragraph: Paragraph,
}

/// Whose dependencies a package satisfies: those of its own architecture, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MultiArch {
    No,
    Same,
    Foreign,
    Allowed,
}

/// What dpkg's status file says.
#[derive(Default)]
pub(crate) struct Status {
    /// The packages that are installed, in the order of the file.
    pub(crate) packages: Vec<Package>,
    /// Why others cannot be told to be installed or not.
    pub(crate) doubts: Vec<String>,
}

impl Status {
    pub(crate) fn parse(text: &str) -> Self {
        let mut status = Self::default();
        if text.trim().is_empty() {
            // Where dpkg is used, at least dpkg is installed: the file was lost, not emptied.
            status.doubts.push("the file is empty".to_owned());
        }
        let mut line = 1;
        for record in text.split_inclusive("\n\n") {
            status.read(record, line);
            line += record.matches('\n').count();
        }
        status
    }

    fn read(&mut self, record: &str, line: usize) {
        if record.trim().is_empty() {
            return;
        }
        // dpkg does not read such a file either.
        if !record.ends_with('\n') {
            return self.doubt(line, "the file ends in the middle of it");
        }
        let paragraph: Paragraph = match record.parse() {
            Ok(paragraph) => paragraph,
            Err(error) => return self.doubt(line, error),
        };
        match Package::read(paragraph) {
            Ok(Some(package)) => self.packages.push(package),
            Ok(None) => {}
            Err(reason) => self.doubt(line, reason),
        }
    }

    fn doubt(&mut self, line: usize, reason: impl fmt::Display) {
        self.doubts.push(format!("record at line {line}: {reason}"));
    }
}

impl Package {
    /// Reads a package, or `None` if it is not installed.
    fn read(paragraph: Paragraph) -> Result<Option<Self>, String> {
        let field = |name| paragraph.get(name).map(str::trim).filter(|f| !f.is_empty());
        let required = |name| field(name).ok_or_else(|| format!("it has no field {name}"));

        let name = required("Package")?;
        let mut status = required("Status")?.split_whitespace();
        let (wanted, state) = (status.next(), status.nth(1));
        match state {
            Some("installed") => {}
            Some("not-installed" | "config-files") => return Ok(None),
            // Its files are there, all or some: it is neither installed nor gone.
            _ => return Err(format!("{name} is {}", state.unwrap_or("in no state"))),
        }
        let version = required("Version")?;
        let architecture = required("Architecture")?;
        if !is_name(name) || !is_name(architecture) {
            return Err(format!("{name}:{architecture} is no name"));
        }
        let relations = |name, pre| match field(name) {
            Some(relations) => Dependency::parse_all(relations, pre)
                .map_err(|part| format!("{name} has no meaning at {part}")),
            None => Ok(Vec::new()),
        };
        let mut dependencies = relations("Pre-Depends", true)?;
        dependencies.extend(relations("Depends", false)?);
        let provides = relations("Provides", false)?;
        Ok(Some(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            multi_arch: MultiArch::parse(field("Multi-Arch")),
            held: wanted == Some("hold"),
            dependencies,
            provides: provides.into_iter().flat_map(|p| p.alternatives).collect(),
            paragraph,
        }))
    }

    /// Returns `name:architecture`, which is unique.
    pub(crate) fn key(&self) -> String {
        format!("{}:{}", self.name, self.architecture)
    }

    /// Returns the source package and its version, which the file leaves out where it is the same.
    pub(crate) fn source(&self) -> (&str, &str) {
        let source = self.field("Source").unwrap_or(&self.name);
        match source.split_once('(') {
            Some((name, version)) => (name.trim_end(), version.trim_end_matches(')').trim()),
            None => (source, &self.version),
        }
    }

    /// Returns the first line of the description.
    pub(crate) fn summary(&self) -> Option<&str> {
        self.field("Description")?.lines().next()
    }

    /// Returns a field as it is written, or `None` if there is none or it is empty.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let value = self.paragraph.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }
}

impl MultiArch {
    fn parse(field: Option<&str>) -> Self {
        match field {
            Some("same") => Self::Same,
            Some("foreign") => Self::Foreign,
            Some("allowed") => Self::Allowed,
            _ => Self::No,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Same => "same",
            Self::Foreign => "foreign",
            Self::Allowed => "allowed",
        }
    }
}

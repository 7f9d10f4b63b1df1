use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use crate::dpkg::{MultiArch, Package};
use crate::version;

/// What a package needs: one of several alternatives.
pub(crate) struct Dependency {
    pub(crate) alternatives: Vec<Alternative>,
    /// Whether it must be there before the package is unpacked.
    pub(crate) pre: bool,
}

/// A package, real or virtual: `name:architecture (>= version)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alternative {
    pub(crate) name: String,
    architecture: Option<String>,
    pub(crate) constraint: Option<Constraint>,
}

/// The versions that will do. Displayed as `>= 1.2`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constraint {
    operator: &'static str,
    version: String,
}

/// Longer operators first. The short ones are an old spelling of `<=` and `>=`.
const OPERATORS: [(&str, &str); 7] = [
    ("<<", "<<"),
    ("<=", "<="),
    (">=", ">="),
    (">>", ">>"),
    ("=", "="),
    ("<", "<="),
    (">", ">="),
];

impl Dependency {
    /// Parses a field such as `Depends`; the error is the part that has no meaning.
    pub(crate) fn parse_all(field: &str, pre: bool) -> Result<Vec<Self>, &str> {
        let dependencies = field.split(',').filter(|part| !part.trim().is_empty());
        dependencies
            .map(|dependency| {
                let alternatives = dependency.split('|').map(Alternative::parse);
                let alternatives = alternatives.collect::<Option<_>>();
                Ok(Self {
                    alternatives: alternatives.ok_or(dependency.trim())?,
                    pre,
                })
            })
            .collect()
    }
}

impl Alternative {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, constraint) = match text.split_once('(') {
            Some((name, constraint)) => (name, Some(Constraint::parse(constraint)?)),
            None => (text, None),
        };
        let (name, architecture) = match name.trim().split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (name.trim(), None),
        };
        let named = is_name(name) && architecture.is_none_or(is_name);
        named.then(|| Self {
            name: name.to_owned(),
            architecture: architecture.map(str::to_owned),
            constraint,
        })
    }
}

impl Constraint {
    /// Parses what follows the opening parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().strip_suffix(')')?.trim();
        let (operator, version) = OPERATORS
            .iter()
            .find_map(|(written, meant)| Some((*meant, text.strip_prefix(written)?.trim())))?;
        let version = (!version.is_empty()).then(|| version.to_owned())?;
        Some(Self { operator, version })
    }

    fn allows(&self, version: &str) -> bool {
        let order = version::compare(version, &self.version);
        match self.operator {
            "<<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            "=" => order == Ordering::Equal,
            ">=" => order != Ordering::Less,
            _ => order == Ordering::Greater,
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator, self.version)
    }
}

/// Tells whether a text can name a package or an architecture.
pub(crate) fn is_name(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
    !text.is_empty() && text.bytes().all(is_part)
}

/// The installed packages, by what they can satisfy.
pub(crate) struct Installed<'a> {
    real: HashMap<&'a str, Vec<&'a Package>>,
    /// The packages that provide a virtual one, and which version of it, if they say so.
    providers: HashMap<&'a str, Vec<(&'a Package, Option<&'a str>)>>,
    /// The architecture of packages of architecture `all`.
    native: Option<&'a str>,
}

impl<'a> Installed<'a> {
    pub(crate) fn new(packages: &'a [Package]) -> Self {
        let mut installed = Self {
            real: HashMap::new(),
            providers: HashMap::new(),
            // What `dpkg --print-architecture` prints is compiled into dpkg.
            native: packages
                .iter()
                .find(|package| package.name == "dpkg")
                .map(|package| package.architecture.as_str()),
        };
        for package in packages {
            let real = installed.real.entry(&package.name).or_default();
            real.push(package);
            for provided in &package.provides {
                let version = provided.constraint.as_ref().map(|c| c.version.as_str());
                let providers = installed.providers.entry(&provided.name).or_default();
                providers.push((package, version));
            }
        }
        installed
    }

    /// Returns the package that satisfies a dependency of `dependent`, and which of the
    /// alternatives it satisfies.
    ///
    /// The first alternative that can be satisfied counts, by the package of that name before one
    /// that provides it, by one of the same architecture before others, and then by the first in
    /// order of name and architecture.
    pub(crate) fn satisfy<'d>(
        &self,
        dependent: &Package,
        dependency: &'d Dependency,
    ) -> Option<(&'a Package, &'d Alternative)> {
        dependency.alternatives.iter().find_map(|alternative| {
            let package = self
                .real_package(dependent, alternative)
                .or_else(|| self.provider(dependent, alternative))?;
            Some((package, alternative))
        })
    }

    fn real_package(&self, dependent: &Package, wanted: &Alternative) -> Option<&'a Package> {
        let candidates = self.real.get(wanted.name.as_str())?.iter().copied();
        let allowed = candidates.filter(|candidate| {
            let constraint = wanted.constraint.as_ref();
            constraint.is_none_or(|constraint| constraint.allows(&candidate.version))
        });
        self.nearest(dependent, wanted, allowed)
    }

    fn provider(&self, dependent: &Package, wanted: &Alternative) -> Option<&'a Package> {
        let providers = self.providers.get(wanted.name.as_str())?.iter();
        let allowed = providers.filter(|(_, version)| match (&wanted.constraint, version) {
            (None, _) => true,
            (Some(constraint), Some(version)) => constraint.allows(version),
            (Some(_), None) => false,
        });
        self.nearest(dependent, wanted, allowed.map(|(provider, _)| *provider))
    }

    fn nearest(
        &self,
        dependent: &Package,
        wanted: &Alternative,
        candidates: impl Iterator<Item = &'a Package>,
    ) -> Option<&'a Package> {
        candidates
            .filter(|candidate| candidate.key() != dependent.key())
            .filter_map(|candidate| Some((self.distance(dependent, wanted, candidate)?, candidate)))
            .min_by_key(|(distance, candidate)| {
                (*distance, &candidate.name, &candidate.architecture)
            })
            .map(|(_, candidate)| candidate)
    }

    /// Returns how far a candidate's architecture is from what is wanted; `None` if it will not do.
    fn distance(
        &self,
        dependent: &Package,
        wanted: &Alternative,
        candidate: &Package,
    ) -> Option<u8> {
        let (own, other) = (self.architecture(dependent), self.architecture(candidate));
        let is_near = own.is_none() || other.is_none() || own == other;
        match (wanted.architecture.as_deref(), candidate.multi_arch) {
            (None | Some("any"), _) if is_near => Some(0),
            (None, MultiArch::Foreign) => Some(1),
            (Some("any"), MultiArch::Foreign | MultiArch::Allowed) => Some(1),
            (Some(architecture), _) if architecture == candidate.architecture => Some(0),
            _ => None,
        }
    }

    /// Returns the architecture that a package works as.
    fn architecture<'p>(&'p self, package: &'p Package) -> Option<&'p str> {
        match package.architecture.as_str() {
            "all" => self.native,
            architecture => Some(architecture),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpkg::Status;

    /// Returns what satisfies the dependencies of the first of the packages, each given by its
    /// fields after name and state.
    fn satisfied(packages: &[(&str, &str)]) -> String {
        let text: String = packages
            .iter()
            .map(|(name, fields)| {
                let fields = fields.replace("; ", "\n");
                format!("Package: {name}\nStatus: install ok installed\n{fields}\n\n")
            })
            .collect();
        let status = Status::parse(&text);
        assert_eq!(status.doubts, [""; 0]);
        let installed = Installed::new(&status.packages);
        let dependent = &status.packages[0];
        let satisfied = dependent.dependencies.iter().map(|dependency| {
            match installed.satisfy(dependent, dependency) {
                Some((package, alternative)) => {
                    format!("{} as {}", package.key(), alternative.name)
                }
                None => "none".to_owned(),
            }
        });
        satisfied.collect::<Vec<_>>().join(", ")
    }

    const AMD64: &str = "Version: 1; Architecture: amd64";

    #[test]
    fn first_alternative_that_is_there_counts() {
        let a = format!("{AMD64}; Depends: x | b | c, x, c | b");
        assert_eq!(
            satisfied(&[("a", &a), ("c", AMD64), ("b", AMD64)]),
            "b:amd64 as b, none, c:amd64 as c"
        );
    }

    #[test]
    fn alternative_of_another_version_does_not_count() {
        let a = format!("{AMD64}; Depends: b (>= 2) | c, b (<< 2), b (> 1), b (= 1:1), b (>> 1)");
        assert_eq!(
            satisfied(&[("a", &a), ("b", AMD64), ("c", AMD64)]),
            "c:amd64 as c, b:amd64 as b, b:amd64 as b, none, none"
        );
    }

    #[test]
    fn package_counts_before_its_providers_and_those_by_name() {
        let a = format!("{AMD64}; Depends: awk, perl");
        let provider = format!("{AMD64}; Provides: awk, perl");
        let packages = [
            ("a", &*a),
            ("mawk", &provider),
            ("gawk", &provider),
            ("perl", AMD64),
        ];
        assert_eq!(
            satisfied(&packages),
            "gawk:amd64 as awk, perl:amd64 as perl"
        );
    }

    #[test]
    fn version_is_satisfied_only_by_a_provider_that_names_one() {
        let a = format!("{AMD64}; Depends: api (>= 2), api");
        let plain = format!("{AMD64}; Provides: api");
        let old = format!("{AMD64}; Provides: api (= 1)");
        let new = format!("{AMD64}; Provides: other, api (= 2.1)");
        assert_eq!(
            satisfied(&[("a", &a), ("b", &plain), ("c", &old), ("d", &new)]),
            "d:amd64 as api, b:amd64 as api"
        );
    }

    #[test]
    fn package_does_not_satisfy_itself() {
        let a = format!("{AMD64}; Provides: api; Depends: api");
        assert_eq!(satisfied(&[("a", &a)]), "none");
        assert_eq!(satisfied(&[("a", &a), ("b", &a)]), "b:amd64 as api");
    }

    #[test]
    fn architecture_is_the_own_one_unless_the_package_serves_others() {
        let a = "Version: 1; Architecture: i386; Depends: lib, tool, python:any, lib:amd64, only";
        let lib = "Version: 1; Architecture: i386; Multi-Arch: same";
        let lib64 = "Version: 1; Architecture: amd64; Multi-Arch: same";
        let foreign = "Version: 1; Architecture: amd64; Multi-Arch: foreign";
        let allowed = "Version: 1; Architecture: amd64; Multi-Arch: allowed";
        let packages = [
            ("a", a),
            ("lib", lib64),
            ("lib", lib),
            ("tool", foreign),
            ("python", allowed),
            ("only", AMD64),
        ];
        assert_eq!(
            satisfied(&packages),
            "lib:i386 as lib, tool:amd64 as tool, python:amd64 as python, lib:amd64 as lib, none"
        );
    }

    #[test]
    fn package_for_all_architectures_is_of_that_of_dpkg() {
        let a = "Version: 1; Architecture: all; Depends: lib, data";
        let lib = "Version: 1; Architecture: arm64";
        let data = "Version: 1; Architecture: all";
        let packages = [
            ("a", a),
            ("lib", AMD64),
            ("lib", lib),
            ("dpkg", lib),
            ("data", data),
        ];
        assert_eq!(satisfied(&packages), "lib:arm64 as lib, data:all as data");
        // Without dpkg, any will do.
        assert_eq!(satisfied(&packages[..3]), "lib:amd64 as lib, none");
    }

    #[test]
    fn relation_without_meaning_is_refused() {
        for text in [
            "", "a b", "a (", "a (>= )", "a (1)", "a (>= 1", "a:(= 1)", ":any", "é",
        ] {
            assert_eq!(Alternative::parse(text), None, "{text}");
        }
        for text in ["a(>=1)", " a:any ( >= 1:2-3~ ) ", "\n libstdc++6.0"] {
            assert!(Alternative::parse(text).is_some(), "{text}");
        }
    }
}

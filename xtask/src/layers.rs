//! `cargo xtask layers`: which crate of the workspace may depend on which.
//!
//! The layers are the architecture. Kept by hand they hold until the first
//! hurried change, so they are a table and a check.

use std::collections::HashSet;
use std::fs;

use anyhow::{Result, bail};

use crate::manifests::{self, Package};

/// Each crate and those it may depend on, for whatever purpose: tests that need
/// more belong to `parallax-tests`. A name ending in `*` stands for all that
/// begin so.
const LAYERS: &[(&str, &[&str])] = &[
    ("parallax-core", &[]),
    ("parallax-connect", &["parallax-core"]),
    ("parallax-store", &["parallax-core"]),
    ("parallax-metrics", &["parallax-core"]),
    (
        "parallax-scheduler",
        &["parallax-core", "parallax-connect", "parallax-store"],
    ),
    ("parallax-connector-*", &["parallax-connect"]),
    (
        "parallax-server",
        &[
            "parallax-core",
            "parallax-connect",
            "parallax-store",
            "parallax-scheduler",
            "parallax-metrics",
            "parallax-connector-*",
        ],
    ),
    ("parallax-bench", &["parallax-*"]),
    ("parallax-examples", &["parallax-*"]),
    ("parallax-tests", &["parallax-*"]),
    ("xtask", &[]),
];

/// Checks every manifest of the workspace and names all that is wrong.
pub(crate) fn run() -> Result<()> {
    let packages = manifests::read()?;
    let mut violations = violations(&packages);
    for package in &packages {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        violations.extend(manifests::violations(package, &manifest));
    }
    if !violations.is_empty() {
        bail!(
            "the manifests break rules of xtask/src/{{layers,manifests}}.rs:\n  {}",
            violations.join("\n  ")
        );
    }
    println!("{} manifests hold", packages.len());
    Ok(())
}

/// Says which crates are in no layer, and which dependencies point the wrong way.
fn violations(packages: &[Package]) -> Vec<String> {
    let members: HashSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut violations = Vec::new();
    for Package {
        name, dependencies, ..
    } in packages
    {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| covers(layer, name)) else {
            violations.push(format!(
                "{name} is in no layer; add it to xtask/src/layers.rs"
            ));
            continue;
        };
        // One crate may be a dependency and a dev-dependency.
        let mut dependencies: Vec<&str> = dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        for dependency in dependencies {
            let is_allowed = allowed.iter().any(|layer| covers(layer, dependency));
            if members.contains(dependency) && !is_allowed {
                violations.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    violations
}

fn covers(layer: &str, name: &str) -> bool {
    match layer.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::Dependency;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|name| Dependency {
                name: (*name).to_owned(),
            })
            .collect();
        Package {
            name: name.to_owned(),
            dependencies,
            ..Package::default()
        }
    }

    #[test]
    fn arrows_that_point_down_hold() {
        let packages = [
            package("parallax-core", &["thiserror"]),
            package("parallax-connect", &["parallax-core", "tokio"]),
            package("parallax-connector-host", &["parallax-connect"]),
            package(
                "parallax-server",
                &["parallax-connect", "parallax-connector-host"],
            ),
            package("parallax-tests", &["parallax-server", "parallax-core"]),
        ];
        assert!(violations(&packages).is_empty());
    }

    #[test]
    fn arrow_that_points_up_is_named_once() {
        let packages = [
            package("parallax-core", &[]),
            // As a dependency and as a dev-dependency.
            package(
                "parallax-connect",
                &["parallax-store", "parallax-core", "parallax-store"],
            ),
            package("parallax-store", &["parallax-core"]),
        ];
        assert_eq!(
            violations(&packages),
            ["parallax-connect must not depend on parallax-store"]
        );
    }

    #[test]
    fn connector_knows_the_sdk_and_nothing_below_it_or_beside_it() {
        let packages = [
            package("parallax-core", &[]),
            package(
                "parallax-connector-host",
                &["parallax-core", "parallax-connector-git"],
            ),
            package("parallax-connector-git", &[]),
        ];
        assert_eq!(
            violations(&packages),
            [
                "parallax-connector-host must not depend on parallax-connector-git",
                "parallax-connector-host must not depend on parallax-core",
            ]
        );
    }

    #[test]
    fn nothing_depends_on_the_tests() {
        let packages = [
            package("parallax-server", &["parallax-tests"]),
            package("parallax-tests", &[]),
        ];
        assert_eq!(
            violations(&packages),
            ["parallax-server must not depend on parallax-tests"]
        );
    }

    #[test]
    fn crate_without_a_layer_is_told_where_to_get_one() {
        let packages = [package("parallax-graphql", &["parallax-core"])];
        assert_eq!(
            violations(&packages),
            ["parallax-graphql is in no layer; add it to xtask/src/layers.rs"]
        );
    }
}

//! What the workspace's manifests say, and what crates.io wants them to say.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

use crate::command;

/// A member of the workspace, as `cargo metadata` shows it: inherited fields
/// are filled in.
#[derive(Default, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    /// The registries it may go to: all, if absent; an empty list says none.
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) description: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) readme: Option<String>,
    pub(crate) documentation: Option<String>,
    pub(crate) keywords: Vec<String>,
    pub(crate) categories: Vec<String>,
}

/// Of any kind: normal, dev, build, for one target only.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    /// The crate's own name, also where the manifest renames it.
    pub(crate) name: String,
}

/// Returns the members of the workspace.
pub(crate) fn read() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let json = command::output("cargo metadata --no-deps --format-version 1 --locked")?;
    Ok(serde_json::from_str::<Metadata>(&json)?.packages)
}

/// Says what `package`, whose manifest is `manifest`, lacks.
pub(crate) fn violations(package: &Package, manifest: &str) -> Vec<String> {
    let mut missing = Vec::new();
    // `cargo metadata` knows nothing of lints. This spelling is as good as any
    // other, and one spelling needs no TOML parser here.
    let lines: Vec<&str> = manifest.lines().collect();
    if !lines
        .windows(2)
        .any(|pair| pair == ["[lints]", "workspace = true"])
    {
        missing.push("`[lints]` with `workspace = true`");
    }
    let is_published = package
        .publish
        .as_ref()
        .is_none_or(|registries| !registries.is_empty());
    if is_published {
        let fields = [
            ("description", package.description.is_some()),
            ("license", package.license.is_some()),
            ("repository", package.repository.is_some()),
            ("rust-version", package.rust_version.is_some()),
            (
                "readme or documentation",
                package.readme.is_some() || package.documentation.is_some(),
            ),
            // crates.io takes at most five of each.
            ("1 to 5 keywords", (1..=5).contains(&package.keywords.len())),
            (
                "1 to 5 categories",
                (1..=5).contains(&package.categories.len()),
            ),
        ];
        missing.extend(
            fields
                .iter()
                .filter(|(_, is_there)| !is_there)
                .map(|(field, _)| *field),
        );
    }
    missing
        .iter()
        .map(|missing| format!("{} lacks {missing}", package.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[package]\n\n[lints]\nworkspace = true\n";

    fn complete() -> Package {
        Package {
            name: "parallax-core".to_owned(),
            description: Some("Values".to_owned()),
            license: Some("MIT".to_owned()),
            repository: Some("https://example.org".to_owned()),
            rust_version: Some("1.89".to_owned()),
            readme: Some("README.md".to_owned()),
            keywords: vec!["sync".to_owned()],
            categories: vec!["database".to_owned()],
            ..Package::default()
        }
    }

    #[test]
    fn complete_manifest_lacks_nothing() {
        assert!(violations(&complete(), LINTS).is_empty());
    }

    #[test]
    fn empty_manifest_lacks_everything_that_crates_io_asks_for() {
        let package = Package {
            name: "parallax-core".to_owned(),
            ..Package::default()
        };
        assert_eq!(
            violations(&package, LINTS),
            [
                "parallax-core lacks description",
                "parallax-core lacks license",
                "parallax-core lacks repository",
                "parallax-core lacks rust-version",
                "parallax-core lacks readme or documentation",
                "parallax-core lacks 1 to 5 keywords",
                "parallax-core lacks 1 to 5 categories",
            ]
        );
    }

    #[test]
    fn sixth_keyword_is_too_many() {
        let keywords = vec!["sync".to_owned(); 6];
        let package = Package {
            keywords,
            ..complete()
        };
        assert_eq!(
            violations(&package, LINTS),
            ["parallax-core lacks 1 to 5 keywords"]
        );
    }

    #[test]
    fn unpublished_crate_needs_the_lints_only() {
        let package = Package {
            name: "xtask".to_owned(),
            publish: Some(Vec::new()),
            ..Package::default()
        };
        assert_eq!(
            violations(&package, "[package]\n"),
            ["xtask lacks `[lints]` with `workspace = true`"]
        );
    }
}

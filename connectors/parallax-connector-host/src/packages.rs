use std::collections::{BTreeMap, BTreeSet};

use parallax_connect::{ConnectorError, Entity, StepContext, Value, entity, relationship};

use crate::dependency::Installed;
use crate::dpkg::{Package, Status};
use crate::emit::{display_name, emit, emit_of_host};
use crate::root::Root;

const DPKG: &str = "var/lib/dpkg";
const STATUS: &str = "var/lib/dpkg/status";

/// Why a package needs another: all of its dependencies that the other satisfies.
#[derive(Default)]
struct Needs {
    constraints: BTreeSet<String>,
    provided: BTreeSet<String>,
    pre: bool,
}

/// Emits the packages that dpkg has installed, and which needs which.
pub(crate) fn packages(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    if !root.has_directory(DPKG)? {
        return Ok(());
    }
    // dpkg replaces the file in one step: what is read is whole, whatever dpkg does meanwhile.
    let status = Status::parse(&String::from_utf8_lossy(&root.read(STATUS)?));
    for doubt in &status.doubts {
        ctx.incomplete(format_args!("{}: {doubt}", root.path(STATUS).display()));
    }
    let installed = Installed::new(&status.packages);
    for package in &status.packages {
        emit_of_host(ctx, describe(package))?;
        for (needed, needs) in needs(package, &installed) {
            let mut depends = relationship(
                ("host_package", package.key()),
                "DEPENDS_ON",
                ("host_package", needed),
            )
            .property("pre_depends", needs.pre);
            for (name, values) in [
                ("constraints", needs.constraints),
                ("provided", needs.provided),
            ] {
                depends = depends.property(name, values.into_iter().collect::<Value>());
            }
            emit(ctx, depends)?;
        }
    }
    Ok(())
}

fn describe(package: &Package) -> Entity {
    let (source, source_version) = package.source();
    let installed_size_kib = package.field("Installed-Size");
    entity("host_package", package.key())
        .class("Package")
        .display_name(display_name(&package.name))
        .property("name", &package.name)
        .property("version", &package.version)
        .property("architecture", &package.architecture)
        .property("source", source)
        .property("source_version", source_version)
        .property("section", package.field("Section"))
        .property("priority", package.field("Priority"))
        .property("maintainer", package.field("Maintainer"))
        .property("homepage", package.field("Homepage"))
        .property("summary", package.summary())
        .property(
            "installed_size_kib",
            installed_size_kib.and_then(|size| size.parse::<u64>().ok()),
        )
        .property("essential", package.field("Essential") == Some("yes"))
        .property("multi_arch", package.multi_arch.as_str())
        .property("held", package.held)
}

/// Returns the packages that `package` needs, by key.
fn needs(package: &Package, installed: &Installed<'_>) -> BTreeMap<String, Needs> {
    let mut all: BTreeMap<String, Needs> = BTreeMap::new();
    for dependency in &package.dependencies {
        let Some((needed, alternative)) = installed.satisfy(package, dependency) else {
            continue;
        };
        let needs = all.entry(needed.key()).or_default();
        needs.pre |= dependency.pre;
        let constraint = alternative.constraint.as_ref().map(ToString::to_string);
        needs.constraints.extend(constraint);
        if alternative.name != needed.name {
            needs.provided.insert(alternative.name.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    const ABOUT: [&str; 2] = ["step packages", "host_package"];

    const BASH: &str = "\
Package: bash
Essential: yes
Status: install ok installed
Priority: required
Section: shells
Installed-Size: 7164
Maintainer: Matthias Klose <doko@debian.org>
Architecture: amd64
Multi-Arch: foreign
Source: bash-src (5.2.15-1)
Version: 5.2.15-2+b8
Depends: base-files (>= 2.1.12), awk, base-files (<< 99)
Pre-Depends: base-files
Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html
Conffiles:
 /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language interpreter that
 .
 executes commands.

";
    const BASE_FILES: &str = "\
Package: base-files
Status: hold ok installed
Architecture: all
Version: 12.4
Provides: awk

";

    fn packages(status: &str) -> String {
        Machine::new()
            .file("var/lib/dpkg/status", status)
            .about(&ABOUT)
    }

    #[test]
    fn package_is_shown_with_all_that_it_needs_of_another_in_one_relationship() {
        insta::assert_snapshot!(packages(&format!("{BASH}{BASE_FILES}")), @r#"
        host "acme" HAS host_package "base-files:all"
        host "acme" HAS host_package "bash:amd64"
        host_package "base-files:all" "Package" "base-files" architecture="all" essential=false held=true homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="base-files" priority=null section=null source="base-files" source_version="12.4" summary=null version="12.4"
        host_package "bash:amd64" "Package" "bash" architecture="amd64" essential=true held=false homepage="http://tiswww.case.edu/php/chet/bash/bashtop.html" installed_size_kib=7164 maintainer="Matthias Klose <doko@debian.org>" multi_arch="foreign" name="bash" priority="required" section="shells" source="bash-src" source_version="5.2.15-1" summary="GNU Bourne Again SHell" version="5.2.15-2+b8"
        host_package "bash:amd64" DEPENDS_ON host_package "base-files:all" constraints=["<< 99", ">= 2.1.12"] pre_depends=true provided=["awk"]
        step packages completed
        "#);
    }

    #[test]
    fn removed_package_is_gone_and_half_installed_one_in_doubt() {
        let other = |name: &str, state: &str| {
            let text = BASE_FILES.replace("hold ok installed", state);
            text.replace("base-files", name)
        };
        let status = [
            other("removed", "deinstall ok config-files"),
            other("purged", "purge ok not-installed"),
            other("leaving", "deinstall ok installed"),
            other("broken", "install reinstreq half-installed"),
        ];
        insta::assert_snapshot!(packages(&status.concat()), @r#"
        host "acme" HAS host_package "leaving:all"
        host_package "leaving:all" "Package" "leaving" architecture="all" essential=false held=false homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="leaving" priority=null section=null source="leaving" source_version="12.4" summary=null version="12.4"
        step packages incomplete; /var/lib/dpkg/status: record at line 19: broken is half-installed
        "#);
    }

    #[test]
    fn malformed_records_are_left_out_and_named_by_line() {
        let status = [
            BASE_FILES,
            "Package: x\n\0\0\0\n\n",
            "\n Package: y\n\n",
            "Package: z\nStatus: install ok installed\nVersion: 1\n\n",
        ];
        insta::assert_snapshot!(packages(&status.concat()), @r#"
        host "acme" HAS host_package "base-files:all"
        host_package "base-files:all" "Package" "base-files" architecture="all" essential=false held=true homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="base-files" priority=null section=null source="base-files" source_version="12.4" summary=null version="12.4"
        step packages incomplete; /var/lib/dpkg/status: record at line 7: Unexpected token: \u{0}\u{0}\u{0}; /var/lib/dpkg/status: record at line 10: Unexpected token:  Package: y; /var/lib/dpkg/status: record at line 13: it has no field Architecture
        "#);
        let status =
            BASH.replace("(>= 2.1.12)", "[amd64]") + &BASE_FILES.replace("base-files", "a:b");
        insta::assert_snapshot!(packages(&status), @"step packages incomplete; /var/lib/dpkg/status: record at line 1: Depends has no meaning at base-files [amd64]; /var/lib/dpkg/status: record at line 22: a:b:all is no name");
    }

    #[test]
    fn file_that_was_cut_is_complete_up_to_its_last_record() {
        let whole = format!("{BASE_FILES}{BASH}");
        let cut = &whole[..whole.len() - 100];
        insta::assert_snapshot!(packages(cut), @r#"
        host "acme" HAS host_package "base-files:all"
        host_package "base-files:all" "Package" "base-files" architecture="all" essential=false held=true homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="base-files" priority=null section=null source="base-files" source_version="12.4" summary=null version="12.4"
        step packages incomplete; /var/lib/dpkg/status: record at line 7: the file ends in the middle of it
        "#);
    }

    #[test]
    fn empty_file_is_not_believed() {
        insta::assert_snapshot!(packages(""), @"step packages incomplete; /var/lib/dpkg/status: the file is empty");
    }

    #[test]
    fn machine_without_dpkg_has_no_packages() {
        insta::assert_snapshot!(Machine::new().about(&ABOUT), @"step packages completed");
    }

    #[test]
    fn dpkg_without_its_status_file_fails_the_step() {
        let machine = Machine::new().file("var/lib/dpkg/lock", "");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step packages failed; read /var/lib/dpkg/status: No such file or directory (os error 2)");
    }
}

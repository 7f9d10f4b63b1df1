//! Reads a Linux machine: what it runs, who may use it, what is installed.
//!
//! [`Host`] is a connector of five steps. It needs no root, starts no program and writes nothing.
//!
//! ```
//! use parallax_connect::run_connector;
//! use parallax_connector_host::Host;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::open()?;
//! let account = host.machine_id().unwrap_or("a machine without an id");
//! let output = run_connector(&host, account, "sync-001", None).await?;
//! assert!(output.entities().any(|entity| entity.entity_type() == "host"));
//! # Ok(())
//! # }
//! ```
//!
//! # What is emitted
//!
//! | Entity | Key | Properties |
//! |---|---|---|
//! | `host` | the account | `hostname`, `kernel_release`, `architecture` |
//! | `host_os` | `ID` of os-release | `name`, `version`, `version_id` |
//! | `host_user` | name | `uid`, `gid`, `gecos`, `home`, `shell` |
//! | `host_group` | name | `gid` |
//! | `host_package` | `name:architecture` | `name`, `version`, `architecture`, `source`, `source_version`, `section`, `priority`, `maintainer`, `homepage`, `summary`, `installed_size_kib`, `essential`, `multi_arch`, `held` |
//! | `host_process` | `boot id:pid:start time in ticks` | `name`, `pid`, `uid`, `gid`, `exe`, `exe_deleted` |
//!
//! | Relationship | Properties |
//! |---|---|
//! | `host RUNS host_os` | |
//! | `host HAS` user, group, package, process | |
//! | `host_user MEMBER_OF host_group` | `primary` |
//! | `host_package DEPENDS_ON host_package` | `constraints`, `provided`, `pre_depends` |
//! | `host_process RUNS_AS host_user` | |
//!
//! A property whose value is known to be none is null; one whose value cannot be known is absent.
//! Nothing is emitted that changes by itself, such as memory or state of a process: two syncs of a
//! machine on which nothing happened emit the same records. Command line arguments and environments
//! are never read, because they hold secrets.
//!
//! # What is not seen
//!
//! - Users and groups of other sources than `/etc/passwd` and `/etc/group`, such as LDAP.
//! - Packages of other managers than dpkg. Without `/var/lib/dpkg` there are no packages.
//! - Kernel threads, zombies, and the process that reads.
//! - The executables of other users' processes, unless the reader may trace them (as root does).
//!   `exe` and `exe_deleted` are then absent and the process is shown by its name: let the same
//!   user do all syncs of a machine.
//!
//! Whatever should have been seen and was not makes its step incomplete, with the reason, so that
//! nothing is deleted for it.

mod accounts;
mod blocking;
mod dependency;
mod dpkg;
mod emit;
mod host;
mod machine;
mod packages;
mod processes;
mod root;
#[cfg(test)]
mod testing;
mod version;

pub use host::Host;

//! Reads a Linux machine: what it runs, who may use it, what is installed, where it can be reached.
//!
//! [`Host`] is a connector of ten steps. It needs no root, starts no program and writes nothing.
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
//! | `host_interface` | name | `name`, `kind`, `mac_address`, `mtu` |
//! | `host_address` | `interface:address/prefix length` | `address`, `prefix_length`, `family`, `scope` |
//! | `host_socket` | `protocol:address:port`, as `tcp:[::1]:80` | `protocol`, `address`, `port`, `uid` |
//! | `host_mount` | mount point | `mount_point`, `filesystem`, `source`, `read_only`, `options` |
//! | `host_service` | name of the unit | `description`, `enabled`, `masked`, `path`, `exec`, `user` |
//!
//! | Relationship | Properties |
//! |---|---|
//! | `host RUNS host_os` | |
//! | `host HAS` user, group, package, process, interface, socket, mount, service | |
//! | `host_user MEMBER_OF host_group` | `primary` |
//! | `host_package DEPENDS_ON host_package` | `constraints`, `provided`, `pre_depends` |
//! | `host_process RUNS_AS host_user` | |
//! | `host_process LISTENS_ON host_socket` | |
//! | `host_interface HAS host_address` | |
//! | `host_service RUNS_AS host_user` | |
//!
//! A property whose value is known to be none is null. One whose value could not be read is absent,
//! in that sync: if an earlier one could read it, the record is updated and loses it. Nothing is
//! emitted that changes by itself, such as memory or state of a process, or for how long an address
//! is lent: two syncs of a machine on which nothing happened emit the same records. Command line
//! arguments, environments, options of file systems and credentials in the source of a mount are
//! never emitted, because they are or hold secrets.
//!
//! - **Interfaces.** The `kind` is what the driver calls it (`bridge`, `vlan`, `wlan`, `bond`), or
//!   else what the hardware is: `ethernet`, `loopback`, `infiniband`, `can`, `ppp`, `tunnel`, `none`
//!   for packets without any header, or `other`.
//! - **Sockets.** Listening TCP sockets and bound UDP sockets that are not connected. Several that
//!   share an address are one entity, whose `uid` is the lowest of theirs.
//! - **Mounts.** Of several on one mount point, the one that can be seen: the last that was mounted.
//!   What autofs or systemd mounts on demand comes and goes with use: the trigger is shown in its
//!   place. The `options` are those of the mount (`nosuid`), not of the file system.
//! - **Services.** What unit files say, with their drop-ins, whether or not systemd runs: a template
//!   is one service, an alias none. One is `enabled` if another unit wants or requires it by a link
//!   in a directory, also one that its package brings; of a template, if that is so of an instance.
//!   `exec` is the first program of `ExecStart`. `RUNS_AS` needs a `User` that is a `host_user`.
//!
//! # What is not seen
//!
//! - Users and groups of other sources than `/etc/passwd` and `/etc/group`, such as LDAP.
//! - Packages of other managers than dpkg. Without `/var/lib/dpkg` there are no packages.
//! - Kernel threads, zombies, and the process that reads.
//! - The executables of other users' processes, unless the reader may trace them (as root does).
//!   `exe` and `exe_deleted` are then absent and the process is shown by its name: let the same
//!   user do all syncs of a machine.
//! - Which processes listen, of those whose open files are not the reader's to see: for most
//!   readers those of other users, for nearly all some, such as an agent that keeps keys. They are
//!   left out with the others of their user and name, what is stored of them is kept, and the step
//!   completes.
//! - Networks and mounts of other namespaces than the reader's, such as those of containers.
//! - Mounts below `/run/user` and `/run/credentials`, of namespaces, and those that are hidden.
//! - Services that are made while systemd runs (`systemd-run`), those of users, and units other than
//!   services.
//!
//! Whatever else should have been seen and was not makes its step incomplete, with the reason, so
//! that nothing is deleted for it.
//!
//! # Other machines
//!
//! [`Host::at`] reads a machine whose files are elsewhere. On a disk that has no `/proc` and `/sys`,
//! the steps that need them are incomplete. Where they are those of a running machine, mounts and
//! sockets are what its first process sees, and its name is that in `/etc/hostname`. Addresses are
//! known only to the machine itself: no others are emitted, and those that are stored are kept.

mod accounts;
mod blocking;
mod dependency;
mod dpkg;
mod emit;
mod host;
mod listeners;
mod machine;
mod mounts;
mod netlink;
mod network;
mod packages;
mod processes;
mod root;
mod services;
mod sockets;
#[cfg(test)]
mod testing;
mod unit;
mod version;

pub use host::Host;

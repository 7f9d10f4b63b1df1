use std::path::PathBuf;

use parallax_connect::{Connector, ConnectorError, Step, StepContext, step};

use crate::blocking::blocking;
use crate::root::Root;
use crate::{
    accounts, listeners, machine, mounts, network, packages, processes, services, sockets,
};

/// A Linux machine, as a connector.
///
/// The [front page](crate) lists what it emits. Its steps read on tokio's threads for blocking
/// work; when a run is cancelled, such a thread ends at the next record it would emit.
#[derive(Clone, Debug)]
pub struct Host {
    root: Root,
    machine_id: Result<String, ConnectorError>,
}

type Read = fn(&Root, &StepContext) -> Result<(), ConnectorError>;

impl Host {
    /// Opens this machine.
    ///
    /// # Errors
    ///
    /// As [`at`](Self::at), for `/`.
    pub fn open() -> Result<Self, ConnectorError> {
        Self::at("/")
    }

    /// Opens the machine whose files are below `root`, such as a mounted disk.
    ///
    /// Its symbolic links are followed as the machine itself would follow them: none leads out of
    /// `root`. That needs Linux 5.6 for any other root than `/`.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Fatal`] if `root` is no directory.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, ConnectorError> {
        let root = Root::open(root.into())?;
        let machine_id = machine::id(&root);
        Ok(Self { root, machine_id })
    }

    /// Returns the machine's id, 32 lower-case hexadecimal digits: the account to sync it as,
    /// unless the caller has a better name for it.
    ///
    /// It stays the same when the machine is renamed or moved, and was read when the host was
    /// opened.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Fatal`] if neither `/etc/machine-id` nor `/var/lib/dbus/machine-id` holds
    /// an id.
    pub fn machine_id(&self) -> Result<&str, ConnectorError> {
        self.machine_id.as_deref().map_err(Clone::clone)
    }

    fn step(&self, id: &'static str, title: &'static str, read: Read) -> Step<'_> {
        step(id, title, move |ctx| {
            let root = self.root.clone();
            blocking(move || read(&root, &ctx))
        })
    }
}

impl Connector for Host {
    fn name(&self) -> &str {
        "host"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            self.step("host", "Read the machine and its system", machine::host),
            self.step("users", "List users", accounts::users),
            self.step("groups", "List groups", accounts::groups)
                .reads(["users"]),
            self.step("packages", "List dpkg packages", packages::packages),
            self.step("processes", "List processes", processes::processes)
                .reads(["users"])
                .ephemeral(),
            self.step("network", "List network interfaces", network::network),
            self.step("sockets", "List listening sockets", sockets::sockets)
                .ephemeral(),
            self.step("listeners", "Find who listens", listeners::listeners)
                .reads(["processes"])
                .ephemeral(),
            self.step("mounts", "List mounts", mounts::mounts),
            self.step("services", "List systemd services", services::services)
                .reads(["users"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::{Fake, Machine, sync, text};

    #[test]
    fn small_machine_in_full() {
        let machine = Machine::new()
            .file("etc/os-release", "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n")
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
            .file("etc/group", "root:x:0:\nadm:x:4:root\n")
            .file("etc/hostname", "web-1\n")
            .file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
            .file("proc/sys/kernel/arch", "x86_64\n")
            .file("proc/sys/kernel/random/boot_id", "b0075e55-0000-4000-8000-000000000000\n")
            .file(
                "var/lib/dpkg/status",
                "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nArchitecture: amd64\n\n\
                 Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\n\
                 Depends: libc6 (>= 2.36)\n\n",
            )
            .process(&Fake {
                sockets: Some(&[22]),
                ..Fake::default()
            })
            .sockets("tcp", &[("00000000:0016", "0A", 0, 22)])
            .file("proc/1/mountinfo", "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
            .file("sys/class/net/eth0/type", "1\n")
            .file("sys/class/net/eth0/address", "02:fc:00:00:00:01\n")
            .file("sys/class/net/eth0/mtu", "1500\n")
            .file(
                "lib/systemd/system/ssh.service",
                "[Unit]\nDescription=OpenSSH\n[Service]\nUser=root\nExecStart=/sbin/sshd -D\n",
            );
        insta::assert_snapshot!(machine.sync(), @r#"
        host "acme" "Host" "web-1" architecture="x86_64" hostname="web-1" kernel_release="6.1.0-18-amd64"
        host "acme" HAS host_group "adm"
        host "acme" HAS host_group "root"
        host "acme" HAS host_interface "eth0"
        host "acme" HAS host_mount "/"
        host "acme" HAS host_package "bash:amd64"
        host "acme" HAS host_package "libc6:amd64"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host "acme" HAS host_service "ssh.service"
        host "acme" HAS host_socket "tcp:0.0.0.0:22"
        host "acme" HAS host_user "root"
        host "acme" RUNS host_os "debian"
        host_group "adm" "Group" "-" gid=4
        host_group "root" "Group" "-" gid=0
        host_interface "eth0" "NetworkInterface" "-" kind="ethernet" mac_address="02:fc:00:00:00:01" mtu=1500 name="eth0"
        host_mount "/" "Mount" "-" filesystem="ext4" mount_point="/" options=["relatime"] read_only=false source="/dev/sda1"
        host_os "debian" "OperatingSystem" "Debian GNU/Linux" name="Debian GNU/Linux" version=null version_id="12"
        host_package "bash:amd64" "Package" "bash" architecture="amd64" essential=false held=false homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="bash" priority=null section=null source="bash" source_version="5.2-1" summary=null version="5.2-1"
        host_package "bash:amd64" DEPENDS_ON host_package "libc6:amd64" constraints=[">= 2.36"] pre_depends=false provided=[]
        host_package "libc6:amd64" "Package" "libc6" architecture="amd64" essential=false held=false homepage=null installed_size_kib=null maintainer=null multi_arch="no" name="libc6" priority=null section=null source="libc6" source_version="2.36-9" summary=null version="2.36-9"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" exe="/usr/bin/sleep" exe_deleted=false gid=0 name="sleep" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "tcp:0.0.0.0:22"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        host_service "ssh.service" "Service" "-" description="OpenSSH" enabled=false exec="/sbin/sshd" masked=false path="/lib/systemd/system/ssh.service" user="root"
        host_service "ssh.service" RUNS_AS host_user "root"
        host_socket "tcp:0.0.0.0:22" "ListeningSocket" "-" address="0.0.0.0" port=22 protocol="tcp" uid=0
        host_user "root" "User" "root" gecos="root" gid=0 home="/root" shell="/bin/bash" uid=0
        host_user "root" MEMBER_OF host_group "adm" primary=false
        host_user "root" MEMBER_OF host_group "root" primary=true
        step host completed
        step users completed
        step groups completed
        step packages completed
        step processes completed
        step network completed
        step sockets completed
        step listeners completed; uid:0 complete; no other scopes
        step mounts completed
        step services completed
        "#);
    }

    #[test]
    fn second_sync_of_this_machine_emits_the_same() {
        let host = Host::open().unwrap();
        let facts = || -> BTreeSet<String> {
            let text = text(&sync(&host));
            // What runs is of others, and may change meanwhile.
            let runs = ["process", "host_socket", "step listeners"];
            let lines = text.lines();
            let lasting = lines.filter(|line| !runs.iter().any(|runs| line.contains(runs)));
            lasting.map(str::to_owned).collect()
        };
        let first = facts();
        for step in [
            "users completed",
            "groups completed",
            "packages completed",
            "network completed; addresses complete",
            "sockets completed",
            "mounts completed",
            "services completed",
        ] {
            assert!(first.contains(&format!("step {step}")), "{step}");
        }
        assert_eq!(first, facts());
    }
}

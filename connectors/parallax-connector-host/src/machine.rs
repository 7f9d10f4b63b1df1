use std::collections::HashMap;
use std::ffi::CStr;

use parallax_connect::{ConnectorError, StepContext, entity, relationship};
use rustix::system::{Uname, uname};

use crate::emit::{display_name, emit, host_key};
use crate::root::Root;

const ID_FILES: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];
const OS_RELEASE_FILES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// Returns the machine id, which systemd or else D-Bus made.
pub(crate) fn id(root: &Root) -> Result<String, ConnectorError> {
    let mut failures = Vec::new();
    for file in ID_FILES {
        let path = root.path(file);
        match root.read_if_there(file) {
            Ok(Some(content)) => match parse_id(&content) {
                Ok(id) => return Ok(id),
                Err(reason) => failures.push(format!("{} {reason}", path.display())),
            },
            Ok(None) => failures.push(format!("{} does not exist", path.display())),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(ConnectorError::fatal(format_args!(
        "the machine has no id: {}; make one with `systemd-machine-id-setup`, or name an account \
         with `--account`",
        failures.join(", ")
    )))
}

fn parse_id(content: &[u8]) -> Result<String, &'static str> {
    let id = content.trim_ascii();
    if id.is_empty() {
        Err("is empty")
    } else if id.len() != 32 || !id.iter().all(u8::is_ascii_hexdigit) {
        Err("does not hold 32 hexadecimal digits")
    } else if id.iter().all(|&digit| digit == b'0') {
        Err("holds only zeros")
    } else {
        Ok(String::from_utf8_lossy(id).to_ascii_lowercase())
    }
}

/// Emits the host and its operating system.
pub(crate) fn host(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    // The kernel tells each reader the name of its own namespace: in a container that reads the
    // machine it is on, the container's.
    let own_name = root
        .is_own()
        .then(|| first_line(root, ctx, "proc/sys/kernel/hostname"))
        .flatten();
    let hostname = own_name
        // What the kernel says before anybody has named the machine.
        .filter(|name| name != "(none)")
        .or_else(|| first_line(root, ctx, "etc/hostname"));
    let mut host = entity("host", ctx.account_id()).class("Host");
    if let Some(name) = &hostname {
        host = host.display_name(display_name(name));
    }
    let own_kernel = root.is_own().then(uname);
    let kernel = |file, field: fn(&Uname) -> &CStr| {
        // Without procfs, and for the architecture before Linux 6.1, the kernel itself is asked.
        first_line(root, ctx, file)
            .or_else(|| Some(field(own_kernel.as_ref()?).to_string_lossy().into_owned()))
    };
    let properties = [
        (
            "kernel_release",
            kernel("proc/sys/kernel/osrelease", Uname::release),
        ),
        // Of the kernel, which the program that reads need not share.
        (
            "architecture",
            kernel("proc/sys/kernel/arch", Uname::machine),
        ),
        ("hostname", hostname),
    ];
    for (name, value) in properties {
        if let Some(value) = value {
            host = host.property(name, value);
        }
    }
    emit(ctx, host)?;

    for file in OS_RELEASE_FILES {
        match root.read_if_there(file) {
            Ok(None) => {}
            Ok(Some(content)) => return operating_system(ctx, &String::from_utf8_lossy(&content)),
            Err(error) => ctx.incomplete(error),
        }
    }
    Ok(())
}

fn operating_system(ctx: &StepContext, os_release: &str) -> Result<(), ConnectorError> {
    let fields = assignments(os_release);
    let field = |name| fields.get(name).map(String::as_str);
    // The defaults of os-release(5).
    let id = field("ID").unwrap_or("linux");
    let name = field("NAME").unwrap_or("Linux");
    let system = entity("host_os", id)
        .class("OperatingSystem")
        .display_name(display_name(field("PRETTY_NAME").unwrap_or(name)))
        .property("name", name)
        .property("version", field("VERSION"))
        .property("version_id", field("VERSION_ID"));
    let runs = relationship(host_key(ctx), "RUNS", &system);
    emit(ctx, system)?;
    emit(ctx, runs)
}

/// Reads a setting: the first line that is neither empty nor a comment.
fn first_line(root: &Root, ctx: &StepContext, file: &str) -> Option<String> {
    let content = root.read_if_there(file).unwrap_or_else(|error| {
        ctx.incomplete(error);
        None
    })?;
    String::from_utf8_lossy(&content)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
}

/// Reads the assignments of a shell-like file, as os-release(5) restricts them.
fn assignments(text: &str) -> HashMap<&str, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name, unquoted(value)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn unquoted(value: &str) -> String {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(literal) = inside('\'') {
        return literal.to_owned();
    }
    let mut text = String::with_capacity(value.len());
    let mut chars = inside('"').unwrap_or(value).chars();
    while let Some(c) = chars.next() {
        text.extend(match c {
            '\\' => chars.next(),
            c => Some(c),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::Host;
    use crate::testing::Machine;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn id_of(machine: &Machine) -> String {
        let host = Host::at(machine.root().path("")).unwrap();
        match host.machine_id() {
            Ok(id) => id.to_owned(),
            Err(error) => machine.relative(&error.to_string()),
        }
    }

    #[test]
    fn id_is_that_of_systemd_or_else_that_of_dbus() {
        let machine = Machine::new().file("var/lib/dbus/machine-id", &format!("{ID}\n"));
        assert_eq!(id_of(&machine), ID);
        let machine = machine.file("etc/machine-id", "");
        assert_eq!(id_of(&machine), ID);
        let machine = machine.file("etc/machine-id", &"AB".repeat(16));
        assert_eq!(id_of(&machine), "ab".repeat(16));
    }

    #[test]
    fn id_that_is_none_says_where_it_was_looked_for() {
        insta::assert_snapshot!(id_of(&Machine::new()), @"the machine has no id: /etc/machine-id does not exist, /var/lib/dbus/machine-id does not exist; make one with `systemd-machine-id-setup`, or name an account with `--account`");
        let machine = Machine::new()
            .file("etc/machine-id", "uninitialized\n")
            .file("var/lib/dbus/machine-id", &"0".repeat(32));
        insta::assert_snapshot!(id_of(&machine), @"the machine has no id: /etc/machine-id does not hold 32 hexadecimal digits, /var/lib/dbus/machine-id holds only zeros; make one with `systemd-machine-id-setup`, or name an account with `--account`");
    }

    // The link is what most disks have. Followed to `/etc/machine-id`, it would make the disk's
    // records those of the machine that reads it.
    #[test]
    fn id_of_a_disk_is_never_that_of_the_machine_that_reads_it() {
        let machine = Machine::new()
            .file("etc/machine-id", "")
            .link("var/lib/dbus/machine-id", "/etc/machine-id");
        insta::assert_snapshot!(id_of(&machine), @"the machine has no id: /etc/machine-id is empty, /var/lib/dbus/machine-id is empty; make one with `systemd-machine-id-setup`, or name an account with `--account`");
    }

    #[test]
    fn disk_that_does_not_run_has_a_name_and_a_system() {
        let machine = Machine::new()
            .file("etc/hostname", "# the name\n\nweb-1\n")
            .file(
                "usr/lib/os-release",
                "# os\nID=arch\nNAME='Arch Linux'\nPRETTY_NAME=\"Arch \\\"rolling\\\"\"\nVERSION=\n",
            )
            .link("etc/os-release", "/usr/lib/os-release");
        insta::assert_snapshot!(machine.about(&["step host ", "host_os", "host "]), @r#"
        host "acme" "Host" "web-1" hostname="web-1"
        host "acme" RUNS host_os "arch"
        host_os "arch" "OperatingSystem" "Arch \"rolling\"" name="Arch Linux" version=null version_id=null
        step host completed
        "#);
    }

    /// A container that read the machine it was on stored its own name as the machine's.
    #[test]
    fn name_in_procfs_is_the_readers_own() {
        let machine = Machine::new().file("proc/sys/kernel/hostname", "container\n");
        insta::assert_snapshot!(machine.about(&["\"Host\""]), @r#"host "acme" "Host" "-""#);
        let machine = machine.file("etc/hostname", "web-1\n");
        insta::assert_snapshot!(machine.about(&["\"Host\""]), @r#"host "acme" "Host" "web-1" hostname="web-1""#);
    }

    #[test]
    fn machine_that_says_nothing_is_still_a_host() {
        insta::assert_snapshot!(Machine::new().about(&["step host ", "host "]), @r#"
        host "acme" "Host" "-"
        step host completed
        "#);
    }

    #[test]
    fn setting_that_cannot_be_read_makes_the_step_incomplete() {
        let machine = Machine::new()
            .file("etc/hostname/is-a-directory", "")
            .file("etc/os-release/is-a-directory", "");
        insta::assert_snapshot!(machine.about(&["step host ", "host "]), @r#"
        host "acme" "Host" "-"
        step host incomplete; read /etc/hostname: Is a directory (os error 21); read /etc/os-release: Is a directory (os error 21)
        "#);
    }
}

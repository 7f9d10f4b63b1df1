use std::borrow::Cow;

use parallax_connect::{ConnectorError, Entity, StepContext, entity, relationship};

use crate::emit::{emit, emit_of_host, unless_empty};
use crate::netlink::{Address, RouteSocket};
use crate::root::Root;

const INTERFACES: &str = "sys/class/net";

/// Emits the network interfaces and their addresses.
pub(crate) fn network(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    match root.list(INTERFACES)? {
        Some(entries) => {
            for entry in entries {
                match entry.name.to_str() {
                    Some(name) => interface(root, ctx, name)?,
                    None => ctx.incomplete(format_args!(
                        "interface {:?} has a name that is no UTF-8",
                        entry.name
                    )),
                }
            }
        }
        None => ctx.incomplete(format_args!(
            "{} does not exist: no sysfs is mounted there, or only a part of it",
            root.path(INTERFACES).display()
        )),
    }
    // The kernel tells only about the network that the reader itself is in. For another machine
    // the scope stays unopened, so that addresses which were stored of it are kept.
    if root.is_own() {
        addresses(&ctx.scope("addresses"))?;
    }
    Ok(())
}

fn interface(root: &Root, ctx: &StepContext, name: &str) -> Result<(), ConnectorError> {
    let directory = format!("{INTERFACES}/{name}");
    match describe(root, &directory, name) {
        Ok(Some(interface)) => emit_of_host(ctx, interface),
        Ok(None) => Ok(()),
        Err(error) => {
            // What the kernel says of an interface that is being removed.
            if root.has_directory(&directory).unwrap_or(true) {
                ctx.incomplete(error);
            }
            Ok(())
        }
    }
}

/// Reads an interface, or `None` if it is none or is no longer there.
fn describe(root: &Root, directory: &str, name: &str) -> Result<Option<Entity>, ConnectorError> {
    let file = |file| -> Result<Option<String>, ConnectorError> {
        let content = root.read_if_there(&format!("{directory}/{file}"))?;
        Ok(content.map(|content| String::from_utf8_lossy(content.trim_ascii()).into_owned()))
    };
    let (Some(hardware), Some(address), Some(mtu)) =
        (file("type")?, file("address")?, file("mtu")?)
    else {
        // The bonding driver has a file among them.
        return Ok(None);
    };
    let uevent = file("uevent")?.unwrap_or_default();
    let driver_kind = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="));
    let kind = match driver_kind.and_then(unless_empty) {
        Some(kind) => kind,
        None => kind_of(&hardware),
    };
    let is_mac = kind_of(&hardware) != "tunnel" && address.contains(|c| !matches!(c, '0' | ':'));
    Ok(Some(
        entity("host_interface", name)
            .class("NetworkInterface")
            .property("name", name)
            .property("kind", kind)
            .property("mac_address", is_mac.then_some(address))
            .property("mtu", mtu.parse::<u32>().ok()),
    ))
}

/// Names the more common of the kernel's numbers for kinds of hardware, `ARPHRD_*`.
fn kind_of(hardware: &str) -> &'static str {
    match hardware {
        "1" => "ethernet",
        "32" => "infiniband",
        "280" => "can",
        "512" => "ppp",
        // Of IPv4, of IPv6, of IPv6 in IPv4, GRE, GRE over IPv6: their address is one of these.
        "768" | "769" | "776" | "778" | "823" => "tunnel",
        "772" => "loopback",
        // No header before the packets: what a program takes and gives, mostly for a VPN.
        "65534" => "none",
        _ => "other",
    }
}

fn addresses(ctx: &StepContext) -> Result<(), ConnectorError> {
    let listed = RouteSocket::open().and_then(|socket| Ok((socket.addresses()?, socket)));
    let (addresses, socket) = match listed {
        Ok(listed) => listed,
        Err(error) => {
            ctx.incomplete(format_args!("list the addresses: {error}"));
            return Ok(());
        }
    };
    for address in addresses {
        match socket.interface_name(address.index) {
            Ok(Some(interface)) => emit_address(ctx, &interface, &address)?,
            // Removed meanwhile, and its addresses with it.
            Ok(None) => {}
            Err(error) => ctx.incomplete(format_args!(
                "find the name of interface {}: {error}",
                address.index
            )),
        }
    }
    ctx.complete();
    Ok(())
}

fn emit_address(
    ctx: &StepContext,
    interface: &str,
    address: &Address,
) -> Result<(), ConnectorError> {
    let Address {
        ip, prefix_length, ..
    } = address;
    let found = entity("host_address", format!("{interface}:{ip}/{prefix_length}"))
        .class("IpAddress")
        .property("address", ip.to_string())
        .property("prefix_length", *prefix_length)
        .property("family", if ip.is_ipv4() { "ipv4" } else { "ipv6" })
        .property("scope", scope_name(address.scope));
    let key = found.key().clone();
    emit(ctx, found)?;
    emit(ctx, relationship(("host_interface", interface), "HAS", key))
}

/// Names a scope as rtnetlink(7) does; an administrator may use further numbers.
fn scope_name(scope: u8) -> Cow<'static, str> {
    match scope {
        0 => "global".into(),
        200 => "site".into(),
        253 => "link".into(),
        254 => "host".into(),
        255 => "nowhere".into(),
        scope => scope.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::Host;
    use crate::testing::{Machine, lines_about, sync, text};

    const ABOUT: [&str; 3] = ["step network", "host_interface", "host_address"];

    fn interface(machine: Machine, name: &str, [hardware, address, uevent]: [&str; 3]) -> Machine {
        let place = format!("sys/devices/virtual/net/{name}");
        machine
            .link(
                &format!("sys/class/net/{name}"),
                &format!("../../devices/virtual/net/{name}"),
            )
            .file(&format!("{place}/type"), &format!("{hardware}\n"))
            .file(&format!("{place}/address"), &format!("{address}\n"))
            .file(&format!("{place}/mtu"), "1500\n")
            .file(&format!("{place}/operstate"), "up\n")
            .file(&format!("{place}/uevent"), uevent)
    }

    fn interfaces(interfaces: &[(&str, [&str; 3])]) -> Machine {
        interfaces
            .iter()
            .fold(Machine::new(), |machine, (name, files)| {
                interface(machine, name, *files)
            })
    }

    #[test]
    fn interface_is_of_the_kind_that_its_driver_or_else_its_hardware_says() {
        let machine = interfaces(&[
            (
                "lo",
                ["772", "00:00:00:00:00:00", "INTERFACE=lo\nIFINDEX=1\n"],
            ),
            ("eth0", ["1", "02:fc:00:00:00:01", "INTERFACE=eth0\n"]),
            (
                "wlan0",
                ["1", "02:fc:00:00:00:02", "DEVTYPE=wlan\nIFINDEX=3\n"],
            ),
            ("tun0", ["65534", "", ""]),
            ("gre0", ["778", "c0:00:02:01", ""]),
            ("ib0", ["32", "80:00:00:48:fe:80", ""]),
            ("odd0", ["4711", "", "DEVTYPE=\n"]),
        ]);
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_interface "eth0"
        host "acme" HAS host_interface "gre0"
        host "acme" HAS host_interface "ib0"
        host "acme" HAS host_interface "lo"
        host "acme" HAS host_interface "odd0"
        host "acme" HAS host_interface "tun0"
        host "acme" HAS host_interface "wlan0"
        host_interface "eth0" "NetworkInterface" "-" kind="ethernet" mac_address="02:fc:00:00:00:01" mtu=1500 name="eth0"
        host_interface "gre0" "NetworkInterface" "-" kind="tunnel" mac_address=null mtu=1500 name="gre0"
        host_interface "ib0" "NetworkInterface" "-" kind="infiniband" mac_address="80:00:00:48:fe:80" mtu=1500 name="ib0"
        host_interface "lo" "NetworkInterface" "-" kind="loopback" mac_address=null mtu=1500 name="lo"
        host_interface "odd0" "NetworkInterface" "-" kind="other" mac_address=null mtu=1500 name="odd0"
        host_interface "tun0" "NetworkInterface" "-" kind="none" mac_address=null mtu=1500 name="tun0"
        host_interface "wlan0" "NetworkInterface" "-" kind="wlan" mac_address="02:fc:00:00:00:02" mtu=1500 name="wlan0"
        step network completed
        "#);
    }

    #[test]
    fn what_is_no_interface_or_no_longer_one_is_not_missed() {
        let machine = Machine::new()
            .file("sys/class/net/bonding_masters", "bond0\n")
            .link("sys/class/net/eth0", "../../devices/gone")
            .file("sys/class/net/eth1/uevent", "");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step network completed");
    }

    #[test]
    fn interface_that_cannot_be_read_makes_the_step_incomplete() {
        let machine = interfaces(&[("eth0", ["1", "02:fc:00:00:00:01", ""])])
            .file("sys/class/net/eth1/type/is-a-directory", "");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_interface "eth0"
        host_interface "eth0" "NetworkInterface" "-" kind="ethernet" mac_address="02:fc:00:00:00:01" mtu=1500 name="eth0"
        step network incomplete; read /sys/class/net/eth1/type: Is a directory (os error 21)
        "#);
    }

    #[test]
    fn hostile_names_cost_only_their_own_record() {
        let machine = interfaces(&[
            ("eth0", ["1", "02:fc:00:00:00:01", ""]),
            ("a\u{1b}[31m", ["1", "02:fc:00:00:00:02", ""]),
        ])
        .directory(b"sys/class/net/j\xfcrgen");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_interface "eth0"
        host_interface "eth0" "NetworkInterface" "-" kind="ethernet" mac_address="02:fc:00:00:00:01" mtu=1500 name="eth0"
        step network incomplete; 2 rejected; rejected host_interface "a\u{1b}[31m": key "a\u{1b}[31m" holds a control character; rejected host "acme" HAS host_interface "a\u{1b}[31m": key "a\u{1b}[31m" holds a control character; interface "j\xFCrgen" has a name that is no UTF-8
        "#);
    }

    #[test]
    fn disk_without_sysfs_makes_the_step_incomplete() {
        insta::assert_snapshot!(Machine::new().about(&ABOUT), @"step network incomplete; /sys/class/net does not exist: no sysfs is mounted there, or only a part of it");
    }

    #[test]
    fn this_machine_has_the_address_of_its_loopback() {
        let text = text(&sync(&Host::open().unwrap()));
        insta::assert_snapshot!(lines_about(&text, &["\"lo:127.0.0.1/8\"", "step network"]), @r#"
        host_address "lo:127.0.0.1/8" "IpAddress" "-" address="127.0.0.1" family="ipv4" prefix_length=8 scope="host"
        host_interface "lo" HAS host_address "lo:127.0.0.1/8"
        step network completed; addresses complete
        "#);
    }
}

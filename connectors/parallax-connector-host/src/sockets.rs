use std::collections::BTreeMap;
use std::net::SocketAddr;

use parallax_connect::{ConnectorError, Entity, StepContext, entity};
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};
use procfs::{FromReadSI, current_system_info};

use crate::emit::emit_of_host;
use crate::root::Root;

/// A socket that waits for whoever may come.
pub(crate) struct Socket {
    protocol: &'static str,
    address: SocketAddr,
    uid: u32,
    /// What the links in `/proc/<pid>/fd` call it.
    pub(crate) inode: u64,
}

/// Emits the listening TCP sockets and the UDP sockets that take packets from anywhere.
pub(crate) fn sockets(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    // Several sockets may share an address: one entity, of the lowest of their users.
    let mut found: BTreeMap<String, Socket> = BTreeMap::new();
    for socket in Socket::all(root, ctx)?.unwrap_or_default() {
        let uid = socket.uid;
        let first = found.entry(socket.key()).or_insert(socket);
        first.uid = first.uid.min(uid);
    }
    found
        .into_iter()
        .try_for_each(|(key, socket)| emit_of_host(ctx, socket.describe(key)))
}

impl Socket {
    /// Returns all of them, or says why they cannot be seen.
    pub(crate) fn all(root: &Root, ctx: &StepContext) -> Result<Option<Vec<Self>>, ConnectorError> {
        let mut sockets = Vec::new();
        for file in ["net/tcp", "net/tcp6"] {
            let entries = match read(root, file)? {
                Some(TcpNetEntries(entries)) => entries,
                // Only IPv6 may be absent.
                None if file == "net/tcp" => {
                    ctx.incomplete(format_args!(
                        "{} does not exist: no procfs is mounted there, or only a part of it",
                        root.path(&root.of_machine(file)).display()
                    ));
                    return Ok(None);
                }
                None => continue,
            };
            let listening = entries.into_iter().filter(|e| e.state == TcpState::Listen);
            sockets.extend(listening.map(|e| Self::new("tcp", e.local_address, e.uid, e.inode)));
        }
        for file in ["net/udp", "net/udp6"] {
            // The kernel finds its place in the list by counting: a socket that was closed before
            // it makes it pass over one. Hardly so twice.
            for _ in 0..2 {
                let UdpNetEntries(entries) = read(root, file)?.unwrap_or(UdpNetEntries(Vec::new()));
                let unconnected = entries.into_iter().filter(|e| e.state == UdpState::Close);
                let bound = unconnected.filter(|e| e.local_address.port() != 0);
                sockets.extend(bound.map(|e| Self::new("udp", e.local_address, e.uid, e.inode)));
            }
        }
        Ok(Some(sockets))
    }

    fn new(protocol: &'static str, address: SocketAddr, uid: u32, inode: u64) -> Self {
        Self {
            protocol,
            address,
            uid,
            inode,
        }
    }

    /// Returns `protocol:address:port`.
    pub(crate) fn key(&self) -> String {
        format!("{}:{}", self.protocol, self.address)
    }

    fn describe(&self, key: String) -> Entity {
        entity("host_socket", key)
            .class("ListeningSocket")
            .property("protocol", self.protocol)
            .property("address", self.address.ip().to_string())
            .property("port", self.address.port())
            .property("uid", self.uid)
    }
}

/// Reads a table of sockets, or returns `None` if there is none.
fn read<T: FromReadSI>(root: &Root, file: &str) -> Result<Option<T>, ConnectorError> {
    let file = root.of_machine(file);
    let Some(content) = root.read_if_there(&file)? else {
        return Ok(None);
    };
    // The error would ask to be reported to the authors of the parser.
    T::from_read(content.as_slice(), current_system_info())
        .map(Some)
        .map_err(|_| {
            ConnectorError::fatal(format_args!("{} is malformed", root.path(&file).display()))
        })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use crate::Host;
    use crate::testing::{Machine, lines_about, sync, text};

    const ABOUT: [&str; 2] = ["step sockets", "host_socket"];

    #[test]
    fn only_what_anybody_can_reach_is_a_listening_socket() {
        let machine = Machine::new()
            .sockets(
                "tcp",
                &[
                    ("0100007F:1F90", "0A", 1000, 17),
                    ("0100007F:1F91", "01", 1000, 18),
                    ("0100007F:1F92", "06", 0, 0),
                ],
            )
            .sockets(
                "tcp6",
                &[
                    ("00000000000000000000000000000000:0050", "0A", 0, 19),
                    ("0000000000000000FFFF00000100007F:1F90", "0A", 1000, 20),
                ],
            )
            .sockets(
                "udp",
                &[
                    ("00000000:0035", "07", 53, 21),
                    ("0100007F:D431", "01", 53, 22),
                    ("00000000:0000", "07", 53, 23),
                ],
            )
            .sockets(
                "udp6",
                &[("000080FE00000000FF00FC00010000FE:0222", "07", 0, 24)],
            );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_socket "tcp:127.0.0.1:8080"
        host "acme" HAS host_socket "tcp:[::]:80"
        host "acme" HAS host_socket "tcp:[::ffff:127.0.0.1]:8080"
        host "acme" HAS host_socket "udp:0.0.0.0:53"
        host "acme" HAS host_socket "udp:[fe80::fc:ff:fe00:1]:546"
        host_socket "tcp:127.0.0.1:8080" "ListeningSocket" "-" address="127.0.0.1" port=8080 protocol="tcp" uid=1000
        host_socket "tcp:[::]:80" "ListeningSocket" "-" address="::" port=80 protocol="tcp" uid=0
        host_socket "tcp:[::ffff:127.0.0.1]:8080" "ListeningSocket" "-" address="::ffff:127.0.0.1" port=8080 protocol="tcp" uid=1000
        host_socket "udp:0.0.0.0:53" "ListeningSocket" "-" address="0.0.0.0" port=53 protocol="udp" uid=53
        host_socket "udp:[fe80::fc:ff:fe00:1]:546" "ListeningSocket" "-" address="fe80::fc:ff:fe00:1" port=546 protocol="udp" uid=0
        step sockets completed
        "#);
    }

    #[test]
    fn sockets_that_share_an_address_are_one_of_the_lowest_user() {
        let machine = Machine::new()
            .sockets(
                "tcp",
                &[
                    ("00000000:0050", "0A", 33, 17),
                    ("00000000:0050", "0A", 33, 18),
                ],
            )
            .sockets(
                "udp",
                &[
                    ("00000000:14E9", "07", 1000, 19),
                    ("00000000:14E9", "07", 105, 20),
                ],
            );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_socket "tcp:0.0.0.0:80"
        host "acme" HAS host_socket "udp:0.0.0.0:5353"
        host_socket "tcp:0.0.0.0:80" "ListeningSocket" "-" address="0.0.0.0" port=80 protocol="tcp" uid=33
        host_socket "udp:0.0.0.0:5353" "ListeningSocket" "-" address="0.0.0.0" port=5353 protocol="udp" uid=105
        step sockets completed
        "#);
    }

    #[test]
    fn machine_without_ipv6_is_complete_and_one_without_tcp_is_not() {
        let machine = Machine::new().sockets("tcp", &[]);
        insta::assert_snapshot!(machine.about(&ABOUT), @"step sockets completed");
        insta::assert_snapshot!(Machine::new().about(&ABOUT), @"step sockets incomplete; /proc/1/net/tcp does not exist: no procfs is mounted there, or only a part of it");
    }

    #[test]
    fn table_without_meaning_fails_the_step() {
        let machine = Machine::new()
            .sockets("tcp", &[("0100007F:1F90", "0A", 1000, 17)])
            .file("proc/1/net/udp", "header\nnonsense\n");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step sockets failed; /proc/1/net/udp is malformed");
    }

    #[test]
    fn socket_looks_the_same_until_it_is_gone() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0"));
        let udp = udp.unwrap();
        let keys = [
            format!("\"tcp:{}\"", tcp.local_addr().unwrap()),
            format!("\"udp:{}\"", udp.local_addr().unwrap()),
        ];
        // The process that reads is none that is shown: another one takes the sockets over.
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(OwnedFd::from(tcp))
            .stdout(OwnedFd::from(udp))
            .spawn()
            .unwrap();
        let host = Host::open().unwrap();
        let [first, second] = [(); 2].map(|()| text(&sync(&host)));
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = text(&sync(&host));

        let keys = keys.each_ref().map(String::as_str);
        let lines = lines_about(&first, &keys);
        assert_eq!(lines, lines_about(&second, &keys));
        assert_eq!(lines_about(&gone, &keys), "");
        let verbs = |verb| lines.matches(verb).count();
        assert_eq!(verbs(" HAS host_socket"), 2, "{lines}");
        assert_eq!(verbs(&format!(":{}:", child.id())), 2, "{lines}");
    }
}

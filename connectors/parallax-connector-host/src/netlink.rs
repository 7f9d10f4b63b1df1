use std::io::{self, ErrorKind};
use std::net::IpAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netdevice::index_to_name;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// A question to the kernel about the network that the reader is in.
///
/// Own code, because the crates that speak rtnetlink bring a runtime or a type for each of its
/// hundreds of attributes, and `/proc` does not tell which interface an IPv4 address belongs to.
pub(crate) struct RouteSocket(OwnedFd);

/// An address of an interface.
#[derive(Debug, PartialEq)]
pub(crate) struct Address {
    /// The number of the interface.
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    pub(crate) prefix_length: u8,
    /// How far it is valid, as rtnetlink(7) numbers it.
    pub(crate) scope: u8,
}

/// A message of a dump; the last one ends it.
enum Message<'a> {
    Address(&'a [u8]),
    Done,
    Error(Errno),
    Other,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Of a message: length, type, flags, number, sender.
const HEADER_BYTES: usize = 16;
/// Of an address: family, length of the prefix, flags, scope, interface.
const ADDRESS_BYTES: usize = 8;
/// The most that the kernel sends at once.
const DATAGRAM_BYTES: usize = 32 * 1024;
/// Addresses rarely change, let alone each time that they are listed.
const ATTEMPTS: usize = 5;

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, None)?;
        // Then nobody but the kernel can answer.
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Lists the IPv4 and IPv6 addresses of all interfaces.
    pub(crate) fn addresses(&self) -> io::Result<Vec<Address>> {
        for _ in 0..ATTEMPTS {
            if let Some(addresses) = self.dump()? {
                return Ok(addresses);
            }
        }
        Err(io::Error::other("they change while they are listed"))
    }

    /// Returns the name of an interface, or `None` if there is none of this number (any more).
    pub(crate) fn interface_name(&self, index: u32) -> io::Result<Option<String>> {
        match index_to_name(&self.0, index) {
            Ok(name) => Ok(Some(name)),
            Err(Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists the addresses, or returns `None` if they changed meanwhile.
    fn dump(&self) -> io::Result<Option<Vec<Address>>> {
        send(&self.0, &request(), SendFlags::empty())?;
        let mut addresses = Vec::new();
        let mut is_consistent = true;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let (_, length) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
            let mut rest = buffer.get(..length).ok_or(ErrorKind::InvalidData)?;
            while !rest.is_empty() {
                let (message, flags, next) = split(rest).ok_or(ErrorKind::InvalidData)?;
                is_consistent &= flags & NLM_F_DUMP_INTR == 0;
                match message {
                    Message::Address(body) => addresses.extend(Address::parse(body)),
                    Message::Done => return Ok(is_consistent.then_some(addresses)),
                    Message::Error(error) => return Err(error.into()),
                    Message::Other => {}
                }
                rest = next;
            }
        }
    }
}

/// Returns the message that asks for all addresses of all families.
fn request() -> Vec<u8> {
    const BYTES: u32 = 24;
    let mut request = Vec::new();
    request.extend(BYTES.to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.resize(BYTES as usize, 0);
    request
}

/// Splits the first message off a datagram, with its flags.
fn split(datagram: &[u8]) -> Option<(Message<'_>, u16, &[u8])> {
    let length = u32_at(datagram, 0)? as usize;
    let body = datagram.get(HEADER_BYTES..length)?;
    let (kind, flags) = (u16_at(datagram, 4)?, u16_at(datagram, 6)?);
    // What ends a dump or refuses it begins with a negated error number, or zero.
    let error = || {
        let number = u32_at(body, 0)?.cast_signed();
        (number < 0).then(|| Errno::from_raw_os_error(number.saturating_neg()))
    };
    let message = match kind {
        RTM_NEWADDR => Message::Address(body),
        NLMSG_DONE | NLMSG_ERROR => error().map_or(Message::Done, Message::Error),
        _ => Message::Other,
    };
    Some((message, flags, after(datagram, length)))
}

impl Address {
    /// Parses an address, or returns `None` if it is none of the internet.
    fn parse(body: &[u8]) -> Option<Self> {
        let [family, prefix_length, _flags, scope] = *body.first_chunk()?;
        let index = u32_at(body, 4)?;
        let (mut local, mut address) = (None, None);
        let mut attributes = body.get(ADDRESS_BYTES..)?;
        while let Some(length) = u16_at(attributes, 0).map(usize::from) {
            let value = attributes.get(4..length)?;
            match u16_at(attributes, 2)? {
                IFA_LOCAL => local = ip(family, value),
                IFA_ADDRESS => address = ip(family, value),
                _ => {}
            }
            attributes = after(attributes, length);
        }
        Some(Self {
            index,
            // Of a connection between two, the other one is the address of the far end.
            ip: local.or(address)?,
            prefix_length,
            scope,
        })
    }
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        AF_INET6 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// Returns what follows the first `length` bytes: the next item begins at a multiple of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    fn address(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 24, 0x80, 253];
        body.extend(3_u32.to_ne_bytes());
        body.extend(attributes.concat());
        body
    }

    #[test]
    fn own_end_of_a_connection_is_the_address() {
        const IFA_LABEL: u16 = 3;
        let own = attribute(IFA_LOCAL, &[10, 0, 0, 1]);
        let other = attribute(IFA_ADDRESS, &[10, 0, 0, 2]);
        let body = address(AF_INET, &[attribute(IFA_LABEL, b"eth0:1\0"), own, other]);
        let expected = Address {
            index: 3,
            ip: [10, 0, 0, 1].into(),
            prefix_length: 24,
            scope: 253,
        };
        assert_eq!(Address::parse(&body), Some(expected));
    }

    #[test]
    fn address_of_ipv6_has_only_one_end() {
        let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let body = address(AF_INET6, &[attribute(IFA_ADDRESS, &loopback)]);
        let ip = Address::parse(&body).map(|address| address.ip.to_string());
        assert_eq!(ip.as_deref(), Some("::1"));
    }

    #[test]
    fn what_is_no_address_of_the_internet_is_none() {
        let four = attribute(IFA_ADDRESS, &[10, 0, 0, 1]);
        assert_eq!(
            Address::parse(&address(28, std::slice::from_ref(&four))),
            None
        );
        assert_eq!(Address::parse(&address(AF_INET6, &[four])), None);
        assert_eq!(Address::parse(&address(AF_INET, &[])), None);
        let endless = [0; 4].to_vec();
        assert_eq!(Address::parse(&address(AF_INET, &[endless])), None);
        for length in 0..ADDRESS_BYTES {
            assert_eq!(Address::parse(&vec![AF_INET; length]), None);
        }
    }

    #[test]
    fn message_that_is_longer_than_its_datagram_has_no_meaning() {
        let mut message = request();
        assert!(split(&message).is_some());
        message.pop();
        assert!(split(&message).is_none());
        assert!(split(&[0; HEADER_BYTES]).is_none());
    }
}

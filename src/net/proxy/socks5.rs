//! SOCKS5 as bytes: RFC 1928, and RFC 1929 for user and password. Nothing here reads or sends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const VERSION: u8 = 5;
/// Of the exchange of user and password.
const LOGIN_VERSION: u8 = 1;

const NO_LOGIN: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Bytes of user, password or name: their lengths are one byte.
pub(super) const MAX_TEXT: usize = 255;

/// Bytes of a reply from its beginning that say how long all of it is.
pub(super) const REPLY_PREFIX: usize = 5;

/// Bytes that stand before each datagram, at most.
pub(in crate::net) const MAX_UDP_HEADER: usize = 7 + MAX_TEXT;

/// What the proxy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A TCP connection.
    Connect = 1,
    /// A relay for datagrams.
    UdpAssociate = 3,
}

/// Whom a connection or a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An address.
    Ip(SocketAddr),
    /// A name that the proxy looks up, and a port. At most `MAX_TEXT` bytes.
    Name(&'a str, u16),
}

/// The first words: which ways to log in we know.
pub(super) fn greeting(login: bool) -> Vec<u8> {
    if login { vec![VERSION, 2, NO_LOGIN, USER_AND_PASSWORD] } else { vec![VERSION, 1, NO_LOGIN] }
}

/// Whether the proxy, in its answer to the greeting, wants user and password.
///
/// # Errors
/// It speaks another protocol, or wants a way to log in that we do not offer.
pub(super) fn wants_login(answer: [u8; 2], login: bool) -> io::Result<bool> {
    match answer {
        [VERSION, NO_LOGIN] => Ok(false),
        [VERSION, USER_AND_PASSWORD] if login => Ok(true),
        [VERSION, _] if login => Err(refused("it takes no user and password")),
        [VERSION, _] => Err(refused("it wants user and password")),
        _ => Err(nonsense()),
    }
}

/// User and password; what is longer than [`MAX_TEXT`] is cut.
pub(super) fn login(user: &[u8], password: &[u8]) -> Vec<u8> {
    let mut bytes = vec![LOGIN_VERSION];
    put_text(&mut bytes, user);
    put_text(&mut bytes, password);
    bytes
}

/// # Errors
/// The proxy, in its answer to the login, does not let us in.
pub(super) fn logged_in(answer: [u8; 2]) -> io::Result<()> {
    if answer[1] == 0 { Ok(()) } else { Err(refused("user or password is wrong")) }
}

/// A request.
pub(super) fn request(command: Command, target: Target<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION, command as u8, 0];
    put_target(&mut bytes, target);
    bytes
}

/// How long a reply is that begins with `prefix`.
///
/// # Errors
/// The proxy speaks another protocol.
pub(super) fn reply_len(prefix: [u8; REPLY_PREFIX]) -> io::Result<usize> {
    match prefix {
        [VERSION, _, _, IPV4, _] => Ok(4 + 4 + 2),
        [VERSION, _, _, IPV6, _] => Ok(4 + 16 + 2),
        [VERSION, _, _, NAME, len] => Ok(4 + 1 + usize::from(len) + 2),
        _ => Err(nonsense()),
    }
}

/// The address in a whole reply; none if it is a name, which nobody needs.
///
/// # Errors
/// The proxy could not do what it was asked for, or speaks another protocol.
pub(super) fn parse_reply(reply: &[u8]) -> io::Result<Option<SocketAddr>> {
    use io::ErrorKind;
    let code = *reply.get(1).ok_or_else(nonsense)?;
    let (kind, why) = match code {
        0 => {
            let address = reply.get(3..).and_then(take_target).ok_or_else(nonsense)?.0;
            return Ok(address);
        }
        1 => (ErrorKind::Other, "general failure"),
        2 => (ErrorKind::PermissionDenied, "its rules do not allow the connection"),
        3 => (ErrorKind::NetworkUnreachable, "network unreachable"),
        4 => (ErrorKind::HostUnreachable, "host unreachable"),
        5 => (ErrorKind::ConnectionRefused, "connection refused"),
        6 => (ErrorKind::TimedOut, "it took too long"),
        7 => (ErrorKind::Unsupported, "it does not do that"),
        8 => (ErrorKind::Unsupported, "it does not know that kind of address"),
        _ => (ErrorKind::Other, "an unknown failure"),
    };
    Err(io::Error::new(kind, why))
}

/// Puts `payload` into a datagram for the relay.
pub(in crate::net) fn wrap(target: Target<'_>, payload: &[u8], datagram: &mut Vec<u8>) {
    datagram.clear();
    // Two bytes are reserved, and this is no fragment.
    datagram.extend_from_slice(&[0, 0, 0]);
    put_target(datagram, target);
    datagram.extend_from_slice(payload);
}

/// Sender and payload of a datagram from the relay. None if it is a fragment, which nobody sends, or nonsense.
pub(in crate::net) fn unwrap(datagram: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let [_, _, 0, rest @ ..] = datagram else { return None };
    let (address, payload) = take_target(rest)?;
    Some((address?, payload))
}

fn put_target(bytes: &mut Vec<u8>, target: Target<'_>) {
    let port = match target {
        Target::Ip(address) => {
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    bytes.push(IPV4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(IPV6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            address.port()
        }
        Target::Name(name, port) => {
            bytes.push(NAME);
            put_text(bytes, name.as_bytes());
            port
        }
    };
    bytes.extend_from_slice(&port.to_be_bytes());
}

/// Type, address and port, and what follows them.
fn take_target(bytes: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (ip, rest) = match *kind {
        IPV4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (Some(IpAddr::V4(Ipv4Addr::from(*ip))), rest)
        }
        IPV6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (Some(IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical()), rest)
        }
        NAME => {
            let (len, rest) = rest.split_first()?;
            (None, rest.get(usize::from(*len)..)?)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((ip.map(|ip| SocketAddr::new(ip, u16::from_be_bytes(*port))), rest))
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..MAX_TEXT).unwrap_or(text);
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text);
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it does not speak SOCKS5")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The bytes of the RFCs.
    #[test]
    fn exchanges() {
        assert_eq!(greeting(false), [5, 1, 0]);
        assert_eq!(greeting(true), [5, 2, 0, 2]);
        assert!(!wants_login([5, 0], true).unwrap() && wants_login([5, 2], true).unwrap());
        for (answer, login) in [([5, 2], false), ([5, 0xff], true), ([5, 1], true), ([4, 0], false), (*b"HT", true)] {
            assert!(wants_login(answer, login).is_err(), "{answer:?}");
        }
        assert_eq!(login(b"me", b"pw!"), b"\x01\x02me\x03pw!");
        assert!(logged_in([1, 0]).is_ok() && logged_in([1, 1]).is_err());
        assert_eq!(request(Command::Connect, Target::Ip(at("1.2.3.4:258"))), [5, 1, 0, 1, 1, 2, 3, 4, 1, 2]);
        assert_eq!(request(Command::Connect, Target::Ip(at("[::ffff:1.2.3.4]:258"))), [5, 1, 0, 1, 1, 2, 3, 4, 1, 2]);
        assert_eq!(request(Command::UdpAssociate, Target::Name("ab", 258)), b"\x05\x03\x00\x03\x02ab\x01\x02");
        let v6 = request(Command::Connect, Target::Ip(at("[2001:db8::1]:80")));
        assert_eq!((v6.len(), &v6[..8]), (22, &[5, 1, 0, 4, 0x20, 1, 0xd, 0xb8][..]));
    }

    #[test]
    fn replies() {
        let reply = [5, 0, 0, 1, 1, 2, 3, 4, 1, 2];
        assert_eq!(reply_len(reply[..5].try_into().unwrap()).unwrap(), reply.len());
        assert_eq!(parse_reply(&reply).unwrap(), Some(at("1.2.3.4:258")));
        assert_eq!(parse_reply(b"\x05\x00\x00\x03\x02ab\x01\x02").unwrap(), None);
        assert_eq!(reply_len(*b"\x05\x00\x00\x03\x02").unwrap(), 9);
        assert_eq!(reply_len([5, 0, 0, 4, 9]).unwrap(), 22);
        assert!(reply_len([5, 0, 0, 2, 9]).is_err() && reply_len(*b"HTTP/").is_err());
        for (code, kind) in [
            (1, io::ErrorKind::Other),
            (2, io::ErrorKind::PermissionDenied),
            (5, io::ErrorKind::ConnectionRefused),
            (7, io::ErrorKind::Unsupported),
            (200, io::ErrorKind::Other),
        ] {
            assert_eq!(parse_reply(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_err().kind(), kind);
        }
        assert!(parse_reply(&reply[..9]).is_err() && parse_reply(&[]).is_err());
    }

    #[test]
    fn datagrams() {
        let mut datagram = Vec::new();
        for target in ["1.2.3.4:5", "[2001:db8::1]:6"] {
            wrap(Target::Ip(at(target)), b"payload", &mut datagram);
            assert_eq!(unwrap(&datagram), Some((at(target), &b"payload"[..])));
            datagram[2] = 1;
            assert_eq!(unwrap(&datagram), None, "a fragment");
        }
        wrap(Target::Name(&"n".repeat(255), 7), b"x", &mut datagram);
        assert_eq!(datagram.len(), MAX_UDP_HEADER + 1);
        assert_eq!(unwrap(&datagram), None, "nobody answers by name");
        assert_eq!(unwrap(&[0, 0, 0, 1, 1, 2, 3, 4, 0, 5]), Some((at("1.2.3.4:5"), &b""[..])));
    }

    proptest! {
        /// Whatever a proxy sends.
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = unwrap(&bytes);
            let _ = parse_reply(&bytes);
        }
    }
}

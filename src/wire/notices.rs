//! The small extension messages: a few bytes each, no bencode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ExtensionError;

/// The sender no longer has a piece that it had announced (BEP 54). The index is raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DontHave(pub u32);

impl DontHave {
    /// Reads the payload of an `lt_donthave` message.
    ///
    /// # Errors
    /// Any other length than 4.
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        let index = payload.try_into().map_err(|_| ExtensionError::Length(payload.len()))?;
        Ok(Self(u32::from_be_bytes(index)))
    }

    /// The payload.
    pub fn encode(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// Whether the sender downloads nothing any more: a seed or a partial seed (BEP 21, as a message).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadOnly(pub bool);

impl UploadOnly {
    /// Reads the payload of an `upload_only` message.
    ///
    /// # Errors
    /// Any other length than 1.
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        match payload {
            [flag] => Ok(Self(*flag != 0)),
            _ => Err(ExtensionError::Length(payload.len())),
        }
    }

    /// The payload.
    pub fn encode(self) -> [u8; 1] {
        [u8::from(self.0)]
    }
}

/// A message by which a peer that both sides know opens the way between two that cannot be dialled (BEP 55).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holepunch {
    /// Asks the relay to introduce the sender to this address.
    Rendezvous(SocketAddr),
    /// The relay's word: dial this address now, by uTP.
    Connect(SocketAddr),
    /// The relay's refusal for this address.
    Error(SocketAddr, HolepunchError),
}

/// Why a relay refuses (BEP 55).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolepunchError {
    /// The address is no address of a peer.
    NoSuchPeer,
    /// The relay is not connected to that peer.
    NotConnected,
    /// That peer does not know the extension.
    NoSupport,
    /// The address is the relay's own.
    NoSelf,
    /// A code that the BEP does not list.
    Other(u32),
}

impl Holepunch {
    /// Reads the payload of a `ut_holepunch` message. Bytes behind it are ignored; messages that are no errors may lack the
    /// code.
    ///
    /// # Errors
    /// Too short, or an unknown type of message or address.
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        let short = || ExtensionError::Length(payload.len());
        let ([kind, family], rest) = payload.split_first_chunk().ok_or_else(short)?;
        let (ip, rest) = match family {
            0 => {
                let (ip, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
                (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
            }
            1 => {
                let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
                (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
            }
            _ => return Err(ExtensionError::Field("addr_type")),
        };
        let (port, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let address = SocketAddr::new(ip, u16::from_be_bytes(*port));
        match kind {
            0 => Ok(Self::Rendezvous(address)),
            1 => Ok(Self::Connect(address)),
            2 => {
                let code = u32::from_be_bytes(*rest.first_chunk().ok_or_else(short)?);
                Ok(Self::Error(address, HolepunchError::from_code(code)))
            }
            _ => Err(ExtensionError::Field("msg_type")),
        }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, address, code) = match *self {
            Self::Rendezvous(address) => (0, address, 0),
            Self::Connect(address) => (1, address, 0),
            Self::Error(address, error) => (2, address, error.code()),
        };
        let mut out = Vec::with_capacity(24);
        out.push(kind);
        match address.ip() {
            IpAddr::V4(ip) => {
                out.push(0);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(1);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&address.port().to_be_bytes());
        out.extend_from_slice(&u32::to_be_bytes(code));
        out
    }
}

impl HolepunchError {
    fn from_code(code: u32) -> Self {
        match code {
            1 => Self::NoSuchPeer,
            2 => Self::NotConnected,
            3 => Self::NoSupport,
            4 => Self::NoSelf,
            other => Self::Other(other),
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::NoSuchPeer => 1,
            Self::NotConnected => 2,
            Self::NoSupport => 3,
            Self::NoSelf => 4,
            Self::Other(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_lengths() {
        assert_eq!(DontHave::parse(&DontHave(0x0102_0304).encode()), Ok(DontHave(0x0102_0304)));
        assert_eq!(UploadOnly::parse(&UploadOnly(true).encode()), Ok(UploadOnly(true)));
        assert_eq!(UploadOnly::parse(&[0]), Ok(UploadOnly(false)));
        for len in (0..40).filter(|len| *len != 4) {
            assert_eq!(DontHave::parse(&vec![0; len]), Err(ExtensionError::Length(len)));
        }
        assert_eq!(UploadOnly::parse(&[]), Err(ExtensionError::Length(0)));
        assert_eq!(UploadOnly::parse(&[1, 1]), Err(ExtensionError::Length(2)));
    }

    #[test]
    fn holepunch_both_families_and_every_truncation() {
        for address in ["1.2.3.4:5", "[2001:db8::1]:65535"] {
            let address = address.parse().unwrap();
            let messages = [
                Holepunch::Rendezvous(address),
                Holepunch::Connect(address),
                Holepunch::Error(address, HolepunchError::NoSupport),
                Holepunch::Error(address, HolepunchError::Other(77)),
            ];
            for message in messages {
                let bytes = message.encode();
                assert_eq!(Holepunch::parse(&bytes), Ok(message));
                // Only the code may be missing, and only where it says nothing.
                let needed = if matches!(message, Holepunch::Error(..)) { bytes.len() } else { bytes.len() - 4 };
                for len in 0..needed {
                    assert_eq!(Holepunch::parse(&bytes[..len]), Err(ExtensionError::Length(len)));
                }
            }
        }
        let wire = [1, 0, 1, 2, 3, 4, 0x1a, 0xe1, 0, 0, 0, 0];
        assert_eq!(Holepunch::parse(&wire), Ok(Holepunch::Connect("1.2.3.4:6881".parse().unwrap())));
        assert_eq!(Holepunch::parse(&[3, 0, 1, 2, 3, 4, 0, 5]), Err(ExtensionError::Field("msg_type")));
        assert_eq!(Holepunch::parse(&[0, 2, 1, 2, 3, 4, 0, 5]), Err(ExtensionError::Field("addr_type")));
    }
}

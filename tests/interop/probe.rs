//! A peer of few words: connects, shakes hands, and reads what is said first. Whoever answers is up, has this torrent
//! and takes connections for it.

use std::io::{self, Cursor, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gannet::wire::Handshake;
use gannet::wire::mse::{Entropy, Exchange, Method, Secured, Step};

/// Calls made so far.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// What a client says when it is called.
#[derive(Debug)]
pub struct Greeting {
    /// The reserved bits of its handshake.
    pub reserved: [u8; 8],
    /// Its peer id.
    pub peer_id: [u8; 20],
    /// The ids of the messages that followed at once, in order (keep-alives left out).
    pub messages: Vec<u8>,
}

/// How a peer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Plain,
    /// With RC4. By our own code: a probe only has to know that the peer is up.
    Encrypted,
}

/// Calls the peer on `port` of the loopback address. `info_hash` is the first 20 bytes of the torrent's.
pub fn greet(port: u16, info_hash: [u8; 20], manner: Manner) -> io::Result<Greeting> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    // The fast extension and the extension protocol, as clients of today have them.
    let mut ours = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
    ours.extend(info_hash);
    // Another id for each call: the caller before may not have been missed yet.
    ours.extend(format!("-GP0001-{:012}", CALLS.fetch_add(1, Ordering::Relaxed)).as_bytes());
    let mut stream: Box<dyn Read> = match manner {
        Manner::Plain => {
            stream.write_all(&ours)?;
            Box::new(stream)
        }
        Manner::Encrypted => {
            let secured = agree(&mut stream, ours[..].try_into().expect("68 bytes"))?;
            let mut ciphers = secured.ciphers.ok_or(io::ErrorKind::InvalidData)?;
            let rest = Deciphered(stream, move |bytes: &mut [u8]| ciphers.read.apply(bytes));
            Box::new(Cursor::new(secured.first).chain(rest))
        }
    };
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs)?;
    if theirs[..20] != ours[..20] || theirs[28..48] != info_hash {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not our handshake: {theirs:?}")));
    }
    let mut greeting = Greeting {
        reserved: theirs[20..28].try_into().expect("8 bytes"),
        peer_id: theirs[48..].try_into().expect("20 bytes"),
        messages: Vec::new(),
    };
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() && greeting.messages.len() < 16 {
        let mut body = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
        if stream.read_exact(&mut body).is_err() {
            break;
        }
        greeting.messages.extend(body.first());
    }
    Ok(greeting)
}

/// The encrypted handshake, by one who dials.
fn agree(stream: &mut TcpStream, ours: &[u8; 68]) -> io::Result<Secured> {
    let handshake = Handshake::parse(ours).map_err(io::Error::other)?;
    let entropy = Entropy::new(std::array::from_fn(|_| fastrand::u8(..)));
    let mut exchange = Exchange::dial(entropy, handshake, &[Method::Rc4]);
    let mut buf = [0; 1000];
    loop {
        match exchange.poll().map_err(io::Error::other)? {
            Step::Send(bytes) => stream.write_all(&bytes)?,
            Step::Read => match stream.read(&mut buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => exchange.handle_bytes(&buf[..n]),
            },
            Step::Compute(power) => exchange.handle_raised(power.raise()).map_err(io::Error::other)?,
            Step::Find(_) => return Err(io::ErrorKind::InvalidData.into()),
            Step::Done(secured) => return Ok(secured),
        }
    }
}

struct Deciphered<F>(TcpStream, F);

impl<F: FnMut(&mut [u8])> Read for Deciphered<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        (self.1)(&mut buf[..n]);
        Ok(n)
    }
}

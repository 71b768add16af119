//! One module per client, and what they have in common: something that seeds or downloads, on a port.

pub mod aria2;
pub mod gannet;
pub mod libtorrent;
pub mod makers;
pub mod opentracker;
pub mod transmission;
pub mod web;

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use crate::probe::{self, Manner};
use crate::process::Running;

/// A peer that runs, and where it listens.
pub struct Peer {
    /// Its process.
    pub process: Running,
    /// Its port on the loopback address.
    pub port: u16,
}

impl Peer {
    /// `HOST:PORT`, as peers are given on command lines.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until it answers a handshake for this torrent.
    fn answers(mut self, info_hash: [u8; 20], manner: Manner) -> Result<Self, String> {
        let port = self.port;
        self.process.try_until("an answer to a handshake", START, |_| probe::greet(port, info_hash, manner).ok())?;
        Ok(self)
    }

    /// Waits until it listens, without calling it; where the system does not tell, until it answers a call.
    fn listens(mut self) -> Result<Self, String> {
        let port = self.port;
        // Local address, remote address, state: 10 is "listening".
        let told = |table: &str| table.contains(&format!(":{port:04X} 00000000:0000 0A"));
        self.process.try_until("a listening socket", START, |_| match fs::read_to_string("/proc/net/tcp") {
            Ok(table) => told(&table).then_some(()),
            Err(_) => TcpStream::connect(("127.0.0.1", port)).ok().map(drop),
        })?;
        Ok(self)
    }

    /// Waits until it answers a handshake for this torrent and says that it has some of it.
    fn offers(mut self, info_hash: [u8; 20], manner: Manner) -> Result<Self, String> {
        let port = self.port;
        self.process.try_until("an offer of pieces", START, |_| {
            let greeting = probe::greet(port, info_hash, manner).ok()?;
            greeting.messages.iter().any(|id| matches!(*id, BITFIELD | HAVE_ALL)).then_some(())
        })?;
        Ok(self)
    }
}

/// What carries connections with another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Tcp,
    /// uTP only, or besides TCP where it cannot be alone.
    Utp,
}

/// Whether another client encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// As its packagers left it, or not at all.
    Usual,
    /// If it is called so.
    Tolerated,
    /// Always, with RC4.
    Forced,
}

impl Crypto {
    /// How such a client is called.
    fn manner(self) -> Manner {
        if self == Self::Forced { Manner::Encrypted } else { Manner::Plain }
    }
}

const BITFIELD: u8 = 5;
const HAVE_ALL: u8 = 14;

/// How long a client may take to come up, before another port is tried.
const START: Duration = Duration::from_secs(30);

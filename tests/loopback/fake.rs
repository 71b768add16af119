//! A peer that does what the test says. It frames messages by itself, so that it does not share the engine's mistakes.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gannet::base::PeerId;
use gannet::wire::{Handshake, Message, Reserved};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::lab::{PATIENCE, Payload, SOON, loopback, within};

/// What the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(Vec<u8>),
    Request(u32, u32, u32),
    Piece(u32, u32, Vec<u8>),
    Cancel(u32, u32, u32),
    HaveAll,
    HaveNone,
    Reject(u32, u32, u32),
    AllowedFast(u32),
    Extended(Vec<u8>),
    Other(u8),
}

pub struct Fake {
    stream: TcpStream,
    pub theirs: Handshake,
}

/// What the fake says first.
#[derive(Clone, Copy)]
pub struct Hello {
    pub info_hash: [u8; 20],
    pub peer_id: [u8; 20],
    pub reserved: Reserved,
}

impl Hello {
    /// A peer of its own, with the fast extension and without others.
    pub fn new(payload: &Payload) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut peer_id = *b"-FK0001-............";
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        peer_id[8..].copy_from_slice(format!("{number:012}").as_bytes());
        Self { info_hash: payload.wire_hash(), peer_id, reserved: Reserved::NONE.with_fast() }
    }

    pub fn reserved(self, reserved: Reserved) -> Self {
        Self { reserved, ..self }
    }

    pub fn bytes(&self) -> [u8; 68] {
        Handshake { info_hash: self.info_hash, peer_id: PeerId(self.peer_id), reserved: self.reserved }.encode()
    }
}

/// Where fakes wait to be called.
pub struct Ear {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Ear {
    pub async fn new() -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub async fn accept(&self, hello: &Hello) -> Fake {
        let (stream, _) = within(PATIENCE, "a call", self.listener.accept()).await.unwrap();
        Fake::greet(stream, hello).await.unwrap()
    }
}

impl Fake {
    pub async fn dial(address: SocketAddr, payload: &Payload) -> Self {
        Self::dial_as(address, &Hello::new(payload)).await.unwrap()
    }

    pub async fn dial_as(address: SocketAddr, hello: &Hello) -> io::Result<Self> {
        Self::greet(TcpStream::connect(address).await?, hello).await
    }

    /// With as small a window as the system gives.
    pub async fn dial_narrow(address: SocketAddr, hello: &Hello) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Self::greet(socket.connect(address).await?, hello).await
    }

    async fn greet(mut stream: TcpStream, hello: &Hello) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(&hello.bytes()).await?;
        let mut bytes = [0; 68];
        within(SOON, "a handshake", stream.read_exact(&mut bytes)).await?;
        Ok(Self { stream, theirs: Handshake::parse(&bytes).unwrap() })
    }

    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// False if the connection is gone.
    pub async fn raw(&mut self, bytes: &[u8]) -> bool {
        within(PATIENCE, "somebody reads", self.stream.write_all(bytes)).await.is_ok()
    }

    pub async fn say(&mut self, message: &Message<'_>) -> bool {
        let mut bytes = Vec::new();
        message.encode_into(&mut bytes);
        self.raw(&bytes).await
    }

    pub async fn give(&mut self, index: u32, begin: u32, block: &[u8]) -> bool {
        self.raw(&piece(index, begin, block)).await
    }

    /// The next message; `None` if the connection is gone.
    pub async fn hear(&mut self) -> Option<Said> {
        within(PATIENCE, "a message, or the end", self.read()).await
    }

    /// The first message for which `f` has an answer; everything before is passed over.
    pub async fn hear_until<T>(&mut self, mut f: impl FnMut(&Said) -> Option<T>) -> Option<T> {
        within(PATIENCE, "the right message", async {
            loop {
                let said = self.read().await?;
                if let Some(found) = f(&said) {
                    return Some(found);
                }
            }
        })
        .await
    }

    /// Waits for the other side to close, and returns what it said before.
    pub async fn until_closed(&mut self) -> Vec<Said> {
        let mut all = Vec::new();
        within(SOON, "the connection is closed", async {
            while let Some(said) = self.read().await {
                all.push(said);
            }
        })
        .await;
        all
    }

    /// Everything until an answer to this request for nothing comes back: what was sent before has been dealt with.
    /// Needs the fast extension, and a `piece` that the other side does not have or not give.
    pub async fn until_rejected(&mut self, index: u32, begin: u32, len: u32) -> Option<Vec<Said>> {
        self.say(&Message::Request { index, begin, len }).await;
        let mut all = Vec::new();
        loop {
            match self.hear().await? {
                Said::Reject(i, b, l) if (i, b, l) == (index, begin, len) => return Some(all),
                said => all.push(said),
            }
        }
    }

    async fn read(&mut self) -> Option<Said> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).await.ok()?;
        let len = u32::from_be_bytes(prefix) as usize;
        assert!(len <= 1 << 20, "a message of {len} bytes");
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(understand(&body))
    }

    /// Becomes interested and waits to be unchoked.
    pub async fn get_in(&mut self) {
        self.say(&Message::Interested).await;
        self.hear_until(|said| (*said == Said::Unchoke).then_some(())).await.expect("unchoked");
    }

    /// Asks for a block and waits for it. `None` if it is rejected or the connection ends.
    pub async fn fetch(&mut self, index: u32, begin: u32, len: u32) -> Option<Vec<u8>> {
        self.say(&Message::Request { index, begin, len }).await;
        self.hear_until(|said| match said {
            Said::Piece(i, b, data) if (*i, *b) == (index, begin) => Some(Some(data.clone())),
            Said::Reject(i, b, _) if (*i, *b) == (index, begin) => Some(None),
            _ => None,
        })
        .await
        .flatten()
    }

    /// Plays a seeder until the other side is gone: says that it has everything, lets it in, and answers each request
    /// with what `answer` says, or not at all.
    pub async fn serve(mut self, mut answer: impl FnMut(u32, u32, u32) -> Option<Vec<u8>>) -> Vec<(u32, u32, u32)> {
        let mut asked = Vec::new();
        self.say(&Message::HaveAll).await;
        self.say(&Message::Unchoke).await;
        while let Some(said) = self.read().await {
            if let Said::Request(index, begin, len) = said {
                asked.push((index, begin, len));
                if let Some(block) = answer(index, begin, len) {
                    self.give(index, begin, &block).await;
                }
            }
        }
        asked
    }

    /// Closes with a RST.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Says that nothing more will come, and goes on listening.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

/// A whole `piece` message.
pub fn piece(index: u32, begin: u32, block: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(9 + block.len()).unwrap().to_be_bytes().to_vec();
    frame.push(7);
    frame.extend(index.to_be_bytes());
    frame.extend(begin.to_be_bytes());
    frame.extend(block);
    frame
}

fn understand(body: &[u8]) -> Said {
    let Some((&id, payload)) = body.split_first() else { return Said::KeepAlive };
    let word = |n: usize| u32::from_be_bytes(payload[4 * n..4 * n + 4].try_into().unwrap());
    match id {
        0 => Said::Choke,
        1 => Said::Unchoke,
        2 => Said::Interested,
        3 => Said::NotInterested,
        4 => Said::Have(word(0)),
        5 => Said::Bitfield(payload.to_vec()),
        6 => Said::Request(word(0), word(1), word(2)),
        7 => Said::Piece(word(0), word(1), payload[8..].to_vec()),
        8 => Said::Cancel(word(0), word(1), word(2)),
        14 => Said::HaveAll,
        15 => Said::HaveNone,
        16 => Said::Reject(word(0), word(1), word(2)),
        17 => Said::AllowedFast(word(0)),
        20 => Said::Extended(payload.to_vec()),
        other => Said::Other(other),
    }
}

//! Peers that do as little as a peer can: the other ends of the connections of whoever is measured.
//!
//! They speak BEP 3 and 6, serve from the page cache, ask for whatever comes next, keep no state of the torrent and decide
//! nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::Interest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::exit::{Failure, io_words};
use super::payload::Payload;
use crate::base::{Bitfield, Block, BlockPool, Geometry, PeerId};
use crate::net::dial::Dialer;
use crate::net::egress::Egress;
use crate::net::encryption::Encryption;
use crate::net::handshake::Answerer;
use crate::net::stream::Stream;
use crate::sys;
use crate::wire::mse::torrent_mark;
use crate::wire::{Decoder, Handshake, Item, Message, PieceHeader, Reserved, piece_header};

/// Blocks sent in one write.
const BATCH: usize = 16;
/// Blocks that are asked for at once.
const WINDOW: usize = 64;
/// Requests that may wait here: as many as gannet takes.
const MAX_ASKED: usize = 2000;

/// The data, as both kinds of peers need it.
pub(super) struct Data {
    file: File,
    geometry: Geometry,
    info_hash: [u8; 20],
    encryption: Encryption,
}

impl Data {
    pub(super) fn of(payload: &Payload, encrypted: bool) -> Result<Arc<Self>, Failure> {
        let file = File::open(&payload.data).map_err(|e| Failure::disk(&payload.data, &e))?;
        let geometry = payload.metainfo.info.geometry().clone();
        let encryption = if encrypted { Encryption::Require } else { Encryption::Off };
        Ok(Arc::new(Self { file, geometry, info_hash: payload.wire_hash(), encryption }))
    }

    pub(super) fn encrypted(&self) -> bool {
        self.encryption == Encryption::Require
    }

    /// A peer of its own each time.
    fn handshake(&self) -> Handshake {
        let mut id = *b"-CP0001-............";
        id[8..].copy_from_slice(&std::array::from_fn::<u8, 12, _>(|_| {
            fastrand::alphanumeric().try_into().unwrap_or(b'x')
        }));
        Handshake { info_hash: self.info_hash, peer_id: PeerId(id), reserved: Reserved::NONE.with_fast() }
    }

    fn read(&self, block: Block, buf: &mut [u8]) -> io::Result<()> {
        sys::read_at(&self.file, buf, self.geometry.position(block.piece()) + u64::from(block.begin()))
    }

    /// Calls `address` and introduces itself.
    pub(super) async fn call(&self, address: SocketAddr) -> io::Result<Link> {
        let dialled = Dialer::new(Egress::default(), self.encryption).dial(address, &self.handshake()).await;
        let (stream, theirs) = dialled.map_err(io::Error::other)?;
        Ok(self.link(stream, theirs))
    }

    /// Waits for what an incoming connection says, and introduces itself.
    async fn answer(&self, mut stream: Stream) -> io::Result<Link> {
        let ours = self.handshake();
        let answerer = Answerer::new(self.encryption);
        let find = |mark: &[u8; 20]| (*mark == torrent_mark(&ours.info_hash)).then_some(ours.info_hash);
        let asked = answerer.answer(&mut stream, find, |info_hash| (info_hash == ours.info_hash).then_some(ours));
        let theirs = asked.await.map_err(io::Error::other)?;
        Ok(self.link(stream, theirs))
    }

    fn link(&self, stream: Stream, theirs: Handshake) -> Link {
        let decoder = Decoder::new(Some(self.geometry.piece_count()));
        Link { stream, decoder, fast: theirs.reserved.fast() }
    }
}

/// A connection whose handshake is done.
pub(super) struct Link {
    stream: Stream,
    decoder: Decoder,
    /// The other side knows BEP 6.
    fast: bool,
}

impl Link {
    async fn say(&mut self, messages: &[Message<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode_into(&mut bytes));
        self.stream.write_all(&bytes).await
    }

    /// Waits for bytes and takes them in.
    async fn read(&mut self) -> io::Result<()> {
        loop {
            self.stream.ready(Interest::READABLE).await?;
            match self.stream.try_read_vectored(&mut self.decoder.buffers()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.decoder.advance(n);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Serves whatever is asked for, from when `go` says so until the other side closes.
pub(super) async fn seed(data: Arc<Data>, mut link: Link, mut go: watch::Receiver<bool>) -> io::Result<()> {
    let all = Bitfield::full(data.geometry.piece_count()).to_wire();
    let have = if link.fast { Message::HaveAll } else { Message::Bitfield(&all) };
    link.say(&[have]).await?;
    let mut asked = VecDeque::new();
    let mut out = Vec::new();
    loop {
        tokio::select! {
            biased;
            going = go.wait_for(|go| *go) => {
                going.map_err(io::Error::other)?;
                break;
            }
            read = link.read() => read?,
        }
        take_requests(&data, &mut link.decoder, &mut asked)?;
    }
    link.say(&[Message::Unchoke]).await?;
    loop {
        if asked.is_empty() {
            link.read().await?;
            take_requests(&data, &mut link.decoder, &mut asked)?;
        }
        out.clear();
        for block in asked.drain(..asked.len().min(BATCH)) {
            out.extend_from_slice(&piece_header(block));
            let at = out.len();
            out.resize(at + block.len() as usize, 0);
            data.read(block, &mut out[at..])?;
        }
        link.stream.write_all(&out).await?;
    }
}

fn take_requests(data: &Data, decoder: &mut Decoder, asked: &mut VecDeque<Block>) -> io::Result<()> {
    while let Some(item) = decoder.next().map_err(io::Error::other)? {
        match item {
            Item::Message(Message::Request { index, begin, len }) => {
                asked.push_back(data.geometry.range(index, begin, len).map_err(io::Error::other)?);
                if asked.len() > MAX_ASKED {
                    return Err(io::Error::other("too many requests"));
                }
            }
            Item::PieceHeader(_) => decoder.discard(),
            // What is taken back is sent all the same: that is one of the two answers that BEP 6 asks for.
            Item::Message(_) | Item::Body(_) => {}
        }
    }
    Ok(())
}

/// Asks for block after block, from when `go` says so, until all such peers together have received `goal` bytes, which
/// `moved` counts; every byte is compared. A peer that is choked waits.
pub(super) async fn leech(
    data: Arc<Data>,
    mut link: Link,
    mut go: watch::Receiver<bool>,
    moved: Arc<AtomicU64>,
    goal: u64,
) -> io::Result<()> {
    let none = [Message::HaveNone, Message::Interested];
    link.say(if link.fast { &none } else { &none[1..] }).await?;
    let mut leecher = Leecher { choked: true, asked: 0, receiving: None, pool: BlockPool::new(1 << 14), next: None };
    loop {
        tokio::select! {
            biased;
            going = go.wait_for(|go| *go) => {
                going.map_err(io::Error::other)?;
                break;
            }
            read = link.read() => read?,
        }
        leecher.take(&data, &mut link.decoder, &moved)?;
    }
    let mut out = Vec::new();
    while moved.load(Ordering::Relaxed) < goal {
        out.clear();
        while !leecher.choked && leecher.asked < WINDOW {
            Message::request(leecher.next_block(&data.geometry)?).encode_into(&mut out);
            leecher.asked += 1;
        }
        link.stream.write_all(&out).await?;
        link.read().await?;
        leecher.take(&data, &mut link.decoder, &moved)?;
    }
    Ok(())
}

struct Leecher {
    choked: bool,
    /// Requests without an answer.
    asked: usize,
    /// The block whose body is under way.
    receiving: Option<Block>,
    pool: BlockPool,
    /// What is asked for next.
    next: Option<(u32, u32)>,
}

impl Leecher {
    /// The blocks one after the other, round and round, each peer from a place of its own.
    fn next_block(&mut self, geometry: &Geometry) -> io::Result<Block> {
        let (piece, n) = self.next.unwrap_or_else(|| (fastrand::u32(..geometry.piece_count()), 0));
        let index = geometry.piece(piece % geometry.piece_count()).map_err(io::Error::other)?;
        let last = n + 1 >= geometry.block_count(index);
        self.next = Some(if last { ((piece + 1) % geometry.piece_count(), 0) } else { (piece, n + 1) });
        geometry.block(index, n).map_err(io::Error::other)
    }

    fn take(&mut self, data: &Data, decoder: &mut Decoder, moved: &AtomicU64) -> io::Result<()> {
        let mut buf = Vec::new();
        while let Some(item) = decoder.next().map_err(io::Error::other)? {
            match item {
                Item::Message(Message::Unchoke) => self.choked = false,
                Item::Message(Message::Choke) => self.choked = true,
                Item::Message(Message::Reject { .. }) => self.asked = self.asked.saturating_sub(1),
                Item::Message(_) => {}
                Item::PieceHeader(PieceHeader { index, begin, len }) => {
                    self.receiving = Some(data.geometry.range(index, begin, len).map_err(io::Error::other)?);
                    let place = self.pool.take(len).ok_or_else(|| io::Error::other("two blocks at once"))?;
                    decoder.receive(place).map_err(|_| io::Error::other("a block of another length"))?;
                }
                Item::Body(body) => {
                    let block =
                        self.receiving.take().ok_or_else(|| io::Error::other("a block that was not announced"))?;
                    buf.resize(body.len(), 0);
                    data.read(block, &mut buf)?;
                    if buf != body.as_slice() {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a block with wrong bytes came"));
                    }
                    self.pool.give(body);
                    self.asked = self.asked.saturating_sub(1);
                    moved.fetch_add(buf.len() as u64, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// A cheap seed that waits for calls, until this is dropped.
pub(super) struct Seed {
    pub(super) data: Arc<Data>,
    pub(super) address: SocketAddr,
    go: watch::Receiver<bool>,
    _go: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Seed {
    /// Listens on the loopback interface. Needs a running runtime.
    pub(super) async fn start(data: Arc<Data>) -> Result<Self, Failure> {
        let refused = |e: io::Error| Failure::network(format!("loopback: {}; is the interface up?", io_words(&e)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (sender, go) = watch::channel(true);
        let (all, going) = (data.clone(), go.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (data, go) = (all.clone(), going.clone());
                tokio::spawn(async move {
                    let link = data.answer(stream.into()).await?;
                    seed(data, link, go).await
                });
            }
        });
        Ok(Self { data, address, go, _go: sender, accepting })
    }

    /// Calls a client that does not call us, again and again until it answers or this is aborted.
    pub(super) fn keep_calling(&self, address: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
        let (data, go) = (self.data.clone(), self.go.clone());
        async move {
            loop {
                if let Ok(link) = data.call(address).await {
                    let _ = seed(data.clone(), link, go.clone()).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

//! One connection: moves bytes between its socket and the swarm, and decides nothing.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::outgoing::Outgoing;
use super::shared::{Shared, Signal};
use crate::base::{Block, PeerKey};
use crate::disk::{Job, ReadDone};
use crate::swarm::{CloseReason, Misbehaved, Receive};
use crate::wire::{DecodeError, Decoder, Item};

/// Blocks read from disk and sent in one go: few enough that a `choke` or a `have` does not wait long behind them.
const UPLOAD_BATCH: usize = 16;

/// Reads in one turn, before others get theirs.
const READS_PER_TURN: usize = 16;

/// A peer that takes nothing of what we have for it for so long is not reading (`limits.md`).
const WRITE_STALL: Duration = Duration::from_secs(120);

/// Blocks being read from disk.
struct Upload {
    blocks: Vec<Block>,
    answer: oneshot::Receiver<ReadDone>,
}

struct Conn<'a> {
    shared: &'a Arc<Shared>,
    stream: TcpStream,
    key: PeerKey,
    decoder: Decoder,
    /// The block whose body the decoder is filling.
    receiving: Option<Block>,
    out: Outgoing,
    upload: Option<Upload>,
    /// Since when the socket has taken nothing.
    stuck_since: Option<Instant>,
}

/// Runs the connection until it ends, and says why. A block half received goes down with it; the swarm knows.
pub(super) async fn run(shared: &Arc<Shared>, stream: TcpStream, key: PeerKey, signal: &Signal) -> CloseReason {
    let decoder = Decoder::new(Some(shared.metainfo.info.geometry().piece_count()));
    let out = Outgoing::default();
    let mut conn = Conn { shared, stream, key, decoder, receiving: None, out, upload: None, stuck_since: None };
    conn.serve(signal).await
}

impl Conn<'_> {
    async fn serve(&mut self, signal: &Signal) -> CloseReason {
        loop {
            if let Some(reason) = signal.close.get() {
                return *reason;
            }
            match self.turn(signal).await {
                Ok(()) => {}
                Err(reason) => return reason,
            }
        }
    }

    /// Sends what there is, then waits for whatever comes first and deals with it.
    async fn turn(&mut self, signal: &Signal) -> Result<(), CloseReason> {
        self.write()?;
        let now = Instant::now();
        let up_wait = self.start_upload(now);
        let down_wait = self.shared.network.limits.down.wait(now);
        let interest = match (down_wait.is_zero(), self.out.is_empty()) {
            (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, true) => Some(Interest::READABLE),
            (false, false) => Some(Interest::WRITABLE),
            (false, true) => None,
        };
        let stall = self.stuck_since.map_or(Duration::ZERO, |since| WRITE_STALL.saturating_sub(now - since));
        if self.stuck_since.is_some() && stall.is_zero() {
            return Err(CloseReason::NotReading);
        }
        let pause = [down_wait, up_wait, stall].into_iter().filter(|wait| !wait.is_zero()).min();
        tokio::select! {
            ready = ready(&self.stream, interest) => match ready {
                Ok(ready) if ready.is_readable() || ready.is_read_closed() => self.read(),
                Ok(_) => Ok(()),
                Err(_) => Err(CloseReason::Lost),
            },
            () = signal.wake.notified() => Ok(()),
            done = answered(&mut self.upload) => self.finish_upload(done),
            () = pause_for(pause) => Ok(()),
        }
    }

    /// Has blocks that the peer asked for read, if nothing else is on its way out. Returns how long the rate limit wants
    /// us to wait instead.
    fn start_upload(&mut self, now: Instant) -> Duration {
        if self.upload.is_some() || self.out.has_blocks() {
            return Duration::ZERO;
        }
        let limit = &self.shared.network.limits.up;
        let wait = limit.wait(now);
        let most = limit.batch(UPLOAD_BATCH);
        let blocks: Vec<Block> = self.shared.turn_quietly(|swarm| match swarm.outbox(self.key) {
            Some(outbox) if wait.is_zero() => std::iter::from_fn(|| outbox.next_piece()).take(most).collect(),
            // A glance, so that a peer that asks for nothing is not woken for nothing.
            Some(outbox) => outbox.peek().into_iter().collect(),
            None => vec![],
        });
        if blocks.is_empty() || !wait.is_zero() {
            return if blocks.is_empty() { Duration::ZERO } else { wait };
        }
        let payload: u32 = blocks.iter().map(Block::len).sum();
        limit.spend(now, payload as usize);
        let (answer, receiver) = oneshot::channel();
        self.shared.disk.push(Job::Read {
            storage: self.shared.storage.clone(),
            blocks: blocks.clone(),
            buf: self.out.take_spare(),
            answer,
        });
        self.upload = Some(Upload { blocks, answer: receiver });
        Duration::ZERO
    }

    fn finish_upload(&mut self, done: Option<ReadDone>) -> Result<(), CloseReason> {
        let Some(upload) = self.upload.take() else { return Ok(()) };
        // Without an answer the disk threads have stopped.
        let Some(ReadDone { buf, outcome }) = done else { return Err(CloseReason::Stopping) };
        match outcome {
            Ok(()) => self.out.put_blocks(&upload.blocks, buf),
            Err(error) => {
                tracing::warn!(%error, "cannot read what a peer asked for");
                self.shared.turn(|swarm, _| {
                    upload.blocks.iter().for_each(|block| swarm.handle_read_failed(self.key, *block));
                });
            }
        }
        Ok(())
    }

    /// Sends until there is nothing left or the socket takes no more.
    fn write(&mut self) -> Result<(), CloseReason> {
        loop {
            if self.out.wants_control() {
                let out = &mut self.out;
                self.shared.turn_quietly(|swarm| {
                    if let Some(outbox) = swarm.outbox(self.key) {
                        outbox.take_control(out.control());
                    }
                });
            }
            if self.out.is_empty() {
                self.stuck_since = None;
                return Ok(());
            }
            match self.out.write_to(|slices| self.stream.try_write_vectored(slices)) {
                Ok(0) => return Err(CloseReason::Lost),
                Ok(_) => {
                    self.stuck_since = None;
                    let payload = self.out.take_sent_payload();
                    if payload > 0 {
                        self.shared.turn_quietly(|swarm| swarm.handle_sent(Instant::now(), self.key, payload));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::Lost),
            }
        }
    }

    /// Takes what the socket has, a few reads' worth, and lets the swarm deal with it.
    fn read(&mut self) -> Result<(), CloseReason> {
        let limit = &self.shared.network.limits.down;
        for _ in 0..READS_PER_TURN {
            match self.stream.try_read_vectored(&mut self.decoder.buffers()) {
                Ok(0) => return Err(CloseReason::Lost),
                Ok(n) => {
                    let now = Instant::now();
                    self.decoder.advance(n);
                    limit.spend(now, n);
                    self.deliver()?;
                    if !limit.wait(now).is_zero() {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::Lost),
            }
        }
        Ok(())
    }

    /// Hands all that is complete to the swarm, under one lock.
    fn deliver(&mut self) -> Result<(), CloseReason> {
        let (key, decoder, receiving, out) = (self.key, &mut self.decoder, &mut self.receiving, &mut self.out);
        let limited = self.shared.network.limits.down.rate().is_some();
        let delivered: Result<(), Failure> = self.shared.turn(|swarm, now| {
            while let Some(item) = decoder.next()? {
                match item {
                    Item::Message(message) => swarm.handle_message(now, key, &message)?,
                    Item::PieceHeader(header) => match swarm.receive_into(now, key, header)? {
                        Receive::Into(block, buf) => match decoder.receive(buf) {
                            Ok(()) => *receiving = Some(block),
                            Err(buf) => swarm.handle_unused(key, buf),
                        },
                        Receive::Discard => decoder.discard(),
                    },
                    Item::Body(buf) => {
                        if let Some(block) = receiving.take() {
                            swarm.handle_block(now, key, block, buf);
                        }
                    }
                }
            }
            swarm.handle_turn(now, key);
            // What is to come slowly is not worth holding buffers for.
            swarm.look_ahead(key, decoder, if limited { 0 } else { decoder.reach() });
            if out.wants_control()
                && let Some(outbox) = swarm.outbox(key)
            {
                outbox.take_control(out.control());
            }
            Ok(())
        });
        delivered.map_err(|failure| match failure {
            Failure::Misbehaved(what) => CloseReason::Misbehaved(what),
            Failure::Malformed(error) => {
                tracing::debug!(%error, "malformed message");
                CloseReason::Misbehaved(Misbehaved::Malformed)
            }
        })
    }
}

enum Failure {
    Misbehaved(Misbehaved),
    Malformed(DecodeError),
}

impl From<Misbehaved> for Failure {
    fn from(what: Misbehaved) -> Self {
        Self::Misbehaved(what)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

async fn ready(stream: &TcpStream, interest: Option<Interest>) -> io::Result<tokio::io::Ready> {
    match interest {
        Some(interest) => stream.ready(interest).await,
        None => pending().await,
    }
}

/// `None` if the disk threads are gone.
async fn answered(upload: &mut Option<Upload>) -> Option<ReadDone> {
    match upload {
        Some(upload) => (&mut upload.answer).await.ok(),
        None => pending().await,
    }
}

async fn pause_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => pending().await,
    }
}

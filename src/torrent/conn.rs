//! One connection: moves bytes between its socket and the swarm, and decides nothing.

use std::future::pending;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::shared::{Shared, Signal};
use crate::base::{Block, PeerKey};
use crate::disk::{ReadBlocks, ReadError};
use crate::swarm::{CloseReason, Misbehaved, Receive};
use crate::wire::{DecodeError, Decoder, Item};

/// Blocks read from disk and sent in one go: few enough that a `choke` or a `have` does not wait long behind them.
const UPLOAD_BATCH: usize = 16;

/// Reads in one turn, before others get theirs.
const READS_PER_TURN: usize = 16;

/// A peer that takes nothing of what we have for it for so long is not reading.
const WRITE_STALL: Duration = Duration::from_secs(120);

type Upload = oneshot::Receiver<Result<Vec<u8>, (Block, ReadError)>>;

struct Conn<'a> {
    shared: &'a Arc<Shared>,
    stream: TcpStream,
    key: PeerKey,
    decoder: Decoder,
    /// The block whose body the decoder is filling.
    receiving: Option<Block>,
    /// Encoded messages on their way out; `sent` bytes of them have left.
    control: Vec<u8>,
    /// Whole `piece` frames on their way out.
    pieces: Vec<u8>,
    sent: usize,
    /// Whether `sent` counts within `pieces`: a frame once begun is finished before anything else.
    in_pieces: bool,
    /// Frames being read from disk, and their payload.
    upload: Option<(Upload, u64)>,
    /// Payload within `pieces`.
    payload: u64,
    /// Since when the socket has taken nothing.
    stuck_since: Option<Instant>,
}

/// Runs the connection until it ends, and says why.
pub(super) async fn run(shared: &Arc<Shared>, stream: TcpStream, key: PeerKey, signal: &Signal) -> CloseReason {
    let mut decoder = Decoder::new();
    decoder.set_piece_count(shared.metainfo.info.geometry().piece_count());
    let mut conn = Conn {
        shared,
        stream,
        key,
        decoder,
        receiving: None,
        control: Vec::new(),
        pieces: Vec::new(),
        sent: 0,
        in_pieces: false,
        upload: None,
        payload: 0,
        stuck_since: None,
    };
    let reason = conn.serve(signal).await;
    // A block half received goes down with the connection; the swarm writes it off.
    reason
}

impl Conn<'_> {
    async fn serve(&mut self, signal: &Signal) -> CloseReason {
        loop {
            if let Some(reason) = signal.close.get() {
                return *reason;
            }
            match self.write() {
                Ok(()) => {}
                Err(reason) => return reason,
            }
            let now = Instant::now();
            let limits = &self.shared.network.limits;
            let down_wait = limits.down.wait(now);
            let up_wait = if self.upload_waits() { limits.up.wait(now) } else { Duration::ZERO };
            if self.upload_waits() && up_wait.is_zero() {
                self.start_upload(now);
            }
            let interest = match (down_wait.is_zero(), self.has_output()) {
                (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
                (true, false) => Some(Interest::READABLE),
                (false, true) => Some(Interest::WRITABLE),
                (false, false) => None,
            };
            let mut pause = [down_wait, up_wait].into_iter().filter(|w| !w.is_zero()).min();
            if let Some(since) = self.stuck_since {
                let left = WRITE_STALL.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    return CloseReason::NotReading;
                }
                pause = Some(pause.map_or(left, |p| p.min(left)));
            }
            tokio::select! {
                ready = ready(&self.stream, interest) => match ready {
                    Ok(ready) => {
                        if (ready.is_readable() || ready.is_read_closed()) && let Err(reason) = self.read() {
                            return reason;
                        }
                    }
                    Err(_) => return CloseReason::Lost,
                },
                () = signal.wake.notified() => {}
                frames = uploaded(&mut self.upload) => {
                    let payload = self.upload.take().map_or(0, |(_, payload)| payload);
                    match frames {
                        Some(Ok(frames)) => {
                            self.pieces = frames;
                            self.payload = payload;
                        }
                        Some(Err((block, error))) => self.read_failed(block, &error),
                        // The disk threads have stopped.
                        None => return CloseReason::Stopping,
                    }
                }
                () = pause_for(pause) => {}
            }
        }
    }

    fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.pieces.is_empty()
    }

    /// Whether blocks may be fetched from disk for the peer, once it has asked.
    fn upload_waits(&self) -> bool {
        self.upload.is_none()
            && self.pieces.is_empty()
            && self.shared.turn_quietly(|swarm| swarm.outbox(self.key).is_some_and(|o| o.piece_count() > 0))
    }

    fn start_upload(&mut self, now: Instant) {
        let limit = &self.shared.network.limits.up;
        let most = limit.batch(UPLOAD_BATCH);
        let blocks: Vec<Block> = self.shared.turn_quietly(|swarm| {
            let Some(outbox) = swarm.outbox(self.key) else { return vec![] };
            std::iter::from_fn(|| outbox.next_piece()).take(most).collect()
        });
        if blocks.is_empty() {
            return;
        }
        let payload = blocks.iter().map(|b| u64::from(b.len())).sum();
        limit.spend(now, usize::try_from(payload).unwrap_or(usize::MAX));
        let (reply, upload) = oneshot::channel();
        self.shared.disk.read(ReadBlocks { storage: self.shared.storage.clone(), blocks, reply });
        self.upload = Some((upload, payload));
    }

    fn read_failed(&mut self, block: Block, error: &ReadError) {
        tracing::warn!(%error, "cannot read a block that was asked for");
        self.shared.turn(|swarm, _| swarm.handle_read_failed(self.key, block));
    }

    /// Sends what there is until the socket takes no more.
    fn write(&mut self) -> Result<(), CloseReason> {
        loop {
            if self.control.is_empty() {
                let control = &mut self.control;
                self.shared.turn_quietly(|swarm| {
                    if let Some(outbox) = swarm.outbox(self.key) {
                        outbox.take_control(control);
                    }
                });
            }
            if !self.has_output() {
                self.stuck_since = None;
                return Ok(());
            }
            // What has been begun first: half a frame is no place for another.
            if self.sent == 0 {
                self.in_pieces = self.control.is_empty();
            }
            let (first, second) =
                if self.in_pieces { (&self.pieces, &self.control) } else { (&self.control, &self.pieces) };
            let slices = [IoSlice::new(&first[self.sent..]), IoSlice::new(second)];
            match self.stream.try_write_vectored(&slices) {
                Ok(0) => return Err(CloseReason::Lost),
                Ok(n) => self.wrote(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::Lost),
            }
        }
    }

    /// `n` bytes have left, of the buffer that was first and then of the other.
    fn wrote(&mut self, mut n: usize) {
        self.stuck_since = None;
        while n > 0 {
            let current = if self.in_pieces { &mut self.pieces } else { &mut self.control };
            let left = current.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            current.clear();
            self.sent = 0;
            if self.in_pieces {
                let payload = std::mem::take(&mut self.payload);
                self.shared.turn_quietly(|swarm| swarm.handle_sent(Instant::now(), self.key, payload));
            }
            self.in_pieces = !self.in_pieces;
        }
    }

    /// Takes what the socket has, a few reads' worth, and lets the swarm deal with it.
    fn read(&mut self) -> Result<(), CloseReason> {
        for _ in 0..READS_PER_TURN {
            let read = self.stream.try_read_vectored(&mut self.decoder.buffers());
            match read {
                Ok(0) => return Err(CloseReason::Lost),
                Ok(n) => {
                    let now = Instant::now();
                    self.decoder.advance(n);
                    self.shared.network.limits.down.spend(now, n);
                    self.deliver()?;
                    if !self.shared.network.limits.down.wait(now).is_zero() {
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
        let (key, decoder, receiving) = (self.key, &mut self.decoder, &mut self.receiving);
        self.shared.turn(|swarm, now| {
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Item::Message(message))) => swarm.handle_message(now, key, &message)?,
                    Ok(Some(Item::PieceHeader(header))) => match swarm.receive_into(now, key, header)? {
                        Receive::Into(block, buf) => {
                            *receiving = Some(block);
                            decoder.receive(buf);
                        }
                        Receive::Discard => decoder.discard(),
                    },
                    Ok(Some(Item::Body(buf))) => {
                        if let Some(block) = receiving.take() {
                            swarm.handle_block(now, key, block, buf);
                        }
                    }
                    Err(error) => return Err(Failure::Malformed(error)),
                }
            }
            swarm.handle_turn(now, key);
            Ok(())
        })
        .map_err(|failure: Failure| match failure {
            Failure::Misbehaved(what) => CloseReason::Misbehaved(what),
            Failure::Malformed(error) => {
                tracing::debug!(%error, "malformed");
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

async fn ready(stream: &TcpStream, interest: Option<Interest>) -> io::Result<tokio::io::Ready> {
    match interest {
        Some(interest) => stream.ready(interest).await,
        None => pending().await,
    }
}

async fn uploaded(upload: &mut Option<(Upload, u64)>) -> Option<Result<Vec<u8>, (Block, ReadError)>> {
    match upload {
        Some((frames, _)) => frames.await.ok(),
        None => pending().await,
    }
}

async fn pause_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => pending().await,
    }
}

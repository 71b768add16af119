//! One connection: moves bytes between its socket and the swarm, and decides nothing.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;

use super::outgoing::Outgoing;
use super::shared::{Shared, Signal};
use super::upload::{Pace, Upload};
use crate::base::{Block, PeerKey};
use crate::net::stream::Stream;
use crate::swarm::{CloseReason, Misbehaved, Receive};
use crate::wire::{DecodeError, Decoder, Item};

/// Reads in one turn, before others get theirs.
const READS_PER_TURN: usize = 16;

/// A peer that takes nothing of what we have for it for so long is not reading (`limits.md`).
const WRITE_STALL: Duration = Duration::from_secs(120);

pub(super) struct Conn<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) stream: Stream,
    pub(super) key: PeerKey,
    decoder: Decoder,
    /// The decoder knows how many pieces the torrent has.
    sized: bool,
    /// The block whose body the decoder is filling.
    receiving: Option<Block>,
    pub(super) out: Outgoing,
    pub(super) upload: Upload,
}

/// Runs the connection until it ends, and says why. A block half received goes down with it; the swarm knows.
pub(super) async fn run(shared: &Arc<Shared>, stream: Stream, key: PeerKey, signal: &Signal) -> CloseReason {
    let (decoder, out, upload) = (Decoder::new(None), Outgoing::default(), Upload::default());
    let mut conn = Conn { shared, stream, key, decoder, sized: false, receiving: None, out, upload };
    conn.serve(signal).await
}

impl Drop for Conn<'_> {
    fn drop(&mut self) {
        self.leave_line();
    }
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
        let pace = self.write()?;
        if pace == Pace::Yield {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        let down_wait = self.shared.network.limits.down.wait(now);
        let interest = match (down_wait.is_zero(), pace == Pace::Full || pace == Pace::Yield) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let stall = self.upload.stuck_since.map_or(Duration::ZERO, |since| WRITE_STALL.saturating_sub(now - since));
        if self.upload.stuck_since.is_some() && stall.is_zero() {
            return Err(CloseReason::NotReading);
        }
        let up_wait = if let Pace::Wait(wait) = pace { wait } else { Duration::ZERO };
        let pause = [down_wait, up_wait, stall].into_iter().filter(|wait| !wait.is_zero()).min();
        tokio::select! {
            ready = ready(&self.stream, interest) => match ready {
                Ok(ready) => {
                    self.upload.full &= !ready.is_writable();
                    if ready.is_readable() || ready.is_read_closed() { self.read() } else { Ok(()) }
                }
                Err(_) => Err(CloseReason::Lost),
            },
            () = signal.wake.notified() => Ok(()),
            fetched = self.upload.fetched() => self.put_fetched(fetched),
            () = pause_for(pause) => Ok(()),
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
        if !self.sized
            && let Some(metainfo) = self.shared.metainfo()
        {
            self.sized = true;
            self.decoder.set_piece_count(metainfo.info.geometry().piece_count());
        }
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

async fn ready(stream: &Stream, interest: Option<Interest>) -> io::Result<tokio::io::Ready> {
    match interest {
        Some(interest) => stream.ready(interest).await,
        None => pending().await,
    }
}

async fn pause_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => pending().await,
    }
}

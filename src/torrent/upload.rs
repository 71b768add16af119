//! The sending half of a connection: control bytes, and the blocks that its peer asked for.
//!
//! A block waits in the swarm's outbox, as a name, until the socket can take it. What does not fit goes back there, so
//! that `choke` and `cancel` still reach it, and so that control bytes wait for one block at most.
//!
//! ```text
//! outbox ── take ──►  in memory?  ── yes ──►  one call for control bytes, headers and payloads  ──►  socket full:
//!    ▲                   │ no                                                                        the rest goes back
//!    └── goes back, while a disk thread reads ahead ◄──┘
//! ```

use std::future::pending;
use std::io;
use std::mem::take;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::conn::Conn;
use super::limits::Place;
use crate::base::{BLOCK_LEN, Block};
use crate::disk::{Ahead, Job, ReadDone};
use crate::storage::{Lending, Lent, Window};

use crate::swarm::CloseReason;
use crate::sys;

/// Blocks sent in one call: half a megabyte, more does not pay.
const BATCH: usize = 32;

/// Blocks whose place is looked up at once, if they lie side by side.
const RUN: usize = 16;

/// Blocks read from disk at once, and as much is copied at once: memory that each connection may hold.
const COPIED: usize = 16;

/// Bytes sent in one turn, before others get theirs.
const TURN: usize = 4 << 20;

/// Whoever waits for the rate limit looks again after so long: those in front may have left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Windows that are read ahead for one peer at once.
const AHEAD: usize = 4;

/// How sending goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// With whatever comes: there is nothing to send now.
    Idle,
    /// When the socket can take more.
    Full,
    /// After others had their turn.
    Yield,
    /// When the rate limit allows.
    Wait(Duration),
}

/// What a connection knows about its uploads.
#[derive(Debug, Default)]
pub(super) struct Upload {
    fetch: Fetch,
    /// Read ahead in vain: it is not waited for again, but read.
    tried: Option<Window>,
    /// The window of the youngest request when it was last looked at.
    scouted: Option<Window>,
    /// Blocks under consideration.
    taken: Vec<Block>,
    /// Those that go back to the outbox.
    unsent: Vec<Block>,
    /// Its place among those that wait for the rate limit.
    place: Option<Place>,
    /// The socket took no more.
    pub(super) full: bool,
    /// Since when it has taken nothing.
    pub(super) stuck_since: Option<Instant>,
}

/// What the disk threads do for a connection.
#[derive(Debug, Default)]
enum Fetch {
    #[default]
    Nothing,
    /// Bringing into memory what comes next.
    Ahead(Ahead),
    /// Reading blocks.
    Read { blocks: Vec<Block>, answer: oneshot::Receiver<ReadDone> },
}

/// What they did.
pub(super) enum Fetched {
    Ahead,
    /// Nothing, if they have stopped.
    Read(Option<ReadDone>),
}

impl Upload {
    /// Waits for the disk threads, for ever if they have nothing to do. Cancelling it loses nothing.
    pub(super) async fn fetched(&mut self) -> Fetched {
        match &mut self.fetch {
            Fetch::Nothing => pending().await,
            Fetch::Ahead(ahead) => {
                ahead.ended().await;
                Fetched::Ahead
            }
            Fetch::Read { answer, .. } => Fetched::Read(answer.await.ok()),
        }
    }
}

impl Conn<'_> {
    /// Sends until there is nothing left, the socket takes no more, or others should have a turn.
    pub(super) fn write(&mut self) -> Result<Pace, CloseReason> {
        let mut left = TURN;
        loop {
            if self.upload.full {
                return Ok(Pace::Full);
            }
            let wait = self.exchange();
            self.load();
            if self.out.is_empty() && !self.stream.has_unsent() {
                if !self.upload.unsent.is_empty() {
                    continue;
                }
                self.upload.stuck_since = None;
                self.out.release();
                self.stream.release();
                return Ok(wait.map_or(Pace::Idle, Pace::Wait));
            }
            match self.send() {
                Ok(sent) => {
                    self.upload.stuck_since = None;
                    left = left.saturating_sub(sent);
                    if left == 0 {
                        self.settle();
                        return Ok(Pace::Yield);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.upload.full = true;
                    self.upload.stuck_since.get_or_insert_with(Instant::now);
                    self.settle();
                    return Ok(Pace::Full);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if sys::is_cut(&e) => {
                    tracing::warn!("a file was cut while it was sent");
                    return Err(CloseReason::Cut);
                }
                Err(_) => return Err(CloseReason::Lost),
            }
        }
    }

    fn send(&mut self) -> io::Result<usize> {
        let sent = self.stream.try_send(&self.out.gather())?;
        self.out.advance(sent);
        Ok(sent)
    }

    /// All that there is to settle with the swarm before the next call, under one lock: what has left, what goes back,
    /// control bytes, and the next blocks. Returns how long these have to wait if it is for the rate limit.
    fn exchange(&mut self) -> Option<Duration> {
        let (key, out, upload) = (self.key, &mut self.out, &mut self.upload);
        let limit = &self.shared.network.limits.up;
        let now = Instant::now();
        let sent = out.take_sent_payload();
        limit.spend(now, usize::try_from(sent).unwrap_or(usize::MAX));
        let wait = limit.wait_in_line(now, upload.place, limit.batch(BATCH)).min(LOOK_AGAIN);
        let room = matches!(upload.fetch, Fetch::Nothing) && !out.has_blocks();
        let most = if room { limit.batch(BATCH) } else { 0 };
        let (limited, youngest) = self.shared.turn_quietly(|swarm| {
            if sent > 0 {
                swarm.handle_sent(now, key, sent);
            }
            if !upload.unsent.is_empty() {
                swarm.handle_unsent(key, &upload.unsent);
            }
            let Some(outbox) = swarm.outbox(key) else { return (false, None) };
            if out.wants_control() {
                outbox.take_control(out.control());
            }
            if wait.is_zero() {
                upload.taken.extend(std::iter::from_fn(|| outbox.next_piece()).take(most));
            }
            // A glance, so that a peer that asks for nothing is not woken for nothing.
            let limited = !wait.is_zero() && most > 0 && outbox.peek().is_some();
            (limited, outbox.last_piece().filter(|_| !upload.taken.is_empty()))
        });
        upload.unsent.clear();
        if !limited {
            self.leave_line();
        } else if self.upload.place.is_none() {
            self.upload.place = limit.join();
        }
        if let Some(youngest) = youngest {
            self.scout(youngest);
        }
        limited.then_some(wait)
    }

    /// Others may have its place among those that wait for the rate limit.
    pub(super) fn leave_line(&mut self) {
        if let Some(place) = self.upload.place.take() {
            self.shared.network.limits.up.leave(place);
        }
    }

    /// Tells the swarm what has left, and gives back what has not begun to.
    fn settle(&mut self) {
        let (key, upload) = (self.key, &mut self.upload);
        // These came before those that could not be sent either.
        let mut back = take(&mut upload.taken);
        self.out.take_back(&mut back);
        back.append(&mut upload.unsent);
        let sent = self.out.take_sent_payload();
        if sent > 0 || !back.is_empty() {
            let now = Instant::now();
            self.shared.network.limits.up.spend(now, usize::try_from(sent).unwrap_or(usize::MAX));
            self.shared.turn_quietly(|swarm| {
                swarm.handle_sent(now, key, sent);
                swarm.handle_unsent(key, &back);
            });
        }
        back.clear();
        upload.taken = back;
    }

    /// Turns the blocks that were taken into frames, as far as they are in memory. If the first of them is not, has it
    /// fetched. What is left goes back.
    fn load(&mut self) {
        let shared = self.shared;
        let Some(storage) = shared.storage() else { return };
        let mut taken = take(&mut self.upload.taken);
        let mut done = 0;
        while done < taken.len() && self.out.copied_len() < COPIED * BLOCK_LEN as usize {
            let run = run(&taken[done..]);
            let Some(first) = run.first() else { break };
            let len = run.iter().map(Block::len).sum();
            let lending = if self.stream.takes_maps() { Lending::Mapped } else { Lending::Copied };
            let lent = self
                .out
                .add(run, |spans, copied| storage.lend(first.piece(), first.begin(), len, lending, spans, copied));
            match lent {
                Lent::All => {
                    done += run.len();
                    self.upload.tried = None;
                    continue;
                }
                // First goes what there is.
                Lent::Cold if done > 0 => drop(self.read_ahead(window(first))),
                Lent::Unsure if done > 0 => {}
                Lent::Cold if self.fetch_ahead(&taken) => {}
                Lent::Cold | Lent::Unsure => done = self.fetch(&taken),
            }
            break;
        }
        self.upload.unsent.extend(taken.drain(done..));
        taken.clear();
        self.upload.taken = taken;
    }

    /// Has a look at a request that has just come: if it will have to wait for the disk, the disk may begin now.
    fn scout(&mut self, youngest: Block) {
        let window = window(&youngest);
        if self.upload.scouted.replace(window) != Some(window) && self.is_cold(youngest) {
            self.read_ahead(window);
        }
    }

    fn is_cold(&self, block: Block) -> bool {
        self.shared.storage().is_some_and(|storage| storage.is_cold(block))
    }

    fn read_ahead(&self, window: Window) -> Option<Ahead> {
        self.shared.aheads.want(&self.shared.disk, self.shared.storage()?, window)
    }

    /// Has the first of `blocks` and some of what else is asked for brought into memory. False if that is of no use.
    fn fetch_ahead(&mut self, blocks: &[Block]) -> bool {
        let Some(first) = blocks.first().map(window).filter(|first| self.upload.tried != Some(*first)) else {
            return false;
        };
        let Some(ahead) = self.read_ahead(first) else { return false };
        self.upload.fetch = Fetch::Ahead(ahead);
        self.upload.tried = Some(first);
        let mut next: Vec<Block> = Vec::with_capacity(AHEAD);
        self.shared.turn_quietly(|swarm| {
            let waiting = swarm.outbox(self.key).into_iter().flat_map(|outbox| outbox.pieces());
            for block in blocks.iter().copied().chain(waiting) {
                if next.len() == AHEAD {
                    break;
                }
                if !next.iter().any(|n| window(n) == window(&block)) {
                    next.push(block);
                }
            }
        });
        for block in next.iter().skip(1).filter(|block| self.is_cold(**block)) {
            self.read_ahead(window(block));
        }
        true
    }

    /// Has the first of `blocks` read. Returns how many those are.
    fn fetch(&mut self, blocks: &[Block]) -> usize {
        let Some(storage) = self.shared.storage() else { return 0 };
        let count = blocks.len().min(COPIED);
        let blocks = blocks[..count].to_vec();
        let (answer, receiver) = oneshot::channel();
        self.shared.disk.push(Job::Read {
            storage: storage.clone(),
            blocks: blocks.clone(),
            buf: self.out.take_spare(),
            answer,
        });
        self.upload.fetch = Fetch::Read { blocks, answer: receiver };
        count
    }

    /// Goes on with what the disk threads have done.
    pub(super) fn put_fetched(&mut self, fetched: Fetched) -> Result<(), CloseReason> {
        let fetch = take(&mut self.upload.fetch);
        let (Fetch::Read { blocks, .. }, Fetched::Read(done)) = (fetch, fetched) else { return Ok(()) };
        // Without an answer the disk threads have stopped.
        let Some(ReadDone { buf, outcome }) = done else { return Err(CloseReason::Stopping) };
        match outcome {
            Ok(()) => self.out.add_read(&blocks, buf),
            Err(error) => {
                tracing::debug!(%error, "cannot read what a peer asked for");
                self.shared.read_failed(self.key, &blocks, error);
            }
        }
        Ok(())
    }
}

fn window(block: &Block) -> Window {
    Window::of(block.piece(), block.begin())
}

/// The first blocks of `blocks` that lie side by side, in one window.
fn run(blocks: &[Block]) -> &[Block] {
    let follows =
        |pair: &[Block; 2]| pair[0].begin() + pair[0].len() == pair[1].begin() && window(&pair[0]) == window(&pair[1]);
    let more = blocks.array_windows().take(RUN - 1).take_while(|pair| follows(pair)).count();
    &blocks[..blocks.len().min(more + 1)]
}

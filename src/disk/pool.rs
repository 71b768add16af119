use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::work;
use super::{Job, ToVerify};
use crate::hash;

/// Threads for long jobs.
const LONG_THREADS: usize = 2;

/// The most disk threads: more do not make a disk faster.
const MAX_THREADS: usize = 64;

/// The most bytes that one thread takes to hash together: what waits behind them waits as long.
const MAX_BATCH: usize = 64 << 20;

/// How long a piece may wait for others, to be hashed with them. Several together cost little more than one; and nobody
/// notices that a piece is told of so much later.
const GATHER: Duration = Duration::from_millis(8);

/// With so many bytes nothing waits for more: the memory is worth more than the lanes.
const GATHERED: usize = 16 << 20;

/// The disk threads of a session. Dropping it lets them finish what was asked for, and waits for them.
#[derive(Debug)]
pub struct DiskPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    quick: Condvar,
    /// The one thread that waits for more pieces.
    gather: Condvar,
    long: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    verify: VecDeque<ToVerify>,
    verify_bytes: usize,
    /// When the oldest of them must wait no longer.
    due: Option<Instant>,
    /// Whether a thread waits for more of them.
    gathering: bool,
    /// Reads, and pieces that are on disk.
    quick: VecDeque<Job>,
    long: VecDeque<Job>,
    /// Whose turn it is when both kinds of quick jobs wait: neither may starve the other.
    verify_next: bool,
    closing: bool,
}

/// What a disk thread takes from the queue at once.
enum Batch {
    Verify(Vec<ToVerify>),
    One(Job),
}

impl DiskPool {
    /// Starts `threads` threads (one per core if none is said) for quick jobs, and a few for long ones.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: Option<usize>) -> io::Result<Self> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let count = threads.unwrap_or_else(cores).clamp(1, MAX_THREADS);
        let mut pool = Self { shared: Arc::default(), threads: Vec::new() };
        for n in 0..count {
            let shared = pool.shared.clone();
            let thread = thread::Builder::new().name(format!("gannet-disk-{n}"));
            pool.threads.push(thread.spawn(move || shared.run_quick())?);
        }
        for n in 0..LONG_THREADS {
            let shared = pool.shared.clone();
            let thread = thread::Builder::new().name(format!("gannet-long-{n}"));
            pool.threads.push(thread.spawn(move || shared.run_long())?);
        }
        Ok(pool)
    }

    /// Hands in a job. Never waits for the disk.
    pub fn push(&self, job: Job) {
        let mut queue = self.shared.lock();
        match job {
            Job::Verify(piece) => {
                queue.put_piece(piece);
                // One thread gathers; to wake it for each piece would cost what it saves.
                if !queue.gathering {
                    self.shared.quick.notify_one();
                } else if queue.has_gathered() {
                    self.shared.gather.notify_one();
                }
            }
            job if job.is_long() => {
                queue.long.push_back(job);
                self.shared.long.notify_one();
            }
            job => {
                queue.quick.push_back(job);
                self.shared.quick.notify_one();
                if queue.gathering {
                    self.shared.gather.notify_one();
                }
            }
        }
    }

    /// Runs `call` on a thread for long jobs, and answers with what it returns; with an error if it panicked.
    pub fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T> {
        let (answer, receiver) = tokio::sync::oneshot::channel();
        self.push(Job::Call(Box::new(move || drop(answer.send(call())))));
        receiver
    }

    /// Quick jobs that wait: a measure of how far the disk is behind.
    pub fn waiting(&self) -> usize {
        let queue = self.shared.lock();
        queue.verify.len() + queue.quick.len()
    }
}

impl Drop for DiskPool {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.quick.notify_all();
        self.shared.gather.notify_all();
        self.shared.long.notify_all();
        for thread in self.threads.drain(..) {
            // A pool that is dropped by one of its own jobs cannot wait for that job.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_quick(&self) {
        while let Some(batch) = self.next_quick() {
            match batch {
                Batch::Verify(pieces) => work::verify(pieces),
                Batch::One(job) => work::run(job),
            }
        }
    }

    fn run_long(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                match queue.long.pop_front() {
                    Some(job) => break job,
                    None if queue.closing => return,
                    None => queue = self.long.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            work::run(job);
        }
    }

    fn next_quick(&self) -> Option<Batch> {
        let mut queue = self.lock();
        loop {
            let wait = queue.must_wait();
            if !queue.verify.is_empty() && wait.is_none() && (queue.verify_next || queue.quick.is_empty()) {
                queue.verify_next = false;
                return Some(Batch::Verify(queue.take_pieces()));
            }
            if let Some(job) = queue.quick.pop_front() {
                queue.verify_next = true;
                return Some(Batch::One(job));
            }
            if queue.closing && queue.verify.is_empty() {
                return None;
            }
            queue = match wait {
                Some(wait) if !queue.gathering => {
                    queue.gathering = true;
                    let (mut queue, _) = self.gather.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
                    queue.gathering = false;
                    queue
                }
                _ => self.quick.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Queue {
    fn put_piece(&mut self, piece: ToVerify) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
        self.verify_bytes += piece.bytes();
        self.verify.push_back(piece);
    }

    /// Whether as many pieces wait as should be hashed together.
    fn has_gathered(&self) -> bool {
        self.verify.len() >= hash::lanes() || self.verify_bytes >= GATHERED || self.closing
    }

    /// How long the pieces that wait may wait for more.
    fn must_wait(&self) -> Option<Duration> {
        let due = self.due.filter(|_| !self.has_gathered())?;
        Some(due.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    /// All pieces that wait, up to what can be hashed at once.
    fn take_pieces(&mut self) -> Vec<ToVerify> {
        let mut bytes = 0;
        let mut pieces = Vec::new();
        while let Some(piece) = self.verify.front() {
            bytes += piece.bytes();
            if !pieces.is_empty() && (bytes > MAX_BATCH || pieces.len() >= hash::lanes()) {
                break;
            }
            self.verify_bytes -= piece.bytes();
            pieces.extend(self.verify.pop_front());
        }
        self.due = (!self.verify.is_empty()).then(|| Instant::now() + GATHER);
        pieces
    }
}

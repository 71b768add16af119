//! uTP over the UDP sockets of a session: an `Endpoint` for each socket, a [`UtpStream`] for each connection.
//!
//! All connections of a socket are one [`Mux`] behind one lock. The socket's task (`udp.rs`) takes it once for all that
//! one call has received, and once for each batch that is sent; those who read and write take it for as long as copying
//! lasts, and never hold it across a wait.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{Interest, Ready};
use tokio::sync::{Notify, mpsc};

use crate::utp::{Closed, ConnKey, MAX_UNACCEPTED, Mux, Path, Transmit};

/// All uTP connections of one UDP socket.
#[derive(Debug)]
pub(super) struct Endpoint {
    state: Mutex<State>,
    /// There may be something to send.
    work: Notify,
    accepted: mpsc::Sender<UtpStream>,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    /// Who waits for a connection, by its slot.
    waiting: Vec<Waiting>,
    /// Nobody sends or receives any more.
    stopped: bool,
}

/// Those who wait for one connection.
#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the socket's task is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send what was put into the batch.
    Send(Transmit),
    /// Wait, until then at most.
    Wait(Option<Instant>),
}

/// The lock of an [`Endpoint`], while datagrams are put in.
pub(super) struct Inbox<'a> {
    endpoint: &'a Arc<Endpoint>,
    state: MutexGuard<'a, State>,
}

impl Endpoint {
    /// No connections yet; and those that others open, from now on.
    pub(super) fn new() -> io::Result<(Arc<Self>, mpsc::Receiver<UtpStream>)> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let (accepted, incoming) = mpsc::channel(MAX_UNACCEPTED);
        let state = State { mux: Mux::new(Instant::now(), secret), waiting: Vec::new(), stopped: false };
        Ok((Arc::new(Self { state: Mutex::new(state), work: Notify::new(), accepted }), incoming))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there may be something to send.
    pub(super) async fn has_work(&self) {
        self.work.notified().await;
    }

    /// Takes the lock for datagrams that have come.
    pub(super) fn inbox(self: &Arc<Self>) -> Inbox<'_> {
        Inbox { endpoint: self, state: self.lock() }
    }

    /// Fills `batch` with what is to be sent next: at most `segments` packets in `most` bytes.
    pub(super) fn next(&self, now: Instant, segments: usize, most: usize, batch: &mut Vec<u8>) -> Next {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        if state.mux.poll_timeout().is_some_and(|at| at <= now) {
            state.mux.handle_timeout(now);
        }
        let next = match state.mux.poll_transmit(now, segments, most, batch) {
            Some(transmit) => Next::Send(transmit),
            None => Next::Wait(state.mux.poll_timeout()),
        };
        state.collect(&mut wakers);
        drop(state);
        wakers.wake();
        next
    }

    /// A datagram of this length was too long for the system.
    pub(super) fn too_long(&self, transmit: &Transmit, len: usize) {
        if let Some(key) = transmit.conn {
            self.lock().mux.handle_too_long(key, len);
        }
    }

    /// Whether there is no connection, not even one that is ending.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().mux.is_empty()
    }

    /// Nothing is sent or received from now on.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for Waiting { reader, writer } in waiting {
            reader.into_iter().chain(writer).for_each(Waker::wake);
        }
    }

    /// Opens a connection.
    pub(super) async fn connect(self: &Arc<Self>, remote: SocketAddr) -> io::Result<UtpStream> {
        let key = {
            let mut state = self.lock();
            let path = Path { remote, local: None };
            state.mux.connect(Instant::now(), path).ok_or(io::ErrorKind::QuotaExceeded)?
        };
        self.work.notify_one();
        // It is given up if this is cancelled.
        let stream = UtpStream { endpoint: self.clone(), key, remote };
        stream.ready(Interest::WRITABLE).await?;
        if self.lock().mux.is_connected(key) {
            return Ok(stream);
        }
        // Writing nothing says why.
        Err(stream.try_write_vectored(&[]).err().unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Inbox<'_> {
    /// A datagram has come; `arrived` is when the system got it.
    pub(super) fn put(&mut self, now: Instant, arrived: Instant, path: Path, datagram: &[u8]) {
        self.state.mux.handle_datagram(now, arrived, path, datagram);
    }

    /// All have been put in: wakes those who wait for them.
    pub(super) fn close(self) {
        let Self { endpoint, mut state } = self;
        let mut wakers = Wakers::default();
        let mut accepted = Vec::new();
        while let Some((key, path)) = state.mux.poll_accept() {
            accepted.push(UtpStream { endpoint: endpoint.clone(), key, remote: path.remote });
        }
        state.collect(&mut wakers);
        drop(state);
        wakers.wake();
        for stream in accepted {
            // If nobody takes it, it is closed.
            let _ = endpoint.accepted.try_send(stream);
        }
    }
}

impl State {
    /// Those who wait for what has changed.
    fn collect(&mut self, wakers: &mut Wakers) {
        while let Some(key) = self.mux.poll_changed() {
            let Some(waiting) = self.waiting.get_mut(key.slot()) else { continue };
            if waiting.reader.is_some() && self.mux.is_readable(key) {
                wakers.push(waiting.reader.take());
            }
            if waiting.writer.is_some() && self.mux.is_writable(key) {
                wakers.push(waiting.writer.take());
            }
        }
    }

    fn waiting(&mut self, key: ConnKey) -> &mut Waiting {
        let slot = key.slot();
        if self.waiting.len() <= slot {
            self.waiting.resize_with(slot + 1, Waiting::default);
        }
        &mut self.waiting[slot]
    }
}

/// Those to be woken when the lock is free again.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn push(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// A uTP connection. Dropping it closes it; what was written is still sent.
#[derive(Debug)]
pub struct UtpStream {
    endpoint: Arc<Endpoint>,
    key: ConnKey,
    remote: SocketAddr,
}

impl UtpStream {
    /// Who is at the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Waits until one of what is asked for may be tried, or the connection has broken. Cancelling it loses nothing. One
    /// task at a time may wait to read, and one to write.
    ///
    /// # Errors
    /// None; trying says what is wrong.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        poll_fn(|cx| self.poll_ready(cx, interest)).await
    }

    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<Ready>> {
        let mut state = self.endpoint.lock();
        let mut ready = Ready::EMPTY;
        if interest.is_readable() && (state.stopped || state.mux.is_readable(self.key)) {
            ready |= Ready::READABLE;
        }
        if interest.is_writable() && (state.stopped || state.mux.is_writable(self.key)) {
            ready |= Ready::WRITABLE;
        }
        if !ready.is_empty() {
            return Poll::Ready(Ok(ready));
        }
        let waiting = state.waiting(self.key);
        if interest.is_readable() {
            waiting.reader = Some(cx.waker().clone());
        }
        if interest.is_writable() {
            waiting.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Reads what is there to `places`, in their order. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; why there will be nothing.
    pub fn try_read_vectored(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut state = self.endpoint.lock();
        let read = state.mux.read(Instant::now(), self.key, places);
        self.finish(state, read)
    }

    /// Takes as much of `slices` as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; why nothing can be sent any more.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.endpoint.lock();
        let written = state.mux.write(self.key, slices);
        self.finish(state, written)
    }

    /// Lets the socket's task know if it has something to send now.
    fn finish(&self, state: MutexGuard<'_, State>, done: Result<Option<usize>, Closed>) -> io::Result<usize> {
        if state.stopped {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let wants_to_send = state.mux.wants_to_send();
        drop(state);
        if wants_to_send {
            self.endpoint.work.notify_one();
        }
        match done {
            Ok(Some(n)) => Ok(n),
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(cause) => Err(io::Error::new(kind_of(cause), cause)),
        }
    }

    /// Reads some bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// Why nothing more will come.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read_vectored(&mut [IoSliceMut::new(bytes)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(self.ready(Interest::READABLE).await?),
                done => return done,
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(self.ready(Interest::WRITABLE).await?),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Drop for UtpStream {
    fn drop(&mut self) {
        let mut state = self.endpoint.lock();
        state.mux.close(Instant::now(), self.key);
        *state.waiting(self.key) = Waiting::default();
        drop(state);
        self.endpoint.work.notify_one();
    }
}

fn kind_of(cause: Closed) -> io::ErrorKind {
    match cause {
        Closed::Reset => io::ErrorKind::ConnectionReset,
        Closed::Refused => io::ErrorKind::ConnectionRefused,
        Closed::TimedOut => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::NotConnected,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::udp::UdpHub;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn hub() -> UdpHub {
        UdpHub::start(vec![std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap()], true).unwrap()
    }

    /// Two ends of one connection, and what keeps them alive.
    async fn pair() -> (UtpStream, UtpStream, [UdpHub; 2]) {
        let (near, far) = (hub(), hub());
        let mut incoming = far.incoming_utp().pop().unwrap();
        let opened = near.connect_utp(far.addresses()[0]).await.unwrap();
        // The other side hears of it with the first bytes.
        opened.write_all(b"hello").await.unwrap();
        let accepted = tokio::time::timeout(PATIENCE, incoming.recv()).await.unwrap().unwrap();
        assert_eq!(accepted.remote(), near.addresses()[0]);
        let mut hello = [0; 5];
        assert_eq!(accepted.read(&mut hello).await.unwrap(), 5);
        (opened, accepted, [near, far])
    }

    async fn read_all(stream: &UtpStream) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), vec![0; 100_000]);
        loop {
            match stream.read(&mut buf).await.unwrap() {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn megabytes_go_both_ways_and_the_end_comes_last() {
        let (near, far, _hubs) = pair().await;
        let noise = |seed| {
            let mut bytes = vec![0; 20_000_000];
            fastrand::Rng::with_seed(seed).fill(&mut bytes);
            bytes
        };
        let (there, back) = (noise(1), noise(2));
        let exchange = async {
            let received = async {
                let mut all = vec![0; there.len()];
                let mut at = 0;
                while at < all.len() {
                    at += far.read(&mut all[at..]).await.unwrap();
                }
                all
            };
            let (sent, received) = tokio::join!(near.write_all(&there), received);
            sent.unwrap();
            assert!(received == there);
            let sent = async {
                far.write_all(&back).await.unwrap();
                // What was written is sent though nobody is there any more.
                drop(far);
            };
            let ((), received) = tokio::join!(sent, read_all(&near));
            assert!(received == back);
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap();
    }

    #[tokio::test]
    async fn waiting_may_be_given_up_and_ends_with_the_socket() {
        let (near, far, hubs) = pair().await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, near.ready(Interest::READABLE)).await.is_err());
        let ready = near.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(ready.is_writable() && !ready.is_readable());
        far.write_all(b"x").await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, near.ready(Interest::READABLE)).await.unwrap().unwrap().is_readable());
        assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 1);
        drop(hubs);
        let error = tokio::time::timeout(PATIENCE, near.read(&mut [0; 9])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_nothing() {
        let (near, nobody) = (hub(), std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        let address = nobody.local_addr().unwrap();
        let called = tokio::time::timeout(Duration::from_millis(50), near.connect_utp(address)).await;
        assert!(called.is_err());
        assert!(near.connect_utp((std::net::Ipv6Addr::LOCALHOST, 1).into()).await.is_err(), "no socket of that kind");
        // The first packet did go out.
        nobody.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(nobody.recv(&mut [0; 100]).unwrap(), 20);
    }
}

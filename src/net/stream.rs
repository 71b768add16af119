//! The connection with a peer, whatever carries it, encrypted or not.

use std::io::{self, IoSlice, IoSliceMut};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

use super::utp::UtpStream;
use crate::sys::Gather;
use crate::wire::mse::{Ciphers, Secured};

/// Bytes encrypted at once: they are still in the cache when they are sent.
const BATCH: usize = 64 << 10;

/// Parts that one write to uTP takes.
const PARTS: usize = 128;

/// Memory for them that is kept while nothing is sent.
const KEPT: usize = 4 << 10;

/// A connection with a peer: what the peer protocol runs over.
///
/// [`read_exact`](Self::read_exact) and [`write_all`](Self::write_all) are for handshakes. After that a connection waits
/// with [`ready`](Self::ready), and reads and sends as much as goes at once. With TCP and without encryption bytes go from
/// and to the caller's places by one system call. With encryption they are decrypted where they were read to, and encrypted
/// into a buffer that is sent before anything else.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    /// What came behind a handshake, decrypted.
    unread: Vec<u8>,
    sealed: Option<Box<Sealed>>,
}

/// What carries the bytes.
#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Utp(UtpStream),
}

#[derive(Debug)]
struct Sealed {
    ciphers: Ciphers,
    /// Encrypted bytes.
    out: Vec<u8>,
    /// How many of them have left.
    sent: usize,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        // We write whole turns at once; a request must not wait for the answer to the one before it.
        let _ = tcp.set_nodelay(true);
        Self { carrier: Carrier::Tcp(tcp), unread: Vec::new(), sealed: None }
    }
}

impl From<UtpStream> for Stream {
    fn from(utp: UtpStream) -> Self {
        Self { carrier: Carrier::Utp(utp), unread: Vec::new(), sealed: None }
    }
}

impl Stream {
    /// Goes on as was agreed upon.
    pub(super) fn secure(&mut self, secured: Secured) {
        let Secured { ciphers, first, .. } = secured;
        self.sealed = ciphers.map(|ciphers| Box::new(Sealed { ciphers: *ciphers, out: Vec::new(), sent: 0 }));
        self.unread = first;
    }

    /// Whether what is sent and received is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether it is uTP that carries it.
    pub fn is_utp(&self) -> bool {
        matches!(self.carrier, Carrier::Utp(_))
    }

    /// Whether [`try_send`](Self::try_send) takes bytes out of maps. They can be sent as they are, and not otherwise.
    pub fn takes_maps(&self) -> bool {
        self.sealed.is_none() && !self.is_utp()
    }

    /// Waits until one of what is asked for may be tried, or the connection has broken. Cancelling it loses nothing.
    ///
    /// # Errors
    /// None that a connection outlives.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if !self.unread.is_empty() && interest.is_readable() {
            return Ok(Ready::READABLE);
        }
        match &self.carrier {
            Carrier::Tcp(tcp) => tcp.ready(interest).await,
            Carrier::Utp(utp) => utp.ready(interest).await,
        }
    }

    /// Reads what is there to `places`, in their order. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; what the system says.
    pub fn try_read_vectored(&mut self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if !self.unread.is_empty() {
            return Ok(places.iter_mut().map(|place| take_unread(&mut self.unread, place)).sum());
        }
        let n = match &self.carrier {
            Carrier::Tcp(tcp) => tcp.try_read_vectored(places)?,
            Carrier::Utp(utp) => utp.try_read_vectored(places)?,
        };
        if let Some(sealed) = &mut self.sealed {
            let mut left = n;
            for place in places {
                let len = left.min(place.len());
                sealed.ciphers.read.apply(&mut place[..len]);
                left -= len;
                if left == 0 {
                    break;
                }
            }
        }
        Ok(n)
    }

    /// Takes as much of `gather` as can be sent now, and none while bytes that were taken before are still
    /// [unsent](Self::has_unsent): then 0, if some of them have left.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be sent now, `WriteZero` if there is nothing to send; otherwise as [`Gather::send`].
    pub fn try_send(&mut self, gather: &Gather<'_>) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else {
            return match self.carrier.try_send(gather)? {
                0 => Err(io::ErrorKind::WriteZero.into()),
                sent => Ok(sent),
            };
        };
        let before = sealed.has_unsent();
        if before {
            sealed.flush(&self.carrier)?;
            if sealed.has_unsent() {
                return Ok(0);
            }
        }
        let taken = sealed.seal(gather)?;
        if taken == 0 {
            return if before { Ok(0) } else { Err(io::ErrorKind::WriteZero.into()) };
        }
        match sealed.flush(&self.carrier) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(taken)
    }

    /// Whether there are bytes that [`try_send`](Self::try_send) has taken and not sent: it wants to be called again,
    /// even with nothing.
    pub fn has_unsent(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.has_unsent())
    }

    /// Gives memory back that is of no use while nothing is sent.
    pub fn release(&mut self) {
        if let Some(sealed) = &mut self.sealed
            && !sealed.has_unsent()
            && sealed.out.capacity() > KEPT
        {
            sealed.out = Vec::new();
        }
    }

    /// Reads some bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if !self.unread.is_empty() {
            return Ok(take_unread(&mut self.unread, bytes));
        }
        let n = match &mut self.carrier {
            Carrier::Tcp(tcp) => tcp.read(bytes).await?,
            Carrier::Utp(utp) => utp.read(bytes).await?,
        };
        if let Some(sealed) = &mut self.sealed {
            sealed.ciphers.read.apply(&mut bytes[..n]);
        }
        Ok(n)
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before; what the system says.
    pub async fn read_exact(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read(bytes).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => bytes = &mut bytes[n..],
            }
        }
        Ok(())
    }

    /// Sends all of `bytes`. Cancelling it leaves the stream unusable.
    ///
    /// # Errors
    /// What the system says.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sealed {
            None => self.carrier.write_all(bytes).await,
            Some(sealed) => {
                let mut bytes = bytes.to_vec();
                sealed.ciphers.write.apply(&mut bytes);
                self.carrier.write_all(&bytes).await
            }
        }
    }
}

impl Carrier {
    fn try_send(&self, gather: &Gather<'_>) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::WRITABLE, || gather.send(tcp)),
            Self::Utp(utp) => {
                let parts = gather.in_memory().ok_or(io::ErrorKind::Unsupported)?;
                let mut slices = [IoSlice::new(&[]); PARTS];
                let filled = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
                if gather.is_empty() { Ok(0) } else { utp.try_write_vectored(&slices[..filled]) }
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Utp(utp) => utp.try_write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.write_all(bytes).await,
            Self::Utp(utp) => utp.write_all(bytes).await,
        }
    }
}

impl Sealed {
    fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    fn flush(&mut self, carrier: &Carrier) -> io::Result<()> {
        self.sent += carrier.try_write(&self.out[self.sent..])?;
        Ok(())
    }

    /// Encrypts the first bytes of `gather`, when those before have left.
    fn seal(&mut self, gather: &Gather<'_>) -> io::Result<usize> {
        self.out.clear();
        self.sent = 0;
        let parts = gather.in_memory().ok_or(io::ErrorKind::Unsupported)?;
        for part in parts {
            let room = BATCH - self.out.len();
            self.out.extend_from_slice(&part[..part.len().min(room)]);
        }
        self.ciphers.write.apply(&mut self.out);
        Ok(self.out.len())
    }
}

fn take_unread(unread: &mut Vec<u8>, to: &mut [u8]) -> usize {
    let n = unread.len().min(to.len());
    to[..n].copy_from_slice(&unread[..n]);
    unread.drain(..n);
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mse::Rc4;

    /// Two ends of one encrypted connection.
    async fn pair() -> (Stream, Stream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let cipher = |key: u8| Rc4::new(&[key; 20]);
        let secured = |read, write, first: &[u8]| Secured {
            torrent: [0; 20],
            ciphers: Some(Box::new(Ciphers { read: cipher(read), write: cipher(write) })),
            first: first.to_vec(),
        };
        let (mut near, mut far) = (Stream::from(near), Stream::from(far));
        near.secure(secured(1, 2, b""));
        far.secure(secured(2, 1, b"what came behind the handshake"));
        (near, far)
    }

    /// Whatever is sent in one call, however full the socket is, and wherever it is read to: it arrives as it was.
    #[tokio::test]
    async fn encrypted_bytes_arrive_in_order() {
        const LEN: usize = 8 << 20;
        let (mut near, mut far) = pair().await;
        assert!(near.is_encrypted() && !near.takes_maps());
        let data: Vec<u8> = (0..LEN).map(|i| (i * 7 + i / 251).to_le_bytes()[0]).collect();
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut sent, mut stalls) = (0, 0);
        let mut received: Vec<u8> = Vec::new();
        while received.len() < LEN + 30 {
            // Sends until the socket is full...
            while sent < LEN || near.has_unsent() {
                let mut gather = Gather::new();
                let mut at = sent;
                for _ in 0..rng.usize(0..40) {
                    let len = rng.usize(0..20_000).min(LEN - at);
                    gather.push(&data[at..at + len]);
                    at += len;
                }
                match near.try_send(&gather) {
                    Ok(taken) => sent += taken,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        stalls += 1;
                        break;
                    }
                    Err(e) => assert_eq!((e.kind(), gather.len()), (io::ErrorKind::WriteZero, 0)),
                }
            }
            // ...then reads some of it.
            let ready = far.ready(Interest::READABLE).await.unwrap();
            assert!(ready.is_readable());
            let (mut a, mut b) = (vec![0; rng.usize(1..17)], vec![0; rng.usize(1..100_000)]);
            match far.try_read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]) {
                Ok(n) => received.extend(a.iter().chain(&b).take(n)),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            // The near end may not have heard yet that there is room again.
            tokio::task::yield_now().await;
        }
        assert!(stalls > 0, "the socket was never full");
        let (first, rest) = received.split_at(30);
        assert_eq!(first, b"what came behind the handshake");
        assert!(rest == data);
        near.release();
        assert_eq!(near.sealed.as_ref().map(|sealed| sealed.out.capacity()), Some(0));

        near.write_all(b"farewell").await.unwrap();
        let mut last = [0; 8];
        far.read_exact(&mut last).await.unwrap();
        assert_eq!(&last, b"farewell");
    }

    /// Maps cannot be encrypted: whoever sends asks first.
    #[tokio::test]
    async fn maps_are_refused() {
        let (mut near, _far) = pair().await;
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = crate::sys::SendMap::new(&file, 4096).unwrap();
        let mut gather = Gather::new();
        assert!(gather.push(b"head") && gather.push_mapped(&map, 0, 100));
        assert_eq!(near.try_send(&gather).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}

#![allow(unsafe_code, reason = "there is no safe call that sends from memory nobody may look at")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::{MmapOptions, MmapRaw};

/// A file as memory that only the system reads, in calls that are given its address. No code of ours touches it, so a
/// file that is cut under it is an error of such a call, and never a signal.
#[derive(Debug)]
pub struct SendMap {
    map: MmapRaw,
}

impl SendMap {
    /// Maps the first `len` bytes of `file`, which may be shorter.
    ///
    /// # Errors
    /// As the system says; where addresses are scarce, always.
    pub fn new(file: &File, len: u64) -> io::Result<Self> {
        if cfg!(target_pointer_width = "32") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { map: MmapOptions::new().len(len.max(1)).map_raw_read_only(file)? })
    }
}

/// The most parts that go into one call. Two per block and a few more; `IOV_MAX` is 1024.
const MAX_PARTS: usize = 128;

#[cfg(not(target_vendor = "apple"))]
const FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
#[cfg(target_vendor = "apple")]
const FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// Bytes from many places, to be sent in one call.
pub struct Gather<'a> {
    parts: [libc::iovec; MAX_PARTS],
    count: usize,
    len: usize,
    /// Some of it is in maps.
    mapped: bool,
    places: PhantomData<&'a [u8]>,
}

impl<'a> Gather<'a> {
    /// Nothing yet.
    pub fn new() -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { parts: [none; MAX_PARTS], count: 0, len: 0, mapped: false, places: PhantomData }
    }

    /// Bytes gathered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`. False if there is no room for another part.
    pub fn push(&mut self, bytes: &'a [u8]) -> bool {
        self.push_part(bytes.as_ptr(), bytes.len())
    }

    /// Appends `len` bytes of a file from `offset` on. False if there is no room for another part, or the map has no
    /// such bytes.
    pub fn push_mapped(&mut self, map: &'a SendMap, offset: u64, len: usize) -> bool {
        let end = usize::try_from(offset).ok().and_then(|start| start.checked_add(len));
        self.mapped = true;
        match end {
            Some(end) if end <= map.map.len() => self.push_part(map.map.as_ptr().wrapping_add(end - len), len),
            _ => false,
        }
    }

    /// The parts, unless some of them are in maps.
    pub fn in_memory(&self) -> Option<impl Iterator<Item = &'a [u8]>> {
        let parts = self.parts.iter().take(self.count);
        // SAFETY: without maps each of the first `count` parts was a slice that lives as long as `'a`.
        let slice =
            |part: &libc::iovec| unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) };
        (!self.mapped).then(|| parts.map(slice))
    }

    fn push_part(&mut self, at: *const u8, len: usize) -> bool {
        let Some(part) = self.parts.get_mut(self.count) else { return false };
        if len > 0 {
            *part = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len };
            self.count += 1;
            self.len += len;
        }
        true
    }

    /// Sends as much of it as the socket takes without waiting.
    ///
    /// # Errors
    /// As the system says: `WouldBlock` when the socket is full, [`is_cut`] when there is nothing behind a mapped part any
    /// more. What was sent before counts first: then the error comes with the next call.
    pub fn send(&self, socket: impl AsFd) -> io::Result<usize> {
        // SAFETY: a plain structure for which all zeros are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.parts.as_ptr().cast_mut();
        message.msg_iovlen = self.count as _;
        // SAFETY: the call writes to none of it. The first `count` parts lie in slices and maps that live as long as `'a`;
        // mapped bytes are read by the system alone, which checks each page.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, FLAGS) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Default for Gather<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a call failed because a file had been cut under its [`SendMap`], or could not be read.
pub fn is_cut(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn parts_arrive_in_order_and_a_cut_file_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let map = SendMap::new(&file, 20_000).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut gather = Gather::new();
        assert!(gather.is_empty() && gather.push(b""));
        assert!(gather.push(b"head") && gather.push_mapped(&map, 9_990, 5_000) && gather.push(b"tail"));
        for (offset, len) in [(15_001, 5_000), (u64::MAX, 1), (0, usize::MAX)] {
            assert!(!gather.push_mapped(&map, offset, len));
        }
        assert_eq!((gather.len(), gather.send(&ours).unwrap()), (5_008, 5_008));
        let mut back = vec![0; 5_008];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!(back, [b"head", &content[9_990..14_990], b"tail"].concat());

        file.set_len(0).unwrap();
        let error = gather.send(&ours).err().or_else(|| gather.send(&ours).err());
        assert!(is_cut(&error.unwrap()));

        let mut full = Gather::new();
        for _ in 0..MAX_PARTS {
            assert!(full.push(b"x"));
        }
        assert!(!full.push(b"x") && full.len() == MAX_PARTS);
    }
}

use std::fs::{File, Metadata};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{Mode, SeekFrom, Stat};
use rustix::io::Errno;

use crate::resume::FileStamp;

/// The most slices that one vectored call takes (`IOV_MAX` of Linux and the BSDs).
const MAX_SLICES: usize = 1024;

/// Fills `buf` from `offset` on.
///
/// # Errors
/// As the system says; `UnexpectedEof` if the file ends before.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Writes all of `slices`, one behind the other, from `offset` on. Short writes and interruptions are carried on from.
///
/// # Errors
/// As the system says; what was written before the error stays.
pub fn write_at(file: &File, slices: &[&[u8]], mut offset: u64) -> io::Result<()> {
    if let [one] = slices {
        return file.write_all_at(one, offset);
    }
    let mut all: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
    let mut left = all.as_mut_slice();
    // Leading empty slices would look like a write that gets nowhere.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match rustix::io::pwritev(file, &left[..left.len().min(MAX_SLICES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut left, written);
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Has the system begin to write what it holds of the file to disk. May wait while the disk's queue is full. Does nothing
/// where a system knows no such call.
pub fn start_writing_back(file: &File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        #[allow(unsafe_code, reason = "no crate in use has this call")]
        // SAFETY: has no conditions; the descriptor is open as long as `file` is borrowed. A length of 0 is all.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// What distinguishes this state of a file from another.
pub fn stamp(stat: &Stat) -> FileStamp {
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ from system to system")]
    FileStamp {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: (stat.st_mtime as i64).saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64),
        inode: u64::from(stat.st_ino),
    }
}

/// The number of an open file within its file system.
///
/// # Errors
/// As the system says.
pub fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// Whether the owner may execute the file.
pub fn is_executable(metadata: &Metadata) -> bool {
    metadata.mode() & 0o100 != 0
}

/// The path of these names, one below the other, byte for byte; none where names of files are not bytes and these are
/// not UTF-8.
pub fn path_of<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Option<PathBuf> {
    #[cfg(unix)]
    return Some(names.into_iter().map(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes).collect());
    #[cfg(not(unix))]
    return names.into_iter().map(|name| std::str::from_utf8(name).ok()).collect();
}

/// Lets everybody execute the file who may read it.
///
/// # Errors
/// As the system says.
pub fn make_executable(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode() & 0o7777;
    Ok(rustix::fs::fchmod(file, Mode::from((mode | (mode & 0o444) >> 2) as rustix::fs::RawMode))?)
}

/// Makes a file that is made with `options` its owner's alone.
pub fn private(options: &mut std::fs::OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

/// Where the next byte at or behind `offset` is that was ever written; none if the rest of the file is a hole, which
/// reads as zeros. Where holes are not told, all is data.
///
/// Where the data ends is not asked: some file systems go through all of the file for it, under a lock.
pub fn data_from(file: &File, offset: u64) -> Option<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Some(start),
        Err(Errno::NXIO) => None,
        Err(_) => Some(offset),
    }
}

/// Whether bytes are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Reading them will not wait for the disk.
    Yes,
    /// Reading them may wait.
    No,
    /// The system does not tell.
    Unknown,
}

/// How far apart the bytes are that [`is_cached`] looks at: systems read ahead and evict by more than this at a time.
const PROBE_STEP: u64 = 64 << 10;

/// Whether `len` bytes from `offset` on are in the page cache, going by samples of which the first and the last byte are
/// two. Not so if the file ends before.
pub fn is_cached(file: &File, offset: u64, len: u64) -> Cached {
    #[cfg(target_os = "linux")]
    {
        let last = offset + len.max(1) - 1;
        // The last first: it tells in one call of a file that was cut, and of most that was never read.
        let between = (offset..last).step_by(usize::try_from(PROBE_STEP).unwrap_or(usize::MAX));
        for at in std::iter::once(last).chain(between) {
            let mut byte = [0];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, flags) {
                Ok(1) => {}
                Ok(_) | Err(Errno::AGAIN) => return Cached::No,
                Err(_) => return Cached::Unknown,
            }
        }
        Cached::Yes
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, offset, len, PROBE_STEP, IoSliceMut::new(&mut []));
        Cached::Unknown
    }
}

/// Whether the file lies in memory and nowhere else, so that reading it waits for no disk (or for the same one as all our
/// memory does, where there is swap).
pub fn is_in_memory(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        const TMPFS: i64 = 0x0102_1994;
        const RAMFS: i64 = 0x8584_58f6;
        #[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
        rustix::fs::fstatfs(file).is_ok_and(|stat| matches!((stat.f_type as i64) & 0xffff_ffff, TMPFS | RAMFS))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// Tells the system that the range will be read soon. A hint: nothing comes of it if it fails.
pub fn will_need(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, NonZeroU64::new(len));
}

/// Has the system forget what it holds of the file in memory, as far as it is on the disk: the next read is a cold one.
pub fn drop_cached(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_of_any_shape() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        // More slices than one call takes, empty ones among them.
        let mut slices: Vec<&[u8]> = vec![&[]];
        slices.extend(bytes.chunks(3));
        slices.insert(700, &[]);
        write_at(&file, &slices, 10).unwrap();
        write_at(&file, &[], 0).unwrap();
        write_at(&file, &[&[], &[]], 0).unwrap();
        let mut back = vec![0; 5000];
        read_at(&file, &mut back, 10).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(read_at(&file, &mut back, 11).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn holes_and_cache() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        write_at(&file, &[&[1; 10]], 1 << 19).unwrap();
        if let Some(start) = data_from(&file, 0) {
            assert!(start <= 1 << 19);
        }
        assert_ne!(is_cached(&file, 1 << 19, 10), Cached::No);
    }

    #[test]
    fn executable_where_readable() {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::fchmod(&file, Mode::from(0o640)).unwrap();
        make_executable(&file).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o750);
    }
}

use std::fs::File;
use std::io;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Dir;

/// What a folder lies on, as far as it matters for how files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A local one on which mapped files were measured or are known to work: its name.
    Mappable(&'static str),
    /// Any other that is known: its name.
    Known(&'static str),
    /// One that is not known.
    Unknown,
}

/// The file system of `dir`.
pub fn file_system(dir: &Dir) -> FileSystem {
    #[cfg(target_os = "linux")]
    {
        let Ok(stat) = rustix::fs::fstatfs(dir.fd()) else { return FileSystem::Unknown };
        // Magic numbers are 32 bits; the field's width and sign differ from system to system.
        #[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
        match (stat.f_type as i64).cast_unsigned() & 0xffff_ffff {
            0xef53 => FileSystem::Mappable("ext4"),
            0x5846_5342 => FileSystem::Mappable("xfs"),
            0xf2f5_2010 => FileSystem::Mappable("f2fs"),
            0x0102_1994 => FileSystem::Known("tmpfs"),
            0x8584_58f6 => FileSystem::Known("ramfs"),
            0x9123_683e => FileSystem::Known("btrfs"),
            0x2fc1_2fc1 => FileSystem::Known("zfs"),
            0xca45_1a4e => FileSystem::Known("bcachefs"),
            0x794c_7630 => FileSystem::Known("overlay"),
            0x6573_5546 => FileSystem::Known("fuse"),
            0x6969 => FileSystem::Known("nfs"),
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => FileSystem::Known("smb"),
            0x0102_1997 => FileSystem::Known("9p"),
            0x00c3_6400 => FileSystem::Known("ceph"),
            0x4d44 => FileSystem::Known("vfat"),
            0x2011_bab0 => FileSystem::Known("exfat"),
            0x5346_544e | 0x7366_746e => FileSystem::Known("ntfs"),
            _ => FileSystem::Unknown,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        FileSystem::Unknown
    }
}

/// The number of the file system of `dir`; 0 if the system does not tell.
pub fn file_system_number(dir: &Dir) -> u64 {
    #[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
    rustix::fs::fstat(dir.fd()).map_or(0, |stat| stat.st_dev as u64)
}

/// Bytes that this user may still write below `dir`; none if the system does not tell.
pub fn available(dir: &Dir) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(dir.fd()).ok()?;
    // Some network and FUSE file systems answer all zeros.
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What came of asking for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// The range is backed by the disk.
    Done,
    /// The file system cannot do it: files grow as they are written.
    Unsupported,
}

/// Takes the space for the first `len` bytes of `file`, which grows to that length; nothing in it changes.
///
/// # Errors
/// As the system says, above all that the disk is full.
pub fn allocate(file: &File, len: u64) -> io::Result<Allocation> {
    if len == 0 {
        return Ok(Allocation::Done);
    }
    // Not posix_fallocate: where there is no support, that writes a byte into every block.
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(Allocation::Done),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(Allocation::Unsupported),
            Err(e) => return Err(e.into()),
        }
    }
}
/// Writes all that the folder's file system holds in memory to disk, others' bytes too, and waits for it. False where a
/// system knows no such call, or does not tell of errors.
///
/// # Errors
/// As the system says: also for an error since the folder was opened.
pub fn sync_file_system(dir: &super::Dir) -> std::io::Result<bool> {
    #[cfg(target_os = "linux")]
    if let Some(fd) = dir.readable() {
        rustix::fs::syncfs(fd)?;
        return Ok(true);
    }
    let _ = dir;
    Ok(false)
}

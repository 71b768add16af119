//! L3, at its foot: what only some systems can do, each with a portable fallback. Nothing else names a platform.
//!
//! For: opening files that stay below a folder, taking and counting space, vectored positioned I/O, process limits.
//! Must not know: torrents, pieces, peers.

mod dir;
mod file;
mod process;
mod space;

pub use dir::{Access, Dir};
pub use file::{
    Cached, data_from, inode, is_cached, make_executable, private, read_at, same_file, send_file, stamp, will_need,
    write_at,
};
pub use process::{ignore_file_size_signal, open_file_limit, raise_open_file_limit};
pub use space::{Allocation, FileSystem, allocate, available, file_system};

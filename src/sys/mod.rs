//! L3, at its foot: what only some systems can do, each with a portable fallback. Nothing else names a platform.
//!
//! For: opening files that stay below a folder, names as a file system has them, taking and counting space, vectored
//! positioned I/O, sending from mapped files, process limits, confinement to some folders, what processes use, signals,
//! choosing a network interface, the routes to the internet, the clock, the width of the terminal.
//! Must not know: torrents, pieces, peers.

mod clock;
mod device;
mod dir;
mod file;
mod fragment;
mod process;
mod route;
mod sandbox;
mod send;
mod signals;
mod space;
mod usage;

pub use clock::is_clock_kept;
pub use device::{bind_client, bind_socket, socket_buffer};
pub use dir::{Access, Dir, Glances};
pub use file::{
    Cached, data_from, drop_cached, inode, is_cached, is_executable, is_in_memory, make_executable, path_of, private,
    read_at, stamp, start_writing_back, will_need, write_at,
};
pub use fragment::allow_fragments;
pub use process::{ignore_file_size_signal, open_file_limit, raise_open_file_limit, terminal_columns};
pub use route::{DefaultRoute, TELLS_ROUTES, default_routes_v4, default_routes_v6};
pub use sandbox::{Confined, confine};
pub use send::{Gather, SendMap, is_cut};
pub use signals::{Hangups, StopSignal, StopSignals};
pub use space::{Allocation, FileSystem, allocate, available, file_system, file_system_number, sync_file_system};
pub use usage::{
    anonymous_memory, available_memory, children_cpu_time, cpu_time, processor_name, spawn_owned, system_name,
    thread_cpu_time,
};

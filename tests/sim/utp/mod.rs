//! uTP between simulated hosts.

mod faults;
mod net;
mod path;

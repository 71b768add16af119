//! L4: one running torrent: carries out what its [`Swarm`](crate::swarm) decides.
//!
//! For: the tasks that join sockets, disk threads and trackers to the swarm.
//! Must not know: other torrents, the command line.

//! L6: the command line.
//!
//! For: arguments, configuration, what is shown, exit codes; one file per subcommand.
//! Must not know: sockets, swarms; it speaks to [`session`](crate::session) and to the formats.

pub mod scrape;

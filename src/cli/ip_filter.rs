//! `--ip-filter`: reading the lists, and reading them again when told to.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::exit::{Failure, shown};
use super::progress::count;
use super::report::Reporter;
use crate::session::{IpFilter, IpFilterLists, Session, read_ip_filter};
use crate::sys::Hangups;

/// The filter of all lists, and one warning for all lines that could not be read. `peers` are those the user named.
pub(super) fn read(paths: &[PathBuf], peers: &[SocketAddr], reporter: &mut Reporter) -> Result<Arc<IpFilter>, Failure> {
    let lists = read_ip_filter(paths)?;
    if let Some(warning) = complaint(&lists) {
        reporter.warn(&warning);
    }
    for peer in peers.iter().filter(|peer| lists.filter.blocks(peer.ip())) {
        reporter.warn(&format!("--peer {peer}: on the IP filter, so it is not tried"));
    }
    tracing::info!(ranges = lists.filter.len(), "IP filter");
    Ok(Arc::new(lists.filter))
}

fn complaint(lists: &IpFilterLists) -> Option<String> {
    let (path, line) = lists.first_bad.as_ref()?;
    let bad = count(lists.bad_lines, "line");
    Some(format!("the IP filter: {bad} passed over as no range of addresses, the first at {}:{line}", shown(path)))
}

/// Reads the lists again on SIGHUP, where that does not mean that the terminal is gone. Lists that cannot be read then
/// leave the filter as it is.
pub(super) fn reload_on_hangup(session: &Session, paths: &[PathBuf]) {
    if paths.is_empty() || std::io::stdin().is_terminal() || std::io::stderr().is_terminal() {
        return;
    }
    let mut hangups = match Hangups::take() {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!(%error, "SIGHUP"),
    };
    let (session, paths) = (session.clone(), paths.to_owned());
    tokio::spawn(async move {
        loop {
            hangups.next().await;
            let paths = paths.clone();
            let read = tokio::task::spawn_blocking(move || read_ip_filter(&paths)).await;
            match read.map_err(|e| e.to_string()).and_then(|read| read.map_err(|e| e.to_string())) {
                Ok(lists) => {
                    if let Some(warning) = complaint(&lists) {
                        tracing::warn!("{warning}");
                    }
                    tracing::info!(ranges = lists.filter.len(), "IP filter, read again");
                    session.set_ip_filter(Arc::new(lists.filter));
                }
                Err(why) => tracing::warn!("{}; the IP filter stays as it was", crate::base::printable(&why)),
            }
        }
    });
}

//! The encrypted handshake, over a connection.

use std::io;
use std::time::Duration;

use super::handshake::Failed;
use super::pace::Pace;
use super::stream::Stream;
use crate::wire::mse::{Entropy, Exchange, Power, Raised, Secured, Step};

/// Bytes read at once: a key and the longest pad.
const READ: usize = 608;

/// Entropy for one handshake.
///
/// # Errors
/// The system has none.
pub(super) fn entropy() -> io::Result<Entropy> {
    let mut random = [0; Entropy::LEN];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Entropy::new(random))
}

/// How long a peer waits for its turn to have a power computed, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does `exchange`'s part of the handshake. Powers are computed as fast as `pace` allows; `find` gives the torrent with a
/// mark.
///
/// # Errors
/// [`Failed`]; the connection is of no use then.
pub(super) async fn exchange(
    stream: &mut Stream,
    mut exchange: Exchange,
    pace: Option<&Pace>,
    find: impl Fn(&[u8; 20]) -> Option<[u8; 20]>,
) -> Result<Secured, Failed> {
    let mut buf = [0; READ];
    loop {
        match exchange.poll()? {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Read => match stream.read(&mut buf).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => exchange.handle_bytes(&buf[..n]),
            },
            Step::Compute(power) => {
                if let Some(pace) = pace
                    && !pace.turn_within(PATIENCE).await
                {
                    return Err(io::Error::other("too many encrypted handshakes at once").into());
                }
                exchange.handle_raised(raise(power).await?)?;
            }
            Step::Find(mark) => exchange.handle_torrent(find(&mark))?,
            Step::Done(secured) => return Ok(secured),
        }
    }
}

/// Where it keeps no connection waiting.
async fn raise(power: Power) -> io::Result<Raised> {
    tokio::task::spawn_blocking(move || power.raise()).await.map_err(io::Error::other)
}

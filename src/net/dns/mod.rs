//! Looking up names by a way of our own.
//!
//! For: name servers that are asked by the network interface that all else leaves by. The system's resolver asks by
//! whichever way it likes, and would tell the world which trackers we use.
//! Must not know: what the addresses are for.
//! Main function: [`addresses_of`]. RFCs: 1035, 3596, 6891.

mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::egress::Egress;
use message::{Answer, Kind, MAX_MESSAGE};

/// Where name servers answer.
pub(super) const PORT: u16 = 53;

/// Name servers that are asked in turn; the system's own resolver knows as many.
const MAX_SERVERS: usize = 3;

/// How often each is asked.
const TRIES: usize = 2;

/// How long one is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where a system says which name servers it has, and where it says so when that names only a server of its own, which
/// in turn asks by any way.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The system's name servers, without those on this machine.
pub(super) fn system_servers() -> Vec<SocketAddr> {
    let texts = FILES.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let servers = texts.map(|text| servers_in(&text)).find(|servers| !servers.is_empty());
    servers.unwrap_or_default()
}

fn servers_in(text: &str) -> Vec<SocketAddr> {
    let ips = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A scope names a device; there is only one that we may use.
        ip.split('%').next()?.parse::<IpAddr>().ok()
    });
    ips.filter(|ip| !ip.is_loopback()).take(MAX_SERVERS).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

/// The addresses of `name`, by asking `servers` in turn.
///
/// # Errors
/// `NotFound` if there is no such name, `TimedOut` if none of them answers; what the system says.
pub(super) async fn addresses_of(egress: &Egress, servers: &[SocketAddr], name: &str) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no name server is known");
    for _ in 0..TRIES {
        for server in servers.iter().take(MAX_SERVERS) {
            match ask(egress, *server, name).await {
                Ok(found) => return Ok(found),
                Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidInput => {
                    return Err(e);
                }
                Err(e) => last = io::Error::new(e.kind(), format!("name server {}: {e}", server.ip())),
            }
        }
    }
    Err(last)
}

/// Asks for both families at once.
async fn ask(egress: &Egress, server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let socket = open(egress, server).await?;
    let kinds = [Kind::V4, Kind::V6];
    let mut ids = [0; 2];
    for (id, kind) in ids.iter_mut().zip(kinds) {
        let [high, low, ..] = getrandom::u32().map_err(io::Error::other)?.to_be_bytes();
        *id = u16::from_be_bytes([high, low]);
        let not_a_name = || io::Error::new(io::ErrorKind::InvalidInput, "not a name");
        socket.send(&message::question(*id, name, kind).ok_or_else(not_a_name)?).await?;
    }
    let mut answers: [Option<Answer>; 2] = [None, None];
    let mut buffer = [0; MAX_MESSAGE];
    let listening = async {
        while answers.iter().any(Option::is_none) {
            let len = socket.recv(&mut buffer).await?;
            let message = buffer.get(..len).unwrap_or_default();
            for ((answer, id), kind) in answers.iter_mut().zip(ids).zip(kinds) {
                if answer.is_none() {
                    *answer = message::parse(message, id, name, kind);
                }
            }
        }
        Ok::<_, io::Error>(())
    };
    let complete = tokio::time::timeout(TIMEOUT, listening).await;
    sum_up(answers, matches!(complete, Ok(Ok(()))), complete)
}

/// One family is enough, even if the server has nothing to say about the other.
fn sum_up(
    answers: [Option<Answer>; 2],
    all: bool,
    end: Result<io::Result<()>, tokio::time::error::Elapsed>,
) -> io::Result<Vec<IpAddr>> {
    let no_such_name = answers.contains(&Some(Answer::NoSuchName));
    let failed = answers.contains(&Some(Answer::Failed));
    let found: Vec<IpAddr> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            Some(Answer::Addresses(found)) => Some(found),
            _ => None,
        })
        .flatten()
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if no_such_name {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
    }
    if all && !failed {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    match end {
        Ok(Err(e)) => Err(e),
        Ok(Ok(())) => Err(io::Error::other("it cannot say")),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

async fn open(egress: &Egress, server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from_std(egress.udp_for(server)?)?;
    // What comes from elsewhere is dropped by the system.
    socket.connect(server).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_system() {
        let text = "# made by somebody\nnameserver 127.0.0.53\nsearch lan\nnameserver 192.0.2.1\n nameserver fe80::1%eth0 x\n\
                    nameserver ::1\nnameserver nonsense\nnameservers 192.0.2.2\nnameserver";
        let expected: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()];
        assert_eq!(servers_in(text), expected);
        assert_eq!(servers_in(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
    }

    /// A name server on loopback that answers as `answer` says, given the question and its number.
    async fn server(answer: impl Fn(&[u8], usize) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            for number in 0.. {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                if let Some(answer) = answer(&buffer[..len], number) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        address
    }

    /// The question turned into an answer with one address, or none if `code` is not 0.
    fn turned(question: &[u8], code: u8) -> Vec<u8> {
        let mut answer = question[..question.len() - 11].to_vec();
        let is_v4 = answer[answer.len() - 3] == 1;
        answer[2] = 0x81;
        answer[3] = 0x80 | code;
        answer[11] = 0;
        answer[7] = u8::from(is_v4 && code == 0);
        if answer[7] == 1 {
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        answer
    }

    #[tokio::test]
    async fn names_are_found_and_not_found() {
        let egress = Egress::default();
        let good = server(|question, _| Some(turned(question, 0))).await;
        assert_eq!(addresses_of(&egress, &[good], "a.example").await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
        let none = server(|question, _| Some(turned(question, 3))).await;
        let error = addresses_of(&egress, &[none, good], "a.example").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // One that fails or speaks nonsense is passed over, and so is one that is not there.
        let lame = server(|question, _| Some(turned(question, 2))).await;
        let nobody = {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.local_addr().unwrap()
        };
        assert_eq!(addresses_of(&egress, &[lame, nobody, good], "a.example").await.unwrap().len(), 1);
        // What is not the answer is waited past.
        let noisy = server(|question, number| {
            let mut answer = turned(question, 0);
            answer[0] ^= u8::from(number < 2);
            Some(answer)
        })
        .await;
        assert_eq!(addresses_of(&egress, &[noisy], "a.example").await.unwrap().len(), 1);
        assert_eq!(addresses_of(&egress, &[good], "no name").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(addresses_of(&egress, &[], "a.example").await.is_err());
    }
}

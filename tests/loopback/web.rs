//! A web server that does what the test says, range by range.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::{Payload, loopback};

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As it came, without the query.
    pub path: String,
    pub query: Option<String>,
    /// The header `Range`.
    pub range: Option<Range<usize>>,
    /// Which request of all, from 0 on.
    pub number: usize,
    pub head: String,
}

/// What the server does about it.
pub enum Reply {
    /// Status line and headers without a length, and the body; the connection stays open.
    Whole(String, Vec<u8>),
    /// The same, but the connection is closed after so many bytes of the body.
    Cut(String, Vec<u8>, usize),
    /// Raw bytes, and then those of `more` over and over, until the client has enough.
    Endless(Vec<u8>, Vec<u8>),
    /// Bytes of a whole answer, and then nothing: the connection stays open.
    Stall(Vec<u8>),
}

/// A running server.
#[derive(Clone)]
pub struct Web {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    /// Connections that the client has closed before the server was done.
    pub cut_off: Arc<AtomicUsize>,
}

impl Web {
    pub async fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let web = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::default(),
            cut_off: Arc::default(),
        };
        let (answer, there) = (Arc::new(answer), web.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                there.connections.fetch_add(1, Ordering::Relaxed);
                let (answer, there) = (answer.clone(), there.clone());
                tokio::spawn(async move { there.serve(stream, &*answer).await });
            }
        });
        web
    }

    /// One that has the payload's files below `/pub/`, as they are.
    pub async fn of(payload: &Payload) -> Self {
        let payload = payload.clone();
        Self::new(move |asked| honest(&payload, asked)).await
    }

    /// An address on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    async fn serve(&self, mut stream: TcpStream, answer: &(impl Fn(&Asked) -> Reply + ?Sized)) {
        let _ = stream.set_nodelay(true);
        while let Some(head) = read_head(&mut stream).await {
            let asked = {
                let mut all = self.asked.lock().unwrap();
                let asked = understand(head, all.len());
                all.push(asked.clone());
                asked
            };
            let whole = |head: &str, body: &[u8]| {
                [format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
            };
            match answer(&asked) {
                Reply::Whole(head, body) => {
                    if stream.write_all(&whole(&head, &body)).await.is_err() {
                        self.cut_off.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
                Reply::Cut(head, body, after) => {
                    let bytes = whole(&head, &body);
                    let end = bytes.len() - body.len() + after;
                    let _ = stream.write_all(&bytes[..end]).await;
                    return;
                }
                Reply::Endless(first, more) => {
                    let mut gone = stream.write_all(&first).await.is_err();
                    while !gone {
                        gone = stream.write_all(&more).await.is_err();
                    }
                    self.cut_off.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Reply::Stall(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    // Until the client is tired of it.
                    let _ = stream.read_u8().await;
                    self.cut_off.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(head.len() < 16_384, "a head without end");
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn understand(head: String, number: usize) -> Asked {
    let target = head.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    let range = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(parse_range));
    Asked { path: path.to_owned(), query, range, number, head: head.clone() }
}

/// `FIRST-LAST`.
pub fn parse_range(text: &str) -> Range<usize> {
    let (first, last) = text.split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
}

/// What a proper server says about a part of `data`.
pub fn part(data: &[u8], range: Option<&Range<usize>>) -> Reply {
    match range {
        None => Reply::Whole("200 OK\r\n".into(), data.to_vec()),
        Some(range) if range.start >= data.len() => {
            Reply::Whole(format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{}\r\n", data.len()), vec![])
        }
        Some(range) => {
            let end = range.end.min(data.len());
            let head =
                format!("206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n", range.start, end - 1, data.len());
            Reply::Whole(head, data[range.start..end].to_vec())
        }
    }
}

pub fn status(status: &str) -> Reply {
    Reply::Whole(format!("{status}\r\nContent-Type: text/html\r\n"), b"<html>sorry</html>".to_vec())
}

/// A proper server of the payload's files, below `/pub/`.
pub fn honest(payload: &Payload, asked: &Asked) -> Reply {
    match find(payload, &asked.path) {
        Some(data) => part(data, asked.range.as_ref()),
        None => status("404 Not Found"),
    }
}

/// The file that a path below `/pub/` names.
pub fn find<'a>(payload: &'a Payload, path: &str) -> Option<&'a [u8]> {
    let path = String::from_utf8(unescape(path.strip_prefix("/pub/")?)).unwrap();
    payload.files().find(|(name, _)| name.to_str() == Some(&path)).map(|(_, data)| data)
}

/// The bytes that a part of an address stands for.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        if *first == b'%' {
            let (hex, more) = more.split_at(2);
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap());
            rest = more;
        } else {
            assert!(first.is_ascii_alphanumeric() || b"-._~/".contains(first), "{text}");
            bytes.push(*first);
            rest = more;
        }
    }
    bytes
}

/// A moment, for what must not happen.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

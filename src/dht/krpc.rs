//! KRPC: what goes over the wire (BEP 5, and the fields that BEP 32, 33, 42, 43, 44 and 51 add), to and from bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address::canonical;
use super::id::NodeId;
use crate::base::bencode::{Dictionary, Limits, integer, scan, string};

/// Foreign transaction ids are echoed, whatever their length up to this.
pub(super) const MAX_TRANSACTION: usize = 128;

/// Nodes that are taken from one list of an answer. Most send 8.
pub(super) const MAX_NODES: usize = 16;

/// Peers that are taken from one answer. More than 500 tokens are not read at all ([`Limits::DHT`]).
pub(super) const MAX_VALUES: usize = 200;

/// Write tokens of others; most have 4 to 20 bytes.
const MAX_TOKEN: usize = 128;

/// Text of an error that is kept.
const MAX_ERROR_TEXT: usize = 200;

/// The client, as in our peer id: `GN`, version 1.
const VERSION: &[u8; 4] = b"GN\x01\x00";

/// A generic failure.
pub(super) const ERROR_GENERIC: i64 = 201;
/// Malformed, wrong arguments, bad token.
pub(super) const ERROR_PROTOCOL: i64 = 203;
/// A query of another name.
pub(super) const ERROR_METHOD: i64 = 204;

/// A node: its id and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contact {
    /// What it calls itself.
    pub id: NodeId,
    /// Where it answers.
    pub address: SocketAddr,
}

/// One datagram.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) transaction: &'a [u8],
    /// BEP 43: the sender answers no queries.
    pub(super) read_only: bool,
    /// BEP 42: where the sender sees us.
    pub(super) seen_as: Option<SocketAddr>,
    pub(super) body: Body<'a>,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    Query { id: NodeId, query: Query<'a> },
    Response(Box<Response<'a>>),
    Error { code: i64, text: String },
}

/// Which lists of nodes an answer should have (BEP 32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query<'a> {
    Ping,
    FindNode {
        target: NodeId,
        want: Want,
    },
    GetPeers {
        info_hash: NodeId,
        want: Want,
        no_seed: bool,
        scrape: bool,
    },
    /// `port` is none when the port that the query comes from is meant.
    Announce {
        info_hash: NodeId,
        port: Option<u16>,
        seed: bool,
        token: &'a [u8],
    },
    Get {
        target: NodeId,
        seq: Option<i64>,
        want: Want,
    },
    Put(Put<'a>),
    Sample {
        target: NodeId,
        want: Want,
    },
}

/// BEP 44, `put`, as it came: nothing is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put<'a> {
    pub(super) token: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) signed: Option<Claim<'a>>,
    pub(super) cas: Option<i64>,
}

/// What a `put` says about a mutable item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim<'a> {
    pub(super) key: &'a [u8],
    pub(super) salt: &'a [u8],
    pub(super) seq: i64,
    pub(super) signature: &'a [u8],
}

/// What answers carry, all methods together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response<'a> {
    pub(super) id: Option<NodeId>,
    pub(super) nodes: Option<Vec<Contact>>,
    pub(super) nodes6: Option<Vec<Contact>>,
    pub(super) values: Vec<SocketAddr>,
    pub(super) token: Option<&'a [u8]>,
    /// BEP 44: bencoded value, key, sequence number, signature.
    pub(super) value: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) seq: Option<i64>,
    pub(super) signature: Option<&'a [u8]>,
    /// BEP 51.
    pub(super) samples: Option<&'a [u8]>,
    pub(super) sample_count: Option<i64>,
    pub(super) interval: Option<i64>,
    /// BEP 33: filters of seeds and of other peers.
    pub(super) seeds: Option<&'a [u8]>,
    pub(super) leeches: Option<&'a [u8]>,
}

/// Why a datagram cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable<'a> {
    /// Nothing that asks for an answer.
    Noise,
    /// A query that deserves an error: its transaction, the code, what is wrong.
    Query(&'a [u8], i64, &'static str),
}

impl<'a> Message<'a> {
    /// Reads one datagram.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable<'a>> {
        let message = Dictionary::parse(bytes, Limits::DHT).map_err(|_| Unreadable::Noise)?;
        let text = |key| message.raw(key).and_then(string);
        let transaction = text(b"t").filter(|t| t.len() <= MAX_TRANSACTION).ok_or(Unreadable::Noise)?;
        let body = match text(b"y") {
            Some(b"q") => parse_query(&message).map_err(|(code, why)| Unreadable::Query(transaction, code, why))?,
            Some(b"r") => parse_response(&message).ok_or(Unreadable::Noise)?,
            Some(b"e") => parse_error(&message),
            _ => return Err(Unreadable::Noise),
        };
        let read_only = message.raw(b"ro").and_then(integer) == Some(1);
        Ok(Self { transaction, read_only, seen_as: text(b"ip").and_then(endpoint), body })
    }
}

type Refusal = (i64, &'static str);

fn parse_query<'a>(message: &Dictionary<'a>) -> Result<Body<'a>, Refusal> {
    let wrong = |why| move || (ERROR_PROTOCOL, why);
    let name = message.raw(b"q").and_then(string).ok_or_else(wrong("no method"))?;
    let arguments = message.dictionary(b"a").ok().flatten().ok_or_else(wrong("no arguments"))?;
    let text = |key: &[u8]| arguments.raw(key).and_then(string);
    let number = |key: &[u8]| arguments.raw(key).and_then(integer).and_then(|n| i64::try_from(n).ok());
    let id_under = |key: &[u8]| text(key).and_then(NodeId::from_slice);
    let flag = |key: &[u8]| number(key) == Some(1);
    let id = id_under(b"id").ok_or_else(wrong("no id of 20 bytes"))?;
    let token = || text(b"token").filter(|t| t.len() <= MAX_TOKEN).ok_or_else(wrong("no token"));
    let want = want(arguments.raw(b"want"));
    let info_hash = || id_under(b"info_hash").ok_or_else(wrong("no info_hash of 20 bytes"));
    let target = || id_under(b"target").ok_or_else(wrong("no target of 20 bytes"));
    let query = match name {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode { target: target()?, want },
        b"get_peers" => {
            Query::GetPeers { info_hash: info_hash()?, want, no_seed: flag(b"noseed"), scrape: flag(b"scrape") }
        }
        b"announce_peer" => {
            let implied = number(b"implied_port").is_some_and(|n| n != 0);
            let port = if implied { Some(None) } else { number(b"port").and_then(port).map(Some) };
            Query::Announce {
                info_hash: info_hash()?,
                port: port.ok_or_else(wrong("no port"))?,
                seed: flag(b"seed"),
                token: token()?,
            }
        }
        b"get" => Query::Get { target: target()?, seq: number(b"seq"), want },
        b"put" => {
            let signed = match text(b"k") {
                None => None,
                Some(key) => {
                    let seq = number(b"seq").ok_or_else(wrong("no seq"))?;
                    let signature = text(b"sig").ok_or_else(wrong("no sig"))?;
                    Some(Claim { key, salt: text(b"salt").unwrap_or_default(), seq, signature })
                }
            };
            let value = arguments.raw(b"v").ok_or_else(wrong("no v"))?;
            Query::Put(Put { token: token()?, value, signed, cas: number(b"cas") })
        }
        b"sample_infohashes" => Query::Sample { target: target()?, want },
        // Methods to come: what names a target is answered with nodes, so that their users can find each other.
        _ => match id_under(b"target").or_else(|| id_under(b"info_hash")) {
            Some(target) => Query::FindNode { target, want },
            None => return Err((ERROR_METHOD, "unknown method")),
        },
    };
    Ok(Body::Query { id, query })
}

fn parse_response<'a>(message: &Dictionary<'a>) -> Option<Body<'a>> {
    let fields = message.dictionary(b"r").ok()??;
    let text = |key: &[u8]| fields.raw(key).and_then(string);
    let number = |key: &[u8]| fields.raw(key).and_then(integer).and_then(|n| i64::try_from(n).ok());
    let id = text(b"id").and_then(NodeId::from_slice)?;
    Some(Body::Response(Box::new(Response {
        id: Some(id),
        nodes: text(b"nodes").map(|list| contacts(list, 26)),
        nodes6: text(b"nodes6").map(|list| contacts(list, 38)),
        values: strings(fields.raw(b"values")).filter_map(endpoint).take(MAX_VALUES).collect(),
        token: text(b"token").filter(|t| t.len() <= MAX_TOKEN),
        value: fields.raw(b"v"),
        key: text(b"k"),
        seq: number(b"seq"),
        signature: text(b"sig"),
        samples: text(b"samples"),
        sample_count: number(b"num"),
        interval: number(b"interval"),
        seeds: text(b"BFsd"),
        leeches: text(b"BFpe"),
    })))
}

fn parse_error<'a>(message: &Dictionary<'_>) -> Body<'a> {
    let list = message.raw(b"e").and_then(|raw| raw.strip_prefix(b"l")).unwrap_or_default();
    let end = scan(list, Limits::DHT).map_or(0, |first| first.end);
    let code = list.get(..end).and_then(integer).and_then(|code| i64::try_from(code).ok());
    let text = list.get(end..).and_then(|rest| rest.get(..scan(rest, Limits::DHT).ok()?.end)).and_then(string);
    let text = text.unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(..MAX_ERROR_TEXT).unwrap_or(text)).into_owned();
    Body::Error { code: code.unwrap_or(ERROR_GENERIC), text }
}

/// The strings of a list that has been scanned; what is no list has none.
fn strings(list: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    let mut rest = list.and_then(|raw| raw.strip_prefix(b"l")).unwrap_or_default();
    std::iter::from_fn(move || {
        let end = scan(rest, Limits::DHT).ok()?.end;
        let (item, behind) = rest.split_at(end);
        rest = behind;
        Some(string(item).unwrap_or_default())
    })
}

fn want(list: Option<&[u8]>) -> Want {
    strings(list)
        .fold(Want::default(), |want, item| Want { v4: want.v4 || item == b"n4", v6: want.v6 || item == b"n6" })
}

fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// An address and port in 6 or 18 bytes.
fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let ip: IpAddr = match ip.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

/// Ids with their addresses, `len` bytes each; what does not fill one at the end is ignored.
fn contacts(list: &[u8], len: usize) -> Vec<Contact> {
    list.chunks_exact(len)
        .take(MAX_NODES)
        .filter_map(|entry| {
            let (id, address) = entry.split_at_checked(20)?;
            Some(Contact { id: NodeId::from_slice(id)?, address: endpoint(address)? })
        })
        .collect()
}

/// The inverse of [`endpoint`].
pub(super) fn compact(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}

/// Ids with their addresses, in a row.
pub(super) fn compact_nodes<'c>(nodes: impl IntoIterator<Item = &'c Contact>) -> Vec<u8> {
    nodes.into_iter().flat_map(|node| node.id.0.into_iter().chain(compact(node.address))).collect()
}

/// Reads what [`compact_nodes`] wrote, without a bound: for our own state.
pub(super) fn all_contacts(list: &[u8], v6: bool) -> impl Iterator<Item = Contact> + '_ {
    list.chunks_exact(if v6 { 38 } else { 26 }).flat_map(|entry| contacts(entry, entry.len()))
}

/// A dictionary under way. Keys are to be given in their order.
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn open(mut self, key: &str) -> Self {
        self.key(key);
        self.out.push(b'd');
        self
    }

    fn close(mut self) -> Self {
        self.out.push(b'e');
        self
    }

    fn key(&mut self, key: &str) {
        if !key.is_empty() {
            self.text(key.as_bytes());
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text.len().to_string().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(text);
    }

    fn string(mut self, key: &str, value: &[u8]) -> Self {
        self.key(key);
        self.text(value);
        self
    }

    fn number(mut self, key: &str, value: i64) -> Self {
        self.key(key);
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    fn raw(mut self, key: &str, value: &[u8]) -> Self {
        self.key(key);
        self.out.extend_from_slice(value);
        self
    }

    fn strings(mut self, key: &str, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.key(key);
        self.out.push(b'l');
        values.into_iter().for_each(|value| self.text(&value));
        self.out.push(b'e');
        self
    }

    /// `then`, if there is a value.
    fn maybe<T>(self, value: Option<T>, then: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => then(self, value),
            None => self,
        }
    }

    fn flag(self, key: &str, set: bool) -> Self {
        self.maybe(set.then_some(1), |w, n| w.number(key, n))
    }

    fn want(self, want: Want) -> Self {
        let list = [(want.v4, b"n4"), (want.v6, b"n6")];
        let list: Vec<_> = list.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_vec()).collect();
        self.maybe(Some(list).filter(|list| !list.is_empty()), |w, list| w.strings("want", list))
    }
}

impl Query<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::FindNode { .. } => "find_node",
            Self::GetPeers { .. } => "get_peers",
            Self::Announce { .. } => "announce_peer",
            Self::Get { .. } => "get",
            Self::Put(_) => "put",
            Self::Sample { .. } => "sample_infohashes",
        }
    }

    /// The query as a datagram.
    pub(super) fn encode(&self, transaction: &[u8], id: NodeId, read_only: bool) -> Vec<u8> {
        let w = Writer { out: Vec::with_capacity(128) }.open("").open("a");
        let w = match self {
            Self::Ping => w.string("id", &id.0),
            Self::FindNode { target, want } | Self::Sample { target, want } => {
                w.string("id", &id.0).string("target", &target.0).want(*want)
            }
            Self::GetPeers { info_hash, want, no_seed, scrape } => w
                .string("id", &id.0)
                .string("info_hash", &info_hash.0)
                .flag("noseed", *no_seed)
                .flag("scrape", *scrape)
                .want(*want),
            Self::Announce { info_hash, port, seed, token } => w
                .string("id", &id.0)
                .flag("implied_port", port.is_none())
                .string("info_hash", &info_hash.0)
                .number("port", port.unwrap_or(0).into())
                .flag("seed", *seed)
                .string("token", token),
            Self::Get { target, seq, want } => {
                w.string("id", &id.0).maybe(*seq, |w, seq| w.number("seq", seq)).string("target", &target.0).want(*want)
            }
            Self::Put(put) => {
                let claim = put.signed;
                let salt = claim.map(|claim| claim.salt).filter(|salt| !salt.is_empty());
                w.maybe(put.cas, |w, cas| w.number("cas", cas))
                    .string("id", &id.0)
                    .maybe(claim, |w, claim| w.string("k", claim.key))
                    .maybe(salt, |w, salt| w.string("salt", salt))
                    .maybe(claim, |w, claim| w.number("seq", claim.seq).string("sig", claim.signature))
                    .string("token", put.token)
                    .raw("v", put.value)
            }
        };
        let w = w.close().string("q", self.name().as_bytes()).flag("ro", read_only).string("t", transaction);
        w.string("v", VERSION).string("y", b"q").close().out
    }
}

impl Response<'_> {
    /// The answer as a datagram for the node at `to`, which learns where we see it.
    pub(super) fn encode(&self, transaction: &[u8], to: SocketAddr) -> Vec<u8> {
        let list = |nodes: &Vec<Contact>| compact_nodes(nodes);
        let values = (!self.values.is_empty()).then(|| self.values.iter().map(|address| compact(*address)));
        let w = Writer { out: Vec::with_capacity(512) }.open("").string("ip", &compact(to)).open("r");
        w.maybe(self.leeches, |w, filter| w.string("BFpe", filter))
            .maybe(self.seeds, |w, filter| w.string("BFsd", filter))
            .maybe(self.id, |w, id| w.string("id", &id.0))
            .maybe(self.interval, |w, seconds| w.number("interval", seconds))
            .maybe(self.key, |w, key| w.string("k", key))
            .maybe(self.nodes.as_ref().map(list), |w, list| w.string("nodes", &list))
            .maybe(self.nodes6.as_ref().map(list), |w, list| w.string("nodes6", &list))
            .maybe(self.sample_count, |w, count| w.number("num", count))
            .maybe(self.samples, |w, samples| w.string("samples", samples))
            .maybe(self.seq, |w, seq| w.number("seq", seq))
            .maybe(self.signature, |w, signature| w.string("sig", signature))
            .maybe(self.token, |w, token| w.string("token", token))
            .maybe(self.value, |w, value| w.raw("v", value))
            .maybe(values, |w, values| w.strings("values", values))
            .close()
            .string("t", transaction)
            .string("v", VERSION)
            .string("y", b"r")
            .close()
            .out
    }
}

/// An error as a datagram for the node at `to`.
pub(super) fn encode_error(transaction: &[u8], to: SocketAddr, code: i64, text: &str) -> Vec<u8> {
    let mut w = Writer { out: Vec::with_capacity(96) }.open("");
    w.key("e");
    w.out.push(b'l');
    let mut w = w.number("", code).string("", text.as_bytes());
    w.out.push(b'e');
    w.string("ip", &compact(to)).string("t", transaction).string("v", VERSION).string("y", b"e").close().out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: NodeId = NodeId(*b"abcdefghij0123456789");
    const OTHER: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_examples_of_bep_5_are_read() {
        let parse = |text: &'static str| Message::parse(text.as_bytes()).unwrap();
        let ping = parse("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
        assert!(matches!(ping, Message { transaction: b"aa", body: Body::Query { id: ID, query: Query::Ping }, .. }));
        let announce = parse(
            "d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456\
             4:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        );
        let Body::Query { query, .. } = announce.body else { panic!("{announce:?}") };
        assert_eq!(query, Query::Announce { info_hash: OTHER, port: None, seed: false, token: b"aoeusnth" });
        let peers = parse("d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re");
        let Body::Response(answer) = peers.body else { panic!("{peers:?}") };
        assert_eq!((answer.id, answer.token, answer.values.len()), (Some(ID), Some(&b"aoeusnth"[..]), 2));
        let error = parse("d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee");
        assert!(matches!(&error.body, Body::Error { code: 201, text } if text == "A Generic Error Ocurred"));
    }

    #[test]
    fn queries_come_back_as_they_were_and_are_canonical() {
        let want = Want { v4: true, v6: true };
        let signed = Claim { key: &[1; 32], salt: b"salt", seq: 7, signature: &[2; 64] };
        let none = Want::default();
        let queries = [
            Query::Ping,
            Query::FindNode { target: OTHER, want },
            Query::GetPeers { info_hash: OTHER, want: none, no_seed: true, scrape: true },
            Query::Announce { info_hash: OTHER, port: Some(6881), seed: true, token: b"tok" },
            Query::Announce { info_hash: OTHER, port: None, seed: false, token: b"tok" },
            Query::Get { target: OTHER, seq: Some(-3), want },
            Query::Put(Put { token: b"tok", value: b"12:Hello World!", signed: None, cas: None }),
            Query::Put(Put { token: b"tok", value: b"de", signed: Some(signed), cas: Some(6) }),
            Query::Sample { target: OTHER, want: none },
        ];
        for query in queries {
            let bytes = query.encode(b"tid", ID, true);
            assert!(scan(&bytes, Limits::DHT).unwrap().canonical, "{}", bytes.escape_ascii());
            let message = Message::parse(&bytes).unwrap();
            assert!(message.read_only && message.transaction == b"tid");
            let Body::Query { id: ID, query: read } = message.body else { panic!("{message:?}") };
            assert_eq!(read, query);
        }
    }

    #[test]
    fn answers_come_back_as_they_were_and_are_canonical() {
        let response = Response {
            id: Some(ID),
            nodes: Some(vec![Contact { id: OTHER, address: at("1.2.3.4:5") }]),
            nodes6: Some(vec![Contact { id: OTHER, address: at("[2600::1]:5") }]),
            values: vec![at("4.3.2.1:1"), at("4.3.2.2:2")],
            token: Some(b"token"),
            value: Some(b"i5e"),
            key: Some(&[1; 32]),
            seq: Some(4),
            signature: Some(&[2; 64]),
            samples: Some(&[3; 40]),
            sample_count: Some(2),
            interval: Some(60),
            seeds: Some(&[4; 256]),
            leeches: Some(&[5; 256]),
        };
        let bytes = response.encode(b"", at("9.8.7.6:54"));
        assert!(scan(&bytes, Limits::DHT).unwrap().canonical, "{}", bytes.escape_ascii());
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.seen_as, Some(at("9.8.7.6:54")));
        let Body::Response(read) = message.body else { panic!("{message:?}") };
        assert_eq!(*read, response);
        let bytes = encode_error(b"x", at("9.8.7.6:54"), 203, "bad token");
        assert!(scan(&bytes, Limits::DHT).unwrap().canonical);
        let message = Message::parse(&bytes).unwrap();
        assert!(matches!(message.body, Body::Error { code: 203, text } if text == "bad token"));
    }

    #[test]
    fn wrong_queries_get_the_right_error_and_noise_none() {
        let code = |text: &'static str| match Message::parse(text.as_bytes()) {
            Err(Unreadable::Query(b"aa", code, _)) => code,
            Err(Unreadable::Noise) => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(code("d1:ad2:id20:abcdefghij0123456789e1:q5:xxxxx1:t2:aa1:y1:qe"), 204);
        assert_eq!(code("d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe"), 203);
        assert_eq!(code("d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe"), 203);
        assert_eq!(code("d1:q4:ping1:t2:aa1:y1:qe"), 203);
        assert_eq!(code("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:qe"), 0);
        assert_eq!(code("d1:rde1:t2:aa1:y1:re"), 0);
        assert_eq!(code("le"), 0);
        for deep in [b"l".repeat(2_000), b"d1:a".repeat(500), b"d1:ad2:id20:abcdefghij01234567891:x".repeat(40)] {
            assert!(matches!(Message::parse(&deep), Err(Unreadable::Noise)));
        }
        // A method to come that names a target is answered with nodes.
        let later = "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q5:later1:t2:aa1:y1:qe";
        let message = Message::parse(later.as_bytes()).unwrap();
        assert!(matches!(message.body, Body::Query { query: Query::FindNode { target: OTHER, .. }, .. }));
    }

    #[test]
    fn lists_are_bounded() {
        let list = vec![Contact { id: OTHER, address: at("1.2.3.4:5") }; 25];
        let response = Response { id: Some(ID), nodes: Some(list), ..Response::default() };
        let bytes = response.encode(b"t", at("1.1.1.1:1"));
        let Body::Response(read) = Message::parse(&bytes).unwrap().body else { panic!() };
        assert_eq!(read.nodes.unwrap().len(), MAX_NODES);
        let response = Response { id: Some(ID), values: vec![at("1.2.3.4:5"); 400], ..Response::default() };
        let bytes = response.encode(b"t", at("1.1.1.1:1"));
        let Body::Response(read) = Message::parse(&bytes).unwrap().body else { panic!() };
        assert_eq!(read.values.len(), MAX_VALUES);
    }

    proptest! {
        /// Whatever comes, it is read or refused; what is changed in a sound datagram does no harm either.
        #[test]
        fn nothing_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200, byte: u8) {
            let _ = Message::parse(&noise);
            let want = Want { v4: true, v6: false };
            let mut bytes = Query::Get { target: OTHER, seq: Some(1), want }.encode(b"tt", ID, false);
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = Message::parse(&bytes);
            let _ = Message::parse(&bytes[..at % len]);
        }
    }
}

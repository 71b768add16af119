//! Strangers who break the rules. Whatever they do, the session lives, what it has stays right, and honest peers are
//! served.

use std::time::{Duration, Instant};

use gannet::session::{State, Torrent};
use gannet::wire::{Message, Reserved};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fake::{Ear, Fake, Hello, Said, piece};
use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, until, why_closed, within};

/// A lab with a seeder of 64 pieces of 64 KiB.
async fn seeding(lab: &Lab) -> (Node, Torrent, Payload) {
    let payload = Payload::file("data", 4 * MIB);
    let node = lab.node("seeder").await;
    let torrent = node.seed(&payload).await;
    (node, torrent, payload)
}

/// The session still serves an honest peer, nobody else is left, and its data is as it was.
async fn assert_well(lab: &Lab, node: &Node, torrent: &Torrent, payload: &Payload) {
    until("all strangers are gone", || torrent.status().peers == 0).await;
    let folder = lab.folder("honest");
    let honest = lab.node("honest").await;
    let get = honest.get(payload, &[node.address()]).await;
    done(&get).await;
    payload.assert_in(&folder);
    payload.assert_in(&node.folder);
    assert_eq!(torrent.status().state, State::Seeding);
    honest.stop().await;
    within(Duration::from_secs(5), "clean stop", node.stop()).await;
}

/// W1: the deadline is for the whole handshake, however it trickles in. The one test that waits for ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w1_handshakes_that_never_end() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let start = Instant::now();
    let mut sockets = JoinSet::new();
    for n in 0..60usize {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        let hello = Hello::new(&payload).bytes();
        sockets.spawn(async move {
            // Nothing; 67 of 68 bytes; a byte every three seconds.
            match n % 3 {
                0 => {}
                1 => stream.write_all(&hello[..67]).await.unwrap(),
                _ => stream.write_all(&hello[..1]).await.unwrap(),
            }
            let (mut read, mut write) = stream.into_split();
            let trickle = async {
                for byte in hello.get(1..).unwrap_or_default() {
                    if n % 3 != 2 || write.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                std::future::pending::<()>().await;
            };
            let end = async {
                let mut sink = [0; 256];
                while matches!(read.read(&mut sink).await, Ok(n) if n > 0) {}
            };
            tokio::select! { () = trickle => {}, () = end => {} }
            start.elapsed()
        });
    }
    // Meanwhile others get in.
    let mut honest = Fake::dial(node.address(), &payload).await;
    honest.get_in().await;
    assert_eq!(honest.fetch(1, 0, 16384).await.as_deref(), Some(payload.block(1, 0, 16384)));
    drop(honest);
    while let Some(closed) = within(PATIENCE, "all are closed", sockets.join_next()).await {
        let after = closed.unwrap();
        assert!((Duration::from_secs(9)..Duration::from_secs(16)).contains(&after), "closed after {after:?}");
    }
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W2: another protocol, another torrent, ourselves, the same peer twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w2_handshakes_that_are_wrong() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let good = Hello::new(&payload).bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] ^= byte;
        bytes
    };
    for (what, bytes) in [
        ("protocol length", with(0, 1)),
        ("protocol", with(5, 0x20)),
        ("info-hash", with(47, 1)),
        ("HTTP", *b"GET /announce HTTP/1.1\r\nHost: localhost\r\nUser-Agent: some/1.00.0\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        // What is no handshake may still become an encrypted one: that nothing follows has to be said.
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // With unread bytes the system may make it a RST.
        let _ = within(SOON, what, stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{what} was answered");
    }
    // Our own id.
    let mut hello = Hello::new(&payload);
    let first = Fake::dial_as(node.address(), &hello).await.unwrap();
    hello.peer_id = first.theirs.peer_id.0;
    drop(first);
    let mut echo = Fake::dial_as(node.address(), &hello).await.unwrap();
    assert_eq!(echo.until_closed().await, []);
    // The same id twice: the first stays.
    let hello = Hello::new(&payload);
    let mut first = Fake::dial_as(node.address(), &hello).await.unwrap();
    first.get_in().await;
    let mut second = Fake::dial_as(node.address(), &hello).await.unwrap();
    assert_eq!(second.until_closed().await, []);
    assert_eq!(first.fetch(0, 0, 100).await.as_deref(), Some(payload.block(0, 0, 100)));
    drop(first);
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W2: a torrent whose tracker names itself does not stay connected to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w2_we_do_not_talk_to_ourselves() {
    let lab = Lab::new();
    let payload = Payload::file("self", MIB);
    let node = lab.node_with("node", |config| config.listen = vec![(std::net::Ipv4Addr::UNSPECIFIED, 0).into()]).await;
    let own = (std::net::Ipv4Addr::LOCALHOST, node.address().port()).into();
    let torrent = node.get(&payload, &[own]).await;
    // The dial is over when the address is known as ours: there is nobody left to try.
    until("it is found out", || torrent.status().cause.as_deref() == Some("no peers known")).await;
    assert_eq!(torrent.status().peers, 0);
}

/// W3, W4: lengths that no message has are refused at the prefix, before the bytes come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w3_w4_lengths_that_cannot_be() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut frames: Vec<(u32, Option<u8>)> = vec![(0xffff_ffff, None), (0x8000_0000, None), ((1 << 20) + 1, None)];
    for id in (0..=9).chain(13..=17).chain(20..=23).chain([0x55, 0xff]) {
        frames.push(((1 << 20) + 1, Some(id)));
        frames.push((0xffff_ffff, Some(id)));
    }
    for (id, len) in
        [(0, 1), (1, 1), (2, 1), (3, 1), (4, 5), (6, 13), (8, 13), (9, 3), (13, 5), (14, 1), (15, 1), (16, 13), (17, 5)]
    {
        frames.push((len + 1, Some(id)));
        frames.extend((len > 1).then_some((len - 1, Some(id))));
    }
    frames.extend([
        (8, Some(7)),
        (16 * 1024 + 10, Some(7)),
        (1, Some(20)),
        (65_538 + 65_536, Some(20)),
        (1, Some(21)),
        (48, Some(22)),
        (60, Some(22)),
    ]);
    let mut closing = JoinSet::new();
    for (len, id) in frames {
        let mut fake = Fake::dial(node.address(), &payload).await;
        closing.spawn(async move {
            let mut bytes = len.to_be_bytes().to_vec();
            bytes.extend(id);
            fake.raw(&bytes).await;
            // Refused without a byte of the payload.
            within(SOON, &format!("message {id:?} of {len} bytes is refused"), async {
                while fake.hear().await.is_some() {}
            })
            .await;
        });
        if closing.len() > 20 {
            closing.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(closed) = closing.join_next().await {
        closed.unwrap();
    }
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W5, W6, W7, W18: numbers that name no place in the torrent end the connection; so does the fast extension where it
/// was not agreed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w5_w6_w7_numbers_out_of_range() {
    let lab = Lab::new();
    let payload = Payload::file("odd", 4 * MIB - 70_000); // 63 pieces, the last one short: a spare bit.
    let node = lab.node("seeder").await;
    let torrent = node.seed(&payload).await;
    let pieces = payload.pieces();
    assert_eq!(pieces, 63);
    let last = u32::try_from(payload.size() % (64 * KIB as u64)).unwrap();
    let request = |index, begin, len| Message::Request { index, begin, len };
    let slow = Reserved::NONE;
    let fast = Reserved::NONE.with_fast();
    let cases: Vec<(Reserved, Message<'_>)> = vec![
        (fast, Message::Bitfield(&[0xff; 7])),
        (fast, Message::Bitfield(&[0xff; 9])),
        (fast, Message::Bitfield(&[0xff; 8])),
        (fast, Message::Have(pieces)),
        (fast, Message::Have(1 << 31)),
        (fast, Message::Have(u32::MAX)),
        (fast, Message::Suggest(pieces)),
        (fast, Message::AllowedFast(u32::MAX)),
        (fast, request(0, 0, 0)),
        (fast, request(0, 0, 16 * 1024 + 1)),
        (fast, request(0, 0, 1 << 31)),
        (fast, request(0, u32::MAX - 8, 16)),
        (fast, request(0, 64 * 1024 - 16, 17)),
        (fast, request(pieces - 1, last - 16, 17)),
        (fast, request(pieces, 0, 1)),
        (fast, request(u32::MAX, u32::MAX, u32::MAX)),
        (fast, Message::Cancel { index: pieces, begin: 0, len: 1 }),
        (fast, Message::Reject { index: pieces, begin: 0, len: 1 }),
        (slow, Message::HaveAll),
        (slow, Message::HaveNone),
        (slow, Message::Suggest(0)),
        (slow, Message::AllowedFast(0)),
        (slow, Message::Reject { index: 0, begin: 0, len: 1 }),
    ];
    for (reserved, message) in cases {
        let hello = Hello::new(&payload).reserved(reserved);
        let mut fake = Fake::dial_as(node.address(), &hello).await.unwrap();
        fake.say(&message).await;
        within(SOON, &format!("{message:?} ends the connection"), async { while fake.hear().await.is_some() {} }).await;
    }
    // What is right at the very edge is served; a second bitfield is taken for the latest word, as aria2 means it.
    let mut fake = Fake::dial(node.address(), &payload).await;
    let mut bits = [0xff; 8];
    bits[7] = 0xfe;
    for bits in [[0; 8], bits, [0; 8]] {
        fake.say(&Message::Bitfield(&bits)).await;
    }
    fake.get_in().await;
    let edge = fake.fetch(pieces - 1, last - 16, 16).await;
    assert_eq!(edge.as_deref(), Some(payload.block(pieces - 1, last - 16, 16)));
    drop(fake);
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W7: a piece that we lack is rejected; more requests than any queue holds end the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w7_requests_for_too_much() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut fake = Fake::dial_narrow(node.address(), &Hello::new(&payload)).await.unwrap();
    fake.get_in().await;
    let mut flood = Vec::new();
    for n in 0..10_000u32 {
        Message::Request { index: n % 64, begin: 0, len: 16 << 10 }.encode_into(&mut flood);
    }
    let (mut events, address) = (torrent.events(), fake.address());
    fake.raw(&flood).await;
    assert_eq!(why_closed(&mut events, address).await, "asked for too much at once");
    drop(fake);

    let empty = lab.node("empty").await;
    let lacking = empty.get(&payload, &[]).await;
    until("it listens", || lacking.status().state == State::Downloading).await;
    let mut fake = Fake::dial(empty.address(), &payload).await;
    fake.get_in().await;
    assert_eq!(fake.until_rejected(3, 0, 16 << 10).await, Some(vec![]));
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W8: asking while choked gets a `reject` each time, and the door after 300 times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w8_requests_while_choked() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut events = torrent.events();
    let mut fake = Fake::dial(node.address(), &payload).await;
    let address = fake.address();
    let index = 0;
    fake.hear_until(|said| matches!(said, Said::HaveAll).then_some(())).await.unwrap();
    // Those in the first seconds are excused as long as a `choke` could have crossed them.
    let rejected = async {
        let mut rejected = 0;
        while fake.say(&Message::Request { index, begin: 0, len: 16 << 10 }).await {
            match fake.hear().await {
                Some(Said::Reject(i, 0, 16384)) if i == index => rejected += 1,
                None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
        rejected
    };
    let rejected = within(PATIENCE, "the door", rejected).await;
    assert!(rejected >= 300, "{rejected}");
    assert_eq!(why_closed(&mut events, address).await, "kept asking for what it cannot have");
    assert_eq!(torrent.status().uploaded, 0);
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W9: a peer that asks for 32 MB and reads nothing costs a few hundred kilobytes, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w9_a_peer_that_never_reads() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut fake = Fake::dial_narrow(node.address(), &Hello::new(&payload)).await.unwrap();
    fake.get_in().await;
    let mut requests = Vec::new();
    for n in 0..1_900u32 {
        Message::Request { index: n % 64, begin: 0, len: 16 << 10 }.encode_into(&mut requests);
    }
    assert!(fake.raw(&requests).await);
    let mut before = 0;
    let mut still = Instant::now();
    until("nothing moves any more", || {
        let now = torrent.status().uploaded;
        if now != before {
            (before, still) = (now, Instant::now());
        }
        still.elapsed() > Duration::from_millis(300)
    })
    .await;
    // What left us went into the buffers of the sockets.
    assert!((1..12 * MIB as u64).contains(&before), "{before} bytes");
    assert_eq!(torrent.status().peers, 1);
    let honest = lab.node("other").await;
    done(&honest.get(&payload, &[node.address()]).await).await;
    assert_eq!(torrent.status().uploaded - before, payload.size());
    drop(fake);
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W14: changing one's mind a thousand times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w14_floods_of_changes_of_mind() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut events = torrent.events();
    for pair in [
        [Message::Interested, Message::NotInterested],
        [Message::Unchoke, Message::Choke],
        [Message::HaveAll, Message::HaveNone],
    ] {
        let mut fake = Fake::dial(node.address(), &payload).await;
        let address = fake.address();
        let mut flood = Vec::new();
        for message in pair.iter().cycle().take(10_000) {
            message.encode_into(&mut flood);
        }
        fake.raw(&flood).await;
        let reason = why_closed(&mut events, address).await;
        assert!(reason.starts_with("flooded us"), "{reason}");
    }
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W15: what we do not know is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w15_unknown_messages_and_bits() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let hello = Hello::new(&payload).reserved(Reserved([0xff; 8]));
    let mut fake = Fake::dial_as(node.address(), &hello).await.unwrap();
    fake.get_in().await;
    for id in [10, 11, 12, 18, 19, 24, 100, 0xff] {
        fake.raw(&[0, 0, 0, 5, id, 1, 2, 3, 4]).await;
        fake.raw(&[0, 0, 0, 1, id]).await;
    }
    // 128 KiB of something, in one frame.
    let mut large = (1 + (128u32 << 10)).to_be_bytes().to_vec();
    large.push(99);
    large.resize(5 + (128 << 10), 7);
    fake.raw(&large).await;
    for id in [6, 7, 99, 255] {
        fake.say(&Message::Extended { id, payload: b"garbage" }).await;
    }
    fake.say(&Message::Port(6881)).await;
    fake.say(&Message::KeepAlive).await;
    assert_eq!(fake.fetch(9, 5, 1000).await.as_deref(), Some(payload.block(9, 5, 1000)));
    // An extension handshake has to be one, however.
    fake.say(&Message::Extended { id: 0, payload: b"garbage" }).await;
    fake.until_closed().await;
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W16: where messages are cut apart, or glued together, makes no difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w16_every_byte_by_itself() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    // As a leecher, handshake included.
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut ours = Hello::new(&payload).bytes().to_vec();
    Message::HaveNone.encode_into(&mut ours);
    Message::Interested.encode_into(&mut ours);
    let mut requests = Vec::new();
    for n in 0..8 {
        Message::Request { index: 2 * n, begin: n, len: 1000 + n }.encode_into(&mut requests);
    }
    let unchoke = [0, 0, 0, 1, 1];
    let expected: Vec<u8> = (0..8).flat_map(|n| piece(2 * n, n, payload.block(2 * n, n, 1000 + n))).collect();
    let talk = async {
        for byte in &ours {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let mut heard = vec![0; 68];
        stream.read_exact(&mut heard).await.unwrap();
        while !heard.ends_with(&unchoke) {
            heard.push(stream.read_u8().await.unwrap());
        }
        for byte in &requests {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer == expected);
    };
    within(PATIENCE, "byte by byte", talk).await;
    drop(stream);

    // As a seeder: the first piece byte by byte, the rest in one go.
    let small = Payload::file("small", 5 * 16 * KIB);
    let leecher = lab.node("leecher").await;
    let ear = Ear::new().await;
    let get = leecher.get(&small, &[ear.address]).await;
    let mut fake = ear.accept(&Hello::new(&small)).await;
    let mut hello = Vec::new();
    Message::HaveAll.encode_into(&mut hello);
    Message::Unchoke.encode_into(&mut hello);
    for byte in hello {
        fake.raw(&[byte]).await;
    }
    let mut asked = Vec::new();
    while asked.len() < 5 {
        match fake.hear().await.expect("requests") {
            Said::Request(index, begin, len) if !asked.contains(&(index, begin, len)) => {
                asked.push((index, begin, len))
            }
            Said::Request(..) => panic!("asked twice"),
            _ => {}
        }
        // The window may open only when something comes.
        if asked.len() == 1 {
            let (index, begin, len) = asked[0];
            for byte in piece(index, begin, small.block(index, begin, len)) {
                fake.raw(&[byte]).await;
            }
        }
    }
    let rest: Vec<u8> = asked[1..].iter().flat_map(|(i, b, l)| piece(*i, *b, small.block(*i, *b, *l))).collect();
    fake.raw(&rest).await;
    done(&get).await;
    small.assert_in(&leecher.folder);
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W17: 500 connections that are reset at once, before and after the handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w17_a_storm_of_resets() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    for n in 0..500usize {
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let hello = Hello::new(&payload).bytes();
        stream.try_write(&hello[..n % 69]).ok();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_well(&lab, &node, &torrent, &payload).await;
}

/// W18: pieces out of turn are given at most three times; rejects for what was never asked are nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w18_abuse_of_the_fast_extension() {
    let lab = Lab::new();
    let (node, torrent, payload) = seeding(&lab).await;
    let mut fake = Fake::dial(node.address(), &payload).await;
    for _ in 0..20 {
        fake.say(&Message::Reject { index: 3, begin: 0, len: 16 << 10 }).await;
        fake.say(&Message::Suggest(3)).await;
        fake.say(&Message::AllowedFast(3)).await;
        fake.say(&Message::Cancel { index: 3, begin: 0, len: 16 << 10 }).await;
    }
    fake.get_in().await;
    assert_eq!(fake.fetch(3, 0, 100).await.as_deref(), Some(payload.block(3, 0, 100)));
    drop(fake);

    // A seeder that rejects everything, twice, and then changes its mind.
    let leecher = lab.node("leecher").await;
    let small = Payload::file("few", 128 * KIB);
    let ear = Ear::new().await;
    let get = leecher.get(&small, &[ear.address]).await;
    let mut fake = ear.accept(&Hello::new(&small)).await;
    fake.say(&Message::HaveAll).await;
    fake.say(&Message::Unchoke).await;
    let start = Instant::now();
    let serve = async {
        let mut asked = 0;
        while let Some(said) = fake.hear().await {
            let Said::Request(index, begin, len) = said else { continue };
            asked += 1;
            if start.elapsed() < Duration::from_millis(500) {
                fake.say(&Message::Reject { index, begin, len }).await;
                fake.say(&Message::Reject { index, begin, len }).await;
            } else {
                fake.give(index, begin, small.block(index, begin, len)).await;
            }
        }
        asked
    };
    let (asked, ()) = tokio::join!(serve, done(&get));
    assert!(asked < 200, "asked {asked} times for 8 blocks: rejects are not answered with requests at once");
    small.assert_in(&leecher.folder);
    assert_well(&lab, &node, &torrent, &payload).await;
}

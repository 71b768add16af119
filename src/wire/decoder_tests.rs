//! The properties that the decoder owes: the same items whatever the reads, bounds at the prefix, one copy at most.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::base::{BLOCK_LEN, BlockPool};
use crate::wire::frame::id;
use crate::wire::{HashRequest, MAX_BITFIELD_LEN, MAX_EXTENDED_LEN, MAX_SKIPPED_LEN};

/// The most that a decoder may ever hold: the longest frame.
const CEILING: usize = MAX_BITFIELD_LEN as usize + 5;

/// An item without its borrow.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A message, encoded again.
    Message(Vec<u8>),
    Header(PieceHeader),
    Body(Vec<u8>),
}

/// Feeds `stream` in reads that are at most as long as `splits` says, in turn, and answers headers as `wanted` says.
fn decode(stream: &[u8], splits: &[usize], wanted: &[bool]) -> Result<Vec<Seen>, (Vec<Seen>, DecodeError)> {
    decode_expecting(stream, splits, wanted, &[])
}

/// The same, with `guesses` about which blocks come, in this order.
fn decode_expecting(
    stream: &[u8],
    splits: &[usize],
    wanted: &[bool],
    guesses: &[PieceHeader],
) -> Result<Vec<Seen>, (Vec<Seen>, DecodeError)> {
    let mut decoder = Decoder::new(None);
    let mut pool = BlockPool::new(u64::from(BLOCK_LEN) * 20);
    let mut guesses: VecDeque<PieceHeader> = guesses.iter().copied().collect();
    let (mut splits, mut wanted) = (splits.iter().cycle(), wanted.iter().cycle());
    let (mut seen, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let read = splits.next().map_or(1, |n| *n).clamp(1, rest.len());
        let begun = decoder.reset_expected();
        for guess in guesses.iter().filter(|guess| Some(**guess) != begun).take(3) {
            let mut buf = decoder.take_spare().or_else(|| pool.take(guess.len)).unwrap();
            buf.set_len(guess.len);
            decoder.expect(*guess, buf);
        }
        while let Some(buf) = decoder.take_spare() {
            pool.give(buf);
        }
        let fed = decoder.feed(&rest[..read]);
        assert!(fed > 0, "a drained decoder takes more");
        rest = &rest[fed..];
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(Item::Message(message))) => {
                    let mut bytes = Vec::new();
                    message.encode_into(&mut bytes);
                    seen.push(Seen::Message(bytes));
                }
                Ok(Some(Item::PieceHeader(header))) => {
                    seen.push(Seen::Header(header));
                    guesses.retain(|guess| *guess != header);
                    match wanted.next() {
                        Some(true) => decoder.receive(pool.take(header.len).unwrap()).unwrap(),
                        Some(false) => decoder.discard(),
                        // No answer is an answer too.
                        None => {}
                    }
                }
                Ok(Some(Item::Body(buf))) => {
                    seen.push(Seen::Body(buf.as_slice().to_vec()));
                    pool.give(buf);
                }
                Err(error) => {
                    assert_eq!(decoder.next().unwrap_err(), error, "it stays failed");
                    assert_eq!(decoder.feed(b"more"), 0, "and takes nothing");
                    return Err((seen, error));
                }
            }
        }
        assert!(decoder.capacity() <= CEILING);
    }
    let begun = decoder.reset_expected();
    while let Some(buf) = decoder.take_spare() {
        pool.give(buf);
    }
    let under_way = decoder.receiving().is_some() || begun.is_some();
    assert!(under_way || pool.lent() == 0, "a buffer was lost");
    Ok(seen)
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode_into(&mut bytes);
    bytes
}

fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len() + 1).unwrap().to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend_from_slice(payload);
    bytes
}

fn piece(index: u32, begin: u32, body: &[u8]) -> Vec<u8> {
    frame(id::PIECE, &[&index.to_be_bytes(), &begin.to_be_bytes(), body].concat())
}

/// One frame of any kind, and what is to be seen of it if its body is wanted.
fn any_frame() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
    let body = || prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..200), 1 => large_body(16_384)];
    let request =
        any::<([u8; 32], u32, u32, u32, u32)>().prop_map(|(pieces_root, base_layer, index, length, layers)| {
            HashRequest { pieces_root, base_layer, index, length, proof_layers: layers }
        });
    let message = prop_oneof![
        prop::sample::select(vec![
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::HaveAll,
            Message::HaveNone,
            Message::Unknown(10),
            Message::Unknown(255),
        ])
        .prop_map(|m| encode(&m)),
        any::<u32>().prop_map(|i| encode(&Message::Have(i))),
        any::<u32>().prop_map(|i| encode(&Message::Suggest(i))),
        any::<u32>().prop_map(|i| encode(&Message::AllowedFast(i))),
        any::<u16>().prop_map(|p| encode(&Message::Port(p))),
        any::<[u32; 3]>().prop_map(|[index, begin, len]| encode(&Message::Request { index, begin, len })),
        any::<[u32; 3]>().prop_map(|[index, begin, len]| encode(&Message::Cancel { index, begin, len })),
        any::<[u32; 3]>().prop_map(|[index, begin, len]| encode(&Message::Reject { index, begin, len })),
        prop_oneof![body(), large_body(MAX_BITFIELD_LEN as usize)].prop_map(|b| encode(&Message::Bitfield(&b))),
        (any::<u8>(), prop_oneof![body(), large_body(MAX_EXTENDED_LEN as usize - 1)])
            .prop_map(|(id, payload)| encode(&Message::Extended { id, payload: &payload })),
        request.clone().prop_map(|r| encode(&Message::HashRequest(r))),
        request.clone().prop_map(|r| encode(&Message::HashReject(r))),
        (request, 0usize..546).prop_map(|(request, n)| encode(&Message::Hashes { request, hashes: &vec![9; n * 32] })),
    ]
    .prop_map(|bytes| (bytes.clone(), vec![Seen::Message(bytes)]));
    let skipped = prop_oneof![
        (prop::sample::select(vec![10, 11, 12, 18, 19, 24, 99, 255]), body())
            .prop_map(|(id, payload)| (frame(id, &payload), vec![Seen::Message(encode(&Message::Unknown(id)))])),
        // An extended message that is too long to be kept, but not to be passed over.
        (MAX_EXTENDED_LEN + 1..=MAX_SKIPPED_LEN).prop_map(|len| {
            (frame(id::EXTENDED, &vec![3; len as usize]), vec![Seen::Message(encode(&Message::Unknown(id::EXTENDED)))])
        }),
    ];
    let block = (any::<u32>(), any::<u32>(), body()).prop_map(|(index, begin, body)| {
        let header = PieceHeader { index, begin, len: u32::try_from(body.len()).unwrap() };
        (piece(index, begin, &body), vec![Seen::Header(header), Seen::Body(body)])
    });
    prop_oneof![6 => message, 1 => skipped, 5 => block]
}

/// Up to `max` bytes, cheap to make.
fn large_body(max: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..=max, any::<u8>())
        .prop_map(|(len, seed)| (0..len).map(|i| seed.wrapping_add((i % 251).to_le_bytes()[0])).collect())
}

fn splits() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..40, 1..20),
        prop::collection::vec(1usize..100_000, 1..10),
        Just(vec![usize::MAX])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// W16: any split of any stream gives the same items, and wanted bodies arrive as they were sent.
    #[test]
    fn splits_do_not_matter(
        frames in prop::collection::vec(any_frame(), 1..12),
        splits in splits(),
        wanted in prop::collection::vec(any::<bool>(), 0..8),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut answers = wanted.iter().cycle();
        let mut expected = Vec::new();
        for (_, items) in frames {
            match items.as_slice() {
                [header @ Seen::Header(_), body] => {
                    expected.push(header.clone());
                    if answers.next() == Some(&true) {
                        expected.push(body.clone());
                    }
                }
                other => expected.extend_from_slice(other),
            }
        }
        prop_assert_eq!(decode(&stream, &splits, &wanted).unwrap(), expected);
    }

    /// Nor do guesses about what comes, right, wrong or in another order; nor is a buffer lost.
    #[test]
    fn guesses_do_not_matter(
        frames in prop::collection::vec(any_frame(), 1..12),
        splits in splits(),
        wanted in prop::collection::vec(any::<bool>(), 0..8),
        skipped in prop::collection::vec(0u8..8, 12),
        swapped in any::<bool>(),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let header = |(_, items): &(Vec<u8>, Vec<Seen>)| match items.first() {
            Some(Seen::Header(header)) => Some(*header),
            _ => None,
        };
        let mut guesses: Vec<PieceHeader> =
            frames.iter().zip(&skipped).filter(|(_, skip)| **skip > 0).filter_map(|(frame, _)| header(frame)).collect();
        if swapped && guesses.len() > 1 {
            guesses.swap(0, 1);
        }
        prop_assert_eq!(
            decode_expecting(&stream, &splits, &wanted, &guesses),
            decode(&stream, &splits, &wanted)
        );
    }

    /// Bytes of no protocol: no panic, no growth, and the same verdict whatever the reads.
    #[test]
    fn any_bytes(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        // Prefixes that look sound lead deeper than random ones.
        fronts in prop::collection::vec((0u32..40, 0u8..25), 0..20),
        splits in splits(),
        wanted in prop::collection::vec(any::<bool>(), 0..8),
    ) {
        let mut stream = Vec::new();
        for (i, (len, id)) in fronts.into_iter().enumerate() {
            stream.extend_from_slice(&len.to_be_bytes());
            stream.push(id);
            stream.extend(noise.iter().skip(i * 7).take(len.saturating_sub(1) as usize));
        }
        stream.extend_from_slice(&noise);
        prop_assert_eq!(decode(&stream, &splits, &wanted), decode(&stream, &[usize::MAX], &wanted));
    }
}

/// W4: every fixed message with another length is refused at its id, before its payload.
#[test]
fn fixed_messages_have_one_length() {
    let fixed = [
        (id::CHOKE, 0),
        (id::UNCHOKE, 0),
        (id::INTERESTED, 0),
        (id::NOT_INTERESTED, 0),
        (id::HAVE, 4),
        (id::REQUEST, 12),
        (id::CANCEL, 12),
        (id::PORT, 2),
        (id::SUGGEST, 4),
        (id::HAVE_ALL, 0),
        (id::HAVE_NONE, 0),
        (id::REJECT, 12),
        (id::ALLOWED_FAST, 4),
        (id::HASH_REQUEST, 48),
        (id::HASH_REJECT, 48),
    ];
    for (id, payload) in fixed {
        assert!(decode(&frame(id, &vec![0; payload]), &[1], &[]).is_ok(), "message {id}");
        let len = u32::try_from(payload).unwrap() + 1;
        for wrong in [len - 1, len + 1, 1_000, MAX_BITFIELD_LEN] {
            // A frame of no bytes is a keep-alive, whatever comes next.
            if wrong > 0 {
                let front = [&wrong.to_be_bytes()[..], &[id]].concat();
                assert_eq!(decode(&front, &[5], &[]), Err((vec![], DecodeError::Length { id, len: wrong })));
            }
        }
    }
}

/// Messages of many lengths: the last that is right and the first that is wrong.
#[test]
fn other_messages_have_bounds() {
    let bounds = [
        (id::PIECE, 9, 9 + BLOCK_LEN),
        (id::BITFIELD, 1, 1 + MAX_BITFIELD_LEN),
        (id::EXTENDED, 2, 1 + MAX_SKIPPED_LEN),
        (id::HASHES, 49, 49 + 32 * 546),
        (10, 1, 1 + MAX_SKIPPED_LEN),
        (255, 1, 1 + MAX_SKIPPED_LEN),
    ];
    for (id, least, most) in bounds {
        for (len, fits) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            let front = [&len.to_be_bytes()[..], &[id]].concat();
            assert_eq!(decode(&front, &[1], &[]).is_ok(), fits || len == 0, "message {id} of {len}");
        }
    }
    let odd = [&80u32.to_be_bytes()[..], &[id::HASHES]].concat();
    assert!(decode(&odd, &[1], &[]).is_err());
}

/// W3: refused at the prefix, for every id, with nothing more taken in.
#[test]
fn giant_prefixes_are_refused_at_once() {
    for prefix in [u32::MAX, 1 << 31, (1 << 20) + 1, MAX_BITFIELD_LEN + 2] {
        assert_eq!(decode(&prefix.to_be_bytes(), &[1], &[]), Err((vec![], DecodeError::Prefix(prefix))));
        for id in 0..=255 {
            let mut decoder = Decoder::new(None);
            assert_eq!(decoder.feed(&[&prefix.to_be_bytes()[..], &[id]].concat()), 5);
            assert_eq!(decoder.next().unwrap_err(), DecodeError::Prefix(prefix));
            assert_eq!((decoder.capacity(), decoder.feed(&[0; 100])), (BUFFER, 0));
        }
    }
}

/// The number of pieces leaves one length, from the moment it is known.
#[test]
fn bitfield_is_exact_when_the_pieces_are_known() {
    let outcome = |pieces, bytes: usize| {
        let mut decoder = Decoder::new(None);
        decoder.set_piece_count(pieces);
        decoder.feed(&frame(id::BITFIELD, &vec![0; bytes]));
        matches!(decoder.next(), Ok(Some(Item::Message(Message::Bitfield(_)))))
    };
    for (pieces, bytes) in [(1, 1), (8, 1), (9, 2), (1_000, 125)] {
        assert!(outcome(pieces, bytes));
        assert!(!outcome(pieces, bytes - 1) && !outcome(pieces, bytes + 1));
    }
}

/// A long frame takes memory as it comes, not as it is promised, and gives it back.
#[test]
fn memory_follows_what_was_received() {
    let mut decoder = Decoder::new(None);
    let stream = frame(id::BITFIELD, &vec![0x55; MAX_BITFIELD_LEN as usize]);
    decoder.feed(&stream[..5]);
    assert!(decoder.next().unwrap().is_none());
    let mut at = 5;
    while at < stream.len() {
        assert!(decoder.capacity() <= BUFFER.max(2 * at));
        at += decoder.feed(&stream[at..(at + 1_000).min(stream.len())]);
        if at < stream.len() {
            assert!(decoder.next().unwrap().is_none());
        }
    }
    assert!(matches!(decoder.next(), Ok(Some(Item::Message(Message::Bitfield(bits)))) if bits.len() == 1 << 18));
    assert!(decoder.next().unwrap().is_none());
    decoder.buffers();
    assert_eq!(decoder.capacity(), BUFFER);
}

/// What is read once a body is under way lands in the block itself.
#[test]
fn bodies_are_read_in_place() {
    let mut pool = BlockPool::new(1 << 20);
    let mut decoder = Decoder::new(None);
    let stream = piece(1, 2, &[7; 1_000]);
    decoder.feed(&stream[..113]);
    let Ok(Some(Item::PieceHeader(header))) = decoder.next() else { panic!("a header") };
    assert_eq!(header, PieceHeader { index: 1, begin: 2, len: 1_000 });
    let buf = pool.take(1_000).unwrap();
    let place = buf.as_slice().as_ptr();
    decoder.receive(buf).unwrap();
    assert_eq!(decoder.receiving(), Some((header, 100)));
    assert!(decoder.next().unwrap().is_none());
    let places = decoder.buffers();
    let [rest, tail] = &places[..] else { panic!("{places:?}") };
    assert_eq!((rest.as_ptr(), rest.len(), tail.len()), (place.wrapping_add(100), 900, BUFFER));
    decoder.feed(&[&stream[113..], encode(&Message::Have(5)).as_slice()].concat());
    assert!(matches!(decoder.next(), Ok(Some(Item::Body(buf))) if buf.as_slice() == [7; 1_000]));
    assert!(matches!(decoder.next(), Ok(Some(Item::Message(Message::Have(5))))));
}

/// One read fills several blocks that were expected, each in its place, until something else comes.
#[test]
fn expected_blocks_are_read_in_place() {
    let mut pool = BlockPool::new(1 << 20);
    let mut decoder = Decoder::new(None);
    let header = |index| PieceHeader { index, begin: 0, len: BLOCK_LEN };
    let body = |index: u8| vec![index; BLOCK_LEN as usize];
    let mut places = Vec::new();
    for index in 0..4 {
        let buf = pool.take(BLOCK_LEN).unwrap();
        places.push(buf.as_slice().as_ptr());
        decoder.expect(header(index), buf);
    }
    assert_eq!(decoder.buffers().len(), 8);
    let stream = [piece(0, 0, &body(0)), piece(1, 0, &body(1)), encode(&Message::Have(5)), piece(2, 0, &body(2))];
    assert_eq!(decoder.feed(&stream.concat()), stream.concat().len());
    for index in 0..3 {
        if index == 2 {
            assert!(matches!(decoder.next(), Ok(Some(Item::Message(Message::Have(5))))));
        }
        assert!(matches!(decoder.next(), Ok(Some(Item::PieceHeader(h))) if h == header(index)));
        decoder.receive(pool.take(BLOCK_LEN).unwrap()).unwrap();
        let Ok(Some(Item::Body(buf))) = decoder.next() else { panic!("block {index}") };
        assert_eq!(buf.as_slice(), body(u8::try_from(index).unwrap()));
        assert_eq!(buf.as_slice().as_ptr() == places[index as usize], index < 2, "block {index}");
        pool.give(buf);
    }
    while let Some(buf) = decoder.take_spare() {
        pool.give(buf);
    }
    assert_eq!(pool.lent(), 0);
}

/// Wherever a connection ends, the buffer that was handed over can be had back.
#[test]
fn buffers_come_back() {
    let mut pool = BlockPool::new(1 << 20);
    let stream = [piece(0, 0, &[1; 50]), encode(&Message::Choke)].concat();
    for cut in 13..63 {
        let mut decoder = Decoder::new(None);
        decoder.feed(&stream[..13]);
        assert!(matches!(decoder.next(), Ok(Some(Item::PieceHeader(_)))));
        decoder.receive(pool.take(50).unwrap()).unwrap();
        decoder.feed(&stream[13..cut]);
        // Taken away in the middle, the rest of the body is passed over.
        pool.give(decoder.take_buf().unwrap());
        assert!(decoder.take_buf().is_none());
        decoder.feed(&stream[cut..]);
        assert!(matches!(decoder.next(), Ok(Some(Item::Message(Message::Choke)))));
        assert!(decoder.take_spare().is_none());
    }
    // Answers that do not fit come back at once, and the body is passed over.
    let mut decoder = Decoder::new(None);
    let buf = pool.take(50).unwrap();
    pool.give(decoder.receive(buf).unwrap_err());
    decoder.feed(&stream);
    assert!(matches!(decoder.next(), Ok(Some(Item::PieceHeader(_)))));
    let buf = pool.take(51).unwrap();
    pool.give(decoder.receive(buf).unwrap_err());
    assert!(matches!(decoder.next(), Ok(Some(Item::Message(Message::Choke)))));
    assert_eq!(pool.lent(), 0);
}

/// A recorded-by-hand stream, byte for byte: see `testdata/wire/README.md`.
#[test]
fn hand_made_stream() {
    let stream = include_bytes!("../../testdata/wire/opening.bin");
    let (handshake, stream) = stream.split_first_chunk().unwrap();
    assert!(crate::wire::Handshake::parse(handshake).unwrap().reserved.fast());
    let seen = decode(stream, &[3], &[true]).unwrap();
    let header = PieceHeader { index: 1, begin: 16_384, len: 4 };
    let expected = [
        Seen::Message(encode(&Message::Extended { id: 0, payload: b"d1:md6:ut_pexi1eee" })),
        Seen::Message(encode(&Message::Bitfield(&[0xff, 0x80]))),
        Seen::Message(encode(&Message::KeepAlive)),
        Seen::Message(encode(&Message::Unchoke)),
        Seen::Message(encode(&Message::Unknown(99))),
        Seen::Header(header),
        Seen::Body(b"abcd".to_vec()),
        Seen::Message(encode(&Message::Reject { index: 1, begin: 2, len: 3 })),
        Seen::Message(encode(&Message::Port(6881))),
    ];
    assert_eq!(seen, expected);
}

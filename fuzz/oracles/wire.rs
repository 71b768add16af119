//! The decoder of peer messages: whatever the reads and whatever is expected, the same items; memory bounded.

use gannet::base::{BLOCK_LEN, BlockPool};
use gannet::wire::{DecodeError, Decoder, Item, MAX_BITFIELD_LEN, Message, PieceHeader};

use super::tape::Tape;

/// The most that a decoder may ever hold: the longest frame.
const CEILING: usize = MAX_BITFIELD_LEN as usize + 5;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Header(PieceHeader),
    Body(Vec<u8>),
    Failed(DecodeError),
}

/// How the bytes are read.
struct Manner<'a> {
    piece_count: Option<u32>,
    /// Bytes of each read, in turn.
    reads: &'a [u8],
    /// Which bodies are wanted, bit by bit in turn.
    wanted: u8,
    /// The blocks that are expected.
    guesses: &'a [PieceHeader],
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [flags, wanted] = tape.array();
    let reads: [u8; 4] = tape.array();
    let piece_count = (flags & 1 == 1).then(|| u32::from(flags >> 1));
    let stream = tape.0;
    let whole = decode(stream, &Manner { piece_count, reads: &[], wanted, guesses: &[] });
    let parts = decode(stream, &Manner { piece_count, reads: &reads, wanted, guesses: &[] });
    assert_eq!(whole, parts, "it depends on the reads");
    // What does come, and some of it that does not.
    let headers = whole.iter().filter_map(|seen| if let Seen::Header(header) = seen { Some(*header) } else { None });
    let wrong = |header: PieceHeader| PieceHeader { begin: header.begin ^ u32::from(flags >> 6), ..header };
    let guesses: Vec<PieceHeader> = headers.map(wrong).collect();
    let expecting = decode(stream, &Manner { piece_count, reads: &reads, wanted, guesses: &guesses });
    assert_eq!(whole, expecting, "it depends on what is expected");
}

fn decode(stream: &[u8], manner: &Manner<'_>) -> Vec<Seen> {
    let mut decoder = Decoder::new(manner.piece_count);
    let mut pool = BlockPool::new(u64::from(BLOCK_LEN) * 20);
    let mut guesses = manner.guesses.to_vec();
    let (mut seen, mut rest, mut taken, mut bodies) = (Vec::new(), stream, 0, 0u32);
    let mut reads = manner.reads.iter().cycle();
    while !rest.is_empty() {
        let begun = decoder.reset_expected();
        for guess in guesses.iter().filter(|guess| Some(**guess) != begun).take(3) {
            let mut buf = decoder.take_spare().or_else(|| pool.take(guess.len)).unwrap();
            buf.set_len(guess.len);
            decoder.expect(*guess, buf);
        }
        while let Some(buf) = decoder.take_spare() {
            pool.give(buf);
        }
        let read = reads.next().map_or(rest.len(), |read| usize::from(*read).pow(2) + 1).min(rest.len());
        let fed = decoder.feed(&rest[..read]);
        assert!(fed > 0, "a drained decoder takes more");
        rest = &rest[fed..];
        taken += fed;
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(Item::Message(message))) => {
                    let mut bytes = Vec::new();
                    message.encode_into(&mut bytes);
                    // Messages that nobody knows are passed over, and have no form of ours.
                    if !matches!(message, Message::Unknown(_)) {
                        assert!(bytes.len() <= taken && stream.windows(bytes.len()).any(|window| window == bytes));
                    }
                    seen.push(Seen::Message(bytes));
                }
                Ok(Some(Item::PieceHeader(header))) => {
                    assert!(header.len <= BLOCK_LEN);
                    seen.push(Seen::Header(header));
                    guesses.retain(|guess| *guess != header);
                    bodies += 1;
                    match manner.wanted.rotate_right(bodies) & 3 {
                        0 => decoder.discard(),
                        // No answer is an answer too.
                        1 => {}
                        _ => decoder.receive(pool.take(header.len).unwrap()).unwrap(),
                    }
                }
                Ok(Some(Item::Body(buf))) => {
                    seen.push(Seen::Body(buf.as_slice().to_vec()));
                    pool.give(buf);
                }
                Err(error) => {
                    assert_eq!(decoder.next().unwrap_err(), error, "it stays failed");
                    assert_eq!(decoder.feed(b"more"), 0, "and takes nothing");
                    seen.push(Seen::Failed(error));
                    return seen;
                }
            }
        }
        assert!(decoder.capacity() <= CEILING);
    }
    let begun = decoder.reset_expected();
    while let Some(buf) = decoder.take_spare() {
        pool.give(buf);
    }
    assert!(decoder.receiving().is_some() || begun.is_some() || pool.lent() == 0, "a buffer was lost");
    seen
}

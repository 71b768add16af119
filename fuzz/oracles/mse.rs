//! The encrypted handshake: the same end whether bytes come at once or one by one; bounded; between two of ours, it works.

use gannet::base::PeerId;
use gannet::wire::mse::{Entropy, Exchange, MAX_PAD, Method, MseError, Step, torrent_mark};
use gannet::wire::{Handshake, Reserved};

use super::tape::Tape;

const METHODS: [&[Method]; 3] = [&[Method::Rc4, Method::Plaintext], &[Method::Rc4], &[Method::Plaintext]];
const TORRENT: [u8; 20] = *b"defghijklmnopqrstuvw";

/// More than the longest handshake has: two pads, a key, and what is behind it.
const LONGEST: usize = 4 * MAX_PAD as usize + 1024;

#[derive(Debug, PartialEq)]
enum End {
    Waits,
    Failed(MseError),
    /// What came behind the handshake, and whether it is encrypted.
    Done(Vec<u8>, bool),
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [mode, a, b, step] = tape.array();
    match mode % 4 {
        0 => stranger(tape.0, || exchange(true, a), step),
        1 => stranger(tape.0, || exchange(false, b), step),
        _ => between_two(tape, mode & 4 != 0, a, b, step),
    }
}

fn exchange(dials: bool, kind: u8) -> Exchange {
    // Whoever can guess it has nothing of it here: two of the same kind are never the same.
    let entropy = Entropy::new(std::array::from_fn(|i| {
        u8::try_from(i).unwrap_or(0).wrapping_mul(kind | 1).wrapping_add(u8::from(dials))
    }));
    let methods = METHODS[usize::from(kind) % METHODS.len()];
    let reserved = Reserved::NONE.with_fast();
    let handshake = Handshake { info_hash: TORRENT, peer_id: PeerId(*b"-GN0100-abcdefghijkl"), reserved };
    if dials { Exchange::dial(entropy, handshake, methods) } else { Exchange::answer(entropy, methods) }
}

/// Somebody sends whatever it likes.
fn stranger(bytes: &[u8], new: impl Fn() -> Exchange, step: u8) {
    let at_once = feed(&mut new(), &[bytes]);
    let parts: Vec<&[u8]> = bytes.chunks(usize::from(step) + 1).collect();
    let in_parts = feed(&mut new(), &parts);
    // A failure may be seen sooner; what is agreed upon is the same.
    match (&at_once.0, &in_parts.0) {
        (End::Done(first, rc4), End::Done(_, same)) => assert!(rc4 == same && bytes.len() >= first.len()),
        (a, b) => assert_eq!(a, b),
    }
    assert_eq!(at_once.1, in_parts.1, "it answers differently");
    assert!(at_once.1.len() <= LONGEST, "it sends more than a handshake");
    if bytes.len() > LONGEST {
        assert_ne!(at_once.0, End::Waits, "it never ends");
    }
}

/// Two of ours, whose bytes come in parts, and of which some may be changed on the way.
fn between_two(mut tape: Tape<'_>, change: bool, a: u8, b: u8, step: u8) {
    let (mut dials, mut answers) = (exchange(true, a), exchange(false, b));
    let (mut ends, mut to) = ([End::Waits, End::Waits], [Vec::new(), Vec::new()]);
    ends[0] = advance(&mut dials, &mut to[1]);
    ends[1] = advance(&mut answers, &mut to[0]);
    let mut honest = true;
    for _ in 0..64 {
        for (n, exchange) in [&mut dials, &mut answers].into_iter().enumerate() {
            let len = to[n].len().min(usize::from(step) * 8 + 64);
            let mut bytes: Vec<u8> = to[n].drain(..len).collect();
            if change && !bytes.is_empty() && !tape.is_over() {
                let (at, mask) = (usize::from(tape.word()) % bytes.len(), tape.byte());
                bytes[at] ^= mask;
                honest &= mask == 0;
            }
            if !bytes.is_empty() && ends[n] == End::Waits {
                exchange.handle_bytes(&bytes);
                let mut sent = Vec::new();
                ends[n] = advance(exchange, &mut sent);
                to[1 - n].extend(sent);
            }
        }
    }
    let common = |kind: u8| METHODS[usize::from(kind) % METHODS.len()];
    if honest && common(a).iter().any(|method| common(b).contains(method)) {
        let agreed = |end: &End| if let End::Done(_, rc4) = end { Some(*rc4) } else { None };
        assert!(agreed(&ends[0]).is_some() && agreed(&ends[0]) == agreed(&ends[1]), "{ends:?}");
    }
}

fn feed(exchange: &mut Exchange, parts: &[&[u8]]) -> (End, Vec<u8>) {
    let mut sent = Vec::new();
    let mut end = advance(exchange, &mut sent);
    for part in parts {
        if end != End::Waits {
            break;
        }
        exchange.handle_bytes(part);
        end = advance(exchange, &mut sent);
    }
    (end, sent)
}

fn advance(exchange: &mut Exchange, sent: &mut Vec<u8>) -> End {
    loop {
        let step = match exchange.poll() {
            Ok(Step::Send(bytes)) => {
                sent.extend(bytes);
                Ok(())
            }
            Ok(Step::Read) => return End::Waits,
            Ok(Step::Compute(power)) => exchange.handle_raised(power.raise()),
            Ok(Step::Find(mark)) => exchange.handle_torrent((mark == torrent_mark(&TORRENT)).then_some(TORRENT)),
            Ok(Step::Done(secured)) => {
                assert_eq!(secured.torrent, TORRENT);
                return End::Done(secured.first, secured.ciphers.is_some());
            }
            Err(error) => Err(error),
        };
        if let Err(error) = step {
            assert!(exchange.poll().is_err(), "it goes on after an error");
            return End::Failed(error);
        }
    }
}

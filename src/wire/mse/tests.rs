use proptest::prelude::*;

use super::*;
use crate::base::PeerId;
use crate::wire::{Handshake, Reserved};

const BOTH: &[Method] = &[Method::Rc4, Method::Plaintext];
const PLAINTEXT_FIRST: &[Method] = &[Method::Plaintext, Method::Rc4];
const RC4: &[Method] = &[Method::Rc4];
const PLAINTEXT: &[Method] = &[Method::Plaintext];

const TORRENT: [u8; 20] = *b"defghijklmnopqrstuvw";

fn entropy(k: usize) -> Entropy {
    Entropy::new(std::array::from_fn(|i| low(i * i * k + i * 7 + k)))
}

fn low(n: usize) -> u8 {
    n.to_le_bytes()[0]
}

fn handshake() -> Handshake {
    let reserved = Reserved::NONE.with_dht().with_fast().with_extended();
    Handshake { info_hash: TORRENT, peer_id: PeerId(*b"-GN0100-abcdefghijkl"), reserved }
}

fn dial(k: usize, methods: &'static [Method]) -> Exchange {
    Exchange::dial(entropy(k), handshake(), methods)
}

fn answer(k: usize, methods: &'static [Method]) -> Exchange {
    Exchange::answer(entropy(k), methods)
}

/// Goes on until more bytes are needed. What is sent is appended to `sent`.
fn run(exchange: &mut Exchange, sent: &mut Vec<u8>) -> Result<Option<Secured>, MseError> {
    loop {
        match exchange.poll()? {
            Step::Send(bytes) => sent.extend(bytes),
            Step::Read => return Ok(None),
            Step::Compute(power) => exchange.handle_raised(power.raise())?,
            Step::Find(mark) => exchange.handle_torrent((mark == torrent_mark(&TORRENT)).then_some(TORRENT))?,
            Step::Done(secured) => return Ok(Some(secured)),
        }
    }
}

fn feed(exchange: &mut Exchange, bytes: &[u8], sent: &mut Vec<u8>) -> Result<Option<Secured>, MseError> {
    exchange.handle_bytes(bytes);
    run(exchange, sent)
}

/// What both have agreed upon, when each gets what the other sends in steps of so many bytes.
fn agree(a: &mut Exchange, b: &mut Exchange, step: usize) -> Result<(Secured, Secured), MseError> {
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    let (mut done_a, mut done_b) = (run(a, &mut to_b)?, run(b, &mut to_a)?);
    while done_a.is_none() || done_b.is_none() {
        let n = step.min(to_b.len());
        let bytes: Vec<u8> = to_b.drain(..n).collect();
        if n > 0 && done_b.is_none() {
            done_b = feed(b, &bytes, &mut to_a)?;
        }
        let m = step.min(to_a.len());
        let bytes: Vec<u8> = to_a.drain(..m).collect();
        if m > 0 && done_a.is_none() {
            done_a = feed(a, &bytes, &mut to_b)?;
        }
        assert!(n + m > 0, "they wait for each other");
    }
    assert!(to_a.is_empty() && to_b.is_empty());
    Ok((done_a.unwrap(), done_b.unwrap()))
}

fn vectors() -> Vec<Vec<u8>> {
    let text = include_str!("../../../testdata/wire/mse.txt");
    let unhex = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    text.lines().map(|line| unhex(line.split_once(' ').unwrap().1)).collect()
}

/// Byte for byte as a second implementation has it.
#[test]
fn as_another_implementation() {
    let vectors = vectors();
    let [one, two, three, four, of_b, of_a] = &vectors[..] else { panic!("six lines") };
    let (mut a, mut b) = (dial(3, BOTH), answer(11, BOTH));
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    assert!(run(&mut a, &mut from_a).unwrap().is_none());
    assert_eq!(&from_a, one);
    assert!(feed(&mut b, one, &mut from_b).unwrap().is_none());
    assert_eq!(&from_b, two);
    from_a.clear();
    assert!(feed(&mut a, two, &mut from_a).unwrap().is_none());
    assert_eq!(&from_a, three);
    from_b.clear();
    let at_b = feed(&mut b, &[&three[..], of_a].concat(), &mut from_b).unwrap().unwrap();
    assert_eq!(&from_b, four);
    let at_a = feed(&mut a, &[&four[..], of_b].concat(), &mut from_a).unwrap().unwrap();
    assert_eq!((at_a.torrent, at_b.torrent), (TORRENT, TORRENT));
    assert_eq!(at_a.first, b"payload of B");
    assert_eq!(at_b.first, [&handshake().encode()[..], b"payload of A"].concat());
    assert!(matches!(a.poll(), Err(MseError::Over)));
}

/// However the stream is cut; and afterwards each understands the other.
#[test]
fn cut_anywhere() {
    for step in [1, 2, 3, 7, 19, 20, 21, 95, 96, 97, 500, 5000] {
        let (at_a, at_b) = agree(&mut dial(3, BOTH), &mut answer(11, BOTH), step).unwrap();
        assert_eq!(at_b.first, handshake().encode(), "step {step}");
        assert!(at_a.first.is_empty());
        let (mut a, mut b) = (at_a.ciphers.unwrap(), at_b.ciphers.unwrap());
        for len in [0, 1, 7, 8, 9, 1000] {
            let data: Vec<u8> = (0..len).map(low).collect();
            let mut there = data.clone();
            a.write.apply(&mut there);
            assert!(len < 8 || there != data);
            b.read.apply(&mut there);
            b.write.apply(&mut there);
            a.read.apply(&mut there);
            assert_eq!(there, data);
        }
    }
}

/// What A offers, what B accepts, and what comes of it.
#[test]
fn methods() {
    let (rc4, plain) = (Some(Method::Rc4), Some(Method::Plaintext));
    let table = [
        (BOTH, BOTH, rc4),
        (BOTH, PLAINTEXT_FIRST, plain),
        (PLAINTEXT_FIRST, RC4, rc4),
        (RC4, PLAINTEXT_FIRST, rc4),
        (RC4, RC4, rc4),
        (PLAINTEXT, PLAINTEXT, plain),
        (PLAINTEXT, RC4, None),
        (RC4, PLAINTEXT, None),
    ];
    for (offered, accepted, expected) in table {
        let (mut a, mut b) = (dial(1, offered), answer(2, accepted));
        match (agree(&mut a, &mut b, 100), expected) {
            (Ok((a, b)), Some(method)) => {
                let rc4 = method == Method::Rc4;
                assert_eq!((a.ciphers.is_some(), b.ciphers.is_some()), (rc4, rc4), "{offered:?} {accepted:?}");
            }
            (Err(MseError::Method(_)), None) => {}
            (result, _) => panic!("{offered:?} {accepted:?}: {result:?}"),
        }
    }
}

/// What comes in the clear behind an encrypted handshake is left as it is.
#[test]
fn plaintext_behind_the_handshake() {
    let (mut a, mut b) = (dial(1, PLAINTEXT), answer(2, PLAINTEXT));
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    run(&mut a, &mut to_b).unwrap();
    feed(&mut b, &std::mem::take(&mut to_b), &mut to_a).unwrap();
    feed(&mut a, &std::mem::take(&mut to_a), &mut to_b).unwrap();
    to_b.extend(b"clear A");
    let at_b = feed(&mut b, &to_b, &mut to_a).unwrap().unwrap();
    assert_eq!(at_b.first, [&handshake().encode()[..], b"clear A"].concat());
    to_a.extend(b"clear B");
    assert_eq!(feed(&mut a, &to_a, &mut to_b).unwrap().unwrap().first, b"clear B");
}

#[test]
fn another_torrent_and_no_encryption() {
    let mut other = handshake();
    other.info_hash[19] ^= 1;
    let result = agree(&mut Exchange::dial(entropy(3), other, BOTH), &mut answer(11, BOTH), 300);
    assert_eq!(result.unwrap_err(), MseError::UnknownTorrent);
    let (mut a, mut sent) = (dial(3, BOTH), Vec::new());
    run(&mut a, &mut sent).unwrap();
    assert_eq!(feed(&mut a, &handshake().encode(), &mut sent).unwrap_err(), MseError::Plaintext);
    assert_eq!(feed(&mut a, &[0; 96], &mut sent).unwrap_err(), MseError::Over);
}

/// B up to where it waits for part 3, and an evil A's ciphers.
fn evil_a() -> (Exchange, Vec<u8>, Ciphers) {
    let (mut b, mut sent) = (answer(11, BOTH), Vec::new());
    let key = key_exchange::PrivateKey::new(&[9; 20]);
    let ya = Power::public_key(&key).raise().0.unwrap();
    feed(&mut b, &ya, &mut sent).unwrap();
    let secret = Power::secret(&key, *sent.first_chunk().unwrap()).raise().0.unwrap();
    let request = [sha1(&[b"req1", &secret]), xor(torrent_mark(&TORRENT), sha1(&[b"req3", &secret]))].concat();
    let ciphers = Ciphers::new(&secret, &TORRENT, true);
    (b, request, ciphers)
}

/// `w19`: pads too long, methods nobody offered, wrong constants, streams without end.
#[test]
fn w19_nonsense_from_those_who_dial() {
    let tail = |ciphers: &mut Ciphers, vc: [u8; 8], methods: u32, pad: u16| {
        let mut bytes = [&vc[..], &methods.to_be_bytes(), &pad.to_be_bytes()].concat();
        ciphers.write.apply(&mut bytes);
        bytes
    };
    let table = [
        (VC, 3, 512, None),
        (VC, 3, 513, Some(MseError::Pad(513))),
        (VC, 3, u16::MAX, Some(MseError::Pad(u16::MAX))),
        (VC, 0, 0, Some(MseError::Method(0))),
        (VC, 0xffff_fffc, 0, Some(MseError::Method(0xffff_fffc))),
        (VC, 0xffff_ffff, 0, None),
        ([0, 0, 0, 0, 0, 0, 0, 1], 3, 0, Some(MseError::Verification)),
    ];
    for (vc, methods, pad, expected) in table {
        let (mut b, mut bytes, mut ciphers) = evil_a();
        bytes.extend(tail(&mut ciphers, vc, methods, pad));
        let result = feed(&mut b, &bytes, &mut Vec::new());
        assert_eq!(result.err(), expected, "{vc:?} {methods} {pad}");
    }
    // 512 bytes of PadA are one too few to give up, 513 are not looked at.
    for (pad, expected) in [(512, None), (513, Some(MseError::NoSync))] {
        let (mut b, bytes, _) = evil_a();
        let result = feed(&mut b, &[vec![7; pad], bytes].concat(), &mut Vec::new());
        assert_eq!(result.err(), expected, "{pad}");
    }
    // Initial payload grows as it comes, and no further than it may.
    let (mut b, mut bytes, mut ciphers) = evil_a();
    bytes.extend(tail(&mut ciphers, VC, 2, 0));
    bytes.extend([0xff; 2].map(|mut byte| {
        ciphers.write.apply(std::slice::from_mut(&mut byte));
        byte
    }));
    assert!(feed(&mut b, &bytes, &mut Vec::new()).unwrap().is_none());
}

#[test]
fn w19_nonsense_from_those_who_answer() {
    // 2 MB of noise before VC: not more than a pad of it is looked at.
    let (mut a, mut sent) = (dial(3, BOTH), Vec::new());
    run(&mut a, &mut sent).unwrap();
    feed(&mut a, &vectors()[1], &mut sent).unwrap();
    let mut fed = 0;
    let error = loop {
        fed += 100;
        if let Err(error) = feed(&mut a, &[0x55; 100], &mut sent) {
            break error;
        }
    };
    assert_eq!(error, MseError::NoSync);
    assert!(fed <= usize::from(MAX_PAD) + 100, "{fed}");
    // Selections that were not offered.
    for selected in [0, 1, 3, 4, 0x8000_0002] {
        let (mut a, mut b) = (dial(1, RC4), answer(2, RC4));
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        run(&mut a, &mut to_b).unwrap();
        feed(&mut b, &std::mem::take(&mut to_b), &mut to_a).unwrap();
        feed(&mut a, &std::mem::take(&mut to_a), &mut to_b).unwrap();
        feed(&mut b, &to_b, &mut to_a).unwrap().unwrap();
        // It is encrypted with a stream: bits that are changed here are changed there.
        let changed = 2_u32 ^ selected;
        to_a[8..12].iter_mut().zip(changed.to_be_bytes()).for_each(|(byte, bits)| *byte ^= bits);
        assert_eq!(feed(&mut a, &to_a, &mut to_b).unwrap_err(), MseError::Method(selected));
    }
}

/// RFC 6229: keys of 40 and 128 bits, at offsets 0, 240, 1008 and 4080.
#[test]
fn rc4_vectors() {
    let long: [u8; 16] = std::array::from_fn(|i| low(i + 1));
    type Row<'a> = (&'a [u8], [(usize, u128); 4]);
    let table: [Row<'_>; 2] = [
        (
            &long[..5],
            [
                (0, 0xb239_6305_f03d_c027_ccc3_524a_0a11_18a8),
                (240, 0x28cb_1132_c96c_e286_421d_caad_b8b6_9eae),
                (1008, 0x4512_9048_e6a0_ed0b_56b4_9033_8f07_8da5),
                (4080, 0x0683_26a2_1184_16d2_1f9d_04b2_cd1c_a050),
            ],
        ),
        (
            &long,
            [
                (0, 0x9ac7_cc9a_609d_1ef7_b293_2899_cde4_1b97),
                (240, 0x0659_02e4_b620_f6cc_36c8_589f_6643_2f2b),
                (1008, 0xe7a7_2574_f878_2ae2_6aab_cf9e_bcd6_6065),
                (4080, 0xff38_265c_1642_c1ab_e8d3_c2fe_5e57_2bf8),
            ],
        ),
    ];
    for (key, places) in table {
        let mut stream = vec![0; 4096];
        Rc4::from_key(key).apply(&mut stream);
        for (offset, expected) in places {
            assert_eq!(stream[offset..offset + 16], expected.to_be_bytes(), "{offset}");
        }
    }
}

proptest! {
    /// Pieces of any length are one stream.
    #[test]
    fn rc4_in_pieces(key in any::<[u8; 20]>(), lens in proptest::collection::vec(0_usize..100, 1..30)) {
        let total: usize = lens.iter().sum();
        let mut whole: Vec<u8> = (0..total).map(low).collect();
        let mut pieces = whole.clone();
        Rc4::new(&key).apply(&mut whole);
        let (mut cipher, mut at) = (Rc4::new(&key), 0);
        for len in lens {
            cipher.apply(&mut pieces[at..at + len]);
            at += len;
        }
        prop_assert_eq!(whole, pieces);
    }

    /// Hostile bytes, at either side and at any stage, are an error sooner or later or wait for more, and are not kept.
    #[test]
    fn hostile_bytes(
        dials in any::<bool>(),
        sound in 0_usize..1300,
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..8),
    ) {
        let vectors = vectors();
        let (mut exchange, stream) = if dials {
            (dial(3, BOTH), [&vectors[1][..], &vectors[3]].concat())
        } else {
            (answer(11, BOTH), [&vectors[0][..], &vectors[2]].concat())
        };
        let mut sent = Vec::new();
        let mut result = run(&mut exchange, &mut sent);
        let sound = [stream[..sound.min(stream.len())].to_vec()];
        for bytes in sound.iter().chain(&noise) {
            if !matches!(result, Ok(None)) {
                break;
            }
            result = feed(&mut exchange, bytes, &mut sent);
            prop_assert!(exchange.received.len() <= usize::from(MAX_PAD) + 20 + 600 + usize::from(u16::MAX));
        }
        prop_assert!(sent.len() < 3000);
    }
}

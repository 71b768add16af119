//! Questions to a name server and their answers, as bytes (RFC 1035, 3596, 6891). Nothing here reads or sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What we can take in one datagram, which no path cuts (RFC 9715).
pub(super) const MAX_MESSAGE: usize = 1232;

/// Bytes of a name, and of one of its parts.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Records of an answer that are looked at.
const MAX_RECORDS: usize = 64;

/// Addresses of one kind that are kept.
const MAX_ADDRESSES: usize = 16;

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// Bytes of the header.
const HEADER: usize = 12;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4 = 1,
    V6 = 28,
}

/// What a name server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses; perhaps none of this kind.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// It cannot or will not say.
    Failed,
}

/// Asks for the addresses of `name`. None if that is no name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 17);
    message.extend_from_slice(&id.to_be_bytes());
    // A query, recursion desired; one question, one record to say how much we can take.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    put_question(&mut message, name, kind)?;
    message.push(0);
    message.extend_from_slice(&TYPE_OPT.to_be_bytes());
    message.extend_from_slice(&u16::try_from(MAX_MESSAGE).ok()?.to_be_bytes());
    message.extend_from_slice(&[0; 6]);
    Some(message)
}

fn put_question(message: &mut Vec<u8>, name: &str, kind: Kind) -> Option<()> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        message.push(u8::try_from(label.len()).ok()?);
        message.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    message.push(0);
    message.extend_from_slice(&(kind as u16).to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(())
}

/// The answer to such a question; none if `message` is something else.
pub(super) fn parse(message: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut asked = Vec::new();
    put_question(&mut asked, name, kind)?;
    let (header, rest) = message.split_first_chunk::<HEADER>()?;
    let [id_high, id_low, flags, code, questions_high, questions_low, records_high, records_low, ..] = *header;
    let is_answer = flags & 0xf8 == 0x80 && [id_high, id_low] == id.to_be_bytes();
    let repeated = rest.get(..asked.len())?.eq_ignore_ascii_case(&asked);
    if !is_answer || [questions_high, questions_low] != [0, 1] || !repeated {
        return None;
    }
    match code & 0x0f {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        _ => return Some(Answer::Failed),
    }
    let records = usize::from(u16::from_be_bytes([records_high, records_low])).min(MAX_RECORDS);
    let mut rest = rest.get(asked.len()..)?;
    let mut addresses = Vec::new();
    for _ in 0..records {
        let Some((record, after)) = take_record(rest) else { break };
        rest = after;
        // Whatever names stand on the way: who answers us may say where they lead.
        if record.class != CLASS_IN || record.kind != kind as u16 || addresses.len() >= MAX_ADDRESSES {
            continue;
        }
        let v4 = <[u8; 4]>::try_from(record.data).map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
        let v6 = <[u8; 16]>::try_from(record.data).map(|ip| IpAddr::V6(Ipv6Addr::from(ip)));
        let address = if kind == Kind::V4 { v4 } else { v6 };
        addresses.extend(address.ok());
    }
    // An answer that was cut before its first address is none.
    let cut = flags & 2 != 0 && addresses.is_empty();
    Some(if cut { Answer::Failed } else { Answer::Addresses(addresses) })
}

struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
}

fn take_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let rest = skip_name(bytes)?;
    let (fixed, rest) = rest.split_first_chunk::<10>()?;
    let [kind_high, kind_low, class_high, class_low, _, _, _, _, len_high, len_low] = *fixed;
    let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([len_high, len_low])))?;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Some((Record { kind: word(kind_high, kind_low), class: word(class_high, class_low), data }, rest))
}

/// What follows a name. Where it points to is of no interest.
fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (len, rest) = bytes.split_first()?;
        match len >> 6 {
            0 if *len == 0 => return Some(rest),
            0 => bytes = rest.get(usize::from(*len)..)?,
            3 => return rest.get(1..),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server would answer: the question, a CNAME, and the records.
    fn answer(id: u16, flags: [u8; 2], name: &str, kind: Kind, data: &[&[u8]]) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend(flags);
        message.extend([0, 1, 0, u8::try_from(data.len() + 1).unwrap(), 0, 0, 0, 0]);
        put_question(&mut message, name, kind).unwrap();
        message.extend(*b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01w\xc0\x0c");
        for data in data {
            message.extend(*b"\x01w\xc0\x0c\x00");
            message.push(kind as u8);
            message.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
            message.extend(*data);
        }
        message
    }

    #[test]
    fn questions() {
        let message = question(0x1234, "Tracker.Example.", Kind::V6).unwrap();
        assert_eq!(message[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(&message[12..33], b"\x07tracker\x07example\x00\x00\x1c\x00\x01");
        assert_eq!(message[33..], [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        let long = format!("{}.x", "a".repeat(64));
        for name in ["", ".", "a..b", "a b", "ü.example", &long, &"a.".repeat(130)] {
            assert_eq!(question(1, name, Kind::V4), None, "{name}");
        }
    }

    #[test]
    fn answers() {
        let good = answer(7, [0x81, 0x80], "a.example", Kind::V4, &[&[1, 2, 3, 4], &[5, 6, 7, 8], &[1, 2, 3]]);
        let ips: Vec<IpAddr> = vec![[1, 2, 3, 4].into(), [5, 6, 7, 8].into()];
        assert_eq!(parse(&good, 7, "A.example", Kind::V4), Some(Answer::Addresses(ips)));
        for (id, name, kind) in [(8, "a.example", Kind::V4), (7, "b.example", Kind::V4), (7, "a.example", Kind::V6)] {
            assert_eq!(parse(&good, id, name, kind), None, "not an answer to that");
        }
        let v6 = answer(7, [0x81, 0x80], "a.example", Kind::V6, &[&[0x20; 16]]);
        assert!(matches!(parse(&v6, 7, "a.example", Kind::V6), Some(Answer::Addresses(ips)) if ips.len() == 1));
        let coded = |flags| parse(&answer(7, flags, "a.example", Kind::V4, &[]), 7, "a.example", Kind::V4);
        assert_eq!(coded([0x81, 0x80]), Some(Answer::Addresses(vec![])));
        assert_eq!(coded([0x81, 0x83]), Some(Answer::NoSuchName));
        assert_eq!(coded([0x81, 0x82]), Some(Answer::Failed));
        assert_eq!(coded([0x83, 0x80]), Some(Answer::Failed), "cut");
        assert_eq!(coded([0x01, 0x00]), None, "a question");
        let many = vec![&[9, 9, 9, 9][..]; 60];
        let many = parse(&answer(7, [0x81, 0x80], "a.example", Kind::V4, &many), 7, "a.example", Kind::V4);
        assert!(matches!(many, Some(Answer::Addresses(ips)) if ips.len() == MAX_ADDRESSES));
    }

    proptest! {
        /// Whatever comes from the network, cut or changed anywhere.
        #[test]
        fn nothing_panics(cut in 0usize..100, at in 0usize..100, to: u8, noise in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut good = answer(7, [0x81, 0x80], "a.example", Kind::V4, &[&[1, 2, 3, 4]]);
            if let Some(byte) = good.get_mut(at) {
                *byte = to;
            }
            good.truncate(cut);
            let _ = parse(&good, 7, "a.example", Kind::V4);
            let mut noisy = answer(7, [0x81, 0x80], "a.example", Kind::V4, &[]);
            noisy[7] = 255;
            noisy.extend(noise);
            let _ = parse(&noisy, 7, "a.example", Kind::V4);
        }
    }
}

//! The scanner against a second one, which is written as the format is defined: recursively, and with a tree.

use std::collections::BTreeSet;

use gannet::base::bencode::{Dictionary, Limits, decode, integer, scan, string};
use serde_bytes::ByteBuf;

/// What a second reader found.
enum Tree<'a> {
    Integer(i128),
    Text(&'a [u8]),
    List(Vec<Tree<'a>>),
    Entries(Vec<(&'a [u8], Tree<'a>)>),
}

pub fn run(data: &[u8]) {
    let limits = Limits { depth: 12, tokens: 400 };
    let mut rest = data;
    let mut tokens = 0;
    let tree = read(&mut rest, limits.depth, &mut tokens).filter(|_| tokens <= limits.tokens);
    let scanned = scan(data, limits);
    let Ok(scanned) = scanned else {
        return assert!(tree.is_none(), "{scanned:?}");
    };
    let tree = tree.expect("the scanner took what is no bencode");
    assert_eq!(scanned.end, data.len() - rest.len());
    let whole = &data[..scanned.end];
    let mut encoded = Vec::new();
    write(&tree, &mut encoded);
    // Written again, sorted and without odd zeros, it is the same bytes: that is what canonical means.
    assert_eq!(scanned.canonical, encoded == whole);
    match &tree {
        Tree::Entries(entries) => {
            assert_eq!(scanned.entries.len(), entries.len());
            let dictionary = Dictionary::parse(whole, limits).unwrap();
            assert_eq!(dictionary.is_canonical(), scanned.canonical);
            for ((key, value), (raw_key, raw)) in entries.iter().zip(dictionary.entries()) {
                assert_eq!(*key, raw_key);
                assert_eq!(dictionary.raw(key), Some(raw));
                check_value(value, raw, limits);
            }
        }
        other => {
            assert!(scanned.entries.is_empty() && Dictionary::parse(whole, limits).is_err());
            check_value(other, whole, limits);
        }
    }
}

/// A value alone says the same by every way there is to it.
fn check_value(value: &Tree<'_>, raw: &[u8], limits: Limits) {
    assert_eq!(scan(raw, limits).unwrap().end, raw.len());
    match value {
        Tree::Integer(number) => {
            assert_eq!(integer(raw), Some(*number));
            // The library below knows no more than 64 bits with a sign.
            if let Ok(number) = i64::try_from(*number) {
                assert_eq!(decode::<i64>(raw, limits), Ok(number));
            }
        }
        Tree::Text(text) => {
            assert_eq!(string(raw), Some(*text));
            assert_eq!(decode::<ByteBuf>(raw, limits).map(ByteBuf::into_vec), Ok(text.to_vec()));
        }
        _ => assert!(integer(raw).is_none() && string(raw).is_none()),
    }
    assert!(decode::<Vec<u64>>(&[raw, b"x"].concat(), limits).is_err(), "what follows is ignored");
}

fn read<'a>(rest: &mut &'a [u8], depth: usize, tokens: &mut usize) -> Option<Tree<'a>> {
    *tokens += 1;
    match rest.first()? {
        b'i' => {
            let (digits, after) = split(&rest[1..], b'e')?;
            *rest = after;
            let digits = std::str::from_utf8(digits).ok()?;
            let unsigned = digits.strip_prefix('-').unwrap_or(digits);
            let plain = digits.len() <= 21 && !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
            let number: i128 = digits.parse().ok().filter(|_| plain && digits != "-0")?;
            let fits = i64::try_from(number).is_ok() || u64::try_from(number).is_ok();
            fits.then_some(Tree::Integer(number))
        }
        b'l' | b'd' if depth == 0 => None,
        b'l' => {
            *rest = &rest[1..];
            let mut list = Vec::new();
            while !end(rest, tokens)? {
                list.push(read(rest, depth - 1, tokens)?);
            }
            Some(Tree::List(list))
        }
        b'd' => {
            *rest = &rest[1..];
            let (mut entries, mut keys) = (Vec::new(), BTreeSet::new());
            while !end(rest, tokens)? {
                *tokens += 1;
                let key = text(rest)?;
                if !keys.insert(key) {
                    return None;
                }
                entries.push((key, read(rest, depth - 1, tokens)?));
            }
            Some(Tree::Entries(entries))
        }
        _ => text(rest).map(Tree::Text),
    }
}

fn end(rest: &mut &[u8], tokens: &mut usize) -> Option<bool> {
    if rest.first()? != &b'e' {
        return Some(false);
    }
    *tokens += 1;
    *rest = &rest[1..];
    Some(true)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (digits, after) = split(rest, b':')?;
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let len: usize = std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()?;
    let (text, after) = after.split_at_checked(len)?;
    *rest = after;
    Some(text)
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn write(tree: &Tree<'_>, out: &mut Vec<u8>) {
    let put = |text: &[u8], out: &mut Vec<u8>| {
        out.extend(text.len().to_string().bytes());
        out.push(b':');
        out.extend(text);
    };
    match tree {
        Tree::Integer(number) => out.extend(format!("i{number}e").bytes()),
        Tree::Text(text) => put(text, out),
        Tree::List(list) => {
            out.push(b'l');
            list.iter().for_each(|item| write(item, out));
            out.push(b'e');
        }
        Tree::Entries(entries) => {
            out.push(b'd');
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (key, value) in sorted {
                put(key, out);
                write(value, out);
            }
            out.push(b'e');
        }
    }
}

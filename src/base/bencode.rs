//! The guard in front of `serde_bencode`, which aborts the process on deep nesting and ignores what trails.
//!
//! [`scan`] walks the bytes once, without recursion, and checks depth, token count and every length before anything is
//! built from them. [`decode`] is the only place of the crate that hands bytes to `serde_bencode`.

use std::ops::Range;

use serde::de::DeserializeOwned;

/// How deep and how long a value from outside may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nested lists and dictionaries.
    pub depth: usize,
    /// Strings, integers, lists, dictionaries and their ends.
    pub tokens: usize,
}

impl Limits {
    /// A `.torrent` file from the disk or an HTTP server.
    pub const TORRENT: Self = Self { depth: 100, tokens: 3_000_000 };
    /// An info dictionary from peers (BEP 9).
    pub const METADATA: Self = Self { depth: 100, tokens: 2_500_000 };
    /// An extension message, PEX, or an answer of a tracker.
    pub const MESSAGE: Self = Self { depth: 8, tokens: 10_000 };
    /// A datagram of the DHT (BEP 5).
    pub const DHT: Self = Self { depth: 10, tokens: 500 };
}

/// Why bytes are not one acceptable bencoded value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// The value ends before it is complete.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// A byte that cannot stand there.
    #[error("unexpected byte at {0}")]
    Unexpected(usize),
    /// An integer with no digits, a leading zero with `-`, or beyond 64 bits.
    #[error("bad integer at byte {0}")]
    Integer(usize),
    /// A string longer than what is left, or a length that is no number.
    #[error("bad string length at byte {0}")]
    Length(usize),
    /// A dictionary key that is no string.
    #[error("dictionary key is not a string at byte {0}")]
    Key(usize),
    /// The same key twice in one dictionary.
    #[error("duplicate key at byte {0}")]
    Duplicate(usize),
    /// Nested deeper than allowed.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// More tokens than allowed.
    #[error("more than {0} values")]
    TooManyTokens(usize),
    /// Bytes behind the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// Not a dictionary where one must be.
    #[error("not a dictionary")]
    NotADictionary,
    /// The value is sound but not of the expected shape.
    #[error("{0}")]
    Shape(String),
}

/// What [`scan`] learnt about one value.
#[derive(Debug)]
pub struct Scan {
    /// Where the value ends; more bytes may follow.
    pub end: usize,
    /// Keys sorted, no leading zeros or `-0`: the value is its own canonical form (BEP 52 asks for it).
    pub canonical: bool,
    /// The entries of the outermost dictionary, in order; empty if it is none.
    pub entries: Vec<Entry>,
}

/// One entry of a dictionary: where its key's text and its value lie.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key without its length prefix.
    pub key: Range<usize>,
    /// The whole bencoded value.
    pub value: Range<usize>,
}

struct Level {
    dictionary: bool,
    /// Whether the next token is the value that belongs to the last key.
    value_next: bool,
    /// A dictionary's keys so far, to see order and duplicates.
    keys: Vec<Range<usize>>,
    sorted: bool,
}

/// Walks one value at the start of `bytes`.
///
/// # Errors
/// Anything that is not bencode, or beyond `limits`. Bytes behind the value are no error: see [`Scan::end`].
pub fn scan(bytes: &[u8], limits: Limits) -> Result<Scan, BencodeError> {
    let mut stack: Vec<Level> = Vec::new();
    let (mut at, mut tokens, mut canonical) = (0, 0, true);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        tokens += 1;
        if tokens > limits.tokens {
            return Err(BencodeError::TooManyTokens(limits.tokens));
        }
        let start = at;
        let byte = *bytes.get(at).ok_or(BencodeError::Truncated(at))?;
        let key_expected = stack.last().is_some_and(|l| l.dictionary && !l.value_next);
        // Whether a whole value ended at `at` with this token.
        let complete = match byte {
            b'e' => {
                let level = stack.pop().ok_or(BencodeError::Unexpected(at))?;
                if level.value_next {
                    return Err(BencodeError::Unexpected(at));
                }
                if !level.sorted {
                    canonical = false;
                    refuse_duplicates(bytes, level.keys)?;
                }
                at += 1;
                true
            }
            b'0'..=b'9' => {
                let (text, minimal) = scan_string(bytes, at)?;
                canonical &= minimal;
                at = text.end;
                if key_expected {
                    let depth = stack.len();
                    let Some(level) = stack.last_mut() else { return Err(BencodeError::Unexpected(start)) };
                    if let Some(last) = level.keys.last() {
                        level.sorted &= bytes[last.clone()] < bytes[text.clone()];
                    }
                    level.keys.push(text.clone());
                    level.value_next = true;
                    if depth == 1 {
                        entries.push(Entry { key: text, value: at..at });
                    }
                    continue;
                }
                true
            }
            _ if key_expected => return Err(BencodeError::Key(at)),
            b'i' => {
                let (end, minimal) = scan_integer(bytes, at)?;
                canonical &= minimal;
                at = end;
                true
            }
            b'l' | b'd' => {
                if stack.len() >= limits.depth {
                    return Err(BencodeError::TooDeep(limits.depth));
                }
                let dictionary = byte == b'd';
                stack.push(Level { dictionary, value_next: false, keys: Vec::new(), sorted: true });
                at += 1;
                false
            }
            _ => return Err(BencodeError::Unexpected(at)),
        };
        if complete {
            let depth = stack.len();
            match stack.last_mut() {
                None => return Ok(Scan { end: at, canonical, entries }),
                Some(level) => level.value_next = false,
            }
            if depth == 1
                && let Some(entry) = entries.last_mut()
            {
                entry.value.end = at;
            }
        }
    }
}

/// The text of the string at `at`, and whether its length has no leading zero.
fn scan_string(bytes: &[u8], at: usize) -> Result<(Range<usize>, bool), BencodeError> {
    let mut i = at;
    let mut len = 0usize;
    loop {
        match bytes.get(i) {
            Some(digit @ b'0'..=b'9') => {
                let digit = usize::from(digit - b'0');
                len = len.checked_mul(10).and_then(|l| l.checked_add(digit)).ok_or(BencodeError::Length(at))?;
            }
            Some(b':') => break,
            Some(_) => return Err(BencodeError::Length(at)),
            None => return Err(BencodeError::Truncated(i)),
        }
        i += 1;
    }
    let start = i + 1;
    if len > bytes.len() - start {
        return Err(BencodeError::Length(at));
    }
    Ok((start..start + len, bytes[at] != b'0' || i == at + 1))
}

/// Where the integer at `at` ends, and whether it is in its shortest form.
fn scan_integer(bytes: &[u8], at: usize) -> Result<(usize, bool), BencodeError> {
    let rest = &bytes[at + 1..];
    // 20 digits and a sign hold every 64-bit number.
    let len = rest.iter().take(22).position(|b| *b == b'e');
    let Some(len) = len else {
        return Err(if rest.len() < 22 { BencodeError::Truncated(bytes.len()) } else { BencodeError::Integer(at) });
    };
    let text = &rest[..len];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let number = std::str::from_utf8(text).ok().filter(|_| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    let number = number.ok_or(BencodeError::Integer(at))?;
    if number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
        return Err(BencodeError::Integer(at));
    }
    if text == b"-0" {
        return Err(BencodeError::Integer(at));
    }
    let minimal = digits == b"0" || digits[0] != b'0';
    Ok((at + 1 + len + 1, minimal))
}

/// Looks for equal keys in a dictionary whose keys are not strictly ascending.
fn refuse_duplicates(bytes: &[u8], mut keys: Vec<Range<usize>>) -> Result<(), BencodeError> {
    keys.sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
    let twice = keys.windows(2).find(|pair| bytes[pair[0].clone()] == bytes[pair[1].clone()]);
    twice.map_or(Ok(()), |pair| Err(BencodeError::Duplicate(pair[0].start.max(pair[1].start))))
}

/// One whole dictionary, scanned: raw values by key.
#[derive(Debug)]
pub struct Dictionary<'a> {
    bytes: &'a [u8],
    scan: Scan,
    limits: Limits,
}

impl<'a> Dictionary<'a> {
    /// Scans `bytes`, which must be one dictionary and nothing else.
    ///
    /// # Errors
    /// As [`scan`], [`BencodeError::NotADictionary`], [`BencodeError::Trailing`].
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, BencodeError> {
        let (dictionary, rest) = Self::parse_prefix(bytes, limits)?;
        if rest.is_empty() { Ok(dictionary) } else { Err(BencodeError::Trailing(rest.len())) }
    }

    /// Scans the dictionary at the start of `bytes`, and returns what follows it (BEP 9: payload behind a header).
    ///
    /// # Errors
    /// As [`scan`], and [`BencodeError::NotADictionary`].
    pub fn parse_prefix(bytes: &'a [u8], limits: Limits) -> Result<(Self, &'a [u8]), BencodeError> {
        if bytes.first().is_some_and(|b| *b != b'd') {
            return Err(BencodeError::NotADictionary);
        }
        let scan = scan(bytes, limits)?;
        let (whole, rest) = bytes.split_at(scan.end);
        Ok((Self { bytes: whole, scan, limits }, rest))
    }

    /// Whether the bytes are the canonical encoding of what they say.
    pub fn is_canonical(&self) -> bool {
        self.scan.canonical
    }

    /// The bencoded value of `key`, as it stands in the bytes.
    pub fn raw(&self, key: &[u8]) -> Option<&'a [u8]> {
        let entry = self.scan.entries.iter().find(|e| &self.bytes[e.key.clone()] == key)?;
        Some(&self.bytes[entry.value.clone()])
    }

    /// All entries in their order: key and bencoded value.
    pub fn entries(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.scan.entries.iter().map(|e| (&self.bytes[e.key.clone()], &self.bytes[e.value.clone()]))
    }

    /// The value of `key`, decoded; `None` if the key is absent.
    ///
    /// # Errors
    /// [`BencodeError::Shape`] when the value is there but is something else.
    pub fn field<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, BencodeError> {
        self.raw(key).map(decode_scanned).transpose()
    }

    /// The dictionary under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// [`BencodeError::NotADictionary`].
    pub fn dictionary(&self, key: &[u8]) -> Result<Option<Dictionary<'a>>, BencodeError> {
        self.raw(key).map(|raw| Dictionary::parse(raw, self.limits)).transpose()
    }
}

/// Decodes one bencoded value that fills all of `bytes`.
///
/// # Errors
/// As [`scan`], [`BencodeError::Trailing`], [`BencodeError::Shape`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: Limits) -> Result<T, BencodeError> {
    let scanned = scan(bytes, limits)?;
    if scanned.end != bytes.len() {
        return Err(BencodeError::Trailing(bytes.len() - scanned.end));
    }
    decode_scanned(bytes)
}

#[expect(clippy::disallowed_methods, reason = "the one place: every caller has scanned the bytes")]
fn decode_scanned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BencodeError> {
    serde_bencode::from_bytes(bytes).map_err(|e| BencodeError::Shape(e.to_string()))
}

/// The integer in `raw`, which [`scan`] has found sound; `None` if it is something else. Sound integers have at most 64
/// bits, signed or not, so this holds all.
pub fn integer(raw: &[u8]) -> Option<i128> {
    let digits = raw.strip_prefix(b"i")?.strip_suffix(b"e")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of the string in `raw`, which [`scan`] has found sound; `None` if it is something else.
pub fn string(raw: &[u8]) -> Option<&[u8]> {
    raw.first().filter(|byte| byte.is_ascii_digit())?;
    let colon = raw.iter().position(|byte| *byte == b':')?;
    raw.get(colon + 1..)
}

/// Appends a string to what is being encoded.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(text);
}

/// Appends an integer to what is being encoded.
pub fn put_integer(out: &mut Vec<u8>, integer: u64) {
    out.push(b'i');
    out.extend_from_slice(integer.to_string().as_bytes());
    out.push(b'e');
}

/// Encodes a value of ours. Keys come out sorted, `None` fields are left out.
///
/// # Errors
/// [`BencodeError::Shape`] for what bencode cannot say (floats, maps with other keys than strings).
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BencodeError> {
    serde_bencode::to_bytes(value).map_err(|e| BencodeError::Shape(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8]) -> Result<Scan, BencodeError> {
        scan(bytes, Limits::TORRENT)
    }

    #[test]
    fn sound_values() {
        for sound in
            ["i0e", "i-12e", "0:", "4:spam", "le", "de", "l4:spami7ee", "d1:ai1e1:bl1:cee", "i18446744073709551615e"]
        {
            let scan = check(sound.as_bytes()).unwrap();
            assert_eq!((scan.end, scan.canonical), (sound.len(), true), "{sound}");
        }
    }

    #[test]
    fn tolerated_but_not_canonical() {
        for odd in ["i007e", "03:xyz", "d1:b0:1:a0:e", "l03:xyze"] {
            assert!(!check(odd.as_bytes()).unwrap().canonical, "{odd}");
        }
    }

    #[test]
    fn m4_unsound_values() {
        let unsound = [
            "",
            "i",
            "ie",
            "i-e",
            "i-0e",
            "i+5e",
            "i5",
            "i99999999999999999999e",
            "i1",
            "i 1e",
            "5:spam",
            "99999999999999999999:",
            "9223372036854775807:",
            "2147483652:a",
            "l",
            "d",
            "d1:a",
            "d1:ae",
            "di1e1:ae",
            "dlei1ee",
            "e",
            "x",
            "d1:a0:1:a0:e",
            "d1:b0:1:a0:1:b0:e",
            "-1:",
            "1",
            "d1:a0:",
            "i12345678901234567890123456789e",
        ];
        for text in unsound {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_and_tokens_are_bounded() {
        assert_eq!(check(&b"l".repeat(200_000)).unwrap_err(), BencodeError::TooDeep(100));
        assert_eq!(check(&b"d1:a".repeat(200_000)).unwrap_err(), BencodeError::TooDeep(100));
        let many = [b"l".as_slice(), &b"0:".repeat(3_000_001)].concat();
        assert_eq!(check(&many).unwrap_err(), BencodeError::TooManyTokens(3_000_000));
    }

    #[test]
    fn raw_spans_of_a_dictionary() {
        // A key that is not UTF-8 must do no harm.
        let d = Dictionary::parse(b"d4:infod6:lengthi5ee4:name3:abc1:\xfflee", Limits::TORRENT).unwrap();
        assert_eq!(d.raw(b"info").unwrap(), b"d6:lengthi5ee");
        assert_eq!(d.field::<String>(b"name").unwrap().as_deref(), Some("abc"));
        assert_eq!(d.dictionary(b"info").unwrap().unwrap().field::<i64>(b"length"), Ok(Some(5)));
        assert_eq!(d.field::<i64>(b"absent"), Ok(None));
        assert!(d.field::<i64>(b"name").is_err());
        assert!(matches!(Dictionary::parse(b"dexx", Limits::TORRENT), Err(BencodeError::Trailing(2))));
        assert_eq!(Dictionary::parse_prefix(b"dexx", Limits::TORRENT).unwrap().1, b"xx");
    }

    #[test]
    fn decoding_is_guarded() {
        assert_eq!(decode::<Vec<i64>>(b"li1ei2ee", Limits::MESSAGE), Ok(vec![1, 2]));
        assert!(decode::<Vec<i64>>(b"li1eexx", Limits::MESSAGE).is_err());
        assert!(decode::<serde_bytes::ByteBuf>(&b"l".repeat(100_000), Limits::MESSAGE).is_err());
    }

    proptest! {
        /// Never panics, and what it accepts ends inside the bytes.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(prop::sample::select(b"dlie0123456789:-ax".to_vec()), 0..60)) {
            if let Ok(scan) = check(&bytes) {
                prop_assert!(scan.end <= bytes.len());
                // A proper prefix of a value is never a value.
                prop_assert!(check(&bytes[..scan.end - 1]).is_err());
            }
        }
    }
}

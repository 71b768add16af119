//! The few shapes of bencode that extension messages are made of. Reading is for raw values that
//! [`bencode::scan`](crate::base::bencode::scan) has found sound: what has another shape is `None`, not an error.

/// The integer in `raw`. Sound integers have at most 64 bits, so this holds all.
pub(super) fn integer(raw: &[u8]) -> Option<i128> {
    let digits = raw.strip_prefix(b"i")?.strip_suffix(b"e")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The text of the string in `raw`.
pub(super) fn string(raw: &[u8]) -> Option<&[u8]> {
    raw.first().filter(|byte| byte.is_ascii_digit())?;
    let colon = raw.iter().position(|byte| *byte == b':')?;
    raw.get(colon + 1..)
}

/// Appends a string.
pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(text);
}

/// Appends an integer.
pub(super) fn put_integer(out: &mut Vec<u8>, integer: u64) {
    out.push(b'i');
    out.extend_from_slice(integer.to_string().as_bytes());
    out.push(b'e');
}

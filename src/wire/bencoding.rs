//! The few shapes of bencode that extension messages are made of.

pub(super) use crate::base::bencode::{integer, string};

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

//! Heads of answers of web seeds: never more than was asked for, never from another place.

#[allow(dead_code)]
#[path = "../../src/net/range_answer.rs"]
mod range_answer;

use range_answer::{Wrong, partial, retry_after};

use super::tape::Tape;

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [flags, count] = tape.array();
    let (start, file_len) = (u64::from(tape.long()), u64::from(tape.long()) << (flags & 16));
    let Ok(text) = std::str::from_utf8(tape.0) else { return };
    let asked = start..start + u64::from(count) + 1;
    let length = (flags & 1 == 1).then_some(u64::from(count) + 1);
    match partial(Some(text), length, &asked, file_len) {
        Ok(len) => {
            assert!(len > 0 && len <= asked.end - asked.start);
            assert!(text.contains(&start.to_string()) && length.is_none_or(|length| length == len));
        }
        Err(Wrong::Length { found, expected }) => assert!(found != expected && expected == file_len),
        Err(Wrong::Answer(_)) => {}
    }
    // Written as a server should, it is taken.
    let exact = format!("bytes {}-{}/{file_len}", asked.start, asked.end - 1);
    assert_eq!(partial(Some(&exact), length, &asked, file_len), Ok(asked.end - asked.start));
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let (later, now) = (retry_after(first, Some(second), 0), retry_after(first, None, u64::MAX));
    assert!(later.is_some() == now.is_some() && now <= later);
}

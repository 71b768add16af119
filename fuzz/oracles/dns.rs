//! Answers of name servers: no more addresses than there may be, and only to the question that was asked.

#[allow(dead_code)]
#[path = "../../src/net/dns/message.rs"]
mod message;

use message::{Answer, Kind};

use super::tape::Tape;

const NAME: &str = "a.example";

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let (flags, bytes) = (tape.byte(), tape.0);
    let kind = if flags & 1 == 0 { Kind::V4 } else { Kind::V6 };
    if flags & 2 != 0 {
        // Any name, asked for; every other name server would understand the same name.
        let Ok(name) = std::str::from_utf8(bytes) else { return };
        let Some(question) = message::question(7, name, kind) else { return };
        assert!(question.len() <= message::MAX_MESSAGE);
        let mut answer = question;
        answer[2] = 0x81;
        assert_eq!(message::parse(&answer, 7, name, kind), Some(Answer::Addresses(vec![])));
        return;
    }
    // The question is repeated as it was asked, or nothing but that would be tested.
    let Some(question) = message::question(7, NAME, kind) else { return };
    let question = &question[12..question.len() - 11];
    let [high, low, more] = tape.array();
    let header = [0, 7, 0x80 | high & 7, low & 15, 0, 1, 0, more, 0, 0, 0, 0];
    let answer = message::parse(&[&header[..], question, tape.0].concat(), 7, NAME, kind);
    if let Some(Answer::Addresses(addresses)) = answer {
        assert!(addresses.len() <= 16 && addresses.iter().all(|ip| ip.is_ipv4() == (kind == Kind::V4)));
    }
    let _ = message::parse(data, 7, NAME, kind);
}

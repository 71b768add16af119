//! What is on its way out of one connection: control bytes, and blocks that have been read.

use std::io::{self, IoSlice};

use crate::base::Block;
use crate::wire::piece_header;

/// Slices handed to one system call, at most: as many as Linux takes without a second look, and then some.
const MAX_SLICES: usize = 64;

/// Frames in the order in which they are sent. Control bytes go before blocks, but never into the middle of one.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    control: Vec<u8>,
    /// Bytes of `control` that have left.
    control_sent: usize,
    headers: Vec<([u8; 13], usize)>,
    /// The payloads, one behind the other.
    payload: Vec<u8>,
    /// Bytes of the blocks, headers included, that have left.
    blocks_sent: usize,
    blocks_len: usize,
    /// Payload that has left and was not taken note of.
    sent_payload: u64,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && !self.has_blocks()
    }

    pub(super) fn has_blocks(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Whether control bytes may be added: they are collected when those before have left.
    pub(super) fn wants_control(&self) -> bool {
        self.control.is_empty()
    }

    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Memory for the next payloads.
    pub(super) fn take_spare(&mut self) -> Vec<u8> {
        debug_assert!(!self.has_blocks());
        std::mem::take(&mut self.payload)
    }

    /// Adds blocks, whose bytes lie one behind the other in `payload`. Only while it has none.
    pub(super) fn put_blocks(&mut self, blocks: &[Block], payload: Vec<u8>) {
        debug_assert!(!self.has_blocks());
        self.headers.extend(blocks.iter().map(|block| (piece_header(*block), block.len() as usize)));
        self.blocks_len = self.headers.iter().map(|(header, len)| header.len() + len).sum();
        self.blocks_sent = 0;
        self.payload = payload;
    }

    /// Payload of blocks that have left since the last call, in bytes.
    pub(super) fn take_sent_payload(&mut self) -> u64 {
        std::mem::take(&mut self.sent_payload)
    }

    /// Offers what is to be sent next to `write`, and takes note of how much it took.
    pub(super) fn write_to(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = Vec::with_capacity(2 * self.headers.len() + 1);
        // A block once begun is finished before anything else.
        let frame_rest = self.rest_of_frame();
        if frame_rest == 0 {
            push(&mut slices, &self.control, self.control_sent);
        }
        let (mut skip, mut at) = (self.blocks_sent, 0);
        let mut frames_left = if frame_rest > 0 && !self.control.is_empty() { 1 } else { usize::MAX };
        for (header, len) in &self.headers {
            let payload = self.payload.get(at..at + len).unwrap_or_default();
            at += len;
            if skip >= header.len() + len {
                skip -= header.len() + len;
                continue;
            }
            if frames_left == 0 || slices.len() + 2 > MAX_SLICES {
                break;
            }
            frames_left -= 1;
            push(&mut slices, header, skip);
            push(&mut slices, payload, skip.saturating_sub(header.len()));
            skip = 0;
        }
        let taken = write(&slices)?;
        drop(slices);
        self.advance(taken, frame_rest == 0);
        Ok(taken)
    }

    /// Bytes that the block under way still lacks; 0 between blocks.
    fn rest_of_frame(&self) -> usize {
        let mut begin = 0;
        for (header, len) in &self.headers {
            let end = begin + header.len() + len;
            if self.blocks_sent < end {
                return if self.blocks_sent > begin { end - self.blocks_sent } else { 0 };
            }
            begin = end;
        }
        0
    }

    fn advance(&mut self, mut taken: usize, control_first: bool) {
        if control_first {
            let control = taken.min(self.control.len() - self.control_sent);
            self.control_sent += control;
            taken -= control;
            if self.control_sent == self.control.len() {
                self.control.clear();
                self.control_sent = 0;
            }
        }
        if taken == 0 {
            return;
        }
        let before = payload_within(&self.headers, self.blocks_sent);
        self.blocks_sent += taken;
        self.sent_payload += payload_within(&self.headers, self.blocks_sent) - before;
        if self.blocks_sent >= self.blocks_len {
            self.headers.clear();
            (self.blocks_sent, self.blocks_len) = (0, 0);
        }
    }
}

fn push<'a>(slices: &mut Vec<IoSlice<'a>>, bytes: &'a [u8], skip: usize) {
    let rest = bytes.get(skip..).unwrap_or_default();
    if !rest.is_empty() {
        slices.push(IoSlice::new(rest));
    }
}

/// Payload bytes among the first `sent` bytes of the frames.
fn payload_within(headers: &[([u8; 13], usize)], mut sent: usize) -> u64 {
    let mut payload = 0;
    for (header, len) in headers {
        if sent <= header.len() {
            break;
        }
        payload += (sent - header.len()).min(*len) as u64;
        sent = sent.saturating_sub(header.len() + len);
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Geometry;

    /// However little the socket takes at a time, frames stay whole, and control bytes go between them.
    #[test]
    fn frames_stay_whole() {
        let geometry = Geometry::new(100_000, 50_000).unwrap();
        let blocks: Vec<Block> = geometry.blocks(geometry.piece(0).unwrap()).collect();
        let payload: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        for step in [1, 12, 13, 14, 100, 16_384, 16_397, 20_000, 1 << 20] {
            let mut out = Outgoing::default();
            out.put_blocks(&blocks, payload.clone());
            let (mut wire, mut sent) = (Vec::new(), 0);
            let mut injected = false;
            while !out.is_empty() {
                if !wire.is_empty() && !injected && out.wants_control() {
                    out.control().extend_from_slice(&[0, 0, 0, 1, 2]);
                    injected = true;
                }
                out.write_to(|slices| {
                    let mut left = step;
                    for slice in slices {
                        let n = slice.len().min(left);
                        wire.extend_from_slice(&slice[..n]);
                        left -= n;
                    }
                    Ok(step - left)
                })
                .unwrap();
                sent += out.take_sent_payload();
            }
            assert_eq!(sent, 50_000, "step {step}");
            let (mut rest, mut received, mut controls) = (&wire[..], Vec::new(), 0);
            while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
                let (body, tail) = tail.split_at(u32::from_be_bytes(*prefix) as usize);
                rest = tail;
                match body[0] {
                    7 => received.extend_from_slice(&body[9..]),
                    2 => controls += 1,
                    other => panic!("message {other}"),
                }
            }
            assert_eq!(received, payload, "step {step}");
            assert_eq!(controls, u32::from(injected));
        }
    }
}

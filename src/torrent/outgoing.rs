//! What is on its way out of one connection: control bytes, and frames of blocks whose payload lies in maps of files or in
//! memory.

use std::sync::Arc;

use crate::base::{BLOCK_LEN, Block};
use crate::storage::{Lent, SendSpan};
use crate::sys::{Gather, SendMap};
use crate::wire::piece_header;

/// Memory that a connection keeps for payloads while it has one block to finish, in bytes.
const KEPT: usize = BLOCK_LEN as usize;

/// Frames in the order in which they are sent. Control bytes go before blocks, but never into the middle of one.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    control: Vec<u8>,
    /// Bytes of `control` that have left.
    control_sent: usize,
    frames: Vec<Frame>,
    /// Frames that have left.
    gone: usize,
    /// Bytes of the frame behind them that have left.
    begun: usize,
    /// The payloads of all frames, one behind the other.
    parts: Vec<Part>,
    maps: Vec<Arc<SendMap>>,
    copied: Vec<u8>,
    /// Their payloads were waited for: they are not given back.
    settled: bool,
    /// Payload that has left and was not taken note of.
    sent_payload: u64,
    /// Reused by [`Outgoing::add`].
    spans: Vec<SendSpan>,
}

/// A `piece` message.
#[derive(Debug)]
struct Frame {
    block: Block,
    header: [u8; HEADER_LEN],
    /// Where its payload ends in `parts`; it begins where the one before ends.
    parts_end: usize,
}

const HEADER_LEN: usize = 13;

impl Frame {
    fn len(&self) -> usize {
        HEADER_LEN + self.block.len() as usize
    }
}

/// A run of payload bytes.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Which of the maps; in `copied` if none.
    map: Option<usize>,
    at: u64,
    len: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && !self.has_blocks()
    }

    pub(super) fn has_blocks(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Bytes of payload that lie in memory.
    pub(super) fn copied_len(&self) -> usize {
        self.copied.len()
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
        std::mem::take(&mut self.copied)
    }

    /// Gives memory back that is of no use while nothing is sent.
    pub(super) fn release(&mut self) {
        if !self.has_blocks() && self.copied.capacity() > KEPT {
            self.copied = Vec::new();
        }
    }

    /// Adds blocks of one piece that lie side by side, with what `lend` lends for all of them; nothing unless it does.
    pub(super) fn add(&mut self, run: &[Block], lend: impl FnOnce(&mut Vec<SendSpan>, &mut Vec<u8>) -> Lent) -> Lent {
        let mut copied_at = self.copied.len();
        let mut spans = std::mem::take(&mut self.spans);
        let lent = lend(&mut spans, &mut self.copied);
        if lent == Lent::All {
            let mut blocks = run.iter();
            let mut block = blocks.next();
            let mut missing = block.map_or(0, |b| b.len() as usize);
            for span in spans.drain(..) {
                let (mut part, mut len) = match span {
                    SendSpan::Mapped { map, offset, len } => {
                        (Part { map: Some(self.number_of(map)), at: offset, len: 0 }, len as usize)
                    }
                    SendSpan::Copied(len) => {
                        let at = copied_at as u64;
                        copied_at += len as usize;
                        (Part { map: None, at, len: 0 }, len as usize)
                    }
                };
                // Cut at the borders of blocks.
                while len > 0
                    && let Some(current) = block
                {
                    part.len = len.min(missing);
                    self.parts.push(part);
                    part.at += part.len as u64;
                    len -= part.len;
                    missing -= part.len;
                    if missing == 0 {
                        self.push_frame(*current);
                        block = blocks.next();
                        missing = block.map_or(0, |b| b.len() as usize);
                    }
                }
            }
            debug_assert!(block.is_none(), "as many bytes were lent as the blocks have");
        }
        spans.clear();
        self.spans = spans;
        lent
    }

    /// Adds blocks that have been read into `payload`, one behind the other. Only while it has none.
    pub(super) fn add_read(&mut self, blocks: &[Block], payload: Vec<u8>) {
        debug_assert!(!self.has_blocks());
        self.copied = payload;
        self.settled = true;
        let mut at = 0;
        for block in blocks {
            let len = block.len() as usize;
            self.parts.push(Part { map: None, at, len });
            at += len as u64;
            self.push_frame(*block);
        }
    }

    fn push_frame(&mut self, block: Block) {
        self.frames.push(Frame { block, header: piece_header(block), parts_end: self.parts.len() });
    }

    /// Nearly always the one before.
    fn number_of(&mut self, map: Arc<SendMap>) -> usize {
        match self.maps.last() {
            Some(last) if Arc::ptr_eq(last, &map) => {}
            _ => self.maps.push(map),
        }
        self.maps.len() - 1
    }

    /// Takes blocks back that have not begun to leave, in order, to be asked for again; but for those that were waited for.
    pub(super) fn take_back(&mut self, into: &mut Vec<Block>) {
        let keep = self.gone + usize::from(self.begun > 0);
        if self.settled || keep >= self.frames.len() {
            return;
        }
        into.extend(self.frames.drain(keep..).map(|frame| frame.block));
        let Some(last) = self.frames.last().filter(|_| self.begun > 0) else { return self.clear_frames() };
        self.parts.truncate(last.parts_end);
        let first = self.parts_begin(self.gone);
        let in_memory = self.parts[first..].iter().filter(|part| part.map.is_none());
        let (from, to) = in_memory.fold((usize::MAX, 0), |(from, to), part| {
            let at = usize::try_from(part.at).unwrap_or(usize::MAX);
            (from.min(at), to.max(at + part.len))
        });
        if from >= to {
            self.copied.clear();
        } else {
            self.copied.truncate(to);
            self.copied.drain(..from);
            for part in self.parts[first..].iter_mut().filter(|part| part.map.is_none()) {
                part.at -= from as u64;
            }
        }
        self.copied.shrink_to(KEPT);
    }

    /// Payload of blocks that have left since the last call, in bytes.
    pub(super) fn take_sent_payload(&mut self) -> u64 {
        std::mem::take(&mut self.sent_payload)
    }

    /// What is to be sent next, as much of it as fits into one call.
    pub(super) fn gather(&self) -> Gather<'_> {
        let mut gather = Gather::new();
        // A block once begun is finished before anything else.
        let begun = usize::from(self.begun > 0);
        let frames = self.frames.get(self.gone..).unwrap_or_default();
        let (first, others) = frames.split_at(begun.min(frames.len()));
        let fits = first.iter().all(|frame| self.gather_frame(&mut gather, self.gone, frame, self.begun))
            && gather.push(self.control.get(self.control_sent..).unwrap_or_default());
        if fits {
            for (n, frame) in others.iter().enumerate() {
                if !self.gather_frame(&mut gather, self.gone + begun + n, frame, 0) {
                    break;
                }
            }
        }
        gather
    }

    /// Frame number `n`, but for its first `skip` bytes. False if not all of it found room.
    fn gather_frame<'a>(&'a self, gather: &mut Gather<'a>, n: usize, frame: &'a Frame, skip: usize) -> bool {
        let mut fits = gather.push(frame.header.get(skip..).unwrap_or_default());
        let mut skip = skip.saturating_sub(HEADER_LEN);
        for part in &self.parts[self.parts_begin(n)..frame.parts_end] {
            let skipped = skip.min(part.len);
            skip -= skipped;
            let (at, len) = (part.at + skipped as u64, part.len - skipped);
            fits = fits
                && match part.map.map(|n| &self.maps[n]) {
                    Some(map) => gather.push_mapped(map, at, len),
                    None => {
                        let at = usize::try_from(at).unwrap_or(usize::MAX);
                        gather.push(self.copied.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default())
                    }
                };
        }
        fits
    }

    fn parts_begin(&self, n: usize) -> usize {
        n.checked_sub(1).and_then(|before| self.frames.get(before)).map_or(0, |frame| frame.parts_end)
    }

    /// `taken` bytes of what was gathered have left.
    pub(super) fn advance(&mut self, mut taken: usize) {
        if self.begun > 0 {
            taken -= self.advance_frame(taken);
        }
        if self.begun == 0 {
            let control = taken.min(self.control.len() - self.control_sent);
            self.control_sent += control;
            taken -= control;
            if self.control_sent == self.control.len() {
                self.control.clear();
                self.control_sent = 0;
            }
        }
        while taken > 0 && self.gone < self.frames.len() {
            taken -= self.advance_frame(taken);
        }
        debug_assert_eq!(taken, 0, "no more leaves than there was");
        if self.gone == self.frames.len() {
            self.clear_frames();
        }
    }

    /// Up to `taken` bytes of the first frame have left. Returns how many those are.
    fn advance_frame(&mut self, taken: usize) -> usize {
        let Some(frame) = self.frames.get(self.gone) else { return 0 };
        let before = self.begun;
        let after = (before + taken).min(frame.len());
        self.sent_payload += (after.saturating_sub(HEADER_LEN) - before.saturating_sub(HEADER_LEN)) as u64;
        if after == frame.len() {
            self.gone += 1;
            self.begun = 0;
        } else {
            self.begun = after;
        }
        after - before
    }

    fn clear_frames(&mut self) {
        self.frames.clear();
        self.parts.clear();
        self.maps.clear();
        self.copied.clear();
        (self.gone, self.begun, self.settled) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::base::Geometry;
    use crate::wire::Message;

    const LEN: usize = 50_000;

    /// A socket that takes so many bytes at a time.
    struct Wire {
        ours: UnixStream,
        theirs: UnixStream,
        received: Vec<u8>,
    }

    impl Wire {
        fn new() -> Self {
            let (ours, theirs) = UnixStream::pair().unwrap();
            Self { ours, theirs, received: Vec::new() }
        }

        fn send(&mut self, out: &mut Outgoing, most: usize) {
            let sent = out.gather().send(&self.ours).unwrap();
            let mut bytes = vec![0; sent];
            self.theirs.read_exact(&mut bytes).unwrap();
            let taken = sent.min(most);
            self.received.extend_from_slice(&bytes[..taken]);
            out.advance(taken);
        }
    }

    fn payload() -> Vec<u8> {
        (0..LEN).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn blocks() -> Vec<Block> {
        let geometry = Geometry::new(100_000, 50_000).unwrap();
        geometry.blocks(geometry.piece(0).unwrap()).collect()
    }

    fn map() -> (File, Arc<SendMap>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&payload()).unwrap();
        let map = SendMap::new(&file, LEN as u64).unwrap();
        (file, Arc::new(map))
    }

    /// Bytes of `blocks` from the map and from memory by turns, 7001 at a time.
    fn lend_patchwork(map: &Arc<SendMap>, run: &[Block], spans: &mut Vec<SendSpan>, copied: &mut Vec<u8>) -> Lent {
        let (from, last) = (run[0].begin(), run.last().unwrap());
        let mut at = from;
        while at < last.begin() + last.len() {
            let len = (last.begin() + last.len() - at).min(7001);
            if (at / 7001) % 2 == 0 {
                spans.push(SendSpan::Mapped { map: map.clone(), offset: u64::from(at), len });
            } else {
                copied.extend_from_slice(&payload()[at as usize..][..len as usize]);
                spans.push(SendSpan::Copied(len));
            }
            at += len;
        }
        Lent::All
    }

    /// Frames received: payloads by position, and how many control messages.
    fn parse(mut rest: &[u8]) -> (Vec<u8>, u32) {
        let (mut payload, mut controls) = (vec![0; LEN], 0);
        while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
            let (body, tail) = tail.split_at(u32::from_be_bytes(*prefix) as usize);
            rest = tail;
            match body[0] {
                7 => {
                    let begin = u32::from_be_bytes(body[5..9].try_into().unwrap()) as usize;
                    payload[begin..begin + body.len() - 9].copy_from_slice(&body[9..]);
                }
                2 => controls += 1,
                other => panic!("message {other}"),
            }
        }
        (payload, controls)
    }

    /// However little the socket takes at a time, wherever the payload lies, and however often blocks are taken back:
    /// frames stay whole, and control bytes go between them.
    #[test]
    fn frames_stay_whole() {
        let (_file, map) = map();
        for step in [7, 12, 13, 14, 100, 7000, 16_384, 16_397, 20_000, 1 << 20] {
            for take_back in [false, true] {
                let (mut out, mut wire) = (Outgoing::default(), Wire::new());
                let (mut waiting, mut sent, mut controls) = (blocks(), 0, 0);
                loop {
                    if !out.has_blocks() && !waiting.is_empty() {
                        let run: Vec<Block> = std::mem::take(&mut waiting);
                        assert_eq!(out.add(&run, |_, _| Lent::Cold), Lent::Cold);
                        assert!(!out.has_blocks());
                        out.add(&run, |spans, copied| lend_patchwork(&map, &run, spans, copied));
                    }
                    if out.wants_control() && controls < 5 {
                        Message::Interested.encode_into(out.control());
                        controls += 1;
                    }
                    if out.is_empty() {
                        break;
                    }
                    wire.send(&mut out, step);
                    if take_back {
                        out.take_back(&mut waiting);
                    }
                    sent += out.take_sent_payload();
                }
                assert_eq!(sent, LEN as u64, "step {step}");
                assert!(parse(&wire.received) == (payload(), 5), "step {step}");
                out.release();
                assert!(out.copied.capacity() <= KEPT);
            }
        }
    }

    #[test]
    fn only_what_has_not_begun_is_taken_back() {
        let (_file, map) = map();
        let blocks = blocks();
        let mut back = Vec::new();
        let mut out = Outgoing::default();
        out.add(&blocks, |spans, copied| lend_patchwork(&map, &blocks, spans, copied));
        out.advance(13 + 16_384 + 5);
        out.take_back(&mut back);
        assert_eq!(back, blocks[2..], "the second has begun");
        assert!(out.copied.len() <= 16_384);
        out.advance(8 + 16_384);
        assert!(out.is_empty());
        // Nothing has begun: all of it.
        out.add(&blocks, |spans, copied| lend_patchwork(&map, &blocks, spans, copied));
        back.clear();
        out.take_back(&mut back);
        assert_eq!(back, blocks);
        assert!(out.is_empty());
        // What was read stays.
        out.add_read(&blocks, payload());
        back.clear();
        out.take_back(&mut back);
        assert!(back.is_empty() && out.has_blocks());
    }
}

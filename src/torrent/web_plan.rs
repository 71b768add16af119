//! What a web seed has to be asked for, so that the blocks of a fetch come in their order.

use std::ops::Range;

use crate::base::{Block, Geometry};
use crate::storage::{FileMap, Target};

/// Ranges in one request to a script (BEP 17): each makes its address longer.
const MAX_RANGES: usize = 32;

/// One step of a fetch: bytes that follow those of the step before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A part of a file (BEP 19).
    File {
        /// By its number in the torrent.
        file: u32,
        /// Which bytes.
        bytes: Range<u64>,
    },
    /// Parts of a piece (BEP 17).
    Piece {
        /// By its number.
        piece: u32,
        /// Which bytes of it, ascending; none if it is the whole piece.
        ranges: Vec<Range<u32>>,
        /// How many these are.
        len: u64,
    },
    /// Padding, which nobody is asked for.
    Zeros(u64),
}

/// The steps of a fetch from a server of files.
pub(super) fn by_file(map: &FileMap, geometry: &Geometry, blocks: &[Block]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let position = |block: &Block| geometry.position(block.piece()) + u64::from(block.begin());
    for span in blocks.iter().flat_map(|block| map.spans(position(block), block.len().into())) {
        match (span.target, steps.last_mut()) {
            (Target::File { file, offset }, Some(Step::File { file: last, bytes }))
                if file == *last && offset == bytes.end =>
            {
                bytes.end += span.len;
            }
            (Target::File { file, offset }, _) => steps.push(Step::File { file, bytes: offset..offset + span.len }),
            (Target::Zeros, Some(Step::Zeros(len))) => *len += span.len,
            (Target::Zeros, _) => steps.push(Step::Zeros(span.len)),
        }
    }
    steps
}

/// The steps of a fetch from a script that is asked for pieces.
pub(super) fn by_piece(geometry: &Geometry, blocks: &[Block]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks {
        let piece = block.piece();
        let end = block.begin() + block.len();
        // Behind the data there is padding, up to the end of the piece.
        let data_end = end.min(geometry.data_len(piece));
        let padding = u64::from(end - data_end);
        let part = block.begin()..data_end;
        let added = u64::from(part.end.saturating_sub(part.start));
        let follows = |range: &Range<u32>| range.end == part.start;
        match steps.last_mut() {
            Some(Step::Piece { piece: last, ranges, len })
                if *last == piece.get() && (ranges.len() < MAX_RANGES || ranges.last().is_some_and(follows)) =>
            {
                *len += added;
                match ranges.last_mut().filter(|range| follows(range)) {
                    Some(range) => range.end = part.end,
                    None => ranges.push(part),
                }
            }
            _ => steps.push(Step::Piece { piece: piece.get(), ranges: vec![part], len: added }),
        }
        if padding > 0 {
            steps.push(Step::Zeros(padding));
        }
    }
    for step in &mut steps {
        if let Step::Piece { piece, ranges, .. } = step
            && let [only] = ranges.as_slice()
            && geometry.piece(*piece).is_ok_and(|piece| *only == (0..geometry.piece_len(piece)))
        {
            ranges.clear();
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BLOCK_LEN, ShortPiece};
    use crate::storage::Placed;
    use proptest::prelude::*;

    const B: u32 = BLOCK_LEN;

    fn map(files: &[(u64, u64, bool)]) -> FileMap {
        FileMap::new(files.iter().map(|&(offset, length, pad)| Placed { offset, length, pad })).unwrap()
    }

    #[test]
    fn parts_of_files() {
        // Pieces of two blocks: a file, padding, an empty file, a small file, a large one.
        let b = u64::from(B);
        let map = map(&[
            (0, b + 5, false),
            (b + 5, b - 5, true),
            (2 * b, 0, false),
            (2 * b, 7, false),
            (2 * b + 7, 3 * b, false),
        ]);
        let short = vec![
            ShortPiece { piece: 0, wire_len: 2 * B, data_len: B + 5 },
            ShortPiece { piece: 2, wire_len: B + 7, data_len: B + 7 },
        ];
        let geometry = Geometry::with_short_pieces(2 * B, 3, short).unwrap();
        let blocks: Vec<Block> = geometry.pieces().flat_map(|piece| geometry.blocks(piece)).collect();
        assert_eq!(blocks.len(), 6);
        let file = |file, bytes| Step::File { file, bytes };
        assert_eq!(
            by_file(&map, &geometry, &blocks),
            [file(0, 0..b + 5), Step::Zeros(b - 5), file(3, 0..7), file(4, 0..3 * b)]
        );
        // A hole makes two of one.
        let some: Vec<Block> = blocks.iter().copied().enumerate().filter(|(n, _)| *n != 3).map(|(_, b)| b).collect();
        assert_eq!(by_file(&map, &geometry, &some)[2..], [file(3, 0..7), file(4, 0..b - 7), file(4, 2 * b - 7..3 * b)]);
        let piece = |piece, ranges: &[(u32, u32)], len| Step::Piece {
            piece,
            ranges: ranges.iter().map(|(from, to)| *from..*to).collect(),
            len,
        };
        assert_eq!(
            by_piece(&geometry, &blocks),
            [piece(0, &[(0, B + 5)], b + 5), Step::Zeros(b - 5), piece(1, &[], 2 * b), piece(2, &[], b + 7)]
        );
        assert_eq!(by_piece(&geometry, &some)[2..], [piece(1, &[(0, B)], b), piece(2, &[], b + 7)]);
    }

    #[test]
    fn addresses_stay_short() {
        let geometry = Geometry::new(u64::from(B) * 200, B * 200).unwrap();
        let blocks: Vec<Block> =
            geometry.pieces().flat_map(|piece| geometry.blocks(piece)).filter(|b| b.number() % 2 == 1).collect();
        let steps = by_piece(&geometry, &blocks);
        let counts: Vec<usize> =
            steps.iter().map(|step| if let Step::Piece { ranges, .. } = step { ranges.len() } else { 0 }).collect();
        assert_eq!(counts, [32, 32, 32, 4]);
    }

    proptest! {
        /// The steps bring exactly as many bytes as the blocks take, and each byte of a file from where it is.
        #[test]
        fn steps_make_up_the_blocks(
            files in prop::collection::vec((0u64..3 * u64::from(B), any::<bool>()), 1..8),
            skip in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mut at = 0;
            let files: Vec<(u64, u64, bool)> = files.into_iter().map(|(length, pad)| {
                at += length;
                (at - length, length, pad)
            }).collect();
            let Ok(geometry) = Geometry::new(at, 2 * B) else { return Ok(()) };
            let map = map(&files);
            let blocks: Vec<Block> = geometry.pieces().flat_map(|piece| geometry.blocks(piece)).collect();
            let blocks: Vec<Block> = blocks.into_iter().zip(skip.iter().cycle()).filter(|(_, skip)| !**skip).map(|(b, _)| b).collect();
            let wanted = blocks.iter().flat_map(|block| {
                let from = geometry.position(block.piece()) + u64::from(block.begin());
                from..from + u64::from(block.len())
            });
            let mut bytes = wanted;
            for step in by_file(&map, &geometry, &blocks) {
                match step {
                    Step::File { file, bytes: part } => for offset in part {
                        prop_assert_eq!(map.position(file, offset), bytes.next());
                    },
                    Step::Zeros(len) => for _ in 0..len {
                        let position = bytes.next().unwrap();
                        prop_assert!(files.iter().all(|f| f.2 || !(f.0..f.0 + f.1).contains(&position)));
                    },
                    Step::Piece { .. } => prop_assert!(false),
                }
            }
            prop_assert_eq!(bytes.next(), None);
        }
    }
}

use std::ops::Range;

/// Which file lies where in the torrent: ranges of the piece space to ranges of files. Pure.
///
/// Pad files (BEP 47) and the gaps that align files to pieces (BEP 52) are zeros: nothing on disk stands for them.
#[derive(Clone, Debug)]
pub struct FileMap {
    /// Files that hold at least one byte, in ascending order of position, none overlapping.
    extents: Box<[Extent]>,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    file: u32,
}

/// Where a file lies in the piece space.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// A pad file: zeros that are never written.
    pub pad: bool,
}

/// A part of a range that lies in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub target: Target,
    /// Bytes, at least one.
    pub len: u64,
}

/// The place of a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// In a file, by its number in the torrent.
    File {
        /// Its number.
        file: u32,
        /// First byte within it.
        offset: u64,
    },
    /// Nowhere: padding.
    Zeros,
}

/// Files that lie over one another, or beyond what 64 bits can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("file number {0} overlaps another or ends beyond 2^64 bytes")]
pub struct Overlap(pub u32);

impl FileMap {
    /// The map of the files of a torrent, in their order.
    ///
    /// # Errors
    /// [`Overlap`], which no parsed torrent has.
    pub fn new(files: impl IntoIterator<Item = Placed>) -> Result<Self, Overlap> {
        let mut extents = Vec::new();
        let mut last_end = 0;
        for (placed, file) in files.into_iter().zip(0u32..) {
            let end = placed.offset.checked_add(placed.length).ok_or(Overlap(file))?;
            if placed.pad || placed.length == 0 {
                continue;
            }
            if placed.offset < last_end {
                return Err(Overlap(file));
            }
            extents.push(Extent { start: placed.offset, end, file });
            last_end = end;
        }
        Ok(Self { extents: extents.into_boxed_slice() })
    }

    /// The parts of `len` bytes from `position` on, in order: they tile the range. What lies beyond the last file is
    /// zeros.
    pub fn spans(&self, position: u64, len: u64) -> Spans<'_> {
        let first = self.extents.partition_point(|e| e.end <= position);
        Spans { extents: &self.extents[first..], position, end: position.saturating_add(len) }
    }

    /// The files that have bytes in the range, by number.
    pub fn files(&self, position: u64, len: u64) -> impl Iterator<Item = u32> + '_ {
        self.spans(position, len).filter_map(|span| match span.target {
            Target::File { file, .. } => Some(file),
            Target::Zeros => None,
        })
    }

    /// The position of byte `offset` of file number `file`; none if the file has no such byte.
    pub fn position(&self, file: u32, offset: u64) -> Option<u64> {
        // Numbers ascend as positions do.
        let n = self.extents.binary_search_by_key(&file, |e| e.file).ok()?;
        let extent = self.extents[n];
        extent.start.checked_add(offset).filter(|p| *p < extent.end)
    }

    /// The pieces that hold bytes of file number `file`, for pieces of `piece_length` bytes; empty for a file without
    /// bytes.
    pub fn pieces_of(&self, file: u32, piece_length: u32) -> Range<u32> {
        let Ok(n) = self.extents.binary_search_by_key(&file, |e| e.file) else { return 0..0 };
        let extent = self.extents[n];
        let piece = |position: u64| u32::try_from(position / u64::from(piece_length.max(1))).unwrap_or(u32::MAX);
        piece(extent.start)..piece(extent.end - 1).saturating_add(1)
    }

    /// Pieces of `piece_length` bytes that more than one file has bytes in, ascending.
    pub fn shared_pieces(&self, piece_length: u32) -> Vec<u32> {
        let mut shared = Vec::new();
        for [a, b] in self.extents.array_windows() {
            let length = u64::from(piece_length.max(1));
            let piece = b.start / length;
            if (a.end - 1) / length == piece
                && let Ok(piece) = u32::try_from(piece)
                && shared.last() != Some(&piece)
            {
                shared.push(piece);
            }
        }
        shared
    }
}

/// See [`FileMap::spans`].
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    extents: &'a [Extent],
    position: u64,
    end: u64,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        if self.position >= self.end {
            return None;
        }
        let (target, until) = match self.extents.first() {
            Some(e) if e.start <= self.position => {
                if e.end <= self.end {
                    self.extents = &self.extents[1..];
                }
                (Target::File { file: e.file, offset: self.position - e.start }, e.end)
            }
            Some(e) => (Target::Zeros, e.start),
            None => (Target::Zeros, self.end),
        };
        let until = until.min(self.end);
        let len = until - self.position;
        self.position = until;
        Some(Span { target, len })
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;

    fn map(files: &[(u64, u64, bool)]) -> Result<FileMap, Overlap> {
        FileMap::new(files.iter().map(|&(offset, length, pad)| Placed { offset, length, pad }))
    }

    #[test]
    fn padded_and_gapped() {
        // A pad file behind the first, an empty file, a gap before the last.
        let map = map(&[(0, 10, false), (10, 6, true), (16, 0, false), (16, 4, false), (32, 5, false)]).unwrap();
        let spans: Vec<_> = map.spans(8, 26).collect();
        let file = |file, offset, len| Span { target: Target::File { file, offset }, len };
        let zeros = |len| Span { target: Target::Zeros, len };
        assert_eq!(spans, [file(0, 8, 2), zeros(6), file(3, 0, 4), zeros(12), file(4, 0, 2)]);
        assert_eq!(map.spans(36, 3).collect::<Vec<_>>(), [file(4, 4, 1), zeros(2)]);
        assert_eq!(map.spans(5, 0).count(), 0);
        assert_eq!((map.pieces_of(0, 8), map.pieces_of(1, 8), map.pieces_of(4, 8)), (0..2, 0..0, 4..5));
        assert_eq!(map.position(4, 4), Some(36));
        assert_eq!((map.position(4, 5), map.position(2, 0), map.position(99, 0)), (None, None, None));
        assert_eq!((map.shared_pieces(8), map.shared_pieces(32)), (vec![], vec![0]));
    }

    #[test]
    fn overlaps_are_refused() {
        assert_eq!(map(&[(0, 10, false), (9, 1, false)]).unwrap_err(), Overlap(1));
        assert_eq!(map(&[(u64::MAX, 1, false)]).unwrap_err(), Overlap(0));
    }

    #[test]
    fn a_hundred_thousand_files() {
        let map = FileMap::new((0..100_000).map(|n| Placed { offset: n * 3, length: 3, pad: false })).unwrap();
        let start = Instant::now();
        for position in 0..100_000u64 {
            assert_eq!(map.spans(position * 3, 6).count(), 2);
        }
        assert!(start.elapsed().as_secs() < 2, "a scan from the first file would take minutes");
    }

    proptest! {
        /// Spans tile the range, and each byte of a file is found where `position` says it is.
        #[test]
        fn spans_tile(
            files in prop::collection::vec((0u64..4, 0u64..50, any::<bool>()), 1..20),
            position in 0u64..1000, len in 0u64..1000,
        ) {
            let mut at = 0;
            let files: Vec<_> = files.into_iter().map(|(gap, length, pad)| {
                let offset = at + gap;
                at = offset + length;
                (offset, length, pad)
            }).collect();
            let map = map(&files).unwrap();
            let mut next = position;
            for span in map.spans(position, len) {
                prop_assert!(span.len > 0);
                for n in 0..span.len {
                    let inside = files.iter().position(|f| !f.2 && (f.0..f.0 + f.1).contains(&(next + n)));
                    match span.target {
                        Target::Zeros => prop_assert_eq!(inside, None),
                        Target::File { file, offset } => {
                            prop_assert_eq!(inside, Some(file as usize));
                            prop_assert_eq!(map.position(file, offset + n), Some(next + n));
                            prop_assert!(map.pieces_of(file, 16).contains(&(((next + n) / 16) as u32)));
                        }
                    }
                }
                next += span.len;
            }
            prop_assert_eq!(next, position + len);
        }
    }
}

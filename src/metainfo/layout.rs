//! Where the files lie in the space of pieces, and what each piece is of.

use super::file_list::Listed;
use super::limits::MAX_FILE_LEN;
use super::{File, MetainfoError};
use crate::base::{Geometry, GeometryError, MAX_PIECE_COUNT, ShortPiece};

/// Files with their offsets, and the pieces over them.
#[derive(Debug)]
pub(super) struct Layout {
    pub files: Vec<File>,
    pub geometry: Geometry,
    /// Without padding.
    pub total_size: u64,
}

fn placed(file: Listed, offset: u64) -> File {
    let Listed { path, raw_path, length, attr, symlink, pieces_root } = file;
    File { path, length, offset, attr, pieces_root, symlink, raw_path }
}

/// `offset + length`, if that is still a position in a torrent.
fn advance(offset: u64, length: u64) -> Result<u64, MetainfoError> {
    offset.checked_add(length).filter(|end| *end <= MAX_FILE_LEN).ok_or(MetainfoError::FileLength)
}

/// Version 1 and hybrid: one file behind the other, pad files among them.
pub(super) fn contiguous(listed: Vec<Listed>, piece_length: u32) -> Result<Layout, MetainfoError> {
    let mut files = Vec::with_capacity(listed.len());
    let (mut end, mut total_size) = (0, 0);
    for file in listed {
        let file = placed(file, end);
        end = advance(end, file.length)?;
        if !file.attr.pad {
            total_size += file.length;
        }
        files.push(file);
    }
    if total_size == 0 {
        return Err(MetainfoError::NoData);
    }
    let plain = Geometry::new(end, piece_length)?;
    let mut short = padded_pieces(&files, end, piece_length);
    let geometry = if short.is_empty() {
        plain
    } else {
        let last = plain.piece_count() - 1;
        let last_len = short_len(end, piece_length);
        if last_len < piece_length && short.last().is_none_or(|s| s.piece < last) {
            short.push(ShortPiece { piece: last, wire_len: last_len, data_len: last_len });
        }
        Geometry::with_short_pieces(piece_length, plain.piece_count(), short)?
    };
    Ok(Layout { files, geometry, total_size })
}

/// The pieces with padding from somewhere behind their first byte up to their end. A piece that is padding from end to
/// end is not among them: it has no data to stop at and is fetched like any other.
fn padded_pieces(files: &[File], end: u64, piece_length: u32) -> Vec<ShortPiece> {
    let length = u64::from(piece_length);
    let mut short: Vec<ShortPiece> = Vec::new();
    // Where the padding began that reaches up to the current file.
    let mut padding: Option<u64> = None;
    for file in files.iter().filter(|f| f.length > 0) {
        if !file.attr.pad {
            padding = None;
            continue;
        }
        let start = *padding.get_or_insert(file.offset);
        let piece = start / length;
        let piece_end = ((piece + 1) * length).min(end);
        let begins_inside = !start.is_multiple_of(length);
        let (Ok(piece), Ok(data_len)) = (u32::try_from(piece), u32::try_from(start % length)) else { continue };
        let known = short.last().is_some_and(|s| s.piece == piece);
        if begins_inside && !known && file.offset + file.length >= piece_end {
            let wire_len = u32::try_from(piece_end - u64::from(piece) * length).unwrap_or(piece_length);
            short.push(ShortPiece { piece, wire_len, data_len });
        }
    }
    short
}

/// Bytes of the last piece of something of `length` bytes, which are not 0.
fn short_len(length: u64, piece_length: u32) -> u32 {
    match u32::try_from(length % u64::from(piece_length)) {
        Ok(0) | Err(_) => piece_length,
        Ok(rest) => rest,
    }
}

/// Version 2 alone: each file begins a piece, and the last piece of each is as short as it is.
pub(super) fn aligned(listed: Vec<Listed>, piece_length: u32) -> Result<Layout, MetainfoError> {
    let mut files = Vec::with_capacity(listed.len());
    let mut short = Vec::new();
    let (mut piece_count, mut total_size) = (0u64, 0);
    for file in listed {
        let file = placed(file, piece_count * u64::from(piece_length));
        total_size = advance(total_size, file.length)?;
        piece_count += file.length.div_ceil(u64::from(piece_length));
        if piece_count > u64::from(MAX_PIECE_COUNT) {
            return Err(GeometryError::PieceCount(piece_count).into());
        }
        let len = short_len(file.length, piece_length);
        if len < piece_length
            && let Ok(piece) = u32::try_from(piece_count - 1)
        {
            short.push(ShortPiece { piece, wire_len: len, data_len: len });
        }
        files.push(file);
    }
    let piece_count = u32::try_from(piece_count).map_err(|_| MetainfoError::FileLength)?;
    if piece_count == 0 {
        return Err(MetainfoError::NoData);
    }
    let geometry = Geometry::with_short_pieces(piece_length, piece_count, short)?;
    Ok(Layout { files, geometry, total_size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::{Attributes, SafePath};

    /// Whether it is a pad file, and its length.
    fn listed(lengths: &[(bool, u64)]) -> Vec<Listed> {
        let file = |(pad, length): &(bool, u64)| Listed {
            path: SafePath::new([b"f".as_slice()]).unwrap(),
            raw_path: None,
            length: *length,
            attr: Attributes { pad: *pad, ..Attributes::default() },
            symlink: None,
            pieces_root: None,
        };
        lengths.iter().map(file).collect()
    }

    const PAD: bool = true;
    const FILE: bool = false;

    /// `(wire_len, data_len)` of every piece.
    fn pieces(layout: &Layout) -> Vec<(u32, u32)> {
        let g = &layout.geometry;
        g.pieces().map(|p| (g.piece_len(p), g.data_len(p))).collect()
    }

    #[test]
    fn padding_ends_the_data_of_a_piece() {
        type Case = (&'static [(bool, u64)], &'static [(u32, u32)]);
        let table: &[Case] = &[
            (&[(FILE, 25)], &[(10, 10), (10, 10), (5, 5)]),
            (&[(FILE, 3), (PAD, 7), (FILE, 12)], &[(10, 3), (10, 10), (2, 2)]),
            // In two pad files, with an empty file between them.
            (&[(FILE, 3), (PAD, 2), (FILE, 0), (PAD, 5), (FILE, 1)], &[(10, 3), (1, 1)]),
            // Padding in the middle or at the start of a piece saves nothing.
            (&[(FILE, 3), (PAD, 2), (FILE, 5), (FILE, 4)], &[(10, 10), (4, 4)]),
            (&[(PAD, 3), (FILE, 17)], &[(10, 10), (10, 10)]),
            // Behind the last file: a full last piece, or a short one.
            (&[(FILE, 13), (PAD, 7)], &[(10, 10), (10, 3)]),
            (&[(FILE, 13), (PAD, 2)], &[(10, 10), (5, 3)]),
            // Whole pieces of padding are fetched.
            (&[(FILE, 4), (PAD, 20), (FILE, 6)], &[(10, 4), (10, 10), (10, 10)]),
            (&[(FILE, 10), (PAD, 10), (FILE, 5)], &[(10, 10), (10, 10), (5, 5)]),
        ];
        for (files, expected) in table {
            assert_eq!(pieces(&contiguous(listed(files), 10).unwrap()), *expected, "{files:?}");
        }
    }

    #[test]
    fn aligned_files_begin_pieces() {
        let layout = aligned(listed(&[(FILE, 5), (FILE, 0), (FILE, 20), (FILE, 11)]), 10).unwrap();
        assert_eq!(pieces(&layout), [(5, 5), (10, 10), (10, 10), (10, 10), (1, 1)]);
        let offsets: Vec<u64> = layout.files.iter().map(|f| f.offset).collect();
        assert_eq!((offsets, layout.total_size), (vec![0, 10, 10, 30], 36));
    }

    #[test]
    fn sums_are_bounded() {
        let max = MAX_FILE_LEN;
        assert_eq!(contiguous(listed(&[(FILE, max), (FILE, 1)]), 1 << 28).unwrap_err(), MetainfoError::FileLength);
        assert!(aligned(listed(&[(FILE, max), (FILE, 1)]), 1 << 28).is_err());
        assert_eq!(contiguous(listed(&[(PAD, 10), (FILE, 0)]), 10).unwrap_err(), MetainfoError::NoData);
        assert_eq!(aligned(listed(&[(FILE, 0)]), 10).unwrap_err(), MetainfoError::NoData);
        assert!(contiguous(listed(&[(FILE, 1), (PAD, 1 << 40)]), 16_384).is_err(), "too many pieces");
    }
}

//! How much of what an earlier run claims is to be believed.

use std::ops::Range;

use super::{FileStamp, ResumeData};
use crate::base::{Bitfield, Geometry};

/// One of the files that [`ResumeData::files`] speaks of, as it is now.
#[derive(Clone, Debug)]
pub struct FileNow {
    /// What distinguishes it from another state of it; none if it is not there.
    pub stamp: Option<FileStamp>,
    /// The pieces that have bytes in it; none where it holds pieces of many files.
    pub pieces: Option<Range<u32>>,
    /// Some of its bytes lie elsewhere than they did then.
    pub moved: bool,
}

/// What an earlier run says is there.
#[derive(Clone, Debug)]
pub struct Believed {
    /// Pieces to be believed (after a sample, if not `clean`).
    pub have: Bitfield,
    /// Pieces that may be there, and have to be hashed to know.
    pub doubtful: Bitfield,
    /// The run ended in good order.
    pub clean: bool,
}

/// Weighs what `data` claims against the files as they are `now`, by number. `newest` says that nothing was saved after
/// it. None if nothing of it can be believed.
///
/// After a clean end a file must be as it was. Else it may have been written to since; its size and identity tell, and
/// whatever was not claimed may be there. Pieces of a file that is another one now are doubtful.
pub fn believe(data: &ResumeData, newest: bool, now: &[FileNow], geometry: &Geometry) -> Option<Believed> {
    if now.len() != data.files.len() {
        return None;
    }
    let clean = data.clean && newest;
    let unchanged = |then: &Option<FileStamp>, now: &Option<FileStamp>| match (then, now) {
        (Some(then), Some(now)) => {
            then.size == now.size && then.inode == now.inode && (!clean || then.mtime_ns == now.mtime_ns)
        }
        (None, None) => true,
        _ => false,
    };
    let mut have = data.have.clone();
    let mut doubtful = Bitfield::new(have.len());
    for (then, now) in data.files.iter().zip(now) {
        if unchanged(then, &now.stamp) && !now.moved {
            continue;
        }
        for piece in now.pieces.clone()? {
            if let Ok(piece) = geometry.piece(piece) {
                have.clear(piece);
                doubtful.set(piece);
            }
        }
    }
    if !clean {
        geometry.pieces().filter(|piece| !have.has(*piece)).for_each(|piece| {
            doubtful.set(piece);
        });
    }
    Some(Believed { have, doubtful, clean })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{InfoHash, InfoHashV1};

    #[test]
    fn what_changed_is_doubtful() {
        let geometry = Geometry::new(6 << 14, 1 << 14).unwrap();
        let stamp = |mtime_ns, inode| Some(FileStamp { size: 9, mtime_ns, inode });
        let mut data = ResumeData::new(InfoHash::v1(InfoHashV1([1; 20])), 6, 0);
        data.clean = true;
        for n in [0, 1, 3, 4] {
            data.have.set(geometry.piece(n).unwrap());
        }
        data.files = vec![stamp(5, 1), stamp(5, 2), None];
        let now = |a, b| {
            let file = |stamp, pieces| FileNow { stamp, pieces, moved: false };
            vec![file(a, Some(0..3)), file(b, Some(2..6)), file(None, None)]
        };
        let believed = |data: &ResumeData, newest, now: &[FileNow]| {
            believe(data, newest, now, &geometry).map(|b| {
                let list = |pieces: &Bitfield| pieces.iter().map(|p| p.get()).collect::<Vec<_>>();
                (list(&b.have), list(&b.doubtful), b.clean)
            })
        };
        let same = now(stamp(5, 1), stamp(5, 2));
        assert_eq!(believed(&data, true, &same), Some((vec![0, 1, 3, 4], vec![], true)));
        // What was saved last is lost: more may be there.
        assert_eq!(believed(&data, false, &same), Some((vec![0, 1, 3, 4], vec![2, 5], false)));
        let touched = now(stamp(6, 1), stamp(5, 2));
        assert_eq!(believed(&data, true, &touched), Some((vec![3, 4], vec![0, 1, 2], true)));
        assert_eq!(believed(&data, false, &touched), Some((vec![0, 1, 3, 4], vec![2, 5], false)));
        for other in [stamp(5, 7), None] {
            assert_eq!(believed(&data, true, &now(stamp(5, 1), other)), Some((vec![0, 1], vec![2, 3, 4, 5], true)));
            assert_eq!(believed(&data, false, &now(stamp(5, 1), other)), Some((vec![0, 1], vec![2, 3, 4, 5], false)));
        }
        let mut moved = same.clone();
        moved[0].moved = true;
        assert_eq!(believed(&data, true, &moved), Some((vec![3, 4], vec![0, 1, 2], true)));
        let mut part = same.clone();
        part[2].stamp = stamp(5, 3);
        assert_eq!((believed(&data, true, &part), believed(&data, true, &same[..2])), (None, None));
    }
}

//! The files that an info dictionary lists, as they stand there: v1's `length` or `files` (BEP 3, 47).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_bytes::ByteBuf;

use super::limits::{MAX_FILE_LEN, MAX_FILES};
use super::path::Components;
use super::{Attributes, MetainfoError, SafePath};
use crate::base::bencode::{self, Limits};

/// The components of a path as they stand in the torrent.
pub(super) type RawPath = Box<[Box<[u8]>]>;

/// One file of either half of a torrent, its path made safe, its length in range.
#[derive(Debug)]
pub(super) struct Listed {
    pub path: SafePath,
    /// Kept only where making it safe changed it.
    pub raw_path: Option<RawPath>,
    pub length: u64,
    pub attr: Attributes,
    pub symlink: Option<SafePath>,
    /// Version 2 only; never with a length of zero.
    pub pieces_root: Option<[u8; 32]>,
}

/// The fields that a file has in `files` and in `file tree` alike.
#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub length: Option<i64>,
    pub attr: Option<ByteBuf>,
    pub symlink_path: Option<Vec<ByteBuf>>,
    pub pieces_root: Option<ByteBuf>,
    path: Option<Vec<ByteBuf>>,
    path_utf8: Option<Vec<ByteBuf>>,
}

/// By hand, since a key that is not UTF-8 would end a derived one.
impl<'de> Deserialize<'de> for RawFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
                let mut file = RawFile::default();
                while let Some(key) = map.next_key::<ByteBuf>()? {
                    match key.as_slice() {
                        b"length" => file.length = Some(map.next_value()?),
                        b"path" => file.path = Some(map.next_value()?),
                        b"path.utf-8" => file.path_utf8 = Some(map.next_value()?),
                        b"attr" => file.attr = Some(map.next_value()?),
                        b"symlink path" => file.symlink_path = Some(map.next_value()?),
                        b"pieces root" => file.pieces_root = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(file)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl RawFile {
    pub(super) fn attributes(&self) -> Attributes {
        let has = |flag| self.attr.as_ref().is_some_and(|a| a.contains(&flag));
        Attributes { pad: has(b'p'), executable: has(b'x'), hidden: has(b'h'), symlink: has(b'l') }
    }

    /// The length, which a symlink need not have (BEP 47).
    pub(super) fn checked_length(&self, attr: Attributes) -> Result<u64, MetainfoError> {
        match self.length {
            None | Some(0) if attr.symlink => Ok(0),
            Some(length) => checked_length(length),
            None => Err(MetainfoError::FileLength),
        }
    }

    pub(super) fn symlink_target(&self, attr: Attributes) -> Option<SafePath> {
        let target = self.symlink_path.as_ref().filter(|_| attr.symlink)?;
        SafePath::new(target.iter().map(|c| c.as_slice())).ok()
    }
}

pub(super) fn checked_length(length: i64) -> Result<u64, MetainfoError> {
    u64::try_from(length).ok().filter(|l| *l <= MAX_FILE_LEN).ok_or(MetainfoError::FileLength)
}

/// A path and, where making it safe changed it, what it was.
pub(super) fn name(raw: &[&[u8]]) -> Result<(SafePath, Option<RawPath>), MetainfoError> {
    let mut path = Components::default();
    raw.iter().try_for_each(|c| path.push(c))?;
    let safe = path.path().ok_or(MetainfoError::NoName(0))?;
    Ok((safe, path.is_changed().then(|| raw.iter().map(|c| Box::from(*c)).collect())))
}

/// What the value of v1's `files` lists.
pub(super) fn parse_list(raw: &[u8], limits: Limits) -> Result<Vec<Listed>, MetainfoError> {
    let files: Vec<RawFile> = bencode::decode(raw, limits).map_err(|_| MetainfoError::Malformed("files"))?;
    if files.len() > MAX_FILES {
        return Err(MetainfoError::TooManyFiles);
    }
    files.iter().enumerate().map(|(number, file)| listed(number, file)).collect()
}

fn listed(number: usize, file: &RawFile) -> Result<Listed, MetainfoError> {
    let attr = file.attributes();
    let length = file.checked_length(attr)?;
    let utf8 = file.path_utf8.as_ref().filter(|p| !p.is_empty() && p.iter().all(|c| std::str::from_utf8(c).is_ok()));
    let path = utf8.or(file.path.as_ref()).filter(|p| !p.is_empty());
    let (path, raw_path) = match path {
        Some(path) => name(&path.iter().map(|c| c.as_slice()).collect::<Vec<_>>())?,
        // BEP 47 lets a pad file go without a name, and recommends this one.
        None if attr.pad => (SafePath::new([b".pad".as_slice(), length.to_string().as_bytes()])?, None),
        None => return Err(MetainfoError::NoName(number)),
    };
    Ok(Listed { path, raw_path, length, attr, symlink: file.symlink_target(attr), pieces_root: None })
}

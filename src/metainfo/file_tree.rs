//! Version 2's `file tree` (BEP 52): folders are dictionaries, and a file is the dictionary under an empty key.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_bytes::ByteBuf;

use super::file_list::{Listed, RawFile, RawPath};
use super::limits::{MAX_FILES, MAX_PATHS_LEN};
use super::path::Components;
use super::{Attributes, MetainfoError};
use crate::base::bencode::{self, Limits};
use crate::base::printable;

/// One dictionary of the tree. Its depth, and so the depth of the recursion here, is bounded by [`Limits::depth`].
#[derive(Debug, Default)]
struct Node {
    /// What lies under the empty key.
    properties: Option<Box<RawFile>>,
    children: Vec<(ByteBuf, Node)>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder of the file tree")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut node = Node::default();
                while let Some(key) = map.next_key::<ByteBuf>()? {
                    if key.is_empty() {
                        node.properties = Some(map.next_value()?);
                    } else {
                        node.children.push((key, map.next_value()?));
                    }
                }
                Ok(node)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// What the value of `file tree` lists, in the order of the tree.
pub(super) fn parse_tree(raw: &[u8], limits: Limits) -> Result<Vec<Listed>, MetainfoError> {
    let root: Node = bencode::decode(raw, limits).map_err(|_| MetainfoError::Malformed("file tree"))?;
    // The tree itself must not be a file.
    if root.is_file() {
        return Err(MetainfoError::FileTree);
    }
    let mut walk = Walk::default();
    walk.folder(&root)?;
    Ok(walk.files)
}

impl Node {
    fn is_file(&self) -> bool {
        self.properties.as_ref().is_some_and(|p| p.length.is_some() || p.attributes().symlink)
    }
}

#[derive(Default)]
struct Walk<'n> {
    files: Vec<Listed>,
    paths_len: usize,
    path: Components,
    raw_path: Vec<&'n [u8]>,
}

impl<'n> Walk<'n> {
    fn folder(&mut self, node: &'n Node) -> Result<(), MetainfoError> {
        for (name, child) in &node.children {
            self.path.push(name)?;
            self.raw_path.push(name);
            match &child.properties {
                Some(file) if child.is_file() => {
                    // A file has no siblings.
                    if !child.children.is_empty() {
                        return Err(MetainfoError::FileTree);
                    }
                    self.file(file)?;
                }
                _ => self.folder(child)?,
            }
            self.path.pop();
            self.raw_path.pop();
        }
        Ok(())
    }

    fn file(&mut self, file: &RawFile) -> Result<(), MetainfoError> {
        if self.files.len() >= MAX_FILES {
            return Err(MetainfoError::TooManyFiles);
        }
        let path = self.path.path().ok_or(MetainfoError::FileTree)?;
        let raw_path: Option<RawPath> =
            self.path.is_changed().then(|| self.raw_path.iter().map(|c| Box::from(*c)).collect());
        let raw_len: usize = raw_path.iter().flatten().map(|c| c.len() + size_of::<Box<[u8]>>()).sum();
        self.paths_len += path.as_str().len() + raw_len;
        if self.paths_len > MAX_PATHS_LEN {
            return Err(MetainfoError::PathTooLong);
        }
        // Pad files do not exist in version 2, where files are aligned without them.
        let attr = Attributes { pad: false, ..file.attributes() };
        let length = file.checked_length(attr)?;
        let symlink = file.symlink_target(attr);
        let pieces_root = match &file.pieces_root {
            _ if length == 0 => None,
            Some(root) => {
                let root = <[u8; 32]>::try_from(root.as_slice()).ok().filter(|r| *r != [0; 32]);
                Some(root.ok_or_else(|| MetainfoError::PiecesRoot(printable(path.as_str())))?)
            }
            None => return Err(MetainfoError::PiecesRoot(printable(path.as_str()))),
        };
        self.files.push(Listed { path, raw_path, length, attr, symlink, pieces_root });
        Ok(())
    }
}

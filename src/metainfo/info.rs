use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::file_list::{self, Listed};
use super::layout::{self, Layout};
use super::limits::{MAX_PATH_LEN, MAX_TORRENT_LEN};
use super::{MetainfoError, SafePath, file_tree, merkle, names};
use crate::base::bencode::{Dictionary, Limits};
use crate::base::{BLOCK_LEN, Geometry, InfoHash, InfoHashV1, InfoHashV2, MAX_PIECE_LENGTH, PieceIndex, printable};

/// A checked info dictionary: what a torrent is, as its info-hash names it (BEP 3, 47, 52).
#[derive(Clone, Debug)]
pub struct Info {
    raw: Arc<[u8]>,
    info_hash: InfoHash,
    name: SafePath,
    raw_name: Box<[u8]>,
    single_file: bool,
    files: Vec<File>,
    geometry: Geometry,
    total_size: u64,
    private: bool,
    source: Option<String>,
    /// Where v1's `pieces` lie in `raw`.
    pieces: Option<Range<usize>>,
    /// Files of version 2 that have data, by first piece.
    roots: Vec<Root>,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the torrent's own folder; of a single-file torrent, the file itself (its name is nearly always the
    /// torrent's). No two files that are written have the same, letter case ignored.
    pub path: SafePath,
    /// In bytes.
    pub length: u64,
    /// Where the file begins in the space of pieces, in bytes.
    pub offset: u64,
    /// What kind of file (BEP 47).
    pub attr: Attributes,
    /// The root of its hash tree (BEP 52); `None` for an empty file, and in a v1-only torrent.
    pub pieces_root: Option<[u8; 32]>,
    /// Where a symlink points, from the torrent's own folder (BEP 47). Not to be followed without further checks.
    pub symlink: Option<SafePath>,
    /// The path as it stands in the torrent, where making it safe changed it: see [`File::raw_components`].
    pub raw_path: Option<Box<[Box<[u8]>]>>,
}

impl File {
    /// The components of the path as they stand in the torrent: for URLs of web seeds (BEP 19), never for the disk.
    pub fn raw_components(&self) -> impl Iterator<Item = &[u8]> {
        let raw = self.raw_path.iter().flat_map(|p| p.iter().map(|c| &**c));
        let safe = self.raw_path.is_none().then(|| self.path.components().map(str::as_bytes));
        raw.chain(safe.into_iter().flatten())
    }

    /// The path that the file has where the torrent was made, if a file system of this kind can have it and it stays
    /// below its folder: for finding data that is already there under names that [`File::path`] avoids (`aux.c`,
    /// `etc.`, names that are not UTF-8). `None` when it is [`File::path`] itself, or is not to be used.
    #[cfg(unix)]
    pub fn original_path(&self) -> Option<PathBuf> {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let raw = self.raw_path.as_ref()?;
        let plain = |c: &[u8]| !matches!(c, b"" | b"." | b"..") && !c.contains(&b'/') && !c.contains(&0);
        raw.iter().all(|c| plain(c)).then(|| raw.iter().map(|c| OsStr::from_bytes(c)).collect())
    }
}

/// The flags of a file (`attr`, BEP 47).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Zeros that align the next file to a piece: never written, reads as zeros.
    pub pad: bool,
    /// May be run.
    pub executable: bool,
    /// Hidden in listings.
    pub hidden: bool,
    /// Points to another file and has no data.
    pub symlink: bool,
}

/// What the data of a piece must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceHash<'a> {
    /// SHA-1 of the piece, padding included (BEP 3).
    V1(&'a [u8; 20]),
    /// The root of the piece's SHA-256 tree (BEP 52).
    V2 {
        /// The root.
        root: [u8; 32],
        /// Leaves of the tree, a power of two: those behind the data are 32 zero bytes, see [`merkle::piece_root`].
        width: u32,
    },
    /// Both, and both must match.
    Hybrid {
        /// SHA-1 of the piece, padding included.
        v1: &'a [u8; 20],
        /// The root over the piece's data without the padding.
        root: [u8; 32],
        /// Leaves of the tree.
        width: u32,
    },
}

/// A file's tree.
#[derive(Clone, Debug)]
struct Root {
    file: usize,
    first_piece: u32,
    piece_count: u32,
    root: [u8; 32],
    width: u32,
    /// The roots of its pieces; `None` while they are not known. Not used by a file of one piece.
    layer: Option<Box<[[u8; 32]]>>,
}

impl Root {
    fn piece(&self, n: u32) -> Option<[u8; 32]> {
        if self.piece_count == 1 { Some(self.root) } else { self.layer.as_ref()?.get(n as usize).copied() }
    }
}

/// One half of a torrent before it is laid out.
struct Half {
    files: Vec<Listed>,
    single_file: bool,
}

impl Info {
    /// Checks an info dictionary that a peer sent (BEP 9), or that is taken from elsewhere than a `.torrent` file.
    ///
    /// `piece_layers` is the bencoded value of that key of a `.torrent` file; without it the hashes of v2 pieces may be
    /// missing: see [`Info::missing_layers`]. Compare [`Info::matches`] with the hash that was asked for.
    ///
    /// # Errors
    /// A [`MetainfoError`] for anything that is not a sound info dictionary.
    pub fn parse(raw_info: &[u8], piece_layers: Option<&[u8]>) -> Result<Self, MetainfoError> {
        Self::parse_within(raw_info, piece_layers, Limits::METADATA)
    }

    pub(super) fn parse_within(raw: &[u8], piece_layers: Option<&[u8]>, limits: Limits) -> Result<Self, MetainfoError> {
        if raw.len() > MAX_TORRENT_LEN {
            return Err(MetainfoError::TooLarge(raw.len()));
        }
        let dict = Dictionary::parse(raw, limits)?;
        let version = match integer(&dict, "meta version")? {
            None | Some(1) => 1,
            Some(2) => 2,
            Some(other) => return Err(MetainfoError::UnsupportedVersion(other)),
        };
        let raw_name = utf8_or(&dict, b"name.utf-8", b"name")?.ok_or(MetainfoError::Missing("name"))?;
        let name = SafePath::new([raw_name])?;
        let piece_length = piece_length(&dict, version)?;

        let v2 = if version == 2 {
            if !dict.is_canonical() {
                return Err(MetainfoError::NotCanonical);
            }
            Some(v2_half(&dict, limits)?)
        } else {
            None
        };
        let has_v1 = [b"pieces".as_slice(), b"files", b"length"].iter().any(|k| dict.raw(k).is_some());
        let v1 = if version == 1 || has_v1 { Some(v1_half(&dict, raw_name, limits)?) } else { None };

        let hash_v1 = InfoHashV1(Sha1::digest(raw).into());
        let hash_v2 = InfoHashV2(Sha256::digest(raw).into());
        let (info_hash, single_file, layout) = match (v1, v2) {
            (Some(mut v1), Some(v2)) => {
                join(&mut v1, v2)?;
                let layout = layout::contiguous(v1.files, piece_length)?;
                same_pieces(&layout, piece_length)?;
                (InfoHash::hybrid(hash_v1, hash_v2), v1.single_file, layout)
            }
            (Some(v1), None) => (InfoHash::v1(hash_v1), v1.single_file, layout::contiguous(v1.files, piece_length)?),
            (None, Some(v2)) => (InfoHash::v2(hash_v2), v2.single_file, layout::aligned(v2.files, piece_length)?),
            (None, None) => return Err(MetainfoError::Missing("files")),
        };
        let Layout { mut files, geometry, total_size } = layout;
        let longest = files.iter().map(|f| f.path.as_str().len()).max().unwrap_or(0);
        if !single_file && name.as_str().len() + 1 + longest > MAX_PATH_LEN {
            return Err(MetainfoError::PathTooLong);
        }
        names::resolve_duplicates(&mut files)?;

        let pieces = info_hash.as_v1().map(|_| pieces(raw, &dict, &geometry)).transpose()?;
        let roots = if info_hash.as_v2().is_some() { roots(&files, piece_length)? } else { Vec::new() };
        let private = integer(&dict, "private").ok().flatten() == Some(1);
        let source = dict.raw(b"source").and_then(text).map(|s| String::from_utf8_lossy(s).into_owned());
        let mut info = Self {
            raw: raw.into(),
            info_hash,
            name,
            raw_name: raw_name.into(),
            single_file,
            files,
            geometry,
            total_size,
            private,
            source,
            pieces,
            roots,
        };
        if let Some(layers) = piece_layers {
            info.take_layers(layers, limits)?;
        }
        Ok(info)
    }

    /// The identity: hashes over the bytes of the dictionary as they came.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// Whether this is the torrent that `wanted` names: each hash of `wanted` is one of ours.
    pub fn matches(&self, wanted: &InfoHash) -> bool {
        let ours = self.info_hash;
        wanted.as_v1().is_none_or(|h| ours.as_v1() == Some(h)) && wanted.as_v2().is_none_or(|h| ours.as_v2() == Some(h))
    }

    /// The torrent's name, safe as the name of its file or folder.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The name as it stands in the torrent: for URLs of web seeds (BEP 19), never for the disk or the screen.
    pub fn raw_name(&self) -> &[u8] {
        &self.raw_name
    }

    /// The dictionary as it came, to hand it on (BEP 9).
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Pieces and blocks.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// All files in the order of the torrent, pad files among them. The number of a file is its place here.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Whether the torrent is one file, not a folder called [`Info::name`].
    pub fn is_single_file(&self) -> bool {
        self.single_file
    }

    /// Bytes of all files without padding.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// Whether peers may come from the torrent's trackers only (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// `source`: set by some trackers to make the info-hash their own. Not free of control characters.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Where `file` lies on disk, below the folder that downloads go to: with the torrent's folder in front for a
    /// torrent of several files.
    pub fn disk_path(&self, file: &File) -> PathBuf {
        if self.single_file { file.path.to_path_buf() } else { self.name.to_path_buf().join(file.path.to_path_buf()) }
    }

    /// What `piece` must hash to; `None` when that is not known yet: see [`Info::missing_layers`].
    ///
    /// Of a hybrid without layers the v1 hash is known, and returned alone.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<PieceHash<'_>> {
        let v1 = self.pieces.clone().and_then(|p| self.raw[p].as_chunks::<20>().0.get(piece.idx()));
        let v2 = self.root_of(piece).and_then(|r| Some((r.piece(piece.get() - r.first_piece)?, r.width)));
        match (v1, v2) {
            (Some(v1), Some((root, width))) => Some(PieceHash::Hybrid { v1, root, width }),
            (Some(v1), None) => Some(PieceHash::V1(v1)),
            (None, Some((root, width))) => Some(PieceHash::V2 { root, width }),
            (None, None) => None,
        }
    }

    fn root_of(&self, piece: PieceIndex) -> Option<&Root> {
        let after = self.roots.partition_point(|r| r.first_piece <= piece.get());
        let root = self.roots.get(after.checked_sub(1)?)?;
        (piece.get() - root.first_piece < root.piece_count).then_some(root)
    }

    /// The files (by number) whose piece hashes have still to be asked from peers (BEP 52, "hash request").
    pub fn missing_layers(&self) -> impl Iterator<Item = usize> {
        self.roots.iter().filter(|r| r.piece_count > 1 && r.layer.is_none()).map(|r| r.file)
    }

    /// The roots of the pieces of `file`; `None` if they are missing, or the file has at most one piece.
    pub fn piece_layer(&self, file: usize) -> Option<&[[u8; 32]]> {
        self.root_of_file(file).and_then(|at| self.roots.get(at)?.layer.as_deref())
    }

    /// Takes the roots of the pieces of `file`, as peers sent them.
    ///
    /// # Errors
    /// [`MetainfoError::LayerMismatch`] when they do not lead to the file's root: a peer lied.
    pub fn set_piece_layer(&mut self, file: usize, layer: Vec<[u8; 32]>) -> Result<(), MetainfoError> {
        let mismatch = || {
            let path = self.files.get(file).map(|f| printable(f.path.as_str()));
            MetainfoError::LayerMismatch(path.unwrap_or_default())
        };
        let at = self.root_of_file(file).ok_or_else(mismatch)?;
        let root = self.roots.get(at).ok_or_else(mismatch)?;
        let fits = layer.len() == root.piece_count as usize
            && merkle::file_root(&layer, self.geometry.piece_length()) == root.root;
        if !fits {
            return Err(mismatch());
        }
        if let Some(root) = self.roots.get_mut(at) {
            root.layer = Some(layer.into());
        }
        Ok(())
    }

    fn root_of_file(&self, file: usize) -> Option<usize> {
        self.roots.binary_search_by_key(&file, |r| r.file).ok()
    }

    /// Takes the layers of all files from the value of `piece layers`.
    fn take_layers(&mut self, raw: &[u8], limits: Limits) -> Result<(), MetainfoError> {
        let dict = Dictionary::parse(raw, limits).map_err(|_| MetainfoError::Malformed("piece layers"))?;
        let mut layers: Vec<(&[u8], &[u8])> = dict.entries().collect();
        layers.sort_unstable();
        let wanted: Vec<(usize, [u8; 32])> =
            self.roots.iter().filter(|r| r.piece_count > 1).map(|r| (r.file, r.root)).collect();
        for (file, root) in wanted {
            // What is not there is told by `missing_layers`.
            let Ok(found) = layers.binary_search_by_key(&root.as_slice(), |(key, _)| key) else { continue };
            let hashes = text(layers[found].1).ok_or(MetainfoError::Malformed("piece layers"))?;
            let (hashes, rest) = hashes.as_chunks::<32>();
            if !rest.is_empty() {
                return Err(MetainfoError::LayerMismatch(printable(self.files[file].path.as_str())));
            }
            self.set_piece_layer(file, hashes.to_vec())?;
        }
        Ok(())
    }
}

/// The integer under `key`, if it is there.
fn integer(dict: &Dictionary<'_>, key: &'static str) -> Result<Option<i64>, MetainfoError> {
    dict.field(key.as_bytes()).map_err(|_| MetainfoError::Malformed(key))
}

/// The bytes of a bencoded string that has been scanned; `None` if it is no string.
pub(super) fn text(raw: &[u8]) -> Option<&[u8]> {
    let colon = raw.iter().position(|b| !b.is_ascii_digit()).filter(|at| raw.get(*at) == Some(&b':'))?;
    raw.get(colon + 1..)
}

/// The string under `utf8` if it is one and is UTF-8, else the string under `plain`.
fn utf8_or<'a>(dict: &Dictionary<'a>, utf8: &[u8], plain: &'static [u8]) -> Result<Option<&'a [u8]>, MetainfoError> {
    let preferred = dict.raw(utf8).and_then(text).filter(|t| !t.is_empty() && std::str::from_utf8(t).is_ok());
    match (preferred, dict.raw(plain)) {
        (Some(text), _) => Ok(Some(text)),
        (None, Some(raw)) => text(raw).map(Some).ok_or(MetainfoError::Malformed("name")),
        (None, None) => Ok(None),
    }
}

fn piece_length(dict: &Dictionary<'_>, version: u8) -> Result<u32, MetainfoError> {
    let length = integer(dict, "piece length")?.ok_or(MetainfoError::Missing("piece length"))?;
    let valid = u32::try_from(length).ok().filter(|l| (1..=MAX_PIECE_LENGTH).contains(l));
    let valid = valid.ok_or(MetainfoError::PieceLength(length))?;
    if version == 2 && (valid < BLOCK_LEN || !valid.is_power_of_two()) {
        return Err(MetainfoError::PieceLengthV2(valid));
    }
    Ok(valid)
}

fn v1_half(dict: &Dictionary<'_>, raw_name: &[u8], limits: Limits) -> Result<Half, MetainfoError> {
    if let Some(files) = dict.raw(b"files") {
        return Ok(Half { files: file_list::parse_list(files, limits)?, single_file: false });
    }
    let length = integer(dict, "length")?.ok_or(MetainfoError::Missing("files"))?;
    let (path, raw_path) = file_list::name(&[raw_name])?;
    let attr = dict.raw(b"attr").and_then(text).unwrap_or_default();
    let attr = Attributes { executable: attr.contains(&b'x'), hidden: attr.contains(&b'h'), ..Attributes::default() };
    let length = file_list::checked_length(length)?;
    let file = Listed { path, raw_path, length, attr, symlink: None, pieces_root: None };
    Ok(Half { files: vec![file], single_file: true })
}

fn v2_half(dict: &Dictionary<'_>, limits: Limits) -> Result<Half, MetainfoError> {
    let tree = dict.raw(b"file tree").ok_or(MetainfoError::Missing("file tree"))?;
    let files = file_tree::parse_tree(tree, limits)?;
    // A lone file in the outermost folder is the torrent, whatever `name` says (BEP 52, "interpreting paths").
    let single_file = matches!(&files[..], [file] if file.path.components().count() == 1);
    Ok(Half { files, single_file })
}

/// Gives the files of `v1` what the same files of `v2` know.
fn join(v1: &mut Half, v2: Half) -> Result<(), MetainfoError> {
    let mismatch = |what: String| Err(MetainfoError::HybridMismatch(what));
    let v2_count = v2.files.len();
    let mut v2 = v2.files.into_iter();
    let mut v1_count = 0;
    for ours in v1.files.iter_mut().filter(|f| !f.attr.pad) {
        v1_count += 1;
        let Some(theirs) = v2.next() else { continue };
        if (&ours.path, &ours.raw_path) != (&theirs.path, &theirs.raw_path) {
            let [a, b] = [&ours.path, &theirs.path].map(|p| printable(p.as_str()));
            return mismatch(format!("\"{a}\" here is \"{b}\" there"));
        }
        if ours.length != theirs.length {
            let name = printable(ours.path.as_str());
            return mismatch(format!("\"{name}\" has {} bytes here and {} there", ours.length, theirs.length));
        }
        ours.pieces_root = theirs.pieces_root;
    }
    if v1_count != v2_count {
        return mismatch(format!("{v1_count} files here and {v2_count} there"));
    }
    Ok(())
}

/// Both halves of a hybrid must cut the files into the same pieces: each file begins one.
fn same_pieces(layout: &Layout, piece_length: u32) -> Result<(), MetainfoError> {
    let length = u64::from(piece_length);
    let mut pieces = 0;
    for file in layout.files.iter().filter(|f| !f.attr.pad && f.length > 0) {
        if file.offset != pieces * length {
            let name = printable(file.path.as_str());
            return Err(MetainfoError::HybridMismatch(format!("\"{name}\" does not begin at its piece")));
        }
        pieces += file.length.div_ceil(length);
    }
    if u64::from(layout.geometry.piece_count()) != pieces {
        return Err(MetainfoError::HybridMismatch("padding behind the last piece".to_owned()));
    }
    Ok(())
}

/// Where `pieces` lies in `raw`, if it has a hash for each piece.
fn pieces(raw: &[u8], dict: &Dictionary<'_>, geometry: &Geometry) -> Result<Range<usize>, MetainfoError> {
    let value = dict.raw(b"pieces").ok_or(MetainfoError::Missing("pieces"))?;
    let hashes = text(value).ok_or(MetainfoError::Malformed("pieces"))?;
    let expected = u64::from(geometry.piece_count()) * 20;
    if hashes.len() as u64 != expected {
        return Err(MetainfoError::PiecesLength { actual: hashes.len(), expected });
    }
    // `hashes` is a slice of `raw`, so its place is the distance of the two.
    let start = hashes.as_ptr().addr().checked_sub(raw.as_ptr().addr());
    start.map(|start| start..start + hashes.len()).ok_or(MetainfoError::Malformed("pieces"))
}

fn roots(files: &[File], piece_length: u32) -> Result<Vec<Root>, MetainfoError> {
    let mut roots = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let Some(root) = file.pieces_root else { continue };
        let piece_count = file.length.div_ceil(u64::from(piece_length));
        let first_piece = file.offset / u64::from(piece_length);
        let (Ok(piece_count), Ok(first_piece)) = (u32::try_from(piece_count), u32::try_from(first_piece)) else {
            return Err(MetainfoError::FileLength);
        };
        let width = merkle::piece_width(file.length, piece_length);
        roots.push(Root { file: number, first_piece, piece_count, root, width, layer: None });
    }
    Ok(roots)
}

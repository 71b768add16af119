use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_bytes::{ByteBuf, Bytes};

use super::limits::{MAX_FILE_LEN, MAX_FILES, MAX_PATH_DEPTH, MAX_TORRENT_LEN};
use super::{MetainfoError, merkle};
use crate::base::{BLOCK_LEN, MAX_PIECE_COUNT, MAX_PIECE_LENGTH, printable};

/// Which versions of BitTorrent a torrent is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// BEP 3.
    V1,
    /// BEP 52.
    V2,
    /// Both: one torrent with two info-hashes, files aligned by pad files.
    #[default]
    Hybrid,
}

/// A file to make a torrent of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Below the torrent's folder. BitTorrent wants UTF-8; other bytes are kept as they are.
    pub path: Vec<Vec<u8>>,
    /// In bytes.
    pub length: u64,
    /// May be run.
    pub executable: bool,
    /// Hidden in listings.
    pub hidden: bool,
}

impl SourceFile {
    /// A file without flags.
    pub fn new(path: impl IntoIterator<Item = impl Into<Vec<u8>>>, length: u64) -> Self {
        Self { path: path.into_iter().map(Into::into).collect(), length, executable: false, hidden: false }
    }

    fn attr(&self) -> Option<String> {
        let flags: String = [(self.hidden, 'h'), (self.executable, 'x')].iter().filter(|f| f.0).map(|f| f.1).collect();
        Some(flags).filter(|f| !f.is_empty())
    }
}

/// Makes `.torrent` files: set what it shall say, [`plan`](Builder::plan) the pieces, hash them, and
/// [`finish`](Plan::finish).
///
/// The same input and options give the same bytes, in whatever order the files come.
///
/// ```
/// use gannet::metainfo::{Builder, Format, Metainfo};
/// use sha1::{Digest, Sha1};
///
/// let data = b"hello";
/// let mut builder = Builder::file("hello.txt", data.len() as u64);
/// builder.format = Format::V1;
/// let plan = builder.plan()?;
/// let bytes = plan.finish(&[Sha1::digest(data).into()], &[])?;
/// assert_eq!(Metainfo::parse(&bytes)?.info.name(), "hello.txt");
/// # Ok::<(), gannet::metainfo::MetainfoError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    name: Vec<u8>,
    files: Vec<SourceFile>,
    single_file: bool,
    /// Versions to make it for.
    pub format: Format,
    /// A power of two of at least 16 KiB; `None` aims at 1,000 to 2,000 pieces of 16 KiB to 16 MiB.
    pub piece_length: Option<u32>,
    /// Trackers in tiers (BEP 12).
    pub announce: Vec<Vec<String>>,
    /// BEP 19.
    pub web_seeds: Vec<String>,
    /// DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// BEP 27. Part of the info-hash.
    pub private: bool,
    /// Part of the info-hash: makes the torrent another one for another tracker.
    pub source: Option<String>,
    /// For people.
    pub comment: Option<String>,
    /// The program.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

/// The pieces of a torrent to be: what to read and hash. Made by [`Builder::plan`].
///
/// A piece is read once: its bytes go into SHA-1 for version 1 (with [`PlannedPiece::padding`] zeros behind them) and
/// into a tree of SHA-256 for version 2 ([`merkle::piece_root`] of [`PlannedPiece::width`]). Pieces may be hashed in any
/// order, on many cores.
#[derive(Debug)]
pub struct Plan {
    builder: Builder,
    piece_length: u32,
    piece_count: u32,
    /// Files in the order of the torrent.
    files: Vec<Planned>,
    /// Where the data of the last file that has some ends.
    end: u64,
}

#[derive(Debug)]
struct Planned {
    /// Number in the list given to the builder.
    source: usize,
    /// Position in the space of pieces.
    offset: u64,
    length: u64,
}

/// One piece to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPiece {
    /// What it consists of, in order.
    pub spans: Vec<Span>,
    /// Zeros that follow the spans, for SHA-1 only.
    pub padding: u32,
    /// Leaves of its SHA-256 tree.
    pub width: u32,
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file's number in the list that the builder was given.
    pub file: usize,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes; not 0.
    pub len: u32,
}

impl Builder {
    /// A torrent of one file.
    pub fn file(name: impl Into<Vec<u8>>, length: u64) -> Self {
        let name = name.into();
        let file = SourceFile::new([name.clone()], length);
        Self { single_file: true, ..Self::folder(name, vec![file]) }
    }

    /// A torrent of a folder called `name`, and what lies in it.
    pub fn folder(name: impl Into<Vec<u8>>, files: Vec<SourceFile>) -> Self {
        Self {
            name: name.into(),
            files,
            single_file: false,
            format: Format::default(),
            piece_length: None,
            announce: Vec::new(),
            web_seeds: Vec::new(),
            nodes: Vec::new(),
            private: false,
            source: None,
            comment: None,
            created_by: None,
            creation_date: None,
        }
    }

    /// Marks the file of a single-file torrent as one that may be run.
    #[must_use]
    pub fn executable(mut self, executable: bool) -> Self {
        if let [file] = self.files.as_mut_slice() {
            file.executable = executable;
        }
        self
    }

    /// Checks the files and lays them out.
    ///
    /// # Errors
    /// [`MetainfoError`] for names that cannot be in a torrent, files that collide, no data, or a bad piece length.
    pub fn plan(self) -> Result<Plan, MetainfoError> {
        check_name(&self.name)?;
        if self.files.len() > MAX_FILES {
            return Err(MetainfoError::TooManyFiles);
        }
        let mut total = 0u64;
        for (number, file) in self.files.iter().enumerate() {
            if file.path.is_empty() {
                return Err(MetainfoError::NoName(number));
            }
            if file.path.len() > MAX_PATH_DEPTH {
                return Err(MetainfoError::PathTooDeep);
            }
            file.path.iter().try_for_each(|c| check_name(c))?;
            total = total.checked_add(file.length).filter(|t| *t <= MAX_FILE_LEN).ok_or(MetainfoError::FileLength)?;
        }
        if total == 0 {
            return Err(MetainfoError::NoData);
        }
        // The order of version 2's tree, which version 1 shares.
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by(|a, b| self.files[*a].path.cmp(&self.files[*b].path));
        for (a, b) in order.iter().zip(order.iter().skip(1)) {
            let (a, b) = (&self.files[*a].path, &self.files[*b].path);
            if b.starts_with(a) {
                return Err(MetainfoError::FileIsFolder(shown(a)));
            }
        }
        let lengths = || order.iter().map(|i| self.files[*i].length);
        let piece_length = match self.piece_length {
            Some(length) if length < BLOCK_LEN || !length.is_power_of_two() => {
                return Err(MetainfoError::PieceLengthV2(length));
            }
            Some(length) if length > MAX_PIECE_LENGTH => return Err(MetainfoError::PieceLength(length.into())),
            Some(length) => length,
            None => automatic_piece_length(total, |piece_length| piece_count(self.format, lengths(), piece_length)),
        };
        let count = piece_count(self.format, lengths(), piece_length);
        let Some(piece_count) = u32::try_from(count).ok().filter(|c| *c <= MAX_PIECE_COUNT) else {
            return Err(MetainfoError::Build(format!(
                "{count} pieces are more than {MAX_PIECE_COUNT}: choose a larger piece length"
            )));
        };

        let mut files = Vec::with_capacity(order.len());
        let (mut position, mut end) = (0u64, 0);
        for source in order {
            let length = self.files[source].length;
            if self.format != Format::V1 && length > 0 {
                position = position.next_multiple_of(piece_length.into());
            }
            files.push(Planned { source, offset: position, length });
            position += length;
            end = position;
        }
        Ok(Plan { builder: self, piece_length, piece_count, files, end })
    }
}

fn shown(path: &[Vec<u8>]) -> String {
    printable(&String::from_utf8_lossy(&path.join(&b'/')))
}

/// A name that can stand in a torrent and means the same on every system's disk as far as folders go.
fn check_name(name: &[u8]) -> Result<(), MetainfoError> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
        let name = printable(&String::from_utf8_lossy(name));
        return Err(MetainfoError::Build(format!("\"{name}\" cannot be the name of a file in a torrent")));
    }
    Ok(())
}

fn piece_count(format: Format, lengths: impl Iterator<Item = u64>, piece_length: u32) -> u64 {
    let length = u64::from(piece_length);
    match format {
        Format::V1 => lengths.sum::<u64>().div_ceil(length),
        Format::V2 | Format::Hybrid => lengths.map(|l| l.div_ceil(length)).sum(),
    }
}

/// The smallest that gives at most 2,000 pieces, within 16 KiB and 16 MiB; larger only where the limit on pieces asks.
fn automatic_piece_length(total: u64, piece_count: impl Fn(u32) -> u64) -> u32 {
    let wanted = total.div_ceil(2_000).next_power_of_two().clamp(u64::from(BLOCK_LEN), 16 << 20);
    let mut length = u32::try_from(wanted).unwrap_or(16 << 20);
    while piece_count(length) > u64::from(MAX_PIECE_COUNT) && length < MAX_PIECE_LENGTH / 2 {
        length *= 2;
    }
    length
}

impl Plan {
    /// Bytes of a full piece.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces there are to hash.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// Bytes of all files.
    pub fn total_size(&self) -> u64 {
        self.files.iter().map(|f| f.length).sum()
    }

    /// The versions it is for: whether SHA-1, SHA-256 or both are needed.
    pub fn format(&self) -> Format {
        self.builder.format
    }

    /// The files, by number as in [`Span::file`].
    pub fn files(&self) -> &[SourceFile] {
        &self.builder.files
    }

    /// What piece number `piece` consists of; `None` beyond the last.
    pub fn piece(&self, piece: u32) -> Option<PlannedPiece> {
        if piece >= self.piece_count {
            return None;
        }
        let length = u64::from(self.piece_length);
        let start = u64::from(piece) * length;
        let end = start + length;
        let first = self.files.partition_point(|f| f.offset + f.length <= start);
        let mut spans = Vec::new();
        let mut data = 0;
        let mut width = 1;
        for file in self.files[first..].iter().take_while(|f| f.offset < end).filter(|f| f.length > 0) {
            let from = file.offset.max(start);
            let to = (file.offset + file.length).min(end);
            // A piece is at most 512 MiB.
            let len = u32::try_from(to - from).unwrap_or(u32::MAX);
            spans.push(Span { file: file.source, offset: from - file.offset, len });
            data += len;
            width = merkle::piece_width(file.length, self.piece_length);
        }
        let whole = if self.builder.format == Format::Hybrid { end.min(self.end) } else { start + u64::from(data) };
        let padding = u32::try_from(whole - start).unwrap_or(u32::MAX).saturating_sub(data);
        Some(PlannedPiece { spans, padding, width })
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = PlannedPiece> + '_ {
        (0..self.piece_count).filter_map(|n| self.piece(n))
    }

    /// The `.torrent` file. `v1` has the SHA-1 of every piece, in order, and is empty for a v2 torrent; `v2` has the
    /// root of every piece's tree, and is empty for a v1 torrent.
    ///
    /// # Errors
    /// [`MetainfoError::Build`] when the hashes are not as many as the pieces, or the file would become larger than
    /// anybody accepts.
    pub fn finish(&self, v1: &[[u8; 20]], v2: &[[u8; 32]]) -> Result<Vec<u8>, MetainfoError> {
        let builder = &self.builder;
        let (has_v1, has_v2) = (builder.format != Format::V2, builder.format != Format::V1);
        let count = self.piece_count as usize;
        if v1.len() != if has_v1 { count } else { 0 } || v2.len() != if has_v2 { count } else { 0 } {
            return Err(MetainfoError::Build("the hashes are not as many as the pieces".to_owned()));
        }
        let mut tree = Node::default();
        let mut layers = BTreeMap::new();
        if has_v2 {
            for file in &self.files {
                let source = &builder.files[file.source];
                let root = self.root(file, v2, &mut layers);
                let leaf = Leaf { attr: source.attr(), length: file.length, root };
                tree.insert(&source.path, leaf);
            }
        }
        let files = (has_v1 && !builder.single_file).then(|| self.v1_files());
        let single = builder.files.first().filter(|_| has_v1 && builder.single_file);
        let info = InfoDict {
            attr: single.and_then(SourceFile::attr),
            tree: has_v2.then_some(tree),
            files,
            length: single.map(|f| f.length),
            meta_version: has_v2.then_some(2),
            name: Bytes::new(&builder.name),
            piece_length: self.piece_length,
            pieces: has_v1.then(|| Bytes::new(v1.as_flattened())),
            private: builder.private.then_some(1),
            source: builder.source.as_deref(),
        };
        let tiers = builder.announce.iter().filter(|t| !t.is_empty());
        let announce_list: Vec<&Vec<String>> = tiers.collect();
        let bytes = crate::base::bencode::encode(&TorrentDict {
            announce: announce_list.first().and_then(|t| t.first()).map(String::as_str),
            announce_list: Some(&announce_list).filter(|l| l.iter().map(|t| t.len()).sum::<usize>() > 1),
            comment: builder.comment.as_deref(),
            created_by: builder.created_by.as_deref(),
            creation_date: builder.creation_date,
            info,
            nodes: Some(&builder.nodes).filter(|n| !n.is_empty()),
            layers: has_v2.then_some(layers),
            url_list: Some(&builder.web_seeds).filter(|w| !w.is_empty()),
        })?;
        if bytes.len() > MAX_TORRENT_LEN {
            return Err(MetainfoError::Build(format!(
                "the torrent would have {} bytes, more than {MAX_TORRENT_LEN}: choose a larger piece length",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// The `pieces root` of a file; its piece layer goes to `layers` if it has more than one piece.
    fn root(&self, file: &Planned, v2: &[[u8; 32]], layers: &mut BTreeMap<ByteBuf, ByteBuf>) -> Option<ByteBuf> {
        let length = u64::from(self.piece_length);
        let first = usize::try_from(file.offset / length).ok()?;
        let count = usize::try_from(file.length.div_ceil(length)).ok()?;
        let layer = v2.get(first..first + count)?;
        match layer {
            [] => None,
            [root] => Some(ByteBuf::from(*root)),
            _ => {
                let root = ByteBuf::from(merkle::file_root(layer, self.piece_length));
                layers.insert(root.clone(), ByteBuf::from(layer.as_flattened()));
                Some(root)
            }
        }
    }

    /// `files` of version 1: in a hybrid, a pad file goes in front of each file that has data and would else begin
    /// within a piece (BEP 47).
    fn v1_files(&self) -> Vec<ListedFile> {
        let mut list = Vec::with_capacity(self.files.len());
        let mut position = 0;
        for file in &self.files {
            let padding = file.offset - position;
            if padding > 0 {
                let path = [".pad".to_owned(), padding.to_string()].map(|c| ByteBuf::from(c.into_bytes()));
                list.push(ListedFile { attr: Some("p".to_owned()), length: padding, path: path.into() });
            }
            let source = &self.builder.files[file.source];
            let path = source.path.iter().map(|c| ByteBuf::from(c.as_slice())).collect();
            list.push(ListedFile { attr: source.attr(), length: file.length, path });
            position = file.offset + file.length;
        }
        list
    }
}

#[derive(serde::Serialize)]
struct TorrentDict<'a> {
    announce: Option<&'a str>,
    #[serde(rename = "announce-list")]
    announce_list: Option<&'a Vec<&'a Vec<String>>>,
    comment: Option<&'a str>,
    #[serde(rename = "created by")]
    created_by: Option<&'a str>,
    #[serde(rename = "creation date")]
    creation_date: Option<i64>,
    info: InfoDict<'a>,
    nodes: Option<&'a Vec<(String, u16)>>,
    #[serde(rename = "piece layers")]
    layers: Option<BTreeMap<ByteBuf, ByteBuf>>,
    #[serde(rename = "url-list")]
    url_list: Option<&'a Vec<String>>,
}

#[derive(serde::Serialize)]
struct InfoDict<'a> {
    attr: Option<String>,
    #[serde(rename = "file tree")]
    tree: Option<Node>,
    files: Option<Vec<ListedFile>>,
    length: Option<u64>,
    #[serde(rename = "meta version")]
    meta_version: Option<u8>,
    name: &'a Bytes,
    #[serde(rename = "piece length")]
    piece_length: u32,
    pieces: Option<&'a Bytes>,
    private: Option<u8>,
    source: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct ListedFile {
    attr: Option<String>,
    length: u64,
    path: Vec<ByteBuf>,
}

#[derive(serde::Serialize)]
struct Leaf {
    attr: Option<String>,
    length: u64,
    #[serde(rename = "pieces root")]
    root: Option<ByteBuf>,
}

/// One dictionary of the file tree.
#[derive(Default)]
struct Node {
    file: Option<Leaf>,
    children: BTreeMap<Vec<u8>, Node>,
}

impl Node {
    fn insert(&mut self, path: &[Vec<u8>], leaf: Leaf) {
        let mut node = self;
        for component in path {
            node = node.children.entry(component.clone()).or_default();
        }
        node.file = Some(leaf);
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(file) = &self.file {
            map.serialize_entry(Bytes::new(b""), file)?;
        }
        for (name, node) in &self.children {
            map.serialize_entry(Bytes::new(name), node)?;
        }
        map.end()
    }
}

use std::fmt;
use std::path::PathBuf;

use super::MetainfoError;
use super::limits::{MAX_COMPONENT_LEN, MAX_PATH_DEPTH, MAX_PATH_LEN};
use crate::base::{Printable, is_bidi_control};

/// A relative path that cannot leave the folder it is joined to: what the names in a torrent become, once, here.
///
/// Every component is a plain name: never empty, `.` or `..`, without separators of any system, control characters and
/// controls of the direction of writing, not a device of Windows, at most [`MAX_COMPONENT_LEN`] bytes. Shown without
/// characters that have no width.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Box<str>);

impl SafePath {
    /// Makes `components` safe, whatever bytes they are.
    ///
    /// # Errors
    /// [`MetainfoError::PathTooDeep`], [`MetainfoError::PathTooLong`], and [`MetainfoError::NoName`] (of file 0) when
    /// there is no component.
    pub fn new<'a>(components: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, MetainfoError> {
        let mut path = Components::default();
        components.into_iter().try_for_each(|c| path.push(c))?;
        path.path().ok_or(MetainfoError::NoName(0))
    }

    /// The components, outermost folder first; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/')
    }

    /// The components joined with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// As a relative path of this system, of normal components only.
    pub fn to_path_buf(&self) -> PathBuf {
        self.components().collect()
    }

    /// The same path with `.n` put before the extension of its last component.
    pub(super) fn numbered(&self, n: usize) -> Self {
        let (folders, name) = self.0.rsplit_once('/').map_or((None, &*self.0), |(f, n)| (Some(f), n));
        let (stem, extension) = split_extension(name);
        let room = MAX_COMPONENT_LEN.saturating_sub(extension.len() + 8);
        let stem = cut(stem, room);
        let name = format!("{stem}.{n}{extension}");
        Self(folders.map_or_else(|| name.clone(), |f| format!("{f}/{name}")).into())
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.0).fmt(f)
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A path made safe component by component: a folder's name once, however many files lie in it.
#[derive(Debug, Default)]
pub(super) struct Components {
    joined: String,
    /// For each component: where `joined` ended before it, and whether making it safe changed it.
    stack: Vec<(usize, bool)>,
    changed: usize,
}

impl Components {
    /// Goes into `component`.
    ///
    /// # Errors
    /// [`MetainfoError::PathTooDeep`], [`MetainfoError::PathTooLong`].
    pub(super) fn push(&mut self, component: &[u8]) -> Result<(), MetainfoError> {
        if self.stack.len() >= MAX_PATH_DEPTH {
            return Err(MetainfoError::PathTooDeep);
        }
        let safe = safe_component(component);
        let changed = safe.as_bytes() != component;
        self.stack.push((self.joined.len(), changed));
        self.changed += usize::from(changed);
        if !self.joined.is_empty() {
            self.joined.push('/');
        }
        self.joined.push_str(&safe);
        if self.joined.len() > MAX_PATH_LEN { Err(MetainfoError::PathTooLong) } else { Ok(()) }
    }

    /// Goes out of the last component.
    pub(super) fn pop(&mut self) {
        if let Some((end, changed)) = self.stack.pop() {
            self.joined.truncate(end);
            self.changed -= usize::from(changed);
        }
    }

    /// Whether any component is not what it was.
    pub(super) fn is_changed(&self) -> bool {
        self.changed > 0
    }

    /// The path up to here; `None` without a component.
    pub(super) fn path(&self) -> Option<SafePath> {
        (!self.stack.is_empty()).then(|| SafePath(self.joined.as_str().into()))
    }
}

/// The one place where a name from a torrent becomes a name on disk.
fn safe_component(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut name: String = text.chars().filter_map(safe_char).collect();
    // `C:` in front would be a drive, or on NTFS a stream of a file called `C`.
    if let [letter, b':', ..] = name.as_bytes()
        && letter.is_ascii_alphabetic()
    {
        name.replace_range(1..2, "_");
    }
    let mut name = shorten(&name);
    if name.is_empty() {
        // What was `.`, `..`, or nothing.
        name.push('_');
    }
    if is_device(&name) {
        name.insert(0, '_');
        name = shorten(&name);
    }
    name
}

fn safe_char(c: char) -> Option<char> {
    match c {
        '/' | '\\' => Some('_'),
        '<' | '>' | ':' | '"' | '|' | '?' | '*' if cfg!(windows) => Some('_'),
        c if c.is_control() || is_bidi_control(c) => None,
        c => Some(c),
    }
}

/// At most [`MAX_COMPONENT_LEN`] bytes, the extension kept; without dots and spaces at the end, which Windows drops.
fn shorten(name: &str) -> String {
    let name = name.trim_end_matches(['.', ' ']);
    if name.len() <= MAX_COMPONENT_LEN {
        return name.to_owned();
    }
    let (stem, extension) = split_extension(name);
    let cut = cut(stem, MAX_COMPONENT_LEN - extension.len());
    format!("{cut}{extension}").trim_end_matches(['.', ' ']).to_owned()
}

/// The name without its extension, and the extension with its dot; an "extension" of more than 20 bytes is none.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 21 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// At most `len` bytes of `text`, whole characters.
fn cut(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether Windows takes the name for a device, with or without an extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    // The longest is `CONOUT$`.
    if stem.len() > 7 {
        return false;
    }
    let upper = stem.to_ascii_uppercase();
    if matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let port = upper.strip_prefix("COM").or_else(|| upper.strip_prefix("LPT"));
    port.is_some_and(|p| {
        let mut chars = p.chars();
        matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn one(raw: &[u8]) -> String {
        SafePath::new([raw]).unwrap().as_str().to_owned()
    }

    #[test]
    fn m8_attacks_become_plain_names() {
        let table: &[(&[u8], &str)] = &[
            (b"plain.txt", "plain.txt"),
            (b"", "_"),
            (b".", "_"),
            (b"..", "_"),
            (b"...", "_"),
            (b".hidden", ".hidden"),
            (b"/", "_"),
            (b"/etc/passwd", "_etc_passwd"),
            (b"a/b", "a_b"),
            (b"a\\b", "a_b"),
            (b"..\\..\\x", ".._.._x"),
            (b"\\\\srv\\x", "__srv_x"),
            (b"C:", "C_"),
            (b"C:\\x", "C__x"),
            (b"\0", "_"),
            (b".\0.", "_"),
            (".\u{202e}.".as_bytes(), "_"),
            (b"a\x1b[2Jb\x7f", "a[2Jb"),
            ("x\u{85}y".as_bytes(), "xy"),
            (b"CON", "_CON"),
            (b"con.txt", "_con.txt"),
            (b"Aux .c", "_Aux .c"),
            (b"COM7", "_COM7"),
            (b"COM10", "COM10"),
            ("lpt².x".as_bytes(), "_lpt².x"),
            (b"CONSOLE", "CONSOLE"),
            (b"dot. . .", "dot"),
            (b"  leading", "  leading"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\xc0\xae\xc0\xae", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{200d}b".as_bytes(), "a\u{200d}b"),
            (b"-rf", "-rf"),
            (b"$(touch pwned)", "$(touch pwned)"),
        ];
        for (raw, safe) in table {
            assert_eq!(one(raw), *safe, "{}", raw.escape_ascii());
        }
        let path = SafePath::new([b"..".as_slice(), b"..", b"etc"]).unwrap();
        assert_eq!(path.as_str(), "_/_/etc");
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = [&[b'x'; 300][..], b".tar.gz"].concat();
        let name = one(&long);
        assert_eq!(name.len(), MAX_COMPONENT_LEN);
        assert!(name.ends_with("x.gz"));
        // Cutting must not make a device out of an honest name, nor go beyond the limit.
        let spaces = [b"CON".as_slice(), &[b' '; 300], b"x"].concat();
        assert_eq!(one(&spaces), "_CON");
        assert!(one(&[b"NUL.".as_slice(), &[b'y'; 236]].concat()).len() <= MAX_COMPONENT_LEN);
        assert!(one("é".repeat(200).as_bytes()).len() <= MAX_COMPONENT_LEN);
    }

    #[test]
    fn depth_and_length() {
        let deep = vec![b"a".as_slice(); MAX_PATH_DEPTH];
        assert!(SafePath::new(deep.clone()).is_ok());
        assert_eq!(SafePath::new([deep, vec![b"a"]].concat()), Err(MetainfoError::PathTooDeep));
        assert_eq!(SafePath::new([&[b'a'; 300][..]; 20]), Err(MetainfoError::PathTooLong));
        assert_eq!(SafePath::new([]), Err(MetainfoError::NoName(0)));
    }

    #[test]
    fn numbers_go_before_the_extension() {
        let numbered = |s: &str| SafePath(s.into()).numbered(7).as_str().to_owned();
        assert_eq!(numbered("a/b.c/d.txt"), "a/b.c/d.7.txt");
        assert_eq!(numbered("README"), "README.7");
        assert_eq!(numbered(".profile"), ".profile.7");
        assert!(numbered(&"x".repeat(240)).len() <= MAX_COMPONENT_LEN);
    }

    proptest! {
        /// Whatever the bytes: a relative path of normal components, each short and without separators, and making it
        /// safe again changes nothing.
        #[test]
        fn never_leaves_the_root(raw in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
            let path = SafePath::new(raw.iter().map(Vec::as_slice)).unwrap();
            prop_assert!(path.to_path_buf().components().all(|c| matches!(c, Component::Normal(_))));
            prop_assert_eq!(path.to_path_buf().components().count(), raw.len());
            for c in path.components() {
                prop_assert!(!c.is_empty() && c.len() <= MAX_COMPONENT_LEN && !c.contains(['/', '\\', '\0']));
            }
            let again = SafePath::new(path.components().map(str::as_bytes)).unwrap();
            prop_assert_eq!(again, path);
        }

        /// The same, drawn from the characters that matter.
        #[test]
        fn never_leaves_the_root_by_design(raw in "[.:/\\\\ CONconaux0-9\\x00\u{202e}\u{200b}]{0,12}") {
            let path = SafePath::new([raw.as_bytes()]).unwrap();
            let parts: Vec<_> = path.to_path_buf().components().map(|c| c.as_os_str().to_owned()).collect();
            prop_assert_eq!(parts, vec![std::ffi::OsString::from(path.as_str())]);
            prop_assert!(!matches!(path.as_str(), "." | ".." | ""));
        }
    }
}

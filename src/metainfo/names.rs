//! No two files of a torrent may want the same place on disk, on file systems that ignore case, or in how many characters
//! an accent is written, too.

use std::collections::BTreeSet;

use icu_normalizer::DecomposingNormalizerBorrowed;

use super::limits::MAX_DUPLICATES;
use super::{File, MetainfoError, SafePath};
use crate::base::{is_zero_width, printable};

/// A path as a file system sees it that ignores as much as any does (ext4 with `casefold`, APFS, NTFS): case, whether
/// letters and their accents are one character or several, and what takes no place. The separator becomes the smallest
/// character, so that in sorted order a path is followed by all that lies below it.
fn fold(path: &SafePath) -> String {
    let path = path.as_str();
    if path.is_ascii() {
        return path.to_ascii_lowercase().replace('/', "\0");
    }
    let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(path);
    // By way of the capitals, so that ß is ss, and ς is σ.
    let folded = decomposed.chars().filter(|c| !is_zero_width(*c)).flat_map(char::to_uppercase);
    let folded: String = folded.flat_map(char::to_lowercase).map(|c| if c == '/' { '\0' } else { c }).collect();
    // Marks that case has made, and the order of those that it has not.
    DecomposingNormalizerBorrowed::new_nfd().normalize(&folded).into_owned()
}

/// Gives each file a path of its own: of files that want the same one, the first keeps it and the others are numbered.
///
/// Works on sorted paths, so hostile lists cost no more than a sort. Pad files are left out: they are never written.
///
/// # Errors
/// [`MetainfoError::FileIsFolder`], [`MetainfoError::TooManyDuplicates`].
pub(super) fn resolve_duplicates(files: &mut [File]) -> Result<(), MetainfoError> {
    let written = files.iter().enumerate().filter(|(_, f)| !f.attr.pad);
    let mut paths: Vec<(String, usize)> = written.map(|(i, f)| (fold(&f.path), i)).collect();
    paths.sort_unstable();

    let mut renames: Vec<Vec<usize>> = Vec::new();
    let mut renamed = 0;
    let mut rest = paths.as_slice();
    while let Some((folded, first)) = rest.first() {
        let same = rest.partition_point(|(f, _)| f == folded);
        let (group, others) = rest.split_at(same);
        let below = others.partition_point(|(f, _)| is_below(f, folded));
        let mut losers: Vec<usize> = group.iter().map(|(_, i)| *i).collect();
        if below > 0 {
            let depth = files[*first].path.components().count();
            let folders: BTreeSet<&str> = others[..below].iter().map(|(_, i)| outer(&files[*i].path, depth)).collect();
            if let Some(both) = losers.iter().map(|i| files[*i].path.as_str()).find(|p| folders.contains(p)) {
                return Err(MetainfoError::FileIsFolder(printable(both)));
            }
            // They differ by case only: the folder keeps its name.
        } else {
            losers.remove(0);
        }
        renamed += losers.len();
        if renamed > MAX_DUPLICATES {
            return Err(MetainfoError::TooManyDuplicates);
        }
        if !losers.is_empty() {
            renames.push(losers);
        }
        rest = others;
    }

    let mut given: BTreeSet<String> = BTreeSet::new();
    for group in renames {
        // The number goes on from file to file, so each name that is taken is met once.
        let mut n = 0;
        for file in group {
            loop {
                n += 1;
                let path = files[file].path.numbered(n);
                let folded = fold(&path);
                let at = paths.partition_point(|(f, _)| *f < folded);
                let taken = paths.get(at).is_some_and(|(f, _)| *f == folded || is_below(f, &folded));
                if !taken && given.insert(folded) {
                    files[file].path = path;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The outermost `depth` components of `path`.
fn outer(path: &SafePath, depth: usize) -> &str {
    let path = path.as_str();
    path.match_indices('/').nth(depth.saturating_sub(1)).map_or(path, |(end, _)| &path[..end])
}

fn is_below(folded: &str, folder: &str) -> bool {
    folded.strip_prefix(folder).is_some_and(|rest| rest.starts_with('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Attributes;

    fn files(paths: &[&str]) -> Vec<File> {
        let file = |p: &&str| File {
            path: SafePath::new(p.split('/').map(str::as_bytes)).unwrap(),
            length: 1,
            offset: 0,
            attr: Attributes::default(),
            pieces_root: None,
            symlink: None,
            raw_path: None,
        };
        paths.iter().map(file).collect()
    }

    fn resolved(paths: &[&str]) -> Result<Vec<String>, MetainfoError> {
        let mut files = files(paths);
        resolve_duplicates(&mut files)?;
        Ok(files.iter().map(|f| f.path.as_str().to_owned()).collect())
    }

    #[test]
    fn the_first_keeps_its_name() {
        let table: &[(&[&str], &[&str])] = &[
            (&["a", "b"], &["a", "b"]),
            (&["a.txt", "a.txt", "A.TXT"], &["a.txt", "a.1.txt", "A.2.TXT"]),
            (&["a.1", "a", "a"], &["a.1", "a", "a.2"]),
            (&["d/x", "D/X", "d/x.1"], &["d/x", "D/X.2", "d/x.1"]),
            (&["É", "é"], &["É", "é.1"]),
            // One character, or two; case besides; marks in another order; nothing at all.
            (&["caf\u{e9}", "cafe\u{301}", "CAF\u{c9}"], &["caf\u{e9}", "cafe\u{301}.1", "CAF\u{c9}.2"]),
            (&["q\u{307}\u{323}", "q\u{323}\u{307}"], &["q\u{307}\u{323}", "q\u{323}\u{307}.1"]),
            (&["straße", "STRASSE", "strasse"], &["straße", "STRASSE.1", "strasse.2"]),
            (&["ας", "ασ"], &["ας", "ασ.1"]),
            (&["a\u{200b}b", "ab"], &["a\u{200b}b", "ab.1"]),
            (&["\u{1100}\u{1161}", "\u{ac00}"], &["\u{1100}\u{1161}", "\u{ac00}.1"]),
            (&["e", "é", "è"], &["e", "é", "è"]),
            // A folder keeps its name before a file that differs from it by case.
            (&["readme", "Readme/a"], &["readme.1", "Readme/a"]),
            (&["x.1/y", "x", "x"], &["x.1/y", "x", "x.2"]),
        ];
        for (input, expected) in table {
            assert_eq!(resolved(input).unwrap(), *expected);
        }
    }

    #[test]
    fn m9_a_file_cannot_be_a_folder() {
        for input in [&["a", "a/b"][..], &["a/b", "a"], &["a", "a-b", "a/b"], &["x/a/b/c", "x/a"], &["é/b", "é"]] {
            assert!(matches!(resolved(input), Err(MetainfoError::FileIsFolder(_))), "{input:?}");
        }
        assert!(resolved(&["a", "a-b/c", "a0"]).is_ok());
    }

    #[test]
    fn m9_too_many_and_hostile() {
        assert!(resolved(&["a"; 501]).is_ok());
        assert_eq!(resolved(&["a"; 502]), Err(MetainfoError::TooManyDuplicates));
        // Every number that could be given is taken already.
        let taken: Vec<String> = (0..20_000).map(|n| format!("a.{n}")).collect();
        let mut all: Vec<&str> = taken.iter().map(String::as_str).collect();
        all.extend(["a"; 501]);
        let paths = resolved(&all).unwrap();
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
    }
}

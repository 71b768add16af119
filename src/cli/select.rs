//! Which files of a torrent are wanted: `--select` and `--exclude`.

use globset::{GlobBuilder, GlobMatcher};

use super::exit::Failure;

/// One `--select` or `--exclude`.
#[derive(Clone, Debug)]
enum Pattern {
    /// File numbers as `gannet info` shows them, from 1, both ends included.
    Numbers(usize, usize),
    /// A glob on one name of the path, at any depth.
    Name(GlobMatcher),
    /// A glob on the whole path.
    Path(GlobMatcher),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(numbers) = parse_numbers(text) {
            return Ok(numbers);
        }
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|e| Failure::usage(format!("'{}': {}", text.escape_debug(), e.kind())))?;
        let matcher = glob.compile_matcher();
        Ok(if text.contains('/') { Self::Path(matcher) } else { Self::Name(matcher) })
    }

    /// Whether it means the file `number`, whose path is `components`. A pattern that matches a folder means all in it.
    fn matches(&self, number: usize, components: &[&str]) -> bool {
        match self {
            Self::Numbers(first, last) => (*first..=*last).contains(&number),
            Self::Name(glob) => components.iter().any(|name| glob.is_match(name)),
            Self::Path(glob) => (1..=components.len()).any(|depth| {
                // The folder of the torrent may be said or not.
                glob.is_match(components[..depth].join("/"))
                    || depth > 1 && glob.is_match(components[1..depth].join("/"))
            }),
        }
    }
}

fn parse_numbers(text: &str) -> Option<Pattern> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<usize>().ok()).flatten();
    let (first, last) = (number(first)?, number(last)?);
    (first > 0 && first <= last).then_some(Pattern::Numbers(first, last))
}

/// The patterns of one command line, and which of them found something.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    select: Vec<(String, Pattern, bool)>,
    exclude: Vec<(String, Pattern, bool)>,
}

impl Selection {
    /// Reads the patterns.
    pub(super) fn new(select: &[String], exclude: &[String]) -> Result<Self, Failure> {
        let parse = |option: &str, texts: &[String]| {
            let one = |text: &String| match Pattern::parse(text) {
                Ok(pattern) => Ok((format!("{option} {text}"), pattern, false)),
                Err(e) => Err(Failure::usage(format!("{option} {e}"))),
            };
            texts.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { select: parse("--select", select)?, exclude: parse("--exclude", exclude)? })
    }

    /// Which of `files` are wanted: each is its number (`None` for padding, which is never wanted) and its path, the
    /// torrent's folder first. `None` when there are no patterns, so that all are.
    pub(super) fn apply(&mut self, files: &[(Option<usize>, Vec<&str>)]) -> Option<Vec<bool>> {
        if self.select.is_empty() && self.exclude.is_empty() {
            return None;
        }
        let mut wanted = Vec::with_capacity(files.len());
        for (number, components) in files {
            let Some(number) = *number else {
                wanted.push(false);
                continue;
            };
            let hit = |patterns: &mut [(String, Pattern, bool)]| {
                let mut any = false;
                for (_, pattern, found) in patterns {
                    if pattern.matches(number, components) {
                        (any, *found) = (true, true);
                    }
                }
                any
            };
            let selected = hit(&mut self.select) || self.select.is_empty();
            let excluded = hit(&mut self.exclude);
            wanted.push(selected && !excluded);
        }
        Some(wanted)
    }

    /// Whether there are no patterns, so that all files are wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.select.is_empty() && self.exclude.is_empty()
    }

    /// The first pattern that found nothing in all that was asked, which is most likely a slip.
    pub(super) fn idle(&self) -> Option<&str> {
        let all = self.select.iter().chain(&self.exclude);
        all.filter(|(_, _, found)| !found).map(|(text, _, _)| text.as_str()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 5] = ["t/a.jpg", "t/b.raw", "t/sub/c.jpg", "t/sub/deep/d.raw", "t/3"];

    fn pick(select: &[&str], exclude: &[&str]) -> (Option<String>, Option<String>) {
        let own = |texts: &[&str]| texts.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let mut selection = Selection::new(&own(select), &own(exclude)).unwrap();
        let mut files: Vec<_> = FILES.iter().enumerate().map(|(i, p)| (Some(i + 1), p.split('/').collect())).collect();
        files.push((None, vec!["t", ".pad", "12"]));
        let wanted = selection.apply(&files);
        let text = wanted.map(|w| w.iter().map(|&b| if b { 'x' } else { '.' }).collect());
        (text, selection.idle().map(str::to_owned))
    }

    #[test]
    fn table() {
        for (select, exclude, want) in [
            (&["1"][..], &[][..], "x....."),
            (&["2-4"], &[], ".xxx.."),
            (&["1", "5"], &[], "x...x."),
            (&["*.jpg"], &[], "x.x..."),
            (&[], &["*.raw"], "x.x.x."),
            (&["t/*.jpg"], &[], "x....."),
            (&["t/**/*.jpg"], &[], "x.x..."),
            (&["sub/*.jpg"], &[], "..x..."),
            (&["t/sub"], &[], "..xx.."),
            (&["sub/"], &["d.raw"], "..x..."),
            (&["t/sub/deep"], &[], "...x.."),
            (&["{a,b}.*"], &["2"], "x....."),
            (&["[3]"], &[], "....x."),
            (&["./t/3"], &[], "....x."),
        ] {
            let (wanted, idle) = pick(select, exclude);
            assert_eq!((wanted.as_deref(), idle), (Some(want), None), "{select:?} {exclude:?}");
        }
        assert_eq!(pick(&[], &[]), (None, None));
    }

    #[test]
    fn slips_are_told() {
        assert_eq!(pick(&["1", "9"], &[]).1.as_deref(), Some("--select 9"));
        assert_eq!(pick(&[], &["*.gif"]).1.as_deref(), Some("--exclude *.gif"));
        let failure = Selection::new(&["[".to_owned()], &[]).unwrap_err();
        assert!(failure.message.starts_with("--select '['"), "{failure}");
    }
}

//! A list of paths, drawn as a tree.

/// A line of the tree, before what stands beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Branches, in ASCII.
    pub(super) lead: String,
    /// The last name of the path.
    pub(super) name: String,
    /// Which of the paths ends here; `None` for a folder.
    pub(super) leaf: Option<usize>,
}

/// The tree of `paths`, each a list of printable names. Paths stay in their order; neighbours share folders.
pub(super) fn draw(paths: &[Vec<String>]) -> Vec<Line> {
    let mut lines = Vec::new();
    // Depth by depth on an explicit stack, so that no path is too deep. Each entry: range of paths, depth, lead.
    let mut stack = vec![(0, paths.len(), 0, String::new(), true)];
    let mut pending: Vec<(usize, usize, usize, String, bool)> = Vec::new();
    while let Some((begin, end, depth, lead, root)) = stack.pop() {
        if !root {
            // One node: paths begin..end share the name at depth - 1.
            let name = paths[begin][depth - 1].clone();
            let leaf = (paths[begin].len() == depth).then_some(begin);
            lines.push(Line { lead: lead.clone(), name, leaf });
            if leaf.is_some() {
                continue;
            }
        }
        let below = if root { String::new() } else { continued(&lead) };
        let mut at = begin;
        while at < end {
            let name = paths[at].get(depth);
            let is_leaf = paths[at].len() == depth + 1;
            let mut next = at + 1;
            while !is_leaf && next < end && paths[next].get(depth) == name && paths[next].len() > depth + 1 {
                next += 1;
            }
            pending.push((at, next, depth + 1, String::new(), false));
            at = next;
        }
        let count = pending.len();
        for (n, node) in pending.iter_mut().enumerate() {
            let top = root && depth == 0;
            let branch = match (top, n + 1 == count) {
                (true, _) => "",
                (false, true) => "`- ",
                (false, false) => "|- ",
            };
            node.3 = format!("{below}{branch}");
        }
        stack.extend(pending.drain(..).rev());
    }
    lines
}

/// The lead of what hangs below a line with this lead.
fn continued(lead: &str) -> String {
    if let Some(before) = lead.strip_suffix("|- ") {
        format!("{before}|  ")
    } else if let Some(before) = lead.strip_suffix("`- ") {
        format!("{before}   ")
    } else {
        lead.to_owned()
    }
}

impl Line {
    /// The whole line, its branches in ASCII or in the signs for boxes.
    pub(super) fn text(&self, unicode: bool) -> String {
        let mut lead = self.lead.clone();
        if unicode {
            lead = lead.replace("|- ", "├─ ").replace("`- ", "└─ ").replace("|  ", "│  ");
        }
        format!("{lead}{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> String {
        let paths: Vec<Vec<String>> = paths.iter().map(|p| p.split('/').map(str::to_owned).collect()).collect();
        draw(&paths).iter().map(|l| format!("{}{}\n", l.text(false), if l.leaf.is_some() { "" } else { "/" })).collect()
    }

    #[test]
    fn folders_are_shared() {
        let text = tree(&["t/a", "t/b/c", "t/b/d/e", "t/b/f", "t/g"]);
        assert_eq!(text, "t/\n|- a\n|- b/\n|  |- c\n|  |- d/\n|  |  `- e\n|  `- f\n`- g\n");
        assert_eq!(tree(&["x"]), "x\n");
        assert_eq!(tree(&[]), "");
        // Not sorted, and a name that is a file here and a folder there: drawn as listed.
        assert_eq!(tree(&["t/a/1", "t/b", "t/a/2", "t/a"]).lines().count(), 7);
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = vec![vec!["d".to_owned(); 5_000]];
        assert_eq!(draw(&deep).len(), 5_000);
    }
}

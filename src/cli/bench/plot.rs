//! The tables as a picture: bars of the medians, a whisker from the lowest run to the highest.
//!
//! One SVG by hand: no script, no font of its own, colours for light and for dark screens.

use super::table::{Row, Table, gb};

const WIDTH: u32 = 860;
const LEFT: u32 = 24;
/// Where bars begin, and how long the longest may be.
const BAR_LEFT: u32 = 250;
const BAR_WIDTH: u32 = 320;
const BAR_HEIGHT: u32 = 16;
const ROW: u32 = 28;
const TITLE: u32 = 36;
const HEAD: u32 = 84;
/// Letters of a name that fit before the bars.
const NAME_LETTERS: usize = 32;

/// Colours by variables, so that one set of shapes serves light and dark. Who knows no variables gets the light ones.
const STYLE: &str = "\
svg{--ground:#fff;--ink:#1c2430;--faint:#667085;--bar:#2f74c0;--grid:#e4e7ec}\
@media(prefers-color-scheme:dark){svg{--ground:#14181f;--ink:#e6e9ef;--faint:#98a2b3;--bar:#5b9be0;--grid:#2b3340}}\
.ground{fill:#fff;fill:var(--ground)}.bar{fill:#2f74c0;fill:var(--bar)}.bar.noisy{opacity:.55}\
.grid{stroke:#e4e7ec;stroke:var(--grid)}.whisker{stroke:#1c2430;stroke:var(--ink);stroke-width:1.5}\
text{font:13px system-ui,sans-serif;fill:#1c2430;fill:var(--ink)}\
.title{font-size:18px;font-weight:600}.group{font-weight:600}.faint{fill:#667085;fill:var(--faint)}";

/// The whole file.
pub(super) fn to_svg(title: &str, lines: &[String], tables: &[Table]) -> String {
    let rows: u32 = tables.iter().map(|t| TITLE + ROW * u32::try_from(t.rows.len()).unwrap_or(u32::MAX / 64)).sum();
    let foot = 22 * u32::try_from(lines.len()).unwrap_or(0);
    let height = HEAD + rows + foot + 16;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"36\">{0}</text>\n\
         <text class=\"faint\" x=\"{LEFT}\" y=\"58\">GB/s: median (bar), lowest and highest run (line); processor seconds per GiB; \
         anonymous memory at its peak</text>\n",
        escape(title)
    );
    let mut y = HEAD;
    for table in tables {
        svg.push_str(&format!("<text class=\"group\" x=\"{LEFT}\" y=\"{}\">{}</text>\n", y + 18, escape(&table.title)));
        y += TITLE;
        let longest = table.rows.iter().map(|row| row.rate.max()).fold(0.0, f64::max);
        let bottom = y + ROW * u32::try_from(table.rows.len()).unwrap_or(0);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{BAR_LEFT}\" x2=\"{BAR_LEFT}\" y1=\"{y}\" y2=\"{}\"/>\n",
            bottom.saturating_sub(8)
        ));
        for row in &table.rows {
            svg.push_str(&draw(row, y, longest));
            y += ROW;
        }
    }
    for line in lines {
        y += 22;
        svg.push_str(&format!("<text class=\"faint\" x=\"{LEFT}\" y=\"{y}\">{}</text>\n", escape(line)));
    }
    svg.push_str("</svg>\n");
    svg
}

/// One row, its top at `y`; the bar of `longest` would have the full width.
fn draw(row: &Row, y: u32, longest: f64) -> String {
    let base = y + BAR_HEIGHT - 3;
    let mut name: String = row.name.chars().take(NAME_LETTERS).collect();
    if name.len() < row.name.len() {
        name.push('…');
    }
    let mut svg = format!("<text x=\"{}\" y=\"{base}\">{}</text>\n", LEFT + 8, escape(&name));
    let mut words = Vec::new();
    let mut end = f64::from(BAR_LEFT);
    if !row.rate.runs().is_empty() {
        let at = |rate: f64| f64::from(BAR_LEFT) + f64::from(BAR_WIDTH) * rate / longest.max(1.0);
        let (low, median, high) = (at(row.rate.min()), at(row.rate.median()), at(row.rate.max()));
        let noisy = if row.is_noisy() { " noisy" } else { "" };
        let middle = y + BAR_HEIGHT / 2;
        svg.push_str(&format!(
            "<rect class=\"bar{noisy}\" x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\n\
             <path class=\"whisker\" fill=\"none\" d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {}v8M{high:.1} {}v8\"/>\n",
            (median - f64::from(BAR_LEFT)).max(0.5),
            middle - 4,
            middle - 4
        ));
        words.push(format!("{} GB/s", gb(row.rate.median())));
        end = high;
    }
    if !row.cpu.runs().is_empty() {
        words.push(format!("{:.2} s/GiB", row.cpu.median()));
    }
    if let Some(bytes) = row.anonymous {
        words.push(format!("{} MiB", bytes.div_ceil(1 << 20)));
    }
    // Beside a long bar there is no room for it.
    words.extend(row.note.clone().filter(|_| row.rate.runs().is_empty()));
    svg.push_str(&format!("<text x=\"{:.1}\" y=\"{base}\">{}</text>\n", end + 10.0, escape(&words.join(" · "))));
    svg
}

/// Text that is nothing but text in XML, which has no place for control characters.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::table::Used;
    use super::*;

    fn tables() -> Vec<Table> {
        let mut table = Table::new("SHA-1 & <friends>");
        for (name, seconds) in [("slow", 4.0), ("fast", 1.0)] {
            let mut row = Row::new(name);
            for factor in [1.0, 1.25, 0.8] {
                let wall = Duration::from_secs_f64(seconds * factor);
                row.add(1_000_000_000, &Used { wall, cpu: Some(wall), anonymous: Some(3 << 20) });
            }
            table.rows.push(row);
        }
        table.rows.push(Row {
            note: Some("not installed".to_owned()),
            ..Row::new("a \"name\" of more letters than fit there")
        });
        vec![table]
    }

    /// Every element is closed, every attribute quoted, nothing unescaped: what a reader of XML would insist on.
    fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            assert!(
                !text.contains('>')
                    && !text
                        .replace("&amp;", "")
                        .replace("&lt;", "")
                        .replace("&gt;", "")
                        .replace("&quot;", "")
                        .contains('&'),
                "{text}"
            );
            let end = rest[at..].find('>').unwrap() + at;
            let tag = &rest[at + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_picture() {
        let svg = to_svg("gannet bench & co", &["one <line>".to_owned()], &tables());
        assert_well_formed(&svg);
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(svg.contains("SHA-1 &amp; &lt;friends&gt;") && svg.contains("one &lt;line&gt;"));
        assert!(svg.contains("1.00 GB/s · 1.07 s/GiB · 3 MiB"), "{svg}");
        assert!(svg.contains("not installed"));
        assert_eq!(svg.matches("class=\"bar").count(), 2);
        // The lengths of bars are as the medians.
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("class=\"bar"))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[1] / widths[0] - 4.0).abs() < 0.1, "{widths:?}");
    }

    #[test]
    fn nothing_measured() {
        assert_well_formed(&to_svg("x\u{7}", &[], &[]));
        assert_well_formed(&to_svg("x", &[], &[Table::new("empty")]));
    }
}

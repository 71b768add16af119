//! What was measured, as a table for people and as JSON.

use serde_json::{Map, Value, json};

use super::stats::Sample;

/// Bytes of a GB.
const GB: f64 = 1e9;
/// Bytes of a GiB.
pub(super) const GIB: f64 = (1_u64 << 30) as f64;

/// Something that was measured several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    /// Bytes per second of each run.
    pub(super) rate: Sample,
    /// Processor seconds per GiB of each run.
    pub(super) cpu: Sample,
    /// The most anonymous memory of any run, in bytes.
    pub(super) anonymous: Option<u64>,
    /// What else there is to say, in a few words.
    pub(super) note: Option<String>,
    /// What a program would want to know besides: fields of the JSON object.
    pub(super) facts: Map<String, Value>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The same, with a field of the JSON object more.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Takes in a run that moved `bytes`.
    pub(super) fn add(&mut self, bytes: u64, used: &Used) {
        let bytes = as_f64(bytes);
        let seconds = used.wall.as_secs_f64().max(1e-9);
        self.rate.push(bytes / seconds);
        self.add_cost(bytes / GIB, used);
    }

    /// Takes in what a run of so many GiB cost, without a rate of its own.
    pub(super) fn add_cost(&mut self, gib: f64, used: &Used) {
        if let Some(cpu) = used.cpu {
            self.cpu.push(cpu.as_secs_f64() / gib.max(1e-9));
        }
        self.anonymous = self.anonymous.max(used.anonymous);
    }

    pub(super) fn is_noisy(&self) -> bool {
        self.rate.is_noisy()
    }

    fn to_json(&self) -> Value {
        let sample = |s: &Sample| if s.runs().is_empty() { Value::Null } else { s.to_json() };
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(self.name));
        object.extend(self.facts.clone());
        object.insert("bytes_per_second".to_owned(), sample(&self.rate));
        object.insert("cpu_seconds_per_gib".to_owned(), sample(&self.cpu));
        object.insert("peak_anonymous_bytes".to_owned(), json!(self.anonymous));
        object.insert("noisy".to_owned(), json!(self.is_noisy()));
        object.insert("note".to_owned(), json!(self.note));
        Value::Object(object)
    }
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) wall: std::time::Duration,
    /// Processor time; none where the system does not tell.
    pub(super) cpu: Option<std::time::Duration>,
    /// Anonymous memory at its peak, in bytes; none where the system does not tell.
    pub(super) anonymous: Option<u64>,
}

/// Rows that may be compared with each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "title": self.title, "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>() })
    }
}

/// The column's heads, of which the first is over the names.
const HEADS: [&str; 5] = ["", "median", "min .. max", "CPU s/GiB", "anonymous"];

/// All tables, their columns under each other.
pub(super) fn to_text(tables: &[Table]) -> String {
    let cells = |row: &Row| -> [String; 5] {
        let measured = !row.rate.runs().is_empty();
        let spread = if measured { format!("{} .. {}", gb(row.rate.min()), gb(row.rate.max())) } else { String::new() };
        [
            row.name.clone(),
            if measured { format!("{} GB/s", gb(row.rate.median())) } else { String::new() },
            if row.is_noisy() { format!("~ {spread}") } else { spread },
            if row.cpu.runs().is_empty() { String::new() } else { format!("{:.3}", row.cpu.median()) },
            row.anonymous.map_or(String::new(), |bytes| format!("{} MiB", bytes.div_ceil(1 << 20))),
        ]
    };
    let letters = |text: &str| text.chars().count();
    let mut widths = HEADS.map(letters);
    for row in tables.iter().flat_map(|table| &table.rows) {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(letters(&cell));
        }
    }
    let line = |cells: &[String; 5], note: Option<&str>| {
        let mut line = format!("  {:<1$}", cells[0], widths[0]);
        for (cell, width) in cells.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        if let Some(note) = note {
            line.push_str(&format!("  {note}"));
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = String::new();
    for table in tables {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", table.title));
        text.push_str(&line(&HEADS.map(str::to_owned), None));
        for row in &table.rows {
            text.push_str(&line(&cells(row), row.note.as_deref()));
        }
    }
    text
}

/// Bytes per second as GB/s, with three digits that count.
pub(super) fn gb(rate: f64) -> String {
    let gb = rate / GB;
    match gb {
        100.0.. => format!("{gb:.0}"),
        10.0.. => format!("{gb:.1}"),
        0.1.. => format!("{gb:.2}"),
        _ => format!("{gb:.3}"),
    }
}

/// A number of bytes, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "figures for people need no 53 bits")]
pub(super) fn as_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(name: &str, millis: &[u64]) -> Row {
        let mut row = Row::new(name).fact("cores", 2);
        for (n, millis) in (1..).zip(millis) {
            let wall = Duration::from_millis(*millis);
            row.add(1 << 30, &Used { wall, cpu: Some(wall * 2), anonymous: Some(n << 20) });
        }
        row
    }

    #[test]
    fn a_table() {
        let mut table = Table::new("some work");
        table.rows.push(row("calm", &[500, 500, 500, 500]));
        table.rows.push(row("wild", &[400, 600, 1000, 500]));
        table.rows.push(Row { note: Some("not installed".to_owned()), ..Row::new("absent") });
        let text = to_text(&[table.clone()]);
        let want = "some work\n\
                    \x20            median     min .. max  CPU s/GiB  anonymous\n\
                    \x20 calm    2.15 GB/s   2.15 .. 2.15      1.000      4 MiB\n\
                    \x20 wild    1.97 GB/s  ~ 1.07 .. 2.68      1.100      4 MiB\n\
                    \x20 absent";
        // Spaces are a matter of width; words and their order are not.
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&text), words(&format!("{want} not installed")), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].find("anonymous").map(|at| at + 9), lines[2].find("4 MiB").map(|at| at + 5), "{text}");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");

        let json = table.to_json();
        assert_eq!(json["rows"][0]["cores"], 2);
        assert_eq!(json["rows"][0]["noisy"], false);
        assert_eq!(json["rows"][1]["noisy"], true);
        assert_eq!(json["rows"][0]["cpu_seconds_per_gib"]["median"], 1.0);
        assert_eq!(json["rows"][1]["peak_anonymous_bytes"], 4 << 20);
        assert_eq!(json["rows"][2]["bytes_per_second"], Value::Null);
        assert_eq!(json["rows"][2]["note"], "not installed");
    }

    #[test]
    fn three_digits() {
        let shown = [0.0, 5e6, 123.4e6, 1.999e9, 12.34e9, 123.4e9].map(gb);
        assert_eq!(shown, ["0.000", "0.005", "0.12", "2.00", "12.3", "123"]);
    }
}

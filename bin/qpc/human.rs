//! Words for people: safe text, tables, times.

use quicprochat_mesh::{api::Timestamp, slash};

use crate::{
    ink::Ink,
    screen::{columns, width, wrap},
    table::{Column, Table},
};

/// Makes text of others safe for a terminal: control characters, and those that reorder or hide
/// what is around them, are spelled out. A name cannot move the cursor or fake a line.
pub fn escape(text: &str) -> String {
    slash::escape(text)
}

/// As [`escape`], but keeps line breaks and tabs, with lines after the first moved in.
pub fn escape_lines(text: &str, indent: &str) -> String {
    slash::escape_lines(text, indent)
}

/// Characters that change direction or have no width.
pub fn is_deceptive(c: char) -> bool {
    slash::is_deceptive(c)
}

/// Longest line that says why something failed, in characters.
const LINE_CHARS_MAX: usize = 1000;

/// `line` as it is, or without its middle where an argument of somebody made it endless: what happened
/// stands at the beginning, and what to do at the end.
pub fn brief(line: &str) -> String {
    let chars = line.chars().count();
    if chars <= LINE_CHARS_MAX {
        return line.to_owned();
    }
    let half = LINE_CHARS_MAX / 2;
    let end: String = line.chars().skip(chars.saturating_sub(half)).collect();
    let begin: String = line.chars().take(half).collect();
    format!("{begin} … {end}")
}

/// A table of plain text: columns of nothing but numbers to the right, the rest to the left; the last
/// column gives way on a narrow terminal.
pub fn table(head: &[&'static str], rows: &[Vec<String>]) -> String {
    let is_number = |at: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(at)).filter(|cell| !cell.is_empty()).peekable();
        cells.peek().is_some() && cells.all(|cell| is_quantity(cell))
    };
    let column = |(at, head): (usize, &&'static str)| match is_number(at) {
        true => Column::number(head),
        false => Column::text(head),
    };
    let mut columns: Vec<Column> = head.iter().enumerate().map(column).collect();
    if let Some(last) = columns.pop() {
        columns.push(last.shrinks(0, 8));
    }
    let mut table = Table::new(columns);
    rows.iter().for_each(|row| table.row(row.iter().map(|cell| cell.as_str().into()).collect::<Vec<_>>()));
    table.text()
}

/// Whether text is a number, with or without a unit, or stands for one that is missing.
fn is_quantity(text: &str) -> bool {
    /// Longer ones are ids.
    const DIGITS_MAX: usize = 15;
    let mut words = text.split(' ');
    let number = words.next().unwrap_or_default().replace(',', "");
    let is_number = number.len() <= DIGITS_MAX && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    text == "-" || (is_number && number.parse::<f64>().is_ok() && words.count() <= 1)
}

/// Aligned `name  value` lines; long values go on below where they began.
pub fn fields(pairs: &[(&str, String)]) -> String {
    fields_within(pairs, columns())
}

/// [`fields`] in lines of at most `room` columns.
pub fn fields_within(pairs: &[(&str, String)], room: Option<usize>) -> String {
    let names = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let room = room.map_or(usize::MAX, |room| room.saturating_sub(names.saturating_add(2)).max(20));
    let mut out = String::new();
    for (name, value) in pairs {
        let blank = " ".repeat(names.saturating_sub(width(name)));
        let value = wrap(value, room).join(&format!("\n{}", " ".repeat(names.saturating_add(2))));
        out.push_str(format!("{}{blank}  {value}", Ink::Faint.paint(name)).trim_end());
        out.push('\n');
    }
    out
}

/// A number with its thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len().saturating_add(digits.len() / 3));
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 hop`, `3 hops`.
pub fn number_of(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A span of seconds in its largest unit or two: `45s`, `12m`, `3h 5m`, `2d 4h`.
pub fn span_s(s: u64) -> String {
    let (d, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m"),
        (0, h, 0) => format!("{h}h"),
        (0, h, m) => format!("{h}h {m}m"),
        (d, 0, _) => format!("{d}d"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

/// How long ago something was, seen from `now`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.0.checked_sub(at.0) {
        Some(ms) if ms < 1000 => "now".into(),
        Some(ms) => format!("{} ago", span_s(ms / 1000)),
        // Clocks differ; a message from the future is shown as it is.
        None => at.to_string(),
    }
}

/// This machine's wall clock.
pub fn now() -> Timestamp {
    Timestamp(quicprochat_mesh::clock::unix_ms())
}

/// A size with a unit people read: `17 B`, `3.4 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Milliseconds, or a dash.
pub fn ms(value: Option<f64>) -> String {
    match value {
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 60_000.0 => format!("{:.2} s", ms / 1000.0),
        // As text a number out of range is the nearest one in it.
        Some(ms) => span_s((ms / 1000.0) as u64),
        None => "-".into(),
    }
}

/// A value, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_from_the_text_of_others() {
        assert_eq!(escape("a\u{1b}[2Jb\r\n\u{202e}c"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c");
        assert_eq!(escape_lines("a\tb\nc\u{7}\n", "  "), "a\tb\n  c\\u{7}");
    }

    #[test]
    fn an_endless_line_keeps_its_beginning_and_its_end() {
        assert_eq!(brief("short"), "short");
        let line = brief(&format!("no contact is called {}: see `qpc contact list`", "ä".repeat(100_000)));
        assert!(line.starts_with("no contact is called ä"), "{line}");
        assert!(line.contains("ä … ä") && line.ends_with("see `qpc contact list`"), "{line}");
        assert!(line.chars().count() <= LINE_CHARS_MAX + 3);
    }

    #[test]
    fn spans_and_sizes_are_short() {
        let spans = [0, 59, 60, 3600, 3660, 86_400, 90_000].map(span_s);
        assert_eq!(spans, ["0s", "59s", "1m", "1h", "1h 1m", "1d", "1d 1h"]);
        assert_eq!([0, 1023, 1536, 16 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "16.0 MiB"]);
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        let counts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1, 2].map(|n| number_of(n, "hop")), ["1 hop", "2 hops"]);
    }

    #[test]
    fn columns_of_numbers_stand_to_the_right() {
        let rows = [vec!["a".into(), "1,234".into(), "1".into()], vec!["bb".into(), "-".into(), "x".into()]];
        let text = anstream::adapter::strip_str(&table(&["X", "N", "Y"], &rows)).to_string();
        assert_eq!(text, "X       N  Y\na   1,234  1\nbb      -  x\n");
        for (text, wanted) in
            [("4.0 KiB", true), ("", false), ("8bfc5059", false), ("1 of 2", false), ("1e5", false)]
        {
            assert_eq!(is_quantity(text), wanted, "{text}");
        }
    }

    #[test]
    fn long_values_go_on_below_where_they_began() {
        let pairs = [("a", "x".into()), ("äää", "one two three four five six".into())];
        let text = anstream::adapter::strip_str(&fields_within(&pairs, Some(25))).to_string();
        assert_eq!(text, "a    x\näää  one two three four\n     five six\n");
        let text = anstream::adapter::strip_str(&fields_within(&pairs, None)).to_string();
        assert_eq!(text, "a    x\näää  one two three four five six\n");
    }
}

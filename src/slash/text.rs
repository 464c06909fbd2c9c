//! Words for people: safe text, tables, spans of time.

/// Makes text of others safe for a terminal: control characters, and those that reorder or hide
/// what is around them, are spelled out. A name cannot move the cursor or fake a line.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`escape`], but keeps line breaks and tabs, with lines after the first moved in.
pub fn escape_lines(text: &str, indent: &str) -> String {
    let line = |line: &str| line.split('\t').map(escape).collect::<Vec<_>>().join("\t");
    text.lines().map(line).collect::<Vec<_>>().join(&format!("\n{indent}"))
}

/// Characters that change direction or have no width.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Rows with their columns aligned, two spaces between them; the last one is as long as it is.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A span of seconds in its largest unit or two: `45s`, `12m`, `3h 5m`, `2d 4h`.
pub(super) fn span_s(s: u64) -> String {
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

/// A size with a unit people read: `17 B`, `3.4 KiB`.
pub(super) fn bytes(n: u64) -> String {
    match n {
        n if n < 1 << 10 => format!("{n} B"),
        n if n < 1 << 20 => format!("{:.1} KiB", n as f64 / 1024.0),
        n => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

/// Milliseconds, or a dash.
pub(super) fn ms(value: Option<f64>) -> String {
    match value {
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
        None => "-".into(),
    }
}

/// `1 hop`, `2 hops`.
pub(super) fn count(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
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
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "bb".into()], vec!["äää".into(), "c".into()], vec!["d".into()]];
        assert_eq!(columns(&rows), "a    bb\näää  c\nd");
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn spans_and_sizes_are_short() {
        let spans = [0, 59, 60, 3600, 3660, 86_400, 90_000].map(span_s);
        assert_eq!(spans, ["0s", "59s", "1m", "1h", "1h 1m", "1d", "1d 1h"]);
        assert_eq!([0, 1023, 1536, 16 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "16.0 MiB"]);
    }
}

//! Words for people: safe text, tables, times.

use quicprochat_mesh::{api::Timestamp, slash};

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

/// Aligns columns; the last one is as long as it is. Numbers are not told apart from text.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|h| h.to_string()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let gap = width.saturating_sub(cell.chars().count()).saturating_add(2);
            line.extend(std::iter::repeat_n(' ', gap));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Aligned `name  value` lines.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
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
        Some(ms) => format!("{:.2} s", ms / 1000.0),
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
    fn spans_and_sizes_are_short() {
        let spans = [0, 59, 60, 3600, 3660, 86_400, 90_000].map(span_s);
        assert_eq!(spans, ["0s", "59s", "1m", "1h", "1h 1m", "1d", "1d 1h"]);
        assert_eq!([0, 1023, 1536, 16 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "16.0 MiB"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "bb".into()], vec!["äää".into(), "c".into()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    bb\näää  c\n");
    }
}

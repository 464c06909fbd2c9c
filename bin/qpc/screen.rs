//! How much room there is, and how much of it a text takes.

use std::io::{IsTerminal, stdout};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Narrowest terminal that anything is fitted into.
const COLUMNS_MIN: usize = 20;

/// Columns of the terminal that stdout is; none where it is no terminal, and lines are as long as
/// they are.
pub fn columns() -> Option<usize> {
    let stdout = stdout();
    if !stdout.is_terminal() {
        return None;
    }
    // A terminal that does not know its size says 0.
    let said = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    let env = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    Some(said.filter(|columns| *columns > 0).or_else(env).unwrap_or(80).max(COLUMNS_MIN))
}

/// Columns that `text` takes on a terminal: two for CJK, none for combining marks and for our own
/// colours.
pub fn width(text: &str) -> usize {
    if !text.contains('\u{1b}') {
        return text.width();
    }
    let mut parts = text.split('\u{1b}');
    let first = parts.next().map_or(0, UnicodeWidthStr::width);
    // Behind each escape stands a colour, which ends with an m.
    parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.width())).sum::<usize>() + first
}

/// `text`, which has no colours, in at most `columns`, with an ellipsis where something is left out.
pub fn shorten(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let mut out = String::new();
    let mut taken = 0usize;
    for c in text.chars() {
        let next = taken.saturating_add(c.width().unwrap_or(0));
        if next > room {
            break;
        }
        taken = next;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Breaks `text` between words into lines of at most `columns`; a longer word has a line of its own.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    if width(text) <= columns {
        return vec![text.to_owned()];
    }
    fill(text.split(' '), columns)
}

/// Puts words together to lines of at most `columns`; a longer word has a line of its own.
pub fn fill<'a>(words: impl IntoIterator<Item = &'a str>, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if width(line).saturating_add(width(word)) < columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ink::Ink;

    #[test]
    fn width_is_what_a_terminal_shows() {
        for (text, columns) in [("abc", 3), ("写真", 4), ("e\u{301}", 1), ("", 0)] {
            assert_eq!(width(text), columns, "{text}");
            assert_eq!(width(&Ink::Bad.paint(text)), columns, "{text}");
        }
    }

    #[test]
    fn what_is_shortened_fits_and_says_so() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
        assert_eq!(shorten("写真写真", 6), "写真…");
        // A mark stays with its letter.
        assert_eq!(shorten("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        assert_eq!(shorten("abc", 0), "");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("one", 2), ["one"]);
        assert_eq!(wrap(&format!("{} b", Ink::Good.paint("aa")), 4).len(), 1);
    }
}

//! How a line becomes words: a few rules of the shell, and one for what people write to each other.
//!
//! - A **word** goes on to the next white space. A backslash takes the character behind it as it is:
//!   `Anna\ Berg` is one word.
//! - A word that begins with `"` goes on to the next `"`; inside, `\n`, `\t`, `\r` and `\u{HEX}` are the
//!   characters they stand for, and a backslash before any other character gives that character. One
//!   that begins with `'` goes on to the next `'`, and everything inside is as it is.
//! - A quote in the middle of a word is a character like others: `O'Brien` is one word.
//! - The **text** of a message is the rest of the line as it stands, so that nobody has to think of
//!   quotes: `don't` needs none. Only where all of it stands between `"` and `"` it is read as such a
//!   word, for texts of several lines or with spaces at their ends.

use super::SlashError;

/// What is left of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self(line.trim())
    }

    /// The next word; none at the end.
    pub(super) fn word(&mut self) -> Result<Option<String>, SlashError> {
        let rest = self.0.trim_start();
        let (word, rest) = match rest.chars().next() {
            None => {
                self.0 = rest;
                return Ok(None);
            }
            Some(quote @ ('"' | '\'')) => quoted(rest, quote)?,
            Some(_) => bare(rest),
        };
        if rest.chars().next().is_some_and(|next| !next.is_whitespace()) {
            return Err(SlashError::AfterQuote { word });
        }
        self.0 = rest;
        Ok(Some(word))
    }

    /// All that is left, as a message; none where that is nothing.
    pub(super) fn text(self) -> Option<String> {
        let text = self.0.trim();
        match quoted_whole(text) {
            Some(text) => Some(text),
            None if text.is_empty() => None,
            None => Some(text.to_owned()),
        }
    }
}

/// A word without quotes, and what is behind it.
fn bare(rest: &str) -> (String, &str) {
    let mut word = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => word.push(chars.next().map_or('\\', |(_, next)| next)),
            c if c.is_whitespace() => return (word, rest.get(at..).unwrap_or_default()),
            c => word.push(c),
        }
    }
    (word, "")
}

/// A word between quotes, and what is behind the second.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), SlashError> {
    let mut word = String::new();
    let mut chars = rest.chars();
    chars.next();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok((word, chars.as_str())),
            '\\' if quote == '"' => match chars.next() {
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                Some('r') => word.push('\r'),
                Some('u') => {
                    let (c, behind) = by_number(chars.as_str())?;
                    word.push(c);
                    chars = behind.chars();
                }
                Some(other) => word.push(other),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(SlashError::Unclosed { quote })
}

/// The character of `{HEX}`, and what is behind it.
fn by_number(rest: &str) -> Result<(char, &str), SlashError> {
    let number = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let found = number.and_then(|(hex, behind)| {
        let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u32::from_str_radix(hex, 16).ok().filter(|_| digits)?;
        Some((char::from_u32(number)?, behind))
    });
    found.ok_or(SlashError::BadEscape)
}

/// What stands between the quotes where a text is in quotes from its first character to its last.
fn quoted_whole(text: &str) -> Option<String> {
    match quoted(text, '"') {
        Ok((word, "")) if text.starts_with('"') => Some(word),
        _ => None,
    }
}

/// A word so that [`Line::word`] reads it back.
pub(super) fn quote_word(word: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '\\';
    match word.starts_with(['"', '\'']) || word.is_empty() || !word.chars().all(is_plain) {
        true => in_quotes(word),
        false => word.to_owned(),
    }
}

/// A text so that [`Line::text`] reads it back.
pub(super) fn quote_text(text: &str) -> String {
    let is_plain = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
    match is_plain && quoted_whole(text).is_none() {
        true => text.to_owned(),
        false => in_quotes(text),
    }
}

fn in_quotes(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, SlashError> {
        let (mut line, mut words) = (Line::new(line), Vec::new());
        while let Some(word) = line.word()? {
            words.push(word);
        }
        Ok(words)
    }

    #[test]
    fn words_are_split_as_documented() {
        let check = |line: &str, expected: &[&str]| assert_eq!(words(line).unwrap(), expected, "{line}");
        check("  a  b\t\u{a0}c ", &["a", "b", "c"]);
        check("\"Anna Berg\" 'a \\n' Anna\\ Berg", &["Anna Berg", "a \\n", "Anna Berg"]);
        check("\"a\\n\\t\\r\\\"\\\\\\q\\u{e9}\"", &["a\n\t\r\"\\q\u{e9}"]);
        check("O'Brien a\"b", &["O'Brien", "a\"b"]);
        check("\"\" ''", &["", ""]);
        check("end\\", &["end\\"]);
        check("", &[]);
    }

    #[test]
    fn what_is_no_word_is_said() {
        let check = |line: &str, error: SlashError| assert_eq!(words(line).unwrap_err(), error, "{line}");
        check("\"anna", SlashError::Unclosed { quote: '"' });
        check("\"anna\\", SlashError::Unclosed { quote: '"' });
        check("'anna", SlashError::Unclosed { quote: '\'' });
        check("\"anna\"x", SlashError::AfterQuote { word: "anna".into() });
        for bad in ["\"\\u\"", "\"\\u{\"", "\"\\u{110000}\"", "\"\\u{d800}\"", "\"\\u{}\"", "\"\\u{+41}\""] {
            check(bad, SlashError::BadEscape);
        }
    }

    #[test]
    fn a_text_needs_no_quotes() {
        let text = |line: &str| Line::new(line).text();
        assert_eq!(text("don't \"quote\" me \\ ").as_deref(), Some("don't \"quote\" me \\"));
        assert_eq!(text("\" two\\nlines \"").as_deref(), Some(" two\nlines "));
        assert_eq!(text("\"Hi\" she said").as_deref(), Some("\"Hi\" she said"));
        assert_eq!(text("\"open").as_deref(), Some("\"open"));
        assert_eq!(text("\"\"").as_deref(), Some(""));
        assert_eq!(text("  "), None);
    }
}

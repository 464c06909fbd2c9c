//! What a page shows beside what was said.
//!
//! On both sides the same is set aside, since it differs from run to run:
//!
//! - runs of eight and more hex digits (addresses, ids, keys), numbers of processes after `pid` and
//!   `kill`;
//! - spans of time (`21.2 ms`, `1s ago`, `now`), dates, sizes with a unit (`62.0 KiB`);
//! - how many spaces stand between two words: columns are as wide as what is in them.
//!
//! `…` in a page stands for anything within a line, and alone in a line for any lines.

/// Words behind a number that make it a time or a size.
const UNITS: [(&str, &str); 13] = [
    ("ms", "<time>"),
    ("µs", "<time>"),
    ("s", "<time>"),
    ("m", "<time>"),
    ("h", "<time>"),
    ("d", "<time>"),
    ("B", "<size>"),
    ("KiB", "<size>"),
    ("MiB", "<size>"),
    ("GiB", "<size>"),
    ("msg/s", "<rate>"),
    ("percent", "<share>"),
    ("%", "<share>"),
];

/// Shortest run of hex digits that is taken for an id.
const HEX_DIGITS_MIN: usize = 8;

/// A line without what differs from run to run.
pub fn normal(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    let mut previous = String::new();
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = rest.trim_start();
            out.push(' ');
            continue;
        }
        let len = rest.find(|c: char| !is_part_of_word(c)).unwrap_or(rest.len());
        if len == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(len);
        rest = behind;
        // A full stop behind a word ends a sentence.
        let (word, stop) = word.strip_suffix('.').map_or((word, ""), |word| (word, "."));
        let shown = match shown_word(word, &previous) {
            Some(shown) => shown,
            None if is_number(word) => match unit(rest) {
                Some((shown, behind)) => {
                    rest = behind;
                    shown.to_owned()
                }
                None => word.to_owned(),
            },
            None => word.to_owned(),
        };
        out.push_str(&shown);
        out.push_str(stop);
        previous = word.to_owned();
    }
    // `2h 5m` is one time, and so is what was now a moment ago.
    while out.contains("<time> <time>") {
        out = out.replace("<time> <time>", "<time>");
    }
    out.replace("<time> ago", "<ago>")
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '.' || c == '_'
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// What stands for a word by itself.
fn shown_word(word: &str, previous: &str) -> Option<String> {
    let hex = word.len() >= HEX_DIGITS_MIN && word.chars().all(|c| c.is_ascii_hexdigit());
    if hex {
        return Some("<hex>".to_owned());
    }
    if word == "now" {
        return Some("<ago>".to_owned());
    }
    if is_number(word) && (previous == "pid" || previous == "kill") {
        return Some("<pid>".to_owned());
    }
    // `5ms`, `1s`: a number with its unit in one word; `01T10` of a date.
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
    let (number, behind) = word.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == behind);
    unit.filter(|_| is_number(number)).map(|(_, shown)| (*shown).to_owned())
}

/// The unit that `rest` begins with, and what is behind it.
fn unit(rest: &str) -> Option<(&'static str, &str)> {
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    UNITS.iter().find_map(|(name, shown)| {
        let behind = rest.strip_prefix(name)?;
        (!behind.starts_with(is_part_of_word)).then_some((*shown, behind))
    })
}

/// True where `said` is what `shown` says it is, line for line.
pub fn agree(shown: &[String], said: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=said.len()).any(|skipped| agree(rest, &said[skipped..]))
        }
        Some((first, rest)) => {
            said.split_first().is_some_and(|(line, said)| line_agrees(first, line) && agree(rest, said))
        }
    }
}

/// True where the lines of `shown` are in `said` in their order, whatever stands between: what runs in
/// the background says more later on.
pub fn contains(shown: &[String], said: &[String]) -> bool {
    let mut said = said.iter();
    shown.iter().filter(|line| *line != "…").all(|line| said.any(|found| line_agrees(line, found)))
}

fn line_agrees(shown: &str, said: &str) -> bool {
    let Some((head, rest)) = shown.split_once('…') else { return shown == said };
    let Some(mut left) = said.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let tail = parts.pop().unwrap_or("");
    for part in parts {
        let Some((_, behind)) = left.split_once(part) else { return false };
        left = behind;
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(normal).collect()
    }

    #[test]
    fn what_differs_from_run_to_run_is_set_aside() {
        for (one, other) in [
            (
                "node d92b1f1f63b80868876169bb9922b750 is ready",
                "node 7d4d980bfe1b7b5cd6ba6b126937f6df is ready",
            ),
            ("delivered 8bfc100d00 in 21.2 ms over 1 hop", "delivered 4adfad9f67dd in 1.20 s over 1 hop"),
            ("stop  Ctrl-C or kill 23736", "stop   Ctrl-C or kill 9"),
            ("d46f3f23, now:", "7d4d980b, 2s ago:"),
            ("healthy, up 2s", "healthy, up 1m 5s"),
            ("in/Cargo.lock (62.0 KiB)", "in/Cargo.lock (970 B)"),
        ] {
            assert_eq!(normal(one), normal(other));
        }
        for (one, other) in [
            ("over 1 hop", "over 2 hops"),
            ("stored 1", "stored 0"),
            ("quic://127.0.0.1:7420", "quic://127.0.0.1:7430"),
            ("delivered", "queued"),
        ] {
            assert_ne!(normal(one), normal(other));
        }
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        assert!(agree(&lines("a\n…\nc"), &lines("a\nb\nb\nc")));
        assert!(agree(&lines("a … d"), &lines("a b c d")));
        assert!(!agree(&lines("a … d"), &lines("a b c")));
        assert!(!agree(&lines("a\n…\nc"), &lines("a\nb")));
        assert!(!agree(&lines("a"), &lines("a\nb")));
        assert!(contains(&lines("a\nc"), &lines("a\nb\nc\nd")));
        assert!(!contains(&lines("c\na"), &lines("a\nb\nc\nd")));
    }
}

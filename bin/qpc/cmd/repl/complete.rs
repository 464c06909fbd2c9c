//! What Tab offers and what is hinted at behind the cursor.

use std::borrow::Cow;

use quicprochat_mesh::slash::{COMMANDS, quote};
use rustyline::{
    Context, Helper, Result,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::{Hint, Hinter},
    validate::Validator,
};

use super::{
    names::{Names, SharedNames},
    paint::Paint,
};
use crate::human;

/// Helps the line editor.
pub struct SlashHelper {
    pub names: SharedNames,
    pub paint: Paint,
}

impl Helper for SlashHelper {}
impl Validator for SlashHelper {}

impl Completer for SlashHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let Some(typed) = line.get(..pos) else { return Ok((pos, Vec::new())) };
        let (start, candidates) = complete(typed, &self.names.now());
        let pair =
            |(shown, replacement): (String, String)| Pair { display: human::escape(&shown), replacement };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for SlashHelper {
    type Hint = Usage;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Usage> {
        if pos == line.len() { usage(line).map(Usage) } else { None }
    }
}

impl Highlighter for SlashHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.paint.faint(hint))
    }
}

/// What is still to be typed; shown, and never put in.
pub struct Usage(String);

impl Hint for Usage {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

/// A command that `typed` begins with, with a space behind it, and what follows that.
fn command_of(typed: &str) -> Option<(&'static str, &'static str, &str)> {
    let line = typed.strip_prefix('/')?;
    COMMANDS.iter().find_map(|row| {
        let rest = line.strip_prefix(row.name)?.strip_prefix(' ')?;
        Some((row.name, row.arguments, rest))
    })
}

/// The arguments of a command that is typed to its end and has none yet.
fn usage(line: &str) -> Option<String> {
    if let Some((_, arguments, rest)) = command_of(line) {
        return (rest.trim().is_empty() && !arguments.is_empty()).then(|| arguments.to_owned());
    }
    let name = line.strip_prefix('/')?;
    let row = COMMANDS.iter().find(|row| row.name == name && !row.arguments.is_empty())?;
    Some(format!(" {}", row.arguments))
}

/// Where what is offered begins, and what is offered: as it is shown and as it is put in.
fn complete(typed: &str, names: &Names) -> (usize, Vec<(String, String)>) {
    let Some((name, arguments, rest)) = command_of(typed) else {
        return (0, commands(typed));
    };
    if name == "help" {
        // Words of another command, which may be two.
        let asked = rest.trim_start();
        let fits = COMMANDS.iter().filter(|row| row.name.starts_with(asked));
        let offered = fits.map(|row| (row.name.to_owned(), row.name.to_owned())).collect();
        return (typed.len().saturating_sub(asked.len()), offered);
    }
    let before = typed.len().saturating_sub(rest.len());
    let (at, word) = last_word(rest);
    let place = rest.get(..at).unwrap_or_default().split_whitespace().count();
    let kind = arguments.split(' ').nth(place).map(|kind| kind.trim_matches(['[', ']']));
    let start = before.saturating_add(at);
    let offered = match (name, kind) {
        ("contact remove", Some(_)) => contacts(word, names),
        (_, Some("ADDRESS")) => {
            let mut offered = contacts(word, names);
            // With nothing typed, digits are noise beside names.
            if !word.is_empty() || offered.is_empty() {
                offered.extend(addresses(word, names));
            }
            offered
        }
        _ => Vec::new(),
    };
    (start, offered)
}

/// Commands that begin as typed, up to the end of their next word.
fn commands(typed: &str) -> Vec<(String, String)> {
    let Some(line) = typed.strip_prefix('/') else { return Vec::new() };
    let mut offered: Vec<(String, String)> = Vec::new();
    for row in COMMANDS.iter().filter(|row| row.name.starts_with(line)) {
        let rest = row.name.get(line.len()..).unwrap_or_default();
        let (end, is_whole) = match rest.split_once(' ') {
            Some((word, _)) => (line.len().saturating_add(word.len()), false),
            None => (row.name.len(), true),
        };
        let word = row.name.get(..end).unwrap_or(row.name);
        let space = if is_whole && row.arguments.is_empty() { "" } else { " " };
        let candidate = (format!("/{word}"), format!("/{word}{space}"));
        if !offered.contains(&candidate) {
            offered.push(candidate);
        }
    }
    offered
}

/// Where the word at the end begins, and the word without its quote.
fn last_word(rest: &str) -> (usize, &str) {
    if let Some(quoted) = rest.strip_prefix('"') {
        // A name with spaces that was begun with its quote.
        if !quoted.contains('"') {
            return (0, quoted);
        }
    }
    let at = rest.rfind(char::is_whitespace).map_or(0, |at| {
        at.saturating_add(rest.get(at..).and_then(|r| r.chars().next()).map_or(1, char::len_utf8))
    });
    (at, rest.get(at..).unwrap_or_default())
}

fn contacts(word: &str, names: &Names) -> Vec<(String, String)> {
    let word = word.to_lowercase();
    let fits = names.contacts.iter().filter(|name| name.to_lowercase().starts_with(&word));
    fits.map(|name| (name.clone(), format!("{} ", quote(name)))).collect()
}

fn addresses(word: &str, names: &Names) -> Vec<(String, String)> {
    let word = word.to_ascii_lowercase();
    let fits = names.addresses.iter().filter(|address| address.starts_with(&word));
    fits.map(|address| (address.clone(), format!("{address} "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(typed: &str) -> Vec<String> {
        let names = Names {
            contacts: vec!["anna".into(), "Anna Berg".into(), "bert".into()],
            addresses: vec!["a1a1a1a1".into(), "b2b2b2b2".into()],
        };
        let (start, candidates) = complete(typed, &names);
        candidates.into_iter().map(|(_, put_in)| format!("{}{put_in}", &typed[..start])).collect()
    }

    #[test]
    fn commands_are_completed_word_by_word() {
        assert_eq!(offered("/me"), ["/mesh "]);
        assert_eq!(offered("/mesh t"), ["/mesh trace "]);
        assert_eq!(offered("/m"), ["/msg ", "/mesh "]);
        assert_eq!(offered("/inb"), ["/inbox"]);
        assert_eq!(offered("/contact a"), ["/contact add "]);
        assert_eq!(offered("/help mesh s"), ["/help mesh stats"]);
        assert_eq!(offered("hello"), [""; 0]);
        assert_eq!(offered(""), [""; 0]);
    }

    #[test]
    fn names_and_addresses_are_completed_where_one_belongs() {
        assert_eq!(offered("/msg an"), ["/msg anna ", "/msg \"Anna Berg\" "]);
        assert_eq!(offered("/msg \"anna b"), ["/msg \"Anna Berg\" "]);
        assert_eq!(offered("/msg b"), ["/msg bert ", "/msg b2b2b2b2 "]);
        assert_eq!(offered("/mesh trace a1"), ["/mesh trace a1a1a1a1 "]);
        assert_eq!(offered("/to "), ["/to anna ", "/to \"Anna Berg\" ", "/to bert "]);
        assert_eq!(offered("/msg bert an"), [""; 0]);
        assert_eq!(
            offered("/contact add carl b"),
            ["/contact add carl bert ", "/contact add carl b2b2b2b2 "]
        );
        assert_eq!(offered("/contact remove be"), ["/contact remove bert "]);
    }

    #[test]
    fn what_is_missing_is_hinted_at() {
        let check = |line: &str, hint: Option<&str>| assert_eq!(usage(line).as_deref(), hint, "{line}");
        check("/msg", Some(" ADDRESS TEXT"));
        check("/msg ", Some("ADDRESS TEXT"));
        check("/msg anna", None);
        check("/inbox", None);
        check("hello", None);
        check("/mesh trace ", Some("ADDRESS"));
    }
}

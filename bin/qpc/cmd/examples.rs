//! Every command shows how it is used, and what it shows is right.

use clap::{Command, CommandFactory};

use super::Cli;

/// Longest line of help that no usual terminal breaks.
const COLUMNS_MAX: usize = 79;

/// The whole definition, built to its leaves.
pub(super) fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every visible command with its words, groups too, the program itself left out.
pub(super) fn visible(command: &Command, words: &str) -> Vec<(String, Command)> {
    let mut out = Vec::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let words = format!("{words} {}", sub.get_name());
        out.extend(visible(sub, &words));
        out.push((words, sub.clone()));
    }
    out
}

/// Lines of the block of examples.
fn examples(command: &Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let block = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    block.take_while(|line| line.starts_with("  ")).map(str::to_owned).collect()
}

/// The arguments in an example: what stands behind two blanks is a remark, what a shell would do with
/// the rest is left out.
fn arguments(line: &str) -> Vec<String> {
    let line = line.trim_start().split("  ").next().unwrap_or_default();
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("one to begin with").push(c),
        }
    }
    assert!(!quoted, "{line}");
    let is_shell = |word: &String| ["|", "<", ">", "&", "&&"].contains(&word.as_str());
    words.into_iter().skip_while(|word| word.contains('=')).take_while(|word| !is_shell(word)).collect()
}

#[test]
fn every_command_says_what_it_is_and_has_examples_that_are_right() {
    let mut faults = Vec::new();
    for (words, command) in visible(&built(), "qpc") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        if about.is_empty() || about.ends_with('.') || about.contains('\n') {
            faults.push(format!("{words}: {about:?} is not one line without a full stop"));
        }
        let examples = examples(&command);
        if examples.is_empty() {
            faults.push(format!("{words}: no line below `Examples:` in its after_help"));
        }
        for line in &examples {
            if line.chars().count() > COLUMNS_MAX {
                faults.push(format!("{words}: {line:?} is longer than {COLUMNS_MAX} columns"));
            }
            if let Err(error) = Cli::command().try_get_matches_from(arguments(line)) {
                faults.push(format!("{words}: {line:?}: {error}"));
            }
        }
        let is_own = |line: &String| arguments(line).join(" ").starts_with(&words);
        if !examples.is_empty() && !examples.iter().any(is_own) {
            faults.push(format!("{words}: no example is of this command"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_option_is_described_in_one_style() {
    let mut faults = Vec::new();
    for (words, command) in visible(&built(), "qpc") {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set() && a.get_id() != "help") {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let id = argument.get_id();
            // A beginning that is typed, as of a URL, stays as it is.
            let is_sentence = help.starts_with(|c: char| c.is_uppercase()) || help.contains("://");
            if help.is_empty() || help.ends_with('.') || !is_sentence {
                faults.push(format!("{words}: {id}: {help:?}"));
            }
            let names = argument.get_value_names().unwrap_or_default();
            if names.iter().any(|name| name.to_uppercase() != name.as_str()) {
                faults.push(format!("{words}: {id}: {names:?} is not in capitals"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_list_of_commands_says_what_their_pages_say() {
    let about = |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    let built = built();
    // Each is described twice: where it is listed, and where it is called.
    for listed in Cli::command().get_subcommands() {
        let page = built.find_subcommand(listed.get_name()).map(&about).unwrap_or_default();
        assert_eq!(about(listed), page, "{}", listed.get_name());
    }
}

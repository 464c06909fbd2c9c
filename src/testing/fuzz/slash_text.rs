//! Any text as a line for the node's REPL, and as a playbook.

use crate::slash::{Playbook, SlashCommand, escape, playbook::Variables};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match SlashCommand::parse(text) {
        Ok(command) => {
            let again = SlashCommand::parse(&command.to_string());
            assert!(again.as_ref() == Ok(&command), "{command:?} is read back as {again:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let variables = Variables::from([("A".to_owned(), "a1".repeat(16))]);
    match Playbook::parse(text, &variables) {
        Ok(playbook) => {
            let lines = text.lines().count();
            assert!(!playbook.steps().is_empty() && playbook.steps().iter().all(|step| step.line <= lines));
        }
        Err(error) => assert!(!error.mistakes.is_empty(), "refused without a reason"),
    }
    assert!(!escape(text).chars().any(char::is_control));
}

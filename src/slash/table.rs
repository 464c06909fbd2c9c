//! Every slash command with its arguments and what it is for: read by the parser's errors, by `/help`
//! and by whoever completes a line.

use serde::Serialize;

use crate::config::nearest;

/// One command as people are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CommandHelp {
    /// Its words without the slash: `mesh trace`.
    pub name: &'static str,
    /// What comes behind them, optional parts in brackets: `ADDRESS`.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
}

impl CommandHelp {
    /// The whole form: `/mesh trace ADDRESS`.
    pub fn usage(&self) -> String {
        format!("/{} {}", self.name, self.arguments).trim_end().to_owned()
    }
}

const fn row(name: &'static str, arguments: &'static str, about: &'static str) -> CommandHelp {
    CommandHelp { name, arguments, about }
}

/// All commands, in the order in which help shows them.
pub const COMMANDS: [CommandHelp; 21] = [
    row("to", "[ADDRESS]", "lines without a slash go there; alone it ends that"),
    row("msg", "ADDRESS TEXT", "send one message, end-to-end encrypted"),
    row("broadcast", "TEXT", "send to everyone within reach: signed, NOT ENCRYPTED"),
    row("inbox", "", "list what has arrived and was not taken"),
    row("recv", "[COUNT]", "read what has arrived and take it out of the inbox"),
    row("outbox", "", "list what is on its way"),
    row("contacts", "", "list the names you gave to addresses"),
    row("contact add", "NAME ADDRESS", "give an address a name"),
    row("contact remove", "NAME", "forget a name"),
    row("whoami", "", "show your address, and where others dial you"),
    row("status", "", "show how your node is"),
    row("known", "", "list the nodes heard within the last day"),
    row("ping", "ADDRESS", "measure round trips to a node"),
    row("mesh trace", "ADDRESS", "show the path to a node, hop by hop"),
    row("mesh stats", "", "show all counters"),
    row("mesh peers", "", "list the links to other nodes"),
    row("mesh routes", "", "show the routing table"),
    row("group", "…", "groups: not built yet"),
    row("fapp", "…", "appointments: not built yet"),
    row("help", "[COMMAND]", "show this, or what one command does"),
    row("quit", "", "leave; Ctrl-D does the same"),
];

/// The row of a command by its words without the slash.
pub(super) fn row_of(name: &str) -> Option<&'static CommandHelp> {
    COMMANDS.iter().find(|row| row.name == name)
}

/// Rows of a command or of all that begin with its word: `mesh` has four.
pub(super) fn rows_of(name: &str) -> Vec<CommandHelp> {
    let is_below = |row: &&CommandHelp| {
        row.name == name || row.name.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))
    };
    COMMANDS.iter().filter(is_below).copied().collect()
}

/// The command that `wrong` most likely stands for, also where it is the second word of one.
pub(super) fn near_command(wrong: &str) -> Option<&'static str> {
    let second = |row: &CommandHelp| row.name.split(' ').nth(1);
    let words = COMMANDS.iter().map(|row| row.name).chain(COMMANDS.iter().filter_map(second));
    let near = nearest(wrong.trim(), words)?;
    COMMANDS.iter().find(|row| row.name == near || second(row) == Some(near)).map(|row| row.name)
}

//! Slash commands: what a person types into `qpc repl`, as a value that can be read, written and
//! carried out, also by a program of one's own.
//!
//! ```
//! use quicprochat_mesh::slash::SlashCommand;
//!
//! let command = SlashCommand::parse("/msg anna don't wait for me")?;
//! assert_eq!(command, SlashCommand::Msg { to: "anna".into(), text: "don't wait for me".into() });
//! assert_eq!(command.to_string(), "/msg anna don't wait for me");
//!
//! let error = SlashCommand::parse("/mesh tarce anna").unwrap_err();
//! assert_eq!(error.to_string(), "no command is called /mesh tarce: did you mean /mesh trace?");
//! # Ok::<(), quicprochat_mesh::slash::SlashError>(())
//! ```
//!
//! - [`SlashCommand`] is read from a line; how a line becomes words is below.
//! - [`execute_slash`] carries one out on a [`SlashBackend`]: a [`crate::MeshNode`] in this program, or a
//!   [`RunningNode`] behind its control socket. What comes back is a [`SlashReply`]: objects of
//!   [`crate::api`], with a text for people.
//! - [`Playbook`] is a file of such steps with expectations, for tests and demonstrations.
//!
//! Deliberately absent: a terminal. Line editing, history and colours are the command line's.
//!
//! # Lines
//!
//! A word goes on to the next white space; `\` takes the next character as it is. A word may stand in
//! `"…"`, where `\n`, `\t`, `\r` and `\u{HEX}` mean characters and `\` takes others as they are, or in
//! `'…'`, where everything is as it is. A quote inside a word is nothing special. The text of a message
//! is the rest of the line as it stands; only where all of it is in `"…"` it is read as such a word.

mod backend;
mod error;
mod execute;
pub mod playbook;
mod render;
mod reply;
mod table;
mod text;
mod words;

use std::fmt;

pub use backend::{Answers, RunningNode, SlashBackend};
pub use error::SlashError;
pub use execute::{confirm_slash, execute_slash, resolve_target, send_request};
pub use playbook::Playbook;
pub use reply::{Party, SlashReply, Taken, WhoAmI};
pub use table::{COMMANDS, CommandHelp};
pub use text::{escape, escape_lines, is_deceptive};

use crate::api::{ApiError, Target, check_contact_name};
use table::row_of;
use words::{Line, quote_text, quote_word};

/// Messages that `/recv` takes where it is not told how many.
const RECV_DEFAULT: u32 = 100;

/// Most messages that one `/recv` takes: all of them are in memory until they are shown.
const RECV_MAX: u32 = 1000;

/// A command as it stands in a line. An address is text as a person gave it: 32 hex digits, a unique
/// prefix of at least 8, or a contact's name; the node resolves it.
///
/// Written with [`fmt::Display`] it is read back as the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlashCommand {
    /// `/to [ADDRESS]`: whom lines without a slash go to from here on; none ends the conversation.
    To {
        /// Whom.
        to: Option<String>,
    },
    /// `/msg ADDRESS TEXT`: one message, end-to-end encrypted.
    Msg {
        /// Whom to.
        to: String,
        /// What.
        text: String,
    },
    /// `/broadcast TEXT`: to everyone within reach, signed and readable by all.
    Broadcast {
        /// What.
        text: String,
    },
    /// `/inbox`: what has arrived, without its content.
    Inbox,
    /// `/recv [COUNT]`: what has arrived, oldest first, to be taken once it was shown.
    Recv {
        /// How many at most, 1 to 1000.
        count: u32,
    },
    /// `/outbox`: what is on its way.
    Outbox,
    /// `/contacts`: names for addresses.
    Contacts,
    /// `/contact add NAME ADDRESS`: a name for an address.
    ContactAdd {
        /// The name.
        name: String,
        /// Whom it names.
        address: String,
    },
    /// `/contact remove NAME`.
    ContactRemove {
        /// The name.
        name: String,
    },
    /// `/whoami`: the node's address, and where it can be dialled.
    WhoAmI,
    /// `/status`: how the node is.
    Status,
    /// `/known`: who was heard within the last day.
    Known,
    /// `/ping ADDRESS`: round trips.
    Ping {
        /// Whom.
        to: String,
    },
    /// `/mesh trace ADDRESS`: the path to a node.
    MeshTrace {
        /// Whom.
        to: String,
    },
    /// `/mesh stats`: counters.
    MeshStats,
    /// `/mesh peers`: links.
    MeshPeers,
    /// `/mesh routes`: the routing table.
    MeshRoutes,
    /// `/help [COMMAND]`.
    Help {
        /// Words of one command, or of several that begin alike; none for all.
        command: Option<String>,
    },
    /// `/quit`: the end. Nothing is carried out.
    Quit,
}

impl SlashCommand {
    /// Reads a line. Never panics, whatever the line is.
    ///
    /// # Errors
    /// What is wrong with the line, with the nearest command where none is called so.
    pub fn parse(line: &str) -> Result<Self, SlashError> {
        let mut line = Line::new(line);
        let first = line.word()?.ok_or(SlashError::Empty)?;
        let Some(first) = first.strip_prefix('/') else { return Err(SlashError::NoSlash) };
        let name = match first {
            "mesh" | "contact" => match line.word()? {
                Some(second) => format!("{first} {second}"),
                None => return Err(SlashError::unknown(first.to_owned())),
            },
            "exit" => "quit".to_owned(),
            _ => first.to_owned(),
        };
        let Some(row) = row_of(&name) else { return Err(SlashError::unknown(name)) };
        let mut arguments = Arguments { row, line };
        let command = match row.name {
            "to" => Self::To { to: arguments.optional(address)? },
            "msg" => {
                let to = arguments.required("ADDRESS", address)?;
                return Ok(Self::Msg { to, text: arguments.text()? });
            }
            "broadcast" => return Ok(Self::Broadcast { text: arguments.text()? }),
            "inbox" => Self::Inbox,
            "recv" => Self::Recv { count: arguments.optional(count)?.unwrap_or(RECV_DEFAULT) },
            "outbox" => Self::Outbox,
            "contacts" => Self::Contacts,
            "contact add" => Self::ContactAdd {
                name: arguments.required("NAME", contact)?,
                address: arguments.required("ADDRESS", Ok)?,
            },
            "contact remove" => Self::ContactRemove { name: arguments.required("NAME", contact)? },
            "whoami" => Self::WhoAmI,
            "status" => Self::Status,
            "known" => Self::Known,
            "ping" => Self::Ping { to: arguments.required("ADDRESS", address)? },
            "mesh trace" => Self::MeshTrace { to: arguments.required("ADDRESS", address)? },
            "mesh stats" => Self::MeshStats,
            "mesh peers" => Self::MeshPeers,
            "mesh routes" => Self::MeshRoutes,
            "group" => return Err(SlashError::NotBuilt { name: "group", what: "groups" }),
            "fapp" => return Err(SlashError::NotBuilt { name: "fapp", what: "appointments" }),
            "help" => {
                let mut words = Vec::new();
                while let Some(word) = arguments.line.word()? {
                    words.push(word.trim_start_matches('/').to_owned());
                }
                let command = Some(words.join(" ")).filter(|words| !words.is_empty());
                match &command {
                    Some(words) if table::rows_of(words).is_empty() => {
                        return Err(SlashError::unknown(words.clone()));
                    }
                    _ => return Ok(Self::Help { command }),
                }
            }
            _ => Self::Quit,
        };
        arguments.end()?;
        Ok(command)
    }

    /// Whether it holds what somebody wrote to somebody else, and so stays out of what is kept of a
    /// session.
    pub fn has_message_text(&self) -> bool {
        matches!(self, Self::Msg { .. } | Self::Broadcast { .. })
    }
}

/// What is behind the words of a command.
struct Arguments<'a> {
    row: &'static CommandHelp,
    line: Line<'a>,
}

impl Arguments<'_> {
    fn optional<T>(&mut self, read: fn(String) -> Result<T, ApiError>) -> Result<Option<T>, SlashError> {
        Ok(self.line.word()?.map(read).transpose()?)
    }

    fn required<T>(
        &mut self,
        what: &'static str,
        read: fn(String) -> Result<T, ApiError>,
    ) -> Result<T, SlashError> {
        self.optional(read)?.ok_or(SlashError::Missing { row: self.row, what })
    }

    fn text(self) -> Result<String, SlashError> {
        self.line.text().ok_or(SlashError::Missing { row: self.row, what: "TEXT" })
    }

    fn end(mut self) -> Result<(), SlashError> {
        match self.line.word()? {
            Some(word) => Err(SlashError::TooMuch { row: self.row, word }),
            None => Ok(()),
        }
    }
}

fn address(word: String) -> Result<String, ApiError> {
    Target::parse(&word).map(|_| word)
}

fn contact(word: String) -> Result<String, ApiError> {
    check_contact_name(&word).map(|()| word)
}

fn count(word: String) -> Result<u32, ApiError> {
    let count = word.parse().ok().filter(|count| (1..=RECV_MAX).contains(count));
    count.ok_or_else(|| ApiError::usage(format!("{word:?} is no count: give a number from 1 to {RECV_MAX}")))
}

impl fmt::Display for SlashCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { to: None } => f.write_str("/to"),
            Self::To { to: Some(to) } => write!(f, "/to {}", quote_word(to)),
            Self::Msg { to, text } => write!(f, "/msg {} {}", quote_word(to), quote_text(text)),
            Self::Broadcast { text } => write!(f, "/broadcast {}", quote_text(text)),
            Self::Inbox => f.write_str("/inbox"),
            Self::Recv { count: RECV_DEFAULT } => f.write_str("/recv"),
            Self::Recv { count } => write!(f, "/recv {count}"),
            Self::Outbox => f.write_str("/outbox"),
            Self::Contacts => f.write_str("/contacts"),
            Self::ContactAdd { name, address } => {
                write!(f, "/contact add {} {}", quote_word(name), quote_word(address))
            }
            Self::ContactRemove { name } => write!(f, "/contact remove {}", quote_word(name)),
            Self::WhoAmI => f.write_str("/whoami"),
            Self::Status => f.write_str("/status"),
            Self::Known => f.write_str("/known"),
            Self::Ping { to } => write!(f, "/ping {}", quote_word(to)),
            Self::MeshTrace { to } => write!(f, "/mesh trace {}", quote_word(to)),
            Self::MeshStats => f.write_str("/mesh stats"),
            Self::MeshPeers => f.write_str("/mesh peers"),
            Self::MeshRoutes => f.write_str("/mesh routes"),
            Self::Help { command: None } => f.write_str("/help"),
            Self::Help { command: Some(command) } => write!(f, "/help {command}"),
            Self::Quit => f.write_str("/quit"),
        }
    }
}

/// A word as it has to stand in a line: in quotes where it needs them.
pub fn quote(word: &str) -> String {
    quote_word(word)
}

#[cfg(test)]
mod tests;

//! Why a line is no command.

use super::table::{CommandHelp, near_command};
use crate::api::ApiError;

/// Why a line is no command, and what to write instead. Text of the line is in it as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlashError {
    /// Nothing stands in the line.
    #[error("an empty line is no command: /help lists them")]
    Empty,
    /// It does not begin with a slash.
    #[error("a command begins with a slash: /help lists them")]
    NoSlash,
    /// No command is called that.
    #[error("no command is called /{word}: {}", instead(*near))]
    Unknown {
        /// What stands there, without the slash.
        word: String,
        /// The nearest command.
        near: Option<&'static str>,
    },
    /// An argument is missing.
    #[error("{what} is missing: write {}", row.usage())]
    Missing {
        /// Which command.
        row: &'static CommandHelp,
        /// The argument.
        what: &'static str,
    },
    /// There is more than the command takes.
    #[error("{word:?} is too much: write {}", row.usage())]
    TooMuch {
        /// Which command.
        row: &'static CommandHelp,
        /// The first word that it does not take.
        word: String,
    },
    /// A quote is opened and not closed.
    #[error("the quote {quote} is not closed: close it, or write \\{quote} where a name begins with it")]
    Unclosed {
        /// Which.
        quote: char,
    },
    /// Something stands right behind a closing quote.
    #[error("after the quoted {word:?} a space is missing")]
    AfterQuote {
        /// What the quotes hold.
        word: String,
    },
    /// `\u` without the number of a character.
    #[error("\\u takes the number of a character, as in \\u{{e9}}")]
    BadEscape,
    /// The command belongs to a part that does not exist yet.
    #[error("/{name} is not built yet: this version knows no {what}")]
    NotBuilt {
        /// Its first word.
        name: &'static str,
        /// What it would be about.
        what: &'static str,
    },
    /// An argument is not what it has to be.
    #[error("{0}")]
    Argument(ApiError),
}

impl SlashError {
    pub(super) fn unknown(word: String) -> Self {
        let near = near_command(&word);
        Self::Unknown { word, near }
    }
}

impl From<ApiError> for SlashError {
    fn from(error: ApiError) -> Self {
        Self::Argument(error)
    }
}

impl From<SlashError> for ApiError {
    fn from(error: SlashError) -> Self {
        match error {
            SlashError::Argument(error) => error,
            other => ApiError::usage(other),
        }
    }
}

fn instead(near: Option<&str>) -> String {
    match near {
        Some(near) => format!("did you mean /{near}?"),
        None => "/help lists them".into(),
    }
}

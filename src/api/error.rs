//! How a request fails: a class, which is the exit code, and one line that says what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is. The number is the exit code of `qpc` (BSD `sysexits.h` from 64 on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// It was tried and failed.
    Failed,
    /// The request itself is wrong.
    Usage,
    /// No node is running for this data directory.
    NoNode,
    /// Accepted, but not finished within the time asked for; it goes on.
    NotYet,
    /// The configuration is wrong.
    Config,
}

impl ErrorClass {
    /// The process exit code of this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoNode => 69,
            Self::NotYet => 75,
            Self::Config => 78,
        }
    }
}

/// A request that was not done: its class and one line for the person who asked.
///
/// The message is a single line, says what happened, to what, and what to do about it; line
/// breaks given to a constructor become spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ApiError {
    /// Which kind of failure.
    pub class: ErrorClass,
    /// One line of text.
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ApiError {
    /// An error of `class` that says `message`.
    pub fn new(class: ErrorClass, message: impl fmt::Display) -> Self {
        let text = message.to_string();
        let message = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
        Self { class, message }
    }

    /// It was tried and failed (exit 1).
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Failed, message)
    }

    /// The request is wrong (exit 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Usage, message)
    }

    /// No node is running (exit 69).
    pub fn no_node(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::NoNode, message)
    }

    /// Accepted but not finished in time (exit 75).
    pub fn not_yet(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::NotYet, message)
    }

    /// The configuration is wrong (exit 78).
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Config, message)
    }

    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        self.class.exit_code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(ApiError::failed("no path\n  to  it\n").message, "no path to  it");
    }

    #[test]
    fn classes_are_the_documented_exit_codes() {
        let codes = [
            ErrorClass::Failed,
            ErrorClass::Usage,
            ErrorClass::NoNode,
            ErrorClass::NotYet,
            ErrorClass::Config,
        ]
        .map(ErrorClass::exit_code);
        assert_eq!(codes, [1, 2, 69, 75, 78]);
    }
}

//! What is wrong with a configuration: everything at once, each with its place.

use std::{fmt, io, path::PathBuf};

/// A configuration that cannot be used. Show all of it to whoever wrote the configuration: each line
/// says where, what, and the nearest that would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Keys or values are wrong. Displayed one a line.
    #[error("{}", lines(problems))]
    Wrong {
        /// Every one of them, in the order of the document, environment and flags after it.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Every wrong key and value; empty where the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Wrong { problems } => problems,
        }
    }
}

/// One wrong key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong, naming the key.
    pub message: String,
    /// The nearest valid key, or another way out.
    pub hint: Option<String>,
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// Path as it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Env(String),
    /// On the command line.
    Flag(String),
    /// In the values of a preset.
    Preset(&'static str),
    /// In a value that a program set.
    Value,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Value => f.write_str("configuration"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

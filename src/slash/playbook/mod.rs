//! Playbooks: a file of steps that are carried out on a node, with what is expected of them.
//!
//! ```
//! use std::collections::BTreeMap;
//! use quicprochat_mesh::Playbook;
//!
//! let text = r#"
//! [[step]]
//! action = "send"
//! to = "${BERT}"
//! text = "hello"
//! wait = "30s"
//!
//! [[step]]
//! action = "expect"
//! field = "hops"
//! at_most = 2
//! "#;
//! let bert = ("BERT".to_owned(), "b2".repeat(16));
//! let playbook = Playbook::parse(text, &BTreeMap::from([bert]))?;
//! assert_eq!(playbook.steps().len(), 2);
//! # Ok::<(), quicprochat_mesh::slash::playbook::PlaybookError>(())
//! ```
//!
//! # Steps
//!
//! A playbook is TOML: `[[step]]` entries, each with an `action`, in order. Durations are written `500ms`,
//! `30s`, `10m`. `${NAME}` in a string is a variable, `$${` the characters `${`.
//!
//! | action | keys | goes on when |
//! |---|---|---|
//! | `mesh-trace` | `to` | the destination has answered |
//! | `mesh-stats`, `mesh-peers`, `mesh-routes` | | the node has answered |
//! | `send` | `to`, `text`, `wait`, `expect` | the message is `expect`: without `wait` `queued`, with it `delivered` within that time, or another status that is given |
//! | `broadcast` | `text` | the node has it |
//! | `ping` | `to` | at least one of its pings was answered |
//! | `contact-add` | `name`, `address` | the node has it |
//! | `expect` | `equals` or `contains`, `from`, `timeout`, `take` | a message with that text is in the inbox; each is found once, the oldest first, and taken out with `take = true` |
//! | `expect` | `field`, and `equals`, `contains`, `at_least` or `at_most` | that is so of the reply before it |
//! | `wait` | `for`, `timeout` | `for` is there: `"peers>=2"`, `"route:ADDRESS"`, `"message"` (one that no step has found), or a duration is over |
//! | `note` | `text` | at once; it is for whoever reads along |
//!
//! A `timeout` is 30 seconds where none is given. A `field` is a path into the reply's JSON object, its
//! parts divided by dots, a number for a place in an array: `hops.0.address`. Compared with a number, an
//! array is its length; it contains what one of its texts contains. An empty `field` is the whole reply.

mod condition;
mod parse;
mod run;

use std::{collections::BTreeMap, fmt, time::Duration};

pub use condition::Condition;
pub use run::{Run, StepReport};

use super::{SlashBackend, SlashCommand};
use crate::api::DeliveryStatus;

/// Variables of the environment that begin so are variables of playbooks, under the rest of their name.
pub const ENV_PREFIX: &str = "QPC_PB_";

/// How long a step waits that is not told how long.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Values for `${NAME}`.
pub type Variables = BTreeMap<String, String>;

/// Steps that were read from a file, with their variables put in.
#[derive(Debug, Clone, PartialEq)]
pub struct Playbook {
    title: Option<String>,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The line that it begins in, from 1.
    pub line: usize,
    /// The word that it was given as.
    pub name: &'static str,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Carries out a command that says by itself whether it did what it is for.
    Command(SlashCommand),
    /// Sends a message.
    Send {
        /// Whom to.
        to: String,
        /// What.
        text: String,
        /// How long it waits for the message's fate; none to go on once it is on disk.
        wait: Option<Duration>,
        /// What has to become of it.
        expect: DeliveryStatus,
    },
    /// Looks for a message.
    ExpectMessage {
        /// From whom; none for anybody.
        from: Option<String>,
        /// What its text has to be.
        text: TextTest,
        /// How long it waits for one to arrive.
        timeout: Duration,
        /// Whether it is taken out of the inbox.
        take: bool,
    },
    /// Looks at the reply before it.
    ExpectReply(Condition),
    /// Waits for something.
    Wait {
        /// For what.
        until: Until,
        /// How long at most.
        timeout: Duration,
    },
    /// Says something to whoever reads along.
    Note(String),
}

/// What a text has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// Anything.
    Any,
    /// This.
    Equals(String),
    /// Something with this in it.
    Contains(String),
}

impl TextTest {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Equals(whole) => text == whole,
            Self::Contains(part) => text.contains(part.as_str()),
        }
    }
}

impl fmt::Display for TextTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("a message"),
            Self::Equals(whole) => write!(f, "a message {whole:?}"),
            Self::Contains(part) => write!(f, "a message that contains {part:?}"),
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// So many links are up.
    Peers(u64),
    /// There is a route to this address.
    Route(String),
    /// A message is in the inbox that no step has found.
    Message,
    /// This time is over.
    Passed(Duration),
}

/// A file that is no playbook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(mistakes))]
pub struct PlaybookError {
    /// Everything that is wrong with it, in the order of the file.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a playbook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

impl Playbook {
    /// Reads a playbook and puts the variables in.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(text: &str, variables: &Variables) -> Result<Self, PlaybookError> {
        parse::parse(text, variables)
    }

    /// What it says it is.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Begins it on a node: nothing is done before [`Run::next`].
    pub fn run<'a, B>(&'a self, backend: &'a B) -> Run<'a, B>
    where
        B: SlashBackend + ?Sized,
    {
        Run::new(&self.steps, backend)
    }
}

#[cfg(test)]
mod tests;

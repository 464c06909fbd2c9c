//! Colours by their meaning.
//!
//! Text is painted as if there always were a terminal; [`crate::out`] takes the colours away again
//! where stdout is none, or `NO_COLOR`, `CLICOLOR` or `TERM` say so. Only our own colours are in it:
//! the text of others went through [`crate::human::escape`].

use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use quicprochat_mesh::api::NodeState;

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// A headline.
    Bold,
    /// Beside the point: heads of columns, remarks.
    Faint,
    /// As it should be.
    Good,
    /// Less than it should be.
    Warn,
    /// Not as it should be.
    Bad,
    /// Something to type.
    Command,
}

impl Ink {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Bold => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => colour(AnsiColor::Green),
            Self::Warn => colour(AnsiColor::Yellow),
            Self::Bad => colour(AnsiColor::Red),
            Self::Command => colour(AnsiColor::Cyan),
        }
    }

    /// `text` in this ink.
    pub fn paint(self, text: impl Display) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }

    /// The ink of a node's state, or of a part's.
    pub fn of_state(state: NodeState) -> Self {
        match state {
            NodeState::Healthy => Self::Good,
            NodeState::Degraded | NodeState::Draining => Self::Warn,
            NodeState::Unhealthy => Self::Bad,
        }
    }

    /// The ink of what became of a message, where it is an end.
    pub fn of_fate(word: &str) -> Option<Self> {
        match word {
            "delivered" | "in_inbox" | "taken" => Some(Self::Good),
            "expired" | "failed" | "rejected" | "cancelled" | "given_up" => Some(Self::Bad),
            _ => None,
        }
    }
}

/// `text` in this ink, or as it is without one.
pub fn paint(ink: Option<Ink>, text: &str) -> String {
    ink.map_or_else(|| text.to_owned(), |ink| ink.paint(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_ends_where_its_text_ends() {
        assert_eq!(Ink::Good.paint("healthy"), "\u{1b}[32mhealthy\u{1b}[0m");
        assert_eq!(paint(None, "healthy"), "healthy");
        assert_eq!(Ink::of_state(NodeState::Unhealthy), Ink::Bad);
    }
}

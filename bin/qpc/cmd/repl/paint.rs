//! Colours of the session, on a terminal that wants them only.

use std::{fmt::Display, io::stdout};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// Paints where colours are wanted (a terminal, no `NO_COLOR`).
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// As stdout is.
    pub fn of_stdout() -> Self {
        Self { is_on: AutoStream::choice(&stdout()) != ColorChoice::Never }
    }

    /// Whether it paints.
    pub fn is_on(self) -> bool {
        self.is_on
    }

    /// Who it is.
    pub fn name(self, text: impl Display) -> String {
        self.ink(Style::new().bold().fg_color(Some(AnsiColor::Cyan.into())), text)
    }

    /// Beside the point.
    pub fn faint(self, text: impl Display) -> String {
        self.ink(Style::new().dimmed(), text)
    }

    /// As it should be.
    pub fn good(self, text: impl Display) -> String {
        self.ink(Style::new().fg_color(Some(AnsiColor::Green.into())), text)
    }

    /// Not as it should be.
    pub fn bad(self, text: impl Display) -> String {
        self.ink(Style::new().fg_color(Some(AnsiColor::Red.into())), text)
    }

    fn ink(self, style: Style, text: impl Display) -> String {
        match self.is_on {
            true => format!("{style}{text}{style:#}"),
            false => text.to_string(),
        }
    }
}

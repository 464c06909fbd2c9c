//! How the demo looks: numbered steps, one mark a line, colours on a terminal only.

use std::{
    fmt::Display,
    io::{IsTerminal, Write, stdout},
};

use crate::fail::Failure;

/// Columns of the name in front of a line's text.
const NAME_COLUMNS: usize = 12;

/// Prints the story, each line flushed, so that it can be followed as it happens.
pub struct Page {
    colours: bool,
    steps: u32,
}

/// Colours of a terminal by their meaning.
#[derive(Clone, Copy)]
enum Ink {
    Bold = 1,
    Faint = 2,
    Good = 32,
    Command = 36,
}

impl Page {
    /// With colours where stdout is a terminal, unless `NO_COLOR` is set.
    pub fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { colours: stdout().is_terminal() && !unwanted, steps: 0 }
    }

    fn ink(&self, ink: Ink, text: impl Display) -> String {
        match self.colours {
            true => format!("\u{1b}[{}m{text}\u{1b}[0m", ink as u8),
            false => text.to_string(),
        }
    }

    fn line(&self, line: impl Display) -> Result<(), Failure> {
        let mut stdout = stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::of_stdout)
    }

    /// The first line of everything.
    pub fn title(&self, title: &str) -> Result<(), Failure> {
        self.line(self.ink(Ink::Bold, title))
    }

    /// Begins a step.
    pub fn step(&mut self, title: impl Display) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(1);
        self.line("")?;
        self.line(self.ink(Ink::Bold, format!("{}  {title}", self.steps)))
    }

    /// A headline without a number.
    pub fn section(&self, title: impl Display) -> Result<(), Failure> {
        self.line("")?;
        self.line(self.ink(Ink::Bold, title))
    }

    /// The command with which a person does the same.
    pub fn command(&self, command: impl Display) -> Result<(), Failure> {
        self.shell(format_args!("qpc {command}"))
    }

    /// A command of the shell.
    pub fn shell(&self, command: impl Display) -> Result<(), Failure> {
        self.line(format!("   {}", self.ink(Ink::Command, format!("$ {command}"))))
    }

    /// Something that happened as it should.
    pub fn good(&self, what: &str, text: impl Display) -> Result<(), Failure> {
        let what = self.ink(Ink::Good, format!("{what:NAME_COLUMNS$}"));
        self.line(format!("   {what} {text}"))
    }

    /// A line of a list.
    pub fn item(&self, name: &str, text: impl Display) -> Result<(), Failure> {
        self.line(format!("   {name:NAME_COLUMNS$} {text}"))
    }

    /// A line of its own.
    pub fn text(&self, text: impl Display) -> Result<(), Failure> {
        self.line(format!("   {text}"))
    }

    /// A remark.
    pub fn remark(&self, text: impl Display) -> Result<(), Failure> {
        self.line(format!("   {}", self.ink(Ink::Faint, text)))
    }
}

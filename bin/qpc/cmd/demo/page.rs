//! How the demo looks: numbered steps, one mark a line, colours on a terminal only.

use std::{
    fmt::Display,
    io::{Write, stdout},
};

use crate::{fail::Failure, ink::Ink};

/// Columns of the name in front of a line's text.
const NAME_COLUMNS: usize = 12;

/// Prints the story, each line flushed, so that it can be followed as it happens.
#[derive(Default)]
pub struct Page {
    steps: u32,
}

impl Page {
    /// Before the first step.
    pub fn new() -> Self {
        Self::default()
    }

    fn line(&self, line: impl Display) -> Result<(), Failure> {
        let mut stdout = anstream::AutoStream::auto(stdout().lock());
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::of_stdout)
    }

    /// The first line of everything.
    pub fn title(&self, title: &str) -> Result<(), Failure> {
        self.line(Ink::Bold.paint(title))
    }

    /// Begins a step.
    pub fn step(&mut self, title: impl Display) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(1);
        self.line("")?;
        self.line(Ink::Bold.paint(format!("{}  {title}", self.steps)))
    }

    /// A headline without a number.
    pub fn section(&self, title: impl Display) -> Result<(), Failure> {
        self.line("")?;
        self.line(Ink::Bold.paint(title))
    }

    /// The command with which a person does the same.
    pub fn command(&self, command: impl Display) -> Result<(), Failure> {
        self.shell(format_args!("qpc {command}"))
    }

    /// A command of the shell.
    pub fn shell(&self, command: impl Display) -> Result<(), Failure> {
        self.line(format!("   {}", Ink::Command.paint(format!("$ {command}"))))
    }

    /// Something that happened as it should.
    pub fn good(&self, what: &str, text: impl Display) -> Result<(), Failure> {
        let what = Ink::Good.paint(format!("{what:NAME_COLUMNS$}"));
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
        self.line(format!("   {}", Ink::Faint.paint(text)))
    }
}

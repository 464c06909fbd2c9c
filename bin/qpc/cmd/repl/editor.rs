//! The line editor on a thread of its own, and a way to print above the line that is being typed.
//!
//! The editor blocks while somebody types; so does the printer, where the editor has not shown yet what
//! it was given. Neither may stop what arrives meanwhile.

use std::{
    io::{Write, stdout},
    sync::mpsc as blocking,
    thread,
};

use quicprochat_mesh::api::ApiError;
use rustyline::{
    ColorMode, CompletionType, Config, Editor as Rustyline, ExternalPrinter, config::BellStyle,
    error::ReadlineError, history::DefaultHistory,
};
use tokio::sync::mpsc;

use super::complete::SlashHelper;

/// Lines that Up goes back over.
const HISTORY_MAX: usize = 1000;

/// What became of a line.
#[derive(Debug)]
pub enum Typed {
    /// Enter.
    Line(String),
    /// Ctrl-C: the line is given up.
    Cancelled,
    /// Ctrl-D on an empty line, or the terminal is gone.
    End,
}

/// A prompt without and with colours, of the same width.
pub struct Prompt {
    pub plain: String,
    pub painted: String,
}

/// The editor.
pub struct Editor {
    /// Whether the terminal can do more than take lines: then Ctrl-C is a key like others.
    pub edits: bool,
    prompts: blocking::Sender<Prompt>,
    typed: mpsc::UnboundedReceiver<Typed>,
}

/// Prints lines above the one that is being typed. Clones print to the same terminal.
#[derive(Debug, Clone)]
pub struct Printer(blocking::Sender<String>);

impl Printer {
    /// Prints lines. The session may be over, and nobody there to read them.
    pub fn print(&self, text: &str) {
        let _ = self.0.send(format!("{text}\n"));
    }
}

impl Editor {
    /// Begins with the lines of former sessions.
    pub fn start(helper: SlashHelper, former: Vec<String>) -> Result<(Self, Printer), ApiError> {
        let failed = |e: ReadlineError| ApiError::failed(format!("cannot read from the terminal: {e}"));
        let thread_failed = |e: std::io::Error| ApiError::failed(format!("cannot start a thread: {e}"));
        let colours = if helper.paint.is_on() { ColorMode::Enabled } else { ColorMode::Disabled };
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .map_err(failed)?
            .completion_type(CompletionType::List)
            .bell_style(BellStyle::None)
            .color_mode(colours)
            .build();
        let mut editor: Rustyline<SlashHelper, DefaultHistory> =
            Rustyline::with_config(config).map_err(failed)?;
        editor.set_helper(Some(helper));
        for line in former {
            // One that it refuses, as it does a repeated one, is not missed.
            let _ = editor.add_history_entry(line);
        }

        // A terminal that cannot move its cursor has no line to print above.
        let above = editor.create_external_printer().ok();
        let edits = above.is_some();
        let (print, lines) = blocking::channel();
        let printing = move || print_all(&lines, above);
        thread::Builder::new().name("printer".into()).spawn(printing).map_err(thread_failed)?;

        let (prompts, asked) = blocking::channel();
        let (tell, typed) = mpsc::unbounded_channel();
        let editing = move || edit(editor, &asked, &tell);
        thread::Builder::new().name("editor".into()).spawn(editing).map_err(thread_failed)?;
        Ok((Self { edits, prompts, typed }, Printer(print)))
    }

    /// The next line.
    pub async fn line(&mut self, prompt: Prompt) -> Typed {
        if self.prompts.send(prompt).is_err() {
            return Typed::End;
        }
        self.typed.recv().await.unwrap_or(Typed::End)
    }
}

fn edit(
    mut editor: Rustyline<SlashHelper, DefaultHistory>,
    asked: &blocking::Receiver<Prompt>,
    tell: &mpsc::UnboundedSender<Typed>,
) {
    while let Ok(Prompt { plain, painted }) = asked.recv() {
        let typed = match editor.readline(&(plain, painted)) {
            Ok(line) => {
                if !line.trim().is_empty() {
                    let _ = editor.add_history_entry(line.as_str());
                }
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Cancelled,
            // Whatever is wrong with the terminal, nobody can type there.
            Err(_) => Typed::End,
        };
        if tell.send(typed).is_err() {
            return;
        }
    }
}

fn print_all(lines: &blocking::Receiver<String>, mut above: Option<impl ExternalPrinter>) {
    while let Ok(text) = lines.recv() {
        let printed = above.as_mut().is_some_and(|above| above.print(text.clone()).is_ok());
        if !printed {
            // Nobody to tell where the terminal is gone.
            let _ = stdout().lock().write_all(text.as_bytes());
        }
    }
}

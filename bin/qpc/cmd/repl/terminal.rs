//! A session at a terminal.

use std::io::{Write, stdin, stdout};

use futures_util::FutureExt;
use quicprochat_mesh::{
    RunningNode, SlashBackend, SlashCommand, SlashReply,
    api::{ApiError, SendOutcome, Status},
    execute_slash,
    slash::{confirm_slash, resolve_target, send_request},
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Keep, arrivals,
    complete::SlashHelper,
    editor::{Editor, Printer, Prompt, Typed},
    history::History,
    names::SharedNames,
    paint::Paint,
    session::Session,
};
use crate::{cx::Context, fail::Failure, human, out::note};

/// What a session is made of.
struct Terminal<'a> {
    node: &'a RunningNode,
    paint: Paint,
    printer: Printer,
    session: Session,
    names: SharedNames,
}

pub async fn run(node: &RunningNode, status: &Status, keep: Keep, cx: &Context) -> Result<(), Failure> {
    let paint = Paint::of_stdout();
    let names = SharedNames::default();
    let (mut history, former) = History::open(&cx.data_dir, keep);
    let former = former.unwrap_or_else(|error| {
        note(format!("warning: no history: {error}"));
        Vec::new()
    });
    let listen = |kind| signal(kind).map_err(|e| ApiError::failed(format!("cannot listen for signals: {e}")));
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let _as_it_was = Modes::save();

    say(&format!("{} on network {}", paint.name(status.address), human::escape(&status.network)))?;
    say(&paint.faint("/help lists the commands, Ctrl-D leaves"))?;
    if let Some(waiting) = arrivals::waiting(node).await? {
        say(&waiting)?;
    }

    names.renew(node).await;
    let helper = SlashHelper { names: names.clone(), paint };
    let (mut editor, printer) = Editor::start(helper, former)?;
    tokio::spawn(arrivals::watch(node.clone(), printer.clone(), paint));
    let mut terminal = Terminal { node, paint, printer, session: Session::default(), names };
    let edits = editor.edits;
    loop {
        let typed = tokio::select! {
            typed = editor.line(terminal.prompt(status)) => typed,
            // Without an editor nobody gives up a line, and who interrupts means the program.
            _ = interrupt.recv(), if !edits => return Ok(()),
            // Nobody types any more; what was typed is given up.
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        };
        let line = match typed {
            Typed::Line(line) => line,
            Typed::Cancelled => continue,
            Typed::End => return Ok(()),
        };
        let command = terminal.session.read(&line);
        let read = command.as_ref().ok().and_then(Option::as_ref);
        if let Err(error) = history.add(&line, read) {
            terminal.tell_error(&error)?;
        }
        match command {
            Ok(None) => {}
            Ok(Some(SlashCommand::Quit)) => return Ok(()),
            Ok(Some(command)) => tokio::select! {
                done = terminal.carry_out(&command, &mut interrupt) => done?,
                _ = terminate.recv() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
            },
            Err(error) => terminal.tell_error(&error)?,
        }
    }
}

impl Terminal<'_> {
    fn prompt(&self, status: &Status) -> Prompt {
        let name = match self.session.partner() {
            Some(partner) => partner.name.as_deref().map_or_else(|| partner.address.short(), human::escape),
            None => status.address.short(),
        };
        let painted = match self.session.partner() {
            Some(_) => self.paint.name(&name),
            None => self.paint.faint(&name),
        };
        Prompt { plain: format!("{name}> "), painted: format!("{painted}> ") }
    }

    /// Carries a command out; Ctrl-C gives it up.
    async fn carry_out(&mut self, command: &SlashCommand, interrupt: &mut Signal) -> Result<(), Failure> {
        // One that came when nothing was under way means nothing that comes after it.
        while interrupt.recv().now_or_never().flatten().is_some() {}
        let done = tokio::select! {
            done = self.execute(command) => done,
            _ = interrupt.recv() => Err(ApiError::failed("given up")),
        };
        match done {
            Ok(Some(reply)) => {
                say(&reply.to_string())?;
                if let Err(error) = confirm_slash(self.node, &reply).await {
                    self.tell_error(&error)?;
                }
                self.session.note(&reply);
            }
            Ok(None) => return Ok(()),
            Err(error) => self.tell_error(&error)?,
        }
        // It may have changed whom lines can be about.
        self.names.renew(self.node).await;
        Ok(())
    }

    /// The reply of a command; none for a message, whose fate is told when it is known.
    async fn execute(&self, command: &SlashCommand) -> Result<Option<SlashReply>, ApiError> {
        let SlashCommand::Msg { to, text } = command else {
            return execute_slash(self.node, command).await.map(Some);
        };
        let to = resolve_target(self.node, to).await?;
        let address = to.address.to_string();
        let mut answers = self.node.ask(&send_request(&address), text.as_bytes()).await?;
        let queued: SendOutcome = answers.one().await?;
        let label = to.name.as_deref().map_or_else(|| to.address.short(), human::escape);
        tokio::spawn(arrivals::follow(answers, queued, label, self.printer.clone(), self.paint));
        Ok(None)
    }

    fn tell_error(&self, error: &ApiError) -> Result<(), Failure> {
        say(&self.paint.bad(human::escape(&error.message)))
    }
}

fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::of_stdout)
}

/// How the terminal was before the line editor took it; put back when this is dropped, since the editor
/// may be in the middle of a line when the session ends.
struct Modes(Option<Termios>);

impl Modes {
    fn save() -> Self {
        Self(tcgetattr(stdin()).ok())
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        let Some(before) = &self.0 else { return };
        let is_changed = tcgetattr(stdin()).is_ok_and(|now| now.local_modes != before.local_modes);
        if is_changed {
            // Where the terminal is gone there is nothing to put back. The second is the editor's mark
            // around pasted text.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
            let _ = stdout().lock().write_all(b"\x1b[?2004l\r\n");
        }
    }
}

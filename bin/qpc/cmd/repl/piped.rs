//! A session of commands that come from a file or another program.

use std::io::{BufRead, stdin};

use quicprochat_mesh::{
    RunningNode, SlashCommand, SlashReply,
    api::{ApiError, ErrorClass},
    execute_slash,
    slash::confirm_slash,
};
use serde::Serialize;

use super::session::Session;
use crate::{cx::Context, fail::Failure, out::note};

/// One line of `--json`.
#[derive(Serialize)]
struct Answered<'a> {
    /// Number of the line, from 1.
    line: u64,
    /// The command as it was read; none where it was not.
    command: Option<String>,
    ok: bool,
    /// What the node answered.
    reply: Option<&'a SlashReply>,
    /// Why it failed.
    error: Option<String>,
}

/// Carries out every line of stdin. Replies go to stdout, reasons to stderr.
pub async fn run(node: &RunningNode, strict: bool, cx: &Context) -> Result<(), Failure> {
    let mut session = Session::default();
    let mut stdin = stdin().lock();
    let (mut number, mut has_failed) = (0u64, false);
    loop {
        let mut line = Vec::new();
        let read = stdin.read_until(b'\n', &mut line);
        if read.map_err(|e| ApiError::failed(format!("cannot read from stdin: {e}")))? == 0 {
            break;
        }
        number = number.saturating_add(1);
        let text = String::from_utf8(line).map_err(|_| ApiError::usage("it is not UTF-8"));
        let command = match text.and_then(|text| session.read(&text)) {
            Ok(None) => continue,
            Ok(Some(SlashCommand::Quit)) => break,
            Ok(Some(command)) => Ok(command),
            Err(error) => Err(error),
        };
        let name = command.as_ref().ok().map(ToString::to_string);
        let reply = match &command {
            Ok(command) => execute_slash(node, command).await,
            Err(error) => Err(error.clone()),
        };
        let failure = match &reply {
            Ok(reply) => reply.failure().map(ApiError::failed),
            Err(error) => Some(error.clone()),
        };
        if cx.out.json {
            let answered = Answered {
                line: number,
                command: name,
                ok: failure.is_none(),
                reply: reply.as_ref().ok(),
                error: failure.as_ref().map(|error| error.message.clone()),
            };
            cx.out.show(&answered, |_| String::new())?;
        } else if let Ok(reply) = &reply {
            cx.out.show(reply, ToString::to_string)?;
        }
        if let Ok(reply) = &reply {
            confirm_slash(node, reply).await?;
            session.note(reply);
        }
        if let Some(error) = failure {
            let told = ApiError::new(error.class, format!("line {number}: {error}"));
            if strict {
                return Err(told.into());
            }
            has_failed = true;
            note(&told);
        }
    }
    match has_failed {
        true => Err(Failure::Said(ErrorClass::Failed)),
        false => Ok(()),
    }
}

//! What is said of a command line: help where it was asked for, else what is wrong with it.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
};

use clap::{CommandFactory, error::ErrorKind};

use crate::{cmd::Cli, fail::Failure, human, screen};

/// Longest argument that is repeated as it is, in columns.
const ARGUMENT_COLUMNS_MAX: usize = 120;

/// Longest line about arguments that cannot be shown as they are.
const LINE_COLUMNS_MAX: usize = 300;

/// Prints help or version to stdout, anything else to stderr, and returns the exit code.
pub fn tell(error: &clap::Error) -> Result<u8, Failure> {
    if !error.use_stderr() {
        let mut stdout = anstream::AutoStream::auto(io::stdout().lock());
        let written = write!(stdout, "{}", error.render().ansi()).and_then(|()| stdout.flush());
        return written.map(|()| 0).map_err(Failure::of_stdout);
    }
    let mut stderr = anstream::AutoStream::auto(io::stderr().lock());
    // Nobody to tell where stderr is closed.
    let _ = match safe(error, std::env::args_os()) {
        Safe::AsItIs => write!(stderr, "{}", error.render().ansi()),
        Safe::Said(error) => write!(stderr, "{}", error.render().ansi()),
        Safe::Plain(text) => write!(stderr, "{text}"),
    };
    Ok(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// An error in words that a terminal can take.
enum Safe {
    AsItIs,
    /// What is wrong with the same arguments, spelled out.
    Said(clap::Error),
    Plain(String),
}

/// Errors repeat what they are about, control characters and all: where an argument has some, or is
/// very long, the error is made again of arguments that are spelled out.
fn safe(error: &clap::Error, args: impl Iterator<Item = OsString>) -> Safe {
    let args: Vec<OsString> = args.collect();
    let spelled: Vec<String> = args.iter().map(|arg| spell(arg)).collect();
    if args.iter().zip(&spelled).all(|(arg, spelled)| arg.as_os_str() == OsStr::new(spelled)) {
        return Safe::AsItIs;
    }
    match Cli::command().try_get_matches_from(spelled) {
        Err(again) if again.kind() == error.kind() && error.kind() != ErrorKind::InvalidUtf8 => {
            Safe::Said(again)
        }
        // Spelled out they are fine, or wrong in another way.
        _ => {
            let text = error.render().to_string();
            let line = |line: &str| screen::shorten(&human::escape(line), LINE_COLUMNS_MAX) + "\n";
            Safe::Plain(text.lines().map(line).collect())
        }
    }
}

fn spell(arg: &OsStr) -> String {
    screen::shorten(&human::escape(&arg.to_string_lossy()), ARGUMENT_COLUMNS_MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[track_caller]
    fn said(args: &[&[u8]]) -> String {
        let args: Vec<OsString> =
            [&b"qpc"[..]].iter().chain(args).map(|arg| OsString::from_vec(arg.to_vec())).collect();
        let error = Cli::command().try_get_matches_from(&args).expect_err("wrong arguments");
        match safe(&error, args.into_iter()) {
            Safe::AsItIs => error.render().to_string(),
            Safe::Said(error) => error.render().ansi().to_string().replace("\u{1b}[", "<"),
            Safe::Plain(text) => text,
        }
    }

    #[test]
    fn an_argument_cannot_write_to_the_terminal() {
        for hostile in ["\u{1b}[2J", "a\r\nqpc: all is well", "\u{202e}txt", "\u{7}"] {
            for args in [
                &[hostile.as_bytes()][..],
                &[b"status", hostile.as_bytes()],
                &[b"ping", b"a", b"--count", hostile.as_bytes()],
            ] {
                let text = said(args);
                assert!(!text.contains(hostile), "{text:?}");
                assert!(text.contains(&human::escape(hostile)), "{text:?}");
            }
        }
        assert!(said(&[b"ping", b"\xff"]).contains("invalid UTF-8"), "{}", said(&[b"ping", b"\xff"]));
    }

    #[test]
    fn a_huge_argument_is_not_repeated() {
        let huge = vec![b'x'; 100_000];
        for args in [&[&huge[..]][..], &[b"ping", b"a", b"--count", &huge]] {
            let text = said(args);
            assert!(text.len() < 1000 && text.contains("xxx…"), "{text}");
        }
    }

    #[test]
    fn a_slip_is_answered_with_what_may_have_been_meant() {
        assert!(said(&[b"stauts"]).contains("'status'"), "{}", said(&[b"stauts"]));
        assert!(said(&[b"peers", b"--jsno"]).contains("'--json'"));
        assert!(said(&[b"contact", b"lst"]).contains("'list'"));
    }
}

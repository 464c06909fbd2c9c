//! Passphrases: from a file for scripts, else asked on the terminal, never from the command line,
//! where every user of the machine and the shell's history could see them.

use std::{
    fs::File,
    io::{IsTerminal, Read, stdin},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::Args;
use quicprochat_mesh::{
    api::ApiError,
    crypto::{Passphrase, WorkFactor, age::PASSPHRASE_BYTES_MAX},
};
use zeroize::Zeroizing;

use crate::{fail::Failure, out::note};

/// Fewest characters of a passphrase that is new: whoever has the file may guess for years.
const CHARS_MIN: usize = 8;

/// Times that two entries of a new passphrase may differ, or that it is too short.
const TRIES: usize = 3;

/// The flag that names a file with a passphrase.
#[derive(Debug, Args)]
pub struct PassphraseFile {
    /// Take the passphrase from the first line of this file (- reads stdin) instead of asking for it
    #[arg(long, value_name = "F", env = "QPC_PASSPHRASE_FILE", hide_env_values = true)]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseFile {
    /// The file, where one was named.
    pub fn path(&self) -> Option<&Path> {
        self.passphrase_file.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}

/// A passphrase that exists already. `of` says whose, for the question and for what is wrong.
pub fn known(file: Option<&Path>, of: &str) -> Result<Passphrase, Failure> {
    match file {
        Some(path) => read(path),
        None => ask(&format!("Passphrase of {of}: "), of),
    }
}

/// A passphrase for something that gets one: asked for twice.
pub fn new(file: Option<&Path>, of: &str) -> Result<Passphrase, Failure> {
    if let Some(path) = file {
        let passphrase = read(path)?;
        return match too_short(&passphrase) {
            Some(why) => Err(ApiError::usage(format!("{}: {why}", path.display())).into()),
            None => Ok(passphrase),
        };
    }
    for _ in 0..TRIES {
        let first = ask(&format!("New passphrase of {of}: "), of)?;
        if let Some(why) = too_short(&first) {
            note(why);
            continue;
        }
        if ask("The same again: ", of)?.is_same(&first) {
            return Ok(first);
        }
        note("these two differ");
    }
    Err(ApiError::usage("no new passphrase was given").into())
}

fn too_short(passphrase: &Passphrase) -> Option<String> {
    (passphrase.chars() < CHARS_MIN).then(|| {
        format!(
            "a new passphrase needs {CHARS_MIN} characters or more; a few words that nobody guesses are best"
        )
    })
}

fn ask(question: &str, of: &str) -> Result<Passphrase, Failure> {
    // Without one to ask on, a script would hang on whatever terminal it was started from.
    if !stdin().is_terminal() {
        let text = format!(
            "the passphrase of {of} is needed and there is no terminal to ask for it: give --passphrase-file F or \
             set QPC_PASSPHRASE_FILE"
        );
        return Err(ApiError::failed(text).into());
    }
    let text = rpassword::prompt_password(question)
        .map_err(|e| ApiError::failed(format!("cannot ask for the passphrase of {of}: {e}")))?;
    Ok(Passphrase::new(Zeroizing::new(text)).map_err(ApiError::usage)?)
}

fn read(path: &Path) -> Result<Passphrase, Failure> {
    let shown = path.display();
    if path == Path::new("-") {
        return first_line(stdin().lock(), "stdin");
    }
    let failed = |e| ApiError::failed(format!("cannot read the passphrase file {shown}: {e}"));
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(
            ApiError::failed(format!("the passphrase file {shown} is a directory: name a file")).into()
        );
    }
    if found.is_file() && found.mode() & 0o077 != 0 {
        note(format!("warning: others may read the passphrase file {shown}; run `chmod 600 {shown}`"));
    }
    first_line(file, &shown.to_string())
}

/// The first line of `reader`, of which no more than one may have is read.
fn first_line(reader: impl Read, place: &str) -> Result<Passphrase, Failure> {
    const READ_MAX: usize = PASSPHRASE_BYTES_MAX + 2;
    let wrong = |why: &str| ApiError::usage(format!("the first line of {place} is no passphrase: it {why}"));
    // Room from the start, since a vector that grows leaves copies of its content behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_MAX));
    reader
        .take(READ_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| ApiError::failed(format!("cannot read the passphrase from {place}: {e}")))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| wrong("is not UTF-8 text"))?;
    let text = Zeroizing::new(text.to_owned());
    Ok(Passphrase::new(text).map_err(|error| match error {
        quicprochat_mesh::crypto::AgeError::Passphrase(why) => wrong(why),
        other => ApiError::usage(other),
    })?)
}

/// Reads the argument of `--work-factor`.
pub fn work_factor(text: &str) -> Result<WorkFactor, String> {
    let number = text.parse().map_err(|_| "not a number from 15 to 18".to_owned())?;
    WorkFactor::new(number).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8]) -> Result<Passphrase, String> {
        first_line(bytes, "the file").map_err(|failure| failure.lines().join(" "))
    }

    #[test]
    fn a_passphrase_is_the_first_line_without_its_end() {
        let same = |bytes: &[u8], text: &str| {
            let wanted = Passphrase::new(Zeroizing::new(text.to_owned())).unwrap();
            line(bytes).unwrap().is_same(&wanted)
        };
        assert!(same(b"two words\nand more\n", "two words") && same(b"two words\r\n", "two words"));
        assert!(same(b" two words ", " two words ") && same("\u{fc}ber\n".as_bytes(), "\u{fc}ber"));
        assert!(same(&[b'x'; PASSPHRASE_BYTES_MAX], &"x".repeat(PASSPHRASE_BYTES_MAX)));
    }

    #[test]
    fn what_is_no_passphrase_is_refused_and_not_repeated() {
        let long = vec![b'x'; 1 << 20];
        for wrong in [&b""[..], b"\n", b"\nsecret", b"sec\xffret", &long] {
            let text = line(wrong).unwrap_err();
            assert!(text.contains("the file") && !text.contains("sec") && text.len() < 120, "{text}");
        }
    }

    #[test]
    fn work_factors_are_bounded() {
        assert_eq!(work_factor("15").unwrap().log_n(), 15);
        for wrong in ["", "14", "19", "256", "x", "-1"] {
            assert!(work_factor(wrong).is_err(), "{wrong}");
        }
    }
}

//! The file that lines of former sessions are found in again.
//!
//! Mode 0600, one line each, the newest last. What people write to each other is not in it unless
//! somebody asks for that: neither messages nor lines that are no command, which may be a message with
//! a slip in front of it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use quicprochat_mesh::{SlashCommand, api::ApiError};

use super::Keep;

/// Name in the data directory.
const FILE_NAME: &str = "repl-history";

/// Lines that are kept. The file is cut back to them when a session begins.
const LINES_MAX: usize = 1000;

/// Bytes of a line that is kept; a longer one was pasted.
const LINE_BYTES_MAX: usize = 4096;

/// The file, and what goes into it.
pub struct History {
    path: PathBuf,
    keep: Keep,
    last: String,
}

impl History {
    /// Lines of former sessions, oldest first, and the file to add to.
    ///
    /// # Errors
    /// The file cannot be read or written: the session goes on without it.
    pub fn open(data_dir: &Path, keep: Keep) -> (Self, Result<Vec<String>, ApiError>) {
        let path = data_dir.join(FILE_NAME);
        let mut history = Self { path, keep, last: String::new() };
        let lines = match keep {
            Keep::None => Ok(Vec::new()),
            _ => history.load(),
        };
        (history, lines)
    }

    fn load(&mut self) -> Result<Vec<String>, ApiError> {
        let failed = |e: io::Error| ApiError::failed(format!("{}: {e}", self.path.display()));
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let mut lines = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            lines.extend(String::from_utf8(line.map_err(failed)?).ok().filter(|line| is_kept(line)));
        }
        let too_many = lines.len().saturating_sub(LINES_MAX);
        if too_many > 0 {
            lines.drain(..too_many);
            let mut text = lines.join("\n");
            text.push('\n');
            quicprochat_mesh::storage::data_dir::write_atomic(&self.path, text.as_bytes())
                .map_err(ApiError::failed)?;
        }
        self.last = lines.last().cloned().unwrap_or_default();
        Ok(lines)
    }

    /// Adds a line and what it was read as, where it is one to be kept.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, line: &str, command: Option<&SlashCommand>) -> Result<(), ApiError> {
        let is_wanted = match self.keep {
            Keep::None => false,
            Keep::All => true,
            Keep::Commands => command.is_some_and(|command| !command.has_message_text()),
        };
        let line = line.trim();
        if !is_wanted || !is_kept(line) || line == self.last {
            return Ok(());
        }
        let append = || {
            let mut file = File::options().create(true).append(true).mode(0o600).open(&self.path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        append().map_err(|e| ApiError::failed(format!("{}: {e}", self.path.display())))?;
        self.last = line.to_owned();
        Ok(())
    }
}

/// Whether a line may stand in the file: a control character would come out of it into the terminal.
fn is_kept(line: &str) -> bool {
    !line.is_empty() && line.len() <= LINE_BYTES_MAX && !line.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(history: &mut History, line: &str) {
        history.add(line, SlashCommand::parse(line).ok().as_ref()).unwrap();
    }

    #[test]
    fn what_people_write_to_each_other_stays_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut history, lines) = History::open(dir.path(), Keep::Commands);
        assert_eq!(lines.unwrap(), [""; 0]);
        let all = [
            "/inbox",
            "/inbox",
            "/msg anna secret",
            "/mgs anna secret",
            "secret",
            "/broadcast secret",
            "/to anna",
        ];
        all.iter().for_each(|line| add(&mut history, line));
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::read_to_string(&path).unwrap(), "/inbox\n/to anna\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Whatever somebody else made of it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"/inbox\n\x1b[2J\n\xff\n\n/to anna\n").unwrap();
        let (mut history, lines) = History::open(dir.path(), Keep::All);
        assert_eq!(lines.unwrap(), ["/inbox", "/to anna"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        add(&mut history, "/msg anna secret");
        assert_eq!(
            History::open(dir.path(), Keep::All).1.unwrap(),
            ["/inbox", "/to anna", "/msg anna secret"]
        );
        assert_eq!(History::open(dir.path(), Keep::None).1.unwrap(), [""; 0]);
    }

    #[test]
    fn it_is_cut_back_to_the_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let text: String = (0..LINES_MAX + 5).map(|n| format!("/help {n}\n")).collect();
        fs::write(&path, text).unwrap();
        let lines = History::open(dir.path(), Keep::Commands).1.unwrap();
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "/help 5"));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), LINES_MAX);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

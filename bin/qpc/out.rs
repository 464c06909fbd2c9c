//! Everything that goes to stdout.

use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use quicprochat_mesh::api::ApiError;
use serde::Serialize;

use crate::fail::Failure;

/// Prints objects or text, never both. Each line is flushed, so that a reader at the other end of a
/// pipe has it at once.
#[derive(Debug, Clone)]
pub struct Out {
    /// One JSON object a line instead of text for people.
    pub json: bool,
}

impl Out {
    /// Prints `object` as one line with `--json`, else the text that `human` makes of it.
    pub fn show<T: Serialize>(&self, object: &T, human: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(object)
                .map_err(|e| ApiError::failed(format!("cannot write the answer as JSON: {e}")))?;
            self.line(io::stdout().lock(), &line)
        } else {
            self.write(human(object).trim_end_matches('\n'))
        }
    }

    /// Prints a list: one object a line with `--json`, else the text that `human` makes of all.
    pub fn list<T: Serialize>(
        &self,
        objects: &[T],
        human: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return objects.iter().try_for_each(|object| self.show(object, |_| String::new()));
        }
        self.write(human(objects).trim_end_matches('\n'))
    }

    /// Text for people; its colours go where stdout is no terminal, or nobody wants them.
    fn write(&self, text: &str) -> Result<(), Failure> {
        self.line(anstream::AutoStream::auto(io::stdout().lock()), text)
    }

    fn line(&self, mut stdout: impl Write, text: &str) -> Result<(), Failure> {
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::of_stdout)
    }
}

/// Tells people something beside the output.
pub fn note(text: impl std::fmt::Display) {
    let text = crate::human::brief(&crate::human::escape(&text.to_string()));
    // Nobody to tell where stderr is closed.
    let _ = writeln!(io::stderr().lock(), "qpc: {text}");
}

/// True where this program was started with this stream closed. Then its runtime has put the null
/// device there, open for reading and writing, which who redirects a stream on purpose does not do.
pub fn is_closed(stream: impl AsFd) -> bool {
    let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let file = stream.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let device = file.and_then(|file| file.metadata()).map(|file| file.rdev());
    let is_null = null.is_ok_and(|null| device.is_ok_and(|device| device == null));
    is_null && rustix::fs::fcntl_getfl(&stream).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR))
}

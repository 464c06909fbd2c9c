//! Content to send: an argument, a file, or stdin, never more than a message may have.

use std::{
    fs::File,
    io::{Read, stdin},
    path::PathBuf,
};

use clap::Args;
use quicprochat_mesh::api::ApiError;

use crate::{fail::Failure, human, out::is_closed};

/// Where the content comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// The text; - reads stdin
    #[arg(value_name = "TEXT")]
    text: Option<String>,

    /// Send this file under its name
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
}

/// Content and, for files, its name without directories.
#[derive(Debug)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub name: Option<String>,
}

impl Source {
    /// Reads at most `limit` bytes and one more to know that there are more.
    pub fn read(self, limit: u64) -> Result<Content, Failure> {
        let too_large = |what: &str| {
            Failure::from(ApiError::failed(format!(
                "{what} is larger than the {} ({limit} bytes) that one message may have",
                human::bytes(limit)
            )))
        };
        match (self.text, self.file) {
            (_, Some(path)) => {
                let shown = path.display().to_string();
                let failed = |e| ApiError::failed(format!("cannot read {shown}: {e}"));
                let file = File::open(&path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                if metadata.is_dir() {
                    return Err(ApiError::failed(format!("{shown} is a directory: name a file")).into());
                }
                if metadata.len() > limit {
                    return Err(too_large(&shown));
                }
                let bytes = read_limited(file, limit).map_err(failed)?.ok_or_else(|| too_large(&shown))?;
                Ok(Content { bytes, name: path.file_name().map(|n| n.to_string_lossy().into_owned()) })
            }
            (Some(text), None) if text != "-" => match u64::try_from(text.len()) {
                Ok(len) if len <= limit => Ok(Content { bytes: text.into_bytes(), name: None }),
                _ => Err(too_large("the text")),
            },
            _ => {
                if is_closed(stdin()) {
                    return Err(ApiError::usage("stdin is closed: there is nothing to send").into());
                }
                let failed = |e| ApiError::failed(format!("cannot read stdin: {e}"));
                let bytes = read_limited(stdin().lock(), limit)
                    .map_err(failed)?
                    .ok_or_else(|| too_large("what comes on stdin"))?;
                Ok(Content { bytes, name: None })
            }
        }
    }
}

/// All of `reader`, or none where it holds more than `limit` bytes.
fn read_limited(reader: impl Read, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(u64::try_from(bytes.len()).is_ok_and(|len| len <= limit).then_some(bytes))
}

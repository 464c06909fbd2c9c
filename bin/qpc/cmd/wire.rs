//! `qpc wire`: a link frame in readable form.

use std::io::{Read, stdin};

use quicprochat_mesh::{api::ApiError, wire::limits::FRAME_BYTES_MAX};
use serde::Serialize;

use crate::{cx::Context, fail::Failure, human, seam::explain_frame};

const EXAMPLES: &str = "\
Examples:
  qpc wire 820300
  qpc wire - < frame.hex";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The frame; spaces are ignored; - reads stdin
    #[arg(value_name = "HEX")]
    hex: String,
}

#[derive(Serialize)]
struct Explained {
    bytes: usize,
    explanation: String,
}

pub fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let text = if args.hex == "-" { read_stdin()? } else { args.hex };
    let bytes = unhex(&text)?;
    let explained = Explained { bytes: bytes.len(), explanation: explain_frame(&bytes)? };
    cx.out.show(&explained, |e| human::escape_lines(&e.explanation, ""))
}

fn read_stdin() -> Result<String, Failure> {
    // Twice the largest frame in digits leaves room for spaces and line breaks.
    let limit = u64::try_from(FRAME_BYTES_MAX.saturating_mul(4)).unwrap_or(u64::MAX);
    let mut text = String::new();
    stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|e| ApiError::failed(format!("cannot read stdin: {e}")))?;
    Ok(text)
}

fn unhex(text: &str) -> Result<Vec<u8>, ApiError> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return Err(ApiError::usage(format!("{} hex digits are no whole bytes", digits.len())));
    }
    if digits.len() / 2 > FRAME_BYTES_MAX {
        return Err(ApiError::usage(format!("a frame has at most {FRAME_BYTES_MAX} bytes")));
    }
    digits
        .chunks_exact(2)
        .zip(0usize..)
        .map(|(pair, at)| {
            pair.iter()
                .try_fold(0u8, |byte, c| {
                    c.to_digit(16).and_then(|d| u8::try_from(d).ok()).map(|d| (byte << 4) | d)
                })
                .ok_or_else(|| ApiError::usage(format!("byte {at} is not in hex digits")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_with_spaces_and_refused_with_a_place() {
        assert_eq!(unhex("00 fF\n10").unwrap(), [0, 255, 16]);
        assert!(unhex("0").unwrap_err().message.contains("no whole bytes"));
        assert!(unhex("00zz").unwrap_err().message.contains("byte 1"));
        assert!(unhex(&"00".repeat(FRAME_BYTES_MAX + 1)).is_err());
    }
}

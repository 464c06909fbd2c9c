//! An age file as text: base64 in lines of 64 between two marks, as PEM has it (RFC 7468, strict).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::AgeError;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
const COLUMNS: usize = 64;

/// True where `bytes` begin as the armour does, white space in front of it left out.
pub(super) fn is_armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(BEGIN.as_bytes())
}

/// `bytes` in armour.
pub(super) fn write(bytes: &[u8]) -> String {
    let mut out = format!("{BEGIN}\n");
    // A line's worth of bytes.
    for line in bytes.chunks(COLUMNS / 4 * 3) {
        STANDARD.encode_string(line, &mut out);
        out.push('\n');
    }
    out.push_str(END);
    out.push('\n');
    out
}

/// What is in the armour.
///
/// # Errors
/// [`AgeError::Armor`].
pub(super) fn read(bytes: &[u8]) -> Result<Vec<u8>, AgeError> {
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| AgeError::Armor("it is not text"))?;
    let body = text.strip_prefix(BEGIN).and_then(|body| body.strip_suffix(END));
    let body = body.ok_or(AgeError::Armor("its last line is missing"))?;
    let body = body.strip_prefix("\r\n").or_else(|| body.strip_prefix('\n'));
    let body = body.ok_or(AgeError::Armor("its first line has text behind it"))?;
    let mut encoded = String::with_capacity(body.len());
    let mut has_ended = false;
    for line in body.lines() {
        if has_ended || line.is_empty() || line.len() > COLUMNS {
            return Err(AgeError::Armor("its lines are not 64 characters and a shorter last one"));
        }
        has_ended = line.len() < COLUMNS;
        encoded.push_str(line);
    }
    if !body.ends_with('\n') {
        return Err(AgeError::Armor("its last line is not on a line of its own"));
    }
    STANDARD.decode(&encoded).map_err(|_| AgeError::Armor("it is no base64"))
}

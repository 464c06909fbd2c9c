//! Deterministic CBOR (RFC 8949 §4.2.1): the strict pre-check, a reader by position for hot
//! fields, a writer, and typed coding of everything else through ciborium.
//!
//! ciborium accepts longer integers than needed, indefinite lengths, floats, unsorted keys and
//! trailing bytes. So nothing reaches it that [`check`] has not walked, and a typed message must
//! encode back to the very bytes it came from.

use bytes::BufMut;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{CanonicalRule, DecodeError},
    limits::CBOR_DEPTH_MAX,
};

/// CBOR major types by number (RFC 8949 §3.1).
pub mod major {
    /// Unsigned integer.
    pub const UINT: u8 = 0;
    /// Negative integer.
    pub const NINT: u8 = 1;
    /// Byte string.
    pub const BYTES: u8 = 2;
    /// Text string.
    pub const TEXT: u8 = 3;
    /// Array.
    pub const ARRAY: u8 = 4;
    /// Map.
    pub const MAP: u8 = 5;
    /// Tag.
    pub const TAG: u8 = 6;
    /// Simple value or float.
    pub const SIMPLE: u8 = 7;
}

/// Reads items by position and refuses every spelling but the deterministic one.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next item.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// True when every byte was read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Refuses bytes that follow the message.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len().checked_sub(self.at) {
            Some(0) | None => Ok(()),
            Some(count) => Err(DecodeError::Trailing { offset: self.at, count }),
        }
    }

    fn take(&mut self, count: usize, field: &'static str, head: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(count);
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        match slice {
            Some(slice) => {
                self.at = self.at.saturating_add(count);
                Ok(slice)
            }
            None => Err(DecodeError::Truncated { field, offset: head }),
        }
    }

    /// Reads one head: its major type and its argument, in the shortest form only.
    fn head(&mut self, field: &'static str) -> Result<(u8, u64), DecodeError> {
        let offset = self.at;
        let first = *self.take(1, field, offset)?.first().unwrap_or(&0);
        let (kind, info) = (first >> 5, first & 0x1f);
        let (extra, least) = match info {
            0..=23 => return Ok((kind, u64::from(info))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            31 => {
                return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::DefiniteLength });
            }
            _ => {
                return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::ForbiddenType });
            }
        };
        if kind == major::SIMPLE {
            return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::ForbiddenType });
        }
        let value =
            self.take(extra, field, offset)?.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        if value < least {
            return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::ShortestLength });
        }
        Ok((kind, value))
    }

    fn expect(&mut self, want: u8, expected: &'static str, field: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let (got, value) = self.head(field)?;
        if got == want { Ok(value) } else { Err(DecodeError::WrongType { field, offset, expected, got }) }
    }

    /// Major type of the next item, without reading it.
    pub fn peek_major(&self) -> Option<u8> {
        self.bytes.get(self.at).map(|b| b >> 5)
    }

    /// Reads an unsigned integer of at most `max`.
    pub fn uint(&mut self, max: u64, field: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let got = self.expect(major::UINT, "an unsigned integer", field)?;
        if got > max {
            return Err(DecodeError::OutOfRange { field, offset, got });
        }
        Ok(got)
    }

    /// Reads an unsigned integer of at most 8 bits.
    pub fn u8(&mut self, max: u8, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.uint(u64::from(max), field)? as u8)
    }

    /// Reads an unsigned integer of at most 16 bits.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(self.uint(u64::from(u16::MAX), field)? as u16)
    }

    /// Reads an unsigned integer of at most 32 bits.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(self.uint(u64::from(u32::MAX), field)? as u32)
    }

    /// Reads an array's head; its length lies in `least..=most`.
    pub fn array(&mut self, least: u64, most: u64, field: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let got = self.expect(major::ARRAY, "an array", field)?;
        if got < least || got > most {
            return Err(DecodeError::OutOfRange { field, offset, got });
        }
        Ok(got)
    }

    /// Reads a map's head of at most `most` entries.
    pub fn map(&mut self, most: u64, field: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let got = self.expect(major::MAP, "a map", field)?;
        if got > most {
            return Err(DecodeError::OutOfRange { field, offset, got });
        }
        Ok(got)
    }

    /// Reads a byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let offset = self.at;
        let got = self.expect(major::BYTES, "a byte string", field)?;
        if got > max as u64 {
            return Err(DecodeError::TooLarge { field, got, limit: max as u64 });
        }
        self.take(got as usize, field, offset)
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let offset = self.at;
        let got = self.bytes(N, field)?;
        got.try_into().map_err(|_| DecodeError::OutOfRange { field, offset, got: got.len() as u64 })
    }

    /// Reads a text of at most `max` bytes.
    pub fn text(&mut self, max: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        let offset = self.at;
        let got = self.expect(major::TEXT, "a text", field)?;
        if got > max as u64 {
            return Err(DecodeError::TooLarge { field, got, limit: max as u64 });
        }
        std::str::from_utf8(self.take(got as usize, field, offset)?)
            .map_err(|_| DecodeError::NotCanonical { offset, rule: CanonicalRule::Utf8 })
    }

    /// Walks one item of any shape and checks every rule on the way.
    pub fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        self.skip_at(field, 0)
    }

    fn skip_at(&mut self, field: &'static str, depth: usize) -> Result<(), DecodeError> {
        let offset = self.at;
        let (kind, value) = self.head(field)?;
        let deeper = || {
            if depth >= CBOR_DEPTH_MAX {
                Err(DecodeError::TooDeep { offset, limit: CBOR_DEPTH_MAX })
            } else {
                Ok(depth.saturating_add(1))
            }
        };
        match kind {
            major::UINT | major::NINT => Ok(()),
            major::BYTES | major::TEXT => {
                let len = usize::try_from(value).map_err(|_| DecodeError::Truncated { field, offset })?;
                let slice = self.take(len, field, offset)?;
                if kind == major::TEXT && std::str::from_utf8(slice).is_err() {
                    return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::Utf8 });
                }
                Ok(())
            }
            major::ARRAY => {
                let depth = deeper()?;
                // Each element takes a byte at least, so a lying length ends the loop early.
                for _ in 0..value {
                    self.skip_at(field, depth)?;
                }
                Ok(())
            }
            major::MAP => {
                let depth = deeper()?;
                let mut last = None;
                for _ in 0..value {
                    let key_offset = self.at;
                    let key = self.expect(major::UINT, "an integer key", field)?;
                    if last.is_some_and(|last| key <= last) {
                        return Err(DecodeError::NotCanonical {
                            offset: key_offset,
                            rule: CanonicalRule::SortedKeys,
                        });
                    }
                    last = Some(key);
                    self.skip_at(field, depth)?;
                }
                Ok(())
            }
            major::SIMPLE if (20..=22).contains(&value) => Ok(()),
            _ => Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::ForbiddenType }),
        }
    }
}

/// The strict pre-check: one item, deterministic, no deeper than [`CBOR_DEPTH_MAX`], nothing after
/// it. `bytes` must already be under its kind's size cap.
pub fn check(bytes: &[u8], message: &'static str) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.skip(message)?;
    reader.finish()
}

/// Decodes a typed message of at most `max` bytes from its one deterministic spelling.
pub fn decode<T: DeserializeOwned + Serialize>(
    bytes: &[u8],
    max: usize,
    message: &'static str,
) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { field: message, got: bytes.len() as u64, limit: max as u64 });
    }
    check(bytes, message)?;
    let mut rest = bytes;
    let value: T = ciborium::from_reader(&mut rest)
        .map_err(|e| DecodeError::Shape { message, detail: e.to_string() })?;
    // A typed value has one spelling, so this also refuses surplus array elements.
    if encode(&value) != bytes {
        return Err(DecodeError::NotCanonical { offset: 0, rule: CanonicalRule::Respelled });
    }
    Ok(value)
}

/// Encodes a typed message. Wire types are tuples and newtypes of integers and byte strings, which
/// ciborium spells deterministically.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail, and wire types have no map or float that could.
    if ciborium::into_writer(value, &mut out).is_err() {
        out.clear();
    }
    out
}

/// Appends a head with `value` in the shortest form.
pub fn put_head(out: &mut impl BufMut, kind: u8, value: u64) {
    let kind = kind << 5;
    match value {
        0..=23 => out.put_u8(kind | value as u8),
        24..=0xff => out.put_slice(&[kind | 24, value as u8]),
        0x100..=0xffff => {
            out.put_u8(kind | 25);
            out.put_u16(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(kind | 26);
            out.put_u32(value as u32);
        }
        _ => {
            out.put_u8(kind | 27);
            out.put_u64(value);
        }
    }
}

/// Appends an unsigned integer.
pub fn put_uint(out: &mut impl BufMut, value: u64) {
    put_head(out, major::UINT, value);
}

/// Appends a byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, major::BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an array's head.
pub fn put_array(out: &mut impl BufMut, len: u64) {
    put_head(out, major::ARRAY, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejects(bytes: &[u8], rule: CanonicalRule) {
        match check(bytes, "item") {
            Err(DecodeError::NotCanonical { rule: got, .. }) => assert_eq!(got, rule, "{bytes:02x?}"),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        rejects(&[0x18, 0x17], CanonicalRule::ShortestLength);
        rejects(&[0x19, 0x00, 0xff], CanonicalRule::ShortestLength);
        rejects(&[0x1a, 0, 0, 0xff, 0xff], CanonicalRule::ShortestLength);
        rejects(&[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], CanonicalRule::ShortestLength);
        rejects(&[0x58, 0x01, 0x00], CanonicalRule::ShortestLength);
        rejects(&[0x9f, 0xff], CanonicalRule::DefiniteLength);
        rejects(&[0x5f, 0xff], CanonicalRule::DefiniteLength);
        rejects(&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], CanonicalRule::ForbiddenType);
        rejects(&[0xf9, 0x7e, 0x00], CanonicalRule::ForbiddenType);
        rejects(&[0xf7], CanonicalRule::ForbiddenType);
        rejects(&[0xc0, 0x00], CanonicalRule::ForbiddenType);
        rejects(&[0xa2, 0x02, 0x00, 0x01, 0x00], CanonicalRule::SortedKeys);
        rejects(&[0xa2, 0x01, 0x00, 0x01, 0x00], CanonicalRule::SortedKeys);
        rejects(&[0x61, 0xff], CanonicalRule::Utf8);
    }

    #[test]
    fn bombs_end_early_without_memory() {
        let deep = vec![0x81u8; 1_000_000];
        assert!(matches!(check(&deep, "item"), Err(DecodeError::TooDeep { .. })));
        for len in [1u64 << 31, 1 << 60, u64::MAX] {
            for kind in [major::BYTES, major::TEXT, major::ARRAY, major::MAP] {
                let mut bytes = Vec::new();
                put_head(&mut bytes, kind, len);
                assert!(matches!(check(&bytes, "item"), Err(DecodeError::Truncated { .. })));
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(check(&[0x00, 0x00], "item"), Err(DecodeError::Trailing { offset: 1, count: 1 }));
    }

    #[test]
    fn surplus_elements_of_a_typed_message_are_refused() {
        let bytes = encode(&(1u8, 2u8, 3u8));
        assert!(decode::<(u8, u8)>(&bytes, 64, "pair").is_err());
        assert_eq!(decode::<(u8, u8, u8)>(&bytes, 64, "triple"), Ok((1, 2, 3)));
    }
}

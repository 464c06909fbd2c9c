//! Frames on a byte stream: a 16-bit big-endian length, then the frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TransportError;
use crate::wire::{FrameParts, limits::FRAME_BYTES_MAX};

/// Bytes of the length prefix.
const PREFIX_BYTES: usize = 2;

/// Frames handed on at once: enough to share a wake-up, little enough to stay in the cache.
pub(super) const FRAMES_AT_ONCE: usize = 64;

/// Free room to read into: a few full frames.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Bytes read and not yet framed.
#[derive(Debug, Default)]
pub struct FrameBuffer(BytesMut);

impl FrameBuffer {
    /// Room for the next read.
    pub fn room(&mut self) -> &mut BytesMut {
        // Frames that were split off keep their part of the buffer alive; what is left is small.
        self.0.reserve(READ_BYTES);
        &mut self.0
    }

    /// Moves whole frames into `out`, at most [`FRAMES_AT_ONCE`] altogether. They share the
    /// buffer's memory.
    ///
    /// # Errors
    /// A length no frame has.
    pub fn drain_into(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransportError> {
        while out.len() < FRAMES_AT_ONCE {
            let Some((prefix, rest)) = self.0.split_first_chunk::<PREFIX_BYTES>() else { return Ok(()) };
            let len = usize::from(u16::from_be_bytes(*prefix));
            if len == 0 {
                return Err(TransportError::EmptyFrame);
            }
            if len > FRAME_BYTES_MAX {
                return Err(TransportError::FrameTooLarge { got: len, limit: FRAME_BYTES_MAX });
            }
            if rest.len() < len {
                return Ok(());
            }
            self.0.advance(PREFIX_BYTES);
            out.push(self.0.split_to(len).freeze());
        }
        Ok(())
    }
}

/// Appends a frame with its prefix.
///
/// # Errors
/// A frame that is larger than links carry.
pub fn put_frame(out: &mut BytesMut, frame: &FrameParts) -> Result<(), TransportError> {
    let len = frame.len();
    if len > FRAME_BYTES_MAX {
        return Err(TransportError::FrameTooLarge { got: len, limit: FRAME_BYTES_MAX });
    }
    if len == 0 {
        return Err(TransportError::EmptyFrame);
    }
    out.reserve(len.saturating_add(PREFIX_BYTES));
    // At most FRAME_BYTES_MAX, which is below 2^16.
    out.put_u16(len as u16);
    out.put_slice(frame.head());
    out.put_slice(frame.tail());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> BytesMut {
        let mut out = BytesMut::new();
        for frame in frames {
            put_frame(&mut out, &FrameParts::whole(Bytes::copy_from_slice(frame))).unwrap();
        }
        out
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let bytes = framed(&[b"a", &[7; FRAME_BYTES_MAX], b"bc"]);
        for step in [1, 2, 3, 1000, bytes.len()] {
            let mut buffer = FrameBuffer::default();
            let mut out = vec![];
            for part in bytes.chunks(step) {
                buffer.room().extend_from_slice(part);
                buffer.drain_into(&mut out).unwrap();
            }
            assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [1, FRAME_BYTES_MAX, 2]);
        }
    }

    #[test]
    fn lengths_no_frame_has_are_refused() {
        let mut buffer = FrameBuffer::default();
        buffer.room().extend_from_slice(&[0, 0]);
        assert!(matches!(buffer.drain_into(&mut vec![]), Err(TransportError::EmptyFrame)));
        let mut buffer = FrameBuffer::default();
        buffer.room().extend_from_slice(&[0x40, 0x01]);
        assert!(matches!(buffer.drain_into(&mut vec![]), Err(TransportError::FrameTooLarge { .. })));
        let too_large = FrameParts::whole(Bytes::from(vec![0; FRAME_BYTES_MAX + 1]));
        assert!(put_frame(&mut BytesMut::new(), &too_large).is_err());
    }
}

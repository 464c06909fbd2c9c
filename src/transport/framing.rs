//! Frames in a byte stream: a big-endian `u16` length in front of each, and the queues and buffers
//! on both ends of one.
//!
//! A length of 0 is refused. [`CLOSE_MARK`] in a length's place opens a close record on media that
//! have no close of their own (TCP): code `u32`, length of the reason `u8`, reason in UTF-8.

use std::{cell::RefCell, collections::VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wire::{FrameParts, TrafficClass, limits::FRAME_BYTES_MAX};

#[cfg(feature = "tcp")]
use super::error::cut_reason;
use super::{BACKLOG_BYTES_MAX, CloseCode, TransportError};

/// Bytes of a length.
const PREFIX_BYTES: usize = 2;

/// Stands where a length would; no frame is that long.
const CLOSE_MARK: u16 = u16::MAX;

/// Bytes in front of a close record's reason: mark, code, length.
const CLOSE_HEAD_BYTES: usize = PREFIX_BYTES + 4 + 1;

/// What one write carries at most: four of the largest frames, and the record layers below have no
/// use for more at once.
pub(super) const COALESCE_BYTES: usize = 64 * 1024;

/// Most bytes taken from a medium in one read.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What stands next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Frame(Bytes),
    Close { code: CloseCode, reason: Bytes },
}

/// Cuts a byte stream into frames without copying them again.
#[derive(Debug)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
    close_records: bool,
}

impl FrameReader {
    /// For a stream that has close records, or a medium with a close of its own.
    pub(crate) fn new(close_records: bool) -> Self {
        Self { buffer: BytesMut::new(), close_records }
    }

    /// Adds what arrived. Memory is taken for what is there, not for what may come, so that idle
    /// links hold none and a frame that is kept pins no more than its own batch.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let room = self.buffer.capacity().saturating_sub(self.buffer.len());
        if room < bytes.len() {
            let filled = self.buffer.len().saturating_add(bytes.len());
            let mut fresh = BytesMut::with_capacity(filled.max(self.first_frame_bytes()));
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame or close record.
    ///
    /// # Errors
    /// The peer's framing fault; the stream is beyond repair then.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, TransportError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        };
        let length = u16::from_be_bytes(*prefix);
        match usize::from(length) {
            0 => Err(TransportError::EmptyFrame { from_peer: true }),
            bytes if bytes <= FRAME_BYTES_MAX => Ok(self.take(PREFIX_BYTES, bytes).map(Item::Frame)),
            _ if length == CLOSE_MARK && self.close_records => Ok(self.take_close()),
            bytes => Err(TransportError::peer_frame_too_large(bytes)),
        }
    }

    /// True in the middle of a frame.
    pub(super) fn is_torn(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn take(&mut self, head_bytes: usize, bytes: usize) -> Option<Bytes> {
        (self.buffer.len() >= head_bytes.saturating_add(bytes)).then(|| {
            self.buffer.advance(head_bytes);
            self.buffer.split_to(bytes).freeze()
        })
    }

    fn take_close(&mut self) -> Option<Item> {
        let [_, _, c0, c1, c2, c3, length] = *self.buffer.first_chunk::<CLOSE_HEAD_BYTES>()?;
        let reason = self.take(CLOSE_HEAD_BYTES, usize::from(length))?;
        Some(Item::Close { code: CloseCode(u32::from_be_bytes([c0, c1, c2, c3])), reason })
    }

    fn first_frame_bytes(&self) -> usize {
        let announced =
            self.buffer.first_chunk().map_or(0, |prefix| usize::from(u16::from_be_bytes(*prefix)));
        PREFIX_BYTES.saturating_add(announced.min(FRAME_BYTES_MAX))
    }
}

/// Lends a buffer to read into, one per thread: links that wait hold none.
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
    }
    SCRATCH.with_borrow_mut(|scratch| read(scratch))
}

/// Frames of one class that were taken and are not in a write buffer yet.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    frames: VecDeque<FrameParts>,
    bytes: usize,
}

impl FrameQueue {
    pub(super) fn push(&mut self, frame: &FrameParts) {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.frames.push_back(frame.clone());
    }

    pub(super) fn pop_if(&mut self, fits: impl FnOnce(&FrameParts) -> bool) -> Option<FrameParts> {
        let frame = self.frames.pop_front_if(|frame| fits(frame))?;
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some(frame)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of all frames, without their lengths.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Takes `frames`: into the write buffer as far as it goes, else into the queue.
#[cfg(any(feature = "quic", feature = "tcp"))]
pub(super) fn take(queue: &mut FrameQueue, wire: &mut BytesMut, frames: &[FrameParts]) {
    if queue.is_empty() {
        let sizes = frames.iter().map(|frame| frame.len().saturating_add(PREFIX_BYTES));
        let bytes = sizes.fold(0usize, usize::saturating_add);
        wire.reserve(bytes.min(COALESCE_BYTES.saturating_sub(wire.len())));
    }
    for frame in frames {
        if queue.is_empty() && fits(wire, frame) {
            put_frame(wire, frame);
        } else {
            queue.push(frame);
        }
    }
}

/// Moves frames from the queue to the write buffer as far as it goes.
#[cfg(any(feature = "quic", feature = "tcp"))]
pub(super) fn refill(queue: &mut FrameQueue, wire: &mut BytesMut) {
    while let Some(frame) = queue.pop_if(|frame| fits(wire, frame)) {
        put_frame(wire, &frame);
    }
}

fn fits(wire: &BytesMut, frame: &FrameParts) -> bool {
    wire.len().saturating_add(PREFIX_BYTES).saturating_add(frame.len()) <= COALESCE_BYTES
}

fn put_frame(wire: &mut BytesMut, frame: &FrameParts) {
    // `check_frames` has seen the length; it fits.
    wire.put_u16(u16::try_from(frame.len()).unwrap_or(0));
    wire.extend_from_slice(frame.head());
    wire.extend_from_slice(frame.tail());
}

/// Writes a close record.
#[cfg(feature = "tcp")]
pub(super) fn put_close(wire: &mut BytesMut, code: CloseCode, reason: &str) {
    let reason = cut_reason(reason);
    wire.put_u16(CLOSE_MARK);
    wire.put_u32(code.0);
    wire.put_u8(u8::try_from(reason.len()).unwrap_or(0));
    wire.extend_from_slice(reason.as_bytes());
}

/// Refuses frames that no link of `mtu_bytes` carries, and more of a class than a sender holds.
pub(super) fn check_frames(
    class: TrafficClass,
    frames: &[FrameParts],
    mtu_bytes: usize,
    unwritten_bytes: usize,
) -> Result<(), TransportError> {
    for frame in frames {
        match frame.len() {
            0 => return Err(TransportError::EmptyFrame { from_peer: false }),
            got_bytes if got_bytes > mtu_bytes => {
                return Err(TransportError::FrameTooLarge {
                    got_bytes,
                    limit_bytes: mtu_bytes,
                    from_peer: false,
                });
            }
            _ => {}
        }
    }
    if !frames.is_empty() && unwritten_bytes > BACKLOG_BYTES_MAX {
        return Err(TransportError::Backlogged { class, unwritten_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[Vec<u8>]) -> BytesMut {
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| put_frame(&mut wire, &FrameParts::whole(frame.clone())));
        wire
    }

    fn read_all(reader: &mut FrameReader) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| match reader.next() {
            Ok(Some(Item::Frame(frame))) => Some(frame.to_vec()),
            Ok(None) => None,
            other => panic!("{other:?}"),
        })
        .collect()
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 0..20),
            cuts in prop::collection::vec(1usize..700, 1..40),
        ) {
            let wire = encoded(&frames);
            let mut reader = FrameReader::new(true);
            let mut rest = &wire[..];
            let mut got = Vec::new();
            for cut in cuts.into_iter().cycle().take_while({ let mut left = wire.len(); move |cut| {
                let go = left > 0; left = left.saturating_sub(*cut); go
            }}) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                reader.extend(now);
                got.extend(read_all(&mut reader));
                rest = later;
            }
            prop_assert_eq!(got, frames);
            prop_assert!(!reader.is_torn());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), close in any::<bool>()) {
            let mut reader = FrameReader::new(close);
            reader.extend(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_their_bytes_arrive() {
        let mut reader = FrameReader::new(false);
        reader.extend(&[0, 0]);
        assert_eq!(reader.next(), Err(TransportError::EmptyFrame { from_peer: true }));
        let mut reader = FrameReader::new(false);
        reader.extend(&[0x40, 0x01]);
        assert_eq!(reader.next(), Err(TransportError::peer_frame_too_large(FRAME_BYTES_MAX + 1)));
        let mut reader = FrameReader::new(false);
        reader.extend(&[0xff, 0xff]);
        assert_eq!(reader.next(), Err(TransportError::peer_frame_too_large(0xffff)));
        let mut reader = FrameReader::new(true);
        reader.extend(&[0x40, 0x00]);
        assert_eq!(reader.next(), Ok(None));
    }

    #[cfg(feature = "tcp")]
    #[test]
    fn a_close_record_arrives_whole_or_not_yet() {
        let mut wire = BytesMut::new();
        put_close(&mut wire, CloseCode(0x0102_0304), "bye");
        let mut reader = FrameReader::new(true);
        for byte in &wire[..wire.len() - 1] {
            reader.extend(&[*byte]);
            assert_eq!(reader.next(), Ok(None));
        }
        reader.extend(&wire[wire.len() - 1..]);
        let expected = Item::Close { code: CloseCode(0x0102_0304), reason: Bytes::from_static(b"bye") };
        assert_eq!(reader.next(), Ok(Some(expected)));
    }

    #[test]
    fn an_empty_reader_holds_no_memory() {
        let mut reader = FrameReader::new(false);
        reader.extend(&encoded(&[vec![7; 9_000], vec![8; 9_000]]));
        assert_eq!(read_all(&mut reader).len(), 2);
        assert_eq!(reader.buffer.capacity(), 0);
    }

    #[test]
    fn a_large_frame_in_small_pieces_is_allocated_once() {
        let wire = encoded(&[vec![1; FRAME_BYTES_MAX]]);
        let mut reader = FrameReader::new(false);
        reader.extend(&wire[..2]);
        reader.extend(&wire[2..10]);
        let at = reader.buffer.as_ptr();
        wire[10..].chunks(1_000).for_each(|piece| reader.extend(piece));
        assert_eq!(reader.buffer.as_ptr(), at);
        assert_eq!(read_all(&mut reader).len(), 1);
    }

    #[cfg(any(feature = "quic", feature = "tcp"))]
    #[test]
    fn what_does_not_fit_the_write_buffer_waits_in_order() {
        let frames: Vec<_> = (0..10u8).map(|i| FrameParts::whole(vec![i; FRAME_BYTES_MAX])).collect();
        let (mut queue, mut wire) = (FrameQueue::default(), BytesMut::new());
        take(&mut queue, &mut wire, &frames);
        assert!(wire.len() <= COALESCE_BYTES && !queue.is_empty());
        assert_eq!(queue.bytes() + wire.len() - 2 * 3, 10 * FRAME_BYTES_MAX);
        let mut reader = FrameReader::new(false);
        let mut seen = Vec::new();
        while !wire.is_empty() {
            reader.extend(&wire.split());
            seen.extend(read_all(&mut reader).into_iter().map(|frame| frame[0]));
            refill(&mut queue, &mut wire);
        }
        assert_eq!(seen, (0..10).collect::<Vec<u8>>());
        assert_eq!(queue.bytes(), 0);
    }
}

//! Payloads by which a destination answers: receipts and `cannot_open`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    cbor,
    control::{join_ids, split_ids},
    error::DecodeError,
    ids::{PacketId, TransferTag},
    key_record::SignedKeyRecord,
    limits::{CHUNKS_MAX, PAYLOAD_BYTES_MAX, RECEIPT_BITMAPS_MAX, RECEIPT_IDS_MAX},
};

/// How far the destination is with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum TransferState {
    /// Chunks are missing; the bitmap says which are here, durably.
    Partial,
    /// The whole is here, its hash is right, and it is durable.
    Complete,
    /// The whole is here and its hash is wrong, or it is larger than the destination takes.
    Rejected,
    /// The destination knows no manifest for these chunks and asks for it.
    ManifestWanted,
    /// A state of a newer version.
    Other(u8),
}

impl From<u8> for TransferState {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Partial,
            1 => Self::Complete,
            2 => Self::Rejected,
            3 => Self::ManifestWanted,
            other => Self::Other(other),
        }
    }
}

impl From<TransferState> for u8 {
    fn from(state: TransferState) -> u8 {
        match state {
            TransferState::Partial => 0,
            TransferState::Complete => 1,
            TransferState::Rejected => 2,
            TransferState::ManifestWanted => 3,
            TransferState::Other(number) => number,
        }
    }
}

/// Which chunks of a file the destination holds: `[tag, state, total, bitmap]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkReceipt {
    /// Which file.
    pub tag: TransferTag,
    /// How far it is.
    pub state: TransferState,
    /// Chunks of the whole file.
    pub total: u32,
    /// Bit `i % 8` of byte `i / 8` is set when chunk `i` is here, and only those below `total` may
    /// be. Zero bytes at the end may be left out; empty for finished files.
    pub bitmap: Vec<u8>,
}

impl ChunkReceipt {
    /// True when the bitmap says that chunk `index` is there.
    pub fn has(&self, index: u32) -> bool {
        let byte = self.bitmap.get((index / 8) as usize).copied().unwrap_or(0);
        byte & (1 << (index % 8)) != 0
    }
}

/// First byte of a receipt that names unwanted packets.
const ARRAY_OF_THREE: u8 = 0x83;

type ChunkWire = (TransferTag, TransferState, u32, serde_bytes::ByteBuf);

/// Payload of a receipt: `[packet_ids, [chunk receipts], ?unwanted]`, ids as one byte string. Relays read
/// it to credit the links that delivered, and custodians to let go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Packets that are durably stored, or were before; at most 256.
    pub packet_ids: Vec<PacketId>,
    /// Progress of files; at most 8.
    pub chunks: Vec<ChunkReceipt>,
    /// Packets of messages that the destination's owner does not take from this source, or of a file's
    /// manifest: nothing of them is kept, and the source stops; at most 256. Left out where there are none.
    pub unwanted: Vec<PacketId>,
}

impl Receipt {
    /// Reads a receipt's payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        type Two = (serde_bytes::ByteBuf, Vec<ChunkWire>);
        type Three = (serde_bytes::ByteBuf, Vec<ChunkWire>, serde_bytes::ByteBuf);
        let (ids, chunks, unwanted) = if payload.first() == Some(&ARRAY_OF_THREE) {
            let (ids, chunks, unwanted): Three = cbor::decode(payload, PAYLOAD_BYTES_MAX, "receipt")?;
            if unwanted.is_empty() {
                // Another spelling of a receipt without them.
                return Err(DecodeError::OutOfRange { field: "unwanted", offset: 0, got: 0 });
            }
            (ids, chunks, unwanted)
        } else {
            let (ids, chunks): Two = cbor::decode(payload, PAYLOAD_BYTES_MAX, "receipt")?;
            (ids, chunks, serde_bytes::ByteBuf::new())
        };
        if chunks.len() > RECEIPT_BITMAPS_MAX {
            return Err(DecodeError::TooLarge {
                field: "chunk receipts",
                got: chunks.len() as u64,
                limit: RECEIPT_BITMAPS_MAX as u64,
            });
        }
        let chunks = chunks
            .into_iter()
            .map(|(tag, state, total, bitmap)| {
                if total > CHUNKS_MAX || !bitmap_fits(&bitmap, total) {
                    return Err(DecodeError::OutOfRange {
                        field: "chunk bitmap",
                        offset: 0,
                        got: u64::from(total),
                    });
                }
                Ok(ChunkReceipt { tag, state, total, bitmap: bitmap.into_vec() })
            })
            .collect::<Result<_, _>>()?;
        let packet_ids = split_ids(&ids, RECEIPT_IDS_MAX)?;
        Ok(Self { packet_ids, chunks, unwanted: split_ids(&unwanted, RECEIPT_IDS_MAX)? })
    }

    /// Writes a receipt's payload.
    pub fn encode(&self) -> Vec<u8> {
        let chunks: Vec<ChunkWire> = self
            .chunks
            .iter()
            .map(|c| (c.tag, c.state, c.total, serde_bytes::ByteBuf::from(c.bitmap.clone())))
            .collect();
        let ids = join_ids(&self.packet_ids);
        let ids = serde_bytes::Bytes::new(&ids);
        if self.unwanted.is_empty() {
            return cbor::encode(&(ids, chunks));
        }
        cbor::encode(&(ids, chunks, serde_bytes::Bytes::new(&join_ids(&self.unwanted))))
    }

    /// Packets that are over for who keeps them for the destination: delivered, or not wanted there.
    pub fn settled(self) -> Vec<PacketId> {
        let Self { mut packet_ids, unwanted, .. } = self;
        packet_ids.extend(unwanted);
        packet_ids
    }
}

/// True when `bitmap` speaks of the chunks below `total` only.
fn bitmap_fits(bitmap: &[u8], total: u32) -> bool {
    let whole = (total / 8) as usize;
    match bitmap.len().checked_sub(whole) {
        None | Some(0) => true,
        Some(1) => bitmap.last().is_some_and(|last| !total.is_multiple_of(8) && last >> (total % 8) == 0),
        Some(_) => false,
    }
}

/// Why a destination could not open a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum CannotOpenReason {
    /// It no longer has, or never had, the receiver key that the message was sealed to.
    UnknownKey,
    /// A reason of a newer version.
    Other(u8),
}

impl From<u8> for CannotOpenReason {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::UnknownKey,
            other => Self::Other(other),
        }
    }
}

impl From<CannotOpenReason> for u8 {
    fn from(reason: CannotOpenReason) -> u8 {
        match reason {
            CannotOpenReason::UnknownKey => 0,
            CannotOpenReason::Other(number) => number,
        }
    }
}

/// Payload of a `cannot_open`: `[packet_id, reason, key_record]`. The outbox seals again.
#[derive(Debug, Clone)]
pub struct CannotOpen {
    /// The packet that could not be opened.
    pub packet_id: PacketId,
    /// Why.
    pub reason: CannotOpenReason,
    /// The destination's newest key record.
    pub key_record: SignedKeyRecord,
}

impl CannotOpen {
    /// Reads the payload.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = cbor::Reader::new(payload);
        r.array(3, 3, "cannot_open")?;
        let packet_id = PacketId(r.fixed("packet_id")?);
        let reason = CannotOpenReason::from(r.u8(u8::MAX, "reason")?);
        let start = r.offset();
        r.skip("key_record")?;
        let key_record =
            SignedKeyRecord::decode(&payload.slice(start..r.offset())).map_err(|e| e.shifted(start))?;
        r.finish()?;
        Ok(Self { packet_id, reason, key_record })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        cbor::put_array(&mut out, 3);
        cbor::put_bytes(&mut out, &self.packet_id.0);
        cbor::put_uint(&mut out, u64::from(u8::from(self.reason)));
        out.extend_from_slice(&self.key_record.encode());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_speak_of_chunks_below_the_total_only() {
        for (bitmap, total, fits) in [
            (&[][..], 0, true),
            (&[], 11, true),
            (&[0xff], 11, true),
            (&[0xff, 0x07], 11, true),
            (&[0xff, 0x08], 11, false),
            (&[0xff, 0x00, 0x00], 11, false),
            (&[0xff], 8, true),
            (&[0xff, 0x00], 8, false),
            (&[0x00], 0, false),
        ] {
            assert_eq!(bitmap_fits(bitmap, total), fits, "{bitmap:02x?} of {total}");
        }
    }

    #[test]
    fn a_bit_beyond_the_bitmap_is_not_set() {
        let chunk = ChunkReceipt {
            tag: TransferTag([0; 16]),
            state: TransferState::Partial,
            total: 100,
            bitmap: vec![0b101],
        };
        assert_eq!((0..100).filter(|i| chunk.has(*i)).collect::<Vec<_>>(), [0, 2]);
        assert!(!chunk.has(u32::MAX));
    }
}

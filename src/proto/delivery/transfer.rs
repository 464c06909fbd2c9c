//! Files that arrive in chunks: which are open, which chunks are here, what to answer.
//!
//! A chunk counts only once it is durable: [`Incoming::durable`] is told after the fsync, and
//! receipts are made from what it was told. Who may open how much is bounded per source, so that
//! nobody can fill the disk with files that never end.

use std::collections::BTreeMap;

use crate::{
    crypto::FileKey,
    wire::{
        Address, PacketId, TransferTag,
        content::{Chunk, Manifest, chunk_count},
        limits::CHUNK_BYTES,
        receipt::{ChunkReceipt, TransferState},
    },
};

use super::record::{FileRecord, PartialRecord};

/// Partial files kept from one source.
pub const PARTIALS_PER_SOURCE: usize = 4;

/// Bytes of all partial files together.
pub const PARTIAL_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// AEAD tag that each stored chunk ends with.
const TAG_BYTES: u64 = 16;

/// Names a transfer: who sends it and its tag.
pub type TransferKey = (Address, TransferTag);

/// Where chunk `index` begins in the blob of its file.
pub fn chunk_offset(index: u32) -> u64 {
    u64::from(index).saturating_mul(CHUNK_BYTES as u64 + TAG_BYTES)
}

/// Sealed bytes of chunk `index` of a file of `length` bytes.
pub fn sealed_chunk_len(index: u32, length: u64) -> usize {
    let start = u64::from(index).saturating_mul(CHUNK_BYTES as u64);
    (length.saturating_sub(start).min(CHUNK_BYTES as u64).saturating_add(TAG_BYTES)) as usize
}

/// What to do about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnManifest {
    /// Keep it and open a blob.
    Open(PartialRecord),
    /// It is open already: answer with what is here.
    Known(ChunkReceipt),
    /// Too much is open from this source, or in all.
    Refused,
}

/// What to do about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnChunk {
    /// Write it at [`chunk_offset`] of the transfer's blob.
    Write,
    /// It is here: answer with what is.
    Known(ChunkReceipt),
    /// No manifest for it is known: ask for it.
    NoManifest(ChunkReceipt),
    /// Its length or count does not fit its manifest.
    Misfit,
}

/// What a durable write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// State for the store, to be made durable before the receipt goes out.
    pub record: PartialRecord,
    /// The receipt.
    pub receipt: ChunkReceipt,
    /// True when every chunk is here and the whole is to be checked.
    pub whole: bool,
}

#[derive(Debug)]
struct Open {
    record: PartialRecord,
    total: u32,
    written: u32,
}

/// Files on their way in.
#[derive(Debug, Default)]
pub struct Incoming {
    open: BTreeMap<TransferKey, Open>,
}

impl Incoming {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files on their way in.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes up a file whose state was read from the store at start.
    pub fn restore(&mut self, tag: TransferTag, record: PartialRecord) {
        let total = chunk_count(record.file.length);
        let written = record.bitmap.iter().map(|b| b.count_ones()).sum();
        self.open.insert((record.from, tag), Open { record, total, written });
    }

    /// A manifest arrived. On [`OnManifest::Open`] the caller stores the record and opens a blob,
    /// then calls [`Incoming::opened`].
    pub fn manifest(
        &self,
        packet_id: PacketId,
        from: Address,
        manifest: &Manifest,
        hops: u8,
        dedup_until_unix_s: u64,
    ) -> OnManifest {
        let tag = FileKey::from_bytes(manifest.file_key).transfer_tag();
        if let Some(open) = self.open.get(&(from, tag)) {
            return OnManifest::Known(receipt(tag, open));
        }
        let arriving = || self.open.values().filter(|o| !o.record.complete);
        let of_source = arriving().filter(|o| o.record.from == from).count();
        let bytes: u64 = arriving().map(|o| o.record.file.length).sum();
        if of_source >= PARTIALS_PER_SOURCE || bytes.saturating_add(manifest.length) > PARTIAL_BYTES_MAX {
            return OnManifest::Refused;
        }
        let total = manifest.chunks();
        OnManifest::Open(PartialRecord {
            packet_id,
            uid: manifest.uid,
            complete: false,
            from,
            name: manifest.name.clone(),
            sent_at_unix_ms: manifest.sent_at_unix_ms,
            hops,
            dedup_until_unix_s,
            file: FileRecord::of(manifest),
            bitmap: vec![0; (total as usize).div_ceil(8)],
        })
    }

    /// The record of a manifest is durable and its blob is there.
    pub fn opened(&mut self, record: PartialRecord) -> ChunkReceipt {
        let tag = FileKey::from_bytes(record.file.file_key.0).transfer_tag();
        // Two copies of one manifest may have been stored at the same time.
        if let Some(open) = self.open.get(&(record.from, tag)) {
            return receipt(tag, open);
        }
        let open = Open { total: chunk_count(record.file.length), written: 0, record };
        let answer = receipt(tag, &open);
        self.open.insert((open.record.from, tag), open);
        answer
    }

    /// A chunk arrived.
    pub fn chunk(&self, from: Address, chunk: &Chunk) -> OnChunk {
        let Some(open) = self.open.get(&(from, chunk.tag)) else {
            return OnChunk::NoManifest(ChunkReceipt {
                tag: chunk.tag,
                state: TransferState::ManifestWanted,
                total: chunk.total,
                bitmap: Vec::new(),
            });
        };
        let fits = chunk.total == open.total
            && chunk.ciphertext.len() == sealed_chunk_len(chunk.index, open.record.file.length);
        if !fits {
            return OnChunk::Misfit;
        }
        if open.record.complete || has(&open.record.bitmap, chunk.index) {
            return OnChunk::Known(receipt(chunk.tag, open));
        }
        OnChunk::Write
    }

    /// These chunks are durable.
    pub fn durable(&mut self, key: TransferKey, indices: &[u32]) -> Option<Progress> {
        let open = self.open.get_mut(&key)?;
        for index in indices {
            if let Some(byte) = open.record.bitmap.get_mut((index / 8) as usize) {
                let bit = 1u8 << (index % 8);
                if *byte & bit == 0 {
                    *byte |= bit;
                    open.written = open.written.saturating_add(1);
                }
            }
        }
        Some(Progress {
            record: open.record.clone(),
            receipt: receipt(key.1, open),
            whole: open.written >= open.total && !open.record.complete,
        })
    }

    /// Every chunk of this file is here.
    pub fn whole(&self, key: &TransferKey) -> Option<&PartialRecord> {
        self.open.get(key).filter(|o| o.written >= o.total && !o.record.complete).map(|o| &o.record)
    }

    /// Files whose chunks are all here, to be checked after a restart.
    pub fn all_whole(&self) -> Vec<TransferKey> {
        self.open.keys().filter(|key| self.whole(key).is_some()).copied().collect()
    }

    /// The file is given up.
    pub fn close(&mut self, key: &TransferKey) -> Option<PartialRecord> {
        self.open.remove(key).map(|o| o.record)
    }

    /// The file is in the inbox: its manifest and chunks are answered as complete from now on.
    pub fn complete(&mut self, key: &TransferKey) -> Option<ChunkReceipt> {
        let open = self.open.get_mut(key)?;
        open.record = open.record.completed();
        Some(receipt(key.1, open))
    }

    /// Files whose time has passed, removed; their rows are to be removed too. True for those that
    /// came in whole.
    pub fn forget(&mut self, now_unix_s: u64) -> Vec<(TransferKey, bool)> {
        let due: Vec<_> = self
            .open
            .iter()
            .filter(|(_, o)| o.record.until_unix_s() < now_unix_s)
            .map(|(key, o)| (*key, o.record.complete))
            .collect();
        for (key, _) in &due {
            self.open.remove(key);
        }
        due
    }

    /// Bytes of the blob of a file: its chunks with their tags.
    pub fn sealed_len(&self, key: &TransferKey) -> Option<u64> {
        let open = self.open.get(key)?;
        let last = open.total.saturating_sub(1);
        Some(chunk_offset(last).saturating_add(sealed_chunk_len(last, open.record.file.length) as u64))
    }
}

fn has(bitmap: &[u8], index: u32) -> bool {
    bitmap.get((index / 8) as usize).is_some_and(|b| b & (1 << (index % 8)) != 0)
}

fn receipt(tag: TransferTag, open: &Open) -> ChunkReceipt {
    let state = if open.record.complete { TransferState::Complete } else { TransferState::Partial };
    ChunkReceipt { tag, state, total: open.total, bitmap: open.record.bitmap.clone() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Digest, MessageUid};

    const FROM: Address = Address([3; 16]);

    fn manifest(key: u8, length: u64) -> Manifest {
        Manifest {
            uid: MessageUid([key; 16]),
            name: "a".into(),
            sent_at_unix_ms: 1,
            length,
            sha256: Digest([0; 32]),
            file_key: [key; 32],
        }
    }

    fn open(incoming: &mut Incoming, key: u8, length: u64) -> TransferTag {
        match incoming.manifest(PacketId([1; 16]), FROM, &manifest(key, length), 2, 0) {
            OnManifest::Open(record) => incoming.opened(record).tag,
            other => panic!("{other:?}"),
        }
    }

    fn chunk(tag: TransferTag, index: u32, total: u32, len: usize) -> Chunk {
        Chunk { tag, index, total, ciphertext: Bytes::from(vec![0; len]) }
    }

    #[test]
    fn chunks_are_receipted_only_once_durable() {
        let mut incoming = Incoming::new();
        let length = CHUNK_BYTES as u64 + 10;
        let tag = open(&mut incoming, 1, length);
        let first = chunk(tag, 0, 2, CHUNK_BYTES + 16);
        assert_eq!(incoming.chunk(FROM, &first), OnChunk::Write);
        // Not yet durable: the same chunk is still to be written.
        assert_eq!(incoming.chunk(FROM, &first), OnChunk::Write);
        let progress = incoming.durable((FROM, tag), &[0]).unwrap();
        assert!(progress.receipt.has(0) && !progress.receipt.has(1) && !progress.whole);
        assert!(matches!(incoming.chunk(FROM, &first), OnChunk::Known(_)));
        assert_eq!(incoming.chunk(FROM, &chunk(tag, 1, 2, 26)), OnChunk::Write);
        assert_eq!(chunk_offset(1), CHUNK_BYTES as u64 + 16);
        assert!(incoming.durable((FROM, tag), &[1]).unwrap().whole);
    }

    #[test]
    fn strangers_chunks_and_misfits_are_told_apart() {
        let mut incoming = Incoming::new();
        let tag = open(&mut incoming, 1, 100);
        assert_eq!(incoming.chunk(FROM, &chunk(tag, 0, 2, 116)), OnChunk::Misfit);
        assert_eq!(incoming.chunk(FROM, &chunk(tag, 0, 1, 115)), OnChunk::Misfit);
        // Another source cannot write into this file.
        let wanted = incoming.chunk(Address([4; 16]), &chunk(tag, 0, 1, 116));
        assert!(matches!(wanted, OnChunk::NoManifest(r) if r.state == TransferState::ManifestWanted));
    }

    #[test]
    fn files_are_forgotten_when_their_time_has_passed() {
        let mut incoming = Incoming::new();
        let tag = open(&mut incoming, 1, 100);
        assert_eq!(incoming.forget(0), []);
        assert_eq!(incoming.forget(1), [((FROM, tag), false)]);
        let tag = open(&mut incoming, 1, 100);
        incoming.complete(&(FROM, tag));
        assert_eq!(incoming.forget(1), [((FROM, tag), true)]);
        assert!(incoming.is_empty());
    }

    #[test]
    fn a_source_opens_a_few_files_only() {
        let mut incoming = Incoming::new();
        for key in 0..PARTIALS_PER_SOURCE as u8 {
            open(&mut incoming, key, 100);
        }
        assert_eq!(incoming.manifest(PacketId([1; 16]), FROM, &manifest(99, 100), 1, 0), OnManifest::Refused);
        assert!(matches!(
            incoming.manifest(PacketId([1; 16]), FROM, &manifest(0, 100), 1, 0),
            OnManifest::Known(_)
        ));
    }
}

//! Files that arrive in chunks: which are open, which chunks are here, what to answer.
//!
//! A chunk counts only once it is durable twice over: its bytes are synced ([`Incoming::written`])
//! and the bitmap that says so is committed ([`Incoming::saved`]). Receipts are made from what is
//! committed and from nothing else: what was said must be true after a crash.
//!
//! Who may open how much is bounded, per source, for all strangers together and in all, so that
//! nobody can fill the disk with files that never end. Room is reserved when a manifest is taken up,
//! before anything is stored ([`Incoming::manifest`]), and a file that does not come forward for
//! [`PARTIAL_IDLE_S`] is given up.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{
    crypto::FileKey,
    wire::{
        Address, MessageUid, PacketId, TransferTag,
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

/// Partial files of all strangers together: of sources that this node never wrote to and that are no
/// contacts.
pub const STRANGERS_PARTIALS: usize = 4;

/// Bytes of the partial files of all strangers together.
pub const STRANGERS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Seconds after which a file that has not come forward is given up.
pub const PARTIAL_IDLE_S: u64 = 24 * 3600;

/// Packets remembered per file that are to be named in a receipt once its bitmap is committed.
const UNNAMED_MAX: usize = 1024;

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

/// A manifest that arrived, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The packet it came in.
    pub packet_id: PacketId,
    /// Who signed it.
    pub from: Address,
    /// The manifest.
    pub manifest: Manifest,
    /// Links crossed.
    pub hops: u8,
    /// Seconds since 1970 after which dedup may forget its message.
    pub dedup_until_unix_s: u64,
}

impl Offer {
    /// Names the transfer.
    pub fn key(&self) -> TransferKey {
        (self.from, FileKey::from_bytes(self.manifest.file_key).transfer_tag())
    }
}

/// What to do about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnManifest {
    /// Room is reserved for it: ask whether its source is a stranger, then [`Incoming::take_up`].
    New,
    /// A copy of it is being taken up: the answer to that one will do.
    Coming,
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

/// What a committed bitmap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The receipt.
    pub receipt: ChunkReceipt,
    /// True when every chunk is here and the whole is to be checked.
    pub whole: bool,
}

/// A file on its way in, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrivingFile {
    /// The message's id.
    pub uid: MessageUid,
    /// Who sends it.
    pub from: Address,
    /// Bytes of the whole.
    pub size: u64,
    /// Links that its manifest crossed.
    pub hops: u8,
    /// Chunks that are here, durably.
    pub done: u32,
    /// Chunks in all.
    pub all: u32,
}

/// How far the check of a whole file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// To be made as soon as every chunk is here.
    Due,
    /// Under way, or its result is.
    UnderWay,
    /// It could not be made, or its result not be stored; to be made again.
    Failed,
}

#[derive(Debug)]
struct Open {
    /// As committed, but for its bitmap's last bits.
    record: PartialRecord,
    total: u32,
    /// Chunks in the committed bitmap.
    here: u32,
    /// Chunks that are synced; those of the committed bitmap among them.
    written: Vec<u8>,
    /// Bitmaps on their way to the store.
    saving: u32,
    /// Packets of chunks whose bitmap the store did not take.
    unnamed: Vec<PacketId>,
    check: Check,
}

impl Open {
    fn new(record: PartialRecord) -> Self {
        Self {
            total: chunk_count(record.file.length),
            here: record.bitmap.iter().map(|b| b.count_ones()).sum(),
            written: record.bitmap.clone(),
            saving: 0,
            unnamed: Vec::new(),
            check: Check::Due,
            record,
        }
    }

    fn is_whole(&self) -> bool {
        self.here >= self.total && !self.record.complete
    }

    fn file(&self) -> ArrivingFile {
        ArrivingFile {
            uid: self.record.uid,
            from: self.record.from,
            size: self.record.file.length,
            hops: self.record.hops,
            done: self.here,
            all: self.total,
        }
    }

    /// The row for the store, with all that is synced.
    fn row(&mut self, now_unix_s: u64) -> PartialRecord {
        self.saving = self.saving.saturating_add(1);
        self.record.give_up_unix_s = Some(now_unix_s.saturating_add(PARTIAL_IDLE_S));
        PartialRecord { bitmap: self.written.clone(), ..self.record.clone() }
    }
}

/// Room for a file whose row is on its way to the store.
#[derive(Debug)]
struct Reserved {
    length: u64,
    stranger: bool,
}

/// Files on their way in.
#[derive(Debug, Default)]
pub struct Incoming {
    open: BTreeMap<TransferKey, Open>,
    reserved: BTreeMap<TransferKey, Reserved>,
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
    pub fn restore(&mut self, tag: TransferTag, mut record: PartialRecord, now_unix_s: u64) {
        // Rows of an earlier version do not say when they are given up.
        record.give_up_unix_s.get_or_insert(now_unix_s.saturating_add(PARTIAL_IDLE_S));
        self.open.insert((record.from, tag), Open::new(record));
    }

    /// A manifest arrived. On [`OnManifest::New`] room is reserved until [`Incoming::opened`] or
    /// [`Incoming::not_opened`].
    pub fn manifest(&mut self, offer: &Offer) -> OnManifest {
        let (key, length) = (offer.key(), offer.manifest.length);
        if let Some(open) = self.open.get(&key) {
            return OnManifest::Known(receipt(key.1, open));
        }
        if self.reserved.contains_key(&key) {
            return OnManifest::Coming;
        }
        let of_source = self.arriving().filter(|(source, ..)| *source == offer.from).count();
        let bytes = self.arriving().fold(length, |sum, (_, length, _)| sum.saturating_add(length));
        if of_source >= PARTIALS_PER_SOURCE || bytes > PARTIAL_BYTES_MAX {
            return OnManifest::Refused;
        }
        self.reserved.insert(key, Reserved { length, stranger: false });
        OnManifest::New
    }

    /// Source, length and whether it is a stranger's, of every file that is open or about to be.
    fn arriving(&self) -> impl Iterator<Item = (Address, u64, bool)> {
        let open = self.open.values().filter(|open| !open.record.complete);
        let open = open.map(|open| (open.record.from, open.record.file.length, open.record.stranger));
        open.chain(self.reserved.iter().map(|(key, held)| (key.0, held.length, held.stranger)))
    }

    /// Who the source of a manifest is, is known now. Gives the row to be stored; none where
    /// strangers have as much open as they may, and its room is free again.
    pub fn take_up(&mut self, offer: &Offer, from_stranger: bool, now_unix_s: u64) -> Option<PartialRecord> {
        let (key, manifest) = (offer.key(), &offer.manifest);
        let (count, bytes) = self
            .arriving()
            .filter(|(.., stranger)| *stranger)
            .fold((0usize, manifest.length), |(count, bytes), (_, length, _)| {
                (count.saturating_add(1), bytes.saturating_add(length))
            });
        if from_stranger && (count >= STRANGERS_PARTIALS || bytes > STRANGERS_BYTES_MAX) {
            self.reserved.remove(&key);
            return None;
        }
        if let Some(reserved) = self.reserved.get_mut(&key) {
            reserved.stranger = from_stranger;
        }
        Some(PartialRecord {
            packet_id: offer.packet_id,
            uid: manifest.uid,
            complete: false,
            from: offer.from,
            stranger: from_stranger,
            name: manifest.name.clone(),
            sent_at_unix_ms: manifest.sent_at_unix_ms,
            hops: offer.hops,
            dedup_until_unix_s: offer.dedup_until_unix_s,
            give_up_unix_s: Some(now_unix_s.saturating_add(PARTIAL_IDLE_S)),
            file: FileRecord::of(manifest),
            bitmap: vec![0; (manifest.chunks() as usize).div_ceil(8)],
        })
    }

    /// The record of a manifest is durable.
    pub fn opened(&mut self, record: PartialRecord) -> ChunkReceipt {
        let key = record.key();
        self.reserved.remove(&key);
        let open = self.open.entry(key).or_insert_with(|| Open::new(record));
        receipt(key.1, open)
    }

    /// The record of a manifest was not stored: its room is free again.
    pub fn not_opened(&mut self, key: &TransferKey) {
        self.reserved.remove(key);
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
        // One that is written and not yet on record is written again: the same bytes once more, and
        // its packet is named with the next bitmap.
        OnChunk::Write
    }

    /// The bytes of these chunks are synced. Gives the row that says so, to be stored before anybody
    /// is told; then follows [`Incoming::saved`] or [`Incoming::not_saved`].
    pub fn written(&mut self, key: &TransferKey, indices: &[u32], now_unix_s: u64) -> Option<PartialRecord> {
        // A file that is on its way into the inbox needs no row of before.
        let is_arriving = |open: &&mut Open| !open.record.complete && open.check != Check::UnderWay;
        let open = self.open.get_mut(key).filter(is_arriving)?;
        for index in indices {
            if let Some(byte) = open.written.get_mut((index / 8) as usize) {
                *byte |= 1u8 << (index % 8);
            }
        }
        Some(open.row(now_unix_s))
    }

    /// A row with this bitmap is durable.
    pub fn saved(&mut self, key: &TransferKey, bitmap: &[u8]) -> Option<Progress> {
        let open = self.open.get_mut(key)?;
        open.saving = open.saving.saturating_sub(1);
        for (here, saved) in open.record.bitmap.iter_mut().zip(bitmap) {
            *here |= saved;
        }
        open.here = open.record.bitmap.iter().map(|b| b.count_ones()).sum();
        Some(Progress { receipt: receipt(key.1, open), whole: open.is_whole() })
    }

    /// The store did not take a row. What was written stays so; `packets` are named later.
    pub fn not_saved(&mut self, key: &TransferKey, packets: Vec<PacketId>) {
        let Some(open) = self.open.get_mut(key) else { return };
        open.saving = open.saving.saturating_sub(1);
        let room = UNNAMED_MAX.saturating_sub(open.unnamed.len());
        open.unnamed.extend(packets.into_iter().take(room));
    }

    /// Rows that say less than is written and are not on their way, with the packets that are to be
    /// named when they are stored.
    pub fn unsaved(&mut self, now_unix_s: u64) -> Vec<(PartialRecord, Vec<PacketId>)> {
        let unsaved = |open: &&mut Open| {
            open.saving == 0 && !open.record.complete && open.written != open.record.bitmap
        };
        let unsaved = self.open.values_mut().filter(unsaved);
        unsaved.map(|open| (open.row(now_unix_s), std::mem::take(&mut open.unnamed))).collect()
    }

    /// The next file whose chunks are all here, to be checked; then follows [`Incoming::complete`],
    /// [`Incoming::close`] or [`Incoming::check_failed`].
    pub fn next_to_check(&mut self) -> Option<(TransferKey, PartialRecord)> {
        let (key, open) =
            self.open.iter_mut().find(|(_, open)| open.is_whole() && open.check == Check::Due)?;
        open.check = Check::UnderWay;
        Some((*key, open.record.clone()))
    }

    /// A check could not be made, or its result not be stored.
    pub fn check_failed(&mut self, key: &TransferKey) {
        if let Some(open) = self.open.get_mut(key) {
            open.check = Check::Failed;
        }
    }

    /// Checks that failed are to be made again.
    pub fn check_again(&mut self) {
        for open in self.open.values_mut().filter(|open| open.check == Check::Failed) {
            open.check = Check::Due;
        }
    }

    /// The file is given up.
    pub fn close(&mut self, key: &TransferKey) -> Option<PartialRecord> {
        self.open.remove(key).map(|open| open.record)
    }

    /// The file is in the inbox: its manifest and chunks are answered as complete from now on.
    pub fn complete(&mut self, key: &TransferKey) -> Option<ChunkReceipt> {
        let open = self.open.get_mut(key)?;
        open.record = open.record.completed();
        open.written = Vec::new();
        open.unnamed = Vec::new();
        Some(receipt(key.1, open))
    }

    /// Files whose time has passed, removed, with the ids of their messages; their rows are to be
    /// removed too. True for those that came in whole.
    pub fn forget(&mut self, now_unix_s: u64) -> Vec<(TransferKey, MessageUid, bool)> {
        let due: Vec<_> = self
            .open
            .iter()
            // One that is being checked has come forward as far as it can.
            .filter(|(_, open)| !(open.is_whole() && open.check == Check::UnderWay))
            .filter(|(_, open)| open.record.until_unix_s() < now_unix_s)
            .map(|(key, open)| (*key, open.record.uid, open.record.complete))
            .collect();
        for (key, ..) in &due {
            self.open.remove(key);
        }
        due
    }

    /// A file on its way in, or the memory of one that came.
    pub fn file(&self, key: &TransferKey) -> Option<ArrivingFile> {
        self.open.get(key).map(Open::file)
    }

    /// The first two files on their way in whose ids are among `ids`; there are only ever a few.
    pub fn find(&self, ids: &RangeInclusive<MessageUid>) -> Vec<ArrivingFile> {
        let arriving = self.open.values().filter(|open| !open.record.complete);
        arriving.filter(|open| ids.contains(&open.record.uid)).take(2).map(Open::file).collect()
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
    use crate::wire::Digest;

    const FROM: Address = Address([3; 16]);
    const UID: MessageUid = MessageUid([1; 16]);

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

    fn offer(from: Address, key: u8, length: u64) -> Offer {
        let manifest = manifest(key, length);
        Offer { packet_id: PacketId([1; 16]), from, manifest, hops: 2, dedup_until_unix_s: u64::MAX }
    }

    fn take_up(incoming: &mut Incoming, from: Address, key: u8, length: u64) -> Option<PartialRecord> {
        let offer = offer(from, key, length);
        assert_eq!(incoming.manifest(&offer), OnManifest::New);
        incoming.take_up(&offer, true, 0)
    }

    fn open(incoming: &mut Incoming, key: u8, length: u64) -> TransferTag {
        let record = take_up(incoming, FROM, key, length).unwrap();
        incoming.opened(record).tag
    }

    fn chunk(tag: TransferTag, index: u32, total: u32, len: usize) -> Chunk {
        Chunk { tag, index, total, ciphertext: Bytes::from(vec![0; len]) }
    }

    #[test]
    fn chunks_are_receipted_only_once_they_are_on_record() {
        let mut incoming = Incoming::new();
        let length = CHUNK_BYTES as u64 + 10;
        let tag = open(&mut incoming, 1, length);
        let key = (FROM, tag);
        let first = chunk(tag, 0, 2, CHUNK_BYTES + 16);
        assert_eq!(incoming.chunk(FROM, &first), OnChunk::Write);
        let row = incoming.written(&key, &[0], 0).unwrap();
        // Its bytes are synced, and that is on no record.
        assert_eq!(incoming.chunk(FROM, &first), OnChunk::Write);
        let second = incoming.written(&key, &[1], 0).unwrap();
        let progress = incoming.saved(&key, &row.bitmap).unwrap();
        assert!(progress.receipt.has(0) && !progress.receipt.has(1) && !progress.whole);
        assert_eq!(incoming.chunk(FROM, &first), OnChunk::Known(progress.receipt));
        assert_eq!(incoming.chunk(FROM, &chunk(tag, 1, 2, 26)), OnChunk::Write);
        assert_eq!(incoming.next_to_check(), None);
        assert_eq!(chunk_offset(1), CHUNK_BYTES as u64 + 16);
        assert!(incoming.saved(&key, &second.bitmap).unwrap().whole);
    }

    #[test]
    fn what_the_store_does_not_take_is_stored_again_with_the_rest() {
        let mut incoming = Incoming::new();
        let tag = open(&mut incoming, 1, 3 * CHUNK_BYTES as u64);
        let key = (FROM, tag);
        incoming.written(&key, &[0], 0).unwrap();
        assert!(incoming.unsaved(0).is_empty(), "it is on its way");
        incoming.not_saved(&key, vec![PacketId([10; 16])]);
        let (row, packets) = incoming.unsaved(5).remove(0);
        assert_eq!((row.bitmap[0], packets), (1, vec![PacketId([10; 16])]));
        assert_eq!(row.until_unix_s(), 5 + PARTIAL_IDLE_S);
        let later = incoming.written(&key, &[2], 0).unwrap();
        assert_eq!(later.bitmap[0], 0b101);
        incoming.not_saved(&key, Vec::new());
        // The later row says it too.
        let progress = incoming.saved(&key, &later.bitmap).unwrap();
        assert!(progress.receipt.has(0) && progress.receipt.has(2));
        assert!(incoming.unsaved(0).is_empty());
    }

    #[test]
    fn whole_files_are_checked_one_after_another_until_it_works() {
        let mut incoming = Incoming::new();
        let keys: Vec<TransferKey> = (1..=2).map(|n| (FROM, open(&mut incoming, n, 100))).collect();
        for key in &keys {
            let row = incoming.written(key, &[0], 0).unwrap();
            assert!(incoming.saved(key, &row.bitmap).unwrap().whole);
        }
        let next = |incoming: &mut Incoming| incoming.next_to_check().map(|(key, _)| key);
        let mut in_order = keys.clone();
        in_order.sort();
        assert_eq!(next(&mut incoming), Some(in_order[0]));
        incoming.check_failed(&in_order[0]);
        assert_eq!(next(&mut incoming), Some(in_order[1]), "the other is not held up");
        assert_eq!(next(&mut incoming), None);
        incoming.complete(&in_order[1]);
        incoming.check_again();
        assert_eq!(next(&mut incoming), Some(in_order[0]));
        incoming.check_again();
        assert_eq!(next(&mut incoming), None);
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
    fn a_file_that_does_not_come_forward_is_given_up_after_a_day() {
        let mut incoming = Incoming::new();
        // Whatever its signer says of its lifetime.
        let tag = open(&mut incoming, 1, 3 * CHUNK_BYTES as u64);
        let key = (FROM, tag);
        assert_eq!(incoming.forget(PARTIAL_IDLE_S), []);
        let row = incoming.written(&key, &[0], 1000).unwrap();
        assert_eq!(row.until_unix_s(), PARTIAL_IDLE_S + 1000);
        assert_eq!(incoming.forget(PARTIAL_IDLE_S + 1000), []);
        assert_eq!(incoming.forget(PARTIAL_IDLE_S + 1001), [(key, UID, false)]);
        // What came in whole is remembered as long as dedup is.
        let mut record = take_up(&mut incoming, FROM, 1, 100).unwrap();
        record.dedup_until_unix_s = 3 * PARTIAL_IDLE_S;
        incoming.opened(record);
        incoming.complete(&key);
        assert_eq!(incoming.forget(3 * PARTIAL_IDLE_S), []);
        assert_eq!(incoming.forget(3 * PARTIAL_IDLE_S + 1), [(key, UID, true)]);
        assert!(incoming.is_empty());
    }

    #[test]
    fn rows_of_an_earlier_version_get_a_day_too() {
        let mut incoming = Incoming::new();
        let mut record = take_up(&mut incoming, FROM, 1, 100).unwrap();
        let tag = record.key().1;
        record.give_up_unix_s = None;
        incoming.restore(tag, record, 50);
        assert_eq!(incoming.forget(50 + PARTIAL_IDLE_S), []);
        assert_eq!(incoming.forget(51 + PARTIAL_IDLE_S), [((FROM, tag), UID, false)]);
    }

    #[test]
    fn a_source_opens_a_few_files_only_and_room_counts_from_the_first_moment() {
        let mut incoming = Incoming::new();
        for key in 0..PARTIALS_PER_SOURCE as u8 {
            assert_eq!(incoming.manifest(&offer(FROM, key, 100)), OnManifest::New);
            assert_eq!(incoming.manifest(&offer(FROM, key, 100)), OnManifest::Coming);
        }
        // None of them is stored yet.
        assert_eq!(incoming.manifest(&offer(FROM, 99, 100)), OnManifest::Refused);
        let first = incoming.take_up(&offer(FROM, 0, 100), false, 0).unwrap();
        let key = first.key();
        incoming.opened(first);
        assert!(matches!(incoming.manifest(&offer(FROM, 0, 100)), OnManifest::Known(_)));
        assert_eq!(incoming.manifest(&offer(FROM, 99, 100)), OnManifest::Refused);
        // One that the store did not take makes room, and so does one that came in whole.
        let second = incoming.take_up(&offer(FROM, 1, 100), false, 0).unwrap();
        incoming.not_opened(&second.key());
        assert_eq!(incoming.manifest(&offer(FROM, 99, 100)), OnManifest::New);
        incoming.complete(&key);
        assert_eq!(incoming.manifest(&offer(FROM, 98, 100)), OnManifest::New);
        assert_eq!(incoming.manifest(&offer(FROM, 97, 100)), OnManifest::Refused);
    }

    #[test]
    fn strangers_have_a_few_files_open_with_all_of_them_together() {
        let mut incoming = Incoming::new();
        let stranger = |n: u8| Address([n; 16]);
        for n in 0..STRANGERS_PARTIALS as u8 {
            assert!(take_up(&mut incoming, stranger(n), n, 100).is_some());
        }
        assert_eq!(take_up(&mut incoming, stranger(99), 99, 100), None);
        // Its room is free again, and whoever is known has a share of its own.
        assert_eq!(incoming.manifest(&offer(FROM, 99, 100)), OnManifest::New);
        let known = incoming.take_up(&offer(FROM, 99, 100), false, 0);
        assert!(known.is_some());

        let mut incoming = Incoming::new();
        assert!(take_up(&mut incoming, stranger(1), 1, STRANGERS_BYTES_MAX - 100).is_some());
        assert_eq!(take_up(&mut incoming, stranger(2), 2, 101), None);
        assert!(take_up(&mut incoming, stranger(2), 3, 100).is_some());
    }
}

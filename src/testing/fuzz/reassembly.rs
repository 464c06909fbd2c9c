//! Files on their way in, chunk by chunk, beside a model of what is durable: a receipt never says more
//! than is committed, nobody has more open than it may, and who sends everything ends with all of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    proto::delivery::{
        record::PartialRecord,
        transfer::{
            Incoming, Offer, OnChunk, OnManifest, PARTIAL_BYTES_MAX, PARTIALS_PER_SOURCE, Progress,
            STRANGERS_BYTES_MAX, STRANGERS_PARTIALS, TransferKey, chunk_offset, sealed_chunk_len,
        },
    },
    wire::{
        Address, Digest, MessageUid, PacketId,
        content::{Chunk, Manifest, chunk_count},
        limits::{CHUNK_BYTES, CONTENT_BYTES_MAX},
        receipt::{ChunkReceipt, TransferState},
    },
};

use super::Script;

/// Files that there are, two of each source.
const FILES: u8 = 16;

enum State {
    /// The row is on its way to the store.
    Opening(Option<PartialRecord>),
    /// Chunks that are committed; none where the file is whole and in the inbox.
    Open(Option<Vec<bool>>),
}

struct File {
    state: State,
    length: u64,
    stranger: bool,
}

struct Story {
    incoming: Incoming,
    files: BTreeMap<TransferKey, File>,
    now_s: u64,
    /// Rows on their way to the store.
    saving: Vec<(TransferKey, PartialRecord)>,
    checking: Vec<TransferKey>,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut story = Story {
        incoming: Incoming::new(),
        files: BTreeMap::new(),
        now_s: 1_800_000_000,
        saving: Vec::new(),
        checking: Vec::new(),
    };
    while let Some(kind) = script.step() {
        story.step(kind, &mut script);
        story.check();
    }
}

/// A file by its number: who sends it, and how long it is.
fn offer(n: u8) -> Offer {
    let lengths = [0, 1, CHUNK_BYTES as u64, 3 * CHUNK_BYTES as u64 + 1, CONTENT_BYTES_MAX];
    Offer {
        packet_id: PacketId([n; 16]),
        from: Address([n % 3; 16]),
        manifest: Manifest {
            uid: MessageUid([n; 16]),
            name: String::new(),
            sent_at_unix_ms: 0,
            length: lengths[usize::from(n) % lengths.len()],
            sha256: Digest([0; 32]),
            file_key: [n; 32],
        },
        hops: 1,
        dedup_until_unix_s: 1_800_000_000 + u64::from(n) * 10_000,
    }
}

impl Story {
    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        let file = offer(script.below(FILES));
        let key = file.key();
        match kind % 16 {
            0..=2 => self.manifest(&file, script.bool()),
            3 => self.opened(&key, script.below(8) != 1),
            4..=6 => self.chunk(&file, script),
            7 | 8 => {
                let total = chunk_count(file.manifest.length);
                let indices: Vec<u32> = (0..=script.below(9)).map(|_| script.u32() % total.max(1)).collect();
                if let Some(row) = self.incoming.written(&key, &indices, self.now_s) {
                    assert!(self.is_arriving(&key), "a row of a file that is not on its way");
                    self.saving.push((key, row));
                }
            }
            9..=11 => self.saved(usize::from(script.u8()), script.below(6) != 1),
            12 => {
                for (row, packets) in self.incoming.unsaved(self.now_s) {
                    assert!(packets.len() <= 1024);
                    self.saving.push((row.key(), row));
                }
            }
            13 => self.checks(script),
            14 => {
                self.now_s = self.now_s.saturating_add(script.edge(u64::MAX / 4) % 200_000);
                for (key, _, was_complete) in self.incoming.forget(self.now_s) {
                    let Some(file) = self.files.remove(&key) else { panic!("forgot what was not there") };
                    assert_eq!(was_complete, matches!(file.state, State::Open(None)));
                    self.checking.retain(|checked| *checked != key);
                }
            }
            _ if kind & 16 == 0 => {
                let closed = self.incoming.close(&key);
                let was_open = matches!(self.files.get(&key), Some(File { state: State::Open(_), .. }));
                assert_eq!(closed.is_some(), was_open);
                if was_open {
                    self.files.remove(&key);
                    self.checking.retain(|checked| *checked != key);
                }
            }
            _ => self.incoming.check_again(),
        }
    }

    fn is_arriving(&self, key: &TransferKey) -> bool {
        matches!(self.files.get(key), Some(File { state: State::Open(Some(_)), .. }))
    }

    fn manifest(&mut self, offer: &Offer, stranger: bool) {
        let key = offer.key();
        match self.incoming.manifest(offer) {
            OnManifest::New => {
                assert!(!self.files.contains_key(&key));
                let row = self.incoming.take_up(offer, stranger, self.now_s);
                let (count, bytes) = self.of(|_, file| file.stranger);
                let bytes = bytes + offer.manifest.length;
                let fits = !stranger || (count < STRANGERS_PARTIALS && bytes <= STRANGERS_BYTES_MAX);
                assert_eq!(row.is_some(), fits);
                let Some(row) = row else { return };
                assert!(row.key() == key && !row.complete);
                let state = State::Opening(Some(row));
                self.files.insert(key, File { state, length: offer.manifest.length, stranger });
            }
            OnManifest::Coming => {
                assert!(matches!(self.files.get(&key), Some(File { state: State::Opening(_), .. })));
            }
            OnManifest::Known(receipt) => self.is_true(&key, &receipt),
            OnManifest::Refused => {
                assert!(!self.files.contains_key(&key));
                let (count, _) = self.of(|key, _| key.0 == offer.from);
                let (_, bytes) = self.of(|_, _| true);
                assert!(count >= PARTIALS_PER_SOURCE || bytes + offer.manifest.length > PARTIAL_BYTES_MAX);
            }
        }
    }

    /// Files that are open or about to be, and not whole: how many, and their bytes.
    fn of(&self, is_meant: impl Fn(&TransferKey, &File) -> bool) -> (usize, u64) {
        let arriving = self.files.iter().filter(|(_, file)| !matches!(file.state, State::Open(None)));
        let meant = arriving.filter(|(key, file)| is_meant(key, file));
        meant.fold((0, 0), |(count, bytes), (_, file)| (count + 1, bytes + file.length))
    }

    fn opened(&mut self, key: &TransferKey, is_stored: bool) {
        let Some(File { state: State::Opening(row), length, .. }) = self.files.get_mut(key) else { return };
        let Some(row) = row.take() else { return };
        if !is_stored {
            self.incoming.not_opened(key);
            self.files.remove(key);
            return;
        }
        let chunks = vec![false; chunk_count(*length) as usize];
        let receipt = self.incoming.opened(row);
        if let Some(file) = self.files.get_mut(key) {
            file.state = State::Open(Some(chunks));
        }
        self.is_true(key, &receipt);
        let last = chunk_count(offer_length(&self.files, key)).saturating_sub(1);
        let length = offer_length(&self.files, key);
        let sealed = chunk_offset(last) + sealed_chunk_len(last, length) as u64;
        assert_eq!(self.incoming.sealed_len(key), Some(sealed));
    }

    fn chunk(&mut self, offer: &Offer, script: &mut Script<'_>) {
        let (key, length) = (offer.key(), offer.manifest.length);
        let total = chunk_count(length);
        let is_odd = script.below(8) == 1;
        let chunk_total = if is_odd { script.u32() } else { total };
        // What is decoded names a chunk below its own total.
        let index = script.u32() % chunk_total.max(1);
        let bytes = sealed_chunk_len(index, length) + usize::from(is_odd && script.bool());
        let fits = chunk_total == total && bytes == sealed_chunk_len(index, length);
        let ciphertext = Bytes::from(vec![0; bytes.min(CHUNK_BYTES + 17)]);
        let chunk = Chunk { tag: key.1, index, total: chunk_total, ciphertext };
        let state = self.files.get(&key).map(|file| &file.state);
        match self.incoming.chunk(offer.from, &chunk) {
            OnChunk::NoManifest(receipt) => {
                assert!(!matches!(state, Some(State::Open(_))));
                assert_eq!(receipt.state, TransferState::ManifestWanted);
            }
            OnChunk::Misfit => assert!(!fits),
            OnChunk::Known(receipt) => {
                assert!(fits);
                if let Some(State::Open(Some(chunks))) = state {
                    assert_eq!(chunks.get(index as usize), Some(&true), "it is not on record");
                }
                self.is_true(&key, &receipt);
            }
            OnChunk::Write => {
                assert!(fits);
                let Some(State::Open(Some(chunks))) = state else { panic!("of a file that is not open") };
                assert_ne!(chunks.get(index as usize), Some(&true));
            }
        }
    }

    /// A row is durable, or the store did not take it.
    fn saved(&mut self, which: usize, is_stored: bool) {
        if self.saving.is_empty() {
            return;
        }
        let (key, row) = self.saving.remove(which % self.saving.len());
        if !is_stored {
            return self.incoming.not_saved(&key, vec![row.packet_id]);
        }
        if let Some(File { state: State::Open(Some(chunks)), .. }) = self.files.get_mut(&key) {
            for (index, chunk) in chunks.iter_mut().enumerate() {
                let bit = row.bitmap.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0);
                *chunk |= bit;
            }
        }
        let Some(Progress { receipt, whole }) = self.incoming.saved(&key, &row.bitmap) else { return };
        self.is_true(&key, &receipt);
        let is_whole = match self.files.get(&key).map(|file| &file.state) {
            Some(State::Open(Some(chunks))) => chunks.iter().all(|chunk| *chunk),
            _ => false,
        };
        assert_eq!(whole, is_whole);
    }

    fn checks(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 | 1 => {
                let Some((key, _)) = self.incoming.next_to_check() else { return };
                let state = self.files.get(&key).map(|file| &file.state);
                let Some(State::Open(Some(chunks))) = state else { panic!("of a file that is not open") };
                assert!(chunks.iter().all(|chunk| *chunk), "checked before it is whole");
                assert!(!self.checking.contains(&key), "checked twice at a time");
                self.checking.push(key);
            }
            2 => {
                let Some(key) = self.checking.pop() else { return };
                self.incoming.check_failed(&key);
            }
            _ => {
                let Some(key) = self.checking.pop() else { return };
                let receipt = self.incoming.complete(&key);
                if let Some(file) = self.files.get_mut(&key) {
                    file.state = State::Open(None);
                }
                match receipt {
                    Some(receipt) => self.is_true(&key, &receipt),
                    None => panic!("what was checked is gone"),
                }
            }
        }
    }

    /// A receipt says what is committed, no more and no less.
    fn is_true(&self, key: &TransferKey, receipt: &ChunkReceipt) {
        assert_eq!(receipt.tag, key.1);
        match self.files.get(key).map(|file| (&file.state, file.length)) {
            Some((State::Open(None), _)) => assert_eq!(receipt.state, TransferState::Complete),
            Some((State::Open(Some(chunks)), length)) => {
                assert_eq!((receipt.state, receipt.total), (TransferState::Partial, chunk_count(length)));
                for index in 0..receipt.bitmap.len() * 8 {
                    let said = receipt.bitmap[index / 8] & (1 << (index % 8)) != 0;
                    assert_eq!(said, chunks.get(index).copied().unwrap_or(false), "chunk {index}");
                }
            }
            _ => panic!("a receipt for a file that is not open"),
        }
    }

    fn check(&self) {
        let open = self.files.values().filter(|file| matches!(file.state, State::Open(_))).count();
        assert_eq!(self.incoming.len(), open);
        let (_, bytes) = self.of(|_, _| true);
        assert!(bytes <= PARTIAL_BYTES_MAX);
        let (count, bytes) = self.of(|_, file| file.stranger);
        assert!(count <= STRANGERS_PARTIALS && bytes <= STRANGERS_BYTES_MAX);
        for source in 0..3 {
            assert!(self.of(|key, _| key.0 == Address([source; 16])).0 <= PARTIALS_PER_SOURCE);
        }
    }
}

fn offer_length(files: &BTreeMap<TransferKey, File>, key: &TransferKey) -> u64 {
    files.get(key).map_or(0, |file| file.length)
}

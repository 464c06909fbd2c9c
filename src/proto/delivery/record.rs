//! Records of the outbox and the inbox as the store keeps them.
//!
//! Local to one node, never sent: named fields in CBOR, so that a later version can add some.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroize;

use crate::{
    crypto::FileKey,
    wire::{Address, Digest, Lifetime, MessageUid, PacketId, Priority, TransferTag, content::Manifest},
};

/// A record that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("a stored {what} record cannot be read: {detail}")]
pub struct RecordError {
    /// Which kind of record.
    pub what: &'static str,
    /// What the decoder said.
    pub detail: String,
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail, and records hold no type that CBOR cannot spell.
    if ciborium::into_writer(value, &mut out).is_err() {
        out.clear();
    }
    out
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, RecordError> {
    ciborium::from_reader(bytes).map_err(|e| RecordError { what, detail: e.to_string() })
}

/// The key and shape of a file whose chunks lie sealed in a blob.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes of the whole.
    pub length: u64,
    /// SHA-256 over the whole.
    pub sha256: Digest,
    /// Key the chunks are sealed under.
    pub file_key: Digest,
}

impl std::fmt::Debug for FileRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRecord").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for FileRecord {
    fn drop(&mut self) {
        self.file_key.0.zeroize();
    }
}

impl FileRecord {
    /// The record of a manifest's file.
    pub fn of(manifest: &Manifest) -> Self {
        Self { length: manifest.length, sha256: manifest.sha256, file_key: Digest(manifest.file_key) }
    }
}

/// Where a message's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// In the record.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In a blob named after the message's uid.
    File(FileRecord),
}

impl Body {
    /// Bytes of the content.
    pub fn len(&self) -> u64 {
        match self {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File(file) => file.length,
        }
    }

    /// True for a content of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message on its way out. Plain text: the store seals the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRecord {
    /// The message's id.
    pub uid: MessageUid,
    /// Who it is for.
    pub destination: Address,
    /// File name, empty where there is none.
    pub name: String,
    /// When it was sent, milliseconds since 1970.
    pub sent_at_unix_ms: u64,
    /// Lifetime code.
    pub lifetime: u8,
    /// Priority bits.
    pub priority: u8,
    /// Its content.
    pub body: Body,
}

impl OutboxRecord {
    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        from_bytes(bytes, "outbox")
    }

    /// Seconds since 1970 at which it was made.
    pub fn created_unix_s(&self) -> u64 {
        self.sent_at_unix_ms / 1000
    }

    /// Its lifetime; the longest where the code is none.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime::from_code(self.lifetime).unwrap_or(Lifetime::MAX)
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        Priority::from_bits(self.priority)
    }

    /// The manifest that announces it, where it is a file.
    pub fn manifest(&self) -> Option<Manifest> {
        match &self.body {
            Body::Inline(_) => None,
            Body::File(file) => Some(Manifest {
                uid: self.uid,
                name: self.name.clone(),
                sent_at_unix_ms: self.sent_at_unix_ms,
                length: file.length,
                sha256: file.sha256,
                file_key: file.file_key.0,
            }),
        }
    }
}

/// The state of an outbox row: what a restart is to know of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutboxState {
    /// How often its handler fell over it.
    #[serde(default)]
    pub falls: u8,
    /// Where custodians have it.
    #[serde(default)]
    pub custody: Option<CustodyState>,
}

/// A message that custodians have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodyState {
    /// Attempts that a custodian took.
    pub taken: u8,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is sent again unless its destination can be reached before, in seconds of steady time.
    pub retry_at_s: u64,
}

impl OutboxState {
    /// Writes the state.
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads a state. A new row has none yet, and one that cannot be read costs the message no more
    /// than a try.
    pub fn decode(bytes: &[u8]) -> Self {
        from_bytes(bytes, "outbox state").unwrap_or_default()
    }
}

/// A message that has arrived and waits for whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRecord {
    /// The message's id.
    pub uid: MessageUid,
    /// Who signed it.
    pub from: Address,
    /// True when it was sent to everyone.
    pub broadcast: bool,
    /// File name by the sender's word, empty where there is none.
    pub name: String,
    /// When it was sent, by the sender's clock.
    pub sent_at_unix_ms: u64,
    /// When it was stored here.
    pub received_at_unix_ms: u64,
    /// Links crossed.
    pub hops: u8,
    /// Its content.
    pub body: Body,
}

impl InboxRecord {
    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        from_bytes(bytes, "inbox")
    }
}

/// A file that is arriving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRecord {
    /// The packet the manifest came in.
    pub packet_id: PacketId,
    /// True when the file is in the inbox; the record then only answers repeats.
    pub complete: bool,
    /// The message's id.
    pub uid: MessageUid,
    /// Who signed it.
    pub from: Address,
    /// File name by the sender's word.
    pub name: String,
    /// When it was sent, by the sender's clock.
    pub sent_at_unix_ms: u64,
    /// Links the manifest crossed.
    pub hops: u8,
    /// True where its source was a stranger when it began. On record, since a stranger does not stay
    /// one; true for rows that do not say.
    #[serde(default = "yes")]
    pub stranger: bool,
    /// Seconds since 1970 after which dedup may forget the message.
    pub dedup_until_unix_s: u64,
    /// Seconds since 1970 after which it is given up unless it comes forward; rows of an earlier
    /// version do not say.
    #[serde(default)]
    pub give_up_unix_s: Option<u64>,
    /// Key and shape.
    pub file: FileRecord,
    /// Which chunks are durably here.
    #[serde(with = "serde_bytes")]
    pub bitmap: Vec<u8>,
}

impl PartialRecord {
    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        from_bytes(bytes, "partial file")
    }

    /// Names the transfer: who sends it and its tag.
    pub fn key(&self) -> (Address, TransferTag) {
        (self.from, FileKey::from_bytes(self.file.file_key.0).transfer_tag())
    }

    /// What is left of it once the file is in the inbox.
    pub fn completed(&self) -> Self {
        Self { complete: true, bitmap: Vec::new(), ..self.clone() }
    }

    /// Seconds since 1970 after which it is forgotten. Its signer wrote when dedup may forget it, so
    /// that is no bound on how long a file may stay half here.
    pub fn until_unix_s(&self) -> u64 {
        let give_up = self.give_up_unix_s.filter(|_| !self.complete);
        give_up.map_or(self.dedup_until_unix_s, |at| at.min(self.dedup_until_unix_s))
    }
}

fn yes() -> bool {
    true
}

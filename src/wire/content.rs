//! What people send: the inside of a seal, broadcasts, file manifests and chunks.
//!
//! Names and times here are the sender's word: sealed and signed, but not checked by anyone.

use bytes::Bytes;
use zeroize::Zeroize;

use super::{
    cbor::{self, Reader},
    error::DecodeError,
    ids::{Digest, MessageUid, TransferTag, UidPrefix},
    limits::{
        CHUNK_BYTES, CHUNKS_MAX, CONTENT_BYTES_MAX, FILE_NAME_BYTES_MAX, PAYLOAD_BYTES_MAX,
        SEAL_PLAINTEXT_BYTES_MAX,
    },
};

/// Content of one message, in one envelope: `[uid, 0, name, sent_at_ms, bytes, ?follows]` inside a seal,
/// and the whole payload of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What people see as the message's id.
    pub uid: MessageUid,
    /// File name, empty where there is none.
    pub name: String,
    /// When it was sent, in milliseconds since 1970 by the sender's clock.
    pub sent_at_unix_ms: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// The message of this sender, priority and destination that was sent before it and was not
    /// receipted yet when this envelope was made; never in a broadcast.
    pub follows: Option<UidPrefix>,
}

/// Announces a file whose chunks follow: `[uid, 1, name, sent_at_ms, length, sha256, file_key]`
/// inside a seal.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What people see as the message's id.
    pub uid: MessageUid,
    /// File name, empty where there is none.
    pub name: String,
    /// When it was sent, in milliseconds since 1970 by the sender's clock.
    pub sent_at_unix_ms: u64,
    /// Bytes of the whole.
    pub length: u64,
    /// SHA-256 over the whole.
    pub sha256: Digest,
    /// Key the chunks are sealed under; drawn for this file alone.
    pub file_key: [u8; 32],
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest")
            .field("uid", &self.uid)
            .field("name", &self.name)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Drop for Manifest {
    fn drop(&mut self) {
        self.file_key.zeroize();
    }
}

impl Manifest {
    /// Chunks of the file.
    pub fn chunks(&self) -> u32 {
        chunk_count(self.length)
    }
}

/// Chunks of a file of `length` bytes; at least one.
pub fn chunk_count(length: u64) -> u32 {
    u32::try_from(length.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX).max(1)
}

/// What a seal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// A message in one envelope.
    Content(Content),
    /// A file whose chunks come in envelopes of their own.
    Manifest(Manifest),
}

/// Type number of a content.
const TYPE_CONTENT: u64 = 0;
/// Type number of a manifest.
const TYPE_MANIFEST: u64 = 1;

/// Bytes of the AEAD tag that ends each chunk's ciphertext.
const AEAD_TAG_BYTES: usize = 16;

impl Sealed {
    /// The message's uid.
    pub fn uid(&self) -> MessageUid {
        match self {
            Sealed::Content(c) => c.uid,
            Sealed::Manifest(m) => m.uid,
        }
    }

    /// Reads what a seal held.
    pub fn decode(plaintext: &Bytes) -> Result<Self, DecodeError> {
        read(plaintext, SEAL_PLAINTEXT_BYTES_MAX)
    }

    /// Writes the plaintext to seal.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Sealed::Content(content) => content.encode(),
            Sealed::Manifest(m) => {
                let mut out = Vec::with_capacity(160);
                cbor::put_array(&mut out, 7);
                cbor::put_bytes(&mut out, &m.uid.0);
                cbor::put_uint(&mut out, TYPE_MANIFEST);
                put_text(&mut out, &m.name);
                cbor::put_uint(&mut out, m.sent_at_unix_ms);
                cbor::put_uint(&mut out, m.length);
                cbor::put_bytes(&mut out, &m.sha256.0);
                cbor::put_bytes(&mut out, &m.file_key);
                out
            }
        }
    }
}

impl Content {
    /// Reads the payload of a broadcast.
    pub fn decode_broadcast(payload: &Bytes) -> Result<Self, DecodeError> {
        match read(payload, PAYLOAD_BYTES_MAX)? {
            Sealed::Content(content) if content.follows.is_none() => Ok(content),
            Sealed::Content(_) => {
                Err(DecodeError::Shape { message: "broadcast", detail: "a broadcast follows nothing".into() })
            }
            Sealed::Manifest(_) => Err(DecodeError::Shape {
                message: "broadcast",
                detail: "a manifest cannot be broadcast".into(),
            }),
        }
    }

    /// Writes the payload of a broadcast, or the plaintext to seal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len().saturating_add(64));
        cbor::put_array(&mut out, if self.follows.is_some() { 6 } else { 5 });
        cbor::put_bytes(&mut out, &self.uid.0);
        cbor::put_uint(&mut out, TYPE_CONTENT);
        put_text(&mut out, &self.name);
        cbor::put_uint(&mut out, self.sent_at_unix_ms);
        cbor::put_bytes(&mut out, &self.bytes);
        if let Some(follows) = &self.follows {
            cbor::put_bytes(&mut out, &follows.0);
        }
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(FILE_NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let text = text.get(..end).unwrap_or("");
    cbor::put_head(out, cbor::major::TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn read(bytes: &Bytes, max: usize) -> Result<Sealed, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { field: "content", got: bytes.len() as u64, limit: max as u64 });
    }
    let mut r = Reader::new(bytes);
    let elements = r.array(5, 7, "content")?;
    let uid = MessageUid(r.fixed("uid")?);
    let offset = r.offset();
    let kind = r.uint(u64::from(u8::MAX), "content type")?;
    let wrong_type = DecodeError::OutOfRange { field: "content type", offset, got: kind };
    let name = r.text(FILE_NAME_BYTES_MAX, "name")?.to_owned();
    let sent_at_unix_ms = r.uint(u64::MAX, "sent_at")?;
    let sealed = match (kind, elements) {
        (TYPE_CONTENT, 5 | 6) => {
            let bytes = bytes.slice_ref(r.bytes(max, "content bytes")?);
            let follows = if elements == 6 { Some(UidPrefix(r.fixed("follows")?)) } else { None };
            Sealed::Content(Content { uid, name, sent_at_unix_ms, bytes, follows })
        }
        (TYPE_MANIFEST, 7) => {
            let length = r.uint(CONTENT_BYTES_MAX, "length")?;
            let sha256 = Digest(r.fixed("sha256")?);
            let file_key = r.fixed("file_key")?;
            Sealed::Manifest(Manifest { uid, name, sent_at_unix_ms, length, sha256, file_key })
        }
        _ => return Err(wrong_type),
    };
    r.finish()?;
    Ok(sealed)
}

/// Payload of a chunk envelope: `[tag, index, total, ciphertext]`. The AEAD tag binds uid, index
/// and total; the transfer tag only says which file key to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which file.
    pub tag: TransferTag,
    /// Which chunk, from 0.
    pub index: u32,
    /// Chunks of the whole file.
    pub total: u32,
    /// The sealed bytes, with their 16-byte AEAD tag.
    pub ciphertext: Bytes,
}

impl Chunk {
    /// Reads the payload.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        r.array(4, 4, "chunk")?;
        let tag = TransferTag(r.fixed("tag")?);
        let offset = r.offset();
        let index = r.u32("index")?;
        let total = r.uint(u64::from(CHUNKS_MAX), "total")? as u32;
        if index >= total {
            return Err(DecodeError::OutOfRange { field: "index", offset, got: u64::from(index) });
        }
        let offset = r.offset();
        let ciphertext = payload.slice_ref(r.bytes(CHUNK_BYTES + AEAD_TAG_BYTES, "ciphertext")?);
        if ciphertext.len() < AEAD_TAG_BYTES {
            return Err(DecodeError::OutOfRange {
                field: "ciphertext",
                offset,
                got: ciphertext.len() as u64,
            });
        }
        r.finish()?;
        Ok(Self { tag, index, total, ciphertext })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.ciphertext.len().saturating_add(40));
        cbor::put_array(&mut out, 4);
        cbor::put_bytes(&mut out, &self.tag.0);
        cbor::put_uint(&mut out, u64::from(self.index));
        cbor::put_uint(&mut out, u64::from(self.total));
        cbor::put_bytes(&mut out, &self.ciphertext);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_into_chunks_that_fill_an_envelope() {
        let chunk = CHUNK_BYTES as u64;
        for (length, chunks) in [(0, 1), (1, 1), (chunk, 1), (chunk + 1, 2), (CONTENT_BYTES_MAX, CHUNKS_MAX)]
        {
            assert_eq!(chunk_count(length), chunks, "{length}");
        }
        assert_eq!(chunk_count(u64::MAX), u32::MAX);
        let largest = Chunk {
            tag: TransferTag([0; 16]),
            index: u32::MAX - 1,
            total: u32::MAX,
            ciphertext: vec![0; CHUNK_BYTES + AEAD_TAG_BYTES].into(),
        };
        assert_eq!(largest.encode().len(), PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn a_chunk_without_room_for_its_tag_is_refused() {
        let chunk =
            |len| Chunk { tag: TransferTag([0; 16]), index: 0, total: 1, ciphertext: vec![0; len].into() };
        assert!(Chunk::decode(&chunk(15).encode().into()).is_err());
        assert!(Chunk::decode(&chunk(16).encode().into()).is_ok());
    }

    #[test]
    fn a_manifest_prints_no_key() {
        let manifest = Manifest {
            uid: MessageUid([1; 16]),
            name: "file".into(),
            sent_at_unix_ms: 0,
            length: 0,
            sha256: Digest([2; 32]),
            file_key: [0xc5; 32],
        };
        let shown = format!("{manifest:?}");
        assert!(!shown.contains("197") && !shown.contains("c5c5"), "{shown}");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let content = Content {
            uid: MessageUid([0; 16]),
            name: "ß".repeat(200),
            sent_at_unix_ms: 0,
            bytes: Bytes::new(),
            follows: None,
        };
        let read = Content::decode_broadcast(&content.encode().into()).expect("a content");
        assert_eq!(read.name, "ß".repeat(127));
    }
}

//! Any bytes as what a seal holds, a broadcast, a chunk.

use bytes::Bytes;

use crate::wire::{
    content::{Chunk, Content, Sealed},
    limits::{CHUNKS_MAX, CONTENT_BYTES_MAX, FILE_NAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
};

use super::same;

pub(super) fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let sealed = Sealed::decode(&bytes);
    if let Ok(Sealed::Manifest(manifest)) = &sealed {
        assert!(manifest.length <= CONTENT_BYTES_MAX && manifest.name.len() <= FILE_NAME_BYTES_MAX);
        assert!(manifest.chunks() <= CHUNKS_MAX);
    }
    same(data, sealed.map(|sealed| sealed.encode()));
    same(data, Content::decode_broadcast(&bytes).map(|content| content.encode()));
    let chunk = Chunk::decode(&bytes);
    if let Ok(chunk) = &chunk {
        assert!(chunk.index < chunk.total && chunk.total <= CHUNKS_MAX);
        assert!(chunk.ciphertext.len() <= PAYLOAD_BYTES_MAX);
    }
    same(data, chunk.map(|chunk| chunk.encode()));
}

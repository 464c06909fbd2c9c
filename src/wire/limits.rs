//! Every size and count limit of the wire, each with its reason.

/// Largest link frame in bytes, its own length prefix excluded: one frame never holds a link's
/// send path for long, and a 16-bit length prefix says it.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Largest payload of one envelope in bytes: leaves a frame room for every header, a Merkle path
/// and the frame's own extensions.
pub const PAYLOAD_BYTES_MAX: usize = 15 * 1024;

/// Deepest nesting of arrays and maps in any message.
pub const CBOR_DEPTH_MAX: usize = 8;

/// Largest signed hop limit.
pub const MAX_HOPS_MAX: u8 = 128;

/// Levels of a Merkle path: 256 envelopes under one signature, 32 bytes a level.
pub const MERKLE_LEVELS_MAX: usize = 8;

/// Packet ids one receipt names, so that a receipt stays below 5 KiB and its check bounded.
pub const RECEIPT_IDS_MAX: usize = 256;

/// Chunk bitmaps one receipt carries; a receiver keeps at most four partial files of a stranger.
pub const RECEIPT_BITMAPS_MAX: usize = 8;

/// Packet ids one custody acknowledgement names (one store commit).
pub const CUSTODY_IDS_MAX: usize = 256;

/// Receiver keys in one key record: the current one and the one before it.
pub const KEY_RECORD_KEYS_MAX: usize = 2;

/// Optional service data of an announce in bytes.
pub const SERVICE_DATA_BYTES_MAX: usize = 256;

/// Text of a goodbye in bytes.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 128;

/// Name of a file in bytes, UTF-8.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Largest content `send` carries.
pub const CONTENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Plain bytes of a file in each chunk but the last. With the AEAD tag and the chunk's header
/// (tag 17, index 5, total 5, array and byte string heads 4) a chunk fills an envelope.
pub const CHUNK_BYTES: usize = PAYLOAD_BYTES_MAX - 16 - 31;

/// Chunks of the largest content.
pub const CHUNKS_MAX: u32 = (CONTENT_BYTES_MAX as usize).div_ceil(CHUNK_BYTES) as u32;

/// What a sealed payload adds around its plaintext at most: array head 1, rk_id 5, E 34,
/// counter 5, byte string head 3, AEAD tag 16.
pub const SEAL_OVERHEAD_MAX: usize = 64;

/// Largest plaintext of one seal.
pub const SEAL_PLAINTEXT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - SEAL_OVERHEAD_MAX;

/// Content up to this size travels in one envelope; a larger one as a manifest and chunks. Leaves
/// room for the uid, the type, a file name and the time inside the seal.
pub const INLINE_CONTENT_BYTES_MAX: usize = SEAL_PLAINTEXT_BYTES_MAX - FILE_NAME_BYTES_MAX - 64;

/// Frames of a link before its peer's hello was accepted.
pub const HANDSHAKE_FRAMES_MAX: usize = 4;

/// Trace context in a frame extension: trace id 16, span id 8, flags 1 (W3C trace context).
pub const TRACE_CONTEXT_BYTES: usize = 25;

/// Addresses one withdrawal names: 8 KiB, half a frame.
pub const WITHDRAW_ADDRESSES_MAX: usize = 512;

/// Entries of one digest page: 12.5 KiB, below a frame.
pub const DIGEST_ENTRIES_MAX: usize = 512;

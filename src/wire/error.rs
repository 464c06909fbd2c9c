//! What can be wrong with bytes from a peer.

/// Bytes that are not a message of this protocol: what was wrong, where, in which field. They are to be
/// refused; who sent them breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside an item.
    #[error("truncated: {field} needs more bytes than are left at offset {offset}")]
    Truncated {
        /// Field being read.
        field: &'static str,
        /// Offset of the item's head.
        offset: usize,
    },
    /// Bytes follow the message's end.
    #[error("{count} trailing bytes after offset {offset}")]
    Trailing {
        /// Where the message ended.
        offset: usize,
        /// Bytes left over.
        count: usize,
    },
    /// The message is larger than its kind may be.
    #[error("{field} has {got} bytes, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        field: &'static str,
        /// Bytes or elements given.
        got: u64,
        /// Bytes or elements allowed.
        limit: u64,
    },
    /// An encoding that the deterministic form has another, shorter or sorted, spelling for.
    #[error("not deterministic CBOR at offset {offset}: {rule}")]
    NotCanonical {
        /// Offset of the item's head.
        offset: usize,
        /// The rule it breaks.
        rule: CanonicalRule,
    },
    /// Another type of item than the field has.
    #[error("{field} at offset {offset}: expected {expected}, got major type {got}")]
    WrongType {
        /// Field being read.
        field: &'static str,
        /// Offset of the item's head.
        offset: usize,
        /// What the field is.
        expected: &'static str,
        /// CBOR major type found.
        got: u8,
    },
    /// A number or length outside the field's range.
    #[error("{field} at offset {offset}: {got} is out of range")]
    OutOfRange {
        /// Field being read.
        field: &'static str,
        /// Offset of the item's head.
        offset: usize,
        /// Value found.
        got: u64,
    },
    /// Arrays or maps nested deeper than any message needs.
    #[error("nested deeper than {limit} levels at offset {offset}")]
    TooDeep {
        /// Offset of the innermost head.
        offset: usize,
        /// Levels allowed.
        limit: usize,
    },
    /// The item is sound CBOR but not the message's shape.
    #[error("{message}: {detail}")]
    Shape {
        /// Message being read.
        message: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// A frame type this version does not know. Counted and skipped, never punished.
    #[error("unknown frame type {0}")]
    UnknownFrame(u64),
}

/// The rules of RFC 8949 §4.2.1 and ours on top, each with the name a person finds in
/// `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalRule {
    /// Integers and lengths take the shortest form.
    #[error("integers and lengths take the shortest form")]
    ShortestLength,
    /// Indefinite lengths are not used.
    #[error("indefinite lengths are not used")]
    DefiniteLength,
    /// Map keys are integers, sorted and unique.
    #[error("map keys are integers, ascending, each once")]
    SortedKeys,
    /// No floats, tags, undefined or unassigned simple values.
    #[error("floats, tags and simple values other than false, true and null are not used")]
    ForbiddenType,
    /// Text is UTF-8.
    #[error("text is UTF-8")]
    Utf8,
    /// The typed message encodes to other bytes.
    #[error("the message has another, shorter spelling")]
    Respelled,
}

impl DecodeError {
    /// The same fault with its offset counted from `by` bytes further ahead: what a decoder of a
    /// nested item found, as seen from the whole message.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        match &mut self {
            DecodeError::Truncated { offset, .. }
            | DecodeError::Trailing { offset, .. }
            | DecodeError::NotCanonical { offset, .. }
            | DecodeError::WrongType { offset, .. }
            | DecodeError::OutOfRange { offset, .. }
            | DecodeError::TooDeep { offset, .. } => *offset = offset.saturating_add(by),
            DecodeError::TooLarge { .. } | DecodeError::Shape { .. } | DecodeError::UnknownFrame(_) => {}
        }
        self
    }

    /// Where the fault lies, in bytes from the message's start, for faults that have a place.
    pub fn offset(&self) -> Option<usize> {
        match self {
            DecodeError::Truncated { offset, .. }
            | DecodeError::Trailing { offset, .. }
            | DecodeError::NotCanonical { offset, .. }
            | DecodeError::WrongType { offset, .. }
            | DecodeError::OutOfRange { offset, .. }
            | DecodeError::TooDeep { offset, .. } => Some(*offset),
            DecodeError::TooLarge { .. } | DecodeError::Shape { .. } | DecodeError::UnknownFrame(_) => None,
        }
    }

    /// True where the bytes may come from a newer version rather than from a fault: such a frame
    /// is counted and skipped, and nobody is punished for it.
    pub fn is_unknown_version(&self) -> bool {
        matches!(self, DecodeError::UnknownFrame(_))
    }
}

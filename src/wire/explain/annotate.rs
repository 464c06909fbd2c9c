//! Walks bytes along a layout and writes a field for each item.

use super::{Field, layout::Layout};
use crate::wire::{
    cbor::{Reader, major},
    ids::hex,
    limits::CBOR_DEPTH_MAX,
};

/// Bytes of a byte string that are shown; longer ones say how long they are.
const SHOWN_BYTES_MAX: usize = 64;

/// Packet ids of one list that are shown.
const SHOWN_IDS_MAX: usize = 16;

/// Deepest item that is shown: the deepest message, and what lies in byte strings inside it.
const DEPTH_MAX: usize = 3 * CBOR_DEPTH_MAX;

/// Text with everything escaped that would move a terminal's cursor or turn its direction.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| if c == '"' || c == '\'' { c.to_string() } else { c.escape_debug().to_string() })
        .collect()
}

/// Every item of `bytes`, as far as it can be read.
pub(super) fn fields(bytes: &[u8], layout: &Layout) -> Vec<Field> {
    let mut walk = Walk { fields: Vec::new() };
    let _ = walk.item(&mut Reader::new(bytes), 0, 0, "message", layout);
    walk.fields
}

/// The walk ends where an item cannot be read; the decoder has said why.
struct Unreadable;

struct Walk {
    fields: Vec<Field>,
}

impl Walk {
    /// Reads one item at `reader`, whose first byte lies at `base` of the message.
    fn item(
        &mut self,
        reader: &mut Reader<'_>,
        base: usize,
        depth: usize,
        name: &str,
        layout: &Layout,
    ) -> Result<(), Unreadable> {
        let start = reader.offset();
        let at = self.fields.len();
        self.fields.push(Field {
            offset: base.saturating_add(start),
            bytes: 0,
            depth,
            name: name.to_owned(),
            value: String::new(),
            meaning: None,
        });
        let read = self.value(reader, base, depth, layout);
        let (value, meaning) = match &read {
            Ok((value, meaning)) => (value.clone(), meaning.clone()),
            Err(Unreadable) => ("unreadable".to_owned(), None),
        };
        if let Some(field) = self.fields.get_mut(at) {
            field.bytes = reader.offset().saturating_sub(start);
            field.value = value;
            field.meaning = meaning;
        }
        read.map(|_| ())
    }

    /// Reads an item's value, and writes the fields of what is inside it.
    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        base: usize,
        depth: usize,
        layout: &Layout,
    ) -> Result<(String, Option<String>), Unreadable> {
        if depth > DEPTH_MAX {
            return Err(Unreadable);
        }
        let inner = depth.saturating_add(1);
        match reader.peek_major().ok_or(Unreadable)? {
            major::UINT => {
                let number = reader.uint(u64::MAX, "").map_err(|_| Unreadable)?;
                let meaning = if let Layout::Number(of) = layout { of(number) } else { None };
                Ok((number.to_string(), meaning))
            }
            major::BYTES => {
                let bytes = reader.bytes(usize::MAX, "").map_err(|_| Unreadable)?;
                let content = base.saturating_add(reader.offset().saturating_sub(bytes.len()));
                self.byte_string(bytes, content, inner, layout)
            }
            major::TEXT => {
                let text = reader.text(usize::MAX, "").map_err(|_| Unreadable)?;
                Ok((format!("\"{}\"", escaped(text)), None))
            }
            major::ARRAY => {
                let count = reader.array(0, u64::MAX, "").map_err(|_| Unreadable)?;
                let layout = if let Layout::BytesOr(_, other) = layout { other } else { layout };
                for index in 0..count {
                    let (name, element) = element_of(layout, index);
                    self.item(reader, base, inner, &name, element)?;
                }
                Ok((format!("array of {count}"), None))
            }
            major::MAP => {
                let count = reader.map(u64::MAX, "").map_err(|_| Unreadable)?;
                for _ in 0..count {
                    let key = reader.uint(u64::MAX, "").map_err(|_| Unreadable)?;
                    let (name, entry) = entry_of(layout, key);
                    self.item(reader, base, inner, &name, entry)?;
                }
                Ok((format!("map of {count}"), None))
            }
            _ => {
                let start = reader.clone();
                reader.skip("").map_err(|_| Unreadable)?;
                Ok((simple(start), None))
            }
        }
    }

    fn byte_string(
        &mut self,
        bytes: &[u8],
        content: usize,
        inner: usize,
        layout: &Layout,
    ) -> Result<(String, Option<String>), Unreadable> {
        match layout {
            Layout::Inside(layout) => {
                self.item(&mut Reader::new(bytes), content, inner, "content", layout)?;
                Ok((format!("{} bytes", bytes.len()), None))
            }
            Layout::Opaque => Ok((shown(bytes), Some(format!("{} bytes", bytes.len())))),
            Layout::Bytes(meaning) | Layout::BytesOr(meaning, _) => {
                Ok((shown(bytes), Some((*meaning).to_owned())))
            }
            Layout::Ids => {
                let (ids, _) = bytes.as_chunks::<16>();
                for (index, id) in ids.iter().take(SHOWN_IDS_MAX).enumerate() {
                    self.fields.push(Field {
                        offset: content.saturating_add(index.saturating_mul(16)),
                        bytes: id.len(),
                        depth: inner,
                        name: format!("id {index}"),
                        value: hex(id),
                        meaning: None,
                    });
                }
                let more = ids.len().saturating_sub(SHOWN_IDS_MAX);
                let meaning = (more > 0).then(|| format!("{more} more are not shown"));
                Ok((format!("{} ids", ids.len()), meaning))
            }
            _ => Ok((shown(bytes), None)),
        }
    }
}

fn element_of(layout: &Layout, index: u64) -> (String, &Layout) {
    match layout {
        Layout::Array(elements) => match usize::try_from(index).ok().and_then(|index| elements.get(index)) {
            Some((name, layout)) => ((*name).to_owned(), layout),
            None => (format!("[{index}]"), &Layout::Plain),
        },
        Layout::List(name, layout) => (format!("{name} {index}"), layout),
        _ => (format!("[{index}]"), &Layout::Plain),
    }
}

fn entry_of(layout: &Layout, key: u64) -> (String, &Layout) {
    if let Layout::Map(entries) = layout
        && let Some((_, name, layout)) = entries.iter().find(|(number, _, _)| *number == key)
    {
        return ((*name).to_owned(), layout);
    }
    (format!("key {key}"), &Layout::Plain)
}

fn shown(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_BYTES_MAX) {
        Some(first) if bytes.len() > SHOWN_BYTES_MAX => format!("{}… ({} bytes)", hex(first), bytes.len()),
        _ if bytes.is_empty() => "empty".to_owned(),
        _ => hex(bytes),
    }
}

/// A negative integer, a truth value or null.
fn simple(reader: Reader<'_>) -> String {
    let mut rest = reader.rest();
    match ciborium::from_reader::<ciborium::Value, _>(&mut rest) {
        Ok(ciborium::Value::Integer(number)) => i128::from(number).to_string(),
        Ok(ciborium::Value::Bool(value)) => value.to_string(),
        Ok(ciborium::Value::Null) => "null".to_owned(),
        _ => "of another type".to_owned(),
    }
}

//! CBOR as a tree of items, read by a second, lenient reader: for diagnostic notation and for
//! making twins.

use std::fmt::Write;

use quicprochat_mesh::wire::{cbor, ids::hex};

/// One item of sound CBOR.
pub(crate) struct Item {
    pub(crate) major: u8,
    pub(crate) value: u64,
    pub(crate) start: usize,
    /// Where the content (or the first child) begins.
    pub(crate) content: usize,
    pub(crate) end: usize,
    /// Elements of an array; keys and values of a map, in turn.
    pub(crate) children: Vec<Item>,
}

impl Item {
    /// Reads the item at `start`; `bytes` must be deterministic CBOR.
    pub(crate) fn parse(bytes: &[u8], start: usize) -> Item {
        let first = bytes[start];
        let extra = match first & 0x1f {
            0..=23 => 0,
            info => 1usize << (info - 24),
        };
        let content = start + 1 + extra;
        let value = match extra {
            0 => u64::from(first & 0x1f),
            _ => bytes[start + 1..content].iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)),
        };
        let mut item = Item { major: first >> 5, value, start, content, end: content, children: Vec::new() };
        match item.major {
            cbor::major::BYTES | cbor::major::TEXT => item.end = content + value as usize,
            cbor::major::ARRAY | cbor::major::MAP => {
                for _ in 0..if item.major == cbor::major::MAP { value * 2 } else { value } {
                    let child = Item::parse(bytes, item.end);
                    item.end = child.end;
                    item.children.push(child);
                }
            }
            _ => {}
        }
        item
    }

    /// This item and everything inside it, outermost first.
    pub(crate) fn walk<'a>(&'a self, out: &mut Vec<&'a Item>) {
        out.push(self);
        self.children.iter().for_each(|child| child.walk(out));
    }

    /// True for a byte string that holds an array in CBOR.
    pub(crate) fn is_embedded(&self, bytes: &[u8]) -> bool {
        let content = &bytes[self.content..self.end];
        self.major == cbor::major::BYTES
            && content.first().is_some_and(|first| first >> 5 == cbor::major::ARRAY && *first != 0x80)
            && cbor::check(content, "embedded").is_ok()
    }
}

/// Diagnostic notation (RFC 8949 §8), byte strings that hold CBOR as `<< … >>` (RFC 8610 G.3).
pub(crate) fn diag(bytes: &[u8]) -> String {
    let mut out = String::new();
    write_item(bytes, &Item::parse(bytes, 0), 0, &mut out);
    out.push('\n');
    out
}

fn write_item(bytes: &[u8], item: &Item, indent: usize, out: &mut String) {
    let content = &bytes[item.content..item.end];
    match item.major {
        cbor::major::UINT => write!(out, "{}", item.value).unwrap(),
        cbor::major::NINT => write!(out, "{}", -1 - i128::from(item.value)).unwrap(),
        cbor::major::BYTES if item.is_embedded(bytes) => {
            out.push_str("<< ");
            write_item(content, &Item::parse(content, 0), indent, out);
            out.push_str(" >>");
        }
        cbor::major::BYTES => write!(out, "h'{}'", hex(content)).unwrap(),
        cbor::major::TEXT => {
            write!(out, "{}", serde_json::Value::from(std::str::from_utf8(content).unwrap())).unwrap()
        }
        cbor::major::ARRAY => {
            write_list(bytes, &item.children.iter().map(|x| vec![x]).collect::<Vec<_>>(), "[]", indent, out);
        }
        cbor::major::MAP => {
            let pairs = item.children.chunks(2).map(|pair| pair.iter().collect()).collect::<Vec<_>>();
            write_list(bytes, &pairs, "{}", indent, out);
        }
        _ => out.push_str(match item.value {
            20 => "false",
            21 => "true",
            _ => "null",
        }),
    }
}

fn write_list(bytes: &[u8], entries: &[Vec<&Item>], braces: &str, indent: usize, out: &mut String) {
    out.push_str(&braces[..1]);
    for (at, entry) in entries.iter().enumerate() {
        out.push_str(if at == 0 { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(indent + 1));
        for (at, item) in entry.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { ": " });
            write_item(bytes, item, indent + 1, out);
        }
    }
    if !entries.is_empty() {
        out.push('\n');
        out.push_str(&"  ".repeat(indent));
    }
    out.push_str(&braces[1..]);
}

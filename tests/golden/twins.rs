//! Other spellings of a message, made mechanically. Each says the same to a lenient reader of
//! CBOR, or says something more; a strict one refuses them all.

use quicprochat_mesh::wire::cbor::{self, major};

use super::item::Item;

/// A twin and how it was made.
pub(crate) struct Twin {
    pub(crate) made: String,
    pub(crate) bytes: Vec<u8>,
    /// Made by leaving something out, which may give another message rather than a second spelling.
    pub(crate) is_shorter: bool,
}

/// Every twin of `bytes`; byte strings that hold CBOR are opened one level deep, since what lies
/// deeper is a payload, which its envelope does not read.
pub(crate) fn twins(bytes: &[u8]) -> Vec<Twin> {
    twins_to(bytes, 1)
}

fn twins_to(bytes: &[u8], depth: usize) -> Vec<Twin> {
    let root = Item::parse(bytes, 0);
    let mut items = Vec::new();
    root.walk(&mut items);
    let mut out = vec![
        twin("break appended", [bytes, &[0xff]].concat()),
        twin("null appended", [bytes, &[0xf6]].concat()),
        twin("tagged as CBOR (55799)", [&[0xd9, 0xd9, 0xf7], bytes].concat()),
    ];
    for item in items {
        respelled_heads(bytes, item, &mut out);
        indefinite(bytes, item, &mut out);
        other_types(bytes, item, &mut out);
        surplus(bytes, item, &mut out);
        if depth > 0 && item.is_embedded(bytes) {
            for inner in twins_to(&bytes[item.content..item.end], depth - 1) {
                let mut rewrapped = Vec::new();
                cbor::put_bytes(&mut rewrapped, &inner.bytes);
                let bytes = splice(bytes, item.start, item.end, &rewrapped);
                let made = format!("inside the byte string at {}: {}", item.start, inner.made);
                out.push(Twin { made, bytes, is_shorter: inner.is_shorter });
            }
        }
    }
    out
}

fn twin(made: &str, bytes: Vec<u8>) -> Twin {
    Twin { made: made.to_owned(), bytes, is_shorter: false }
}

fn splice(bytes: &[u8], from: usize, to: usize, with: &[u8]) -> Vec<u8> {
    [&bytes[..from], with, &bytes[to..]].concat()
}

/// The head in each form longer than its own.
fn respelled_heads(bytes: &[u8], item: &Item, out: &mut Vec<Twin>) {
    if item.major == major::SIMPLE {
        return;
    }
    let own = item.content - item.start;
    for (info, extra) in [(24u8, 1usize), (25, 2), (26, 4), (27, 8)] {
        if extra + 1 > own {
            let mut head = vec![item.major << 5 | info];
            head.extend_from_slice(&item.value.to_be_bytes()[8 - extra..]);
            let made = format!("head at {} in {} bytes", item.start, extra + 1);
            out.push(twin(&made, splice(bytes, item.start, item.content, &head)));
        }
    }
}

/// The same item with an indefinite length.
fn indefinite(bytes: &[u8], item: &Item, out: &mut Vec<Twin>) {
    let content = match item.major {
        major::BYTES | major::TEXT => bytes[item.start..item.end].to_vec(),
        major::ARRAY | major::MAP => bytes[item.content..item.end].to_vec(),
        _ => return,
    };
    let whole = [&[item.major << 5 | 31], &content[..], &[0xff]].concat();
    out.push(twin(&format!("indefinite at {}", item.start), splice(bytes, item.start, item.end, &whole)));
}

/// The same value as another type: tagged, a float, a bignum, an array of numbers.
fn other_types(bytes: &[u8], item: &Item, out: &mut Vec<Twin>) {
    let own = &bytes[item.start..item.end];
    let mut push = |made: &str, with: &[u8]| {
        out.push(twin(&format!("{made} at {}", item.start), splice(bytes, item.start, item.end, with)));
    };
    push("tag", &[&[0xc6], own].concat());
    match item.major {
        major::UINT => {
            let float = (item.value as f64).to_be_bytes();
            push("float", &[&[0xfb][..], &float].concat());
            push("bignum", &[&[0xc2, 0x48][..], &item.value.to_be_bytes()].concat());
            push("undefined", &[0xf7]);
        }
        major::BYTES if item.value > 0 => {
            let mut numbers = Vec::new();
            cbor::put_array(&mut numbers, item.value);
            bytes[item.content..item.end].iter().for_each(|b| cbor::put_uint(&mut numbers, u64::from(*b)));
            push("array of numbers", &numbers);
        }
        major::TEXT => push("bytes for text", &[&[own[0] & 0x1f | 0x40], &own[1..]].concat()),
        _ => {}
    }
}

/// An element more or fewer, an empty ext, map entries out of order or twice.
fn surplus(bytes: &[u8], item: &Item, out: &mut Vec<Twin>) {
    let content = &bytes[item.content..item.end];
    let mut push = |made: &str, count: u64, content: &[u8]| {
        let mut with = Vec::new();
        cbor::put_head(&mut with, item.major, count);
        with.extend_from_slice(content);
        out.push(Twin {
            made: format!("{made} at {}", item.start),
            bytes: splice(bytes, item.start, item.end, &with),
            is_shorter: count < item.value,
        });
    };
    match item.major {
        major::ARRAY => {
            push("null as one element more", item.value + 1, &[content, &[0xf6]].concat());
            push("empty map as one element more", item.value + 1, &[content, &[0xa0]].concat());
            if let Some(last) = item.children.last() {
                push("last element left out", item.value - 1, &bytes[item.content..last.start]);
            }
        }
        major::MAP => {
            let entries: Vec<&[u8]> =
                item.children.chunks(2).map(|pair| &bytes[pair[0].start..pair[1].end]).collect();
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                push("first entry twice", item.value + 1, &[first, content].concat());
                push("last entry twice", item.value + 1, &[content, last].concat());
            }
            if entries.len() > 1 {
                let reversed: Vec<u8> = entries.iter().rev().flat_map(|e| e.iter().copied()).collect();
                push("entries reversed", item.value, &reversed);
            }
            push("an unknown key more", item.value + 1, &[content, &[0x17, 0x00]].concat());
        }
        _ => {}
    }
}

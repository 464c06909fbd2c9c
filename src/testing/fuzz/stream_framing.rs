//! Any bytes as a stream of frames, cut in pieces anywhere: what comes out is what a reader of the
//! whole stream sees, and the reader holds no more than what is not whole yet.

use bytes::Bytes;

use crate::{
    transport::framing::{FrameReader, Item},
    wire::limits::FRAME_BYTES_MAX,
};

use super::Script;

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let close_records = script.bool();
    let cuts: [u8; 7] = script.array();
    let stream = script.rest();
    let (wanted, is_sound) = whole(stream, close_records);

    let mut reader = FrameReader::new(close_records);
    let (mut got, mut rest, mut failed) = (Vec::new(), stream, false);
    // A cut of 255 is a read of everything that is there.
    for cut in cuts.into_iter().cycle() {
        let bytes = if cut == u8::MAX { rest.len() } else { usize::from(cut) * usize::from(cut) + 1 };
        let (piece, later) = rest.split_at(bytes.min(rest.len()));
        rest = later;
        reader.extend(piece);
        loop {
            match reader.next() {
                Ok(Some(item)) => got.push(item),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.to_string().len() < 200);
                    failed = true;
                    break;
                }
            }
        }
        if failed || rest.is_empty() {
            break;
        }
    }
    assert_eq!(failed, !is_sound);
    assert_eq!(got, wanted);
}

/// Its items, and whether nothing of it is against the rules.
fn whole(mut stream: &[u8], close_records: bool) -> (Vec<Item>, bool) {
    let mut items = Vec::new();
    while let Some((head, rest)) = stream.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*head));
        if length == 0xffff && close_records {
            let Some((&[a, b, c, d, length], rest)) = rest.split_first_chunk() else { break };
            let Some((reason, rest)) = rest.split_at_checked(usize::from(length)) else { break };
            let code = crate::transport::CloseCode(u32::from_be_bytes([a, b, c, d]));
            items.push(Item::Close { code, reason: Bytes::copy_from_slice(reason) });
            stream = rest;
            continue;
        }
        if length == 0 || length > FRAME_BYTES_MAX {
            return (items, false);
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        items.push(Item::Frame(Bytes::copy_from_slice(frame)));
        stream = rest;
    }
    (items, true)
}

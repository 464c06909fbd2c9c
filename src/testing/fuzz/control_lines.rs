//! Any bytes as what a client, or a node, writes into the control socket.

use futures_util::FutureExt;
use serde::Deserialize;

use crate::{
    api::Request,
    control::protocol::{
        AckLine, AnyRequestLine, FrameError, FrameReader, NodeLine, PAYLOAD_BYTES_MAX, VERSION, payload_len,
    },
};

/// Short, so that a fuzzer reaches it.
const LINE_BYTES_MAX: usize = 512;

pub(super) fn run(data: &[u8]) {
    let mut reader = FrameReader::new(data, LINE_BYTES_MAX);
    let mut left = data;
    // Bytes that are all there make every read ready.
    while let Some(read) = reader.line().now_or_never() {
        match read {
            Ok(Some(line)) => {
                assert!(line.len() <= LINE_BYTES_MAX && left.starts_with(&line));
                left = left.get(line.len() + 1..).unwrap_or_default();
                let payload = take_line(&line);
                let Some(read) = reader.payload(payload).now_or_never() else { break };
                match read {
                    Ok(bytes) => {
                        assert!(left.starts_with(&bytes) && bytes.len() as u64 == payload);
                        left = left.get(bytes.len()..).unwrap_or_default();
                    }
                    Err(FrameError::Truncated) => return assert!((left.len() as u64) < payload),
                    Err(error) => panic!("{error}"),
                }
            }
            Ok(None) => return assert!(left.is_empty()),
            Err(FrameError::Truncated) => return assert!(!left.is_empty() && !left.contains(&b'\n')),
            Err(FrameError::LineTooLong { .. }) => {
                return assert!(left.iter().take(LINE_BYTES_MAX + 1).all(|byte| *byte != b'\n'));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads a line as all that a line may be; how much payload follows it.
fn take_line(line: &[u8]) -> u64 {
    if let Ok(ack) = serde_json::from_slice::<AckLine>(line) {
        assert!(serde_json::to_vec(&ack).is_ok());
    }
    if let Ok(reply) = serde_json::from_slice::<NodeLine>(line) {
        assert!(payload_len(reply.payload_len).is_ok() == (reply.payload_len <= PAYLOAD_BYTES_MAX));
    }
    let Ok(any) = serde_json::from_slice::<AnyRequestLine>(line) else { return 0 };
    if any.v != VERSION {
        return 0;
    }
    let Ok(request) = any.request() else { return 0 };
    let written = serde_json::to_value(&request).and_then(|value| Request::deserialize(&value));
    assert!(written.is_ok_and(|again| again == request), "{request:?} is read back as another");
    let takes = request.takes_payload() && payload_len(any.payload_len).is_ok();
    if takes { any.payload_len } else { 0 }
}

//! Lines and payloads of the control socket, with the limits each side keeps the other to.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::{
    api::{ApiError, Reply, Request},
    wire::limits::CONTENT_BYTES_MAX,
};

/// Version of this protocol. Node and client of different versions refuse each other.
pub const VERSION: u32 = 1;

/// Longest request or acknowledgement line in bytes: names, addresses and URLs, never content.
pub const REQUEST_LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest reply line in bytes: the metrics snapshot is the largest object.
pub const REPLY_LINE_BYTES_MAX: usize = 1024 * 1024;

/// Largest payload in bytes, either way.
pub const PAYLOAD_BYTES_MAX: u64 = CONTENT_BYTES_MAX;

/// Payload memory is taken in steps, so that a length alone allocates nothing.
const PAYLOAD_STEP_BYTES: usize = 64 * 1024;

/// Why bytes of the other side are not this protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It ended inside a line or payload.
    #[error("the connection ended in the middle of a line or its payload")]
    Truncated,
    /// A line longer than any of this protocol.
    #[error("a line is longer than {limit} bytes")]
    LineTooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// A payload larger than any message.
    #[error("{got} bytes are more than the {limit} bytes (16 MiB) that a message may have")]
    PayloadTooLarge {
        /// Bytes announced.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The line is no JSON object of this protocol.
    #[error("not a line of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

/// First line of a request, from the client.
#[derive(Debug, Serialize)]
pub(crate) struct RequestLine<'a> {
    pub(crate) v: u32,
    pub(crate) request: &'a Request,
    pub(crate) payload_len: u64,
    /// The connection is to be kept for another request when this one has its last line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
}

/// The same as the node reads it: the version is looked at before the request.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyRequestLine {
    pub(crate) v: u32,
    #[serde(default)]
    pub(crate) request: Value,
    #[serde(default)]
    pub(crate) payload_len: u64,
    #[serde(default)]
    pub(crate) more: bool,
}

/// Later lines of a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckLine {
    pub(crate) ack: u64,
}

/// A reply as the node writes it.
#[derive(Debug, Serialize)]
pub(crate) struct ReplyLine<'a> {
    pub(crate) reply: &'a Reply,
    pub(crate) payload_len: u64,
    pub(crate) ack: Option<u64>,
}

/// The last line as the node writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LastLine<'a> {
    End {},
    Error(&'a ApiError),
}

/// Any line of the node as the client reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeLine {
    #[serde(default)]
    pub(crate) reply: Option<Value>,
    #[serde(default)]
    pub(crate) payload_len: u64,
    #[serde(default)]
    pub(crate) ack: Option<u64>,
    #[serde(default)]
    pub(crate) end: Option<Value>,
    #[serde(default)]
    pub(crate) error: Option<ApiError>,
}

/// Reads lines and payloads under limits.
pub(crate) struct FrameReader<R> {
    inner: BufReader<R>,
    partial: Vec<u8>,
    line_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(inner: R, line_bytes_max: usize) -> Self {
        Self { inner: BufReader::new(inner), partial: Vec::new(), line_bytes_max }
    }

    /// The next line without its end, or none where the other side is done. Cancel-safe: what was
    /// read of a line stays in `self`.
    pub(crate) async fn line(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            let chunk = self.inner.fill_buf().await?;
            if chunk.is_empty() {
                return if self.partial.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
            let (taken, complete) = match chunk.iter().position(|b| *b == b'\n') {
                Some(at) => (at, true),
                None => (chunk.len(), false),
            };
            if self.partial.len().saturating_add(taken) > self.line_bytes_max {
                return Err(FrameError::LineTooLong { limit: self.line_bytes_max });
            }
            self.partial.extend_from_slice(chunk.get(..taken).unwrap_or(&[]));
            self.inner.consume(taken.saturating_add(usize::from(complete)));
            if complete {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
        }
    }

    /// The next line as an object.
    pub(crate) async fn object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        match self.line().await? {
            Some(line) => Ok(Some(serde_json::from_slice(&line)?)),
            None => Ok(None),
        }
    }

    /// Exactly `len` bytes. Not cancel-safe.
    pub(crate) async fn payload(&mut self, len: u64) -> Result<Vec<u8>, FrameError> {
        let mut payload = Vec::new();
        let mut left = payload_len(len)?;
        while left > 0 {
            let step = left.min(PAYLOAD_STEP_BYTES);
            let from = payload.len();
            payload.resize(from.saturating_add(step), 0);
            let slot = payload.get_mut(from..).unwrap_or_default();
            self.inner.read_exact(slot).await.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => FrameError::Truncated,
                _ => FrameError::Io(error),
            })?;
            left = left.saturating_sub(step);
        }
        Ok(payload)
    }
}

/// Checks a payload's announced length.
pub(crate) fn payload_len(len: u64) -> Result<usize, FrameError> {
    let too_large = FrameError::PayloadTooLarge { got: len, limit: PAYLOAD_BYTES_MAX };
    if len > PAYLOAD_BYTES_MAX {
        return Err(too_large);
    }
    usize::try_from(len).map_err(|_| too_large)
}

/// Writes an object as a line, then `payload`, and flushes.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    object: &impl Serialize,
    payload: &[u8],
) -> Result<(), FrameError> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    // A small payload goes along: one turn of the system for a message of chat, not two.
    let small = payload.len() <= PAYLOAD_STEP_BYTES;
    if small {
        line.extend_from_slice(payload);
    }
    writer.write_all(&line).await?;
    if !small {
        writer.write_all(payload).await?;
    }
    writer.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_limited_and_never_half() {
        let mut reader = FrameReader::new(&b"one\n\nthree"[..], 8);
        assert_eq!(reader.line().await.unwrap().unwrap(), b"one");
        assert_eq!(reader.line().await.unwrap().unwrap(), b"");
        assert!(matches!(reader.line().await, Err(FrameError::Truncated)));
        let mut reader = FrameReader::new(&b"123456789\n"[..], 8);
        assert!(matches!(reader.line().await, Err(FrameError::LineTooLong { limit: 8 })));
        let mut reader = FrameReader::new(&b"12345678\n"[..], 8);
        assert_eq!(reader.line().await.unwrap().unwrap(), b"12345678");
    }

    #[tokio::test]
    async fn payloads_are_exact_and_limited() {
        let mut reader = FrameReader::new(&b"x\nabcdef"[..], 8);
        reader.line().await.unwrap();
        assert_eq!(reader.payload(3).await.unwrap(), b"abc");
        assert!(matches!(reader.payload(4).await, Err(FrameError::Truncated)));
        let refused = reader.payload(PAYLOAD_BYTES_MAX + 1).await.unwrap_err();
        assert!(refused.to_string().contains("16 MiB"), "{refused}");
        assert!(matches!(reader.payload(u64::MAX).await, Err(FrameError::PayloadTooLarge { .. })));
    }
}

//! Lines and payloads of the control socket, with the limits each side keeps the other to.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
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

/// More than this is written at once, and a larger payload from where it is.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Memory that a connection keeps for its next lines.
const GATHERED_BYTES_KEPT: usize = 4 * 1024;

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
pub(crate) struct AnyRequestLine<'a> {
    pub(crate) v: u32,
    #[serde(borrow, default)]
    pub(crate) request: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) payload_len: u64,
    #[serde(default)]
    pub(crate) more: bool,
}

impl AnyRequestLine<'_> {
    /// What is asked, read as this version knows it.
    pub(crate) fn request(&self) -> serde_json::Result<Request> {
        serde_json::from_str(self.request.map_or("null", RawValue::get))
    }
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

/// Gathers lines and payloads, so that what is said at one moment is one turn of the system.
pub(crate) struct FrameWriter<W> {
    inner: W,
    gathered: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, gathered: Vec::new() }
    }

    /// Adds an object as a line, then `payload`. Written by [`FrameWriter::flush`], or now where much
    /// is gathered.
    pub(crate) async fn push(&mut self, object: &impl Serialize, payload: &[u8]) -> Result<(), FrameError> {
        let before = self.gathered.len();
        if let Err(error) = serde_json::to_writer(&mut self.gathered, object) {
            self.gathered.truncate(before);
            return Err(error.into());
        }
        self.gathered.push(b'\n');
        if payload.len() <= GATHERED_BYTES_MAX {
            self.gathered.extend_from_slice(payload);
        } else {
            self.flush().await?;
            self.inner.write_all(payload).await?;
        }
        if self.gathered.len() > GATHERED_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// True while something waits to be written.
    pub(crate) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Writes what is gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), FrameError> {
        self.inner.write_all(&self.gathered).await?;
        self.gathered.clear();
        self.gathered.shrink_to(GATHERED_BYTES_KEPT);
        self.inner.flush().await?;
        Ok(())
    }

    /// Adds it and writes it.
    pub(crate) async fn write(&mut self, object: &impl Serialize, payload: &[u8]) -> Result<(), FrameError> {
        self.push(object, payload).await?;
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;

    /// What was written, turn by turn.
    #[derive(Default)]
    struct Turns(Vec<Vec<u8>>);

    impl AsyncWrite for Turns {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_said_together_is_written_together_and_much_at_once() {
        let mut writer = FrameWriter::new(Turns::default());
        writer.push(&1, b"abc").await.unwrap();
        writer.push(&2, b"").await.unwrap();
        assert!(writer.has_gathered() && writer.inner.0.is_empty());
        writer.write(&LastLine::End {}, b"").await.unwrap();
        assert!(!writer.has_gathered());
        assert_eq!(writer.inner.0, [b"1\nabc2\n{\"end\":{}}\n"]);

        // A large payload follows its line, from where it is.
        let large = vec![7; GATHERED_BYTES_MAX + 1];
        writer.push(&3, &large).await.unwrap();
        assert!(!writer.has_gathered());
        assert_eq!(writer.inner.0[1..], [b"3\n".to_vec(), large]);

        // So many small ones are not kept back.
        for _ in 0..3 {
            writer.push(&4, &vec![7; GATHERED_BYTES_MAX / 2]).await.unwrap();
        }
        assert_eq!(writer.inner.0.len(), 4);
    }

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

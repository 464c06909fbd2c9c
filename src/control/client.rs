//! Asking a running node.

use std::{fmt, io, path::Path};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{
    UnixStream,
    unix::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{
    location,
    protocol::{
        AckLine, FrameError, FrameReader, FrameWriter, NodeLine, REPLY_LINE_BYTES_MAX, RequestLine, VERSION,
        payload_len,
    },
};
use crate::api::{ApiError, Request};

/// A connection with a request on its way. Dropping it cancels the request in the node.
pub struct Client {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
    ended: bool,
    refused: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// One reply.
#[derive(Debug, Clone)]
pub struct ReplyFrame {
    /// The object.
    pub object: Value,
    /// Content that came with it.
    pub payload: Bytes,
    /// Number to acknowledge it by, where the node waits for that.
    pub ack: Option<u64>,
}

impl ReplyFrame {
    /// The object as the type that this request is answered with.
    ///
    /// # Errors
    /// The node answered with another object.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        T::deserialize(&self.object)
            .map_err(|e| ApiError::failed(format!("the node's answer makes no sense to this version: {e}")))
    }
}

impl Client {
    /// Connects to the node of `data_dir` and sends `request`, with `payload` where it takes one.
    ///
    /// # Errors
    /// No node is running (class `NoNode`), the payload is too large, or the connection broke.
    pub async fn request(data_dir: &Path, request: &Request, payload: &[u8]) -> Result<Self, ApiError> {
        let mut client = Self::open(data_dir).await?;
        client.send(request, payload, false).await?;
        Ok(client)
    }

    /// Connects to the node of `data_dir`, for [`Client::ask`].
    ///
    /// # Errors
    /// No node is running (class `NoNode`).
    pub async fn open(data_dir: &Path) -> Result<Self, ApiError> {
        let path = location::find(data_dir);
        let stream = UnixStream::connect(&path).await.map_err(|e| connect_error(data_dir, &path, &e))?;
        let (read, write) = stream.into_split();
        Ok(Self {
            reader: FrameReader::new(read, REPLY_LINE_BYTES_MAX),
            writer: FrameWriter::new(write),
            ended: true,
            refused: false,
        })
    }

    /// Sends a request over a connection that has none on its way: one that was just opened, or
    /// whose last request [`Client::is_done`]. The node keeps it for another one, for a minute; one
    /// whose request it refused it does not keep.
    ///
    /// # Errors
    /// The last request is not done, the payload is too large, or the connection broke.
    pub async fn ask(&mut self, request: &Request, payload: &[u8]) -> Result<(), ApiError> {
        self.send(request, payload, true).await
    }

    async fn send(&mut self, request: &Request, payload: &[u8], more: bool) -> Result<(), ApiError> {
        if !self.is_done() {
            return Err(ApiError::failed(
                "this connection has a request on its way, or one that was refused",
            ));
        }
        let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        payload_len(len).map_err(ApiError::failed)?;
        self.ended = false;
        let line = RequestLine { v: VERSION, request, payload_len: len, more };
        // Where the node refuses before it has read everything, its reason is worth more than the
        // broken pipe: it is read by `next`.
        match self.writer.write(&line, payload).await {
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(ApiError::failed(error)),
            Ok(()) => Ok(()),
        }
    }

    /// True when nothing was asked yet, or the node has served the last request to its end.
    pub fn is_done(&self) -> bool {
        self.ended && !self.refused
    }

    /// True when the node itself refused the last request, and so knows nothing of it.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// The next reply, none after the last. Not cancel-safe: a caller that stops waiting drops the
    /// client.
    ///
    /// # Errors
    /// The node's own error, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<ReplyFrame>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let line: NodeLine = match self.reader.object().await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(ApiError::failed("the node went away before it had answered")),
            Err(error) => return Err(ApiError::failed(error)),
        };
        if let Some(error) = line.error {
            (self.ended, self.refused) = (true, true);
            return Err(error);
        }
        let Some(object) = line.reply else {
            self.ended = line.end.is_some();
            return match self.ended {
                true => Ok(None),
                false => Err(ApiError::failed("the node sent a line that is no answer")),
            };
        };
        let payload = self.reader.payload(line.payload_len).await.map_err(ApiError::failed)?;
        Ok(Some(ReplyFrame { object, payload: payload.into(), ack: line.ack }))
    }

    /// Tells the node that the reply with this number is safe here.
    ///
    /// # Errors
    /// The connection broke: the node will offer the same again.
    pub async fn acknowledge(&mut self, number: u64) -> Result<(), ApiError> {
        self.writer.write(&AckLine { ack: number }, &[]).await.map_err(ApiError::failed)
    }

    /// Waits until the node has closed the connection after its last line.
    pub async fn closed(&mut self) {
        while let Ok(Some(_)) = self.reader.line().await {}
    }
}

fn connect_error(data_dir: &Path, path: &Path, error: &io::Error) -> ApiError {
    let dir = data_dir.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            ApiError::no_node(format!(
                "no node is running for {dir}: start one with `qpc run --data-dir {dir}`, or name another --data-dir"
            ))
        }
        io::ErrorKind::PermissionDenied => ApiError::failed(format!(
            "the node of {dir} belongs to another user: run this command as that user ({} may not be opened)",
            path.display()
        )),
        _ => ApiError::failed(format!("cannot reach the node of {dir}: {}: {error}", path.display())),
    }
}

//! A link over one byte stream: TCP under TLS, or memory.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    BoxFuture, LinkReceiver, LinkSender, TransportError,
    framing::{FrameBuffer, put_frame},
};
use crate::wire::{FrameParts, TrafficClass};

/// Reads frames off a stream.
#[derive(Debug)]
pub struct StreamReceiver<R> {
    stream: R,
    buffer: FrameBuffer,
}

impl<R> StreamReceiver<R> {
    /// Over this stream.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: FrameBuffer::default() }
    }
}

impl<R: AsyncRead + Unpin + Send> LinkReceiver for StreamReceiver<R> {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            loop {
                self.buffer.drain_into(out)?;
                if !out.is_empty() {
                    return Ok(());
                }
                let read = self.stream.read_buf(self.buffer.room()).await;
                if read.map_err(TransportError::broken)? == 0 {
                    return Err(TransportError::closed_by_peer("end of stream"));
                }
            }
        })
    }
}

/// Writes frames onto a stream, all classes on one.
#[derive(Debug)]
pub struct StreamSender<W> {
    stream: W,
    buffer: BytesMut,
}

impl<W> StreamSender<W> {
    /// Over this stream.
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }
}

impl<W: AsyncWrite + Unpin + Send> LinkSender for StreamSender<W> {
    fn send<'a>(
        &'a mut self,
        _class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            self.buffer.clear();
            for frame in frames {
                put_frame(&mut self.buffer, frame)?;
            }
            self.stream.write_all(&self.buffer).await.map_err(TransportError::broken)?;
            self.stream.flush().await.map_err(TransportError::broken)
        })
    }

    fn close<'a>(&'a mut self, _reason: &'a str) -> BoxFuture<'a, ()> {
        // A peer that is gone cannot be told; the goodbye frame before this named the reason.
        Box::pin(async move { drop(self.stream.shutdown().await) })
    }
}

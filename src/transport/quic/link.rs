//! The halves of a QUIC link: three streams out, three streams in.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::{AcceptUni, Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::time::timeout;

use crate::{
    transport::{
        BoxFuture, CLOSE_FLUSH_TIMEOUT, CloseCode, LinkReceiver, LinkSender, RECV_FRAMES_MAX, TransportError,
        error::cut_reason,
        framing::{FrameQueue, FrameReader, Item, check_frames, refill, take, with_scratch},
    },
    wire::{FrameParts, TrafficClass, limits::FRAME_BYTES_MAX},
};

use super::varint;

/// Streams a peer may open: one a class.
pub(super) const STREAMS: usize = TrafficClass::ALL.len();

/// The sending half of a link.
pub(super) struct QuicSender {
    connection: Connection,
    classes: [ClassOut; STREAMS],
    idle_timeout: Duration,
    closed: bool,
}

/// What leaves in one class.
struct ClassOut {
    class: TrafficClass,
    /// None until the first frame.
    stream: Option<SendStream>,
    /// On its way into the stream.
    chunk: Bytes,
    wire: BytesMut,
    waiting: FrameQueue,
}

impl ClassOut {
    fn new(class: TrafficClass) -> Self {
        let mut wire = BytesMut::new();
        wire.put_u8(class as u8);
        Self { class, stream: None, chunk: Bytes::new(), wire, waiting: FrameQueue::default() }
    }

    fn unwritten_bytes(&self) -> usize {
        // The label alone is nothing to send.
        let label = usize::from(self.stream.is_none());
        let buffered = self.chunk.len().saturating_add(self.wire.len()).saturating_sub(label);
        buffered.saturating_add(self.waiting.bytes())
    }

    /// Each await leaves everything in its place, so the future may be dropped at any of them.
    async fn flush(&mut self, connection: &Connection) -> Result<(), WriteError> {
        while self.unwritten_bytes() > 0 {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let stream = connection.open_uni().await?;
                    // Lower numbers are more urgent here, higher ones there.
                    let _ = stream.set_priority(-i32::from(self.class as u8));
                    self.stream.insert(stream)
                }
            };
            if self.chunk.is_empty() {
                refill(&mut self.waiting, &mut self.wire);
                self.chunk = std::mem::take(&mut self.wire).freeze();
            }
            let written = stream.write_chunks(&mut [self.chunk.clone()]).await?;
            self.chunk.advance(written.bytes.min(self.chunk.len()));
        }
        self.chunk = Bytes::new();
        Ok(())
    }

    /// Waits until the peer has all of it.
    async fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.finish();
            let _ = stream.stopped().await;
        }
    }
}

impl QuicSender {
    pub(super) fn new(connection: Connection, idle_timeout: Duration) -> Self {
        Self { connection, classes: TrafficClass::ALL.map(ClassOut::new), idle_timeout, closed: false }
    }

    fn write_error(&self, error: WriteError) -> TransportError {
        match error {
            WriteError::ConnectionLost(error) => link_error(error, self.idle_timeout),
            WriteError::Stopped(_) => TransportError::lost("the peer stopped reading"),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => TransportError::LinkClosed,
        }
    }
}

impl LinkSender for QuicSender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        let unwritten = self.unwritten_bytes(class);
        let taken = match self.classes.get_mut(class as usize) {
            _ if self.closed => Err(TransportError::LinkClosed),
            Some(out) => check_frames(class, frames, FRAME_BYTES_MAX, unwritten)
                .map(|()| take(&mut out.waiting, &mut out.wire, frames)),
            None => Ok(()),
        };
        Box::pin(async move {
            taken?;
            match self.classes.get_mut(class as usize) {
                Some(out) => match out.flush(&self.connection).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.write_error(error)),
                },
                None => Ok(()),
            }
        })
    }

    fn unwritten_bytes(&self, class: TrafficClass) -> usize {
        self.classes.get(class as usize).map_or(0, ClassOut::unwritten_bytes)
    }

    fn close<'a>(&'a mut self, code: CloseCode, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if std::mem::replace(&mut self.closed, true) {
                return;
            }
            let connection = &self.connection;
            let flush = async {
                for out in &mut self.classes {
                    out.flush(connection).await?;
                }
                for out in &mut self.classes {
                    out.finish().await;
                }
                Ok::<_, WriteError>(())
            };
            // What does not get out in time is not waited for.
            let _ = timeout(CLOSE_FLUSH_TIMEOUT, flush).await;
            self.connection.close(varint(code), cut_reason(reason).as_bytes());
        })
    }
}

/// The receiving half of a link.
pub(super) struct QuicReceiver {
    connection: Connection,
    /// Streams whose first byte has not come yet.
    unlabelled: Vec<RecvStream>,
    classes: [Option<ClassIn>; STREAMS],
    idle_timeout: Duration,
    over: Option<TransportError>,
}

/// What arrives in one class.
struct ClassIn {
    stream: RecvStream,
    reader: FrameReader,
    ended: bool,
}

impl QuicReceiver {
    pub(super) fn new(connection: Connection, idle_timeout: Duration) -> Self {
        let classes = Default::default();
        Self { connection, unlabelled: Vec::new(), classes, idle_timeout, over: None }
    }

    fn poll_recv<'c>(
        &mut self,
        cx: &mut Context<'_>,
        connection: &'c Connection,
        mut next_stream: Pin<&mut AcceptUni<'c>>,
        out: &mut Vec<Bytes>,
    ) -> Poll<Result<(), TransportError>> {
        if let Some(over) = &self.over {
            return Poll::Ready(Err(over.clone()));
        }
        let began = out.len();
        let full = began.saturating_add(RECV_FRAMES_MAX);
        let mut lost = None;
        let read = loop {
            match next_stream.as_mut().poll(cx) {
                Poll::Ready(Ok(stream)) => {
                    self.unlabelled.push(stream);
                    next_stream.set(connection.accept_uni());
                }
                Poll::Ready(Err(error)) => {
                    lost = Some(link_error(error, self.idle_timeout));
                    break self.label(cx).and_then(|()| self.read(cx, out, full));
                }
                Poll::Pending => break self.label(cx).and_then(|()| self.read(cx, out, full)),
            }
        };
        if let Err(fault) = read {
            self.connection.close(varint(CloseCode::PROTOCOL), cut_reason(&fault.to_string()).as_bytes());
            lost = Some(fault);
        }
        match lost {
            // With a full batch there may be more at hand; the loss is seen again.
            _ if out.len() >= full => Poll::Ready(Ok(())),
            Some(error) => {
                self.over = Some(error.clone());
                // Frames that came before the end are handed out first.
                Poll::Ready(if out.len() > began { Ok(()) } else { Err(error) })
            }
            None if out.len() > began => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    /// Reads the class of new streams.
    fn label(&mut self, cx: &mut Context<'_>) -> Result<(), TransportError> {
        for mut stream in std::mem::take(&mut self.unlabelled) {
            let mut label = [0];
            match stream.poll_read(cx, &mut label) {
                Poll::Pending => self.unlabelled.push(stream),
                Poll::Ready(Ok(1)) => {
                    let [class] = label;
                    match self.classes.get_mut(usize::from(class)) {
                        Some(slot @ None) => {
                            *slot = Some(ClassIn { stream, reader: FrameReader::new(false), ended: false });
                        }
                        Some(Some(_)) => {
                            return Err(TransportError::Protocol { detail: "a second stream of one class" });
                        }
                        None => {
                            return Err(TransportError::Protocol { detail: "a stream of an unknown class" });
                        }
                    }
                }
                Poll::Ready(Ok(_)) => {
                    return Err(TransportError::Protocol { detail: "a stream without a class" });
                }
                // The connection's end shows where the streams are accepted.
                Poll::Ready(Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Takes what is at hand, control first.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Bytes>,
        full: usize,
    ) -> Result<(), TransportError> {
        for class in self.classes.iter_mut().flatten() {
            class.read(cx, out, full)?;
            if out.len() >= full {
                break;
            }
        }
        Ok(())
    }
}

impl ClassIn {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Bytes>,
        full: usize,
    ) -> Result<(), TransportError> {
        loop {
            while out.len() < full {
                match self.reader.next()? {
                    Some(Item::Frame(frame)) => out.push(frame),
                    Some(Item::Close { .. }) | None => break,
                }
            }
            if out.len() >= full || self.ended {
                return Ok(());
            }
            let Self { stream, reader, .. } = self;
            let read = with_scratch(|scratch| {
                stream.poll_read(cx, scratch).map_ok(|count| {
                    reader.extend(scratch.get(..count).unwrap_or(&[]));
                    count
                })
            });
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if self.reader.is_torn() => {
                    return Err(TransportError::Protocol { detail: "a stream ended within a frame" });
                }
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(ReadError::Reset(_))) => {
                    return Err(TransportError::Protocol { detail: "a stream was reset" });
                }
                // The connection's end shows where the streams are accepted.
                Poll::Ready(Err(_)) => self.ended = true,
            }
        }
    }
}

impl LinkReceiver for QuicReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let connection = self.connection.clone();
            let mut next_stream = pin!(connection.accept_uni());
            std::future::poll_fn(|cx| self.poll_recv(cx, &connection, next_stream.as_mut(), out)).await
        })
    }
}

/// Why an established link ended.
fn link_error(error: ConnectionError, idle_timeout: Duration) -> TransportError {
    match error {
        ConnectionError::ApplicationClosed(close) => closed(&close),
        ConnectionError::LocallyClosed => TransportError::LinkClosed,
        ConnectionError::TimedOut => {
            TransportError::lost(format_args!("nothing heard for {} s", idle_timeout.as_secs()))
        }
        // With TLS 1.3 a dialler learns only now that its key was refused.
        other => TransportError::lost(other),
    }
}

/// What a peer said when it closed.
pub(super) fn closed(close: &quinn::ApplicationClose) -> TransportError {
    match u64::from(close.error_code) {
        // What quinn says for a connection that was dropped.
        0 => TransportError::lost("the peer let go of the link"),
        code => {
            let code = CloseCode(u32::try_from(code).unwrap_or(u32::MAX));
            TransportError::closed_by_peer(code, &close.reason)
        }
    }
}

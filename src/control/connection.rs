//! One client: reads its requests under limits, one after the other, runs them, and carries replies
//! and acknowledgements.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::{
    Outgoing,
    protocol::{
        AckLine, AnyRequestLine, FrameError, FrameReader, FrameWriter, LastLine, REQUEST_LINE_BYTES_MAX,
        ReplyLine, VERSION, payload_len,
    },
    reply_channel,
    server::{Shared, same_user},
};
use crate::api::{ApiError, Request};

/// How long a client may take to send its request line. Clients are local and send at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take for its payload; the largest takes milliseconds.
const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client that asked for more to be possible may take until it asks again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long what a client said before it went away may take to be read: it is in this machine.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits for a place that is about to become free: payload memory while others
/// store theirs, or the inbox while the node notices that its former taker was killed.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);

type Reader = FrameReader<OwnedReadHalf>;
type Writer = FrameWriter<OwnedWriteHalf>;

/// Serves one client to its end.
pub(crate) async fn serve(stream: UnixStream, shared: &Shared) -> Result<(), FrameError> {
    let same_user = same_user(&stream, shared.uid)?;
    let (read, write) = stream.into_split();
    let mut writer = FrameWriter::new(write);
    let mut reader = FrameReader::new(read, REQUEST_LINE_BYTES_MAX);
    let refused = if !same_user {
        "this node belongs to another user: run the command as that user"
    } else if let Ok(_place) = shared.clients.try_acquire() {
        return serve_all(&mut reader, &mut writer, shared).await;
    } else {
        "the node serves too many commands at the moment: try again"
    };
    writer.write(&LastLine::Error(&ApiError::failed(refused)), &[]).await
}

/// Serves one request after the other, for as long as the client keeps the connection for more.
async fn serve_all(reader: &mut Reader, writer: &mut Writer, shared: &Shared) -> Result<(), FrameError> {
    let mut first = timeout(REQUEST_TIMEOUT, read_request(reader))
        .await
        .unwrap_or_else(|_| Err(ApiError::failed("no request came within 10 s").into()));
    loop {
        let (result, is_kept) = match first {
            Ok(asked) => {
                let is_kept = asked.more;
                (answer(reader, writer, shared, asked).await, is_kept)
            }
            Err(ended) => (Err(ended), false),
        };
        let (last, is_kept) = match &result {
            Ok(()) => (LastLine::End {}, is_kept),
            // Its request may be half read, or an acknowledgement be on its way: only one that was
            // served leaves the connection at the start of a request.
            Err(Ended::Refused(error)) => (LastLine::Error(error), false),
            // Nobody is left to tell.
            Err(Ended::Gone) => return Ok(()),
        };
        writer.write(&last, &[]).await?;
        if !is_kept {
            return Ok(());
        }
        let mut stopping = shared.stopping.clone();
        first = tokio::select! {
            next = timeout(IDLE_TIMEOUT, read_request(reader)) => match next {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
        };
    }
}

/// Why a request came to no good end.
enum Ended {
    /// The client went away: the request was cancelled.
    Gone,
    /// The client is to be told, and nothing more is read from it.
    Refused(ApiError),
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) | FrameError::Truncated => Self::Gone,
            other => Self::Refused(ApiError::failed(other)),
        }
    }
}

/// A request as it was read.
struct Asked {
    request: Request,
    payload_len: u64,
    more: bool,
}

/// Reads the payload, runs the request and returns how it ended.
async fn answer(
    reader: &mut Reader,
    writer: &mut Writer,
    shared: &Shared,
    asked: Asked,
) -> Result<(), Ended> {
    let payload = read_payload(reader, shared, asked.payload_len).await?;
    // Given back before the last line is written: who reads that line may ask again at once.
    let _taker = match asked.request {
        Request::Recv { keep: false, .. } => Some(take_inbox(shared).await?),
        _ => None,
    };
    run(reader, writer, shared, asked.request, payload).await
}

async fn read_request(reader: &mut Reader) -> Result<Asked, Ended> {
    let line = reader.line().await?.ok_or(Ended::Gone)?;
    let line: AnyRequestLine<'_> = serde_json::from_slice(&line).map_err(FrameError::Json)?;
    if line.v != VERSION {
        return Err(ApiError::failed(format!(
            "the node speaks version {VERSION} of the control protocol and this command version {}: use the same \
             version of qpc for both (restart the node after an update)",
            line.v
        ))
        .into());
    }
    let request =
        line.request().map_err(|e| ApiError::usage(format!("the node does not know this request: {e}")))?;
    payload_len(line.payload_len)?;
    if line.payload_len > 0 && !request.takes_payload() {
        return Err(ApiError::usage("this request takes no payload").into());
    }
    Ok(Asked { request, payload_len: line.payload_len, more: line.more })
}

/// Reads the payload into memory that counts against the shared budget until its last user drops it.
async fn read_payload(reader: &mut Reader, shared: &Shared, len: u64) -> Result<Bytes, Ended> {
    if len == 0 {
        return Ok(Bytes::new());
    }
    let kib = u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX);
    let budget = shared.payload_kib.clone().acquire_many_owned(kib);
    let Ok(Ok(permit)) = timeout(PLACE_TIMEOUT, budget).await else {
        return Err(ApiError::failed("the node is busy with other large messages: try again").into());
    };
    match timeout(PAYLOAD_TIMEOUT, reader.payload(len)).await {
        Ok(bytes) => Ok(Bytes::from_owner(Counted { bytes: bytes?, _permit: permit })),
        Err(_) => Err(ApiError::failed("the payload did not come within 60 s").into()),
    }
}

/// Payload bytes with their share of the budget.
struct Counted {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn take_inbox(shared: &Shared) -> Result<OwnedSemaphorePermit, ApiError> {
    match timeout(PLACE_TIMEOUT, shared.taker.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(ApiError::failed(
            "another `qpc recv` takes messages from this inbox: end it first, or look on with --keep",
        )),
    }
}

/// Runs the request while it carries replies to the client and acknowledgements back. The last replies
/// may wait in `writer` for the last line.
async fn run(
    reader: &mut Reader,
    writer: &mut Writer,
    shared: &Shared,
    request: Request,
    payload: Bytes,
) -> Result<(), Ended> {
    let (tx, mut replies) = reply_channel();
    let mut call = shared.service.call(request, payload, tx);
    let mut acks = Acks::default();
    let result = loop {
        tokio::select! {
            // In this order: what is said is written before the end is looked at, and an end that
            // has come counts even where the client is gone by now.
            biased;
            Some(reply) = replies.recv() => {
                if let Err(error) = write_reply(writer, reply, &mut acks).await {
                    acks.last_words(reader).await;
                    return Err(error.into());
                }
            }
            result = &mut call => break result,
            // Nothing more is said at this moment.
            () = std::future::ready(()), if writer.has_gathered() => {
                if let Err(error) = writer.flush().await {
                    acks.last_words(reader).await;
                    return Err(error.into());
                }
            }
            line = reader.object::<AckLine>() => match line? {
                Some(line) => acks.acknowledge(line.ack)?,
                None => return Err(Ended::Gone),
            },
        }
    };
    // The service may have handed clones of its sender on; they end here.
    replies.close();
    while let Some(reply) = replies.recv().await {
        write_reply(writer, reply, &mut acks).await?;
    }
    result.map_err(Ended::Refused)
}

async fn write_reply(writer: &mut Writer, out: Outgoing, acks: &mut Acks) -> Result<(), FrameError> {
    let payload_len = u64::try_from(out.payload.len()).unwrap_or(u64::MAX);
    let ack = out.acknowledged.map(|waiting| acks.expect(waiting));
    writer.push(&ReplyLine { reply: &out.reply, payload_len, ack }, &out.payload).await
}

/// Replies whose acknowledgement somebody waits for, oldest first.
#[derive(Default)]
struct Acks {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    last: u64,
}

impl Acks {
    fn expect(&mut self, waiting: oneshot::Sender<()>) -> u64 {
        self.last = self.last.saturating_add(1);
        self.waiting.push_back((self.last, waiting));
        self.last
    }

    fn acknowledge(&mut self, number: u64) -> Result<(), ApiError> {
        match self.waiting.iter().position(|(n, _)| *n == number).and_then(|at| self.waiting.remove(at)) {
            Some((_, waiting)) => {
                // Whoever waited may have given up; then nothing is lost by not telling.
                let _ = waiting.send(());
                Ok(())
            }
            None => Err(ApiError::usage(format!("{number} is no reply that waits for an acknowledgement"))),
        }
    }

    /// Reads what a client that takes no more replies acknowledged before: that is safe there, and
    /// would be offered again.
    async fn last_words(&mut self, reader: &mut Reader) {
        let all = async {
            while let Ok(Some(line)) = reader.object::<AckLine>().await {
                let _ = self.acknowledge(line.ack);
            }
        };
        let _ = timeout(LAST_WORDS_TIMEOUT, all).await;
    }
}

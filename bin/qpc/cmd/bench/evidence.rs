//! The log of a load: what was sent, taken, receipted and received, one JSON object a line.
//!
//! [`super::load`] writes it, [`super::verify`] reads it. A line is in the system's hands before what
//! it tells of is counted or acknowledged, so a load that is killed has lost nothing it said.
//!
//! A message is known by its [`Stamp`], which is in its payload: the id that a node gives it comes
//! with the acknowledgement only, and where a node dies there is none.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use quicprochat_mesh::{
    api::ApiError,
    wire::{Address, MessageUid, ids::unhex},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ends::noise, measure::now_ns};

/// First bytes of every payload of a load.
const MAGIC: [u8; 4] = *b"qpcl";

/// Bytes of a [`Stamp`].
pub const STAMP_BYTES: usize = 24;

/// One run of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for RunId {
    type Err = quicprochat_mesh::wire::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Which message of which load it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The load's run.
    pub run: RunId,
    /// Number of the sender in that run, from 0.
    pub sender: u32,
    /// Number of the message at that sender, from 0.
    pub seq: u64,
}

impl fmt::Display for Stamp {
    /// As the lines of a log have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} sender {} seq {}", self.run, self.sender, self.seq)
    }
}

impl Stamp {
    /// A payload of `len` bytes, at least [`STAMP_BYTES`], that no layer can compress or guess.
    pub fn payload(&self, len: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(len);
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.run.0.to_le_bytes());
        payload.extend_from_slice(&self.sender.to_le_bytes());
        payload.extend_from_slice(&self.seq.to_le_bytes());
        payload.extend(noise(len.saturating_sub(STAMP_BYTES)));
        payload
    }

    /// Whose payload this is, and whether the rest of it is what was sent; none of another program's.
    pub fn read(payload: &[u8]) -> Option<(Self, bool)> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (run, rest) = rest.split_first_chunk::<8>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let stamp = Self {
            run: RunId(u64::from_le_bytes(*run)),
            sender: u32::from_le_bytes(*sender),
            seq: u64::from_le_bytes(*seq),
        };
        Some((stamp, noise(rest.len()) == rest))
    }
}

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A load began.
    Start,
    /// A message is about to be handed to a node.
    Send,
    /// The node has it on disk and gave it an id.
    Ack,
    /// The node took it not, and said why; `no_node` where none was there.
    Refused,
    /// The node went away before it had answered: it may have the message or not.
    Unknown,
    /// The destination's receipt is back.
    Receipt,
    /// It ended otherwise: expired, or cancelled.
    Ended,
    /// A receiver began to take messages; what it takes first may be a repetition.
    Listen,
    /// A message was taken from a node.
    Receive,
    /// It was offered again, because nobody heard that it had been taken. See [`Takes`].
    Again,
    /// A receiver lost its node.
    Error,
    /// A load came to its end.
    Finish,
}

/// One line. What does not exist is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds of the machine's monotonic clock, one for all processes.
    pub t_ms: u64,
    /// What happened.
    pub ev: Event,
    /// Run of the message; of the load itself where there is no message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The sender's number in the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<u32>,
    /// The message's number at its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The message's uid, once a node gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageUid>,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// Whom it is for; of a `receive`, who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Reason of a `refused` where no node was there to ask.
pub const NO_NODE: &str = "no_node";

/// Reason of a `receive` whose payload is not what was sent.
pub const DAMAGED: &str = "damaged";

impl Line {
    /// A line of now.
    pub fn new(ev: Event) -> Self {
        Self {
            t_ms: now_ns() / 1_000_000,
            ev,
            run: None,
            sender: None,
            seq: None,
            id: None,
            from: None,
            to: None,
            reason: None,
        }
    }

    /// About this message.
    pub fn of(mut self, stamp: Stamp) -> Self {
        self.run = Some(stamp.run);
        self.sender = Some(stamp.sender);
        self.seq = Some(stamp.seq);
        self
    }

    /// The message it is about, of a load's.
    pub fn stamp(&self) -> Option<Stamp> {
        Some(Stamp { run: self.run?, sender: self.sender?, seq: self.seq? })
    }

    /// Because of this.
    pub fn why(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens a log to go on behind what it holds.
    pub fn open(path: &Path) -> Result<Self, ApiError> {
        let file = File::options().read(true).append(true).create(true).open(path);
        let mut log = Self { file: file.map_err(|e| cannot("open", path, &e))?, path: path.to_owned() };
        log.end_torn_line().map_err(|e| cannot("read", path, &e))?;
        Ok(log)
    }

    /// A load that was killed may have left half a line.
    fn end_torn_line(&mut self) -> std::io::Result<()> {
        let len = self.file.seek(SeekFrom::End(0))?;
        if len > 0 {
            let mut last = [0];
            self.file.seek(SeekFrom::End(-1))?;
            self.file.read_exact(&mut last)?;
            if last != *b"\n" {
                self.file.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Adds a line. It is the system's when this returns: a kill of this process loses it not.
    pub fn write(&mut self, line: &Line) -> Result<(), ApiError> {
        let mut bytes = serde_json::to_vec(line).map_err(ApiError::failed)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(|e| cannot("write to", &self.path, &e))
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    ApiError::failed(format!("cannot {what} the log {}: {error}", path.display()))
}

/// Messages that a node offers before the first is acknowledged, at most.
const OFFERED_MAX: usize = 128;

/// Tells messages that a node offers again from those that arrived twice.
///
/// A node removes what its taker said that it has, all that waits with one commit. Where the node ends
/// before that, or the connection before the word is out, it offers again from the first one on that it
/// has still: the last ones that were taken, in the same order, at the start of the next connection.
/// Anything else that comes twice is a duplicate.
#[derive(Debug, Default)]
pub struct Takes {
    /// The last that were taken, oldest first.
    last: VecDeque<MessageUid>,
    /// Those of them that may come again next, in this order.
    again: VecDeque<MessageUid>,
    is_first: bool,
}

impl Takes {
    /// A connection was made.
    pub fn listen(&mut self) {
        self.is_first = true;
        self.again.clear();
    }

    /// A message was offered; true where it is one of those before over again.
    pub fn is_again(&mut self, id: MessageUid) -> bool {
        if std::mem::take(&mut self.is_first) {
            let at = self.last.iter().rposition(|last| *last == id).unwrap_or(self.last.len());
            self.again = self.last.iter().skip(at).copied().collect();
        }
        if self.again.pop_front() == Some(id) {
            return true;
        }
        self.again.clear();
        self.last.push_back(id);
        if self.last.len() > OFFERED_MAX {
            self.last.pop_front();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: RunId(7), sender: 1, seq: 9 };

    #[test]
    fn a_payload_says_whose_it_is_and_whether_it_is_whole() {
        for len in [STAMP_BYTES, 256, 5000] {
            let mut payload = STAMP.payload(len);
            assert_eq!((payload.len(), Stamp::read(&payload)), (len, Some((STAMP, true))));
            if len > STAMP_BYTES {
                payload[len - 1] ^= 1;
                assert_eq!(Stamp::read(&payload), Some((STAMP, false)));
            }
        }
        assert_eq!(Stamp::read(b"good morning, how are you?"), None);
        assert_eq!(Stamp::read(&STAMP.payload(24)[..23]), None);
    }

    #[test]
    fn a_log_goes_on_behind_half_a_line_and_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "{\"t_ms\":1,\"ev\":\"se").unwrap();
        let mut line = Line::new(Event::Ack).of(STAMP).why("none");
        line.id = Some(MessageUid([3; 16]));
        Log::open(&path).unwrap().write(&line).unwrap();
        Log::open(&path).unwrap().write(&line).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(serde_json::from_str::<Line>(lines[0]).is_err());
        for text in &lines[1..] {
            let read: Line = serde_json::from_str(text).unwrap();
            assert_eq!((read.stamp(), &read), (Some(STAMP), &line));
        }
    }

    #[test]
    fn the_last_ones_taken_may_come_again_in_their_order_and_only_at_once() {
        let [a, b, c] = [1, 2, 3].map(|n| MessageUid([n; 16]));
        let mut takes = Takes::default();
        takes.listen();
        assert!(![a, b, c].into_iter().any(|id| takes.is_again(id)));
        takes.listen();
        assert!(takes.is_again(b) && takes.is_again(c), "nobody heard that they were taken");
        assert!(!takes.is_again(c), "twice in one connection");
        takes.listen();
        assert!(takes.is_again(a) && !takes.is_again(c), "what stood between them had been removed");
        takes.listen();
        assert!(!takes.is_again(MessageUid([4; 16])) && !takes.is_again(a), "not behind something new");
    }
}

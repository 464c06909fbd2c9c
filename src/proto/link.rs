//! The session of one link: hello, keepalive, goodbye.
//!
//! ```text
//! ExpectHello ──hello accepted──▶ Established ──▶ Closed
//!      └──────── timeout, mismatch, fault ─────────▲
//! ```
//!
//! Feed it every decoded frame, what could not be decoded, and the time; after each
//! [`Link::handle`] drain [`Link::poll`] to `None`, then wait until [`Link::next_wake`]. It keeps
//! hello, goodbye, ping, pong and credit to itself; a caller passes every other frame on to where
//! it belongs once `handle` returned `Ok` and [`Link::is_established`] holds.
//!
//! Absent on purpose: queues, budgets and routes. They outlive a link and live elsewhere.

mod error;
mod hello;
mod keepalive;
mod tolerance;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::wire::{
    DecodeError, Frame, NetworkId, PublicKey,
    control::Credit,
    handshake::{CloseReason, Goodbye, Hello},
    limits::HANDSHAKE_FRAMES_MAX,
};

pub use error::{LinkError, SecretFault};
pub(in crate::proto) use hello::NetworkMac;
pub use hello::NetworkSecret;

use keepalive::{Keepalive, Tick};
use tolerance::Tolerance;

/// Silence after which a neighbour is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long the peer's hello may take once the connection stands.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Who opened the connection under the link. The network proof binds it, so that a proof echoed
/// back is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// We dialled.
    Out,
    /// The peer dialled.
    In,
}

impl Direction {
    /// The same connection as the peer sees it.
    pub fn reversed(self) -> Self {
        match self {
            Direction::Out => Direction::In,
            Direction::In => Direction::Out,
        }
    }

    /// Name in logs, metrics and `qpc peers`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Out => "out",
            Direction::In => "in",
        }
    }
}

/// What a link is opened with.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The network; both sides name it.
    pub network: NetworkId,
    /// Shared secret of a closed network.
    pub network_secret: Option<NetworkSecret>,
    /// Our own key, so that a connection to ourselves is noticed.
    pub own_key: PublicKey,
    /// Who the transport says is on the other end; none on media that cannot say.
    pub peer: Option<PublicKey>,
    /// 32 bytes exported from the transport's handshake, the same on both ends and on no other
    /// connection. Zeros on media without one.
    pub channel_binding: [u8; 32],
    /// Who dialled.
    pub direction: Direction,
    /// Feature bits to offer.
    pub features: u64,
    /// Our boot epoch.
    pub boot_epoch: u32,
    /// Our wall clock in seconds since 1970.
    pub clock_unix_s: u64,
    /// Bytes of each class that the peer may send before we grant more.
    pub initial_credit: [u32; 3],
    /// Silence before a ping; [`KEEPALIVE_INTERVAL`] by default, longer on thin media.
    pub keepalive: Duration,
    /// Longest wait for the peer's hello.
    pub hello_timeout: Duration,
}

/// What happens to a link.
#[derive(Debug)]
pub enum Input<'a> {
    /// The connection stands: say hello.
    Start,
    /// A frame came.
    Frame(&'a Frame),
    /// Bytes came that are no frame yet: the peer lives.
    Activity,
    /// A frame came that could not be read.
    Undecodable(&'a DecodeError),
    /// A frame came that could be read and makes no sense, by the name of its fault.
    Odd(&'static str),
    /// The time that [`Link::next_wake`] named is here.
    Timeout,
    /// Close the link, with a text for people.
    Close(CloseReason, String),
}

/// What is to be done.
#[expect(clippy::large_enum_variant, reason = "a few a link, moved once from queue to caller")]
#[derive(Debug)]
pub enum Output {
    /// Send this frame, ahead of any data.
    Send(Frame),
    /// The peer is of our network and speaks our version. Comes once.
    Established {
        /// What the peer said of itself.
        peer_hello: Hello,
        /// Link protocol version in use.
        version: u8,
    },
    /// A new smoothed round trip time.
    Rtt(Duration),
    /// The peer lets us send more of one class.
    Credit(Credit),
    /// The link is over. Comes once, last; send what [`Output::Send`] asked for before it.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The same for people; free of control characters.
        text: String,
        /// True where the peer said goodbye.
        by_peer: bool,
    },
}

/// Why a link wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The peer's hello is overdue then.
    HelloTimeout,
    /// A ping is due then.
    Keepalive,
    /// The peer counts as gone then.
    PeerSilent,
}

#[derive(Debug)]
enum State {
    ExpectHello { deadline: Instant, strange_frames: usize },
    Established { keepalive: Keepalive },
    Closed,
}

/// The machine. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    nonce: [u8; 8],
    state: State,
    tolerance: Tolerance,
    unknown_frames: u64,
    outputs: VecDeque<Output>,
}

impl Link {
    /// A link whose connection was just made. `nonce` is random, drawn for this link.
    pub fn new(config: LinkConfig, now: Instant, nonce: [u8; 8]) -> Self {
        let deadline = now + config.hello_timeout;
        Self {
            config,
            nonce,
            state: State::ExpectHello { deadline, strange_frames: 0 },
            tolerance: Tolerance::new(now),
            unknown_frames: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// Why the link closed itself. The goodbye and [`Output::Closed`] are queued all the same; drain
    /// them. A closed link ignores everything.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Result<(), LinkError> {
        if self.is_closed() {
            return Ok(());
        }
        let outcome = match input {
            Input::Start => {
                self.outputs.push_back(Output::Send(Frame::Hello(hello::ours(&self.config, self.nonce))));
                Ok(())
            }
            Input::Frame(frame) => self.on_frame(now, frame),
            Input::Activity => {
                self.heard(now);
                Ok(())
            }
            Input::Undecodable(error) => self.on_undecodable(now, error),
            // No honest peer sends one; each costs more to look at than to send.
            Input::Odd(what) if !self.tolerance.forgive(now) => Err(LinkError::Odd { what }),
            Input::Odd(_) => Ok(()),
            Input::Timeout => self.on_timeout(now),
            Input::Close(reason, text) => {
                self.close(reason, text);
                Ok(())
            }
        };
        if let Err(error) = &outcome {
            self.close(error.close_reason(), error.to_string());
        }
        outcome
    }

    /// The next thing to do, or none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Timeout`], and what for. None once closed.
    pub fn next_wake(&self) -> Option<(Instant, Wake)> {
        match &self.state {
            State::ExpectHello { deadline, .. } => Some((*deadline, Wake::HelloTimeout)),
            State::Established { keepalive } => Some(keepalive.next_wake()),
            State::Closed => None,
        }
    }

    /// True between the peer's hello and the end.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established { .. })
    }

    /// True at the end.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The smoothed round trip time, once a ping was answered. The peer's word: it can answer late.
    pub fn rtt(&self) -> Option<Duration> {
        match &self.state {
            State::Established { keepalive } => keepalive.rtt(),
            _ => None,
        }
    }

    /// Frames of types this version does not know, counted and skipped.
    pub fn unknown_frames(&self) -> u64 {
        self.unknown_frames
    }

    fn on_frame(&mut self, now: Instant, frame: &Frame) -> Result<(), LinkError> {
        if let Frame::Goodbye(goodbye) = frame {
            self.on_goodbye(goodbye);
            return Ok(());
        }
        match &mut self.state {
            State::ExpectHello { .. } => match frame {
                Frame::Hello(theirs) => self.on_hello(now, theirs),
                other => Err(LinkError::BeforeHello { frame: other.name() }),
            },
            State::Established { keepalive } => {
                keepalive.heard(now);
                match frame {
                    Frame::Hello(_) => return Err(LinkError::SecondHello),
                    Frame::Ping(number) if keepalive.may_answer(now) => {
                        self.outputs.push_back(Output::Send(Frame::Pong(*number)));
                    }
                    Frame::Pong(number) => {
                        if let Some(rtt) = keepalive.on_pong(now, *number) {
                            self.outputs.push_back(Output::Rtt(rtt));
                        }
                    }
                    Frame::Credit(credit) => self.outputs.push_back(Output::Credit(*credit)),
                    _ => {}
                }
                Ok(())
            }
            State::Closed => Ok(()),
        }
    }

    fn on_hello(&mut self, now: Instant, theirs: &Hello) -> Result<(), LinkError> {
        let version = hello::judge(&self.config, self.nonce, theirs)?;
        let keepalive = Keepalive::new(now, self.config.keepalive, u64::from_be_bytes(self.nonce));
        self.state = State::Established { keepalive };
        self.outputs.push_back(Output::Established { peer_hello: theirs.clone(), version });
        // The first ping goes out at once, for a first round trip time.
        self.on_timeout(now)
    }

    fn on_undecodable(&mut self, now: Instant, error: &DecodeError) -> Result<(), LinkError> {
        self.heard(now);
        if error.is_unknown_version() {
            self.unknown_frames = self.unknown_frames.saturating_add(1);
        }
        match &mut self.state {
            State::ExpectHello { strange_frames, .. } => {
                *strange_frames = strange_frames.saturating_add(1);
                let newer = error.is_unknown_version() && *strange_frames < HANDSHAKE_FRAMES_MAX;
                if newer { Ok(()) } else { Err(LinkError::Undecodable { error: error.clone() }) }
            }
            State::Established { .. } => {
                if error.is_unknown_version() || self.tolerance.forgive(now) {
                    Ok(())
                } else {
                    Err(LinkError::Undecodable { error: error.clone() })
                }
            }
            State::Closed => Ok(()),
        }
    }

    fn on_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        match &mut self.state {
            State::ExpectHello { deadline, .. } if now >= *deadline => {
                Err(LinkError::HelloTimeout { after: self.config.hello_timeout })
            }
            State::Established { keepalive } => match keepalive.tick(now) {
                Tick::Nothing => Ok(()),
                Tick::Ping(number) => {
                    self.outputs.push_back(Output::Send(Frame::Ping(number)));
                    Ok(())
                }
                Tick::Dead { silent_for } => Err(LinkError::PeerSilent { silent_for }),
            },
            _ => Ok(()),
        }
    }

    fn on_goodbye(&mut self, goodbye: &Goodbye) {
        // The text ends in logs and on terminals: escape sequences of a stranger do not.
        let text = goodbye.text.chars().filter(|c| !c.is_control()).collect();
        self.state = State::Closed;
        self.outputs.push_back(Output::Closed { reason: goodbye.reason, text, by_peer: true });
    }

    fn close(&mut self, reason: CloseReason, text: String) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Send(Frame::Goodbye(Goodbye { reason, text: text.clone() })));
        self.outputs.push_back(Output::Closed { reason, text, by_peer: false });
    }

    fn heard(&mut self, now: Instant) {
        if let State::Established { keepalive } = &mut self.state {
            keepalive.heard(now);
        }
    }
}

#[cfg(test)]
mod tests;

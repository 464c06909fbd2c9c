//! One end of a link, under frames that a stranger makes up, silence, and a clock that jumps.
//!
//! What has to hold: it is established at most once and ends at most once, says nothing after its end,
//! answers no more than it may, and asks to be woken later than now, so that no timer spins.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    clock,
    proto::link::{Direction, Input, Link, LinkConfig, NetworkSecret, Output},
    wire::{
        DecodeError, Frame, NetworkId, PublicKey, TrafficClass,
        control::Credit,
        handshake::{CloseReason, Goodbye, Hello},
    },
};

use super::Script;

/// Most that one input asks a caller to do: a hello answered, and then a ping.
const OUTPUTS_AN_INPUT: usize = 3;

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut now = clock::now();
    let (flags, keepalive) = (script.u8(), script.pause().max(Duration::from_millis(1)));
    let config = |own: u8, other: u8, direction| LinkConfig {
        network: NetworkId([7; 16]),
        network_secret: (flags & 1 != 0).then(|| NetworkSecret::new(vec![5; 32])),
        own_key: PublicKey([own; 32]),
        peer: (flags & 2 != 0).then_some(PublicKey([other; 32])),
        channel_binding: [9; 32],
        direction,
        features: 0,
        boot_epoch: 1,
        clock_unix_s: 1_800_000_000,
        initial_credit: [1 << 16; 3],
        keepalive,
        hello_timeout: Duration::from_secs(5),
    };
    let mut link = Link::new(config(1, 2, Direction::Out), now, [1; 8]);
    let honest = hello_of(&mut Link::new(config(2, 1, Direction::In), now, [2; 8]), now);
    let mut seen = Seen::default();
    while let Some(kind) = script.step() {
        let timed_out = step(kind, &mut script, &mut now, &mut link, &honest);
        seen.drain(&mut link);
        if timed_out && let Some((at, wake)) = link.next_wake() {
            assert!(at > now, "it wants to be woken for {wake:?} again at once");
        }
        assert_eq!(link.is_closed(), seen.closed);
        assert_eq!(link.is_closed(), link.next_wake().is_none());
        assert!(!link.is_established() || seen.established);
    }
}

/// What it says first.
fn hello_of(link: &mut Link, now: std::time::Instant) -> Hello {
    let _ = link.handle(now, Input::Start);
    match link.poll() {
        Some(Output::Send(Frame::Hello(hello))) => hello,
        other => panic!("no hello, but {other:?}"),
    }
}

/// One input; true where it was a timeout.
fn step(
    kind: u8,
    script: &mut Script<'_>,
    now: &mut std::time::Instant,
    link: &mut Link,
    honest: &Hello,
) -> bool {
    let frame = match kind % 16 {
        0 => {
            let _ = link.handle(*now, Input::Start);
            return false;
        }
        1 => Frame::Hello(honest.clone()),
        2 => Frame::Hello(Hello {
            version_min: script.u8(),
            version_max: script.u8(),
            network_tag: if script.bool() { honest.network_tag } else { script.array() },
            network_proof: if script.bool() { honest.network_proof } else { Some(script.array()) },
            features: script.edge(u64::MAX),
            boot_epoch: script.u32(),
            nonce: [script.below(3); 8],
            clock_unix_s: script.edge(u64::MAX),
            initial_credit: [script.u32(), script.u32(), script.u32()],
        }),
        3 => Frame::Ping(script.edge(u64::MAX)),
        // Its pings are numbered from its nonce.
        4 => Frame::Pong(u64::from_be_bytes([1; 8]).wrapping_add(u64::from(script.below(8)))),
        5 => Frame::Credit(Credit { class: TrafficClass::Bulk, bytes: script.u32() }),
        6 => {
            let text = String::from_utf8_lossy(script.take(8)).into_owned();
            Frame::Goodbye(Goodbye { reason: CloseReason::from(script.u8()), text })
        }
        7 => {
            let count = usize::from(script.u8());
            let bytes = Bytes::copy_from_slice(script.take(count));
            match Frame::decode(&bytes) {
                Ok(frame) => frame,
                Err(error) => {
                    let _ = link.handle(*now, Input::Undecodable(&error));
                    return false;
                }
            }
        }
        8 => {
            let _ = link.handle(*now, Input::Undecodable(&DecodeError::UnknownFrame(99)));
            return false;
        }
        9 => {
            let _ = link.handle(*now, Input::Odd("odd"));
            return false;
        }
        10 => {
            let _ = link.handle(*now, Input::Activity);
            return false;
        }
        11 if script.below(8) == 0 => {
            let _ = link.handle(*now, Input::Close(CloseReason::Shutdown, "bye".into()));
            return false;
        }
        11 | 12 => {
            *now += script.pause();
            return false;
        }
        13 | 14 => {
            // As an actor does it: when it asked for, not before.
            *now = link.next_wake().map_or(*now, |(at, _)| at.max(*now));
            let _ = link.handle(*now, Input::Timeout);
            return true;
        }
        _ => {
            let _ = link.handle(*now, Input::Timeout);
            return true;
        }
    };
    let was_established = link.is_established();
    let taken = link.handle(*now, Input::Frame(&frame));
    assert!(taken.is_ok() || link.is_closed());
    // Nothing but a hello opens it.
    assert!(was_established || !link.is_established() || matches!(frame, Frame::Hello(_)));
    false
}

/// What it said so far.
#[derive(Default)]
struct Seen {
    established: bool,
    closed: bool,
}

impl Seen {
    fn drain(&mut self, link: &mut Link) {
        let outputs: Vec<Output> = std::iter::from_fn(|| link.poll()).collect();
        assert!(outputs.len() <= OUTPUTS_AN_INPUT, "{outputs:?}");
        for output in outputs {
            assert!(!self.closed, "after its end: {output:?}");
            match output {
                Output::Established { .. } => {
                    assert!(!std::mem::replace(&mut self.established, true), "established twice");
                }
                Output::Closed { text, by_peer, .. } => {
                    assert!(!by_peer || !text.chars().any(char::is_control));
                    self.closed = true;
                }
                Output::Rtt(_) | Output::Credit(_) => assert!(self.established),
                Output::Send(frame) => {
                    let is_own = matches!(
                        frame,
                        Frame::Hello(_) | Frame::Goodbye(_) | Frame::Ping(_) | Frame::Pong(_)
                    );
                    assert!(is_own, "{frame:?}");
                    // Whatever it says is a frame that the other side reads.
                    assert!(Frame::decode(&frame.encode()).is_ok(), "{frame:?}");
                }
            }
        }
    }
}

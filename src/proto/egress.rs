//! What waits to be written to one link: a queue a class, each bounded in bytes.
//!
//! The urgent class goes first, always: control never waits behind data, and a file never delays a
//! chat line. Within a class there are two lanes: high and critical go before normal and low, but
//! never before what their own source sent earlier, and never all the time. What does not fit comes
//! back to the caller, who refuses it or puts it into custody; nothing is dropped here.
//!
//! Frames about the link itself (hello, ping, pong, credit, goodbye) go ahead of everything and
//! need no credit: without them the link dies or stands still.

use std::collections::{BTreeMap, VecDeque};

use super::credit::{CreditError, CreditOut};
use crate::wire::{Address, FrameParts, Priority, TrafficClass, control::Credit};

/// Bytes of one class that may wait for a link. At 10 MB/s a full queue is a tenth of a second.
pub const CLASS_BYTES_MAX: usize = 1024 * 1024;

/// Bytes handed to the medium at once: enough to fill its buffers, little enough that a control
/// frame never waits long.
pub const WRITE_BYTES: usize = 64 * 1024;

/// Of [`WRITE_BYTES`], what the urgent lane of a class takes while the other one waits: the rest
/// keeps a stream of urgent messages from silencing everyone else.
const URGENT_BYTES: usize = WRITE_BYTES / 8 * 7;

/// Frames about the link itself that may wait. A few a second are made.
pub const OWN_FRAMES_MAX: usize = 64;

/// Places that an empty queue keeps; a burst's worth of them is given back.
const KEPT_PLACES: usize = 32;

/// Whose a frame is and how urgent: its place within its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Who sent it.
    pub source: Address,
    /// How urgent it is.
    pub priority: Priority,
}

impl Rank {
    fn is_urgent(&self) -> bool {
        self.priority >= Priority::High
    }
}

/// The queues of one link.
#[derive(Debug, Default)]
pub struct Egress {
    own: VecDeque<FrameParts>,
    own_bytes: usize,
    classes: [ClassQueue; 3],
    /// None where the medium needs none.
    credit: Option<CreditOut>,
}

#[derive(Debug, Default)]
struct ClassQueue {
    urgent: Lane,
    rest: Lane,
    bytes: usize,
}

/// Frames in line, and how many of them each source has there.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(FrameParts, Option<Address>)>,
    of: BTreeMap<Address, u32>,
}

impl Egress {
    /// Empty queues; credit is not asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on data waits for credit; `initial` is what the peer's hello grants.
    pub fn use_credit(&mut self, initial: [u32; 3]) {
        self.credit = Some(CreditOut::new(initial));
    }

    /// Takes a grant of the peer.
    ///
    /// # Errors
    /// Zero, too much, or on a link that uses none: to be counted, harmless otherwise.
    pub fn grant(&mut self, credit: Credit) -> Result<(), CreditError> {
        self.credit.as_mut().ok_or(CreditError::Foreign)?.grant(credit)
    }

    /// Queues a frame about the link itself, or hands it back where [`OWN_FRAMES_MAX`] wait.
    pub fn push_own(&mut self, frame: FrameParts) -> Result<(), FrameParts> {
        if self.own.len() >= OWN_FRAMES_MAX {
            return Err(frame);
        }
        self.own_bytes = self.own_bytes.saturating_add(frame.len());
        self.own.push_back(frame);
        Ok(())
    }

    /// Queues a frame; without a rank it waits in line.
    ///
    /// # Errors
    /// Hands it back where its class is full. A class always takes one frame, whatever its size.
    pub fn push(
        &mut self,
        class: TrafficClass,
        rank: Option<Rank>,
        frame: FrameParts,
    ) -> Result<(), FrameParts> {
        match self.classes.get_mut(class as usize) {
            Some(queue) => queue.push(rank, frame),
            None => Err(frame),
        }
    }

    /// Takes up to [`WRITE_BYTES`] of the most urgent class that has any, has credit for it, and
    /// that the medium is `ready` for, into `out`.
    pub fn take(
        &mut self,
        ready: impl Fn(TrafficClass) -> bool,
        out: &mut Vec<FrameParts>,
    ) -> Option<TrafficClass> {
        let before = out.len();
        for class in TrafficClass::ALL {
            if !ready(class) {
                continue;
            }
            if class == TrafficClass::Control {
                out.extend(self.own.drain(..));
                self.own_bytes = 0;
            }
            if let Some(queue) = self.classes.get_mut(class as usize) {
                queue.take(class, self.credit.as_mut(), out);
            }
            if out.len() > before {
                return Some(class);
            }
        }
        None
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.classes.iter().map(ClassQueue::len).sum::<usize>().saturating_add(self.own.len())
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.classes.iter().map(|queue| queue.bytes).sum::<usize>().saturating_add(self.own_bytes)
    }
}

impl ClassQueue {
    fn push(&mut self, rank: Option<Rank>, frame: FrameParts) -> Result<(), FrameParts> {
        let len = frame.len();
        if self.bytes > 0 && self.bytes.saturating_add(len) > CLASS_BYTES_MAX {
            return Err(frame);
        }
        self.bytes = self.bytes.saturating_add(len);
        let source = rank.map(|rank| rank.source);
        self.lane_for(rank).push(frame, source);
        Ok(())
    }

    /// A source's frames leave in the order they came, so one lane holds all of them that wait.
    fn lane_for(&mut self, rank: Option<Rank>) -> &mut Lane {
        let Some(rank) = rank else { return &mut self.rest };
        let overtakes = rank.is_urgent() && !self.rest.of.contains_key(&rank.source);
        let follows = !self.urgent.of.is_empty() && self.urgent.of.contains_key(&rank.source);
        if overtakes || follows { &mut self.urgent } else { &mut self.rest }
    }

    fn take(&mut self, class: TrafficClass, mut credit: Option<&mut CreditOut>, out: &mut Vec<FrameParts>) {
        let mut affords = |frame: &FrameParts| match &mut credit {
            Some(credit) => credit.spend(class, frame.len()),
            None => true,
        };
        let urgent_max = if self.rest.frames.is_empty() { WRITE_BYTES } else { URGENT_BYTES };
        let mut taken = self.urgent.take(urgent_max, &mut affords, out);
        // One that waits for credit is not overtaken by a smaller one of the other lane.
        let stalled = taken < urgent_max && !self.urgent.frames.is_empty();
        if !stalled {
            let left = WRITE_BYTES.saturating_sub(taken);
            taken = taken.saturating_add(self.rest.take(left, &mut affords, out));
        }
        self.bytes = self.bytes.saturating_sub(taken);
    }

    fn len(&self) -> usize {
        self.urgent.frames.len().saturating_add(self.rest.frames.len())
    }
}

impl Lane {
    fn push(&mut self, frame: FrameParts, source: Option<Address>) {
        if let Some(source) = source {
            let waiting = self.of.entry(source).or_default();
            *waiting = waiting.saturating_add(1);
        }
        self.frames.push_back((frame, source));
    }

    /// Takes frames until `bytes_max` are reached or the next one cannot be afforded; their bytes.
    fn take(
        &mut self,
        bytes_max: usize,
        affords: &mut impl FnMut(&FrameParts) -> bool,
        out: &mut Vec<FrameParts>,
    ) -> usize {
        let mut taken = 0usize;
        while taken < bytes_max
            && let Some((frame, source)) = self.frames.pop_front_if(|(frame, _)| affords(frame))
        {
            taken = taken.saturating_add(frame.len());
            out.push(frame);
            if let Some(source) = source {
                self.left(&source);
            }
        }
        if self.frames.is_empty() && self.frames.capacity() > KEPT_PLACES {
            self.frames = VecDeque::new();
        }
        taken
    }

    fn left(&mut self, source: &Address) {
        if let Some(waiting) = self.of.get_mut(source) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.of.remove(source);
            }
        }
    }
}

#[cfg(test)]
mod tests;

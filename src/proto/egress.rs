//! What waits to be written to one link: a queue a class, each bounded in bytes.
//!
//! The urgent class goes first, always: control never waits behind data, and a file never delays a
//! chat line. What does not fit comes back to the caller, who refuses it or puts it into custody;
//! nothing is dropped here.

use std::collections::VecDeque;

use crate::wire::{FrameParts, TrafficClass};

/// Bytes of one class that may wait for a link. At 10 MB/s a full queue is a tenth of a second.
pub const CLASS_BYTES_MAX: usize = 1024 * 1024;

/// Bytes handed to the medium at once: enough to fill its buffers, little enough that a control
/// frame never waits long.
pub const WRITE_BYTES: usize = 64 * 1024;

/// The queues of one link.
#[derive(Debug, Default)]
pub struct Egress {
    queues: [VecDeque<FrameParts>; 3],
    bytes: [usize; 3],
}

impl Egress {
    /// Empty queues.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// Hands it back where its class is full. A class always takes one frame, whatever its size.
    pub fn push(&mut self, class: TrafficClass, frame: FrameParts) -> Result<(), FrameParts> {
        let len = frame.len();
        let (Some(queue), Some(bytes)) =
            (self.queues.get_mut(class as usize), self.bytes.get_mut(class as usize))
        else {
            return Err(frame);
        };
        if *bytes > 0 && bytes.saturating_add(len) > CLASS_BYTES_MAX {
            return Err(frame);
        }
        *bytes = bytes.saturating_add(len);
        queue.push_back(frame);
        Ok(())
    }

    /// Takes up to [`WRITE_BYTES`] of the most urgent class that has any, and that the medium is
    /// `ready` for, into `out`.
    pub fn take(
        &mut self,
        ready: impl Fn(TrafficClass) -> bool,
        out: &mut Vec<FrameParts>,
    ) -> Option<TrafficClass> {
        for class in TrafficClass::ALL {
            if !ready(class) {
                continue;
            }
            let (Some(queue), Some(bytes)) =
                (self.queues.get_mut(class as usize), self.bytes.get_mut(class as usize))
            else {
                continue;
            };
            let mut taken = 0usize;
            while taken < WRITE_BYTES {
                let Some(frame) = queue.pop_front() else { break };
                taken = taken.saturating_add(frame.len());
                out.push(frame);
            }
            if taken > 0 {
                *bytes = bytes.saturating_sub(taken);
                return Some(class);
            }
        }
        None
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(len: usize) -> FrameParts {
        FrameParts::whole(Bytes::from(vec![0; len]))
    }

    #[test]
    fn urgent_classes_go_first() {
        let mut egress = Egress::new();
        egress.push(TrafficClass::Bulk, frame(10)).unwrap();
        egress.push(TrafficClass::Interactive, frame(20)).unwrap();
        egress.push(TrafficClass::Control, frame(30)).unwrap();
        let mut order = vec![];
        let mut out = vec![];
        while let Some(class) = egress.take(|_| true, &mut out) {
            order.push(class);
        }
        assert_eq!(order, TrafficClass::ALL);
        assert_eq!(out.iter().map(FrameParts::len).collect::<Vec<_>>(), [30, 20, 10]);
        assert!(egress.is_empty() && egress.bytes() == 0);
    }

    #[test]
    fn a_full_class_hands_back_and_leaves_the_others_alone() {
        let mut egress = Egress::new();
        while egress.push(TrafficClass::Bulk, frame(16_000)).is_ok() {}
        assert!(egress.bytes() <= CLASS_BYTES_MAX);
        egress.push(TrafficClass::Interactive, frame(100)).unwrap();
        egress.push(TrafficClass::Control, frame(100)).unwrap();
    }

    #[test]
    fn writes_are_bounded() {
        let mut egress = Egress::new();
        for _ in 0..100 {
            egress.push(TrafficClass::Bulk, frame(10_000)).unwrap();
        }
        let mut out = vec![];
        egress.take(|_| true, &mut out);
        let bytes: usize = out.iter().map(FrameParts::len).sum();
        assert!((WRITE_BYTES..WRITE_BYTES + 10_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_class_the_medium_is_not_ready_for_waits_without_holding_others_up() {
        let mut egress = Egress::new();
        egress.push(TrafficClass::Bulk, frame(10)).unwrap();
        egress.push(TrafficClass::Interactive, frame(20)).unwrap();
        let mut out = vec![];
        let not_interactive = |class| class != TrafficClass::Interactive;
        assert_eq!(egress.take(not_interactive, &mut out), Some(TrafficClass::Bulk));
        assert_eq!(egress.take(not_interactive, &mut out), None);
        assert_eq!(egress.take(|_| true, &mut out), Some(TrafficClass::Interactive));
    }
}

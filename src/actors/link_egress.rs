//! The egress queues of one link, shared by its actor, reader and writer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::rate_limiter::PressureGauge;
use crate::{
    messages::link::Permit,
    proto::{
        credit::{CreditError, CreditIn},
        egress::{Egress, Rank},
        verify::{InboundEnvelope, Verified},
    },
    wire::{Frame, FrameParts, TrafficClass, control::Credit, handshake::CloseReason},
};

/// See the module.
#[derive(Default)]
pub struct SharedEgress {
    state: Mutex<State>,
    pub(super) wake: Notify,
    gauge: PressureGauge,
}

#[derive(Default)]
struct State {
    queues: Egress,
    /// What the peer may send; none where the medium has a stream a class.
    granted: Option<CreditIn>,
    closing: Option<CloseReason>,
}

impl SharedEgress {
    /// Empty queues. `granted` is the credit of our hello, where the link uses credit.
    pub fn new(granted: Option<[u32; 3]>, gauge: PressureGauge) -> Self {
        let state = State { granted: granted.map(CreditIn::new), ..State::default() };
        Self { state: Mutex::new(state), wake: Notify::new(), gauge }
    }

    /// The peer said hello; where the link uses credit, `initial` is what may be sent.
    pub fn established(&self, initial: [u32; 3]) {
        let mut state = self.lock();
        if state.granted.is_some() {
            state.queues.use_credit(initial);
        }
    }

    /// Queues a frame for the writer, or hands it back.
    pub fn push(&self, class: TrafficClass, rank: Option<Rank>, frame: FrameParts) -> Result<(), FrameParts> {
        let bytes = frame.len();
        {
            // Counted under the lock: what the writer takes was counted before.
            let mut inner = self.lock();
            inner.queues.push(class, rank, frame)?;
            self.gauge.queued(bytes);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Queues envelopes in their order, under one lock and with one wake-up; gives those back that
    /// their class had no room for.
    pub fn push_envelopes(
        &self,
        envelopes: Vec<Verified<InboundEnvelope>>,
    ) -> Vec<Verified<InboundEnvelope>> {
        let mut unsent = Vec::new();
        {
            let mut inner = self.lock();
            let mut bytes = 0usize;
            for verified in envelopes {
                let class = verified.envelope.header().class();
                let rank = Rank { source: verified.source, priority: verified.urgency };
                let frame = verified.envelope.to_frame(verified.ext);
                let len = frame.len();
                match inner.queues.push(class, Some(rank), frame) {
                    Ok(()) => bytes = bytes.saturating_add(len),
                    Err(_) => unsent.push(verified),
                }
            }
            self.gauge.queued(bytes);
        }
        self.wake.notify_one();
        unsent
    }

    /// Queues a control frame. A link whose control queue is full is past saving: false.
    pub fn push_control(&self, frame: &Frame) -> bool {
        self.push(TrafficClass::Control, None, frame.into()).is_ok()
    }

    /// Queues a frame about the link itself: ahead of all others, and without credit.
    pub fn push_own(&self, frame: &Frame) -> bool {
        let frame = FrameParts::from(frame);
        let bytes = frame.len();
        let pushed = {
            let mut inner = self.lock();
            let pushed = inner.queues.push_own(frame).is_ok();
            if pushed {
                self.gauge.queued(bytes);
            }
            pushed
        };
        if pushed {
            self.wake.notify_one();
        }
        pushed
    }

    /// The peer grants credit.
    ///
    /// # Errors
    /// As [`Egress::grant`].
    pub fn grant(&self, credit: Credit) -> Result<(), CreditError> {
        let granted = self.lock().queues.grant(credit);
        self.wake.notify_one();
        granted
    }

    /// True where the link uses credit.
    pub fn uses_credit(&self) -> bool {
        self.lock().granted.is_some()
    }

    /// Bytes of each class came.
    ///
    /// # Errors
    /// [`CreditError::Overrun`].
    pub fn came(&self, bytes: [u64; 3]) -> Result<(), CreditError> {
        self.lock().granted.as_mut().map_or(Ok(()), |granted| granted.came(bytes))
    }

    /// Bytes of each class are done with; grants what is to be granted again.
    pub fn done(&self, bytes: [u64; 3]) {
        let grants = match &mut self.lock().granted {
            Some(granted) => granted.done(bytes),
            None => return,
        };
        for credit in grants {
            self.push_own(&Frame::Credit(credit));
        }
    }

    /// A permit that counts bytes as done with when it is dropped.
    pub fn permit(self: &Arc<Self>, bytes: [u64; 3]) -> Permit {
        Permit::new(InHand { bytes, egress: Arc::clone(self) })
    }

    /// Frames and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queues.len(), state.queues.bytes())
    }

    /// Lets the writer finish what is queued, close the medium with `reason` and end.
    pub fn close(&self, reason: CloseReason) {
        self.lock().closing = Some(reason);
        self.wake.notify_one();
    }

    pub(super) fn take(
        &self,
        ready: impl Fn(TrafficClass) -> bool,
        out: &mut Vec<FrameParts>,
    ) -> Option<TrafficClass> {
        let class = self.lock().queues.take(ready, out);
        self.gauge.unqueued(out.iter().map(FrameParts::len).sum());
        class
    }

    pub(super) fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SharedEgress {
    fn drop(&mut self) {
        let bytes = self.lock().queues.bytes();
        self.gauge.unqueued(bytes);
    }
}

impl fmt::Debug for SharedEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frames, bytes) = self.depth();
        f.debug_struct("SharedEgress").field("frames", &frames).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// Bytes that the router has not ended yet.
struct InHand {
    bytes: [u64; 3],
    egress: Arc<SharedEgress>,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.egress.done(self.bytes);
    }
}

//! Credit: bytes of each class that may be on their way over a link whose medium has one stream
//! for all classes (TCP, radio).
//!
//! Whoever reads says in its hello how much of each class it takes, and grants more as it is done
//! with what came. So what stands still at the reader stands still in its own class: files wait
//! for credit at the writer, while chat lines and control have theirs. Frames count with their
//! two bytes of length; hello, goodbye, ping, pong and credit itself need none.
//!
//! Media with a stream a class have windows for this, and use none of it.

use crate::wire::{TrafficClass, control::Credit};

/// What a reader grants at first, and keeps open: one 512 KiB window carries 80 Mbit/s at 50 ms.
/// Files get less, since what is on its way of them is what a chat line waits behind.
pub const WINDOW_BYTES: [u32; 3] = [512 * 1024, 512 * 1024, 256 * 1024];

/// Bytes that a frame's length takes on the wire.
const PREFIX_BYTES: u64 = 2;

/// What a frame of so many bytes costs.
pub fn cost(frame_bytes: usize) -> u64 {
    (frame_bytes as u64).saturating_add(PREFIX_BYTES)
}

/// What a neighbour did wrong about credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// It sent more than it was granted. The link is to be closed: its memory is ours.
    #[error("the peer sent {over_bytes} bytes of class {class} more than it was granted")]
    Overrun {
        /// Which class.
        class: u8,
        /// By how much.
        over_bytes: u64,
    },
    /// It granted nothing.
    #[error("the peer granted zero bytes of credit")]
    Zero,
    /// It granted more than a number holds; the sum stays at the bound.
    #[error("the peer's credit of class {class} went beyond 2^32 - 1 bytes")]
    Overflow {
        /// Which class.
        class: u8,
    },
    /// It granted credit on a link that uses none; nothing changes.
    #[error("the peer granted credit on a link that needs none")]
    Foreign,
}

impl CreditError {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overrun { .. } => "credit_overrun",
            Self::Zero => "credit_zero",
            Self::Overflow { .. } => "credit_overflow",
            Self::Foreign => "credit_foreign",
        }
    }
}

/// The writer's side: what it may still send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditOut {
    left: [u64; 3],
}

impl CreditOut {
    /// With what the peer's hello grants.
    pub fn new(initial: [u32; 3]) -> Self {
        Self { left: initial.map(u64::from) }
    }

    /// Takes what the peer grants.
    ///
    /// # Errors
    /// [`CreditError::Zero`] and [`CreditError::Overflow`], which are counted and otherwise
    /// harmless: the sum stays between zero and 2^32 - 1.
    pub fn grant(&mut self, credit: Credit) -> Result<(), CreditError> {
        if credit.bytes == 0 {
            return Err(CreditError::Zero);
        }
        let Some(left) = self.left.get_mut(credit.class as usize) else { return Ok(()) };
        let sum = left.saturating_add(u64::from(credit.bytes));
        *left = sum.min(u64::from(u32::MAX));
        if sum > *left { Err(CreditError::Overflow { class: credit.class as u8 }) } else { Ok(()) }
    }

    /// Spends what a frame of so many bytes costs, if it is there.
    pub fn spend(&mut self, class: TrafficClass, frame_bytes: usize) -> bool {
        let Some(left) = self.left.get_mut(class as usize) else { return false };
        match left.checked_sub(cost(frame_bytes)) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

/// The reader's side: what was granted, and what is to be granted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditIn {
    window: [u32; 3],
    /// Granted and not come yet.
    open: [u64; 3],
    /// Done with and not granted again yet.
    owed: [u64; 3],
}

impl CreditIn {
    /// With what our hello grants.
    pub fn new(window: [u32; 3]) -> Self {
        Self { window, open: window.map(u64::from), owed: [0; 3] }
    }

    /// So many bytes of each class came, as [`cost`] counts them.
    ///
    /// # Errors
    /// [`CreditError::Overrun`].
    pub fn came(&mut self, bytes: [u64; 3]) -> Result<(), CreditError> {
        for (class, (open, bytes)) in (0u8..).zip(self.open.iter_mut().zip(bytes)) {
            *open = open
                .checked_sub(bytes)
                .ok_or(CreditError::Overrun { class, over_bytes: bytes.saturating_sub(*open) })?;
        }
        Ok(())
    }

    /// So many bytes of each class are done with: handed on and ended. Gives what to grant: nothing
    /// before half a window is owed, so that credit frames are few.
    pub fn done(&mut self, bytes: [u64; 3]) -> Vec<Credit> {
        let mut grants = Vec::new();
        let sides = self.open.iter_mut().zip(&mut self.owed).zip(self.window);
        for (class, (bytes, ((open, owed), window))) in
            TrafficClass::ALL.into_iter().zip(bytes.into_iter().zip(sides))
        {
            *owed = owed.saturating_add(bytes);
            if *owed > 0 && *owed >= u64::from(window / 2) {
                let granted = u32::try_from(*owed).unwrap_or(u32::MAX);
                *owed = owed.saturating_sub(u64::from(granted));
                *open = open.saturating_add(u64::from(granted));
                grants.push(Credit { class, bytes: granted });
            }
        }
        grants
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::limits::FRAME_BYTES_MAX;

    const BULK: TrafficClass = TrafficClass::Bulk;

    fn grant(bytes: u32) -> Credit {
        Credit { class: BULK, bytes }
    }

    #[test]
    fn a_class_spends_its_own_credit_only() {
        let mut out = CreditOut::new([10, 100, 30]);
        assert!(!out.spend(TrafficClass::Control, 9), "with its length it costs eleven");
        assert!(out.spend(BULK, 28) && !out.spend(BULK, 1));
        assert!(out.spend(TrafficClass::Interactive, 98));
        assert_eq!(out.grant(grant(3)), Ok(()));
        assert!(out.spend(BULK, 1));
    }

    #[test]
    fn zero_and_overflowing_grants_are_named_and_change_nothing_for_the_worse() {
        let mut out = CreditOut::new([0; 3]);
        assert_eq!(out.grant(grant(0)), Err(CreditError::Zero));
        assert_eq!(out.grant(grant(u32::MAX)), Ok(()));
        for _ in 0..1_000 {
            assert_eq!(out.grant(grant(u32::MAX)), Err(CreditError::Overflow { class: 2 }));
        }
        assert_eq!(out.left, [0, 0, u64::from(u32::MAX)]);
    }

    #[test]
    fn more_than_was_granted_is_an_overrun() {
        let mut credit = CreditIn::new([100; 3]);
        assert_eq!(credit.came([100, 0, 60]), Ok(()));
        assert_eq!(credit.came([0, 100, 41]), Err(CreditError::Overrun { class: 2, over_bytes: 1 }));
    }

    #[test]
    fn credit_comes_back_by_half_windows() {
        let mut credit = CreditIn::new([100; 3]);
        credit.came([0, 0, 60]).unwrap();
        assert!(credit.done([0, 0, 49]).is_empty());
        assert_eq!(credit.done([0, 0, 1]), [grant(50)]);
        assert!(credit.done([0, 0, 10]).is_empty());
        assert_eq!(credit.came([0, 0, 90]), Ok(()));
        assert!(credit.came([0, 0, 1]).is_err());
    }

    #[test]
    fn a_window_holds_the_largest_frame_whatever_is_owed() {
        for window in WINDOW_BYTES {
            assert!(u64::from(window / 2) >= cost(FRAME_BYTES_MAX));
        }
    }

    proptest! {
        /// A writer that obeys never stalls for good behind a reader that ends what it took, and
        /// never has more on its way than the window.
        #[test]
        fn writer_and_reader_never_lose_a_byte(
            frames in prop::collection::vec((0usize..3, 1usize..FRAME_BYTES_MAX), 1..400),
            ends_early in any::<bool>(),
        ) {
            let mut out = CreditOut::new(WINDOW_BYTES);
            let mut credit = CreditIn::new(WINDOW_BYTES);
            let mut unended = [0u64; 3];
            for (class, len) in frames {
                let class = TrafficClass::ALL[class];
                if !out.spend(class, len) {
                    // Everything under way is ended by now; what that grants must be enough.
                    for grant in credit.done(std::mem::take(&mut unended)) {
                        prop_assert_eq!(out.grant(grant), Ok(()));
                    }
                    prop_assert!(out.spend(class, len));
                }
                let mut came = [0; 3];
                came[class as usize] = cost(len);
                prop_assert_eq!(credit.came(came), Ok(()));
                if ends_early {
                    for grant in credit.done(came) {
                        prop_assert_eq!(out.grant(grant), Ok(()));
                    }
                } else {
                    unended[class as usize] += cost(len);
                    prop_assert!(unended[class as usize] <= u64::from(WINDOW_BYTES[class as usize]));
                }
            }
        }
    }
}

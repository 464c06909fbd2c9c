//! Names for messages.
//!
//! A uid begins with the time and a count, so what one sender sends one after the other has uids that
//! follow each other. Whoever remembers them by source and uid, as every destination does for as long
//! as a message lives, writes them side by side: with random uids each message costs a page of its own
//! somewhere in that table, and more the longer it grows.

use crate::wire::MessageUid;

/// Milliseconds of one step of the time in a uid.
const TICK_MS: u64 = 4;

/// Bytes of a uid that are random: what a node named before its clock was set back or its data directory
/// was put back from a copy names nothing else.
pub const RANDOM_BYTES: usize = 10;

/// The uids of one sender.
#[derive(Debug, Default)]
pub struct Uids {
    count: u16,
}

impl Uids {
    /// A new one: the low 32 bits of the time in steps of 4 ms (which begin anew after 198 days), a count,
    /// and `random`. Eight hex digits tell messages of different moments apart, and no two of 65,536 in a
    /// row have the same first eight bytes.
    pub fn next(&mut self, unix_ms: u64, random: [u8; RANDOM_BYTES]) -> MessageUid {
        // The low bits are meant.
        let tick = (unix_ms / TICK_MS) as u32;
        self.count = self.count.wrapping_add(1);
        let mut uid = [0; MessageUid::LEN];
        let parts = tick.to_be_bytes().into_iter().chain(self.count.to_be_bytes()).chain(random);
        for (slot, byte) in uid.iter_mut().zip(parts) {
            *slot = byte;
        }
        MessageUid(uid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn uids_follow_each_other_and_differ_in_their_first_bytes() {
        let mut uids = Uids::default();
        let made: Vec<_> = (0..1000).map(|n| uids.next(1_796_053_846_401 + n / 2, [7; 10])).collect();
        assert!(made.is_sorted());
        let prefixes: BTreeSet<_> = made.iter().map(MessageUid::prefix).collect();
        assert_eq!(prefixes.len(), made.len());
        // The count begins anew within a moment.
        uids.count = u16::MAX;
        let (last, first) = (uids.next(0, [1; 10]), uids.next(0, [2; 10]));
        assert_ne!(last.prefix(), first.prefix());
        assert_eq!((last.0[6..].to_vec(), first.0[6..].to_vec()), (vec![1; 10], vec![2; 10]));
    }

    #[test]
    fn messages_of_different_moments_differ_in_eight_digits() {
        let mut uids = Uids::default();
        let [one, two] = [0, TICK_MS].map(|ms| uids.next(1_796_053_846_401 + ms, [7; 10]).to_string());
        assert_ne!(one[..8], two[..8]);
        // After half a year they begin anew, and nothing else happens.
        assert_eq!(uids.next((1 << 32) * TICK_MS, [7; 10]).0[..4], [0; 4]);
        assert_eq!(uids.next(u64::MAX, [7; 10]).0[..4], [0xff; 4]);
    }
}

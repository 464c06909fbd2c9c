//! Both ends of one stream under credit: queues of frames at the writer, windows at the reader, and a
//! reader that may lie. No frame is lost or doubled, a source's frames keep their order, no queue and no
//! window grows beyond its bound, and an honest reader is never overrun.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    proto::{
        credit::{CreditIn, WINDOW_BYTES, cost},
        egress::{CLASS_BYTES_MAX, Egress, OWN_FRAMES_MAX, Rank, WRITE_BYTES},
    },
    wire::{Address, FrameParts, Priority, TrafficClass, control::Credit, limits::FRAME_BYTES_MAX},
};

use super::Script;

/// A frame says who sent it, in which class and as which one of its own.
const LABEL_BYTES: usize = 6;

#[derive(Default)]
struct Story {
    egress: Egress,
    credit: Option<CreditIn>,
    lies: bool,
    pushed: u32,
    taken: u32,
    /// Bytes of each class that the reader granted so far, with what its hello did.
    granted: [u64; 3],
    spent: [u64; 3],
    /// On the way, in the order written.
    wire: VecDeque<(TrafficClass, usize)>,
    next_of: BTreeMap<(u8, u8), u32>,
    seen_of: BTreeMap<(u8, u8), u32>,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let lies = script.bool();
    let mut story = Story { lies, ..Story::default() };
    if script.bool() {
        story.egress.use_credit(WINDOW_BYTES);
        story.credit = Some(CreditIn::new(WINDOW_BYTES));
        story.granted = WINDOW_BYTES.map(u64::from);
    }
    while let Some(kind) = script.step() {
        match kind % 8 {
            0..=2 => story.push(&mut script),
            3 => {
                let own = FrameParts::whole(vec![0xff; LABEL_BYTES]);
                story.pushed += u32::from(story.egress.push_own(own).is_ok());
            }
            4 | 5 => story.take(script.u8()),
            6 => story.read(usize::from(script.u8())),
            _ if lies => story.lie(&mut script),
            _ => {}
        }
        assert_eq!(story.egress.len() as u32, story.pushed - story.taken);
        let most = 3 * (CLASS_BYTES_MAX + FRAME_BYTES_MAX) + OWN_FRAMES_MAX * LABEL_BYTES;
        assert!(story.egress.bytes() <= most);
    }
    // A reader that reads gets all of it.
    while !lies && !story.egress.is_empty() {
        let before = story.taken;
        story.read(usize::MAX);
        (0..3).for_each(|_| story.take(7));
        assert!(story.taken > before, "stuck with {} frames", story.egress.len());
    }
}

impl Story {
    fn push(&mut self, script: &mut Script<'_>) {
        let (class, source) = (script.below(3), script.below(4));
        let bytes = LABEL_BYTES + usize::from(script.u16()) % (FRAME_BYTES_MAX - LABEL_BYTES);
        let number = self.next_of.entry((class, source)).or_default();
        let mut frame = vec![0; bytes];
        let label = [&[class, source][..], &number.to_be_bytes()].concat();
        frame.iter_mut().zip(label).for_each(|(to, from)| *to = from);
        let rank = Rank { source: Address([source; 16]), priority: Priority::from_bits(script.u8()) };
        let Some(traffic) = TrafficClass::ALL.get(usize::from(class)).copied() else { return };
        if self.egress.push(traffic, Some(rank), FrameParts::whole(frame)).is_ok() {
            *number += 1;
            self.pushed += 1;
        }
    }

    fn take(&mut self, ready: u8) {
        let mut out = Vec::new();
        let class = self.egress.take(|class| ready & (1 << (class as u8)) != 0, &mut out);
        assert_eq!(class.is_none(), out.is_empty());
        let Some(class) = class else { return };
        assert!(ready & (1 << (class as u8)) != 0);
        let mut data_bytes = 0;
        for frame in out {
            self.taken += 1;
            let bytes = frame.to_bytes();
            if bytes.first() == Some(&0xff) {
                assert_eq!(class, TrafficClass::Control);
                continue;
            }
            assert!(data_bytes < WRITE_BYTES, "more than one write");
            data_bytes += bytes.len();
            let Some(&[of_class, source, a, b, c, d]) = bytes.first_chunk() else { panic!("no label") };
            assert_eq!(of_class, class as u8);
            let seen = self.seen_of.entry((of_class, source)).or_default();
            assert_eq!(u32::from_be_bytes([a, b, c, d]), *seen, "out of order");
            *seen += 1;
            self.spent[usize::from(of_class)] += cost(bytes.len());
            self.wire.push_back((class, bytes.len()));
        }
        if self.credit.is_some() {
            assert!(self.spent.iter().zip(self.granted).all(|(spent, granted)| *spent <= granted));
        }
    }

    /// The reader takes what came, and grants again what it is done with.
    fn read(&mut self, frames: usize) {
        let mut came = [0; 3];
        for (class, bytes) in self.wire.drain(..frames.min(self.wire.len())) {
            came[class as usize] += cost(bytes);
        }
        let Some(credit) = &mut self.credit else { return };
        let taken = credit.came(came);
        assert!(taken.is_ok() || self.lies, "{taken:?}");
        for grant in credit.done(came) {
            assert!(grant.bytes > 0);
            self.granted[grant.class as usize] += u64::from(grant.bytes);
            let _ = self.egress.grant(grant);
        }
    }

    fn lie(&mut self, script: &mut Script<'_>) {
        let class = TrafficClass::ALL.get(usize::from(script.below(3))).copied();
        let bytes = script.edge(u64::from(u32::MAX)) as u32;
        let grant = Credit { class: class.unwrap_or(TrafficClass::Bulk), bytes };
        if self.egress.grant(grant).is_ok() {
            self.granted[grant.class as usize] += u64::from(bytes);
        } else {
            self.granted[grant.class as usize] += u64::from(u32::MAX);
        }
    }
}

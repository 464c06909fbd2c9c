//! The window against a simple model of it: what was seen, in two maps of which the older one goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::wire::{LinkId, PacketId};

use super::{
    BUSY_AGE_MAX, BUSY_ENTRIES, CARRIED_PART, Dedup, ForwardRecord, GENERATION_AGE_MAX, Ingress,
    RETRANSMITS_MAX, Sighting, TICK_S, Verdict,
};

/// What happens to a window.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A packet came.
    Observe(Sighting),
    /// It went on.
    Forwarded(PacketId, Option<LinkId>),
    /// The link it went over did not take it.
    Returned(PacketId),
    /// Time passes.
    Passes(Duration),
    /// A link is gone, for good.
    Goes(LinkId),
}

#[derive(Clone)]
struct Entry {
    order: usize,
    seen_s: u64,
    lasts: bool,
    ingress: Ingress,
    egress: Option<LinkId>,
    lowest: u8,
    forwarded: bool,
    resends: u8,
    let_through_s: u64,
}

type Generation = BTreeMap<PacketId, Entry>;

struct Model {
    entries_max: usize,
    start: Instant,
    began: Instant,
    seen: usize,
    current: Generation,
    previous: Generation,
    gone: BTreeSet<LinkId>,
}

impl Model {
    fn entry(&mut self, id: &PacketId) -> Option<&mut Entry> {
        match self.current.get_mut(id) {
            Some(entry) => Some(entry),
            None => self.previous.get_mut(id),
        }
    }

    fn record(&self, id: &PacketId) -> Option<ForwardRecord> {
        let entry = self.current.get(id).or_else(|| self.previous.get(id))?;
        Some(ForwardRecord { ingress: entry.ingress, egress: entry.egress, kept_at: 0 })
    }

    fn observe(&mut self, now: Instant, s: &Sighting) -> Verdict {
        let (len, age) = (self.current.len(), now - self.began);
        let is_busy = len >= BUSY_ENTRIES.min(self.entries_max) && age >= BUSY_AGE_MAX;
        let now_s = (now - self.start).as_secs();
        if len >= self.entries_max || is_busy || age >= GENERATION_AGE_MAX {
            let mut carried: Vec<_> = self.previous.iter().filter(|(_, entry)| entry.lasts).collect();
            carried.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.order));
            carried.truncate(self.entries_max / CARRIED_PART);
            carried.retain(|(_, entry)| now_s - entry.seen_s < GENERATION_AGE_MAX.as_secs());
            let carried = carried.into_iter().map(|(id, entry)| (*id, entry.clone())).collect();
            self.previous = std::mem::replace(&mut self.current, carried);
            self.began = now;
        }
        let gone = self.gone.clone();
        let Some(e) = self.entry(&s.packet_id) else {
            self.seen += 1;
            let entry = Entry {
                order: self.seen,
                seen_s: now_s,
                lasts: s.lasts,
                ingress: s.ingress,
                egress: None,
                lowest: s.hop_count,
                forwarded: false,
                resends: 0,
                let_through_s: now_s,
            };
            self.current.insert(s.packet_id, entry);
            return Verdict::New;
        };
        let is_gone = s.ingress != e.ingress && e.ingress.link().is_some_and(|link| gone.contains(&link));
        let from_where_it_came = s.ingress == e.ingress || s.is_destination || is_gone;
        let ticks = |s: u64| s / u64::from(TICK_S);
        let is_due = (ticks(now_s) - ticks(e.let_through_s)) % 256 >= 2;
        if s.retransmit && (is_due || from_where_it_came && e.resends < RETRANSMITS_MAX) {
            e.resends += 1;
            e.let_through_s = now_s;
            if is_due || is_gone {
                e.ingress = s.ingress;
            }
            return Verdict::Retransmit;
        }
        let is_shorter = s.hop_count < e.lowest;
        let (lowest, hop_count) = (u16::from(e.lowest), u16::from(s.hop_count));
        let had_little_left = lowest * 2 > u16::from(s.max_hops) && hop_count * 2 <= lowest;
        let was_raced = had_little_left && e.egress != s.ingress.link() && !s.is_destination;
        e.lowest = e.lowest.min(s.hop_count);
        if is_shorter && (!e.forwarded || was_raced) {
            e.ingress = s.ingress;
            return Verdict::Shorter;
        }
        let went_on = e.egress.is_some() && !s.retransmit && !s.is_destination;
        if went_on && s.ingress != e.ingress { Verdict::Returned } else { Verdict::Duplicate }
    }
}

/// Does all of it to a fresh window of so many entries a generation, beside its model.
///
/// # Panics
/// Where the window does something else than the model.
pub(crate) fn run(start: Instant, entries_max: usize, ops: impl IntoIterator<Item = Op>) {
    let mut now = start;
    let mut dedup = Dedup::with_capacity(start, 99, entries_max);
    let entries_max = entries_max.max(1);
    let mut model = Model {
        entries_max,
        start,
        began: start,
        seen: 0,
        current: Generation::new(),
        previous: Generation::new(),
        gone: BTreeSet::new(),
    };
    for op in ops {
        match &op {
            Op::Observe(s) => {
                dedup.approach(std::iter::once(&s.packet_id));
                let got = dedup.observe(now, s, |link| model.gone.contains(&link));
                assert_eq!(got, model.observe(now, s), "{op:?}");
            }
            Op::Forwarded(packet, egress) => {
                dedup.forwarded(packet, *egress);
                if let Some(e) = model.entry(packet) {
                    (e.forwarded, e.egress) = (true, *egress);
                }
            }
            Op::Returned(packet) => {
                dedup.returned(packet);
                if let Some(e) = model.entry(packet) {
                    (e.forwarded, e.egress) = (false, None);
                }
            }
            Op::Passes(time) => now += *time,
            Op::Goes(link) => drop(model.gone.insert(*link)),
        }
        let known: Vec<PacketId> = model.current.keys().chain(model.previous.keys()).copied().collect();
        assert_eq!(dedup.len(), known.len());
        assert!(dedup.len() <= entries_max * 2);
        for packet in &known {
            assert_eq!(dedup.record(packet), model.record(packet), "{op:?}");
            assert!(dedup.age(now, packet).is_some());
        }
        if let Op::Observe(Sighting { packet_id, .. }) | Op::Forwarded(packet_id, _) = &op {
            assert_eq!(dedup.record(packet_id), model.record(packet_id));
        }
    }
}

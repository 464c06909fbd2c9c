//! Receipts on their way out: one envelope for everything that one source is told at a time.
//!
//! The first word to a source goes at once, and whatever follows within [`GATHER_FOR`] is gathered:
//! a lone message is receipted without delay, and a busy source gets a receipt for many. A receipt
//! costs every node on the way a signature, which is more than all else that it does for a message.
//!
//! Gathering ends early where the source waits for the answer: once as many packets are gathered as
//! a fresh window of its outbox holds a few times over, and whenever a file has come forward, which
//! the disk paces already.
//!
//! Only what is durable is handed in here. What arrives again is receipted again, gathered like
//! anything else: the dedup window lets a packet through three times, and each attempt of an
//! outbox is a packet of its own, so a source that repeats itself gets no more than it asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::wire::{
    Address, PacketId, TransferTag,
    limits::{RECEIPT_BITMAPS_MAX, RECEIPT_IDS_MAX},
    receipt::{ChunkReceipt, Receipt},
};

/// Least time between two receipts to one source, unless it waits. A fiftieth of the shortest wait
/// before a retry.
pub const GATHER_FOR: Duration = Duration::from_millis(20);

/// Packets after which a receipt goes at once: an eighth of what the smallest messages fill a fresh
/// window with.
pub const PROMPT_IDS: usize = 64;

/// Sources whose last receipt is remembered. Beyond that receipts go at once.
pub const FLOWS_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Flow {
    packets: BTreeSet<PacketId>,
    unwanted: BTreeSet<PacketId>,
    /// The last word about a file wins.
    chunks: BTreeMap<TransferTag, ChunkReceipt>,
    /// When what is gathered goes; none where nothing is.
    due: Option<Instant>,
    last_sent: Option<Instant>,
}

/// The receipts of one node.
#[derive(Debug, Default)]
pub struct Receipts {
    flows: BTreeMap<Address, Flow>,
    /// Flows with something to say, by when it goes.
    due: BTreeSet<(Instant, Address)>,
    /// Flows with nothing to say, by their last receipt.
    quiet: BTreeSet<(Instant, Address)>,
}

impl Receipts {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// This packet of `to` is durable here.
    pub fn packet(&mut self, now: Instant, to: Address, packet_id: PacketId) {
        let flow = self.flow(to);
        flow.packets.insert(packet_id);
        let waits = flow.packets.len() >= PROMPT_IDS;
        self.plan(now, to, waits);
    }

    /// This packet of `to` is not wanted here, and its sender is to stop.
    pub fn unwanted(&mut self, now: Instant, to: Address, packet_id: PacketId) {
        self.flow(to).unwanted.insert(packet_id);
        self.plan(now, to, false);
    }

    /// A file of `to` has come forward.
    pub fn progress(&mut self, now: Instant, to: Address, receipt: ChunkReceipt) {
        self.flow(to).chunks.insert(receipt.tag, receipt);
        self.plan(now, to, true);
    }

    /// A part of a file came that is here already, or that nothing is known of.
    pub fn repeat(&mut self, now: Instant, to: Address, receipt: ChunkReceipt) {
        self.flow(to).chunks.insert(receipt.tag, receipt);
        self.plan(now, to, false);
    }

    fn flow(&mut self, to: Address) -> &mut Flow {
        self.flows.entry(to).or_default()
    }

    fn plan(&mut self, now: Instant, to: Address, waits: bool) {
        let crowded = self.flows.len() > FLOWS_MAX;
        let Some(flow) = self.flows.get_mut(&to) else { return };
        let gathered = flow.last_sent.and_then(|sent| sent.checked_add(GATHER_FOR));
        let at = if waits || crowded { now } else { gathered.map_or(now, |at| at.max(now)) };
        if flow.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(late) = flow.due.replace(at) {
            self.due.remove(&(late, to));
        }
        if let Some(sent) = flow.last_sent {
            self.quiet.remove(&(sent, to));
        }
        self.due.insert((at, to));
    }

    /// What is to be sent now, each with who it is for.
    pub fn take_due(&mut self, now: Instant) -> Vec<(Address, Receipt)> {
        let mut out = Vec::new();
        while let Some((at, to)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, to));
            let Some(flow) = self.flows.get_mut(&to) else { continue };
            let said = std::mem::take(flow);
            flow.last_sent = Some(now);
            self.quiet.insert((now, to));
            out.extend(split(said).map(|receipt| (to, receipt)));
        }
        // Whoever was quiet for so long is answered at once the next time, remembered or not.
        while let Some((sent, to)) = self.quiet.first().copied() {
            let is_over = now.saturating_duration_since(sent) >= GATHER_FOR;
            if !is_over && self.flows.len() <= FLOWS_MAX {
                break;
            }
            self.quiet.remove(&(sent, to));
            self.flows.remove(&to);
        }
        out
    }

    /// What is gathered, whether its time has come or not: the node drains.
    pub fn take_all(&mut self) -> Vec<(Address, Receipt)> {
        let flows = std::mem::take(self).flows;
        flows.into_iter().flat_map(|(to, flow)| split(flow).map(move |receipt| (to, receipt))).collect()
    }

    /// When to call [`Receipts::take_due`]; none where nothing is gathered.
    pub fn next_wake(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// One receipt where it fits.
fn split(flow: Flow) -> impl Iterator<Item = Receipt> {
    let Flow { packets, unwanted, chunks, .. } = flow;
    let ids = packets.len().max(unwanted.len());
    let parts = ids.div_ceil(RECEIPT_IDS_MAX).max(chunks.len().div_ceil(RECEIPT_BITMAPS_MAX));
    let mut chunks = chunks.into_values();
    let (mut packets, mut unwanted) = (packets.into_iter(), unwanted.into_iter());
    (0..parts).map(move |_| Receipt {
        packet_ids: packets.by_ref().take(RECEIPT_IDS_MAX).collect(),
        chunks: chunks.by_ref().take(RECEIPT_BITMAPS_MAX).collect(),
        unwanted: unwanted.by_ref().take(RECEIPT_IDS_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::receipt::TransferState;

    const A: Address = Address([1; 16]);
    const B: Address = Address([2; 16]);

    fn packet(n: u32) -> PacketId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PacketId(id)
    }

    fn chunk(tag: u8, state: TransferState) -> ChunkReceipt {
        ChunkReceipt { tag: TransferTag([tag; 16]), state, total: 1, bitmap: Vec::new() }
    }

    fn ids(sent: &[(Address, Receipt)]) -> Vec<(Address, usize)> {
        sent.iter().map(|(to, receipt)| (*to, receipt.packet_ids.len())).collect()
    }

    #[test]
    fn a_lone_message_is_receipted_at_once_and_a_busy_flow_every_twenty_milliseconds() {
        let start = Instant::now();
        let mut receipts = Receipts::new();
        let ms = Duration::from_millis;
        receipts.packet(start, A, packet(0));
        assert_eq!(receipts.next_wake(), Some(start));
        assert_eq!(ids(&receipts.take_due(start)), [(A, 1)]);
        assert_eq!(receipts.next_wake(), None);
        for n in 1..=10 {
            receipts.packet(start + ms(u64::from(n)), A, packet(n));
            assert!(receipts.take_due(start + ms(u64::from(n))).is_empty());
        }
        // Named once, however often it came.
        receipts.packet(start + ms(11), A, packet(10));
        // Another source is none of its business.
        receipts.packet(start + ms(11), B, packet(1));
        assert_eq!(ids(&receipts.take_due(start + ms(11))), [(B, 1)]);
        assert_eq!(receipts.next_wake(), Some(start + ms(20)));
        assert!(receipts.take_due(start + ms(19)).is_empty());
        assert_eq!(ids(&receipts.take_due(start + ms(20))), [(A, 10)]);
        // Quiet for long enough: at once again, and nothing is kept until then.
        assert_eq!((receipts.take_due(start + ms(40)).len(), receipts.flows.len()), (0, 0));
        assert_eq!(receipts.next_wake(), None);
        receipts.packet(start + ms(41), A, packet(99));
        assert_eq!(receipts.take_due(start + ms(41)).len(), 1);
    }

    #[test]
    fn what_is_not_wanted_is_said_beside_what_is_here() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        receipts.unwanted(now, A, packet(1));
        receipts.packet(now, A, packet(2));
        let sent = receipts.take_due(now);
        let (packet_ids, unwanted) = (vec![packet(2)], vec![packet(1)]);
        assert_eq!(sent, [(A, Receipt { packet_ids, chunks: Vec::new(), unwanted })]);
    }

    #[test]
    fn a_source_that_waits_is_answered_early() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        receipts.packet(now, A, packet(0));
        receipts.take_due(now);
        for n in 1..PROMPT_IDS as u32 {
            receipts.packet(now, A, packet(n));
        }
        assert!(receipts.take_due(now).is_empty());
        receipts.packet(now, A, packet(PROMPT_IDS as u32));
        assert_eq!(ids(&receipts.take_due(now)), [(A, PROMPT_IDS)]);

        receipts.repeat(now, A, chunk(1, TransferState::ManifestWanted));
        assert!(receipts.take_due(now).is_empty());
        receipts.progress(now, A, chunk(1, TransferState::Partial));
        let sent = receipts.take_due(now);
        assert_eq!((sent.len(), &sent[0].1.chunks[..]), (1, &[chunk(1, TransferState::Partial)][..]));
        assert!(receipts.due.is_empty() && receipts.next_wake().is_none());
    }

    #[test]
    fn more_than_fits_one_receipt_goes_in_several() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        let many = RECEIPT_IDS_MAX as u32 * 2 + 1;
        (0..many).for_each(|n| receipts.packet(now, A, packet(n)));
        (0..=RECEIPT_BITMAPS_MAX as u8)
            .for_each(|n| receipts.progress(now, A, chunk(n, TransferState::Partial)));
        let sent = receipts.take_due(now);
        assert_eq!(ids(&sent), [(A, RECEIPT_IDS_MAX), (A, RECEIPT_IDS_MAX), (A, 1)]);
        let bitmaps: Vec<_> = sent.iter().map(|(_, receipt)| receipt.chunks.len()).collect();
        assert_eq!(bitmaps, [RECEIPT_BITMAPS_MAX, 1, 0]);
        let named: BTreeSet<_> = sent.iter().flat_map(|(_, receipt)| &receipt.packet_ids).collect();
        assert_eq!(named.len(), many as usize);
    }

    #[test]
    fn sources_beyond_the_bound_are_answered_at_once_and_forgotten() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        let source = |n: u32| Address(packet(n).0);
        for round in 0..3u32 {
            for n in 0..FLOWS_MAX as u32 * 2 {
                receipts.packet(now, source(n), packet(round));
            }
            let sent = receipts.take_due(now);
            assert!(receipts.flows.len() <= FLOWS_MAX, "{}", receipts.flows.len());
            assert!(sent.len() >= FLOWS_MAX, "{}", sent.len());
        }
        // And nobody is left without.
        let late = receipts.take_due(now + GATHER_FOR);
        assert!(late.len() <= FLOWS_MAX);
        assert!(receipts.take_due(now + GATHER_FOR * 2).is_empty() && receipts.flows.is_empty());
    }

    #[test]
    fn a_drain_takes_what_is_gathered() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        receipts.packet(now, A, packet(0));
        receipts.take_due(now);
        receipts.packet(now, A, packet(1));
        assert_eq!(ids(&receipts.take_all()), [(A, 1)]);
        assert_eq!(receipts.next_wake(), None);
    }
}

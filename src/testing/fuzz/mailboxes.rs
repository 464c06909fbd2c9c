//! What is held for others, under quotas: nobody has more held than its share, nobody is refused who
//! has room, what is held stays held until somebody who may says otherwise, and pages show all of it.
//!
//! Of the store in memory; that the one on disk answers as it does is `tests/storage_model.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    storage::{
        Engine, HELD_ROW_OVERHEAD_BYTES, HeldRow, MailOp, MailOutcome, MailboxQuota, MemEngine, PageLimit,
        Quota, QuotaScope, Work, WorkDone,
    },
    wire::{Address, PacketId, Priority},
};

use super::Script;

/// Small enough that refusals happen.
const QUOTA: MailboxQuota = MailboxQuota {
    global: Quota { bytes_max: 6000, rows_max: 14 },
    per_ingress: Quota { bytes_max: 4000, rows_max: 8 },
    per_source: Quota { bytes_max: 3500, rows_max: 7 },
    per_destination: Quota { bytes_max: 3000, rows_max: 6 },
};

struct Story {
    engine: MemEngine,
    /// By place in the mailbox, which is where a page goes on.
    held: BTreeMap<u64, HeldRow>,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut story = Story { engine: MemEngine::new(QUOTA), held: BTreeMap::new() };
    while let Some(kind) = script.step() {
        story.step(kind, &mut script);
    }
    for n in 0..6 {
        story.read_all(Address([n; 16]), 1);
    }
}

impl Story {
    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        match kind % 8 {
            0..=3 => self.hold(script),
            4 => {
                let ids = ids(script);
                let rows = self.remove(|row| ids.contains(&row.packet_id));
                assert!(
                    matches!(self.ask(MailOp::Remove(ids)), MailOutcome::Removed { rows: got } if got == rows)
                );
            }
            5 => {
                let (destination, packet_ids) = (Address([script.below(6); 16]), ids(script));
                let is_meant =
                    |row: &HeldRow| row.destination == destination && packet_ids.contains(&row.packet_id);
                let rows = self.remove(is_meant);
                let answer = self.ask(MailOp::RemoveFor { destination, packet_ids });
                assert!(matches!(answer, MailOutcome::Removed { rows: got } if got == rows));
            }
            6 => {
                let (now_s, rows_max) = (script.edge(u64::MAX), usize::from(script.below(5)));
                // It always lets go of one, or whoever asks again would ask without end.
                let due = self.held.values().filter(|row| row.expires_s < now_s).count();
                let MailOutcome::Expired { rows, more } = self.ask(MailOp::Expire { now_s, rows_max }) else {
                    panic!("another answer");
                };
                assert_eq!((rows, more), (due.min(rows_max.max(1)), due > rows_max.max(1)));
                // The earliest first; the model lets go of as many.
                let mut order: Vec<_> =
                    self.held.iter().map(|(place, row)| (row.expires_s, *place)).collect();
                order.sort_unstable();
                order.into_iter().take(rows).for_each(|(_, place)| drop(self.held.remove(&place)));
            }
            _ => {
                let destination = Address([script.below(6); 16]);
                self.read_all(destination, usize::from(script.below(4)) + 1);
                let usage = self.ask(MailOp::Usage { destination: Some(destination) });
                let MailOutcome::Usage(usage) = usage else { panic!("another answer") };
                let of_it = usage.destination.map_or(0, |it| it.held.rows);
                let wanted = self.held.values().filter(|row| row.destination == destination).count();
                assert_eq!((usage.total.rows, of_it), (self.held.len() as u64, wanted as u64));
            }
        }
    }

    fn hold(&mut self, script: &mut Script<'_>) {
        let row = HeldRow {
            packet_id: PacketId([script.below(32); 16]),
            destination: Address([script.below(6); 16]),
            source: Address([script.below(4); 16]),
            priority: Priority::from_bits(script.u8()),
            ingress: Address([script.below(4); 16]),
            expires_s: script.edge(u64::MAX),
            held_at_s: 1,
            age_s: 7,
            frame: Bytes::from(vec![7; usize::from(script.u16()) % 1500]),
        };
        let is_there = self.held.values().any(|held| held.packet_id == row.packet_id);
        let full = self.full(&row);
        match self.ask(MailOp::Hold(row.clone())) {
            MailOutcome::Held { place } => {
                assert!(!is_there && full.is_empty(), "held beyond {full:?}");
                assert!(self.held.insert(place, row).is_none(), "two in one place");
            }
            MailOutcome::Duplicate => assert!(is_there),
            MailOutcome::Refused(refusal) => {
                let named = full.iter().any(|scope| refusal.to_string().contains(&format!("{scope:?}")));
                assert!(!is_there && named, "{refusal}, full are {full:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// The quotas that have no room for `row`.
    fn full(&self, row: &HeldRow) -> Vec<QuotaScope> {
        let cost = |row: &HeldRow| row.frame.len() as u64 + HELD_ROW_OVERHEAD_BYTES;
        let admits = |quota: Quota, is_of: &dyn Fn(&HeldRow) -> bool| {
            let of_it = self.held.values().filter(|held| is_of(held));
            let (bytes, rows) = of_it.fold((0, 0), |(bytes, rows), held| (bytes + cost(held), rows + 1));
            rows < quota.rows_max && bytes + cost(row) <= quota.bytes_max
        };
        let mut full = Vec::new();
        let mut check = |scope, quota, is_of: &dyn Fn(&HeldRow) -> bool| {
            if !admits(quota, is_of) {
                full.push(scope);
            }
        };
        check(QuotaScope::Global, QUOTA.global, &|_| true);
        check(QuotaScope::Ingress, QUOTA.per_ingress, &|held| held.ingress == row.ingress);
        check(QuotaScope::Source, QUOTA.per_source, &|held| held.source == row.source);
        check(QuotaScope::Destination, QUOTA.per_destination, &|held| held.destination == row.destination);
        full
    }

    fn remove(&mut self, is_meant: impl Fn(&HeldRow) -> bool) -> usize {
        let before = self.held.len();
        self.held.retain(|_, row| !is_meant(row));
        before - self.held.len()
    }

    /// Page by page a mailbox shows each row once, the most urgent first.
    fn read_all(&mut self, destination: Address, rows_max: usize) {
        let mut wanted: Vec<_> = self.held.iter().filter(|(_, row)| row.destination == destination).collect();
        wanted.sort_by_key(|(place, row)| (std::cmp::Reverse(row.priority), **place));
        let wanted: Vec<PacketId> = wanted.into_iter().map(|(_, row)| row.packet_id).collect();
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let limit = PageLimit { rows_max, bytes_max: usize::MAX };
            let MailOutcome::Page(page) = self.ask(MailOp::Page { destination, after, limit }) else {
                panic!("another answer");
            };
            assert!(page.rows.len() <= rows_max && got.len() <= wanted.len());
            got.extend(page.rows.iter().map(|row| row.packet_id));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(got, wanted);
    }

    fn ask(&mut self, op: MailOp) -> MailOutcome {
        let Ok(mut done) = self.engine.commit(&[Work::Mail(vec![op])]) else {
            panic!("memory does not fail")
        };
        match done.pop() {
            Some(Ok(WorkDone::Mail(mut outcomes))) if outcomes.len() == 1 && done.is_empty() => {
                outcomes.remove(0)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn ids(script: &mut Script<'_>) -> Vec<PacketId> {
    (0..script.below(5)).map(|_| PacketId([script.below(32); 16])).collect()
}

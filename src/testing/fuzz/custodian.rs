//! A custodian with its mailboxes, and destinations that come, go, answer or say nothing: one page a
//! destination at a time, all windows within their bound, nothing forgotten while its destination can be
//! reached, and all of it handed over once everybody answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    clock,
    proto::custody::{Custodian, Found, ReadPage, WINDOW_BYTES_MAX, WINDOWS_BYTES_MAX},
    wire::{Address, PacketId},
};

use super::Script;

const DESTINATIONS: u8 = 24;

/// Bytes of every envelope: few fit the least window, all together more than all windows.
const ENVELOPE_BYTES: usize = 16 * 1024;

struct Story {
    now: Instant,
    custodian: Custodian,
    /// What the store holds, by destination and place.
    mailboxes: BTreeMap<u8, BTreeMap<u64, PacketId>>,
    places: u64,
    reachable: BTreeSet<u8>,
    /// Pages asked for, each with how often its destination had gone away before.
    reading: Vec<(ReadPage, u32)>,
    departures: BTreeMap<u8, u32>,
    /// Handed to the router, and no word of it yet.
    under_way: Vec<(u8, PacketId)>,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut story = Story {
        now: clock::now(),
        custodian: Custodian::new(),
        mailboxes: BTreeMap::new(),
        places: 0,
        reachable: BTreeSet::new(),
        reading: Vec::new(),
        departures: BTreeMap::new(),
        under_way: Vec::new(),
    };
    while let Some(kind) = script.step() {
        story.step(kind, &mut script);
        story.poll();
        story.check();
    }
    story.all_are_handed_over();
}

impl Story {
    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        let destination = script.below(DESTINATIONS);
        match kind % 12 {
            0 | 1 => {
                for _ in 0..=script.below(8) {
                    self.places += 1;
                    // What is urgent comes before what is there.
                    let place = self.places + if kind & 16 == 0 { 1 << 32 } else { 0 };
                    let mut id = [destination; 16];
                    id[..8].copy_from_slice(&self.places.to_be_bytes());
                    self.mailboxes.entry(destination).or_default().insert(place, PacketId(id));
                    if self.reachable.contains(&destination) {
                        self.custodian.put(address(destination), place);
                    }
                }
            }
            2 | 3 => {
                self.reachable.insert(destination);
                self.custodian.reachable(address(destination));
            }
            4 if kind & 16 == 0 => {
                self.reachable.remove(&destination);
                *self.departures.entry(destination).or_default() += 1;
                self.custodian.unreachable(&address(destination));
            }
            4..=6 => self.read(usize::from(script.u8()), kind & 16 == 0),
            7..=10 => self.answer(kind, script),
            _ => {
                let wake = self.custodian.next_wake().filter(|_| script.bool());
                self.now = wake.unwrap_or(self.now + script.pause()).max(self.now);
            }
        }
    }

    /// A page that was asked for is there, or its disk failed.
    fn read(&mut self, which: usize, works: bool) {
        if self.reading.is_empty() {
            return;
        }
        let (page, _) = self.reading.swap_remove(which % self.reading.len());
        if !works {
            return self.custodian.read_failed(self.now, &page);
        }
        let destination = page.destination.0[0];
        let mailbox = self.mailboxes.entry(destination).or_default();
        let behind = page.after.map_or(0, |after| after + 1);
        let fits = (page.bytes_max / ENVELOPE_BYTES).max(1);
        let rows: Vec<(u64, PacketId)> =
            mailbox.range(behind..).take(fits).map(|(place, id)| (*place, *id)).collect();
        let through = rows.last().map(|(place, _)| *place);
        let found = Found {
            packets: rows.iter().map(|(_, id)| (*id, ENVELOPE_BYTES)).collect(),
            through,
            more: through.is_some_and(|last| mailbox.range(last + 1..).next().is_some()),
        };
        let fresh = self.custodian.handed_on(self.now, &page, found);
        self.under_way.extend(fresh.into_iter().map(|id| (destination, id)));
    }

    fn answer(&mut self, kind: u8, script: &mut Script<'_>) {
        if self.under_way.is_empty() {
            return;
        }
        let (destination, id) = self.under_way.swap_remove(usize::from(script.u8()) % self.under_way.len());
        match kind % 12 {
            7 => self.custodian.refused(self.now, &id),
            // Nobody's word but the destination's.
            8 if script.bool() => {
                self.custodian.receipted(self.now, &address(destination.wrapping_add(1)), &[id]);
                self.under_way.push((destination, id));
            }
            9 => {
                self.forget(destination, &id);
                self.custodian.handed_over(self.now, &[id]);
            }
            _ => {
                self.forget(destination, &id);
                self.custodian.receipted(self.now, &address(destination), &[id]);
            }
        }
    }

    fn forget(&mut self, destination: u8, id: &PacketId) {
        if let Some(mailbox) = self.mailboxes.get_mut(&destination) {
            mailbox.retain(|_, held| held != id);
        }
    }

    fn poll(&mut self) {
        let pages = self.custodian.poll(self.now);
        for page in pages {
            assert!(page.bytes_max > 0 && page.bytes_max <= WINDOW_BYTES_MAX);
            assert!(self.reachable.contains(&page.destination.0[0]), "read for one who is away");
            let departures = self.departures.get(&page.destination.0[0]).copied().unwrap_or(0);
            self.reading.push((page, departures));
        }
        assert!(self.custodian.poll(self.now).is_empty(), "it would turn without end");
    }

    fn check(&self) {
        // A page from before its destination went away may still come, and counts no more.
        let is_current = |(page, departures): &&(ReadPage, u32)| {
            self.departures.get(&page.destination.0[0]).copied().unwrap_or(0) == *departures
        };
        let current: Vec<ReadPage> = self.reading.iter().filter(is_current).map(|(page, _)| *page).collect();
        let destinations: BTreeSet<Address> = current.iter().map(|page| page.destination).collect();
        assert_eq!(destinations.len(), current.len(), "two pages of one mailbox at a time");
        assert!(current.iter().map(|page| page.bytes_max).sum::<usize>() <= WINDOWS_BYTES_MAX);
        assert!(self.custodian.next_wake().is_none_or(|at| at > self.now), "something due was not done");
    }

    /// Everybody is there and answers from now on.
    fn all_are_handed_over(&mut self) {
        for destination in 0..DESTINATIONS {
            // Who was there is not told of again: nothing of it may be forgotten.
            if self.reachable.insert(destination) {
                self.custodian.reachable(address(destination));
            }
        }
        let until = self.now + Duration::from_secs(24 * 3600);
        while self.mailboxes.values().any(|mailbox| !mailbox.is_empty()) {
            self.poll();
            if let Some((page, _)) = self.reading.last().copied() {
                self.read(self.reading.len() - 1, true);
                let destination = page.destination.0[0];
                while let Some(at) = self.under_way.iter().position(|(to, _)| *to == destination) {
                    let (to, id) = self.under_way.swap_remove(at);
                    self.forget(to, &id);
                    self.custodian.receipted(self.now, &address(to), &[id]);
                }
                continue;
            }
            let Some(wake) = self.custodian.next_wake() else {
                panic!("{:?} are forgotten", self.mailboxes.iter().filter(|(_, m)| !m.is_empty()).count());
            };
            assert!(wake <= until, "not handed over within a day");
            self.now = wake.max(self.now);
        }
    }
}

fn address(n: u8) -> Address {
    Address([n; 16])
}

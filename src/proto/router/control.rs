//! Small frames between this node and its neighbours.

use std::time::{Duration, Instant};

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{
        Address, Frame, LinkId,
        control::{CustodyAck, PathRequest},
    },
};

use super::{Output, Router, counters::bump};

/// Neighbours asked for a key record at a time.
const ASKED_MAX: usize = 3;

/// How long an asked-for key record may take.
const WANTED_FOR: Duration = Duration::from_secs(60);

/// Addresses whose record may be wanted at a time.
const WANTED_MAX: usize = 1024;

impl Router {
    pub(super) fn on_control(&mut self, now: Instant, link: LinkId, frame: Frame) {
        if !self.links.contains(link) {
            return;
        }
        match frame {
            Frame::Refuse(refuse) => self.on_refuse(now, link, refuse),
            Frame::CustodyAck(ack) => self.on_custody_ack(link, ack),
            Frame::PathRequest(request) => self.on_path_request(now, link, &request),
            Frame::KeyRequest(address) => self.on_key_request(now, link, &address),
            Frame::KeyNeeded(address) => self.on_key_needed(now, link, &address),
            _ => {}
        }
    }

    /// Packets are safe further on. Believed only of packets that were sent there. A node that
    /// stores hears of all of them: they may be out of its own custody.
    fn on_custody_ack(&mut self, link: LinkId, ack: CustodyAck) {
        let sent_there = |id: &_| self.dedup.record(id).is_some_and(|r| r.egress == Some(link));
        let packet_ids: Vec<_> = ack.packet_ids.into_iter().filter(sent_there).collect();
        packet_ids.iter().for_each(|id| self.ranking.excuse(id));
        let by_link = self.by_ingress(packet_ids.iter().copied());
        let has_transit = by_link.keys().any(Option::is_some);
        if self.config.store && has_transit {
            let others = by_link.iter().filter(|(link, _)| link.is_some()).flat_map(|(_, ids)| ids);
            let packet_ids = others.copied().collect();
            self.outputs.push_back(Output::InCustody { domain: ack.domain, packet_ids });
        }
        self.acknowledge(ack.domain, by_link);
    }

    /// Somebody looks for a destination: answered with its own announce where that is here. Asking
    /// on is for later.
    fn on_path_request(&mut self, now: Instant, link: LinkId, request: &PathRequest) {
        let Some(state) = self.links.get_mut(link) else { return };
        if !state.may_ask_path(now) {
            return bump(&mut self.counters.control_ignored);
        }
        let destination = request.destination;
        let announce = if destination == self.own {
            self.own_announce.clone()
        } else if self.config.relay && !self.table.links_of(&destination).contains(&link) {
            self.table.announce_to_send(&destination)
        } else {
            None
        };
        if let Some(announce) = announce {
            self.outputs.push_back(Output::Control(link, Frame::Announce(announce)));
        }
    }

    /// A neighbour wants the key record of an address.
    fn on_key_request(&mut self, now: Instant, link: LinkId, address: &Address) {
        let Some(state) = self.links.get_mut(link) else { return };
        if !state.may_ask_key(now) {
            return bump(&mut self.counters.control_ignored);
        }
        let record = if *address == self.own {
            self.own_announce.as_ref().and_then(|announce| announce.key_record.clone())
        } else {
            self.table.key_record(address).map(|record| record.signed().clone())
        };
        if let Some(record) = record {
            self.outputs.push_back(Output::Control(link, Frame::KeyReply(record)));
        }
    }

    /// A neighbour got an envelope whose source it does not know.
    fn on_key_needed(&mut self, now: Instant, link: LinkId, address: &Address) {
        let Some(state) = self.links.get_mut(link) else { return };
        if !state.may_ask_key(now) {
            return bump(&mut self.counters.control_ignored);
        }
        let key = if *address == self.own {
            Some(self.config.own_key)
        } else {
            let known = self.source_keys.get(address).copied();
            known.or_else(|| self.table.public_key(address)).or_else(|| self.links.peer_key(address))
        };
        if let Some(key) = key {
            self.outputs.push_back(Output::Control(link, Frame::KeyOffer(key)));
        }
    }

    /// A key record came by itself. Taken where its origin is known here, or where it is wanted.
    pub(super) fn on_key_record(&mut self, now: Instant, record: &VerifiedKeyRecord) {
        let is_newer = self.table.update_key_record(record);
        let is_wanted = self.wanted.remove(&record.address()).is_some_and(|until| until > now);
        if is_newer || is_wanted {
            self.outputs.push_back(Output::KeyRecord(Box::new(record.clone())));
        }
    }

    /// Looks for a key record: here, then at the neighbours on the way to its owner.
    pub(super) fn on_find_key_record(&mut self, now: Instant, address: Address) {
        if let Some(record) = self.table.key_record(&address) {
            return self.outputs.push_back(Output::KeyRecord(Box::new(record.clone())));
        }
        if self.wanted.len() >= WANTED_MAX && !self.wanted.contains_key(&address) {
            return;
        }
        self.wanted.insert(address, now + WANTED_FOR);
        let hops = self.fib.hops(&address);
        let towards = hops.into_iter().flat_map(|hops| [Some(hops.first), hops.second]).flatten();
        let mut asked: Vec<LinkId> = towards.collect();
        asked.extend(self.links.ids_where(|link, _| !asked.contains(&link)));
        for link in asked.into_iter().take(ASKED_MAX) {
            self.outputs.push_back(Output::Control(link, Frame::KeyRequest(address)));
        }
    }
}

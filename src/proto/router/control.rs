//! Small frames between this node and its neighbours.

use std::time::{Duration, Instant};

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Frame, LinkId, control::CustodyAck},
};

use super::{Output, Router, counters::bump};

/// Neighbours asked for a key record at a time.
const ASKED_MAX: usize = 3;

/// How long an asked-for key record may take.
const WANTED_FOR: Duration = Duration::from_secs(60);

/// Addresses whose record may be wanted at a time; neighbours' questions take half of it at most.
pub(super) const WANTED_MAX: usize = 1024;

/// Links remembered that want one record.
const ASKERS_MAX: usize = 8;

/// A key record that is looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Until when an answer is of use.
    pub(super) until: Instant,
    /// Somebody here wants it.
    is_own: bool,
    /// Neighbours that want it.
    links: Vec<LinkId>,
}

impl Router {
    pub(super) fn on_control(&mut self, now: Instant, link: LinkId, frame: Frame) {
        if !self.links.contains(link) {
            return;
        }
        match frame {
            Frame::Refuse(refuse) => self.on_refuse(now, link, refuse),
            Frame::CustodyAck(ack) => self.on_custody_ack(link, ack),
            Frame::PathRequest(request) => self.on_path_request(now, link, &request),
            Frame::Withdraw(withdraw) => self.on_withdraw(now, link, &withdraw),
            Frame::Digest(digest) => self.on_digest(now, link, &digest),
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

    /// A neighbour wants the key record of an address.
    fn on_key_request(&mut self, now: Instant, link: LinkId, address: &Address) {
        if !self.links.may_ask_key(now, link) {
            return bump(&mut self.counters.control_ignored);
        }
        let record = if *address == self.own {
            self.own_announce.as_ref().and_then(|announce| announce.key_record.clone())
        } else {
            self.table.key_record(address).map(|record| record.signed().clone())
        };
        match record {
            Some(record) => self.outputs.push_back(Output::Control(link, Frame::KeyReply(record))),
            // Asked on at the price of a path request, since it goes as far.
            None if self.config.relay && self.links.may_ask_path(now, link) => {
                self.want_key_record(now, *address, Some(link));
            }
            None => {}
        }
    }

    /// A neighbour got an envelope whose source it does not know.
    fn on_key_needed(&mut self, now: Instant, link: LinkId, address: &Address) {
        if !self.links.may_ask_key(now, link) {
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
        if is_newer {
            self.unsaved.insert(record.address());
        }
        let is_wanted = self.wanted.get(&record.address()).is_some_and(|wanted| wanted.until > now);
        if is_newer || is_wanted {
            self.found_key_record(record, is_newer);
        }
    }

    /// A key record is here: hands it to this node's delivery, where it is news or wanted there, and
    /// to the neighbours that asked for it.
    pub(super) fn found_key_record(&mut self, record: &VerifiedKeyRecord, is_news: bool) {
        let wanted = self.wanted.remove(&record.address());
        if is_news || wanted.as_ref().is_some_and(|wanted| wanted.is_own) {
            self.outputs.push_back(Output::KeyRecord(Box::new(record.clone())));
        }
        for link in wanted.into_iter().flat_map(|wanted| wanted.links) {
            if self.links.contains(link) {
                self.outputs.push_back(Output::Control(link, Frame::KeyReply(record.signed().clone())));
            }
        }
    }

    /// Looks for a key record: here, then at the neighbours on the way to its owner. Where there is
    /// no way, for one too: who answers that sends the key record along.
    pub(super) fn on_find_key_record(&mut self, now: Instant, address: Address) {
        if let Some(record) = self.table.key_record(&address) {
            return self.outputs.push_back(Output::KeyRecord(Box::new(record.clone())));
        }
        self.want_key_record(now, address, None);
        self.want_path(now, address);
    }

    /// Asks neighbours for a key record, for this node or for the one on `asker`. Each address once
    /// a minute, so that a question that goes around ends.
    fn want_key_record(&mut self, now: Instant, address: Address, asker: Option<LinkId>) {
        let room = if asker.is_some() { WANTED_MAX / 2 } else { WANTED_MAX };
        if self.wanted.len() >= room && !self.wanted.contains_key(&address) {
            self.wanted.retain(|_, wanted| wanted.until > now);
            if self.wanted.len() >= room {
                return bump(&mut self.counters.control_ignored);
            }
        }
        let fresh = Wanted { until: now + WANTED_FOR, is_own: false, links: Vec::new() };
        let is_new = self.wanted.get(&address).is_none_or(|wanted| wanted.until <= now);
        if is_new {
            self.wanted.insert(address, fresh);
        }
        let Some(wanted) = self.wanted.get_mut(&address) else { return };
        match asker {
            Some(link) if wanted.links.len() < ASKERS_MAX && !wanted.links.contains(&link) => {
                wanted.links.push(link)
            }
            Some(_) => {}
            None => wanted.is_own = true,
        }
        // The node's own delivery asks seldom, and its neighbours may know more by now.
        if !is_new && asker.is_some() {
            return;
        }
        let hops = self.table.in_use(&address);
        let towards = hops.into_iter().flat_map(|hops| [Some(hops.first), hops.second]).flatten();
        let mut asked: Vec<LinkId> = towards.filter(|link| Some(*link) != asker).collect();
        asked.extend(self.links.ids_where(|link, _| Some(link) != asker && !asked.contains(&link)));
        for link in asked.into_iter().take(ASKED_MAX) {
            self.outputs.push_back(Output::Control(link, Frame::KeyRequest(address)));
        }
    }
}

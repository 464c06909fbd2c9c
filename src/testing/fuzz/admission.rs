//! What neighbours may cost: leases, and the allowances of links that spend them.
//!
//! Whatever is asked, however often somebody dials again: nobody is given more than its burst and its
//! rate, nor are all names of one party, no allowance spends more than it was given, critical messages have their share and no more,
//! and who waits as long as it was told is served.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use crate::{
    clock,
    proto::lease::{Allowance, Cost, Grant, Lease, LeaseConfig, Leases, NEED_MAX, Payer},
    wire::Address,
};

use super::Script;

/// One message in so many of a lease may be critical.
const CRITICAL_ONE_IN: u64 = 20;

/// Signatures that may fail to be looked for, at once and a second.
const CHECKS: u64 = 200;

/// Fewer than there are names of the party.
const PARTY_BUDGETS: u64 = 2;

/// The last of them came from nowhere.
const NEIGHBOURS: u8 = 6;

fn payer(who: u8) -> Payer {
    let party = (who + 1 < NEIGHBOURS).then(|| IpAddr::from(Ipv4Addr::new(192, 0, 2, who % 2)));
    Payer { neighbour: Address([who; 16]), party }
}

#[derive(Default)]
struct Neighbour {
    given: Cost,
    checks: u64,
    links: Vec<Link>,
}

struct Link {
    allowance: Allowance,
    given: Cost,
    spent: Cost,
    critical: u64,
}

struct Story {
    start: Instant,
    now: Instant,
    config: LeaseConfig,
    leases: Leases,
    neighbours: BTreeMap<u8, Neighbour>,
    resumed: bool,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let now = clock::now();
    let config = LeaseConfig {
        messages_per_s: script.edge(1 << 40),
        bytes_per_s: script.edge(1 << 50),
        party_budgets: PARTY_BUDGETS,
    };
    let resumed = script.bool();
    let leases = if resumed { Leases::resumed(config, now) } else { Leases::new(config, now) };
    let mut story = Story { start: now, now, config, leases, neighbours: BTreeMap::new(), resumed };
    while let Some(kind) = script.step() {
        story.step(kind, &mut script);
        story.check();
    }
}

impl Story {
    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        let who = script.below(NEIGHBOURS);
        self.neighbours.entry(who).or_default();
        match kind % 8 {
            0..=2 => {
                let need = Cost { messages: script.edge(u64::MAX), bytes: script.edge(u64::MAX) };
                self.ask(who, need, script.u8());
            }
            3 | 4 => self.spend(who, script),
            5 => {
                let payer = payer(who);
                if kind & 8 == 0 {
                    let grant = self.leases.checks(self.now, payer);
                    let given = &mut self.neighbours.entry(who).or_default().checks;
                    match grant {
                        Grant::Lease(lease) => *given = given.saturating_add(lease.room.messages),
                        Grant::Wait(wait) => assert!(wait > Duration::ZERO),
                    }
                } else {
                    let _ = self.leases.fault(self.now, payer);
                }
            }
            6 => self.now += script.pause(),
            _ => {
                // It dials again: a link dies with what it held.
                let links = &mut self.neighbours.entry(who).or_default().links;
                if links.len() > 4 || kind & 8 == 0 {
                    links.pop();
                }
                let allowance = Allowance::new(self.now);
                links.push(Link { allowance, given: Cost::default(), spent: Cost::default(), critical: 0 });
            }
        }
    }

    fn ask(&mut self, who: u8, need: Cost, link: u8) {
        let payer = payer(who);
        match self.leases.data(self.now, payer, need) {
            Grant::Lease(lease) => self.given(who, link, need, lease),
            Grant::Wait(wait) => {
                assert!(wait > Duration::ZERO, "it would ask again at once, without end");
                let at = self.now + wait;
                let neighbour = self.neighbours.entry(who).or_default();
                let count = neighbour.links.len().max(1);
                if let Some(link) = neighbour.links.get_mut(usize::from(link) % count) {
                    link.allowance.run_dry(self.now, wait);
                    assert!(!link.allowance.may_ask(self.now) && link.allowance.may_ask(at));
                }
                // Nobody else spends of it meanwhile, and rates of none at all give nothing.
                if self.config.messages_per_s > 0 && self.config.bytes_per_s > 0 && link & 1 == 0 {
                    self.now = at;
                    match self.leases.data(self.now, payer, need) {
                        Grant::Lease(lease) => self.given(who, link, need, lease),
                        Grant::Wait(more) => panic!("waited for {wait:?} as told, and is told {more:?}"),
                    }
                }
            }
        }
    }

    fn given(&mut self, who: u8, link: u8, need: Cost, lease: Lease) {
        let asked = need.min(NEED_MAX);
        assert!(lease.room.messages >= asked.messages && lease.room.bytes >= asked.bytes);
        assert!(lease.until > self.now);
        let neighbour = self.neighbours.entry(who).or_default();
        neighbour.given = sum(neighbour.given, lease.room);
        let count = neighbour.links.len().max(1);
        if let Some(link) = neighbour.links.get_mut(usize::from(link) % count) {
            link.allowance.add(self.now, lease);
            link.given = sum(link.given, lease.room);
        }
    }

    fn spend(&mut self, who: u8, script: &mut Script<'_>) {
        let neighbour = self.neighbours.entry(who).or_default();
        let count = neighbour.links.len().max(1);
        let Some(link) = neighbour.links.get_mut(usize::from(script.u8()) % count) else { return };
        let cost = Cost { messages: script.edge(1000), bytes: script.edge(1 << 24) };
        if link.allowance.spend(self.now, cost) {
            link.spent = sum(link.spent, cost);
            if script.bool() && link.allowance.spend_critical(cost.bytes) {
                link.critical += 1;
            }
        }
        let _ = link.allowance.runs_low();
    }

    fn check(&self) {
        let elapsed_ms = self.now.duration_since(self.start).as_millis() as u64 + 1;
        let most = |burst: u64, per_s: u64| {
            let burst = if self.resumed { 0 } else { burst };
            // A bucket that is empty at first fills like any other, up to its burst.
            u128::from(burst) + u128::from(per_s) * u128::from(elapsed_ms) / 1000 + 1
        };
        let LeaseConfig { messages_per_s, bytes_per_s, .. } = self.config;
        let within = |who: &dyn Debug, given: Cost, checks: u64, budgets: u64| {
            let most =
                |burst: u64, per_s: u64| most(burst.saturating_mul(budgets), per_s.saturating_mul(budgets));
            let Cost { messages, bytes } = given;
            let burst = messages_per_s.max(NEED_MAX.messages);
            assert!(u128::from(messages) <= most(burst, messages_per_s), "{who:?} got {messages} messages");
            let burst = bytes_per_s.max(NEED_MAX.bytes);
            assert!(u128::from(bytes) <= most(burst, bytes_per_s), "{who:?} got {bytes} bytes");
            assert!(u128::from(checks) <= most(CHECKS, CHECKS), "{who:?} got {checks} checks");
        };
        let mut parties = BTreeMap::<IpAddr, (Cost, u64)>::new();
        for (who, neighbour) in &self.neighbours {
            within(who, neighbour.given, neighbour.checks, 1);
            if let Some(party) = payer(*who).party {
                let (given, checks) = parties.entry(party).or_default();
                *given = sum(*given, neighbour.given);
                *checks = checks.saturating_add(neighbour.checks);
            }
            for link in &neighbour.links {
                assert!(link.spent.messages <= link.given.messages && link.spent.bytes <= link.given.bytes);
                // One more, which it may save over leases in which nothing critical came.
                let share = link.given.messages / CRITICAL_ONE_IN + 1;
                assert!(link.critical <= share, "{} critical of {}", link.critical, link.given.messages);
            }
        }
        for (party, (given, checks)) in parties {
            within(&party, given, checks, PARTY_BUDGETS);
        }
        assert!(self.leases.len() <= self.neighbours.len());
    }
}

fn sum(a: Cost, b: Cost) -> Cost {
    Cost { messages: a.messages.saturating_add(b.messages), bytes: a.bytes.saturating_add(b.bytes) }
}

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use proptest::prelude::*;

use super::*;

const A: Payer = Payer { neighbour: Address([1; 16]), party: None };
const B: Payer = Payer { neighbour: Address([2; 16]), party: None };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn cost(messages: u64, bytes: u64) -> Cost {
    Cost { messages, bytes }
}

fn lease(grant: Grant) -> Lease {
    match grant {
        Grant::Lease(lease) => lease,
        Grant::Wait(wait) => panic!("wait {wait:?}"),
    }
}

/// Everything that can be had at `now`.
fn empty_out(leases: &mut Leases, now: Instant, who: Payer) -> u64 {
    let mut got = 0;
    while let Grant::Lease(lease) = leases.data(now, who, cost(1, 1)) {
        got += lease.room.messages;
    }
    got
}

#[test]
fn a_neighbour_gets_its_rate_and_no_more_over_any_number_of_links() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    assert_eq!(empty_out(&mut leases, start, A), 50_000);
    let Grant::Wait(wait) = leases.data(start, A, cost(50, 0)) else { panic!("it was empty") };
    assert_eq!(wait, ms(1));
    assert_eq!(empty_out(&mut leases, start + ms(100), A), 5_000);
    assert_eq!(empty_out(&mut leases, start + ms(100), B), 50_000, "another's budget is its own");
}

#[test]
fn bytes_are_bounded_as_messages_are() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let mut bytes = 0;
    while let Grant::Lease(lease) = leases.data(start, A, cost(1, 16 * 1024)) {
        bytes += lease.room.bytes;
    }
    assert!(bytes <= 100 * 1024 * 1024 && bytes > 99 * 1024 * 1024, "{bytes}");
}

#[test]
fn a_budget_below_one_batch_still_lets_a_batch_through_in_the_end() {
    let start = Instant::now();
    let mut leases =
        Leases::new(LeaseConfig { messages_per_s: 1, bytes_per_s: 1024, ..LeaseConfig::default() }, start);
    assert_eq!(lease(leases.data(start, A, NEED_MAX)).room, NEED_MAX);
    let beyond = cost(NEED_MAX.messages + 1, u64::MAX);
    let Grant::Wait(wait) = leases.data(start, A, beyond) else { panic!("it was empty") };
    let got = lease(leases.data(start + wait, A, beyond));
    assert_eq!(got.room, NEED_MAX, "what is needed beyond the bound is not waited for");
}

#[test]
fn one_that_takes_over_after_a_crash_has_nothing_to_give_yet() {
    let start = Instant::now();
    let mut leases = Leases::resumed(LeaseConfig::default(), start);
    assert!(matches!(leases.data(start, A, cost(1, 1)), Grant::Wait(_)));
    assert!(!leases.fault(start, A));
    // Also for whom it sees for the first time later on.
    assert_eq!(empty_out(&mut leases, start + ms(10), B), 500);
}

#[test]
fn failures_are_few_and_the_same_for_all_links() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let forgiven = (0..100).filter(|_| leases.fault(start, A)).count();
    assert_eq!(forgiven, 10);
    assert!(!leases.fault(start + ms(500), A));
    assert!(leases.fault(start + ms(2_500), A), "one more after a second");
}

#[test]
fn checks_are_bounded() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let mut checks = 0;
    while let Grant::Lease(lease) = leases.checks(start, A) {
        checks += lease.room.messages;
    }
    assert_eq!(checks, CHECKS_PER_S);
    assert!(matches!(leases.checks(start + ms(5), A), Grant::Lease(_)));
}

#[test]
fn invented_neighbours_share_what_is_left_and_evict_nobody() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let name = |n: usize| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Payer { neighbour: Address(name), party: None }
    };
    for n in 0..NEIGHBOURS_MAX {
        leases.data(start, name(n), cost(1, 1));
    }
    let crowd: u64 = (0..10).map(|n| empty_out(&mut leases, start, name(NEIGHBOURS_MAX + n))).sum();
    assert_eq!((leases.len(), crowd), (NEIGHBOURS_MAX, 50_000), "ten newcomers have one budget");
    let later = start + ms(2_000);
    empty_out(&mut leases, later, name(0));
    empty_out(&mut leases, later, name(NEIGHBOURS_MAX + 1));
    assert_eq!(leases.len(), 2, "whoever owes nothing was forgotten");
    assert_eq!(empty_out(&mut leases, later, name(0)), 0, "whoever owes is not");
}

/// Everything that `payers` get at once, each in turn a lease.
fn empty_out_all(leases: &mut Leases, now: Instant, payers: &[Payer]) -> Vec<u64> {
    let mut got = vec![0; payers.len()];
    loop {
        let before = got.clone();
        for (got, payer) in got.iter_mut().zip(payers) {
            if let Grant::Lease(lease) = leases.data(now, *payer, cost(1, 1)) {
                *got += lease.room.messages;
            }
        }
        if got == before {
            return got;
        }
    }
}

fn of_party(n: u8, party: &str) -> Payer {
    Payer { neighbour: Address([n; 16]), party: Some(party.parse().unwrap()) }
}

#[test]
fn names_of_one_party_have_four_budgets_together() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let names: Vec<Payer> = (10..100).map(|n| of_party(n, "192.0.2.7")).collect();
    assert_eq!(empty_out_all(&mut leases, start, &names).iter().sum::<u64>(), 200_000);
    let others = [of_party(200, "192.0.2.8"), A];
    assert_eq!(empty_out_all(&mut leases, start, &others), [50_000, 50_000], "others' are their own");
    // New names bring nothing.
    let fresh: Vec<Payer> = (100..200).map(|n| of_party(n, "192.0.2.7")).collect();
    assert_eq!(empty_out_all(&mut leases, start, &fresh).iter().sum::<u64>(), 0);
    let Grant::Wait(wait) = leases.data(start, fresh[0], cost(50, 0)) else { panic!("it was empty") };
    assert_eq!(wait, Duration::from_micros(250));
    assert_eq!(empty_out_all(&mut leases, start + ms(100), &fresh).iter().sum::<u64>(), 20_000);
}

#[test]
fn one_name_of_a_party_leaves_the_others_theirs() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let names: Vec<Payer> = (0..4).map(|n| of_party(n, "192.0.2.7")).collect();
    assert_eq!(empty_out(&mut leases, start, names[0]), 50_000);
    assert_eq!(empty_out_all(&mut leases, start, &names[1..]), [50_000; 3]);
}

#[test]
fn failures_and_checks_of_one_party_are_bounded_too() {
    let start = Instant::now();
    let mut leases = Leases::new(LeaseConfig::default(), start);
    let names: Vec<Payer> = (0..100).map(|n| of_party(n, "192.0.2.7")).collect();
    let forgiven =
        names.iter().flat_map(|name| [name; 20]).filter(|name| leases.fault(start, **name)).count();
    assert_eq!(forgiven, 40);
    let mut checks = 0;
    for name in &names {
        while let Grant::Lease(lease) = leases.checks(start, *name) {
            checks += lease.room.messages;
        }
    }
    assert_eq!(checks, 4 * CHECKS_PER_S);
    assert!(leases.fault(start, of_party(101, "192.0.2.8")));
}

#[test]
fn an_allowance_is_spent_renewed_and_lapses() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    assert!(!allowance.spend(start, cost(1, 1)));
    allowance.add(start, Lease { room: cost(100, 1_000), until: start + LEASE_FOR });
    assert!(!allowance.spend(start, cost(1, 1_001)), "all or nothing");
    assert!(allowance.spend(start, cost(75, 10)) && !allowance.runs_low());
    assert!(allowance.spend(start, cost(1, 10)) && allowance.runs_low());
    allowance.add(start + ms(900), Lease { room: cost(10, 10), until: start + ms(1_900) });
    assert!(allowance.spend(start + ms(1_800), cost(34, 990)), "the rest of the first is good as long");
    allowance.add(start + ms(1_800), Lease { room: cost(10, 10), until: start + ms(2_800) });
    assert!(!allowance.spend(start + ms(2_800), cost(1, 1)), "it has lapsed");
}

#[test]
fn critical_gets_a_twentieth_and_does_not_save_up() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    assert!(!allowance.spend_critical(1));
    for _ in 0..3 {
        allowance.add(start, Lease { room: cost(2_000, 1 << 20), until: start + LEASE_FOR });
    }
    let urgent = (0..2_000).filter(|_| allowance.spend_critical(100)).count();
    assert_eq!(urgent, 100);
    allowance.add(start, Lease { room: cost(2_000, 20_000), until: start + LEASE_FOR });
    let before = allowance.critical.bytes;
    assert!(
        !allowance.spend_critical(before / 20 + 1) && allowance.spend_critical(before / 20),
        "by bytes too"
    );
}

/// What one link does next.
#[derive(Debug, Clone)]
enum Step {
    Wait {
        us: u64,
    },
    Spend {
        link: usize,
        messages: u64,
        bytes: u64,
    },
    /// The link dies with what it has; another takes its place.
    Reconnect {
        link: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..400_000).prop_map(|us| Step::Wait { us }),
        (0usize..3, 1u64..64, 1u64..100_000).prop_map(|(link, messages, bytes)| Step::Spend {
            link,
            messages,
            bytes
        }),
        (0usize..3).prop_map(|link| Step::Reconnect { link }),
    ]
}

proptest! {
    /// Over any run of three links that come and go, a neighbour gets through what its rate and
    /// one burst allow, and what priority critical got of it is a twentieth.
    #[test]
    fn never_more_than_rate_and_burst_over_any_reconnects(
        messages_per_s in 1u64..5_000,
        bytes_per_s in 1_024u64..10_000_000,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let start = Instant::now();
        let config = LeaseConfig { messages_per_s, bytes_per_s, ..LeaseConfig::default() };
        let mut leases = Leases::new(config, start);
        let mut now = start;
        let mut links: Vec<Allowance> = (0..3).map(|_| Allowance::new(now)).collect();
        let (mut messages_through, mut bytes_through, mut critical) = (0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Wait { us } => now += Duration::from_micros(us),
                Step::Reconnect { link } => links[link] = Allowance::new(now),
                Step::Spend { link, messages, bytes } => {
                    let need = cost(messages, bytes);
                    if !links[link].spend(now, need) {
                        match leases.data(now, A, need) {
                            Grant::Lease(lease) => {
                                prop_assert!(lease.room.messages >= messages && lease.room.bytes >= bytes);
                                links[link].add(now, lease);
                                prop_assert!(links[link].spend(now, need));
                            }
                            Grant::Wait(wait) => {
                                prop_assert!(wait > Duration::ZERO);
                                continue;
                            }
                        }
                    }
                    messages_through += messages;
                    bytes_through += bytes;
                    critical += (0..messages).filter(|_| links[link].spend_critical(1)).count() as u64;
                }
            }
            let us = (now - start).as_micros();
            let bound = |rate: u64, least: u64| {
                u128::from(rate.max(least)) + u128::from(rate) * us / 1_000_000 + 1
            };
            let messages_max = bound(messages_per_s, NEED_MAX.messages);
            prop_assert!(u128::from(messages_through) <= messages_max);
            prop_assert!(u128::from(bytes_through) <= bound(bytes_per_s, NEED_MAX.bytes));
            prop_assert!(u128::from(critical) <= messages_max / 20 + 1);
        }
    }
}

#[test]
fn a_dry_allowance_is_not_asked_for_before_there_is_more() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    assert!(allowance.may_ask(start));
    allowance.run_dry(start, Duration::from_millis(5));
    assert!(!allowance.may_ask(start + Duration::from_millis(4)));
    assert!(allowance.may_ask(start + Duration::from_millis(5)));
}

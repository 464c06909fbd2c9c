//! Turns against a sender, a path that loses order, and a store that answers late.

use std::ops::Range;

use proptest::{collection::vec, prelude::*};

use super::{
    receiver::{Receiver, SOURCE},
    *,
};

const WAIT: Duration = Duration::from_secs(30);

fn uid(n: u8) -> MessageUid {
    MessageUid([n; 16])
}

fn follows(n: u8) -> Option<UidPrefix> {
    Some(uid(n).prefix())
}

#[test]
fn what_came_early_enters_behind_what_it_follows() {
    let mut here = Receiver::new(WAIT);
    here.arrives(uid(3), follows(2));
    here.arrives(uid(2), follows(1));
    here.settle();
    assert_eq!((here.inbox.len(), here.turns.len()), (0, 2));
    here.arrives(uid(1), None);
    here.settle();
    assert_eq!(here.inbox, [uid(1), uid(2), uid(3)]);
    assert!(here.turns.is_empty() && here.turns.next_wake().is_none());
}

#[test]
fn nothing_waits_longer_than_the_wait_and_nothing_waits_twice_for_the_same() {
    let mut here = Receiver::new(WAIT);
    here.arrives(uid(3), follows(1));
    here.settle();
    here.passes(WAIT / 2);
    here.arrives(uid(4), follows(3));
    here.arrives(uid(5), follows(1));
    here.settle();
    assert!(here.inbox.is_empty());
    // Counted from the first that waited for it.
    here.passes(WAIT / 2);
    assert_eq!(here.inbox, [uid(3), uid(4), uid(5)]);
    here.arrives(uid(6), follows(1));
    here.settle();
    assert_eq!(here.inbox.last(), Some(&uid(6)));
}

#[test]
fn without_a_wait_everything_enters_as_it_comes() {
    let mut here = Receiver::new(Duration::ZERO);
    here.arrives(uid(2), follows(1));
    here.settle();
    assert_eq!(here.inbox, [uid(2)]);
}

#[test]
fn a_restart_between_arrival_and_entry_leaves_nothing_waiting() {
    let mut here = Receiver::new(WAIT);
    here.arrives(uid(2), follows(1));
    here.settle();
    here.arrives(uid(1), None);
    here.works();
    assert_eq!((here.inbox.len(), here.queue.len()), (1, 1), "one is about to enter");
    here.restarts(WAIT);
    here.settle();
    assert_eq!(here.inbox, [uid(1), uid(2)]);
}

#[test]
fn messages_that_follow_each_other_in_a_circle_do_not_wait_for_ever() {
    let mut here = Receiver::new(WAIT);
    here.arrives(uid(1), follows(2));
    here.arrives(uid(2), follows(1));
    here.arrives(uid(3), follows(3));
    here.settle();
    here.passes(WAIT);
    assert_eq!(here.inbox.len(), 3);
    assert!(here.turns.is_empty());
}

fn nth(n: usize) -> MessageUid {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    MessageUid(id)
}

/// Has sources send what is early for as long as there is a place; how many each of them got.
fn take_places(turns: &mut Turns, sources: Range<usize>, stranger: bool) -> Vec<usize> {
    let now = Instant::now();
    let mut of_each = vec![0; sources.len()];
    for n in 0..2 * ALL_MAX {
        let at = n % sources.len();
        let (source, got) = (Address(nth(sources.start + at).0), &mut of_each[at]);
        let Place { follows, stranger_waits, .. } = turns.awaits(&source, follows(9));
        if follows.is_some() && (stranger_waits || !stranger) {
            turns.is_early(now, (source, nth(n)), uid(9).prefix(), stranger);
            *got += 1;
        }
    }
    of_each
}

#[test]
fn sources_that_take_all_they_get_leave_places_for_the_next() {
    let mut turns = Turns::new(WAIT);
    let of_each = take_places(&mut turns, 0..6, false);
    assert!(of_each.iter().all(|got| got.abs_diff(ALL_MAX / 7) <= 1), "{of_each:?}");
    let next = take_places(&mut turns, 6..7, false);
    assert!(next[0] >= ALL_MAX / 14, "{next:?}");
}

#[test]
fn strangers_together_have_a_share_and_the_others_what_is_left() {
    let mut turns = Turns::new(WAIT);
    let of_each = take_places(&mut turns, 0..10_000, true);
    assert_eq!(of_each.iter().sum::<usize>(), STRANGERS_MAX);
    let other = Address([8; 16]);
    assert!(!turns.awaits(&other, follows(9)).stranger_waits);
    let known = (0..OF_SOURCE_MAX).filter(|n| {
        let waits = turns.awaits(&SOURCE, follows(9)).follows.is_some();
        turns.is_early(Instant::now(), (SOURCE, nth(*n)), uid(9).prefix(), false);
        waits
    });
    assert_eq!(known.count(), OF_SOURCE_MAX);
    turns.entered((Address(nth(0).0), nth(0)));
    assert!(turns.awaits(&other, follows(9)).stranger_waits);
}

#[test]
fn one_source_has_a_bound_and_what_is_beyond_it_enters() {
    let mut turns = Turns::new(WAIT);
    let now = Instant::now();
    for n in 0..OF_SOURCE_MAX {
        assert!(turns.awaits(&SOURCE, follows(9)).follows.is_some());
        turns.is_early(now, (SOURCE, nth(n)), uid(9).prefix(), false);
    }
    assert_eq!(turns.awaits(&SOURCE, follows(9)), Place::default());
    assert_eq!(turns.awaits(&Address([8; 16]), follows(9)).follows, follows(9));
    turns.entered((SOURCE, nth(0)));
    assert!(turns.awaits(&SOURCE, follows(9)).follows.is_some());
}

#[test]
fn a_source_is_asked_to_wait_while_a_crowd_of_its_messages_enters_and_not_while_they_wait() {
    let mut turns = Turns::new(WAIT);
    let now = Instant::now();
    for n in 0..CROWD {
        turns.is_early(now, (SOURCE, nth(n)), uid(9).prefix(), false);
        assert!(!turns.is_crowded(&SOURCE));
    }
    turns.entered((SOURCE, uid(9)));
    assert!(turns.is_crowded(&SOURCE) && !turns.is_crowded(&Address([8; 16])));
    turns.entered((SOURCE, nth(0)));
    assert!(!turns.is_crowded(&SOURCE));
}

#[test]
fn what_the_store_did_not_take_is_next_again_and_in_its_order() {
    let mut turns = Turns::new(WAIT);
    let now = Instant::now();
    (2..5).for_each(|n| turns.is_early(now, (SOURCE, uid(n)), uid(n - 1).prefix(), false));
    turns.entered((SOURCE, uid(1)));
    let first = turns.enter();
    assert_eq!(first.iter().map(|enters| enters.uid).collect::<Vec<_>>(), [uid(2), uid(3), uid(4)]);
    assert!(turns.enter().is_empty(), "one submission at a time");
    turns.answered();
    assert_eq!(turns.enter(), first);
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The sender seals a message that has no receipt, for the first time or again.
    Seal(u8),
    /// An envelope under way arrives.
    Arrive(u8),
    /// One is lost.
    Lose(u8),
    /// The store of the receiver does its next operation.
    Store,
    /// A receipt reaches the sender.
    Receipt(u8),
    /// The receiver is killed and starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Seal),
        4 => any::<u8>().prop_map(Step::Arrive),
        1 => any::<u8>().prop_map(Step::Lose),
        6 => Just(Step::Store),
        3 => any::<u8>().prop_map(Step::Receipt),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost, sent again, overtaken or interrupted: as long as nothing is given up, messages
    /// enter in the order in which they were sent.
    #[test]
    fn messages_enter_in_the_order_of_sending(count in 1u8..24, steps in vec(step(), 0..300)) {
        let mut here = Receiver::new(WAIT);
        let mut outbox: BTreeSet<u8> = (0..count).collect();
        let mut under_way: Vec<(u8, Option<u8>)> = Vec::new();
        let pick = |of: usize, n: u8| usize::from(n) % of.max(1);
        let seal = |outbox: &BTreeSet<u8>, n: u8| (n, outbox.range(..n).next_back().copied());
        let arrive = |here: &mut Receiver, (n, before): (u8, Option<u8>)| {
            here.arrives(uid(n), before.map(|before| uid(before).prefix()));
        };
        for step in steps {
            match step {
                Step::Seal(n) => {
                    let chosen = outbox.iter().nth(pick(outbox.len(), n)).copied();
                    under_way.extend(chosen.map(|n| seal(&outbox, n)));
                }
                Step::Arrive(n) if !under_way.is_empty() => {
                    arrive(&mut here, under_way.remove(pick(under_way.len(), n)));
                }
                Step::Lose(n) if !under_way.is_empty() => {
                    under_way.remove(pick(under_way.len(), n));
                }
                Step::Store => here.works(),
                // Whatever is durable is receipted.
                Step::Receipt(n) => {
                    let durable: Vec<u8> =
                        outbox.iter().copied().filter(|n| here.seen.contains(&uid(*n))).collect();
                    if let Some(n) = durable.get(pick(durable.len(), n)) {
                        outbox.remove(n);
                    }
                }
                Step::Restart => here.restarts(WAIT),
                Step::Arrive(_) | Step::Lose(_) => {}
            }
        }
        here.settle();
        while let Some(n) = outbox.pop_first() {
            arrive(&mut here, (n, None));
            here.settle();
        }
        let expected: Vec<_> = (0..count).map(uid).collect();
        prop_assert_eq!(&here.inbox, &expected);
        prop_assert!(here.turns.is_empty());
    }
}

//! RateLimiterActor: leases over its life, and what is left of them after it.

use std::time::Duration;

use quicprochat_mesh::{
    actors::rate_limiter::RateLimiterParts,
    clock,
    messages::{
        lifecycle::{DrainPhase, ExitReason},
        limit::{Budget, RequestLease},
    },
    proto::{
        lease::{Cost, Grant, LeaseConfig, Payer},
        pressure::QUEUED_BYTES_FULL,
    },
    testing::with_virtual_time,
    wire::Address,
};
use tokio::sync::oneshot::{self, Receiver};

use crate::support::*;

const NEIGHBOUR: Payer = Payer { neighbour: Address([3; 16]), party: None };

fn question(messages: u64) -> (RequestLease, Receiver<Grant>) {
    let (answer, answered) = oneshot::channel();
    let budget = Budget::Data(Cost { messages, bytes: messages * 100 });
    (RequestLease { payer: NEIGHBOUR, budget, answer }, answered)
}

async fn ask(limiter: &Limiter, messages: u64) -> Grant {
    let (question, answered) = question(messages);
    assert!(limiter.seat.outlet().offer(question).is_ok());
    answered.await.unwrap()
}

/// Takes whatever there is; how many messages that was.
async fn empty_out(limiter: &Limiter) -> u64 {
    let mut got = 0;
    while let Grant::Lease(lease) = ask(limiter, 1).await {
        got += lease.room.messages;
    }
    got
}

fn parts(messages_per_s: u64) -> RateLimiterParts {
    let config = LeaseConfig { messages_per_s, ..LeaseConfig::default() };
    RateLimiterParts { config, ..RateLimiterParts::default() }
}

#[test]
fn it_gives_leases_until_the_budget_is_spent_and_again_with_time() {
    with_virtual_time(|| async {
        let limiter = limiter_of(parts(1_000));
        let Grant::Lease(lease) = ask(&limiter, 10).await else { panic!("it was full") };
        assert_eq!(lease.room.messages, 50, "a twentieth of a second's worth");
        assert!(lease.until > clock::now());
        assert_eq!(empty_out(&limiter).await, 950);
        let Grant::Wait(wait) = ask(&limiter, 10).await else { panic!("it was spent") };
        assert_eq!(wait, Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let later = empty_out(&limiter).await;
        assert!((500..=502).contains(&later), "{later}");
    });
}

#[test]
fn a_full_mailbox_hands_the_question_back_and_a_lost_one_is_no_answer() {
    with_virtual_time(|| async {
        let limiter = limiter_of(parts(1_000_000));
        let mut outlet = limiter.seat.outlet();
        let mut answers = Vec::new();
        let refused = loop {
            let (question, answered) = question(1);
            match outlet.offer(question) {
                Ok(()) => answers.push(answered),
                Err(refused) => break refused,
            }
            assert!(answers.len() < 10_000, "the mailbox has no bound");
        };
        drop(refused);
        for answered in answers {
            assert!(answered.await.is_ok(), "whoever was let in is answered");
        }
        tokio::time::sleep(secs(1)).await;
        assert!(matches!(ask(&limiter, 1).await, Grant::Lease(_)));
    });
}

#[test]
fn the_next_one_after_a_crash_begins_with_nothing_to_give() {
    with_virtual_time(|| async {
        let parts = parts(1_000);
        let first = limiter_of(parts.clone());
        ask(&first, 1).await;
        drop(first);
        let second = limiter_of(parts);
        assert_eq!(empty_out(&second).await, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let got = empty_out(&second).await;
        assert!((100..=102).contains(&got), "{got}");
    });
}

#[test]
fn a_drain_finds_it_answering_until_the_links_are_gone() {
    with_virtual_time(|| async {
        let mut limiter = limiter_of(parts(1_000));
        for phase in [DrainPhase::Draining, DrainPhase::Persisting] {
            limiter.actor.do_send(drain(phase));
            limiter.parent.report(phase).await;
            assert!(matches!(ask(&limiter, 1).await, Grant::Lease(_)));
        }
        let (question, answered) = question(1);
        assert!(limiter.seat.outlet().offer(question).is_ok());
        limiter.actor.do_send(drain(DrainPhase::Cleanup));
        assert!(answered.await.is_ok(), "what was asked before is answered");
        assert_eq!(limiter.parent.exit().await, ExitReason::Drained);
    });
}

#[test]
fn the_level_follows_what_waits_to_be_written_and_the_store() {
    with_virtual_time(|| async {
        let parts = parts(1_000);
        let gauge = parts.gauge.clone();
        let _limiter = limiter_of(parts);
        let looked = || tokio::time::sleep(Duration::from_millis(1_100));
        gauge.queued(QUEUED_BYTES_FULL as usize * 3 / 4);
        looked().await;
        assert_eq!(gauge.level().get(), 2);
        gauge.unqueued(QUEUED_BYTES_FULL as usize * 3 / 4);
        looked().await;
        assert_eq!(gauge.level().get(), 2, "not at once");
        tokio::time::sleep(secs(15)).await;
        assert_eq!(gauge.level().get(), 0);
        gauge.store_took(secs(6));
        looked().await;
        assert_eq!((gauge.level().get(), gauge.store().get()), (3, 3));
        assert_eq!(gauge.queues().get(), 0, "what only passes through waits for no disk");
    });
}

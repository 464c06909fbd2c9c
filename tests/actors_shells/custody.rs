//! StoreActor: what is held for others is answered for after the commit, and let go of on the word
//! of its destination or of the next custodian only.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        clock_handle::ClockHandle,
        custody::{CustodyParts, StoreActor},
        mailbox,
        rate_limiter::{PressureGauge, RateLimiterActor, RateLimiterParts},
    },
    clock,
    messages::{
        health::ReportHealth,
        lifecycle::{DrainPhase, ExitReason},
        store::{CustodyAnswer, CustodyNews, FromCustody, GetHeld, HoldEnvelopes, WhichReachable},
    },
    proto::health::HealthStatus,
    storage::{MailboxQuota, MemFault, Quota},
    testing::{expect_silence, expect_within, set_wall_clock_off, with_virtual_time},
    wire::{EnvelopeKind, PacketId, control::RefuseReason},
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::*;

struct Bench {
    store: FragileStore,
    answers: UnboundedReceiver<CustodyAnswer>,
    handed_on: UnboundedReceiver<FromCustody>,
    asked: UnboundedReceiver<WhichReachable>,
    health: UnboundedReceiver<ReportHealth>,
    parent: Parent,
    actor: Addr<StoreActor>,
    source: Signer,
    target: Signer,
    neighbour: Signer,
}

fn start_on(store: FragileStore) -> Bench {
    start_pressed(store, PressureGauge::default())
}

fn start_pressed(store: FragileStore, pressure: PressureGauge) -> Bench {
    let (answer, answers) = seat::<CustodyAnswer>();
    let (from_custody, handed_on) = seat::<FromCustody>();
    let (health_seat, health) = seat::<ReportHealth>();
    let (guard, parent) = guard();
    let mailboxes = Arc::new(store.clone());
    let (which_reachable, asked) = seat::<WhichReachable>();
    let parts = CustodyParts {
        mailboxes,
        answer,
        from_custody,
        which_reachable,
        health: health_seat,
        pressure,
        clock: ClockHandle::new(None),
        quarantine: Default::default(),
    };
    let actor = StoreActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::STORE);
        StoreActor::new(parts, guard)
    });
    Bench {
        store,
        answers,
        handed_on,
        asked,
        health,
        parent,
        actor,
        source: Signer::new(1),
        target: Signer::new(2),
        neighbour: Signer::new(3),
    }
}

fn start() -> Bench {
    start_on(FragileStore::default())
}

impl Bench {
    /// Asks for one message to be held.
    fn hold(&mut self) -> PacketId {
        let packet = self.source.packet(EnvelopeKind::MESSAGE, self.target.address(), b"sealed");
        let id = packet.packet_id;
        self.actor.do_send(HoldEnvelopes { ingress: self.neighbour.address(), envelopes: vec![packet] });
        id
    }

    /// Has one message held.
    async fn held(&mut self) -> PacketId {
        let id = self.hold();
        assert_eq!(expect_within(&mut self.answers, PATIENCE).await.taken, [id]);
        id
    }

    async fn rows(&self) -> u64 {
        // Behind what was asked for before: completions come as messages to the same actor.
        tokio::time::sleep(secs(1)).await;
        self.actor.send(GetHeld).await.unwrap().rows
    }

    fn target_is_up(&self) {
        self.actor.do_send(CustodyNews::Reachable(self.target.address()));
    }

    async fn next_handed_on(&mut self) -> Vec<PacketId> {
        let FromCustody(packets) = expect_within(&mut self.handed_on, PATIENCE).await;
        packets.iter().map(|packet| packet.packet_id).collect()
    }
}

#[test]
fn custody_is_answered_for_after_the_commit_and_not_before() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.store.rows.hold_completions();
        let id = bench.hold();
        expect_silence(&mut bench.answers, secs(60)).await;
        bench.store.rows.release();
        assert_eq!(expect_within(&mut bench.answers, PATIENCE).await.taken, [id]);
        assert_eq!(bench.rows().await, 1);
    });
}

#[test]
fn what_the_disk_or_the_queue_does_not_take_is_refused_by_name() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.fail_next(MemFault::NoSpace);
        let first = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!((answer.taken, answer.refused), (vec![], vec![(first, RefuseReason::StoreFull)]));
        bench.store.rows.set_full(true);
        let second = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!((answer.taken, answer.refused), (vec![], vec![(second, RefuseReason::StoreFull)]));
        bench.store.rows.set_full(false);
        bench.held().await;
        assert_eq!(bench.rows().await, 1, "what was refused is not held");
    });
}

#[test]
fn a_slow_disk_gets_no_more_and_the_answer_does_not_wait_for_it() {
    with_virtual_time(|| async {
        let parts = RateLimiterParts::default();
        let gauge = parts.gauge.clone();
        let (limiter_guard, _limiter_parent) = guard();
        let _limiter = RateLimiterActor::new(parts, limiter_guard).start();
        let mut bench = start_pressed(FragileStore::default(), gauge.clone());
        bench.held().await;
        gauge.store_took(secs(3));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!((gauge.store().get(), gauge.queues().get()), (2, 0));
        bench.store.rows.hold_completions();
        let id = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!((answer.taken, answer.refused), (vec![], vec![(id, RefuseReason::Congested)]));
        bench.store.rows.release();
        tokio::time::sleep(secs(15)).await;
        bench.held().await;
    });
}

#[test]
fn beyond_its_quota_a_neighbour_is_refused_and_what_is_held_stays() {
    with_virtual_time(|| async {
        let quota = MailboxQuota {
            per_ingress: Quota { rows_max: 1, bytes_max: u64::MAX },
            ..MailboxQuota::default()
        };
        let mut bench = start_on(FragileStore::with_quota(quota));
        bench.held().await;
        let over = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!(answer.refused, [(over, RefuseReason::StoreFull)]);
        assert_eq!(bench.rows().await, 1);
    });
}

#[test]
fn only_the_destination_can_receipt_what_waits_for_it() {
    with_virtual_time(|| async {
        let mut bench = start();
        let id = bench.held().await;
        bench.target_is_up();
        let FromCustody(packets) = expect_within(&mut bench.handed_on, PATIENCE).await;
        assert_eq!(packets[0].packet_id, id);
        assert!(packets[0].ext.retransmit, "relays on the way may have seen it");

        let thief = bench.neighbour.address();
        bench.actor.do_send(CustodyNews::Settled { by: thief, packets: vec![id] });
        assert_eq!(bench.rows().await, 1);
        assert_eq!(bench.next_handed_on().await, [id], "handed on again, since nobody receipted it");

        let by = bench.target.address();
        bench.actor.do_send(CustodyNews::Settled { by, packets: vec![id] });
        assert_eq!(bench.rows().await, 0);
        expect_silence(&mut bench.handed_on, secs(3600)).await;
    });
}

#[test]
fn a_thief_with_a_mailbox_of_its_own_clears_no_other() {
    with_virtual_time(|| async {
        let mut bench = start();
        let id = bench.held().await;
        // The thief is known here: something waits for it too.
        let thief = bench.neighbour.address();
        let its_own = bench.source.packet(EnvelopeKind::MESSAGE, thief, b"sealed");
        let its_id = its_own.packet_id;
        bench.actor.do_send(HoldEnvelopes { ingress: thief, envelopes: vec![its_own] });
        expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!(bench.rows().await, 2);
        bench.actor.do_send(CustodyNews::Settled { by: thief, packets: vec![id, its_id] });
        assert_eq!(bench.rows().await, 1);
        bench.target_is_up();
        assert_eq!(bench.next_handed_on().await, [id]);
    });
}

#[test]
fn the_next_custodian_takes_it_over() {
    with_virtual_time(|| async {
        let mut bench = start();
        let id = bench.held().await;
        bench.target_is_up();
        assert_eq!(bench.next_handed_on().await, [id]);
        bench.actor.do_send(CustodyNews::HandedOver(vec![id]));
        assert_eq!(bench.rows().await, 0);
        expect_silence(&mut bench.handed_on, secs(3600)).await;
    });
}

#[test]
fn what_is_held_while_its_destination_is_there_goes_on_by_itself() {
    with_virtual_time(|| async {
        let mut bench = start();
        let first = bench.held().await;
        bench.target_is_up();
        assert_eq!(bench.next_handed_on().await, [first]);
        let began = clock::now();
        let second = bench.held().await;
        assert_eq!(bench.next_handed_on().await, [second], "the first is under way");
        assert!(clock::now().saturating_duration_since(began) < secs(1), "nobody had to ask for it");
    });
}

#[test]
fn what_is_under_way_is_not_handed_on_again_where_the_mailbox_is_read_anew() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (first, second) = (bench.held().await, bench.held().await);
        bench.target_is_up();
        assert_eq!(bench.next_handed_on().await, [first, second]);
        // Back on another link: its mailbox is looked through from the start.
        bench.target_is_up();
        expect_silence(&mut bench.handed_on, secs(7)).await;
        assert_eq!(bench.next_handed_on().await, [first, second], "once their time for an answer is over");
    });
}

#[test]
fn a_crash_is_heard_and_the_next_one_finds_what_was_held() {
    with_virtual_time(|| async {
        let mut bench = start();
        let id = bench.held().await;
        bench.store.arm(true);
        bench.hold();
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
        bench.store.arm(false);
        let mut again = start_on(bench.store.clone());
        assert_eq!(again.rows().await, 1);
        // Its predecessor heard which paths there are. It has to ask.
        let WhichReachable(asked) = expect_within(&mut again.asked, PATIENCE).await;
        assert_eq!(asked, [again.target.address()]);
        again.actor.do_send(CustodyNews::AllReachable(asked));
        assert_eq!(again.next_handed_on().await, [id]);
    });
}

#[test]
fn a_new_mailbox_is_asked_about_and_all_are_again_in_turn() {
    with_virtual_time(|| async {
        let mut bench = start();
        // Said before anything was held, it counts for nothing: nobody remembers a million paths.
        bench.target_is_up();
        let first = bench.held().await;
        let WhichReachable(asked) = expect_within(&mut bench.asked, PATIENCE).await;
        assert_eq!(asked, [bench.target.address()]);
        // The answer, or what the router says by itself later, is lost: it is asked again.
        let WhichReachable(asked) = expect_within(&mut bench.asked, secs(61)).await;
        bench.actor.do_send(CustodyNews::AllReachable(asked));
        assert_eq!(bench.next_handed_on().await, [first]);
        while bench.asked.try_recv().is_ok() {}
        // No question while the path is known, and none once nothing is held.
        expect_silence(&mut bench.asked, secs(600)).await;
        bench.actor.do_send(CustodyNews::Unreachable(bench.target.address()));
        expect_within(&mut bench.asked, secs(61)).await;
        bench.target_is_up();
        bench.actor.do_send(CustodyNews::Settled { by: bench.target.address(), packets: vec![first] });
        tokio::time::sleep(secs(600)).await;
        while bench.asked.try_recv().is_ok() {}
        expect_silence(&mut bench.asked, secs(600)).await;
    });
}

#[test]
fn a_message_whose_time_is_over_goes() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.held().await;
        tokio::time::sleep(secs(25 * 3600)).await;
        assert_eq!(bench.rows().await, 0);
        bench.target_is_up();
        expect_silence(&mut bench.handed_on, secs(60)).await;
    });
}

/// An hour, a year, to 1970, beyond 2038, beyond 2106; both ways.
const CLOCK_JUMPS_S: [i64; 6] = [3600, -3600, 366 * 86_400, -366 * 86_400, -(1 << 31), 1 << 32];

#[test]
fn whatever_the_wall_clock_is_set_to_a_message_lives_as_long_as_it_was_given() {
    for off_s in CLOCK_JUMPS_S {
        with_virtual_time(|| async {
            let mut bench = start();
            bench.held().await;
            tokio::time::sleep(secs(3600)).await;
            let _wrong = set_wall_clock_off(off_s);
            tokio::time::sleep(secs(3600)).await;
            assert_eq!(bench.rows().await, 1, "{off_s}: an acknowledged message is gone");
            bench.target_is_up();
            let FromCustody(handed) = expect_within(&mut bench.handed_on, PATIENCE).await;
            let age_s = handed[0].ext.age_s;
            assert!((7200..7210).contains(&age_s), "{off_s}: its age is what it lay here, not {age_s}");
            // And no longer.
            tokio::time::sleep(secs(23 * 3600)).await;
            assert_eq!(bench.rows().await, 0, "{off_s}");
        });
    }
}

#[test]
fn a_drain_waits_for_the_commit_under_way_and_counts_it() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let id = bench.hold();
        bench.actor.do_send(drain(DrainPhase::Draining));
        bench.parent.report(DrainPhase::Draining).await;
        bench.actor.do_send(drain(DrainPhase::Persisting));
        tokio::time::sleep(secs(5)).await;
        assert!(!bench.parent.has_report(), "the commit is still under way");
        bench.store.rows.release();
        let counts = bench.parent.report(DrainPhase::Persisting).await;
        assert_eq!(counts.undelivered_kept, 1);
        assert_eq!(expect_within(&mut bench.answers, PATIENCE).await.taken, [id]);
        bench.actor.do_send(drain(DrainPhase::Cleanup));
        assert_eq!(bench.parent.exit().await, ExitReason::Drained);
    });
}

impl Bench {
    /// The reports of the next so many seconds, as (takes work, detail).
    async fn reports(&mut self, for_s: u64) -> Vec<(bool, String)> {
        while self.health.try_recv().is_ok() {}
        tokio::time::sleep(secs(for_s)).await;
        let mut seen = Vec::new();
        while let Ok(ReportHealth(report)) = self.health.try_recv() {
            assert_eq!(report.takes_work, report.status == HealthStatus::Healthy, "{report:?}");
            seen.push((report.takes_work, report.detail.unwrap_or_default()));
        }
        // One every two seconds, of which the first may just have gone.
        assert!(seen.len() as u64 + 1 >= for_s / 2, "{seen:?}");
        seen
    }

    /// Every report of a minute says the same trouble.
    async fn stays_in_trouble(&mut self, text: &str) {
        for (takes_work, detail) in self.reports(60).await {
            assert!(!takes_work && detail.contains(text), "{detail}");
        }
    }

    /// After at most two looks at the disk it takes work again.
    async fn recovers(&mut self) {
        tokio::time::sleep(secs(5)).await;
        for (takes_work, detail) in self.reports(10).await {
            assert!(takes_work && detail.contains("held for others"), "{detail}");
        }
    }
}

#[test]
fn a_full_disk_is_reported_until_something_was_written_however_well_it_reads() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.held().await;
        bench.store.rows.set_out_of_space(true);
        let refused = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!(answer.refused, [(refused, RefuseReason::StoreFull)]);
        tokio::time::sleep(secs(3)).await;
        bench.stays_in_trouble("no space left").await;
        assert_eq!(bench.rows().await, 1, "it reads all the while");
        bench.store.rows.set_out_of_space(false);
        bench.recovers().await;
    });
}

#[test]
fn below_the_reserve_it_says_so_before_anybody_is_refused_and_recovers_without_work() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.store.rows.set_below_reserve(true);
        tokio::time::sleep(secs(5)).await;
        bench.stays_in_trouble("below the reserve").await;
        let refused = bench.hold();
        let answer = expect_within(&mut bench.answers, PATIENCE).await;
        assert_eq!(answer.refused, [(refused, RefuseReason::StoreFull)]);
        bench.stays_in_trouble("below the reserve").await;
        bench.store.rows.set_below_reserve(false);
        bench.recovers().await;
    });
}

#[test]
fn a_message_that_was_held_ends_the_trouble_too() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.fail_next(MemFault::NoSpace);
        bench.hold();
        expect_within(&mut bench.answers, PATIENCE).await;
        bench.held().await;
        let (takes_work, detail) = bench.reports(2).await.remove(0);
        assert!(takes_work, "{detail}");
    });
}

#[test]
fn a_disk_that_does_not_answer_is_reported_and_asked_once() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(3)).await;
        bench.store.rows.hold_completions();
        tokio::time::sleep(secs(14)).await;
        bench.stays_in_trouble("has not answered for").await;
        // And the sweep of what has expired, once a minute.
        assert!(bench.store.rows.release() <= 2, "one question is enough");
        bench.recovers().await;
    });
}

#[test]
fn pressure_and_quotas_refuse_without_a_word_about_the_disk() {
    with_virtual_time(|| async {
        let quota = MailboxQuota {
            per_ingress: Quota { rows_max: 1, bytes_max: u64::MAX },
            ..MailboxQuota::default()
        };
        let mut bench = start_on(FragileStore::with_quota(quota));
        bench.held().await;
        bench.hold();
        expect_within(&mut bench.answers, PATIENCE).await;
        bench.store.rows.set_full(true);
        bench.hold();
        expect_within(&mut bench.answers, PATIENCE).await;
        bench.store.rows.set_full(false);
        for (takes_work, detail) in bench.reports(10).await {
            assert!(takes_work, "{detail}");
        }
    });
}

#[test]
fn a_burst_beyond_its_mailbox_comes_back_to_the_router() {
    with_virtual_time(|| async {
        let bench = start();
        let to_store = bench.actor.clone().recipient::<CustodyNews>();
        let target = bench.target.address();
        // Nothing else runs until the next await, so the mailbox only fills.
        let news = || CustodyNews::Unreachable(target);
        let taken = (0..100_000).filter(|_| to_store.try_send(news()).is_ok()).count();
        assert!((mailbox::STORE..=mailbox::STORE + 1).contains(&taken), "{taken}");
        assert_eq!(bench.rows().await, 0, "it lives");
    });
}

#[test]
fn it_reports_itself() {
    with_virtual_time(|| async {
        let mut bench = start();
        for _ in 0..3 {
            let ReportHealth(report) = expect_within(&mut bench.health, secs(3)).await;
            assert_eq!(report.subsystem, "store");
        }
    });
}

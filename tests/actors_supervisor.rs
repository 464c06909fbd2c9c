//! The supervisor against real actors and tasks that panic, fail, hang and end, in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use quicprochat_mesh::actors::child::{
    BackoffPolicy, Child, ChildSpec, FactoryError, RestartIntensity, guarded,
};
use quicprochat_mesh::actors::health::HealthHandle;
use quicprochat_mesh::actors::mailbox::{Control, Outlet, Refusal, Seat};
use quicprochat_mesh::actors::supervisor::{
    ListChildren, StartChild, StartError, StopChild, Supervisor, Tree,
};
use quicprochat_mesh::messages::lifecycle::{
    BeginDrain, ChildExited, ChildId, Drain, DrainCounts, DrainPhase, DrainPlan, DrainSummary, ExitGuard,
    ExitReason, PanicNow, SkipAhead,
};
use quicprochat_mesh::proto::health::HealthStatus;
use quicprochat_mesh::testing::{Probe, eventually, expect_silence, expect_within, with_virtual_time};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(120);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a worker tells the test.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Started(&'static str),
    Asked(&'static str, DrainPhase),
    Heard(&'static str, u32),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Panic,
    Fail,
    Stop,
    Say(u32),
}

impl Message for Order {
    type Result = ();
}

/// Does as it is told, and as little in a drain as its `manners` say.
struct Worker {
    name: &'static str,
    events: UnboundedSender<Event>,
    manners: Manners,
    guard: ExitGuard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Answers each phase at once.
    Polite,
    /// Answers after this long.
    Slow(Duration),
    /// Never answers in this phase.
    Deaf(DrainPhase),
    /// Panics in this phase.
    Explosive(DrainPhase),
}

impl Worker {
    fn finish(&mut self, phase: DrainPhase, ctx: &mut Context<Self>) {
        if phase == DrainPhase::Cleanup {
            self.guard.drained();
            ctx.stop();
        } else {
            self.guard.report(phase, DrainCounts { frames_dropped: 1, ..DrainCounts::default() });
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let _ = self.events.send(Event::Started(self.name));
    }
}

impl Handler<Order> for Worker {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Self::Context) {
        match order {
            Order::Panic => panic!("told to"),
            Order::Fail => {
                self.guard.failed("told to fail");
                ctx.stop();
            }
            Order::Stop => {
                self.guard.stopped();
                ctx.stop();
            }
            Order::Say(n) => {
                let _ = self.events.send(Event::Heard(self.name, n));
            }
        }
    }
}

impl Handler<Drain> for Worker {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        let _ = self.events.send(Event::Asked(self.name, drain.phase));
        match self.manners {
            Manners::Deaf(phase) if phase == drain.phase => {}
            Manners::Explosive(phase) if phase == drain.phase => panic!("told to"),
            Manners::Slow(delay) => {
                ctx.run_later(delay, move |worker, ctx| worker.finish(drain.phase, ctx));
            }
            _ => self.finish(drain.phase, ctx),
        }
    }
}

impl Handler<PanicNow> for Worker {
    type Result = ();

    fn handle(&mut self, _: PanicNow, _: &mut Self::Context) {
        panic!("told to");
    }
}

/// A tree, the events of its workers and the way to order them around.
struct Bench {
    tree: Tree,
    health: HealthHandle,
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
}

impl Bench {
    fn new() -> Self {
        let health = HealthHandle::new([]);
        health.set_serving();
        let (sender, events) = unbounded_channel();
        Self { tree: Supervisor::root(health.clone()), health, events, sender }
    }

    fn factory(
        &self,
        name: &'static str,
        manners: Manners,
    ) -> (Seat<Order>, impl FnMut(ExitGuard) -> Result<Child, FactoryError> + Send + use<>) {
        let seat = Seat::vacant();
        let (publisher, events) = (seat.clone(), self.sender.clone());
        let factory = move |guard| {
            let events = events.clone();
            let addr = Worker::create(move |_| Worker { name, events, manners, guard });
            publisher.publish(addr.clone().recipient());
            Ok(Child::actor(&addr))
        };
        (seat, factory)
    }

    async fn start(&self, spec: ChildSpec) -> ChildId {
        self.tree.root.send(StartChild(spec)).await.expect("the root lives").expect("the child starts")
    }

    async fn permanent(&mut self, name: &'static str, manners: Manners) -> Outlet<Order> {
        let (seat, factory) = self.factory(name, manners);
        self.start(ChildSpec::permanent(name, factory)).await;
        self.expect(Event::Started(name)).await;
        seat.outlet()
    }

    async fn expect(&mut self, want: Event) {
        assert_eq!(expect_within(&mut self.events, PATIENCE).await, want);
    }

    async fn drain(&mut self, plan: DrainPlan) -> DrainSummary {
        self.tree.root.do_send(BeginDrain { reason: "test".to_owned(), plan });
        self.ended().await
    }

    async fn ended(&mut self) -> DrainSummary {
        tokio::time::timeout(PATIENCE, self.tree.wait())
            .await
            .expect("the tree ends")
            .expect("the root lives")
    }
}

fn plan(notice: u64, draining: u64, persisting: u64, cleanup: u64) -> DrainPlan {
    DrainPlan { notice: ms(notice), draining: ms(draining), persisting: ms(persisting), cleanup: ms(cleanup) }
}

#[test]
fn a_child_that_panics_is_started_again_after_its_backoff_and_senders_find_it() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let mut worker = bench.permanent("worker", Manners::Polite).await;
        let before = Instant::now();
        worker.offer(Order::Panic).expect("room");
        bench.expect(Event::Started("worker")).await;
        let waited = before.elapsed();
        assert!(waited >= ms(50) && waited <= ms(110), "first delay is 50 to 100 ms, was {waited:?}");
        worker.offer(Order::Say(1)).expect("the outlet found the new address");
        bench.expect(Event::Heard("worker", 1)).await;
        let children = bench.tree.root.send(ListChildren).await.expect("the root lives");
        assert_eq!(children.len(), 1);
        assert_eq!((children[0].restarts, children[0].running), (1, true));
        assert_eq!(children[0].last_exit, Some(ExitReason::Crashed));
    });
}

#[test]
fn an_error_restarts_a_transient_child_and_a_clean_end_does_not() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let (seat, factory) = bench.factory("worker", Manners::Polite);
        bench.start(ChildSpec::transient("worker", factory)).await;
        bench.expect(Event::Started("worker")).await;
        let mut worker = seat.outlet();
        worker.offer(Order::Fail).expect("room");
        bench.expect(Event::Started("worker")).await;
        let children = bench.tree.root.send(ListChildren).await.expect("the root lives");
        assert_eq!(children[0].last_exit, Some(ExitReason::Failed("told to fail".to_owned())));

        worker.offer(Order::Stop).expect("room");
        expect_silence(&mut bench.events, Duration::from_secs(600)).await;
        assert!(bench.tree.root.send(ListChildren).await.expect("the root lives").is_empty());
        let refused = worker.offer(Order::Say(1)).expect_err("nobody is there");
        assert_eq!(refused.refusal, Refusal::Vacant);
    });
}

#[test]
fn a_clean_end_restarts_a_permanent_child_and_nothing_restarts_a_temporary_one() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let mut permanent = bench.permanent("permanent", Manners::Polite).await;
        permanent.offer(Order::Stop).expect("room");
        bench.expect(Event::Started("permanent")).await;

        let (seat, factory) = bench.factory("temporary", Manners::Polite);
        bench.start(ChildSpec::temporary("temporary", factory)).await;
        bench.expect(Event::Started("temporary")).await;
        seat.outlet().offer(Order::Panic).expect("room");
        expect_silence(&mut bench.events, Duration::from_secs(600)).await;
        assert_eq!(bench.health.now().status, HealthStatus::Healthy);
    });
}

#[test]
fn a_child_that_dies_at_every_start_backs_off_and_then_the_root_gives_up() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let bystander = bench.permanent("bystander", Manners::Polite).await;
        let starts = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&starts);
        let factory = move |guard| {
            log.lock().expect("not poisoned").push(Instant::now());
            let task = |_| async { panic!("at once") as Result<(), String> };
            Ok(Child::task(guard, DrainPhase::Cleanup, task))
        };
        bench.start(ChildSpec::permanent("doomed", factory)).await;
        let summary = bench.ended().await;
        let starts = starts.lock().expect("not poisoned").clone();
        assert_eq!(starts.len(), 6, "the first start and five restarts, no busy loop");
        let gaps: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (gap, full) in gaps.iter().zip([100, 200, 400, 800, 1600]) {
            let within = ms(full / 2)..=ms(full + 2);
            assert!(within.contains(gap), "{gap:?} is not the jittered half of {full} ms");
        }
        assert!(!summary.drained);
        let why = summary.gave_up.expect("it gave up");
        assert!(why.contains("doomed") && why.contains("crashed"), "{why}");
        let health = bench.health.now();
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert!(health.not_ready.is_some_and(|why| why.to_string().contains("doomed")));
        // The others were drained in order, not dropped.
        for phase in DrainPhase::ALL {
            bench.expect(Event::Asked("bystander", phase)).await;
        }
        drop(bystander);
    });
}

#[test]
fn a_nested_supervisor_that_gives_up_is_restarted_with_its_children_by_its_parent() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let (seat, _unused) = bench.factory("leaf", Manners::Polite);
        let (publisher, events) = (seat.clone(), bench.sender.clone());
        let factory = move |guard| {
            let (publisher, events) = (publisher.clone(), events.clone());
            let leaf = ChildSpec::permanent("leaf", move |guard| {
                let events = events.clone();
                let addr =
                    Worker::create(|_| Worker { name: "leaf", events, manners: Manners::Polite, guard });
                publisher.publish(addr.clone().recipient());
                Ok(Child::actor(&addr))
            })
            .intensity(RestartIntensity { restarts_max: 1, within: Duration::from_secs(60) });
            Ok(Child::actor(&Supervisor::nested("inner", guard, vec![leaf])))
        };
        bench.start(ChildSpec::permanent("inner", factory)).await;
        let mut leaf = seat.outlet();
        for _ in 0..2 {
            bench.expect(Event::Started("leaf")).await;
            leaf.offer(Order::Panic).expect("room");
        }
        bench.expect(Event::Started("leaf")).await;
        let children = bench.tree.root.send(ListChildren).await.expect("the root lives");
        assert_eq!(children[0].restarts, 1, "the inner supervisor was restarted once");
        let Some(ExitReason::Failed(why)) = &children[0].last_exit else { panic!("{children:?}") };
        assert!(why.contains("leaf crashed"), "{why}");
    });
}

#[test]
fn a_factory_that_fails_at_first_is_the_callers_matter_and_later_the_supervisors() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let refuse = ChildSpec::permanent("refused", |_guard| Err("port 7410 is in use".into()));
        let answer = bench.tree.root.send(StartChild(refuse)).await.expect("the root lives");
        let (name, reason) = ("refused".to_owned(), "port 7410 is in use".to_owned());
        assert_eq!(answer, Err(StartError::Failed { name, reason }));
        assert!(bench.tree.root.send(ListChildren).await.expect("the root lives").is_empty());

        let (seat, mut start) = bench.factory("worker", Manners::Polite);
        let mut attempt = 0;
        let flaky = move |guard: ExitGuard| {
            attempt += 1;
            match attempt {
                2 => Err("not now".into()),
                3 => panic!("in the factory"),
                _ => start(guard),
            }
        };
        bench.start(ChildSpec::permanent("worker", flaky)).await;
        bench.expect(Event::Started("worker")).await;
        seat.outlet().offer(Order::Panic).expect("room");
        bench.expect(Event::Started("worker")).await;
        let children = bench.tree.root.send(ListChildren).await.expect("the root lives");
        assert_eq!(children[0].restarts, 3);
    });
}

#[test]
fn while_a_child_waits_for_its_restart_the_node_is_degraded_and_says_why() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let (seat, factory) = bench.factory("store", Manners::Polite);
        let slow = BackoffPolicy { first: ms(8_000), cap: ms(8_000), stable_after: ms(60_000) };
        bench.start(ChildSpec::permanent("store", factory).backoff(slow)).await;
        bench.expect(Event::Started("store")).await;
        seat.outlet().offer(Order::Panic).expect("room");
        let health = bench.health.clone();
        let degraded = eventually("a degraded node", PATIENCE, async || {
            let state = health.now();
            (state.status == HealthStatus::Degraded).then_some(state)
        });
        let detail = degraded.await.subsystems["actors"].detail.clone().expect("a detail");
        assert!(detail.contains("store") && detail.contains("crashed"), "{detail}");
        bench.expect(Event::Started("store")).await;
        eventually("a healthy node", PATIENCE, async || {
            (bench.health.now().status == HealthStatus::Healthy).then_some(())
        })
        .await;
    });
}

#[test]
fn a_drain_walks_the_tree_backwards_and_readiness_goes_first() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        for name in ["store", "router", "transport"] {
            bench.permanent(name, Manners::Polite).await;
        }
        assert!(bench.health.now().is_ready());
        bench.health.asked();
        let begun = Instant::now();
        bench
            .tree
            .root
            .do_send(BeginDrain { reason: "signal".to_owned(), plan: plan(2_000, 10_000, 5_000, 5_000) });
        let first = expect_within(&mut bench.events, PATIENCE).await;
        assert_eq!(first, Event::Asked("transport", DrainPhase::Draining));
        assert!(begun.elapsed() >= ms(2_000), "nothing closes before the notice is over");
        assert!(!bench.health.now().is_ready());
        bench.expect(Event::Asked("router", DrainPhase::Draining)).await;
        bench.expect(Event::Asked("store", DrainPhase::Draining)).await;
        for phase in [DrainPhase::Persisting, DrainPhase::Cleanup] {
            for name in ["transport", "router", "store"] {
                bench.expect(Event::Asked(name, phase)).await;
            }
        }
        let summary = bench.ended().await;
        assert!(summary.drained, "{summary:?}");
        assert_eq!((summary.reason.as_str(), summary.frames_dropped), ("signal", 6));
        let names: Vec<_> = summary.phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["draining", "persisting", "cleanup"]);
        assert!(summary.phases[0].ms >= 2_000 && summary.phases[1].ms < 100, "{:?}", summary.phases);
        assert!(summary.gave_up.is_none());
    });
}

#[test]
fn where_nobody_asks_for_its_health_a_drain_loses_no_time() {
    with_virtual_time(|| async {
        // Somebody who asked long ago, somebody who begins to ask when the drain has begun.
        for (begins_to_ask, at_least) in [(false, ms(500)), (true, ms(2_000))] {
            let mut bench = Bench::new();
            bench.permanent("listener", Manners::Polite).await;
            bench.health.asked();
            tokio::time::sleep(ms(61_000)).await;
            let begun = Instant::now();
            bench
                .tree
                .root
                .do_send(BeginDrain { reason: "signal".to_owned(), plan: plan(2_000, 9_000, 9_000, 9_000) });
            if begins_to_ask {
                tokio::time::sleep(ms(400)).await;
                assert!(!bench.health.now().is_ready());
                bench.health.asked();
            }
            bench.expect(Event::Asked("listener", DrainPhase::Draining)).await;
            let waited = begun.elapsed();
            assert!(waited >= at_least && waited < at_least + ms(400), "{waited:?}");
            assert!(bench.ended().await.drained);
        }
    });
}

#[test]
fn readiness_is_withdrawn_the_moment_a_drain_begins() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("listener", Manners::Polite).await;
        // A load balancer asked a while ago, as it does every half minute.
        bench.health.asked();
        tokio::time::sleep(ms(30_000)).await;
        bench
            .tree
            .root
            .do_send(BeginDrain { reason: "signal".to_owned(), plan: plan(2_000, 9_000, 9_000, 9_000) });
        eventually("not ready", ms(1_000), async || (!bench.health.now().is_ready()).then_some(())).await;
        assert_eq!(bench.health.now().status, HealthStatus::Draining);
        expect_silence(&mut bench.events, ms(900)).await;
    });
}

#[test]
fn a_late_child_is_named_and_does_not_take_the_time_of_those_after_it() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("store", Manners::Slow(ms(500))).await;
        bench.permanent("stuck", Manners::Deaf(DrainPhase::Persisting)).await;
        let summary = bench.drain(plan(0, 2_000, 4_000, 2_000)).await;
        assert!(!summary.drained);
        assert_eq!(summary.missed, ["persisting: stuck"]);
        assert_eq!(summary.phases[1].ms / 100, 40, "the phase used its deadline: {:?}", summary.phases);
    });
}

#[test]
fn a_child_that_never_ends_is_left_behind_at_the_deadline() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("zombie", Manners::Deaf(DrainPhase::Cleanup)).await;
        let begun = Instant::now();
        let summary = bench.drain(plan(0, 1_000, 1_000, 1_000)).await;
        assert_eq!(summary.missed, ["cleanup: zombie"]);
        assert!(begun.elapsed() < ms(1_200), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_child_that_crashes_in_a_drain_is_named_and_not_restarted() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("store", Manners::Polite).await;
        bench.permanent("fragile", Manners::Explosive(DrainPhase::Draining)).await;
        let summary = bench.drain(plan(0, 1_000, 1_000, 1_000)).await;
        assert_eq!(summary.missed, ["draining: fragile"]);
        assert!(!summary.drained);
        bench.expect(Event::Asked("fragile", DrainPhase::Draining)).await;
        for phase in DrainPhase::ALL {
            bench.expect(Event::Asked("store", phase)).await;
        }
        expect_silence(&mut bench.events, Duration::from_secs(60)).await;
    });
}

#[test]
fn the_second_signal_skips_to_cleanup_and_the_third_ends_it() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("busy", Manners::Deaf(DrainPhase::Draining)).await;
        let begun = Instant::now();
        bench
            .tree
            .root
            .do_send(BeginDrain { reason: "signal".to_owned(), plan: plan(0, 60_000, 60_000, 60_000) });
        bench.expect(Event::Asked("busy", DrainPhase::Draining)).await;
        bench.tree.root.do_send(SkipAhead);
        bench.expect(Event::Asked("busy", DrainPhase::Cleanup)).await;
        let summary = bench.ended().await;
        assert_eq!(summary.missed, ["draining: busy"]);
        assert!(!summary.drained && begun.elapsed() < ms(100));

        let mut bench = Bench::new();
        bench.permanent("zombie", Manners::Deaf(DrainPhase::Cleanup)).await;
        bench
            .tree
            .root
            .do_send(BeginDrain { reason: "signal".to_owned(), plan: plan(0, 60_000, 60_000, 60_000) });
        for phase in DrainPhase::ALL {
            bench.expect(Event::Asked("zombie", phase)).await;
        }
        bench.tree.root.do_send(SkipAhead);
        let begun = Instant::now();
        assert_eq!(bench.ended().await.missed, ["cleanup: zombie"]);
        assert!(begun.elapsed() < ms(100));
    });
}

#[test]
fn a_nested_supervisor_drains_phase_by_phase_and_names_late_children_by_path() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("store", Manners::Polite).await;
        let seat: Seat<StartChild> = Seat::vacant();
        let publisher = seat.clone();
        let inner = ChildSpec::permanent("transport", move |guard| {
            let addr = Supervisor::nested("transport", guard, Vec::new());
            publisher.publish(addr.clone().recipient());
            Ok(Child::actor(&addr))
        });
        bench.start(inner).await;
        let mut transport = seat.outlet();
        let (_, polite) = bench.factory("link 1", Manners::Polite);
        let (_, stuck) = bench.factory("link 2", Manners::Deaf(DrainPhase::Draining));
        for (name, spec) in [
            ("link 1", ChildSpec::temporary("link", polite).named("link 1")),
            ("link 2", ChildSpec::temporary("link", stuck).named("link 2")),
        ] {
            transport.request(StartChild(spec)).await.expect("it lives").expect("it starts");
            bench.expect(Event::Started(name)).await;
        }
        let summary = bench.drain(plan(0, 2_000, 2_000, 2_000)).await;
        assert_eq!(summary.missed, ["transport/draining: link 2"]);
        assert_eq!(summary.frames_dropped, 2 + 3, "of the store, link 1, and link 2 in Persisting");
        assert!(!summary.drained);
        assert!(bench.tree.root.send(ListChildren).await.is_err(), "the root has stopped");
    });
}

#[test]
fn a_drain_asks_who_waits_for_its_restart_as_well() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let mut worker = bench.permanent("worker", Manners::Polite).await;
        worker.offer(Order::Panic).expect("room");
        // Heard of, and not started again yet.
        tokio::time::sleep(ms(1)).await;
        bench.tree.root.do_send(BeginDrain { reason: "test".to_owned(), plan: plan(0, 2_000, 2_000, 2_000) });
        bench.expect(Event::Started("worker")).await;
        for phase in DrainPhase::ALL {
            bench.expect(Event::Asked("worker", phase)).await;
        }
        assert!(bench.ended().await.drained);
    });
}

#[test]
fn nothing_is_started_during_a_drain() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        bench.permanent("slow", Manners::Slow(ms(1_000))).await;
        bench.tree.root.do_send(BeginDrain { reason: "test".to_owned(), plan: plan(0, 5_000, 5_000, 5_000) });
        let (_, factory) = bench.factory("late", Manners::Polite);
        let answer = bench.tree.root.send(StartChild(ChildSpec::permanent("late", factory))).await;
        assert_eq!(answer.expect("the root lives"), Err(StartError::Draining { name: "late".to_owned() }));
        assert!(bench.ended().await.drained);
    });
}

#[test]
fn a_child_stopped_on_request_stays_stopped() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        let (_, factory) = bench.factory("link", Manners::Polite);
        let child = bench.start(ChildSpec::permanent("link", factory)).await;
        bench.expect(Event::Started("link")).await;
        bench.tree.root.do_send(StopChild { child, within: ms(1_000) });
        bench.expect(Event::Asked("link", DrainPhase::Cleanup)).await;
        expect_silence(&mut bench.events, Duration::from_secs(600)).await;
        assert!(bench.tree.root.send(ListChildren).await.expect("the root lives").is_empty());
    });
}

#[test]
fn a_task_reports_panic_error_end_and_abort_through_its_guard() {
    with_virtual_time(|| async {
        let (exits, mut heard) = Probe::<ChildExited>::start();
        let guard = |n| ExitGuard::for_task(ChildId(n), &exits);
        let panics = async { panic!("told to") as Result<(), String> };
        actix_rt::spawn(guarded(guard(1), panics));
        actix_rt::spawn(guarded(guard(2), async { Err("no route") }));
        actix_rt::spawn(guarded(guard(3), async { Ok::<(), String>(()) }));
        let forever = actix_rt::spawn(guarded(guard(4), std::future::pending::<Result<(), String>>()));
        let mut reasons = Vec::new();
        for _ in 0..3 {
            let exit = expect_within(&mut heard, PATIENCE).await;
            reasons.push((exit.child.0, exit.reason));
        }
        let failed = ExitReason::Failed("no route".to_owned());
        assert_eq!(reasons, [(1, ExitReason::Crashed), (2, failed), (3, ExitReason::Stopped)]);
        forever.abort();
        assert_eq!(expect_within(&mut heard, PATIENCE).await.reason, ExitReason::Crashed);
    });
}

#[test]
fn a_panic_after_an_orderly_word_is_a_crash_all_the_same() {
    with_virtual_time(|| async {
        let (exits, mut heard) = Probe::<ChildExited>::start();
        let mut guard = ExitGuard::for_task(ChildId(1), &exits);
        actix_rt::spawn(async move {
            guard.stopped();
            panic!("while closing");
        });
        assert_eq!(expect_within(&mut heard, PATIENCE).await.reason, ExitReason::Crashed);
    });
}

#[test]
fn a_task_child_is_told_to_end_in_its_phase_and_aborted_when_it_does_not() {
    with_virtual_time(|| async {
        let mut bench = Bench::new();
        struct OnDrop(UnboundedSender<Event>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let _ = self.0.send(Event::Heard("dropped", 0));
            }
        }
        let (tx, mut accept_ended) = unbounded_channel();
        let accept = move |guard| {
            let tx = tx.clone();
            Ok(Child::task(guard, DrainPhase::Draining, |mut stop| async move {
                let drain = stop.wanted().await;
                let _ = tx.send(drain.phase);
                Ok::<(), String>(())
            }))
        };
        bench.start(ChildSpec::permanent("accept", accept)).await;
        let events = bench.sender.clone();
        let stubborn = move |guard| {
            let held = OnDrop(events.clone());
            Ok(Child::task(guard, DrainPhase::Cleanup, |_| async move {
                let _held = held;
                std::future::pending::<Result<(), String>>().await
            }))
        };
        bench.start(ChildSpec::permanent("stubborn", stubborn)).await;
        let summary = bench.drain(plan(0, 1_000, 1_000, 1_000)).await;
        assert_eq!(expect_within(&mut accept_ended, PATIENCE).await, DrainPhase::Draining);
        assert_eq!(summary.missed, ["cleanup: stubborn"]);
        bench.expect(Event::Heard("dropped", 0)).await;
    });
}

#[derive(Debug, PartialEq, Eq)]
struct Note(u32);

impl Message for Note {
    type Result = ();
}

#[test]
fn a_full_mailbox_hands_data_back_drops_gossip_and_keeps_control() {
    with_virtual_time(|| async {
        let seat = Seat::held_by(Probe::<Note>::deaf(2));
        let mut data = seat.outlet();
        let fitted = (0..10).take_while(|&n| data.offer(Note(n)).is_ok()).count();
        assert!(fitted <= 3, "two slots and the one that is this sender's: {fitted}");
        let refused = data.offer(Note(77)).expect_err("it is full");
        assert_eq!((refused.message, refused.refusal), (Note(77), Refusal::Full));

        let mut gossip = seat.outlet();
        let sent = (0..10).filter(|&n| gossip.offer_gossip("probe", Note(n))).count();
        assert_eq!(sent, 1, "only the slot of a fresh sender");

        let mut control = Control::new(&seat, 3);
        let kept = (0..10).take_while(|&n| control.offer(Note(n)).is_ok()).count();
        assert_eq!(kept, 1 + 3, "its own slot and the bounded queue");
        assert_eq!(control.offer(Note(99)).expect_err("the queue is full").message, Note(99));
        assert_eq!(control.flush(), 3);

        // The stuck actor is replaced: what waited arrives, in order, before anything new.
        let (fresh, mut received) = Probe::<Note>::start();
        seat.publish(fresh);
        control.offer(Note(4)).expect("room");
        for n in 1..=4 {
            assert_eq!(expect_within(&mut received, PATIENCE).await, Note(n));
        }
    });
}

#[test]
fn a_vacant_seat_hands_everything_back() {
    with_virtual_time(|| async {
        let seat: Seat<Note> = Seat::vacant();
        let mut outlet = seat.outlet();
        assert_eq!(outlet.offer(Note(1)).expect_err("vacant").refusal, Refusal::Vacant);
        assert!(outlet.request(Note(2)).await.is_err());
        let (probe, mut received) = Probe::start();
        seat.publish(probe);
        outlet.request(Note(3)).await.expect("answered");
        assert_eq!(expect_within(&mut received, PATIENCE).await, Note(3));
    });
}

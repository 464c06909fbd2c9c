//! Finding and forgetting paths: searches, replies, withdrawals, digests, and what is kept over a
//! restart.

use super::{
    sim::Sim,
    testkit::{CREATED, NETWORK, Node, verified},
    *,
};
use crate::{
    crypto::MeshIdentity,
    proto::{table::Saved, verify::Verifier},
    wire::{
        Capabilities, EnvelopeKind,
        control::PathRequest,
        limits::WITHDRAW_ADDRESSES_MAX,
        path::{Digest, DigestEntry, Withdraw},
    },
};

const MESSAGE: EnvelopeKind = EnvelopeKind::MESSAGE;
const SECOND: Duration = Duration::from_secs(1);
const LAST: Address = Address([0xff; 16]);
const FIRST: Address = Address([0; 16]);

fn wall() -> WallClock {
    WallClock { unix_s: u64::from(CREATED), trusted: false }
}

/// One router with a link to each of some neighbours, and nothing else.
struct One {
    now: Instant,
    router: Router,
}

impl One {
    fn new(neighbours: &[&Node]) -> Self {
        Self::with(neighbours, |_| {})
    }

    fn with(neighbours: &[&Node], configure: impl FnOnce(&mut RouterConfig)) -> Self {
        let now = Instant::now();
        let mut config = RouterConfig::new(Node::new(200).key());
        configure(&mut config);
        let mut one = Self { now, router: Router::new(config, now, 7) };
        for (n, neighbour) in neighbours.iter().enumerate() {
            one.link(n as u64 + 1, neighbour);
        }
        one
    }

    fn link(&mut self, link: u64, neighbour: &Node) {
        self.link_of(None, link, neighbour);
    }

    fn link_of(&mut self, account: Option<Address>, link: u64, neighbour: &Node) {
        let (class, peer) = (LinkClass::Unconstrained, neighbour.key());
        self.give(Input::LinkUp(LinkInfo { link: LinkId(link), peer, class, trusted: false, account }));
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.router.handle(self.now, wall(), input);
        std::iter::from_fn(|| self.router.poll()).collect()
    }

    fn announce(&mut self, link: u64, hop_count: u8, announce: Announce) -> Vec<Output> {
        let announce = verified(Announce { hop_count, ..announce });
        self.give(Input::Announce(LinkId(link), Box::new(announce)))
    }

    fn control(&mut self, link: u64, frame: Frame) -> Vec<Output> {
        self.give(Input::Control(LinkId(link), frame))
    }

    /// Lets time pass with every timer on the way; gives all frames that went out.
    fn advance(&mut self, by: Duration) -> Vec<Output> {
        let end = self.now + by;
        let mut outputs = Vec::new();
        loop {
            let (at, _) = self.router.next_wake();
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            outputs.extend(self.give(Input::Timeout));
        }
        self.now = end;
        outputs
    }
}

fn frames(outputs: &[Output]) -> Vec<(u64, &Frame)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Control(link, frame) => Some((link.0, frame)),
            _ => None,
        })
        .collect()
}

fn names(outputs: &[Output]) -> Vec<(u64, &'static str)> {
    frames(outputs).into_iter().map(|(link, frame)| (link, frame.name())).collect()
}

fn count(outputs: &[Output], name: &str) -> usize {
    frames(outputs).iter().filter(|(_, frame)| frame.name() == name).count()
}

fn request(id: u64, destination: Address, max_hops: u8, hop_count: u8) -> Frame {
    let request_id = id.to_be_bytes();
    Frame::PathRequest(PathRequest { request_id, destination, max_hops, hop_count, newer_than: None })
}

fn stranger(n: u32) -> Address {
    let mut bytes = [0x55; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    Address(bytes)
}

fn sum(sim: &Sim, of: impl Fn(&Counters) -> u64) -> u64 {
    sim.nodes.iter().map(|node| of(node.router.counters())).sum()
}

// ---- searches ----------------------------------------------------------------------------------

#[test]
fn what_has_no_route_is_looked_for_and_the_answer_makes_the_route_on_its_way() {
    let mut sim = Sim::line(12);
    sim.settle();
    let last = sim.address(11);
    for n in 0..5 {
        assert!(sim.nodes[n].router.drop_path(last));
        while sim.nodes[n].router.poll().is_some() {}
        sim.nodes[n].up.remove(&last);
    }
    sim.send(0, last, MESSAGE);
    assert_eq!(sim.nodes[0].reasons(), [RefuseReason::NoRoute]);
    // Two links are too few, eight are enough: node 5 knows, and nobody behind it is asked.
    sim.advance(SECOND * 2);
    assert!((0..5).all(|n| sim.nodes[n].router.is_reachable(&last)));
    assert!(sim.nodes[0].up.contains(&last), "the outbox hears of it");
    assert_eq!(sim.nodes[6].router.counters().path_requests, 0);
    let packet = sim.send(0, last, MESSAGE);
    assert_eq!(sim.copies(11, packet), 1);
    // One way each: the request over links 0 to 4 after one over links 0 and 1, the reply back.
    assert_eq!(sum(&sim, |c| c.path_requests_sent), 2 + 5);
    assert_eq!(sum(&sim, |c| c.path_replies_sent), 5);
}

#[test]
fn an_origin_whose_announce_may_not_go_as_far_makes_one_that_may() {
    let mut sim = Sim::line(10);
    sim.settle();
    let last = sim.address(9);
    sim.nodes[9].order.1 += 1;
    let order = sim.nodes[9].order;
    let near = sim.nodes[9].signer.announce(order, 2);
    sim.handle(9, Input::OwnAnnounce(Box::new(near)));
    sim.run();
    for n in 0..7 {
        sim.nodes[n].router.drop_path(last);
        while sim.nodes[n].router.poll().is_some() {}
        sim.nodes[n].up.remove(&last);
    }
    let passed_on = sum(&sim, |c| c.announces_passed_on);
    sim.send(0, last, MESSAGE);
    sim.advance(SECOND * 6);
    assert!(sim.nodes[0].router.is_reachable(&last));
    let packet = sim.send(0, last, MESSAGE);
    assert_eq!(sim.copies(9, packet), 1);
    assert_eq!(sum(&sim, |c| c.announces_passed_on), passed_on, "the answer floods nothing");
    // Whoever asks again within ten seconds causes no other one.
    let order = sim.nodes[9].order;
    for id in 0..9 {
        let link = sim.link_between(9, 8).unwrap();
        sim.handle(9, Input::Control(link, request(1000 + id, last, 128, 127)));
    }
    assert_eq!(sim.nodes[9].order, order);
}

#[test]
fn a_search_asks_farther_each_time_and_then_not_for_longer_and_longer() {
    let peer = Node::new(1);
    let mut one = One::new(&[&peer]);
    one.advance(SECOND);
    let wanted = stranger(1);
    assert_eq!(one.router.search(one.now, wanted), PathSearch::Started);
    assert_eq!(one.router.search(one.now, wanted), PathSearch::Running);
    let mut asked = one.advance(SECOND * 20);
    asked.retain(|output| matches!(output, Output::Control(_, Frame::PathRequest(_))));
    let rings: Vec<_> = frames(&asked)
        .iter()
        .map(|(_, frame)| match frame {
            Frame::PathRequest(r) => (r.max_hops, r.hop_count, r.destination),
            _ => panic!(),
        })
        .collect();
    assert_eq!(rings, [(2, 0, wanted), (8, 0, wanted), (128, 0, wanted)]);
    let ids: BTreeSet<_> = frames(&asked).iter().map(|(_, frame)| format!("{frame:?}")).collect();
    assert_eq!(ids.len(), 3, "each with an id of its own");
    assert_eq!(one.router.counters().path_searches_failed, 1);

    // Somebody who never gives up costs less and less.
    let mut tries = Vec::new();
    for second in 0..7200u64 {
        if one.router.search(one.now, wanted) == PathSearch::Started {
            tries.push(second);
        }
        one.advance(SECOND);
    }
    let gaps: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    let longest = *gaps.last().unwrap();
    assert!((600..=620).contains(&longest), "{gaps:?}");
    assert!(matches!(one.router.search(one.now, wanted), PathSearch::NotYet { .. } | PathSearch::Running));
    // What a person asks for by dropping the path is looked for at once.
    one.advance(SECOND * 30);
    one.router.drop_path(wanted);
    assert_eq!(one.router.search(one.now, wanted), PathSearch::Started);
}

#[test]
fn searches_are_few_at_a_time_and_refused_politely() {
    let peer = Node::new(1);
    let mut one = One::new(&[&peer]);
    let answers: Vec<_> = (0..100).map(|n| one.router.search(one.now, stranger(n))).collect();
    assert_eq!(answers.iter().filter(|a| **a == PathSearch::Started).count(), 10, "as a neighbour answers");
    assert_eq!(answers[99], PathSearch::Busy);
    assert_eq!(one.router.search(one.now, peer.address()), PathSearch::Known);
    assert_eq!(one.router.search(one.now, LAST), PathSearch::NotLookedFor);
    let own = one.router.own();
    assert_eq!(one.router.search(one.now, own), PathSearch::NotLookedFor);
    assert_eq!(One::new(&[]).router.search(one.now, stranger(1)), PathSearch::NoLinks);
    // However many a program asks for in an hour, so many run at a time.
    for n in 0..3600 {
        one.router.search(one.now, stranger(1000 + n));
        one.advance(SECOND / 10);
    }
    assert!(one.router.counters().path_searches <= 10 + 3600);
    assert!(one.router.counters().path_requests_sent <= 10 + 3600, "ten a second");
}

#[test]
fn a_query_costs_each_node_one_transmission_whatever_the_mesh() {
    // A line, a star, a ring, and a grid of five by five, in which most nodes have four links.
    let mut grid = Sim::new(25);
    for n in 0..25 {
        if n % 5 < 4 {
            grid.connect(n, n + 1);
        }
        if n < 20 {
            grid.connect(n, n + 5);
        }
    }
    for (mut sim, links) in [(Sim::line(25), 24u64), (Sim::star(25), 24), (Sim::ring(25), 25), (grid, 40)] {
        sim.advance(SECOND * 60);
        sim.send(7, stranger(1), MESSAGE);
        sim.advance(SECOND * 30);
        let count = sim.nodes.len() as u64;
        // Three rings, of which the last reaches everyone.
        let frames = sum(&sim, |c| c.path_requests_sent);
        assert!(frames <= 3 * (2 * links - count + 1), "{frames} over {links} links");
        // A node passes each request on once: no more often than it takes a new one.
        let taken = sum(&sim, |c| c.path_requests - c.path_requests_repeated);
        assert!(taken <= 3 * count, "{taken} of {count} nodes");
        assert!(sum(&sim, |c| c.path_requests) == frames);
        assert_eq!(sum(&sim, |c| c.path_replies_sent), 0);
    }
}

#[test]
fn a_storm_of_requests_costs_a_bounded_number_of_frames() {
    let peers: Vec<Node> = (1..=20).map(Node::new).collect();
    let mut one = One::new(&peers.iter().collect::<Vec<_>>());
    one.advance(SECOND * 5);
    let before = *one.router.counters();
    let mut sent = 0;
    let (mut bytes_in, mut bytes_out) = (0, 0);
    // Twenty neighbours, a thousand requests a second each, ten seconds.
    for ms in 0..10_000u64 {
        for link in 1..=20u64 {
            let frame = request(ms * 20 + link, stranger((ms * 20 + link) as u32), 128, 0);
            bytes_in += frame.encode().len();
            let outputs = one.control(link, frame);
            sent += count(&outputs, "path_request");
            bytes_out += frames(&outputs).iter().map(|(_, frame)| frame.encode().len()).sum::<usize>();
        }
        one.now += SECOND / 1000;
    }
    let taken = one.router.counters().path_requests - before.path_requests;
    assert!(taken <= 20 * 110, "{taken}: ten a second a neighbour, and ten at once");
    assert!(sent <= 20 * 110, "{sent}: no link carries more than its neighbour takes");
    assert!(bytes_out <= bytes_in, "{bytes_out} bytes out for {bytes_in} in");
    assert!(one.router.counters().path_requests_over_budget > 190_000);
    // An id that was used is worth nothing, however it is spread.
    one.advance(SECOND * 5);
    one.control(1, request(77, stranger(1), 128, 0));
    let again = one.control(2, request(77, stranger(1), 128, 0));
    assert_eq!(count(&again, "path_request"), 0);
}

#[test]
fn who_asks_for_what_is_not_there_leaves_others_and_this_node_their_searches() {
    let peers: Vec<Node> = (1..=7).map(Node::new).collect();
    let mut one = One::new(&[&peers[0], &peers[1]]);
    // Five names of one account.
    for (link, peer) in (3..).zip(&peers[2..]) {
        one.link_of(Some(Address([99; 16])), link, peer);
    }
    one.advance(SECOND * 5);
    let (mut passed, mut honest, mut id) = (0, 0, 0);
    for ms in 0..10_000u64 {
        for link in 3..=7u64 {
            id += 1;
            let outputs = one.control(link, request(id, stranger(id as u32), 128, 0));
            passed += frames(&outputs).iter().filter(|(over, _)| *over == 1).count();
        }
        // Two a second of another neighbour, and one of this node's own.
        if ms % 500 == 0 {
            id += 1;
            let outputs = one.control(2, request(id, stranger(id as u32), 128, 0));
            honest += frames(&outputs).iter().filter(|(over, _)| *over == 1).count();
        }
        if ms % 1000 == 0 {
            id += 1;
            assert_eq!(one.router.search(one.now, stranger(id as u32)), PathSearch::Started);
            let asked: Vec<Output> = std::iter::from_fn(|| one.router.poll()).collect();
            assert!(frames(&asked).iter().any(|(over, _)| *over == 1), "its own search went nowhere");
        }
        one.now += SECOND / 1000;
    }
    assert!(passed <= 55, "{passed}: five a second, and five at once");
    assert_eq!(honest, 20);
}

#[test]
fn a_neighbour_that_dials_again_or_twice_may_ask_no_more() {
    let peers: Vec<Node> = (1..=2).map(Node::new).collect();
    let mut one = One::new(&peers.iter().collect::<Vec<_>>());
    one.advance(SECOND * 5);
    let before = *one.router.counters();
    let (mut link, mut id) = (1, 0);
    // Ten seconds, a new link every hundredth of one, ten requests over each, and a second link beside.
    one.link(1000, &peers[0]);
    for _ in 0..1000 {
        for _ in 0..10 {
            id += 2;
            one.control(link, request(id, stranger(id as u32), 128, 0));
            one.control(1000, request(id + 1, stranger(id as u32 + 1), 128, 0));
        }
        one.give(Input::LinkDown(LinkId(link)));
        link += 10_000;
        one.link(link, &peers[0]);
        one.now += SECOND / 100;
    }
    let taken = one.router.counters().path_requests - before.path_requests;
    assert!(taken <= 110, "{taken}: ten a second a neighbour, and ten at once");
}

#[test]
fn a_request_ends_where_it_may_go_no_further_and_never_goes_back() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let mut one = One::new(&[&a, &b, &c]);
    one.advance(SECOND * 5);
    assert_eq!(
        names(&one.control(1, request(1, stranger(1), 2, 0))),
        [(2, "path_request"), (3, "path_request")]
    );
    assert!(one.control(1, request(2, stranger(2), 2, 1)).is_empty());
    assert!(one.control(1, request(3, stranger(3), 2, 2)).is_empty());
    assert!(one.control(1, request(4, stranger(4), 128, 255)).is_empty());
    // An end node passes nothing on.
    let mut end = One::with(&[&a, &b], |config| config.relay = false);
    assert!(end.control(1, request(1, stranger(1), 8, 0)).is_empty());
}

#[test]
fn a_reply_goes_back_to_who_asked_and_to_nobody_else() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a, &b, &c]);
    one.advance(SECOND * 5);
    one.control(1, request(1, origin.address(), 8, 0));
    let announce = origin.announce((1, 1), 128);
    let reply = |announce: &Announce| Box::new(verified(Announce { hop_count: 1, ..announce.clone() }));
    let outputs = one.give(Input::PathReply(LinkId(2), reply(&announce)));
    assert_eq!(names(&outputs), [(1, "path_reply")]);
    assert!(one.router.is_reachable(&origin.address()));
    // The same announce as an announce is news to those who did not ask, once.
    let outputs = one.announce(2, 1, announce.clone());
    assert_eq!(names(&outputs), [(1, "announce"), (3, "announce")]);
    assert!(names(&one.announce(2, 1, announce)).is_empty());
    // One that nobody asked for makes a route here, and goes nowhere.
    let mut other = Node::new(10);
    let outputs = one.give(Input::PathReply(LinkId(3), reply(&other.announce((1, 1), 128))));
    assert!(names(&outputs).is_empty());
}

#[test]
fn a_way_that_may_lead_back_is_used_and_its_origin_asked_for_a_newer_number() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    let announce = origin.announce((1, 1), 128);
    // One link behind `a`; this node claims to be two links away, which `b` may live on.
    one.announce(1, 1, announce.clone());
    one.announce(2, 2, announce);
    assert!(count(&one.give(Input::LinkDown(LinkId(1))), "path_request") == 0, "nobody uses it");
    let mut sender = Node::new(20);
    let mut send = |one: &mut One| {
        let (packet_id, envelope) = sender.envelope(origin.address(), MESSAGE);
        one.give(Input::Originate(vec![(packet_id, envelope)], CustodyWish::Welcome))
    };
    let outputs = send(&mut one);
    let asked: Vec<_> =
        frames(&outputs).into_iter().filter(|(_, frame)| frame.name() == "path_request").collect();
    let [(2, Frame::PathRequest(request))] = asked[..] else { panic!("{outputs:?}") };
    assert_eq!((request.destination, request.newer_than), (origin.address(), Some((1, 1))));
    // At most one search in ten seconds, however much is sent.
    let more: usize = (0..100).map(|_| count(&send(&mut one), "path_request")).sum();
    assert_eq!(more, 0);
}

#[test]
fn only_a_newer_announce_answers_who_asks_for_one() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    one.announce(2, 1, origin.announce((3, 5), 128));
    let ask = |id: u64, newer_than| {
        let (request_id, destination) = (id.to_be_bytes(), origin.address());
        Frame::PathRequest(PathRequest { request_id, destination, max_hops: 8, hop_count: 0, newer_than })
    };
    assert_eq!(names(&one.control(1, ask(1, Some((3, 4))))), [(1, "path_reply")]);
    assert_eq!(names(&one.control(1, ask(2, Some((3, 5))))), [(2, "path_request")], "the origin has to say");
    assert_eq!(names(&one.control(1, ask(3, None))), [(1, "path_reply")]);
}

#[test]
fn a_key_record_is_found_behind_neighbours_that_lack_it() {
    let mut sim = Sim::line(4);
    sim.settle();
    let away = sim.address(3);
    sim.disconnect(2, 3);
    for n in [0, 1] {
        sim.restart(n, |_| {});
    }
    sim.connect(0, 1);
    sim.connect(1, 2);
    sim.settle();
    assert!(!sim.nodes[0].router.remembers(&away), "nobody tells of who is gone");
    sim.handle(0, Input::FindKeyRecord(away));
    sim.run();
    assert!(sim.nodes[0].key_records.contains_key(&away));
    // A question that goes around a ring ends.
    let mut ring = Sim::ring(6);
    ring.settle();
    let before = ring.frames_sent;
    ring.handle(0, Input::FindKeyRecord(stranger(1)));
    ring.run();
    assert!(ring.frames_sent - before < 30, "{}", ring.frames_sent - before);
}

// ---- withdrawals -------------------------------------------------------------------------------

#[test]
fn a_route_that_is_gone_is_withdrawn_along_the_line_after_the_hold() {
    let mut sim = Sim::line(5);
    sim.settle();
    let last = sim.address(4);
    sim.disconnect(3, 4);
    sim.advance(SECOND);
    assert!(sim.nodes[0].router.is_reachable(&last), "the link may come back");
    sim.advance(SECOND * 2);
    for n in 0..4 {
        assert!(!sim.nodes[n].router.is_reachable(&last), "node {n}");
    }
    // Back again: the same announce makes routes again, and everyone hears.
    sim.connect(3, 4);
    sim.advance(SECOND * 15);
    assert!(sim.is_converged());
    let packet = sim.send(0, last, MESSAGE);
    assert_eq!(sim.copies(4, packet), 1);
}

#[test]
fn a_link_that_is_back_within_two_seconds_is_no_news() {
    let mut sim = Sim::line(4);
    sim.settle();
    sim.advance(SECOND * 60);
    let passed_on = sum(&sim, |c| c.announces_passed_on);
    sim.disconnect(1, 2);
    sim.advance(SECOND / 4);
    sim.connect(1, 2);
    // Both ends number an announce anew a second after the change; until then nothing is said.
    sim.advance(SECOND / 4);
    assert!(sim.is_converged(), "by the digests alone");
    assert_eq!(sum(&sim, |c| c.withdrawals_sent), 0);
    assert_eq!(sum(&sim, |c| c.announces_passed_on), passed_on);
    sim.advance(SECOND * 5);
    assert_eq!(sum(&sim, |c| c.withdrawals_sent), 0);
}

#[test]
fn who_has_another_way_keeps_it_to_itself() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a, &b, &c]);
    one.advance(SECOND * 5);
    let announce = origin.announce((1, 1), 128);
    one.announce(1, 1, announce.clone());
    one.announce(2, 1, announce);
    let gone = Frame::Withdraw(Withdraw { addresses: vec![origin.address()] });
    // Of ways through itself a neighbour is believed, of others not.
    assert!(one.control(3, gone.clone()).is_empty());
    assert_eq!(one.router.counters().withdrawals_foreign, 1);
    assert_eq!(one.router.routes(one.now).next().unwrap().next_hops.len(), 2);
    assert!(one.control(1, gone.clone()).is_empty(), "another way is left");
    assert!(one.router.is_reachable(&origin.address()));
    assert!(one.control(1, gone.clone()).is_empty(), "said twice");
    let outputs = one.control(2, gone);
    assert_eq!(names(&outputs), [(1, "withdraw"), (2, "withdraw"), (3, "withdraw")]);
    assert!(outputs.iter().any(|output| matches!(output, Output::RouteDown(_))));
    assert_eq!(one.router.counters().withdrawals_foreign, 2);
}

#[test]
fn what_nobody_was_told_of_is_not_withdrawn() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut origin = Node::new(9);
    let mut end = One::with(&[&a, &b], |config| config.relay = false);
    end.advance(SECOND * 5);
    end.announce(1, 1, origin.announce((1, 1), 128));
    end.give(Input::LinkDown(LinkId(1)));
    assert_eq!(count(&end.advance(SECOND * 5), "withdraw"), 0);
}

#[test]
fn many_routes_are_withdrawn_in_frames_of_a_bounded_size_at_a_bounded_rate() {
    let mut waiting = withdraw::Withdrawals::new(Instant::now());
    let now = Instant::now();
    let count = 30 * WITHDRAW_ADDRESSES_MAX;
    for n in 0..count {
        waiting.lost(now, stranger(n as u32));
    }
    let at_once: Vec<_> = std::iter::from_fn(|| waiting.due(now)).collect();
    assert_eq!(at_once.len(), 20);
    assert!(at_once.iter().all(|addresses| addresses.len() == WITHDRAW_ADDRESSES_MAX));
    assert!(at_once.iter().all(|addresses| addresses.is_sorted()));
    let later = waiting.next_wake().unwrap();
    assert!(later > now && later <= now + SECOND);
    let rest: usize = std::iter::from_fn(|| waiting.due(now + SECOND)).map(|addresses| addresses.len()).sum();
    assert_eq!(rest, 10 * WITHDRAW_ADDRESSES_MAX);
    assert_eq!(waiting.next_wake(), None);
}

#[test]
fn a_neighbour_that_withdraws_without_end_is_not_listened_to() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    for _ in 0..1000 {
        one.control(1, Frame::Withdraw(Withdraw { addresses: vec![stranger(1)] }));
    }
    assert_eq!(one.router.counters().withdrawals_foreign, 40);
    assert_eq!(one.router.counters().withdrawals_over_budget, 960);
}

// ---- digests -----------------------------------------------------------------------------------

fn digest(after: Address, through: Address, entries: Vec<DigestEntry>) -> Frame {
    Frame::Digest(Digest { after, through, entries })
}

fn entry(origin: Address, order: Order, hop_count: Option<u8>) -> DigestEntry {
    DigestEntry { origin, boot_epoch: order.0, sequence: order.1, hop_count }
}

#[test]
fn two_meshes_that_meet_tell_each_other_what_is_missing_and_no_more() {
    let mut sim = Sim::new(10);
    for n in [1, 2, 3, 4, 6, 7, 8, 9] {
        sim.connect(n - 1, n);
    }
    sim.settle();
    sim.connect(4, 5);
    sim.advance(SECOND);
    assert!(sim.is_converged());
    // A link between nodes that know the same: ways by the offers of both digests, no announces.
    sim.advance(SECOND * 60);
    let passed_on = sum(&sim, |c| c.announces_passed_on);
    sim.connect(0, 9);
    sim.run();
    assert_eq!(sum(&sim, |c| c.announces_passed_on), passed_on);
    let ninth = sim.address(8);
    let route = sim.nodes[0].router.routes(sim.now).find(|route| route.destination == ninth).unwrap();
    assert_eq!(route.next_hops[0].hops, 2, "the new link is the short way");
    let packet = sim.send(0, ninth, MESSAGE);
    assert_eq!(
        sim.nodes[8].delivered.last().map(|p| (p.packet_id, p.envelope.hop_count())),
        Some((packet, 1))
    );
}

#[test]
fn an_offer_keeps_the_rules_of_an_announce() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    one.announce(1, 1, origin.announce((2, 2), 4));
    let who = origin.address();
    let ways = |one: &One| one.router.routes(one.now).next().map_or(0, |route| route.next_hops.len());
    let offer = |one: &mut One, order, hop_count| {
        one.control(2, digest(FIRST, LAST, vec![entry(who, order, hop_count)]));
        ways(one)
    };
    assert_eq!(offer(&mut one, (2, 2), Some(0)), 1, "the neighbour is not the origin");
    let tries = [
        ((2, 2), Some(4), 1),
        ((2, 1), Some(1), 1),
        ((3, 0), Some(1), 1),
        ((2, 2), None, 1),
        ((2, 2), Some(1), 2),
    ];
    for (order, hop_count, want) in tries {
        // A new link may describe the range anew.
        one.give(Input::LinkDown(LinkId(2)));
        one.link(2, &b);
        assert_eq!(offer(&mut one, order, hop_count), want, "{order:?} {hop_count:?}");
    }
    assert_eq!(one.router.table.order(&who), Some((2, 2)), "no digest raises an order");
}

#[test]
fn a_range_is_compared_once_a_link_and_the_rest_is_counted() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut one = One::new(&[&a, &b]);
    let mut origins: Vec<Node> = (10..40).map(Node::new).collect();
    one.advance(SECOND * 5);
    for origin in &mut origins {
        one.announce(1, 1, origin.announce((1, 1), 128));
    }
    one.advance(SECOND * 5);
    // All at once, and again and again: the table goes out once.
    let mut told = 0;
    for _ in 0..100 {
        told += count(&one.control(2, digest(FIRST, LAST, vec![])), "announce");
        told += count(&one.advance(SECOND), "announce");
    }
    assert_eq!(told, origins.len());
    assert_eq!(one.router.counters().digests_ignored, 99);
}

#[test]
fn ranges_without_end_are_bounded_in_space_and_in_time() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    let at = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Address(bytes)
    };
    for n in 0..10_000 {
        one.control(1, digest(at(n), at(n + 1), vec![entry(at(n + 1), (1, 1), Some(3))]));
    }
    assert_eq!(one.router.counters().digests, 50);
    assert_eq!(one.router.counters().digests_ignored, 9_950);
    // Overlapping and descending ones are not looked at either.
    one.advance(SECOND * 2);
    one.control(1, digest(at(3), at(70), vec![]));
    one.control(1, digest(FIRST, LAST, vec![]));
    assert_eq!(one.router.counters().digests_ignored, 9_952);
}

#[test]
fn an_end_node_hears_the_table_and_offers_nothing() {
    let mut sim = Sim::line(3);
    sim.settle();
    sim.nodes.push(super::sim::SimNode::fresh(3, sim.now));
    sim.restart(3, |config| config.relay = false);
    sim.connect(3, 0);
    sim.settle();
    assert!(sim.is_converged());
    sim.connect(3, 2);
    sim.settle();
    let (first, last) = (sim.address(0), sim.address(2));
    let route = sim.nodes[2].router.routes(sim.now).find(|route| route.destination == first).unwrap();
    assert!(route.next_hops.iter().all(|hop| hop.neighbour != sim.address(3)));
    assert!(sim.nodes[3].router.is_reachable(&last));
}

// ---- over a restart ----------------------------------------------------------------------------

#[test]
fn recorded_announces_change_nothing_before_and_after_a_restart() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut one = One::new(&[&a, &b]);
    one.advance(SECOND * 5);
    let mut recorded = Vec::new();
    for seed in 10..15 {
        let mut origin = Node::new(seed);
        let record = origin.key_record(1);
        for sequence in 1..=10 {
            let announce = origin.announce_with_record((1, sequence), &record);
            recorded.push(announce.clone());
            one.announce(1, 1, announce);
            one.advance(SECOND * 60);
        }
    }
    let replay = |one: &mut One| {
        one.advance(SECOND * 20);
        let before: Vec<_> =
            one.router.routes(one.now).map(|route| (route.destination, route.order)).collect();
        let mut outputs = Vec::new();
        for _ in 0..10 {
            for announce in &recorded {
                outputs.extend(one.announce(1, 1, announce.clone()));
            }
            outputs.extend(one.advance(SECOND));
        }
        outputs.retain(|output| !matches!(output, Output::AnnounceDue { .. }));
        let after: Vec<_> =
            one.router.routes(one.now).map(|route| (route.destination, route.order)).collect();
        (before, after, outputs)
    };
    let (before, after, outputs) = replay(&mut one);
    assert_eq!((before.len(), &before), (3, &after), "the first ones have ended by their age");
    assert!(outputs.is_empty(), "{outputs:?}");

    // Through rows, as a disk keeps them.
    let saved = one.router.take_unsaved(one.now, usize::MAX);
    assert_eq!((saved.len(), one.router.unsaved()), (5, 0));
    let unix_s = u64::from(CREATED);
    let seal = row_seal(&MeshIdentity::from_seed([7; 32]), NETWORK);
    let rows: Vec<_> =
        saved.into_iter().map(|(_, saved)| SavedRow::new(saved, unix_s).encode(&seal)).collect();
    let mut one = One::new(&[]);
    for row in &rows {
        let row = SavedRow::decode(row, &seal).unwrap();
        let ends_in = row.ends_in(unix_s + 5).unwrap();
        let announce = row.verify(&mut Verifier::new(Node::new(200).address(), NETWORK)).unwrap();
        assert!(one.router.restore(one.now, &announce, ends_in));
        while one.router.poll().is_some() {}
    }
    one.link(1, &a);
    one.link(2, &b);
    one.advance(SECOND * 5);
    let (_, after, outputs) = replay(&mut one);
    // The newest of those that had not ended makes its way again, as it may; nothing older does.
    assert!(after.iter().all(|(_, order)| *order == (1, 10)), "{after:?}");
    assert!(after.len() <= 3, "{after:?}");
    let told = count(&outputs, "announce");
    assert!(told <= after.len(), "{told}");
    let stale = one.router.counters().announces_stale;
    assert_eq!(stale, 10 * 45);
}

#[test]
fn whoever_is_heard_often_keeps_nobody_else_from_the_disk() {
    let a = Node::new(1);
    let mut one = One::new(&[&a]);
    let mut origins: Vec<_> = (10..15).map(Node::new).collect();
    let mut round = |one: &mut One, sequence| {
        origins.iter_mut().for_each(|origin| drop(one.announce(1, 1, origin.announce((1, sequence), 8))));
        let saved = one.router.take_unsaved(one.now, 2);
        saved.into_iter().map(|(origin, _)| origin).collect::<Vec<_>>()
    };
    let written: BTreeSet<_> = (1..=3).flat_map(|sequence| round(&mut one, sequence)).collect();
    assert_eq!(written.len(), 5, "two at a time, and all of them news each time");
}

#[test]
fn what_was_saved_gives_way_to_what_is_newer_and_is_not_older_than_a_day() {
    let mut origin = Node::new(9);
    let row = |announce| SavedRow::new(Saved { announce, ends_in: SECOND * 10 }, 999_990);
    let first = row(origin.announce((1, 1), 8));
    assert_eq!(first.ends_in(999_990), Some(SECOND * 10));
    assert_eq!(first.ends_in(0), Some(SECOND * 1800), "whatever the clock says, no longer than it signs");
    assert_eq!(first.ends_in(1_000_000 + 86_400), Some(Duration::ZERO));
    assert_eq!(first.ends_in(1_000_000 + 86_401), None);
    // Damaged, cut and foreign rows are none.
    let [seal, another] = [1, 2].map(|n| row_seal(&MeshIdentity::from_seed([n; 32]), NETWORK));
    let bytes = first.encode(&seal);
    for cut in 0..bytes.len() {
        assert!(SavedRow::decode(&bytes[..cut], &seal).is_none(), "{cut}");
    }
    assert!(SavedRow::decode(&[&[1], &bytes[1..]].concat(), &seal).is_none());
    // What this node marked costs no signature; what another did, or was changed since, does.
    let mut later = bytes.clone();
    later[8] ^= 1;
    for (row, seal, signatures) in [(&bytes, &seal, 0), (&bytes, &another, 1), (&later, &seal, 1)] {
        let mut verifier = Verifier::new(Node::new(200).address(), NETWORK);
        let read = SavedRow::decode(row, seal).unwrap().verify(&mut verifier).unwrap();
        assert_eq!((read.origin, verifier.signatures_checked()), (origin.address(), signatures));
    }

    let a = Node::new(1);
    let mut one = One::new(&[&a]);
    one.announce(1, 1, origin.announce((1, 5), 8));
    let first = verified(origin.announce((1, 1), 8));
    assert!(!one.router.restore(one.now, &first, SECOND), "older than what is known");
    // A row that is newer takes the place of what came in before it was read, route and all.
    let newer = verified(origin.announce((2, 0), 8));
    assert!(one.router.restore(one.now, &newer, SECOND));
    while one.router.poll().is_some() {}
    assert!(!one.router.is_reachable(&origin.address()));
    let known: Vec<_> = one
        .router
        .known_from(one.now, &Address([0; 16]))
        .map(|known| (known.order, known.is_routed))
        .collect();
    assert_eq!(known, [((2, 0), false)]);
    assert_eq!(
        one.router.known_from(one.now, &Address([0; 16])).next().unwrap().capabilities.0,
        Capabilities::RELAY
    );
}

#[test]
fn a_digest_that_overtakes_the_news_of_its_link_counts() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut origin = Node::new(9);
    let mut one = One::new(&[&a]);
    one.advance(SECOND * 5);
    one.announce(1, 1, origin.announce((1, 1), 128));
    one.control(2, digest(FIRST, LAST, vec![entry(origin.address(), (1, 1), Some(4))]));
    // What comes of links that never are is bounded, and pushes out itself.
    one.link(2, &b);
    assert_eq!(one.router.routes(one.now).next().unwrap().next_hops.len(), 2);
    for link in 100..1000 {
        one.control(link, digest(FIRST, LAST, vec![]));
    }
    assert_eq!(one.router.early.len(), EARLY_MAX);
}

#[test]
fn questions_of_neighbours_for_keys_leave_room_for_this_node_s_own() {
    let peers: Vec<Node> = (1..=30).map(Node::new).collect();
    let mut one = One::new(&peers.iter().collect::<Vec<_>>());
    for n in 0..3000u32 {
        one.control(1 + u64::from(n % 30), Frame::KeyRequest(stranger(n)));
        one.now += SECOND / 100;
    }
    assert!(one.router.wanted.len() <= 512, "{}", one.router.wanted.len());
    let outputs = one.give(Input::FindKeyRecord(stranger(9_999)));
    assert!(count(&outputs, "key_request") > 0);
}

#[test]
fn what_a_cut_link_took_is_mended_around_it_before_anybody_asks() {
    const COUNT: usize = 24;
    let mut sim = Sim::ring(COUNT);
    for n in 0..COUNT {
        sim.connect(n, (n + 2) % COUNT);
    }
    for n in (0..COUNT).step_by(2) {
        sim.connect(n, (n * 7 + 5) % COUNT);
    }
    sim.settle();
    assert!(sim.is_converged());
    let announced = sum(&sim, |c| c.announces_passed_on);
    for peer in [1, 2] {
        sim.disconnect(0, peer);
        // The hold, the withdrawals, and the second until they are answered.
        sim.advance(SECOND * 4);
        assert!(sim.is_converged(), "without the link to {peer}");
    }
    assert_eq!(sum(&sim, |c| c.path_searches), 0, "nobody had to look");
    // The two ends announced themselves once each; nobody else had to.
    assert!(sum(&sim, |c| c.announces_passed_on) - announced <= 4 * COUNT as u64);
}

#[test]
fn who_withdraws_without_end_is_answered_within_the_announce_budget() {
    let mut sim = Sim::star(5);
    sim.settle();
    let far = sim.address(3);
    let link = sim.link_between(0, 1).unwrap();
    let before = sim.nodes[0].router.counters().path_replies_sent;
    for _ in 0..200 {
        // A way through node 1 that node 1 then takes back.
        let withdraw = Withdraw { addresses: vec![far] };
        sim.handle(0, Input::Control(link, Frame::Withdraw(withdraw)));
    }
    sim.advance(SECOND * 3);
    let replies = sim.nodes[0].router.counters().path_replies_sent - before;
    assert!(replies <= 1, "{replies} answers to what was no way of this node's");
}

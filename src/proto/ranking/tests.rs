use super::*;

const TO: Address = Address([1; 16]);
const A: Address = Address([0xa; 16]);
const B: Address = Address([0xb; 16]);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn id(n: u64) -> PacketId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    PacketId(bytes)
}

fn sample(to: Address, via: Address) -> Sample {
    Sample { destination: to, neighbour: via, class: LinkClass::Unconstrained, ingress: None }
}

/// A ranking with a clock and numbers for packets.
struct World {
    ranking: Ranking,
    now: Instant,
    packets: u64,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { ranking: Ranking::new(now, 7), now, packets: 0 }
    }

    /// Sends a packet and gives its id.
    fn send(&mut self, via: Address) -> PacketId {
        self.packets += 1;
        let packet = id(self.packets);
        self.ranking.send(self.now, &packet, &sample(TO, via));
        packet
    }

    /// Sends one that is receipted 20 ms later, and lets a second pass.
    fn deliver(&mut self, via: Address) {
        let packet = self.send(via);
        self.now += ms(20);
        self.ranking.receipt(self.now, &TO, &packet);
        self.wait(ms(980));
    }

    /// Sends one that nothing is heard of for a second.
    fn lose(&mut self, via: Address) {
        self.send(via);
        self.wait(ms(1000));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.ranking.expire(self.now).is_some() {}
    }

    fn standing(&self, via: Address) -> Standing {
        self.ranking.measure(self.now, &TO, &via).standing
    }
}

#[test]
fn receipts_raise_a_way_and_silence_lowers_it() {
    let mut world = World::new();
    assert_eq!(world.standing(A), Standing::UNKNOWN);
    world.deliver(A);
    assert_eq!(world.standing(A), Standing::FAIR);
    (0..10).for_each(|_| world.deliver(A));
    assert_eq!(world.standing(A), Standing::RELIABLE);
    assert_eq!(world.ranking.measure(world.now, &TO, &A).delivered_permille, Some(1000));
    // One loss is a matter of the share, two running put it behind all that do not fail.
    world.lose(A);
    assert_eq!(world.standing(A), Standing::GOOD);
    world.lose(A);
    assert_eq!(world.standing(A), Standing::FAILING);
    world.lose(A);
    assert!(world.standing(A) > Standing::FAILING, "failing ways take turns");
    world.deliver(A);
    world.deliver(A);
    assert!(world.standing(A).is_proven(), "{:?}", world.standing(A));
    // A new way that loses its first packet falls behind one of which nothing is known.
    world.lose(B);
    assert_eq!(world.standing(B), Standing::POOR);
}

#[test]
fn a_receipt_counts_from_the_destination_alone_and_once() {
    let mut world = World::new();
    let packet = world.send(A);
    assert!(!world.ranking.receipt(world.now, &B, &packet), "signed by somebody else");
    assert!(!world.ranking.receipt(world.now, &TO, &id(99)), "of a packet that was never sent");
    assert_eq!(world.standing(A), Standing::UNKNOWN);
    assert!(world.ranking.receipt(world.now, &TO, &packet));
    let once = world.ranking.measure(world.now, &TO, &A);
    assert!(!world.ranking.receipt(world.now, &TO, &packet));
    assert_eq!(world.ranking.measure(world.now, &TO, &A), once);
}

#[test]
fn the_verdict_comes_before_the_retry_of_an_outbox() {
    let mut world = World::new();
    world.send(A);
    assert_eq!(world.ranking.next_wake(), Some(world.now + ms(WAIT_MIN_MS)));
    assert_eq!(world.ranking.expire(world.now + ms(WAIT_MIN_MS - 1)), None);
    assert_eq!(world.ranking.expire(world.now + ms(WAIT_MIN_MS)), Some(TO));
    assert_eq!(world.ranking.next_wake(), None);
}

#[test]
fn a_receipt_that_comes_late_is_credit_and_lengthens_the_wait() {
    let mut world = World::new();
    let packet = world.send(A);
    world.wait(ms(3000));
    assert_eq!(world.standing(A), Standing::POOR);
    assert!(world.ranking.receipt(world.now, &TO, &packet));
    assert_eq!(world.standing(A), Standing::FAIR);
    assert_eq!(world.ranking.measure(world.now, &TO, &A).delivered_permille, Some(1000));
    // From now on three seconds are in time.
    for _ in 0..3 {
        let packet = world.send(A);
        world.wait(ms(3000));
        assert_ne!(world.standing(A), Standing::POOR);
        world.ranking.receipt(world.now, &TO, &packet);
    }
    // Fast again, the wait shrinks.
    (0..60).for_each(|_| world.deliver(A));
    world.send(A);
    assert_eq!(world.ranking.next_wake(), Some(world.now + ms(WAIT_MIN_MS)));
}

#[test]
fn a_loss_among_deliveries_is_no_failure() {
    let mut world = World::new();
    (0..10).for_each(|_| world.deliver(A));
    for _ in 0..10 {
        // One in three is lost, and the receipts of the others come before its time is up.
        world.send(A);
        let packets = [(), ()].map(|()| {
            world.now += ms(20);
            world.send(A)
        });
        world.now += ms(50);
        for packet in &packets {
            world.ranking.receipt(world.now, &TO, packet);
        }
        world.wait(ms(1000));
    }
    assert_eq!(world.standing(A), Standing::FAIR);
}

#[test]
fn what_nobody_is_to_blame_for_is_no_loss() {
    let mut world = World::new();
    let packet = world.send(A);
    world.ranking.excuse(&packet);
    world.wait(ms(2000));
    assert_eq!(world.standing(A), Standing::UNKNOWN);
    let packet = world.send(A);
    assert_eq!(world.ranking.failed(world.now, &packet), Some(TO));
    assert_eq!(world.ranking.failed(world.now, &packet), None);
    assert_eq!(world.standing(A), Standing::POOR);
}

#[test]
fn a_failing_way_gets_few_probes_and_comes_back_by_them() {
    let mut world = World::new();
    world.lose(A);
    world.lose(A);
    let class = LinkClass::Unconstrained;
    let mut probes = 0;
    for _ in 0..3600 {
        if world.ranking.take_probe(world.now, &TO, &A, class) {
            probes += 1;
            let packet = id(1_000_000 + probes);
            world.ranking.sent(world.now, &packet, &sample(TO, A));
        }
        world.wait(ms(1000));
    }
    assert!((5..=20).contains(&probes), "{probes} in an hour");
    while !world.ranking.take_probe(world.now, &TO, &A, class) {
        world.wait(ms(1000));
    }
    world.deliver(A);
    assert_eq!(world.standing(A), Standing::POOR);
    assert!(world.ranking.take_probe(world.now, &TO, &A, class), "soon again, to know it well");
    world.deliver(A);
    assert!(world.standing(A).is_proven());
}

#[test]
fn one_packet_in_thirty_two_may_be_a_probe() {
    let mut world = World::new();
    let turns =
        (1..=320u64).filter(|n| world.ranking.send(world.now, &id(*n), &sample(TO, A)) == Turn::MayProbe);
    assert_eq!(turns.count(), 10);
}

#[test]
fn old_outcomes_say_nothing() {
    let mut world = World::new();
    (0..10).for_each(|_| world.deliver(A));
    (0..5).for_each(|_| world.lose(B));
    assert!(world.ranking.is_active(world.now, &TO));
    world.wait(ms(10 * 60 * 1000));
    assert_eq!((world.standing(A), world.standing(B)), (Standing::UNKNOWN, Standing::UNKNOWN));
    assert!(!world.ranking.is_active(world.now, &TO));
}

#[test]
fn a_neighbour_that_fails_others_is_doubted_where_nothing_is_known() {
    let mut world = World::new();
    let others: Vec<Address> = (10..16).map(|n| Address([n; 16])).collect();
    let mut n = 0;
    let mut outcome = |world: &mut World, to: Address, via: Address, receipted: bool| {
        n += 1;
        world.ranking.send(world.now, &id(n), &sample(to, via));
        if receipted {
            world.ranking.receipt(world.now, &to, &id(n));
        }
        world.wait(ms(1000));
    };
    // Destinations that answer nobody say nothing of the neighbour.
    for to in &others {
        (0..3).for_each(|_| outcome(&mut world, *to, A, false));
    }
    assert_eq!(world.standing(A), Standing::UNKNOWN);
    // Those that answer over another way do.
    for to in &others {
        outcome(&mut world, *to, B, true);
        outcome(&mut world, *to, A, false);
        assert_eq!(world.standing(B), Standing::UNKNOWN, "success with others is no credit");
    }
    assert_eq!(world.standing(A), Standing::UNKNOWN, "they failed before these answered");
    for n in 20..26u8 {
        let to = Address([n; 16]);
        outcome(&mut world, to, B, true);
        (0..2).for_each(|_| outcome(&mut world, to, A, false));
    }
    assert_eq!(world.standing(A), Standing::DOUBTFUL);
    world.deliver(A);
    assert_eq!(world.standing(A), Standing::FAIR, "what is measured counts more");
}

#[test]
fn everything_is_bounded_and_a_link_has_its_share() {
    let mut world = World::new();
    let to = |n: u64| Address(id(n).0);
    let from_link = |n: u64, link| Sample { ingress: Some(LinkId(link)), ..sample(to(n), A) };
    for n in 0..20_000u64 {
        world.ranking.send(world.now, &id(n), &from_link(n, 1));
    }
    assert_eq!((world.ranking.flows(), world.ranking.samples()), (FLOWS_MAX, SAMPLES_PER_LINK_MAX));
    for n in 20_000..60_000u64 {
        world.ranking.send(world.now, &id(n), &from_link(n, n % 9));
    }
    assert_eq!((world.ranking.flows(), world.ranking.samples()), (FLOWS_MAX, SAMPLES_MAX));
    world.wait(ms(1000));
    assert_eq!((world.ranking.samples(), world.ranking.next_wake()), (0, None));
    assert!(world.ranking.queued_by_link.is_empty() && world.ranking.waiting.is_empty());
    assert!(world.ranking.late.len() <= LATE_MAX);
}

#[test]
fn a_destination_that_answers_keeps_its_place_against_many_that_do_not() {
    let mut world = World::new();
    world.deliver(A);
    for n in 0..20_000u64 {
        world.ranking.send(world.now, &id(1000 + n), &sample(Address(id(n).0), B));
    }
    assert_eq!(world.standing(A), Standing::FAIR);
}

#[test]
fn a_fast_flow_leaves_room_for_others() {
    let mut world = World::new();
    for _ in 0..100 {
        let packets: Vec<_> = (0..500).map(|_| world.send(A)).collect();
        world.now += ms(1);
        for packet in &packets {
            world.ranking.receipt(world.now, &TO, packet);
        }
        world.wait(ms(0));
    }
    assert!(world.ranking.samples() < 64, "{}", world.ranking.samples());
    assert_eq!(world.standing(A), Standing::RELIABLE);
}

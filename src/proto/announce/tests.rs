use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(n: u8) -> Address {
    Address([n; 16])
}

#[test]
fn most_announces_stay_near() {
    let mut now = Instant::now();
    let mut schedule = AnnounceSchedule::new(now, ANNOUNCE_INTERVAL, 1);
    let mut limits = Vec::new();
    for _ in 0..17 {
        limits.push(schedule.due(now, 5).unwrap());
        assert_eq!(schedule.due(now, 5), None);
        let wait = schedule.next_wake() - now;
        assert!(wait <= ANNOUNCE_INTERVAL && wait > ANNOUNCE_INTERVAL * 9 / 10, "{wait:?}");
        now = schedule.next_wake();
    }
    assert_eq!(limits, [128, 8, 8, 8, 32, 8, 8, 8, 32, 8, 8, 8, 32, 8, 8, 8, 128]);
}

#[test]
fn a_small_mesh_hears_of_new_links_at_once() {
    let start = Instant::now();
    let mut schedule = AnnounceSchedule::new(start, ANNOUNCE_INTERVAL, 1);
    schedule.due(start, 5);
    // Links that come together make one announce, not before the spacing.
    schedule.links_changed(start + SECOND);
    schedule.links_changed(start + SECOND * 2);
    assert_eq!(schedule.next_wake(), start + SPACING);
    assert_eq!(schedule.due(start + SPACING, 5), Some(128));
    // Later ones settle for a second.
    let later = start + SECOND * 60;
    schedule.links_changed(later);
    assert_eq!(schedule.next_wake(), later + SETTLE);
    // In a large mesh they do not go all the way.
    assert_eq!(schedule.due(later + SETTLE, SMALL_MESH + 1), Some(8));
}

#[test]
fn flapping_links_do_not_make_a_node_shout() {
    let start = Instant::now();
    let mut schedule = AnnounceSchedule::new(start, ANNOUNCE_INTERVAL, 1);
    let mut made = 0;
    for tenth in 0..600u32 {
        let now = start + Duration::from_millis(100) * tenth;
        schedule.links_changed(now);
        made += usize::from(schedule.due(now, 5).is_some());
    }
    assert_eq!(made, 6, "one in ten seconds");
}

#[test]
fn announces_go_on_under_a_budget_and_none_is_forgotten() {
    let start = Instant::now();
    let mut queue = FloodQueue::new(start, ANNOUNCES_PER_SECOND, 1);
    for n in 0..200 {
        queue.flood(address(n));
        queue.flood(address(n));
    }
    let drain = |queue: &mut FloodQueue, now| std::iter::from_fn(|| queue.next(now)).collect::<Vec<_>>();
    let at_once = drain(&mut queue, start);
    assert_eq!(at_once.len(), ANNOUNCES_PER_SECOND as usize);
    assert_eq!(at_once[0], Send::Flood(address(0)));
    let wake = queue.next_wake().unwrap();
    assert_eq!(wake, start + SECOND / ANNOUNCES_PER_SECOND);
    assert_eq!(drain(&mut queue, wake).len(), 1);
    let rest = (2..10).map(|s| drain(&mut queue, start + SECOND * s).len()).sum::<usize>();
    assert_eq!(rest, 200 - ANNOUNCES_PER_SECOND as usize - 1);
    assert_eq!(queue.next_wake(), None);
}

#[test]
fn new_neighbours_are_told_the_table_in_turn_and_news_come_first() {
    let now = Instant::now();
    let mut queue = FloodQueue::new(now, ANNOUNCES_PER_SECOND, 1);
    let (a, b) = (LinkId(3), LinkId(5));
    queue.tell_table(a);
    queue.tell_table(b);
    queue.flood(address(1));
    assert_eq!(queue.next(now), Some(Send::Flood(address(1))));
    assert_eq!(queue.next(now), Some(Send::Page(a)));
    queue.told(a, true);
    assert_eq!(queue.next(now), Some(Send::Page(b)));
    queue.told(b, false);
    assert_eq!(queue.next(now), Some(Send::Page(a)));
    queue.link_down(a);
    // Told after it went down: the link is not taken up again.
    queue.told(a, true);
    assert_eq!(queue.next(now), None);
    assert!(queue.is_empty());
}

#[test]
fn the_queue_is_bounded() {
    let mut queue = FloodQueue::new(Instant::now(), ANNOUNCES_PER_SECOND, 1);
    for n in 0..10_000u32 {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&n.to_be_bytes());
        queue.flood(Address(address));
    }
    assert_eq!(queue.waiting.len(), WAITING_MAX);
    assert_eq!(queue.refused(), 10_000 - WAITING_MAX as u64);
}

#[test]
fn an_allowance_never_overspends() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start, 10);
    let taken = (0..10_000u32).filter(|ms| allowance.take(start + Duration::from_millis(1) * *ms)).count();
    // Ten at once and ten a second.
    assert!((108..=110).contains(&taken), "{taken}");
}

#[test]
fn over_thin_links_announces_go_on_a_random_while_later() {
    let start = Instant::now();
    let mut queue = FloodQueue::new(start, 1000, 1);
    for n in 0..100 {
        queue.flood_thin(start, address(n));
    }
    let mut now = start;
    let mut order = Vec::new();
    while let Some(wake) = queue.next_wake() {
        assert!(wake >= now);
        now = wake;
        while let Some(send) = queue.next(now) {
            let Send::FloodThin(origin, _) = send else { panic!("{send:?}") };
            order.push(origin);
        }
    }
    assert!(now - start <= THIN_SPREAD && now - start > THIN_SPREAD / 2, "{:?}", now - start);
    assert_eq!(order.len(), 100);
    assert!(!order.is_sorted(), "they would all go at once");
}

#[test]
fn neighbours_on_thin_links_that_carried_what_waits_get_no_copy() {
    let now = Instant::now();
    let mut queue = FloodQueue::new(now, 1, 1);
    let end = now + THIN_SPREAD;
    queue.flood_thin(now, address(2));
    queue.carried(&address(2), LinkId(4));
    queue.carried(&address(2), LinkId(4));
    queue.carried(&address(2), LinkId(7));
    queue.carried(&address(3), LinkId(7));
    assert!(!queue.is_empty());
    let carried = vec![LinkId(4), LinkId(7)];
    assert_eq!(queue.next(end), Some(Send::FloodThin(address(2), carried)));
    // A newer one takes the place of what waits.
    queue.flood_thin(end, address(2));
    queue.carried(&address(2), LinkId(4));
    queue.flood_thin(end, address(2));
    let end = end + THIN_SPREAD;
    assert_eq!(queue.next(end), Some(Send::FloodThin(address(2), vec![])));
    for link in 0..1000 {
        queue.flood_thin(end, address(5));
        (0..link).for_each(|link| queue.carried(&address(5), LinkId(link)));
    }
    assert_eq!(queue.thin[&address(5)].len(), CARRIED_MAX);
    assert!(queue.is_waiting.is_empty(), "a newer one waits on");
}

#[test]
fn in_a_mesh_that_would_fill_the_budget_intervals_stretch() {
    let interval = |destinations| {
        let start = Instant::now();
        let mut schedule = AnnounceSchedule::new(start, ANNOUNCE_INTERVAL, 1);
        schedule.due(start, destinations);
        (schedule.next_wake() - start).as_secs()
    };
    assert!((540..=600).contains(&interval(STRETCH_ABOVE)));
    assert!((648..=720).contains(&interval(STRETCH_ABOVE * 12 / 10)));
    assert!((756..=840).contains(&interval(usize::MAX)), "two in a route's half hour");
}

#[test]
fn who_lost_a_way_is_answered_after_a_second_out_of_the_same_budget() {
    let start = Instant::now();
    let mut floods = FloodQueue::new(start, 2, 1);
    for n in [1, 2, 1, 3] {
        floods.answer(start, address(n));
    }
    assert_eq!(floods.next(start), None, "withdrawals are still under way");
    assert_eq!(floods.next_wake(), Some(start + SECOND));
    floods.flood(address(9));
    floods.tell_table(LinkId(4));
    let at = start + SECOND;
    // News first, and no more than the budget has.
    assert_eq!(floods.next(at), Some(Send::Flood(address(9))));
    assert_eq!(floods.next(at), Some(Send::Answer(address(1))));
    assert_eq!(floods.next(at), None);
    let later = at + SECOND;
    assert_eq!(floods.next(later), Some(Send::Answer(address(2))));
    assert_eq!(floods.next(later), Some(Send::Answer(address(3))), "each once");
    assert_eq!(floods.next(later + SECOND), Some(Send::Page(LinkId(4))));
}

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
    let mut queue = FloodQueue::new(start, ANNOUNCES_PER_SECOND);
    for n in 0..200 {
        queue.flood(address(n));
        queue.flood(address(n));
    }
    let drain = |queue: &mut FloodQueue, now| std::iter::from_fn(|| queue.next(now)).collect::<Vec<_>>();
    let at_once = drain(&mut queue, start);
    assert_eq!(at_once.len(), ANNOUNCES_PER_SECOND as usize);
    assert_eq!(at_once[0], Send::Flood(address(0), vec![]));
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
    let mut queue = FloodQueue::new(now, ANNOUNCES_PER_SECOND);
    let (a, b) = (LinkId(3), LinkId(5));
    queue.tell_table(a);
    queue.tell_table(b);
    queue.flood(address(1));
    assert_eq!(queue.next(now), Some(Send::Flood(address(1), vec![])));
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
    let mut queue = FloodQueue::new(Instant::now(), ANNOUNCES_PER_SECOND);
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
fn neighbours_that_carried_what_waits_get_no_copy() {
    let now = Instant::now();
    let mut queue = FloodQueue::new(now, 1);
    queue.flood(address(1));
    assert_eq!(queue.next(now), Some(Send::Flood(address(1), vec![])));
    queue.flood(address(2));
    queue.carried(&address(2), LinkId(4));
    queue.carried(&address(2), LinkId(4));
    queue.carried(&address(2), LinkId(7));
    queue.carried(&address(3), LinkId(7));
    let carried = vec![LinkId(4), LinkId(7)];
    assert_eq!(queue.next(now + SECOND), Some(Send::Flood(address(2), carried)));
    // A newer one takes the place of what waits.
    queue.flood(address(2));
    queue.carried(&address(2), LinkId(4));
    queue.flood(address(2));
    assert_eq!(queue.next(now + SECOND * 2), Some(Send::Flood(address(2), vec![])));
    for link in 0..1000 {
        queue.flood(address(5));
        (0..link).for_each(|link| queue.carried(&address(5), LinkId(link)));
    }
    assert_eq!(queue.is_waiting[&address(5)].len(), CARRIED_MAX);
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

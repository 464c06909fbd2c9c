use super::*;
use crate::wire::{Address, TrafficClass, handshake::VERSION};

const NETWORK: NetworkId = NetworkId([7; 16]);

fn config(own: u8, peer: u8, direction: Direction) -> LinkConfig {
    LinkConfig {
        network: NETWORK,
        network_secret: None,
        own_key: PublicKey([own; 32]),
        peer: Some(PublicKey([peer; 32])),
        channel_binding: [0xcb; 32],
        direction,
        features: 0,
        boot_epoch: u32::from(own),
        clock_unix_s: 1_800_000_000,
        initial_credit: [1, 2, 3],
        keepalive: KEEPALIVE_INTERVAL,
        hello_timeout: HELLO_TIMEOUT,
    }
}

/// Two ends of one connection, and what each said to its owner.
struct Pair {
    ends: [Link; 2],
    events: [Vec<Output>; 2],
    errors: [Option<LinkError>; 2],
}

impl Pair {
    fn new(now: Instant, a: LinkConfig, b: LinkConfig) -> Self {
        let mut pair = Self {
            ends: [Link::new(a, now, [1; 8]), Link::new(b, now, [2; 8])],
            events: [vec![], vec![]],
            errors: [None, None],
        };
        pair.input(now, 0, Input::Start);
        pair.input(now, 1, Input::Start);
        pair
    }

    fn up(now: Instant) -> Self {
        let mut pair = Self::new(now, config(1, 2, Direction::Out), config(2, 1, Direction::In));
        pair.run(now);
        assert!(pair.ends.iter().all(Link::is_established));
        pair
    }

    fn input(&mut self, now: Instant, end: usize, input: Input<'_>) {
        if let Err(error) = self.ends[end].handle(now, input) {
            self.errors[end] = Some(error);
        }
    }

    /// Carries frames both ways, over their encoding, until nobody says anything.
    fn run(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            for end in 0..2 {
                while let Some(output) = self.ends[end].poll() {
                    quiet = false;
                    match output {
                        Output::Send(frame) => {
                            let frame = Frame::decode(&frame.encode()).unwrap();
                            self.input(now, 1 - end, Input::Frame(&frame));
                        }
                        event => self.events[end].push(event),
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn closed(&self, end: usize) -> Option<(CloseReason, bool)> {
        self.events[end].iter().find_map(|event| match event {
            Output::Closed { reason, by_peer, .. } => Some((*reason, *by_peer)),
            _ => None,
        })
    }
}

/// Runs a handshake; gives why the dialling end closed itself.
fn refused(a: LinkConfig, b: LinkConfig) -> Option<LinkError> {
    let now = Instant::now();
    let mut pair = Pair::new(now, a, b);
    pair.run(now);
    let both_up = pair.ends.iter().all(Link::is_established);
    assert_eq!(both_up, pair.errors[0].is_none() && pair.closed(0).is_none());
    pair.errors[0].clone()
}

fn outputs(link: &mut Link) -> Vec<Output> {
    std::iter::from_fn(|| link.poll()).collect()
}

#[test]
fn two_ends_of_one_network_meet_and_measure_each_other() {
    let pair = Pair::up(Instant::now());
    for (events, peer) in [(&pair.events[0], 2), (&pair.events[1], 1)] {
        let Output::Established { peer_hello, version } = &events[0] else { panic!("{events:?}") };
        assert_eq!((peer_hello.boot_epoch, *version), (peer, VERSION));
        assert_eq!(peer_hello.initial_credit, [1, 2, 3]);
        assert!(matches!(events[1], Output::Rtt(_)), "{events:?}");
    }
}

#[test]
fn another_network_is_a_named_close_without_blame() {
    let other = LinkConfig { network: NetworkId([8; 16]), ..config(2, 1, Direction::In) };
    let error = refused(config(1, 2, Direction::Out), other).unwrap();
    assert!(matches!(error, LinkError::NetworkTag { .. }), "{error}");
    assert_eq!(error.close_reason(), CloseReason::NetworkMismatch);
    assert!(!error.peer_fault());
}

#[test]
fn the_network_secret_admits_who_has_it_on_this_connection() {
    let secret = |text: &str| Some(NetworkSecret::new(text.into()));
    let check = |ours: Option<NetworkSecret>, theirs: Option<NetworkSecret>, binding, want| {
        let a = LinkConfig { network_secret: ours, ..config(1, 2, Direction::Out) };
        let b =
            LinkConfig { network_secret: theirs, channel_binding: binding, ..config(2, 1, Direction::In) };
        let got = refused(a, b).map(|error| match error {
            LinkError::NetworkSecret { fault } => fault,
            other => panic!("{other}"),
        });
        assert_eq!(got, want);
    };
    check(secret("a"), secret("a"), [0xcb; 32], None);
    check(secret("a"), secret("b"), [0xcb; 32], Some(SecretFault::Differs));
    check(secret("a"), None, [0xcb; 32], Some(SecretFault::PeerHasNone));
    check(None, secret("a"), [0xcb; 32], Some(SecretFault::WeHaveNone));
    // A proof carried over from another connection.
    check(secret("a"), secret("a"), [0xcc; 32], Some(SecretFault::Differs));
}

#[test]
fn a_proof_echoed_back_is_not_one() {
    let now = Instant::now();
    let secret = NetworkSecret::new(b"secret".to_vec());
    let config = LinkConfig { network_secret: Some(secret), ..config(1, 2, Direction::Out) };
    let mut link = Link::new(config, now, [1; 8]);
    link.handle(now, Input::Start).unwrap();
    let Some(Output::Send(Frame::Hello(ours))) = link.poll() else { panic!() };
    let echo = Frame::Hello(Hello { nonce: [9; 8], ..ours });
    let error = link.handle(now, Input::Frame(&echo)).unwrap_err();
    assert_eq!(error, LinkError::NetworkSecret { fault: SecretFault::Differs });
}

#[test]
fn a_connection_to_ourselves_is_noticed() {
    let own = |peer| LinkConfig { peer, ..config(1, 1, Direction::Out) };
    let me = Some(PublicKey([1; 32]));
    assert_eq!(refused(own(me), config(1, 1, Direction::In)), Some(LinkError::OwnIdentity));
    // On a medium that names nobody, by the nonce.
    let now = Instant::now();
    let mut link = Link::new(own(None), now, [1; 8]);
    link.handle(now, Input::Start).unwrap();
    let Some(Output::Send(hello)) = link.poll() else { panic!() };
    assert_eq!(link.handle(now, Input::Frame(&hello)), Err(LinkError::OwnIdentity));
}

#[test]
fn versions_have_to_overlap() {
    let now = Instant::now();
    let check = |min, max, fits| {
        let mut link = Link::new(config(1, 2, Direction::Out), now, [1; 8]);
        let hello =
            Hello { version_min: min, version_max: max, ..hello::ours(&config(2, 1, Direction::In), [2; 8]) };
        let outcome = link.handle(now, Input::Frame(&Frame::Hello(hello)));
        assert_eq!(outcome.is_ok(), fits, "{min}..={max}: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.close_reason(), CloseReason::VersionMismatch);
            assert!(!error.peer_fault());
        }
    };
    check(VERSION, VERSION, true);
    check(0, 9, true);
    check(VERSION + 1, VERSION + 2, false);
    check(0, VERSION - 1, false);
}

#[test]
fn nothing_but_a_hello_comes_first_and_only_one() {
    let now = Instant::now();
    let frames = [
        Frame::Ping(1),
        Frame::Pong(1),
        Frame::KeyNeeded(Address([1; 16])),
        Frame::Credit(Credit { class: TrafficClass::Bulk, bytes: 1 }),
    ];
    for frame in frames {
        let mut link = Link::new(config(1, 2, Direction::Out), now, [1; 8]);
        let error = link.handle(now, Input::Frame(&frame)).unwrap_err();
        assert_eq!(error, LinkError::BeforeHello { frame: frame.name() });
        assert!(error.peer_fault());
        let out = outputs(&mut link);
        assert!(matches!(&out[0], Output::Send(Frame::Goodbye(g)) if g.reason == CloseReason::ProtocolError));
        assert!(matches!(&out[1], Output::Closed { by_peer: false, .. }), "{out:?}");
        // Closed is closed.
        assert_eq!(link.handle(now, Input::Frame(&frame)), Ok(()));
        assert!(link.poll().is_none());
        assert_eq!(link.next_wake(), None);
    }
    let mut pair = Pair::up(now);
    let hello = Frame::Hello(hello::ours(&config(2, 1, Direction::In), [2; 8]));
    pair.input(now, 0, Input::Frame(&hello));
    assert_eq!(pair.errors[0], Some(LinkError::SecondHello));
}

#[test]
fn a_silent_stranger_is_let_go() {
    let now = Instant::now();
    let mut link = Link::new(config(1, 2, Direction::In), now, [1; 8]);
    link.handle(now, Input::Start).unwrap();
    let (at, wake) = link.next_wake().unwrap();
    assert_eq!((at, wake), (now + HELLO_TIMEOUT, Wake::HelloTimeout));
    link.handle(at - Duration::from_millis(1), Input::Timeout).unwrap();
    let error = link.handle(at, Input::Timeout).unwrap_err();
    assert_eq!(error, LinkError::HelloTimeout { after: HELLO_TIMEOUT });
    assert!(!error.peer_fault());
}

#[test]
fn silence_is_asked_into_and_then_ends_the_link() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    let wake = |pair: &mut Pair, want| {
        let (at, wake) = pair.ends[0].next_wake().unwrap();
        assert_eq!(wake, want);
        pair.input(at, 0, Input::Timeout);
        at
    };
    // An idle link with a live peer stays up for ever, a ping every interval.
    let mut now = start;
    for _ in 0..100 {
        let at = wake(&mut pair, Wake::Keepalive);
        assert!(at - now <= KEEPALIVE_INTERVAL);
        now = at;
        pair.run(now);
    }
    assert!(pair.ends[0].is_established());
    // The peer dies. Two intervals later the link is closed.
    let last_heard = now;
    let mut at = wake(&mut pair, Wake::Keepalive);
    while pair.ends[0].is_established() {
        while pair.ends[0].poll().is_some() {}
        at = wake(&mut pair, Wake::PeerSilent);
    }
    assert_eq!(at - last_heard, 2 * KEEPALIVE_INTERVAL);
    assert_eq!(pair.errors[0], Some(LinkError::PeerSilent { silent_for: 2 * KEEPALIVE_INTERVAL }));
}

#[test]
fn any_sign_of_life_counts() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    let (at, _) = pair.ends[0].next_wake().unwrap();
    pair.input(at, 0, Input::Timeout);
    while pair.ends[0].poll().is_some() {}
    assert_eq!(pair.ends[0].next_wake().unwrap().1, Wake::PeerSilent);
    let later = at + Duration::from_secs(14);
    pair.input(later, 0, Input::Activity);
    assert_eq!(pair.ends[0].next_wake().unwrap(), (later + KEEPALIVE_INTERVAL, Wake::Keepalive));
}

#[test]
fn a_node_that_was_stopped_asks_before_it_judges() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    let later = start + Duration::from_secs(3600);
    pair.input(later, 0, Input::Timeout);
    assert!(matches!(pair.ends[0].poll(), Some(Output::Send(Frame::Ping(_)))));
    assert_eq!(pair.ends[0].next_wake().unwrap().1, Wake::PeerSilent);
}

#[test]
fn a_busy_link_is_still_measured() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    let mut pings = 0;
    for second in 1..=600 {
        let now = start + Duration::from_secs(second);
        pair.input(now, 0, Input::Activity);
        pair.input(now, 0, Input::Timeout);
        while let Some(output) = pair.ends[0].poll() {
            pings += usize::from(matches!(output, Output::Send(Frame::Ping(_))));
        }
    }
    assert_eq!(pings, 10, "one a minute");
}

#[test]
fn the_round_trip_time_is_smoothed_and_only_our_own_pings_count() {
    let start = Instant::now();
    let mut keepalive = Keepalive::new(start, KEEPALIVE_INTERVAL, 5);
    let ms = Duration::from_millis;
    assert_eq!(keepalive.tick(start), Tick::Ping(5));
    assert_eq!(keepalive.on_pong(start + ms(10), 4), None);
    assert_eq!(keepalive.on_pong(start + ms(80), 5), Some(ms(80)));
    assert_eq!(keepalive.on_pong(start + ms(90), 5), None, "a pong counts once");
    keepalive.heard(start + ms(80));
    let next = start + ms(80) + KEEPALIVE_INTERVAL;
    assert_eq!(keepalive.tick(next), Tick::Ping(6));
    assert_eq!(keepalive.on_pong(next + ms(160), 6), Some(ms(90)));
}

#[test]
fn pings_are_answered_and_a_flood_of_them_is_not() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    for n in 0..1000 {
        pair.input(start, 0, Input::Frame(&Frame::Ping(n)));
    }
    let pongs = outputs(&mut pair.ends[0]);
    assert!(pongs.len() <= 9, "{}", pongs.len());
    pair.input(start + Duration::from_secs(1), 0, Input::Frame(&Frame::Ping(7)));
    assert!(matches!(pair.ends[0].poll(), Some(Output::Send(Frame::Pong(7)))));
}

#[test]
fn unknown_frames_are_counted_and_unreadable_ones_end_the_link() {
    let start = Instant::now();
    let mut pair = Pair::up(start);
    let unknown = DecodeError::UnknownFrame(99);
    for _ in 0..1000 {
        pair.input(start, 0, Input::Undecodable(&unknown));
    }
    assert_eq!(pair.ends[0].unknown_frames(), 1000);
    assert!(pair.ends[0].is_established());

    let garbage = DecodeError::Trailing { offset: 3, count: 1 };
    // One in ten seconds is forgiven for ever.
    for n in 0..100u32 {
        pair.input(start + Duration::from_secs(10) * n, 0, Input::Undecodable(&garbage));
    }
    assert!(pair.ends[0].is_established());
    let now = start + Duration::from_secs(2000);
    let forgiven = (0..100).take_while(|_| pair.ends[0].handle(now, Input::Undecodable(&garbage)).is_ok());
    assert_eq!(forgiven.count(), 8);
    assert!(pair.ends[0].is_closed());
}

#[test]
fn frames_that_make_no_sense_are_forgiven_as_unreadable_ones_are() {
    let now = Instant::now();
    let mut pair = Pair::up(now);
    let garbage = DecodeError::Trailing { offset: 3, count: 1 };
    for _ in 0..4 {
        pair.input(now, 0, Input::Odd("credit_zero"));
        pair.input(now, 0, Input::Undecodable(&garbage));
    }
    assert!(pair.ends[0].is_established());
    let error = pair.ends[0].handle(now, Input::Odd("credit_overflow")).unwrap_err();
    assert_eq!(error, LinkError::Odd { what: "credit_overflow" });
    assert!(error.peer_fault() && error.close_reason() == CloseReason::ProtocolError);
    assert!(pair.ends[0].is_closed());
}

#[test]
fn before_the_hello_nothing_unreadable_is_forgiven() {
    let now = Instant::now();
    let mut link = Link::new(config(1, 2, Direction::Out), now, [1; 8]);
    let garbage = DecodeError::Trailing { offset: 3, count: 1 };
    assert!(link.handle(now, Input::Undecodable(&garbage)).unwrap_err().peer_fault());

    // A newer version may begin with something we do not know, but not with many of them.
    let mut link = Link::new(config(1, 2, Direction::Out), now, [1; 8]);
    let unknown = DecodeError::UnknownFrame(99);
    let taken = (0..100).take_while(|_| link.handle(now, Input::Undecodable(&unknown)).is_ok()).count();
    assert_eq!(taken, HANDSHAKE_FRAMES_MAX - 1);
}

#[test]
fn goodbye_reaches_the_other_end_with_its_reason() {
    let now = Instant::now();
    let mut pair = Pair::up(now);
    pair.input(now, 0, Input::Close(CloseReason::Shutdown, "draining".into()));
    pair.run(now);
    assert_eq!(pair.closed(0), Some((CloseReason::Shutdown, false)));
    assert_eq!(pair.closed(1), Some((CloseReason::Shutdown, true)));
}

#[test]
fn a_goodbye_carries_no_escape_sequences_into_logs() {
    let now = Instant::now();
    let mut pair = Pair::up(now);
    let goodbye = Goodbye { reason: CloseReason::Other(99), text: "\u{1b}[2Jhi\n".into() };
    pair.input(now, 0, Input::Frame(&Frame::Goodbye(goodbye)));
    let Some(Output::Closed { text, by_peer: true, .. }) = pair.ends[0].poll() else { panic!() };
    assert_eq!(text, "[2Jhi");
}

#[test]
fn credit_is_passed_on() {
    let now = Instant::now();
    let mut pair = Pair::up(now);
    let credit = Credit { class: TrafficClass::Bulk, bytes: 4096 };
    pair.input(now, 0, Input::Frame(&Frame::Credit(credit)));
    assert!(matches!(pair.ends[0].poll(), Some(Output::Credit(c)) if c == credit));
}

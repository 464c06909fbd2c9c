//! What a route costs: fills the routing table and prints how the resident set grows beside the
//! bytes of the announces alone, and what is done to a table of that size takes.
//! `cargo bench --bench route_memory [-- ROUTES WAYS]`; without arguments a hundred thousand and a
//! million routes of one way and of three, each in a process of its own, since memory that was given
//! back would hide what the next one takes. Linux only, since it reads `/proc`.

use std::{
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    proto::{
        fib::{self, Hops},
        table::{LinkClass, RoutingTable, Via},
        verify::Verified,
    },
    wire::{Address, Announce, AnnounceContent, Capabilities, Frame, LinkId, PublicKey, Signature},
};

/// Neighbours that bring announces: more than four, so that none fills its share of the table.
const LINKS: u64 = 8;

/// Decisions that are timed together.
const DECISIONS: u64 = 2_000_000;

/// Packets that come together, as a reader hands them over under load.
const BATCH: usize = 64;

/// Routes that the link has which few routes lead over.
const FEW: u64 = 10;

/// A number spread over bytes, as hashes are.
fn spread<const N: usize>(n: u64) -> [u8; N] {
    let wide = u128::from(n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let wide = (wide ^ (wide >> 67)).wrapping_mul(0xda94_2042_e4dd_58b5_2b8a_1d1c_8f6b_4c31);
    let mut out = [0; N];
    out.iter_mut().zip(wide.to_be_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
    out
}

fn origin(n: u64) -> Address {
    Address(spread(n))
}

/// An announce as large as one with a service and the hash of a key record is.
fn announce(n: u64, hop_count: u8) -> Announce {
    let content = AnnounceContent {
        public_key: PublicKey(spread(n)),
        boot_epoch: 1,
        sequence: 1,
        capabilities: Capabilities(Capabilities::RELAY),
        lifetime_s: 1800,
        max_hops: 32,
        key_record_hash: Some(spread(n)),
        keypackage_hash: None,
        service_data: Bytes::new(),
    };
    let signed = content.encode();
    Announce { hop_count, ..Announce::new(content, signed.into(), Signature([7; 64]), None) }
}

fn via(link: u64) -> Via {
    let neighbour = Address([0x80 | link as u8; 16]);
    Via::unmeasured(LinkId(link), LinkClass::Unconstrained, neighbour)
}

/// Bytes of memory that this process occupies.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Nanoseconds of one of `count`.
fn each(took: Duration, count: u64) -> f64 {
    took.as_nanos() as f64 / count as f64
}

/// Runs what is measured once, so that the pages of the program itself are there before. The table
/// is to be kept, so that its memory is not used again.
fn warm_up() -> RoutingTable {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 42, 10_000);
    for n in 0..5_000 {
        let inbound = Verified::unchecked(origin(n), announce(n, 1));
        table.update(now, &inbound, &via(n % LINKS + 1), &|_| true);
        let hops = table.hops(&origin(n));
        table.set_in_use(origin(n), hops);
    }
    table
}

/// Nanoseconds of reading one cache line of as many bytes as the hash index of so many routes has,
/// in batches: what no decision can be faster than on this machine.
fn one_line(routes: u64) -> f64 {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([u64; 8]);
    let lines = vec![Line([1; 8]); routes as usize / 4];
    let asked: Vec<u32> =
        (0..DECISIONS).map(|n| (n.wrapping_mul(7_919_417) % lines.len() as u64) as u32).collect();
    let start = Instant::now();
    for batch in asked.chunks(BATCH) {
        let read = batch
            .iter()
            .filter_map(|n| lines.get(*n as usize))
            .map(|line| line.0[0])
            .fold(0, u64::wrapping_add);
        black_box(read);
    }
    each(start.elapsed(), DECISIONS)
}

fn measure(routes: u64, ways: u64) {
    let warm = warm_up();
    // As the table keeps them: a piece of memory for each, two bytes in front.
    let before = resident_bytes();
    let mut alone: Vec<Box<[u8]>> = Vec::with_capacity(routes as usize);
    for n in 0..routes {
        let frame = Frame::Announce(announce(n, 0)).encode();
        alone.push([&[0, 0], &frame[..]].concat().into());
    }
    let pointers = routes * size_of::<Box<[u8]>>() as u64;
    let announces = resident_bytes().saturating_sub(before).saturating_sub(pointers);

    let began = Instant::now();
    let mut table = RoutingTable::new(began, 42, routes as usize * 2);
    let before = resident_bytes();
    let (mut inserting, mut longest) = (Duration::ZERO, Duration::ZERO);
    for n in 0..routes {
        // Announces arrive spread over ten minutes.
        let now = began + Duration::from_millis(n.wrapping_mul(600_000) / routes);
        for way in 0..ways {
            let inbound = Verified::unchecked(origin(n), announce(n, 1 + way as u8));
            let via = via((n + way) % LINKS + 1);
            let start = Instant::now();
            table.update(now, &inbound, &via, &|_| true);
            let took = start.elapsed();
            longest = longest.max(took);
            if way == 0 {
                inserting += took;
            }
        }
        let hops = table.hops(&origin(n));
        table.set_in_use(origin(n), hops);
    }
    let all = resident_bytes().saturating_sub(before);
    assert_eq!((table.len() as u64, table.reachable() as u64), (routes, routes));

    let own = Address([0xee; 16]);
    let asked: Vec<Address> = (0..DECISIONS).map(|n| origin(n.wrapping_mul(7_919_417) % routes)).collect();
    let decide = |to: &Address, hops: Option<Hops>| {
        black_box(fib::decide(&own, to, Some(LinkId(99)), 3, 64, |_| hops));
    };
    let start = Instant::now();
    asked.iter().for_each(|to| decide(to, table.likely_in_use(to)));
    let alone_ns = each(start.elapsed(), DECISIONS);
    let mut in_use = Vec::with_capacity(BATCH);
    let start = Instant::now();
    for batch in asked.chunks(BATCH) {
        in_use.clear();
        table.each_likely_in_use(batch, &mut in_use);
        batch.iter().zip(&in_use).for_each(|(to, hops)| decide(to, *hops));
    }
    let deciding = each(start.elapsed(), DECISIONS);

    let line = one_line(routes);
    let few = via(50);
    for n in 0..FEW {
        let inbound = Verified::unchecked(origin(n), announce(n, 0));
        let inbound =
            Verified::unchecked(inbound.origin, Announce { hop_count: 1, ..inbound.announce.clone() });
        table.update(began, &inbound, &few, &|_| true);
    }
    let start = Instant::now();
    let affected = table.link_down(LinkId(50)).len() as u64;
    let few_down = start.elapsed();
    let start = Instant::now();
    let many = table.link_down(LinkId(1)).len() as u64;
    let many_down = start.elapsed();
    let _: Option<Hops> = table.in_use(&own);

    println!(
        "{routes:>9} {ways:>5} {:>14.1} {:>15.1} {:>11.2} {:>12.2} {alone_ns:>11.0} {deciding:>12.0} {line:>11.0} {:>16.1} {:>19.0}",
        announces as f64 / routes as f64,
        all.saturating_sub(announces) as f64 / routes as f64,
        each(inserting, routes) / 1e3,
        longest.as_micros() as f64 / 1e3,
        each(few_down, affected.max(1)) * affected as f64 / 1e3,
        each(many_down, many.max(1)),
    );
    drop((alone, warm));
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if let [routes, ways] = numbers[..] {
        return measure(routes, ways);
    }
    println!(
        "   routes  ways  announce B/rt  beside it B/rt   insert µs  longest ms  decision ns  in batches  one line ns  10-route down µs  large down ns/route"
    );
    let me = std::env::current_exe().expect("this program");
    for (routes, ways) in [(100_000, 1), (100_000, 3), (1_000_000, 1), (1_000_000, 3)] {
        let status = Command::new(&me).args([routes.to_string(), ways.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "{routes} routes of {ways} ways");
    }
}

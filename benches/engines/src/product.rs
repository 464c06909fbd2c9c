//! Our own store under load: submissions of one operation each, a fixed number of them in flight.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    storage::{
        Awaits, Strangers, BatchStats, DataDir, EmbeddedOptions, EmbeddedStore, HeldRow, InboxCommit, LocalOp, LocalStore,
        MailOp, Mailboxes, OutboxRow, QueueBounds, StoreEvent, StoreThread,
    },
    wire::{Address, MessageUid, PacketId, Priority},
};

use crate::{Result, message};

const CELL: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 300;

pub fn run(dir: &Path) -> Result<()> {
    println!("| operation | in flight | durable acks/s | batches/s | of a batch's time in sync |");
    println!("|---|---|---|---|---|");
    for kind in ["hold", "inbox", "outbox"] {
        for in_flight in [1usize, 64, 256] {
            cell(&dir.join("product"), kind, in_flight)?;
        }
    }
    Ok(())
}

fn cell(dir: &Path, kind: &str, in_flight: usize) -> Result<()> {
    let store = EmbeddedStore::open(DataDir::open(dir)?.into(), EmbeddedOptions::default())?;
    let (event_tx, events) = mpsc::channel();
    let observer = Box::new(move |event| drop(event_tx.send(event)));
    let thread = StoreThread::start(Box::new(store), QueueBounds::default(), observer)?;
    let handle = thread.handle();
    let (give_back, permits) = mpsc::channel();
    for _ in 0..in_flight {
        give_back.send(())?;
    }
    let (mut n, start) = (0u64, Instant::now());
    while start.elapsed() < CELL {
        permits.recv()?;
        let give_back = give_back.clone();
        // A failed submission keeps its permit, so that the run ends with an error.
        match local(kind, n) {
            Some(op) => {
                let done = Box::new(move |r: std::result::Result<_, _>| drop(r.map(|_| give_back.send(()))));
                LocalStore::submit(&handle, vec![op], done).map_err(|back| back.reason)?;
            }
            None => {
                let done = Box::new(move |r: std::result::Result<_, _>| drop(r.map(|_| give_back.send(()))));
                Mailboxes::submit(&handle, vec![hold(n)], done).map_err(|back| back.reason)?;
            }
        }
        n += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    thread.close();
    let batches: Vec<BatchStats> = events
        .try_iter()
        .filter_map(|event| match event {
            StoreEvent::Batch(stats) => Some(stats),
            _ => None,
        })
        .collect();
    let took: Duration = batches.iter().map(|batch| batch.took).sum();
    let syncing: Duration = batches.iter().map(|batch| batch.syncing).sum();
    println!(
        "| {kind} | {in_flight} | {:.0} | {:.0} | {:.0} % |",
        n as f64 / seconds,
        batches.len() as f64 / seconds,
        100.0 * syncing.as_secs_f64() / took.as_secs_f64()
    );
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn local(kind: &str, n: u64) -> Option<LocalOp> {
    let id = message(n).id;
    match kind {
        "inbox" => Some(LocalOp::InboxCommit(InboxCommit {
            packet_id: PacketId(id),
            uid: MessageUid(id),
            source: Address(message(n % 1000).id),
            ingress: None,
            dedup_until_unix_s: n / 100,
            awaits: Awaits::default(),
            strangers: Strangers::Enter,
            entry: vec![7; BODY_BYTES],
        })),
        "outbox" => Some(LocalOp::OutboxPut(OutboxRow {
            uid: MessageUid(id),
            destination: Address(message(n % 1000).id),
            created_unix_s: n,
            expires_s: n,
            state: Vec::new(),
            body: vec![7; BODY_BYTES],
        })),
        _ => None,
    }
}

fn hold(n: u64) -> MailOp {
    MailOp::Hold(HeldRow {
        packet_id: PacketId(message(n).id),
        destination: Address(message(n % 1000).id),
        source: Address([1; 16]),
        priority: Priority::Normal,
        ingress: Address(message(n % 8).id),
        expires_s: n / 100,
        held_at_s: n,
        age_s: 0,
        frame: Bytes::from(vec![7; BODY_BYTES]),
    })
}

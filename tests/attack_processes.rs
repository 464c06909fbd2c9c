//! A-04 with real processes: four honest nodes in a line, and a fifth process that links to both ends,
//! tells each that the other is next to it, and keeps what it is given.
//!
//! What is asserted is counted, not timed.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{
    Node, PATIENCE, Spec,
    raw_peer::{NETWORK, RawPeer},
    wait_until,
};
use quicprochat_mesh::{
    crypto::{MeshIdentity, SignatureInput, compute_address, network_id},
    proto::announce::{AnnounceParts, create_announce},
    transport::{FrameParts, Link, MeshTransport, QuicOptions, QuicPort, TlsIdentity},
    wire::{Address, Announce, Capabilities, EnvelopeKind, Frame, TrafficClass},
};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

/// Messages of the flow that is watched.
const MESSAGES: usize = 50;

/// Retries within three retry periods: after 1 s, 2 s and 4 s.
const RETRIES: u64 = 3;

/// What the links of a liar share.
struct Lies {
    links: Vec<UnboundedSender<Bytes>>,
    told: Mutex<BTreeMap<Address, (u32, u32)>>,
    /// Messages that ended here.
    swallowed: AtomicU64,
}

/// Claims to be next to everyone and drops all data.
struct Liar {
    identity: MeshIdentity,
    lies: Arc<Lies>,
    // Dropping it ends the thread and with it the links.
    _stop: oneshot::Sender<()>,
}

impl Liar {
    /// Links to these nodes, over QUIC, and lies from then on.
    fn among(urls: &[String], seed: u8) -> Self {
        let identity = MeshIdentity::from_seed([seed; 32]);
        let parts = AnnounceParts {
            order: (1, 1),
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime: Duration::from_secs(1800),
            max_hops: 128,
            key_record: None,
        };
        let own = create_announce(&identity, &mut SignatureInput::new(network_id(NETWORK)), &parts);
        let first = [Frame::Hello(RawPeer::hello()).encode(), Frame::Announce(own).encode()];
        let (links, outs): (Vec<_>, Vec<_>) = urls.iter().map(|_| unbounded_channel::<Bytes>()).unzip();
        for link in &links {
            first.iter().for_each(|frame| link.send(frame.clone()).unwrap());
        }
        let lies = Arc::new(Lies { links, told: Mutex::default(), swallowed: AtomicU64::new(0) });
        let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, linked) = std::sync::mpsc::channel();
        let (urls, shared) = (urls.to_vec(), lies.clone());
        std::thread::spawn(move || {
            let driver = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            driver.block_on(async {
                let port = QuicPort::dial_only(&tls, QuicOptions::default());
                for (url, out) in urls.iter().zip(outs) {
                    let url = url.parse().unwrap();
                    let link = tokio::time::timeout(PATIENCE, port.dial(&url)).await;
                    tokio::spawn(lie(link.expect("no link in time").unwrap(), out, shared.clone()));
                }
                ready.send(()).unwrap();
                // An error is the other half's drop, which is the end as well.
                let _ = stopped.await;
            });
        });
        linked.recv_timeout(PATIENCE).expect("the liar links");
        Self { identity, lies, _stop: stop }
    }

    fn address(&self) -> String {
        self.identity.address().to_string()
    }

    fn swallowed(&self) -> u64 {
        self.lies.swallowed.load(Relaxed)
    }
}

/// One link of a liar's, to its end.
async fn lie(mut link: Link, mut out: UnboundedReceiver<Bytes>, lies: Arc<Lies>) {
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            Some(frame) = out.recv() => {
                if link.tx.send(TrafficClass::Control, &[FrameParts::whole(frame)]).await.is_err() {
                    return;
                }
            }
            read = link.rx.recv(&mut frames) => {
                if read.is_err() {
                    return;
                }
                for bytes in frames.drain(..) {
                    if let Some(answer) = lies.hear(Frame::decode(&bytes).unwrap())
                        && link.tx.send(TrafficClass::Control, &[FrameParts::whole(answer)]).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
    }
}

impl Lies {
    fn hear(&self, frame: Frame) -> Option<Bytes> {
        match frame {
            Frame::Ping(number) => return Some(Frame::Pong(number).encode()),
            Frame::Announce(announce) | Frame::PathReply(announce) => self.spread(announce),
            Frame::Envelope(envelope, _) if envelope.header().kind == EnvelopeKind::MESSAGE => {
                self.swallowed.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        None
    }

    /// Tells everyone that this origin is one link from here.
    fn spread(&self, announce: Announce) {
        let order = announce.content.order();
        let origin = compute_address(&announce.content.public_key);
        let mut told = self.told.lock().unwrap();
        let told = told.entry(origin).or_default();
        if *told < order {
            *told = order;
            let frame = Frame::Announce(Announce { hop_count: 1, ..announce }).encode();
            // A link that ended hears no more lies.
            self.links.iter().for_each(|link| drop(link.send(frame.clone())));
        }
    }
}

/// What `at` says of its way to `to`.
#[track_caller]
fn route(at: &Node, to: &Node) -> serde_json::Value {
    let to = to.address();
    at.ask(&["routes"]).into_iter().find(|route| route["destination"] == *to).expect("a route")
}

#[test]
fn a_liar_beside_a_line_of_real_nodes_costs_a_retry_or_two_and_no_message() {
    // The ends of the line with the liar: a and d. The honest way between them crosses three links.
    let d = Spec::patient("d").start();
    let c = Spec::patient("c").peer(d.url("quic")).start();
    let b = Spec::patient("b").peer(c.url("tcp")).start();
    let a = Spec::patient("a").peer(b.url("quic")).start();
    a.knows(&[&b, &c, &d]);
    d.knows(&[&a, &b, &c]);
    let liar = Liar::among(&[a.url("quic"), d.url("quic")], 66);
    // At first he is believed: by his word d is one link behind him, by b's it is two behind b.
    wait_until("the lie to be believed", || route(&a, &d)["next_hop"] == *liar.address());
    wait_until("the lie to be believed", || route(&d, &a)["next_hop"] == *liar.address());

    let mut retried = 0;
    for n in 0..MESSAGES {
        let before = liar.swallowed();
        let sent = a.deliver(&d, &format!("message {n}"));
        assert_eq!(sent["status"], "delivered", "{sent}");
        assert_eq!(sent["hops"], 3, "it went the honest way: {sent}");
        let lost = liar.swallowed() - before;
        assert!(lost <= RETRIES, "message {n} was swallowed {lost} times");
        retried += usize::from(lost > 0);
    }
    let swallowed = liar.swallowed();
    println!("{swallowed} envelopes swallowed; {retried} of {MESSAGES} messages needed a retry");
    assert!(swallowed >= 1, "nothing went to the liar: no test");
    assert!(MESSAGES - retried >= MESSAGES * 9 / 10, "{retried} messages needed a retry");

    // The other way round as well.
    for n in 0..5 {
        assert_eq!(d.deliver(&a, &format!("answer {n}"))["status"], "delivered");
    }
    let texts: Vec<_> = d.take(MESSAGES).into_iter().map(|message| message["text"].clone()).collect();
    let wanted: Vec<_> = (0..MESSAGES).map(|n| serde_json::json!(format!("message {n}"))).collect();
    assert_eq!(texts, wanted, "each once and in order");
    assert_eq!(d.inbox(), [] as [serde_json::Value; 0]);

    // His way is still there and comes behind the one that delivers.
    let way = route(&a, &d);
    assert_eq!(way["next_hop"], *b.address(), "{way}");
    assert!(way["alternatives"].as_u64() >= Some(1), "{way}");
    assert!(way["delivered_share"].as_f64() >= Some(0.9), "{way}");
    assert_eq!(a.metric("qpc_messages_ended_total", &[("outcome", "delivered")]), MESSAGES as f64);
    assert_eq!(a.metric("qpc_actor_restarts_total", &[]), 0.0);
    let links = a.ask(&["peers"]);
    assert!(
        links.iter().any(|line| line["address"] == *liar.address()),
        "a liar is doubted, not cut: {links:?}"
    );
}

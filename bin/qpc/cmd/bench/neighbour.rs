//! The neighbour that misbehaves: one process with a link of its own to the relay.
//!
//! One that sends has its frames made before anything is measured, so that what it costs the
//! machine is little more than sending; it is told by [`Order::Send`] to go on for so long and
//! answers [`Answer::Troubled`]. When its link is cut it dials again at once, as whom it was. One
//! that receives answers nothing but that it stands.

use std::time::Duration;

use bytes::Bytes;
use quicprochat_mesh::{
    api::ApiError,
    crypto::{MeshIdentity, SignatureInput, network_id, random},
    proto::delivery::batch::{Draft, sign_all, sign_one},
    transport::FrameParts,
    wire::{
        Address, Announce, Envelope, EnvelopeHeader, Frame, FrameExt, PacketId, TrafficClass,
        control::{Credit, PathRequest, Refuse, RefuseReason},
        limits::{DIGEST_ENTRIES_MAX, MAX_HOPS_MAX, WITHDRAW_ADDRESSES_MAX},
        path::{Digest, DigestEntry, Withdraw},
    },
};
use tokio::{
    sync::mpsc::error::TryRecvError,
    time::{Instant, sleep, timeout_at},
};

use super::{
    beside::Kind,
    ends::{Answer, HEADER_BYTES, Incoming, Order, Trouble, answer, noise, orders, stamp, until_eof},
    volatile::{End, NETWORK, Sink, Talk, announce_of, message_header},
};

/// Frames handed to the medium at once.
const BATCH: usize = 32;

/// Different small frames: enough that the relay has forgotten the first when it comes again.
const MANY: u32 = 20_000;

/// Different frames of which each is as good as the next.
const SOME: u32 = 512;

/// Different frames of the largest size.
const LARGE: u32 = 128;

/// Bytes a second that a slow one reads.
const SLOW_BYTES_PER_S: f64 = 1024.0;

/// A stretch of time within which whoever sends looks for what its link said.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One process that misbehaves
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    kind: Kind,
    /// URL of the relay
    #[arg(long)]
    connect: String,
    /// Where the honest messages go
    #[arg(long, default_value = "")]
    dest: String,
    /// Bytes of an honest message
    #[arg(long, default_value_t = 256)]
    payload: usize,
}

/// Runs one neighbour until its standard input ends.
pub async fn run(args: Args) -> Result<(), ApiError> {
    if args.kind.is_egress() {
        return receive(args.kind, &args.connect).await;
    }
    let seed = random::random_bytes(&mut random::os_rng());
    let mut maker = Maker {
        identity: MeshIdentity::from_seed(seed),
        input: SignatureInput::new(network_id(NETWORK)),
        sink: args.dest.parse().map_err(ApiError::failed)?,
        payload: noise(args.payload.max(HEADER_BYTES)),
    };
    let frames = maker.frames(args.kind)?;
    let mut attacker = Attacker {
        relay: args.connect,
        seed,
        talk: None,
        class: if args.kind.sends_messages() { TrafficClass::Interactive } else { TrafficClass::Control },
        frames,
        next: 0,
    };
    attacker.dial().await?;
    let mut orders = orders();
    answer(&Answer::Ready { at: String::new() })?;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Send { for_ms, .. }) => {
                    let until = Instant::now() + Duration::from_millis(for_ms);
                    answer(&Answer::Troubled(attacker.trouble(until).await))?;
                }
                Some(Order::Report { .. }) => {}
            },
            () = sleep(LOOK_EVERY) => {
                // One that is cut dials again when it is told to go on.
                attacker.look().await;
            }
        }
    }
}

/// A sink that does not do what it should.
async fn receive(kind: Kind, relay: &str) -> Result<(), ApiError> {
    let mut sink = Sink::connect(relay).await?;
    let at = sink.address().to_string();
    answer(&Answer::Ready { at })?;
    let bytes_per_s = match kind {
        Kind::Busy => f64::INFINITY,
        Kind::Slow => SLOW_BYTES_PER_S,
        // It keeps its link and its mouth shut.
        _ => {
            until_eof().await;
            return Ok(());
        }
    };
    let reads = async {
        let mut got = Vec::new();
        // Who is cut for it has nothing more to read.
        while sink.receive(&mut got).await.is_ok() {
            let bytes: usize = got.drain(..).map(|payload: Bytes| payload.len()).sum();
            sleep(Duration::from_secs_f64(bytes as f64 / bytes_per_s)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reads => {}
        () = until_eof() => {}
    }
    Ok(())
}

/// One that sends.
struct Attacker {
    relay: String,
    seed: [u8; 32],
    talk: Option<Talk>,
    class: TrafficClass,
    frames: Vec<FrameParts>,
    next: usize,
}

impl Attacker {
    async fn dial(&mut self) -> Result<(), ApiError> {
        self.talk = None;
        let end = End::connect_as(&self.relay, MeshIdentity::from_seed(self.seed)).await?;
        self.talk = Some(end.talk());
        Ok(())
    }

    /// Sends as fast as the link takes it.
    async fn trouble(&mut self, until: Instant) -> Trouble {
        let mut trouble = Trouble::default();
        while Instant::now() < until {
            if self.talk.is_none() {
                // One that is neither let in nor refused within the time was kept out too.
                match timeout_at(until, self.dial()).await {
                    Ok(Ok(())) => trouble.let_in += 1,
                    _ => trouble.kept_out += 1,
                }
                continue;
            }
            if !self.look().await {
                trouble.cut += 1;
                continue;
            }
            let Some(talk) = &mut self.talk else { continue };
            let end = self.next.saturating_add(BATCH).min(self.frames.len());
            let batch = self.frames.get(self.next..end).unwrap_or_default();
            self.next = if end == self.frames.len() { 0 } else { end };
            trouble.sent += batch.len() as u64;
            let mut rest = batch;
            loop {
                let soon = Instant::now() + LOOK_EVERY;
                match timeout_at(soon.min(until), talk.tx.send(self.class, rest)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => {
                        self.talk = None;
                        trouble.cut += 1;
                        break;
                    }
                    // The link has taken the frames, but not the medium: it goes on with those.
                    Err(_) if Instant::now() < until && !talk.said.is_closed() => rest = &[],
                    Err(_) => break,
                }
            }
        }
        trouble
    }

    /// Answers what the relay asked; false where it cut the link.
    async fn look(&mut self) -> bool {
        let Some(talk) = &mut self.talk else { return false };
        let stands = loop {
            match talk.said.try_recv() {
                Ok(said) => {
                    // Credit that is too much is the relay's mistake, and a link that is gone shows
                    // at the next look.
                    let _ = talk.hear(said).await;
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        if !stands {
            self.talk = None;
        }
        stands
    }
}

/// Makes what an attacker sends.
struct Maker {
    identity: MeshIdentity,
    input: SignatureInput,
    sink: Address,
    payload: Vec<u8>,
}

impl Maker {
    fn frames(&mut self, kind: Kind) -> Result<Vec<FrameParts>, ApiError> {
        match kind {
            Kind::Forged => self.forged(),
            Kind::Replay => (1..=SOME).map(|n| self.message(n)).collect(),
            Kind::Roots => (1..=MANY).map(|n| self.root(n)).collect(),
            Kind::Sybil => Ok((0..MANY).map(|_| self.announce()).collect()),
            Kind::Paths => Ok(many(MANY, |_| {
                let request_id = random_bytes();
                let destination = Address(random_bytes());
                Frame::PathRequest(PathRequest {
                    request_id,
                    destination,
                    max_hops: MAX_HOPS_MAX,
                    hop_count: 0,
                    newer_than: None,
                })
            })),
            Kind::Refuse => Ok(many(MANY, |_| {
                let (packet_id, reason) = (PacketId(random_bytes()), RefuseReason::Congested);
                Frame::Refuse(Refuse { packet_id, reason, retry_after_s: u16::MAX })
            })),
            Kind::Withdraw => Ok(many(LARGE, |_| {
                let mut addresses: Vec<_> =
                    (0..WITHDRAW_ADDRESSES_MAX).map(|_| Address(random_bytes())).collect();
                addresses.sort_unstable();
                Frame::Withdraw(Withdraw { addresses })
            })),
            Kind::Digests => Ok(many(LARGE, digest)),
            Kind::Credit => {
                let credit = Credit { class: TrafficClass::Interactive, bytes: u32::MAX };
                Ok(many(SOME, |_| Frame::Credit(credit)))
            }
            Kind::Garbage => Ok((0..SOME).map(|n| FrameParts::whole(noise(64 + n as usize))).collect()),
            Kind::Busy | Kind::Slow | Kind::Full | Kind::Dead => Ok(Vec::new()),
        }
    }

    fn draft(&mut self, sequence: u32) -> Draft {
        let header = self.header(sequence);
        // Of a phase before the first, so that a sink that gets it does not count it.
        stamp(&mut self.payload, 0, sequence);
        Draft::new(header, header.signed(&self.payload))
    }

    fn header(&self, sequence: u32) -> EnvelopeHeader {
        message_header(self.identity.address(), self.sink, sequence)
    }

    /// A message as anybody would send it.
    fn message(&mut self, sequence: u32) -> Result<FrameParts, ApiError> {
        let draft = self.draft(sequence);
        let made = sign_one(&self.identity, &mut self.input, draft).map_err(ApiError::failed)?;
        Ok(self.with_key(made.envelope))
    }

    /// A message under a root that no other message is under.
    fn root(&mut self, number: u32) -> Result<FrameParts, ApiError> {
        let pair = [2 * number, 2 * number + 1].map(|sequence| ((), self.draft(sequence)));
        let made = sign_all(&self.identity, &mut self.input, pair.into());
        let (_, first) = made.into_iter().next().ok_or_else(|| ApiError::failed("nothing was signed"))?;
        Ok(self.with_key(first.map_err(ApiError::failed)?.envelope))
    }

    /// Messages with the signature of another one: as dear to check as a good one.
    fn forged(&mut self) -> Result<Vec<FrameParts>, ApiError> {
        let draft = self.draft(0);
        let good = sign_one(&self.identity, &mut self.input, draft).map_err(ApiError::failed)?.envelope;
        (1..=SOME)
            .map(|sequence| {
                let header = self.header(sequence);
                let signed = header.signed(&self.payload);
                let bad = Envelope::assemble(header, &signed, good.proof().clone(), None);
                Ok(self.with_key(bad.map_err(ApiError::failed)?))
            })
            .collect()
    }

    fn with_key(&self, envelope: Envelope) -> FrameParts {
        envelope.with_source_key(self.identity.public_key()).to_frame(FrameExt::default())
    }

    /// The announce of somebody who was never heard of.
    fn announce(&mut self) -> FrameParts {
        let somebody = MeshIdentity::from_seed(random_bytes());
        // From somewhere behind this neighbour.
        let announce = Announce { hop_count: 1, ..announce_of(&somebody, &mut self.input, 1) };
        FrameParts::from(&Frame::Announce(announce))
    }
}

/// One of [`LARGE`] ranges that cover all addresses in their order, and as many origins in it as it
/// can name.
fn digest(number: u32) -> Frame {
    let at = |number: u32, place: usize| {
        let mut address = [0; 16];
        let (range, rest) = address.split_at_mut(4);
        range.copy_from_slice(&(number * (u32::MAX / LARGE)).to_be_bytes());
        rest.copy_from_slice(&[0; 12]);
        if let Some(last) = rest.last_chunk_mut::<8>() {
            *last = (place as u64).to_be_bytes();
        }
        Address(address)
    };
    let entries = (1..=DIGEST_ENTRIES_MAX)
        .map(|place| DigestEntry {
            origin: at(number, place),
            boot_epoch: 1,
            sequence: 1,
            hop_count: Some(0),
        })
        .collect();
    Frame::Digest(Digest { after: at(number, 0), through: at(number, DIGEST_ENTRIES_MAX), entries })
}

fn many(count: u32, make: impl Fn(u32) -> Frame) -> Vec<FrameParts> {
    (0..count).map(|n| FrameParts::from(&make(n))).collect()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    random::random_bytes(&mut random::os_rng())
}

#[cfg(test)]
mod tests {
    use quicprochat_mesh::{
        proto::verify::{Verifier, VerifyError, VerifyOutcome},
        wire::DecodeError,
    };

    use super::*;

    fn maker() -> Maker {
        Maker {
            identity: MeshIdentity::from_seed([1; 32]),
            input: SignatureInput::new(network_id(NETWORK)),
            sink: Address([7; 16]),
            payload: noise(100),
        }
    }

    fn decoded(frame: &FrameParts) -> Result<Frame, DecodeError> {
        Frame::decode(&frame.to_bytes())
    }

    fn judged(frame: &FrameParts) -> VerifyOutcome {
        let mut verifier = Verifier::new(Address([9; 16]), network_id(NETWORK));
        match decoded(frame) {
            Ok(Frame::Envelope(envelope, ext)) => verifier.verify(envelope, ext),
            other => panic!("{other:?} is no envelope"),
        }
    }

    #[test]
    fn what_is_forged_decodes_and_fails_and_what_is_replayed_holds() {
        for frame in maker().forged().unwrap().iter().take(3) {
            let VerifyOutcome::Failed(error) = judged(frame) else { panic!("it held") };
            assert!(matches!(error, VerifyError::Crypto(_)) && error.name() == "bad_signature", "{error}");
        }
        for frame in [maker().message(1), maker().root(1)] {
            assert!(matches!(judged(&frame.unwrap()), VerifyOutcome::Verified(_)));
        }
    }

    #[test]
    fn every_other_kind_is_what_it_says() {
        let mut maker = maker();
        let mut first = |kind| decoded(&maker.frames(kind).unwrap()[0]);
        assert!(matches!(first(Kind::Paths), Ok(Frame::PathRequest(_))));
        assert!(matches!(first(Kind::Refuse), Ok(Frame::Refuse(_))));
        assert!(matches!(first(Kind::Withdraw), Ok(Frame::Withdraw(_))));
        assert!(matches!(first(Kind::Credit), Ok(Frame::Credit(_))));
        assert!(first(Kind::Garbage).is_err());
        let announce = match decoded(&maker.announce()) {
            Ok(Frame::Announce(announce)) => announce,
            other => panic!("{other:?}"),
        };
        let mut verifier = Verifier::new(Address([9; 16]), network_id(NETWORK));
        assert!(verifier.verify_announce(announce).is_ok());
        for frame in maker.frames(Kind::Digests).unwrap() {
            assert!(matches!(decoded(&frame), Ok(Frame::Digest(d)) if d.entries.len() == DIGEST_ENTRIES_MAX));
        }
    }
}

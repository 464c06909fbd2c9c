//! `qpc contact card`: what others need to write to this node.

use std::{
    io::{IsTerminal, stdout},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use qrcode::{Color, EcLevel, QrCode};
use quicprochat_mesh::{
    api::{ApiError, Card, ErrorClass, Request, Status, card::CARD_PEERS_MAX},
    config::{ListenUrl, PeerUrl, Scheme},
    wire::{Address, PublicKey},
};
use serde::Serialize;

use crate::{call, cmd::identity, cx::Context, fail::Failure, out::note, secret::PassphraseFile};

/// Light modules around a code, without which readers do not find it (ISO/IEC 18004 asks for four).
const QUIET_ZONE: usize = 4;

const EXAMPLES: &str = "\
Examples:
  qpc contact card
  qpc contact card --peer quic://relay.example.org:7410
  qpc contact card --no-peer --json | jq -r .uri
  qpc contact add anna 'qpc:…'            what the other one does with it";

/// Print this node's card: what others need to write to it, as text and as a QR code
///
/// The card holds the address, the public key, and where this node can be dialled: the first of its
/// listeners, with this machine's address where it listens on all. Whether others reach it there
/// depends on routers and firewalls between; --peer names the place that they do reach it at. Nothing
/// in a card is secret, but it says where this node is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Put in this place to dial instead of this node's own; repeatable, at most four
    #[arg(long, value_name = "URL")]
    peer: Vec<String>,

    /// Put in no place to dial: for nodes that find a path by themselves
    #[arg(long, conflicts_with = "peer")]
    no_peer: bool,

    /// Print the QR code also where stdout is no terminal
    #[arg(long)]
    qr: bool,

    #[command(flatten)]
    passphrase: PassphraseFile,
}

#[derive(Serialize)]
struct Shown {
    uri: String,
    address: Address,
    public_key: PublicKey,
    peers: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if args.qr && cx.out.json {
        return Err(ApiError::usage("--qr is for people and --json is not: give one of them").into());
    }
    let given: Vec<PeerUrl> =
        args.peer.iter().map(|url| url.parse()).collect::<Result<_, _>>().map_err(ApiError::usage)?;
    if given.len() > CARD_PEERS_MAX {
        return Err(ApiError::usage(format!("a card has at most {CARD_PEERS_MAX} places to dial")).into());
    }
    let key = match identity::running_key(cx).await {
        Some(key) => key,
        None => identity::open(cx, args.passphrase.path())?.public_key(),
    };
    let peers = match (args.no_peer, given.is_empty()) {
        (true, _) => Vec::new(),
        (false, false) => given,
        (false, true) => own_place(cx).await?.into_iter().collect(),
    };
    let card = Card::new(key, peers).map_err(|e| ApiError::usage(format!("no card can be made: {e}")))?;
    let shown = Shown {
        uri: card.to_string(),
        address: card.address(),
        public_key: key,
        peers: card.peers().iter().map(PeerUrl::to_string).collect(),
    };
    let is_terminal = stdout().is_terminal();
    cx.out.show(&shown, |s| match args.qr || is_terminal {
        true => format!("{}\n{}", s.uri, qr(&s.uri, is_terminal).unwrap_or_default()),
        false => s.uri.clone(),
    })
}

/// Where this node can be dialled, as far as it can tell.
async fn own_place(cx: &Context) -> Result<Option<PeerUrl>, Failure> {
    let listen = match call::one::<Status>(cx, &Request::Status).await {
        Ok(status) => status.listen.iter().filter_map(|url| url.parse().ok()).collect(),
        Err(Failure::Api(error)) if error.class == ErrorClass::NoNode => {
            cx.layers()?.load()?.config.listen_urls()
        }
        Err(other) => return Err(other),
    };
    let place = choose(&listen, outgoing(), |host| host.parse().ok());
    match place.as_ref().map(|url| url.host.parse::<IpAddr>()) {
        None => {
            note("the card says nothing of where to dial this node: give --peer URL, or --no-peer to say so")
        }
        Some(Ok(ip)) if ip.is_loopback() => {
            note(format!("{ip} is this machine for itself only: give --peer URL for others"));
        }
        Some(Ok(ip)) if is_private(ip) => {
            note(format!("{ip} is reached within your own network only: give --peer URL for others"));
        }
        Some(_) => {}
    }
    Ok(place)
}

/// The first listener over QUIC, or else the first of all, with an address instead of "all of them".
fn choose(
    listen: &[ListenUrl],
    outgoing: [Option<IpAddr>; 2],
    ip_of: impl Fn(&str) -> Option<IpAddr>,
) -> Option<PeerUrl> {
    let mut sorted: Vec<&ListenUrl> = listen.iter().filter(|url| url.port != 0).collect();
    sorted.sort_by_key(|url| url.scheme != Scheme::Quic);
    sorted.into_iter().find_map(|url| {
        let [v4, v6] = outgoing;
        let host = match ip_of(&url.host) {
            // A listener on [::] takes both families.
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => better(v4, v6)?.to_string(),
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => v4?.to_string(),
            _ => url.host.clone(),
        };
        Some(PeerUrl { scheme: url.scheme, host, port: url.port, pin: None })
    })
}

/// One that others reach rather than one that they do not; of two such, the older family.
fn better(v4: Option<IpAddr>, v6: Option<IpAddr>) -> Option<IpAddr> {
    match (v4, v6) {
        (Some(v4), Some(v6)) if is_private(v4) && !is_private(v6) => Some(v6),
        (v4, v6) => v4.or(v6),
    }
}

/// The addresses that this machine has towards the rest of the world. Nothing is sent: connecting a
/// UDP socket only asks for a route. The addresses asked about are those of documentation (RFC 5737,
/// RFC 3849), which are nobody's.
fn outgoing() -> [Option<IpAddr>; 2] {
    let v4 = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)));
    let v6 =
        (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
    [v4, v6].map(|(any, there)| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(there, 9)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    })
}

/// True for addresses that mean something within one network only.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // The last are those that providers put behind their own address translation (RFC 6598).
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// A QR code of half blocks, two rows of modules a line. On a terminal black and white are said
/// outright, since readers want dark on light whatever the terminal's own colours are; else light
/// modules are full blocks, for terminals with a dark ground.
fn qr(text: &str, is_terminal: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let colors = code.to_colors();
    let side = width.checked_add(2 * QUIET_ZONE)?;
    let is_light = |x: usize, y: usize| {
        let inside = x.checked_sub(QUIET_ZONE).zip(y.checked_sub(QUIET_ZONE));
        let inside = inside.filter(|(x, y)| *x < width && *y < width);
        inside.and_then(|(x, y)| colors.get(y * width + x)).is_none_or(|color| *color == Color::Light)
    };
    let (on, off) = match is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        true => ("\u{1b}[38;5;231;48;5;16m", "\u{1b}[0m"),
        false => ("", ""),
    };
    let mut out = String::new();
    for y in (0..side).step_by(2) {
        out.push_str(on);
        for x in 0..side {
            out.push(match (is_light(x, y), is_light(x, y.saturating_add(1))) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push_str(off);
        out.push('\n');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(urls: &[&str]) -> Vec<ListenUrl> {
        urls.iter().map(|url| url.parse().unwrap()).collect()
    }

    #[test]
    fn a_place_is_one_that_others_can_dial() {
        let private: Option<IpAddr> = "192.168.1.2".parse().ok();
        let public: Option<IpAddr> = "2001:db8::7".parse().ok();
        let chosen = |urls: &[&str], outgoing| {
            choose(&listen(urls), outgoing, |host| host.parse().ok()).map(|url| url.to_string())
        };
        let both = [private, public];
        for (urls, outgoing, wanted) in [
            (&["tcp://[::]:7410", "quic://[::]:7410"][..], both, Some("quic://[2001:db8::7]:7410")),
            (&["quic://[::]:7410"], [private, None], Some("quic://192.168.1.2:7410")),
            (&["quic://0.0.0.0:7410"], both, Some("quic://192.168.1.2:7410")),
            (&["quic://0.0.0.0:7410"], [None, public], None),
            (&["quic://[::]:7410"], [None, None], None),
            (&["quic://0.0.0.0:7410", "tcp://127.0.0.1:5"], [None, None], Some("tcp://127.0.0.1:5")),
            (&["tcp://node.example.org:5"], [None, None], Some("tcp://node.example.org:5")),
            (&["quic://[::]:0"], both, None),
            (&[], both, None),
        ] {
            assert_eq!(chosen(urls, outgoing).as_deref(), wanted, "{urls:?}");
        }
    }

    #[test]
    fn a_code_is_square_and_has_light_around_it() {
        let text = qr("qpc:0123456789abcdef0123456789abcdef", false).unwrap();
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let side = lines[0].len();
        assert_eq!(side.div_ceil(2), lines.len());
        let full = |line: &[char]| line.iter().all(|c| *c == '█');
        assert!(full(&lines[0]) && full(&lines[1]), "{text}");
        assert!(lines.iter().all(|line| full(&line[..QUIET_ZONE]) && full(&line[side - QUIET_ZONE..])));
        // The finder pattern's first row is seven dark modules, below it a light ring.
        assert_eq!(lines[2][QUIET_ZONE..QUIET_ZONE + 7].iter().collect::<String>(), " ▄▄▄▄▄ ");
        assert!(qr(&"x".repeat(5000), false).is_none(), "what does not fit is no code");
    }

    #[test]
    fn on_a_terminal_colours_are_said_outright() {
        let text = qr("qpc:", true).unwrap();
        assert!(
            text.lines()
                .all(|line| line.starts_with("\u{1b}[38;5;231;48;5;16m") && line.ends_with("\u{1b}[0m"))
        );
    }
}

//! `qpc health`: asks the node's own health endpoint, for containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use quicprochat_mesh::{
    api::{ApiError, ErrorClass, NodeState, Ready},
    config::HealthListen,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    cx::Context,
    fail::Failure,
    human,
    ink::{Ink, paint},
};

/// The ready object of the running node, in its data directory.
pub const RECORD_NAME: &str = "node.json";

/// How long the endpoint may take; it cuts off slow clients after the same time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer read, head and body.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

const EXAMPLES: &str = "\
Examples:
  qpc health                                 exit 0 when the node is ready
  qpc health --data-dir /var/lib/qpc --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let addr = endpoint(cx)?;
    let (status, body) = match timeout(TIMEOUT, get(addr, "/healthz")).await {
        Ok(answer) => answer.map_err(|error| refusal(cx, addr, &error))?,
        Err(_) => {
            return Err(
                ApiError::failed(format!("the health endpoint {addr} did not answer within 5 s")).into()
            );
        }
    };
    let object: Value = serde_json::from_str(&body)
        .ok()
        .filter(|object: &Value| object.get("status").is_some())
        .ok_or_else(|| ApiError::failed(format!("what answers on {addr} (HTTP {status}) is no node")))?;
    cx.out.show(&object, tell)?;
    if status == 200 { Ok(()) } else { Err(Failure::Said(ErrorClass::Failed)) }
}

/// What the running node wrote down of itself, or one that was killed.
pub(super) fn record(cx: &Context) -> Option<Ready> {
    let json = std::fs::read(cx.data_dir.join(RECORD_NAME)).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Where the endpoint is: what the running node wrote down, else what it is configured to.
fn endpoint(cx: &Context) -> Result<SocketAddr, Failure> {
    let off = || {
        ApiError::failed("the health endpoint is off: give `qpc run` --health-listen or set health.listen")
    };
    let addr = match record(cx) {
        Some(ready) => ready.health.as_deref().and_then(|h| h.parse().ok()).ok_or_else(off)?,
        None => match cx.layers()?.load()?.config.health.listen {
            HealthListen::At(addr) => addr,
            HealthListen::Off => return Err(off().into()),
        },
    };
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, addr.port()))
}

fn refusal(cx: &Context, addr: SocketAddr, error: &std::io::Error) -> ApiError {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ApiError::no_node(format!(
            "no node is running for {}: nothing answers on its health endpoint {addr}",
            cx.data_dir.display()
        )),
        _ => ApiError::failed(format!("the health endpoint {addr}: {error}")),
    }
}

/// Status code and body of `GET` of a path of a node's health port.
pub(super) async fn get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr).await?;
    // The endpoint's bodies have a length, never chunks: the body is what comes until the end.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| std::io::Error::other("the answer is no HTTP"))
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body.to_owned()))
}

fn tell(health: &Value) -> String {
    let word = |value: &Value| {
        let state = serde_json::from_value::<NodeState>(value.clone()).ok();
        paint(state.map(Ink::of_state), &human::escape(value.as_str().unwrap_or("-")))
    };
    let mut lines = vec![("state", health.get("status").map_or("-".into(), word))];
    if let Some(parts) = health.get("subsystems").and_then(Value::as_object) {
        for (name, part) in parts {
            let detail = part.get("detail").and_then(Value::as_str);
            let detail = detail.map(|d| format!(" ({})", human::escape(d))).unwrap_or_default();
            let status = part.get("status").map_or("-".into(), word);
            lines.push((name.as_str(), format!("{status}{detail}")));
        }
    }
    human::fields(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_split_and_garbage_is_refused() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\n{\"status\":\"draining\"}";
        assert_eq!(parse(answer), Some((503, "{\"status\":\"draining\"}".into())));
        for garbage in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(parse(garbage), None);
        }
    }
}

//! From a URL to a connection: resolve at each dial, try what the resolver says, keep the first.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{Target, TransportAddr, TransportError};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Head start of an address over the next (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The socket addresses of `url`, in the order of preference.
pub(super) async fn resolve(url: &TransportAddr) -> Result<Vec<SocketAddr>, TransportError> {
    let (name, port) = match url.target() {
        Target::Socket(at) => return Ok(vec![*at]),
        Target::Host { name, port } => (name, *port),
        Target::Name(name) => {
            return Err(TransportError::Resolve {
                host: name.clone(),
                detail: "this medium has no hosts".into(),
            });
        }
    };
    let failed = |detail: String| TransportError::Resolve { host: name.clone(), detail };
    let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(|e| failed(e.to_string()))?;
    let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if found.is_empty() { Err(failed("it has no addresses".into())) } else { Ok(found) }
}

/// The first success among attempts that start one after the other, each when the one before it
/// failed or had its head start. Of failures the most telling is returned: the peer's before the
/// network's, the first before later ones.
pub(super) async fn race<T, Attempt>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> Attempt,
) -> Result<T, TransportError>
where
    Attempt: Future<Output = Result<T, TransportError>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failure: Option<TransportError> = None;
    loop {
        running.extend(waiting.next().map(&attempt));
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            done = running.next() => match done {
                Some(Ok(won)) => return Ok(won),
                Some(Err(error)) => {
                    let known = failure.as_ref().is_some_and(|f| f.is_peer_fault() >= error.is_peer_fault());
                    failure = if known { failure } else { Some(error) };
                }
                None => return Err(failure.unwrap_or(TransportError::PortClosed)),
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_silent_delays_the_next_by_its_head_start_only() {
        let began = tokio::time::Instant::now();
        let won = race(
            addresses(&[1, 2]),
            async |at: SocketAddr| {
                if at.port() == 1 { pending().await } else { Ok(at.port()) }
            },
        );
        assert_eq!(won.await, Ok(2));
        assert_eq!(began.elapsed(), HEAD_START);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_start_the_next_at_once_and_the_most_telling_is_reported() {
        let began = tokio::time::Instant::now();
        let lost = race::<(), _>(addresses(&[1, 2, 3]), async |at: SocketAddr| {
            Err(match at.port() {
                1 => TransportError::lost("first"),
                2 => TransportError::Protocol { detail: "second" },
                _ => TransportError::lost("third"),
            })
        });
        assert_eq!(lost.await, Err(TransportError::Protocol { detail: "second" }));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_named() {
        let url: TransportAddr = "tcp://no-such-host.invalid:1".parse().unwrap();
        let error = resolve(&url).await.expect_err("the name is reserved");
        assert!(matches!(&error, TransportError::Resolve { host, .. } if host == "no-such-host.invalid"));
        assert!(!error.is_peer_fault());
    }
}

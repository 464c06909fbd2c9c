//! Why an address could not be bound, in words that help.

use std::{fmt::Display, io};

/// Says why listening on `what` (a URL or `health endpoint IP:PORT`) failed and which flag or key
/// changes it (`--listen`, `--health-listen`).
pub fn explain(what: impl Display, flag: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is taken by another program, perhaps another node: stop it, or choose another port with \
             {flag} (port 0 takes any free one)"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege: choose a higher one with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: choose one it has with {flag}, or [::] for all")
        }
        _ => format!("{error}: change it with {flag}"),
    };
    format!("cannot listen on {what}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_explained() {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = std::net::TcpListener::bind(first.local_addr().unwrap()).unwrap_err();
        let text = explain("tcp://127.0.0.1:7410", "--listen", &error);
        assert!(text.contains("taken by another program") && text.contains("--listen"), "{text}");
    }
}

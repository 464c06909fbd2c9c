//! Where the tasks of QUIC run.

use std::{io, net::UdpSocket, pin::Pin, sync::Arc, time::Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use crate::transport::lanes::{Spawn, Task, spawn_here};

/// Tokio's timers and sockets. What drives a connection runs on the lane that its handshake was
/// begun on; what drives a socket runs at home.
#[derive(Debug)]
pub(super) struct LinkRuntime {
    pub(super) home: Spawn,
}

impl Runtime for LinkRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Task) {
        spawn_here(&self.home, task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

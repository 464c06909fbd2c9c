//! Datagrams to whoever listens on one interface, and from there: what carries beacons.
//!
//! A socket is bound to its group's address, so it takes nothing that was sent to this machine alone
//! and came from afar; it sends with a hop limit of one; and it takes nothing from an address that is
//! not of its interface's networks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::interfaces::Interface;

/// The group of IPv4: of those that nobody registers, in the local scope (RFC 2365).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 74, 12);

/// The group of IPv6: not registered, of link-local scope (RFC 4291 section 2.7).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0, 0x7412);

/// The largest datagram that is read; what is longer is cut, and so is none of ours.
const DATAGRAM_BYTES_MAX: usize = 256;

/// A socket for one interface and one family.
#[derive(Debug)]
pub struct GroupSocket {
    socket: UdpSocket,
    group: SocketAddr,
    interface: Interface,
}

impl GroupSocket {
    /// Joins the group on this interface, at this port. `local` is the address of the interface that
    /// datagrams go out from, its family that of the group. Belongs to the runtime it is opened in.
    ///
    /// # Errors
    /// What the system says: no such address, no multicast, no permission.
    pub fn open(interface: &Interface, local: IpAddr, port: u16) -> io::Result<Self> {
        let domain = if local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // Several nodes of one machine hear the same group.
        socket.set_reuse_address(true)?;
        #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        let group = match local {
            IpAddr::V4(v4) => {
                // Else it would hear what other sockets joined on other interfaces.
                #[cfg(any(target_os = "linux", target_os = "android"))]
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_ttl_v4(1)?;
                socket.set_multicast_loop_v4(true)?;
                socket.set_multicast_if_v4(&v4)?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface.index))?;
                SocketAddr::from((GROUP_V4, port))
            }
            IpAddr::V6(_) => {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                socket.set_multicast_all_v6(false)?;
                socket.set_only_v6(true)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_multicast_loop_v6(true)?;
                socket.set_multicast_if_v6(interface.index)?;
                socket.join_multicast_v6(&GROUP_V6, interface.index)?;
                SocketAddrV6::new(GROUP_V6, port, 0, interface.index).into()
            }
        };
        socket.bind(&group.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, group, interface: interface.clone() })
    }

    /// Sends to the group, without waiting.
    ///
    /// # Errors
    /// What the system says; a full queue as well.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // Past the runtime, which would want to have seen the socket writable before.
        SockRef::from(&self.socket).send_to(datagram, &self.group.into()).map(|_| ())
    }

    /// The next datagram from a network of this interface, and where it came from. Dropping the
    /// future loses none.
    ///
    /// # Errors
    /// What the system says, such as that the interface is gone.
    pub async fn recv(&self) -> io::Result<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await?;
            let is_near = match from.ip() {
                // Whatever networks there are, this is on the link.
                IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
                ip => self.interface.reaches(ip),
            };
            if is_near {
                return Ok((from, buffer.get(..length).unwrap_or(&[]).to_vec()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transport::interfaces::interfaces;

    /// Of an interface that carries multicast, where this machine has one.
    fn local() -> Option<(Interface, IpAddr)> {
        let fitting = interfaces().unwrap().into_iter().filter(|i| i.is_multicast && !i.is_loopback);
        fitting
            .filter_map(|i| i.addresses.iter().map(|(ip, _)| *ip).find(IpAddr::is_ipv4).map(|ip| (i, ip)))
            .next()
    }

    #[tokio::test]
    async fn two_sockets_of_one_machine_hear_each_other() {
        let Some((interface, ip)) = local() else {
            return eprintln!("no interface here carries multicast: nothing to test");
        };
        // No other test uses this port.
        let sockets = [(); 2].map(|()| GroupSocket::open(&interface, ip, 17_412).unwrap());
        sockets[0].send(b"hello").unwrap();
        for socket in &sockets {
            let heard = tokio::time::timeout(Duration::from_secs(20), socket.recv()).await.unwrap();
            let (from, datagram) = heard.unwrap();
            assert_eq!((from.ip(), &datagram[..]), (ip, &b"hello"[..]));
        }
    }

    #[tokio::test]
    async fn what_was_sent_to_this_machine_alone_is_not_heard() {
        let Some((interface, ip)) = local() else {
            return eprintln!("no interface here carries multicast: nothing to test");
        };
        let socket = GroupSocket::open(&interface, ip, 17_413).unwrap();
        let other = std::net::UdpSocket::bind((ip, 0)).unwrap();
        // Nobody listens there, which may come back as an error.
        let _ = other.send_to(b"alone", (ip, 17_413));
        socket.send(b"all").unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(20), socket.recv()).await.unwrap();
        assert_eq!(heard.unwrap().1, b"all");
    }
}

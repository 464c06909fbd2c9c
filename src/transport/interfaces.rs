//! The interfaces of this machine and their addresses, as the system lists them now.

use std::{io, net::IpAddr};

/// One interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, from the system's administrator.
    pub name: String,
    /// Its number, the scope of link-local addresses on it.
    pub index: u32,
    /// Leads nowhere but to this machine.
    pub is_loopback: bool,
    /// Carries multicast.
    pub is_multicast: bool,
    /// Addresses with the lengths of their prefixes, in the system's order.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// True where `ip` is in a network of this interface.
    pub fn reaches(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(own, prefix)| is_in_prefix(ip, *own, *prefix))
    }
}

/// All interfaces that are up and have an address, by number.
///
/// # Errors
/// What the system says, or that it cannot be asked here.
#[cfg(unix)]
pub fn interfaces() -> io::Result<Vec<Interface>> {
    use nix::{
        ifaddrs::getifaddrs,
        net::if_::{InterfaceFlags, if_nametoindex},
        sys::socket::SockaddrStorage,
    };

    let ip_of = |address: Option<SockaddrStorage>| -> Option<IpAddr> {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let mut found: Vec<Interface> = Vec::new();
    for line in getifaddrs()? {
        let Some(ip) = ip_of(line.address).filter(|_| line.flags.contains(InterfaceFlags::IFF_UP)) else {
            continue;
        };
        let prefix = ip_of(line.netmask).map_or(0, prefix_of);
        if let Some(known) = found.iter_mut().find(|known| known.name == line.interface_name) {
            known.addresses.push((ip, prefix));
            continue;
        }
        // One that went away meanwhile has no number any more.
        let Ok(index) = if_nametoindex(line.interface_name.as_str()) else { continue };
        found.push(Interface {
            index,
            is_loopback: line.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            is_multicast: line.flags.contains(InterfaceFlags::IFF_MULTICAST),
            name: line.interface_name,
            addresses: vec![(ip, prefix)],
        });
    }
    found.sort_by_key(|interface| interface.index);
    Ok(found)
}

/// All interfaces that are up and have an address, by number.
///
/// # Errors
/// Always, on this system.
#[cfg(not(unix))]
pub fn interfaces() -> io::Result<Vec<Interface>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system's interfaces cannot be listed"))
}

/// Leading ones of a netmask.
fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    };
    // At most 128.
    ones as u8
}

fn is_in_prefix(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (bits, different) = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32, (a.to_bits() ^ b.to_bits()).leading_zeros()),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, (a.to_bits() ^ b.to_bits()).leading_zeros()),
        _ => return false,
    };
    // A prefix of none would be every address: an interface without a network reaches itself alone.
    let prefix = if prefix == 0 { bits } else { u32::from(prefix).min(bits) };
    different >= prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let found = interfaces().unwrap();
        let loopback = found.iter().find(|interface| interface.is_loopback);
        if let Some(loopback) = loopback {
            assert!(loopback.index > 0);
            assert!(loopback.addresses.iter().all(|(ip, _)| ip.is_loopback()), "{loopback:?}");
            assert!(
                loopback.reaches("127.0.0.1".parse().unwrap()) || loopback.reaches("::1".parse().unwrap())
            );
        }
    }

    #[test]
    fn an_interface_reaches_its_networks() {
        let network = |text: &str, prefix| (text.parse().unwrap(), prefix);
        let interface = Interface {
            name: "eth0".into(),
            index: 2,
            is_loopback: false,
            is_multicast: true,
            addresses: vec![network("192.0.2.7", 25), network("2001:db8::7", 64), network("198.51.100.1", 0)],
        };
        for (ip, reached) in [
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", false),
            ("198.51.100.1", true),
            ("198.51.100.2", false),
        ] {
            assert_eq!(interface.reaches(ip.parse().unwrap()), reached, "{ip}");
        }
    }
}

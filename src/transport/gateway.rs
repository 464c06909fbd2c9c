//! The router of the local network: which one, and how it is asked for ports (PCP, RFC 6887; where it
//! knows that not, NAT-PMP, RFC 6886).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{GATEWAY_PORT, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, natpmp};

/// The routing table of Linux.
const ROUTES: &str = "/proc/net/route";

/// The default gateway of IPv4.
///
/// # Errors
/// There is none, or this system does not tell.
pub fn default_gateway() -> io::Result<Ipv4Addr> {
    let routes = std::fs::read_to_string(ROUTES)?;
    gateway_in(&routes).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no default gateway"))
}

/// The gateway of the default route with the lowest metric in such a table.
fn gateway_in(routes: &str) -> Option<Ipv4Addr> {
    /// The route goes through a gateway.
    const RTF_GATEWAY: u32 = 2;

    let lines = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let is_default = number(1)? == 0 && number(7)? == 0 && number(3)? & RTF_GATEWAY != 0;
        let metric: u32 = fields.get(6)?.parse().ok()?;
        // As it lies in memory, read as a number of this machine.
        is_default.then_some((metric, Ipv4Addr::from(number(2)?.to_ne_bytes())))
    });
    lines.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// A router, and the address that it knows this machine by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    router: IpAddr,
    own: IpAddr,
}

/// A port that a router passes on to this machine.
#[derive(Debug)]
pub struct Mapped {
    mapping: PortMapping,
    /// Where it is reached from outside.
    pub external: SocketAddr,
}

impl Mapped {
    async fn of(mapping: PortMapping) -> Result<Self, String> {
        let ip = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
            PortMappingType::NatPmp => {
                let options = Some(natpmp::TIMEOUT_CONFIG_DEFAULT);
                let told = natpmp::external_address(mapping.gateway(), options).await;
                IpAddr::V4(told.map_err(|error| error.to_string())?)
            }
        };
        if ip.is_unspecified() {
            return Err("it has no address outside yet".to_owned());
        }
        let external = (ip, mapping.external_port().get()).into();
        Ok(Self { mapping, external })
    }

    /// The same for another lifetime, asked for by whoever got the first: another could not.
    ///
    /// # Errors
    /// What the router or the network says, for people.
    pub async fn renewed(&self) -> Result<Self, String> {
        let mut mapping = self.mapping.clone();
        mapping.renew().await.map_err(|error| error.to_string())?;
        Self::of(mapping).await
    }

    /// The router that granted it.
    pub fn router(&self) -> IpAddr {
        self.mapping.gateway().into()
    }

    /// How long the router keeps it.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.mapping.lifetime().into())
    }

    /// Has the router forget it.
    ///
    /// # Errors
    /// What the router or the network says, for people.
    pub async fn remove(self) -> Result<(), String> {
        self.mapping.try_drop().await.map_err(|(error, _)| error.to_string())
    }
}

impl Gateway {
    /// This router.
    ///
    /// # Errors
    /// There is no way to it.
    pub fn new(router: IpAddr) -> io::Result<Self> {
        let any: IpAddr = if router.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        // Sends nothing: it has the system choose the way.
        socket.connect((router, GATEWAY_PORT))?;
        Ok(Self { router, own: socket.local_addr()?.ip() })
    }

    /// Asks for `port`, of UDP or TCP, for `lifetime`, under the same number outside if it is free there.
    /// Takes some seconds where nobody answers.
    ///
    /// # Errors
    /// What the router or the network says, for people.
    pub async fn map(&self, udp: bool, port: NonZeroU16, lifetime: Duration) -> Result<Mapped, String> {
        let protocol = if udp { InternetProtocol::Udp } else { InternetProtocol::Tcp };
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: Some(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            timeout_config: Some(natpmp::TIMEOUT_CONFIG_DEFAULT),
        };
        let mapping = PortMapping::new(self.router.into(), self.own, protocol, port, options)
            .await
            .map_err(|error| error.to_string())?;
        Mapped::of(mapping).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    #[test]
    fn the_default_gateway_is_that_of_the_lowest_metric() {
        let in_memory = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let (first, second) = (in_memory([192, 0, 2, 1]), in_memory([198, 51, 100, 1]));
        let table = format!(
            "{HEAD}wlan0\t00000000\t{second}\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{first}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
        );
        assert_eq!(gateway_in(&table), Some(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn a_table_without_one_and_noise_have_none() {
        for table in [
            "",
            HEAD,
            "no\ntable\n",
            &format!("{HEAD}tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"),
        ] {
            assert_eq!(gateway_in(table), None, "{table}");
        }
    }
}

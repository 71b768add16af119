use std::net::{IpAddr, SocketAddr};
#[cfg(any(target_os = "linux", test))]
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

/// A way to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The router, if there is one; with the number of the device where its address means something there only. Port 0.
    pub gateway: Option<SocketAddr>,
    /// The network device.
    pub device: String,
    metric: u32,
}

/// Whether this system tells them. Where it does not, there is none in the lists below.
pub const TELLS_ROUTES: bool = cfg!(target_os = "linux");

/// The ways to the internet over IPv4, the preferred one first.
pub fn default_routes_v4() -> Vec<DefaultRoute> {
    #[cfg(target_os = "linux")]
    return std::fs::read_to_string("/proc/net/route").map(|text| parse_v4(&text)).unwrap_or_default();
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// The same over IPv6.
pub fn default_routes_v6() -> Vec<DefaultRoute> {
    #[cfg(target_os = "linux")]
    return std::fs::read_to_string("/proc/net/ipv6_route")
        .map(|text| parse_v6(&text, device_number))
        .unwrap_or_default();
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

#[cfg(target_os = "linux")]
fn device_number(name: &str) -> Option<u32> {
    let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(any, name).ok()
}

/// The route is in use.
#[cfg(any(target_os = "linux", test))]
const UP: u32 = 1;
/// It leads to a router.
#[cfg(any(target_os = "linux", test))]
const VIA_GATEWAY: u32 = 2;
/// Whatever takes it is refused.
#[cfg(any(target_os = "linux", test))]
const REJECT: u32 = 0x200;

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, numbers in hex, addresses as the machine stores them.
#[cfg(any(target_os = "linux", test))]
fn parse_v4(text: &str) -> Vec<DefaultRoute> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let [device, destination, gateway, flags, _, _, metric, mask] = fields(line)?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        if destination != "00000000" || mask != "00000000" || flags & UP == 0 || flags & REJECT != 0 {
            return None;
        }
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let gateway = (flags & VIA_GATEWAY != 0).then(|| SocketAddr::new(gateway.into(), 0));
        Some(DefaultRoute { gateway, device: device.to_owned(), metric: metric.parse().ok()? })
    });
    sorted(routes.collect())
}

/// `destination prefix source prefix gateway metric references use flags device`, all in hex.
#[cfg(any(target_os = "linux", test))]
fn parse_v6(text: &str, number_of: impl Fn(&str) -> Option<u32>) -> Vec<DefaultRoute> {
    let routes = text.lines().filter_map(|line| {
        let [destination, prefix, _, source_prefix, gateway, metric, _, _, flags, device] = fields(line)?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let all = destination.bytes().all(|digit| digit == b'0') && prefix == "00" && source_prefix == "00";
        if !all || flags & UP == 0 || flags & REJECT != 0 || device == "lo" {
            return None;
        }
        let gateway = Ipv6Addr::from_bits(u128::from_str_radix(gateway, 16).ok()?);
        let gateway = if flags & VIA_GATEWAY != 0 {
            let scope = if gateway.is_unicast_link_local() { number_of(device)? } else { 0 };
            Some(SocketAddrV6::new(gateway, 0, 0, scope).into())
        } else {
            None
        };
        Some(DefaultRoute { gateway, device: device.to_owned(), metric: u32::from_str_radix(metric, 16).ok()? })
    });
    sorted(routes.collect())
}

#[cfg(any(target_os = "linux", test))]
fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split_whitespace().take(N).collect::<Vec<_>>().try_into().ok()
}

#[cfg(any(target_os = "linux", test))]
fn sorted(mut routes: Vec<DefaultRoute>) -> Vec<DefaultRoute> {
    routes.sort_by_key(|route| route.metric);
    routes
}

impl DefaultRoute {
    /// The router's address.
    pub fn gateway_ip(&self) -> Option<IpAddr> {
        self.gateway.map(|gateway| gateway.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_over_ipv4() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                    eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                    eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                    tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n\
                    tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
                    gone\t00000000\t0101A8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n\
                    x\n";
        let routes = parse_v4(text);
        let gateways: Vec<_> = routes.iter().map(|r| (r.device.as_str(), r.gateway_ip())).collect();
        let at = |last: u8| Some(IpAddr::from([192, 168, 1, last]));
        // The numbers are in the order of the machine's bytes.
        if cfg!(target_endian = "little") {
            assert_eq!(gateways, [("tun0", None), ("eth0", at(254)), ("wlan0", at(1))]);
        }
    }

    #[test]
    fn routes_over_ipv6() {
        let zero = "0".repeat(32);
        let text = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 20010db8000000000000000000000001 00000100 00000003 00000000 00000003     eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n"
        );
        let routes = parse_v6(&text, |name| (name == "eth0").then_some(7));
        let gateways: Vec<_> = routes.iter().map(|r| r.gateway.unwrap().to_string()).collect();
        assert_eq!(gateways, ["[2001:db8::1]:0", "[fe80::1%7]:0"]);
    }
}

//! Where HTTP requests may go: [`HttpPolicy`], pure rules.
//!
//! A host is *named by the user* (a flag, a setting, a `docker://` source) or a *stranger* (learned from DNS, a document, a
//! redirect). A stranger is asked over https only and, in [`Reach::Public`], at globally routable addresses only, so that
//! nothing on the network can make this machine talk to its own or its neighbours' services. A host named by the user may
//! be asked over http, and at any address within the reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::addresses::NetworkMode;
use crate::limits;

/// Most redirects that one request follows.
const REDIRECTS: usize = 5;
/// The longest time for one connection to come up.
const CONNECT: Duration = Duration::from_secs(15);

/// How far HTTP clients reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// 127.0.0.0/8 and `::1` only.
    Loopback,
    /// Also private, unique local and link-local addresses.
    Lan,
    /// Everything; strangers at globally routable addresses only.
    #[default]
    Public,
}

impl From<&NetworkMode> for Reach {
    /// A private network keeps its peers to itself; what HTTP may reach is not limited by that.
    fn from(mode: &NetworkMode) -> Self {
        match mode {
            NetworkMode::Loopback => Self::Loopback,
            NetworkMode::Lan => Self::Lan,
            NetworkMode::Private(_) | NetworkMode::Public => Self::Public,
        }
    }
}

/// The bounds of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpPolicy {
    /// How far it reaches.
    pub reach: Reach,
    /// Hosts that the user named, lower case, without ports.
    pub named: Vec<String>,
    /// Most redirects of one request.
    pub redirects: usize,
    /// The longest time without any progress of a request or a body.
    pub stall: Duration,
    /// The longest time for one connection to come up.
    pub connect: Duration,
}

impl HttpPolicy {
    /// The usual bounds, with no host named.
    pub fn new(reach: Reach) -> Self {
        Self { reach, named: Vec::new(), redirects: REDIRECTS, stall: limits::STALL, connect: CONNECT }
    }

    /// The same with one more host named by the user. `host` may carry a port, which is ignored.
    #[must_use]
    pub fn naming(mut self, host: &str) -> Self {
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or(host),
            None => host,
        };
        let bare = bare.to_ascii_lowercase();
        if !self.named.contains(&bare) {
            self.named.push(bare);
        }
        self
    }

    /// The same with the host of a URL named by the user, if it has one.
    #[must_use]
    pub fn naming_url(self, url: &str) -> Self {
        match reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)) {
            Some(host) => self.naming(&host),
            None => self,
        }
    }

    /// Whether the user named this host.
    pub fn is_named(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let within = |named: &str| {
            // RFC 6761, section 6.3: whatever is below it is this machine, too. Gateways redirect there.
            named == "localhost" && bare.to_ascii_lowercase().ends_with(".localhost")
        };
        self.named.iter().any(|named| named.eq_ignore_ascii_case(bare) || within(named))
    }

    /// Whether an address of a host may be connected to.
    pub fn permits(&self, ip: IpAddr, named: bool) -> bool {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return false;
        }
        match self.reach {
            Reach::Loopback => ip.is_loopback(),
            Reach::Lan => ip.is_loopback() || is_local(ip),
            Reach::Public => named || is_global(ip),
        }
    }
}

/// Private, unique local and link-local addresses.
pub(super) fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether an address is globally routable (IANA special-purpose address registries, RFC 6890).
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => is_global_v6(ip),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !(special
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast())
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    match segments {
        // NAT64 (RFC 6052) leads to the embedded address.
        // 6to4 (RFC 3056), likewise.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            is_global_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Teredo and the rest of 2001::/23, and documentation.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        // Global unicast (RFC 4291); everything else is special or not assigned.
        [first, ..] => first & 0xe000 == 0x2000 && first & 0xfff0 != 0x3ff0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_addresses() {
        for good in ["8.8.8.8", "193.0.6.139", "2a00:1450:4001::1", "2001:4860:4860::8888", "64:ff9b::808:808"] {
            assert!(is_global(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "64:ff9b::a00:1",
            "2002:7f00:1::1",
            "2002:c0a8:101::",
            "3fff::1",
            "::127.0.0.1",
        ] {
            assert!(!is_global(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn reaches() {
        let permits = |reach, named, ip: &str| HttpPolicy::new(reach).permits(ip.parse().unwrap(), named);
        for named in [false, true] {
            assert!(permits(Reach::Loopback, named, "127.0.0.1") && permits(Reach::Loopback, named, "::1"));
            assert!(!permits(Reach::Loopback, named, "192.168.1.1") && !permits(Reach::Loopback, named, "8.8.8.8"));
            assert!(permits(Reach::Lan, named, "192.168.1.1") && permits(Reach::Lan, named, "::ffff:10.0.0.1"));
            assert!(!permits(Reach::Lan, named, "8.8.8.8") && !permits(Reach::Lan, named, "0.0.0.0"));
            assert!(permits(Reach::Public, named, "8.8.8.8") && !permits(Reach::Public, named, "0.0.0.0"));
        }
        assert!(permits(Reach::Public, true, "127.0.0.1") && !permits(Reach::Public, false, "127.0.0.1"));
        assert!(!permits(Reach::Public, false, "169.254.169.254"));
    }

    #[test]
    fn named_hosts() {
        let policy = HttpPolicy::new(Reach::Public)
            .naming("Registry.Test:5000")
            .naming("[::1]:8080")
            .naming("::2")
            .naming_url("http://127.0.0.1:8080/x");
        assert_eq!(policy.named, ["registry.test", "::1", "::2", "127.0.0.1"]);
        assert!(policy.is_named("registry.test") && policy.is_named("[::1]") && policy.is_named("127.0.0.1"));
        let local = HttpPolicy::new(Reach::Public).naming("localhost");
        assert!(local.is_named("x.ipfs.LocalHost") && !local.is_named("xlocalhost") && !policy.is_named("x.localhost"));
        assert!(!policy.is_named("registry.test.evil.test") && !policy.is_named("127.0.0.2"));
    }
}

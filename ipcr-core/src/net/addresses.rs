//! Which addresses a network mode may touch: [`NetworkMode`].
//!
//! Pure rules, shared by the node (listening, dialling, learned addresses) and by HTTP clients. Names must have been
//! resolved before they are judged: an address that still has a DNS part is never allowed.

use std::fmt;
use std::net::IpAddr;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::policy::{is_global, is_local};

/// How far the program may reach.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NetworkMode {
    /// 127.0.0.0/8 and `::1` only.
    Loopback,
    /// Also private, unique local and link-local addresses; nothing built in.
    Lan,
    /// Any address, but only peers that hold this key; TCP only.
    Private(SwarmKey),
    /// Any address.
    #[default]
    Public,
}

/// The pre-shared key of a private network (libp2p specification, "Pre-shared Key Based Private Networks").
#[derive(Clone, PartialEq, Eq)]
pub struct SwarmKey([u8; 32]);

/// Why a text is not a swarm key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a swarm key file: expected `/key/swarm/psk/1.0.0/`, `/base16/` and 64 hex digits on three lines")]
pub struct BadSwarmKey;

impl SwarmKey {
    /// From its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From the text of a `swarm.key` file as Kubo writes it.
    pub fn parse(text: &str) -> Result<Self, BadSwarmKey> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let ["/key/swarm/psk/1.0.0/", "/base16/", digits] = lines.as_slice() else { return Err(BadSwarmKey) };
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadSwarmKey)?;
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(..)")
    }
}

impl NetworkMode {
    /// Whether a connection to or from this host is within the mode.
    pub fn allows_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Loopback => ip.is_loopback(),
            Self::Lan => ip.is_loopback() || is_local(ip),
            Self::Private(_) | Self::Public => true,
        }
    }

    /// Whether this address may be dialled, or learned from others: an IP address with TCP or QUIC, and behind it the peer, a relay's
    /// circuit, or nothing. Anything else is refused, for whoever dials reads addresses in its own way: libp2p's TCP takes the last IP
    /// address that it finds.
    pub fn allows(&self, address: &Multiaddr) -> bool {
        let Some(Way { ip, quic, relayed }) = Way::of(address) else { return false };
        if ip.is_unspecified() || !self.allows_ip(ip) {
            return false;
        }
        match self {
            Self::Loopback | Self::Lan => !relayed,
            Self::Private(_) => !quic,
            Self::Public => true,
        }
    }

    /// Whether an address that DNS or a stranger names may be dialled: in public mode only where it is globally routable, so that
    /// nobody makes this machine knock at the doors of its own network.
    pub fn allows_learned(&self, address: &Multiaddr) -> bool {
        self.allows(address) && (*self != Self::Public || ip(address).is_some_and(is_global))
    }

    /// Whether the node may listen here. Unspecified addresses are fine where more than this host may connect.
    pub fn allows_listening(&self, address: &Multiaddr) -> bool {
        let Some(ip) = address.iter().next().as_ref().and_then(ip_of) else { return false };
        let udp = address.iter().any(|part| matches!(part, Protocol::Udp(_)));
        match self {
            Self::Private(_) if udp => false,
            _ if ip.is_unspecified() => !matches!(self, Self::Loopback),
            _ => self.allows_ip(ip),
        }
    }
}

/// What an address leads through.
struct Way {
    ip: IpAddr,
    quic: bool,
    relayed: bool,
}

impl Way {
    /// `None` for an address that is not exactly an IP address, TCP or QUIC, a peer or none, and a circuit with or without a peer or none.
    fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter().peekable();
        let ip = parts.next().as_ref().and_then(ip_of)?;
        let quic = match parts.next()? {
            Protocol::Tcp(_) => false,
            Protocol::Udp(_) if parts.next() == Some(Protocol::QuicV1) => true,
            _ => return None,
        };
        parts.next_if(|part| matches!(part, Protocol::P2p(_)));
        let relayed = parts.next_if_eq(&Protocol::P2pCircuit).is_some();
        if relayed {
            parts.next_if(|part| matches!(part, Protocol::P2p(_)));
        }
        parts.next().is_none().then_some(Self { ip, quic, relayed })
    }
}

fn ip_of(part: &Protocol<'_>) -> Option<IpAddr> {
    match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(*ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// The IP address that a multiaddr begins with.
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().next().as_ref().and_then(ip_of)
}

/// The peer that a multiaddr leads to: its last `/p2p` part.
pub fn peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Whether the multiaddr leads through a relay.
pub fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether a connection to the address goes by QUIC.
pub fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// The multiaddr with `/p2p/<peer>` at its end.
pub fn with_peer(address: &Multiaddr, id: PeerId) -> Multiaddr {
    if peer(address) == Some(id) { address.clone() } else { address.clone().with(Protocol::P2p(id)) }
}

/// The multiaddr without the `/p2p/<peer>` at its end.
pub fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if peer(&address).is_some() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn modes_bound_what_may_be_dialled() {
        let private = NetworkMode::Private(SwarmKey::new([1; 32]));
        let relay = "/ip4/9.9.9.9/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit";
        for (text, loopback, lan, with_key, public) in [
            ("/ip4/127.0.0.1/tcp/1", true, true, true, true),
            ("/ip4/127.9.9.9/udp/1/quic-v1", true, true, false, true),
            ("/ip6/::1/tcp/1", true, true, true, true),
            ("/ip6/::ffff:127.0.0.1/tcp/1", true, true, true, true),
            ("/ip6/::ffff:8.8.8.8/tcp/1", false, false, true, true),
            ("/ip4/10.1.2.3/tcp/1", false, true, true, true),
            ("/ip4/172.31.0.1/tcp/1", false, true, true, true),
            ("/ip4/172.32.0.1/tcp/1", false, false, true, true),
            ("/ip4/169.254.1.1/tcp/1", false, true, true, true),
            ("/ip6/fd00::1/tcp/1", false, true, true, true),
            ("/ip6/fe80::1/tcp/1", false, true, true, true),
            ("/ip4/8.8.8.8/tcp/1", false, false, true, true),
            (relay, false, false, true, true),
            ("/ip4/0.0.0.0/tcp/1", false, false, false, false),
            ("/dns4/example.org/tcp/1", false, false, false, false),
            ("/dnsaddr/example.org", false, false, false, false),
            ("/ip4/127.0.0.1", false, false, false, false),
            ("/ip4/127.0.0.1/udp/1", false, false, false, false),
            ("/ip4/127.0.0.1/tcp/1/ws", false, false, false, false),
            ("/ip4/127.0.0.1/tcp/1/ip4/127.0.0.1/tcp/2", false, false, false, false),
            ("/ip4/8.8.8.8/tcp/1/ip4/169.254.169.254/tcp/80", false, false, false, false),
            ("/ip4/8.8.8.8/tcp/1/dns4/example.org/tcp/80", false, false, false, false),
        ] {
            let address = address(text);
            assert_eq!(NetworkMode::Loopback.allows(&address), loopback, "{text}");
            assert_eq!(NetworkMode::Lan.allows(&address), lan, "{text}");
            assert_eq!(private.allows(&address), with_key, "{text}");
            assert_eq!(NetworkMode::Public.allows(&address), public, "{text}");
        }
    }

    #[test]
    fn what_strangers_name_is_dialled_in_the_open_only() {
        let private = NetworkMode::Private(SwarmKey::new([1; 32]));
        for (text, global) in [
            ("/ip4/10.1.2.3/tcp/1", false),
            ("/ip4/169.254.169.254/tcp/80", false),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/ip6/::ffff:192.168.0.1/tcp/1", false),
            ("/ip6/fd00::1/tcp/1", false),
            ("/ip4/8.8.8.8/tcp/1", true),
            ("/ip6/2001:4860:4860::8888/udp/1/quic-v1", true),
        ] {
            let address = address(text);
            assert_eq!(NetworkMode::Public.allows_learned(&address), global, "{text}");
            for mode in [&NetworkMode::Loopback, &NetworkMode::Lan, &private] {
                assert_eq!(mode.allows_learned(&address), mode.allows(&address), "{text}");
            }
        }
    }

    #[test]
    fn loopback_does_not_listen_to_everybody() {
        let all = address("/ip4/0.0.0.0/tcp/0");
        assert!(!NetworkMode::Loopback.allows_listening(&all));
        assert!(NetworkMode::Lan.allows_listening(&all));
        assert!(!NetworkMode::Private(SwarmKey::new([1; 32])).allows_listening(&address("/ip4/0.0.0.0/udp/0/quic-v1")));
        assert!(NetworkMode::Loopback.allows_listening(&address("/ip6/::1/udp/0/quic-v1")));
    }

    #[test]
    fn swarm_keys_are_read_as_kubo_writes_them() {
        let digits = "0123456789abcdef".repeat(4);
        let key = SwarmKey::parse(&format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}\n")).unwrap();
        assert_eq!(hex::encode(key.bytes()), digits);
        assert_eq!(SwarmKey::parse(&digits), Err(BadSwarmKey));
        assert_eq!(format!("{key:?}"), "SwarmKey(..)");
    }

    #[test]
    fn the_peer_is_the_last_part() {
        let id: PeerId = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".parse().unwrap();
        let plain = address("/ip4/127.0.0.1/tcp/1");
        let whole = with_peer(&plain, id);
        assert_eq!((peer(&whole), peer(&plain)), (Some(id), None));
        assert_eq!((with_peer(&whole, id), without_peer(&whole)), (whole.clone(), plain));
    }
}

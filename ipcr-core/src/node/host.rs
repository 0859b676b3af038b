//! Where the node listens and how it is reached: the swarm, run as the network mode says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use ipcr_swarm::{Acceptor, Gate, Hub, StreamProtocol, Swarm, SwarmConfig, SwarmError, Transports};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::config::{DEFAULT_PORT, NodeConfig};
use super::error::NodeError;
use super::relays;
use crate::net::addresses::{self, NetworkMode};

/// A running swarm. Dropping it ends it.
pub(super) struct Host {
    swarm: Swarm,
    local: PeerId,
    mode: NetworkMode,
    /// The port of all own listeners, if they share one.
    pub(super) port: Option<u16>,
}

impl Gate for NetworkMode {
    fn allows(&self, address: &Multiaddr) -> bool {
        Self::allows(self, address)
    }

    fn allows_learned(&self, address: &Multiaddr) -> bool {
        Self::allows_learned(self, address)
    }

    fn allows_ip(&self, ip: IpAddr) -> bool {
        Self::allows_ip(self, ip)
    }
}

impl From<SwarmError> for NodeError {
    fn from(error: SwarmError) -> Self {
        match error {
            SwarmError::Listen { address, source } => Self::Listen { address, source },
            SwarmError::Start { source } => Self::Start { source },
            other => Self::Start { source: other.into() },
        }
    }
}

/// The start of a swarm, to be awaited when everything that it needs exists.
pub(super) type Start = futures::future::BoxFuture<'static, Result<Swarm, SwarmError>>;

/// The hub of a node's swarm, to be handed around before [`Host::start`] makes it live.
pub(super) fn prepare(config: &NodeConfig, acceptors: Vec<(StreamProtocol, Acceptor)>) -> (Hub, Start) {
    let transports = match &config.mode {
        NetworkMode::Loopback => Transports { quic: true, ..Transports::default() },
        NetworkMode::Lan => Transports { quic: true, local_discovery: true, ..Transports::default() },
        NetworkMode::Private(key) => Transports { swarm_key: Some(*key.bytes()), ..Transports::default() },
        NetworkMode::Public => Transports { quic: true, nat: true, ..Transports::default() },
    };
    Swarm::prepare(SwarmConfig {
        keypair: config.keypair.clone(),
        agent: concat!("ipcr/", env!("CARGO_PKG_VERSION")).into(),
        transports,
        gate: Arc::new(config.mode.clone()),
        acceptors,
    })
}

impl Host {
    pub(super) async fn start(config: &NodeConfig, start: Start) -> Result<Self, NodeError> {
        let (relayed, own): (Vec<_>, Vec<_>) = config.listen.iter().cloned().partition(addresses::is_relayed);
        let outside = own.iter().find(|address| !config.mode.allows_listening(address));
        if let Some(address) = outside {
            let reason = "it is not an IP address of this network mode";
            return Err(NodeError::BadAddress { address: address.clone(), reason });
        }
        if let Some(address) = relayed.iter().find(|address| relays::relay_of(address).is_none()) {
            let reason = "a relay is named by `/…/p2p/<peer id>/p2p-circuit`";
            return Err(NodeError::BadAddress { address: address.clone(), reason });
        }
        if let (Some(address), true) = (relayed.first(), config.mode != NetworkMode::Public) {
            let reason = "relays are used in public mode only";
            return Err(NodeError::BadAddress { address: address.clone(), reason });
        }
        let swarm = start.await?;
        let local = config.keypair.public().to_peer_id();
        let mut host = Self { swarm, local, mode: config.mode.clone(), port: None };
        host.listen(&own, config).await?;
        for address in &config.announce {
            host.swarm.announce(addresses::without_peer(address)).await?;
        }
        Ok(host)
    }

    /// Ends the swarm.
    pub(super) fn stop(&self) {
        self.swarm.stop();
    }

    /// Asks a relay to let others reach this node through it; returns once it agreed.
    pub(super) async fn listen_at_relay(&self, address: Multiaddr) -> Result<(), NodeError> {
        Ok(self.swarm.listen(address).await?)
    }

    async fn listen(&mut self, own: &[Multiaddr], config: &NodeConfig) -> Result<(), NodeError> {
        if own.is_empty() {
            let port = config.port.unwrap_or(DEFAULT_PORT);
            let port = if port_is_free(port, &config.mode) { port } else { free_port(&config.mode).unwrap_or(0) };
            let mut failure = None;
            let mut listening = false;
            for address in default_addresses(&config.mode, port) {
                // A host without IPv6 is no failure, a host without anything is.
                match self.swarm.listen(address).await {
                    Ok(()) => listening = true,
                    Err(error) => failure = Some(error),
                }
            }
            if let (false, Some(error)) = (listening, failure) {
                return Err(error.into());
            }
        }
        for address in own {
            // The transports share ports, so that two nodes would get each other's connections and nobody an error.
            if let Err(source) = is_free(address) {
                return Err(NodeError::Listen { address: address.clone(), source: source.into() });
            }
            self.swarm.listen(address.clone()).await?;
        }
        let mut ports: Vec<_> = self.swarm.listening().await.iter().filter_map(port_of).collect();
        ports.sort_unstable();
        ports.dedup();
        self.port = (ports.len() == 1).then(|| ports[0]);
        Ok(())
    }

    /// Where the node is reached: confirmed addresses first, then those that it listens to.
    pub(super) async fn addresses(&self) -> Vec<Multiaddr> {
        let external = self.swarm.external().await;
        let mut known: Vec<Multiaddr> = Vec::new();
        for address in external.into_iter().chain(self.swarm.listening().await) {
            let address = addresses::with_peer(&address, self.local);
            if self.mode.allows(&address) && !known.contains(&address) {
                known.push(address);
            }
        }
        known
    }
}

fn default_addresses(mode: &NetworkMode, port: u16) -> Vec<Multiaddr> {
    let mut list = Vec::new();
    for ip in default_ips(mode) {
        let base = Multiaddr::from(ip);
        if !matches!(mode, NetworkMode::Private(_)) {
            list.push(base.clone().with(Protocol::Udp(port)).with(Protocol::QuicV1));
        }
        list.push(base.with(Protocol::Tcp(port)));
    }
    list
}

fn default_ips(mode: &NetworkMode) -> [IpAddr; 2] {
    match mode {
        NetworkMode::Loopback => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Whether nobody listens to the port. To be asked first, because the transports share ports and would not fail.
fn port_is_free(port: u16, mode: &NetworkMode) -> bool {
    let [ip, _] = default_ips(mode);
    TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok()
}

/// Whether nobody listens at an address, as far as it names a port.
fn is_free(address: &Multiaddr) -> std::io::Result<()> {
    let Some(ip) = addresses::ip(address) else { return Ok(()) };
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// A port that is free for TCP and UDP.
fn free_port(mode: &NetworkMode) -> Option<u16> {
    let [ip, _] = default_ips(mode);
    (0..64).find_map(|_| {
        let listener = TcpListener::bind((ip, 0)).ok()?;
        let port = listener.local_addr().ok()?.port();
        UdpSocket::bind((ip, port)).is_ok().then_some(port)
    })
}

fn port_of(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

//! The swarm's host: rust-ipfs with its transports and NAT helpers, without its repository, bitswap and DHT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::pnet::PreSharedKey;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use rust_ipfs::builder::IpfsBuilder;
use rust_ipfs::p2p::IdentifyConfiguration;
use rust_ipfs::{ConnectionLimits, Ipfs, ping};

use super::config::{DEFAULT_PORT, NodeConfig};
use super::error::NodeError;
use super::hub::Behaviour;
use crate::net::addresses::{self, NetworkMode};

/// How long a connection without streams and holds is kept, in seconds.
const IDLE_SECONDS: u64 = 60;
/// Most connections, in both directions.
const CONNECTIONS: u32 = 1024;
/// Most connections to one peer.
const CONNECTIONS_PER_PEER: u32 = 8;
/// How long the node may take to listen somewhere.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A running swarm. Dropping it ends it.
pub(super) struct Host {
    ipfs: Ipfs,
    local: PeerId,
    mode: NetworkMode,
    /// The port of all own listeners, if they share one.
    pub(super) port: Option<u16>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Host {
    pub(super) async fn start(config: &NodeConfig, behaviour: Behaviour) -> Result<Self, NodeError> {
        let outside = config.listen.iter().find(|address| !config.mode.allows_listening(address));
        if let Some(address) = outside {
            let reason = "it is not an IP address of this network mode";
            return Err(NodeError::BadAddress { address: address.clone(), reason });
        }
        let (keypair, mode) = (config.keypair.clone(), config.mode.clone());
        let runtime = tokio::runtime::Handle::current();
        let started = tokio::task::spawn_blocking(move || build_blocking(&runtime, &keypair, &mode, behaviour));
        let ipfs = match started.await {
            Ok(Ok(ipfs)) => ipfs,
            Ok(Err(source)) => return Err(NodeError::Start { source }),
            Err(panic) => return Err(NodeError::Start { source: panic.into() }),
        };
        let local = config.keypair.public().to_peer_id();
        let mut host = Self { ipfs, local, mode: config.mode.clone(), port: None };
        host.listen(config).await?;
        for address in &config.announce {
            let added = host.ipfs.add_external_address(addresses::without_peer(address)).await;
            added.map_err(|error| NodeError::Start { source: error.into() })?;
        }
        Ok(host)
    }

    /// Ends the swarm.
    pub(super) fn stop(&self) {
        // All that ends its task happens before the first suspension.
        let _ = futures::FutureExt::now_or_never(self.ipfs.clone().exit_daemon());
    }

    async fn listen(&mut self, config: &NodeConfig) -> Result<(), NodeError> {
        if config.listen.is_empty() {
            let port = config.port.unwrap_or(DEFAULT_PORT);
            let port = if port_is_free(port, &config.mode) { port } else { free_port(&config.mode).unwrap_or(0) };
            let mut failure = None;
            let mut listening = false;
            for address in default_addresses(&config.mode, port) {
                // A host without IPv6 is no failure, a host without anything is.
                match self.listen_at(address).await {
                    Ok(()) => listening = true,
                    Err(error) => failure = Some(error),
                }
            }
            if let (false, Some(error)) = (listening, failure) {
                return Err(error);
            }
        }
        for address in &config.listen {
            self.listen_at(address.clone()).await?;
        }
        let mut ports: Vec<_> = self.listening().await.iter().filter_map(port_of).collect();
        ports.sort_unstable();
        ports.dedup();
        self.port = (ports.len() == 1).then(|| ports[0]);
        Ok(())
    }

    async fn listen_at(&self, address: Multiaddr) -> Result<(), NodeError> {
        let listening = self.ipfs.add_listening_address(address.clone());
        match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(NodeError::Listen { address, source: error.into() }),
            Err(late) => Err(NodeError::Listen { address, source: late.into() }),
        }
    }

    async fn listening(&self) -> Vec<Multiaddr> {
        self.ipfs.listening_addresses().await.unwrap_or_default()
    }

    /// Where the node is reached: confirmed addresses first, then those that it listens to.
    pub(super) async fn addresses(&self) -> Vec<Multiaddr> {
        let external = self.ipfs.external_addresses().await.unwrap_or_default();
        let mut known: Vec<Multiaddr> = Vec::new();
        for address in external.into_iter().chain(self.listening().await) {
            let address = addresses::with_peer(&address, self.local);
            if self.mode.allows(&address) && !known.contains(&address) {
                known.push(address);
            }
        }
        known
    }
}

/// Waits for the swarm, because the builder is not `Send`, and neither is the future that it becomes.
///
/// A plain function, so that the compiler makes the swarm's code here, once, and not again in every program that starts a
/// node: the bodies of asynchronous functions are compiled where they are awaited.
#[inline(never)]
fn build_blocking(
    runtime: &tokio::runtime::Handle,
    keypair: &libp2p_identity::Keypair,
    mode: &NetworkMode,
    behaviour: Behaviour,
) -> Result<Ipfs, crate::kind::Cause> {
    runtime.block_on(build(keypair, mode, behaviour))
}

async fn build(
    keypair: &libp2p_identity::Keypair,
    mode: &NetworkMode,
    behaviour: Behaviour,
) -> Result<Ipfs, crate::kind::Cause> {
    let identify = IdentifyConfiguration {
        agent_version: concat!("ipcr/", env!("CARGO_PKG_VERSION")).into(),
        ..IdentifyConfiguration::default()
    };
    let mut builder = IpfsBuilder::with_keypair(keypair)?
        .with_custom_behaviour(move |_| Ok(behaviour))
        .with_identify(identify)
        .with_ping(ping::Config::new())
        .set_idle_connection_timeout(IDLE_SECONDS)
        .set_connection_limits(|_| {
            ConnectionLimits::default()
                .with_max_established(Some(CONNECTIONS))
                .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
                .with_max_pending_incoming(Some(CONNECTIONS / 4))
        })
        .enable_tcp();
    match mode {
        NetworkMode::Loopback => builder = builder.enable_quic(),
        NetworkMode::Lan => builder = builder.enable_quic().with_mdns(),
        NetworkMode::Private(key) => builder = builder.enable_pnet(PreSharedKey::new(*key.bytes())),
        NetworkMode::Public => builder = builder.enable_quic().with_relay(true).with_autonat().with_upnp(),
    }
    Ok(builder.start().await?)
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

//! The swarm's host: [`Swarm`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use libp2p::pnet::PreSharedKey;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use rust_ipfs::builder::IpfsBuilder;
use rust_ipfs::p2p::IdentifyConfiguration;
use rust_ipfs::{ConnectionLimits, Ipfs};

use crate::StreamProtocol;
use crate::behaviour::Behaviour;
use crate::hub::{Acceptor, Gate, Hub};

/// How long a connection without streams and holds is kept, in seconds.
const IDLE_SECONDS: u64 = 60;
/// Most connections, in both directions.
const CONNECTIONS: u32 = 1024;
/// Most of them that others opened: there is always room for those that this node opens.
const INBOUND_CONNECTIONS: u32 = CONNECTIONS / 4 * 3;
/// Most connections to one peer.
const CONNECTIONS_PER_PEER: u32 = 8;
/// How often a QUIC connection shows that it is alive.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// After how many milliseconds without a sign of life a QUIC connection is lost, and the longest that one may take to be made. What rust-ipfs
/// sets for itself, 100 ms and 300 ms, loses every connection to a process that gets no turn for a moment, and reaches nobody behind a line of
/// 150 ms each way.
const QUIC_IDLE_MILLIS: u32 = 6000;
/// How long the swarm may take to listen somewhere.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// An error of the host.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the swarm did not start, or does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// The swarm did not start.
    #[error("the swarm did not start")]
    Start {
        /// Why.
        source: Cause,
    },
    /// An address could not be announced.
    #[error("the swarm cannot announce {address}")]
    Announce {
        /// The address.
        address: Multiaddr,
        /// Why.
        source: Cause,
    },
    /// An address could not be listened to.
    #[error("the swarm cannot listen at {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        source: Cause,
    },
}

/// What connections are made of. TCP with TLS or noise, and yamux, is always there.
#[derive(Clone, Default)]
pub struct Transports {
    /// QUIC beside TCP.
    pub quic: bool,
    /// Multicast DNS; peers that it finds are dialled.
    pub local_discovery: bool,
    /// Relays, hole punching, `AutoNAT` and `UPnP`.
    pub nat: bool,
    /// The key of a private network (libp2p specification, "Pre-shared Key Based Private Networks"); not with QUIC.
    pub swarm_key: Option<[u8; 32]>,
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transports")
            .field("quic", &self.quic)
            .field("local_discovery", &self.local_discovery)
            .field("nat", &self.nat)
            .field("private", &self.swarm_key.is_some())
            .finish_non_exhaustive()
    }
}

/// What a swarm is started with.
pub struct SwarmConfig {
    /// The transport key.
    pub keypair: Keypair,
    /// How the swarm calls itself, such as `ipcr/1.0.0`.
    pub agent: String,
    /// What connections are made of.
    pub transports: Transports,
    /// Which addresses may be touched.
    pub gate: Arc<dyn Gate>,
    /// What takes inbound streams, by protocol.
    pub acceptors: Vec<(StreamProtocol, Acceptor)>,
}

impl fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmConfig").field("transports", &self.transports).finish_non_exhaustive()
    }
}

/// A running swarm. Dropping it ends it.
#[must_use = "a swarm ends when it is dropped"]
pub struct Swarm {
    ipfs: Ipfs,
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm").finish_non_exhaustive()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.stop();
    }
}

// Futures are boxed: the body of an asynchronous function is compiled where it is awaited, and the swarm's code shall be compiled
// here.
impl Swarm {
    /// A hub, which can be handed around at once, and the start of the swarm that makes it live. The start is to be awaited
    /// inside of a tokio runtime with I/O and time.
    pub fn prepare(config: SwarmConfig) -> (Hub, BoxFuture<'static, Result<Self, SwarmError>>) {
        let local = config.keypair.public().to_peer_id();
        let found = config.transports.local_discovery;
        let (hub, behaviour) = Hub::new(local, config.gate, config.acceptors, found);
        let (keypair, agent, transports) = (config.keypair, config.agent, config.transports);
        let start = async move {
            let runtime = tokio::runtime::Handle::current();
            let started = tokio::task::spawn_blocking(move || {
                // The builder is not `Send`, and neither is the future that it becomes.
                runtime.block_on(build(&keypair, agent, &transports, behaviour))
            });
            match started.await {
                Ok(Ok(ipfs)) => Ok(Self { ipfs }),
                Ok(Err(source)) => Err(SwarmError::Start { source }),
                Err(panic) => Err(SwarmError::Start { source: panic.into() }),
            }
        };
        (hub, start.boxed())
    }

    /// Listens at an address.
    pub fn listen(&self, address: Multiaddr) -> BoxFuture<'_, Result<(), SwarmError>> {
        async move {
            let listening = self.ipfs.add_listening_address(address.clone());
            match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(SwarmError::Listen { address, source: error.into() }),
                Err(late) => Err(SwarmError::Listen { address, source: late.into() }),
            }
        }
        .boxed()
    }

    /// Says that others reach this node at an address, without `/p2p`.
    pub fn announce(&self, address: Multiaddr) -> BoxFuture<'_, Result<(), SwarmError>> {
        async move {
            let told = address.clone();
            let added = self.ipfs.add_external_address(address).await;
            added.map_err(|error| SwarmError::Announce { address: told, source: error.into() })
        }
        .boxed()
    }

    /// The addresses that it listens to.
    pub fn listening(&self) -> BoxFuture<'_, Vec<Multiaddr>> {
        async move { self.ipfs.listening_addresses().await.unwrap_or_default() }.boxed()
    }

    /// The addresses at which others reach it: announced, or confirmed by them.
    pub fn external(&self) -> BoxFuture<'_, Vec<Multiaddr>> {
        async move { self.ipfs.external_addresses().await.unwrap_or_default() }.boxed()
    }

    /// Ends the swarm.
    pub fn stop(&self) {
        // All that ends its task happens before the first suspension.
        let _ = self.ipfs.clone().exit_daemon().now_or_never();
    }
}

async fn build(
    keypair: &Keypair,
    agent_version: String,
    transports: &Transports,
    behaviour: Behaviour,
) -> Result<Ipfs, Cause> {
    // Without its cache, which would offer to relays and others what peers say of themselves, unasked and without end.
    let identify = IdentifyConfiguration { agent_version, cache: 0, ..IdentifyConfiguration::default() };
    let mut builder = IpfsBuilder::with_keypair(keypair)?
        .with_custom_behaviour(move |_| Ok(behaviour))
        .with_identify(identify)
        .set_idle_connection_timeout(IDLE_SECONDS)
        .set_connection_limits(|_| {
            ConnectionLimits::default()
                .with_max_established(Some(CONNECTIONS))
                .with_max_established_incoming(Some(INBOUND_CONNECTIONS))
                .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
                .with_max_pending_incoming(Some(CONNECTIONS / 4))
        })
        .enable_tcp();
    if transports.quic {
        builder = builder.enable_quic_with_config(|mut config| {
            (config.keep_alive_interval, config.max_idle_timeout) = (QUIC_KEEP_ALIVE, QUIC_IDLE_MILLIS);
            config
        });
    }
    if transports.local_discovery {
        builder = builder.with_mdns();
    }
    if let Some(key) = transports.swarm_key {
        builder = builder.enable_pnet(PreSharedKey::new(key));
    }
    if transports.nat {
        builder = builder.with_relay(true).with_autonat().with_upnp();
    }
    Ok(builder.start().await?)
}

//! The IPFS node: swarm, block exchange, records and provider records.
//!
//! * [`config`](NodeConfig): plain data that a node is started with.
//! * `host`: the swarm (crate `ipcr-swarm`: rust-ipfs, and the hub through which everything else dials, opens and accepts
//!   streams), run as the network mode says.
//! * `bitswap`: the block exchange, behind [`Exchange`].
//! * `kad`: a client of the DHT; `fetch`: records straight from peers; both behind [`NameRecords`] and [`Announce`].
//! * `swarm`: pullers of one root find each other.
//! * `ping`: answers to those who ask whether this node is still there.
//! * `relays`: those that others reach this node through, if it listens at any.
//! * `resolve`: names in multiaddrs, before anything is dialled.
//!
//! Only this module names `ipcr_swarm`, and only that crate `rust_ipfs` and `libp2p`. The node speaks to the rest of the crate through ports only, so that
//! its host can be replaced.

mod announce;
mod bitswap;
mod config;
mod error;
mod fetch;
mod frame;
mod host;
mod kad;
mod ping;
mod records;
mod relays;
mod resolve;
mod swarm;
mod traffic;

/// What fuzzing feeds to the messages of the network.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    pub use super::bitswap::fuzz as bitswap_message;
    pub use super::kad::fuzz as kademlia_message;
    pub use super::swarm::fuzz as swarm_message;
}

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FusedFuture as _, FutureExt as _};
use futures::stream::FuturesUnordered;
use ipcr_swarm::{Acceptor, Hub, Inbound};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::bitswap::{Bitswap, Discovery, Session, Terms};
pub use self::config::{DEFAULT_PORT, NodeConfig, OwnBlocks, PUBLIC_BOOTSTRAP, Share};
pub use self::error::NodeError;
use self::host::Host;
use self::kad::Kad;
use self::swarm::{AskError, Fellows, MeetingPoint};
use self::traffic::Counters;
pub use self::traffic::Traffic;
use crate::exchange::walk::Seen;
pub use crate::net::addresses::{NetworkMode, SwarmKey};
use crate::net::{Rate, addresses};
#[cfg(doc)]
use crate::port::announce::Announce;
use crate::port::blocks::BlockStore;
use crate::port::dns::Dns;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession};
#[cfg(doc)]
use crate::port::records::NameRecords;
use crate::port::records::RecordShelf;
use crate::port::routing::{Provider, Routing};

/// Found peers whose names are resolved at once.
const RESOLVED_AT_ONCE: usize = 8;
/// How long [`Node::shutdown`] waits for tasks.
const GRACE: Duration = Duration::from_secs(2);
/// How long it waits for connections to close.
const LEAVE: Duration = Duration::from_millis(500);
/// How long to wait before a configured peer is dialled again, at first and at most.
const REDIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A running node.
///
/// It serves every block of its store to whoever is within its network mode, from [`Node::start`] on.
#[must_use = "a node ends when it is dropped; use Node::shutdown to end it cleanly"]
pub struct Node {
    local: PeerId,
    online: Option<Online>,
    /// Whether what is fetched may be shared at all.
    share: bool,
    counters: Arc<Counters>,
    download: Arc<Rate>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The parts of a node that has a network.
struct Online {
    host: Arc<Host>,
    hub: Hub,
    bitswap: Arc<Bitswap>,
    network: Arc<Network>,
}

/// Finding others, and what they know.
struct Network {
    hub: Hub,
    host: Arc<Host>,
    kad: Kad,
    dns: Arc<dyn Dns>,
    /// The configured peers, which are asked for records like hinted ones.
    peers: Vec<Multiaddr>,
    /// Others who know who holds what.
    routing: OnceLock<Arc<dyn Routing>>,
    mode: NetworkMode,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.local)
            .field("online", &self.online.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Node {
    /// Starts a node that serves the blocks of `store` and the records of `shelf`, and resolves names with `dns`. Returns
    /// once it listens. To be called inside of a tokio runtime with I/O and time.
    pub async fn start(
        config: NodeConfig,
        store: Arc<dyn BlockStore>,
        shelf: Arc<dyn RecordShelf>,
        dns: Arc<dyn Dns>,
    ) -> Result<Arc<Self>, NodeError> {
        Self::start_boxed(config, store, shelf, dns).await
    }

    /// Boxed, so that it is compiled here and not in every program that starts a node.
    fn start_boxed(
        config: NodeConfig,
        store: Arc<dyn BlockStore>,
        shelf: Arc<dyn RecordShelf>,
        dns: Arc<dyn Dns>,
    ) -> BoxFuture<'static, Result<Arc<Self>, NodeError>> {
        Box::pin(Self::start_here(config, store, shelf, dns))
    }

    async fn start_here(
        config: NodeConfig,
        store: Arc<dyn BlockStore>,
        shelf: Arc<dyn RecordShelf>,
        dns: Arc<dyn Dns>,
    ) -> Result<Arc<Self>, NodeError> {
        let local = config.keypair.public().to_peer_id();
        let counters = Arc::new(Counters::default());
        let download = Arc::new(Rate::new(config.download));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let online = if config.offline {
            None
        } else {
            let engine: Arc<OnceLock<Weak<Bitswap>>> = Arc::default();
            let acceptors = vec![
                (bitswap::PROTOCOL, exchange_acceptor(&engine)),
                (fetch::PROTOCOL, shelf_acceptor(shelf, &tasks, &stop)),
                (swarm::PROTOCOL, swarm_acceptor(&engine, &config.mode, &tasks, &stop)),
                (ping::PROTOCOL, ping_acceptor(&tasks, &stop)),
            ];
            let (hub, start) = host::prepare(&config, acceptors);
            let terms = Terms::new(config.share.clone(), config.upload);
            let (own, rate) = (counters.clone(), Arc::clone(&download));
            let bitswap = Bitswap::new(hub.clone(), store, own, terms, rate, tasks.clone(), stop.clone());
            let _ = engine.set(Arc::downgrade(&bitswap));
            let host = Arc::new(Host::start(&config, start).await?);
            let entrances = config.bootstrap.iter().chain(&config.peers).cloned().collect();
            let kad = Kad::new(hub.clone(), dns.clone(), entrances, config.mode.clone());
            let (peers, mode) = (config.peers.clone(), config.mode.clone());
            let routing = OnceLock::new();
            let network = Arc::new(Network { hub: hub.clone(), host: host.clone(), kad, dns, peers, routing, mode });
            Some(Online { host, hub, bitswap, network })
        };
        let share = matches!(config.share, Share::All);
        let node = Arc::new(Self { local, online, share, counters, download, tasks, stop });
        node.keep_peers(config.peers);
        node.keep_relays(config.listen.into_iter().filter(addresses::is_relayed));
        Ok(node)
    }

    /// Asks `routing` too from now on, beside hinted peers and the DHT. What a node asks already, it keeps.
    pub fn ask_also(&self, routing: Arc<dyn Routing>) {
        if let Some(online) = &self.online
            && online.network.routing.set(routing).is_err()
        {
            tracing::debug!("the node asks routers already");
        }
    }

    /// The port at which the node listens, when all its listeners share one; to be remembered for the next start.
    pub fn port(&self) -> Option<u16> {
        self.online.as_ref().and_then(|online| online.host.port)
    }

    /// What all sources of blocks together may take: the node's peers do, and so do others who are given it.
    pub fn download(&self) -> Arc<Rate> {
        Arc::clone(&self.download)
    }

    /// What was exchanged since the start.
    pub fn traffic(&self) -> Traffic {
        self.counters.traffic(self.online.as_ref().map_or(0, |online| online.hub.connected().len()))
    }

    /// Says that blocks were added to the store, so that peers that wait for them get them at once instead of within half
    /// a second.
    pub fn blocks_added(&self) {
        if let Some(online) = &self.online {
            online.bitswap.blocks_added();
        }
    }

    /// Whether it holds blocks that it serves to nobody, because those who fetched them do not share.
    pub(crate) fn withholds(&self) -> bool {
        self.online.as_ref().is_some_and(|online| online.bitswap.withholds())
    }

    /// Serves those of them that have become a registry's own.
    pub(crate) fn release_own(&self, own: &Seen) {
        if let Some(online) = &self.online {
            online.bitswap.release_own(own);
        }
    }

    /// Ends the node: nothing new is begun, what is being written gets two seconds, then connections are closed.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(GRACE, self.tasks.wait()).await;
        if let Some(online) = &self.online {
            online.hub.leave(LEAVE).await;
            online.host.stop();
        }
    }

    fn online(&self) -> Result<&Online, &'static str> {
        match &self.online {
            _ if self.stop.is_cancelled() => Err("the node has stopped"),
            Some(online) => Ok(online),
            None => Err("offline mode"),
        }
    }

    /// Keeps the configured peers connected.
    fn keep_peers(&self, peers: Vec<Multiaddr>) {
        let Some(online) = &self.online else { return };
        for address in peers {
            let (hub, network, stop) = (online.hub.clone(), online.network.clone(), self.stop.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = keep_peer(hub, network, address, || Box::pin(std::future::ready(()))) => {}
                }
            });
        }
    }

    /// Keeps reservations at relays.
    fn keep_relays(&self, relays: impl Iterator<Item = Multiaddr>) {
        let Some(online) = &self.online else { return };
        for address in relays {
            let (host, hub, network) = (online.host.clone(), online.hub.clone(), online.network.clone());
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = relays::keep(host, hub, network, address) => {}
                }
            });
        }
    }
}

/// Answers questions for records.
fn shelf_acceptor(shelf: Arc<dyn RecordShelf>, tasks: &TaskTracker, stop: &CancellationToken) -> Acceptor {
    let (tasks, stop) = (tasks.clone(), stop.clone());
    Box::new(move |inbound: Inbound| {
        let (shelf, stop) = (shelf.clone(), stop.clone());
        tasks.spawn(async move {
            let Inbound { peer, stream, slot: _slot } = inbound;
            tokio::select! {
                () = stop.cancelled() => {}
                answered = fetch::answer(stream, shelf) => if let Err(error) = answered {
                    tracing::debug!(%peer, %error, "a question for a record was not answered");
                }
            }
        });
    })
}

/// Answers questions for those who fetch the same.
fn swarm_acceptor(
    engine: &Arc<OnceLock<Weak<Bitswap>>>,
    mode: &NetworkMode,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Acceptor {
    let meeting = Arc::new(MeetingPoint::new(mode.clone()));
    let (engine, tasks, stop) = (engine.clone(), tasks.clone(), stop.clone());
    Box::new(move |inbound: Inbound| {
        let Some(engine) = engine.get().and_then(Weak::upgrade) else { return };
        let (meeting, stop) = (meeting.clone(), stop.clone());
        tasks.spawn(async move {
            let peer = inbound.peer;
            tokio::select! {
                () = stop.cancelled() => {}
                answered = meeting.answer(inbound, &engine) => if let Err(error) = answered {
                    tracing::debug!(%peer, %error, "a question for fellows was not answered");
                }
            }
        });
    })
}

/// Answers pings.
fn ping_acceptor(tasks: &TaskTracker, stop: &CancellationToken) -> Acceptor {
    let (tasks, stop) = (tasks.clone(), stop.clone());
    Box::new(move |inbound: Inbound| {
        let stop = stop.clone();
        tasks.spawn(async move {
            let Inbound { peer, mut stream, slot: _slot } = inbound;
            // Whoever only asks whether somebody is there keeps no connection open.
            stream.ignore_for_keep_alive();
            tokio::select! {
                () = stop.cancelled() => {}
                answered = ping::answer(stream) => if let Err(error) = answered {
                    tracing::debug!(%peer, %error, "a ping was not answered");
                }
            }
        });
    })
}

/// Hands inbound streams to the engine once it exists.
fn exchange_acceptor(engine: &Arc<OnceLock<Weak<Bitswap>>>) -> Acceptor {
    let engine = engine.clone();
    Box::new(move |inbound: Inbound| {
        if let Some(engine) = engine.get().and_then(Weak::upgrade) {
            engine.accept(inbound);
        }
    })
}

/// Keeps a peer connected for as long as it is polled, and does something each time that it was reached, until it is lost.
async fn keep_peer(
    hub: Hub,
    network: Arc<Network>,
    address: Multiaddr,
    when_reached: impl Fn() -> BoxFuture<'static, ()>,
) {
    let Some(peer) = addresses::peer(&address) else {
        tracing::warn!(%address, "a peer's address without a peer id is ignored");
        return;
    };
    let _hold = hub.hold(peer);
    let mut changes = hub.changes();
    let mut pause = REDIAL.0;
    loop {
        let resolved = network.resolve(std::slice::from_ref(&address)).await;
        match hub.dial(peer, &resolved).await {
            Ok(()) => {
                pause = REDIAL.0;
                let mut reached = when_reached().fuse();
                while hub.epoch(&peer).is_some() {
                    tokio::select! {
                        () = &mut reached, if !reached.is_terminated() => {}
                        changed = changes.changed() => if changed.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%peer, %error, "a configured peer was not reached"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REDIAL.1);
    }
}

impl Network {
    /// Passes on somebody whom a router names, with the addresses that may be dialled.
    async fn pass_on(&self, named: Provider, found: &mpsc::Sender<Provider>) {
        let mut addresses = resolve::resolve_all(&*self.dns, &named.addresses).await;
        addresses.retain(|address| self.mode.allows_learned(address));
        let _ = found.send(Provider { peer: named.peer, addresses }).await;
    }
}

#[async_trait]
impl Discovery for Network {
    async fn discover(&self, root: &Cid, found: mpsc::Sender<Provider>) {
        let found = &found;
        let (sender, mut routed) = mpsc::channel::<Provider>(8);
        let ask_routers = async {
            if let Some(routing) = self.routing.get() {
                routing.providers(root, sender).await;
            }
        };
        // Nobody whose names do not resolve holds up the others.
        let sift = async {
            let mut passing = FuturesUnordered::new();
            loop {
                tokio::select! {
                    one = routed.recv(), if passing.len() < RESOLVED_AT_ONCE => match one {
                        Some(one) => passing.push(self.pass_on(one, found)),
                        None => break,
                    },
                    Some(()) = passing.next(), if !passing.is_empty() => {}
                }
            }
            while passing.next().await.is_some() {}
        };
        tokio::join!(self.kad.providers(root, found.clone()), ask_routers, sift);
    }

    async fn fellows(&self, peer: &PeerId, root: &Cid, announce: bool) -> Result<Fellows, AskError> {
        let own = if announce { Some(self.host.addresses().await) } else { None };
        let mut fellows = swarm::ask(&self.hub, peer, root, own.as_deref()).await?;
        for Provider { addresses, .. } in &mut fellows.peers {
            addresses.retain(|address| self.mode.allows_learned(address));
        }
        fellows.peers.retain(|fellow| !fellow.addresses.is_empty());
        Ok(fellows)
    }

    async fn resolve(&self, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
        resolve::resolve_all(&*self.dns, addresses).await
    }
}

#[async_trait]
impl Exchange for Node {
    async fn open(&self, mut request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError> {
        let online = self.online().map_err(|reason| ExchangeError::Offline { reason: reason.into() })?;
        request.share &= self.share;
        Ok(Arc::new(Session::open(online.bitswap.clone(), online.network.clone(), request)))
    }
}

#[cfg(test)]
mod tests;

//! Connections and raw streams: [`Hub`].
//!
//! The swarm lives in a task of the host. What the node needs of it goes through one custom behaviour and stays there:
//! dialling known addresses, opening streams, accepting streams. Everything else is done by ordinary tasks around it, so
//! that no slow peer and no hashing ever holds the swarm up.
//!
//! Guarantees: no address outside of the network mode is dialled on behalf of the hub, and no connection of the swarm
//! survives with one; inbound streams are never queued (each is handed to its acceptor at once, at most
//! [`INBOUND_STREAMS`] per connection); all channels are bounded.

mod behaviour;
mod handler;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Stream, StreamProtocol};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::behaviour::Behaviour;
use crate::net::addresses::{self, NetworkMode};

/// Most inbound streams of one connection that are open at once; more are reset.
pub(super) const INBOUND_STREAMS: usize = 512;
/// Most requests for outbound streams that wait in one connection.
const OUTBOUND_REQUESTS: usize = 32;
/// Most commands that wait for the swarm.
const COMMANDS: usize = 256;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Known peers above which those that nobody needs are forgotten.
const PEERS: usize = 4096;
/// Most protocols of a peer that are remembered.
const PROTOCOLS: usize = 128;

/// The handle of the swarm.
#[derive(Clone)]
pub(super) struct Hub {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Dial>,
}

/// What takes inbound streams of one protocol; it must return at once.
pub(super) type Acceptor = Box<dyn Fn(Inbound) + Send + Sync>;

/// An accepted stream.
pub(super) struct Inbound {
    /// Who opened it.
    pub(super) peer: PeerId,
    /// The stream.
    pub(super) stream: Stream,
    /// Counts it; to be kept as long as the stream.
    pub(super) slot: Slot,
}

/// A place among the inbound streams of a connection.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Keeps the connections to a peer open although no stream is.
#[derive(Debug)]
pub(super) struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("the peer does not speak the protocol")]
    Unsupported,
    #[error("the connection failed")]
    Broken,
    #[error("no answer within {}s", OPEN_TIMEOUT.as_secs())]
    Timeout,
}

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("none of its addresses is within the network mode")]
    NoAddress,
    #[error("that is this node itself")]
    Oneself,
    #[error("no connection: {0}")]
    Failed(String),
    #[error("no answer within {}s", DIAL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the node has stopped")]
    Stopped,
}

/// One connection as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) address: Multiaddr,
    pub(super) relayed: bool,
}

/// A dial that the swarm is to make.
struct Dial {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    reply: oneshot::Sender<Result<(), DialError>>,
}

struct OpenRequest {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, OpenError>>,
}

struct Connection {
    id: ConnectionId,
    link: Link,
    requests: mpsc::Sender<OpenRequest>,
}

#[derive(Default)]
struct Peer {
    connections: Vec<Connection>,
    /// Another number each time that the peer becomes connected.
    epoch: u64,
    protocols: HashSet<StreamProtocol>,
    holds: Arc<AtomicUsize>,
}

struct Shared {
    local: PeerId,
    mode: NetworkMode,
    acceptors: Vec<(StreamProtocol, Acceptor)>,
    peers: Mutex<HashMap<PeerId, Peer>>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("local", &self.shared.local).finish_non_exhaustive()
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the table of peers is another one now.
    fn changed(&self) {
        self.changes.send_modify(|generation| *generation = generation.wrapping_add(1));
    }
}

impl Hub {
    /// A hub and the behaviour that is its other end.
    pub(super) fn new(
        local: PeerId,
        mode: NetworkMode,
        acceptors: Vec<(StreamProtocol, Acceptor)>,
    ) -> (Self, Behaviour) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            local,
            mode,
            acceptors,
            peers: Mutex::new(HashMap::new()),
            changes: watch::Sender::new(0),
        });
        (Self { shared: shared.clone(), commands }, Behaviour::new(shared, receiver))
    }

    /// This node's peer id.
    pub(super) fn local(&self) -> PeerId {
        self.shared.local
    }

    /// The network mode.
    pub(super) fn mode(&self) -> &NetworkMode {
        &self.shared.mode
    }

    /// Wakes whenever a connection comes or goes, or a peer's protocols become known.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// All connected peers.
    pub(super) fn connected(&self) -> Vec<PeerId> {
        self.shared.peers().iter().filter(|(_, peer)| !peer.connections.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Connected peers that said they speak `protocol`.
    pub(super) fn speakers(&self, protocol: &StreamProtocol) -> Vec<PeerId> {
        let peers = self.shared.peers();
        let speakers =
            peers.iter().filter(|(_, peer)| !peer.connections.is_empty() && peer.protocols.contains(protocol));
        speakers.map(|(id, _)| *id).collect()
    }

    /// The best connection to a peer: direct before relayed, old before new.
    pub(super) fn link(&self, peer: &PeerId) -> Option<Link> {
        let peers = self.shared.peers();
        peers.get(peer)?.connections.iter().min_by_key(|connection| connection.link.relayed).map(|c| c.link.clone())
    }

    /// A number that is the same as long as a peer stays connected; `None` if it is not.
    pub(super) fn epoch(&self, peer: &PeerId) -> Option<u64> {
        let peers = self.shared.peers();
        peers.get(peer).filter(|peer| !peer.connections.is_empty()).map(|peer| peer.epoch)
    }

    /// Keeps connections to a peer open until the hold is dropped.
    pub(super) fn hold(&self, peer: PeerId) -> Hold {
        let mut peers = self.shared.peers();
        if peers.len() >= PEERS {
            peers.retain(|_, peer| !peer.connections.is_empty() || Arc::strong_count(&peer.holds) > 1);
        }
        let holds = peers.entry(peer).or_default().holds.clone();
        holds.fetch_add(1, Ordering::AcqRel);
        Hold(holds)
    }

    /// Connects to a peer, at all of these addresses at once; returns at once when it is connected already.
    pub(super) async fn dial(&self, peer: PeerId, candidates: &[Multiaddr]) -> Result<(), DialError> {
        if peer == self.shared.local {
            return Err(DialError::Oneself);
        }
        if self.link(&peer).is_some() {
            return Ok(());
        }
        let mut dialled: Vec<Multiaddr> = Vec::new();
        for candidate in candidates.iter().filter(|candidate| self.shared.mode.allows(candidate)) {
            let address = addresses::with_peer(candidate, peer);
            if !dialled.contains(&address) {
                dialled.push(address);
            }
        }
        if dialled.is_empty() {
            return Err(DialError::NoAddress);
        }
        let (reply, answer) = oneshot::channel();
        let command = Dial { peer, addresses: dialled, reply };
        self.commands.send(command).await.map_err(|_| DialError::Stopped)?;
        match tokio::time::timeout(DIAL_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(DialError::Stopped),
            Err(_) => Err(DialError::Timeout),
        }
    }

    /// Opens a stream to a connected peer.
    pub(super) async fn open(&self, peer: &PeerId, protocol: &StreamProtocol) -> Result<Stream, OpenError> {
        let mut connections: Vec<_> = match self.shared.peers().get(peer) {
            Some(peer) => peer.connections.iter().map(|c| (c.link.relayed, c.requests.clone())).collect(),
            None => return Err(OpenError::NotConnected),
        };
        connections.sort_by_key(|(relayed, _)| *relayed);
        let mut failure = OpenError::NotConnected;
        for (_, requests) in connections {
            let (reply, answer) = oneshot::channel();
            let request = OpenRequest { protocol: protocol.clone(), reply };
            let opened = tokio::time::timeout(OPEN_TIMEOUT, async {
                requests.send(request).await.map_err(|_| OpenError::Broken)?;
                answer.await.map_err(|_| OpenError::Broken)?
            });
            match opened.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = OpenError::Timeout,
            }
        }
        Err(failure)
    }
}

//! Connections and raw streams: [`Hub`].
//!
//! The swarm lives in a task of the host. What the node needs of it goes through one custom behaviour and stays there:
//! dialling known addresses, opening streams, accepting streams. Everything else is done by ordinary tasks around it, so
//! that no slow peer and no hashing ever holds the swarm up.
//!
//! Guarantees: no address that the [`Gate`] refuses is dialled on behalf of the hub, and no connection of the swarm
//! survives with one; inbound streams are never queued (each is handed to its acceptor at once, at most
//! [`INBOUND_STREAMS`] per connection); all channels are bounded.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Stream, StreamProtocol};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::{mpsc, oneshot, watch};

use crate::behaviour::Behaviour;

/// Most inbound streams of one connection that are open at once; more are reset.
pub const INBOUND_STREAMS: usize = 512;
/// Most requests for outbound streams that wait in one connection.
pub(crate) const OUTBOUND_REQUESTS: usize = 32;
/// How long the tasks of closed connections have for their last packet.
const LAST_WORD: Duration = Duration::from_millis(10);
/// Most commands that wait for the swarm.
const COMMANDS: usize = 256;
/// Connections that are tried for one stream: a peer that answers by none of them holds up no longer whoever asks.
const TRIED: usize = 3;
/// How long opening a stream may take.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Known peers above which those that nobody needs are forgotten.
const PEERS: usize = 4096;
/// Most protocols of a peer that are remembered.
pub(crate) const PROTOCOLS: usize = 128;

/// Which addresses a swarm may touch.
pub trait Gate: Send + Sync {
    /// Whether an address may be dialled that the program names.
    fn allows(&self, address: &Multiaddr) -> bool;

    /// Whether an address may be dialled that a peer names.
    fn allows_learned(&self, address: &Multiaddr) -> bool;

    /// Whether a connection to or from a host may be kept.
    fn allows_ip(&self, ip: IpAddr) -> bool;
}

/// The handle of the swarm.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What takes inbound streams of one protocol; it must return at once.
pub type Acceptor = Box<dyn Fn(Inbound) + Send + Sync>;

/// An accepted stream.
#[derive(Debug)]
pub struct Inbound {
    /// Who opened it.
    pub peer: PeerId,
    /// The stream.
    pub stream: Stream,
    /// Counts it; to be kept as long as the stream.
    pub slot: Slot,
}

/// A place among the inbound streams of a connection.
#[derive(Debug)]
pub struct Slot(pub(crate) Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Keeps the connections to a peer open although no stream is.
#[derive(Debug)]
pub struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection to the peer.
    #[error("not connected")]
    NotConnected,
    /// The peer refused the protocol.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// The connection ended meanwhile.
    #[error("the connection failed")]
    Broken,
    /// The peer did not answer in time.
    #[error("no answer within {}s", OPEN_TIMEOUT.as_secs())]
    Timeout,
}

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The gate refuses all of its addresses.
    #[error("none of its addresses is within the network mode")]
    NoAddress,
    /// The peer is this node.
    #[error("that is this node itself")]
    Oneself,
    /// No address answered; why, for people.
    #[error("no connection: {0}")]
    Failed(String),
    /// No address answered in time.
    #[error("no answer within {}s", DIAL_TIMEOUT.as_secs())]
    Timeout,
    /// The swarm has ended.
    #[error("the node has stopped")]
    Stopped,
}

/// One connection as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other end, without its peer id.
    pub address: Multiaddr,
    /// Whether it goes through a relay.
    pub relayed: bool,
}

impl Link {
    /// Whether it is by QUIC, and direct.
    pub fn is_quic(&self) -> bool {
        !self.relayed && crate::behaviour::is_quic(&self.address)
    }
}

/// What the swarm is to do.
pub(crate) enum Command {
    Dial(Dial),
    /// Close all connections, and let nobody connect any more.
    Leave,
}

/// A dial that the swarm is to make.
pub(crate) struct Dial {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) reply: oneshot::Sender<Result<(), DialError>>,
}

/// A stream that a connection is to open.
pub(crate) struct OpenRequest {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) link: Link,
    pub(crate) requests: mpsc::Sender<OpenRequest>,
}

#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) connections: Vec<Connection>,
    /// Another number each time that the peer becomes connected, or its best connection is lost.
    pub(crate) epoch: u64,
    pub(crate) protocols: HashSet<StreamProtocol>,
    pub(crate) holds: Arc<AtomicUsize>,
}

/// What the hub and its behaviour share.
pub(crate) struct Shared {
    local: PeerId,
    pub(crate) gate: Arc<dyn Gate>,
    /// Whether peers that the local network tells of are dialled unasked.
    pub(crate) dials_found: bool,
    pub(crate) acceptors: Vec<(StreamProtocol, Acceptor)>,
    peers: Mutex<HashMap<PeerId, Peer>>,
    changes: watch::Sender<u64>,
}

impl Peer {
    /// The connection by which streams are opened: direct before relayed, old before new.
    pub(crate) fn best(&self) -> Option<&Connection> {
        self.connections.iter().min_by_key(|connection| connection.link.relayed)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("local", &self.shared.local).finish_non_exhaustive()
    }
}

impl Shared {
    /// This node's peer id.
    pub(crate) fn local(&self) -> PeerId {
        self.local
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the table of peers is another one now.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|generation| *generation = generation.wrapping_add(1));
    }
}

impl Hub {
    /// A hub and the behaviour that is its other end.
    pub(crate) fn new(
        local: PeerId,
        gate: Arc<dyn Gate>,
        acceptors: Vec<(StreamProtocol, Acceptor)>,
        dials_found: bool,
    ) -> (Self, Behaviour) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            local,
            gate,
            dials_found,
            acceptors,
            peers: Mutex::new(HashMap::new()),
            changes: watch::Sender::new(0),
        });
        (Self { shared: shared.clone(), commands }, Behaviour::new(shared, receiver))
    }

    /// This node's peer id.
    pub fn local(&self) -> PeerId {
        self.shared.local
    }

    /// Whether an address may be dialled.
    pub fn allows(&self, address: &Multiaddr) -> bool {
        self.shared.gate.allows(address)
    }

    /// Wakes whenever a connection comes or goes, or a peer's protocols become known.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// All connected peers.
    pub fn connected(&self) -> Vec<PeerId> {
        self.shared.peers().iter().filter(|(_, peer)| !peer.connections.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Connected peers that said they speak `protocol`.
    pub fn speakers(&self, protocol: &StreamProtocol) -> Vec<PeerId> {
        let peers = self.shared.peers();
        let speakers =
            peers.iter().filter(|(_, peer)| !peer.connections.is_empty() && peer.protocols.contains(protocol));
        speakers.map(|(id, _)| *id).collect()
    }

    /// The best connection to a peer: direct before relayed, old before new.
    pub fn link(&self, peer: &PeerId) -> Option<Link> {
        let peers = self.shared.peers();
        peers.get(peer)?.best().map(|best| best.link.clone())
    }

    /// A number that is the same as long as a peer stays connected and the best connection to it is not lost; `None` if it is not connected.
    pub fn epoch(&self, peer: &PeerId) -> Option<u64> {
        let peers = self.shared.peers();
        peers.get(peer).filter(|peer| !peer.connections.is_empty()).map(|peer| peer.epoch)
    }

    /// Waits until a peer is connected, for so long at most. A stream may be accepted a moment before its connection is known here.
    pub async fn await_link(&self, peer: &PeerId, most: Duration) {
        let mut changes = self.changes();
        let linked = async { while self.link(peer).is_none() && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(most, linked).await;
    }

    /// Keeps connections to a peer open until the hold is dropped.
    pub fn hold(&self, peer: PeerId) -> Hold {
        let mut peers = self.shared.peers();
        if peers.len() >= PEERS {
            peers.retain(|_, peer| !peer.connections.is_empty() || Arc::strong_count(&peer.holds) > 1);
        }
        let holds = peers.entry(peer).or_default().holds.clone();
        holds.fetch_add(1, Ordering::AcqRel);
        Hold(holds)
    }

    /// Closes all connections, for so long at most, and lets nobody connect any more. Whoever is connected by QUIC and is not told that this node
    /// ends waits for what it has asked for until a time-out.
    pub async fn leave(&self, most: Duration) {
        let leaving = async {
            let mut changes = self.changes();
            let sent = self.commands.send(Command::Leave).await;
            if sent.is_err() || self.connected().is_empty() {
                return;
            }
            while !self.connected().is_empty() && changes.changed().await.is_ok() {}
            // Closed is what the others have not been told yet: tasks of the connections do that next.
            tokio::time::sleep(LAST_WORD).await;
        };
        let _ = tokio::time::timeout(most, leaving).await;
    }

    /// Connects to a peer, at all of these addresses at once; returns at once when it is connected already.
    pub async fn dial(&self, peer: PeerId, candidates: &[Multiaddr]) -> Result<(), DialError> {
        if peer == self.shared.local {
            return Err(DialError::Oneself);
        }
        if self.link(&peer).is_some() {
            return Ok(());
        }
        let mut dialled: Vec<Multiaddr> = Vec::new();
        for candidate in candidates.iter().filter(|candidate| self.allows(candidate)) {
            let Ok(address) = candidate.clone().with_p2p(peer) else { continue };
            if !dialled.contains(&address) {
                dialled.push(address);
            }
        }
        if dialled.is_empty() {
            return Err(DialError::NoAddress);
        }
        let (reply, answer) = oneshot::channel();
        let command = Dial { peer, addresses: dialled, reply };
        self.commands.send(Command::Dial(command)).await.map_err(|_| DialError::Stopped)?;
        match tokio::time::timeout(DIAL_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(DialError::Stopped),
            Err(_) => Err(DialError::Timeout),
        }
    }

    /// Opens a stream to a connected peer, by the best connection that opens one.
    pub async fn open(&self, peer: &PeerId, protocol: &StreamProtocol) -> Result<Stream, OpenError> {
        let mut connections: Vec<_> = match self.shared.peers().get(peer) {
            Some(peer) => peer.connections.iter().map(|c| (c.link.relayed, c.requests.clone())).collect(),
            None => return Err(OpenError::NotConnected),
        };
        connections.sort_by_key(|(relayed, _)| *relayed);
        let mut failure = OpenError::NotConnected;
        for (_, requests) in connections.into_iter().take(TRIED) {
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

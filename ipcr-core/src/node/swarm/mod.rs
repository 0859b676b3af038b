//! `/ipcr/swarm/1`: pullers of one root find each other (docs/protocols.md).
//!
//! * [`message`]: the question and the answer.
//! * [`tracker`]: what a node that holds or fetches a root remembers of those who fetch it.
//!
//! Nothing that is said here is believed: an address is only where somebody is dialled, who then has to prove to be the peer,
//! and blocks are checked wherever they come from. Told to others are only addresses at the host from which their owner is
//! connected, so that nobody can make a swarm knock at the doors of a third party.

mod message;
mod tracker;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cid::Cid;
use futures::AsyncWriteExt as _;
use ipcr_swarm::{Hub, Inbound, OpenError, StreamProtocol};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use tokio::time::{Instant, timeout};

#[cfg(any(test, feature = "fuzzing"))]
pub use self::message::fuzz;
use self::message::{ADDRESSES, Answer, Question, Status};
use self::tracker::Tracker;
use super::bitswap::Bitswap;
use super::frame;
use crate::dag::block::IDENTITY;
use crate::dag::splitmix;
use crate::limits;
use crate::net::addresses::{self, NetworkMode};
use crate::port::routing::Provider;

/// The protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipcr/swarm/1");

/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a peer told of no fellows.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no stream: {0}")]
    Open(#[from] OpenError),
    #[error("the exchange failed: {0}")]
    Broken(#[from] io::Error),
    #[error("it was asked too often")]
    Busy,
    #[error("it neither holds nor fetches the root")]
    Unknown,
}

/// Others who fetch a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fellows {
    /// Whether the one who was asked is one of them.
    pub(super) fetching: bool,
    /// The others that it knows.
    pub(super) peers: Vec<Provider>,
}

/// Asks a connected peer who else fetches `root`. With `addresses` this node says that it does, and may be told to others.
pub(super) async fn ask(
    hub: &Hub,
    peer: &PeerId,
    root: &Cid,
    addresses: Option<&[Multiaddr]>,
) -> Result<Fellows, AskError> {
    let fetching = addresses.is_some();
    let addresses = addresses.unwrap_or_default().iter().map(addresses::without_peer).take(ADDRESSES).collect();
    let question = Question { root: *root, fetching, addresses, most: limits::SWARM_PEERS };
    let asking = async {
        let mut stream = hub.open(peer, &PROTOCOL).await?;
        frame::write(&mut stream, &[&question.encode()]).await?;
        let answer = frame::read(&mut stream, limits::SWARM_ANSWER_BYTES).await?;
        let _ = stream.close().await;
        let answer = answer.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let answer = Answer::decode(&answer).map_err(io::Error::other)?;
        match answer.status {
            Status::Ok => Ok(Fellows { fetching: answer.fetching, peers: answer.peers }),
            Status::Unknown => Err(AskError::Unknown),
            Status::Busy => Err(AskError::Busy),
        }
    };
    timeout(ANSWER, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The side that is asked: where those who fetch a root meet.
pub(super) struct MeetingPoint {
    tracker: Mutex<Tracker>,
    mode: NetworkMode,
}

impl MeetingPoint {
    pub(super) fn new(mode: NetworkMode) -> Self {
        Self { tracker: Mutex::default(), mode }
    }

    /// Answers one question.
    pub(super) async fn answer(&self, inbound: Inbound, bitswap: &Bitswap) -> io::Result<()> {
        let Inbound { peer, mut stream, slot: _slot } = inbound;
        let answering = async {
            let Some(question) = frame::read(&mut stream, limits::SWARM_QUESTION_BYTES).await? else { return Ok(()) };
            let question = Question::decode(&question).map_err(io::Error::other)?;
            let answer = self.consider(peer, question, bitswap).await;
            frame::write(&mut stream, &[&answer.encode()]).await?;
            stream.close().await
        };
        timeout(ANSWER, answering).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn consider(&self, peer: PeerId, question: Question, bitswap: &Bitswap) -> Answer {
        let Question { root, fetching, addresses, most } = question;
        if !self.tracker().admit(peer, Instant::now()) {
            return Answer { status: Status::Busy, ..Answer::default() };
        }
        let here = bitswap.shares(&root);
        // Who gets no blocks of a root does not learn either that it is here; and what needs no holder needs no meeting point.
        if root.hash().code() == IDENTITY || !here && bitswap.held(&[root]).await.is_empty() {
            return Answer { status: Status::Unknown, ..Answer::default() };
        }
        let hub = bitswap.hub();
        if fetching {
            // Before anybody else is told, so that what this node fetches is shared with the newcomer.
            bitswap.on_fellow(&root, peer);
            let told = match hub.link(&peer) {
                Some(link) if !link.relayed => believable(&self.mode, &link.address, addresses),
                _ => Vec::new(),
            };
            if !told.is_empty() {
                self.tracker().enter(*root.hash(), peer, told, Instant::now());
            }
        }
        let there = |peer: &PeerId| hub.epoch(peer).is_some();
        let peers = self.tracker().others(root.hash(), &peer, most, Instant::now(), there);
        Answer { status: Status::Ok, fetching: here, peers }
    }

    fn tracker(&self) -> std::sync::MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of the addresses of a peer that others may be told: within the network mode, and at the host that it is connected from.
fn believable(mode: &NetworkMode, connected: &Multiaddr, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let host = addresses::ip(connected);
    let is_there = |address: &Multiaddr| {
        host.is_some()
            && addresses::ip(address) == host
            && mode.allows_learned(address)
            && !address.iter().any(|part| matches!(part, Protocol::P2pCircuit | Protocol::P2p(_)))
    };
    addresses.into_iter().filter(is_there).collect()
}

/// A number for a peer, the same at every node.
pub(super) fn digest(peer: &PeerId) -> u64 {
    // The end of a peer id is a part of its key or of its hash.
    let bytes = peer.to_bytes();
    bytes.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail))
}

/// Scatters numbers.
pub(super) fn mix(number: u64) -> u64 {
    splitmix::mix(number.wrapping_add(splitmix::STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_host_itself_are_told() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let said = parse(&[
            "/ip4/8.8.8.8/tcp/4001",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
            "/ip4/9.9.9.9/tcp/4001",
            "/ip4/10.0.0.1/tcp/4001",
            "/dns4/hub.test/tcp/4001",
            "/ip4/8.8.8.8/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit",
        ]);
        let connected: Multiaddr = "/ip4/8.8.8.8/tcp/50000".parse().unwrap();
        assert_eq!(believable(&NetworkMode::Public, &connected, said.clone()), said[..2]);
        assert!(believable(&NetworkMode::Loopback, &connected, said).is_empty());
        let within: Multiaddr = "/ip4/10.0.0.1/tcp/50000".parse().unwrap();
        let said = parse(&["/ip4/10.0.0.1/tcp/4001"]);
        assert_eq!(believable(&NetworkMode::Lan, &within, said.clone()), said);
        assert!(believable(&NetworkMode::Public, &within, said).is_empty());
    }
}

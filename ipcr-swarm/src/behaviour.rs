//! The hub's part in the swarm.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::handler::Handler;
use crate::hub::{Command, Connection, Dial, DialError, Link, OUTBOUND_REQUESTS, OpenRequest, Shared};

/// Most peers of the local network that are dialled unasked, and most addresses of each.
const LOCAL_PEERS: usize = 32;
const LOCAL_ADDRESSES: usize = 16;
/// How long the addresses of a peer of the local network are collected before it is dialled, and how much longer by the one of two peers that leaves
/// the dial to the other.
const COLLECTED: Duration = Duration::from_millis(50);
const ITS_TURN: Duration = Duration::from_millis(500);
/// How long it is tried by TCP alone.
const OTHERWISE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("address {0} is outside of the network mode")]
struct Refused(Multiaddr);

#[derive(Debug, thiserror::Error)]
#[error("this node is ending")]
struct Ending;

pub(crate) struct Behaviour {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// Dials under way.
    dials: HashMap<ConnectionId, Dialling>,
    /// Connections whose handler exists, and which are not established yet.
    prepared: HashMap<ConnectionId, (Link, mpsc::Sender<OpenRequest>)>,
    /// Peers of the local network that were found.
    found: Vec<Found>,
    /// For the next of them.
    timer: Option<Pin<Box<Sleep>>>,
    /// Times that some peer became connected, or its best connection was lost.
    epochs: u64,
    /// Once this node ends: peers whose connections are still to be closed.
    leaving: Option<Vec<PeerId>>,
}

/// A peer of the local network that will be dialled.
struct Found {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    due: Instant,
}

/// A dial under way, and who waits for it.
struct Dialling {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    replies: Vec<oneshot::Sender<Result<(), DialError>>>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            shared,
            commands,
            dials: HashMap::new(),
            prepared: HashMap::new(),
            found: Vec::new(),
            timer: None,
            epochs: 0,
            leaving: None,
        }
    }

    /// Prepares the handler of a new connection.
    fn admit(&mut self, id: ConnectionId, peer: PeerId, address: &Multiaddr) -> Result<Handler, ConnectionDenied> {
        let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
        if let Some(ip) = ip(address)
            && !self.shared.gate.allows_ip(ip)
        {
            return Err(ConnectionDenied::new(Refused(address.clone())));
        }
        if self.leaving.is_some() {
            return Err(ConnectionDenied::new(Ending));
        }
        let (sender, receiver) = mpsc::channel(OUTBOUND_REQUESTS);
        // Whoever was dialled has it, whoever dialled has not; the place is the same.
        let mut place = address.clone();
        if place.iter().last() == Some(Protocol::P2p(peer)) {
            place.pop();
        }
        self.prepared.insert(id, (Link { address: place, relayed }, sender));
        let holds = self.shared.peers().entry(peer).or_default().holds.clone();
        Ok(Handler::new(peer, self.shared.clone(), receiver, holds))
    }

    /// Notes an address of a peer of the local network.
    fn found(&mut self, peer: PeerId, address: &Multiaddr) {
        let Ok(address) = address.clone().with_p2p(peer) else { return };
        let is_room = self.found.len() < LOCAL_PEERS;
        match self.found.iter_mut().find(|found| found.peer == peer) {
            Some(found) if found.addresses.len() < LOCAL_ADDRESSES && !found.addresses.contains(&address) => {
                found.addresses.push(address);
            }
            Some(_) => {}
            None if is_room => {
                let turn = if self.shared.local() < peer { Duration::ZERO } else { ITS_TURN };
                let due = Instant::now() + COLLECTED + turn;
                self.found.push(Found { peer, addresses: vec![address], due });
                self.timer = None;
            }
            None => {}
        }
    }

    /// The next dial of a peer of the local network: by TCP, and a moment later by QUIC if that has not come to anything. Bytes cost half as much of the
    /// processor by TCP, and what QUIC is better at does not happen on a local network.
    fn dial_found(&mut self, cx: &mut Context<'_>) -> Poll<DialOpts> {
        loop {
            let Some(next) = self.found.iter().enumerate().min_by_key(|(_, found)| found.due).map(|(at, _)| at) else {
                return Poll::Pending;
            };
            let due = self.found[next].due;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            let Found { peer, addresses, .. } = self.found.swap_remove(next);
            let peers = self.shared.peers();
            let known = peers.get(&peer).is_some_and(|entry| !entry.connections.is_empty());
            if known || peers.len() >= LOCAL_PEERS || self.leaving.is_some() {
                continue;
            }
            drop(peers);
            let (quic, tcp): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_quic);
            let addresses = match (tcp.is_empty(), quic.is_empty()) {
                (true, _) => quic,
                (false, true) => tcp,
                (false, false) => {
                    self.found.push(Found { peer, addresses: quic, due: Instant::now() + OTHERWISE });
                    tcp
                }
            };
            return Poll::Ready(
                DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addresses).build(),
            );
        }
    }

    /// Whether something that is dialled lies behind this address.
    fn leads_to_dialled(&self, address: &Multiaddr) -> bool {
        let mut dialled = self.dials.values().flat_map(|dial| &dial.addresses);
        dialled.any(|dialled| dialled.as_ref().starts_with(address.as_ref()))
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some((link, requests)) = self.prepared.remove(&id) {
            let mut peers = self.shared.peers();
            let entry = peers.entry(peer).or_default();
            if entry.connections.is_empty() {
                self.epochs += 1;
                entry.epoch = self.epochs;
            }
            entry.connections.push(Connection { id, link, requests });
        }
        self.shared.changed();
        // Whoever dialled the peer in another way has what they wanted, too.
        let done: Vec<_> = self.dials.iter().filter(|(_, dial)| dial.peer == peer).map(|(id, _)| *id).collect();
        for dial in done.iter().filter_map(|id| self.dials.remove(id)) {
            for reply in dial.replies {
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId) {
        let mut peers = self.shared.peers();
        if let Some(entry) = peers.get_mut(&peer) {
            let best = entry.best().is_some_and(|best| best.id == id);
            entry.connections.retain(|connection| connection.id != id);
            if best {
                // What was under way by it is lost, although others are still there.
                self.epochs += 1;
                entry.epoch = self.epochs;
            }
            if entry.connections.is_empty() {
                entry.protocols.clear();
                // Others hold the count as long as somebody wants the connection back.
                if Arc::strong_count(&entry.holds) == 1 {
                    peers.remove(&peer);
                }
            }
        }
        drop(peers);
        self.shared.changed();
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match ip(remote) {
            Some(ip) if !self.shared.gate.allows_ip(ip) => Err(ConnectionDenied::new(Refused(remote.clone()))),
            _ => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        candidates: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // Other behaviours (relay client, hole punching) dial too: relays on the way to what is dialled here, and what peers name.
        let named = self.dials.contains_key(&id);
        let gate = &self.shared.gate;
        let allows = |candidate: &Multiaddr| {
            if named || self.leads_to_dialled(candidate) {
                gate.allows(candidate)
            } else {
                gate.allows_learned(candidate)
            }
        };
        match candidates.iter().find(|candidate| !allows(candidate)) {
            Some(outside) => Err(ConnectionDenied::new(Refused(outside.clone()))),
            None => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer, address)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(event.peer_id, event.connection_id),
            FromSwarm::ConnectionClosed(event) => self.closed(event.peer_id, event.connection_id),
            FromSwarm::DialFailure(event) => {
                self.prepared.remove(&event.connection_id);
                if let Some(dial) = self.dials.remove(&event.connection_id) {
                    let reason = event.error.to_string();
                    for reply in dial.replies {
                        let _ = reply.send(Err(DialError::Failed(reason.clone())));
                    }
                }
            }
            FromSwarm::ListenFailure(event) => {
                self.prepared.remove(&event.connection_id);
            }
            FromSwarm::NewExternalAddrOfPeer(event)
                if self.shared.dials_found && self.shared.gate.allows(event.addr) =>
            {
                self.found(event.peer_id, event.addr);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Poll::Ready(opts) = self.dial_found(cx) {
            return Poll::Ready(ToSwarm::Dial { opts });
        }
        loop {
            if let Some(peer_id) = self.leaving.as_mut().and_then(Vec::pop) {
                return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
            }
            let Dial { peer, addresses, reply } = match self.commands.poll_recv(cx) {
                Poll::Ready(Some(Command::Dial(dial))) if self.leaving.is_none() => dial,
                Poll::Ready(Some(Command::Dial(dial))) => {
                    let _ = dial.reply.send(Err(DialError::Stopped));
                    continue;
                }
                Poll::Ready(Some(Command::Leave)) => {
                    self.leaving = Some(self.shared.peers().keys().copied().collect());
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
            let mut running = self.dials.values_mut().filter(|dial| dial.peer == peer);
            match running.find(|dial| addresses.iter().all(|address| dial.addresses.contains(address))) {
                Some(same) => same.replies.push(reply),
                None => {
                    let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses.clone());
                    let opts = opts.build();
                    self.dials.insert(opts.connection_id(), Dialling { peer, addresses, replies: vec![reply] });
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
            }
        }
    }
}

pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

/// The IP address that a multiaddr begins with.
fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Gate, Hub};

    struct Open;

    impl Gate for Open {
        fn allows(&self, _: &Multiaddr) -> bool {
            true
        }

        fn allows_learned(&self, _: &Multiaddr) -> bool {
            true
        }

        fn allows_ip(&self, _: IpAddr) -> bool {
            true
        }
    }

    #[test]
    fn the_best_connection_that_is_lost_beside_others_is_noticed() {
        let (hub, mut behaviour) = Hub::new(PeerId::random(), Arc::new(Open), Vec::new(), false);
        let peer = PeerId::random();
        let mut connect = |id: usize, address: &str| {
            let id = ConnectionId::new_unchecked(id);
            drop(behaviour.admit(id, peer, &address.parse().unwrap()).unwrap());
            behaviour.established(peer, id);
        };
        let quic = "/ip4/192.0.2.1/udp/4001/quic-v1";
        let relayed = format!("/ip4/192.0.2.9/tcp/4001/p2p/{}/p2p-circuit", PeerId::random());
        connect(4, &relayed);
        // Both may dial at once; the place is the same.
        connect(1, quic);
        connect(2, &format!("{quic}/p2p/{peer}"));
        connect(3, "/ip4/192.0.2.1/tcp/4001");
        let link = |address: &str, relayed| Some(Link { address: address.parse().unwrap(), relayed });
        assert_eq!(hub.link(&peer), link(quic, false), "direct before relayed, old before new");
        let first = hub.epoch(&peer);
        assert!(first.is_some());
        let mut close = |id| {
            behaviour.closed(peer, ConnectionId::new_unchecked(id));
            (hub.link(&peer), hub.epoch(&peer))
        };
        assert_eq!(close(3), (link(quic, false), first), "it was not the best");
        // The answers to what was asked may have been under way by the one that is lost.
        let (best, second) = close(1);
        assert_eq!(best, link(quic, false));
        assert!(second.is_some() && second != first);
        assert_eq!(close(1).1, second, "the same is lost once only");
        let (best, third) = close(2);
        assert_eq!(best, link(&relayed, true));
        assert!(third.is_some() && third != second);
        assert_eq!(close(4), (None, None));
    }

    #[tokio::test]
    async fn peers_of_the_local_network_are_dialled_by_tcp_first() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let (hub, mut behaviour) = Hub::new(local, Arc::new(Open), Vec::new(), true);
        let places = ["udp/4001/quic-v1", "tcp/4001", "tcp/4001"].map(|end| format!("/ip4/192.0.2.1/{end}"));
        for place in &places {
            behaviour.found(peer, &place.parse().unwrap());
        }
        let begun = Instant::now();
        let event = std::future::poll_fn(|cx| behaviour.poll(cx)).await;
        let turn = if local < peer { Duration::ZERO } else { ITS_TURN };
        assert!(begun.elapsed() + Duration::from_millis(1) >= COLLECTED + turn);
        let ToSwarm::Dial { opts } = event else { panic!("{event:?}") };
        assert_eq!(opts.get_peer_id(), Some(peer));
        // The addresses themselves are the swarm's alone.
        let dialled =
            |opts: &DialOpts, place: &str| format!("{opts:?}").matches(&format!("{place}/p2p/{peer}")).count();
        assert_eq!((dialled(&opts, &places[0]), dialled(&opts, &places[1])), (0, 1));
        // By QUIC a moment later, because nobody has connected.
        let event = std::future::poll_fn(|cx| behaviour.poll(cx)).await;
        assert!(begun.elapsed() >= OTHERWISE);
        let ToSwarm::Dial { opts } = event else { panic!("{event:?}") };
        assert_eq!((dialled(&opts, &places[0]), dialled(&opts, &places[1])), (1, 0));
        // Whoever has connected meanwhile is not dialled.
        behaviour.found(peer, &places[0].parse().unwrap());
        let id = ConnectionId::new_unchecked(1);
        drop(behaviour.admit(id, peer, &places[1].parse().unwrap()).unwrap());
        behaviour.established(peer, id);
        let nothing = std::future::poll_fn(|cx| behaviour.poll(cx));
        assert!(tokio::time::timeout(2 * (COLLECTED + ITS_TURN), nothing).await.is_err());
        assert!(behaviour.found.is_empty() && hub.link(&peer).is_some());
    }
}

//! The hub's part in one connection.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound, ProtocolsChange,
};
use libp2p::swarm::{StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use libp2p_identity::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::hub::{INBOUND_STREAMS, Inbound, OPEN_TIMEOUT, OpenError, OpenRequest, PROTOCOLS, Shared, Slot};

pub(crate) struct Handler {
    peer: PeerId,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<OpenRequest>,
    holds: Arc<AtomicUsize>,
    inbound: Arc<AtomicUsize>,
}

impl Handler {
    pub(crate) fn new(
        peer: PeerId,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<OpenRequest>,
        holds: Arc<AtomicUsize>,
    ) -> Self {
        Self { peer, shared, requests, holds, inbound: Arc::new(AtomicUsize::new(0)) }
    }

    fn accept(&self, stream: Stream, protocol: &StreamProtocol) {
        let slot = Slot(self.inbound.clone());
        if self.inbound.fetch_add(1, Ordering::AcqRel) >= INBOUND_STREAMS {
            tracing::debug!(peer = %self.peer, %protocol, "too many streams, one is reset");
            return;
        }
        if let Some((_, acceptor)) = self.shared.acceptors.iter().find(|(known, _)| known == protocol) {
            acceptor(Inbound { peer: self.peer, stream, slot });
        }
    }
}

/// Takes a stream as it is once its protocol is agreed.
#[derive(Clone, Debug)]
pub(crate) struct Raw(Vec<StreamProtocol>);

impl UpgradeInfo for Raw {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Raw {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Raw {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Raw;
    type OutboundProtocol = Raw;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Raw> {
        let protocols = self.shared.acceptors.iter().map(|(protocol, _)| protocol.clone()).collect();
        SubstreamProtocol::new(Raw(protocols), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Raw, Reply, Infallible>> {
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(OpenRequest { protocol, reply })) => {
                let protocol = SubstreamProtocol::new(Raw(vec![protocol]), reply).with_timeout(OPEN_TIMEOUT);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Raw, Raw, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => self.accept(stream, &protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(_) => OpenError::Broken,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(error));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                if let Some(peer) = self.shared.peers().get_mut(&self.peer) {
                    apply(&mut peer.protocols, change);
                }
                self.shared.changed();
            }
            _ => {}
        }
    }
}

fn apply(known: &mut HashSet<StreamProtocol>, change: ProtocolsChange<'_>) {
    match change {
        ProtocolsChange::Added(added) => {
            let room = PROTOCOLS.saturating_sub(known.len());
            known.extend(added.take(room).cloned());
        }
        ProtocolsChange::Removed(removed) => {
            for protocol in removed {
                known.remove(protocol);
            }
        }
    }
}

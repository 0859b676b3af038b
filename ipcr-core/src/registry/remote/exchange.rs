//! The holder's network.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cid::Cid;
use tokio::task::AbortHandle;

use super::connection::Connection;
use crate::dag::block::Block;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession, GatewayShare, PeerShare};
use crate::registry::wire::Call;
use crate::registry::wire::failure::Failure;

/// The exchange of the process at the other end.
#[derive(Clone, Debug)]
pub(super) struct RemoteExchange(pub(super) Arc<Connection>);

#[async_trait]
impl Exchange for RemoteExchange {
    async fn open(&self, request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError> {
        let FetchRequest { root, hints, stall, share, events } = request;
        let call = Call::Open { root, hints, stall, share, watched: events.is_watched() };
        let (ticket, _) = self.0.begin(&call, Vec::new(), &events).await.map_err(Failure::into_exchange)?;
        let session = ticket.id;
        let events = tokio::spawn(ticket.tell_all(events)).abort_handle();
        Ok(Arc::new(RemoteFetch { connection: self.0.clone(), session, shares: Mutex::default(), events }))
    }
}

/// Who sent how much: peers and gateways.
type Shares = (Vec<PeerShare>, Vec<GatewayShare>);

/// A fetch session of the holder's.
#[derive(Debug)]
struct RemoteFetch {
    connection: Arc<Connection>,
    session: u64,
    /// As of the latest answer.
    shares: Mutex<Shares>,
    /// Passes events on. Ends the session with it.
    events: AbortHandle,
}

#[async_trait]
impl FetchSession for RemoteFetch {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        let call = Call::Fetch { session: self.session };
        let fetched = self.connection.call(&call, vec![cid.to_bytes().into()]).await;
        let answer = fetched.map_err(Failure::into_exchange)?;
        let shares: Shares = answer.header().map_err(Failure::into_exchange)?;
        let bytes = |(peers, gateways): &Shares| {
            let peers = peers.iter().map(|peer| peer.bytes);
            peers.chain(gateways.iter().map(|gateway| gateway.bytes)).sum::<u64>()
        };
        let mut latest = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers may overtake each other.
        if bytes(&shares) >= bytes(&latest) {
            *latest = shares;
        }
        drop(latest);
        Block::verify(*cid, answer.payload()).map_err(|source| ExchangeError::Refused { cid: *cid, source })
    }

    fn peers(&self) -> Vec<PeerShare> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn gateways(&self) -> Vec<GatewayShare> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl Drop for RemoteFetch {
    fn drop(&mut self) {
        self.events.abort();
    }
}

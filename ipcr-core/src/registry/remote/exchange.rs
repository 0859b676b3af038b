//! The holder's network.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cid::Cid;
use tokio::task::AbortHandle;

use super::connection::Connection;
use crate::dag::block::Block;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession, PeerShare};
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
        Ok(Arc::new(RemoteFetch { connection: self.0.clone(), session, peers: Mutex::default(), events }))
    }
}

/// A fetch session of the holder's.
#[derive(Debug)]
struct RemoteFetch {
    connection: Arc<Connection>,
    session: u64,
    /// As of the latest answer.
    peers: Mutex<Vec<PeerShare>>,
    /// Passes events on. Ends the session with it.
    events: AbortHandle,
}

#[async_trait]
impl FetchSession for RemoteFetch {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        let call = Call::Fetch { session: self.session };
        let fetched = self.connection.call(&call, vec![cid.to_bytes().into()]).await;
        let answer = fetched.map_err(Failure::into_exchange)?;
        let peers: Vec<PeerShare> = answer.header().map_err(Failure::into_exchange)?;
        let bytes = |peers: &[PeerShare]| peers.iter().map(|peer| peer.bytes).sum::<u64>();
        let mut latest = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers may overtake each other.
        if bytes(&peers) >= bytes(&latest) {
            *latest = peers;
        }
        drop(latest);
        Block::verify(*cid, answer.payload()).map_err(|source| ExchangeError::Refused { cid: *cid, source })
    }

    fn peers(&self) -> Vec<PeerShare> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for RemoteFetch {
    fn drop(&mut self) {
        self.events.abort();
    }
}

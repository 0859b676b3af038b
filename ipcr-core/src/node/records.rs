//! Where IPNS records are found and put: [`NameRecords`] for [`Node`].

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::bitswap::Discovery as _;
use super::{Network, Node, fetch};
use crate::limits;
use crate::naming::record::SignedRecord;
use crate::net::addresses;
use crate::port::records::{FoundRecord, NameRecords, RecordQuery, RecordsError};
use crate::reference::key::IpnsName;

/// How long others are waited for once a hinted peer has answered with a record.
const GRACE: Duration = Duration::from_secs(1);
/// The same once all hinted peers have answered.
const SHORT_GRACE: Duration = Duration::from_millis(200);
/// Records from the DHT that are enough.
const ENOUGH: usize = 8;
/// How long handing a record out may take.
const PUT: Duration = Duration::from_secs(20);

fn offline(reason: &str) -> RecordsError {
    RecordsError::Offline { reason: reason.into() }
}

#[async_trait]
impl NameRecords for Node {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        let network = &self.online().map_err(offline)?.network;
        Ok(network.find(&query).await)
    }

    async fn put(&self, name: &IpnsName, record: Bytes, hints: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        let network = &self.online().map_err(offline)?.network;
        let key = name.routing_key();
        let hinted = async {
            let peers = network.peers_of(hints).await;
            let puts = peers.into_iter().map(|(peer, addresses)| {
                let (key, record) = (&key, &record);
                async move {
                    network.hub.dial(peer, &addresses).await.ok()?;
                    network.kad.put_to(&peer, key, record).await.ok()?;
                    Some(peer)
                }
            });
            futures::future::join_all(puts).await.into_iter().flatten().collect::<Vec<_>>()
        };
        let hinted = async { timeout(PUT, hinted).await.unwrap_or_default() };
        let dht = async { timeout(PUT, network.kad.put(&key, &record)).await.unwrap_or_default() };
        let (mut taken, others) = tokio::join!(hinted, dht);
        taken.extend(others);
        taken.sort_unstable();
        taken.dedup();
        Ok(taken.iter().map(source).collect())
    }
}

fn source(peer: &PeerId) -> String {
    format!("peer {peer}")
}

impl Network {
    /// Peers by their addresses, with all names resolved.
    async fn peers_of(&self, hints: &[Multiaddr]) -> HashMap<PeerId, Vec<Multiaddr>> {
        let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for address in self.resolve(hints).await {
            if let Some(peer) = addresses::peer(&address) {
                peers.entry(peer).or_default().push(address);
            }
        }
        peers
    }

    /// What one peer says: by the fetch protocol, else from its part of the DHT.
    async fn record_of(&self, peer: PeerId, addresses: &[Multiaddr], key: &[u8]) -> Option<Bytes> {
        if let Err(error) = self.hub.dial(peer, addresses).await {
            tracing::debug!(%peer, %error, "a hinted peer was not reached");
            return None;
        }
        match fetch::ask(&self.hub, &peer, key).await {
            Ok(Some(record)) => return Some(record),
            Ok(None) => {}
            Err(error) => tracing::debug!(%peer, %error, "a hinted peer has no records to fetch"),
        }
        self.kad.value_of(&peer, key).await.ok().flatten().map(Bytes::from)
    }

    async fn find(&self, query: &RecordQuery) -> Vec<FoundRecord> {
        let key = query.name.routing_key();
        let mut deadline = Instant::now() + query.timeout;
        let mut found: Vec<FoundRecord> = Vec::new();
        let mut add = |record: Bytes, peer: &PeerId| {
            let new = found.iter().all(|known| known.record != record) && record.len() <= limits::IPNS_RECORD_BYTES;
            if new {
                found.push(FoundRecord { record, source: source(peer) });
            }
            new
        };

        let mut hinted = FuturesUnordered::new();
        let hints = [query.hints.as_slice(), &self.peers].concat();
        let resolved = timeout(query.timeout, self.peers_of(&hints)).await.unwrap_or_default();
        for (peer, addresses) in resolved {
            let key = &key;
            hinted.push(async move { (peer, self.record_of(peer, &addresses, key).await) });
        }
        let (sender, mut from_dht) = mpsc::channel(ENOUGH);
        let dht = self.kad.values(&key, sender);
        tokio::pin!(dht);
        let (mut searching, mut answered, mut dht_records) = (true, false, 0);
        loop {
            if hinted.is_empty() && !searching && from_dht.is_empty() {
                break;
            }
            tokio::select! {
                Some((peer, record)) = hinted.next(), if !hinted.is_empty() => {
                    if let Some(record) = record {
                        answered |= SignedRecord::verify(&query.name, record.clone()).is_ok();
                        add(record, &peer);
                    }
                    if answered {
                        let grace = if hinted.is_empty() { SHORT_GRACE } else { GRACE };
                        deadline = deadline.min(Instant::now() + grace);
                    }
                }
                () = &mut dht, if searching => searching = false,
                Some((peer, record)) = from_dht.recv() => {
                    let record = Bytes::from(record);
                    // Anybody on the way may send anything: only what the name has signed is an answer.
                    if record.len() > limits::IPNS_RECORD_BYTES || SignedRecord::verify(&query.name, record.clone()).is_err() {
                        tracing::debug!(%peer, "a peer of the DHT sent what is no record of the name");
                        continue;
                    }
                    dht_records += usize::from(add(record, &peer));
                    if dht_records >= ENOUGH && hinted.is_empty() {
                        break;
                    }
                }
                () = sleep_until(deadline) => break,
            }
        }
        found
    }
}

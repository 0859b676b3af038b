//! Telling the network who holds what: [`Announce`] for [`Node`].

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use futures::stream::StreamExt as _;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bitswap::Session;
use super::{Node, Online};
use crate::event::Emitter;
use crate::port::announce::Announce;
use crate::port::exchange::FetchRequest;

/// Keys that are provided at once.
const PARALLEL: usize = 8;
/// How long providing one key may take.
const PROVIDE: Duration = Duration::from_secs(60);

#[async_trait]
impl Announce for Node {
    fn peer_id(&self) -> PeerId {
        self.local
    }

    async fn addresses(&self) -> Vec<Multiaddr> {
        match self.online() {
            Ok(online) => online.host.addresses().await,
            Err(_) => Vec::new(),
        }
    }

    async fn provide(&self, keys: &[Cid]) -> usize {
        let Ok(online) = self.online() else { return 0 };
        let addresses = &online.host.addresses().await;
        let kad = &online.network.kad;
        // Owned keys: a borrow would tie the futures to the slice in a way that `Send` cannot see through.
        futures::stream::iter(keys.to_vec())
            .map(|key| async move { timeout(PROVIDE, kad.provide(&key, addresses)).await.unwrap_or(0) > 0 })
            .buffer_unordered(PARALLEL)
            .filter(|taken| std::future::ready(*taken))
            .count()
            .await
    }

    async fn holders(&self, root: &Cid, within: Duration) -> Vec<PeerId> {
        let Ok(online) = self.online() else { return Vec::new() };
        let mut holders = BTreeSet::new();
        let (sender, mut found) = mpsc::channel(PARALLEL);
        let provided = async {
            while let Some((peer, _)) = found.recv().await {
                holders.insert(peer);
            }
        };
        let search = async {
            tokio::join!(online.network.kad.providers(root, sender), provided);
        };
        let (_, connected) = tokio::join!(timeout(within, search), connected_holders(online, root, within));
        holders.extend(connected);
        holders.remove(&self.local);
        holders.into_iter().collect()
    }
}

/// Connected peers that say they have the root.
async fn connected_holders(online: &Online, root: &Cid, within: Duration) -> Vec<PeerId> {
    let request = FetchRequest { root: *root, hints: Vec::new(), stall: within, events: Emitter::silent() };
    let session = Session::ask_connected(online.bitswap.clone(), request);
    let answered = async {
        while !session.all_answered() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(within, answered).await;
    session.holders()
}

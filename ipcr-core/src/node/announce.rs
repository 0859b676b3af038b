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
use super::kad::Contact;
use super::{Node, Online};
use crate::event::Emitter;
use crate::port::announce::{Announce, Sought};
use crate::port::exchange::FetchRequest;
use crate::port::routing::Provider;

/// Keys that are provided at once.
const PARALLEL: usize = 8;
/// Most providers that are visited to ask them.
const VISITS: usize = 16;
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

    async fn provide(&self, keys: &[Cid]) -> Vec<bool> {
        let Ok(online) = self.online() else { return vec![false; keys.len()] };
        let addresses = &online.host.addresses().await;
        let kad = &online.network.kad;
        // Owned keys: a borrow would tie the futures to the slice in a way that `Send` cannot see through.
        futures::stream::iter(keys.to_vec())
            .map(|key| async move { timeout(PROVIDE, kad.provide(&key, addresses)).await.unwrap_or(0) > 0 })
            .buffered(PARALLEL)
            .collect()
            .await
    }

    async fn holders(&self, root: &Cid, within: Duration) -> Sought {
        let Ok(online) = self.online() else { return Sought::default() };
        let mut asked = Asked::default();
        // Who is only said to hold it is visited and asked like those that are connected.
        let _ = timeout(within / 2, asked.search(online, root, self.local)).await;
        let mut holders: BTreeSet<_> = connected_holders(online, root, within / 2).await.into_iter().collect();
        holders.remove(&self.local);
        let findable = (asked.answered || !holders.is_empty()).then_some(asked.provided || !holders.is_empty());
        Sought { holders: holders.into_iter().collect(), findable }
    }
}

/// What the DHT and routers say about a root.
#[derive(Default)]
struct Asked {
    answered: bool,
    /// Whether it names this node as a provider.
    provided: bool,
}

impl Asked {
    async fn search(&mut self, online: &Online, root: &Cid, local: PeerId) {
        let (sender, mut answers) = mpsc::channel::<Vec<Contact>>(PARALLEL);
        let mut visited = BTreeSet::from([local]);
        let visits = async {
            while let Some(answer) = answers.recv().await {
                self.answered = true;
                for Contact { peer, mut addresses } in answer {
                    addresses.retain(|address| online.network.mode.allows_learned(address));
                    if peer == local {
                        self.provided = true;
                    } else if visited.len() < VISITS
                        && visited.insert(peer)
                        && let Err(error) = online.hub.dial(peer, &addresses).await
                    {
                        tracing::debug!(%peer, %error, "a provider was not reached");
                    }
                }
            }
        };
        let by_dht = online.network.kad.provider_answers(root, sender.clone());
        let by_routers = async move {
            let Some(routing) = online.network.routing.get() else { return false };
            let (found, mut providers) = mpsc::channel::<Provider>(PARALLEL);
            let forward = async {
                while let Some(Provider { peer, addresses }) = providers.recv().await {
                    if sender.send(vec![Contact { peer, addresses }]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(routing.providers(root, found), forward).0
        };
        let (routed, (), ()) = tokio::join!(by_routers, by_dht, visits);
        self.answered |= routed;
    }
}

/// Connected peers that say they have the root.
async fn connected_holders(online: &Online, root: &Cid, within: Duration) -> Vec<PeerId> {
    let request =
        FetchRequest { root: *root, hints: Vec::new(), stall: within, share: false, events: Emitter::silent() };
    let session = Session::ask_connected(online.bitswap.clone(), request);
    let answered = async {
        while !session.all_answered() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(within, answered).await;
    session.holders()
}

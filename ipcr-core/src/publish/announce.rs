//! Telling others that this home holds the registry, and asking who finds it.

use std::time::Duration;

use cid::Cid;
use tokio::time::{Instant, sleep, timeout};

use super::Network;
use crate::dag::block::Block;
use crate::event::{Emitter, Stage};
use crate::reference::IpnsName;

/// The longest wait for others that hold the root.
const HOLDERS: Duration = Duration::from_secs(5);
/// How long to wait before they are asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Who else holds a root, and whether a holder is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Peer ids of others that confirmed to hold it.
    pub holders: Vec<String>,
    /// Whether others find a holder; `None` if nobody answered that.
    pub findable: Option<bool>,
}

/// Provides the root and the rendezvous key of a registry, and asks who holds the root.
pub(super) async fn announce(name: &IpnsName, root: &Cid, network: &Network) -> Reach {
    network.announce.provide(&[*root, rendezvous(name)]).await;
    ask(root, network).await
}

async fn ask(root: &Cid, network: &Network) -> Reach {
    let sought = network.announce.holders(root, HOLDERS).await;
    Reach { holders: sought.holders.iter().map(ToString::to_string).collect(), findable: sought.findable }
}

/// Waits until somebody else holds a root, for at most `wait`. Meanwhile they can fetch it from here.
pub async fn await_holders(root: &Cid, network: &Network, wait: Duration, events: &Emitter) -> Reach {
    events.stage(Stage::Waiting).await;
    let end = Instant::now() + wait.min(crate::limits::LONGEST_WAIT);
    let mut reach = Reach::default();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Ok(found) = timeout(left, ask(root, network)).await {
            reach = found;
        }
        if !reach.holders.is_empty() || Instant::now() + AGAIN >= end {
            return reach;
        }
        sleep(AGAIN).await;
    }
}

/// The key under which everyone who holds a registry can be found, whatever its root is at the moment: the raw SHA-256 CID of
/// `ipcr-registry:` and the IPNS name (design section 7).
pub fn rendezvous(name: &IpnsName) -> Cid {
    *Block::raw(format!("ipcr-registry:{name}").into_bytes().into()).cid()
}

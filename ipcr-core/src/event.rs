//! What an operation tells while it runs: [`Event`], sent by an [`Emitter`].
//!
//! Events are facts, never finished sentences, and never the result: that is what the operation returns. Each variant
//! says whether it is *guaranteed* (always delivered, in order, to a watcher that keeps reading) or *ephemeral* (may be
//! left out when the watcher is slow; the next one makes up for it). An operation that nobody watches sends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::digest::Digest;

/// How many events wait for a slow watcher before guaranteed ones hold the operation back.
const QUEUE: usize = 256;

/// The steps that operations go through, in the order in which they can occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// Starting the node, or attaching to the process that holds the home.
    Starting,
    /// Looking at the source.
    Inspecting,
    /// Following names to a registry root.
    Resolving,
    /// Finding and dialling peers that hold the root.
    Connecting,
    /// Waiting for the first layer of an engine's export, or of an archive.
    Exporting,
    /// Cutting, compressing, hashing and storing layers.
    Storing,
    /// Receiving blocks.
    Fetching,
    /// Handing the image to an engine, a file or another registry.
    Loading,
    /// Making the blocks durable and changing the registry.
    Committing,
    /// Signing and handing out the record.
    Publishing,
    /// Waiting until others hold what was published.
    Waiting,
    /// Serving until interrupted.
    Serving,
}

/// Something that the user should know although the operation goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The network answered with an older record than one seen before; the kept one is used.
    StaleAnswer {
        /// The IPNS name.
        name: String,
        /// The sequence that was found.
        found: u64,
        /// The sequence that is used.
        used: u64,
    },
    /// Nothing valid was found; the kept record is used.
    KeptRecord {
        /// The IPNS name.
        name: String,
        /// How long ago the record was last confirmed, in seconds.
        age: u64,
    },
    /// A DNSLink was found at the bare domain, where other software no longer looks.
    BareDomain {
        /// The domain.
        domain: String,
    },
    /// A domain leads to another key than before, and the key before has signed that this is its successor.
    HandedOver {
        /// The domain.
        domain: String,
        /// The key before.
        from: String,
        /// The key now.
        to: String,
    },
    /// The engine knows a repository digest that this push cannot keep.
    DigestLost {
        /// `host/repository@digest`, as a registry would be asked for it.
        repo_digest: String,
    },
    /// Layers were compressed again, so that the image has another digest than in its source.
    Recompressed {
        /// The digest in the source.
        from: Digest,
        /// The digest that it has now.
        to: Digest,
        /// Signatures, attestations and other manifests about the old digest that were left out.
        left_out: u64,
    },
    /// Only this machine holds what was published.
    OnlyHolder,
    /// The key of the registry came from another home, and no record of what that may have published was found.
    NoEarlierRecord {
        /// The IPNS name.
        name: String,
    },
    /// The record could not be handed to anyone.
    NotPublished {
        /// Why, for people.
        reason: String,
    },
    /// A peer or a gateway sent something wrong and was dropped.
    BadPeer {
        /// Its peer id, or its URL.
        peer: String,
        /// What it did, for people.
        reason: String,
    },
    /// Anything else, for people.
    Other {
        /// The sentence.
        message: String,
    },
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlobFate {
    /// Stored now.
    Stored,
    /// Already stored: read past or not even asked for.
    Known,
    /// Handed to the sink.
    Delivered,
    /// The sink had it.
    Present,
}

/// One fact about a running operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// Guaranteed. A stage begins; the one before it has ended.
    Stage {
        /// Which.
        stage: Stage,
    },
    /// Guaranteed. One step of a chain of names was followed.
    Name {
        /// `dnslink`, `ipns` or `ipfs`.
        kind: String,
        /// What was asked.
        name: String,
        /// What it says.
        value: String,
        /// Who answered.
        source: String,
    },
    /// Guaranteed. A peer takes part.
    Peer {
        /// Its peer id.
        peer: String,
        /// The address in use.
        address: String,
        /// Whether the connection goes through a relay.
        relayed: bool,
    },
    /// Guaranteed. A trustless gateway is asked for blocks.
    Gateway {
        /// Its URL.
        url: String,
    },
    /// Guaranteed. Work on a blob begins. Sizes may be 0 when they are not known yet.
    BlobStarted {
        /// The blob, or the layer's uncompressed digest.
        digest: Option<Digest>,
        /// A short name for people.
        label: String,
        /// Bytes to come.
        size: u64,
    },
    /// Ephemeral. Bytes of a started blob that are done, in total.
    BlobProgress {
        /// The label that it was started with.
        label: String,
        /// Bytes done.
        done: u64,
    },
    /// Guaranteed. A started blob is complete.
    BlobDone {
        /// The label that it was started with.
        label: String,
        /// What became of it.
        fate: BlobFate,
    },
    /// Ephemeral. Block bytes received from others so far.
    Received {
        /// Bytes.
        bytes: u64,
        /// Peers and gateways that sent them.
        peers: usize,
    },
    /// Ephemeral. Bytes uploaded to others while serving, in total.
    Served {
        /// Bytes.
        bytes: u64,
        /// Connected peers.
        peers: usize,
    },
    /// Guaranteed. See [`Warning`].
    Warning(Warning),
    /// Guaranteed. A service is ready and can be reached here.
    Ready {
        /// Multiaddrs or URLs.
        addresses: Vec<String>,
    },
}

impl Event {
    /// Whether it may be left out when the watcher is slow.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::BlobProgress { .. } | Self::Received { .. } | Self::Served { .. })
    }
}

/// The sending side of an operation's events. Clones feed the same watcher.
#[derive(Clone, Debug, Default)]
pub struct Emitter {
    watcher: Option<mpsc::Sender<Event>>,
    elsewhere: Option<Arc<Elsewhere>>,
}

/// What was received by other ways than by those that an [`Emitter`] is handed to; see [`Emitter::adding`].
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// Block bytes.
    pub bytes: AtomicU64,
    /// Who sent them.
    pub senders: AtomicUsize,
}

impl Emitter {
    /// An emitter that nobody watches.
    pub fn silent() -> Self {
        Self::default()
    }

    /// An emitter and its watcher.
    pub fn watched() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { watcher: Some(sender), elsewhere: None }, receiver)
    }

    /// An emitter for the same watcher that adds what came from elsewhere to every [`Event::Received`].
    #[must_use]
    pub fn adding(&self, elsewhere: Arc<Elsewhere>) -> Self {
        Self { watcher: self.watcher.clone(), elsewhere: Some(elsewhere) }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watcher.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Sends a guaranteed event; waits while the watcher is slow, and not at all once it is gone.
    pub async fn tell(&self, event: Event) {
        if let Some(sender) = &self.watcher {
            let _ = sender.send(event).await;
        }
    }

    /// Sends an ephemeral event; leaves it out when the watcher is slow.
    pub fn hint(&self, mut event: Event) {
        if let (Event::Received { bytes, peers }, Some(elsewhere)) = (&mut event, &self.elsewhere) {
            *bytes += elsewhere.bytes.load(Ordering::Relaxed);
            *peers += elsewhere.senders.load(Ordering::Relaxed);
        }
        if let Some(sender) = &self.watcher {
            let _ = sender.try_send(event);
        }
    }

    /// Sends an event that was received elsewhere, in the way of its class.
    pub async fn relay(&self, event: Event) {
        if event.is_ephemeral() {
            self.hint(event);
        } else {
            self.tell(event).await;
        }
    }

    /// Sends [`Event::Stage`].
    pub async fn stage(&self, stage: Stage) {
        self.tell(Event::Stage { stage }).await;
    }

    /// Sends [`Event::Warning`].
    pub async fn warn(&self, warning: Warning) {
        self.tell(Event::Warning(warning)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn guaranteed_events_wait_and_ephemeral_ones_do_not() {
        let (emitter, mut watcher) = Emitter::watched();
        for done in 0..2 * QUEUE as u64 {
            emitter.hint(Event::BlobProgress { label: "a".into(), done });
        }
        let tail = tokio::spawn({
            let emitter = emitter.clone();
            async move { emitter.stage(Stage::Loading).await }
        });
        drop(emitter);
        let mut count = 0;
        let mut last = None;
        while let Some(event) = watcher.recv().await {
            count += 1;
            last = Some(event);
        }
        tail.await.unwrap();
        assert_eq!(count, QUEUE + 1);
        assert_eq!(last, Some(Event::Stage { stage: Stage::Loading }));
    }

    #[tokio::test]
    async fn nobody_watching_costs_nothing() {
        Emitter::silent().stage(Stage::Loading).await;
        let (emitter, watcher) = Emitter::watched();
        drop(watcher);
        emitter.stage(Stage::Loading).await;
        assert!(!emitter.is_watched());
    }
}

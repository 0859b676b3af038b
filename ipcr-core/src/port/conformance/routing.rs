//! What every implementation of `port::routing` must do.

use cid::Cid;
use libp2p_identity::PeerId;
use tokio::sync::mpsc;

use crate::dag::block::Block;
use crate::port::memory::routing::MemoryRouting;
use crate::port::routing::{Provider, Routing};

/// Runs all checks on an implementation that asks somebody who knows what `known` knows.
pub(crate) async fn conforms(routing: &dyn Routing, known: &MemoryRouting) {
    let [one, other, unknown] = [b"one".as_slice(), b"other", b"unknown"].map(|bytes| *Block::raw(bytes.into()).cid());
    let address = |number: u16| format!("/ip4/127.0.0.1/tcp/{number}").parse().unwrap();
    let provider = |addresses| Provider { peer: PeerId::random(), addresses };
    let providers = [provider(vec![address(1), address(2)]), provider(vec![address(3)])];
    for provider in &providers {
        known.add(&one, provider.clone());
    }
    known.add(&other, providers[0].clone());
    assert_eq!(all(routing, &one).await, (providers.to_vec(), true));
    assert_eq!(all(routing, &other).await, (providers[..1].to_vec(), true));
    assert_eq!(all(routing, &unknown).await, (Vec::new(), true));
    // Nobody listens any more.
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    routing.providers(&one, sender).await;
}

/// Everyone who is found, by their first addresses, and whether anybody answered.
pub(crate) async fn all(routing: &dyn Routing, root: &Cid) -> (Vec<Provider>, bool) {
    let (sender, mut found) = mpsc::channel(1);
    let collect = async {
        let mut all = Vec::new();
        while let Some(provider) = found.recv().await {
            all.push(provider);
        }
        all.sort_by(|one: &Provider, other| one.addresses.first().cmp(&other.addresses.first()));
        all
    };
    let (answered, all) = tokio::join!(routing.providers(root, sender), collect);
    (all, answered)
}

#[tokio::test]
async fn in_memory() {
    let known = MemoryRouting::new();
    conforms(&known.clone(), &known).await;
}

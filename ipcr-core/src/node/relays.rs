//! Relays that this node listens at (libp2p specification, "Circuit Relay v2"): reservations are made, and made again when a
//! relay was away.

use std::sync::Arc;

use futures::future::BoxFuture;
use ipcr_swarm::Hub;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::host::Host;
use super::{Network, REDIAL, keep_peer};

/// The address of the relay itself, and who it is: what stands before `/p2p-circuit` at the end.
pub(super) fn relay_of(address: &Multiaddr) -> Option<(Multiaddr, PeerId)> {
    let mut relay = address.clone();
    if relay.pop() != Some(Protocol::P2pCircuit) {
        return None;
    }
    let peer = crate::net::addresses::peer(&relay)?;
    Some((relay, peer))
}

/// Stays reachable through a relay for as long as it is polled. The reservation ends with the connection to the relay.
pub(super) async fn keep(host: Arc<Host>, hub: Hub, network: Arc<Network>, address: Multiaddr) {
    let Some((relay, peer)) = relay_of(&address) else { return };
    let reserve = || -> BoxFuture<'static, ()> {
        let (host, address) = (host.clone(), address.clone());
        Box::pin(async move {
            let mut pause = REDIAL.0;
            while let Err(error) = host.listen_at_relay(address.clone()).await {
                tracing::warn!(%peer, %error, "a relay gives no reservation");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(REDIAL.1);
            }
            tracing::info!(%peer, "others reach this node through a relay");
        })
    };
    keep_peer(hub, network, relay, reserve).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_relay() {
        let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        let relay = format!("/ip4/9.9.9.9/tcp/1/p2p/{peer}");
        let circuit: Multiaddr = format!("{relay}/p2p-circuit").parse().unwrap();
        assert_eq!(relay_of(&circuit), Some((relay.parse().unwrap(), peer.parse().unwrap())));
        for other in [relay.as_str(), "/ip4/9.9.9.9/tcp/1/p2p-circuit", &format!("{circuit}/p2p/{peer}")] {
            assert_eq!(relay_of(&other.parse().unwrap()), None, "{other}");
        }
    }
}

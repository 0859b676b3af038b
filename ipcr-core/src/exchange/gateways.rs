//! Trustless HTTP gateways as another source in a fetch session: [`GatewayExchange`].
//!
//! Source: Trustless Gateway specification (specs.ipfs.tech): `GET /ipfs/{cid}?format=raw` for one block, `?format=car` with
//! `dag-scope=entity` and `entity-bytes` for a run of leaves of one file.
//!
//! * [`session`](self): one schedule of wanted blocks for the peers of another exchange, taken together, and each gateway.
//! * `pace`: what each of them was measured to send, and so who is asked for what.
//! * `kin`: which blocks lie beside each other, so that one request can get several.
//! * `gateway`: the requests, and what a gateway has earned.
//!
//! Guarantees: what comes is verified before anybody sees it; a gateway that sent wrong bytes three times is not asked again as long as the
//! exchange lives; without gateways, or when none can be used, peers are asked as if there were none.

mod gateway;
mod kin;
mod pace;
mod plan;
mod session;

use std::sync::Arc;

use async_trait::async_trait;

use self::gateway::Gateway;
use self::session::Session;
use crate::net::{HttpClient, Rate};
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession};

/// An exchange and gateways beside it. The client must let their hosts be asked.
#[derive(Clone, Debug)]
pub struct GatewayExchange {
    peers: Arc<dyn Exchange>,
    gateways: Vec<Arc<Gateway>>,
}

impl GatewayExchange {
    /// Asks these gateways, given as base URLs, beside those whom `peers` reaches; what they send is counted against `download`.
    pub fn new(peers: Arc<dyn Exchange>, client: &HttpClient, gateways: &[String], download: &Arc<Rate>) -> Self {
        let gateway = |url: &String| Arc::new(Gateway::new(client.clone(), url, Arc::clone(download)));
        let gateways = gateways.iter().map(gateway).collect();
        Self { peers, gateways }
    }
}

#[async_trait]
impl Exchange for GatewayExchange {
    async fn open(&self, request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError> {
        if self.gateways.is_empty() {
            return self.peers.open(request).await;
        }
        Ok(Arc::new(Session::open(self.peers.as_ref(), self.gateways.clone(), request).await?))
    }
}

#[cfg(test)]
mod tests;

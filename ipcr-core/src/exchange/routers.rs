//! HTTP routers that know who holds what: [`HttpRouting`].
//!
//! Source: Delegated Routing V1 HTTP API, "Content Routing API" (`GET /routing/v1/providers/{cid}`) and "Peer Routing API"
//! (`GET /routing/v1/peers/{peer-id}`), answers as one JSON object or streamed as NDJSON; "Known Schemas" (`peer`, and `bitswap`, which old
//! routers send).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use cid::multibase::Base;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::kind::ErrorKind;
use crate::limits;
use crate::net::{HttpClient, HttpError, StatusCode};
use crate::port::routing::{Provider, Routing};

/// Codec of a CID that names a peer (multicodec table: `libp2p-key`).
const LIBP2P_KEY: u64 = 0x72;
/// One JSON value in each line.
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";
/// How long a router may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Peers whose addresses are asked for at once.
const PARALLEL: usize = 8;

/// Delegated routers. The client must let their hosts be asked.
#[derive(Clone, Debug)]
pub struct HttpRouting {
    client: HttpClient,
    routers: Vec<String>,
}

/// An answer that is not what the API says.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not one of a router: {0}")]
pub struct BadAnswer(#[from] serde_json::Error);

impl BadAnswer {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

/// Why a router gave nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Answer(#[from] BadAnswer),
}

impl HttpRouting {
    /// Asks these routers, given as base URLs.
    pub fn new(client: HttpClient, routers: &[String]) -> Self {
        let routers = routers.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self { client, routers }
    }

    /// What a router says under a path; nobody, if it knows nobody.
    async fn ask(&self, url: &str) -> Result<Vec<Provider>, AskError> {
        let response = self.client.get(url).header("accept", &format!("{NDJSON}, {JSON};q=0.5")).send().await?;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::NO_CONTENT) {
            return Ok(Vec::new());
        }
        let response = response.success()?;
        let kind = response.header("content-type").unwrap_or_default();
        let streamed = kind.split(';').next().map(str::trim) == Some(NDJSON);
        let body = response.bytes_at_most(limits::ROUTING_BYTES).await?;
        Ok(if streamed { read_lines(&body)? } else { read_object(&body)? })
    }

    /// The same; `None` when the router fails, because others may not.
    async fn try_ask(&self, url: String) -> Option<Vec<Provider>> {
        match timeout(ANSWER, self.ask(&url)).await {
            Ok(Ok(providers)) => Some(providers),
            Ok(Err(error)) => {
                tracing::debug!(%url, %error, "no providers from this router");
                None
            }
            Err(_) => {
                tracing::debug!(%url, "this router took too long");
                None
            }
        }
    }

    /// A provider with the addresses that a router knows of it, if it came without.
    async fn with_addresses(&self, router: &str, mut provider: Provider) -> Provider {
        if provider.addresses.is_empty() {
            let peer = Cid::new_v1(LIBP2P_KEY, *provider.peer.as_ref());
            let peer = peer.to_string_of_base(Base::Base36Lower).expect("base 36 spells everything");
            let found = self.try_ask(format!("{router}/routing/v1/peers/{peer}")).await.unwrap_or_default();
            provider.addresses =
                found.into_iter().find(|one| one.peer == provider.peer).map(|one| one.addresses).unwrap_or_default();
        }
        provider
    }
}

#[async_trait]
impl Routing for HttpRouting {
    async fn providers(&self, root: &Cid, found: mpsc::Sender<Provider>) -> bool {
        let known: Arc<Mutex<HashSet<PeerId>>> = Arc::default();
        let asked = self.routers.iter().map(|router| {
            let (known, found) = (Arc::clone(&known), found.clone());
            async move {
                let Some(answer) = self.try_ask(format!("{router}/routing/v1/providers/{root}")).await else {
                    return false;
                };
                let new: Vec<Provider> = {
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    answer.into_iter().filter(|provider| known.insert(provider.peer)).collect()
                };
                let mut reached =
                    stream::iter(new).map(|one| self.with_addresses(router, one)).buffer_unordered(PARALLEL);
                while let Some(provider) = reached.next().await {
                    if found.send(provider).await.is_err() {
                        break;
                    }
                }
                true
            }
        });
        join_all(asked).await.contains(&true)
    }
}

/// Reads `{"Providers": […]}` or `{"Peers": […]}`.
fn read_object(body: &[u8]) -> Result<Vec<Provider>, BadAnswer> {
    let answer: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
    let records = ["Providers", "Peers"].iter().filter_map(|member| answer.get(*member)?.as_array()).flatten();
    Ok(records.filter_map(read).take(limits::ROUTING_PROVIDERS).collect())
}

/// Reads one record in each line. A line that was cut off ends the answer.
fn read_lines(body: &[u8]) -> Result<Vec<Provider>, BadAnswer> {
    let mut providers = Vec::new();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let record: Value = match serde_json::from_slice(line) {
            Ok(record) => record,
            Err(_) if !providers.is_empty() => break,
            Err(error) => return Err(error.into()),
        };
        providers.extend(read(&record));
        if providers.len() >= limits::ROUTING_PROVIDERS {
            break;
        }
    }
    Ok(providers)
}

/// Reads one record; `None` for what is no peer that exchanges blocks. Members and schemas that are not known are passed over, as the API
/// says.
fn read(record: &Value) -> Option<Provider> {
    if !matches!(record.get("Schema")?.as_str()?, "peer" | "bitswap") {
        return None;
    }
    // Routers that know no protocols leave the list out.
    let protocols = record.get("Protocols").and_then(Value::as_array);
    let speaks = |name: &Value| matches!(name.as_str(), Some("transport-bitswap" | "unknown"));
    if protocols.is_some_and(|protocols| !protocols.is_empty() && !protocols.iter().any(speaks)) {
        return None;
    }
    let peer = record.get("ID")?.as_str()?.parse().ok()?;
    let addresses = record.get("Addrs").and_then(Value::as_array).into_iter().flatten();
    let addresses = addresses.filter_map(|address| address.as_str()?.parse::<Multiaddr>().ok());
    Some(Provider { peer, addresses: addresses.take(limits::PROVIDER_ADDRESSES).collect() })
}

/// Writes providers as a router would.
#[cfg(any(test, feature = "fuzzing"))]
fn write(providers: &[Provider]) -> Vec<Value> {
    let write =
        |one: &Provider| serde_json::json!({"Schema": "peer", "ID": one.peer.to_string(), "Addrs": one.addresses});
    providers.iter().map(write).collect()
}

/// Feeds any bytes as the answers of a router.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    for read in [read_object, read_lines] {
        let providers = match read(bytes) {
            Ok(providers) => providers,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Integrity);
                continue;
            }
        };
        assert!(providers.len() <= limits::ROUTING_PROVIDERS, "providers are bounded");
        assert!(providers.iter().all(|one| one.addresses.len() <= limits::PROVIDER_ADDRESSES), "addresses are bounded");
        let written = write(&providers);
        let lines: Vec<String> = written.iter().map(Value::to_string).collect();
        let object = serde_json::json!({ "Providers": written }).to_string();
        assert_eq!(read_lines(lines.join("\n").as_bytes()).expect("what was written is read"), providers);
        assert_eq!(read_object(object.as_bytes()).expect("what was written is read"), providers);
    }
}

#[cfg(test)]
mod tests;

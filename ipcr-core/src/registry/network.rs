//! The network of a home, started when it is first needed: [`LazyNetwork`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use multiaddr::Multiaddr;
use tokio::sync::{Mutex, OnceCell};

use super::error::{RegistryError, Topic};
use super::holder::{Activity, Manner, ResolvedRoot};
use super::local::HomeConfig;
use super::profile::{self, Profile};
use crate::dag::block::Block;
use crate::event::{Emitter, Stage, Warning};
use crate::exchange::gateways::GatewayExchange;
use crate::exchange::path;
use crate::exchange::reader::Reader;
use crate::exchange::routers::HttpRouting;
use crate::exchange::walk::{Seen, reachable};
use crate::identity::KeyStore;
use crate::kind::in_one_line;
use crate::limits;
use crate::naming::dns::{DnsHosts, Resolver as DnsResolver};
use crate::naming::handover::Handover;
use crate::naming::http_records::{Combined, HttpRecords};
use crate::naming::ipns::KeptShelf;
use crate::naming::resolve::{Chain, NameResolver, ResolveError, ResolverOptions};
use crate::naming::trust::TrustError;
use crate::naming::{Clock, dnslink};
use crate::net::{HttpClient, HttpPolicy};
use crate::node::{Node, Share};
use crate::pin::files;
use crate::pin::state::State;
use crate::port::announce::Announce;
use crate::port::blocks::BlockStore;
use crate::port::dns::{Dns, NoDns};
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession, GatewayShare, PeerShare};
use crate::port::records::{NameRecords, RecordShelf};
use crate::port::table::Table;
use crate::reference::Authority;
use crate::tree::handover;

/// The longest time without progress while hand-overs are fetched: a changed key is refused sooner than that.
const HANDOVER_STALL: Duration = Duration::from_secs(15);

/// A node and what is built upon it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) node: Arc<Node>,
    /// The node's peers, and gateways where there are any.
    pub(super) exchange: Arc<dyn Exchange>,
    pub(super) names: NameResolver,
}

/// Parts that do not run yet.
#[derive(Debug)]
pub(super) struct LazyNetwork {
    config: HomeConfig,
    blocks: Arc<dyn BlockStore>,
    tables: Arc<dyn Table>,
    parts: Mutex<Option<Arc<Parts>>>,
    dns: Mutex<Option<Arc<dyn Dns>>>,
}

impl LazyNetwork {
    pub(super) fn new(config: HomeConfig, blocks: Arc<dyn BlockStore>, tables: Arc<dyn Table>) -> Self {
        Self { config, blocks, tables, parts: Mutex::new(None), dns: Mutex::new(None) }
    }

    /// The resolver of host names and TXT records; needs no node.
    pub(super) async fn dns(&self) -> Result<Arc<dyn Dns>, RegistryError> {
        let mut dns = self.dns.lock().await;
        if let Some(dns) = dns.as_ref() {
            return Ok(Arc::clone(dns));
        }
        let made: Arc<dyn Dns> = if self.config.node.offline {
            Arc::new(NoDns)
        } else {
            let made = DnsResolver::new(self.config.dns.clone()).await;
            Arc::new(made.map_err(|error| RegistryError::Step {
                doing: "setting up DNS",
                kind: error.kind(),
                topic: Topic::DnsDown,
                source: Box::new(error),
            })?)
        };
        *dns = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Starts the node, unless it runs.
    pub(super) async fn start(&self) -> Result<Arc<Parts>, RegistryError> {
        let mut parts = self.parts.lock().await;
        if let Some(parts) = parts.as_ref() {
            return Ok(Arc::clone(parts));
        }
        let keys = KeyStore::new(&self.config.path);
        let key = keys.node_or_new().map_err(|error| super::keys::failed("reading the node key", error))?;
        let profile = Profile::load(&self.config.path)?;
        let mut node = self.config.node.clone();
        node.keypair = key.keypair().clone();
        node.port = node.port.or(profile.port);
        if node.announce.is_empty() {
            node.announce.clone_from(&profile.announce);
        }
        let dns = self.dns().await?;
        let shelf: Arc<dyn RecordShelf> = Arc::new(KeptShelf::new(Arc::clone(&self.tables), Clock::default()));
        let started = Node::start(node, Arc::clone(&self.blocks), shelf, Arc::clone(&dns)).await;
        let node = started.map_err(|error| RegistryError::Step {
            doing: "starting the node",
            kind: error.kind(),
            topic: Topic::Other,
            source: Box::new(error),
        })?;
        // What was announced says the first one: a port that is taken by somebody else for once does not change it.
        if node.port().is_some() && profile.port.is_none() && self.config.node.listen.is_empty() {
            // Starting took its time, in which the profile may have been changed.
            let mut profile = Profile::load(&self.config.path)?;
            profile.port = node.port();
            profile.save(&self.config.path)?;
        }
        // Only those who ask without a lock need it: a full disk must not keep anybody from working.
        if let Err(error) = profile::note_running(&self.config.path, &node.addresses().await) {
            tracing::debug!(error = %in_one_line(&error), "the addresses of the running node could not be noted");
        }
        self.note_own().await;
        let (routers, gateways) = (&self.config.routers, &self.config.gateways);
        let http = !(self.config.node.offline || routers.is_empty() && gateways.is_empty());
        let http = if http { Some(self.http(&dns)?) } else { None };
        let records = self.records(&node, http.as_ref());
        let peers = Arc::clone(&node) as Arc<dyn Exchange>;
        let exchange = match &http {
            Some(client) if !gateways.is_empty() => {
                Arc::new(GatewayExchange::new(peers, client, gateways, &node.download()))
            }
            _ => peers,
        };
        let mut options = ResolverOptions::default();
        options.timeout = options.timeout.min(self.config.stall);
        options.mode = self.config.node.mode.clone();
        let names = NameResolver::new(dns, records, Arc::clone(&self.tables), options);
        let made = Arc::new(Parts { node, exchange, names });
        *parts = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Everyone who may know records: peers and the DHT, routers, gateways. The node asks the routers for holders, too.
    fn records(&self, node: &Arc<Node>, http: Option<&HttpClient>) -> Arc<dyn NameRecords> {
        let (routers, gateways) = (&self.config.routers, &self.config.gateways);
        let Some(client) = http else { return Arc::clone(node) as Arc<dyn NameRecords> };
        if !routers.is_empty() {
            node.ask_also(Arc::new(HttpRouting::new(client.clone(), routers)));
        }
        let http = HttpRecords::new(client.clone(), routers, gateways);
        Arc::new(Combined::new(vec![Arc::clone(node) as Arc<dyn NameRecords>, Arc::new(http)]))
    }

    /// The HTTP client, within the reach of the network mode; the configured hosts are always within it.
    pub(super) fn http(&self, dns: &Arc<dyn Dns>) -> Result<HttpClient, RegistryError> {
        let mut policy = HttpPolicy::new((&self.config.node.mode).into());
        policy.stall = self.config.stall;
        for url in self.config.routers.iter().chain(&self.config.gateways) {
            policy = policy.naming_url(url);
        }
        let made = HttpClient::new(policy, Arc::new(DnsHosts(Arc::clone(dns))));
        made.map_err(|error| RegistryError::Step {
            doing: "setting up HTTP",
            kind: error.kind(),
            topic: Topic::Other,
            source: Box::new(error),
        })
    }

    /// Follows a name.
    pub(super) async fn resolve(
        &self,
        authority: &Authority,
        manner: Manner,
        allow_stale: bool,
        events: &Emitter,
    ) -> Result<ResolvedRoot, RegistryError> {
        let parts = self.start().await?;
        let names = parts.names.clone().within(manner.stall);
        let mut hints = manner.hints.clone();
        for peer in &self.config.node.peers {
            if !hints.contains(peer) {
                hints.push(peer.clone());
            }
        }
        let followed = names.follow(authority, &hints, allow_stale, events).await;
        let followed = followed.map_err(RegistryError::from_resolve)?;
        let resolved = match names.believe(followed, &[]).await {
            Err((ResolveError::Trust(TrustError::Changed { domain, remembered, found }), chain)) => {
                let (from, to) = (remembered.to_string(), found.to_string());
                let handovers = self.handovers(&parts, &chain, &manner, events).await;
                let believed = names.believe(*chain, &handovers).await;
                if believed.is_ok() {
                    events.warn(Warning::HandedOver { domain: domain.to_string(), from, to }).await;
                }
                believed
            }
            believed => believed,
        };
        let resolved = resolved.map_err(|(error, _)| RegistryError::from_resolve(error))?;
        Ok(ResolvedRoot {
            root: resolved.root,
            path: resolved.path,
            chain: resolved.chain,
            trust: resolved.trust,
            hints: resolved.hints,
        })
    }

    /// The hand-overs that the registry at the end of a chain shows; none where it cannot be read, because then nothing speaks for a
    /// changed key.
    async fn handovers(&self, parts: &Parts, chain: &Chain, manner: &Manner, events: &Emitter) -> Vec<Handover> {
        let reading = async {
            let (stall, share) = (manner.stall.min(HANDOVER_STALL), manner.share);
            let (root, hints, events) = (*chain.root(), chain.hints().to_vec(), events.clone());
            let fetch = parts.exchange.open(FetchRequest { root, hints, stall, share, events }).await.ok();
            let session = self.blocks.begin(limits::LEASE).await.ok()?;
            let reader = Reader::new(Arc::clone(&self.blocks), Some(Arc::from(session)), fetch);
            let base = match chain.path() {
                [] => root,
                path => path::resolve(&reader, &root, &path.join("/")).await.ok()?,
            };
            handover::handovers(&reader, &base).await.ok()
        };
        reading.await.unwrap_or_default()
    }

    /// The addresses that a domain gives.
    pub(super) async fn hints(&self, domain: &str) -> Vec<Multiaddr> {
        match (self.dns().await, domain.parse()) {
            (Ok(dns), Ok(domain)) => dnslink::hints(dns.as_ref(), &domain, &self.config.node.mode).await,
            _ => Vec::new(),
        }
    }

    /// What the node is doing, without starting it.
    pub(super) async fn activity(&self) -> Activity {
        let Some(parts) = self.parts.lock().await.clone() else { return Activity::default() };
        let traffic = parts.node.traffic();
        Activity {
            running: true,
            addresses: parts.node.addresses().await,
            peers: traffic.peers,
            received_bytes: traffic.received_bytes,
            served_bytes: traffic.served_bytes,
        }
    }

    /// Says which blocks are this registry's own, where only those are for others.
    async fn note_own(&self) {
        if let Share::Own(own) = &self.config.node.share
            && let Some(found) = self.own_blocks().await
        {
            own.set(found);
        }
    }

    /// What is below this registry's root and the one that its record names, and, where another home may have changed the way to it, what
    /// was pushed here.
    async fn own_blocks(&self) -> Option<Seen> {
        let look = async {
            let state = State::load(&self.tables).await?;
            let pushed = if state.shared { files::all(&self.tables).await? } else { Vec::new() };
            let roots = state.root.into_iter().chain(state.published.map(|published| published.root));
            let all: Vec<Cid> = roots.chain(pushed).collect();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reachable(self.blocks.as_ref(), &all).await?)
        };
        let found = look.await;
        found.inspect_err(|error| tracing::warn!(%error, "what may be served of this registry is not known")).ok()
    }

    /// Lets waiting peers know that there are new blocks.
    pub(super) async fn blocks_added(&self) {
        self.note_own().await;
        if let Some(parts) = self.parts.lock().await.as_ref() {
            if parts.node.withholds()
                && let Some(own) = self.own_blocks().await
            {
                parts.node.release_own(&own);
            }
            parts.node.blocks_added();
        }
    }

    /// Ends the node.
    pub(super) async fn stop(&self) {
        if let Some(parts) = self.parts.lock().await.take() {
            parts.node.shutdown().await;
            profile::forget_running(&self.config.path);
        }
    }
}

/// The exchange of a home, for a node that may not run yet.
#[derive(Debug)]
pub(super) struct LazyExchange(pub(super) Arc<LazyNetwork>);

#[async_trait]
impl Exchange for LazyExchange {
    async fn open(&self, request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError> {
        // The node is started by the first block that is missing here: what is stored needs no network.
        Ok(Arc::new(LazySession { network: Arc::clone(&self.0), request, session: OnceCell::new() }))
    }
}

/// A session that starts the node when the first block has to be fetched.
#[derive(Debug)]
struct LazySession {
    network: Arc<LazyNetwork>,
    request: FetchRequest,
    session: OnceCell<Arc<dyn FetchSession>>,
}

#[async_trait]
impl FetchSession for LazySession {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        let opened = self.session.get_or_try_init(|| async {
            let offline = |error: RegistryError| ExchangeError::Offline { reason: in_one_line(&error) };
            let parts = self.network.start().await.map_err(offline)?;
            self.request.events.stage(Stage::Connecting).await;
            parts.exchange.open(self.request.clone()).await
        });
        opened.await?.fetch(cid).await
    }

    fn peers(&self) -> Vec<PeerShare> {
        self.session.get().map_or_else(Vec::new, |session| session.peers())
    }

    fn gateways(&self) -> Vec<GatewayShare> {
        self.session.get().map_or_else(Vec::new, |session| session.gateways())
    }
}

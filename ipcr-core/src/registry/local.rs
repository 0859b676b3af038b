//! The holder of a home in this process: [`LocalHolder`].
//!
//! It owns the store, the tables, the names and the keys, and a node that is started when it is first needed: a push without
//! publishing, a listing or a check touch no network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use multiaddr::Multiaddr;
use tokio::sync::{Mutex, OnceCell};

use super::error::{RegistryError, Topic};
use super::holder::{Activity, ChangeRequest, Changed, Holder, ResolveRequest, ResolvedRoot};
use super::network::{LazyExchange, LazyNetwork};
use super::options::InitOptions;
use super::outcome::{CheckOutcome, GcOutcome, Identity, TrustEntry};
use super::profile::{self, Profile};
use crate::event::{Emitter, Stage};
use crate::identity::KeyStore;
use crate::kind::ErrorKind;
use crate::naming::Clock;
use crate::naming::chain::{ChainStep, StepKind, TrustLevel};
use crate::naming::dns::DnsOptions;
use crate::naming::trust::{Anchor, Remembered, TrustTable};
use crate::node::NodeConfig;
use crate::pin::state::State;
use crate::port::announce::Announce;
use crate::port::blocks::BlockStore;
use crate::port::exchange::Exchange;
use crate::port::table::Table;
use crate::publish::{Network, Publisher, RecordPolicy};
use crate::reference::{Authority, Domain};
use crate::store::home::Home;
use crate::upkeep::collect::{CacheLimit, collect};
use crate::upkeep::inspect::check;

/// How a home is opened. Plain data: make one with [`HomeConfig::new`] and change its fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HomeConfig {
    /// The home's directory.
    pub path: PathBuf,
    /// The network, but for the transport key and the port, which the home keeps.
    pub node: NodeConfig,
    /// DNS.
    pub dns: DnsOptions,
    /// Delegated routers (URLs).
    pub routers: Vec<String>,
    /// Trustless gateways (URLs).
    pub gateways: Vec<String>,
    /// The longest time without progress in one stage.
    pub stall: Duration,
    /// How records are written.
    pub records: RecordPolicy,
    /// How much of what was pulled is kept; `None` for a tenth of the disk, at most 10 GiB.
    pub cache_bytes: Option<u64>,
}

impl HomeConfig {
    /// A home with everything else at its default.
    pub fn new(path: impl Into<PathBuf>, node: NodeConfig) -> Self {
        Self {
            path: path.into(),
            node,
            dns: DnsOptions::default(),
            routers: Vec::new(),
            gateways: Vec::new(),
            stall: crate::limits::STALL,
            records: RecordPolicy::default(),
            cache_bytes: None,
        }
    }
}

/// The holder of a home.
#[derive(Debug)]
pub struct LocalHolder {
    config: HomeConfig,
    /// Held for its lock.
    home: Home,
    blocks: Arc<dyn BlockStore>,
    tables: Arc<dyn Table>,
    network: Arc<LazyNetwork>,
    publisher: OnceCell<Arc<Publisher>>,
    init: Mutex<()>,
    serving: std::sync::atomic::AtomicBool,
}

impl LocalHolder {
    /// Opens the store and the tables of a locked home.
    pub async fn open(home: Home, config: HomeConfig) -> Result<Arc<Self>, RegistryError> {
        let opened = tokio::task::spawn_blocking(move || {
            let blocks = home.blocks().map_err(|error| RegistryError::from_store("opening the store", error))?;
            let tables = home.table().map_err(|error| RegistryError::from_table("opening the tables", error))?;
            Ok::<_, RegistryError>((home, Arc::new(blocks) as Arc<dyn BlockStore>, Arc::new(tables) as Arc<dyn Table>))
        });
        let (home, blocks, tables) = opened.await.map_err(|error| step("opening the home", error))??;
        let network = Arc::new(LazyNetwork::new(config.clone(), Arc::clone(&blocks), Arc::clone(&tables)));
        Ok(Arc::new(Self {
            config,
            home,
            blocks,
            tables,
            network,
            publisher: OnceCell::new(),
            init: Mutex::new(()),
            serving: std::sync::atomic::AtomicBool::new(false),
        }))
    }

    /// Makes the keys and an empty registry. Nothing that is there is overwritten.
    pub async fn init(&self, options: InitOptions) -> Result<Identity, RegistryError> {
        let _turn = self.init.lock().await;
        if let Ok(identity) = profile::identity(&self.config.path) {
            return Err(RegistryError::AlreadyInitialised { ipns: identity.ipns });
        }
        let path = self.config.path.clone();
        tokio::task::spawn_blocking(move || super::keys::create(&path, &options))
            .await
            .map_err(|error| step("making the keys", error))??;
        let publisher = self.publisher().await?;
        publisher.begin().await.map_err(|error| RegistryError::from_publish("making the registry", error))?;
        profile::identity(&self.config.path)
    }

    /// Says that this process goes on serving after its command, so that what it publishes can be fetched.
    pub fn set_serving(&self) {
        self.serving.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Publishes the registry again, so that its record does not run out.
    pub async fn refresh(&self) -> Result<(), RegistryError> {
        if self.publisher().await.is_err() {
            return Ok(());
        }
        let request = ChangeRequest { edits: Vec::new(), publish: true, force: false, wait: Duration::ZERO };
        self.change(request, Emitter::silent()).await.map(|_| ())
    }

    /// The home's directory.
    pub fn path(&self) -> &std::path::Path {
        self.home.path()
    }

    async fn publisher(&self) -> Result<Arc<Publisher>, RegistryError> {
        let made = self.publisher.get_or_try_init(|| async {
            let keys = KeyStore::new(&self.config.path);
            let key = keys.registry().map_err(|error| super::keys::failed("reading the keys", error))?;
            let key = key.ok_or(RegistryError::NoRegistry)?;
            let info = super::keys::registry_info(&self.config.path, &key)?;
            let (blocks, tables) = (Arc::clone(&self.blocks), Arc::clone(&self.tables));
            Ok::<_, RegistryError>(Arc::new(Publisher::new(blocks, tables, key, info, self.config.records)))
        });
        made.await.cloned()
    }

    /// The network, with the hints of our own domain.
    async fn publishing_network(&self) -> Result<Network, RegistryError> {
        let parts = self.network.start().await?;
        let profile = Profile::load(&self.config.path)?;
        let mut hints = self.config.node.peers.clone();
        if let Some(domain) = &profile.domain {
            hints.extend(self.network.hints(domain).await);
        }
        Ok(Network {
            records: parts.names.records().clone(),
            announce: Arc::clone(&parts.node) as Arc<dyn Announce>,
            exchange: Arc::clone(&parts.node) as Arc<dyn Exchange>,
            hints,
            stall: self.config.stall,
        })
    }

    fn trust(&self) -> TrustTable {
        TrustTable::new(Arc::clone(&self.tables), Clock::default())
    }

    fn cache_limit(&self) -> CacheLimit {
        let bytes = self.config.cache_bytes.unwrap_or_else(|| {
            let disk = rustix::fs::statvfs(&self.config.path).map_or(u64::MAX, |stat| stat.f_frsize * stat.f_blocks);
            (disk / 10).min(10 << 30)
        });
        CacheLimit { bytes }
    }
}

#[async_trait]
impl Holder for LocalHolder {
    fn blocks(&self) -> Arc<dyn BlockStore> {
        Arc::clone(&self.blocks)
    }

    fn tables(&self) -> Arc<dyn Table> {
        Arc::clone(&self.tables)
    }

    fn exchange(&self) -> Arc<dyn Exchange> {
        Arc::new(LazyExchange(Arc::clone(&self.network)))
    }

    async fn identity(&self) -> Result<Identity, RegistryError> {
        profile::identity(&self.config.path)
    }

    async fn resolve(&self, request: ResolveRequest, events: Emitter) -> Result<ResolvedRoot, RegistryError> {
        let Some(authority) = request.authority else {
            let identity = self.identity().await?;
            let state = State::load(&self.tables).await;
            let state = state.map_err(|error| RegistryError::from_table("reading the registry's state", error))?;
            let root = state.root.ok_or(RegistryError::NoRegistry)?;
            return Ok(own_root(root, &identity, state.published.map(|published| published.sequence), &self.config));
        };
        let authority: Authority = authority.parse().map_err(RegistryError::from_name)?;
        self.network.resolve(&authority, request.hints, request.allow_stale, &events).await
    }

    async fn change(&self, request: ChangeRequest, events: Emitter) -> Result<Changed, RegistryError> {
        let publisher = self.publisher().await?;
        let network = if request.publish && !self.config.node.offline {
            events.stage(Stage::Connecting).await;
            Some(self.publishing_network().await?)
        } else {
            None
        };
        let done = publisher
            .change(request.edits, request.force, network.as_ref(), &events)
            .await
            .map_err(|error| RegistryError::from_publish("changing the registry", error))?;
        self.network.blocks_added().await;
        let identity = self.identity().await?;
        Ok(Changed {
            root: done.root,
            unchanged: done.unchanged,
            ipns: identity.ipns,
            domain: identity.domain,
            sequence: done.sequence,
            published: !done.accepted.is_empty(),
            holders: done.holders,
            findable: done.findable,
            serving: self.serving.load(std::sync::atomic::Ordering::Relaxed),
        })
    }

    async fn trust_list(&self) -> Result<Vec<TrustEntry>, RegistryError> {
        let entries = self.trust().list().await.map_err(RegistryError::from_trust)?;
        Ok(entries.iter().map(trust_entry).collect())
    }

    async fn trust_add(&self, domain: &str, key: &str) -> Result<TrustEntry, RegistryError> {
        let domain: Domain = domain.parse().map_err(RegistryError::from_name)?;
        let key: Anchor = key.parse().map_err(RegistryError::from_name)?;
        let entry = self.trust().add(&domain, key).await.map_err(RegistryError::from_trust)?;
        Ok(trust_entry(&entry))
    }

    async fn trust_remove(&self, domain: &str) -> Result<bool, RegistryError> {
        let domain: Domain = domain.parse().map_err(RegistryError::from_name)?;
        self.trust().remove(&domain).await.map_err(RegistryError::from_trust)
    }

    async fn collect(&self, dry_run: bool, keep_leases: bool) -> Result<GcOutcome, RegistryError> {
        let done = collect(&self.blocks, &self.tables, self.cache_limit(), keep_leases, dry_run).await;
        let done = done.map_err(|error| upkeep("collecting", error))?;
        Ok(GcOutcome {
            kept_blocks: done.kept,
            removed_blocks: done.swept.blocks,
            removed_bytes: done.swept.bytes,
            freed_bytes: done.swept.disk_bytes,
        })
    }

    async fn check(&self, read_data: bool) -> Result<CheckOutcome, RegistryError> {
        let found = check(&self.blocks, &self.tables, read_data).await.map_err(|error| upkeep("checking", error))?;
        let (blocks, bytes_read, tags, problems) = (found.blocks, found.bytes_read, found.tags, found.problems);
        Ok(CheckOutcome { blocks, bytes_read, tags, problems })
    }

    async fn activity(&self) -> Result<Activity, RegistryError> {
        Ok(self.network.activity().await)
    }

    async fn start_node(&self) -> Result<Vec<Multiaddr>, RegistryError> {
        let parts = self.network.start().await?;
        Ok(parts.node.addresses().await)
    }

    async fn shutdown(&self) -> Result<(), RegistryError> {
        self.network.stop().await;
        Ok(())
    }
}

fn trust_entry(entry: &Remembered) -> TrustEntry {
    TrustEntry {
        domain: entry.domain.to_string(),
        key: entry.key.to_string(),
        dnssec: entry.secure,
        since: entry.since,
    }
}

/// This registry's own root, without any network.
fn own_root(root: Cid, identity: &Identity, sequence: Option<u64>, config: &HomeConfig) -> ResolvedRoot {
    let ipns = ChainStep {
        kind: StepKind::Ipns,
        name: identity.ipns.clone(),
        value: format!("/ipfs/{root}"),
        sequence,
        valid_until: None,
        age: Some(0),
        source: "own".into(),
    };
    let end = ChainStep {
        kind: StepKind::Ipfs,
        name: root.to_string(),
        value: root.to_string(),
        sequence: None,
        valid_until: None,
        age: None,
        source: "own".into(),
    };
    let hints = config.node.peers.clone();
    ResolvedRoot { root, path: Vec::new(), chain: vec![ipns, end], trust: TrustLevel::Key, hints }
}

fn step(doing: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Step { doing, kind: ErrorKind::Failed, topic: Topic::Other, source: Box::new(source) }
}

fn upkeep(doing: &'static str, error: crate::upkeep::collect::UpkeepError) -> RegistryError {
    RegistryError::Step { doing, kind: error.kind(), topic: Topic::Other, source: Box::new(error) }
}

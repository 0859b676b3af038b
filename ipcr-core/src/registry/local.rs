//! The holder of a home in this process: [`LocalHolder`].
//!
//! It owns the store, the tables, the names and the keys, and a node that is started when it is first needed: a push without
//! publishing, a listing or a check touch no network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use multiaddr::Multiaddr;
use tokio::sync::{Mutex, RwLock};

use super::error::{RegistryError, Topic};
use super::gate::GatedTable;
use super::holder::{Activity, ChangeRequest, Changed, Holder, Manner, RepairRequest, ResolveRequest, ResolvedRoot};
use super::network::{LazyExchange, LazyNetwork};
use super::options::{GcOptions, InitOptions};
use super::outcome::{CheckOutcome, GcOutcome, Identity, RepairOutcome, TrustEntry, UsageOutcome};
use super::profile::{self, Profile};
use crate::digest::Digest;
use crate::event::{Emitter, Stage, Warning};
use crate::exchange::reader::Reader;
use crate::identity::{KeyStore, RegistryKey};
use crate::kind::ErrorKind;
use crate::naming::Clock;
use crate::naming::chain::{ChainStep, StepKind, TrustLevel};
use crate::naming::dns::DnsOptions;
use crate::naming::handover::Handover;
use crate::naming::trust::{Anchor, Remembered, TrustTable};
use crate::net::addresses::NetworkMode;
use crate::node::{NodeConfig, Share};
use crate::pin::state::State;
use crate::port::announce::Announce;
use crate::port::blocks::BlockStore;
use crate::port::exchange::{Exchange, FetchRequest};
use crate::port::table::Table;
use crate::publish::announce::await_holders;
use crate::publish::{Network, Publication, Publisher, RecordPolicy};
use crate::reference::{Authority, Domain, IpnsName};
use crate::store::home::Home;
use crate::tree::edit::{Edit, NewKey};
use crate::tree::handover::handovers;

/// How much of what was pulled is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSize {
    /// A tenth of the disk, at most 10 GiB.
    #[default]
    Usual,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk that the home is on.
    Percent(u8),
}

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
    /// How much of what was pulled is kept.
    pub cache: CacheSize,
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
            cache: CacheSize::default(),
        }
    }

    /// All that only the process which holds the home can follow, by the names of the program's settings, in a form that can be
    /// compared. Whatever else whoever works through it has chosen goes with each request ([`Manner`]) or counts in its own process.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let Self { node, dns, routers, gateways, cache, .. } = self;
        let network = match &node.mode {
            // The key is nobody's business.
            NetworkMode::Private(key) => format!("private: {}", Digest::sha256(key.bytes())),
            mode => format!("{mode:?}"),
        };
        let share = match node.share {
            Share::All => "all",
            Share::Own(_) => "own",
            Share::Nothing => "nothing",
        };
        let all = [
            ("network", network),
            ("listen", format!("{:?}", node.listen)),
            ("bootstrap", format!("{:?}", node.bootstrap)),
            ("router", format!("{routers:?}")),
            ("gateway", format!("{gateways:?}")),
            ("dns", format!("{:?}", dns.servers)),
            ("dns-anchor", Digest::sha256(dns.anchors.concat().as_bytes()).to_string()),
            ("offline", node.offline.to_string()),
            ("cache-limit", format!("{cache:?}")),
            ("upload-limit", format!("{:?}", node.upload)),
            ("download-limit", format!("{:?}", node.download)),
            ("share", share.to_owned()),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The holder of a home.
#[derive(Debug)]
pub struct LocalHolder {
    pub(super) config: HomeConfig,
    /// Held for its lock.
    pub(super) home: Arc<Home>,
    pub(super) blocks: Arc<dyn BlockStore>,
    pub(super) tables: Arc<GatedTable>,
    pub(super) network: Arc<LazyNetwork>,
    publisher: Mutex<Option<Arc<Publisher>>>,
    init: Mutex<()>,
    /// Whoever looks at everything shares it. A collection has it alone, until the last block is gone. Taken before `turn`.
    pub(super) collecting: Arc<RwLock<()>>,
    /// Changes share it. What replaces the key, or chooses what nothing refers to, has it alone.
    pub(super) turn: Arc<RwLock<()>>,
    /// Whether somebody asked for pulled images to be let go of, and it has not been done since.
    pub(super) trim_owed: std::sync::atomic::AtomicBool,
    serving: std::sync::atomic::AtomicBool,
}

impl LocalHolder {
    /// Opens the store and the tables of a locked home.
    pub async fn open(home: Home, config: HomeConfig) -> Result<Arc<Self>, RegistryError> {
        let opened = tokio::task::spawn_blocking(move || {
            home.reserve();
            let blocks = home.blocks().map_err(|error| RegistryError::from_store("opening the store", error))?;
            let tables = home.table().map_err(|error| RegistryError::from_table("opening the tables", error))?;
            Ok::<_, RegistryError>((home, Arc::new(blocks) as Arc<dyn BlockStore>, Arc::new(tables) as Arc<dyn Table>))
        });
        let (home, blocks, tables) = opened.await.map_err(|error| step("opening the home", error))??;
        let tables = Arc::new(GatedTable { tables, gate: Arc::default() });
        let network = Arc::new(LazyNetwork::new(config.clone(), Arc::clone(&blocks), tables.clone()));
        Ok(Arc::new(Self {
            config,
            home: Arc::new(home),
            blocks,
            tables,
            network,
            publisher: Mutex::new(None),
            init: Mutex::new(()),
            collecting: Arc::default(),
            turn: Arc::default(),
            trim_owed: std::sync::atomic::AtomicBool::new(false),
            serving: std::sync::atomic::AtomicBool::new(false),
        }))
    }

    /// Makes the keys and an empty registry. Nothing that is there is overwritten.
    pub async fn init(&self, options: InitOptions) -> Result<Identity, RegistryError> {
        let _turn = self.init.lock().await;
        let _shared = self.turn.read().await;
        match profile::identity(&self.config.path) {
            Ok(identity) => return Err(RegistryError::AlreadyInitialised { ipns: identity.ipns }),
            Err(RegistryError::NoRegistry) => {}
            Err(error) => return Err(error),
        }
        // A registry without its key is not to be taken over by another one.
        let state = self.state().await?;
        let lost = if state.root.is_some() { state.key } else { None };
        let (path, imported) = (self.config.path.clone(), options.import.is_some());
        tokio::task::spawn_blocking(move || super::keys::create(&path, &options, lost.as_ref()))
            .await
            .map_err(|error| step("making the keys", error))??;
        let publisher = self.publisher().await?;
        publisher.begin(imported).await.map_err(|error| RegistryError::from_publish("making the registry", error))?;
        profile::identity(&self.config.path)
    }

    /// Says that this process goes on serving after its command, so that what it publishes can be fetched.
    pub fn set_serving(&self) {
        self.serving.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The home's directory.
    pub fn path(&self) -> &std::path::Path {
        self.home.path()
    }

    pub(super) async fn publisher(&self) -> Result<Arc<Publisher>, RegistryError> {
        let mut publisher = self.publisher.lock().await;
        if let Some(publisher) = publisher.as_ref() {
            return Ok(Arc::clone(publisher));
        }
        let keys = super::keys::of_registry(&self.config.path)?;
        let info = super::keys::registry_info(&self.config.path, &keys.key)?;
        let stores = (Arc::clone(&self.blocks), self.own_tables(), self.exchange());
        let made = Arc::new(Publisher::new(stores, keys, info, self.config.records));
        *publisher = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Gives the registry a new key, which the old one hands over to (docs/format.md, section 4a). The old name leads on to the new one. After
    /// a crash or a failure it goes on where it stopped when it is called again.
    pub async fn rotate_key(&self, events: Emitter) -> Result<(IpnsName, Changed), RegistryError> {
        let _turn = self.turn.write().await;
        let rotating = |error| super::keys::failed("replacing the registry's key", error);
        let keys = KeyStore::new(&self.config.path);
        let old = keys.registry().map_err(rotating)?.ok_or(RegistryError::NoRegistry)?;
        let new = keys.next_or_new().map_err(rotating)?;
        let mut previous = old.name();
        if old.name() == new.name() {
            // All but the end was done when it stopped.
            let former = keys.former().map_err(rotating)?;
            previous = former.first().map_or(previous, RegistryKey::name);
        } else {
            let info = super::keys::registry_info(&self.config.path, &new)?;
            let handover = self.handover(&old, new.name()).await?;
            let key = NewKey { did: info.did, ipns: info.ipns, did_document: info.did_document, handover };
            // Under the old name at first: whoever still follows it learns of the new key there.
            self.make(self.request(vec![Edit::HandOver { key: Box::new(key) }]), &events).await?;
        }
        keys.rotate().map_err(rotating)?;
        *self.publisher.lock().await = None;
        let changed = if self.config.node.offline {
            self.unpublished().await?
        } else {
            let (done, _) = self.make(self.request(Vec::new()), &events).await?;
            self.changed(done).await?
        };
        Ok((previous, changed))
    }

    /// Makes a change, for whoever has a turn; also the network that it was published to.
    async fn make(
        &self,
        request: ChangeRequest,
        events: &Emitter,
    ) -> Result<(Publication, Option<Network>), RegistryError> {
        let publisher = self.publisher().await?;
        let network = match (request.publish, self.config.node.offline) {
            (true, false) => {
                events.stage(Stage::Connecting).await;
                Some(self.publishing_network(request.manner).await?)
            }
            (true, true) if request.edits.is_empty() => return Err(offline()),
            _ => None,
        };
        let done = publisher.change(request.edits, request.force, network.as_ref(), events).await;
        let done = done.map_err(|error| RegistryError::from_publish("changing the registry", error))?;
        if request.publish && network.is_none() {
            events.warn(Warning::NotPublished { reason: OFFLINE.into() }).await;
        }
        self.network.blocks_added().await;
        Ok((done, network))
    }

    /// What became of a change, for whoever asked for it.
    async fn changed(&self, done: Publication) -> Result<Changed, RegistryError> {
        let identity = self.identity().await?;
        Ok(Changed {
            root: done.root,
            unchanged: done.unchanged,
            ipns: identity.ipns,
            domain: identity.domain,
            sequence: done.sequence,
            published: !done.accepted.is_empty(),
            holders: done.reach.holders,
            findable: done.reach.findable,
            serving: self.serving.load(std::sync::atomic::Ordering::Relaxed),
        })
    }

    /// The hand-over between two keys; the one that the registry shows, if it does already.
    async fn handover(&self, old: &RegistryKey, new: IpnsName) -> Result<Handover, RegistryError> {
        let state = self.state().await?;
        let shown = match state.root {
            Some(root) => {
                let (hints, stall, events) = (Vec::new(), self.config.stall, Emitter::silent());
                let fetch = self.exchange().open(FetchRequest { root, hints, stall, share: true, events }).await.ok();
                handovers(&Reader::new(Arc::clone(&self.blocks), None, fetch), &root).await
            }
            None => Ok(Vec::new()),
        };
        let shown = shown.map_err(|error| RegistryError::from_tree("reading the hand-overs", error))?;
        let same = shown.into_iter().find(|one| one.from == old.name() && one.to == new && one.is_valid());
        Ok(same.unwrap_or_else(|| Handover::sign(old, new, Clock::default().now())))
    }

    pub(super) async fn state(&self) -> Result<State, RegistryError> {
        let state = State::load(&self.own_tables()).await;
        state.map_err(|error| RegistryError::from_table("reading the registry's state", error))
    }

    /// What can be said of this registry when nothing was published.
    async fn unpublished(&self) -> Result<Changed, RegistryError> {
        let identity = self.identity().await?;
        Ok(Changed {
            root: self.state().await?.root.ok_or(RegistryError::NoRegistry)?,
            unchanged: true,
            ipns: identity.ipns,
            domain: identity.domain,
            sequence: 0,
            published: false,
            holders: Vec::new(),
            findable: None,
            serving: self.serving.load(std::sync::atomic::Ordering::Relaxed),
        })
    }

    /// The network, with the hints of our own domain.
    pub(super) async fn publishing_network(&self, manner: Manner) -> Result<Network, RegistryError> {
        let parts = self.network.start().await?;
        let profile = Profile::load(&self.config.path)?;
        let mut hints = manner.hints;
        hints.extend(self.config.node.peers.iter().filter(|peer| !hints.contains(peer)).cloned().collect::<Vec<_>>());
        if let Some(domain) = &profile.domain {
            hints.extend(self.network.hints(domain).await);
        }
        Ok(Network {
            records: parts.names.records().clone(),
            announce: Arc::clone(&parts.node) as Arc<dyn Announce>,
            exchange: Arc::clone(&parts.exchange),
            hints,
            stall: manner.stall,
        })
    }

    /// The tables for the holder itself, which has a turn where one is needed.
    pub(super) fn own_tables(&self) -> Arc<dyn Table> {
        self.tables.clone()
    }

    /// Edits to be published at once.
    pub(super) fn request(&self, edits: Vec<Edit>) -> ChangeRequest {
        ChangeRequest { edits, publish: true, force: false, wait: Duration::ZERO, manner: self.manner() }
    }

    /// How the network is used for what nobody asked for.
    pub(super) fn manner(&self) -> Manner {
        Manner { stall: self.config.stall, ..Manner::default() }
    }

    fn trust(&self) -> TrustTable {
        TrustTable::new(self.own_tables(), Clock::default())
    }
}

#[async_trait]
impl Holder for LocalHolder {
    fn blocks(&self) -> Arc<dyn BlockStore> {
        Arc::clone(&self.blocks)
    }

    /// The tables for everybody but the holder itself. What is noted about blocks is noted before or after a collection, while the
    /// session that holds them lives.
    fn tables(&self) -> Arc<dyn Table> {
        Arc::new(GatedTable { tables: self.own_tables(), gate: Arc::clone(&self.turn) })
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
            let state = self.state().await?;
            let root = state.root.ok_or(RegistryError::NoRegistry)?;
            // What is here may be newer than the record.
            let published = state.published.filter(|published| published.root == root);
            return Ok(resolved_here(root, &identity, published.map(|published| published.sequence), &self.config));
        };
        let authority: Authority = authority.parse().map_err(RegistryError::from_name)?;
        self.network.resolve(&authority, request.manner, request.allow_stale, &events).await
    }

    async fn change(&self, request: ChangeRequest, events: Emitter) -> Result<Changed, RegistryError> {
        let wait = request.wait;
        let (mut done, network) = {
            let _turn = self.turn.read().await;
            self.make(request, &events).await?
        };
        if let Some(network) = &network
            && !wait.is_zero()
            && done.reach.holders.is_empty()
        {
            done.reach = await_holders(&done.root, network, wait, &events).await;
        }
        self.changed(done).await
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

    async fn trim(&self) -> Result<(), RegistryError> {
        self.let_go_of_pulled().await
    }

    async fn collect(&self, options: GcOptions) -> Result<GcOutcome, RegistryError> {
        self.collect_all(options).await
    }

    fn settings(&self) -> BTreeMap<String, String> {
        self.config.settings()
    }

    async fn check(&self, read_data: bool) -> Result<CheckOutcome, RegistryError> {
        self.look_for_damage(read_data).await
    }

    async fn repair(&self, request: RepairRequest, events: Emitter) -> Result<RepairOutcome, RegistryError> {
        self.mend(request, events).await
    }

    async fn usage(&self) -> Result<UsageOutcome, RegistryError> {
        self.measure().await
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

/// Why nothing is published in a home without a network.
const OFFLINE: &str = "offline mode";

fn offline() -> RegistryError {
    RegistryError::Step {
        doing: "publishing",
        kind: ErrorKind::Unavailable,
        topic: Topic::Offline,
        source: OFFLINE.into(),
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
fn resolved_here(root: Cid, identity: &Identity, sequence: Option<u64>, config: &HomeConfig) -> ResolvedRoot {
    let ipns = ChainStep {
        kind: StepKind::Ipns,
        name: identity.ipns.clone(),
        value: format!("/ipfs/{root}"),
        sequence,
        valid_until: None,
        age: None,
        source: "own".into(),
    };
    let end = ChainStep {
        kind: StepKind::Ipfs,
        name: root.to_string(),
        value: format!("/ipfs/{root}"),
        sequence: None,
        valid_until: None,
        age: None,
        source: "own".into(),
    };
    let hints = config.node.peers.clone();
    ResolvedRoot { root, path: Vec::new(), chain: vec![ipns, end], trust: TrustLevel::Key, hints }
}

pub(super) fn step(doing: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Step { doing, kind: ErrorKind::Failed, topic: Topic::Other, source: Box::new(source) }
}

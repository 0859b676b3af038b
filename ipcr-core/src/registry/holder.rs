//! What the process that holds a home offers: [`Holder`].
//!
//! The holder owns the store, the node, the names and the keys; whoever runs a command opens sources, sinks and engines and
//! does the cutting and hashing. [`super::Registry`] runs every operation against this trait and so behaves the same in the
//! holding process (`registry::local`) and in another one, through the home's socket (`registry::remote`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::options::GcOptions;
use super::outcome::{CheckOutcome, GcOutcome, Identity, RepairOutcome, TrustEntry, UsageOutcome};
use crate::event::Emitter;
use crate::limits;
use crate::naming::chain::{ChainStep, TrustLevel};
use crate::port::blocks::BlockStore;
use crate::port::exchange::Exchange;
use crate::port::table::Table;
use crate::tree::edit::Edit;

/// The holder of a home, in this process or behind its socket.
#[async_trait]
pub trait Holder: Debug + Send + Sync + 'static {
    /// The home's blocks.
    fn blocks(&self) -> Arc<dyn BlockStore>;

    /// The home's tables.
    fn tables(&self) -> Arc<dyn Table>;

    /// The network's blocks. The node starts when the first session is opened.
    fn exchange(&self) -> Arc<dyn Exchange>;

    /// Who this registry is; [`RegistryError::NoRegistry`] before `init`.
    async fn identity(&self) -> Result<Identity, RegistryError>;

    /// Follows a name to a registry root.
    async fn resolve(&self, request: ResolveRequest, events: Emitter) -> Result<ResolvedRoot, RegistryError>;

    /// Applies edits to this registry, in one step, and publishes the result if asked to. Blocks that the edits name must be
    /// committed.
    async fn change(&self, request: ChangeRequest, events: Emitter) -> Result<Changed, RegistryError>;

    /// Remembered keys.
    async fn trust_list(&self) -> Result<Vec<TrustEntry>, RegistryError>;

    /// Remembers a key (an IPNS name in any spelling, or `keyless`) for a domain, in place of any other.
    async fn trust_add(&self, domain: &str, key: &str) -> Result<TrustEntry, RegistryError>;

    /// Forgets a domain's key; false if there was none.
    async fn trust_remove(&self, domain: &str) -> Result<bool, RegistryError>;

    /// Lets go of pulled images, the least recently used first, when they are more than the cache may have.
    async fn trim(&self) -> Result<(), RegistryError>;

    /// Collects what nothing refers to.
    async fn collect(&self, options: GcOptions) -> Result<GcOutcome, RegistryError>;

    /// Looks for damage; with `read_data` every block is read and hashed.
    async fn check(&self, read_data: bool) -> Result<CheckOutcome, RegistryError>;

    /// Looks for damage and mends it: what is missing or damaged is made again, or fetched from others.
    async fn repair(&self, request: RepairRequest, events: Emitter) -> Result<RepairOutcome, RegistryError>;

    /// What the home uses.
    async fn usage(&self) -> Result<UsageOutcome, RegistryError>;

    /// What the node is doing; the node is not started for it.
    async fn activity(&self) -> Result<Activity, RegistryError>;

    /// Starts the node, if it is not running, and returns its addresses.
    async fn start_node(&self) -> Result<Vec<Multiaddr>, RegistryError>;

    /// What it was opened with, by the names of settings: what those who work through it cannot change (see
    /// [`super::local::HomeConfig::settings`]).
    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Ends gracefully.
    async fn shutdown(&self) -> Result<(), RegistryError>;
}

/// How whoever asks wants the network to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// Peers to ask and dial first, besides those of the holder.
    pub hints: Vec<Multiaddr>,
    /// The longest time without progress.
    pub stall: Duration,
    /// Whether others may know what is fetched, and get blocks of it meanwhile.
    pub share: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { hints: Vec::new(), stall: limits::STALL, share: true }
    }
}

/// A name to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// The authority in its text form; `None` for this registry.
    pub authority: Option<String>,
    /// Uses a kept record although it has expired.
    pub allow_stale: bool,
    /// How.
    pub manner: Manner,
}

/// What is to be repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// Every block is read and hashed first.
    pub read_data: bool,
    /// Only says what would be done; nobody is asked.
    pub dry_run: bool,
    /// How.
    pub manner: Manner,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedRoot {
    /// The root: of a registry or, for `ipfs/<CID>`, whatever the CID is.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Path segments below it that the last name gave.
    pub path: Vec<String>,
    /// How the name was followed.
    pub chain: Vec<ChainStep>,
    /// Why it is believed.
    pub trust: TrustLevel,
    /// Addresses to dial first.
    pub hints: Vec<Multiaddr>,
}

/// Edits of this registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// What to change, in this order; none to publish again.
    pub edits: Vec<Edit>,
    /// Signs and hands out a record.
    pub publish: bool,
    /// Overwrites tags that were changed elsewhere too.
    pub force: bool,
    /// How long to wait, at most, until another node holds the root.
    pub wait: Duration,
    /// How.
    pub manner: Manner,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The registry's root now.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Whether the edits changed nothing.
    pub unchanged: bool,
    /// The registry's IPNS name.
    pub ipns: String,
    /// The registry's domain, if it has one.
    pub domain: Option<String>,
    /// The sequence of the current record; 0 when none was ever signed.
    pub sequence: u64,
    /// Whether at least one other party accepted the record.
    pub published: bool,
    /// Who else confirmed to hold the root.
    pub holders: Vec<String>,
    /// Whether others find the root; `None` if that was not asked.
    pub findable: Option<bool>,
    /// Whether the holder goes on serving, so that others can fetch from it.
    pub serving: bool,
}

/// What a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Whether it runs.
    pub running: bool,
    /// Its addresses.
    pub addresses: Vec<Multiaddr>,
    /// Connected peers.
    pub peers: usize,
    /// Block bytes received since it started.
    pub received_bytes: u64,
    /// Block bytes sent since it started.
    pub served_bytes: u64,
}

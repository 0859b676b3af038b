//! Changing the registry: merging with the network's root, commit order, signing and announcing.
//!
//! The order is that of design section 8: blocks are durable before the root that names them, the root before the record, the
//! record before anyone is told. Edits stay *pending* until a record that covers them was accepted by somebody; when another
//! home with the same key published in between, they are applied again to its root, so no one's tags are ever lost. A crash
//! at any point leaves the old or the new registry.

pub mod error;
mod merge;

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use multiaddr::Multiaddr;
use tokio::sync::Mutex;

use crate::dag::block::Block;
use crate::event::{Emitter, Stage, Warning};
use crate::exchange::reader::Reader;
use crate::identity::RegistryKey;
use crate::limits;
use crate::naming::Clock;
use crate::naming::ipns::RecordTable;
use crate::naming::record::SignedRecord;
use crate::naming::target::{Target, TargetRoot};
use crate::pin::state::{Published, State};
use crate::port::announce::Announce;
use crate::port::blocks::{BlockStore, StoreSession};
use crate::port::exchange::{Exchange, FetchRequest};
use crate::port::table::Table;
use crate::tree::edit::{Edit, RegistryInfo, apply, empty};
use error::PublishError;

/// What publishing needs of a network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Where records are found, weighed, kept and put.
    pub records: RecordTable,
    /// Where others are told what is held.
    pub announce: Arc<dyn Announce>,
    /// Where another home's root is fetched from.
    pub exchange: Arc<dyn Exchange>,
    /// Peers to ask first.
    pub hints: Vec<Multiaddr>,
    /// The longest time without progress.
    pub stall: Duration,
}

/// How records are written.
#[derive(Clone, Copy, Debug)]
pub struct RecordPolicy {
    /// How long a record is valid.
    pub lifetime: Duration,
    /// How long resolvers may cache it.
    pub ttl: Duration,
}

impl Default for RecordPolicy {
    fn default() -> Self {
        Self { lifetime: limits::RECORD_LIFETIME, ttl: limits::RECORD_TTL }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The registry's root.
    pub root: Cid,
    /// Whether the edits changed nothing.
    pub unchanged: bool,
    /// The sequence of the newest record; 0 when none was ever signed.
    pub sequence: u64,
    /// Who accepted the record.
    pub accepted: Vec<String>,
    /// Others that confirmed to hold the root.
    pub holders: Vec<String>,
    /// Whether others find the root; `None` if nobody could be asked.
    pub findable: Option<bool>,
}

/// Changes one registry. There is one per home, and it makes one change at a time.
#[derive(Debug)]
pub struct Publisher {
    blocks: Arc<dyn BlockStore>,
    tables: Arc<dyn Table>,
    key: RegistryKey,
    info: RegistryInfo,
    policy: RecordPolicy,
    clock: Clock,
    turn: Mutex<()>,
}

impl Publisher {
    /// The publisher of a home.
    pub fn new(
        blocks: Arc<dyn BlockStore>,
        tables: Arc<dyn Table>,
        key: RegistryKey,
        info: RegistryInfo,
        policy: RecordPolicy,
    ) -> Self {
        Self { blocks, tables, key, info, policy, clock: Clock::default(), turn: Mutex::new(()) }
    }

    /// Makes the empty registry durable, if there is none yet.
    pub async fn begin(&self) -> Result<(), PublishError> {
        let _turn = self.turn.lock().await;
        let mut state = State::load(&self.tables).await?;
        if state.root.is_none() {
            self.apply_here(&mut state, Vec::new()).await?;
        }
        Ok(())
    }

    /// Applies edits and, with a network, publishes the result.
    pub async fn change(
        &self,
        edits: Vec<Edit>,
        force: bool,
        network: Option<&Network>,
        events: &Emitter,
    ) -> Result<Publication, PublishError> {
        let _turn = self.turn.lock().await;
        let mut state = State::load(&self.tables).await?;
        let found = match network {
            Some(network) => self.own_record(network, events).await?,
            None => None,
        };
        let theirs = found.as_ref().filter(|found| Self::is_foreign(&state, found));

        events.stage(Stage::Committing).await;
        let before = state.root;
        let merged = match (theirs, network) {
            (Some(theirs), Some(network)) => match self.merge(&state, theirs, &edits, force, network, events).await {
                Err(error @ PublishError::NotMerged { .. }) => {
                    // Kept here all the same, so that nothing is lost; the next publish tries again.
                    self.apply_here(&mut state, edits).await?;
                    return Err(error);
                }
                merged => Some(merged?),
            },
            _ => None,
        };
        let unchanged = if let Some(root) = merged {
            state.root = Some(root);
            state.pending.extend(edits);
            self.tables.write(vec![state.change()]).await?;
            Some(root) == before
        } else {
            self.apply_here(&mut state, edits).await?
        };
        let root = state.root.expect("a change leaves a root");
        let Some(network) = network else {
            let sequence = state.published.as_ref().map_or(0, |published| published.sequence);
            let none = Vec::new;
            return Ok(Publication { root, unchanged, sequence, accepted: none(), holders: none(), findable: None });
        };
        let newest = found.as_ref().map_or(0, SignedRecord::sequence);
        let (sequence, accepted) = self.publish(&mut state, root, newest, network, events).await?;
        let (holders, findable) = self.announce(&root, network).await;
        Ok(Publication { root, unchanged, sequence, accepted, holders, findable })
    }

    /// The newest valid record of this registry on the network. Two values under one sequence are settled by the next one.
    async fn own_record(&self, network: &Network, events: &Emitter) -> Result<Option<SignedRecord>, PublishError> {
        events.stage(Stage::Resolving).await;
        let name = self.key.name();
        Ok(network.records.network_best(&name, &network.hints, RESOLVE, events).await?)
    }

    /// Whether a record was published by another home.
    fn is_foreign(state: &State, found: &SignedRecord) -> bool {
        match &state.published {
            Some(published) => found.sequence() >= published.sequence && root_of(found) != Some(published.root),
            None => true,
        }
    }

    /// Applies what is pending here and the new edits to the published root; returns the merged root, committed.
    async fn merge(
        &self,
        state: &State,
        theirs: &SignedRecord,
        edits: &[Edit],
        force: bool,
        network: &Network,
        events: &Emitter,
    ) -> Result<Cid, PublishError> {
        let value = || PublishError::ForeignValue { value: theirs.target().to_string() };
        let root = root_of(theirs).ok_or_else(value)?;
        let session: Arc<dyn StoreSession> = Arc::from(self.blocks.begin(limits::LEASE).await?);
        let request = FetchRequest { root, hints: network.hints.clone(), stall: network.stall, events: events.clone() };
        let not_merged = |source| PublishError::NotMerged { root, source };
        let fetch = network.exchange.open(request).await.map_err(|error| not_merged(Box::new(error)))?;
        let reader = Reader::new(Arc::clone(&self.blocks), Some(Arc::clone(&session)), Some(fetch));
        let mut all = merge::still_possible(&reader, &root, &state.pending).await?;
        all.extend_from_slice(edits);
        let unfetched = |error: PublishError| match error.kind() {
            crate::kind::ErrorKind::Unavailable => not_merged(Box::new(error)),
            _ => error,
        };
        if !force {
            let ancestor = state.published.as_ref().map(|published| published.root);
            merge::refuse_conflicts(&reader, ancestor.as_ref(), &root, &all).await.map_err(unfetched)?;
        }
        let edited = apply(&reader, &root, &all).await.map_err(|e| unfetched(e.into()))?;
        self.store(&session, edited.blocks).await?;
        Ok(edited.root)
    }

    /// Applies edits to the root of this home, durably; whether they changed nothing.
    async fn apply_here(&self, state: &mut State, edits: Vec<Edit>) -> Result<bool, PublishError> {
        let reader = Reader::local(Arc::clone(&self.blocks));
        let session: Arc<dyn StoreSession> = Arc::from(self.blocks.begin(limits::LEASE).await?);
        let base = match state.root {
            Some(root) => root,
            None => {
                let empty = empty(&self.info).await?;
                session.put(empty.blocks).await?;
                empty.root
            }
        };
        let edited = apply(&reader, &base, &edits).await?;
        if state.root == Some(edited.root) {
            return Ok(true);
        }
        self.store(&session, edited.blocks).await?;
        state.root = Some(edited.root);
        state.pending.extend(edits);
        self.tables.write(vec![state.change()]).await?;
        Ok(false)
    }

    async fn store(&self, session: &Arc<dyn StoreSession>, blocks: Vec<Block>) -> Result<(), PublishError> {
        session.put(blocks).await?;
        session.commit().await?;
        Ok(())
    }

    /// Signs a record for the root, unless the newest one says the same and is young, and hands it out.
    async fn publish(
        &self,
        state: &mut State,
        root: Cid,
        newest: u64,
        network: &Network,
        events: &Emitter,
    ) -> Result<(u64, Vec<String>), PublishError> {
        events.stage(Stage::Publishing).await;
        let known = state.published.as_ref().map_or(0, |published| published.sequence).max(newest);
        let sequence = match &state.published {
            Some(published) if published.root == root && published.sequence >= newest => published.sequence,
            _ => known + 1,
        };
        let target = Target { root: TargetRoot::Ipfs(root), path: Vec::new() };
        let (now, policy) = (self.clock.now(), self.policy);
        let record = SignedRecord::sign(&self.key, &target, sequence, now, policy.lifetime, policy.ttl);
        state.published = Some(Published { root, sequence, accepted: false });
        self.tables.write(vec![state.change()]).await?;
        network.records.keep(&record).await?;
        let accepted = match network.records.put(&record, &network.hints).await {
            Ok(accepted) => accepted,
            Err(error) => {
                events.warn(Warning::NotPublished { reason: error.to_string() }).await;
                Vec::new()
            }
        };
        if !accepted.is_empty() {
            state.pending.clear();
            state.published = Some(Published { root, sequence, accepted: true });
            self.tables.write(vec![state.change()]).await?;
        }
        Ok((sequence, accepted))
    }

    /// Provides the root and the rendezvous key, and asks who else holds the root.
    async fn announce(&self, root: &Cid, network: &Network) -> (Vec<String>, Option<bool>) {
        let keys = [*root, rendezvous(&self.key)];
        let provided = network.announce.provide(&keys).await;
        let others = network.announce.holders(root, HOLDERS).await;
        let findable = (provided > 0 || !others.is_empty()).then_some(true);
        let others = others.iter().map(ToString::to_string).collect();
        (others, findable)
    }
}

/// The longest wait for records of our own name before publishing.
const RESOLVE: Duration = Duration::from_secs(15);
/// The longest wait for others that hold the root.
const HOLDERS: Duration = Duration::from_secs(5);

/// The key under which everyone who holds a registry can be found, whatever its root is at the moment: the raw SHA-256 CID of
/// `ipcr-registry:` and the IPNS name (design section 7).
pub fn rendezvous(key: &RegistryKey) -> Cid {
    *Block::raw(format!("ipcr-registry:{}", key.name()).into_bytes().into()).cid()
}

/// The root that a record names, if it names one and nothing below it.
fn root_of(record: &SignedRecord) -> Option<Cid> {
    match record.target() {
        Target { root: TargetRoot::Ipfs(root), path } if path.is_empty() => Some(*root),
        _ => None,
    }
}

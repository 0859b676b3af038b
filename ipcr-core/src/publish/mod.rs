//! Changing the registry: merging with the network's root, commit order, signing and announcing.
//!
//! The order is that of design section 8: blocks are durable before the root that names them, the root before the record, the
//! record before anyone is told. Each registry says which changes of which homes it holds; when another home with the same key
//! published what this one does not know, everything of this one that is not in it is applied again to its root, so no one's
//! tags are ever lost. A crash at any point leaves the old or the new registry.
//!
//! A registry that had other keys before keeps their names leading to it: each publish signs their records again, with the
//! new name as their value.

pub mod announce;
pub mod error;
mod merge;
pub mod provide;

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
use crate::naming::ipns::{IpnsError, RecordTable};
use crate::naming::record::SignedRecord;
use crate::naming::target::{Target, TargetRoot};
use crate::pin::changes::{Made, Pending};
use crate::pin::files;
use crate::pin::state::{Published, State};
use crate::port::announce::Announce;
use crate::port::blocks::{BlockStore, StoreError, StoreSession};
use crate::port::exchange::{Exchange, FetchRequest};
use crate::port::table::{Change, Table};
use crate::tree::edit::{Edit, RegistryInfo, apply, empty, folders_of, note_home};
use crate::tree::read;
use announce::{Reach, announce};
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
    /// Who else holds the root, and whether a holder is found.
    pub reach: Reach,
}

/// Changes one registry. There is one per home, and it makes one change at a time.
#[derive(Debug)]
pub struct Publisher {
    blocks: Arc<dyn BlockStore>,
    tables: Arc<dyn Table>,
    exchange: Arc<dyn Exchange>,
    keys: Keys,
    info: RegistryInfo,
    policy: RecordPolicy,
    clock: Clock,
    turn: Mutex<()>,
}

/// The keys of a registry.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key that it has.
    pub key: RegistryKey,
    /// The keys that it had before.
    pub former: Vec<RegistryKey>,
}

impl Publisher {
    /// The publisher of a home. What another home with the same key published is not stored here but for what was needed of it; more of it
    /// is fetched by `exchange`.
    pub fn new(
        (blocks, tables, exchange): (Arc<dyn BlockStore>, Arc<dyn Table>, Arc<dyn Exchange>),
        keys: Keys,
        info: RegistryInfo,
        policy: RecordPolicy,
    ) -> Self {
        Self { blocks, tables, exchange, keys, info, policy, clock: Clock::default(), turn: Mutex::new(()) }
    }

    /// Makes the empty registry durable, if there is none yet. With a key that was `imported` the registry may be elsewhere already.
    pub async fn begin(&self, imported: bool) -> Result<(), PublishError> {
        let _turn = self.turn.lock().await;
        let mut state = self.state().await?;
        if state.root.is_none() {
            state.imported = imported;
            self.apply_here(&mut state, Vec::new(), &[]).await?;
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
        let mut state = self.state().await?;
        let hints = network.map_or(&[][..], |network| &network.hints);
        let mended = self.mend(&edits).await?;
        let edits = self.upon(&state, edits, hints).await?;
        let known = match network {
            Some(network) => self.own_records(network, events).await?,
            None => Vec::new(),
        };
        let is_foreign = |record: &&SignedRecord| state.is_foreign(record.sequence(), root_of(record));
        let foreign: Vec<&SignedRecord> = known.iter().filter(is_foreign).collect();

        events.stage(Stage::Committing).await;
        let before = state.root;
        let unchanged = match (foreign.is_empty(), network) {
            (false, Some(network)) => {
                match self.merge(&mut state, &foreign, &edits, force, network, events).await {
                    Err(error @ PublishError::NotMerged { .. }) => {
                        // Kept here all the same, so that nothing is lost; the next publish tries again.
                        self.apply_here(&mut state, edits, hints).await?;
                        return Err(error);
                    }
                    merged => merged?,
                }
                state.root == before
            }
            _ => self.apply_here(&mut state, edits, hints).await?,
        };
        if let Some(session) = mended {
            // What the new root reaches is durable in any case.
            if unchanged { session.commit().await? } else { session.abort().await? }
        }
        let root = state.root.expect("a change leaves a root");
        if state.imported && known.is_empty() && network.is_some() {
            // It begins with what is here. Whatever there is elsewhere has a higher sequence, and is merged once it is found.
            events.warn(Warning::NoEarlierRecord { name: self.keys.key.name().to_string() }).await;
        }
        let Some(network) = network else {
            let sequence = state.published.as_ref().map_or(0, |published| published.sequence);
            return Ok(Publication { root, unchanged, sequence, accepted: Vec::new(), reach: Reach::default() });
        };
        let before = state.published.as_ref().map(|published| published.sequence);
        let (sequence, accepted) = self.publish(&mut state, root, &known, network, events).await?;
        let unchanged = unchanged && before == Some(sequence);
        let reach = announce(&self.keys.key.name(), &root, network).await;
        Ok(Publication { root, unchanged, sequence, accepted, reach })
    }

    /// Stores what cannot be read of the folders that are pushed, before anything of the registry is read: a push of the same again
    /// mends them. There is a session if there was anything to store.
    async fn mend(&self, edits: &[Edit]) -> Result<Option<Box<dyn StoreSession>>, PublishError> {
        // What is wrong with the edits is found when they are applied.
        let folders = folders_of(&Reader::local(Arc::clone(&self.blocks)), edits).await.unwrap_or_default();
        let mut lacking = Vec::new();
        for block in folders {
            match self.blocks.get(block.cid()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(StoreError::Corrupt { .. }) => lacking.push(block),
                Err(error) => return Err(error.into()),
            }
        }
        if lacking.is_empty() {
            return Ok(None);
        }
        let session = self.blocks.begin(limits::LEASE).await?;
        session.put(lacking).await?;
        Ok(Some(session))
    }

    async fn state(&self) -> Result<State, PublishError> {
        Ok(State::load(&self.tables).await?.of(self.keys.key.name()))
    }

    /// Edits with what the tags that they change name now.
    async fn upon(&self, state: &State, edits: Vec<Edit>, hints: &[Multiaddr]) -> Result<Vec<Pending>, PublishError> {
        let reader = self.reader(state, None, hints).await;
        let mut noted = Vec::with_capacity(edits.len());
        for edit in edits {
            noted.push(merge::noted(&reader, state.root.as_ref(), edit).await?);
        }
        Ok(noted)
    }

    /// Reads this home's root. What is not stored here is fetched, and kept if there is a session.
    async fn reader(&self, state: &State, session: Option<&Arc<dyn StoreSession>>, hints: &[Multiaddr]) -> Reader {
        let fetch = match state.root.filter(|_| state.shared) {
            Some(root) => {
                let (hints, events) = (hints.to_vec(), Emitter::silent());
                self.exchange.open(FetchRequest { root, hints, stall: limits::STALL, share: true, events }).await.ok()
            }
            None => None,
        };
        Reader::new(Arc::clone(&self.blocks), session.cloned(), fetch)
    }

    /// All valid records of this registry, the newest first.
    async fn own_records(&self, network: &Network, events: &Emitter) -> Result<Vec<SignedRecord>, PublishError> {
        events.stage(Stage::Resolving).await;
        let name = self.keys.key.name();
        Ok(network.records.valid(&name, &network.hints, RESOLVE.min(network.stall), events).await?)
    }

    /// Applies what another home may not have seen, and the new edits, to the root that it published: that of the first of its
    /// records, which are the newest first and at least one. Nothing is kept unless all of it succeeds.
    async fn merge(
        &self,
        state: &mut State,
        foreign: &[&SignedRecord],
        edits: &[Pending],
        force: bool,
        network: &Network,
        events: &Emitter,
    ) -> Result<(), PublishError> {
        let theirs = foreign[0];
        let root = match (root_of(theirs), theirs.target()) {
            (Some(root), _) => root,
            (None, Target { root: TargetRoot::Ipns(to), path }) if path.is_empty() => {
                return Err(PublishError::HandedOver { from: *theirs.name(), to: *to });
            }
            (None, other) => return Err(PublishError::ForeignValue { value: other.to_string() }),
        };
        let session: Arc<dyn StoreSession> = Arc::from(self.blocks.begin(limits::LEASE).await?);
        let (hints, stall, events) = (network.hints.clone(), network.stall, events.clone());
        let request = FetchRequest { root, hints, stall, share: true, events };
        let not_merged = |source| PublishError::NotMerged { root, source };
        let fetch = network.exchange.open(request).await.map_err(|error| not_merged(Box::new(error)))?;
        let reader = Reader::new(Arc::clone(&self.blocks), Some(Arc::clone(&session)), Some(fetch));
        let unfetched = |error: PublishError| match error.kind() {
            crate::kind::ErrorKind::Unavailable => not_merged(Box::new(error)),
            _ => error,
        };
        let document = read::registry(&reader, &root).await.map_err(|error| unfetched(error.into()))?;
        let homes = document.map(|document| document.homes).unwrap_or_default();
        let merge::Unseen { made, forgotten } =
            merge::unseen(state, &self.tables, &homes, theirs.sequence(), force).await?;
        let unseen = made.iter().flat_map(|made| &made.edits).cloned().collect();
        let mut all = merge::still_possible(&reader, &root, unseen).await.map_err(unfetched)?;
        all.extend_from_slice(edits);
        let forced = match (force, edits) {
            (false, _) => merge::Forced::None,
            (true, []) => merge::Forced::All,
            (true, edits) => merge::Forced::Only(edits),
        };
        merge::refuse_conflicts(&reader, &root, &all, forced).await.map_err(unfetched)?;
        let again: Vec<Edit> = all.iter().map(|pending| pending.edit.clone()).collect();
        let mut all = merge::upon(&reader, &root, all).await.map_err(unfetched)?;
        let new = Made::new(state.change + 1, all.split_off(all.len() - edits.len()));
        let last = if edits.is_empty() { made.last() } else { Some(&new) };
        let row = last.map(|last| last.row(state.name()));
        let mut edited = apply(&reader, &root, &again, row.as_ref()).await.map_err(|error| unfetched(error.into()))?;
        let folders = edited.folders.clone();
        if let Some(row) = row.as_ref().filter(|_| edited.unchanged && !made.is_empty()) {
            // What they have as well counts as seen from now on.
            edited = note_home(&reader, &root, row).await.map_err(|error| unfetched(error.into()))?;
        }
        let mut rows = merge::rewritten(made, &all);
        rows.extend(forgotten);
        if let Some(row) = row.filter(|_| !edits.is_empty() && !edited.unchanged) {
            state.changed(row.home);
            rows.extend(new.write());
        }
        // The list of images comes along, so that this home can show itself when the other is away.
        if let Err(error) = read::images(&reader, &root).await {
            tracing::debug!(%error, "the catalogue of the merged registry is not all here");
        }
        self.store(&session, edited.blocks).await?;
        let foreign = foreign.iter().filter_map(|record| Some((record.sequence(), root_of(record)?)));
        state.merged(foreign, edited.root);
        self.write(state, &again, &folders, rows).await
    }

    /// Applies edits to the root of this home, durably; whether they changed nothing.
    async fn apply_here(
        &self,
        state: &mut State,
        edits: Vec<Pending>,
        hints: &[Multiaddr],
    ) -> Result<bool, PublishError> {
        let session: Arc<dyn StoreSession> = Arc::from(self.blocks.begin(limits::LEASE).await?);
        let reader = self.reader(state, Some(&session), hints).await;
        let base = match state.root {
            Some(root) => root,
            None => {
                let empty = empty(&self.info).await?;
                session.put(empty.blocks).await?;
                empty.root
            }
        };
        let plain: Vec<Edit> = edits.iter().map(|pending| pending.edit.clone()).collect();
        let made = Made::new(state.change + 1, edits);
        let row = made.row(state.name());
        let edited = apply(&reader, &base, &plain, Some(&row)).await?;
        if state.root == Some(edited.root) {
            // All of it is durable, and what was read does not stay leased.
            session.commit().await?;
            return Ok(true);
        }
        self.store(&session, edited.blocks).await?;
        state.root = Some(edited.root);
        let mut rows = Vec::new();
        if !edited.unchanged {
            state.changed(row.home);
            rows = made.write();
        }
        self.write(state, &plain, &edited.folders, rows).await?;
        Ok(false)
    }

    /// Makes the state and its changes durable, and that what its new edits brought is kept.
    async fn write(
        &self,
        state: &State,
        edits: &[Edit],
        folders: &[Option<Cid>],
        changes: Vec<Change>,
    ) -> Result<(), PublishError> {
        let mut batch = files::pin(edits, folders);
        batch.extend(changes);
        batch.push(state.write());
        Ok(self.tables.write(batch).await?)
    }

    async fn store(&self, session: &Arc<dyn StoreSession>, blocks: Vec<Block>) -> Result<(), PublishError> {
        session.put(blocks).await?;
        session.commit().await?;
        Ok(())
    }

    /// Signs a record for the root and hands it out. The sequence stays where the newest record names this root.
    async fn publish(
        &self,
        state: &mut State,
        root: Cid,
        known: &[SignedRecord],
        network: &Network,
        events: &Emitter,
    ) -> Result<(u64, Vec<String>), PublishError> {
        events.stage(Stage::Publishing).await;
        let name = self.keys.key.name();
        let kept = network.records.kept(&name).await?;
        let found = known.first().map_or(0, SignedRecord::sequence);
        let ours = state.published.as_ref().map_or(0, |published| published.sequence);
        let highest = ours.max(found).max(kept.as_ref().map_or(0, |kept| kept.record.sequence()));
        let named_by_ours = state.published.as_ref().is_some_and(|last| last.root == root && last.sequence == highest);
        let named_by_found = known.first().is_some_and(|one| root_of(one) == Some(root) && one.sequence() == highest);
        let rivals = known.iter().filter(|record| record.sequence() == highest).count() > 1;
        let forked = rivals || kept.is_some_and(|kept| kept.forked && kept.record.sequence() == highest);
        let sequence = if (named_by_ours || named_by_found) && !forked { highest } else { highest + 1 };

        let target = Target { root: TargetRoot::Ipfs(root), path: Vec::new() };
        let record = self.sign(&self.keys.key, &target, sequence);
        state.signed(sequence, root);
        self.tables.write(vec![state.write()]).await?;
        network.records.keep(&record).await?;
        let (accepted, ()) = tokio::join!(network.records.put(&record, &network.hints), self.redirect(network, events));
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                events.warn(Warning::NotPublished { reason: error.to_string() }).await;
                Vec::new()
            }
        };
        if !accepted.is_empty() {
            state.accepted();
            self.tables.write(vec![state.write()]).await?;
        }
        Ok((sequence, accepted))
    }

    /// Signs the last record of this home anew and hands it out, with its root and its sequence; false if nobody took it. Not if there
    /// is a later one by now.
    pub async fn renew(&self, published: &Published, network: &Network) -> Result<bool, PublishError> {
        let name = self.keys.key.name();
        let kept = network.records.kept(&name).await?;
        if kept.is_some_and(|kept| kept.record.sequence() > published.sequence) {
            return Ok(true);
        }
        let target = Target { root: TargetRoot::Ipfs(published.root), path: Vec::new() };
        let record = self.sign(&self.keys.key, &target, published.sequence);
        network.records.keep(&record).await?;
        let accepted = network.records.put(&record, &network.hints).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the record could not be handed out again");
            Vec::new()
        });
        network.announce.provide(&[published.root, announce::rendezvous(&name)]).await;
        Ok(!accepted.is_empty())
    }

    fn sign(&self, key: &RegistryKey, target: &Target, sequence: u64) -> SignedRecord {
        let policy = self.policy;
        SignedRecord::sign(key, target, sequence, self.clock.now(), policy.lifetime, policy.ttl)
    }

    /// Lets the names that the registry had before lead to the one that it has. What fails is tried again at the next publish.
    async fn redirect(&self, network: &Network, events: &Emitter) {
        for key in &self.keys.former {
            if let Err(error) = self.redirect_one(key, network, events).await {
                tracing::warn!(name = %key.name(), %error, "a former name could not be led to the present one");
            }
        }
    }

    async fn redirect_one(&self, key: &RegistryKey, network: &Network, events: &Emitter) -> Result<(), IpnsError> {
        let name = key.name();
        let target = Target { root: TargetRoot::Ipns(self.keys.key.name()), path: Vec::new() };
        let kept = network.records.kept(&name).await?;
        let sequence = match kept {
            Some(kept) if *kept.record.target() == target && !kept.forked => kept.record.sequence(),
            kept => {
                let found = network.records.valid(&name, &network.hints, RESOLVE.min(network.stall), events).await?;
                let kept = kept.map_or(0, |kept| kept.record.sequence());
                found.first().map_or(0, SignedRecord::sequence).max(kept) + 1
            }
        };
        let record = self.sign(key, &target, sequence);
        network.records.keep(&record).await?;
        if let Err(error) = network.records.put(&record, &network.hints).await {
            tracing::debug!(%name, %error, "the record of a former name was not handed out");
        }
        Ok(())
    }
}

/// The longest wait for records of our own name before publishing.
const RESOLVE: Duration = Duration::from_secs(15);

/// The root that a record names, if it names one and nothing below it.
fn root_of(record: &SignedRecord) -> Option<Cid> {
    match record.target() {
        Target { root: TargetRoot::Ipfs(root), path } if path.is_empty() => Some(*root),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! Mending what a check found: [`plan`] says what is lacking, [`Plan::execute`] makes it again or fetches it from others.
//!
//! What has to be here: everything below what this home tagged and, unless another home has published parts of it, everything else
//! of the registry. Of other things that are stored, pulled images above all, only what is damaged is lacking: nobody ever fetched
//! all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use cid::multihash::Multihash;
use futures::stream::{self, StreamExt as _};
use multiaddr::Multiaddr;

use super::collect::UpkeepError;
use crate::dag::block::{Block, RAW, known_data};
use crate::event::Emitter;
use crate::exchange::reader::Reader;
use crate::exchange::walk::{WalkError, gaps};
use crate::kind::ErrorKind;
use crate::limits;
use crate::pin::cache::CacheEntry;
use crate::pin::files;
use crate::pin::state::State;
use crate::port::blocks::{BlockStore, StoreSession};
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession};
use crate::port::table::Table;
use crate::tree::remake;

/// Blocks that are asked for at once. When none of so many comes, nobody is asked for the rest.
const AT_ONCE: usize = 64;

type Hash = Multihash<64>;

/// Something that has to be whole.
#[derive(Clone, Debug)]
struct Part {
    /// The root whose holders may have it.
    root: Cid,
    top: Cid,
    /// Whether what is missing is lacking, too, and not only what is damaged.
    whole: bool,
}

/// What is lacking.
#[derive(Debug)]
pub struct Plan {
    /// The registry's root.
    own: Option<Cid>,
    damaged: HashSet<Hash>,
    /// Every block that was looked at.
    seen: HashSet<Hash>,
    lacking: Vec<Lack>,
}

/// A block that is lacking.
#[derive(Clone, Copy, Debug)]
struct Lack {
    cid: Cid,
    /// The root whose holders may have it.
    root: Cid,
    whole: bool,
}

/// Who is asked, and how.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The network.
    pub exchange: &'a Arc<dyn Exchange>,
    /// Addresses to dial first.
    pub hints: &'a [Multiaddr],
    /// The longest time without a block.
    pub stall: Duration,
    /// Whether others may know what is fetched, and get blocks of it meanwhile.
    pub share: bool,
    /// Where peers and received bytes are told.
    pub events: Emitter,
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Blocks that others sent.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Blocks that were made again here.
    pub made: u64,
    /// Blocks that are lacking still.
    pub lost: Vec<Cid>,
    /// Whether some of them are because nobody could be asked.
    pub unasked: bool,
    /// Whether a damaged block is needed by nothing.
    pub garbage: bool,
}

/// Looks for what is lacking; `damaged` is what a check of the store has found.
pub async fn plan(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    damaged: impl IntoIterator<Item = Cid>,
) -> Result<Plan, UpkeepError> {
    let damaged = damaged.into_iter().map(|cid| *cid.hash()).collect();
    let state = State::load(tables).await?;
    let mut parts = Vec::new();
    if let Some(root) = state.root {
        // Those first of which everything has to be here: what is seen once is not looked at again.
        let pinned = files::all(tables).await?;
        parts.extend(pinned.into_iter().map(|top| Part { root, top, whole: true }));
        parts.push(Part { root, top: root, whole: !state.shared });
    }
    let cached = CacheEntry::all(tables).await?;
    parts.extend(cached.into_iter().map(|(top, entry)| Part { root: entry.root, top, whole: false }));
    let mut plan = Plan { own: state.root, damaged, seen: HashSet::new(), lacking: Vec::new() };
    for Part { root, top, whole } in parts {
        let lacks = plan.below(blocks, top, root, whole).await?;
        plan.lacking.extend(lacks);
    }
    Ok(plan)
}

impl Plan {
    /// The blocks that are known to be lacking. What is below them is not known.
    pub fn lacking(&self) -> Vec<Cid> {
        self.lacking.iter().map(|lack| lack.cid).collect()
    }

    /// What is lacking at and below `top`, as far as that was not seen.
    async fn below(
        &mut self,
        blocks: &Arc<dyn BlockStore>,
        top: Cid,
        root: Cid,
        whole: bool,
    ) -> Result<Vec<Lack>, UpkeepError> {
        let seen = &mut self.seen;
        let gaps = match gaps(blocks.as_ref(), &top, |cid| seen.insert(*cid.hash())).await {
            Ok(gaps) => gaps,
            // Nothing that is whole can be read otherwise: a check names it.
            Err(WalkError::Node { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let wanted = gaps.into_iter().filter(|gap| whole || gap.damaged || self.damaged.contains(gap.cid.hash()));
        Ok(wanted.map(|gap| Lack { cid: gap.cid, root, whole }).collect())
    }

    /// Makes again or fetches what is lacking, and what turns out to be lacking below that. What was got is durable when this returns.
    pub async fn execute(
        mut self,
        blocks: &Arc<dyn BlockStore>,
        sources: Sources<'_>,
    ) -> Result<Repaired, UpkeepError> {
        let session: Arc<dyn StoreSession> = Arc::from(blocks.begin(limits::LEASE).await?);
        let mut done = Repaired::default();
        let mut lacking = std::mem::take(&mut self.lacking);
        let mut lost = Vec::new();
        loop {
            lacking = self.make(blocks, &session, lacking, &mut done).await?;
            let mut by_root: HashMap<Cid, Vec<Lack>> = HashMap::new();
            lacking.drain(..).for_each(|lack| by_root.entry(lack.root).or_default().push(lack));
            for (root, lacks) in by_root {
                self.fetch(blocks, &session, &sources, root, lacks, (&mut done, &mut lost)).await?;
            }
            // With what came, more can be made; and below that, more may be lacking.
            let before = done.made;
            lacking = self.make(blocks, &session, std::mem::take(&mut lost), &mut done).await?;
            if done.made == before {
                break;
            }
        }
        session.commit().await?;
        done.lost = lacking.into_iter().map(|lack| lack.cid).collect();
        done.unasked &= !done.lost.is_empty();
        done.garbage = self.damaged.iter().any(|hash| !self.seen.contains(hash));
        Ok(done)
    }

    /// Makes what can be made here. Answers what is lacking still.
    async fn make(
        &mut self,
        blocks: &Arc<dyn BlockStore>,
        session: &Arc<dyn StoreSession>,
        lacking: Vec<Lack>,
        done: &mut Repaired,
    ) -> Result<Vec<Lack>, UpkeepError> {
        let own = self.own.filter(|own| lacking.iter().any(|lack| lack.root == *own));
        let derived = match own {
            Some(root) => remake::derived(&Reader::local(Arc::clone(blocks)), &root).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut derived: HashMap<Hash, Block> = derived.into_iter().map(|block| (*block.cid().hash(), block)).collect();
        let (mut still, mut todo) = (Vec::new(), lacking);
        while let Some(lack) = todo.pop() {
            let known = known_data(&lack.cid).and_then(|data| Block::verify(lack.cid, data).ok());
            match known.or_else(|| derived.remove(lack.cid.hash())) {
                Some(block) => {
                    done.made += 1;
                    todo.extend(self.put(blocks, session, lack, block).await?);
                }
                None => still.push(lack),
            }
        }
        Ok(still)
    }

    /// Stores a block; answers what is lacking below it.
    async fn put(
        &mut self,
        blocks: &Arc<dyn BlockStore>,
        session: &Arc<dyn StoreSession>,
        lack: Lack,
        block: Block,
    ) -> Result<Vec<Lack>, UpkeepError> {
        session.put(vec![block]).await?;
        if lack.cid.codec() == RAW {
            return Ok(Vec::new());
        }
        self.seen.remove(lack.cid.hash());
        self.below(blocks, lack.cid, lack.root, lack.whole).await
    }

    /// Fetches from the holders of `root`.
    async fn fetch(
        &mut self,
        blocks: &Arc<dyn BlockStore>,
        session: &Arc<dyn StoreSession>,
        sources: &Sources<'_>,
        root: Cid,
        mut todo: Vec<Lack>,
        (done, lost): (&mut Repaired, &mut Vec<Lack>),
    ) -> Result<(), UpkeepError> {
        let request = FetchRequest {
            root,
            hints: sources.hints.to_vec(),
            stall: sources.stall,
            share: sources.share,
            events: sources.events.clone(),
        };
        let network: Arc<dyn FetchSession> = match sources.exchange.open(request).await {
            Ok(network) => network,
            Err(error) => {
                tracing::debug!(%root, %error, "nobody can be asked");
                done.unasked = true;
                lost.append(&mut todo);
                return Ok(());
            }
        };
        while !todo.is_empty() {
            let batch = todo.split_off(todo.len().saturating_sub(AT_ONCE));
            let fetching = batch.into_iter().map(|lack| {
                let network = Arc::clone(&network);
                async move { (lack, network.fetch(&lack.cid).await) }
            });
            let mut answers = stream::iter(fetching).buffer_unordered(AT_ONCE);
            let mut came = false;
            while let Some((lack, answer)) = answers.next().await {
                match answer {
                    Ok(block) => {
                        came = true;
                        done.fetched += 1;
                        done.fetched_bytes += block.data().len() as u64;
                        todo.extend(self.put(blocks, session, lack, block).await?);
                    }
                    Err(error) => {
                        tracing::debug!(cid = %lack.cid, %error, "a block could not be fetched");
                        let nobody = matches!(error, ExchangeError::NoProvider { .. } | ExchangeError::Offline { .. });
                        done.unasked |= nobody || error.kind() == ErrorKind::Interrupted;
                        lost.push(lack);
                    }
                }
            }
            if !came {
                lost.append(&mut todo);
            }
        }
        Ok(())
    }
}

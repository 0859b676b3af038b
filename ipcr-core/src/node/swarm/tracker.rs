//! Who fetches what, as far as they said so: [`Tracker`]. Without any I/O or clock.

use std::collections::HashMap;
use std::time::Duration;

use cid::multihash::Multihash;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::time::Instant;

use crate::net::bucket::Bucket;
use crate::port::routing::Provider;

/// How long somebody counts as fetching who does not say so again.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);
/// Most roots.
const ROOTS: usize = 1024;
/// Most peers that fetch one root.
const FETCHERS: usize = 256;
/// Questions that a peer may ask at once after a silence.
const BURST: u32 = 64;
/// How long it takes from then on until it may ask another.
const QUESTION: Duration = Duration::from_millis(250);
/// Peers whose questions are counted.
const COUNTED: usize = 4096;

/// Fetchers of roots that this node holds or fetches.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    roots: HashMap<Multihash<64>, HashMap<PeerId, Fetcher>>,
    /// What each may ask still.
    questions: HashMap<PeerId, Bucket>,
    /// Another number for each answer, so that not the same peers are named each time when there are many.
    turn: u64,
}

#[derive(Debug)]
struct Fetcher {
    addresses: Vec<Multiaddr>,
    until: Instant,
}

impl Tracker {
    /// Whether a peer may ask another question now, which counts.
    pub(super) fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.questions.len() >= COUNTED && !self.questions.contains_key(&peer) {
            self.questions.retain(|_, left| !left.is_full(now));
            if self.questions.len() >= COUNTED {
                return false;
            }
        }
        let left = self.questions.entry(peer).or_insert_with(|| Bucket::new(BURST * QUESTION, now));
        left.try_take(QUESTION, now)
    }

    /// A peer fetches a root.
    pub(super) fn enter(&mut self, root: Multihash<64>, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        if !self.roots.contains_key(&root) && self.roots.len() >= ROOTS {
            self.forget(now);
            if self.roots.len() >= ROOTS {
                return;
            }
        }
        let fetchers = self.roots.entry(root).or_default();
        if !fetchers.contains_key(&peer) && fetchers.len() >= FETCHERS {
            fetchers.retain(|_, fetcher| fetcher.until > now);
            if fetchers.len() >= FETCHERS {
                return;
            }
        }
        fetchers.insert(peer, Fetcher { addresses, until: now + REMEMBERED });
    }

    /// At most `most` peers that fetch a root, other than `asker`, as far as they are still `there`.
    pub(super) fn others(
        &mut self,
        root: &Multihash<64>,
        asker: &PeerId,
        most: usize,
        now: Instant,
        there: impl Fn(&PeerId) -> bool,
    ) -> Vec<Provider> {
        let Some(fetchers) = self.roots.get_mut(root) else { return Vec::new() };
        fetchers.retain(|peer, fetcher| fetcher.until > now && there(peer));
        if fetchers.is_empty() {
            self.roots.remove(root);
            return Vec::new();
        }
        self.turn = self.turn.wrapping_add(1);
        let mut others: Vec<_> = fetchers.iter().filter(|(peer, _)| *peer != asker).collect();
        if others.len() > most {
            others.sort_by_cached_key(|(peer, _)| super::mix(super::digest(peer) ^ self.turn));
            others.truncate(most);
        }
        let named = others.into_iter();
        named.map(|(peer, fetcher)| Provider { peer: *peer, addresses: fetcher.addresses.clone() }).collect()
    }

    fn forget(&mut self, now: Instant) {
        self.roots.retain(|_, fetchers| {
            fetchers.retain(|_, fetcher| fetcher.until > now);
            !fetchers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::Block;

    fn root(index: usize) -> Multihash<64> {
        *Block::raw(index.to_string().into()).cid().hash()
    }

    fn address() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/4001".parse().unwrap()
    }

    #[tokio::test]
    async fn fetchers_are_named_to_others_until_they_are_gone() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        let (a, b) = (PeerId::random(), PeerId::random());
        tracker.enter(root(0), a, vec![address()], now);
        tracker.enter(root(0), b, vec![address()], now);
        let named = |tracker: &mut Tracker, at, there: fn(&PeerId) -> bool| {
            let named = tracker.others(&root(0), &b, 50, at, there);
            named.into_iter().map(|peer| peer.peer).collect::<Vec<_>>()
        };
        assert_eq!(named(&mut tracker, now, |_| true), [a]);
        assert!(tracker.others(&root(1), &b, 50, now, |_| true).is_empty(), "another root");
        // Who is not connected any more is gone for good.
        assert!(named(&mut tracker, now, |_| false).is_empty());
        assert!(named(&mut tracker, now, |_| true).is_empty());
        tracker.enter(root(0), a, vec![address()], now);
        assert_eq!(named(&mut tracker, now + REMEMBERED / 2, |_| true), [a]);
        assert!(named(&mut tracker, now + REMEMBERED, |_| true).is_empty());
        assert!(tracker.roots.is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_and_told_is_bounded() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        for index in 0..ROOTS + 10 {
            tracker.enter(root(index), PeerId::random(), vec![address()], now);
        }
        assert_eq!(tracker.roots.len(), ROOTS);
        for _ in 0..FETCHERS + 10 {
            tracker.enter(root(0), PeerId::random(), vec![address()], now);
        }
        assert_eq!(tracker.roots[&root(0)].len(), FETCHERS);
        let asker = PeerId::random();
        let mut told = std::collections::HashSet::new();
        for _ in 0..50 {
            let named = tracker.others(&root(0), &asker, 50, now, |_| true);
            assert_eq!(named.len(), 50);
            told.extend(named.into_iter().map(|peer| peer.peer));
        }
        assert!(told.len() > 200, "{} of them were named in 50 answers", told.len());
        // Old ones make room.
        let later = now + REMEMBERED;
        tracker.enter(root(ROOTS + 20), asker, vec![address()], later);
        assert_eq!(tracker.roots.len(), 1);
    }

    #[tokio::test]
    async fn questions_are_counted() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        let peer = PeerId::random();
        let admitted = (0..100).filter(|_| tracker.admit(peer, now)).count();
        assert_eq!(admitted, 64);
        assert!(tracker.admit(PeerId::random(), now), "others may ask");
        let later = now + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| tracker.admit(peer, later)).count(), 8);
        for _ in 0..2 * COUNTED {
            tracker.admit(PeerId::random(), later);
        }
        assert!(tracker.questions.len() <= COUNTED);
    }
}

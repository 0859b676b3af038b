//! A client of the Kademlia DHT: [`Kad`].
//!
//! The host's own DHT is not used: it dials whatever it learns, whatever the network mode; it keeps 1024 records at most;
//! a provider record that it puts has no addresses until one was confirmed from outside; and it does not say who took
//! what. Here every dial goes through the [`Hub`], addresses are filtered by the network mode, and records and provider
//! records are counted only when a peer has confirmed them.
//!
//! Source: libp2p specification, "Kademlia DHT".

mod message;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::AsyncWriteExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use ipcr_swarm::{Hub, StreamProtocol};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(super) use self::message::Contact;
#[cfg(any(test, feature = "fuzzing"))]
pub use self::message::fuzz;
use self::message::{Kind, Message};
use super::{frame, resolve};
use crate::net::addresses::NetworkMode;
use crate::port::dns::Dns;
use crate::port::routing::Provider;

/// The protocol of the public network; a private network has it to itself by its key.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// Largest message, in bytes; go-libp2p's is 4 MiB, and no honest answer comes near this.
const MESSAGE_BYTES: usize = 1 << 20;
/// Peers that keep a record (the specification's `k`).
const REPLICATION: usize = 20;
/// Questions under way at once (the specification's `α`, and more because many peers are gone).
const PARALLEL: usize = 10;
/// Most providers without addresses that are looked for.
const SOUGHT: usize = 16;
/// Most peers that one lookup asks.
const LOOKUP_PEERS: usize = 200;
/// How long one peer may take, dialling included.
const ANSWER: Duration = Duration::from_secs(10);

/// The client.
#[derive(Clone)]
pub(super) struct Kad {
    hub: Hub,
    dns: Arc<dyn Dns>,
    bootstrap: Arc<Vec<Multiaddr>>,
    /// What peers name may be dialled within it.
    mode: NetworkMode,
}

impl fmt::Debug for Kad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kad").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// A distance to a key; the smallest comes first.
type Distance = [u8; 32];

fn distance(key: &[u8], peer: &PeerId) -> Distance {
    let (key, peer) = (Sha256::digest(key), Sha256::digest(peer.to_bytes()));
    std::array::from_fn(|index| key[index] ^ peer[index])
}

impl Kad {
    pub(super) fn new(hub: Hub, dns: Arc<dyn Dns>, bootstrap: Vec<Multiaddr>, mode: NetworkMode) -> Self {
        Self { hub, dns, bootstrap: Arc::new(bootstrap), mode }
    }

    /// The record of a key that a connected peer has.
    pub(super) async fn value_of(&self, peer: &PeerId, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let question = Message { kind: Kind::GetValue, key: key.to_vec(), ..Message::default() };
        let answer = self.ask(peer, &question).await?;
        Ok(record_of(key, answer))
    }

    /// Hands a record to a connected peer, which confirms it by repeating it.
    pub(super) async fn put_to(&self, peer: &PeerId, key: &[u8], value: &[u8]) -> io::Result<()> {
        let record = Some((key.to_vec(), value.to_vec()));
        let question = Message { kind: Kind::PutValue, key: key.to_vec(), record, ..Message::default() };
        let answer = self.ask(peer, &question).await?;
        match record_of(key, answer) {
            Some(stored) if stored == value => Ok(()),
            _ => Err(io::Error::other("the peer did not take the record")),
        }
    }

    /// Sends every record of a key that the network has, as it is found.
    pub(super) async fn values(&self, key: &[u8], found: mpsc::Sender<(PeerId, Vec<u8>)>) {
        let question = Message { kind: Kind::GetValue, key: key.to_vec(), ..Message::default() };
        let mut lookup = Lookup::new(self, question);
        while let Some((peer, answer)) = lookup.next().await {
            if let Some(record) = record_of(key, answer)
                && found.send((peer, record)).await.is_err()
            {
                return;
            }
        }
    }

    /// Hands a record to the peers closest to its key; returns those that took it.
    pub(super) async fn put(&self, key: &[u8], value: &[u8]) -> Vec<PeerId> {
        let closest = self.closest(key, Kind::FindNode).await;
        let puts = closest.iter().map(|peer| async move { (*peer, self.put_to(peer, key, value).await) });
        let done = futures::future::join_all(puts).await;
        done.into_iter().filter(|(_, taken)| taken.is_ok()).map(|(peer, _)| peer).collect()
    }

    /// Sends everyone else who is said to provide a block, as they are found.
    pub(super) async fn providers(&self, cid: &Cid, found: mpsc::Sender<Provider>) {
        let mut known = HashSet::from([self.hub.local()]);
        let mut sought = HashSet::new();
        let (sender, mut answers) = mpsc::channel(1);
        let sift = async {
            // Peers that are named without a way to reach them: the network forgets addresses sooner than providers.
            let mut lookups = FuturesUnordered::new();
            let mut more = true;
            while more || !lookups.is_empty() {
                let contacts = tokio::select! {
                    answer = answers.recv(), if more => answer.unwrap_or_else(|| {
                        more = false;
                        Vec::new()
                    }),
                    Some(contact) = lookups.next() => vec![contact],
                };
                for Contact { peer, mut addresses } in contacts {
                    addresses.retain(|address| self.mode.allows_learned(address));
                    let unreachable = addresses.is_empty() && self.hub.link(&peer).is_none();
                    if unreachable && !known.contains(&peer) && sought.len() < SOUGHT && sought.insert(peer) {
                        lookups.push(self.locate(peer));
                    } else if !unreachable
                        && known.insert(peer)
                        && found.send(Provider { peer, addresses }).await.is_err()
                    {
                        return answers.close();
                    }
                }
            }
        };
        tokio::join!(self.provider_answers(cid, sender), sift);
    }

    /// Looks for the addresses of a peer.
    async fn locate(&self, peer: PeerId) -> Contact {
        let question = Message { kind: Kind::FindNode, key: peer.to_bytes(), ..Message::default() };
        let mut lookup = Lookup::new(self, question);
        while let Some((_, answer)) = lookup.next().await {
            let known = answer.closer.into_iter().find(|contact| contact.peer == peer && !contact.addresses.is_empty());
            if let Some(contact) = known {
                return contact;
            }
        }
        Contact { peer, addresses: Vec::new() }
    }

    /// Sends what each peer says about who provides a block, an empty answer included.
    pub(super) async fn provider_answers(&self, cid: &Cid, answers: mpsc::Sender<Vec<Contact>>) {
        let key = cid.hash().to_bytes();
        let question = Message { kind: Kind::GetProviders, key, ..Message::default() };
        let mut lookup = Lookup::new(self, question);
        while let Some((_, answer)) = lookup.next().await {
            if answers.send(answer.providers).await.is_err() {
                return;
            }
        }
    }

    /// Says that this node provides a block, at these addresses; returns how many peers know it afterwards.
    pub(super) async fn provide(&self, cid: &Cid, addresses: &[Multiaddr]) -> usize {
        let key = cid.hash().to_bytes();
        let closest = self.closest(&key, Kind::FindNode).await;
        let key = &key;
        let puts = closest.iter().map(|peer| self.provide_to(peer, key, addresses));
        futures::future::join_all(puts).await.into_iter().filter(|taken| *taken).count()
    }

    async fn provide_to(&self, peer: &PeerId, key: &[u8], addresses: &[Multiaddr]) -> bool {
        let own = Contact { peer: self.hub.local(), addresses: addresses.to_vec() };
        let note = Message { kind: Kind::AddProvider, key: key.to_vec(), providers: vec![own], ..Message::default() };
        let told = timeout(ANSWER, async {
            let mut stream = self.hub.open(peer, &PROTOCOL).await.map_err(io::Error::other)?;
            frame::write(&mut stream, &[&note.encode()]).await?;
            stream.close().await
        });
        if !matches!(told.await, Ok(Ok(()))) {
            return false;
        }
        // The note has no answer: only asking tells whether it was taken.
        let question = Message { kind: Kind::GetProviders, key: key.to_vec(), ..Message::default() };
        for _ in 0..5 {
            match self.ask(peer, &question).await {
                Ok(answer) if answer.providers.iter().any(|contact| contact.peer == self.hub.local()) => return true,
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// The peers closest to a key that answer, the closest first.
    async fn closest(&self, key: &[u8], kind: Kind) -> Vec<PeerId> {
        let question = Message { kind, key: key.to_vec(), ..Message::default() };
        let mut lookup = Lookup::new(self, question);
        while lookup.next().await.is_some() {}
        lookup.answered.into_values().take(REPLICATION).collect()
    }

    /// Asks a connected peer.
    async fn ask(&self, peer: &PeerId, question: &Message) -> io::Result<Message> {
        let asking = async {
            let mut stream = self.hub.open(peer, &PROTOCOL).await.map_err(io::Error::other)?;
            frame::write(&mut stream, &[&question.encode()]).await?;
            let answer = frame::read(&mut stream, MESSAGE_BYTES).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let _ = stream.close().await;
            Message::decode(&answer).map_err(io::Error::other)
        };
        timeout(ANSWER, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Connects to the ways into the network that are not connected yet; returns who they are.
    async fn enter(&self) -> Vec<Contact> {
        let mut contacts: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for address in resolve::resolve_all(&*self.dns, &self.bootstrap).await {
            if let Some(peer) = crate::net::addresses::peer(&address) {
                contacts.entry(peer).or_default().push(address);
            }
        }
        contacts.into_iter().map(|(peer, addresses)| Contact { peer, addresses }).collect()
    }
}

fn record_of(key: &[u8], answer: Message) -> Option<Vec<u8>> {
    answer.record.filter(|(found, value)| found == key && !value.is_empty()).map(|(_, value)| value)
}

type Asked<'a> = futures::future::BoxFuture<'a, (PeerId, io::Result<Message>)>;

/// An iterative lookup: asks ever closer peers the same question.
struct Lookup<'a> {
    kad: &'a Kad,
    question: Arc<Message>,
    /// Peers to ask, by distance.
    open: BTreeMap<Distance, Contact>,
    seen: HashSet<PeerId>,
    running: FuturesUnordered<Asked<'a>>,
    /// Peers that answered, by distance.
    answered: BTreeMap<Distance, PeerId>,
    /// Whether the built-in ways into the network were tried.
    entered: bool,
}

impl<'a> Lookup<'a> {
    fn new(kad: &'a Kad, question: Message) -> Self {
        let mut lookup = Self {
            kad,
            question: Arc::new(question),
            open: BTreeMap::new(),
            seen: HashSet::from([kad.hub.local()]),
            running: FuturesUnordered::new(),
            answered: BTreeMap::new(),
            entered: false,
        };
        for peer in kad.hub.speakers(&PROTOCOL) {
            lookup.add(Contact { peer, addresses: Vec::new() });
        }
        lookup
    }

    fn add(&mut self, contact: Contact) {
        if self.seen.len() < LOOKUP_PEERS && self.seen.insert(contact.peer) {
            self.open.insert(distance(&self.question.key, &contact.peer), contact);
        }
    }

    /// Whether a peer at this distance is worth asking: it would be among the closest.
    fn worthwhile(&self, distance: &Distance) -> bool {
        self.answered.len() < REPLICATION
            || self.answered.keys().nth(REPLICATION - 1).is_some_and(|furthest| distance < furthest)
    }

    fn start(&mut self) {
        while self.running.len() < PARALLEL
            && let Some((distance, contact)) = self.open.pop_first()
        {
            if !self.worthwhile(&distance) {
                self.open.clear();
                return;
            }
            let (kad, question) = (self.kad, self.question.clone());
            self.running.push(Box::pin(async move {
                let Contact { peer, addresses } = contact;
                let asking = async {
                    // Fails for those without addresses only when they are not connected any more.
                    kad.hub.dial(peer, &addresses).await.map_err(io::Error::other)?;
                    kad.ask(&peer, &question).await
                };
                let answer = timeout(ANSWER, asking).await;
                (peer, answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
            }));
        }
    }

    /// The next answer; `None` once the closest peers have answered.
    async fn next(&mut self) -> Option<(PeerId, Message)> {
        loop {
            self.start();
            let Some((peer, answer)) = self.running.next().await else {
                // Few peers are connected at first: the ways into the network give more.
                if self.entered || self.answered.len() >= REPLICATION {
                    return None;
                }
                self.entered = true;
                for contact in self.kad.enter().await {
                    self.add(contact);
                }
                continue;
            };
            match answer {
                Ok(answer) => {
                    self.answered.insert(distance(&self.question.key, &peer), peer);
                    for mut contact in answer.closer.iter().cloned() {
                        contact.addresses.retain(|address| self.kad.mode.allows_learned(address));
                        if !contact.addresses.is_empty() || self.kad.hub.link(&contact.peer).is_some() {
                            self.add(contact);
                        }
                    }
                    return Some((peer, answer));
                }
                Err(error) => tracing::debug!(%peer, %error, "a peer of the DHT did not answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_hashes() {
        let peer = PeerId::random();
        assert_eq!(distance(&peer.to_bytes(), &peer), [0; 32]);
        let key = Sha256::digest(b"key");
        let expected: Vec<u8> = Sha256::digest(peer.to_bytes()).iter().zip(key).map(|(a, b)| a ^ b).collect();
        assert_eq!(distance(b"key", &peer).to_vec(), expected);
    }

    #[test]
    fn records_of_other_keys_and_empty_ones_are_none() {
        let answer =
            |key: &[u8], value: &[u8]| Message { record: Some((key.to_vec(), value.to_vec())), ..Message::default() };
        assert_eq!(record_of(b"a", answer(b"a", b"v")), Some(b"v".to_vec()));
        assert_eq!(record_of(b"a", answer(b"b", b"v")), None);
        assert_eq!(record_of(b"a", answer(b"a", b"")), None);
    }
}

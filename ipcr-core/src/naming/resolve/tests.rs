use super::*;
use crate::identity::RegistryKey;
use crate::naming::record::SignedRecord;
use crate::naming::tests::{Carrier, TestClock};
use crate::port::dns::NoDns;
use crate::port::memory::dns::MemoryDns;
use crate::port::memory::table::MemoryTable;

const ROOT: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
const PEER: &str = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEqTTp5n78FnDxHQnLRDiWtPPpVG37zEg4ewdhGmzYn38";

struct World {
    dns: MemoryDns,
    network: Carrier,
    clock: TestClock,
    resolver: NameResolver,
}

impl World {
    fn new() -> Self {
        let (dns, network, clock) = (MemoryDns::new(), Carrier::default(), TestClock::new());
        let (clock_of_it, mode) = (clock.clock(), NetworkMode::Loopback);
        let options = ResolverOptions { clock: clock_of_it, mode, ..ResolverOptions::default() };
        let resolver =
            NameResolver::new(Arc::new(dns.clone()), Arc::new(network.clone()), Arc::new(MemoryTable::new()), options);
        Self { dns, network, clock, resolver }
    }

    fn record(&self, key: &RegistryKey, value: &str) -> SignedRecord {
        let (lifetime, ttl) = (limits::RECORD_LIFETIME, limits::RECORD_TTL);
        SignedRecord::sign(key, &value.parse().unwrap(), 7, self.clock.now(), lifetime, ttl)
    }

    fn publish(&self, records: &[SignedRecord]) {
        self.network.set(records.iter().map(|record| record.bytes().clone()).collect());
    }

    async fn resolve(&self, authority: &str) -> Result<Resolved, ResolveError> {
        self.resolver.resolve(&authority.parse().unwrap(), &[], false, &Emitter::silent()).await
    }
}

#[tokio::test]
async fn a_domain_a_key_and_content() {
    let world = World::new();
    let key = RegistryKey::generate();
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}/outer", key.name())]);
    world.dns.set_txt("_dnsaddr.hub.test", &[&format!("dnsaddr={PEER}")]);
    let record = world.record(&key, &format!("/ipfs/{ROOT}/inner"));
    world.publish(std::slice::from_ref(&record));
    let (events, mut watcher) = Emitter::watched();
    let authority = "hub.test".parse().unwrap();
    let given: Multiaddr = "/ip4/127.0.0.2/tcp/1".parse().unwrap();
    let resolved = world.resolver.resolve(&authority, std::slice::from_ref(&given), false, &events).await.unwrap();
    assert_eq!(resolved.root.to_string(), ROOT);
    assert_eq!(resolved.path, ["inner", "outer"]);
    assert_eq!(resolved.key, Some(key.name()));
    assert_eq!(resolved.hints, [given, PEER.parse().unwrap()]);
    assert_eq!(world.network.queries()[0].hints, resolved.hints);
    assert_eq!(resolved.trust, TrustLevel::FirstUse);
    let until = record.valid_until().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    assert_eq!(
        serde_json::to_value(&resolved.chain).unwrap(),
        serde_json::json!([
            {"kind": "dnslink", "name": "hub.test", "value": format!("/ipns/{}/outer", key.name()), "source": "TXT _dnslink.hub.test"},
            {"kind": "ipns", "name": key.name().to_string(), "value": format!("/ipfs/{ROOT}/inner"), "sequence": 7,
             "valid_until": until, "age": 0, "source": "carrier"},
            {"kind": "ipfs", "name": ROOT, "value": format!("/ipfs/{ROOT}"), "source": "carrier"},
        ])
    );
    drop(events);
    let mut kinds = Vec::new();
    while let Some(Event::Name { kind, .. }) = watcher.recv().await {
        kinds.push(kind);
    }
    assert_eq!(kinds, ["dnslink", "ipns", "ipfs"]);
    assert_eq!(world.resolve("did:web:hub.test").await.unwrap().trust, TrustLevel::Pinned);
    let json = serde_json::to_string(&resolved).unwrap();
    assert_eq!(serde_json::from_str::<Resolved>(&json).unwrap(), resolved);
}

#[tokio::test]
async fn keys_and_content_need_no_trust() {
    let world = World::new();
    let key = RegistryKey::generate();
    world.publish(&[world.record(&key, &format!("/ipfs/{ROOT}"))]);
    for spelling in [key.name().to_string(), key.did(), key.name().peer_id().to_string()] {
        let resolved = world.resolve(&spelling).await.unwrap();
        assert_eq!((resolved.trust, resolved.chain.len()), (TrustLevel::Key, 2));
    }
    let resolved = world.resolve(&format!("ipfs/{ROOT}")).await.unwrap();
    assert_eq!((resolved.trust, resolved.chain.len(), resolved.key), (TrustLevel::Content, 1, None));
    assert!(world.resolver.trust().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bare_domain_without_a_key() {
    let world = World::new();
    world.dns.set_txt("hub.test", &[&format!("dnslink=/ipfs/{ROOT}")]);
    let (events, mut watcher) = Emitter::watched();
    let resolved = world.resolver.resolve(&"hub.test".parse().unwrap(), &[], false, &events).await.unwrap();
    assert_eq!((resolved.trust, resolved.key), (TrustLevel::DnsOnly, None));
    assert_eq!(watcher.recv().await, Some(Event::Warning(Warning::BareDomain { domain: "hub.test".into() })));
    // A key from now on is a change.
    let key = RegistryKey::generate();
    world.publish(&[world.record(&key, &format!("/ipfs/{ROOT}"))]);
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", key.name())]);
    let error = world.resolve("hub.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::Trust(TrustError::Changed { .. })) && error.kind() == ErrorKind::Integrity);
}

#[tokio::test]
async fn a_changed_key_is_refused() {
    let world = World::new();
    let [old, new] = [(); 2].map(|()| RegistryKey::generate());
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", old.name())]);
    world.publish(&[world.record(&old, &format!("/ipfs/{ROOT}"))]);
    world.resolve("hub.test").await.unwrap();
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", new.name())]);
    world.publish(&[world.record(&new, &format!("/ipfs/{ROOT}"))]);
    assert!(matches!(world.resolve("hub.test").await, Err(ResolveError::Trust(TrustError::Changed { .. }))));
    // Nor does it help that nobody has a record of the new key.
    world.publish(&[]);
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", RegistryKey::generate().name())]);
    assert!(matches!(world.resolve("hub.test").await, Err(ResolveError::Trust(TrustError::Changed { .. }))));
    world.dns.set_txt("_dnslink.other.test", &[&format!("dnslink=/ipns/{}", RegistryKey::generate().name())]);
    let unknown = world.resolve("other.test").await;
    assert!(matches!(unknown, Err(ResolveError::Ipns(IpnsError::NotFound { .. }))), "{unknown:?}");
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", new.name())]);
    world.publish(&[world.record(&new, &format!("/ipfs/{ROOT}"))]);
    let domain = "hub.test".parse().unwrap();
    world.resolver.trust().add(&domain, Anchor::Key(new.name())).await.unwrap();
    assert_eq!(world.resolve("hub.test").await.unwrap().trust, TrustLevel::Pinned);
}

#[tokio::test]
async fn domains_through_domains() {
    let world = World::new();
    let key = RegistryKey::generate();
    world.dns.set_txt_with("_dnslink.a.test", &["dnslink=/ipns/b.test/x"], Security::Secure);
    world.dns.set_txt("_dnslink.b.test", &[&format!("dnslink=/ipns/{}", key.name())]);
    world.publish(&[world.record(&key, &format!("/ipfs/{ROOT}"))]);
    let resolved = world.resolve("a.test").await.unwrap();
    // As secure as the weaker one, and both are remembered with the key.
    assert_eq!((resolved.trust, resolved.path), (TrustLevel::FirstUse, vec!["x".to_owned()]));
    let listed = world.resolver.trust().list().await.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|entry| entry.key == Anchor::Key(key.name()) && !entry.secure));
    world.dns.set_txt_with("_dnslink.b.test", &[&format!("dnslink=/ipns/{}", key.name())], Security::Secure);
    assert_eq!(world.resolve("a.test").await.unwrap().trust, TrustLevel::Dnssec);
    // And from then on no less.
    world.dns.set_txt("_dnslink.b.test", &[&format!("dnslink=/ipns/{}", key.name())]);
    assert!(matches!(world.resolve("a.test").await, Err(ResolveError::Trust(TrustError::NoLongerSecure { .. }))));
}

#[tokio::test]
async fn endless_chains_end() {
    let world = World::new();
    world.dns.set_txt("_dnslink.a.test", &["dnslink=/ipns/b.test"]);
    world.dns.set_txt("_dnslink.b.test", &["dnslink=/ipns/a.test"]);
    world.dns.set_txt("_dnslink.in.test", &["dnslink=/ipns/A.test/sub"]);
    for (name, again) in [("a.test", "a.test"), ("b.test", "b.test"), ("in.test", "a.test")] {
        let error = world.resolve(name).await.unwrap_err();
        assert!(matches!(&error, ResolveError::Circle { again: met, .. } if met == again), "{error}");
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
    // Through keys, too.
    let key = RegistryKey::generate();
    world.publish(&[world.record(&key, "/ipns/c.test")]);
    world.dns.set_txt("_dnslink.c.test", &[&format!("dnslink=/ipns/{}/deeper", key.name())]);
    assert!(matches!(world.resolve("c.test").await, Err(ResolveError::Circle { .. })));
    // Exactly 32 names are followed.
    for number in 0..limits::NAME_RECURSION {
        let next = if number + 1 < limits::NAME_RECURSION {
            format!("dnslink=/ipns/n{}.test", number + 1)
        } else {
            format!("dnslink=/ipfs/{ROOT}")
        };
        world.dns.set_txt(&format!("_dnslink.n{number}.test"), &[&next]);
    }
    assert_eq!(world.resolve("n0.test").await.unwrap().chain.len(), limits::NAME_RECURSION + 1);
    world.dns.set_txt("_dnslink.more.test", &["dnslink=/ipns/n0.test"]);
    assert!(matches!(world.resolve("more.test").await, Err(ResolveError::TooLong { .. })));
}

#[tokio::test]
async fn failures_keep_their_kind() {
    let world = World::new();
    assert_eq!(world.resolve("hub.test").await.unwrap_err().kind(), ErrorKind::NotFound);
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipfs/{ROOT}"), "dnslink=/ipns/b.test"]);
    assert_eq!(world.resolve("hub.test").await.unwrap_err().kind(), ErrorKind::Integrity);
    world.dns.set_bogus("_dnslink.bogus.test");
    assert_eq!(world.resolve("bogus.test").await.unwrap_err().kind(), ErrorKind::Integrity);
    let key = RegistryKey::generate().name().to_string();
    assert_eq!(world.resolve(&key).await.unwrap_err().kind(), ErrorKind::Unavailable);
    world.dns.set_down(true);
    assert_eq!(world.resolve("hub.test").await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Nothing is remembered of chains that do not end.
    assert!(world.resolver.trust().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn without_a_network_domains_lead_where_they_led() {
    let world = World::new();
    let key = RegistryKey::generate();
    world.dns.set_txt_with("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}/sub", key.name())], Security::Secure);
    world.dns.set_txt("_dnslink.content.test", &[&format!("dnslink=/ipfs/{ROOT}/x")]);
    world.publish(&[world.record(&key, &format!("/ipfs/{ROOT}"))]);
    let online = world.resolve("hub.test").await.unwrap();
    assert_eq!(online.trust, TrustLevel::Dnssec);
    world.resolve("content.test").await.unwrap();
    let added = "added.test".parse().unwrap();
    world.resolver.trust().add(&added, Anchor::Key(key.name())).await.unwrap();

    world.network.set_offline(true);
    let resolver = NameResolver { dns: Arc::new(NoDns), ..world.resolver.clone() };
    let resolve = |name: &str| {
        let (resolver, name) = (&resolver, name.parse().unwrap());
        async move { resolver.resolve(&name, &[], false, &Emitter::silent()).await }
    };
    let offline = resolve("hub.test").await.unwrap();
    assert_eq!((offline.root, offline.path, offline.key), (online.root, online.path, online.key));
    assert_eq!((offline.trust, offline.chain[0].source.as_str()), (TrustLevel::Dnssec, "kept"));
    assert_eq!(resolve("content.test").await.unwrap().path, ["x"]);
    assert_eq!(resolve("added.test").await.unwrap().key, Some(key.name()));
    let error = resolve("other.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::Link(LinkError::Dns { source: DnsError::Offline { .. }, .. })), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_chain_that_is_not_believed_is_believed_with_a_hand_over() {
    let world = World::new();
    let [old, new] = [(); 2].map(|()| RegistryKey::generate());
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", old.name())]);
    world.publish(&[world.record(&old, &format!("/ipfs/{ROOT}"))]);
    world.resolve("hub.test").await.unwrap();
    world.dns.set_txt("_dnslink.hub.test", &[&format!("dnslink=/ipns/{}", new.name())]);
    world.publish(&[world.record(&new, &format!("/ipfs/{ROOT}"))]);
    let name = "hub.test".parse().unwrap();
    let chain = world.resolver.follow(&name, &[], false, &Emitter::silent()).await.unwrap();
    let (error, chain) = world.resolver.believe(chain, &[]).await.unwrap_err();
    assert!(matches!(error, ResolveError::Trust(TrustError::Changed { .. })), "{error}");
    assert_eq!((chain.root().to_string().as_str(), chain.path(), chain.hints()), (ROOT, &[][..], &[][..]));
    let handover = Handover::sign(&old, new.name(), world.clock.now());
    let resolved = world.resolver.believe(*chain, &[handover]).await.unwrap();
    assert_eq!((resolved.trust, resolved.key), (TrustLevel::Pinned, Some(new.name())));
    assert_eq!(world.resolve("hub.test").await.unwrap().trust, TrustLevel::Pinned);
}

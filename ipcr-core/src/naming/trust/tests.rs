use super::*;
use crate::identity::RegistryKey;
use crate::naming::tests::TestClock;
use crate::port::memory::table::MemoryTable;

struct World {
    trust: TrustTable,
    domain: Domain,
    keys: [RegistryKey; 3],
}

impl World {
    fn new() -> Self {
        let trust = TrustTable::new(Arc::new(MemoryTable::new()), TestClock::new().clock());
        Self { trust, domain: "hub.test".parse().unwrap(), keys: [(); 3].map(|()| RegistryKey::generate()) }
    }

    fn key(&self, which: usize) -> Anchor {
        Anchor::Key(self.keys[which].name())
    }

    async fn see(&self, found: Anchor, security: Security) -> Result<TrustLevel, TrustError> {
        self.see_with(found, security, &[]).await
    }

    async fn see_with(
        &self,
        found: Anchor,
        security: Security,
        handovers: &[Handover],
    ) -> Result<TrustLevel, TrustError> {
        let link = "/ipns/k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb/sub".parse().unwrap();
        self.trust.see(&Sighting { domain: &self.domain, found, link: &link, security, handovers }).await
    }
}

#[tokio::test]
async fn first_use_then_pinned_then_refused() {
    let world = World::new();
    let insecure = Security::Insecure;
    assert_eq!(world.see(world.key(0), insecure).await.unwrap(), TrustLevel::FirstUse);
    assert_eq!(world.see(world.key(0), insecure).await.unwrap(), TrustLevel::Pinned);
    for changed in [world.key(1), Anchor::Keyless] {
        let error = world.see(changed, insecure).await.unwrap_err();
        assert!(matches!(&error, TrustError::Changed { found, .. } if **found == changed), "{error}");
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
    assert_eq!(world.see(world.key(0), insecure).await.unwrap(), TrustLevel::Pinned);
}

#[tokio::test]
async fn keyless_domains() {
    let world = World::new();
    assert_eq!(world.see(Anchor::Keyless, Security::Insecure).await.unwrap(), TrustLevel::DnsOnly);
    assert_eq!(world.see(Anchor::Keyless, Security::Insecure).await.unwrap(), TrustLevel::DnsOnly);
    assert!(matches!(world.see(world.key(0), Security::Insecure).await, Err(TrustError::Changed { .. })));
}

#[tokio::test]
async fn security_only_grows() {
    let world = World::new();
    assert_eq!(world.see(world.key(0), Security::Insecure).await.unwrap(), TrustLevel::FirstUse);
    assert_eq!(world.see(world.key(0), Security::Secure).await.unwrap(), TrustLevel::Dnssec);
    let error = world.see(world.key(0), Security::Insecure).await.unwrap_err();
    assert!(matches!(error, TrustError::NoLongerSecure { .. }) && error.kind() == ErrorKind::Integrity);
    // DNSSEC alone changes nothing, unless it may.
    assert!(matches!(world.see(world.key(1), Security::Secure).await, Err(TrustError::Changed { .. })));
    let mut lenient = world;
    lenient.trust = lenient.trust.dnssec_may_change(true);
    assert_eq!(lenient.see(lenient.key(1), Security::Secure).await.unwrap(), TrustLevel::Dnssec);
    assert_eq!(lenient.trust.get(&lenient.domain).await.unwrap().unwrap().key, lenient.key(1));
}

#[tokio::test]
async fn the_user_decides() {
    let world = World::new();
    world.see(world.key(0), Security::Secure).await.unwrap();
    world.trust.add(&world.domain, world.key(1)).await.unwrap();
    assert_eq!(world.see(world.key(1), Security::Insecure).await.unwrap(), TrustLevel::Pinned);
    let listed = world.trust.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|entry| (entry.domain.as_str(), entry.key)).collect::<Vec<_>>(),
        [("hub.test", world.key(1))]
    );
    assert!(world.trust.remove(&world.domain).await.unwrap());
    assert!(!world.trust.remove(&world.domain).await.unwrap());
    assert_eq!(world.see(world.key(2), Security::Insecure).await.unwrap(), TrustLevel::FirstUse);
    for text in ["keyless".to_owned(), world.keys[0].did(), world.keys[0].name().to_string()] {
        let anchor: Anchor = text.parse().unwrap();
        assert_eq!(anchor.to_string().parse::<Anchor>().unwrap(), anchor);
    }
    assert!("hub.test".parse::<Anchor>().is_err());
}

#[tokio::test]
async fn handovers_change_what_is_remembered() {
    let world = World::new();
    let names = [0, 1, 2].map(|which| world.keys[which].name());
    let date = TestClock::new().now();
    let [first, second] = [0, 1].map(|which| Handover::sign(&world.keys[which], names[which + 1], date));
    assert!(first.is_valid() && second.is_valid());
    let forged = Handover { from: names[0], to: names[2], ..second.clone() };
    assert!(!forged.is_valid());
    assert!(leads(&[second.clone(), first.clone()], names[0], names[2]));
    assert!(!leads(std::slice::from_ref(&second), names[0], names[2]));
    assert!(!leads(&[second.clone(), first.clone()], names[2], names[0]));
    world.see(world.key(0), Security::Insecure).await.unwrap();
    assert!(world.see_with(world.key(2), Security::Insecure, &[forged]).await.is_err());
    let level = world.see_with(world.key(2), Security::Insecure, &[second, first.clone()]).await.unwrap();
    assert_eq!(level, TrustLevel::Pinned);
    assert_eq!(world.trust.get(&world.domain).await.unwrap().unwrap().key, world.key(2));
    // The old key cannot take it back.
    assert!(world.see_with(world.key(0), Security::Insecure, std::slice::from_ref(&first)).await.is_err());
    let json = serde_json::to_string(&first).unwrap();
    assert!(serde_json::from_str::<Handover>(&json).unwrap().is_valid());
}

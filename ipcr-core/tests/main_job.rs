//! The main job, end to end: an image is pushed, served, found by every kind of name, and pulled; two homes in one process,
//! loopback only, with a DNS zone of its own and no container engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use ipcr_core::control::builder::Builder;
use ipcr_core::digest::Digest;
use ipcr_core::kind::ErrorKind;
use ipcr_core::media::spec::ImageSpec;
use ipcr_core::naming::chain::TrustLevel;
use ipcr_core::naming::dns::DnsServer;
use ipcr_core::node::NetworkMode;
use ipcr_core::registry::Registry;
use ipcr_core::registry::local::CacheSize;
use ipcr_core::registry::options::{
    GcOptions, InitOptions, PublishOptions, PullOptions, PushOptions, RemoveTarget, ResolveOptions,
};
use ipcr_core::registry::outcome::{Identity, PullOutcome, PushOutcome, TxtRecord};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UdpSocket;

type Zone = Arc<Mutex<HashMap<String, Vec<String>>>>;

/// TXT records over UDP, with a TTL of 0 seconds.
async fn serve(zone: Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let question = &question[..length];
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
            let name = question[12..end].split_last().unwrap().1.to_ascii_lowercase();
            let mut labels = Vec::new();
            let mut rest = name.as_slice();
            while let Some((length, tail)) = rest.split_first() {
                labels.push(String::from_utf8(tail[..usize::from(*length)].to_vec()).unwrap());
                rest = &tail[usize::from(*length)..];
            }
            let found = zone.lock().unwrap().get(&labels.join(".")).cloned();
            let code = if found.is_some() { 0 } else { 3 };
            let values = found.filter(|_| question[end..end + 2] == [0, 16]).unwrap_or_default();
            let mut answer = question[..2].to_vec();
            answer.extend([0x84, code, 0, 1, 0, u8::try_from(values.len()).unwrap(), 0, 0, 0, 0]);
            answer.extend(&question[12..end + 4]);
            for value in values {
                answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0]);
                answer.extend(u16::try_from(value.len() + 1).unwrap().to_be_bytes());
                answer.push(u8::try_from(value.len()).unwrap());
                answer.extend(value.as_bytes());
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// A publisher that serves `hub.test`, somebody else, and the DNS that both ask.
struct World {
    dir: TempDir,
    dns: SocketAddr,
    zone: Zone,
    alice: Registry,
    identity: Identity,
    bob: Registry,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let zone = Zone::default();
        let dns = serve(Arc::clone(&zone)).await;
        let home = builder(&dir.path().join("alice"), dns).hold().await.unwrap();
        let mut options = InitOptions::default();
        options.domain = Some("hub.test".into());
        home.init(options).await.unwrap();
        home.serve().await.unwrap();
        let identity = home.registry.identity().await.unwrap();
        let this =
            Self { bob: somebody(&dir.path().join("bob"), dns).await, alice: home.registry, dir, dns, zone, identity };
        this.publish(&this.identity.txt);
        this
    }

    fn publish(&self, records: &[TxtRecord]) {
        let mut zone = self.zone.lock().unwrap();
        for record in records {
            zone.entry(record.name.clone()).or_default().push(record.value.clone());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Pushes a new image under a name.
    async fn push(&self, folder: &str, name: &str, seed: u64) -> PushOutcome {
        let folder = self.path(folder);
        layout(&folder, seed);
        self.push_folder(&folder, name).await
    }

    async fn push_folder(&self, folder: &Path, name: &str) -> PushOutcome {
        let mut options = PushOptions::default();
        options.target = Some(name.parse().unwrap());
        self.alice.push(at(folder), options).await.unwrap()
    }

    async fn pull(&self, reference: &str, folder: &str) -> PullOutcome {
        pull(&self.bob, reference, &self.path(folder)).await
    }

    async fn end(self) {
        self.bob.shutdown().await.unwrap();
        self.alice.shutdown().await.unwrap();
    }
}

fn builder(path: &Path, dns: SocketAddr) -> Builder {
    Builder::new(path, NetworkMode::Loopback)
        .listen(["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(|address| address.parse().unwrap()))
        .dns([DnsServer::Plain(dns)])
        .stall(Duration::from_secs(20))
}

/// A home without a registry of its own.
async fn somebody(path: &Path, dns: SocketAddr) -> Registry {
    builder(path, dns).open().await.unwrap().registry
}

async fn pull(registry: &Registry, reference: &str, folder: &Path) -> PullOutcome {
    registry.pull(reference.parse().unwrap(), at(folder), PullOptions::default()).await.unwrap()
}

fn at(folder: &Path) -> ImageSpec {
    ImageSpec::OciLayout { dir: folder.to_owned(), name: None }
}

/// A layout with one image of two layers, 3 MiB in all, in a manifest that no other software would have written so.
fn layout(folder: &Path, seed: u64) {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, data: &[u8]| {
        let digest = Digest::sha256(data);
        fs::write(folder.join(digest.layout_path()), data).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": data.len() })
    };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let tar = tar(seed * 2 + number);
        diff_ids.push(Digest::sha256(&tar).to_string());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        layers.push(blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().unwrap()));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2020-11-01T00:00:00Z",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "layers": layers, "schemaVersion": 2, "config": config, "mediaType": media_type, "x": seed });
    let manifest = blob(media_type, serde_json::to_string_pretty(&manifest).unwrap().as_bytes());
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn tar(seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let mut tar = tar::Builder::new(Vec::new());
    for (number, size) in [100, 700_000, 0, 1_500_000, 5_000].into_iter().enumerate() {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 60).to_le_bytes()[0]
        };
        let data: Vec<u8> = (0..size).map(|_| b'a' + next()).collect();
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("srv/{seed}/{number}"), data.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A layout's blobs by name, each checked, and the digest of its image.
fn blobs(folder: &Path) -> (String, BTreeMap<String, Vec<u8>>) {
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let [image] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    let mut blobs = BTreeMap::new();
    for file in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let file = file.unwrap();
        let (name, data) = (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap());
        assert_eq!(Digest::sha256(&data).hex(), name);
        blobs.insert(name, data);
    }
    assert_eq!(blobs.len(), 4, "a manifest, a configuration and two layers");
    (image["digest"].as_str().unwrap().to_owned(), blobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_by_every_kind_of_name_and_arrives_unchanged() {
    let world = World::new().await;
    let pushed = world.push("source", "team/app:1", 1).await;
    assert!(!pushed.unchanged);
    assert_eq!(pushed.reference, format!("hub.test/team/app:1@{}", pushed.digest));
    let manifest = fs::metadata(world.path("source").join(pushed.digest.layout_path())).unwrap().len();
    assert_eq!(pushed.bytes.stored, pushed.bytes.image - manifest, "manifests are stored with the registry");
    assert!(pushed.bytes.image > 1 << 20 && pushed.bytes.new >= pushed.bytes.stored, "{:?}", pushed.bytes);
    let source = blobs(&world.path("source"));
    assert_eq!(pushed.digest.to_string(), source.0);

    let Identity { ipns, did, .. } = &world.identity;
    let names = [
        ("hub.test".to_owned(), TrustLevel::FirstUse),
        (ipns.clone(), TrustLevel::Key),
        (did.clone(), TrustLevel::Key),
        (format!("ipfs/{}", pushed.root), TrustLevel::Content),
    ];
    let peer = &world.identity.node.addresses[0];
    for (number, (authority, trust)) in names.iter().enumerate() {
        // Nobody has pulled in this home before. A bare key says nothing about where its registry is served.
        let peers = (number > 0).then(|| peer.clone());
        let home =
            builder(&world.path(&format!("home-{number}")), world.dns).peers(peers).open().await.unwrap().registry;
        let reference = format!("{authority}/team/app:1");
        let resolved = home.resolve(reference.parse().unwrap(), ResolveOptions::default()).await.unwrap();
        assert_eq!(
            (resolved.root, resolved.cid, resolved.digest),
            (pushed.root, Some(pushed.cid), Some(pushed.digest))
        );
        assert_eq!(resolved.trust, *trust, "{reference}");
        let folder = world.path(&format!("copy-{number}"));
        let pulled = pull(&home, &reference, &folder).await;
        assert_eq!(blobs(&folder), source, "{reference}");
        // Keys have one spelling in results.
        let spelled = reference.replace(did.as_str(), ipns);
        assert_eq!(pulled.reference, format!("{spelled}@{}", pushed.digest));
        assert_eq!(
            (pulled.digest, pulled.manifest, pulled.cid, pulled.root),
            (pushed.digest, Some(pushed.digest), pushed.cid, pushed.root)
        );
        assert_eq!(pulled.image_id, pushed.image_id);
        assert_eq!(pulled.bytes.image, pushed.bytes.image);
        // Resolving brought the folders and the manifest.
        let bytes = pulled.bytes;
        assert!(bytes.fetched + bytes.local >= bytes.image && bytes.local < 64 << 10, "{bytes:?}");
        let from: Vec<_> = pulled.peers.iter().map(|share| share.peer.to_string()).collect();
        assert_eq!(from, std::slice::from_ref(&world.identity.node.peer_id));
        home.shutdown().await.unwrap();
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_the_same_again_changes_nothing_and_a_new_tag_counts_once() {
    let world = World::new().await;
    let first = world.push("source", "app:1", 1).await;
    let again = world.push_folder(&world.path("source"), "app:1").await;
    assert!(again.unchanged);
    assert_eq!((again.root, again.cid, again.sequence), (first.root, first.cid, first.sequence));
    assert_eq!((again.bytes.stored, again.bytes.new), (0, 0));

    // A time of its own is not a change either.
    let mut options = PushOptions::default();
    options.target = Some("app:1".parse().unwrap());
    options.publish.time = DateTime::from_timestamp(1_000_000_000, 0);
    let later = world.alice.push(at(&world.path("source")), options).await.unwrap();
    assert_eq!((later.unchanged, later.root, later.sequence), (true, first.root, first.sequence));

    let second = world.push_folder(&world.path("source"), "app:2").await;
    assert!(!second.unchanged);
    assert_eq!((second.digest, second.sequence), (first.digest, first.sequence + 1));
    assert_ne!(second.root, first.root);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_leaves_its_image_pullable_by_digest() {
    let world = World::new().await;
    let old = world.push("old", "app:1", 1).await;
    let new = world.push("new", "app:1", 2).await;
    assert_eq!(new.sequence, old.sequence + 1);
    assert_ne!(new.digest, old.digest);
    world.pull("hub.test/app:1", "by-tag").await;
    assert_eq!(blobs(&world.path("by-tag")), blobs(&world.path("new")));
    world.pull(&format!("hub.test/app@{}", old.digest), "by-digest").await;
    assert_eq!(blobs(&world.path("by-digest")), blobs(&world.path("old")));

    let error =
        world.bob.pull("hub.test/app:2".parse().unwrap(), at(&world.path("none")), PullOptions::default()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    let error =
        world.bob.pull("hub.test/other:1".parse().unwrap(), at(&world.path("none")), PullOptions::default()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_not_fetched_again() {
    let world = World::new().await;
    world.push("source", "app:1", 1).await;
    let first = world.pull("hub.test/app:1", "one").await;
    assert!(first.bytes.fetched >= first.bytes.image);
    let second = world.pull("hub.test/app:1", "two").await;
    assert_eq!((second.bytes.fetched, second.bytes.image), (0, first.bytes.image));
    assert!(second.bytes.local >= second.bytes.image);
    assert_eq!(blobs(&world.path("two")), blobs(&world.path("source")));

    // Another tag of the same image costs its folders only.
    world.push_folder(&world.path("source"), "app:2").await;
    let other = world.pull("hub.test/app:2", "three").await;
    assert!(other.bytes.fetched > 0 && other.bytes.fetched < 64 << 10, "{:?}", other.bytes);
    assert_eq!(blobs(&world.path("three")), blobs(&world.path("source")));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_images_do_not_fill_the_disk() {
    let world = World::new().await;
    let image = world.push("source", "app:1", 1).await;
    world.push("other", "app:2", 2).await;
    let size = world.pull("hub.test/app:1", "one").await.bytes.image;
    let home = builder(&world.path("carol"), world.dns).cache(CacheSize::Bytes(size * 6 / 5)).open().await.unwrap();
    let fetched =
        async |reference: &str, folder: &str| pull(&home.registry, reference, &world.path(folder)).await.bytes.fetched;
    assert!(fetched("hub.test/app:1", "two").await >= size);
    assert_eq!(fetched("hub.test/app:1", "three").await, 0);
    // There is room for one of them only: the one that was used last.
    assert!(fetched("hub.test/app:2", "four").await >= size / 2);
    assert_eq!(fetched("hub.test/app:2", "five").await, 0);
    // What both of them have is still there.
    assert!(fetched("hub.test/app:1", "six").await >= size / 4);
    assert_eq!(blobs(&world.path("six")), blobs(&world.path("source")));
    assert_eq!(blobs(&world.path("six")).0, image.digest.to_string());
    home.registry.shutdown().await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_outlives_its_process() {
    let world = World::new().await;
    let first = world.push("source", "app:1", 1).await;
    let World { dir, dns, zone, alice, bob, .. } = world;
    alice.shutdown().await.unwrap();

    let home = builder(&dir.path().join("alice"), dns).hold().await.unwrap();
    home.serve().await.unwrap();
    let identity = home.registry.identity().await.unwrap();
    assert_eq!(identity.ipns, first.ipns);
    zone.lock().unwrap().clear();
    for record in &identity.txt {
        zone.lock().unwrap().entry(record.name.clone()).or_default().push(record.value.clone());
    }
    let listing = home.registry.list(None, None, ResolveOptions::default()).await.unwrap();
    assert_eq!((listing.root, listing.images.len()), (Some(first.root), 1));
    let published = home.registry.publish(PublishOptions::default()).await.unwrap();
    assert_eq!((published.unchanged, published.root, published.sequence), (true, first.root, first.sequence));
    let pulled = pull(&bob, "hub.test/app:1", &dir.path().join("copy")).await;
    assert_eq!(pulled.digest, first.digest);
    assert_eq!(blobs(&dir.path().join("copy")), blobs(&dir.path().join("source")));
    assert!(home.registry.check(true).await.unwrap().problems.is_empty());
    assert!(bob.check(true).await.unwrap().problems.is_empty());
    bob.shutdown().await.unwrap();
    home.registry.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_collection_takes_what_a_push_is_about_to_name() {
    let dir = tempfile::tempdir().unwrap();
    let home = Builder::new(dir.path().join("home"), NetworkMode::Loopback).offline(true).hold().await.unwrap();
    home.init(InitOptions::default()).await.unwrap();
    let registry = home.registry.clone();
    let folder = dir.path().join("source");
    layout(&folder, 1);
    let collector = {
        let registry = registry.clone();
        tokio::spawn(async move {
            loop {
                registry.collect(GcOptions::default()).await.unwrap();
            }
        })
    };
    let mut options = PushOptions::default();
    options.target = Some("app:1".parse().unwrap());
    options.publish.publish = false;
    for round in 0..30 {
        // Known and referred to by nothing: read past, if the collector has not taken it yet.
        let remove = RemoveTarget::Image("app".parse().unwrap());
        let _ = registry.remove(remove, options.publish.clone()).await;
        let pushed = registry.push(at(&folder), options.clone()).await.unwrap();
        let copy = dir.path().join(format!("copy-{round}"));
        let pulled = registry.pull("app:1".parse().unwrap(), at(&copy), PullOptions::default()).await.unwrap();
        assert_eq!(pulled.digest, pushed.digest);
        assert_eq!(blobs(&copy), blobs(&folder), "round {round}");
    }
    collector.abort();
    assert!(collector.await.is_err_and(|ended| ended.is_cancelled()), "the collector worked until the end");
    assert!(registry.check(true).await.unwrap().problems.is_empty());
    drop(registry);
    home.close().await.unwrap();
}

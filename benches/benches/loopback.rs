//! Whole operations on one machine: pushing an OCI layout of 32 MiB into a home, and pulling it from another home over
//! loopback into the store of a third one. Bytes per second of the image, as it is stored.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipcr_benches::tar_header;
use ipcr_core::control::open::{OpenHome, Purpose, open};
use ipcr_core::digest::Digest;
use ipcr_core::media::spec::ImageSpec;
use ipcr_core::node::{NetworkMode, NodeConfig};
use ipcr_core::registry::local::HomeConfig;
use ipcr_core::registry::options::{InitOptions, PullOptions, PushOptions};
use ipcr_core::registry::places::Surroundings;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use tokio::runtime::Runtime;

/// The layer's bytes.
const SIZE: usize = 32 << 20;

/// A layout with one layer of bytes that do not compress, and the image's size.
fn layout(folder: &Path) -> u64 {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the temporary folder can be written");
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let data: Vec<u8> = (0..SIZE).map(|_| next()).collect();
    let mut tar = Vec::with_capacity(SIZE + 2048);
    tar.extend(tar_header("data", SIZE));
    tar.extend(data);
    tar.extend([0; 1024]);

    let mut total = 0;
    let mut blob = |media_type: &str, data: &[u8]| {
        let digest = Digest::sha256(data);
        fs::write(folder.join(digest.layout_path()), data).expect("the temporary folder can be written");
        total += u64::try_from(data.len()).expect("a Vec's length");
        format!(r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"{digest}","size":{}}}"#, data.len())
    };
    let layer = blob("layer.v1.tar", &tar);
    let diff_id = Digest::sha256(&tar);
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let config = blob("config.v1+json", config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layer}]}}"#
    );
    let manifest = blob("manifest.v1+json", manifest.as_bytes());
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
    fs::write(folder.join("index.json"), index).expect("the temporary folder can be written");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("the temporary folder can be written");
    total
}

/// A home that reaches this machine only, and these peers first.
async fn home(path: &Path, peers: Vec<Multiaddr>) -> OpenHome {
    let mut node = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Loopback);
    node.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("well-formed")];
    node.peers = peers;
    let mut config = HomeConfig::new(path, node);
    config.dns.mode = NetworkMode::Loopback;
    open(config, Surroundings::default(), "bench", Duration::ZERO, Purpose::Work).await.expect("a new home opens")
}

/// A home with a registry.
async fn publisher(path: &Path) -> OpenHome {
    let home = home(path, Vec::new()).await;
    let holder = home.holder.as_ref().expect("nobody else holds it");
    holder.init(InitOptions::default()).await.expect("a new home has no registry");
    holder.set_serving();
    home
}

fn options(publish: bool) -> PushOptions {
    let mut options = PushOptions::default();
    options.target = Some("app:1".parse().expect("well-formed"));
    options.publish.publish = publish;
    options
}

fn loopback(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("layout");
    let total = layout(&folder);
    let source = ImageSpec::OciLayout { dir: folder, name: None };

    let mut group = c.benchmark_group("loopback");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes(total));
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        dir.path().join(format!("home-{number}"))
    };

    group.bench_function("push", |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let path = fresh();
                let home = runtime.block_on(publisher(&path));
                let began = Instant::now();
                let pushed = runtime.block_on(home.registry.push(source.clone(), options(false)).into_future());
                taken += began.elapsed();
                assert_eq!(pushed.expect("the layout is sound").bytes.image, total);
                runtime.block_on(home.registry.shutdown()).expect("it ends");
                let _ = fs::remove_dir_all(path);
            }
            taken
        });
    });

    let alice = runtime.block_on(publisher(&fresh()));
    let (root, peers) = runtime.block_on(async {
        let pushed = alice.registry.push(source.clone(), options(true)).await.expect("the layout is sound");
        (pushed.root, alice.registry.holder().start_node().await.expect("a node"))
    });
    group.bench_function("pull", |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let path = fresh();
                let home = runtime.block_on(home(&path, peers.clone()));
                let reference = format!("ipfs/{root}/app:1").parse().expect("well-formed");
                let began = Instant::now();
                let pull = home.registry.pull(reference, ImageSpec::Nowhere, PullOptions::default());
                let pulled = runtime.block_on(pull.into_future()).expect("the publisher serves it");
                taken += began.elapsed();
                assert!(pulled.bytes.fetched >= total, "everything came over the wire");
                runtime.block_on(home.registry.shutdown()).expect("it ends");
                let _ = fs::remove_dir_all(path);
            }
            taken
        });
    });
    runtime.block_on(alice.registry.shutdown()).expect("it ends");
    group.finish();
}

criterion_group!(benches, loopback);
criterion_main!(benches);

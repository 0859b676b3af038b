//! What every sink and source of `port::image` must do: what is written by one is read by the other, byte for byte.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::digest::{Algorithm, Digest};
use crate::image::config::parse_config;
use crate::image::descriptor::{Descriptor, PlatformField};
use crate::image::manifest::{Parsed, parse_manifest};
use crate::image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use crate::port::image::{
    Blobs, ByteStream, Delivered, ExportedImage, Form, ImageError, ImagePart, ImageParts, ImageSink, ImageSource,
    Opened,
};
use crate::port::memory::image::MemoryImage;

/// A sink, and the source that reads what the sink has written.
pub(crate) struct Fixture {
    pub(crate) sink: Box<dyn ImageSink>,
    pub(crate) source: Box<dyn ImageSource>,
    /// How many files there are where the sink writes.
    pub(crate) traces: Box<dyn Fn() -> usize + Send + Sync>,
    /// What has to live as long as these two.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) guard: Box<dyn Any + Send + Sync>,
}

/// Runs the whole suite, each case on a fixture of its own.
pub(crate) async fn run(make: impl AsyncFn() -> Fixture) {
    images_come_back(make().await, &one_platform()).await;
    let mut fixture = make().await;
    if fixture.sink.abilities().await.unwrap().indexes {
        images_come_back(fixture, &many_platforms()).await;
    }
    empty_images_come_back(make().await).await;
    failed_blobs_leave_nothing(make().await).await;
    wrong_blobs_leave_nothing(make().await).await;
    giving_up_leaves_nothing(make().await).await;
}

async fn images_come_back(mut fixture: Fixture, image: &MemoryImage) {
    let zstd = fixture.sink.abilities().await.unwrap().zstd;
    let blobs = blobs(image).await;
    deliver(&*blobs, fixture.sink, Some("hub.test/app:1")).await.unwrap();
    match fixture.source.open().await.unwrap() {
        Opened::Blobs(back) => {
            assert!(zstd || everything(&*blobs).await.keys().all(|blob| !blob.1.contains("zstd")));
            assert_eq!(back.root().digest, blobs.root().digest);
            assert_same(&*back, &*blobs).await;
            assert!(back.name().is_none_or(|name| name == "hub.test/app:1"));
        }
        Opened::Export(mut export) => {
            let mut layers = BTreeMap::new();
            while let Some(mut layer) = export.next_layer().await.unwrap() {
                let mut bytes = Vec::new();
                layer.data.read_to_end(&mut bytes).await.unwrap();
                assert_eq!(layer.size, bytes.len() as u64);
                layers.insert(layer.key, plain(&bytes));
            }
            let [ExportedImage { config, layers: keys, names }] = &export.images().await.unwrap()[..] else { panic!() };
            let config = parse_config(config.clone()).unwrap();
            assert_eq!(keys.len(), config.diff_ids.len());
            for (key, diff_id) in keys.iter().zip(&config.diff_ids) {
                assert!(diff_id.matches(&layers[key]));
            }
            assert_eq!(names[..], ["hub.test/app:1"]);
        }
    }
}

async fn empty_images_come_back(fixture: Fixture) {
    let image = MemoryImage::new();
    let config = config(&[], "amd64");
    let config = image.add(OCI_CONFIG, Algorithm::Sha256, config);
    let root = manifest(&image, &config, &[], None);
    image.set_root(root, None);
    let blobs = blobs(&image).await;
    deliver(&*blobs, fixture.sink, None).await.unwrap();
    let Opened::Blobs(back) = fixture.source.open().await.unwrap() else { panic!("nothing was left out") };
    assert_same(&*back, &*blobs).await;
}

async fn failed_blobs_leave_nothing(mut fixture: Fixture) {
    let before = (fixture.traces)();
    let blobs = blobs(&one_platform()).await;
    let parts = gather(&*blobs, Some("app:1")).await;
    let needs = fixture.sink.plan(&parts).await.unwrap();
    let broken: ByteStream = Box::pin(AsyncReadExt::chain(&b"some"[..], Broken));
    let error = fixture.sink.write(&needs[0], needs[0].blob.size, broken).await.unwrap_err();
    assert_eq!(error.kind(), crate::kind::ErrorKind::Integrity, "{error}");
    drop(fixture.sink);
    assert_eq!((fixture.traces)(), before);
    assert!(fixture.source.open().await.is_err());
}

async fn wrong_blobs_leave_nothing(mut fixture: Fixture) {
    let before = (fixture.traces)();
    let blobs = blobs(&one_platform()).await;
    let parts = gather(&*blobs, Some("app:1")).await;
    let needs = fixture.sink.plan(&parts).await.unwrap();
    for (size, wrong) in [(needs[0].blob.size, vec![7; 3]), (3, vec![7; 4])] {
        let wrong = Box::pin(std::io::Cursor::new(wrong));
        let error = fixture.sink.write(&needs[0], size, wrong).await.unwrap_err();
        assert!(!matches!(error, ImageError::NoBlob { .. }), "{error}");
    }
    assert!(fixture.sink.finish().await.is_err() || (fixture.traces)() == before);
    assert_eq!((fixture.traces)(), before);
}

async fn giving_up_leaves_nothing(mut fixture: Fixture) {
    let before = (fixture.traces)();
    let blobs = blobs(&one_platform()).await;
    let parts = gather(&*blobs, Some("app:1")).await;
    let needs = fixture.sink.plan(&parts).await.unwrap();
    assert!(!needs.is_empty());
    drop(fixture.sink);
    assert_eq!((fixture.traces)(), before);
    assert!(fixture.source.open().await.is_err());
}

/// A stream that breaks.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::ErrorKind::InvalidData.into()))
    }
}

pub(crate) async fn blobs(source: &dyn ImageSource) -> std::sync::Arc<dyn Blobs> {
    match source.open().await.unwrap() {
        Opened::Blobs(blobs) => blobs,
        Opened::Export(_) => panic!("it has no manifests"),
    }
}

/// An image of one platform with layers in all compressions, one of them twice.
pub(crate) fn one_platform() -> MemoryImage {
    let image = MemoryImage::new();
    let root = add_image(&image, "one", "amd64", Algorithm::Sha256);
    image.set_root(root, Some("app:1".into()));
    image
}

/// An index of two platforms, one of them with sha512 digests, and a referrer to the index and one to a manifest.
pub(crate) fn many_platforms() -> MemoryImage {
    let image = MemoryImage::new();
    let mut manifests = Vec::new();
    for (architecture, algorithm) in [("amd64", Algorithm::Sha256), ("arm64", Algorithm::Sha512)] {
        let mut descriptor = add_image(&image, "many", architecture, algorithm);
        descriptor.platform = Some(PlatformField {
            architecture: architecture.into(),
            os: "linux".into(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        });
        manifests.push(descriptor);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    let root = image.add(OCI_INDEX, Algorithm::Sha256, index.to_string());
    for subject in [&root, &manifests[0]] {
        let empty = image.add("application/vnd.oci.empty.v1+json", Algorithm::Sha256, "{}");
        let note = format!(r#"{{"of":"{}"}}"#, subject.digest);
        let note = image.add("application/vnd.example.note+json", Algorithm::Sha256, note);
        let referrer = manifest(&image, &empty, &[note], Some(subject));
        image.refer(subject.digest, referrer);
    }
    image.set_root(root, Some("app:1".into()));
    image
}

fn add_image(image: &MemoryImage, seed: &str, architecture: &str, algorithm: Algorithm) -> Descriptor {
    let tars: Vec<Vec<u8>> =
        (0..3_u32).map(|number| layer(&format!("{seed}-{architecture}-{number}"), 20_000)).collect();
    let mut layers = vec![
        image.add(OCI_LAYER, algorithm, tars[0].clone()),
        image.add(OCI_LAYER_GZIP, algorithm, gzip(&tars[1])),
        image.add(OCI_LAYER_ZSTD, algorithm, zstd::encode_all(&tars[2][..], 1).unwrap()),
    ];
    layers.push(layers[1].clone());
    let order = [&tars[0], &tars[1], &tars[2], &tars[1]];
    let diff_ids: Vec<Digest> = order.iter().map(|tar| Digest::sha256(tar)).collect();
    let config = image.add(OCI_CONFIG, algorithm, config(&diff_ids, architecture));
    manifest_with(image, &config, &layers, None, algorithm)
}

/// A tar archive with one file of pseudo-random bytes.
pub(crate) fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(Digest::sha256(name.as_bytes()).as_bytes()[..8].try_into().unwrap());
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &data[..]).unwrap();
    tar.into_inner().unwrap()
}

pub(crate) fn config(diff_ids: &[Digest], architecture: &str) -> String {
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    serde_json::json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs }).to_string()
}

pub(crate) fn manifest(
    image: &MemoryImage,
    config: &Descriptor,
    layers: &[Descriptor],
    subject: Option<&Descriptor>,
) -> Descriptor {
    manifest_with(image, config, layers, subject, Algorithm::Sha256)
}

fn manifest_with(
    image: &MemoryImage,
    config: &Descriptor,
    layers: &[Descriptor],
    subject: Option<&Descriptor>,
    algorithm: Algorithm,
) -> Descriptor {
    let mut document = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
    });
    if let Some(subject) = subject {
        document["subject"] = serde_json::to_value(subject).unwrap();
    }
    image.add(OCI_MANIFEST, algorithm, document.to_string())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The bytes without compression.
pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => {
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut plain).unwrap();
        }
        [0x28, 0xb5, ..] => plain = zstd::decode_all(bytes).unwrap(),
        _ => plain = bytes.to_vec(),
    }
    plain
}

pub(crate) async fn bytes(blobs: &dyn Blobs, descriptor: &Descriptor) -> Bytes {
    let mut bytes = Vec::new();
    blobs.blob(descriptor).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert!(descriptor.digest.matches(&bytes), "{descriptor:?}");
    assert_eq!(descriptor.size, bytes.len() as u64);
    bytes.into()
}

/// All blobs below the root and of what refers to it or its manifests, by digest and media type.
pub(crate) async fn everything(blobs: &dyn Blobs) -> BTreeMap<(Digest, String), Bytes> {
    let mut all = BTreeMap::new();
    let mut todo = vec![blobs.root().clone()];
    while let Some(descriptor) = todo.pop() {
        let data = bytes(blobs, &descriptor).await;
        let parsed = parse_manifest(data.clone(), &descriptor.media_type);
        if let Ok(parsed) = &parsed {
            todo.extend(parsed.children().into_iter().cloned());
            todo.extend(blobs.referrers(&descriptor.digest).await.unwrap());
        }
        all.insert((descriptor.digest, descriptor.media_type), data);
    }
    all
}

/// That two hold the same image, byte for byte.
pub(crate) async fn assert_same(one: &dyn Blobs, other: &dyn Blobs) {
    assert_eq!(one.root().digest, other.root().digest);
    let digests = async |blobs| everything(blobs).await.into_keys().collect::<Vec<_>>();
    assert_eq!(digests(one).await, digests(other).await);
}

/// All parts of an image, every platform.
pub(crate) async fn gather(blobs: &dyn Blobs, name: Option<&str>) -> ImageParts {
    let root = blobs.root().clone();
    let mut parts = ImageParts {
        root: root.clone(),
        name: name.map(str::to_owned),
        manifests: Vec::new(),
        images: Vec::new(),
        absent: HashSet::new(),
        plain_sizes: HashMap::new(),
    };
    let mut seen = HashSet::new();
    let mut todo = std::collections::VecDeque::from([root]);
    let mut referrers = Vec::new();
    loop {
        let Some(descriptor) = todo.pop_front() else {
            todo.extend(std::mem::take(&mut referrers));
            if todo.is_empty() {
                return parts;
            }
            continue;
        };
        if !seen.insert(descriptor.digest) {
            continue;
        }
        let data = bytes(blobs, &descriptor).await;
        referrers.extend(blobs.referrers(&descriptor.digest).await.unwrap());
        match parse_manifest(data.clone(), &descriptor.media_type).unwrap() {
            Parsed::Index(index) => todo.extend(index.manifests),
            Parsed::Manifest(manifest) => {
                let config = bytes(blobs, &manifest.config).await;
                let diff_ids =
                    if manifest.is_image() { parse_config(config.clone()).unwrap().diff_ids } else { vec![] };
                parts.images.push(ImagePart {
                    manifest: descriptor.digest,
                    config: (manifest.config, config),
                    layers: manifest.layers,
                    diff_ids,
                });
            }
        }
        parts.manifests.push((descriptor, data));
    }
}

/// Hands an image to a sink.
pub(crate) async fn deliver(
    blobs: &dyn Blobs,
    mut sink: Box<dyn ImageSink>,
    name: Option<&str>,
) -> Result<Delivered, ImageError> {
    let parts = gather(blobs, name).await;
    for need in sink.plan(&parts).await? {
        let data = bytes(blobs, &need.blob).await;
        let data = if need.form == Form::Plain { plain(&data).into() } else { data };
        sink.write(&need, data.len() as u64, Box::pin(std::io::Cursor::new(data))).await?;
    }
    sink.finish().await
}

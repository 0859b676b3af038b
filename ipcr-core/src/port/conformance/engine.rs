//! What every implementation of `port::engine` must do.
//!
//! `tests/engines.rs` includes this file to run it against real engines.

use std::collections::{BTreeMap, HashSet};
use std::io;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::digest::Digest;
use crate::image::config::chain_ids;
use crate::image::descriptor::Descriptor;
use crate::port::engine::{Engine, EngineError, EngineStore, known_chains};
use crate::port::image::{ByteStream, Delivered, Form, ImageError, ImagePart, ImageParts, ImageSink};

/// A small image of three layers that nobody else has.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
}

impl Sample {
    pub(crate) fn new(seed: &str) -> Self {
        let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        Self::exactly(&format!("{seed}-{nonce}-{}", std::process::id()))
    }

    /// The same image for the same seed.
    pub(crate) fn exactly(seed: &str) -> Self {
        Self::of(seed, &[100; 3])
    }

    /// An image of layers that have so many MiB, about.
    pub(crate) fn sized(seed: &str, mib: &[usize]) -> Self {
        let seed = Self::new(seed).id().to_string();
        let lines: Vec<usize> = mib.iter().map(|mib| (mib << 20) / (seed.len() + 3)).collect();
        Self::of(&seed, &lines)
    }

    fn of(seed: &str, lines: &[usize]) -> Self {
        let file = |n: usize, lines: usize| (format!("file-{n}"), format!("{seed} {n}\n").repeat(lines).into_bytes());
        let layers: Vec<Vec<u8>> = lines.iter().enumerate().map(|(n, lines)| tar(&[file(n, *lines)], true)).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": { "Cmd": ["/file-0"], "Labels": { "seed": seed } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": (0..layers.len()).map(|n| serde_json::json!({ "created_by": format!("layer {n}") })).collect::<Vec<_>>(),
        });
        Self { layers, config: serde_json::to_vec(&config).unwrap() }
    }

    /// Another image on the first two layers of this one.
    pub(crate) fn upon(&self) -> Self {
        let mut second = Self::new("upon");
        second.layers.splice(..2, self.layers[..2].iter().cloned());
        let mut config: serde_json::Value = serde_json::from_slice(&second.config).unwrap();
        config["rootfs"]["diff_ids"] = serde_json::to_value(second.diff_ids()).unwrap();
        second.config = serde_json::to_vec(&config).unwrap();
        second
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::sha256(&self.config)
    }

    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| Digest::sha256(layer)).collect()
    }

    /// A docker-archive that names `blobs/sha256/<hex>`, without the layers of these numbers.
    pub(crate) fn bytes(&self, names: &[&str], without: &[usize]) -> Vec<u8> {
        let path = |bytes: &[u8]| Digest::sha256(bytes).layout_path();
        let entry = serde_json::json!([{
            "Config": path(&self.config),
            "RepoTags": names,
            "Layers": self.layers.iter().map(|layer| path(layer)).collect::<Vec<_>>(),
        }]);
        let mut files = vec![("manifest.json".to_owned(), serde_json::to_vec(&entry).unwrap())];
        files.push((path(&self.config), self.config.clone()));
        let sent = self.layers.iter().enumerate().filter(|(n, _)| !without.contains(n));
        files.extend(sent.map(|(_, layer)| (path(layer), layer.clone())));
        tar(&files, true)
    }

    /// The image with gzip layers, as a sink gets it.
    pub(crate) fn parts(&self, name: Option<&str>) -> ImageParts {
        let layers: Vec<Descriptor> = self.layers.iter().map(|layer| described(GZIP_LAYER, &gzip(layer))).collect();
        let config = described("application/vnd.oci.image.config.v1+json", &self.config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
        let root = described(MANIFEST, &manifest);
        let part = ImagePart {
            manifest: root.digest,
            config: (config, self.config.clone().into()),
            layers,
            diff_ids: self.diff_ids(),
        };
        let name = name.map(str::to_owned);
        // As folders say it of layers of some size.
        let large = part.layers.iter().zip(&self.layers).filter(|(_, layer)| layer.len() >= 1 << 20);
        let plain_sizes = large.map(|(descriptor, layer)| (descriptor.digest, layer.len() as u64)).collect();
        ImageParts {
            root: root.clone(),
            name,
            manifests: vec![(root, manifest)],
            images: vec![part],
            absent: HashSet::new(),
            plain_sizes,
        }
    }

    /// Hands the image to `sink`; the numbers of the layers that it asked for.
    pub(crate) async fn deliver(
        &self,
        mut sink: Box<dyn ImageSink>,
        name: Option<&str>,
    ) -> Result<(Vec<usize>, Delivered), ImageError> {
        let parts = self.parts(name);
        let mut asked = Vec::new();
        for need in sink.plan(&parts).await? {
            let n = parts.images[0].layers.iter().position(|layer| *layer == need.blob).unwrap();
            let bytes = if need.form == Form::Plain { self.layers[n].clone() } else { gzip(&self.layers[n]) };
            sink.write(&need, bytes.len() as u64, stream(bytes)).await?;
            asked.push(n);
        }
        Ok((asked, sink.finish().await?))
    }

    pub(crate) fn archive(&self, names: &[&str], without: &[usize]) -> ByteStream {
        stream(self.bytes(names, without))
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn stream(bytes: Vec<u8>) -> ByteStream {
    Box::pin(io::Cursor::new(bytes))
}

/// An archive whose reader fails after `bytes`.
pub(crate) fn failing(bytes: Vec<u8>, error: io::Error) -> ByteStream {
    let rest = futures::stream::iter([Err::<Bytes, _>(error)]);
    Box::pin(io::Cursor::new(bytes).chain(tokio_util::io::StreamReader::new(rest)))
}

pub(crate) fn tar(files: &[(String, Vec<u8>)], ended: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    if ended { builder.into_inner().unwrap() } else { builder.get_ref().clone() }
}

/// Runs everything; `repository` is a name with a host, so that every engine keeps it as it is.
pub(crate) async fn run(engine: &dyn Engine, repository: &str) {
    let sample = Sample::new("conformance");
    let name = |tag: &str| format!("{repository}:{tag}");
    unknown_images(engine, &name("unknown")).await;
    failed_loads_leave_nothing(engine, &sample).await;
    loads_and_names(engine, &sample, &name("1"), &name("2")).await;
    exports(engine, &sample, &name("1")).await;
    missing_layers(engine, &sample, &name("1")).await;
    imports(engine).await;
    removal(engine, &sample, &name("1"), &name("2")).await;
}

async fn unknown_images(engine: &dyn Engine, name: &str) {
    let none = Sample::new("none").id().to_string();
    for name in [name, &none, "a b", "../x", "x?y", ""] {
        let is_missing = |error: &EngineError| matches!(error, EngineError::NoImage { .. });
        assert!(engine.image(name).await.is_ok_and(|image| image.is_none()) || !name.contains(':'), "{name}");
        assert!(engine.export(name).await.err().is_some_and(|error| is_missing(&error)), "export of {name:?}");
        assert!(engine.remove(name).await.err().is_some_and(|error| is_missing(&error)), "removal of {name:?}");
        let tagged = engine.tag(name, "localhost/ipcr-never:1").await;
        assert!(tagged.err().is_some_and(|error| is_missing(&error)), "tag of {name:?}");
    }
}

async fn failed_loads_leave_nothing(engine: &dyn Engine, sample: &Sample) {
    let whole = sample.bytes(&[], &[]);
    let told = || io::Error::new(io::ErrorKind::InvalidData, "the layer is not what it claims to be");
    for length in [0, 700, whole.len() / 2, whole.len() - 1024] {
        let error = engine.load(failing(whole[..length].to_vec(), told())).await.unwrap_err();
        let EngineError::Archive { source } = error else { panic!("at {length}: {error:?}") };
        assert_eq!(source.to_string(), told().to_string());
        assert_eq!(engine.image(&sample.id().to_string()).await.unwrap(), None, "after {length} bytes");
    }
    let other = Sample::new("other");
    let swapped = Sample { layers: other.layers.clone(), config: sample.config.clone() };
    let cases = [
        ("nothing", vec![]),
        ("no archive", b"garbage".repeat(2000)),
        ("cut off", whole[..whole.len() / 2 - whole.len() / 2 % 512 + 100].to_vec()),
        ("other layers", swapped.bytes(&[], &[])),
        ("a missing layer", sample.bytes(&[], &[1])),
        ("no image", tar(&[("manifest.json".into(), b"[]".to_vec())], true)),
    ];
    for (what, archive) in cases {
        let error = match engine.load(stream(archive)).await {
            Ok(loaded) if what == "no image" && loaded.ids.is_empty() && loaded.names.is_empty() => continue,
            outcome => outcome.expect_err(what),
        };
        assert!(matches!(error, EngineError::Refused { .. }), "{what}: {error:?}");
        assert_eq!(engine.image(&sample.id().to_string()).await.unwrap(), None, "after {what}");
    }
}

async fn loads_and_names(engine: &dyn Engine, sample: &Sample, first: &str, second: &str) {
    let id = sample.id().to_string();
    let loaded = engine.load(sample.archive(&[], &[])).await.unwrap();
    let keeps_config_ids = engine.info().await.unwrap().store != EngineStore::Containerd;
    if keeps_config_ids {
        assert_eq!(loaded.ids, [id.as_str()]);
        assert!(loaded.names.is_empty());
    }
    engine.tag(&id, first).await.unwrap();
    engine.tag(&id, second).await.unwrap();
    engine.tag(&id, second).await.unwrap();
    let image = engine.image(first).await.unwrap().expect("it was named");
    assert_eq!(image.diff_ids, sample.diff_ids());
    assert_eq!(image.platform.to_string(), "linux/amd64");
    assert!(image.names.iter().any(|name| name == first) && image.names.iter().any(|name| name == second), "{image:?}");
    assert_eq!(engine.image(&id).await.unwrap().map(|image| image.id), Some(image.id));
    if keeps_config_ids {
        assert_eq!(image.id, sample.id());
    }
}

async fn exports(engine: &dyn Engine, sample: &Sample, name: &str) {
    let mut archive = Vec::new();
    engine.export(name).await.unwrap().read_to_end(&mut archive).await.unwrap();
    let mut digests = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut entry.unwrap(), &mut bytes).unwrap();
        digests.push(Digest::sha256(&bytes));
    }
    for digest in sample.diff_ids().into_iter().chain([sample.id()]) {
        assert!(digests.contains(&digest), "{digest} is in the export");
    }
    // One that is dropped does no harm.
    let mut dropped = engine.export(name).await.unwrap();
    let mut some = [0; 600];
    dropped.read_exact(&mut some).await.unwrap();
    drop(dropped);
    assert!(engine.image(name).await.unwrap().is_some());
}

async fn missing_layers(engine: &dyn Engine, sample: &Sample, name: &str) {
    let chains = chain_ids(&sample.diff_ids());
    if engine.info().await.unwrap().store != EngineStore::Classic {
        return;
    }
    let known = known_chains(&engine.images().await.unwrap());
    assert!(chains.iter().all(|chain| known.contains(chain)));
    // A second image on the same two layers: they need not be sent.
    let second = sample.upon();
    let further = format!("{name}-second");
    engine.load(second.archive(&[&further], &[0, 1])).await.unwrap();
    let image = engine.image(&further).await.unwrap().expect("it was loaded");
    assert_eq!((image.id, image.diff_ids), (second.id(), second.diff_ids()));
    engine.remove(&further).await.unwrap();
    // Their order matters: the same layer elsewhere has another chain ID.
    let known = known_chains(&engine.images().await.unwrap());
    assert!(!known.contains(&sample.diff_ids()[1]) && known.contains(&chains[1]));
}

/// A layer becomes an image while it comes, and others can be loaded upon it.
async fn imports(engine: &dyn Engine) {
    let sample = Sample::new("imports");
    let labels = BTreeMap::from([("ipcr.conformance".to_owned(), "2026-01-02T03:04:05.678+00:00".to_owned())]);
    let told = || io::Error::new(io::ErrorKind::InvalidData, "the layer is not what it claims to be");
    for length in [0, 700, sample.layers[0].len()] {
        let error = engine.import(failing(sample.layers[0][..length].to_vec(), told()), &labels).await.unwrap_err();
        let EngineError::Archive { source } = error else { panic!("at {length}: {error:?}") };
        assert_eq!(source.to_string(), told().to_string());
    }
    let error = engine.import(stream(b"garbage".repeat(2000)), &labels).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
    let known = known_chains(&engine.images().await.unwrap());
    assert!(!known.contains(&sample.diff_ids()[0]), "an import that failed left its layer");
    for layer in [sample.layers[0].clone(), gzip(&sample.layers[0])] {
        let id = engine.import(stream(layer), &labels).await.unwrap();
        let image = engine.image(&id).await.unwrap().expect("it was imported");
        assert_eq!((&image.names, &image.labels), (&Vec::new(), &labels));
        assert_eq!(image.diff_ids, sample.diff_ids()[..1]);
        if engine.info().await.unwrap().store == EngineStore::Classic {
            assert!(known_chains(&engine.images().await.unwrap()).contains(&sample.diff_ids()[0]));
            engine.load(sample.archive(&[], &[0])).await.unwrap();
            engine.remove(&id).await.unwrap();
            let whole = engine.image(&sample.id().to_string()).await.unwrap().expect("its layers stay");
            assert_eq!(whole.diff_ids, sample.diff_ids());
            engine.remove(&sample.id().to_string()).await.unwrap();
        } else {
            engine.remove(&id).await.unwrap();
        }
    }
}

async fn removal(engine: &dyn Engine, sample: &Sample, first: &str, second: &str) {
    let id = sample.id().to_string();
    engine.remove(first).await.unwrap();
    assert_eq!(engine.image(first).await.unwrap(), None);
    assert!(engine.image(&id).await.unwrap().is_some(), "its other name keeps it");
    engine.remove(second).await.unwrap();
    assert_eq!(engine.image(&id).await.unwrap(), None, "it goes with its last name");
    let known = known_chains(&engine.images().await.unwrap());
    assert!(!known.contains(&chain_ids(&sample.diff_ids())[2]));
    assert!(matches!(engine.export(second).await.err(), Some(EngineError::NoImage { .. })));
}

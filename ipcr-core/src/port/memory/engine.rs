//! [`MemoryEngine`]: an engine that keeps images the way Docker's classic store does, and runs nothing.
//!
//! It reads docker-archives (`manifest.json`, plain or gzip layers), checks every layer against its uncompressed digest,
//! takes layers that it has already as given when the archive leaves them out, and writes archives whose `manifest.json`
//! comes last. A load changes everything or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::digest::Digest;
use crate::image::config::chain_ids;
use crate::image::platform::Platform;
use crate::port::engine::{Engine, EngineError, EngineImage, EngineInfo, EngineStore, Loaded};
use crate::port::image::ByteStream;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct MemoryEngine(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Digest, Image>,
    /// Plain layers by chain ID.
    layers: HashMap<Digest, Bytes>,
    exports: usize,
    loads: usize,
    imports: usize,
    without_import: bool,
    break_exports_after: Option<usize>,
}

#[derive(Clone, Debug)]
struct Image {
    config: Bytes,
    diff_ids: Vec<Digest>,
    platform: Platform,
    names: BTreeSet<String>,
    labels: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Config {
    architecture: String,
    os: String,
    variant: Option<String>,
    rootfs: RootFs,
    #[serde(rename = "config", default)]
    runtime: Runtime,
}

#[derive(Default, serde::Deserialize)]
struct Runtime {
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl MemoryEngine {
    /// An engine without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many exports were begun.
    pub fn exports(&self) -> usize {
        self.state().exports
    }

    /// How many loads and imports there were.
    pub fn calls(&self) -> (usize, usize) {
        let state = self.state();
        (state.loads, state.imports)
    }

    /// Refuses imports from now on, as a gate before an engine may do.
    pub fn refuse_imports(&self) {
        self.state().without_import = true;
    }

    /// Lets every export break after so many bytes; `None` ends that.
    pub fn break_exports_after(&self, bytes: Option<usize>) {
        self.state().break_exports_after = bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, name: &str) -> Option<Digest> {
        let tagged = if name.rsplit('/').next()?.contains(':') { name.to_owned() } else { format!("{name}:latest") };
        let by_name = || self.images.iter().find(|(_, image)| image.names.contains(&tagged)).map(|(id, _)| *id);
        let by_id = || name.parse().ok().or_else(|| format!("sha256:{name}").parse().ok());
        by_name().or_else(|| by_id().filter(|id| self.images.contains_key(id)))
    }

    fn describe(&self, id: &Digest) -> EngineImage {
        let image = &self.images[id];
        EngineImage {
            id: *id,
            names: image.names.iter().cloned().collect(),
            repo_digests: Vec::new(),
            diff_ids: image.diff_ids.clone(),
            platform: image.platform.clone(),
            size: chain_ids(&image.diff_ids).iter().map(|chain| self.layers[chain].len() as u64).sum(),
            labels: image.labels.clone(),
        }
    }

    fn load(&mut self, archive: &[u8]) -> Result<Loaded, String> {
        let files = files(archive).map_err(|error| format!("reading the archive: {error}"))?;
        let file = |name: &str| files.get(name).ok_or_else(|| format!("{name}: no such file"));
        let entries: Vec<Entry> = serde_json::from_slice(file("manifest.json")?).map_err(|error| error.to_string())?;
        let mut loaded = Loaded::default();
        let (mut images, mut layers) = (Vec::new(), Vec::new());
        for entry in entries {
            let bytes = file(&entry.config)?;
            let config: Config = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let chains = chain_ids(&config.rootfs.diff_ids);
            if entry.layers.len() != chains.len() {
                return Err(format!("{} layers for {} diff IDs", entry.layers.len(), chains.len()));
            }
            for ((chain, diff_id), path) in chains.into_iter().zip(&config.rootfs.diff_ids).zip(&entry.layers) {
                if self.layers.contains_key(&chain) {
                    continue;
                }
                let plain = plain(file(path)?).map_err(|error| format!("{path}: {error}"))?;
                if !diff_id.matches(&plain) {
                    return Err(format!("invalid diffID for {path}: expected {diff_id}"));
                }
                layers.push((chain, Bytes::from(plain)));
            }
            let id = Digest::sha256(bytes);
            let names: BTreeSet<String> = entry.repo_tags.unwrap_or_default().into_iter().collect();
            if names.is_empty() {
                loaded.ids.push(id.to_string());
            }
            loaded.names.extend(names.iter().cloned());
            let platform = Platform { os: config.os, architecture: config.architecture, variant: config.variant };
            let image = Image {
                config: Bytes::from(bytes.clone()),
                diff_ids: config.rootfs.diff_ids,
                platform,
                names,
                labels: config.runtime.labels.unwrap_or_default(),
            };
            images.push((id, image));
        }
        self.layers.extend(layers);
        for (id, image) in images {
            self.untag(&image.names);
            self.images.entry(id).or_insert_with(|| image.clone()).names.extend(image.names);
        }
        Ok(loaded)
    }

    fn untag(&mut self, names: &BTreeSet<String>) {
        for image in self.images.values_mut() {
            image.names.retain(|name| !names.contains(name));
        }
    }

    /// Forgets layers that no image has.
    fn prune(&mut self) {
        let kept: HashSet<Digest> = self.images.values().flat_map(|image| chain_ids(&image.diff_ids)).collect();
        self.layers.retain(|chain, _| kept.contains(chain));
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        Ok(EngineInfo {
            local: true,
            name: "Memory".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            api: "1.41".into(),
            store: EngineStore::Classic,
            platform: Platform::host(),
            reads_zstd: false,
            endpoint: "memory".into(),
        })
    }

    async fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        let state = self.state();
        Ok(state.find(name).map(|id| state.describe(&id)))
    }

    async fn images(&self) -> Result<Vec<EngineImage>, EngineError> {
        let state = self.state();
        Ok(state.images.keys().map(|id| state.describe(id)).collect())
    }

    async fn export(&self, name: &str) -> Result<ByteStream, EngineError> {
        let mut state = self.state();
        let id = state.find(name).ok_or_else(|| EngineError::NoImage { name: name.into() })?;
        state.exports += 1;
        let image = &state.images[&id];
        let mut builder = tar::Builder::new(Vec::new());
        let mut paths = Vec::new();
        for (chain, diff_id) in chain_ids(&image.diff_ids).iter().zip(&image.diff_ids) {
            let path = format!("{}/layer.tar", diff_id.hex());
            append(&mut builder, &path, &state.layers[chain]);
            paths.push(path);
        }
        let config = format!("{}.json", id.hex());
        append(&mut builder, &config, &image.config);
        let names = Some(image.names.iter().cloned().collect());
        let entries = serde_json::to_vec(&[Entry { config, repo_tags: names, layers: paths }]);
        append(&mut builder, "manifest.json", &entries.expect("strings become JSON"));
        let mut archive = builder.into_inner().expect("memory takes bytes");
        let Some(length) = state.break_exports_after.filter(|length| *length < archive.len()) else {
            return Ok(Box::pin(io::Cursor::new(archive)));
        };
        archive.truncate(length);
        let broken = EngineError::Broken { doing: "export an image", source: "told to break".into() };
        let rest = futures::stream::iter([Err::<Bytes, _>(broken.into_io())]);
        let rest = tokio_util::io::StreamReader::new(rest);
        Ok(Box::pin(AsyncReadExt::chain(io::Cursor::new(archive), rest)))
    }

    async fn load(&self, mut archive: ByteStream) -> Result<Loaded, EngineError> {
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await.map_err(|source| EngineError::Archive { source })?;
        let mut state = self.state();
        state.loads += 1;
        state.load(&bytes).map_err(|message| EngineError::Refused { doing: "load an image", message })
    }

    async fn import(&self, mut layer: ByteStream, labels: &BTreeMap<String, String>) -> Result<String, EngineError> {
        if self.state().without_import {
            let message = "importing is not allowed here".into();
            return Err(EngineError::Refused { doing: "import a layer", message });
        }
        let mut bytes = Vec::new();
        layer.read_to_end(&mut bytes).await.map_err(|source| EngineError::Archive { source })?;
        let refused = |error: io::Error| EngineError::Refused { doing: "import a layer", message: error.to_string() };
        let plain = plain(&bytes).map_err(refused)?;
        files(&plain).map_err(refused)?;
        let (platform, diff_id) = (Platform::host(), Digest::sha256(&plain));
        let config = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": { "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = Bytes::from(config.to_string());
        let id = Digest::sha256(&config);
        let (names, labels) = (BTreeSet::new(), labels.clone());
        let mut state = self.state();
        state.imports += 1;
        state.layers.insert(diff_id, plain.into());
        state.images.entry(id).or_insert(Image { config, diff_ids: vec![diff_id], platform, names, labels });
        Ok(id.to_string())
    }

    async fn tag(&self, image_id: &str, name: &str) -> Result<(), EngineError> {
        let mut state = self.state();
        let id = state.find(image_id).ok_or_else(|| EngineError::NoImage { name: image_id.into() })?;
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let names = BTreeSet::from([if tagged { name.to_owned() } else { format!("{name}:latest") }]);
        state.untag(&names);
        state.images.entry(id).and_modify(|image| image.names.extend(names));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.state();
        let id = state.find(name).ok_or_else(|| EngineError::NoImage { name: name.into() })?;
        let names = BTreeSet::from([name.to_owned(), format!("{name}:latest")]);
        if !state.images[&id].names.iter().any(|own| names.contains(own)) && state.images[&id].names.len() > 1 {
            let message = "it has several names and was called by its ID".into();
            return Err(EngineError::Refused { doing: "remove an image", message });
        }
        let by_id = !state.images[&id].names.iter().any(|own| names.contains(own));
        let names = if by_id { state.images[&id].names.clone() } else { names };
        state.untag(&names);
        if state.images[&id].names.is_empty() {
            state.images.remove(&id);
            state.prune();
        }
        Ok(())
    }
}

fn files(archive: &[u8]) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut files = HashMap::new();
    let mut blocks = 0;
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != entry.size() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        files.insert(name, bytes);
        blocks += 1;
    }
    if blocks == 0 { Err(io::Error::from(io::ErrorKind::InvalidData)) } else { Ok(files) }
}

fn plain(layer: &[u8]) -> io::Result<Vec<u8>> {
    if !layer.starts_with(&[0x1f, 0x8b]) {
        return Ok(layer.to_vec());
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(layer).read_to_end(&mut plain)?;
    Ok(plain)
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, path, bytes).expect("memory takes bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance;

    #[tokio::test]
    async fn conforms() {
        conformance::engine::run(&MemoryEngine::new(), "localhost/ipcr-conformance").await;
    }

    #[tokio::test]
    async fn exports_break_when_told_to() {
        let engine = MemoryEngine::new();
        let image = conformance::engine::Sample::new("broken");
        engine.load(image.archive(&["b:1"], &[])).await.unwrap();
        engine.break_exports_after(Some(1000));
        let mut bytes = Vec::new();
        let error = engine.export("b:1").await.unwrap().read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!((bytes.len(), engine.exports()), (1000, 1));
        assert!(matches!(EngineError::from_io(error), Ok(EngineError::Broken { .. })));
    }
}

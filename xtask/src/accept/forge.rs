//! Images made by hand, whole or wrong in one place: archives and OCI layouts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::shell::Result;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a layer that is compressed with gzip.
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of a layer that is compressed with zstd.
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Compressed with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A member of an archive, as its header says; nothing about it need make sense.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `0` for a file, `1` and `2` for links, `5` for a folder.
    pub(crate) kind: u8,
    pub(crate) link: String,
    pub(crate) data: Vec<u8>,
}

impl Member {
    /// A file.
    pub(crate) fn file(name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), kind: b'0', link: String::new(), data: data.into() }
    }

    /// A hard link.
    pub(crate) fn hard(name: &str, link: &str) -> Self {
        Self { name: name.into(), kind: b'1', link: link.into(), data: Vec::new() }
    }

    /// A symbolic link.
    pub(crate) fn symbolic(name: &str, link: &str) -> Self {
        Self { kind: b'2', ..Self::hard(name, link) }
    }
}

/// An archive of these members.
pub(crate) fn tar(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for Member { name, kind, link, data } in members {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].fill(b' ');
        header[156] = *kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// An image for linux/amd64.
#[derive(Clone)]
pub(crate) struct Image {
    /// Uncompressed layers.
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
}

impl Image {
    /// An image with a layer of noise for each size.
    pub(crate) fn new(seed: u64, sizes: &[usize]) -> Self {
        let layer = |(at, size): (usize, &usize)| {
            let name = format!("data/{seed}-{at}");
            tar(&[Member::file(&name, noise(seed * 1000 + at as u64 + 1, *size))])
        };
        let layers: Vec<_> = sizes.iter().enumerate().map(layer).collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        Self { config: config(&diff_ids), layers }
    }

    /// Its ID.
    pub(crate) fn id(&self) -> String {
        digest(&self.config)
    }

    /// The members of an archive as `docker save` of old writes it.
    pub(crate) fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        let mut names = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let name = format!("{at:064x}/layer.tar");
            members.push(Member::file(&name, layer.clone()));
            names.push(name);
        }
        let config = format!("{}.json", self.id().trim_start_matches("sha256:"));
        members.push(Member::file(&config, self.config.clone()));
        let list = json!([{ "Config": config, "RepoTags": null, "Layers": names }]);
        members.push(Member::file("manifest.json", list.to_string()));
        members
    }

    /// Such an archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        tar(&self.members())
    }

    /// An OCI layout in a folder, with gzip layers.
    pub(crate) fn layout(&self, dir: &Path) -> Result<Layout> {
        let layers = self.layers.iter().map(|layer| gzip(layer)).collect::<Result<Vec<_>>>()?;
        let layers: Vec<_> = layers.into_iter().map(|layer| (GZIP, layer)).collect();
        Layout::write(dir, &layers, &self.config, |_| {})
    }
}

/// The configuration of an image with these layers.
pub(crate) fn config(diff_ids: &[String]) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/none"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

/// An OCI layout in a folder.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    pub(crate) layers: Vec<String>,
    pub(crate) config: String,
    pub(crate) manifest: String,
}

impl Layout {
    /// Writes one image. `edit` may change the manifest before its digest is taken.
    pub(crate) fn write(
        dir: &Path,
        layers: &[(&str, Vec<u8>)],
        config: &[u8],
        edit: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let config = descriptor(dir, CONFIG, config)?;
        let layers = layers.iter().map(|(kind, layer)| descriptor(dir, kind, layer)).collect::<Result<Vec<_>>>()?;
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        edit(&mut manifest);
        let text = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let mut layout = Self {
            dir: dir.to_owned(),
            layers: layers.iter().map(text).collect(),
            config: text(&config),
            manifest: String::new(),
        };
        layout.name_manifest(manifest.to_string().as_bytes())?;
        Ok(layout)
    }

    /// The file of a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// Lets the index name a manifest with these bytes.
    pub(crate) fn name_manifest(&mut self, bytes: &[u8]) -> Result {
        self.name(MANIFEST, bytes)
    }

    fn name(&mut self, kind: &str, bytes: &[u8]) -> Result {
        let mut root = descriptor(&self.dir, kind, bytes)?;
        self.manifest = digest(bytes);
        root["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [root] });
        Ok(fs::write(self.dir.join("index.json"), index.to_string())?)
    }

    /// Puts so many indexes above the manifest, one in the other.
    pub(crate) fn nest(&mut self, levels: usize) -> Result {
        let mut kind = MANIFEST;
        for _ in 0..levels {
            let below = fs::metadata(self.blob(&self.manifest))?.len();
            let entry = json!({ "mediaType": kind, "digest": self.manifest, "size": below,
                "platform": { "os": "linux", "architecture": "amd64" } });
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
            self.name(INDEX, index.to_string().as_bytes())?;
            kind = INDEX;
        }
        Ok(())
    }

    /// Puts one index above so many manifests that differ in an annotation.
    pub(crate) fn widen(&mut self, manifests: usize) -> Result {
        let one: Value = serde_json::from_slice(&fs::read(self.blob(&self.manifest))?)?;
        let mut entries = Vec::new();
        for number in 0..manifests {
            let mut other = one.clone();
            other["annotations"] = json!({ "number": number.to_string() });
            let mut entry = descriptor(&self.dir, MANIFEST, other.to_string().as_bytes())?;
            entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
            entries.push(entry);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.name(INDEX, index.to_string().as_bytes())
    }

    /// Adds a `manifest.json` as `docker load` reads it, which says what `index.json` says.
    pub(crate) fn docker_manifest(&self, name: &str) -> Result {
        let path = |digest: &String| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        let layers: Vec<_> = self.layers.iter().map(path).collect();
        let list = json!([{ "Config": path(&self.config), "RepoTags": [name], "Layers": layers }]);
        Ok(fs::write(self.dir.join("manifest.json"), list.to_string())?)
    }
}

/// Writes a blob; its descriptor.
fn descriptor(dir: &Path, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
}

/// Changes one bit in the middle of a file, or at `at`.
pub(crate) fn flip(file: &Path, at: Option<usize>) -> Result {
    let mut bytes = fs::read(file)?;
    let at = at.unwrap_or(bytes.len() / 2);
    bytes[at] ^= 0x10;
    Ok(fs::write(file, bytes)?)
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) -> Result {
    let _ = fs::remove_dir_all(to);
    crate::shell::output(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
}

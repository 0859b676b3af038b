//! Making and comparing OCI image layouts (OCI image-spec, "Image Layout").

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ipcr_core::digest::Digest;
use serde_json::{Value, json};

use crate::Failure;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Makes a layout in `folder` with one image, `tag`: two layers of about `bytes` in all, the same for the same `seed`.
/// Returns the manifest's digest.
pub fn make(folder: &Path, tag: &str, seed: u64, bytes: usize) -> Result<Digest, Failure> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for number in 0..2 {
        let tar = tar(number, seed, bytes / 2)?;
        diff_ids.push(Digest::sha256(&tar).to_string());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        layers.push(blob(folder, LAYER, &gzip.finish()?)?);
    }
    let config = json!({
        "created": "2020-11-01T00:00:00Z", "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux",
        "config": { "Cmd": ["/bin/true"] }, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created_by": "layer 0" }, { "created_by": "layer 1" }],
    });
    let config = blob(folder, CONFIG, &serde_json::to_vec(&config)?)?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let mut manifest = blob(folder, MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let digest = text(&manifest, "digest")?.parse()?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(digest)
}

/// Writes a blob and returns its descriptor.
fn blob(folder: &Path, media_type: &str, data: &[u8]) -> Result<Value, Failure> {
    let digest = Digest::sha256(data);
    fs::write(folder.join(digest.layout_path()), data)?;
    Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": data.len() }))
}

/// A tar of files of many sizes, which compress to about a half.
fn tar(number: u64, seed: u64, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut state = seed * 2 + number + 1;
    let mut tar = tar::Builder::new(Vec::new());
    let mut file = 0_u64;
    while tar.get_ref().len() < bytes {
        file += 1;
        let left = (bytes - tar.get_ref().len()).saturating_sub(1024);
        let size = (random(&mut state) % if file.is_multiple_of(10) { 700_000 } else { 20_000 }).min(left);
        // Hexadecimal digits: four bits of news in every byte.
        let data: Vec<u8> = (0..size).map(|_| b"0123456789abcdef"[random(&mut state) % 16]).collect();
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(size)?);
        header.set_mode(0o644);
        header.set_mtime(1_604_188_800);
        header.set_cksum();
        tar.append_data(&mut header, format!("srv/layer-{number}/file-{file}.txt"), data.as_slice())?;
        if left == 0 {
            break;
        }
    }
    Ok(tar.into_inner()?)
}

/// A linear congruential generator: the same numbers everywhere (Knuth, MMIX).
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

/// Compares two layouts of one image, blob by blob and down to the layers: digests must be those of the bytes, and equal on
/// both sides. Returns the blobs with their sizes, the manifest or index first.
pub fn compare(one: &Path, other: &Path) -> Result<Vec<(Digest, u64)>, Failure> {
    let mut queue = vec![root(one)?];
    if root(other)? != queue[0] {
        return Err(format!("{} and {} hold different images", one.display(), other.display()).into());
    }
    let mut seen = Vec::new();
    while let Some((digest, size)) = queue.pop() {
        let path = digest.layout_path();
        let data = fs::read(one.join(&path))?;
        let same =
            fs::read(other.join(&path)).map_err(|error| format!("{path} cannot be read there: {error}"))? == data;
        if !same || !digest.matches(&data) || u64::try_from(data.len())? != size {
            return Err(format!("{digest} is not the same on both sides").into());
        }
        seen.push((digest, size));
        if data.starts_with(b"{")
            && let Ok(document) = serde_json::from_slice::<Value>(&data)
        {
            let lists = ["manifests", "layers"].into_iter().filter_map(|list| document[list].as_array());
            let config = document.get("config").filter(|config| config.get("digest").is_some());
            for descriptor in lists.flatten().chain(config) {
                queue.push(parse(descriptor)?);
            }
        }
    }
    Ok(seen)
}

/// What the only image of a layout is.
fn root(folder: &Path) -> Result<(Digest, u64), Failure> {
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json"))?)?;
    match index["manifests"].as_array().map(Vec::as_slice) {
        Some([only]) => parse(only),
        _ => Err(format!("{} does not hold exactly one image", folder.display()).into()),
    }
}

fn parse(descriptor: &Value) -> Result<(Digest, u64), Failure> {
    let size = descriptor["size"].as_u64().ok_or("a descriptor has no size")?;
    Ok((text(descriptor, "digest")?.parse()?, size))
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str, Failure> {
    value[member].as_str().ok_or_else(|| format!("there is no {member}").into())
}

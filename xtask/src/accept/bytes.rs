//! Images of many platforms with everything that the specifications allow: every byte arrives as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::Figure;
use super::lab::{Home, Lab};
use super::media::{CONFIG, LAYER, Layout, docker_names, gzip, noise, sha256, skopeo, skopeo_finds, tar};
use super::site::{DOMAIN, number, require, same, text};
use crate::shell::{Result, output};

/// Bytes that a pull may fetch besides blobs: records of the registry, directories, manifests that are looked at.
const OVERHEAD: u64 = 48 << 10;

/// A layout with one image of several platforms, and what refers to it.
struct Family {
    layout: Layout,
    /// What is tagged.
    index: Value,
    /// By platform.
    manifests: BTreeMap<&'static str, Value>,
    nested: Value,
    referrers: Vec<Value>,
}

impl Family {
    /// Made by buildah, umoci and skopeo as far as they can, and by hand where they cannot.
    fn make(lab: &Lab) -> Result<Self> {
        let dir = lab.path("family");
        let shown = dir.display().to_string();
        // gzip by buildah.
        let file = lab.path("family-file");
        fs::write(&file, noise(400 << 10)?)?;
        let buildah = |args: &[&str]| {
            let mut command = Command::new(lab.peer("buildah")?);
            command.arg("--root").arg(lab.path("br")).arg("--runroot").arg(lab.path("bs"));
            output(command.args(["--storage-driver", "vfs"]).args(args))
        };
        let container = buildah(&["from", "scratch"])?;
        buildah(&["add", &container, &file.display().to_string(), "/data"])?;
        buildah(&["config", "--arch", "amd64", "--os", "linux", "--annotation", "made=ä", &container])?;
        buildah(&["commit", "-q", "-D=false", "--format", "oci", &container, &format!("oci:{shown}:amd64")])?;
        buildah(&["rm", &container])?;
        // umoci, and zstd by skopeo.
        fs::write(&file, noise(400 << 10)?)?;
        let umoci = |args: &[&str]| output(Command::new(lab.peer("umoci")?).args(args));
        let other = lab.path("family-umoci");
        let arm = format!("{}:arm", other.display());
        umoci(&["init", "--layout", &other.display().to_string()])?;
        umoci(&["new", "--image", &arm])?;
        umoci(&["insert", "--image", &arm, &file.display().to_string(), "/data"])?;
        umoci(&["config", "--image", &arm, "--architecture", "arm64"])?;
        let zstd = ["copy", "-q", "--dest-compress-format", "zstd"];
        skopeo(lab, &[&zstd[..], &[&format!("oci:{arm}"), &format!("oci:{shown}:arm64")]].concat())?;
        fs::remove_file(file)?;
        fs::remove_dir_all(other)?;

        let layout = Layout { dir };
        let entries = layout.entries()?;
        let made = |name: &str, platform: Value| {
            let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
            let found = entries.iter().find(named).ok_or_else(|| format!("{name} is not in {entries:?}"))?;
            let (media_type, digest, size) = (&found["mediaType"], &found["digest"], &found["size"]);
            Result::Ok(json!({ "mediaType": media_type, "digest": digest, "size": size, "platform": platform }))
        };
        let amd64 = made("amd64", json!({ "os": "linux", "architecture": "amd64" }))?;
        let arm64 = made("arm64", json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }))?;
        let zstd: Value = serde_json::from_slice(&layout.read(&arm64)?)?;
        let kind = zstd["layers"][0]["mediaType"].as_str().unwrap_or_default();
        require(kind.ends_with("+zstd"), || format!("skopeo wrote a layer of type {kind}"))?;
        fs::write(layout.dir.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)?;

        // Uncompressed, and under SHA-512; with annotations and members that nobody knows.
        let plain = tar(lab, &[("plain/ünï", &noise(300 << 10)?)])?;
        let other = tar(lab, &[("other/b", &noise(300 << 10)?)])?;
        let packed = format!("{LAYER}+gzip");
        let layers = [
            (layout.blob(LAYER, &plain)?, sha256(&plain)),
            (layout.blob512(&packed, &gzip(lab, &other)?)?, sha256(&other)),
        ];
        let more = json!({ "annotations": { "a": "b", "é": "" }, "x-unknown": { "z": 1, "a": [true, null] } });
        let v7 = layout.image("linux/arm/v7", &layers, &more)?;
        let small = tar(lab, &[("small", &noise(200 << 10)?)])?;
        let layer = (layout.blob(&packed, &gzip(lab, &small)?)?, sha256(&small));
        let riscv64 = layout.image("linux/riscv64", &[layer], &json!({}))?;
        let nested = layout.index(&[&v7, &riscv64], &json!({ "annotations": { "nested": "yes" } }))?;
        let members = [&amd64, &arm64, &nested];
        let index = layout.index(&members, &json!({ "annotations": { "top": "é" }, "x-unknown": [0.5] }))?;

        let signature = "application/vnd.dev.cosign.artifact.sig.v1+json";
        let bom = noise(30 << 10)?;
        let signed = layout.artifact(signature, Some(&amd64), Some(("application/octet-stream", b"signed")))?;
        let described = layout.artifact("application/spdx+json", Some(&index), Some(("text/spdx", &bom)))?;
        let twice = layout.artifact(signature, Some(&described), Some(("application/octet-stream", b"signed too")))?;
        let bare = layout.artifact("application/vnd.test.bare", Some(&index), None)?;
        let attested = layout.artifact("application/vnd.in-toto+json", None, Some(("application/json", b"[]")))?;
        let subject = json!({ "mediaType": arm64["mediaType"], "digest": arm64["digest"], "size": arm64["size"] });
        let attestations = json!({ "subject": subject, "artifactType": "application/vnd.test.attestations" });
        let attestations = layout.index(&[&attested], &attestations)?;
        layout.list(&index, Some("1"))?;
        let referrers = vec![signed, described, twice, bare, attestations];
        for referrer in &referrers {
            layout.list(referrer, None)?;
        }
        let manifests =
            [("linux/amd64", amd64), ("linux/arm64", arm64), ("linux/arm/v7", v7), ("linux/riscv64", riscv64)];
        Ok(Self { layout, index, manifests: manifests.into_iter().collect(), nested, referrers })
    }

    /// Paths and sizes of a manifest and what it names.
    fn closure(&self, descriptor: &Value) -> Result<BTreeMap<String, u64>> {
        let document: Value = serde_json::from_slice(&self.layout.read(descriptor)?)?;
        let mut found = BTreeMap::new();
        let mut add = |descriptor: &Value| {
            let path = descriptor["digest"].as_str().unwrap_or_default().replacen(':', "/", 1);
            found.insert(path, descriptor["size"].as_u64().unwrap_or(0));
        };
        add(descriptor);
        add(&document["config"]);
        document["layers"].as_array().into_iter().flatten().for_each(add);
        Ok(found)
    }
}

fn digest(descriptor: &Value) -> Result<String> {
    text(descriptor, "digest")
}

/// Line 3: everything, one platform, digests, and what refers to them.
pub(crate) fn bytes(lab: &Lab) -> Result<Figure> {
    let family = Family::make(lab)?;
    let publisher = lab.home("bytes-a");
    publisher.json(&["init", "--domain", DOMAIN])?;
    let source = format!("oci:{}", family.layout.dir.display());
    let pushed = publisher.json(&["push", &source, "--as", "team/family:1", "--no-publish"])?;
    same("the pushed digest", &text(&pushed, "digest")?, &digest(&family.index)?)?;
    let again = publisher.json(&["push", &source, "--as", "team/family:1", "--no-publish"])?;
    same("the root after pushing again", &again["root"], &pushed["root"])?;
    same("the bytes stored by pushing again", &number(&again, "/bytes/stored")?, &0)?;
    let site = lab.serve(&publisher)?;
    let name = format!("{DOMAIN}/team/family");

    let visitor = lab.visitor("bytes-b")?;
    everything(lab, &visitor, &family, &name)?;
    inspected(&visitor, &family, &name)?;
    let (fetched, needed) = platforms(lab, &family, &name)?;
    by_digest(lab, &visitor, &family, &name)?;
    drop(site);
    publisher.json(&["check", "--read-data"])?;
    fs::remove_dir_all(&family.layout.dir)?;
    Ok(Figure { found: format!("one platform: {fetched} bytes"), limit: format!("<= {} bytes", needed + OVERHEAD) })
}

/// All platforms into a layout, and into the archive and registry of others from there.
fn everything(lab: &Lab, visitor: &Home<'_>, family: &Family, name: &str) -> Result {
    let out = Layout { dir: lab.path("family-out") };
    let sink = format!("oci:{}", out.dir.display());
    let pulled = visitor.json(&["pull", &format!("{name}:1"), "--into", &sink, "--all-platforms"])?;
    same("the pulled digest", &text(&pulled, "digest")?, &digest(&family.index)?)?;
    let blobs = family.layout.blobs()?;
    same("the pulled blobs", &out.blobs()?, &blobs)?;
    for path in &blobs {
        let [before, after] = [&family.layout, &out].map(|layout| fs::read(layout.dir.join("blobs").join(path)));
        require(before? == after?, || format!("{path} has other bytes"))?;
    }
    let listed: BTreeSet<String> = out.entries()?.iter().map(digest).collect::<Result<_>>()?;
    let expected = std::iter::once(&family.index).chain(&family.referrers).map(digest);
    same("what the layout lists", &listed, &expected.collect::<Result<BTreeSet<_>>>()?)?;
    for arch in ["amd64", "arm64"] {
        let seen = |dir: &std::path::Path| {
            let image = format!("oci:{}:1", dir.display());
            let raw = skopeo(lab, &["inspect", "--raw", &image])?;
            let read = skopeo(lab, &["--override-os", "linux", "--override-arch", arch, "inspect", &image])?;
            let config = ["--override-os", "linux", "--override-arch", arch, "inspect", "--config", "--raw", &image];
            Result::Ok((raw, read, skopeo(lab, &config)?))
        };
        same(&format!("what skopeo sees for {arch}"), &seen(&out.dir)?, &seen(&family.layout.dir)?)?;
    }
    // The same again adds nothing, and the whole goes through an archive unharmed.
    visitor.json(&["pull", &format!("{name}:1"), "--into", &sink, "--all-platforms"])?;
    same("the blobs of two pulls", &out.blobs()?, &blobs)?;
    let archive = lab.path("family.tar");
    let packed = format!("oci-archive:{}", archive.display());
    visitor.json(&["cp", &format!("{sink}:1"), &packed])?;
    let unpacked = Layout { dir: lab.path("family-unpacked") };
    fs::create_dir_all(&unpacked.dir)?;
    output(Command::new("tar").arg("-C").arg(&unpacked.dir).arg("-xf").arg(&archive))?;
    same("the blobs in an archive", &unpacked.blobs()?, &blobs)?;
    fs::remove_file(archive)?;
    for layout in [&out, &unpacked] {
        fs::remove_dir_all(&layout.dir)?;
    }
    Ok(())
}

/// Referrers and platforms as ipcr tells them.
fn inspected(visitor: &Home<'_>, family: &Family, name: &str) -> Result {
    let inspected = visitor.json(&["inspect", &format!("{name}:1")])?;
    let strings = |list: &Value| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let referrers = family.referrers.iter().map(digest).collect::<Result<BTreeSet<_>>>()?;
    same("the referrers", &strings(&inspected["referrers"]), &referrers)?;
    let manifests: BTreeSet<String> =
        inspected["manifests"].as_array().into_iter().flatten().map(digest).collect::<Result<_>>()?;
    let expected = family.manifests.values().map(digest).collect::<Result<BTreeSet<_>>>()?;
    same("the manifests", &manifests, &expected)?;
    let shown = visitor.output(&["inspect", &format!("{name}:1")])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for digest in referrers.iter().chain(&expected) {
        require(shown.contains(digest.as_str()), || format!("inspect does not show {digest}: {shown}"))?;
    }
    let raw = visitor.output(&["inspect", &format!("{name}:1"), "--raw"])?;
    same("the digest of inspect --raw", &sha256(&raw.stdout), &digest(&family.index)?)?;
    let listing = visitor.json(&["ls", name])?;
    let tag = &listing["images"][0]["tags"][0];
    let spelt = family.manifests.keys().map(|platform| match *platform {
        "linux/arm64" => "linux/arm64/v8".to_owned(),
        other => other.to_owned(),
    });
    let platforms: BTreeSet<String> = spelt.collect();
    same("the platforms", &strings(&tag["platforms"]), &platforms)?;
    same("the listed digest", &text(tag, "digest")?, &digest(&family.index)?)
}

/// One platform of many: nothing of the others is fetched.
fn platforms(lab: &Lab, family: &Family, name: &str) -> Result<(u64, u64)> {
    let mut worst = (0, 0);
    for (at, (platform, manifest)) in family.manifests.iter().enumerate() {
        let out = Layout { dir: lab.path("family-one") };
        let visitor = lab.visitor(&format!("bytes-{at}"))?;
        let sink = format!("oci:{}:one", out.dir.display());
        let pulled = visitor.json(&["pull", &format!("{name}:1"), "--into", &sink, "--platform", platform])?;
        same("the platform's manifest", &text(&pulled, "manifest")?, &digest(manifest)?)?;
        same("what the name stands for", &text(&pulled, "digest")?, &digest(&family.index)?)?;
        let closure = family.closure(manifest)?;
        same("the platform's blobs", &out.blobs()?, &closure.keys().cloned().collect())?;
        for path in closure.keys() {
            let [before, after] = [&family.layout, &out].map(|layout| fs::read(layout.dir.join("blobs").join(path)));
            require(before? == after?, || format!("{path} has other bytes"))?;
        }
        let (found, _) = skopeo_finds(lab, &format!("oci:{}:one", out.dir.display()))?;
        same("the digest that skopeo finds", &found, &digest(manifest)?)?;
        let (fetched, needed) = (number(&pulled, "/bytes/fetched")?, closure.values().sum::<u64>());
        require((needed..=needed + OVERHEAD).contains(&fetched), || {
            format!("{fetched} bytes were fetched for {platform}, whose blobs have {needed}")
        })?;
        if fetched - needed >= worst.0 - worst.1 {
            worst = (fetched, needed);
        }
        fs::remove_dir_all(&out.dir)?;
        // The rest comes when it is asked for, and nothing twice.
        if at == 0 {
            let sink = format!("oci:{}", out.dir.display());
            let pulled = visitor.json(&["pull", &format!("{name}:1"), "--into", &sink, "--all-platforms"])?;
            same("the blobs of all", &out.blobs()?, &family.layout.blobs()?)?;
            let all: u64 = family.layout.blobs()?.iter().try_fold(0, |sum, path| {
                Result::Ok(sum + fs::metadata(family.layout.dir.join("blobs").join(path))?.len())
            })?;
            let rest = number(&pulled, "/bytes/fetched")?;
            require(rest <= all - needed + OVERHEAD, || format!("{rest} bytes were fetched of {all} - {needed}"))?;
            fs::remove_dir_all(&out.dir)?;
        }
    }
    Ok(worst)
}

/// An index, a platform's manifest, a nested index and each referrer by their digests.
fn by_digest(lab: &Lab, visitor: &Home<'_>, family: &Family, name: &str) -> Result {
    let platforms = family.manifests.values();
    let all = [&family.index, &family.nested].into_iter().chain(platforms).chain(&family.referrers);
    for (at, descriptor) in all.enumerate() {
        let digest = digest(descriptor)?;
        let reference = format!("{name}@{digest}");
        let out = Layout { dir: lab.path(&format!("family-digest-{at}")) };
        let sink = format!("oci:{}", out.dir.display());
        let pulled = visitor.json(&["pull", &reference, "--into", &sink, "--all-platforms"])?;
        same("the digest of a pull by digest", &text(&pulled, "digest")?, &digest)?;
        let root = &out.entries()?[0];
        same("the root of the layout", &text(root, "digest")?, &digest)?;
        same("its bytes", &out.read(root)?, &family.layout.read(descriptor)?)?;
        let name = root.pointer("/annotations/org.opencontainers.image.ref.name");
        require(name.is_none(), || format!("a pull by digest made the name {name:?}"))?;
        let raw = visitor.output(&["inspect", &reference, "--raw"])?;
        require(raw.stdout == family.layout.read(descriptor)?, || format!("inspect --raw of {reference} differs"))?;
        fs::remove_dir_all(&out.dir)?;
    }
    // In an engine a digest makes no name.
    let names = docker_names(lab)?;
    let amd64 = digest(&family.manifests["linux/amd64"])?;
    let pulled = visitor.json(&["pull", &format!("{name}:1@{amd64}")])?;
    same("the engine's names", &docker_names(lab)?, &names)?;
    let document: Value = serde_json::from_slice(&family.layout.read(&family.manifests["linux/amd64"])?)?;
    let id = text(&document["config"], "digest")?;
    same("the image ID", &text(&pulled, "image_id")?, &id)?;
    require(document["config"]["mediaType"] == CONFIG, || "buildah writes OCI images".into())?;
    lab.docker_output(&["image", "inspect", &id])?;
    lab.docker_output(&["rmi", "-f", &id])?;
    // An artifact is nothing for an engine.
    let bare = digest(&family.referrers[3])?;
    visitor.fails(2, &["pull", &format!("{name}@{bare}")]).map(drop)
}

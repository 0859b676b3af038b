//! Compressions: each one into every reader, and layers that are compressed again.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::Figure;
use super::lab::{Home, Lab};
use super::matrix::forget;
use super::media::{
    CONFIG, Containerd, LAYER, Layout, OciRegistry, Podman, gzip, noise, sha256, skopeo, skopeo_finds, tar, tiny,
};
use super::site::{number, require, same, text};
use super::versions::Versions;
use crate::shell::{Result, run};

/// The image whose layers are compressed in every way.
const READ: &str = "readers:1";
/// Another one.
const IMAGE: &str = "tiny:1";

/// Line 4: what ipcr writes is read by every program that reads such files, whatever the compression.
pub(crate) fn readers(lab: &Lab) -> Result<Figure> {
    // Of several pieces: large files, groups of small ones, one that is cut inside.
    let versions = Versions::make(lab, "readers-files", 12)?;
    let id = Versions::import(lab, &versions.old, READ)?;
    let podman = Podman::new(lab)?;
    let service = podman.serve()?;
    let registry = OciRegistry::start(lab)?;
    let containerd = Containerd::start(lab)?;
    let home = lab.home("readers");
    home.json(&["init"])?;
    let mut digests = BTreeSet::new();
    for compression in ["gzip", "zstd", "none"] {
        let name = format!("{compression}:1");
        let pushed = home.json(&["push", READ, "--as", &name, "--compression", compression, "--no-publish"])?;
        same("the image ID", &text(&pushed, "image_id")?, &id)?;
        digests.insert(text(&pushed, "digest")?);
        let inspected = home.json(&["inspect", &name])?;
        let layer = &inspected["manifests"][0]["layers"][0];
        same("the encoding", &text(layer, "encoding")?, &format!("aligned-{compression}/1"))?;
        // Into both engines, which hold nothing of it before.
        forget(lab, &id)?;
        home.json(&["pull", &name])?;
        same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", &name])?, &id)?;
        lab.docker_output(&["tag", &name, READ])?;
        home.json(&["pull", &name, "--into", "podman:"])?;
        same("the ID in Podman", &podman.id(&name)?, &id)?;
        podman.output(&["rmi", "-f", &id])?;
        // Into files.
        let file = lab.path("reader.tar").display().to_string();
        for form in ["docker-archive", "oci-archive"] {
            home.json(&["pull", &name, "--into", &format!("{form}:{file}"), "--as", "read/it:1"])?;
            let (digest, found) = skopeo_finds(lab, &format!("{form}:{file}"))?;
            same("the ID that skopeo finds", &found, &id)?;
            if form == "oci-archive" {
                same("the digest that skopeo finds", &digest, &text(&pushed, "digest")?)?;
            }
            let copy = lab.path("reader-dir");
            skopeo(lab, &["copy", "-q", &format!("{form}:{file}"), &format!("dir:{}", copy.display())])?;
            fs::remove_dir_all(copy)?;
            podman.output(&["load", "-q", "-i", &file])?;
            require(podman.output(&["images", "-q", "--no-trunc"])?.contains(&id), || {
                "Podman loads another image".into()
            })?;
            podman.output(&["rmi", "-f", &id])?;
            containerd.imports(&file, "read/it:1")?;
        }
        home.json(&["pull", &name, "--into", &format!("docker-archive:{file}"), "--as", "read/it:1"])?;
        forget(lab, &id)?;
        lab.docker_output(&["load", "-i", &file])?;
        same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "read/it:1"])?, &id)?;
        lab.docker_output(&["tag", &id, READ])?;
        fs::remove_file(file)?;
        // Out of a registry, into which ipcr has put it.
        let remote = format!("{}/read/{name}", registry.host);
        home.json(&["pull", &name, "--into", &format!("docker://{remote}")])?;
        let (digest, found) = skopeo_finds(lab, &format!("docker://{remote}"))?;
        same("the image in a registry", &(digest, found), &(text(&pushed, "digest")?, id.clone()))?;
        podman.output(&["pull", "-q", "--tls-verify=false", &remote])?;
        same("the ID in Podman", &podman.id(&remote)?, &id)?;
        podman.output(&["rmi", "-f", &id])?;
        // Docker learnt zstd with version 23.
        if compression != "zstd" {
            forget(lab, &id)?;
            lab.docker_output(&["pull", "-q", &remote])?;
            same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", &remote])?, &id)?;
            lab.docker_output(&["tag", &id, READ])?;
        }
    }
    same("the number of digests", &digests.len(), &3)?;
    forget(lab, &id)?;
    drop(service);
    Ok(Figure::ok("gzip, zstd, none: Docker, Podman, containerd, skopeo; files and registry"))
}

/// `push --recompress`: of one image, of several platforms with what refers to them, from a layout and from a stream.
pub(crate) fn recompress(lab: &Lab) -> Result<Figure> {
    let layout = Layout::create(lab.path("re-layout"))?;
    let mut images = Vec::new();
    let mut ids = BTreeSet::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let file = vec![b'a'; 300 << 10];
        let plain = tar(lab, &[("compressible", &file), ("random", &noise(20 << 10)?)])?;
        let layer = layout.blob(&format!("{LAYER}+gzip"), &gzip(lab, &plain)?)?;
        let image = layout.image(platform, &[(layer, sha256(&plain))], &json!({ "annotations": { "a": "b" } }))?;
        let manifest: Value = serde_json::from_slice(&layout.read(&image)?)?;
        ids.insert(text(&manifest["config"], "digest")?);
        images.push(image);
    }
    let attested = json!({ "mediaType": CONFIG }).to_string();
    let mut attestation =
        layout.artifact("application/vnd.in-toto+json", None, Some(("application/json", attested.as_bytes())))?;
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.digest": images[0]["digest"] });
    let kept = layout.artifact("application/vnd.test.readme", None, Some(("text/plain", b"read me")))?;
    let members = [&images[0], &images[1], &attestation, &kept];
    let index = layout.index(&members, &json!({ "annotations": { "top": "kept" }, "x-unknown": 1 }))?;
    let signature = layout.artifact("application/vnd.test.signature", Some(&index), None)?;
    layout.list(&index, Some("many"))?;
    layout.list(&signature, None)?;
    layout.list(&images[0], Some("one"))?;
    let home = lab.home("recompress");
    home.json(&["init"])?;
    let many = format!("oci:{}:many", layout.dir.display());
    let plan = home.json(&["push", &many, "--as", "re:many", "--recompress", "--compression", "zstd", "--dry-run"])?;
    same("the planned digest", &plan["digest"], &Value::Null)?;
    let args = ["push", &many, "--as", "re:many", "--recompress", "--compression", "zstd", "--no-publish"];
    let pushed = home.json(&args)?;
    let (old, new) = (text(&index, "digest")?, text(&pushed, "digest")?);
    require(old != new, || "the digest stays".into())?;
    same(
        "the warning",
        &pushed["warnings"],
        &json!([{ "warning": "recompressed", "from": old, "to": new, "left_out": 2 }]),
    )?;
    let out = Layout { dir: lab.path("re-out") };
    home.json(&["pull", "re:many", "--into", &format!("oci:{}", out.dir.display()), "--all-platforms"])?;
    let raw: Value = serde_json::from_slice(&out.read(&json!({ "digest": new }))?)?;
    same("what the index said besides", &raw["annotations"], &json!({ "top": "kept" }))?;
    same("what nobody knows", &raw["x-unknown"], &json!(1))?;
    let entries = raw["manifests"].as_array().cloned().unwrap_or_default();
    same("the entries", &entries.len(), &3)?;
    same("what is no image", &entries[2], &kept)?;
    let mut found = BTreeSet::new();
    for (entry, image) in entries.iter().zip(&images) {
        same("the platform", &entry["platform"], &image["platform"])?;
        let manifest: Value = serde_json::from_slice(&out.read(entry)?)?;
        same("the layer's type", &manifest["layers"][0]["mediaType"], &json!(format!("{LAYER}+zstd")))?;
        found.insert(text(&manifest["config"], "digest")?);
    }
    same("the image IDs", &found, &ids)?;
    let shown = home.output(&[&args[..], &["--force"]].concat())?;
    let talk = String::from_utf8_lossy(&shown.stderr).into_owned();
    require(talk.contains(&old) && talk.contains(&new), || format!("the output does not name both digests: {talk}"))?;
    let again = home.json(&args)?;
    same("pushing it again", &(again["unchanged"].clone(), number(&again, "/bytes/stored")?), &(json!(true), 0))?;
    single(lab, &home, &layout, &images[0])?;
    home.json(&["check", "--read-data"])?;
    for layout in [out, layout] {
        fs::remove_dir_all(layout.dir)?;
    }
    Ok(Figure::ok("index and single image, digests told, image IDs kept"))
}

/// One image: the manifest is the one that an engine's image would get.
fn single(lab: &Lab, home: &Home<'_>, layout: &Layout, image: &Value) -> Result {
    let from = format!("oci:{}:one", layout.dir.display());
    let kept = home.json(&["push", &from, "--as", "re:kept", "--no-publish"])?;
    same("the digest without the option", &kept["digest"], &image["digest"])?;
    let pushed = home.json(&["push", &from, "--as", "re:one", "--recompress", "--no-publish"])?;
    same("the image ID", &pushed["image_id"], &kept["image_id"])?;
    let archive = lab.path("re.tar");
    skopeo(lab, &["copy", "-q", &from, &format!("docker-archive:{}:re:1", archive.display())])?;
    let engine =
        home.json(&["push", &format!("docker-archive:{}", archive.display()), "--as", "re:one", "--no-publish"])?;
    same("the canonical digest", &engine["digest"], &pushed["digest"])?;
    same("the bytes stored for the same image", &number(&engine, "/bytes/stored")?, &0)?;
    fs::remove_file(&archive)?;
    skopeo(lab, &["copy", "-q", &from, &format!("oci-archive:{}:1", archive.display())])?;
    let mut command = home.command(&["-o", "json", "push", "-", "--as", "re:piped", "--recompress", "--no-publish"]);
    let output = command.stdin(fs::File::open(&archive)?).output()?;
    let talk = String::from_utf8_lossy(&output.stderr);
    require(output.status.success(), || format!("push - --recompress: {talk}"))?;
    let piped: Value = serde_json::from_slice(&output.stdout)?;
    same("the digest from a stream", &piped["digest"], &pushed["digest"])?;
    home.json(&["pull", "re:one"])?;
    let id = text(&pushed, "image_id")?;
    same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "re:one"])?, &id)?;
    lab.docker_output(&["rmi", "-f", &id])?;
    Ok(fs::remove_file(archive)?)
}

/// A repository digest that a push from the engine loses is told, and the advice keeps it.
pub(crate) fn lost_digest(lab: &Lab) -> Result<Figure> {
    tiny(lab, IMAGE)?;
    let registry = OciRegistry::start(lab)?;
    let home = lab.home("lost");
    home.json(&["init"])?;
    let before = home.json(&["push", IMAGE, "--as", "lost:0", "--no-publish"])?;
    same("the warnings for a local image", &before["warnings"], &json!([]))?;
    let name = format!("{}/team/lost:1", registry.host);
    lab.docker_output(&["tag", IMAGE, &name])?;
    run(&mut lab.docker(&["push", "-q", &name])?)?;
    let listed = lab.docker_output(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &name])?;
    let pushed = home.json(&["push", &name, "--as", "lost:1", "--no-publish"])?;
    same("the warnings", &pushed["warnings"], &json!([{ "warning": "digest-lost", "repo_digest": listed }]))?;
    let source = format!("docker://{listed}");
    let shown = home.output(&["push", &name, "--as", "lost:1", "--no-publish"])?;
    let talk = String::from_utf8_lossy(&shown.stderr).into_owned();
    require(talk.contains(&format!("ipcr push {source}")), || format!("no advice in {talk:?}"))?;
    let pushed = home.json(&["push", &source, "--as", "lost:1", "--no-publish"])?;
    require(listed.ends_with(&text(&pushed, "digest")?), || format!("{listed} became {}", pushed["digest"]))?;
    same("the warnings for the registry's image", &pushed["warnings"], &json!([]))?;
    lab.docker_output(&["rmi", &name])?;
    Ok(Figure::ok("told, and kept by `ipcr push docker://…`"))
}

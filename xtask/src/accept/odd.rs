//! Images that are valid and unusual, and some that are not valid.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::Figure;
use super::lab::{Home, Lab};
use super::matrix::forget;
use super::media::{CONFIG, LAYER, Layout, MANIFEST, filter, gzip, noise, sha256, skopeo_finds, tar};
use super::site::{number, require, same, text};
use crate::shell::{Result, output};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// What an engine makes of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// It loads it.
    Loads,
    /// It is not even tried.
    Unfit,
    /// The engine has its own opinion.
    Whatever,
}

/// Lines 3 and 4 with what hostile or merely unusual builders make.
pub(crate) fn images(lab: &Lab) -> Result<Figure> {
    let layout = Layout::create(lab.path("odd"))?;
    lab.engine()?;
    let home = lab.home("odd-home");
    home.json(&["init"])?;
    let images = make(lab, &layout)?;
    let mut failures = Vec::new();
    let mut note = |name: &str, result: Result| failures.extend(result.err().map(|error| format!("{name}: {error}")));
    for (name, descriptor, engine) in &images {
        layout.list(descriptor, Some(name))?;
        note(name, round(lab, &home, &layout, name, descriptor, *engine));
    }
    note("names", names(lab, &home, &layout));
    note("refused", refused(&home, &layout));
    note("foreign", foreign(lab, &home, &layout));
    require(failures.is_empty(), || failures.join("; "))?;
    home.json(&["check", "--read-data"])?;
    fs::remove_dir_all(&layout.dir)?;
    Ok(Figure::ok(format!("{} kinds of images", images.len() + 1)))
}

fn make(lab: &Lab, layout: &Layout) -> Result<Vec<(&'static str, Value, Engine)>> {
    let packed = format!("{LAYER}+gzip");
    let layer = |text: &str| {
        let archive = tar(lab, &[(text, text.as_bytes())])?;
        Result::Ok((layout.blob(&packed, &gzip(lab, &archive)?)?, sha256(&archive)))
    };
    let one = layer("one")?;
    let blank = tar(lab, &[])?;
    let empty = (layout.blob(LAYER, &blank)?, sha256(&blank));
    let shortest = vec![0; 1024];
    let short = (layout.blob(&packed, &gzip(lab, &shortest)?)?, sha256(&shortest));
    let huge = tar(lab, &[("huge", &noise(5 << 20)?)])?;
    let mut many = vec![(layout.blob(LAYER, &huge)?, sha256(&huge))];
    for at in 0..60 {
        many.push(layer(&format!("tiny-{at}"))?);
    }
    let amd64 = "linux/amd64";
    let mut made = vec![
        ("no-layers", layout.image(amd64, &[], &json!({}))?, Engine::Whatever),
        ("empty-layers", layout.image(amd64, &[empty.clone(), one.clone(), short], &json!({}))?, Engine::Loads),
        ("same-layer-twice", layout.image(amd64, &[one.clone(), one.clone(), one.clone()], &json!({}))?, Engine::Loads),
        ("huge-and-tiny", layout.image(amd64, &many, &json!({}))?, Engine::Loads),
        ("windows", layout.image("windows/amd64", &[layer("Files/x")?], &json!({}))?, Engine::Whatever),
        ("no-architecture", layout.image("linux", std::slice::from_ref(&one), &json!({}))?, Engine::Loads),
        ("no-platform", layout.image("", std::slice::from_ref(&one), &json!({}))?, Engine::Whatever),
    ];
    let odd = odd_layer(lab)?;
    let odd = (layout.blob(&packed, &gzip(lab, &odd)?)?, sha256(&odd));
    made.push(("odd-entries", layout.image(amd64, &[layer("gone")?, odd], &json!({}))?, Engine::Loads));
    // Docker's own types, in a list, with members that nobody knows.
    let mut list = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let archive = tar(lab, &[("docker", architecture.as_bytes())])?;
        let blob = layout.blob(DOCKER_LAYER, &gzip(lab, &archive)?)?;
        let config = json!({
            "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [sha256(&archive)] },
            "container_config": { "Hostname": "x" }, "docker_version": "20.10", "x-unknown": [],
        });
        let config = layout.document(DOCKER_CONFIG, &config)?;
        let manifest = json!({ "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [blob] });
        let mut descriptor = layout.document(DOCKER_MANIFEST, &manifest)?;
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture, "os.version": "1" });
        list.push(descriptor);
    }
    made.push(("docker-manifest", list[1].clone(), Engine::Loads));
    let document = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": list });
    made.push(("docker-list", layout.document(DOCKER_LIST, &document)?, Engine::Loads));
    // Under SHA-512 throughout.
    let archive = tar(lab, &[("long", b"digest")])?;
    let blob = layout.blob512(&packed, &gzip(lab, &archive)?)?;
    let config = json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [sha256(&archive)] },
    });
    let config = layout.blob512(CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [blob] });
    made.push(("sha512", layout.blob512(MANIFEST, manifest.to_string().as_bytes())?, Engine::Loads));
    // No images at all.
    let chart: (&str, &[u8]) = ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"no archive");
    made.push((
        "artifact",
        layout.artifact("application/vnd.cncf.helm.config.v1+json", None, Some(chart))?,
        Engine::Unfit,
    ));
    made.push(("bare-artifact", layout.artifact("application/vnd.test", None, None)?, Engine::Unfit));
    let signed = layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"{\"critical\":{}}")?;
    let config =
        json!({ "architecture": "", "os": "", "rootfs": { "type": "layers", "diff_ids": [signed["digest"]] } });
    let config = layout.document(CONFIG, &config)?;
    let signature = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [signed] });
    made.push(("old-signature", layout.document(MANIFEST, &signature)?, Engine::Whatever));
    // Manifests without platforms: their configurations tell.
    let bare =
        |image: &Value| json!({ "mediaType": image["mediaType"], "digest": image["digest"], "size": image["size"] });
    let arm = layout.image("linux/arm64", &[layer("arm")?], &json!({}))?;
    let amd = layout.image(amd64, &[layer("amd")?], &json!({}))?;
    let index = layout.index(&[&bare(&arm), &bare(&amd)], &json!({}))?;
    let deep = (0..5).try_fold(index.clone(), |inner, _| layout.index(&[&inner], &json!({})))?;
    made.push(("no-platforms", index, Engine::Loads));
    made.push(("deep", deep, Engine::Loads));
    Ok(made)
}

/// Whiteouts, hard and symbolic links, sparse files, PAX records, devices, names in all scripts and of all lengths.
fn odd_layer(lab: &Lab) -> Result<Vec<u8>> {
    let dir = lab.path("odd-files");
    let deep = format!("{}/{}", "d".repeat(120), "é".repeat(100));
    fs::create_dir_all(dir.join(&deep))?;
    fs::write(dir.join(".wh.gone"), "")?;
    fs::create_dir_all(dir.join("opaque"))?;
    fs::write(dir.join("opaque/.wh..wh..opq"), "")?;
    fs::write(dir.join(&deep).join("日本語 и\u{301}"), "x")?;
    fs::write(dir.join("hard"), "linked")?;
    fs::hard_link(dir.join("hard"), dir.join("link"))?;
    std::os::unix::fs::symlink("../../etc/passwd", dir.join("symlink"))?;
    let sparse = fs::File::create(dir.join("sparse"))?;
    sparse.set_len(8 << 20)?;
    drop(sparse);
    let archive = lab.path("odd.tar");
    let mut command = Command::new("tar");
    command.arg("-C").arg(&dir).args(["--format=pax", "--sparse", "--sort=name", "--owner=0", "--group=0"]);
    output(command.args(["--mtime=@1234567890.123456789", "--pax-option=comment=é", "-cf"]).arg(&archive).arg("."))?;
    let bytes = fs::read(&archive)?;
    fs::remove_dir_all(dir)?;
    fs::remove_file(archive)?;
    Ok(bytes)
}

/// Pushed, looked at, pulled whole and, where it is one, run through the engine.
fn round(lab: &Lab, home: &Home<'_>, layout: &Layout, name: &str, descriptor: &Value, engine: Engine) -> Result {
    let digest = text(descriptor, "digest")?;
    let source = format!("oci:{}:{name}", layout.dir.display());
    let own = format!("odd/{name}:1");
    let pushed = home.json(&["push", &source, "--as", &own, "--no-publish"])?;
    same("the digest", &text(&pushed, "digest")?, &digest)?;
    let again = home.json(&["push", &source, "--as", &format!("odd/again/{name}:2"), "--no-publish"])?;
    same("what the same under another name stores", &number(&again, "/bytes/stored")?, &0)?;
    let inspected = home.json(&["inspect", &own])?;
    same("the inspected digest", &text(&inspected, "digest")?, &digest)?;
    let listed = home.json(&["ls", &format!("odd/{name}")])?;
    same("the listed digest", &text(&listed["images"][0]["tags"][0], "digest")?, &digest)?;
    for command in [&["inspect", &own][..], &["ls", &format!("odd/{name}")], &["ls"]] {
        let shown = home.output(command)?;
        require(shown.status.success(), || String::from_utf8_lossy(&shown.stderr).into_owned())?;
    }
    let raw = home.output(&["inspect", &own, "--raw"])?;
    require(raw.stdout == layout.read(descriptor)?, || "inspect --raw differs".into())?;
    let out = Layout { dir: lab.path("odd-out") };
    home.json(&["pull", &own, "--into", &format!("oci:{}:1", out.dir.display()), "--all-platforms"])?;
    for path in out.blobs()? {
        let [before, after] = [layout, &out].map(|layout| fs::read(layout.dir.join("blobs").join(&path)));
        require(before? == after?, || format!("{path} has other bytes"))?;
    }
    // What skopeo 1.9 reads in a layout: neither Docker's types, nor the configurations of what is no single image, nor those
    // that SHA-512 names (it checks them with SHA-256).
    if engine == Engine::Loads && !["docker-manifest", "docker-list", "no-platforms", "deep", "sha512"].contains(&name)
    {
        let (found, _) = skopeo_finds(lab, &format!("oci:{}:1", out.dir.display()))?;
        same("the digest that skopeo finds", &found, &digest)?;
    }
    fs::remove_dir_all(&out.dir)?;
    match engine {
        Engine::Loads => {
            let pulled = home.json(&["pull", &own])?;
            let id = text(&pulled, "image_id")?;
            same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", &own])?, &id)?;
            same("what the name stands for", &text(&pulled, "digest")?, &digest)?;
            forget(lab, &id)
        }
        Engine::Unfit => home.fails(2, &["pull", &own]).map(drop),
        Engine::Whatever => {
            // Whatever the engine says, it is said properly.
            let output = home.output(&["-o", "json", "pull", &own])?;
            let code = output.status.code();
            let talk = String::from_utf8_lossy(&output.stderr);
            require(matches!(code, Some(0 | 7)), || format!("pull ended with {code:?}: {talk}"))?;
            if code == Some(0) {
                let pulled: Value = serde_json::from_slice(&output.stdout)?;
                forget(lab, &text(&pulled, "image_id")?)?;
            }
            Ok(())
        }
    }
}

/// Long tags, long names, names in parts of others.
fn names(lab: &Lab, home: &Home<'_>, layout: &Layout) -> Result {
    let tag = format!("T{}", "._-x".repeat(32))[..128].to_owned();
    let deep = "a/b-c/d__e/f.g/h/i/j/k/l";
    let source = format!("oci:{}:same-layer-twice", layout.dir.display());
    for name in [format!("{deep}:{tag}"), format!("a/b-c:{tag}"), "a:1".into()] {
        let pushed = home.json(&["push", &source, "--as", &name, "--no-publish"])?;
        let pulled = home.json(&["pull", &name])?;
        same("the digest", &pulled["digest"], &pushed["digest"])?;
        lab.docker_output(&["image", "inspect", &name])?;
        forget(lab, &text(&pulled, "image_id")?)?;
    }
    let listed = home.json(&["ls"])?;
    let names: BTreeSet<&str> =
        listed["images"].as_array().into_iter().flatten().filter_map(|image| image["name"].as_str()).collect();
    require([deep, "a/b-c", "a"].iter().all(|name| names.contains(name)), || format!("ls lists {names:?}"))?;
    for bad in [
        format!("a:{tag}x"),
        "A:1".into(),
        "a//b:1".into(),
        "a/tags/b:1".into(),
        "_a:1".into(),
        format!("{}:1", "a/".repeat(200)),
    ] {
        home.fails(2, &["push", &source, "--as", &bad, "--no-publish"])?;
    }
    Ok(())
}

/// What is refused, and how.
fn refused(home: &Home<'_>, layout: &Layout) -> Result {
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let schema1 =
        json!({ "schemaVersion": 1, "name": "x", "tag": "1", "fsLayers": [], "history": [], "signatures": [] });
    let as_old = layout.document(old, &schema1)?;
    let disguised = layout.document(MANIFEST, &schema1)?;
    let config = layout.document(CONFIG, &json!({ "rootfs": { "type": "layers", "diff_ids": [] } }))?;
    let both = json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] });
    let ambiguous = layout.document(MANIFEST, &both)?;
    let lying = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "config": config, "layers": [] });
    let lying = layout.document(MANIFEST, &lying)?;
    let missing = layout.blob(&format!("{LAYER}+gzip"), b"x")?;
    fs::remove_file(layout.path(missing["digest"].as_str().unwrap_or_default()))?;
    let config =
        layout.document(CONFIG, &json!({ "rootfs": { "type": "layers", "diff_ids": [missing["digest"]] } }))?;
    let incomplete =
        layout.document(MANIFEST, &json!({ "schemaVersion": 2, "config": config, "layers": [missing] }))?;
    let garbled = layout.document(CONFIG, &json!({ "rootfs": 1 }))?;
    let garbled = layout.document(MANIFEST, &json!({ "schemaVersion": 2, "config": garbled, "layers": [] }))?;
    for (name, descriptor, says) in [
        ("schema1", &as_old, "schema 1"),
        ("disguised", &disguised, "schema 1"),
        ("ambiguous", &ambiguous, "manifests"),
        ("lying", &lying, "calls itself"),
        ("incomplete", &incomplete, "does not hold"),
        ("garbled", &garbled, "configuration"),
    ] {
        layout.list(descriptor, Some(name))?;
        let source = format!("oci:{}:{name}", layout.dir.display());
        let error = home.fails(5, &["push", &source, "--as", "refused:1", "--no-publish"])?;
        require(error.to_string().contains(says), || format!("{name} is refused with {error}"))?;
    }
    home.fails(3, &["inspect", "refused:1"]).map(drop)
}

/// Layers that must not be handed on: kept where they are there, missed by nobody where they are not.
fn foreign(lab: &Lab, home: &Home<'_>, layout: &Layout) -> Result {
    let archive = tar(lab, &[("Files/base", b"base")])?;
    let mut base = layout.blob(FOREIGN, &gzip(lab, &archive)?)?;
    base["urls"] = json!(["https://example.invalid/base"]);
    let own = tar(lab, &[("own", b"own")])?;
    let own = (layout.blob(DOCKER_LAYER, &gzip(lab, &own)?)?, sha256(&own));
    let image = layout.image("linux/amd64", &[(base.clone(), sha256(&archive)), own], &json!({}))?;
    layout.list(&image, Some("foreign"))?;
    let source = format!("oci:{}:foreign", layout.dir.display());
    let path = layout.path(&text(&base, "digest")?);
    for present in [true, false] {
        let name = format!("foreign/{}:1", if present { "with" } else { "without" });
        if !present {
            // A home that has never seen it.
            fs::remove_file(&path)?;
        }
        let home = if present { home.clone() } else { lab.home("odd-foreign") };
        if !present {
            home.json(&["init"])?;
        }
        let pushed = home.json(&["push", &source, "--as", &name, "--no-publish"])?;
        same("the digest", &pushed["digest"], &image["digest"])?;
        home.json(&["inspect", &name])?;
        home.json(&["ls", name.trim_end_matches(":1")])?;
        home.json(&["pull", &name, "--into", "none"])?;
        let out = Layout { dir: lab.path("odd-foreign-out") };
        home.json(&["pull", &name, "--into", &format!("oci:{}:1", out.dir.display())])?;
        same("whether the layer is there", &out.path(&text(&base, "digest")?).exists(), &present)?;
        home.json(&["cp", &name, &format!("oci-archive:{}:1", lab.path("odd-foreign.tar").display())])?;
        fs::remove_dir_all(&out.dir)?;
        if present {
            let pulled = home.json(&["pull", &name])?;
            forget(lab, &text(&pulled, "image_id")?)?;
        } else {
            home.fails(2, &["pull", &name])?;
            home.json(&["tag", &name, "foreign/tagged:1"])?;
            home.json(&["check", "--read-data"])?;
        }
    }
    // What a compressed archive of a layout with it holds is the same.
    let packed = lab.path("odd-foreign.tar");
    let squeezed = filter(lab, Command::new("gzip").arg("-c"), &fs::read(&packed)?)?;
    fs::write(&packed, squeezed)?;
    let place = format!("oci-archive:{}:1", packed.display());
    let pushed = home.json(&["push", &place, "--as", "foreign/squeezed:1", "--no-publish"])?;
    same("the digest from a compressed archive", &pushed["digest"], &image["digest"])?;
    Ok(fs::remove_file(packed)?)
}

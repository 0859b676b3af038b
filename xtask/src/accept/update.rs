//! Updates: what the second version of an image costs whoever has the first.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Figure;
use super::lab::{Home, Lab};
use super::matrix::forget;
use super::media::{LAYER, Layout, filter, gzip, sha256, skopeo_finds, tiny};
use super::registry::Registry;
use super::site::{DOMAIN, Site, equal, number, require, same, text};
use super::versions::{Versions, chunked};
use crate::line::{Line, Quality};
use crate::shell::Result;

/// Megabytes of the image.
const MEGABYTES: u64 = 32;

/// Updates line 1: an update of an image without a manifest fetches what changed, and both versions are stored for little more than one.
pub(crate) fn fetched(lab: &Lab) -> Result<Figure> {
    let versions = Versions::make(lab, "up", MEGABYTES)?;
    let (old, new) = (fs::read(&versions.old)?, fs::read(&versions.new)?);
    let changed = fs::read(&versions.changed)?;
    let ids = [Versions::import(lab, &versions.old, "up:1")?, Versions::import(lab, &versions.new, "up:2")?];
    let whole = gzip(lab, &old)?.len();
    let whole_new = gzip(lab, &new)?.len();
    let by_chunks = chunked(&old, &new, |chunk| Ok(gzip(lab, chunk)?.len()))?;
    let by_files = gzip(lab, &changed)?.len();

    let publisher = lab.home("up-a");
    publisher.json(&["init", "--domain", DOMAIN])?;
    let first = publisher.json(&["push", "up:1", "--no-publish"])?;
    let second = publisher.json(&["push", "up:2", "--no-publish"])?;
    for pushed in [&first, &second] {
        let encodings = pushed["encodings"].as_array().cloned().unwrap_or_default();
        same(
            "the encodings",
            &encodings.iter().map(|row| &row["encoding"]).collect::<Vec<_>>(),
            &vec![&json!("aligned-gzip/1")],
        )?;
    }
    one_core(lab, &first)?;
    let site = lab.serve(&publisher)?;
    let (line, flags) = line_to(lab, &site, Quality::default())?;
    let puller = lab.home("up-b").with(&flags.each_ref().map(String::as_str));
    let pulled = puller.json(&["pull", &format!("{DOMAIN}/up:1"), "--into", "none"])?;
    let fetched = line.passed();
    puller.json(&["gc"])?;
    let layout = lab.path("up-layout");
    let into = format!("oci:{}", layout.display());
    let updated = puller.json(&["pull", &format!("{DOMAIN}/up:2"), "--into", &into])?;
    // Blocks and all that is said about them, both ways of saying it.
    let update = line.passed() - fetched;
    let (digest, id) = skopeo_finds(lab, &into)?;
    same("what skopeo finds", &(digest, &id), &(text(&second, "digest")?, &ids[1]))?;
    fs::remove_dir_all(layout)?;
    for (pulled, passed) in [(&pulled, fetched), (&updated, update)] {
        require(passed >= number(pulled, "/bytes/fetched")?, || format!("only {passed} bytes came by the line"))?;
    }
    for (pulled, id) in [(&pulled, &ids[0]), (&updated, &ids[1])] {
        same("the image ID", &text(pulled, "image_id")?, id)?;
        let (fetched, local) = (number(pulled, "/bytes/fetched")?, number(pulled, "/bytes/local")?);
        let image = number(pulled, "/bytes/image")?;
        // Equal blocks inside of an image count once.
        require(fetched + local > image * 3 / 4, || format!("{fetched} fetched and {local} local of {image}"))?;
    }
    let (known, image) = (number(&updated, "/bytes/local")?, number(&updated, "/bytes/image")?);
    require(known > image / 2, || format!("only {known} of {image} bytes of an update were there"))?;
    let again = puller.json(&["pull", &format!("{DOMAIN}/up:2"), "--into", "none"])?;
    same("what is fetched of a known version", &number(&again, "/bytes/fetched")?, &0)?;
    // Into an engine, where the layer is put together from what was there and what came.
    for id in &ids {
        forget(lab, id)?;
    }
    puller.json(&["pull", &format!("{DOMAIN}/up:2"), "--as", "up:2"])?;
    same("the ID in Docker", &lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "up:2"])?, &ids[1])?;
    equal("the version that runs", Versions::run(lab, "up:2")?, "2")?;
    drop(site);
    forget(lab, &ids[1])?;

    let [fetched, update] = [fetched, update].map(|bytes| as_bytes(usize::try_from(bytes).unwrap_or(usize::MAX)));
    let stored = (bytes(&first, "/bytes/new")? + bytes(&second, "/bytes/new")?) / bytes(&first, "/bytes/new")?;
    let whole_new = as_bytes(whole_new);
    let limits = [
        ("first pull", fetched / as_bytes(whole), 1.03, "of gzip -6"),
        ("update", update / as_bytes(by_chunks), 0.62, "of chunks"),
        ("update", update / (as_bytes(by_files) * 1.35 + whole_new * 0.01), 1.0, "of 1.35 changed files + 1 %"),
        ("both versions", stored, 1.35, "of the first"),
    ];
    let told: Vec<String> = limits.iter().map(|(what, found, _, of)| format!("{what} {found:.3} {of}")).collect();
    let told = format!("{}; update {:.3} of gzip -6", told.join(", "), update / whole_new);
    for (what, found, limit, of) in limits {
        require(found <= limit, || format!("{what} {found:.3} {of}, limit {limit}: {told}"))?;
    }
    let limit = limits.map(|(_, _, limit, _)| limit.to_string()).join(", ");
    Ok(Figure { found: told, limit: format!("<= {limit}") })
}

/// A line to a site, and how a home is called that reaches it by the line and in no other way.
fn line_to(lab: &Lab, site: &Site, quality: Quality) -> Result<(Line, [String; 4])> {
    let port = site.address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("the address has a port")?;
    let line = Line::start(port, quality)?;
    let dns = lab.dns(&[(&format!("_dnslink.{DOMAIN}"), &format!("dnslink=/ipns/{}", site.ipns))])?;
    let peer = line.lead(&site.address, port);
    Ok((line, ["--dns".into(), format!("127.0.0.1:{dns}"), "--peer".into(), peer]))
}

/// Bytes of the layer that a rebuilt image has anew.
const REBUILT: usize = 2 << 20;
/// What a push writes of its own beside layers, in bytes.
const METADATA: u64 = 64 << 10;

/// Updates line 2: of an image that was built again, only the layer that is new is stored.
pub(crate) fn rebuilt(lab: &Lab) -> Result<Figure> {
    const PARENT: &str = "rebuilt-tiny:1";
    tiny(lab, PARENT)?;
    let home = lab.home("rebuilt");
    home.json(&["init"])?;
    let push = |name: &str| {
        lab.child_of(name, PARENT, REBUILT)?;
        home.json(&["push", name, "--as", "rebuilt:1", "--no-publish"])
    };
    let first = push("rebuilt:1")?;
    let second = push("rebuilt:2")?;
    let ids = [text(&first, "image_id")?, text(&second, "image_id")?];
    require(ids[0] != ids[1], || "both builds made the same image".into())?;
    let layer = u64::try_from(REBUILT)?;
    for member in ["/bytes/stored", "/bytes/new"] {
        let bytes = number(&second, member)?;
        require(bytes >= layer && bytes <= layer + METADATA, || format!("{member} of the second push is {bytes}"))?;
    }
    for id in ids {
        forget(lab, &id)?;
    }
    let new = number(&second, "/bytes/new")?;
    Ok(Figure { found: format!("{new} B new"), limit: format!("<= {} B", layer + METADATA) })
}

/// A line on which bytes take much longer than everything else does: 10 Mbit in a second, 20 ms each way.
const FAR: Quality = Quality { delay: Duration::from_millis(20), up: Some(10e6 / 8.0), down: Some(10e6 / 8.0) };
/// How long an update may take over it, beside `docker pull`. Into a layout it is faster, but not by much for so small an image.
const BESIDE: f64 = 0.5;

/// Updates line 3: over a slow line an update takes a fraction of the time that `docker pull` needs.
pub(crate) fn far(lab: &Lab) -> Result<Figure> {
    let versions = Versions::make(lab, "far", MEGABYTES)?;
    let registry = Registry::start(lab, "far-registry")?;
    let names: Vec<String> = ["1", "2"].iter().map(|tag| format!("{}/far:{tag}", registry.host)).collect();
    let home = lab.home("far-a");
    home.json(&["init", "--domain", DOMAIN])?;
    let mut ids = Vec::new();
    for (archive, (name, tag)) in [&versions.old, &versions.new].into_iter().zip(names.iter().zip(["1", "2"])) {
        ids.push(Versions::import(lab, archive, name)?);
        lab.docker_output(&["push", "-q", name])?;
        home.json(&["push", name, "--as", &format!("far:{tag}"), "--no-publish"])?;
    }
    lab.forget(&ids[1])?;
    let line = Line::start(registry.host.rsplit(':').next().unwrap_or_default().parse()?, FAR)?;
    let begin = Instant::now();
    let name = format!("127.0.0.1:{}/far:2", line.port);
    lab.docker_output(&["pull", "-q", &name])?;
    let (docker, docker_bytes) = (begin.elapsed().as_secs_f64(), line.passed());
    drop(registry);
    require(docker_bytes > MEGABYTES << 17, || format!("docker had all but {docker_bytes} bytes already"))?;

    let site = lab.serve(&home)?;
    let [old, new] = ["1", "2"].map(|tag| format!("{DOMAIN}/far:{tag}"));
    let layout = lab.path("far-layout");
    let into = format!("oci:{}", layout.display());
    let mut told = format!("docker pull {docker:.1} s, {docker_bytes} B");
    let mut worst: f64 = 0.0;
    for (what, args) in [("engine", &[][..]), ("oci:", &["--into", into.as_str()][..])] {
        lab.forget(&ids[1])?;
        lab.find(&site)?;
        let whole = number(&lab.visitor("far-b")?.json(&["pull", &old, "--into", "none"])?, "/bytes/fetched")?;
        let (line, flags) = line_to(lab, &site, FAR)?;
        let puller = lab.home("far-b").with(&flags.each_ref().map(String::as_str));
        let begin = Instant::now();
        let pulled = puller.json(&[&["pull", &new], args].concat())?;
        let (seconds, bytes) = (begin.elapsed().as_secs_f64(), line.passed());
        same("the image ID", &text(&pulled, "image_id")?, &ids[1])?;
        let fetched = number(&pulled, "/bytes/fetched")?;
        require(bytes >= fetched && bytes < whole, || format!("{fetched} of {whole} bytes, {bytes} by the line"))?;
        let ratio = seconds / docker;
        worst = worst.max(ratio);
        told.push_str(&format!("; {what} {seconds:.1} s, {ratio:.2}, {bytes} B"));
        if args.is_empty() {
            equal("the version that runs", Versions::run(lab, &new)?, "2")?;
        }
    }
    drop(site);
    fs::remove_dir_all(layout)?;
    for id in &ids {
        lab.forget(id)?;
    }
    require(worst <= BESIDE, || format!("{told}; limit {BESIDE}"))?;
    Ok(Figure { found: told, limit: format!("<= {BESIDE}") })
}

/// The same image makes the same layer on one core as on all.
fn one_core(lab: &Lab, pushed: &Value) -> Result {
    let home = lab.home("up-c");
    home.json(&["init"])?;
    let command = home.command(&["-o", "json", "push", "up:1", "--no-publish"]);
    let mut alone = Command::new("taskset");
    alone.args(["-c", "0"]).arg(command.get_program()).args(command.get_args()).env_clear();
    alone.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = alone.output()?;
    let talk = String::from_utf8_lossy(&output.stderr);
    require(output.status.success(), || format!("push on one core: {talk}"))?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    same("the folder on one core", &text(&found, "cid")?, &text(pushed, "cid")?)?;
    Ok(fs::remove_dir_all(&home.dir)?)
}

/// Which layers are aligned: a manifest keeps its digest unless `--recompress`, what that would share is told, and what was encoded
/// before is used again, also after a collection took some of it.
pub(crate) fn which(lab: &Lab) -> Result<Figure> {
    let versions = Versions::make(lab, "which", 12)?;
    let layout = Layout::create(lab.path("which-layout"))?;
    let mut digests = Vec::new();
    for (archive, tag) in [(&versions.old, "1"), (&versions.new, "2")] {
        let plain = fs::read(archive)?;
        let layer = layout.blob(&format!("{LAYER}+gzip"), &gzip(lab, &plain)?)?;
        let image = layout.image("linux/amd64", &[(layer, sha256(&plain))], &json!({}))?;
        layout.list(&image, Some(tag))?;
        digests.push(text(&image, "digest")?);
    }
    let from = |tag: &str| format!("oci:{}:{tag}", layout.dir.display());
    let home = lab.home("which-home");
    home.json(&["init"])?;
    let push = |tag: &str, name: &str, more: &[&str]| {
        home.json(&[&["push", &from(tag), "--as", name, "--no-publish"], more].concat())
    };
    // As they came: whole layers again, and the output says what that costs.
    let mut shared = Vec::new();
    for (tag, digest) in ["1", "2"].iter().zip(&digests) {
        let pushed = push(tag, &format!("kept:{tag}"), &[])?;
        same("the digest", &text(&pushed, "digest")?, digest)?;
        same("the encoding", &pushed["encodings"][0]["encoding"], &json!("opaque"))?;
        shared.push(number(&pushed, "/recompress/shared")?);
        require(number(&pushed, "/bytes/new")? >= number(&pushed, "/encodings/0/bytes")?, || "layers are new".into())?;
    }
    let layer = number(&push("2", "kept:2", &[])?, "/encodings/0/bytes")?;
    require(shared[0] < layer / 50, || format!("{} bytes of a first image are said to be known", shared[0]))?;
    require(shared[1] > layer / 2 && shared[1] < layer, || format!("{} of {layer} bytes would be shared", shared[1]))?;
    let shown = home.output(&["push", &from("2"), "--as", "kept:3", "--no-publish"])?;
    let talk = String::from_utf8_lossy(&shown.stdout);
    require(talk.contains("opaque") && talk.contains("--recompress"), || format!("nothing of it in {talk}"))?;
    // Encoded again: only what changed is new, about what was told.
    let first = push("1", "again:1", &["--recompress"])?;
    let second = push("2", "again:2", &["--recompress"])?;
    same("the encoding", &second["encodings"][0]["encoding"], &json!("aligned-gzip/1"))?;
    same("what is said of what was done", &second["recompress"], &Value::Null)?;
    let saved = number(&second, "/bytes/image")? - number(&second, "/bytes/new")?;
    // It is an estimate: not every file compresses as well as the others.
    require(saved.abs_diff(shared[1]) < shared[1] / 4, || format!("{saved} bytes were shared, {} told", shared[1]))?;
    require(text(&second, "digest")? != digests[1], || "the digest stays".into())?;
    // A collection takes the first version's own pieces; what is left is used, what is gone is encoded again.
    for name in ["kept:1", "kept:2", "kept:3", "again:1"] {
        home.json(&["--offline", "rm", name])?;
    }
    for digest in [&digests[0], &digests[1], &text(&first, "digest")?] {
        for name in ["kept", "again"] {
            let _ = home.output(&["--offline", "rm", &format!("{name}@{digest}")])?;
        }
    }
    home.json(&["gc"])?;
    let back = push("1", "again:1", &["--recompress"])?;
    same("the digest after a collection", &text(&back, "digest")?, &text(&first, "digest")?)?;
    let new = number(&back, "/bytes/new")?;
    require(new > layer / 50 && new < layer / 2, || format!("{new} bytes of {layer} are new after a collection"))?;
    let checked = home.json(&["check", "--read-data"])?;
    same("the check", &checked["ok"], &json!(true))?;
    tools(lab, &home, &versions.old)?;
    fs::remove_dir_all(layout.dir)?;
    Ok(Figure::ok(format!("{saved} of {layer} bytes shared by --recompress, {} told before", shared[1])))
}

/// An aligned layer is an ordinary file for `gzip`, `zstd` and `tar`.
fn tools(lab: &Lab, home: &Home<'_>, archive: &Path) -> Result {
    let plain = fs::read(archive)?;
    let docker = format!("docker-archive:{}", lab.path("which.tar").display());
    let id = Versions::import(lab, archive, "which:1")?;
    lab.docker_output(&["save", "-o", &lab.path("which.tar").display().to_string(), "which:1"])?;
    for (compression, test) in [("gzip", "gzip -t"), ("zstd", "zstd -q -t"), ("none", "cat")] {
        let name = format!("tools-{compression}:1");
        let pushed = home.json(&["push", &docker, "--as", &name, "--compression", compression, "--no-publish"])?;
        same("the image ID", &text(&pushed, "image_id")?, &id)?;
        let out = Layout { dir: lab.path("which-out") };
        home.json(&["pull", &name, "--into", &format!("oci:{}", out.dir.display())])?;
        let manifest: Value = serde_json::from_slice(&out.read(&json!({ "digest": pushed["digest"] }))?)?;
        let blob = out.read(&manifest["layers"][0])?;
        let words: Vec<&str> = test.split(' ').collect();
        filter(lab, Command::new(words[0]).args(&words[1..]), &blob)?;
        let unpack = match compression {
            "gzip" => "gzip -dc",
            "zstd" => "zstd -q -dc",
            _ => "cat",
        };
        let words: Vec<&str> = unpack.split(' ').collect();
        let unpacked = filter(lab, Command::new(words[0]).args(&words[1..]), &blob)?;
        require(unpacked == plain, || format!("{unpack} makes something else of the layer"))?;
        let path = out.path(&text(&manifest["layers"][0], "digest")?).display().to_string();
        let listed = |archive: &str| filter(lab, Command::new("tar").args(["-taf", archive]), b"");
        let option = match compression {
            "gzip" => "-z",
            "zstd" => "--zstd",
            _ => "--no-auto-compress",
        };
        let found = filter(lab, Command::new("tar").args([option, "-tf", &path]), b"")?;
        require(found == listed(&archive.display().to_string())?, || "tar lists other files".into())?;
        fs::remove_dir_all(out.dir)?;
    }
    fs::remove_file(lab.path("which.tar"))?;
    forget(lab, &id)
}

fn bytes(object: &Value, pointer: &str) -> Result<f64> {
    let number = number(object, pointer)?;
    Ok(as_bytes(usize::try_from(number)?))
}

#[expect(clippy::cast_precision_loss, reason = "images of checks are small")]
fn as_bytes(count: usize) -> f64 {
    count as f64
}

//! Every source into every sink, and what the programs whose media these are find there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Figure;
use super::exchange::pipe;
use super::lab::{Home, Lab, Process, check_failure};
use super::media::{
    CONFIG, LAYER, Layout, MANIFEST, OciRegistry, Podman, docker_names, gzip, skopeo, skopeo_finds, tiny,
};
use super::site::{DOMAIN, Site, require, same, text};
use crate::shell::{Result, output};

/// The image that goes everywhere.
const IMAGE: &str = "tiny:1";

/// A place from which it is copied.
struct From {
    name: &'static str,
    spelling: String,
    /// What is piped into standard input, where the source is `-`.
    piped: Option<PathBuf>,
    /// The digest that must survive; for what has none, all get the same.
    digest: String,
}

/// Everything that the table needs.
struct Bench<'a> {
    lab: &'a Lab,
    home: Home<'a>,
    podman: Podman<'a>,
    registry: OciRegistry,
    layout: PathBuf,
    id: String,
    _service: Process,
    _site: Site,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> String {
        self.lab.path(name).display().to_string()
    }

    /// Runs a copy; the object that it prints, on whichever stream the sink leaves for it.
    fn copy(&self, from: &From, sink: &str, into: Option<&mut Command>) -> Result<Value> {
        let mut command = self.home.command(&["-o", "json", "cp", &from.spelling, sink]);
        if let Some(file) = &from.piped {
            command.stdin(fs::File::open(file)?);
        }
        let failed = |talk: &[u8]| format!("cp {} {sink}: {}", from.spelling, String::from_utf8_lossy(talk));
        let Some(reader) = into else {
            let output = command.output()?;
            require(output.status.success(), || failed(&output.stderr))?;
            return Ok(serde_json::from_slice(&output.stdout)?);
        };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let read = reader.stdin(child.stdout.take().ok_or("a piped output is there")?).output()?;
        let output = child.wait_with_output()?;
        require(output.status.success(), || failed(&output.stderr))?;
        require(read.status.success(), || failed(&read.stderr))?;
        let talk = String::from_utf8_lossy(&output.stderr);
        let line = talk.lines().rev().find(|line| line.starts_with('{')).ok_or("no object on standard error")?;
        Ok(serde_json::from_str(line)?)
    }

    fn docker_id(&self, name: &str) -> Result<String> {
        self.lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", name])
    }

    /// Takes the image out of the engine, so that it has to be loaded whole.
    fn forget(&self) -> Result {
        self.lab.docker_output(&["rmi", "-f", &self.id]).map(drop)
    }
}

/// Line 4: `cp` between any two of all sources and sinks.
pub(crate) fn matrix(lab: &Lab) -> Result<Figure> {
    let id = tiny(lab, IMAGE)?;
    let podman = Podman::new(lab)?;
    let service = podman.serve()?;
    let registry = OciRegistry::start(lab)?;
    let publisher = lab.home("matrix-a");
    publisher.json(&["init", "--domain", DOMAIN])?;
    let canonical = text(&publisher.json(&["push", IMAGE, "--no-publish"])?, "digest")?;
    let site = lab.serve(&publisher)?;
    let home = lab.visitor("matrix-b")?;
    home.json(&["init"])?;
    let layout = lab.path("m-layout");
    let bench = Bench { lab, home, podman, registry, layout, id, _service: service, _site: site };
    let sources = sources(&bench, &canonical)?;
    let sinks: [(&str, fn(&Bench<'_>, &From) -> Result<Value>); 9] = [
        ("docker-daemon", into_docker),
        ("podman", into_podman),
        ("oci", into_layout),
        ("oci-archive", into_oci_archive),
        ("docker-archive", into_docker_archive),
        ("docker", into_registry),
        ("-", into_stream),
        ("ipcr", into_ipcr),
        ("none", |bench, from| bench.copy(from, "none", None)),
    ];
    for from in &sources {
        for (sink, copy) in sinks {
            let failed = |error| format!("{} to {sink}: {error}", from.name);
            let copied = copy(&bench, from).map_err(failed)?;
            same("the digest", &text(&copied, "digest")?, &from.digest).map_err(failed)?;
            same("the image ID", &text(&copied, "image_id")?, &bench.id).map_err(failed)?;
        }
    }
    // What was added to one layout is all there, beside what was there before.
    let layout = Layout { dir: bench.layout.clone() };
    let expected: BTreeSet<String> = sources.iter().map(|from| from.name.to_owned()).chain(["before".into()]).collect();
    let listed = output(Command::new(lab.peer("umoci")?).args(["list", "--layout"]).arg(&layout.dir))?;
    same("what umoci lists", &listed.lines().map(str::to_owned).collect(), &expected)?;
    for from in &sources {
        let found = skopeo_finds(lab, &format!("oci:{}:{}", layout.dir.display(), from.name))?;
        same("what skopeo finds", &found, &(from.digest.clone(), bench.id.clone()))?;
    }
    bench.home.json(&["check", "--read-data"])?;
    bench.podman.output(&["rmi", "--all", "--force"])?;
    Ok(Figure::ok(format!("{} sources x {} sinks", sources.len(), sinks.len())))
}

fn sources(bench: &Bench<'_>, canonical: &str) -> Result<Vec<From>> {
    let lab = bench.lab;
    let at = |name: &str| lab.path(name);
    let saved = at("m-saved.tar");
    lab.docker_output(&["save", "-o", &saved.display().to_string(), IMAGE])?;
    bench.podman.output(&["load", "-q", "-i", &saved.display().to_string()])?;
    let podman = format!("localhost/{IMAGE}");
    let names = bench.podman.output(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    let found = names.lines().find(|name| name.ends_with(IMAGE)).ok_or("Podman has the image")?;
    bench.podman.output(&["tag", found, &podman])?;
    // Another digest than the one that ipcr would write.
    let (layout, archive) = (at("m-source"), at("m-source.tar"));
    let oci = format!("oci:{}:1", layout.display());
    add_saved(lab, &saved, &Layout::create(layout)?, "1", true)?;
    skopeo(lab, &["copy", "-q", &oci, &format!("oci-archive:{}:1", archive.display())])?;
    let remote = format!("docker://{}/team/tiny:1", bench.registry.host);
    skopeo(lab, &["copy", "-q", "--dest-tls-verify=false", &oci, &remote])?;
    let (digest, id) = skopeo_finds(lab, &oci)?;
    same("the image ID in the layout", &id, &bench.id)?;
    require(digest != canonical, || "gzip compresses like ipcr, so that nothing is shown".into())?;
    bench.home.json(&["push", &oci, "--as", "own:1", "--no-publish"])?;
    // A layout that others were in before, by umoci.
    let shown = bench.layout.display().to_string();
    let umoci = |args: &[&str]| output(Command::new(lab.peer("umoci")?).args(args));
    umoci(&["init", "--layout", &shown])?;
    umoci(&["new", "--image", &format!("{shown}:before")])?;

    let from = |name, spelling: String, kept: bool| From {
        name,
        spelling,
        piped: None,
        digest: if kept { digest.clone() } else { canonical.to_owned() },
    };
    let piped = |name, file: &PathBuf, kept| From { piped: Some(file.clone()), ..from(name, "-".into(), kept) };
    Ok(vec![
        from("docker-daemon", format!("docker-daemon:{IMAGE}"), false),
        from("podman", format!("podman:{podman}"), false),
        from("oci", oci, true),
        from("oci-archive", format!("oci-archive:{}", archive.display()), true),
        from("docker-archive", format!("docker-archive:{}", saved.display()), false),
        from("docker", remote, true),
        piped("saved-stream", &saved, false),
        piped("oci-stream", &archive, true),
        from("ipcr-own", "ipcr:own:1".into(), true),
        from("ipcr-other", format!("{DOMAIN}/{IMAGE}"), false),
    ])
}

fn into_docker(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let name = format!("m/{}:1", from.name);
    if from.name != "docker-daemon" {
        bench.forget()?;
    }
    let copied = bench.copy(from, &format!("docker-daemon:{name}"), None)?;
    same("the ID in Docker", &bench.docker_id(&name)?, &bench.id)?;
    bench.lab.docker_output(&["tag", &name, IMAGE])?;
    Ok(copied)
}

fn into_podman(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let name = format!("localhost/m/{}:1", from.name);
    if from.name != "podman" {
        bench.podman.output(&["rmi", "-f", &bench.id])?;
    }
    let copied = bench.copy(from, &format!("podman:{name}"), None)?;
    same("the ID in Podman", &bench.podman.id(&name)?, &bench.id)?;
    bench.podman.output(&["tag", &name, &format!("localhost/{IMAGE}")])?;
    Ok(copied)
}

fn into_layout(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let place = format!("oci:{}:{}", bench.layout.display(), from.name);
    let copied = bench.copy(from, &place, None)?;
    same("what skopeo finds", &skopeo_finds(bench.lab, &place)?, &(from.digest.clone(), bench.id.clone()))?;
    Ok(copied)
}

fn into_oci_archive(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let place = format!("oci-archive:{}:some/name:1", bench.path("m-out.tar"));
    let copied = bench.copy(from, &place, None)?;
    same("what skopeo finds", &skopeo_finds(bench.lab, &place)?, &(from.digest.clone(), bench.id.clone()))?;
    Ok(copied)
}

fn into_docker_archive(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let (file, name) = (bench.path("m-docker.tar"), format!("m/archive-{}:1", from.name));
    let copied = bench.copy(from, &format!("docker-archive:{file}:{name}"), None)?;
    let (_, found) = skopeo_finds(bench.lab, &format!("docker-archive:{file}"))?;
    same("the ID that skopeo finds", &found, &bench.id)?;
    bench.forget()?;
    bench.lab.docker_output(&["load", "-i", &file])?;
    same("the ID in Docker", &bench.docker_id(&name)?, &bench.id)?;
    bench.lab.docker_output(&["tag", &name, IMAGE])?;
    Ok(copied)
}

fn into_registry(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let place = format!("docker://{}/copies/{}:1", bench.registry.host, from.name);
    let copied = bench.copy(from, &place, None)?;
    same("what skopeo finds", &skopeo_finds(bench.lab, &place)?, &(from.digest.clone(), bench.id.clone()))?;
    Ok(copied)
}

fn into_stream(bench: &Bench<'_>, from: &From) -> Result<Value> {
    // Docker takes the image out of the stream under the name that it has, or under none; here its ID counts.
    let keep = from.name == "docker-daemon";
    if !keep {
        bench.forget()?;
    }
    let copied = bench.copy(from, "-", Some(&mut bench.lab.docker(&["load"])?))?;
    same("the ID in Docker", &bench.docker_id(&bench.id)?, &bench.id)?;
    bench.lab.docker_output(&["tag", &bench.id, IMAGE])?;
    Ok(copied)
}

fn into_ipcr(bench: &Bench<'_>, from: &From) -> Result<Value> {
    let name = format!("copies/{}:1", from.name);
    let copied = bench.copy(from, &format!("ipcr:{name}"), None)?;
    let inspected = bench.home.json(&["inspect", &name])?;
    same("the digest in the registry", &text(&inspected, "digest")?, &from.digest)?;
    same("the ID in the registry", &text(&inspected["manifests"][0], "image_id")?, &bench.id)?;
    let out = bench.path("m-own");
    bench.home.json(&["pull", &name, "--into", &format!("oci:{out}:1")])?;
    let found = skopeo_finds(bench.lab, &format!("oci:{out}:1"))?;
    same("what skopeo finds", &found, &(from.digest.clone(), bench.id.clone()))?;
    fs::remove_dir_all(out)?;
    Ok(copied)
}

/// Line 4: several images in one medium.
pub(crate) fn several(lab: &Lab) -> Result<Figure> {
    let images = ["tiny:1", "second/tiny:2"];
    let ids = [tiny(lab, images[0])?, tiny(lab, images[1])?];
    let home = lab.home("several");
    home.json(&["init"])?;
    let saved = lab.path("several.tar");
    let file = saved.display().to_string();
    lab.docker_output(&["save", "-o", &file, images[0], images[1]])?;
    let layout = lab.path("several-layout");
    let made = Layout::create(layout.clone())?;
    for (image, name) in images.iter().zip(["one", "two"]) {
        let one = lab.path("several-one.tar");
        lab.docker_output(&["save", "-o", &one.display().to_string(), image])?;
        add_saved(lab, &one, &made, name, true)?;
        fs::remove_file(one)?;
    }
    let packed = lab.path("several-oci.tar");
    output(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&packed).arg("."))?;
    let media = [
        (format!("docker-archive:{file}"), images),
        (format!("oci:{}", layout.display()), ["one", "two"]),
        (format!("oci-archive:{}", packed.display()), ["one", "two"]),
    ];
    for (medium, names) in &media {
        for command in [&["push", medium, "--as", "x:1"][..], &["cp", medium, "none"], &["push", medium, "--dry-run"]] {
            lists(&home.fails(2, command)?, names)?;
        }
        for (name, id) in names.iter().zip(&ids) {
            let pushed = home.json(&["push", &format!("{medium}:{name}"), "--as", "chosen:1", "--no-publish"])?;
            same("the chosen image", &text(&pushed, "image_id")?, id)?;
        }
        home.fails(3, &["push", &format!("{medium}:third"), "--as", "x:1"])?;
    }
    for (file, names) in [(&saved, images), (&packed, ["one", "two"])] {
        let mut command = home.command(&["-o", "json", "push", "-", "--as", "x:1"]);
        let output = command.stdin(fs::File::open(file)?).output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        lists(&check_failure("push -", 2, output.status.code(), &talk)?, &names)?;
    }
    // The names that archives give; what is only a tag gives none.
    let pushed = home.json(&["push", &format!("docker-archive:{file}:{}", images[1]), "--no-publish"])?;
    same("the name from the archive", &text(&pushed, "reference")?.contains("/second/tiny:2@"), &true)?;
    let error = home.fails(2, &["push", &format!("oci:{}:one", layout.display())])?;
    let hint = error["hint"].as_str().unwrap_or_default();
    require(hint.contains("--as"), || format!("the hint is {hint:?}"))?;
    for path in [saved, packed] {
        fs::remove_file(path)?;
    }
    fs::remove_dir_all(layout)?;
    Ok(Figure::ok("listed, chosen, and refused without a choice"))
}

fn lists(error: &Value, names: &[&str]) -> Result {
    let message = error.to_string();
    let missing = names.iter().find(|name| !message.contains(**name));
    require(missing.is_none(), || format!("{missing:?} is not listed in {message}"))
}

/// Line 4: what images are called where they arrive.
pub(crate) fn names(lab: &Lab) -> Result<Figure> {
    let id = tiny(lab, IMAGE)?;
    let publisher = lab.home("names-a");
    publisher.json(&["init", "--domain", DOMAIN])?;
    let pushed = publisher.json(&["push", IMAGE, "--as", "team/tiny:1", "--no-publish"])?;
    let (root, folder, digest) = (text(&pushed, "root")?, text(&pushed, "cid")?, text(&pushed, "digest")?);
    // Without a node anywhere else, own images come back as they were pushed.
    forget(lab, &id)?;
    publisher.json(&["pull", "team/tiny:1"])?;
    same("the own name", &names_of(lab, &id)?, &BTreeSet::from(["team/tiny:1".to_owned()]))?;
    let site = lab.serve(&publisher)?;
    let visitor = lab.visitor("names-b")?.with(&["--peer", &site.address]);
    let (ipns, did) = (&site.ipns, &site.did);
    let table = [
        (format!("{DOMAIN}/team/tiny:1"), Some(format!("{DOMAIN}/team/tiny:1"))),
        (format!("did:web:{DOMAIN}/team/tiny:1"), Some(format!("{DOMAIN}/team/tiny:1"))),
        (format!("{ipns}/team/tiny:1"), Some(format!("ipns.localhost/{ipns}/team/tiny:1"))),
        (format!("{did}/team/tiny:1"), Some(format!("ipns.localhost/{ipns}/team/tiny:1"))),
        (format!("/ipns/{ipns}/team/tiny:1"), Some(format!("ipns.localhost/{ipns}/team/tiny:1"))),
        (format!("ipfs/{root}/team/tiny:1"), Some(format!("ipfs.localhost/{root}/team/tiny:1"))),
        (format!("ipfs/{folder}"), Some(format!("ipfs.localhost/{folder}:latest"))),
        (format!("{DOMAIN}/team/tiny@{digest}"), None),
        (format!("{DOMAIN}/team/tiny:1@{digest}"), None),
        (format!("{ipns}/team/tiny@{digest}"), None),
    ];
    for (reference, name) in &table {
        forget(lab, &id)?;
        let pulled = visitor.json(&["pull", reference])?;
        same(&format!("the name of {reference}"), &names_of(lab, &id)?, &name.iter().cloned().collect())?;
        same("the ID", &text(&pulled, "image_id")?, &id)?;
        let place = name.clone().unwrap_or_else(|| id.clone());
        same("the sink that is told", &text(&pulled, "sink")?, &place)?;
        let same_digest = text(&pulled, "reference")?.ends_with(&digest);
        require(same_digest, || format!("{reference} is told as {}", pulled["reference"]))?;
    }
    forget(lab, &id)?;
    for (given, name) in [("mine/x", "mine/x:latest"), ("localhost:5000/y:2", "localhost:5000/y:2")] {
        visitor.json(&["pull", &format!("{DOMAIN}/team/tiny:1"), "--as", given])?;
        require(names_of(lab, &id)?.contains(name), || format!("--as {given} did not make {name}"))?;
    }
    for bad in ["UPPER/case:1", "a b", "x@sha256:00", "", "x:y:z"] {
        visitor.fails(2, &["pull", &format!("{DOMAIN}/team/tiny:1"), "--as", bad])?;
    }
    // In files it is the name that the engine would give.
    let file = lab.path("names.tar").display().to_string();
    visitor.json(&["pull", &format!("{DOMAIN}/team/tiny:1"), "--into", &format!("docker-archive:{file}")])?;
    forget(lab, &id)?;
    lab.docker_output(&["load", "-i", &file])?;
    same("the name in an archive", &names_of(lab, &id)?, &BTreeSet::from([format!("{DOMAIN}/team/tiny:1")]))?;
    fs::remove_file(file)?;
    Ok(Figure::ok(format!("{} references", table.len() + 1)))
}

pub(super) fn forget(lab: &Lab, id: &str) -> Result {
    if lab.docker_output(&["image", "inspect", id]).is_ok() {
        lab.docker_output(&["rmi", "-f", id])?;
    }
    Ok(())
}

/// The names that the engine has for an image, and no others than were there before it.
fn names_of(lab: &Lab, id: &str) -> Result<BTreeSet<String>> {
    let listed = lab.docker_output(&["image", "inspect", "-f", "{{range .RepoTags}}{{.}}\n{{end}}", id])?;
    let names: BTreeSet<String> = listed.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let all = docker_names(lab)?;
    require(names.is_subset(&all), || format!("{names:?} is not in {all:?}"))?;
    Ok(names)
}

/// Line 4: archives that other programs write.
pub(crate) fn writers(lab: &Lab) -> Result<Figure> {
    let id = tiny(lab, IMAGE)?;
    let podman = Podman::new(lab)?;
    let home = lab.home("writers");
    home.json(&["init"])?;
    let saved = lab.path("w-docker.tar");
    lab.docker_output(&["save", "-o", &saved.display().to_string(), IMAGE])?;
    podman.output(&["load", "-q", "-i", &saved.display().to_string()])?;
    let linked = lab.path("w-podman.tar");
    let plain = ["save", "-q", "--format", "docker-archive", "-o"];
    podman.output(&[&plain[..], &[&linked.display().to_string(), &id]].concat())?;
    let members = output(Command::new("tar").arg("-tvf").arg(&linked))?;
    require(members.contains(" -> "), || format!("Podman wrote no links: {members}"))?;
    let unpacked = lab.path("w-folder");
    fs::create_dir_all(&unpacked)?;
    output(Command::new("tar").arg("-C").arg(&unpacked).arg("-xf").arg(&saved))?;
    // As Docker from 25 on saves from its classic store: a layout whose layers are not compressed, and manifest.json.
    let (layout, modern) = (lab.path("w-modern"), lab.path("w-modern.tar"));
    modern_docker(lab, &saved, layout.clone())?;
    output(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&modern).arg("."))?;
    let mut digests = BTreeSet::new();
    let push = |home: &Home<'_>, source: &str, stream: Option<Command>| {
        let args = ["-o", "json", "push", source, "--as", "w:1", "--no-publish"];
        let printed = match stream {
            None => return home.json(&args[2..]),
            Some(mut writer) => pipe(&mut writer, &mut home.command(&args))?,
        };
        Result::Ok(serde_json::from_str(&printed)?)
    };
    let cat = |file: &PathBuf| {
        let mut command = Command::new("cat");
        command.arg(file);
        command
    };
    let packed = |program: &str, file: &PathBuf| {
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        command
    };
    for (place, stream) in [
        (format!("docker-archive:{}", saved.display()), None),
        (format!("docker-archive:{}", linked.display()), None),
        (format!("docker-archive:{}", modern.display()), None),
        (format!("oci-archive:{}", modern.display()), None),
        (format!("oci:{}", unpacked.display()), None),
        (format!("oci:{}", layout.display()), None),
        ("-".into(), Some(cat(&saved))),
        ("-".into(), Some(cat(&linked))),
        ("-".into(), Some(cat(&modern))),
        ("-".into(), Some(packed("gzip", &saved))),
        ("-".into(), Some(packed("zstd", &linked))),
        ("-".into(), Some(packed("gzip", &modern))),
    ] {
        let pushed = push(&home, &place, stream).map_err(|error| format!("{place}: {error}"))?;
        same(&format!("the image ID from {place}"), &text(&pushed, "image_id")?, &id)?;
        digests.insert(text(&pushed, "digest")?);
    }
    same("the digests of what has no manifest of its own", &digests.len(), &1)?;
    // A compressed file is an archive like any other.
    let squeezed = lab.path("w.tar.gz");
    fs::write(&squeezed, packed("gzip", &saved).output()?.stdout)?;
    let pushed =
        home.json(&["push", &format!("docker-archive:{}", squeezed.display()), "--as", "w:1", "--no-publish"])?;
    same("the digest of a compressed file", &BTreeSet::from([text(&pushed, "digest")?]), &digests)?;
    podman.output(&["rmi", "-f", &id])?;
    for path in [saved, linked, modern, squeezed] {
        fs::remove_file(path)?;
    }
    for path in [unpacked, layout] {
        fs::remove_dir_all(path)?;
    }
    Ok(Figure::ok("Docker, Podman, links, layouts with manifest.json, gzip, zstd"))
}

/// Adds the image of a `docker save` archive to a layout under `name`, configuration and layers as they are, or the layers
/// compressed; returns the layers' descriptors and the configuration's.
fn add_saved(lab: &Lab, saved: &Path, layout: &Layout, name: &str, compress: bool) -> Result<(Value, Vec<Value>)> {
    let old = lab.path("m-old");
    fs::create_dir_all(&old)?;
    output(Command::new("tar").arg("-C").arg(&old).arg("-xf").arg(saved))?;
    let list: Value = serde_json::from_slice(&fs::read(old.join("manifest.json"))?)?;
    let config = layout.blob(CONFIG, &fs::read(old.join(text(&list[0], "Config")?))?)?;
    let mut layers = Vec::new();
    for layer in list[0]["Layers"].as_array().into_iter().flatten() {
        let bytes = fs::read(old.join(layer.as_str().ok_or("layers are paths")?))?;
        layers.push(if compress {
            layout.blob(&format!("{LAYER}+gzip"), &gzip(lab, &bytes)?)?
        } else {
            layout.blob(LAYER, &bytes)?
        });
    }
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    layout.list(&layout.document(MANIFEST, &manifest)?, Some(name))?;
    fs::remove_dir_all(old)?;
    Ok((config, layers))
}

/// Makes what newer engines save from their classic stores out of what an older one saved.
fn modern_docker(lab: &Lab, saved: &Path, dir: PathBuf) -> Result {
    let layout = Layout::create(dir)?;
    let (config, layers) = add_saved(lab, saved, &layout, "1", false)?;
    let path = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap_or("").replace(':', "/"));
    let layers: Vec<String> = layers.iter().map(path).collect();
    let archive = json!([{ "Config": path(&config), "RepoTags": [IMAGE], "Layers": layers }]);
    Ok(fs::write(layout.dir.join("manifest.json"), archive.to_string())?)
}

//! The measured operations, one round after the other, each with fresh homes, repositories and registries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Operation::{
    self, DockerLoad, DockerLoadUpdate, DockerPull, DockerPullUpdate, DockerPullUpdateFar, DockerPush, DockerPushAgain,
    DockerPushUpdate, DockerSave, DockerSaveRebuilt, HashAndCopy, IpcrPull, IpcrPullAgain, IpcrPullLayout,
    IpcrPullStore, IpcrPullUpdate, IpcrPullUpdateFar, IpcrPullUpdateFarLayout, IpcrPush, IpcrPushAgain, IpcrPushLayout,
    IpcrPushRebuilt, IpcrPushUpdate, IpcrPushZstd, IpfsAdd, IpfsGet, IpfsGetFromIpcr, SaveAndEncode, SkopeoCopy,
};
use crate::accept::exchange::Kubo;
use crate::accept::lab::{Home, Lab, disk_usage};
use crate::accept::registry::Registry;
use crate::accept::site::{DOMAIN, IMAGE_MIB, Site, number, require, text};
use crate::accept::versions::Versions;
use crate::line::{Line, Quality};
use crate::measure::{self, Cost, Helpers};
use crate::peers;
use crate::shell::{Result, output};

/// What all rounds found.
pub(super) type Results = BTreeMap<Operation, Vec<Cost>>;

/// The line to those who are far away: 100 Mbit in a second, 20 ms each way.
const FAR: Quality = Quality { delay: Duration::from_millis(20), up: Some(100e6 / 8.0), down: Some(100e6 / 8.0) };
/// Bytes of the layer that a rebuilt image has anew.
const REBUILT: usize = 16 << 20;

/// Everything that was found.
pub(super) struct Found {
    pub(super) results: Results,
    /// What operations work on that do not work on the image.
    pub(super) sizes: BTreeMap<Operation, u64>,
    /// What else there is to say.
    pub(super) words: String,
}

/// Runs so many rounds.
pub(super) fn run(lab: &Lab, times: u32, pair: Option<&(PathBuf, PathBuf)>) -> Result<Found> {
    let id = lab.image("app:1", IMAGE_MIB)?;
    let archive = lab.path("app.tar");
    output(&mut lab.docker(&["save", "-o", &archive.display().to_string(), "app:1"])?)?;
    let versions = match pair {
        Some((old, new)) => Versions::of(lab, old, new),
        None => Versions::make(lab, "bench-versions", IMAGE_MIB)?,
    };
    let layers = unpack(lab, &archive)?;
    let mut sizes = BTreeMap::new();
    for operation in [DockerSaveRebuilt, IpcrPushRebuilt] {
        sizes.insert(operation, (IMAGE_MIB << 20) + REBUILT as u64);
    }
    let update = fs::metadata(&versions.new)?.len();
    for operation in [
        DockerPushUpdate,
        IpcrPushUpdate,
        DockerLoadUpdate,
        DockerPullUpdate,
        IpcrPullUpdate,
        DockerPullUpdateFar,
        IpcrPullUpdateFar,
        IpcrPullUpdateFarLayout,
    ] {
        sizes.insert(operation, update);
    }
    let mut round = Round { lab, id, engine: lab.engine_id(), results: Results::new(), sizes, rates: Vec::new() };
    for number in 1..=times {
        eprintln!("round {number} of {times}");
        round.rebuild()?;
        round.push()?;
        round.encode(&layers)?;
        round.layout()?;
        round.pull(&archive)?;
        round.update(&versions)?;
    }
    let middle = |operation, of: fn(&Cost) -> Option<f64>| {
        super::median(&round.results[&operation], |cost| of(cost).unwrap_or(f64::NAN))
    };
    let wire = |operation| middle(operation, |cost| cost.wire) / 1e6;
    let words = format!(
        "`docker save` gives its first byte after {:.2} s. One core encodes {:.0} MB/s. Over the line of an update came {:.1} MB for \
         `docker pull`, {:.1} MB for `ipcr pull`.",
        middle(DockerSave, |cost| cost.first_byte),
        super::median(&round.rates, |rate| *rate) / 1e6,
        wire(DockerPullUpdateFar),
        wire(IpcrPullUpdateFar),
    );
    Ok(Found { results: round.results, sizes: round.sizes, words })
}

struct Round<'a> {
    lab: &'a Lab,
    /// The image's ID.
    id: String,
    engine: Option<u32>,
    results: Results,
    sizes: BTreeMap<Operation, u64>,
    /// How fast one core encodes, in bytes a second.
    rates: Vec<f64>,
}

impl Round<'_> {
    fn note(&mut self, operation: Operation, command: &mut Command, helpers: Helpers<'_>) -> Result {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.note_output(operation, command, helpers)
    }

    /// The same, but what is done with the output is the caller's affair.
    fn note_output(&mut self, operation: Operation, command: &mut Command, helpers: Helpers<'_>) -> Result {
        // What was written before is not written at the cost of this.
        super::blocks::settle()?;
        let cost = measure::run(command, helpers)?;
        eprintln!("  {operation:?}: {:.2} s", cost.seconds);
        self.results.entry(operation).or_default().push(cost);
        Ok(())
    }

    /// Notes what came over a line while the last command ran.
    fn note_wire(&mut self, operation: Operation, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "an image is small enough")]
        let bytes = bytes as f64;
        eprintln!("    {:.1} MB came over the line", bytes / 1e6);
        if let Some(cost) = self.results.get_mut(&operation).and_then(|costs| costs.last_mut()) {
            cost.wire = Some(bytes);
        }
    }

    /// What the engine does for its own client counts as the client's.
    fn docker(&mut self, operation: Operation, args: &[&str], registry: Option<&Registry>) -> Result {
        let own = self.beside(registry);
        self.note(operation, &mut self.lab.docker(args)?, Helpers { own: &own, engine: None })
    }

    fn beside(&self, registry: Option<&Registry>) -> Vec<u32> {
        self.engine.into_iter().chain(registry.map(|registry| registry.service.0.id())).collect()
    }

    /// An empty registry in the home of the publisher.
    fn publisher(&self) -> Result<Home<'_>> {
        let home = self.lab.home("bench-a");
        fresh(&home.dir)?;
        home.json(&["init", "--domain", DOMAIN])?;
        Ok(home)
    }

    /// An image of which another build is known: all layers but the last are the same.
    fn rebuild(&mut self) -> Result {
        let lab = self.lab;
        for name in ["re:1", "re:2"] {
            lab.child_of(name, "app:1", REBUILT)?;
        }
        let own = self.beside(None);
        let save = &mut lab.docker(&["save", "re:2"])?;
        self.note_output(DockerSaveRebuilt, save.stdout(Stdio::piped()), Helpers { own: &own, engine: None })?;
        let home = lab.home("bench-a");
        self.publisher()?.json(&["push", "re:1", "--no-publish"])?;
        let helpers = Helpers { own: &[], engine: self.engine };
        self.note(IpcrPushRebuilt, &mut home.command(&["-q", "push", "re:2", "--no-publish"]), helpers)?;
        for name in ["re:1", "re:2"] {
            lab.docker_output(&["rmi", "-f", name])?;
        }
        Ok(())
    }

    /// The least that a push can take: what the engine needs for its first byte, and then compression by all cores.
    fn encode(&mut self, layers: &[PathBuf]) -> Result {
        let program = peers::target_dir(&self.lab.root).join("release/examples/encode");
        let told: Value = serde_json::from_str(&output(Command::new(program).args(layers))?)?;
        let field = |name: &str| told[name].as_f64().ok_or_else(|| format!("no {name} in {told}"));
        let (bytes, rate) = (field("bytes")?, field("bytes")? / field("seconds")?);
        self.rates.push(rate);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let saved = self.results[&DockerSave].last().and_then(|cost| cost.first_byte).ok_or("docker saved nothing")?;
        #[expect(clippy::cast_precision_loss, reason = "there are few cores")]
        let seconds = saved + bytes / (cores as f64 * rate);
        eprintln!("  first byte after {saved:.2} s, {:.0} MB/s by one core: {seconds:.2} s", rate / 1e6);
        self.results.entry(SaveAndEncode).or_default().push(Cost { seconds, ..Cost::default() });
        Ok(())
    }

    /// From the engine into a registry, a home, a repository. From the registry into a layout, which stays.
    fn push(&mut self) -> Result {
        let lab = self.lab;
        let registry = Registry::start(lab, "registry")?;
        let name = format!("{}/app:1", registry.host);
        let own = self.beside(None);
        let save = &mut lab.docker(&["save", "app:1"])?;
        self.note_output(DockerSave, save.stdout(Stdio::piped()), Helpers { own: &own, engine: None })?;
        lab.docker_output(&["tag", "app:1", &name])?;
        self.docker(DockerPush, &["push", "-q", &name], Some(&registry))?;
        self.docker(DockerPushAgain, &["push", "-q", &name], Some(&registry))?;
        self.forget()?;
        self.docker(DockerPull, &["pull", "-q", &name], Some(&registry))?;
        lab.docker_output(&["tag", &name, "app:1"])?;
        lab.docker_output(&["rmi", &name])?;
        let layout = lab.path("bench-layout");
        fresh(&layout)?;
        let mut skopeo = Command::new(lab.peer("skopeo")?);
        skopeo.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}")]);
        skopeo.arg(format!("oci:{}:1", layout.display()));
        self.note(SkopeoCopy, &mut skopeo, Helpers { own: &[registry.service.0.id()], engine: None })?;
        drop(registry);

        let helpers = Helpers { own: &[], engine: self.engine };
        let home = lab.home("bench-a");
        self.publisher()?;
        let zstd = ["-q", "push", "app:1", "--compression", "zstd", "--no-publish"];
        self.note(IpcrPushZstd, &mut home.command(&zstd), helpers)?;
        self.publisher()?;
        self.note(IpcrPush, &mut home.command(&["-q", "push", "app:1", "--no-publish"]), helpers)?;
        self.note(IpcrPushAgain, &mut home.command(&["-q", "push", "app:1", "--no-publish"]), helpers)
    }

    /// Out of a layout with manifests, whose layers are kept.
    fn layout(&mut self) -> Result {
        let lab = self.lab;
        let (layout, copy) = (lab.path("bench-layout"), lab.path("bench-copy"));
        for operation in [HashAndCopy, IpcrPushLayout] {
            self.sizes.insert(operation, disk_usage(&layout)?);
        }
        let script = "find \"$0\" -type f -exec sha256sum {} + && cp -r \"$0\" \"$1\"";
        let mut tools = Command::new("sh");
        self.note(HashAndCopy, tools.args(["-c", script]).args([&layout, &copy]), Helpers::default())?;
        fs::remove_dir_all(copy)?;
        let home = lab.home("bench-c");
        fresh(&home.dir)?;
        home.json(&["init"])?;
        let from = format!("oci:{}:1", layout.display());
        let push = ["-q", "push", &from, "--as", "app:1", "--no-publish"];
        self.note(IpcrPushLayout, &mut home.command(&push), Helpers::default())?;
        fs::remove_dir_all(&home.dir)?;
        Ok(fs::remove_dir_all(layout)?)
    }

    /// Out of all of them, into the engine or the file system.
    fn pull(&mut self, archive: &Path) -> Result {
        let lab = self.lab;
        self.forget()?;
        self.docker(DockerLoad, &["load", "-q", "-i", &archive.display().to_string()], None)?;

        let site = lab.serve(&lab.home("bench-a"))?;
        let own = [site.process.0.id()];
        let engine = Helpers { own: &own, engine: self.engine };
        let plain = Helpers { own: &own, engine: None };
        let reference = format!("{DOMAIN}/app:1");
        self.forget()?;
        let home = lab.visitor("bench-b")?;
        self.note(IpcrPull, &mut home.command(&["-q", "pull", &reference]), engine)?;
        self.note(IpcrPullAgain, &mut home.command(&["-q", "pull", &reference]), engine)?;
        lab.docker_output(&["tag", &reference, "app:1"])?;
        lab.docker_output(&["rmi", &reference])?;
        let home = lab.visitor("bench-b")?;
        self.note(IpcrPullStore, &mut home.command(&["-q", "pull", &reference, "--into", "none"]), plain)?;
        let home = lab.visitor("bench-b")?;
        let (layout, folder) = (lab.path("bench-layout"), lab.path("bench-folder"));
        fresh(&layout)?;
        let into = format!("oci:{}", layout.display());
        self.note(IpcrPullLayout, &mut home.command(&["-q", "pull", &reference, "--into", &into]), plain)?;
        fs::remove_dir_all(&layout)?;

        let cid = text(&home.json(&["resolve", &reference])?, "cid")?;
        fresh(&folder)?;
        let out = folder.display().to_string();
        let kubo = Kubo::start(lab, "bench-kubo-a")?;
        kubo.output(&["swarm", "connect", &site.address])?;
        let both = [own[0], kubo.id()];
        let get = ["get", "-o", &out, &format!("/ipfs/{cid}")];
        self.note(IpfsGetFromIpcr, &mut kubo.command(&get)?, Helpers { own: &both, engine: None })?;
        drop(site);

        // The very same blocks, so that nothing but who gives them differs.
        kubo.output(&["pin", "add", &cid])?;
        fs::remove_dir_all(&folder)?;
        let taker = Kubo::start(lab, "bench-kubo-b")?;
        taker.output(&["swarm", "connect", &kubo.address()?])?;
        let both = [kubo.id(), taker.id()];
        self.note(IpfsGet, taker.command(&get)?.stderr(Stdio::null()), Helpers { own: &both, engine: None })?;
        drop((kubo, taker));
        fs::remove_dir_all(lab.path("bench-kubo-a"))?;

        let kubo = Kubo::start(lab, "bench-kubo-a")?;
        let add = ["add", "-r", "-Q", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", &out];
        self.note(IpfsAdd, kubo.command(&add)?.stderr(Stdio::null()), Helpers { own: &[kubo.id()], engine: None })?;
        drop(kubo);
        for name in ["bench-kubo-a", "bench-kubo-b", "bench-folder", "bench-a", "bench-b"] {
            fs::remove_dir_all(lab.path(name))?;
        }
        Ok(())
    }

    /// The second version of an image, pushed by and pulled to those who have the first.
    fn update(&mut self, versions: &Versions) -> Result {
        let lab = self.lab;
        let registry = Registry::start(lab, "registry")?;
        let names: Vec<String> = ["1", "2"].iter().map(|tag| format!("{}/up:{tag}", registry.host)).collect();
        let mut ids = Vec::new();
        for (archive, name) in [&versions.old, &versions.new].into_iter().zip(&names) {
            ids.push(Versions::import(lab, archive, name)?);
        }
        lab.docker_output(&["push", "-q", &names[0]])?;
        self.docker(DockerPushUpdate, &["push", "-q", &names[1]], Some(&registry))?;
        let home = lab.home("bench-a");
        self.publisher()?;
        home.json(&["push", &names[0], "--as", "up:1", "--no-publish"])?;
        let helpers = Helpers { own: &[], engine: self.engine };
        let push = ["-q", "push", &names[1], "--as", "up:2", "--no-publish"];
        self.note(IpcrPushUpdate, &mut home.command(&push), helpers)?;

        let archive = lab.path("bench-update.tar").display().to_string();
        lab.docker_output(&["save", "-o", &archive, &names[1]])?;
        forget(lab, &ids[1])?;
        self.docker(DockerLoadUpdate, &["load", "-q", "-i", &archive], None)?;
        fs::remove_file(archive)?;
        forget(lab, &ids[1])?;
        self.docker(DockerPullUpdate, &["pull", "-q", &names[1]], Some(&registry))?;
        forget(lab, &ids[1])?;
        let line = Line::start(registry.host.rsplit(':').next().unwrap_or_default().parse()?, FAR)?;
        let far = format!("127.0.0.1:{}/up:2", line.port);
        self.docker(DockerPullUpdateFar, &["pull", "-q", &far], Some(&registry))?;
        self.note_wire(DockerPullUpdateFar, line.passed());
        forget(lab, &ids[1])?;
        drop(registry);
        let site = lab.serve(&home)?;
        let puller = lab.visitor("bench-b")?;
        let [old, new] = ["1", "2"].map(|tag| format!("{DOMAIN}/up:{tag}"));
        puller.json(&["pull", &old])?;
        let own = [site.process.0.id()];
        let helpers = Helpers { own: &own, engine: self.engine };
        self.note(IpcrPullUpdate, &mut puller.command(&["-q", "pull", &new]), helpers)?;
        forget(lab, &ids[1])?;
        let layout = lab.path("bench-layout");
        fresh(&layout)?;
        let into = format!("oci:{}", layout.display());
        let helpers = Helpers { own: &own, engine: None };
        self.pull_far(IpcrPullUpdateFarLayout, &site, &["--into", &into], helpers)?;
        fs::remove_dir_all(layout)?;
        self.pull_far(IpcrPullUpdateFar, &site, &[], Helpers { own: &own, engine: self.engine })?;
        drop(site);
        for id in &ids {
            lab.forget(id)?;
        }
        for name in ["bench-a", "bench-b"] {
            fs::remove_dir_all(lab.path(name))?;
        }
        Ok(())
    }

    /// The update, for one who has the first version and is far away now.
    fn pull_far(&mut self, operation: Operation, site: &Site, args: &[&str], helpers: Helpers<'_>) -> Result {
        let lab = self.lab;
        lab.find(site)?;
        let [old, new] = ["1", "2"].map(|tag| format!("{DOMAIN}/up:{tag}"));
        let whole = number(&lab.visitor("bench-c")?.json(&["pull", &old, "--into", "none"])?, "/bytes/fetched")?;
        let port = site.address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("it has a port")?;
        let line = Line::start(port, FAR)?;
        let dns = lab.dns(&[(&format!("_dnslink.{DOMAIN}"), &format!("dnslink=/ipns/{}", site.ipns))])?;
        let peer = line.lead(&site.address, port);
        let home = lab.home("bench-c").with(&["--dns", &format!("127.0.0.1:{dns}"), "--peer", &peer]);
        self.note(operation, home.command(&["-q", "pull", &new]).args(args), helpers)?;
        let passed = line.passed();
        require(passed > whole / 50, || format!("only {passed} bytes came over the line"))?;
        self.note_wire(operation, passed);
        Ok(fs::remove_dir_all(&home.dir)?)
    }

    /// Takes the image away from the engine.
    fn forget(&self) -> Result {
        forget(self.lab, &self.id)
    }
}

/// Takes an image away from the engine as if it had never had it.
///
/// ext4 does not give numbers of files again that were removed lately, and looks at each of them for each new file, as long as their
/// table is in memory (`recently_deleted` in its `ialloc.c`): an engine that has just removed an image needs twice as long to load it again.
fn forget(lab: &Lab, id: &str) -> Result {
    lab.forget(id)?;
    super::blocks::settle()?;
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "1") {
        eprintln!("  what the system remembers of removed files stays: {error}");
        return Ok(());
    }
    // Everything else is to be in memory, as it was.
    for program in ["docker", "docker-registry", "skopeo", "ipfs"] {
        warm(&lab.peer(program)?)?;
    }
    warm(&lab.ipcr)?;
    for entry in fs::read_dir(&lab.dir)? {
        let path = entry?.path();
        if !lab.is_engine(&path) {
            warm(&path)?;
        }
    }
    Ok(())
}

/// Reads a file, or all files in a folder, so that they are in memory.
pub(super) fn warm(path: &Path) -> Result {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            warm(&entry?.path())?;
        }
    } else if path.is_file() {
        std::io::copy(&mut fs::File::open(path)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// The layers of a saved image.
fn unpack(lab: &Lab, archive: &Path) -> Result<Vec<PathBuf>> {
    let dir = lab.path("bench-layers");
    fs::create_dir_all(&dir)?;
    output(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&dir))?;
    let folders = fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>()?;
    // The same layer twice is a link to the first.
    let layers = folders.iter().map(|folder| folder.path().join("layer.tar"));
    let layers: Vec<PathBuf> = layers.filter(|layer| layer.is_file() && !layer.is_symlink()).collect();
    require(!layers.is_empty(), || "a saved image has no layers".into())?;
    Ok(layers)
}

/// An empty place.
fn fresh(dir: &Path) -> Result {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

//! The measured operations, one round after the other, each with fresh homes, repositories and registries.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Operation::{
    self, DockerLoad, DockerPull, DockerPullUpdate, DockerPush, DockerPushAgain, DockerPushUpdate, DockerSave,
    IpcrPull, IpcrPullAgain, IpcrPullLayout, IpcrPullStore, IpcrPullUpdate, IpcrPush, IpcrPushAgain, IpcrPushUpdate,
    IpfsAdd, IpfsGet, IpfsGetFromIpcr,
};
use crate::accept::exchange::Kubo;
use crate::accept::lab::Lab;
use crate::accept::registry::Registry;
use crate::accept::site::{DOMAIN, IMAGE_MIB, number, text};
use crate::accept::versions::Versions;
use crate::measure::{self, Cost, Helpers};
use crate::shell::{Result, output};

/// What all rounds found.
pub(super) type Results = BTreeMap<Operation, Vec<Cost>>;

/// Runs so many rounds.
pub(super) fn run(lab: &Lab, times: u32) -> Result<Results> {
    let id = lab.image("app:1", IMAGE_MIB)?;
    let archive = lab.path("app.tar");
    output(&mut lab.docker(&["save", "-o", &archive.display().to_string(), "app:1"])?)?;
    let versions = Versions::make(lab, "bench-versions", IMAGE_MIB)?;
    let mut round = Round { lab, id, engine: lab.engine_id(), results: Results::new() };
    for number in 1..=times {
        eprintln!("round {number} of {times}");
        round.push()?;
        round.pull(&archive)?;
        round.update(&versions)?;
    }
    Ok(round.results)
}

struct Round<'a> {
    lab: &'a Lab,
    /// The image's ID.
    id: String,
    engine: Option<u32>,
    results: Results,
}

impl Round<'_> {
    fn note(&mut self, operation: Operation, command: &mut Command, helpers: Helpers<'_>) -> Result {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let cost = measure::run(command, helpers)?;
        eprintln!("  {operation:?}: {:.2} s", cost.seconds);
        self.results.entry(operation).or_default().push(cost);
        Ok(())
    }

    /// What the engine does for its own client counts as the client's.
    fn docker(&mut self, operation: Operation, args: &[&str], registry: Option<&Registry>) -> Result {
        let own: Vec<u32> = self.engine.into_iter().chain(registry.map(|registry| registry.service.0.id())).collect();
        self.note(operation, &mut self.lab.docker(args)?, Helpers { own: &own, engine: None })
    }

    /// From the engine into a registry, a home, a repository. The registry stays for the pull.
    fn push(&mut self) -> Result {
        let lab = self.lab;
        let registry = Registry::start(lab, "registry")?;
        let name = format!("{}/app:1", registry.host);
        self.docker(DockerSave, &["save", "app:1"], None)?;
        lab.docker_output(&["tag", "app:1", &name])?;
        self.docker(DockerPush, &["push", "-q", &name], Some(&registry))?;
        self.docker(DockerPushAgain, &["push", "-q", &name], Some(&registry))?;
        self.forget()?;
        self.docker(DockerPull, &["pull", "-q", &name], Some(&registry))?;
        lab.docker_output(&["tag", &name, "app:1"])?;
        lab.docker_output(&["rmi", &name])?;
        drop(registry);

        let home = lab.home("bench-a");
        fresh(&home.dir)?;
        home.json(&["init", "--domain", DOMAIN])?;
        let helpers = Helpers { own: &[], engine: self.engine };
        self.note(IpcrPush, &mut home.command(&["-q", "push", "app:1", "--no-publish"]), helpers)?;
        self.note(IpcrPushAgain, &mut home.command(&["-q", "push", "app:1", "--no-publish"]), helpers)
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
        fresh(&home.dir)?;
        home.json(&["init", "--domain", DOMAIN])?;
        home.json(&["push", &names[0], "--as", "up:1", "--no-publish"])?;
        let helpers = Helpers { own: &[], engine: self.engine };
        let push = ["-q", "push", &names[1], "--as", "up:2", "--no-publish"];
        self.note(IpcrPushUpdate, &mut home.command(&push), helpers)?;

        lab.forget(&ids[1])?;
        self.docker(DockerPullUpdate, &["pull", "-q", &names[1]], Some(&registry))?;
        lab.forget(&ids[1])?;
        drop(registry);
        let site = lab.serve(&home)?;
        let puller = lab.visitor("bench-b")?;
        let [old, new] = ["1", "2"].map(|tag| format!("{DOMAIN}/up:{tag}"));
        puller.json(&["pull", &old])?;
        let own = [site.process.0.id()];
        let helpers = Helpers { own: &own, engine: self.engine };
        self.note(IpcrPullUpdate, &mut puller.command(&["-q", "pull", &new]), helpers)?;
        let again = lab.visitor("bench-b")?;
        let whole = number(&again.json(&["pull", &old, "--into", "none"])?, "/bytes/fetched")?;
        let update = number(&again.json(&["pull", &new, "--into", "none"])?, "/bytes/fetched")?;
        eprintln!("  the first version fetches {whole} bytes, its update {update}");
        drop(site);
        for id in &ids {
            lab.forget(id)?;
        }
        for name in ["bench-a", "bench-b"] {
            fs::remove_dir_all(lab.path(name))?;
        }
        Ok(())
    }

    /// Takes the image away from the engine.
    fn forget(&self) -> Result {
        self.lab.forget(&self.id)
    }
}

/// An empty place.
fn fresh(dir: &Path) -> Result {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

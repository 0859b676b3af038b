//! Images as other programs write and read them: layouts, archives, streams, Kubo, registries of 2020.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Figure;
use super::lab::{Lab, Process, wait_for};
use super::media::{Containerd, Podman};
use super::site::{DOMAIN, number, require, same, text, warned};
use super::watched::{self, STALL};
use crate::shell::{Result, output, show};

/// Size of the image where the size does not matter, in MiB.
pub(super) const SMALL_MIB: u64 = 12;
/// The domain whose record of 2020 is not below `_dnslink`.
const BARE_DOMAIN: &str = "old.test";

/// Line 4: archives as streams and files, for and from Docker, Podman and containerd.
pub(crate) fn streams(lab: &Lab) -> Result<Figure> {
    let id = lab.image("small:1", SMALL_MIB)?;
    let home = lab.home("streams");
    home.json(&["init"])?;
    // docker save | ipcr push -
    let pushed =
        pipe(&mut lab.docker(&["save", "small:1"])?, &mut home.command(&["-o", "json", "push", "-", "--as", "s:1"]))?;
    same("the pushed image ID", text(&serde_json::from_str(&pushed)?, "image_id")?.as_str(), id.as_str())?;
    // ipcr pull --into docker-archive:F, docker load
    let file = lab.path("streams.tar");
    let archive = format!("docker-archive:{}", file.display());
    home.json(&["pull", "s:1", "--into", &archive, "--as", "s:file"])?;
    lab.docker_output(&["rmi", "-f", &id])?;
    lab.docker_output(&["load", "-i", &file.display().to_string()])?;
    same("the ID under its name", lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "s:file"])?.as_str(), &id)?;
    lab.docker_output(&["rmi", "-f", &id])?;
    // ipcr pull --into - | docker load
    pipe(&mut home.command(&["pull", "s:1", "--into", "-", "--as", "s:piped"]), &mut lab.docker(&["load"])?)?;
    same("the ID under its name", lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "s:piped"])?.as_str(), &id)?;
    // Podman both ways.
    let podman = Podman::new(lab)?;
    podman.output(&["load", "-i", &file.display().to_string()])?;
    let bare = id.trim_start_matches("sha256:");
    same("Podman's ID", podman.output(&["image", "inspect", "-f", "{{.Id}}", "s:file"])?.as_str(), bare)?;
    for form in ["docker-archive", "oci-archive"] {
        let name = format!("s:{form}");
        let mut save = podman.command(&["save", "--format", form, "s:file"])?;
        let pushed = pipe(&mut save, &mut home.command(&["-o", "json", "push", "-", "--as", &name]))?;
        same("Podman's ID in an archive", text(&serde_json::from_str(&pushed)?, "image_id")?.as_str(), id.as_str())?;
    }
    Containerd::start(lab)?.imports(&file.display().to_string(), "s:file")?;
    home.json(&["check", "--read-data"])?;
    fs::remove_file(file)?;
    Ok(Figure::ok("same image ID in Docker, Podman, containerd"))
}

/// Line 5: Kubo and plain tools read what ipcr publishes.
pub(crate) fn stock_recipe(lab: &Lab) -> Result<Figure> {
    let site = lab.site()?;
    let (_, id) = lab.publisher()?;
    let resolved = lab.visitor("recipe-b")?.json(&["resolve", &format!("{DOMAIN}/app:1")])?;
    let cid = text(&resolved, "cid")?;
    let kubo = Kubo::start(lab, "kubo")?;
    kubo.output(&["swarm", "connect", &site.address])?;
    let parent = lab.path("recipe");
    fs::create_dir_all(&parent)?;
    let folder = parent.join("app:1");
    let start = std::time::Instant::now();
    kubo.output(&["get", "-o", &folder.display().to_string(), &format!("/ipfs/{cid}")])?;
    let seconds = start.elapsed().as_secs_f64();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&folder).args(["-cf", "-", "."]);
    let mut bsdtar = Command::new(lab.peer("bsdtar")?);
    bsdtar.current_dir(&parent).args(["--strip-components", "1", "-cf", "-", "app:1"]);
    for packer in [&mut tar, &mut bsdtar] {
        lab.forget(&id)?;
        pipe(packer, &mut lab.docker(&["load"])?)?;
        same(
            "the ID under its name",
            lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "app:1"])?.as_str(),
            &id,
        )?;
    }
    fs::remove_dir_all(parent)?;
    Ok(Figure::ok(format!("same image ID, ipfs get {seconds:.1} s")))
}

/// Line 6: what the recipe of 2020 made is pulled like any other image, by every kind of name, and bytes never stop coming.
pub(crate) fn registry_of_2020(lab: &Lab) -> Result<Figure> {
    let id = lab.image("app:1", super::site::IMAGE_MIB)?;
    let kubo = Kubo::start(lab, "kubo2020")?;
    let registry = lab.path("2020");
    let folder = registry.join("app/tags/1");
    fs::create_dir_all(&folder)?;
    pipe(&mut lab.docker(&["save", "app:1"])?, Command::new("tar").arg("-C").arg(&folder).arg("-x"))?;
    let added =
        ["add", "-r", "-Q", "--cid-version=0", "--raw-leaves=false", "--chunker=size-262144", "--progress=false"];
    let cid = output(kubo.command(&added)?.arg(&registry))?;
    require(cid.starts_with("Qm"), || format!("Kubo made {cid}"))?;
    fs::remove_dir_all(registry)?;
    let address = kubo.address()?;
    lab.dns(&[(BARE_DOMAIN, &format!("dnslink=/ipfs/{cid}"))])?;
    let name = kubo.output(&["key", "gen", "--type=rsa", "--size=2048", "--ipns-base=b58mh", "old"])?;
    require(name.starts_with("Qm"), || format!("Kubo made the key {name}"))?;
    kubo.output(&["name", "publish", "--allow-offline", "--key=old", &format!("/ipfs/{cid}")])?;
    let (mut stall, mut times) = (0_f64, Vec::new());
    let by_cid = format!("ipfs/{cid}");
    for authority in [by_cid.as_str(), BARE_DOMAIN, name.as_str()] {
        // Each time into a home that knows nothing, so that everything has to come by that name.
        let visitor = lab.visitor("2020-b")?.with(&["--peer", &address]);
        let watched = watched::pull(&visitor, &[&format!("{authority}/app:1"), "--into", "none"])?;
        let pulled = &watched.result;
        same(&format!("the image ID by {authority}"), text(pulled, "image_id")?.as_str(), id.as_str())?;
        let fetched = number(pulled, "/bytes/fetched")?;
        require(fetched > 200 << 20, || format!("only {fetched} bytes were fetched by {authority}"))?;
        require(authority != BARE_DOMAIN || warned(pulled, "bare-domain").is_some(), || {
            format!("no warning of the bare domain: {}", pulled["warnings"])
        })?;
        require(watched.stall <= STALL, || format!("no bytes came by {authority} for {:.2} s", watched.stall))?;
        stall = stall.max(watched.stall);
        times.push(format!("{} MiB in {:.1} s", fetched >> 20, watched.seconds));
        fs::remove_dir_all(&visitor.dir)?;
    }
    let mut figure = Figure::at_most(stall, STALL, "s without bytes")?;
    figure.found.push_str(&format!("; by CID, domain and RSA name {}", times.join(", ")));
    Ok(figure)
}

/// Pipes one program into another; what the second prints, an error unless both succeed.
pub(crate) fn pipe(from: &mut Command, to: &mut Command) -> Result<String> {
    let line = format!("{} | {}", show(from), show(to));
    let failed = |error: std::io::Error| format!("{line}: {error}");
    let mut first = from.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let stream = first.stdout.take().ok_or("a piped output is there")?;
    let second = to.stdin(stream).stdout(Stdio::piped()).stderr(Stdio::piped()).output().map_err(failed)?;
    // The command keeps the reading end otherwise, and the first program could wait for ever.
    to.stdin(Stdio::null());
    let first = first.wait_with_output()?;
    for result in [&first, &second] {
        if !result.status.success() {
            let talk = String::from_utf8_lossy(&result.stderr);
            return Err(format!("{line} ended with {}: {}", result.status, talk.trim()).into());
        }
    }
    Ok(String::from_utf8_lossy(&second.stdout).trim().to_owned())
}

/// A call of `ipfs` with a repository, in whose daemon it runs if there is one.
pub(crate) fn kubo(lab: &Lab, repository: &Path) -> Result<Command> {
    let mut command = Command::new(lab.peer("ipfs")?);
    command.env("IPFS_PATH", repository).env("IPFS_TELEMETRY", "off");
    Ok(command)
}

/// A Kubo daemon with a repository of its own, on loopback.
pub(crate) struct Kubo<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    daemon: Process,
}

impl<'a> Kubo<'a> {
    /// Makes a repository and starts the daemon.
    pub(crate) fn start(lab: &'a Lab, name: &str) -> Result<Self> {
        Self::init(lab, name)?;
        Self::open(lab, name)
    }

    /// One whose DHT takes addresses of this machine, for records that others of its kind are to find.
    pub(crate) fn in_dht(lab: &'a Lab, name: &str) -> Result<Self> {
        Self::init(lab, name)?;
        Self::open_with(lab, name, &[("TEST_DHT_STUB", "1")])
    }

    /// Makes a repository; where it is.
    pub(crate) fn init(lab: &Lab, name: &str) -> Result<PathBuf> {
        let dir = lab.path(name);
        output(kubo(lab, &dir)?.args(["init", "--profile=test"]))?;
        output(kubo(lab, &dir)?.args(["config", "Routing.Type", "dhtserver"]))?;
        Ok(dir)
    }

    /// Starts the daemon of a repository that is there.
    pub(crate) fn open(lab: &'a Lab, name: &str) -> Result<Self> {
        Self::open_with(lab, name, &[])
    }

    fn open_with(lab: &'a Lab, name: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let dir = lab.path(name);
        let mut command = kubo(lab, &dir)?;
        command.arg("daemon").envs(environment.iter().copied()).stdout(Stdio::null());
        let daemon = Process::start(&mut command, &lab.path("kubo.log"))?;
        wait_for("Kubo", Duration::from_mins(1), || {
            dir.join("api").is_file() && kubo(lab, &dir).is_ok_and(|mut command| output(command.arg("id")).is_ok())
        })?;
        Ok(Self { lab, dir, daemon })
    }

    /// The daemon's process.
    pub(crate) fn id(&self) -> u32 {
        self.daemon.0.id()
    }

    /// A call of `ipfs`.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = kubo(self.lab, &self.dir)?;
        command.args(args);
        Ok(command)
    }

    /// What a command prints.
    pub(crate) fn output(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args)?)
    }

    /// Adds a small file; returns its CID.
    pub(crate) fn add(&self, content: &str) -> Result<String> {
        let file = self.lab.path("small-file");
        fs::write(&file, content)?;
        self.output(&["add", "-Q", "--cid-version=1", &file.display().to_string()])
    }

    /// Its HTTP gateway, which is a router too (`/routing/v1`).
    pub(crate) fn gateway(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("gateway"))?.trim().to_owned())
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> Result<String> {
        let addresses = self.output(&["id", "-f", "<addrs>"])?;
        let tcp = addresses.lines().find(|line| line.starts_with("/ip4/127.0.0.1/tcp/") && !line.contains("/ws"));
        Ok(tcp.ok_or_else(|| format!("Kubo listens at {addresses:?}"))?.to_owned())
    }
}

//! Disks that are full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Calm, files};
use crate::accept::Figure;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab};
use crate::accept::site::{DOMAIN, require, same, text};
use crate::shell::{Result, output};

/// A small file system of its own in memory; gone when it goes out of scope.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf, mebibytes: u64) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={mebibytes}m");
        output(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        Ok(Self(path))
    }

    fn resize(&self, mebibytes: u64) -> Result {
        output(Command::new("mount").args(["-o", &format!("remount,size={mebibytes}m")]).arg(&self.0)).map(drop)
    }

    /// Takes all room that is left.
    fn fill(&self) -> Result<PathBuf> {
        let file = self.0.join("filler");
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=4096", "status=none"]).arg(format!("of={}", file.display()));
        // It ends when there is no more room.
        command.output()?;
        Ok(file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// Line 9: a full disk, on push, on pull, and where an image is written to.
pub(crate) fn full(lab: &Lab) -> Result<Figure> {
    let image = Image::new(7, &[20 << 20, 20 << 20]);
    let file = lab.path("full.tar");
    fs::write(&file, image.archive())?;
    let source = format!("docker-archive:{}", file.display());
    push(lab, &image, &source)?;
    let publisher = lab.home("full-a");
    publisher.json(&["init", "--domain", DOMAIN])?;
    publisher.json(&["push", &source, "--as", "full:1", "--no-publish"])?;
    let site = lab.serve(&publisher)?;
    pull(lab, &image)?;
    drop(site);
    sinks(lab, &publisher)?;
    fs::remove_dir_all(&publisher.dir)?;
    fs::remove_file(file)?;
    Ok(Figure::ok("exit 9 on push, on pull, into a layout and an archive; then all succeed"))
}

/// A home with something in it, on a disk that has no room for the image.
fn push(lab: &Lab, image: &Image, source: &str) -> Result {
    let disk = Disk::new(lab.path("full-push"), 32)?;
    let home = Home { dir: disk.0.join("home"), ..lab.home("full") };
    home.json(&["init"])?;
    let kept = lab.path("full-kept.tar");
    fs::write(&kept, Image::new(8, &[500_000]).archive())?;
    home.json(&["push", &format!("docker-archive:{}", kept.display()), "--as", "kept:1", "--no-publish"])?;
    let calm = Calm::before(&home, &[])?;
    let command = ["push", source, "--as", "full:1", "--no-publish"];
    home.fails(9, &command)?;
    calm.after("a push on a full disk")?;
    // Not one block is free: looking and giving back still work.
    home.fails(9, &command)?;
    let filler = disk.fill()?;
    home.json(&["ls"])?;
    home.json(&["check", "--read-data"])?;
    home.json(&["gc"])?;
    home.fails(9, &command)?;
    fs::remove_file(filler)?;
    calm.after("a push on a disk without a free block")?;
    disk.resize(256)?;
    let pushed = home.json(&command)?;
    same("the image ID", text(&pushed, "image_id")?.as_str(), image.id().as_str())?;
    home.json(&["check", "--read-data"])?;
    Ok(fs::remove_file(kept)?)
}

fn pull(lab: &Lab, image: &Image) -> Result {
    let disk = Disk::new(lab.path("full-pull"), 24)?;
    let visitor = lab.visitor("full-b")?;
    let home = Home { dir: disk.0.join("home"), ..visitor };
    home.json(&["check"])?;
    let calm = Calm::before(&home, &[])?;
    let out = lab.path("full-pulled.tar");
    let into = format!("docker-archive:{}", out.display());
    let reference = format!("{DOMAIN}/full:1");
    for sink in [into.as_str(), "none"] {
        home.fails(9, &["pull", &reference, "--into", sink])?;
        require(!out.exists(), || "half an archive is there".into())?;
        calm.after("a pull on a full disk")?;
    }
    disk.resize(256)?;
    let pulled = home.json(&["pull", &reference, "--into", &into])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), image.id().as_str())?;
    home.json(&["check", "--read-data"])?;
    Ok(fs::remove_file(out)?)
}

/// A disk that has no room for what is written out.
fn sinks(lab: &Lab, home: &Home<'_>) -> Result {
    let disk = Disk::new(lab.path("full-out"), 24)?;
    let calm = Calm::before(home, &[&disk.0])?;
    let spell = |scheme: &str, name: &str| format!("{scheme}:{}", disk.0.join(name).display());
    let all = [spell("oci", "layout"), spell("docker-archive", "image.tar"), spell("oci-archive", "image.oci")];
    for sink in &all {
        home.fails(9, &["pull", "full:1", "--into", sink])?;
        require(files(&disk.0)?.is_empty(), || format!("something is left of {sink}"))?;
        require(!disk.0.join("layout").exists(), || "a folder is left".into())?;
        calm.after(sink)?;
    }
    disk.resize(256)?;
    for sink in &all {
        home.json(&["pull", "full:1", "--into", sink])?;
    }
    let device = Path::new("/dev/full");
    if device.exists() {
        let full = fs::File::options().write(true).open(device)?;
        let mut command = home.command(&["-o", "json", "pull", "full:1", "--into", "-"]);
        let output = command.stdout(full).output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        crate::accept::lab::check_failure("pull --into - on a full device", 9, output.status.code(), &talk)?;
    }
    Ok(())
}

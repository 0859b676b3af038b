//! Line 10: memory does not grow with the image, and no layer is copied to a temporary place.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use super::Figure;
use super::forge;
use super::lab::{Home, Lab, disk_usage};
use super::registry::Registry;
use super::site::{DOMAIN, require, same};
use crate::measure;
use crate::shell::{Result, show};

/// The most memory that a process may have, in MiB.
const LIMIT: f64 = 300.0;
/// How far the peaks of a small and a large image may be apart, as a part of the larger.
const SPREAD: f64 = 0.10;
/// A file of this size that is neither in the home nor the output is a copy of a layer, in bytes.
const COPY: u64 = 1 << 20;
/// What a home may be larger on the way than at the end, in bytes.
const SLACK: u64 = 32 << 20;

/// What the three kinds of processes needed at most, in MiB.
#[derive(Clone, Copy, Debug)]
struct Peaks {
    push: f64,
    pull: f64,
    serve: f64,
}

impl Peaks {
    fn most(self) -> f64 {
        self.push.max(self.pull).max(self.serve)
    }

    fn figure(self) -> String {
        format!("push {:.0}, pull {:.0}, serve {:.0} MiB", self.push, self.pull, self.serve)
    }
}

/// Line 10: a layer of 1 GiB.
pub(crate) fn one_gib(lab: &Lab) -> Result<Figure> {
    let peaks = engine_to_engine(lab, 1)?;
    let mut figure = Figure::at_most(peaks.most(), LIMIT, "MiB")?;
    figure.found = peaks.figure();
    Ok(figure)
}

/// Line 10: a layer of 4 GiB needs what one of 1 GiB needs.
pub(crate) fn four_gib(lab: &Lab) -> Result<Figure> {
    let (small, large) = (engine_to_engine(lab, 1)?, engine_to_engine(lab, 4)?);
    let both = format!("1 GiB: {}; 4 GiB: {}", small.figure(), large.figure());
    for (small, large) in [(small.push, large.push), (small.pull, large.pull), (small.serve, large.serve)] {
        require((small - large).abs() <= SPREAD * small.max(large), || format!("not within {SPREAD}: {both}"))?;
    }
    let mut figure = Figure::at_most(small.most().max(large.most()), LIMIT, "MiB")?;
    figure.found = both;
    figure.limit.push_str(", within 10 %");
    Ok(figure)
}

/// Moves an image with one layer of so many GiB from an engine through two homes back into the engine.
fn engine_to_engine(lab: &Lab, gib: u64) -> Result<Peaks> {
    let id = import(lab, "large:1", gib << 30)?;
    let home = lab.home("large-a");
    home.json(&["init", "--domain", DOMAIN])?;
    let push = peak(&home, &["push", "large:1", "--no-publish"], None)?;
    lab.forget(&id)?;
    let site = lab.serve(&home)?;
    let reference = format!("{DOMAIN}/large:1");
    let visitor = lab.visitor("large-b")?;
    let pull = peak(&visitor, &["pull", &reference], None)?;
    let serve = mib(measure::high_water(site.process.0.id()).ok_or("the service runs")?);
    same("the image ID", lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", &reference])?.as_str(), &id)?;
    lab.forget(&id)?;
    drop(site);
    for home in ["large-a", "large-b"] {
        fs::remove_dir_all(lab.path(home))?;
    }
    Ok(Peaks { push, pull, serve })
}

/// Line 10: every other way in and out of a home, with a layer of 1 GiB.
pub(crate) fn other_ways(lab: &Lab) -> Result<Figure> {
    let id = import(lab, "large:1", 1 << 30)?;
    let registry = Registry::start(lab, "large-registry")?;
    let home = lab.home("ways");
    home.json(&["init", "--domain", DOMAIN])?;
    let (archive, layout, copy) = (lab.path("large.tar"), lab.path("large-layout"), lab.path("large-copy"));
    let archive_spec = format!("docker-archive:{}", archive.display());
    let layout_spec = format!("oci:{}", layout.display());
    let copy_spec = format!("oci-archive:{}", copy.display());
    let remote = format!("docker://{}/large:1", registry.host);
    let ways: &[(&str, &[&str], Option<&Path>)] = &[
        ("push zstd", &["push", "large:1", "--as", "zstd:1", "--compression", "zstd", "--no-publish"], None),
        ("pull zstd", &["pull", "zstd:1"], None),
        ("pull oci", &["pull", "zstd:1", "--into", &layout_spec], Some(&layout)),
        ("pull docker-archive", &["pull", "zstd:1", "--into", &archive_spec], Some(&archive)),
        ("pull docker", &["pull", "zstd:1", "--into", &remote], None),
        ("pull -", &["pull", "zstd:1", "--into", "-"], None),
        ("push oci", &["push", &layout_spec, "--as", "layout:1", "--no-publish"], Some(&layout)),
        ("push docker-archive", &["push", &archive_spec, "--as", "archive:1", "--no-publish"], Some(&archive)),
        ("push docker", &["push", &remote, "--as", "remote:1", "--no-publish"], None),
        ("cp", &["cp", &remote, &copy_spec], Some(&copy)),
    ];
    let mut found = Vec::new();
    for (what, args, output) in ways {
        if *what == "pull zstd" {
            lab.forget(&id)?;
        }
        let peak = peak(&home, args, *output)?;
        require(peak <= LIMIT, || format!("{what} needed {peak:.0} MiB, limit {LIMIT}"))?;
        found.push(format!("{what} {peak:.0}"));
    }
    lab.forget(&id)?;
    drop(registry);
    for folder in [&layout, &home.dir, &lab.path("large-registry")] {
        fs::remove_dir_all(folder)?;
    }
    for file in [&archive, &copy] {
        fs::remove_file(file)?;
    }
    Ok(Figure { found: format!("{} MiB", found.join(", ")), limit: format!("<= {LIMIT} MiB") })
}

/// Imports an image with one file of so many bytes that do not compress. Returns its ID.
fn import(lab: &Lab, name: &str, bytes: u64) -> Result<String> {
    let mut child = lab.docker(&["import", "-", name])?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().ok_or("a piped input is there")?;
    let mut header = [0; 512];
    header[..5].copy_from_slice(b"noise");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    input.write_all(&header)?;
    for seed in 1..=bytes >> 20 {
        input.write_all(&forge::noise(seed, 1 << 20))?;
    }
    input.write_all(&[0; 1024])?;
    drop(input);
    require(child.wait()?.success(), || format!("docker import of {bytes} bytes failed"))?;
    lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", name])
}

/// Runs ipcr to its end; the most memory that it had, in MiB. A copy of a layer outside of the home and `output` is an
/// error, and so is a home that is larger on the way than at the end.
fn peak(home: &Home<'_>, args: &[&str], output: Option<&Path>) -> Result<f64> {
    let temporary = home.lab.path("temporary");
    fs::create_dir_all(&temporary)?;
    let log = home.dir.with_extension("peak.log");
    let mut command = home.command(args);
    command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let line = show(&command);
    let mut child = command.spawn()?;
    let mut largest = 0;
    let watched = measure::watch(&child, |id| {
        let left = disk_usage(&temporary)?;
        require(left == 0, || format!("{left} bytes are in the folder for temporary files"))?;
        largest = largest.max(disk_usage(&home.dir).unwrap_or_default());
        match measure::open_files(id).into_iter().find(|(path, size)| *size > COPY && is_copy(home, output, path)) {
            Some((path, size)) => Err(format!("{} with {size} bytes is open", path.display()).into()),
            None => Ok(()),
        }
    });
    if watched.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (peak, _) = watched.map_err(|error| format!("{line}: {error}"))?;
    require(status.success(), || {
        format!("{line} ended with {status}: {}", fs::read_to_string(log).unwrap_or_default())
    })?;
    let now = disk_usage(&home.dir)?;
    require(largest <= now + SLACK, || format!("{line}: the home had {largest} bytes on the way and has {now} now"))?;
    Ok(mib(peak))
}

/// Whether a large open file is neither part of the home nor the output, nor of the engine, whose layers are read where they are.
fn is_copy(home: &Home<'_>, output: Option<&Path>, path: &Path) -> bool {
    let engine = home.lab.path("d");
    let kept = path.starts_with(&home.dir)
        || path.starts_with(engine)
        || output.is_some_and(|output| path.starts_with(output));
    path.to_string_lossy().ends_with(" (deleted)") || !(kept || path == home.lab.ipcr)
}

fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}

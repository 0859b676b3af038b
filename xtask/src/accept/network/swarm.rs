//! Many who pull the same at the same time from one whose uplink is narrow.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::town::Town;
use super::{Holder, check};
use crate::accept::Figure;
use crate::accept::lab::{Home, Lab, Process};
use crate::accept::site::{number, require, same, text};
use crate::line::{Line, Quality};
use crate::measure;
use crate::shell::Result;

/// What the holder uploads in a second: 100 Mbit.
pub(crate) const UPLINK: f64 = 100e6 / 8.0;
/// How many times as long it may take when many pull, beside one alone.
pub(crate) const SLOWER: f64 = 1.6;
/// How many copies the holder may upload.
pub(crate) const COPIES: f64 = 1.5;

/// A holder behind its uplink.
pub(crate) struct Origin<'a> {
    holder: Holder<'a>,
    uplink: Uplink<'a>,
    address: String,
    digest: Option<String>,
}

/// What is between the holder and all others.
enum Uplink<'a> {
    /// Everybody is on this machine's loopback; the holder is known by a relay.
    Relay(Line),
    /// Everybody is a host of a town, the holder the first.
    Cable(&'a Town),
}

impl Uplink<'_> {
    /// Bytes that the holder has uploaded.
    fn passed(&self) -> Result<u64> {
        match self {
            Self::Relay(line) => Ok(line.passed()),
            Self::Cable(town) => town.sent(0),
        }
    }
}

/// What a number of pullers found.
pub(crate) struct Outcome {
    /// From the start of the first to the end of the last.
    pub(crate) seconds: f64,
    /// Bytes that the holder uploaded, in copies of the image.
    pub(crate) copies: f64,
    /// Processor seconds of all pullers and of the holder.
    pub(crate) cpu: f64,
}

impl<'a> Origin<'a> {
    /// A registry with one image of this size.
    pub(crate) fn start(lab: &'a Lab, name: &str, seed: u64, sizes: &[usize]) -> Result<Self> {
        let holder = Holder::start(lab, name, seed, sizes)?;
        let port = holder.address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("it has a port")?;
        let line = Line::start(port, Quality { down: Some(UPLINK), ..Quality::default() })?;
        let address = line.lead(&holder.address, port);
        Ok(Self { holder, uplink: Uplink::Relay(line), address, digest: None })
    }

    /// The same at the first host of a town; whoever pulls is at one of the others.
    pub(crate) fn in_town(lab: &'a Lab, name: &str, seed: u64, sizes: &[usize], town: &'a Town) -> Result<Self> {
        let mut home = lab.home(name);
        home.flags = vec!["--network".into(), "lan".into()];
        home.namespace = Some(town.host(0)?.to_owned());
        let holder = Holder::start_at(home, &Town::address(0), seed, sizes)?;
        Ok(Self { address: holder.address.clone(), holder, uplink: Uplink::Cable(town), digest: None })
    }

    /// Lets so many pull at once, into homes in `folder`, which are removed again. With `read_data` every block that they stored is
    /// read and hashed.
    pub(crate) fn pull(&mut self, count: usize, folder: &Path, read_data: bool) -> Result<Outcome> {
        let (before, cpu) = (self.uplink.passed()?, measure::cpu(self.holder.service.0.id()).unwrap_or_default());
        let homes = (0..count).map(|number| self.puller(folder, number)).collect::<Result<Vec<Home<'_>>>>()?;
        let begin = Instant::now();
        let started: Result<Vec<Process>> = homes.iter().map(|home| self.begin(home).map(Process)).collect();
        let mut pulls = started?;
        let spent = pulls.iter().map(|pull| measure::watch(&pull.0, |_| Ok(())).map(|(_, cpu)| cpu));
        let spent: f64 = spent.collect::<Result<Vec<f64>>>()?.iter().sum();
        let seconds = begin.elapsed().as_secs_f64();
        let holder = measure::cpu(self.holder.service.0.id()).unwrap_or_default() - cpu;
        for (home, pull) in homes.iter().zip(&mut pulls) {
            let pulled = ended(home, pull)?;
            same("the image ID", text(&pulled, "image_id")?.as_str(), self.holder.image.id().as_str())?;
            let digest = text(&pulled, "digest")?;
            same("the digest", &digest, self.digest.get_or_insert_with(|| digest.clone()))?;
            let fetched = number(&pulled, "/bytes/fetched")?;
            require(fetched >= self.holder.bytes, || format!("{fetched} bytes were fetched"))?;
            if read_data {
                check(home, &pulled, &self.holder.image)?;
            }
        }
        for home in &homes {
            fs::remove_dir_all(&home.dir)?;
            fs::remove_file(home.dir.with_extension("out"))?;
            fs::remove_file(home.dir.with_extension("log"))?;
        }
        let uploaded = self.uplink.passed()? - before;
        require(uploaded >= self.holder.bytes, || format!("only {uploaded} bytes went through the uplink"))?;
        #[expect(clippy::cast_precision_loss, reason = "an image is small enough")]
        let copies = uploaded as f64 / self.holder.bytes as f64;
        Ok(Outcome { seconds, copies, cpu: spent + holder })
    }

    /// A fresh home that knows the holder by its uplink only.
    fn puller(&self, folder: &Path, number: usize) -> Result<Home<'a>> {
        let mut home = self.holder.home.lab.home("swarm").with(&["--peer", &self.address]);
        home.dir = folder.join(format!("swarm-{number}"));
        if let Uplink::Cable(town) = &self.uplink {
            home.flags = ["--network", "lan", "--peer", &self.address].map(str::to_owned).into();
            home.namespace = Some(town.host(number + 1)?.to_owned());
        }
        Ok(home)
    }

    fn begin(&self, home: &Home<'_>) -> Result<Child> {
        let mut command = home.command(&["-o", "json", "pull", &self.holder.reference, "--into", "none"]);
        command.stdout(fs::File::create(home.dir.with_extension("out"))?);
        command.stderr(fs::File::create(home.dir.with_extension("log"))?);
        Ok(command.stdin(Stdio::null()).spawn()?)
    }
}

/// What a pull that has ended printed.
fn ended(home: &Home<'_>, pull: &mut Process) -> Result<Value> {
    let status = pull.0.wait()?;
    let talk = fs::read_to_string(home.dir.with_extension("log"))?;
    require(status.success(), || format!("a pull ended with {status}: {talk}"))?;
    Ok(serde_json::from_slice(&fs::read(home.dir.with_extension("out"))?)?)
}

/// Four pull 30 MB at once.
pub(crate) fn swarm(lab: &Lab) -> Result<Figure> {
    const PULLERS: usize = 4;
    let mut origin = Origin::start(lab, "swarm-a", 345, &[20 << 20, 10 << 20])?;
    let folder = lab.path("swarm");
    fs::create_dir_all(&folder)?;
    let alone = origin.pull(1, &folder, true)?;
    let many = origin.pull(PULLERS, &folder, true)?;
    let ratio = many.seconds / alone.seconds;
    require(ratio <= SLOWER, || format!("{PULLERS} took {:.1} s, one {:.1} s", many.seconds, alone.seconds))?;
    let mut figure = Figure::at_most(many.copies, COPIES, "copies uploaded")?;
    figure.found.push_str(&format!(
        ", {PULLERS} pull in {:.2} times the time of one ({:.1} s), limit {SLOWER}",
        ratio, alone.seconds
    ));
    Ok(figure)
}

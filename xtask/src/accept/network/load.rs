//! Readers that do not read, many at once, and peers that are gone in the middle.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Holder, Script, add_2020, serve};
use crate::accept::Figure;
use crate::accept::exchange::Kubo;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab, Process};
use crate::accept::site::{number, require, same};
use crate::accept::watched::{self, STALL};
use crate::measure;
use crate::shell::{Result, show};

/// How much a service may grow for a reader that does not read, in MiB.
const GROWTH: f64 = 64.0;
/// The most memory of a service that many pull from, in MiB.
const SERVING: f64 = 200.0;
/// How many they are.
const READERS: usize = 16;
/// What a second run may fetch of the bytes when the first was killed at half, in percent.
const REST: f64 = 52.0;

fn peak(service: &Process) -> Result<f64> {
    Ok(f64::from(measure::high_water(service.0.id()).ok_or("the service runs")?) / 1024.0)
}

/// Line 1: somebody wants 5,000 blocks and takes none of them.
pub(crate) fn slow_reader(lab: &Lab) -> Result<Figure> {
    const WANTS: usize = 5000;
    const BLOCK: usize = 32 << 10;
    let kubo = Kubo::start(lab, "kubo-slow")?;
    let image = Image::new(341, &[WANTS * BLOCK]);
    let cid = add_2020(lab, &kubo, &image, BLOCK)?;
    let refs = kubo.output(&["refs", "-r", "-u", &cid])?;
    let wants: Vec<&str> = refs.lines().take(WANTS).collect();
    same("the number of blocks", &wants.len(), &WANTS)?;
    let list = lab.path("wants");
    fs::write(&list, wants.join("\n"))?;
    let home = lab.home("slow-a");
    let reference = format!("ipfs/{cid}/app:1");
    home.with(&["--peer", &kubo.address()?]).json(&["pull", &reference, "--into", "none"])?;
    drop(kubo);
    let (service, address) = serve(&home, &[])?;
    let before = peak(&service)?;
    let mut reader = Script::start(lab, "raw.mjs", &["deaf"])?;
    reader.call(&format!("ask {address} {}", list.display()))?;
    // As long as it takes to read them all from the disk, several times over.
    let begin = Instant::now();
    let mut grown: f64 = 0.0;
    while begin.elapsed() < Duration::from_secs(5) {
        grown = peak(&service)? - before;
        require(grown < GROWTH, || format!("it grew by {grown:.0} MiB, limit {GROWTH}"))?;
        thread::sleep(Duration::from_millis(100));
    }
    let streams = number(&reader.call("streams")?, "/streams")?;
    require(streams > 0, || "nothing was sent to the reader".into())?;
    // Others are served all the same.
    let other = lab.home("slow-b").with(&["--peer", &address]);
    let pulled = other.json(&["pull", &reference, "--into", "none"])?;
    super::check(&other, &pulled, &image)?;
    fs::remove_file(list)?;
    for home in [&home, &other] {
        fs::remove_dir_all(&home.dir)?;
    }
    Figure::at_most(grown, GROWTH, "MiB more")
}

/// A pull of which something is wanted in the middle.
struct Pull {
    process: Process,
    line: String,
    events: BufReader<std::process::ChildStderr>,
}

impl Pull {
    fn start(home: &Home<'_>, reference: &str) -> Result<Self> {
        let mut command = home.command(&["-o", "json", "--progress", "json", "pull", reference, "--into", "none"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let events = BufReader::new(child.stderr.take().ok_or("a piped output is there")?);
        Ok(Self { process: Process(child), line: show(&command), events })
    }

    /// Waits until so many bytes have come; how many it were.
    fn until(&mut self, bytes: u64) -> Result<u64> {
        for line in (&mut self.events).lines() {
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            if event["event"] == "received"
                && let Some(came) = event["bytes"].as_u64().filter(|came| *came >= bytes)
            {
                return Ok(came);
            }
        }
        Err(format!("{} ended before {bytes} bytes had come", self.line).into())
    }

    fn kill(mut self) -> Result {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }
}

/// Line 1: one of three that a pull fetches from is killed.
pub(crate) fn lost_seeder(lab: &Lab) -> Result<Figure> {
    let mut first = Holder::start(lab, "seeder-0", 342, &[200 << 20])?;
    let mut services = Vec::new();
    let mut visitor = lab.home("seeded").with(&["--peer", &first.address]);
    for number in 1..3 {
        let home = lab.home(&format!("seeder-{number}"));
        first.visitor(&format!("seeder-{number}")).json(&["pull", &first.reference, "--into", "none"])?;
        let (service, address) = serve(&home, &[])?;
        visitor = visitor.with(&["--peer", &address]);
        services.push((service, home));
    }
    let bytes = first.bytes;
    let command = watched::command(&visitor, &[&first.reference, "--into", "none"]);
    let (watched, killed) = thread::scope(|scope| {
        let watched = scope.spawn(|| watched::watch(command));
        // Once the home has a part of it, the pull is in the middle.
        let killed = loop {
            let came = crate::accept::lab::disk_usage(&visitor.dir).unwrap_or_default();
            if came > bytes / 5 || watched.is_finished() {
                break came;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let _ = first.service.0.kill();
        (watched.join().expect("it does not panic"), killed)
    });
    let watched = watched?;
    require(killed < bytes * 9 / 10, || format!("{killed} bytes of {bytes} were there when the seeder was killed"))?;
    first.check(&visitor, &watched.result)?;
    let peers = watched.result["peers"].as_array().map_or(0, Vec::len);
    let mut figure = Figure::at_most(watched.stall, 2.0 * STALL, "s without bytes")?;
    let at = 100 * killed / bytes;
    figure.found.push_str(&format!(", {peers} peers, killed at {at} %, {:.1} s", watched.seconds));
    drop(services);
    Ok(figure)
}

/// Line 6: many pull at once.
pub(crate) fn memory(lab: &Lab) -> Result<Figure> {
    let holder = Holder::start(lab, "many-a", 343, &[100 << 20])?;
    let begin = Instant::now();
    let homes: Vec<Home<'_>> = (0..READERS).map(|number| holder.visitor(&format!("many-{number}"))).collect();
    let pulls = homes.iter().map(|home| {
        let mut command = home.command(&["-o", "json", "pull", &holder.reference, "--into", "none"]);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    });
    let pulls = pulls.collect::<Result<Vec<_>>>()?;
    for pull in pulls {
        let output = pull.wait_with_output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        require(output.status.success(), || format!("a pull ended with {}: {talk}", output.status))?;
        let pulled: Value = serde_json::from_slice(&output.stdout)?;
        same("the image ID", pulled["image_id"].as_str().unwrap_or_default(), holder.image.id().as_str())?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let peak = peak(&holder.service)?;
    for home in &homes {
        fs::remove_dir_all(&home.dir)?;
    }
    let mut figure = Figure::at_most(peak, SERVING, "MiB")?;
    figure.found.push_str(&format!(", {READERS} times 100 MiB in {seconds:.1} s"));
    Ok(figure)
}

/// Line 7: what a killed pull had fetched is not fetched again.
pub(crate) fn half(lab: &Lab) -> Result<Figure> {
    let holder = Holder::start(lab, "half-a", 344, &[100 << 20, 100 << 20])?;
    let whole = {
        let home = holder.visitor("half-whole");
        let pulled = home.json(&["pull", &holder.reference, "--into", "none"])?;
        fs::remove_dir_all(&home.dir)?;
        number(&pulled, "/bytes/fetched")?
    };
    let home = holder.visitor("half-b");
    let mut pull = Pull::start(&home, &holder.reference)?;
    let came = pull.until(whole.div_ceil(2))?;
    pull.kill()?;
    require(came < whole * 9 / 10, || format!("{came} bytes of {whole} had come when it was killed"))?;
    let pulled = home.json(&["pull", &holder.reference, "--into", "none"])?;
    holder.check(&home, &pulled)?;
    let again = u32::try_from(10_000 * number(&pulled, "/bytes/fetched")? / whole)?;
    let mut figure = Figure::at_most(f64::from(again) / 100.0, REST, "%")?;
    figure.found.push_str(&format!(" fetched by the second run, killed at {} %", 100 * came / whole));
    Ok(figure)
}

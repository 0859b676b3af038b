//! `cargo xtask bench swarm`: how long it takes when many pull the same at once, and what its holder uploads.
//!
//! Everybody is a host of its own, a network namespace, with a line to one switch: that of the holder lets 100 Mbit pass in a second, those
//! of the pullers 1 Gbit. All hosts share the processor of this machine, so that beyond some number of pullers it is what is
//! measured: its share is a column of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::plot::{self, Curve};
use crate::accept::lab::Lab;
use crate::accept::network::swarm::{COPIES, Origin, Outcome, SLOWER, UPLINK};
use crate::accept::network::town::Town;
use crate::shell::{Result, output};

/// How many pull at once.
const PULLERS: [usize; 5] = [1, 2, 4, 8, 16];
/// Bits that the line of the holder lets pass in a second, and that of a puller.
const HOLDER: u64 = 100_000_000;
const PULLER: u64 = 1_000_000_000;
/// Bytes of the image's layers.
const LAYERS: [usize; 3] = [90_000_000, 45_000_000, 15_000_000];
/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// Measures and prints the table; whether all limits were kept.
pub(super) fn run(root: &Path, quick: bool) -> Result<bool> {
    let lab = Lab::new(root)?;
    let times = if quick { 3 } else { 5 };
    // What is in flight at once is a large part of a smaller image, which would be uploaded more than once for that.
    let bytes: usize = LAYERS.iter().sum();
    let folder = Folder::new(&lab, u64::try_from(bytes)? * 20)?;
    let most = PULLERS.into_iter().max().unwrap_or_default();
    let rates: Vec<u64> = std::iter::once(HOLDER).chain(std::iter::repeat_n(PULLER, most)).collect();
    let town = Town::new(&lab, &rates)?;
    let mut origin = Origin::in_town(&lab, "bench-swarm", 7, &LAYERS, &town)?;
    let mut rows: Vec<(usize, Outcome)> = Vec::new();
    for count in PULLERS {
        let mut runs = Vec::new();
        for _ in 0..times {
            let run = origin.pull(count, &folder.0, false)?;
            eprintln!("  {count}: {:.2} s, {:.2} copies, {:.2} s of the processor", run.seconds, run.copies, run.cpu);
            runs.push(run);
        }
        let middle = Outcome {
            seconds: super::median(&runs, |run| run.seconds),
            copies: super::median(&runs, |run| run.copies),
            cpu: super::median(&runs, |run| run.cpu),
        };
        rows.push((count, middle));
    }
    let curve = |name, of: fn(&Outcome) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let points = rows.iter().map(|(count, row)| (*count as f64, of(row))).collect();
        Curve { name, points }
    };
    let alone = rows[0].1.seconds;
    let mut times_one = curve("time beside one", |row| row.seconds);
    times_one.points.iter_mut().for_each(|point| point.1 /= alone);
    let copies = curve("copies uploaded", |row| row.copies);
    plot::write(root, "swarm", &plot::curves("pullers at once", &[times_one, copies]))?;
    Ok(report(&rows, bytes, times))
}

fn report(rows: &[(usize, Outcome)], bytes: usize, times: usize) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let (size, cores) = (bytes as f64, cores as f64);
    println!(
        "\nMedians of {times}, an image of {:.0} MB that does not compress, {:.1} s for one copy by the holder's uplink.\n",
        size / 1e6,
        size / UPLINK
    );
    println!(
        "| pullers at once | seconds | beside one | copies uploaded by the holder | processor s | of all there were |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    let alone = rows[0].1.seconds;
    for (count, Outcome { seconds, copies, cpu }) in rows {
        let (ratio, share) = (seconds / alone, 100.0 * cpu / seconds / cores);
        println!("| {count} | {seconds:.1} | {ratio:.2} x | {copies:.2} | {cpu:.1} | {share:.0} % |");
    }
    let kept = rows.iter().all(|(_, row)| row.seconds <= SLOWER * alone && row.copies <= COPIES);
    println!("\nAt most {SLOWER} x and {COPIES} copies: {}.\n", super::verdict(kept));
    kept
}

/// Where pullers have their homes: in memory where that is large enough. Removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(lab: &Lab, bytes: u64) -> Result<Self> {
        let df = output(Command::new("df").args(["--output=avail", "-B1", MEMORY])).unwrap_or_default();
        let free = df.lines().last().and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or_default();
        let path = if free >= bytes {
            Path::new(MEMORY).join(format!("ipcr-swarm-{}", std::process::id()))
        } else {
            lab.path("swarm")
        };
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

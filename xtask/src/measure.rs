//! What a program costs: time, processor, memory, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::{Result, show};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Parts of a second in which the kernel counts processor time.
const TICKS: f64 = 100.0;

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// From the start of the command to its end.
    pub(crate) seconds: f64,
    /// Until the first byte of its output, where that is piped.
    pub(crate) first_byte: Option<f64>,
    /// Processor seconds of the command and of the services that worked for it, with everything that they started.
    pub(crate) cpu: f64,
    /// Processor seconds of the container engine.
    pub(crate) engine_cpu: f64,
    /// The most memory that the command or one of these services (without the engine, unless it is the one that works) had with
    /// everything that it started, in MiB.
    pub(crate) peak: f64,
    /// Bytes that came over a line, where there is one.
    pub(crate) wire: Option<f64>,
}

/// Who works for a command besides its own process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Helpers<'a> {
    /// Services that belong to the program under test.
    pub(crate) own: &'a [u32],
    /// The container engine, counted apart.
    pub(crate) engine: Option<u32>,
}

/// Runs a command to its end; an error unless it succeeds. Output that is piped is read and thrown away.
pub(crate) fn run(command: &mut Command, helpers: Helpers<'_>) -> Result<Cost> {
    let line = show(command);
    let services = || helpers.own.iter().chain(&helpers.engine);
    let before: Vec<f64> = services().map(|id| tree_cpu(*id)).collect();
    for id in helpers.own.iter().flat_map(|id| tree(*id)) {
        // Starts the high-water mark anew (proc(5), `clear_refs`).
        let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
    }
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{line}: {error}"))?;
    let output = child.stdout.take().map(|output| thread::spawn(move || drain(output, start)));
    let (peak, own_cpu) = watch(&child, |_| Ok(()))?;
    let seconds = start.elapsed().as_secs_f64();
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{line} ended with {status}").into());
    }
    let first_byte = output.and_then(|output| output.join().ok().flatten());
    let mut spent: Vec<f64> =
        services().map(|id| tree_cpu(*id)).zip(before).map(|(after, before)| after - before).collect();
    let engine_cpu = if helpers.engine.is_some() { spent.pop().unwrap_or_default() } else { 0.0 };
    let peaks = helpers.own.iter().map(|id| tree_memory(*id)).chain([peak]);
    let peak = f64::from(peaks.max().unwrap_or_default()) / 1024.0;
    Ok(Cost { seconds, first_byte, cpu: own_cpu + spent.iter().sum::<f64>(), engine_cpu, peak, wire: None })
}

/// Reads to the end; when the first byte came.
fn drain(mut output: impl Read, start: Instant) -> Option<f64> {
    let mut buffer = vec![0; 1 << 20];
    let mut first = None;
    while let Ok(1..) = output.read(&mut buffer) {
        first.get_or_insert_with(|| start.elapsed().as_secs_f64());
    }
    first
}

/// Looks at a child until it has ended, and calls `look` each time; the most memory that it and what it started had, in KiB, and the
/// processor seconds that they took. The child is not waited for: what the kernel counted is there until then.
pub(crate) fn watch(child: &Child, mut look: impl FnMut(u32) -> Result) -> Result<(u32, f64)> {
    let id = child.id();
    let mut peak = 0;
    while !has_ended(id) {
        peak = tree_memory(id).max(peak);
        look(id)?;
        thread::sleep(LOOK);
    }
    Ok((peak, cpu(id).unwrap_or_default()))
}

/// A process and all that it started and that still run.
fn tree(id: u32) -> Vec<u32> {
    let mut found = vec![id];
    let mut at = 0;
    while let Some(id) = found.get(at) {
        for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

/// The sum of the most that each of these had, in KiB: no less than what they had together.
fn tree_memory(id: u32) -> u32 {
    tree(id).into_iter().filter_map(high_water).sum()
}

/// Processor seconds of all of these, and of those that they have waited for.
fn tree_cpu(id: u32) -> f64 {
    tree(id).into_iter().filter_map(cpu).sum()
}

/// The most memory that a running process had, in KiB.
pub(crate) fn high_water(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Files that a process has open, and their sizes; those that were deleted end with ` (deleted)`.
pub(crate) fn open_files(id: u32) -> BTreeMap<PathBuf, u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/fd")) else { return BTreeMap::new() };
    let sizes = entries.flatten().filter_map(|entry| {
        let meta = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((fs::read_link(entry.path()).ok()?, meta.len()))
    });
    sizes.collect()
}

/// The fields of `stat` behind the program's name: state, parent, … (proc(5), from field 3 on).
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn has_ended(id: u32) -> bool {
    stat(id).is_none_or(|fields| fields.first().is_none_or(|state| state == "Z" || state == "X"))
}

/// Processor seconds of a process and of those children that it has waited for.
pub(crate) fn cpu(id: u32) -> Option<f64> {
    let fields = stat(id)?;
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / TICKS)
}

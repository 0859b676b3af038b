//! `cargo xtask bench`: ipcr beside its peers, in one run: images, [`blocks`] alone, [`swarm`], [`hub`], then the criterion benches.
//!
//! Figures on their own say more about the machine than about the program; the ratios are what counts.

mod blocks;
mod hub;
mod plot;
mod rounds;
mod swarm;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accept::lab::Lab;
use crate::accept::site::IMAGE_MIB;
use crate::measure::Cost;
use crate::shell::{self, Result};
use plot::Bar;
use rounds::Results;

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    DockerSave,
    SaveAndEncode,
    DockerPush,
    DockerPushAgain,
    IpfsAdd,
    IpcrPush,
    IpcrPushZstd,
    IpcrPushAgain,
    DockerSaveRebuilt,
    IpcrPushRebuilt,
    HashAndCopy,
    IpcrPushLayout,
    DockerLoad,
    DockerPull,
    IpfsGet,
    IpfsGetFromIpcr,
    SkopeoCopy,
    IpcrPull,
    IpcrPullLayout,
    IpcrPullStore,
    IpcrPullAgain,
    DockerPushUpdate,
    IpcrPushUpdate,
    DockerLoadUpdate,
    DockerPullUpdate,
    IpcrPullUpdate,
    DockerPullUpdateFar,
    IpcrPullUpdateFar,
    IpcrPullUpdateFarLayout,
}

use Operation::{
    DockerLoad, DockerLoadUpdate, DockerPull, DockerPullUpdate, DockerPullUpdateFar, DockerPush, DockerPushAgain,
    DockerPushUpdate, DockerSave, DockerSaveRebuilt, HashAndCopy, IpcrPull, IpcrPullAgain, IpcrPullLayout,
    IpcrPullStore, IpcrPullUpdate, IpcrPullUpdateFar, IpcrPullUpdateFarLayout, IpcrPush, IpcrPushAgain, IpcrPushLayout,
    IpcrPushRebuilt, IpcrPushUpdate, IpcrPushZstd, IpfsAdd, IpfsGet, IpfsGetFromIpcr, SaveAndEncode, SkopeoCopy,
};

const OPERATIONS: &[(Operation, &str)] = &[
    (DockerSave, "`docker save`"),
    (SaveAndEncode, "its first byte, then compression by all cores (computed)"),
    (DockerPush, "`docker push` to a local registry, first"),
    (DockerPushAgain, "`docker push`, second"),
    (IpfsAdd, "`ipfs add -r` of the same tag folder"),
    (IpcrPush, "`ipcr push`, first"),
    (IpcrPushZstd, "`ipcr push --compression zstd`, first"),
    (IpcrPushAgain, "`ipcr push`, second"),
    (DockerSaveRebuilt, "`docker save`, rebuilt, one layer is new"),
    (IpcrPushRebuilt, "`ipcr push`, rebuilt, one layer is new"),
    (HashAndCopy, "`sha256sum` of a layout, and `cp`"),
    (IpcrPushLayout, "`ipcr push oci:DIR`"),
    (DockerLoad, "`docker load` of a saved archive"),
    (DockerPull, "`docker pull` from a local registry"),
    (IpfsGet, "`ipfs get` of the tag folder, Kubo from Kubo"),
    (IpfsGetFromIpcr, "`ipfs get` of the tag folder, Kubo from ipcr"),
    (SkopeoCopy, "`skopeo copy docker://… oci:DIR`"),
    (IpcrPull, "`ipcr pull` into the engine"),
    (IpcrPullLayout, "`ipcr pull --into oci:DIR`"),
    (IpcrPullStore, "`ipcr pull --into none`"),
    (IpcrPullAgain, "`ipcr pull` into the engine, again"),
    (DockerPushUpdate, "`docker push` of an update"),
    (IpcrPushUpdate, "`ipcr push` of an update"),
    (DockerLoadUpdate, "`docker load` of an update"),
    (DockerPullUpdate, "`docker pull` of an update"),
    (IpcrPullUpdate, "`ipcr pull` of an update, into the engine"),
    (DockerPullUpdateFar, "`docker pull` of an update, far away"),
    (IpcrPullUpdateFar, "`ipcr pull` of an update, far away, into the engine"),
    (IpcrPullUpdateFarLayout, "`ipcr pull --into oci:DIR` of an update, far away"),
];

/// Which operations do the same work, so that their ratio means something, and what it may be.
const RATIOS: &[(Operation, Operation, Option<f64>)] = &[
    (IpcrPush, SaveAndEncode, Some(1.15)),
    (IpcrPush, DockerSave, None),
    (IpcrPushZstd, DockerSave, Some(1.4)),
    (IpcrPush, DockerPush, Some(0.65)),
    (IpcrPush, IpfsAdd, None),
    (IpcrPushAgain, DockerSave, None),
    (IpcrPushAgain, DockerPushAgain, None),
    (IpcrPushRebuilt, DockerSaveRebuilt, Some(1.25)),
    (IpcrPushLayout, HashAndCopy, Some(1.3)),
    (IpcrPull, DockerLoad, Some(1.25)),
    (IpcrPull, DockerPull, Some(0.85)),
    (IpcrPullLayout, SkopeoCopy, Some(1.25)),
    (IpcrPullLayout, IpfsGet, None),
    (IpfsGetFromIpcr, IpfsGet, None),
    (IpcrPushUpdate, DockerPushUpdate, None),
    (IpcrPullUpdate, DockerLoadUpdate, None),
    (IpcrPullUpdate, DockerPullUpdate, None),
    (IpcrPullUpdateFar, DockerPullUpdateFar, Some(0.5)),
    (IpcrPullUpdateFarLayout, DockerPullUpdateFar, Some(0.32)),
];

/// Of the bytes that came over the line.
const WIRE: (Operation, Operation, f64) = (IpcrPullUpdateFar, DockerPullUpdateFar, 0.28);
/// So fast is [`IpcrPushLayout`], in bytes a second, whatever it is beside others.
const LAYOUT_RATE: f64 = 400e6;

/// What is to be measured, and how thoroughly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Medians of three instead of five, and smaller files.
    pub(crate) quick: bool,
    /// The layers of two versions of an image to measure updates with, as archives, instead of those that are made here.
    pub(crate) pair: Option<(PathBuf, PathBuf)>,
}

/// Everything that `cargo xtask bench` does; whether all limits were kept.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let quick = options.quick;
    let kept = run_images(root, options)? & run_blocks(root, quick)? & run_swarm(root, quick)? & run_hub(root, quick)?;
    run_criterion(root, quick)?;
    Ok(kept)
}

/// Only images; whether all limits were kept.
pub(crate) fn run_images(root: &Path, options: &Options) -> Result<bool> {
    let lab = Lab::new(root)?;
    let times = if options.quick { 3 } else { 5 };
    let found = rounds::run(&lab, times, options.pair.as_ref())?;
    drop(lab);
    println!("\nMedians of {times}, an image of {IMAGE_MIB} MiB in 5 layers, everything on one machine.\n");
    println!("| | seconds | MiB/s | processor s | of the engine | peak MiB |");
    println!("|---|---:|---:|---:|---:|---:|");
    let middles: Results = found.results.iter().map(|(operation, costs)| (*operation, vec![middle(costs)])).collect();
    for (operation, name) in OPERATIONS {
        #[expect(clippy::cast_precision_loss, reason = "an image is small enough")]
        let size = found.sizes.get(operation).map_or(IMAGE_MIB as f64, |bytes| *bytes as f64 / f64::from(1 << 20));
        let Cost { seconds, cpu, engine_cpu, peak, .. } = middles[operation][0];
        let rate = size / seconds;
        println!("| {name} | {seconds:.2} | {rate:.0} | {cpu:.2} | {engine_cpu:.2} | {peak:.0} |");
    }
    println!("\n{}\n", found.words);
    let of = |operation: Operation| &middles[&operation][0];
    let mut bars = Vec::new();
    for (ours, theirs, limit) in RATIOS {
        let ratio = of(*ours).seconds / of(*theirs).seconds;
        let mut bar = Bar { ours: name(*ours).into(), beside: name(*theirs).into(), ratio, limit: *limit, kept: true };
        bar.kept = limit.is_none_or(|limit| ratio <= limit);
        if *ours == IpcrPushLayout {
            #[expect(clippy::cast_precision_loss, reason = "a layout is small enough")]
            let rate = found.sizes[ours] as f64 / of(*ours).seconds;
            bar.kept |= rate >= LAYOUT_RATE;
        }
        bars.push(bar);
    }
    let (ours, theirs, limit) = WIRE;
    let wire = |operation| of(operation).wire.unwrap_or(f64::NAN);
    let ratio = wire(ours) / wire(theirs);
    let names = [ours, theirs].map(|operation| format!("{}, bytes", name(operation)));
    let [ours, beside] = names;
    bars.push(Bar { ours, beside, ratio, limit: Some(limit), kept: ratio <= limit });
    println!("| | beside | ratio of the times | at most | |\n|---|---|---:|---:|---|");
    for Bar { ours, beside, ratio, limit, kept } in &bars {
        let (limit, verdict) =
            limit.map_or_else(Default::default, |limit| (limit.to_string(), verdict(*kept).to_owned()));
        println!("| {ours} | {beside} | {ratio:.2} | {limit} | {verdict} |");
    }
    println!();
    plot::write(root, "ratios", &plot::bars(&bars))?;
    Ok(bars.iter().all(|bar| bar.kept))
}

fn name(wanted: Operation) -> &'static str {
    OPERATIONS.iter().find(|(operation, _)| *operation == wanted).map_or("", |(_, name)| name)
}

/// What a table says of a limit.
fn verdict(kept: bool) -> &'static str {
    if kept { "met" } else { "MISSED" }
}

fn middle(costs: &[Cost]) -> Cost {
    let optional = |of: fn(&Cost) -> Option<f64>| {
        costs.iter().all(|cost| of(cost).is_some()).then(|| median(costs, |cost| of(cost).unwrap_or_default()))
    };
    Cost {
        seconds: median(costs, |cost| cost.seconds),
        first_byte: optional(|cost| cost.first_byte),
        cpu: median(costs, |cost| cost.cpu),
        engine_cpu: median(costs, |cost| cost.engine_cpu),
        peak: median(costs, |cost| cost.peak),
        wire: optional(|cost| cost.wire),
    }
}

/// Only what has no images in it; whether all its limits were kept.
pub(crate) fn run_blocks(root: &Path, quick: bool) -> Result<bool> {
    blocks::run(root, quick)
}

/// Only many who pull the same; whether all limits were kept.
pub(crate) fn run_swarm(root: &Path, quick: bool) -> Result<bool> {
    swarm::run(root, quick)
}

/// Only a registry with very many images; whether all limits were kept.
pub(crate) fn run_hub(root: &Path, quick: bool) -> Result<bool> {
    hub::run(root, quick)
}

pub(crate) fn median<T>(costs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs the criterion benches; `quick` takes fewer samples.
fn run_criterion(root: &Path, quick: bool) -> Result {
    let mut command = Command::new("cargo");
    // The whole workspace, so that nothing is built with other features than for the tests.
    command.current_dir(root).args(["bench", "--workspace", "--locked"]);
    command.args(["--bench", "dag", "--bench", "archive", "--bench", "loopback"]);
    if quick {
        command.args(["--", "--quick"]);
    }
    shell::run(&mut command)
}

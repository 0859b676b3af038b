//! `cargo xtask bench`: ipcr beside its peers, in one run, [`blocks`] alone, then the criterion benches.
//!
//! Figures on their own say more about the machine than about the program; the ratios are what counts.

mod blocks;
mod rounds;
mod swarm;

use std::path::Path;
use std::process::Command;

use crate::accept::lab::Lab;
use crate::accept::site::IMAGE_MIB;
use crate::measure::Cost;
use crate::shell::{self, Result};

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    DockerSave,
    DockerPush,
    DockerPushAgain,
    IpfsAdd,
    IpcrPush,
    IpcrPushAgain,
    DockerLoad,
    DockerPull,
    IpfsGet,
    IpfsGetFromIpcr,
    IpcrPull,
    IpcrPullLayout,
    IpcrPullStore,
    IpcrPullAgain,
    DockerPushUpdate,
    IpcrPushUpdate,
    DockerPullUpdate,
    IpcrPullUpdate,
}

use Operation::{
    DockerLoad, DockerPull, DockerPullUpdate, DockerPush, DockerPushAgain, DockerPushUpdate, DockerSave, IpcrPull,
    IpcrPullAgain, IpcrPullLayout, IpcrPullStore, IpcrPullUpdate, IpcrPush, IpcrPushAgain, IpcrPushUpdate, IpfsAdd,
    IpfsGet, IpfsGetFromIpcr,
};

const OPERATIONS: &[(Operation, &str)] = &[
    (DockerSave, "`docker save`"),
    (DockerPush, "`docker push` to a local registry, first"),
    (DockerPushAgain, "`docker push`, second"),
    (IpfsAdd, "`ipfs add -r` of the same tag folder"),
    (IpcrPush, "`ipcr push`, first"),
    (IpcrPushAgain, "`ipcr push`, second"),
    (DockerLoad, "`docker load` of a saved archive"),
    (DockerPull, "`docker pull` from a local registry"),
    (IpfsGet, "`ipfs get` of the tag folder, Kubo from Kubo"),
    (IpfsGetFromIpcr, "`ipfs get` of the tag folder, Kubo from ipcr"),
    (IpcrPull, "`ipcr pull` into the engine"),
    (IpcrPullLayout, "`ipcr pull --into oci:DIR`"),
    (IpcrPullStore, "`ipcr pull --into none`"),
    (IpcrPullAgain, "`ipcr pull` into the engine, again"),
    (DockerPushUpdate, "`docker push` of an update"),
    (IpcrPushUpdate, "`ipcr push` of an update"),
    (DockerPullUpdate, "`docker pull` of an update"),
    (IpcrPullUpdate, "`ipcr pull` of an update, into the engine"),
];

/// Which operations do the same work, so that their ratio means something.
const RATIOS: &[(Operation, Operation)] = &[
    (IpcrPush, DockerSave),
    (IpcrPush, DockerPush),
    (IpcrPush, IpfsAdd),
    (IpcrPushAgain, DockerSave),
    (IpcrPushAgain, DockerPushAgain),
    (IpcrPull, DockerLoad),
    (IpcrPull, DockerPull),
    (IpcrPullLayout, IpfsGet),
    (IpfsGetFromIpcr, IpfsGet),
    (IpcrPushUpdate, DockerPushUpdate),
    (IpcrPullUpdate, DockerPullUpdate),
];

/// Everything that `cargo xtask bench` does.
pub(crate) fn run(root: &Path, quick: bool) -> Result<bool> {
    let lab = Lab::new(root)?;
    let times = if quick { 3 } else { 5 };
    let mut results = rounds::run(&lab, times)?;
    drop(lab);
    println!("\nMedians of {times}, an image of {IMAGE_MIB} MiB in 5 layers, everything on one machine.\n");
    println!("| | seconds | MiB/s | processor s | of the engine | peak MiB |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (operation, name) in OPERATIONS {
        let costs = results.entry(*operation).or_default();
        let middle = Cost {
            seconds: median(costs, |cost| cost.seconds),
            cpu: median(costs, |cost| cost.cpu),
            engine_cpu: median(costs, |cost| cost.engine_cpu),
            peak: median(costs, |cost| cost.peak),
        };
        #[expect(clippy::cast_precision_loss, reason = "an image is small enough")]
        let rate = IMAGE_MIB as f64 / middle.seconds;
        let Cost { seconds, cpu, engine_cpu, peak } = middle;
        println!("| {name} | {seconds:.2} | {rate:.0} | {cpu:.2} | {engine_cpu:.2} | {peak:.0} |");
        *costs = vec![middle];
    }
    println!("\n| | beside | ratio of the times |\n|---|---|---:|");
    for (ours, theirs) in RATIOS {
        let name = |wanted: &Operation| {
            OPERATIONS.iter().find(|(operation, _)| operation == wanted).map_or("", |(_, name)| name)
        };
        let ratio = results[ours][0].seconds / results[theirs][0].seconds;
        println!("| {} | {} | {ratio:.2} |", name(ours), name(theirs));
    }
    println!();
    let kept = run_blocks(root, quick)? & run_swarm(root, quick)?;
    run_criterion(root, quick)?;
    Ok(kept)
}

/// Only what has no images in it; whether all its limits were kept.
pub(crate) fn run_blocks(root: &Path, quick: bool) -> Result<bool> {
    blocks::run(root, quick)
}

/// Only many who pull the same; whether all limits were kept.
pub(crate) fn run_swarm(root: &Path, quick: bool) -> Result<bool> {
    swarm::run(root, quick)
}

fn median<T>(costs: &[T], of: impl Fn(&T) -> f64) -> f64 {
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

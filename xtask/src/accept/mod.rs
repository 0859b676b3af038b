//! `cargo xtask accept`: the acceptance checks of the main job, with the real binary and real peers, one line each.

mod exchange;
pub(crate) mod lab;
mod load;
mod main_job;
mod records;
mod site;

use std::path::Path;
use std::time::Instant;

use crate::shell::Result;
use lab::Lab;

/// What a check measured, and the limit it was held against.
pub(crate) struct Figure {
    /// For people: `0.42 s`, `same image ID`.
    pub(crate) found: String,
    /// For people: `< 1 s`; empty where there is none.
    pub(crate) limit: String,
}

impl Figure {
    /// A check that has no number.
    pub(crate) fn ok(found: impl Into<String>) -> Self {
        Self { found: found.into(), limit: String::new() }
    }

    /// A number within its limit, or an error.
    pub(crate) fn at_most(found: f64, limit: f64, unit: &str) -> Result<Self> {
        let figure = Self { found: format!("{found:.2} {unit}"), limit: format!("<= {limit} {unit}") };
        if found <= limit { Ok(figure) } else { Err(format!("{}, limit {}", figure.found, figure.limit).into()) }
    }
}

/// One acceptance check.
struct Check {
    /// The acceptance line and a word for the part of it.
    name: &'static str,
    /// What is run, for people.
    command: &'static str,
    run: fn(&Lab) -> Result<Figure>,
    /// Only with `--soak`.
    soak: bool,
}

const fn check(name: &'static str, command: &'static str, run: fn(&Lab) -> Result<Figure>) -> Check {
    Check { name, command, run, soak: false }
}

/// All checks, in the order of the acceptance lines.
const CHECKS: &[Check] = &[
    check("1 init", "ipcr init; ipcr id; ipcr init", main_job::init),
    check(
        "2 engine to engine",
        "ipcr push app:1; ipcr serve; ipcr pull hub.test/app:1; docker run",
        main_job::engine_to_engine,
    ),
    check("2 push --serve", "ipcr push app:1 --serve; ipcr pull", main_job::push_serve),
    check("4 streams", "docker save | ipcr push -; ipcr pull --into - | docker load", exchange::streams),
    check("5 stock recipe", "ipfs get -o app:1 /ipfs/CID; tar | docker load", exchange::stock_recipe),
    check("6 2020 registry", "ipfs add -r; ipcr pull ipfs/CID", exchange::registry_of_2020),
    check("7 unchanged", "ipcr push app:1 --no-publish", main_job::unchanged),
    check("8 sequence", "ipcr push --as other:1", records::sequence),
    check("8 moved tag", "ipcr pull app@sha256:…", records::moved_tag),
    check("9 names", "ipcr pull of what does not exist", records::names),
    check("9 engine", "ipcr push and pull while the engine dies", load::engine),
    check("10 memory", "VmHWM of push, pull and serve, 1 GiB layer", load::memory),
    check("11 several at once", "8 pulls and pushes on one home", load::several),
    check("12 start", "ipcr --help; ipcr id", main_job::start),
    check("13 CI", ".ci/run", ci),
];

/// How long the run of everything may take, in minutes.
const CI_MINUTES: f64 = 60.0;

/// Line 13: a run of everything takes so long. Checks come last in it, so that it ends when this one does.
fn ci(lab: &Lab) -> Result<Figure> {
    let began = lab.began.ok_or("SKIPPED: only `cargo xtask test` knows how long everything takes")?;
    Figure::at_most(began.elapsed().as_secs_f64() / 60.0, CI_MINUTES, "minutes")
}

/// Runs the checks whose names contain one of `args`, or all. `--soak` adds the long ones; with `--require-peers` a skip is a failure.
///
/// `began` is when the run of everything began that this is a part of, if it is.
pub(crate) fn run(root: &Path, args: &[&str], began: Option<Instant>) -> Result<bool> {
    let soak = args.contains(&"--soak");
    let required = args.contains(&"--require-peers");
    let names: Vec<&str> = args.iter().filter(|arg| !arg.starts_with("--")).copied().collect();
    let mut lab = Lab::new(root)?;
    lab.began = began;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for check in CHECKS {
        let chosen = names.is_empty() || names.iter().any(|name| check.name.contains(name));
        if !chosen || (check.soak && !soak) {
            continue;
        }
        let start = Instant::now();
        let outcome = (check.run)(&lab);
        let seconds = start.elapsed().as_secs_f64();
        let (verdict, figure, limit) = match &outcome {
            Ok(figure) => {
                passed += 1;
                ("pass", figure.found.clone(), figure.limit.clone())
            }
            Err(error) if error.to_string().starts_with("SKIPPED") && !required => {
                skipped += 1;
                ("skip", error.to_string(), String::new())
            }
            Err(error) => {
                failed += 1;
                ("FAIL", error.to_string(), String::new())
            }
        };
        println!("{verdict}  {:<20} | {} | {figure} | {limit} | {seconds:.1} s", check.name, check.command);
    }
    let skips = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    println!("{passed} passed, {failed} failed{skips}");
    Ok(failed == 0)
}

//! `cargo xtask accept`: the acceptance checks, with the real binary and real peers, one line each.

mod bytes;
mod compress;
pub(crate) mod exchange;
mod faults;
pub(crate) mod forge;
pub(crate) mod lab;
mod load;
mod main_job;
pub(crate) mod many_tags;
mod matrix;
mod media;
mod memory;
mod namespace;
pub(crate) mod network;
mod odd;
mod proxy;
mod record_table;
mod records;
pub(crate) mod registry;
mod router;
pub(crate) mod site;
mod trust;
mod two_homes;
mod two_hosts;
mod update;
pub(crate) mod versions;
mod watched;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::shell::{Result, output};
use faults::{archives, damage, disk, registries, repair, signals, words};
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

impl Check {
    /// The chapter, and the acceptance line in it, if it belongs to one.
    fn line(&self) -> Option<(&'static str, u32)> {
        let number = |text: &str| text.split(' ').next().and_then(|number| number.parse().ok());
        CHAPTERS.iter().find_map(|chapter| {
            let rest = self.name.strip_prefix(chapter.name)?;
            Some((chapter.name, number(rest)?))
        })
    }
}

/// A list of acceptance lines, numbered from 1.
struct Chapter {
    /// What the names of its checks begin with.
    name: &'static str,
    lines: u32,
    /// Lines that have no check here, and why.
    elsewhere: &'static [(u32, &'static str)],
}

/// All chapters. A line without a check is a failure, unless it is said here why it has none.
const CHAPTERS: &[Chapter] = &[
    // The main job.
    Chapter { name: "", lines: 13, elsewhere: &[] },
    Chapter {
        name: "network ",
        lines: 10,
        elsewhere: &[
            (4, "measured by `cargo xtask bench`"),
            (9, "`fuzzing::tests::seeds_hold`, and fuzz/README.md"),
            (10, "the main job's checks, and `ipcr-core/tests/layering.rs`"),
        ],
    },
    Chapter {
        name: "update ",
        lines: 7,
        elsewhere: &[
            (4, "measured by `cargo xtask bench images`"),
            (5, "`network swarm`; measured by `cargo xtask bench swarm`"),
            (6, "`10 memory`, `network 6 memory`"),
        ],
    },
];

const fn check(name: &'static str, command: &'static str, run: fn(&Lab) -> Result<Figure>) -> Check {
    Check { name, command, run, soak: false }
}

const fn soak(name: &'static str, command: &'static str, run: fn(&Lab) -> Result<Figure>) -> Check {
    Check { name, command, run, soak: true }
}

/// All checks, in the order of the acceptance lines.
const CHECKS: &[Check] = &[
    check("1 init", "ipcr init; ipcr id; ipcr init", main_job::init),
    check(
        "2 engine to engine",
        "ip netns; ipcr push app:1; ipcr serve; ipcr pull hub.test/app:1; docker run",
        two_hosts::engine_to_engine,
    ),
    check("2 slow line", "ipcr pull --peer, 20 ms each way", two_hosts::slow_line),
    check("2 push --serve", "ipcr push app:1 --serve; ipcr pull", main_job::push_serve),
    check("3 bytes", "ipcr push oci:DIR; ipcr pull --into oci:OUT", bytes::bytes),
    check("3 odd images", "ipcr push, inspect, ls, pull of unusual images", odd::images),
    check("4 streams", "docker save | ipcr push -; ipcr pull --into - | docker load", exchange::streams),
    check("4 matrix", "ipcr cp between any two of all sources and sinks", matrix::matrix),
    check("4 several images", "ipcr push docker-archive:F[:REF]", matrix::several),
    check("4 names of results", "ipcr pull REF; docker images", matrix::names),
    check("4 writers", "ipcr push of what Docker and Podman save", matrix::writers),
    check("4 readers", "ipcr push --compression; ipcr pull --into", compress::readers),
    check("4 recompress", "ipcr push --recompress", compress::recompress),
    check("4 lost digest", "docker push; ipcr push; ipcr push docker://…", compress::lost_digest),
    check("5 stock recipe", "ipfs get -o app:1 /ipfs/CID; tar | docker load", exchange::stock_recipe),
    check("6 2020 registry", "ipfs add -r; ipcr pull by CID, domain and RSA name", exchange::registry_of_2020),
    check("7 unchanged", "ipcr push app:1 --no-publish", main_job::unchanged),
    check("8 sequence", "ipcr push --as other:1", records::sequence),
    check("8 moved tag", "ipcr pull app@sha256:…", records::moved_tag),
    check("8 own names", "ipcr tag k51…/app:1 did:key:…/app:2; ipcr serve --no-publish", records::own_names),
    check("8 record table", "ipcr pull k51… beside a router that lies", record_table::rows),
    check("8 records of Kubo", "ipfs name publish --sequence; ipcr resolve k51…", record_table::from_kubo),
    check("8 two homes", "20 pushes of two homes with one key by turns", two_homes::alternating),
    check("8 homes apart", "ipcr push; ipcr publish when the other root cannot be fetched", two_homes::unfetched),
    check("8 trust", "ipcr pull hub.test/x:1 with other keys; ipcr key rotate", trust::trust),
    check("8 offline", "ipcr --offline resolve, pull and push", trust::offline),
    check("8 findable", "ipcr push --wait", trust::findable),
    check("9 names", "ipcr pull of what does not exist", records::names),
    check("9 engine", "ipcr push and pull while the engine dies", load::engine),
    check("9 archives", "ipcr push of archives that are cut off or deceive", archives::archives),
    check("9 layouts", "ipcr push and cp of layouts that are wrong", archives::layouts),
    check("9 many layers", "ipcr push, cp and pull of 129 layers", archives::many_layers),
    check("9 registries", "ipcr pull from registries that are wrong", registries::registries),
    check("9 full disk", "ipcr push, pull and cp on small disks", disk::full),
    check("9 locked", "ipcr push to a home that others hold", signals::locked),
    check("9 interrupted", "Ctrl-C and SIGTERM in push, pull and cp", signals::interrupted),
    check("9 killed", "kill -9 in push and pull, then again", signals::killed),
    check("9 damage", "ipcr check of damaged homes; ipcr push", damage::damage),
    check("9 repair", "ipcr check --repair of damaged homes, beside one that is whole", repair::repair),
    check("9 collection", "ipcr gc", damage::collection),
    check("9 words", "ipcr with files and names that make no sense", words::words),
    check("9 places", "ipcr id > /dev/full; odd homes", words::places),
    check("10 memory", "VmHWM of push, pull and serve, 1 GiB layer", memory::one_gib),
    soak("10 memory, 4 GiB", "VmHWM of push, pull and serve, 1 GiB and 4 GiB layer", memory::four_gib),
    soak("10 memory, other ways", "VmHWM of push, pull and cp by other sources and sinks", memory::other_ways),
    check("11 several at once", "8 pulls, 8 pushes and ipcr gc on one home", load::several),
    check("11 several homes", "8 pushes, then 8 pulls, each in a home of its own", load::homes),
    check("12 start", "ipcr --help; ipcr id", main_job::start),
    check("network 1 helia", "ipcr and Helia, connected and idle for 15 s; both fetch", network::helia::idle),
    check("network 1 batch", "ipcr pull of blocks of 512 KiB that Helia sends together", network::helia::batch),
    check("network 1 kubo", "ipcr pull from and Kubo from ipcr, 200 MB in chunks of 256 KiB", network::kubo::chunks),
    check("network 1 large block", "a block of 2 MiB from Kubo to ipcr and back", network::kubo::large_block),
    check("network 1 slow reader", "VmHWM of ipcr serve, 5,000 wants and nothing read", network::load::slow_reader),
    check("network 1 lost seeder", "ipcr pull from three; kill -9 of one", network::load::lost_seeder),
    check("network 1 both ways", "two ipcr pull by one TCP connection, 10 s", network::bulk::short),
    soak("network 1 both ways, 60 s", "two ipcr pull by one TCP connection, 60 s", network::bulk::long),
    check("network 2 liars", "ipcr pull from one that lies and one that does not", network::liars::liars),
    check(
        "network 2 gateways",
        "ipcr pull --gateway from Kubo, and from gateways that lie, hang, die or know raw only",
        network::gateways::gateways,
    ),
    check(
        "network 3 names",
        "ipcr push --bootstrap; ipfs name resolve, routing findprovs; ipcr pull --router",
        network::kubo::names,
    ),
    check(
        "network 5 lossy line",
        "socat; ipcr pull by QUIC, 100 Mbit/s, 50 ms, one packet of 1,000 lost",
        network::lossy::beside_best,
    ),
    soak(
        "network 5 lossy line, all",
        "socat by each congestion control; ipcr pull by QUIC, 100 Mbit/s, 50 ms, one packet of 1,000 lost",
        network::lossy::beside_all,
    ),
    check("network 6 memory", "VmHWM of ipcr serve, 16 ipcr pull at once", network::load::memory),
    check("network 6 many blocks", "ipcr serve; ipcr gc and ipcr push, 50,000 blocks", network::many::some),
    soak(
        "network 6 many blocks, 1,000,000",
        "ipcr serve; ipcr gc and ipcr push, 1,000,000 blocks",
        network::many::million,
    ),
    check("network 7 half", "kill -9 of ipcr pull at half; ipcr pull", network::load::half),
    check("network 7 nat", "ipcr pull between two routers, by a relay and past it", network::nat::nat),
    check("network 8 strangers", "ipcr --network public, told of addresses within", network::strangers::strangers),
    check("network swarm", "4 ipcr pull at once, the holder's uplink 100 Mbit/s", network::swarm::swarm),
    check(
        "update 1 fetched",
        "ipcr push up:1, up:2; ipcr pull hub.test/up:1; ipcr pull hub.test/up:2 --into oci:DIR",
        update::fetched,
    ),
    check("update 1 which layers", "ipcr push oci:DIR, --recompress; ipcr gc", update::which),
    check("update 2 rebuilt", "docker build; ipcr push rebuilt:1, rebuilt:2", update::rebuilt),
    check("update 3 far", "docker pull; ipcr pull hub.test/far:2, 10 Mbit/s, 20 ms each way", update::far),
    check("update 7 many tags", "ipcr push app:1.0; ipcr ls; 10,000 images of 100 tags", many_tags::check),
    // At the end, because it knows how long everything took.
    check("13 CI", ".ci/run", ci),
];

/// How long the run of everything may take, in minutes.
const CI_MINUTES: f64 = 60.0;

/// Line 13: a run of everything takes so long. Checks come last in it, so that it ends when this one does. Whether the checkout is as it
/// was committed is told, where that can be known.
fn ci(lab: &Lab) -> Result<Figure> {
    let began = lab.began.ok_or("SKIPPED: only `cargo xtask test` knows how long everything takes")?;
    let mut figure = Figure::at_most(began.elapsed().as_secs_f64() / 60.0, CI_MINUTES, "minutes")?;
    let mut git = Command::new("git");
    git.current_dir(&lab.root).args(["-c", "safe.directory=*", "status", "--porcelain"]);
    if output(&mut git).is_ok_and(|changes| !changes.is_empty()) {
        figure.found.push_str(", of a changed checkout");
    }
    Ok(figure)
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
    if names.is_empty() {
        for (chapter, line) in CHAPTERS.iter().flat_map(|chapter| (1..=chapter.lines).map(move |line| (chapter, line)))
        {
            if CHECKS.iter().any(|check| check.line() == Some((chapter.name, line))) {
                continue;
            }
            let name = format!("{}{line}", chapter.name);
            match chapter.elsewhere.iter().find(|(known, _)| *known == line) {
                Some((_, why)) => println!("none  {name:<20} | | {why} | |"),
                None => {
                    failed += 1;
                    println!("FAIL  {name:<20} | | no check | |");
                }
            }
        }
    }
    let skips = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    println!("{passed} passed, {failed} failed{skips}");
    Ok(failed == 0)
}

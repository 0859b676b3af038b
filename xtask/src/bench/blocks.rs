//! `cargo xtask bench blocks`: adding a file and fetching it, without images, engines and names, by stock rust-ipfs, Kubo and
//! ipcr.
//!
//! What makes it fair: blocks of 1 MiB, TCP on loopback, a second process that fetches, and durable on all sides: rust-ipfs
//! syncs every block, ipcr everything with its one commit, and Kubo is told to (`sync` of its block store, which `ipfs init`
//! leaves off). Before every operation the disk is made to finish what others left to it. Time is that of the whole program;
//! of Kubo's fetch that of `ipfs pin add`, with both daemons running and connected. `ipfs get` would write the file a second
//! time; pinning stores the blocks, as the other two do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::rounds::warm;
use crate::accept::exchange::{Kubo, kubo};
use crate::accept::lab::{Lab, Process};
use crate::accept::site::{require, same, text};
use crate::line::{Line, Quality};
use crate::measure::{self, Helpers};
use crate::peers;
use crate::shell::{self, Result};
use crate::splitmix::SplitMix64;

/// Bytes of the file.
const BYTES: u64 = 1 << 30;
/// The same with `--quick`.
const QUICK_BYTES: u64 = 256 << 20;
/// Seeders that share a download.
const SEEDERS: usize = 3;
/// What each of them uploads, in bytes a second.
const SEEDER_RATE: f64 = 20e6;

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    DiskCopy,
    StockAdd,
    KuboAdd,
    KuboAddUnsynced,
    IpcrAdd,
    IpcrAddAgain,
    StockFetch,
    KuboFetch,
    IpcrFetch,
    IpcrFetchShared,
    Connection,
}

use Operation::{
    Connection, DiskCopy, IpcrAdd, IpcrAddAgain, IpcrFetch, IpcrFetchShared, KuboAdd, KuboAddUnsynced, KuboFetch,
    StockAdd, StockFetch,
};

const OPERATIONS: &[(Operation, &str)] = &[
    (DiskCopy, "the disk: copying the file, synced once"),
    (StockAdd, "add, stock rust-ipfs"),
    (KuboAdd, "add, Kubo without a daemon, synced"),
    (KuboAddUnsynced, "add, Kubo as it comes (not durable)"),
    (IpcrAdd, "add, ipcr"),
    (IpcrAddAgain, "add again what is known, ipcr"),
    (StockFetch, "fetch, stock from stock"),
    (KuboFetch, "fetch, Kubo from Kubo, synced"),
    (IpcrFetch, "fetch, ipcr from ipcr"),
    (IpcrFetchShared, "fetch, ipcr from 3 seeders of 20 MB/s each"),
    (Connection, "a connection alone: nothing read, hashed, asked for or stored"),
];

/// How many times as fast ipcr has to be.
const RATIOS: &[(Operation, Operation, f64)] =
    &[(IpcrAdd, StockAdd, 4.0), (IpcrAdd, KuboAdd, 1.2), (IpcrFetch, StockFetch, 2.5), (IpcrFetch, KuboFetch, 1.5)];

/// How fast ipcr has to be, in bytes a second.
const RATES: &[(Operation, f64)] = &[(IpcrAddAgain, 1e9), (IpcrFetchShared, 54e6)];

/// What one operation cost.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    /// Processor seconds of everybody who worked for it.
    cpu: f64,
}

/// Measures and prints the tables; whether all limits were kept.
pub(super) fn run(root: &Path, quick: bool) -> Result<bool> {
    let lab = Lab::new(root)?;
    let target = peers::target_dir(root);
    let own = target.join("stock");
    shell::run(
        Command::new("cargo")
            .current_dir(root.join("benches/stock"))
            .args(["build", "--release", "--locked", "-q", "--target-dir"])
            .arg(&own),
    )?;
    let (bytes, times) = if quick { (QUICK_BYTES, 3) } else { (BYTES, 5) };
    let file = lab.path("data");
    write_noise(&file, bytes)?;
    let mut round = Round {
        lab: &lab,
        stock: own.join("release/stock"),
        ipcr: target.join("release/examples/blocks"),
        wire: target.join("release/examples/wire"),
        file,
        bytes,
        samples: BTreeMap::new(),
    };
    for number in 1..=times {
        eprintln!("round {number} of {times}");
        round.add()?;
        round.fetch()?;
        round.share()?;
        round.clear()?;
    }
    Ok(report(&round.samples, bytes, times))
}

fn report(samples: &BTreeMap<Operation, Vec<Sample>>, bytes: u64, times: usize) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "the file is small enough")]
    let size = bytes as f64;
    let seconds = |operation| super::median(&samples[operation], |sample: &Sample| sample.seconds);
    println!(
        "\nMedians of {times}, a file of {} MiB that does not compress, blocks of 1 MiB, TCP on loopback.\n",
        bytes >> 20
    );
    println!("| | seconds | MB/s | processor s per GiB |");
    println!("|---|---:|---:|---:|");
    for (operation, name) in OPERATIONS {
        let (seconds, cpu) = (seconds(operation), super::median(&samples[operation], |sample| sample.cpu));
        let per_gib = cpu * f64::from(1 << 30) / size;
        println!("| {name} | {seconds:.2} | {:.0} | {per_gib:.2} |", size / 1e6 / seconds);
    }
    let name =
        |wanted: &Operation| OPERATIONS.iter().find(|(operation, _)| operation == wanted).map_or("", |row| row.1);
    let mut all = true;
    println!("\n| | beside | found | at least | |");
    println!("|---|---|---:|---:|---|");
    for (ours, theirs, limit) in RATIOS {
        let ratio = seconds(theirs) / seconds(ours);
        all &= ratio >= *limit;
        println!(
            "| {} | {} | {ratio:.2} x | {limit} x | {} |",
            name(ours),
            name(theirs),
            super::verdict(ratio >= *limit)
        );
    }
    for (ours, limit) in RATES {
        let rate = size / seconds(ours);
        all &= rate >= *limit;
        let (found, limit, verdict) = (rate / 1e6, limit / 1e6, super::verdict(rate >= *limit));
        println!("| {} | | {found:.0} MB/s | {limit:.0} MB/s | {verdict} |", name(ours));
    }
    println!();
    all
}

struct Round<'a> {
    lab: &'a Lab,
    stock: PathBuf,
    ipcr: PathBuf,
    wire: PathBuf,
    file: PathBuf,
    bytes: u64,
    samples: BTreeMap<Operation, Vec<Sample>>,
}

/// The folders that a round makes: the CIDs of one are known to the next step by them.
const STOCK: [&str; 2] = ["stock-a", "stock-b"];
const KUBO: [&str; 3] = ["kubo-a", "kubo-b", "kubo-unsynced"];
const IPCR: [&str; 3] = ["ipcr-a", "ipcr-b", "ipcr-c"];
const SHARED: &str = "ipcr-d";
const COPIED: &str = "copy";

impl Round<'_> {
    fn note(&mut self, operation: Operation, sample: Sample) {
        #[expect(clippy::cast_precision_loss, reason = "the file is small enough")]
        let rate = self.bytes as f64 / 1e6 / sample.seconds;
        eprintln!("  {operation:?}: {:.2} s, {rate:.0} MB/s, {:.2} s of the processor", sample.seconds, sample.cpu);
        self.samples.entry(operation).or_default().push(sample);
    }

    fn path(&self, name: &str) -> String {
        self.lab.path(name).display().to_string()
    }

    /// Into a repository, a home.
    fn add(&mut self) -> Result {
        let file = self.file.display().to_string();
        settle()?;
        let start = Instant::now();
        let copy = measure::run(
            Command::new("dd")
                .args(["bs=1M", "conv=fdatasync", "status=none"])
                .arg(format!("if={file}"))
                .arg(format!("of={}", self.path(COPIED))),
            Helpers::default(),
        )?;
        self.note(DiskCopy, Sample { seconds: start.elapsed().as_secs_f64(), cpu: copy.cpu });
        fs::remove_file(self.lab.path(COPIED))?;

        let repo = self.path(STOCK[0]);
        let mut command = Command::new(&self.stock);
        self.reported(StockAdd, command.args(["add", &file, "--repo", &repo]), &[])?;
        self.kubo_add(KUBO[0], true)?;
        self.kubo_add(KUBO[2], false)?;
        for (operation, new) in [(IpcrAdd, true), (IpcrAddAgain, false)] {
            let home = self.path(IPCR[0]);
            let mut command = Command::new(&self.ipcr);
            let added = self.reported(operation, command.args(["add", &file, "--home", &home]), &[])?;
            require((added["new"] != 0) == new, || format!("{added}"))?;
        }
        Ok(())
    }

    fn kubo_add(&mut self, name: &str, synced: bool) -> Result {
        let dir = Kubo::init(self.lab, name)?;
        if synced {
            sync_blocks(&dir)?;
        }
        settle()?;
        let mut command = kubo(self.lab, &dir)?;
        command.args(["add", "-Q", "--progress=false", "--chunker=size-1048576", "--cid-version=1", "--raw-leaves"]);
        command.arg(&self.file).stdin(Stdio::null()).stdout(File::create(self.cid_file(name))?);
        let cost = measure::run(&mut command, Helpers::default())?;
        self.note(if synced { KuboAdd } else { KuboAddUnsynced }, Sample { seconds: cost.seconds, cpu: cost.cpu });
        Ok(())
    }

    /// Where it is written down what a repository holds.
    fn cid_file(&self, name: &str) -> PathBuf {
        self.lab.path(&format!("{name}.cid"))
    }

    /// From one process to another. What is served is in memory: it is the exchange that is measured, not the disk of the server.
    fn fetch(&mut self) -> Result {
        let cid = fs::read_to_string(self.cid_file(STOCK[0]))?;
        warm(&self.lab.path(STOCK[0]))?;
        let server =
            Server::start(Command::new(&self.stock).args(["serve", "--repo", &self.path(STOCK[0])]), self.lab)?;
        let mut command = Command::new(&self.stock);
        command.args(["fetch", &cid, "--peer", &server.address, "--repo", &self.path(STOCK[1])]);
        self.reported(StockFetch, &mut command, &[server.id()])?;
        drop(server);

        let cid = fs::read_to_string(self.cid_file(KUBO[0]))?;
        warm(&self.lab.path(KUBO[0]))?;
        let giver = Kubo::open(self.lab, KUBO[0])?;
        sync_blocks(&Kubo::init(self.lab, KUBO[1])?)?;
        let taker = Kubo::open(self.lab, KUBO[1])?;
        taker.output(&["swarm", "connect", &giver.address()?])?;
        settle()?;
        let both = [giver.id(), taker.id()];
        let mut command = taker.command(&["pin", "add", "--progress=false", cid.trim()])?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let cost = measure::run(&mut command, Helpers { own: &both, engine: None })?;
        self.note(KuboFetch, Sample { seconds: cost.seconds, cpu: cost.cpu });
        drop((giver, taker));

        warm(&self.lab.path(IPCR[0]))?;
        let server = self.serve(IPCR[0])?;
        self.ipcr_fetch(IpcrFetch, IPCR[1], &[&server], vec![server.address.clone()])?;
        drop(server);

        let server = Server::start(Command::new(&self.wire).args(["serve", &self.bytes.to_string()]), self.lab)?;
        let mut command = Command::new(&self.wire);
        command.args(["fetch", "--peer", &server.address]);
        self.reported(Connection, &mut command, &[server.id()]).map(drop)
    }

    fn serve(&self, home: &str) -> Result<Server> {
        Server::start(Command::new(&self.ipcr).args(["serve", "--home", &self.path(home)]), self.lab)
    }

    fn ipcr_fetch(&mut self, operation: Operation, home: &str, from: &[&Server], peers: Vec<String>) -> Result {
        let mut command = Command::new(&self.ipcr);
        command.args(["fetch", &fs::read_to_string(self.cid_file(IPCR[0]))?]);
        command.args(peers.iter().flat_map(|peer| ["--peer", peer]));
        command.args(["--home", &self.path(home)]);
        let servers: Vec<u32> = from.iter().map(|server| server.id()).collect();
        let fetched = self.reported(operation, &mut command, &servers)?;
        require(fetched["new"].as_u64() >= Some(self.bytes), || format!("not everything was fetched: {fetched}"))
    }

    /// From several processes to one, each with a limit on what it uploads.
    fn share(&mut self) -> Result {
        let file = self.file.display().to_string();
        shell::output(Command::new(&self.ipcr).args(["add", &file, "--home", &self.path(IPCR[2])]))?;
        let servers = IPCR.map(|home| self.serve(home)).into_iter().collect::<Result<Vec<_>>>()?;
        require(servers.len() == SEEDERS, || "not every seeder runs".into())?;
        // The node has no limit on what it uploads; with a line to each, seeders have one all the same.
        let quality = Quality { down: Some(SEEDER_RATE), ..Quality::default() };
        let ports = servers.iter().map(Server::port).collect::<Result<Vec<_>>>()?;
        let lines = ports.iter().map(|port| Line::start(*port, quality)).collect::<Result<Vec<_>>>()?;
        let led = servers.iter().zip(&lines).zip(&ports);
        let addresses = led.map(|((server, line), port)| line.lead(&server.address, *port)).collect();
        let all: Vec<&Server> = servers.iter().collect();
        self.ipcr_fetch(IpcrFetchShared, SHARED, &all, addresses)?;
        let passed: Vec<u64> = lines.iter().map(Line::passed).collect();
        eprintln!("    seeders sent {passed:?} bytes");
        // Peers tell each other where they listen: nothing may have come past the lines.
        require(passed.iter().sum::<u64>() >= self.bytes, || format!("only {passed:?} bytes went through the lines"))
    }

    /// Runs a program that says itself what it cost; `helpers` are processes that work for it.
    fn reported(&mut self, operation: Operation, command: &mut Command, helpers: &[u32]) -> Result<Value> {
        settle()?;
        let spent = || helpers.iter().filter_map(|id| measure::cpu(*id)).sum::<f64>();
        let before = spent();
        let told: Value = serde_json::from_str(&shell::output(command)?)?;
        let field = |name: &str| told[name].as_f64().ok_or_else(|| format!("no {name} in {told}"));
        same("the bytes", &told["bytes"], &self.bytes.into())?;
        let sample = Sample { seconds: field("seconds")?, cpu: field("cpu")? + spent() - before };
        self.note(operation, sample);
        match operation {
            StockAdd => fs::write(self.cid_file(STOCK[0]), text(&told, "cid")?)?,
            IpcrAdd => fs::write(self.cid_file(IPCR[0]), text(&told, "cid")?)?,
            _ => {}
        }
        Ok(told)
    }

    fn clear(&self) -> Result {
        for name in STOCK.iter().chain(&KUBO).chain(&IPCR).chain([&SHARED]) {
            fs::remove_dir_all(self.lab.path(name))?;
        }
        Ok(())
    }
}

/// A process that serves blocks until it is dropped.
struct Server {
    process: Process,
    address: String,
    /// Its end is the server's.
    _input: ChildStdin,
}

impl Server {
    fn start(command: &mut Command, lab: &Lab) -> Result<Self> {
        let log = File::create(lab.path("blocks.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let line = shell::show(command);
        let mut process = Process(command.spawn().map_err(|error| format!("{line}: {error}"))?);
        let input = process.0.stdin.take().ok_or("a piped input is there")?;
        let output = process.0.stdout.take().ok_or("a piped output is there")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim().to_owned();
        require(address.starts_with("/ip4/127.0.0.1/tcp/"), || {
            let talk = fs::read_to_string(lab.path("blocks.log")).unwrap_or_default();
            format!("{line} listens at {address:?}: {talk}")
        })?;
        Ok(Self { process, address, _input: input })
    }

    fn id(&self) -> u32 {
        self.process.0.id()
    }

    fn port(&self) -> Result<u16> {
        Ok(self.address.split('/').nth(4).ok_or("an address has a port")?.parse()?)
    }
}

/// Lets Kubo's block store sync what it writes.
fn sync_blocks(repo: &Path) -> Result {
    let path = repo.join("config");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let blocks = &mut config["Datastore"]["Spec"]["mounts"][0];
    same("the datastore of blocks", &blocks["type"], &"flatfs".into())?;
    blocks["sync"] = true.into();
    Ok(fs::write(path, serde_json::to_vec_pretty(&config)?)?)
}

/// Waits until the disk has everything that was written so far.
pub(super) fn settle() -> Result {
    shell::output(&mut Command::new("sync")).map(drop)
}

/// Writes a file that does not compress, the same every time (`SplitMix64`).
fn write_noise(path: &Path, bytes: u64) -> Result {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut numbers = SplitMix64(0);
    for _ in 0..bytes / 8 {
        out.write_all(&numbers.next().to_le_bytes())?;
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

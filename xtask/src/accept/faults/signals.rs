//! Commands that are interrupted or killed, and homes that somebody else holds.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Calm;
use crate::accept::Figure;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab, Process, check_failure, wait_for};
use crate::accept::proxy::Proxy;
use crate::accept::site::{DOMAIN, require, same, text};
use crate::shell::{Result, show};

/// How soon an interrupted command must have ended.
const END: Duration = Duration::from_secs(3);
/// How long a command may take to get to where it is stopped.
const BEGIN: Duration = Duration::from_secs(30);
/// Where transfers are held up, in bytes.
const HALF: u64 = 4 << 20;

/// A command that has not ended yet.
struct Running {
    line: String,
    process: Process,
    log: PathBuf,
}

impl Running {
    fn start(home: &Home<'_>, args: &[&str], input: Stdio) -> Result<Self> {
        let log = home.dir.with_extension("running.log");
        let mut command = home.command(&["-o", "json", "--progress", "json"]);
        command.args(args).stdin(input).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child: Child = command.spawn().map_err(|error| format!("{}: {error}", show(&command)))?;
        Ok(Self { line: show(&command), process: Process(child), log })
    }

    fn talk(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until something holds; an error if the command ends before.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&str) -> bool) -> Result {
        let start = Instant::now();
        while !holds(&self.talk()) {
            let ended = !matches!(self.process.0.try_wait(), Ok(None));
            if ended || start.elapsed() > BEGIN {
                let state = if ended { "ended" } else { "did not get on" };
                return Err(format!("{} {state} before {what}: {}", self.line, self.talk()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a signal; how long the command took to end, with exit code 130 and the reason.
    fn interrupt(self, signal: &str) -> Result<f64> {
        let start = Instant::now();
        self.process.signal(signal);
        let Self { line, process, log } = self;
        let status = process.wait(END).map_err(|error| format!("{line}, {signal}: {error}"))?;
        let seconds = start.elapsed().as_secs_f64();
        let error = check_failure(&line, 130, status.code(), &fs::read_to_string(log)?)?;
        same("the kind", text(&error, "kind")?.as_str(), "interrupted")?;
        Ok(seconds)
    }

    /// Ends it at once, without a chance to clean up.
    fn kill(mut self) -> Result {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }
}

/// The first half of a file as standard input that then stands still. The second value must be kept.
fn half(file: &Path) -> Result<(Stdio, std::io::PipeWriter)> {
    let (reader, mut writer) = std::io::pipe()?;
    let bytes = fs::read(file)?;
    let mut other = writer.try_clone()?;
    std::thread::spawn(move || drop(other.write_all(&bytes[..bytes.len() / 2])));
    writer.flush()?;
    Ok((reader.into(), writer))
}

/// What the checks of this file work with: a publisher, and ways to hold transfers up.
struct Stage<'a> {
    lab: &'a Lab,
    /// A home with a registry, whose engine and source of blocks can be held up.
    home: Home<'a>,
    engine: Proxy,
    node: Proxy,
    _site: crate::accept::site::Site,
    archive: PathBuf,
    out: PathBuf,
    image: String,
    reference: String,
}

impl<'a> Stage<'a> {
    fn new(lab: &'a Lab, name: &str) -> Result<Self> {
        let image = lab.image("small:1", crate::accept::exchange::SMALL_MIB)?;
        let publisher = lab.home(&format!("{name}-a"));
        publisher.json(&["init", "--domain", DOMAIN])?;
        publisher.json(&["push", "small:1", "--as", "held:1", "--no-publish"])?;
        let site = lab.serve(&publisher)?;
        let (_, rest) = site.address.split_once("/tcp/").ok_or("a TCP address")?;
        let (port, peer) = rest.split_once('/').ok_or("an address with a peer")?;
        let node = Proxy::start_tcp(port.parse()?)?;
        lab.dns(&[(&format!("_dnslink.{DOMAIN}"), &format!("dnslink=/ipns/{}", site.ipns))])?;
        let engine = Proxy::start(&lab.engine()?)?;
        let visitor = lab.visitor(&format!("{name}-b"))?.through(&engine.host());
        let home = visitor.with(&["--peer", &format!("/ip4/127.0.0.1/tcp/{}/{peer}", node.port)]);
        home.json(&["init"])?;
        let archive = lab.path(&format!("{name}.tar"));
        fs::write(&archive, Image::new(9, &[8 << 20, 8 << 20]).archive())?;
        home.json(&["push", "small:1", "--as", "own:1", "--no-publish", "--compression", "none"])?;
        let out = lab.path(&format!("{name}-out"));
        fs::create_dir_all(&out)?;
        let reference = format!("{DOMAIN}/held:1");
        Ok(Self { lab, home, engine, node, _site: site, archive, out, image, reference })
    }

    fn holding(&self) -> bool {
        self.engine.is_holding() || self.node.is_holding()
    }

    fn hold(&self) {
        self.engine.hold_after(Some(HALF));
        self.node.hold_after(Some(HALF));
    }

    fn release(&self) -> Result {
        self.engine.hold_after(None);
        self.node.hold_after(None);
        wait_for("what was held up", Duration::from_secs(10), || !self.holding())
    }

    /// The commands that are stopped halfway, each with what it reads from standard input.
    fn commands(&self) -> Vec<(Vec<String>, bool)> {
        let layout = format!("oci:{}", self.out.join("layout").display());
        let archive = format!("docker-archive:{}", self.out.join("image.tar").display());
        let oci_archive = format!("oci-archive:{}", self.out.join("image.oci").display());
        let all: &[(&[&str], bool)] = &[
            (&["push", "small:1", "--as", "stopped:1", "--no-publish"], false),
            (&["push", "-", "--as", "stopped:1", "--no-publish"], true),
            (&["pull", "own:1", "--as", "stopped:1"], false),
            (&["pull", &self.reference, "--into", "none"], false),
            (&["pull", &self.reference, "--into", &layout], false),
            (&["pull", &self.reference, "--into", &archive], false),
            (&["pull", &self.reference], false),
            (&["cp", "docker-daemon:small:1", &layout], false),
            (&["cp", "-", &oci_archive], true),
        ];
        all.iter().map(|(args, fed)| (args.iter().map(|arg| (*arg).to_owned()).collect(), *fed)).collect()
    }

    /// Starts a command and waits until it stands still in the middle.
    fn begin(&self, args: &[&str], fed: bool) -> Result<(Running, Option<std::io::PipeWriter>)> {
        let (input, writer) = if fed {
            let (input, writer) = half(&self.archive)?;
            (input, Some(writer))
        } else {
            (Stdio::null(), None)
        };
        let mut running = Running::start(&self.home, args, input)?;
        running.until("it stood still", |talk| if fed { is_under_way(talk) } else { self.holding() })?;
        Ok((running, writer))
    }

    /// Runs a command to its end with nothing in its way, and takes back what it did.
    fn succeeds(&self, args: &[&str], fed: bool) -> Result {
        let mut command = self.home.command(&["-o", "json"]);
        command.args(args);
        if fed {
            command.stdin(File::open(&self.archive)?);
        }
        let output = command.output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        require(output.status.success(), || format!("{} ended with {}: {talk}", show(&command), output.status))?;
        fs::remove_dir_all(&self.out)?;
        fs::create_dir_all(&self.out)?;
        if args[0] == "push" {
            self.home.json(&["rm", "stopped", "--all-tags"])?;
        }
        self.home.json(&["check", "--read-data"])?;
        Ok(())
    }

    fn end(self) -> Result {
        self.release()?;
        fs::remove_dir_all(&self.out)?;
        fs::remove_file(&self.archive)?;
        fs::remove_dir_all(&self.home.dir)?;
        self.lab.docker_output(&["image", "inspect", "small:1"])?;
        Ok(())
    }
}

/// Whether bytes of a blob have been read.
fn is_under_way(talk: &str) -> bool {
    talk.lines().any(|line| line.contains("\"blob-started\"") || line.contains("\"blob-progress\""))
}

/// Line 9: Ctrl-C and `SIGTERM` wherever a command may be.
pub(crate) fn interrupted(lab: &Lab) -> Result<Figure> {
    let stage = Stage::new(lab, "int")?;
    let mut worst: f64 = 0.0;
    let commands = stage.commands();
    for (at, (args, fed)) in commands.iter().enumerate() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let loads = args[0] == "pull" && !args.contains(&"--into");
        if loads {
            // So that there is something to load.
            lab.forget(&stage.image)?;
        }
        let calm = Calm::before(&stage.home, &[&stage.out])?;
        let signal = if at % 2 == 0 { "INT" } else { "TERM" };
        stage.hold();
        let (running, writer) = stage.begin(&args, *fed)?;
        worst = worst.max(running.interrupt(signal)?);
        drop(writer);
        stage.release()?;
        calm.after(&format!("{signal} in {}", args.join(" ")))?;
        stage.succeeds(&args, *fed).map_err(|error| format!("command {at}: {error}"))?;
        if loads {
            let name = if args[1] == "own:1" { "stopped:1" } else { &stage.reference };
            lab.docker_output(&["tag", name, "small:1"])?;
            lab.docker_output(&["rmi", name])?;
        }
        fresh(&stage)?;
    }
    twice(&stage)?;
    let count = commands.len();
    stage.end()?;
    let mut figure = Figure::at_most(worst, END.as_secs_f64(), "s")?;
    figure.found = format!("{count} signals, exit 130 after at most {}", figure.found);
    Ok(figure)
}

/// Forgets what was pulled, so that the next pull fetches.
fn fresh(stage: &Stage<'_>) -> Result {
    let home = &stage.home;
    fs::remove_dir_all(&home.dir)?;
    home.json(&["init"])?;
    home.json(&["push", "small:1", "--as", "own:1", "--no-publish", "--compression", "none"])?;
    Ok(())
}

/// Two signals: the first lets those finish who work through the process, the second does not.
fn twice(stage: &Stage<'_>) -> Result {
    let calm = Calm::before(&stage.home, &[&stage.out])?;
    let args = ["push", "-", "--as", "stopped:1", "--no-publish"];
    let (first, first_input) = stage.begin(&args, true)?;
    let log = first.log.with_extension("first");
    fs::rename(&first.log, &log)?;
    let first = Running { log, ..first };
    stage.hold();
    let (second, _) = stage.begin(&["pull", &stage.reference, "--into", "none"], false)?;
    first.process.signal("INT");
    std::thread::sleep(Duration::from_millis(500));
    let mut first = first;
    require(matches!(first.process.0.try_wait(), Ok(None)), || "it did not wait for the other".into())?;
    first.process.signal("INT");
    let status = first.process.wait(END)?;
    same("the exit code", &status.code(), &Some(130))?;
    // Whoever worked through it is told, and can begin again.
    let Running { line, process, log } = second;
    let status = process.wait(BEGIN)?;
    let error = check_failure(&line, 4, status.code(), &fs::read_to_string(log)?)?;
    require(text(&error, "hint")?.contains("again"), || format!("{line}: {error}"))?;
    drop(first_input);
    stage.release()?;
    calm.after("two signals")
}

/// Line 9: `kill -9` in the middle, then the same command again.
pub(crate) fn killed(lab: &Lab) -> Result<Figure> {
    let stage = Stage::new(lab, "kill")?;
    let commands = stage.commands();
    for (args, fed) in commands.iter().filter(|(args, _)| args[0] != "cp") {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let loads = args[0] == "pull" && !args.contains(&"--into");
        if loads {
            lab.forget(&stage.image)?;
        }
        // What a killed copy has written of a layout is no image yet, and the next one goes on with it.
        let beside: &[&Path] = if args.iter().any(|arg| arg.starts_with("oci:")) { &[] } else { &[&stage.out] };
        let calm = Calm::before(&stage.home, beside)?;
        stage.hold();
        let (running, writer) = stage.begin(&args, *fed)?;
        running.kill()?;
        drop(writer);
        stage.release()?;
        require(!stage.out.join("layout/index.json").exists(), || "half a layout looks like an image".into())?;
        calm.after(&format!("kill -9 in {}", args.join(" ")))?;
        stage.succeeds(&args, *fed)?;
        if loads {
            let name = if args[1] == "own:1" { "stopped:1" } else { &stage.reference };
            lab.docker_output(&["tag", name, "small:1"])?;
            lab.docker_output(&["rmi", name])?;
        }
        fresh(&stage)?;
    }
    stage.end()?;
    Ok(Figure::ok("a second run succeeds"))
}

/// Line 9: a home that another process holds and lets nobody work through.
pub(crate) fn locked(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", crate::accept::exchange::SMALL_MIB)?;
    let home = lab.home("locked");
    home.json(&["init"])?;
    let calm = Calm::before(&home, &[])?;
    let push = ["--lock-wait", "1", "push", "small:1", "--as", "locked:1", "--no-publish"];
    // Somebody who speaks another language.
    let mut stranger = Command::new("flock");
    stranger.arg("-o").arg(home.dir.join("lock")).args(["sleep", "600"]).stdout(Stdio::null());
    let stranger = Process::start(&mut stranger, &lab.path("flock.log"))?;
    let refused = |what: &str| -> Result<f64> {
        let start = Instant::now();
        let error = home.fails(8, &push).map_err(|error| format!("{what}: {error}"))?;
        let seconds = start.elapsed().as_secs_f64();
        require(error["hint"].as_str().is_some_and(|hint| hint.contains("--lock-wait")), || {
            format!("{what}: {error}")
        })?;
        require((0.9..8.0).contains(&seconds), || format!("{what}: it waited {seconds:.1} s"))?;
        home.fails(8, &["--lock-wait", "1", "init"])?;
        home.json(&["id"])?;
        Ok(seconds)
    };
    wait_for("the lock", BEGIN, || {
        home.output(&["--lock-wait", "0", "init"]).is_ok_and(|out| out.status.code() == Some(8))
    })?;
    let by_stranger = refused("a home that a stranger holds")?;
    drop(stranger);
    calm.after("a lock of a stranger")?;
    // One of our own that does not answer.
    let (process, _) = home.serve(&["serve", "--http", "127.0.0.1:0"])?;
    process.signal("STOP");
    let outcome = refused("a home whose holder has stopped");
    process.signal("CONT");
    let by_stopped = outcome?;
    // One that answers is no obstacle, and nobody takes its home away.
    home.json(&push)?;
    home.fails(8, &["--lock-wait", "1", "serve", "--http", "127.0.0.1:0"])?;
    drop(process);
    home.json(&["rm", "locked", "--all-tags"])?;
    home.json(&push)?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok(format!("exit 8 after {by_stranger:.1} and {by_stopped:.1} s; then it succeeds")))
}

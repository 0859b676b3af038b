//! The laboratory of the acceptance checks: homes, a DNS server, a container engine of its own, images.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::peers;
use crate::shell::{Result, output, run, show};

/// The engine's API version that every client can speak to every engine that the tests install.
const API: &str = "1.41";

/// Everything that checks share. Processes end with it.
pub(crate) struct Lab {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// A folder of this run; paths below it are short enough for sockets.
    pub(crate) dir: PathBuf,
    /// The binary under test.
    pub(crate) ipcr: PathBuf,
    /// The port of the DNS server, once one runs.
    dns: RefCell<Option<(u16, Process)>>,
    engine: RefCell<Option<Engine>>,
    /// When the run of everything began that the checks are a part of, if they are.
    pub(crate) began: Option<Instant>,
}

/// A child that is killed when it goes out of scope.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts a program; what it prints on standard error goes to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log)?;
        command.stdin(Stdio::null()).stderr(file);
        Ok(Self(command.spawn().map_err(|error| format!("{}: {error}", show(command)))?))
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
    }
}

impl Process {
    /// Waits for its end.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        wait_for("the end of a process", limit, || !matches!(self.0.try_wait(), Ok(None)))?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal("TERM");
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(10) {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Lab {
    /// Builds the binary, unless `IPCR_BINARY` names one, and makes the folder.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("ipcr-lab-{}", std::process::id()));
        fs::create_dir_all(dir.join("tmp"))?;
        let ipcr = if let Some(binary) = std::env::var_os("IPCR_BINARY") {
            PathBuf::from(binary)
        } else {
            // The same features as the tests', so that nothing is built twice.
            let args = ["build", "--release", "--locked", "-q", "--workspace", "--all-targets"];
            run(Command::new("cargo").current_dir(root).args(args))?;
            peers::target_dir(root).join("release/ipcr")
        };
        Ok(Self { root: root.to_owned(), dir, ipcr, dns: RefCell::new(None), engine: RefCell::new(None), began: None })
    }

    /// A home with a name of its own.
    pub(crate) fn home(&self, name: &str) -> Home<'_> {
        let engine = at(&self.path("d.sock"));
        let flags = vec!["--network".into(), "loopback".into()];
        Home { lab: self, dir: self.dir.join(name), engine, flags, namespace: None }
    }

    /// The port of the DNS server, if one runs.
    pub(crate) fn dns_port(&self) -> Option<u16> {
        self.dns.borrow().as_ref().map(|(port, _)| *port)
    }

    /// A path inside the laboratory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `TMPDIR` of every ipcr process.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path("tmp")
    }

    /// Whether the laboratory's engine runs.
    pub(crate) fn has_engine(&self) -> bool {
        self.engine.borrow().is_some()
    }

    /// A peer's program, or an error that names it.
    pub(crate) fn peer(&self, program: &str) -> Result<PathBuf> {
        peers::find(&self.root, program).ok_or_else(|| format!("SKIPPED: {program} is not installed").into())
    }

    /// (Re)starts the DNS server with these TXT records and nothing else.
    pub(crate) fn dns(&self, records: &[(&str, &str)]) -> Result<u16> {
        self.dns.replace(None);
        let port = free_port()?;
        let process = self.dns_at(Command::new(self.peer("dnsmasq")?), "127.0.0.1", port, records)?;
        self.dns.replace(Some((port, process)));
        Ok(port)
    }

    /// Starts a DNS server with these TXT records and nothing else; `dnsmasq` is the command that it begins with.
    pub(crate) fn dns_at(
        &self,
        mut dnsmasq: Command,
        address: &str,
        port: u16,
        records: &[(&str, &str)],
    ) -> Result<Process> {
        let log = self.path("dns.log");
        dnsmasq.args(["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces"]);
        dnsmasq.args(["--user=root", "--cache-size=0", "--local=/test/"]);
        dnsmasq.arg(format!("--listen-address={address}")).arg(format!("--port={port}"));
        dnsmasq.args(records.iter().map(|(name, value)| format!("--txt-record={name},{value}")));
        let process = Process::start(&mut dnsmasq, &log)?;
        // It says so when it listens, wherever that is.
        wait_for("the DNS server", Duration::from_secs(5), || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("started, version"))
        })?;
        Ok(process)
    }

    /// The engine's socket; starts an engine of the laboratory's own at the first call.
    pub(crate) fn engine(&self) -> Result<PathBuf> {
        let mut engine = self.engine.borrow_mut();
        match &*engine {
            Some(engine) => Ok(engine.socket.clone()),
            None => Ok(engine.insert(Engine::start(self, "d")?).socket.clone()),
        }
    }

    /// Whether that is where the engine keeps what it has.
    pub(crate) fn is_engine(&self, path: &Path) -> bool {
        self.engine.borrow().as_ref().is_some_and(|engine| path.starts_with(&engine.data) || path == self.path("dx"))
    }

    /// The process of the engine, if it runs.
    pub(crate) fn engine_id(&self) -> Option<u32> {
        self.engine.borrow().as_ref().and_then(Engine::id)
    }

    /// The docker client, aimed at the laboratory's engine.
    pub(crate) fn docker(&self, args: &[&str]) -> Result<Command> {
        Ok(docker_at(&self.engine()?, args))
    }

    /// What a docker command prints.
    pub(crate) fn docker_output(&self, args: &[&str]) -> Result<String> {
        output(&mut self.docker(args)?)
    }

    /// Builds an image of about `megabytes` in several layers out of files of this machine; it can be run. Returns its ID.
    pub(crate) fn image(&self, name: &str, megabytes: u64) -> Result<String> {
        if let Ok(id) = self.docker_output(&["image", "inspect", "-f", "{{.Id}}", name]) {
            return Ok(id);
        }
        let context = self.path(&format!("build-{}", name.replace([':', '/'], "-")));
        fs::create_dir_all(context.join("bin"))?;
        fs::copy(self.peer("busybox")?, context.join("bin/busybox"))?;
        let third = megabytes * (1 << 20) / 3;
        let libraries = pick(Path::new("/usr/lib"), third)?;
        let shared = pick(Path::new("/usr/share"), third)?;
        pack(&context.join("libraries.tar"), &libraries)?;
        pack(&context.join("shared.tar"), &shared)?;
        let noise = third / (1 << 20);
        fs::write(
            context.join("Dockerfile"),
            format!(
                "FROM scratch\nCOPY bin /bin/\nADD libraries.tar /data/\nADD shared.tar /data/\n\
                 RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox dd if=/dev/urandom of=/noise bs=1M count={noise}\"]\n\
                 RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox echo {name} > /name; /bin/busybox rm /data/usr/share/base-files/motd; true\"]\n\
                 ENV IPCR=1\nCMD [\"/bin/busybox\", \"cat\", \"/name\"]\n"
            ),
        )?;
        run(self.docker(&["build", "-q", "--network", "none", "-t", name])?.arg(&context))?;
        fs::remove_dir_all(&context)?;
        self.docker_output(&["image", "inspect", "-f", "{{.Id}}", name])
    }

    /// Builds an image with one more layer of 1 MiB on top of another. Returns its ID.
    pub(crate) fn child(&self, name: &str, parent: &str) -> Result<String> {
        self.child_of(name, parent, 1 << 20)
    }

    /// The same with a layer of so many bytes.
    pub(crate) fn child_of(&self, name: &str, parent: &str, bytes: usize) -> Result<String> {
        let context = self.path(&format!("build-{}", name.replace([':', '/'], "-")));
        fs::create_dir_all(&context)?;
        let mut noise = vec![0; bytes];
        fs::File::open("/dev/urandom")?.read_exact(&mut noise)?;
        fs::write(context.join("more"), noise)?;
        fs::write(context.join("Dockerfile"), format!("FROM {parent}\nCOPY more /more\n"))?;
        run(self.docker(&["build", "-q", "--network", "none", "-t", name])?.arg(&context))?;
        fs::remove_dir_all(&context)?;
        self.docker_output(&["image", "inspect", "-f", "{{.Id}}", name])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.dns.replace(None);
        self.engine.replace(None);
        // Overlay mounts are gone with the engine; what cannot be removed is left to the system's temp cleaning.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A container engine of the laboratory's own; what it holds goes with it.
pub(crate) struct Engine {
    pub(crate) socket: PathBuf,
    data: PathBuf,
    process: Option<Process>,
}

impl Engine {
    /// Starts one. The name is short, so that its sockets' paths are.
    pub(crate) fn start(lab: &Lab, name: &str) -> Result<Self> {
        let (socket, data) = (lab.path(&format!("{name}.sock")), lab.path(name));
        let mut command = Command::new(lab.peer("dockerd")?);
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        command.arg("--data-root").arg(&data).arg("--exec-root").arg(lab.path(&format!("{name}x")));
        command.arg("--pidfile").arg(lab.path(&format!("{name}.pid")));
        command.arg("-H").arg(format!("unix://{}", socket.display())).stdout(Stdio::null());
        let process = Process::start(&mut command, &lab.path(&format!("{name}.log")))?;
        let engine = Self { socket, data, process: Some(process) };
        wait_for("the container engine", Duration::from_mins(1), || {
            engine.docker(&["version"]).output().is_ok_and(|output| output.status.success())
        })?;
        Ok(engine)
    }

    /// The docker client, aimed at this engine.
    pub(crate) fn docker(&self, args: &[&str]) -> Command {
        docker_at(&self.socket, args)
    }

    /// The process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Mounts are gone with the process; what cannot be removed is left to the system's cleaning of temporary files.
        self.process = None;
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// The docker client, aimed at the engine behind a socket.
fn docker_at(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", at(socket));
    command.env("DOCKER_API_VERSION", API).env("DOCKER_BUILDKIT", "0");
    command.env("DOCKER_CONFIG", socket.with_extension("docker"));
    command.args(args);
    command
}

/// A home and how ipcr is called with it.
#[derive(Clone)]
pub(crate) struct Home<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) dir: PathBuf,
    /// Where its engine is: what `DOCKER_HOST` says.
    pub(crate) engine: String,
    /// Flags of every call.
    pub(crate) flags: Vec<String>,
    /// The network namespace in which every call runs.
    pub(crate) namespace: Option<String>,
}

impl Home<'_> {
    /// The same home with more flags.
    pub(crate) fn with(&self, flags: &[&str]) -> Self {
        let mut home = self.clone();
        home.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        home
    }

    /// The same home with its engine elsewhere.
    pub(crate) fn through(&self, engine: &str) -> Self {
        Self { engine: engine.to_owned(), ..self.clone() }
    }

    /// A call of ipcr.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => inside(namespace, &self.lab.ipcr),
            None => Command::new(&self.lab.ipcr),
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.lab.path("nobody")).env("IPCR_HOME", &self.dir);
        command.env("TMPDIR", self.lab.temporary());
        command.env("DOCKER_HOST", &self.engine);
        // Answered while a check runs Podman's service.
        command.env("CONTAINER_HOST", format!("unix://{}", self.lab.path("p.sock").display()));
        command.args(&self.flags).args(args).stdin(Stdio::null());
        command
    }

    /// Runs ipcr to its end.
    pub(crate) fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args);
        command.output().map_err(|error| format!("{}: {error}", show(&command)).into())
    }

    /// The object that a command prints with `-o json`; an error unless it succeeds.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        let output = self.output(&all)?;
        let talk = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("ipcr {} ended with {}: {}", args.join(" "), output.status, talk.trim()).into());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("ipcr {}: {error}", args.join(" ")).into())
    }

    /// Runs ipcr, which must fail with this exit code, say why and give a hint, and print nothing else; returns the error object.
    pub(crate) fn fails(&self, exit: i32, args: &[&str]) -> Result<Value> {
        self.fails_fed(exit, args, Stdio::null())
    }

    /// The same with something on standard input.
    pub(crate) fn fails_fed(&self, exit: i32, args: &[&str], input: impl Into<Stdio>) -> Result<Value> {
        let mut command = self.command(&["-o", "json"]);
        let output =
            command.args(args).stdin(input).output().map_err(|error| format!("{}: {error}", show(&command)))?;
        let (talk, what) = (String::from_utf8_lossy(&output.stderr), args.join(" "));
        let error = check_failure(&what, exit, output.status.code(), &talk)?;
        if talk.lines().count() != 1 {
            return Err(format!("ipcr {what} says more than one object: {}", talk.trim()).into());
        }
        // A check tells what is damaged, and that is its result.
        if args.first() != Some(&"check") && !output.stdout.is_empty() {
            return Err(format!("ipcr {what} printed {:?}", String::from_utf8_lossy(&output.stdout)).into());
        }
        Ok(error)
    }

    /// Starts `ipcr serve` (or another serving command) and waits until it is ready; the object that it printed.
    pub(crate) fn serve(&self, args: &[&str]) -> Result<(Process, Value)> {
        let mut command = self.command(&[]);
        command.args(["-o", "json"]).args(args).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &self.dir.with_extension("serve.log"))?;
        let stdout = process.0.stdout.take().ok_or("a piped output is there")?;
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.is_empty() {
            let log = fs::read_to_string(self.dir.with_extension("serve.log")).unwrap_or_default();
            return Err(format!("ipcr {} did not get ready: {log}", args.join(" ")).into());
        }
        std::thread::spawn(move || drop(reader.read_to_end(&mut Vec::new())));
        Ok((process, serde_json::from_str(&line)?))
    }
}

/// The engine behind a socket, as `DOCKER_HOST` says it.
pub(crate) fn at(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// A program in a network namespace.
pub(crate) fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Checks an error object and its exit code.
pub(crate) fn check_failure(what: &str, exit: i32, found: Option<i32>, talk: &str) -> Result<Value> {
    if found != Some(exit) {
        return Err(format!("ipcr {what} ended with {found:?} instead of {exit}: {}", talk.trim()).into());
    }
    let line = talk.lines().rev().find(|line| line.starts_with('{')).ok_or(format!("no error object: {talk}"))?;
    let object: Value = serde_json::from_str(line)?;
    let error = &object["error"];
    if error["exit"] != exit || error["message"].as_str().is_none_or(str::is_empty) {
        return Err(format!("ipcr {what}: odd error object {line}").into());
    }
    if error["hint"].as_str().is_none_or(str::is_empty) {
        return Err(format!("ipcr {what}: no hint in {line}").into());
    }
    Ok(error.clone())
}

/// Waits for a condition.
pub(crate) fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > limit {
            return Err(format!("{what} was not ready within {} s", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A TCP port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Bytes on disk of all files below a folder: holes do not count.
pub(crate) fn disk_usage(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        sum += if kind.is_dir() {
            disk_usage(&entry.path())?
        } else {
            entry.metadata().map_or(0, |meta| meta.len().min(meta.blocks() * 512))
        };
    }
    Ok(sum)
}

/// Files below a folder, in name order, until they have `bytes` bytes.
pub(crate) fn pick(dir: &Path, bytes: u64) -> Result<Vec<PathBuf>> {
    let mut picked = Vec::new();
    let mut left = bytes;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                if size > left {
                    if left < bytes / 50 {
                        return Ok(picked);
                    }
                    continue;
                }
                left -= size;
                picked.push(entry.path());
            }
        }
    }
    Ok(picked)
}

/// Packs files into a tar archive.
fn pack(archive: &Path, files: &[PathBuf]) -> Result {
    let list = archive.with_extension("list");
    let names: Vec<String> =
        files.iter().map(|file| file.to_string_lossy().trim_start_matches('/').to_owned()).collect();
    fs::write(&list, names.join("\n"))?;
    run(Command::new("tar").args(["-C", "/", "--hard-dereference", "-cf"]).arg(archive).arg("-T").arg(&list))?;
    Ok(fs::remove_file(list)?)
}

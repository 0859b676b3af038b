//! The network core: blocks and names between ipcr, Kubo, Helia, and peers that do what they should not.

pub(super) mod bulk;
pub(super) mod gateways;
pub(super) mod helia;
pub(super) mod kubo;
pub(super) mod liars;
pub(super) mod link;
pub(super) mod load;
pub(super) mod lossy;
pub(super) mod many;
pub(super) mod nat;
pub(super) mod strangers;
pub(crate) mod swarm;
pub(crate) mod town;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

use super::exchange::Kubo;
use super::forge::Image;
use super::lab::{Home, Lab, Process, inside};
use super::site::{quic_address_at, require, same, tcp_address, tcp_address_at, text};
use crate::peers;
use crate::shell::Result;

/// How long a script may take to answer.
const ANSWER: Duration = Duration::from_secs(120);

/// A running script of `xtask/peers/helia`: it prints where it is reached, and answers each line with one.
struct Script {
    _process: Process,
    input: ChildStdin,
    answers: Receiver<String>,
    /// What it printed when it was ready.
    ready: Value,
}

impl Script {
    fn start(lab: &Lab, script: &str, args: &[&str]) -> Result<Self> {
        Self::start_at(lab, None, script, args)
    }

    /// Starts one, in a network namespace if one is named.
    fn start_at(lab: &Lab, namespace: Option<&str>, script: &str, args: &[&str]) -> Result<Self> {
        let (node, path) = peers::helia(&lab.root, script)?;
        let mut command = namespace.map_or_else(|| Command::new(&node), |namespace| inside(namespace, &node));
        command.arg(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(lab.path(script).with_extension("log"))?);
        let mut process = Process(command.spawn()?);
        let input = process.0.stdin.take().ok_or("a piped input is there")?;
        let output = process.0.stdout.take().ok_or("a piped output is there")?;
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut script = Self { _process: process, input, answers, ready: Value::Null };
        script.ready = script.answer()?;
        Ok(script)
    }

    fn answer(&self) -> Result<Value> {
        let line = self.answers.recv_timeout(ANSWER).map_err(|error| format!("a script did not answer: {error}"))?;
        let answer: Value = serde_json::from_str(&line)?;
        require(answer["error"].is_null(), || format!("a script says {line}"))?;
        Ok(answer)
    }

    /// Runs a command to its end.
    fn call(&mut self, line: &str) -> Result<Value> {
        writeln!(self.input, "{line}")?;
        self.answer().map_err(|error| format!("{line}: {error}").into())
    }

    /// Where it is reached.
    fn address(&self) -> Result<String> {
        text(&self.ready, "address")
    }
}

/// A registry that serves one image of noise, `x:1`.
struct Holder<'a> {
    home: Home<'a>,
    service: Process,
    address: String,
    /// The same by QUIC.
    quic: Option<String>,
    root: String,
    /// What everybody pulls, whatever else they know.
    reference: String,
    image: Image,
    /// Bytes of its layers.
    bytes: u64,
}

impl<'a> Holder<'a> {
    fn start(lab: &'a Lab, name: &str, seed: u64, sizes: &[usize]) -> Result<Self> {
        Self::start_at(lab.home(name), "127.0.0.1", seed, sizes)
    }

    /// The same in this home, reached at this IP address.
    fn start_at(home: Home<'a>, ip: &str, seed: u64, sizes: &[usize]) -> Result<Self> {
        home.json(&["init"])?;
        let image = Image::new(seed, sizes);
        let archive = home.dir.with_extension("tar");
        fs::write(&archive, image.archive())?;
        let source = format!("docker-archive:{}", archive.display());
        let pushed = home.json(&["push", &source, "--as", "x:1", "--no-publish", "--compression", "none"])?;
        fs::remove_file(archive)?;
        let root = text(&pushed, "root")?;
        let (service, ready) = home.serve(&["serve", "--http", "127.0.0.1:0"])?;
        let address = tcp_address_at(&ready, ip)?;
        let quic = quic_address_at(&ready, ip);
        let bytes = image.layers.iter().map(|layer| layer.len() as u64).sum();
        Ok(Self { home, service, address, quic, reference: format!("ipfs/{root}/x:1"), root, image, bytes })
    }

    /// A fresh home with this peer.
    fn visitor(&self, name: &str) -> Home<'a> {
        self.home.lab.home(name).with(&["--peer", &self.address])
    }

    /// Sees that a pull came to the same image, and that all that it left is in order.
    fn check(&self, home: &Home<'_>, pulled: &Value) -> Result {
        check(home, pulled, &self.image)
    }
}

/// Sees that a pull came to an image, and that all that it left is in order.
fn check(home: &Home<'_>, pulled: &Value, image: &Image) -> Result {
    same("the image ID", text(pulled, "image_id")?.as_str(), image.id().as_str())?;
    home.json(&["check", "--read-data"]).map(drop)
}

/// Serves a home; the service and where it is reached.
fn serve(home: &Home<'_>, flags: &[&str]) -> Result<(Process, String)> {
    let (service, ready) = home.with(flags).serve(&["serve", "--http", "127.0.0.1:0"])?;
    let address = tcp_address(&ready)?;
    Ok((service, address))
}

/// Writes a registry as the recipe of 2020 does, with one image `app:1`, and adds it to Kubo in chunks of one size; its CID.
fn add_2020(lab: &Lab, kubo: &Kubo<'_>, image: &Image, chunk: usize) -> Result<String> {
    let registry = lab.path("2020-noise");
    let folder = registry.join("app/tags/1");
    for member in image.members() {
        let path = folder.join(&member.name);
        fs::create_dir_all(path.parent().ok_or("a member has a folder")?)?;
        fs::write(path, &member.data)?;
    }
    let chunker = format!("--chunker=size-{chunk}");
    let mut command = kubo.command(&["add", "-r", "-Q", "--raw-leaves", "--progress=false", &chunker])?;
    let cid = crate::shell::output(command.arg(&registry))?;
    fs::remove_dir_all(registry)?;
    Ok(cid)
}

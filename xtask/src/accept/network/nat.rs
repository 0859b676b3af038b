//! Two homes behind routers that let nobody in, and a relay that both reach.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::check;
use crate::accept::Figure;
use crate::accept::exchange::{Kubo, kubo};
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab, Process, inside, wait_for};
use crate::accept::site::{require, text};
use crate::shell::{Result, output};

/// Where the relay is: an address that public nodes dial.
const RELAY: &str = "11.22.33.1";
/// The relay's port, and that of the homes.
const PORT: u16 = 4001;
/// How much the relay lets through, in bytes: more than the image.
const THROUGH: u64 = 64 << 20;

/// A namespace that ends with this.
struct Space(String);

impl Space {
    fn new(name: &str) -> Result<Self> {
        let space = Self(format!("ipcr-{}-{name}", std::process::id()));
        ip(&["netns", "add", &space.0])?;
        ip(&["-n", &space.0, "link", "set", "lo", "up"])?;
        Ok(space)
    }

    /// A cable to another namespace: its end here and there.
    fn cable(&self, end: &str, other: &Self, other_end: &str) -> Result {
        ip(&["link", "add", end, "netns", &self.0, "type", "veth", "peer", "name", other_end, "netns", &other.0])?;
        ip(&["-n", &self.0, "link", "set", end, "up"])?;
        ip(&["-n", &other.0, "link", "set", other_end, "up"])?;
        Ok(())
    }

    fn address(&self, address: &str, device: &str) -> Result {
        ip(&["-n", &self.0, "address", "add", address, "dev", device]).map(drop)
    }

    fn iptables(&self, rule: &str) -> Result {
        let mut command = Command::new("ip");
        output(command.args(["netns", "exec", &self.0, "iptables"]).args(rule.split(' '))).map(drop)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(args: &[&str]) -> Result<String> {
    output(Command::new("ip").args(args))
}

/// The network outside, with the relay in its middle, and two networks behind routers.
struct Streets {
    outside: Space,
    routers: Vec<Space>,
    insides: Vec<Space>,
}

impl Streets {
    fn new(lab: &Lab) -> Result<Self> {
        lab.peer("ip")?;
        lab.peer("iptables")?;
        if output(Command::new("id").arg("-u"))? != "0" {
            return Err("SKIPPED: only root can make network namespaces".into());
        }
        let outside = Space::new("out")?;
        ip(&["-n", &outside.0, "link", "add", "street", "type", "bridge"])?;
        ip(&["-n", &outside.0, "link", "set", "street", "up"])?;
        outside.address(&format!("{RELAY}/24"), "street")?;
        let (mut routers, mut insides) = (Vec::new(), Vec::new());
        for number in [1, 2] {
            let (router, inside) = (Space::new(&format!("r{number}"))?, Space::new(&format!("i{number}"))?);
            let end = format!("house{number}");
            router.cable("wan", &outside, &end)?;
            ip(&["-n", &outside.0, "link", "set", &end, "master", "street"])?;
            router.cable("home", &inside, "lan")?;
            router.address(&format!("11.22.33.1{number}/24"), "wan")?;
            router.address(&format!("192.168.{number}.1/24"), "home")?;
            inside.address(&format!("192.168.{number}.2/24"), "lan")?;
            ip(&["-n", &inside.0, "route", "add", "default", "via", &format!("192.168.{number}.1")])?;
            let forward = ["netns", "exec", &router.0, "sysctl", "-qw", "net.ipv4.ip_forward=1"];
            ip(&forward)?;
            router.iptables("-P INPUT DROP")?;
            router.iptables("-P FORWARD DROP")?;
            router.iptables("-A FORWARD -i home -j ACCEPT")?;
            router.iptables("-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")?;
            routers.push(router);
            insides.push(inside);
        }
        Ok(Self { outside, routers, insides })
    }

    /// Lets the routers translate addresses: each connection by any port, so that nobody can know where to knock, or by the port that it has inside.
    fn translate(&self, at_random: bool) -> Result {
        for router in &self.routers {
            router.iptables("-t nat -F POSTROUTING")?;
            let random = if at_random { " --random-fully" } else { "" };
            router.iptables(&format!("-t nat -A POSTROUTING -o wan -j MASQUERADE{random}"))?;
        }
        Ok(())
    }

    fn home<'a>(&self, lab: &'a Lab, number: usize, name: &str, relay: &str) -> Home<'a> {
        let dir = lab.path(name);
        let flags = ["--network", "public", "--bootstrap", relay].map(str::to_owned).to_vec();
        Home { lab, dir, engine: PathBuf::from("/nowhere"), flags, namespace: Some(self.insides[number].0.clone()) }
    }
}

/// Kubo as a relay; what it is reached by.
fn relay(lab: &Lab, streets: &Streets) -> Result<(Process, String)> {
    let dir = Kubo::init(lab, "nat-relay")?;
    let set = |key: &str, value: &str| output(kubo(lab, &dir)?.args(["config", "--json", key, value]));
    set("Addresses.Swarm", &format!("[\"/ip4/{RELAY}/tcp/{PORT}\",\"/ip4/{RELAY}/udp/{PORT}/quic-v1\"]"))?;
    set("Swarm.RelayService", &format!("{{\"Enabled\":true,\"ConnectionDataLimit\":{THROUGH}}}"))?;
    set("Internal.Libp2pForceReachability", "\"public\"")?;
    let peer = output(kubo(lab, &dir)?.args(["config", "Identity.PeerID"]))?;
    let mut daemon = inside(&streets.outside.0, &lab.peer("ipfs")?);
    daemon.arg("daemon").env("IPFS_PATH", &dir).env("IPFS_TELEMETRY", "off").stdout(Stdio::null());
    let daemon = Process::start(&mut daemon, &lab.path("nat-relay.log"))?;
    wait_for("the relay", Duration::from_mins(1), || dir.join("api").is_file())?;
    Ok((daemon, format!("/ip4/{RELAY}/tcp/{PORT}/p2p/{peer}")))
}

/// Line 7: the pull comes through the relay where no hole can be punched, and directly where one can; and it says which.
pub(crate) fn nat(lab: &Lab) -> Result<Figure> {
    let streets = Streets::new(lab)?;
    streets.translate(false)?;
    let (_relay, address) = relay(lab, &streets)?;
    let image = Image::new(371, &[6 << 20, 6 << 20]);
    let archive = lab.path("nat.tar");
    fs::write(&archive, image.archive())?;
    let publisher = streets.home(lab, 0, "nat-a", &address);
    let identity = publisher.json(&["init"])?;
    let (ipns, peer) = (text(&identity, "ipns")?, text(&identity["node"], "peer_id")?);
    let source = format!("docker-archive:{}", archive.display());
    publisher.json(&["push", &source, "--as", "x:1", "--no-publish"])?;
    fs::remove_file(archive)?;
    let circuit = format!("{address}/p2p-circuit");
    let (_service, _) = publisher.with(&["--listen", &circuit]).serve(&["serve", "--http", "127.0.0.1:0"])?;

    let mut found = Vec::new();
    for (at_random, name) in [(false, "nat-direct"), (true, "nat-relayed")] {
        streets.translate(at_random)?;
        let visitor = streets.home(lab, 1, name, &address).with(&["--peer", &format!("{circuit}/p2p/{peer}")]);
        let pulled = visitor.json(&["pull", &format!("{ipns}/x:1"), "--into", "none"])?;
        check(&visitor, &pulled, &image)?;
        let way = way(&pulled)?;
        require(way == if at_random { "relayed" } else { "direct" }, || {
            format!("with ports at random {at_random} the image came {way}: {}", pulled["peers"])
        })?;
        found.push(way);
    }
    Ok(Figure::ok(format!("{}: both pull, and say so", found.join(" and "))))
}

/// Whether the last byte came through a relay.
fn way(pulled: &Value) -> Result<&'static str> {
    let peers = pulled["peers"].as_array().filter(|peers| !peers.is_empty()).ok_or("it names no peer")?;
    let relayed = peers.iter().any(|peer| peer["relayed"] == true);
    Ok(if relayed { "relayed" } else { "direct" })
}

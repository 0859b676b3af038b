//! Two homes behind routers that let nobody in, and a relay that both reach.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::check;
use crate::accept::Figure;
use crate::accept::exchange::{Kubo, kubo};
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab, Process, at, inside, wait_for};
use crate::accept::namespace::Namespace;
use crate::accept::site::{require, text};
use crate::shell::{Result, output};

/// Where the relay is: an address that public nodes dial.
const RELAY: &str = "11.22.33.1";
/// The relay's port, and that of the homes.
const PORT: u16 = 4001;
/// How much the relay lets through, in bytes: more than the image.
const THROUGH: u64 = 64 << 20;

/// The network outside, with the relay in its middle, and two networks behind routers.
struct Streets {
    outside: Namespace,
    routers: Vec<Namespace>,
    insides: Vec<Namespace>,
}

impl Streets {
    fn new(lab: &Lab) -> Result<Self> {
        lab.peer("iptables")?;
        let outside = Namespace::new(lab, "out")?;
        outside.ip(&["link", "add", "street", "type", "bridge"])?;
        outside.ip(&["link", "set", "street", "up"])?;
        outside.address(&format!("{RELAY}/24"), "street")?;
        let (mut routers, mut insides) = (Vec::new(), Vec::new());
        for number in [1, 2] {
            let [router, inside] = ["r", "i"].map(|kind| Namespace::new(lab, &format!("{kind}{number}")));
            let (router, inside) = (router?, inside?);
            let end = format!("house{number}");
            router.cable("wan", &outside, &end)?;
            outside.ip(&["link", "set", &end, "master", "street"])?;
            router.cable("home", &inside, "lan")?;
            router.address(&format!("11.22.33.1{number}/24"), "wan")?;
            router.address(&format!("192.168.{number}.1/24"), "home")?;
            inside.address(&format!("192.168.{number}.2/24"), "lan")?;
            inside.ip(&["route", "add", "default", "via", &format!("192.168.{number}.1")])?;
            router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
            iptables(&router, "-P INPUT DROP")?;
            iptables(&router, "-P FORWARD DROP")?;
            iptables(&router, "-A FORWARD -i home -j ACCEPT")?;
            iptables(&router, "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")?;
            routers.push(router);
            insides.push(inside);
        }
        Ok(Self { outside, routers, insides })
    }

    /// Lets the routers translate addresses: each connection by any port, so that nobody can know where to knock, or by the port
    /// that it has inside.
    fn translate(&self, at_random: bool) -> Result {
        for router in &self.routers {
            iptables(router, "-t nat -F POSTROUTING")?;
            let random = if at_random { " --random-fully" } else { "" };
            iptables(router, &format!("-t nat -A POSTROUTING -o wan -j MASQUERADE{random}"))?;
        }
        Ok(())
    }

    fn home<'a>(&self, lab: &'a Lab, number: usize, name: &str, relay: &str) -> Home<'a> {
        let dir = lab.path(name);
        let flags = ["--network", "public", "--bootstrap", relay].map(str::to_owned).to_vec();
        Home { lab, dir, engine: at(Path::new("/nowhere")), flags, namespace: Some(self.insides[number].0.clone()) }
    }
}

/// Runs `iptables` in a namespace.
fn iptables(namespace: &Namespace, rule: &str) -> Result {
    let args: Vec<&str> = std::iter::once("iptables").chain(rule.split(' ')).collect();
    namespace.run(&args)
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

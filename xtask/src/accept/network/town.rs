//! Hosts with a line each to one switch, and how much each line lets pass.

use std::process::Command;

use crate::accept::lab::Lab;
use crate::accept::namespace::Namespace;
use crate::accept::site::require;
use crate::shell::{Result, output};

/// The end of every line at its host, and the switch.
const DEVICE: &str = "line";
const SWITCH: &str = "switch";

/// Network namespaces that reach each other over one bridge. Nothing leads out.
pub(crate) struct Town {
    hosts: Vec<Namespace>,
    switch: Namespace,
}

impl Town {
    /// So many hosts as there are rates: bits in a second that a host's line lets pass, each way.
    pub(crate) fn new(lab: &Lab, rates: &[u64]) -> Result<Self> {
        let mut town = Self { hosts: Vec::new(), switch: Namespace::new(lab, "switch")? };
        town.switch.ip(&["link", "add", SWITCH, "type", "bridge"])?;
        town.switch.ip(&["link", "set", SWITCH, "up"])?;
        for (number, rate) in rates.iter().enumerate() {
            let host = Namespace::new(lab, &format!("h{number}"))?;
            let port = format!("h{number}");
            host.cable(DEVICE, &town.switch, &port)?;
            town.switch.ip(&["link", "set", &port, "master", SWITCH])?;
            host.address(&format!("{}/24", Self::address(number)), DEVICE)?;
            // Hosts are to find each other by whom they pull from, not by calling out to all.
            host.ip(&["link", "set", DEVICE, "multicast", "off"])?;
            for (namespace, device) in [(&host, DEVICE), (&town.switch, &port)] {
                limit(namespace, device, *rate)?;
            }
            town.hosts.push(host);
        }
        Ok(town)
    }

    /// Where a host is reached.
    pub(crate) fn address(host: usize) -> String {
        format!("10.78.0.{}", host + 1)
    }

    /// The name of a host's namespace.
    pub(crate) fn host(&self, number: usize) -> Result<&str> {
        Ok(&self.hosts.get(number).ok_or("the town has so many hosts")?.0)
    }

    /// Bytes that a host has sent, headers included.
    pub(crate) fn sent(&self, host: usize) -> Result<u64> {
        let count = format!("/sys/class/net/{DEVICE}/statistics/tx_bytes");
        let sent = output(Command::new("ip").args(["netns", "exec", self.host(host)?, "cat", &count]))?;
        let sent: u64 = sent.parse()?;
        require(sent > 0, || "the host has sent nothing".into())?;
        Ok(sent)
    }
}

/// Lets so many bits in a second leave by a device.
fn limit(namespace: &Namespace, device: &str, rate: u64) -> Result {
    let rate = format!("{rate}bit");
    let qdisc = ["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", &rate];
    namespace.run(&[&qdisc[..], &["burst", "256kb", "latency", "50ms"]].concat())
}

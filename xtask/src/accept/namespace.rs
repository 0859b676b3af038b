//! Network namespaces, and cables between them.

use std::process::Command;

use super::lab::Lab;
use crate::shell::{Result, output};

/// A network namespace with a loopback device and nothing else. It ends with this, and with it the cables that lead there.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    /// Makes one; the name is for people. Only root can.
    pub(crate) fn new(lab: &Lab, name: &str) -> Result<Self> {
        lab.peer("ip")?;
        if output(Command::new("id").arg("-u"))? != "0" {
            return Err("SKIPPED: only root can make network namespaces".into());
        }
        let namespace = Self(format!("ipcr-{}-{name}", std::process::id()));
        ip(&["netns", "add", &namespace.0])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs `ip` for this namespace.
    pub(crate) fn ip(&self, args: &[&str]) -> Result {
        ip(&[&["-n", &self.0], args].concat()).map(drop)
    }

    /// Runs a program in it.
    pub(crate) fn run(&self, args: &[&str]) -> Result {
        ip(&[&["netns", "exec", &self.0], args].concat()).map(drop)
    }

    /// Gives an address to a device.
    pub(crate) fn address(&self, address: &str, device: &str) -> Result {
        self.ip(&["address", "add", address, "dev", device])
    }

    /// Lays a cable to another namespace; the names are those of the devices at its ends.
    pub(crate) fn cable(&self, end: &str, other: &Self, other_end: &str) -> Result {
        ip(&["link", "add", end, "netns", &self.0, "type", "veth", "peer", "name", other_end, "netns", &other.0])?;
        self.ip(&["link", "set", end, "up"])?;
        other.ip(&["link", "set", other_end, "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(args: &[&str]) -> Result<String> {
    output(Command::new("ip").args(args))
}

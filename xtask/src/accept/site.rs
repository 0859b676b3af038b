//! A registry that serves `app:1`, and how others find it.

use std::fs;

use serde_json::Value;

use super::lab::{Home, Lab, Process};
pub(crate) use super::proxy::Proxy;
use crate::shell::Result;

/// The domain of the registry.
pub(crate) const DOMAIN: &str = "hub.test";

/// Size of the image that most checks move, in MiB.
pub(crate) const IMAGE_MIB: u64 = 310;

/// A running registry.
pub(crate) struct Site {
    /// Its IPNS name.
    pub(crate) ipns: String,
    /// Its key as `did:key:…`.
    pub(crate) did: String,
    /// Where its node is reached.
    pub(crate) address: String,
    /// The service.
    pub(crate) process: Process,
}

impl Lab {
    /// The home of the publisher: made and filled with `app:1` at the first call. Returns it and the ID of the image.
    pub(crate) fn publisher(&self) -> Result<(Home<'_>, String)> {
        let id = self.image("app:1", IMAGE_MIB)?;
        let home = self.home("a");
        if !home.dir.exists() {
            home.json(&["init", "--domain", DOMAIN])?;
            home.json(&["push", "app:1", "--no-publish"])?;
        }
        Ok((home, id))
    }

    /// The publisher, serving, with its records in DNS.
    pub(crate) fn site(&self) -> Result<Site> {
        let (home, _) = self.publisher()?;
        self.serve(&home)
    }

    /// Serves a home; its records are the only ones in DNS afterwards.
    pub(crate) fn serve(&self, home: &Home<'_>) -> Result<Site> {
        let identity = home.json(&["id"])?;
        let (process, ready) = home.serve(&["serve", "--http", "127.0.0.1:0"])?;
        let address = tcp_address(&ready)?;
        let site = Site { ipns: text(&identity, "ipns")?, did: text(&identity, "did")?, address, process };
        self.find(&site)?;
        Ok(site)
    }

    /// Enters the records of a site in DNS.
    pub(crate) fn find(&self, site: &Site) -> Result {
        let link = format!("dnslink=/ipns/{}", site.ipns);
        let hint = format!("dnsaddr={}", site.address);
        self.dns(&[(&format!("_dnslink.{DOMAIN}"), &link), (&format!("_dnsaddr.{DOMAIN}"), &hint)]).map(|_| ())
    }

    /// A fresh home that asks the laboratory's DNS server.
    pub(crate) fn visitor(&self, name: &str) -> Result<Home<'_>> {
        let home = self.home(name);
        let port = self.dns_port().ok_or("the DNS server runs before anybody asks it")?;
        if home.dir.exists() {
            fs::remove_dir_all(&home.dir)?;
        }
        Ok(home.with(&["--dns", &format!("127.0.0.1:{port}")]))
    }

    /// Removes an image and all its names from the engine, and whatever other checks built upon it, so that its layers are gone
    /// too.
    pub(crate) fn forget(&self, id: &str) -> Result {
        for descendant in self.descendants(id)?.iter().rev() {
            // An image without a name goes with its last child.
            if self.docker_output(&["image", "inspect", descendant]).is_ok() {
                self.docker_output(&["rmi", "-f", descendant])?;
            }
        }
        if self.docker_output(&["image", "inspect", id]).is_ok() {
            return Err("the engine still has the image".into());
        }
        Ok(())
    }

    /// An image and what was built upon it, parents before children.
    fn descendants(&self, id: &str) -> Result<Vec<String>> {
        let all = self.docker_output(&["images", "-aq", "--no-trunc"])?;
        let mut inspect = vec!["image", "inspect", "-f", "{{.Id}} {{.Parent}}"];
        inspect.extend(all.lines());
        let parents = if all.is_empty() { String::new() } else { self.docker_output(&inspect)? };
        let parents: Vec<(&str, &str)> = parents.lines().filter_map(|line| line.split_once(' ')).collect();
        let mut found = vec![id.to_owned()];
        let mut at = 0;
        while let Some(parent) = found.get(at).cloned() {
            for (child, _) in parents.iter().filter(|(_, of)| *of == parent) {
                if !found.iter().any(|known| known == child) {
                    found.push((*child).to_owned());
                }
            }
            at += 1;
        }
        Ok(found)
    }
}

/// A text field of an object.
pub(crate) fn text(object: &Value, field: &str) -> Result<String> {
    Ok(object[field].as_str().ok_or_else(|| format!("no text in {field}: {object}"))?.to_owned())
}

/// A number of an object.
pub(crate) fn number(object: &Value, pointer: &str) -> Result<u64> {
    object.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| format!("no number in {pointer}: {object}").into())
}

/// The TCP address at which a service is reached on this machine.
pub(crate) fn tcp_address(ready: &Value) -> Result<String> {
    tcp_address_at(ready, "127.0.0.1")
}

/// The TCP address at which a service is reached at this IP address.
pub(crate) fn tcp_address_at(ready: &Value, ip: &str) -> Result<String> {
    let addresses = ready["node"]["addresses"].as_array().ok_or("the service names its addresses")?;
    let begin = format!("/ip4/{ip}/tcp/");
    let tcp = addresses.iter().filter_map(Value::as_str).find(|address| address.contains(&begin));
    Ok(tcp.ok_or_else(|| format!("no TCP address at {ip}: {ready}"))?.to_owned())
}

/// The QUIC address at which a service is reached at this IP address, if there is one.
pub(crate) fn quic_address_at(ready: &Value, ip: &str) -> Option<String> {
    let begin = format!("/ip4/{ip}/udp/");
    let addresses = ready["node"]["addresses"].as_array()?.iter().filter_map(Value::as_str);
    addresses.filter(|address| address.contains("/quic-v1")).find(|address| address.contains(&begin)).map(str::to_owned)
}

/// The warning of this kind that a command gave.
pub(crate) fn warned<'a>(object: &'a Value, warning: &str) -> Option<&'a Value> {
    object["warnings"].as_array()?.iter().find(|one| one["warning"] == warning)
}

/// Two things must be equal.
pub(crate) fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, found: &T, expected: &T) -> Result {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?} instead of {expected:?}").into()) }
}

/// Two texts must be equal.
pub(crate) fn equal(what: &str, found: impl AsRef<str>, expected: impl AsRef<str>) -> Result {
    same(what, found.as_ref(), expected.as_ref())
}

/// Something must hold.
pub(crate) fn require(holds: bool, what: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(what().into()) }
}

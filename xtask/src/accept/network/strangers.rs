//! Strangers who say that somebody within this machine's own network holds what is wanted.

use std::time::Duration;

use super::Script;
use crate::accept::Figure;
use crate::accept::lab::{Home, Lab, inside};
use crate::accept::namespace::Namespace;
use crate::accept::site::{DOMAIN, number, require, text};
use crate::shell::Result;

/// Addresses that nobody may make this machine knock at.
const WITHIN: [&str; 3] = ["10.88.0.1", "169.254.88.1", "127.0.0.1"];
/// One that may be dialled, to see that the others would be, too.
const OUTSIDE: &str = "11.22.33.45";
/// Where those are who say so.
const STRANGER: &str = "11.22.33.44";
/// A port at which something listens at all these addresses.
const PORT: u16 = 4999;
/// Where the router listens.
const ROUTER_PORT: u16 = 8080;
/// What nobody holds.
const WANTED: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
/// Peers that are nobody.
const NOBODY: [&str; 4] = [
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    "12D3KooWCKCeqLPSgMnDjyFsJuWqREDtKNHx1JEBiwaMXhCLNTRb",
    "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtF",
    "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo",
];

/// A network namespace that has all these addresses and no way out.
fn island(lab: &Lab) -> Result<Namespace> {
    let island = Namespace::new(lab, "i")?;
    for address in [WITHIN[0], WITHIN[1], STRANGER, OUTSIDE] {
        island.address(&format!("{address}/32"), "lo")?;
    }
    Ok(island)
}

/// Line 8: neither a hint in DNS nor a provider record nor a router makes a public node dial what is within.
pub(crate) fn strangers(lab: &Lab) -> Result<Figure> {
    let island = island(lab)?;
    let all: Vec<&str> = WITHIN.into_iter().chain([OUTSIDE]).collect();
    let mut args = vec![PORT.to_string()];
    args.extend(all.iter().map(|address| (*address).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let doors = Script::start_at(lab, Some(&island.0), "doors.mjs", &args)?;
    let addresses: Vec<String> =
        all.iter().zip(NOBODY).map(|(address, peer)| format!("/ip4/{address}/tcp/{PORT}/p2p/{peer}")).collect();

    // Told by DNS.
    let link = (format!("_dnslink.{DOMAIN}"), format!("dnslink=/ipfs/{WANTED}"));
    let hints: Vec<(String, String)> =
        addresses.iter().map(|address| (format!("_dnsaddr.{DOMAIN}"), format!("dnsaddr={address}"))).collect();
    let records: Vec<(&str, &str)> =
        std::iter::once(&link).chain(&hints).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let _dns = lab.dns_at(inside(&island.0, &lab.peer("dnsmasq")?), STRANGER, 53, &records)?;
    let told = asks(lab, &island, &["--dns", STRANGER], &format!("{DOMAIN}/x:1"))?;
    only_outside(&doors, "DNS", &told)?;

    // Told by a peer of the DHT.
    let mut peer = Script::start_at(lab, Some(&island.0), "raw.mjs", &["silent", STRANGER])?;
    peer.call(&format!("provide {}", addresses.join(" ")))?;
    let told = asks(lab, &island, &["--bootstrap", &peer.address()?], &format!("ipfs/{WANTED}/x:1"))?;
    only_outside(&doors, "a provider record", &told)?;

    // Told by a router.
    let (router_port, mut args) = (ROUTER_PORT.to_string(), vec![STRANGER]);
    args.push(&router_port);
    args.extend(addresses.iter().map(String::as_str));
    let mut router = Script::start_at(lab, Some(&island.0), "router.mjs", &args)?;
    let url = text(&router.ready, "url")?;
    let told = asks(lab, &island, &["--router", &url], &format!("ipfs/{WANTED}/x:1"))?;
    let asked = number(&router.call("asked")?, "/asked")?;
    require(asked > 0, || format!("the router was not asked: {told}"))?;
    only_outside(&doors, "a router", &told)?;
    Ok(Figure::ok(format!("{} addresses within are not dialled, one outside is", WITHIN.len())))
}

/// Pulls in public mode what nobody has; what it says.
fn asks(lab: &Lab, island: &Namespace, flags: &[&str], reference: &str) -> Result<String> {
    let home = lab.home("stranger");
    let _ = std::fs::remove_dir_all(&home.dir);
    let flags = [&["--network", "public", "--timeout", "8"], flags].concat();
    let home = Home { flags: Vec::new(), namespace: Some(island.0.clone()), ..home }.with(&flags);
    let error = home.fails(4, &["pull", reference, "--into", "none"])?;
    Ok(error.to_string())
}

/// Sees at which doors somebody knocked since the last time.
fn only_outside(doors: &Script, who: &str, told: &str) -> Result {
    let mut knocks = Vec::new();
    while let Ok(line) = doors.answers.recv_timeout(Duration::from_millis(500)) {
        let knock: serde_json::Value = serde_json::from_str(&line)?;
        knocks.push(knock["knock"].as_str().unwrap_or_default().to_owned());
    }
    require(!knocks.is_empty(), || format!("nothing was dialled that {who} named: {told}"))?;
    require(knocks.iter().all(|knock| knock == OUTSIDE), || format!("{who} named, and was dialled: {knocks:?}"))
}

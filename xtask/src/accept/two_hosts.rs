//! Line 2: from the engine of one host to the engine of another, by every kind of name.
//!
//! The hosts are network namespaces that a virtual cable joins. Nothing leads out of them: what a home needs, it gets
//! over the cable.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Figure;
use super::lab::{Engine, Home, Lab, at, inside};
use super::namespace::Namespace;
use super::site::{DOMAIN, IMAGE_MIB, number, require, same, text};
use super::watched::{self, STALL};
use crate::line::{Line, Quality};
use crate::shell::{Result, output};

/// Where the DNS server of the hosts listens: nothing else does there.
const DNS_PORT: u16 = 53;
/// How long bytes travel in each direction over the slow line.
const DELAY: Duration = Duration::from_millis(20);
/// How long the image may take over the slow line, in seconds; were blocks asked for one after the other, it would be more than twice as long.
const SLOW_LINE: f64 = 60.0;

/// One of the hosts.
struct Host {
    namespace: Namespace,
    address: &'static str,
}

impl Host {
    /// A fresh home on this host, with its engine behind this socket.
    fn home<'a>(&self, lab: &'a Lab, name: &str, engine: &Path) -> Result<Home<'a>> {
        let dir = lab.path(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let flags = vec!["--network".to_owned(), "lan".to_owned()];
        Ok(Home { lab, dir, engine: at(engine), flags, namespace: Some(self.namespace.0.clone()) })
    }
}

/// Two hosts with a cable between them.
fn join(lab: &Lab) -> Result<(Host, Host)> {
    let host = |letter, address| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Host { namespace: Namespace::new(lab, letter)?, address })
    };
    let (a, b) = (host("a", "10.77.0.1")?, host("b", "10.77.0.2")?);
    a.namespace.cable("cable", &b.namespace, "cable")?;
    for host in [&a, &b] {
        host.namespace.address(&format!("{}/24", host.address), "cable")?;
    }
    Ok((a, b))
}

/// Line 2: A pushes and serves, B pulls `app:1` by its domain with hints in DNS, by the domain with an address that was
/// given, by the key and by the DID, each time into an engine that does not have it, where it runs.
pub(crate) fn engine_to_engine(lab: &Lab) -> Result<Figure> {
    let (a, b) = join(lab)?;
    let id = lab.image("app:1", IMAGE_MIB)?;
    let publisher = a.home(lab, "host-a", &lab.engine()?)?;
    let identity = publisher.json(&["init", "--domain", DOMAIN])?;
    let (ipns, did) = (text(&identity, "ipns")?, text(&identity, "did")?);
    let start = Instant::now();
    let pushed = publisher.json(&["push", "app:1"])?;
    let push = start.elapsed().as_secs_f64();
    same("the pushed image ID", text(&pushed, "image_id")?.as_str(), id.as_str())?;
    let (service, ready) = publisher.serve(&["serve", "--http", "127.0.0.1:0"])?;
    let address = super::site::tcp_address_at(&ready, a.address)?;

    let engine = Engine::start(lab, "e")?;
    let link = (format!("_dnslink.{DOMAIN}"), format!("dnslink=/ipns/{ipns}"));
    let hint = (format!("_dnsaddr.{DOMAIN}"), format!("dnsaddr={address}"));
    let mut pull = 0.0;
    // The key of a DID is shown as the name that it is.
    let names = [(DOMAIN, DOMAIN), (DOMAIN, DOMAIN), (&ipns, &ipns), (&did, &ipns)];
    for (round, (authority, shown)) in names.into_iter().enumerate() {
        let mut records = vec![(link.0.as_str(), link.1.as_str())];
        let mut flags = vec!["--dns".to_owned(), a.address.to_owned()];
        if round == 0 {
            records.push((&hint.0, &hint.1));
        } else {
            flags.extend(["--peer".to_owned(), address.clone()]);
        }
        let dnsmasq = inside(&a.namespace.0, &lab.peer("dnsmasq")?);
        let _dns = lab.dns_at(dnsmasq, a.address, DNS_PORT, &records)?;
        let mut visitor = b.home(lab, "host-b", &engine.socket)?;
        visitor.flags.extend(flags);
        let (reference, shown) = (format!("{authority}/app:1"), format!("{shown}/app:1"));
        let start = Instant::now();
        let name = pull_and_run(&visitor, &engine, (&reference, &shown), &id)?;
        if round == 0 {
            pull = start.elapsed().as_secs_f64();
            same("the name in the engine", name.as_str(), reference.as_str())?;
        }
        output(&mut engine.docker(&["rmi", "-f", &id]))?;
        require(output(&mut engine.docker(&["image", "inspect", &id])).is_err(), || "the image is still there".into())?;
    }
    drop(service);
    Ok(Figure::ok(format!("same image ID by 4 names, runs; push {push:.1} s, pull and run {pull:.1} s")))
}

/// Pulls by a reference, which is shown in its normal form, and runs what came under the name that was printed. Returns that.
fn pull_and_run(visitor: &Home<'_>, engine: &Engine, (reference, shown): (&str, &str), id: &str) -> Result<String> {
    let pulled = visitor.output(&["pull", reference])?;
    let talk = String::from_utf8_lossy(&pulled.stderr).into_owned();
    require(pulled.status.success(), || format!("ipcr pull {reference} ended with {}: {talk}", pulled.status))?;
    let lines = String::from_utf8(pulled.stdout)?;
    let last = lines.lines().last().unwrap_or_default();
    require(last.starts_with(&format!("{shown}@sha256:")), || format!("the last line is {last:?}"))?;
    let name = lines.lines().find_map(|line| line.strip_prefix("loaded ")).unwrap_or_default().trim().to_owned();
    let run = |name: &str| output(&mut engine.docker(&["run", "--rm", "--network", "none", name]));
    same("what the container says", run(&name)?.as_str(), "app:1")?;
    same(
        "the engine's image ID",
        output(&mut engine.docker(&["image", "inspect", "-f", "{{.Id}}", &name]))?.as_str(),
        id,
    )?;
    // The same as an object; nothing has to be moved for it any more.
    let pulled = visitor.json(&["pull", reference])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), id)?;
    same("the name", text(&pulled, "sink")?.as_str(), name.as_str())?;
    same("the reference", text(&pulled, "reference")?.as_str(), last)?;
    same("the bytes fetched again", &number(&pulled, "/bytes/fetched")?, &0)?;
    Ok(name)
}

/// Line 2 over a line that holds every byte back: it takes longer, but nothing stalls.
pub(crate) fn slow_line(lab: &Lab) -> Result<Figure> {
    let site = lab.site()?;
    let port = site.address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("the address has a port")?;
    let line = Line::start(port, Quality { delay: DELAY, ..Quality::default() })?;
    let address = line.lead(&site.address, port);
    lab.dns(&[(&format!("_dnslink.{DOMAIN}"), &format!("dnslink=/ipns/{}", site.ipns))])?;
    let visitor = lab.visitor("slow-b")?.with(&["--peer", &address]);
    let watched = watched::pull(&visitor, &[&format!("{DOMAIN}/app:1"), "--into", "none"])?;
    let (pulled, seconds, stall) = (watched.result, watched.seconds, watched.stall);
    let through = pulled["peers"][0]["address"].as_str().unwrap_or_default();
    require(through.contains(&format!("/tcp/{}", line.port)), || format!("the bytes came from {through:?}"))?;
    require(seconds <= SLOW_LINE, || format!("it took {seconds:.1} s"))?;
    require(stall <= STALL, || format!("no bytes came for {stall:.2} s"))?;
    let mut figure = Figure::at_most(watched.silence, STALL, "s without news")?;
    let delay = DELAY.as_millis();
    let rest = format!(", {stall:.2} s without bytes, {IMAGE_MIB} MiB in {seconds:.1} s, {delay} ms each way");
    figure.found.push_str(&rest);
    Ok(figure)
}

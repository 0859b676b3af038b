//! Trustless gateways: Kubo's, and what becomes of it behind one that lies, hangs, dies or knows one form only.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{add_2020, check, serve};
use crate::accept::Figure;
use crate::accept::exchange::Kubo;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab};
use crate::accept::site::{number, require, same, text, warned};
use crate::line::{Line, Quality};
use crate::shell::Result;

/// Bytes of the image's layers.
const LAYERS: [usize; 2] = [24 << 20, 8 << 20];
/// Seconds that a pull may take beyond twice its time without a fault.
const MORE: f64 = 10.0;
/// Bytes after which a gateway dies.
const MIDWAY: usize = 10 << 20;
/// How long a gateway that is far away takes to answer.
const FAR: Duration = Duration::from_millis(25);
/// Bytes that a peer on a slow line sends in a second.
const SLOW: f64 = 6e6;

/// What a gateway does with the answers of the one behind it.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// It takes its time before each answer, as those do that are far away.
    Far,
    /// It changes bytes.
    Lies,
    /// It says nothing.
    Hangs,
    /// It is gone after so many bytes.
    Dies(usize),
    /// It knows single blocks only.
    RawOnly,
}

/// A gateway on loopback with another one behind it. It runs until this program ends.
struct Gateway {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Gateway {
    fn start(behind: &str, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let gateway =
            Self { url: format!("http://{}", listener.local_addr()?), asked: Arc::default(), sent: Arc::default() };
        let behind = behind.strip_prefix("http://").ok_or("Kubo's gateway has an http URL")?.to_owned();
        let (asked, sent) = (Arc::clone(&gateway.asked), Arc::clone(&gateway.sent));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if matches!(manner, Manner::Dies(after) if sent.load(Ordering::Acquire) >= after) {
                    // Its port is closed with the listener.
                    return;
                }
                let (behind, asked, sent) = (behind.clone(), Arc::clone(&asked), Arc::clone(&sent));
                std::thread::spawn(move || answer(&client, &behind, manner, &asked, &sent));
            }
        });
        Ok(gateway)
    }

    /// How many requests had this in their path.
    fn asked(&self, form: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|path| path.contains(form)).count()
    }
}

/// Answers one request; `None` when somebody has gone.
fn answer(
    mut client: &TcpStream,
    behind: &str,
    manner: Manner,
    asked: &Mutex<Vec<String>>,
    sent: &AtomicUsize,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    // Without chunks, and with an end.
    let mut request = line.replace("HTTP/1.1", "HTTP/1.0");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        request.push_str(&header);
        if header.len() <= 2 {
            break;
        }
    }
    let path = line.split(' ').nth(1)?.to_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    match manner {
        Manner::Far => std::thread::sleep(FAR),
        Manner::Hangs => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        Manner::RawOnly if path.contains("format=car") => {
            let refusal = "HTTP/1.1 406 Not Acceptable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(refusal.as_bytes()).ok();
        }
        _ => {}
    }
    let mut kubo = TcpStream::connect(behind).ok()?;
    kubo.write_all(request.as_bytes()).ok()?;
    let mut reader = BufReader::new(kubo);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|count| *count > 0)?;
    }
    client.write_all(head.as_bytes()).ok()?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut piece).ok().filter(|count| *count > 0)?;
        if manner == Manner::Lies {
            piece[count - 1] ^= 1;
        }
        client.write_all(&piece[..count]).ok()?;
        let sent = sent.fetch_add(count, Ordering::AcqRel) + count;
        if matches!(manner, Manner::Dies(after) if sent >= after) {
            let _ = client.shutdown(Shutdown::Both);
            // Whoever comes next makes the one that listens end, too.
            return None;
        }
    }
}

/// What is pulled, and how long that took undisturbed.
struct Site<'a> {
    lab: &'a Lab,
    image: Image,
    reference: String,
}

impl Site<'_> {
    /// Pulls into a home that knows nothing; what came, and in how many seconds.
    fn pull(&self, name: &str, flags: &[&str]) -> Result<(Value, f64)> {
        let home = self.lab.home(&format!("gateways-{name}")).with(flags);
        let begin = Instant::now();
        let pulled =
            home.json(&["pull", &self.reference, "--into", "none"]).map_err(|error| format!("{name}: {error}"))?;
        let seconds = begin.elapsed().as_secs_f64();
        check(&home, &pulled, &self.image)?;
        let bytes: u64 = self.image.layers.iter().map(|layer| layer.len() as u64).sum();
        let fetched = number(&pulled, "/bytes/fetched")?;
        require(fetched >= bytes, || format!("{name}: {fetched} bytes of {bytes} were fetched"))?;
        let all = sent(&pulled, "peers") + sent(&pulled, "gateways");
        require(all >= fetched, || format!("{name}: {fetched} bytes came, {all} from somebody: {pulled}"))?;
        fs::remove_dir_all(&home.dir)?;
        Ok((pulled, seconds))
    }
}

/// Bytes that peers or gateways sent.
fn sent(pulled: &Value, who: &str) -> u64 {
    pulled[who].as_array().into_iter().flatten().filter_map(|one| one["bytes"].as_u64()).sum()
}

/// Bytes that one gateway sent.
fn sent_by(pulled: &Value, url: &str) -> u64 {
    let gateways = pulled["gateways"].as_array().into_iter().flatten();
    gateways.filter(|one| one["url"] == url).filter_map(|one| one["bytes"].as_u64()).sum()
}

/// Line 2: what comes from gateways is right, whatever they do, and comes in good time, alone and beside peers.
pub(crate) fn gateways(lab: &Lab) -> Result<Figure> {
    let kubo = Kubo::start(lab, "kubo-gateway")?;
    let image = Image::new(361, &LAYERS);
    let cid = add_2020(lab, &kubo, &image, 256 << 10)?;
    let site = Site { lab, image, reference: format!("ipfs/{cid}/app:1") };
    let behind = kubo.gateway()?;

    // Kubo's own, and nobody else; of one that is far away, several blocks with a request.
    let far = Gateway::start(&behind, Manner::Far)?;
    let (pulled, calm) = site.pull("kubo", &["--gateway", &behind])?;
    require(sent(&pulled, "peers") == 0, || format!("somebody else sent blocks: {}", pulled["peers"]))?;
    same("the gateway", &text(&pulled["gateways"][0], "url")?, &behind)?;
    let blocks = number(&pulled["gateways"][0], "/blocks")?;
    site.pull("far", &["--gateway", &far.url])?;
    let requests = far.asked("/ipfs/");
    require(far.asked("format=car") > 0 && (requests as u64) < blocks, || {
        format!("{requests} requests for {blocks} blocks")
    })?;
    let connections = kubo.output(&["swarm", "peers"])?;
    require(connections.is_empty(), || format!("Kubo is connected to {connections}"))?;
    let limit = 2.0 * calm + MORE;
    let in_time = |name: &str, seconds: f64| {
        require(seconds <= limit, || format!("{name}: the pull took {seconds:.1} s, limit {limit:.1} s"))
    };
    let mut found = vec![format!("Kubo alone {calm:.1} s, {blocks} blocks in {requests} requests")];

    // Single blocks only.
    let raw = Gateway::start(&behind, Manner::RawOnly)?;
    let (_, seconds) = site.pull("raw", &["--gateway", &raw.url])?;
    in_time("raw", seconds)?;
    require(raw.asked("format=car") <= 16 && raw.asked("format=raw") as u64 >= blocks - 1, || {
        format!("{} and {} requests", raw.asked("format=car"), raw.asked("format=raw"))
    })?;
    found.push(format!("raw {seconds:.1} s"));

    // Beside one that is honest.
    for (name, manner) in [("lies", Manner::Lies), ("hangs", Manner::Hangs)] {
        let bad = Gateway::start(&behind, manner)?;
        let (pulled, seconds) = site.pull(name, &["--gateway", &bad.url, "--gateway", &behind])?;
        in_time(name, seconds)?;
        require(bad.asked("/ipfs/") > 0, || format!("the gateway that {name} was not asked"))?;
        require(sent_by(&pulled, &bad.url) == 0, || format!("{name}: blocks came from it: {}", pulled["gateways"]))?;
        if manner == Manner::Lies {
            let warning = warned(&pulled, "bad-peer").ok_or("nothing is said of the liar")?;
            same("who lied", &text(warning, "peer")?, &bad.url)?;
            // Alone it is of no use, and nothing of it is taken.
            let alone = lab.home("gateways-liar").with(&["--timeout", "4", "--gateway", &bad.url]);
            alone.fails(4, &["pull", &site.reference, "--into", "none"])?;
            alone.json(&["check", "--read-data"])?;
        }
        found.push(format!("{name} {seconds:.1} s"));
    }

    // Beside a peer on a slow line: with a gateway that dies midway, and with one that does not.
    let holder = lab.home("gateways-holder");
    holder.with(&["--gateway", &behind]).json(&["pull", &site.reference, "--into", "none"])?;
    let (_service, address) = serve(&holder, &[])?;
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("the address has a port")?;
    for (name, manner) in [("dies", Manner::Dies(MIDWAY)), ("both", Manner::Honest)] {
        let line = Line::start(port, Quality { down: Some(SLOW), ..Quality::default() })?;
        let gateway = Gateway::start(&behind, manner)?;
        let flags = ["--peer", &line.lead(&address, port), "--gateway", &gateway.url];
        let (pulled, seconds) = site.pull(name, &flags)?;
        in_time(name, seconds)?;
        let (peer, gateway) = (sent(&pulled, "peers"), sent_by(&pulled, &gateway.url));
        require(peer > 0 && gateway > 0, || format!("{name}: {peer} bytes of the peer, {gateway} of the gateway"))?;
        found.push(format!(
            "{name} {seconds:.1} s ({} MB of the peer, {} of the gateway)",
            peer / 1_000_000,
            gateway / 1_000_000
        ));
        if manner == Manner::Honest {
            require(2 * gateway > peer, || format!("the faster one sent {gateway} bytes, the slower one {peer}"))?;
        }
    }
    remove(&holder)?;
    Ok(Figure { found: found.join(", "), limit: format!("<= {limit:.1} s") })
}

fn remove(home: &Home<'_>) -> Result {
    Ok(fs::remove_dir_all(&home.dir)?)
}

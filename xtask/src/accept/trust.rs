//! Whom a domain is believed to lead to, what is done without a network, and what a push says about itself.

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Figure;
use super::exchange::{Kubo, SMALL_MIB};
use super::lab::{Home, Lab, wait_for};
use super::site::{DOMAIN, equal, number, require, same, text, warned};
use crate::shell::Result;

/// A registry with one image.
fn registry<'a>(lab: &'a Lab, name: &str) -> Result<(Home<'a>, Value)> {
    lab.image("small:1", SMALL_MIB)?;
    let home = lab.home(name);
    home.json(&["init", "--domain", DOMAIN])?;
    let pushed = home.json(&["push", "small:1", "--as", "x:1", "--no-publish"])?;
    Ok((home, pushed))
}

/// Changes where the domain leads; the addresses of all sites stay.
fn lead(lab: &Lab, link: &str, addresses: &[&str]) -> Result<String> {
    let hints: Vec<String> = addresses.iter().map(|address| format!("dnsaddr={address}")).collect();
    let (at, link) = (format!("_dnsaddr.{DOMAIN}"), format!("dnslink={link}"));
    let name = format!("_dnslink.{DOMAIN}");
    let mut records = vec![(name.as_str(), link.as_str())];
    records.extend(hints.iter().map(|hint| (at.as_str(), hint.as_str())));
    Ok(format!("127.0.0.1:{}", lab.dns(&records)?))
}

/// Line 8: a changed key is refused until somebody who may say so says so: the user, or the old key.
pub(crate) fn trust(lab: &Lab) -> Result<Figure> {
    let (old, pushed) = registry(lab, "trust-a")?;
    let (other, _) = registry(lab, "trust-o")?;
    let (site, stranger) = (lab.serve(&old)?, lab.serve(&other)?);
    let addresses = [site.address.as_str(), stranger.address.as_str()];
    let reference = format!("{DOMAIN}/x:1");
    let at = |name: &str, link: &str| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            lab.home(name).with(&["--dns", &lead(lab, link, &addresses)?]),
        )
    };
    let pull = ["pull", &reference, "--into", "none"];

    // First use, then the same, then another key, then none.
    let (ours, theirs) = (format!("/ipns/{}", site.ipns), format!("/ipns/{}", stranger.ipns));
    let visitor = at("trust-v", &ours)?;
    for trust in ["first-use", "pinned"] {
        same("trust", text(&visitor.json(&pull)?, "trust")?.as_str(), trust)?;
    }
    let visitor = at("trust-v", &theirs)?;
    let error = visitor.fails(5, &pull)?;
    require(error["hint"].as_str().is_some_and(|hint| hint.contains("ipcr trust add")), || format!("hint: {error}"))?;
    let visitor = at("trust-v", &format!("/ipfs/{}", text(&pushed, "root")?))?;
    visitor.fails(5, &pull)?;
    let visitor = at("trust-v", &theirs)?;
    let did = text(&other.json(&["id"])?, "did")?;
    equal(
        "the key that is remembered",
        text(&visitor.json(&["trust", "add", DOMAIN, &did])?, "key")?,
        stranger.ipns.clone(),
    )?;
    equal("trust after `trust add`", text(&visitor.json(&pull)?, "trust")?, "pinned")?;
    let visitor = at("trust-v", &ours)?;
    visitor.fails(5, &pull)?;
    let entries = visitor.json(&["trust", "ls"])?;
    equal("what is remembered", text(&entries["domains"][0], "key")?, stranger.ipns.clone())?;
    visitor.json(&["trust", "rm", DOMAIN])?;
    equal("trust after `trust rm`", text(&visitor.json(&pull)?, "trust")?, "first-use")?;

    // A domain without a key gets one.
    let keyless = at("trust-k", &format!("/ipfs/{}", text(&pushed, "root")?))?;
    equal("trust of content", text(&keyless.json(&pull)?, "trust")?, "dns-only")?;
    at("trust-k", &ours)?.fails(5, &pull)?;

    // The old key hands over to a new one.
    drop(site);
    let rotated = old.json(&["key", "rotate"])?;
    let new = text(&rotated, "ipns")?;
    equal("the name before", text(&rotated, "previous")?, ours.trim_start_matches("/ipns/"))?;
    require(!ours.contains(&new), || "the key has not changed".into())?;
    equal("the name that is shown", text(&old.json(&["id"])?, "ipns")?, new.clone())?;
    let (_process, ready) = old.serve(&["serve", "--http", "127.0.0.1:0"])?;
    let address = super::site::tcp_address(&ready)?;
    let addresses = [address.as_str(), stranger.address.as_str()];
    let at = |name: &str, link: &str| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            lab.home(name).with(&["--dns", &lead(lab, link, &addresses)?]),
        )
    };
    // Whoever knew the old key, and whether the domain has the new name already or not.
    for (name, link) in [("trust-v", &ours), ("trust-w", &ours), ("trust-v", &format!("/ipns/{new}"))] {
        let pulled = at(name, link)?.json(&pull)?;
        let ipns: Vec<&str> = pulled["chain"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|step| step["kind"] == "ipns")
            .filter_map(|step| step["name"].as_str())
            .collect();
        same("the end of the chain of names", &ipns.last().copied(), &Some(new.as_str()))?;
        if name == "trust-v" && link == &ours {
            let warning = warned(&pulled, "handed-over").ok_or_else(|| format!("no word of the new key: {pulled}"))?;
            equal("who hands over", &text(warning, "from")?, ours.trim_start_matches("/ipns/"))?;
        }
    }
    let entries = at("trust-v", &ours)?.json(&["trust", "ls"])?;
    equal("what is remembered then", text(&entries["domains"][0], "key")?, new.clone())?;
    at("trust-v", &theirs)?.fails(5, &pull)?;
    // It is published under the new name, and under the old one no more.
    old.json(&["push", "small:1", "--as", "x:2"])?;
    at("trust-v", &ours)?.json(&["resolve", &format!("{DOMAIN}/x:2")])?;
    Ok(Figure::ok("refused, confirmed, handed over"))
}

/// Line 8: the own domain and key are this registry, and what is known is known without a network.
pub(crate) fn offline(lab: &Lab) -> Result<Figure> {
    let (home, pushed) = registry(lab, "offline-a")?;
    let site = lab.serve(&home)?;
    let visitor = lab.visitor("offline-v")?;
    let pulled = visitor.json(&["pull", &format!("{DOMAIN}/x:1"), "--into", "none"])?;
    let ipns = site.ipns.clone();
    let did = site.did.clone();
    let peer = text(&home.json(&["id"])?, "ipns")?;
    equal("the name", &peer, &ipns)?;
    drop(site);

    // A server that counts what it is asked, and answers nothing.
    let server = UdpSocket::bind("127.0.0.1:0")?;
    server.set_nonblocking(true)?;
    let dns = format!("127.0.0.1:{}", server.local_addr()?.port());
    let asked = || server.recv_from(&mut [0; 1500]).is_ok();
    let flags = ["--offline", "--dns", dns.as_str(), "--router", "http://127.0.0.1:9"];
    let (own, known) = (home.with(&flags), lab.home("offline-v").with(&flags));
    for authority in [DOMAIN, ipns.as_str(), did.as_str(), &format!("did:web:{DOMAIN}"), &format!("/ipns/{DOMAIN}")] {
        let resolved = own.json(&["resolve", &format!("{authority}/x:1")])?;
        equal("the folder", text(&resolved, "cid")?, text(&pushed, "cid")?)?;
        equal("who says so", text(&resolved["chain"][0], "source")?, "own")?;
    }
    for authority in [DOMAIN, ipns.as_str(), did.as_str()] {
        let again = known.json(&["pull", &format!("{authority}/x:1"), "--into", "none"])?;
        equal("the image", text(&again, "image_id")?, text(&pulled, "image_id")?)?;
        same("bytes from others", &number(&again, "/bytes/fetched")?, &0)?;
        equal("who says so", text(&again["chain"][0], "source")?, "kept")?;
    }
    for (exit, args) in [
        (4, &["resolve", "never.test/x:1"][..]),
        (4, &["resolve", "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r"]),
        (4, &["publish"]),
    ] {
        let error = (if args[0] == "publish" { &own } else { &known }).fails(exit, args)?;
        require(error["hint"].as_str().is_some_and(|hint| hint.contains("--offline")), || format!("hint: {error}"))?;
    }
    let pushed = own.json(&["push", "small:1", "--as", "x:2"])?;
    same("published", &pushed["published"], &false.into())?;
    same("findable", &pushed["findable"], &Value::Null)?;
    require(warned(&pushed, "not-published").is_some(), || format!("no word of that it is not published: {pushed}"))?;
    require(!asked(), || "DNS was asked".into())?;
    // The same without `--offline` asks, which shows that the server counts.
    lab.home("offline-w").with(&["--dns", &dns, "--timeout", "5"]).fails(4, &["resolve", "never.test/x:1"])?;
    require(asked(), || "nobody asks DNS".into())?;
    Ok(Figure::ok("own, known and unknown names"))
}

/// Line 8: what is said about who finds a push, and waiting for somebody to hold it.
pub(crate) fn findable(lab: &Lab) -> Result<Figure> {
    let (home, _) = registry(lab, "found-a")?;
    let alone = home.json(&["push", "small:1", "--as", "x:2"])?;
    same("findable when nobody is asked", &alone["findable"], &Value::Null)?;
    same("published when nobody takes it", &alone["published"], &false.into())?;
    require(warned(&alone, "only-holder").is_some(), || format!("no warning: {alone}"))?;
    let began = Instant::now();
    let waited = home.json(&["push", "small:1", "--as", "x:3", "--wait", "3"])?;
    require(began.elapsed() > Duration::from_secs(2), || "it did not wait".into())?;
    same("holders after waiting for nobody", &waited["holders"], &Value::Array(Vec::new()))?;

    let kubo = Kubo::start(lab, "kubo-found")?;
    let address = kubo.address()?;
    let peer = kubo.output(&["id", "-f", "<id>"])?;
    let near = home.with(&["--peer", &address]);
    let found = near.json(&["push", "small:1", "--as", "x:4"])?;
    same("published", &found["published"], &true.into())?;
    same("findable with a DHT", &found["findable"], &true.into())?;
    same("holders", &found["holders"], &Value::Array(Vec::new()))?;

    // Kubo takes the registry while the push waits for somebody who does.
    let mut command = near.command(&["-o", "json", "push", "small:1", "--as", "x:5", "--wait", "60"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let name = text(&home.json(&["id"])?, "ipns")?;
    let before = format!("/ipfs/{}", text(&found, "root")?);
    let mut root = String::new();
    wait_for("a new root under the name", Duration::from_secs(20), || {
        root = kubo.output(&["name", "resolve", "--nocache", &name]).unwrap_or_default();
        root.starts_with("/ipfs/") && root != before
    })?;
    kubo.output(&["pin", "add", &root])?;
    let output = child.wait_with_output()?;
    let pushed: Value = serde_json::from_slice(&output.stdout)?;
    same("holders", &pushed["holders"], &Value::Array(vec![peer.into()]))?;
    same("findable", &pushed["findable"], &true.into())?;
    same("warnings", &pushed["warnings"], &Value::Array(Vec::new()))?;
    home.fails(2, &["push", "small:1", "--no-publish", "--wait", "1"])?;
    Ok(Figure::ok("null, true, waited"))
}

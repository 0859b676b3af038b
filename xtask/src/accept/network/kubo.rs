//! Kubo: large and many blocks both ways, and the names and providers that it finds.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{add_2020, check, serve};
use crate::accept::Figure;
use crate::accept::exchange::Kubo;
use crate::accept::forge::Image;
use crate::accept::lab::{Lab, wait_for};
use crate::accept::site::{equal, require, text};
use crate::accept::watched::{self, STALL};
use crate::shell::{Result, output, show};

/// Line 1: Kubo sends a stream per message, and takes what it sent back.
pub(crate) fn chunks(lab: &Lab) -> Result<Figure> {
    let kubo = Kubo::start(lab, "kubo-chunks")?;
    let image = Image::new(311, &[100_000_000, 100_000_000]);
    let cid = add_2020(lab, &kubo, &image, 256 << 10)?;
    let visitor = lab.home("chunks-b");
    let from_kubo = visitor.with(&["--peer", &kubo.address()?]);
    let watched = watched::pull(&from_kubo, &[&format!("ipfs/{cid}/app:1"), "--into", "none"])?;
    check(&visitor, &watched.result, &image)?;
    drop(kubo);

    let (_service, address) = serve(&visitor, &[])?;
    let other = Kubo::start(lab, "kubo-chunks-c")?;
    other.output(&["swarm", "connect", &address])?;
    let layers = image.members().into_iter().filter(|member| member.name.ends_with("layer.tar"));
    let paths: Vec<String> = layers.map(|layer| format!("/ipfs/{cid}/app/tags/1/{}", layer.name)).collect();
    let (bytes, seconds, stall) = read(&other, &paths)?;
    let expected: usize = image.layers.iter().map(Vec::len).sum();
    require(bytes == expected as u64, || format!("Kubo fetched {bytes} bytes of {expected}"))?;
    let mut figure = Figure::at_most(watched.stall.max(stall), STALL, "s without bytes")?;
    figure.found.push_str(&format!(", to ipcr {:.1} s, to Kubo {seconds:.1} s", watched.seconds));
    Ok(figure)
}

/// Lets Kubo fetch and write files; their bytes, how long it took, and the longest time without a byte.
fn read(kubo: &Kubo<'_>, paths: &[String]) -> Result<(u64, f64, f64)> {
    let mut command = kubo.command(&["cat", "--progress=false"])?;
    command.args(paths);
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().ok_or("a piped output is there")?;
    let (mut bytes, mut last, mut stall) = (0, begin, Duration::ZERO);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = output.read(&mut buffer)?;
        let now = Instant::now();
        stall = stall.max(now - last);
        last = now;
        bytes += count as u64;
        if count == 0 {
            break;
        }
    }
    let status = child.wait()?;
    require(status.success(), || format!("{} ended with {status}", show(&command)))?;
    Ok((bytes, begin.elapsed().as_secs_f64(), stall.as_secs_f64()))
}

/// Line 1: a block of exactly the largest size crosses in both directions.
pub(crate) fn large_block(lab: &Lab) -> Result<Figure> {
    const BLOCK: usize = 2 << 20;
    let kubo = Kubo::start(lab, "kubo-large")?;
    // With its header and end the layer is one block.
    let image = Image::new(312, &[BLOCK - 1536]);
    let layer = image.layers.first().ok_or("the image has a layer")?;
    require(layer.len() == BLOCK, || format!("the layer has {} bytes", layer.len()))?;
    let members = image.members();
    let mut put = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let file = lab.path(&format!("large-{at}"));
        fs::write(&file, &member.data)?;
        let mut command = kubo.command(&["block", "put", "--allow-big-block", "--cid-codec=raw"])?;
        put.push(output(command.arg(&file))?);
        fs::remove_file(file)?;
    }
    for (member, cid) in members.iter().zip(&put) {
        let path = format!("/registry/app/tags/1/{}", member.name);
        let (folder, _) = path.rsplit_once('/').ok_or("a path has a folder")?;
        kubo.output(&["files", "mkdir", "-p", "--cid-version=1", folder])?;
        kubo.output(&["files", "cp", &format!("/ipfs/{cid}"), &path])?;
    }
    let root = kubo.output(&["files", "stat", "--hash", "/registry"])?;
    let visitor = lab.home("large-block-b");
    let from_kubo = visitor.with(&["--peer", &kubo.address()?]);
    let pulled = from_kubo.json(&["pull", &format!("ipfs/{root}/app:1"), "--into", "none"])?;
    check(&visitor, &pulled, &image)?;
    drop(kubo);

    let (_service, address) = serve(&visitor, &[])?;
    let other = Kubo::start(lab, "kubo-large-c")?;
    other.output(&["swarm", "connect", &address])?;
    let size = other.output(&["block", "stat", put.first().ok_or("the layer was put")?])?;
    require(size.contains(&BLOCK.to_string()), || format!("Kubo says {size}"))?;
    // And to another ipcr.
    let third = lab.home("large-block-c").with(&["--peer", &address]);
    let pulled = third.json(&["pull", &format!("ipfs/{root}/app:1"), "--into", "none"])?;
    check(&third, &pulled, &image)?;
    Ok(Figure::ok("Kubo to ipcr, ipcr to Kubo, ipcr to ipcr"))
}

/// Line 3: what ipcr publishes by one Kubo of a DHT, another one finds; what Kubo publishes there, ipcr does. And what is
/// known there, those get who only ask a router.
pub(crate) fn names(lab: &Lab) -> Result<Figure> {
    let (near, far) = (Kubo::in_dht(lab, "kubo-near")?, Kubo::in_dht(lab, "kubo-far")?);
    far.output(&["swarm", "connect", &near.address()?])?;
    let home = lab.home("dht-a").with(&["--bootstrap", &near.address()?]);
    let identity = home.json(&["init"])?;
    let (ipns, peer) = (text(&identity, "ipns")?, text(&identity["node"], "peer_id")?);
    let archive = lab.path("dht.tar");
    let image = Image::new(313, &[1 << 20]);
    fs::write(&archive, image.archive())?;
    let source = format!("docker-archive:{}", archive.display());
    let pushed = home.json(&["push", &source, "--as", "x:1", "--no-publish"])?;
    let root = text(&pushed, "root")?;
    let key = far.output(&["key", "gen", "--type=ed25519", "other"])?;
    far.output(&["name", "publish", "--allow-offline", "--resolve=false", "--key=other", &format!("/ipfs/{root}")])?;
    let visitor = lab.home("dht-b").with(&["--bootstrap", &near.address()?]);
    let resolved = visitor.json(&["resolve", &format!("/ipns/{key}")])?;
    equal("what ipcr resolves", text(&resolved, "root")?, &root)?;

    let published = home.json(&["publish"])?;
    require(published["published"] == true, || format!("it was not published: {published}"))?;
    let (_service, _) = serve(&home, &[])?;
    equal("what Kubo resolves", far.output(&["name", "resolve", "--nocache", &ipns])?, format!("/ipfs/{root}"))?;
    let folder = visitor.json(&["resolve", &format!("ipfs/{root}/x:1")])?;
    for (what, cid) in [("the root", &root), ("the tag folder", &text(&folder, "cid")?)] {
        wait_for(&format!("a provider record of {what}"), Duration::from_secs(20), || {
            far.output(&["routing", "findprovs", "--num-providers=5", cid]).is_ok_and(|found| found.contains(&peer))
        })?;
    }
    fs::remove_file(archive)?;
    // Somebody who knows nothing but a router: the record and the provider come from there.
    let routed = lab.home("dht-c").with(&["--router", &near.gateway()?]);
    let pulled = routed.json(&["pull", &format!("{ipns}/x:1"), "--into", "none"])?;
    check(&routed, &pulled, &image)?;
    equal("who gave it", text(&pulled["peers"][0], "peer")?, peer)?;
    Ok(Figure::ok("name and provider found by another Kubo; its name found by ipcr; pulled by a router"))
}

//! Helia, which resets streams that are silent for 10 s, and sends many blocks in one message.

use std::time::Duration;

use super::{Holder, Script, add_2020, check, serve};
use crate::accept::Figure;
use crate::accept::exchange::Kubo;
use crate::accept::forge::Image;
use crate::accept::lab::Lab;
use crate::accept::site::{number, require, same, text};
use crate::accept::watched::{self, STALL};
use crate::line::{Line, Quality};
use crate::shell::Result;

/// How long connections have nothing to do: longer than Helia keeps a silent stream.
const IDLE: Duration = Duration::from_secs(15);
/// How long bytes travel in each direction over a long line.
const DELAY: Duration = Duration::from_millis(20);
/// How long a pull over it may take, in seconds.
const LATE: f64 = 20.0;
/// Size of the image, in MiB.
const IMAGE_MIB: usize = 48;

/// Line 1: Helia fetches by a connection that was idle, and so does ipcr from Helia, which by then has everything.
pub(crate) fn idle(lab: &Lab) -> Result<Figure> {
    let holder = Holder::start(lab, "helia-a", 301, &[IMAGE_MIB << 20])?;
    let mut helia = Script::start(lab, "peer.mjs", &[])?;
    let address = helia.address()?;
    helia.call(&format!("connect {}", holder.address))?;
    // The other connection is that of a service, through which the pull works later.
    let visitor = lab.home("helia-b");
    let (service, _) = serve(&visitor, &["--peer", &address])?;
    std::thread::sleep(IDLE);
    let fetched = helia.call(&format!("fetch {}", holder.root))?;
    let bytes = number(&fetched, "/bytes")?;
    require(bytes >= holder.bytes, || format!("Helia fetched {bytes} bytes of {}", holder.bytes))?;
    let seconds = fetched["seconds"].as_f64().ok_or("a fetch takes time")?;
    drop(holder.service);
    let watched = watched::pull(&visitor, &[&holder.reference, "--into", "none"])?;
    let pulled = watched.result;
    let came = number(&pulled, "/bytes/fetched")?;
    require(came >= holder.bytes, || format!("{came} bytes of {} came from Helia", holder.bytes))?;
    let peer = text(&pulled["peers"][0], "peer")?;
    require(address.ends_with(&peer), || format!("the bytes came from {peer} and not from {address}"))?;
    drop(service);
    check(&visitor, &pulled, &holder.image)?;
    let found =
        format!("Helia {} MiB in {seconds:.1} s, ipcr {} MiB in {:.1} s", bytes >> 20, came >> 20, watched.seconds);
    Ok(Figure::ok(found))
}

/// Line 1: blocks that Helia packs into few messages, up to the largest.
pub(crate) fn batch(lab: &Lab) -> Result<Figure> {
    const BLOCK: usize = 512 << 10;
    let kubo = Kubo::start(lab, "kubo-batch")?;
    // With its header and end the layer has 16 blocks.
    let image = Image::new(302, &[16 * BLOCK - 1536]);
    let cid = add_2020(lab, &kubo, &image, BLOCK)?;
    let mut helia = Script::start(lab, "peer.mjs", &[])?;
    helia.call(&format!("connect {}", kubo.address()?))?;
    helia.call(&format!("fetch {cid}"))?;
    drop(kubo);
    let visitor = lab.home("batch-b").with(&["--peer", &helia.address()?]);
    let watched = watched::pull(&visitor, &[&format!("ipfs/{cid}/app:1"), "--into", "none"])?;
    check(&visitor, &watched.result, &image)?;
    let blocks = number(&watched.result["peers"][0], "/blocks")?;
    require(blocks >= 16, || format!("{blocks} blocks came"))?;
    same("the number of peers", &watched.result["peers"].as_array().map_or(0, Vec::len), &1)?;
    // The same over a long line, where Helia gets leave to send much at once, and does so in frames that break the connection.
    let address = helia.address()?;
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("the address has a port")?;
    let line = Line::start(port, Quality { delay: DELAY, ..Quality::default() })?;
    let far = lab.home("batch-c").with(&["--peer", &line.lead(&address, port)]);
    let late = watched::pull(&far, &[&format!("ipfs/{cid}/app:1"), "--into", "none"])?;
    check(&far, &late.result, &image)?;
    require(late.seconds <= LATE, || format!("over a long line it took {:.1} s, limit {LATE} s", late.seconds))?;
    let mut figure = Figure::at_most(watched.stall, STALL, "s without bytes")?;
    let (near, connections) = (watched.seconds, line.connections());
    figure.found.push_str(&format!(", {blocks} blocks in {near:.1} s"));
    figure.found.push_str(&format!("; in {:.1} s over a long line, {connections} connections", late.seconds));
    Ok(figure)
}

//! The main job: from engine to engine through names and the network.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Figure;
use super::lab::{Home, Lab, disk_usage};
use super::site::{DOMAIN, Proxy, number, require, same, text};
use crate::shell::Result;

/// Line 1: what `init` prints, `id` repeats; a second one is refused.
pub(crate) fn init(lab: &Lab) -> Result<Figure> {
    let home = lab.home("init");
    let made = home.json(&["init", "--domain", DOMAIN])?;
    require(text(&made, "ipns")?.starts_with("k51"), || format!("no IPNS name: {made}"))?;
    require(text(&made, "did")?.starts_with("did:key:z6Mk"), || format!("no DID: {made}"))?;
    require(text(&made, "recipient")?.starts_with("age1"), || format!("no recipient: {made}"))?;
    let link = made["txt"].as_array().into_iter().flatten().find(|txt| txt["name"] == format!("_dnslink.{DOMAIN}"));
    let expected = format!("dnslink=/ipns/{}", text(&made, "ipns")?);
    same("the DNSLink", link.and_then(|link| link["value"].as_str()).unwrap_or_default(), expected.as_str())?;
    same("`ipcr id`", &identity(&home)?, &without_warnings(made.clone()))?;
    let human = String::from_utf8(home.output(&["id"])?.stdout)?;
    for field in ["ipns", "did", "recipient"] {
        require(human.contains(&text(&made, field)?), || format!("`ipcr id` does not show {field}: {human}"))?;
    }
    require(human.contains(&expected), || format!("`ipcr id` does not show the TXT record: {human}"))?;
    home.fails(1, &["init"])?;
    home.fails(1, &["init", "--domain", "other.test"])?;
    same("`ipcr id` after a second init", &identity(&home)?, &without_warnings(made.clone()))?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok(format!("{} TXT records", made["txt"].as_array().map_or(0, Vec::len))))
}

fn identity(home: &Home<'_>) -> Result<Value> {
    Ok(without_warnings(home.json(&["id"])?))
}

/// What a command says of the registry itself.
fn without_warnings(mut object: Value) -> Value {
    object.as_object_mut().map(|fields| fields.remove("warnings"));
    object
}

/// Line 2: `push --serve` is enough for others to pull.
pub(crate) fn push_serve(lab: &Lab) -> Result<Figure> {
    let (home, id) = lab.publisher()?;
    let (process, pushed) = home.serve(&["push", "app:1", "--serve"])?;
    let ipns = text(&pushed, "ipns")?;
    let link = format!("dnslink=/ipns/{ipns}");
    lab.dns(&[(&format!("_dnslink.{DOMAIN}"), &link)])?;
    let address = home.json(&["id"])?;
    let visitor = lab.visitor("serve-b")?.with(&["--peer", &super::site::tcp_address(&address)?]);
    let pulled = visitor.json(&["pull", &format!("{DOMAIN}/app:1"), "--into", "none"])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), id.as_str())?;
    process.signal("INT");
    let status = process.wait(Duration::from_secs(10))?;
    // It has done what it was asked for.
    require(status.code() == Some(0), || format!("push --serve ended with {status}"))?;
    Ok(Figure::ok("same image ID"))
}

/// Line 7: what is there already is not moved again.
pub(crate) fn unchanged(lab: &Lab) -> Result<Figure> {
    let (home, _) = lab.publisher()?;
    let proxy = Proxy::start(&lab.engine()?)?;
    let home = home.through(&proxy.host());
    // Once to let everything settle that is made at first use.
    home.json(&["push", "app:1", "--no-publish"])?;
    proxy.take();
    let before = disk_usage(&home.dir)?;
    let start = Instant::now();
    let again = home.json(&["push", "app:1", "--no-publish"])?;
    let seconds = start.elapsed().as_secs_f64();
    same("unchanged", &again["unchanged"], &true.into())?;
    let grown = disk_usage(&home.dir)?.saturating_sub(before);
    require(grown < 64 << 10, || format!("the home grew by {grown} bytes"))?;
    let second = home.json(&["push", "app:1", "--as", "app:second", "--no-publish"])?;
    let stored = number(&second, "/bytes/new")?;
    require(stored < 64 << 10, || format!("a second tag stored {stored} bytes"))?;
    let requests = proxy.take();
    let export = requests.iter().find(|line| line.contains("/get HTTP") || line.contains("/images/get?"));
    require(export.is_none(), || format!("the engine was asked for an export: {export:?}"))?;
    require(!requests.is_empty(), || "the proxy saw no request at all".into())?;
    // One more layer: only it is fetched when the engine has the others.
    lab.child("top:1", "app:1")?;
    home.json(&["push", "top:1", "--no-publish"])?;
    let site = lab.serve(&lab.home("a"))?;
    let top = lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "top:1"])?;
    lab.docker_output(&["rmi", "top:1"])?;
    let pulled = lab.visitor("top-b")?.json(&["pull", &format!("{DOMAIN}/top:1")])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), top.as_str())?;
    let fetched = number(&pulled, "/bytes/fetched")?;
    require(fetched < 3 << 20, || format!("{fetched} bytes were fetched for a layer of 1 MiB"))?;
    drop(site);
    let mut figure = Figure::at_most(seconds, 1.0, "s")?;
    let rest = format!(", no export, home +{grown} B, second tag {stored} B, one layer {} KiB", fetched >> 10);
    figure.found.push_str(&rest);
    Ok(figure)
}

/// How often a start is measured.
const RUNS: usize = 10;

/// Line 12: what needs no network is there at once.
pub(crate) fn start(lab: &Lab) -> Result<Figure> {
    let home = lab.home("start");
    home.json(&["init"])?;
    let mut worst: f64 = 0.0;
    for args in [&["--help"][..], &["id"]] {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let start = Instant::now();
            let output = home.output(args)?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            require(output.status.success(), || format!("ipcr {} ended with {}", args.join(" "), output.status))?;
        }
        // The median: what is measured is the program, not what else the machine does now and then.
        times.sort_by(f64::total_cmp);
        worst = worst.max(f64::midpoint(times[(RUNS - 1) / 2], times[RUNS / 2]));
    }
    Figure::at_most(worst, 50.0, "ms")
}

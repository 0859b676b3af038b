//! A home with very many blocks.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::accept::Figure;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab};
use crate::accept::site::{number, require, same};
use crate::peers;
use crate::shell::{Result, output};

/// Within what a node is to start, in seconds.
const START: f64 = 1.0;
/// Within what a collection is to end, in seconds.
const COLLECTION: f64 = 60.0;
/// A collection that takes fewer seconds holds nobody up, and the share of a longer one that a push may have to wait for.
const SHORT: f64 = 2.0;
const WAIT: f64 = 0.7;
/// The most memory of the service, in MiB.
const MEMORY: f64 = 300.0;

/// Line 6, in CI: fewer blocks, and a share of the time.
pub(crate) fn some(lab: &Lab) -> Result<Figure> {
    many(lab, 50_000)
}

/// Line 6: a million.
pub(crate) fn million(lab: &Lab) -> Result<Figure> {
    many(lab, 1_000_000)
}

/// A node with `count` blocks starts, and half of them are collected while images are pushed and pulled.
fn many(lab: &Lab, count: u64) -> Result<Figure> {
    let home = lab.home("many-blocks");
    home.json(&["init"])?;
    let program = peers::target_dir(&lab.root).join("release/examples/many");
    if !program.is_file() {
        return Err(format!("SKIPPED: {} was not built", program.display()).into());
    }
    let made = output(Command::new(&program).arg(count.to_string()).arg("--home").arg(&home.dir))?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let (blocks, live) = (number(&made, "/blocks")?, number(&made, "/live")?);
    // Once for what the system has to read of a program and a home that nobody has used for a while.
    drop(home.serve(&["serve", "--http", "127.0.0.1:0"])?);
    let begin = Instant::now();
    let (service, _) = home.serve(&["serve", "--http", "127.0.0.1:0"])?;
    let start = begin.elapsed().as_secs_f64();
    require(start < START, || format!("it starts within {start:.2} s, limit {START}"))?;
    let used = home.json(&["df"])?;
    require(number(&used, "/reclaimable/blocks")? >= blocks - live, || format!("df says {used}"))?;
    same("the blocks of the cache", &number(&used, "/cache/blocks")?, &live)?;
    let begin = Instant::now();
    let collecting = home.command(&["-o", "json", "gc"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let collecting = thread::spawn(move || (collecting.wait_with_output(), begin.elapsed().as_secs_f64()));
    let (pushed, longest) = add(&home, || collecting.is_finished())?;
    let (collected, seconds) = collecting.join().map_err(|_| "waiting for a collection panicked")?;
    let collected = collected?;
    require(collected.status.success(), || {
        format!("ipcr gc ended with {}: {}", collected.status, String::from_utf8_lossy(&collected.stderr))
    })?;
    let collected: serde_json::Value = serde_json::from_slice(&collected.stdout)?;
    require(seconds < COLLECTION, || format!("gc took {seconds:.1} s, limit {COLLECTION}"))?;
    let removed = number(&collected, "/removed_blocks")?;
    // Only what comes while it is chosen what goes has to wait.
    require(seconds < SHORT || longest < seconds * WAIT, || {
        format!("a push took {longest:.1} s of the {seconds:.1} s that gc took")
    })?;
    require(removed >= blocks - live, || format!("gc removed {removed} of {} blocks", blocks - live))?;
    let peak = f64::from(crate::measure::high_water(service.0.id()).ok_or("the service runs")?) / 1024.0;
    require(peak <= MEMORY, || format!("the service took {peak:.0} MiB, limit {MEMORY}"))?;
    home.json(&["check"])?;
    for number in 0..pushed {
        home.json(&["pull", &format!("app:{number}"), "--into", "none"])?;
    }
    drop(service);
    fs::remove_dir_all(&home.dir)?;
    Ok(Figure {
        found: format!(
            "{blocks} blocks: start {start:.2} s, gc {seconds:.1} s, {pushed} pushes meanwhile, {longest:.1} s at most, {peak:.0} MiB"
        ),
        limit: format!("{START} s, {COLLECTION} s, {MEMORY} MiB"),
    })
}

/// Pushes one image after the other until something has ended; at least one. How many, and how long the longest took, in seconds.
fn add(home: &Home<'_>, has_ended: impl Fn() -> bool) -> Result<(u64, f64)> {
    let (mut pushed, mut longest) = (0, 0.0_f64);
    while pushed == 0 || !has_ended() {
        let file = home.dir.with_extension(format!("{pushed}.tar"));
        fs::write(&file, Image::new(700 + pushed, &[300 << 10]).archive())?;
        let source = format!("docker-archive:{}", file.display());
        let begin = Instant::now();
        home.json(&["push", &source, "--as", &format!("app:{pushed}"), "--no-publish"])?;
        longest = longest.max(begin.elapsed().as_secs_f64());
        fs::remove_file(file)?;
        pushed += 1;
    }
    Ok((pushed, longest))
}

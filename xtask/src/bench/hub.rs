//! `cargo xtask bench hub`: a registry with 10,000 images of 100 tags, and a home with as many blocks as 100 GB have.
//!
//! Blocks are many and small (`benches/examples/many.rs`): what a home looks up grows with their number.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::accept::lab::Lab;
use crate::accept::many_tags::{self, Found, IMAGES, LIST, SLOWER, TAGS, WRITTEN, archive, fresh, seconds};
use crate::accept::site::DOMAIN;
use crate::peers;
use crate::shell::{Result, output};

/// Blocks of 100 GB, if they have 64 KiB each, as the pieces of layers have about.
const BLOCKS: u64 = 1_600_000;
/// The same with `--quick`.
const QUICK_BLOCKS: u64 = 200_000;
/// Bytes of the image that is pushed to and pulled from a home with many blocks.
const LARGE: usize = 64 << 20;
/// How many times as long a push and a pull may take in a home with many blocks.
const FULL: f64 = 1.1;

/// Measures and prints the table; whether all limits were kept.
pub(super) fn run(root: &Path, quick: bool) -> Result<bool> {
    let lab = Lab::new(root)?;
    let (times, blocks) = if quick { (3, QUICK_BLOCKS) } else { (5, BLOCKS) };
    let mut rows = many(&lab, times)?;
    rows.extend(full(&lab, times, blocks)?);
    println!("\nMedians of {times}; {IMAGES} images of {TAGS} tags; {blocks} blocks in a home that is called full.\n");
    println!("| | found | at most | |\n|---|---:|---:|---|");
    for Row { what, found, limit, unit } in &rows {
        let verdict = limit.map_or("", |limit| super::verdict(*found <= limit));
        let limit = limit.map_or_else(String::new, |limit| format!("{limit} {unit}"));
        println!("| {what} | {found:.2} {unit} | {limit} | {verdict} |");
    }
    println!();
    Ok(rows.iter().all(|row| row.limit.is_none_or(|limit| row.found <= limit)))
}

struct Row {
    what: &'static str,
    found: f64,
    limit: Option<f64>,
    unit: &'static str,
}

const fn row(what: &'static str, found: f64, limit: Option<f64>, unit: &'static str) -> Row {
    Row { what, found, limit, unit }
}

/// One tag among a million.
fn many(lab: &Lab, times: usize) -> Result<Vec<Row>> {
    let Found { first, again, written, images, tags } = many_tags::measure(lab, times)?;
    let [first, again, written, images, tags] =
        [first, again, written, images, tags].map(|values| super::median(&values, |value| *value));
    Ok(vec![
        row("the first tag of a registry, pushed", first, None, "s"),
        row("one tag among a million, pushed", again, None, "s"),
        row("beside the first one", again / first, Some(SLOWER), "x"),
        row("written for it, its layer included", written, Some(WRITTEN), "MiB"),
        row("`ipcr ls`", images, Some(LIST), "s"),
        row("`ipcr ls` of one image", tags, Some(LIST), "s"),
    ])
}

/// Push and pull in a home with many blocks of other images.
fn full(lab: &Lab, times: usize, blocks: u64) -> Result<Vec<Row>> {
    let (empty, full, giver) = (lab.home("hub-empty"), lab.home("hub-full"), lab.home("hub-giver"));
    fresh(&full)?;
    fresh(&giver)?;
    let program = peers::target_dir(&lab.root).join("release/examples/many");
    let made = output(Command::new(program).arg(blocks.to_string()).arg("--home").arg(&full.dir))?;
    eprintln!("  {made}");
    // Pushes and pulls, in the empty home and in the full one.
    let mut spent: [[Vec<f64>; 2]; 2] = Default::default();
    for time in 0..times {
        let seed = u64::try_from(2 * time)?;
        let (pushed, pulled) = (archive(lab, 5000 + seed, LARGE)?, archive(lab, 5001 + seed, LARGE)?);
        let name = format!("app:{time}");
        giver.json(&["push", &pulled, "--as", &name, "--no-publish"])?;
        let site = lab.serve(&giver)?;
        fresh(&empty)?;
        let dns = format!("127.0.0.1:{}", lab.dns_port().ok_or("the DNS server runs")?);
        for (home, [push, pull]) in [&empty, &full].into_iter().zip(&mut spent) {
            push.push(seconds(home, &["-q", "push", &pushed, "--as", &name, "--no-publish"])?);
            let from = format!("{DOMAIN}/{name}");
            pull.push(seconds(&home.with(&["--dns", &dns]), &["-q", "pull", &from, "--into", "none"])?);
        }
        drop(site);
        eprintln!("  pushes and pulls, empty and full: {spent:.2?}");
    }
    for home in [&empty, &full, &giver] {
        fs::remove_dir_all(&home.dir)?;
    }
    let [[push, pull], [full_push, full_pull]] =
        spent.map(|home| home.map(|values: Vec<f64>| super::median(&values, |value| *value)));
    Ok(vec![
        row("an image of 64 MiB, pushed into an empty home", push, None, "s"),
        row("pushed into a full one, beside that", full_push / push, Some(FULL), "x"),
        row("pulled into an empty home", pull, None, "s"),
        row("pulled into a full one, beside that", full_pull / pull, Some(FULL), "x"),
    ])
}

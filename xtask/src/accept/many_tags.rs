//! A registry with very many images and tags.
//!
//! Nobody pushes a million tags for this: one image is pushed with all its tags, and its folder gets the other names
//! (`benches/examples/hub.rs`). For the registry that is the same, because nothing of one image is read when another one changes.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Figure;
use super::forge::Image;
use super::lab::{Home, Lab};
use super::site::{number, require, same};
use crate::measure::{self, Helpers};
use crate::peers;
use crate::shell::{Result, output};

/// How many there are.
pub(crate) const IMAGES: usize = 10_000;
/// How many each of them has.
pub(crate) const TAGS: usize = 100;
/// How many times as long one tag among all of them may take as the first one.
pub(crate) const SLOWER: f64 = 1.5;
/// Seconds for a list of all images.
pub(crate) const LIST: f64 = 2.0;
/// MiB that a new tag may write.
pub(crate) const WRITTEN: f64 = 1.0;

/// Bytes of the layer of each tag: so few that nothing but the registry is measured.
const LAYER: usize = 20 << 10;

/// What was found, by the time.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Seconds for the first tag of a registry.
    pub(crate) first: Vec<f64>,
    /// Seconds for one tag among all.
    pub(crate) again: Vec<f64>,
    /// MiB that it wrote, its layer included.
    pub(crate) written: Vec<f64>,
    /// Seconds for a list of all images.
    pub(crate) images: Vec<f64>,
    /// Seconds for a list of the tags of one.
    pub(crate) tags: Vec<f64>,
}

/// Updates line 7.
pub(crate) fn check(lab: &Lab) -> Result<Figure> {
    // Often, because a push takes less than a tenth of a second, and the least of few is still the machine's.
    let found = measure(lab, 25)?;
    let Found { first, again, written, images, tags } = found;
    // The least: others use the machine, too.
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let slower = least(&again) / least(&first);
    let (listed, written) = (least(&images).max(least(&tags)), most(&written));
    let told = format!("push {slower:.2} x the first, ls {listed:.2} s, {written:.2} MiB written");
    require(slower <= SLOWER && listed <= LIST && written <= WRITTEN, || told.clone())?;
    Ok(Figure { found: told, limit: format!("<= {SLOWER} x, {LIST} s, {WRITTEN} MiB") })
}

/// Pushes one tag into such a registry, so many times, and lists what is there.
pub(crate) fn measure(lab: &Lab, times: usize) -> Result<Found> {
    let program = peers::target_dir(&lab.root).join("release/examples/hub");
    if !program.is_file() {
        return Err(format!("SKIPPED: {} was not built", program.display()).into());
    }
    let (home, empty) = (lab.home("hub"), lab.home("hub-empty"));
    let mut seed = 0;
    let mut push = |home: &Home<'_>, tag: usize| {
        seed += 1;
        let source = archive(lab, seed, LAYER)?;
        seconds(home, &["-q", "push", &source, "--as", &format!("app:1.{tag}"), "--no-publish"])
    };
    let mut found = Found::default();
    fresh(&home)?;
    for tag in 0..TAGS {
        push(&home, tag)?;
    }
    same("the tags", &count(&home.json(&["ls", "app"])?["images"][0], "tags"), &TAGS)?;
    let made = output(Command::new(program).arg(IMAGES.to_string()).arg("--home").arg(&home.dir))?;
    same("the images", &count(&home.json(&["ls"])?, "images"), &IMAGES)?;
    for tag in 0..times {
        let before = stored(&home)?;
        fresh(&empty)?;
        // By turns: the machine may be another one a minute later.
        found.first.push(push(&empty, 0)?);
        found.again.push(push(&home, tag)?);
        found.written.push(stored(&home)? - before);
        found.images.push(seconds(&home, &["-q", "ls"])?);
        found.tags.push(seconds(&home, &["-q", "ls", "app"])?);
    }
    same("the images afterwards", &count(&home.json(&["ls"])?, "images"), &IMAGES)
        .map_err(|error| format!("{error}; {made}"))?;
    home.json(&["pull", "app:1.0", "--into", "none"])?;
    fs::remove_dir_all(&home.dir)?;
    fs::remove_dir_all(&empty.dir)?;
    Ok(found)
}

/// Writes an image with one layer of noise; how it is named as a source.
pub(crate) fn archive(lab: &Lab, seed: u64, bytes: usize) -> Result<String> {
    let file = lab.path(&format!("hub-{bytes}-{}.tar", seed % 2));
    fs::write(&file, Image::new(seed, &[bytes]).archive())?;
    Ok(format!("docker-archive:{}", file.display()))
}

/// A new home in its place.
pub(crate) fn fresh(home: &Home<'_>) -> Result {
    if home.dir.exists() {
        fs::remove_dir_all(&home.dir)?;
    }
    home.json(&["init"]).map(drop)
}

/// How long ipcr takes.
pub(crate) fn seconds(home: &Home<'_>, args: &[&str]) -> Result<f64> {
    let mut command = home.command(args);
    Ok(measure::run(command.stdout(Stdio::null()), Helpers::default())?.seconds)
}

/// MiB of all blocks of a home.
fn stored(home: &Home<'_>) -> Result<f64> {
    let used = home.json(&["df"])?;
    let parts = ["own", "metadata", "cache", "reclaimable"];
    let sum: u64 = parts.iter().map(|part| number(&used, &format!("/{part}/bytes"))).sum::<Result<u64>>()?;
    #[expect(clippy::cast_precision_loss, reason = "a home is small enough")]
    Ok(sum as f64 / f64::from(1 << 20))
}

fn count(object: &Value, member: &str) -> usize {
    object[member].as_array().map_or(0, Vec::len)
}

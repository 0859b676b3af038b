//! Damage that `check --repair` mends with what another home has.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;

use super::damage::{filled, flip_in, pack};
use crate::accept::Figure;
use crate::accept::forge::{Image, copy, flip};
use crate::accept::lab::{Home, Lab};
use crate::accept::site::{number, require, same, tcp_address, text};
use crate::shell::Result;

/// Small parts of a registry that everything else hangs on, and how they are found in a pack.
const PARTS: [(&str, &[u8]); 6] = [
    ("_image.json", br#"{"format":1,"name":"app""#),
    ("a shard of the catalogue", br#"{"format":1,"images":{"app""#),
    ("registry.json", br#""counts":{"images":1"#),
    // A name of ten bytes, as dag-pb writes it into a link.
    ("the block of the tag folder", b"\x12\x0aindex.json"),
    ("index.json", br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json""#),
    ("the manifest", br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json""#),
];

/// Line 9: what is damaged or gone is fetched again from another home that holds the same registry.
pub(crate) fn repair(lab: &Lab) -> Result<Figure> {
    let (home, image, _) = filled(lab, "repair")?;
    // What the registry was before the push is of no use to anybody.
    home.json(&["gc"])?;
    let whole = lab.path("repair-whole");
    copy(&home.dir, &whole)?;
    let other = lab.home("repair-holder");
    copy(&home.dir, &other.dir)?;
    // The same registry on another node.
    fs::remove_file(other.dir.join("node.key"))?;
    let (service, ready) = other.serve(&["serve", "--no-publish", "--http", "127.0.0.1:0"])?;
    let address = tcp_address(&ready)?;
    let damaged = Damaged { home: home.with(&["--timeout", "5"]), whole: &whole, image: &image, holder: &address };
    let mut blocks = 0;
    for (what, begin) in PARTS {
        let hurt = |home: &Home<'_>| flip_in(&pack(home)?, begin);
        blocks += damaged.mend(what, &hurt)?;
    }
    blocks += damaged.mend("a layer", &|home| flip(&pack(home)?, None))?;
    blocks += damaged.mend("the end of a pack", &|home| {
        let file = pack(home)?;
        Ok(File::options().write(true).open(&file)?.set_len(file.metadata()?.len() / 2)?)
    })?;
    blocks += damaged.mend("a pack", &|home| Ok(fs::remove_file(pack(home)?)?))?;
    blocks += damaged.mend("a pack and the index", &|home| {
        fs::remove_file(pack(home)?)?;
        Ok(fs::remove_file(home.dir.join("index.redb"))?)
    })?;
    // What is derived needs nobody.
    damaged.restore()?;
    flip_in(&pack(&home)?, PARTS[1].1)?;
    let made = home.json(&["--offline", "check", "--read-data", "--repair"])?;
    same("what was made again", &number(&made, "/repair/made")?, &1)?;
    // A pulled image is mended as well, from where it came.
    let visitor = lab.home("repair-visitor").with(&["--peer", &address]);
    let root = text(&home.json(&["resolve", "app:1"])?, "root")?;
    let reference = format!("ipfs/{root}/app:1");
    visitor.json(&["pull", &reference, "--into", "none"])?;
    flip(&pack(&visitor)?, None)?;
    visitor.fails(5, &["check", "--read-data"])?;
    let mended = visitor.json(&["check", "--read-data", "--repair"])?;
    require(number(&mended, "/repair/fetched/blocks")? > 0, || format!("nothing was fetched: {mended}"))?;
    visitor.json(&["--offline", "pull", &reference, "--into", "none"])?;
    drop(service);
    fs::remove_dir_all(whole)?;
    for home in [&home, &other, &visitor] {
        fs::remove_dir_all(&home.dir)?;
    }
    Ok(Figure::ok(format!("{blocks} blocks fetched again in {} cases", PARTS.len() + 4)))
}

/// A home that is damaged in many ways, and who can help.
struct Damaged<'a> {
    home: Home<'a>,
    whole: &'a Path,
    image: &'a Image,
    holder: &'a str,
}

impl Damaged<'_> {
    fn restore(&self) -> Result {
        copy(self.whole, &self.home.dir)
    }

    /// Damages the home, sees that nothing mends it alone, and that the holder does; how many blocks it took.
    fn mend(&self, what: &str, hurt: &dyn Fn(&Home<'_>) -> Result) -> Result<u64> {
        self.restore()?;
        hurt(&self.home).map_err(|error| format!("{what}: {error}"))?;
        self.mended(what).map_err(|error| format!("{what}: {error}").into())
    }

    fn mended(&self, what: &str) -> Result<u64> {
        self.home.fails(5, &["check", "--read-data"])?;
        let planned = object(&self.home, 5, &["check", "--read-data", "--repair", "--dry-run"])?;
        require(number(&planned, "/repair/lacking")? > 0, || format!("nothing is planned: {planned}"))?;
        self.home.fails(5, &["check", "--read-data"])?;
        // Where it can be made again, nobody is asked.
        if !what.contains("catalogue") {
            let lost = object(&self.home, 4, &["--offline", "check", "--read-data", "--repair"])?;
            require(number(&lost, "/repair/lost")? > 0, || format!("nothing is lost: {lost}"))?;
            let names = lost["problems"].as_array().is_some_and(|problems| !problems.is_empty());
            require(names, || format!("nothing is named: {lost}"))?;
        }
        let helped = self.home.with(&["--peer", self.holder]);
        let done = helped.json(&["check", "--read-data", "--repair"])?;
        require(done["ok"] == true, || format!("it is not mended: {done}"))?;
        self.home.json(&["check", "--read-data"])?;
        let pulled = self.home.json(&["--offline", "pull", "app:1", "--into", "none"])?;
        same("the image ID", text(&pulled, "image_id")?.as_str(), self.image.id().as_str())?;
        self.home.json(&["gc"])?;
        self.home.json(&["check", "--read-data"])?;
        number(&done, "/repair/fetched/blocks")
    }
}

/// The object of a command that fails after it.
fn object(home: &Home<'_>, exit: i32, args: &[&str]) -> Result<Value> {
    let args = [&["-o", "json"], args].concat();
    let output = home.output(&args)?;
    same(&format!("the exit code of {args:?}"), &output.status.code(), &Some(exit))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

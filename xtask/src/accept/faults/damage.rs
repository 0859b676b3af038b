//! Upkeep: damage that `check` finds and the next push mends, and what `gc` gives back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Calm, is_listed};
use crate::accept::Figure;
use crate::accept::forge::{Image, flip};
use crate::accept::lab::{Home, Lab, disk_usage};
use crate::accept::site::{number, require, same, text};
use crate::shell::Result;

/// Parts of a tag folder that lead to everything else in it, and how they are found in a pack.
const PARTS: [(&str, &[u8]); 2] = [
    // A name of ten bytes, as dag-pb writes it into a link.
    ("the block of the tag folder", b"\x12\x0aindex.json"),
    ("index.json", br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json""#),
];
/// More than all of an image but its layers takes, in bytes.
const SMALL: u64 = 64 << 10;

/// A home with one image, and the command that pushed it.
pub(super) fn filled<'a>(lab: &'a Lab, name: &str) -> Result<(Home<'a>, Image, Vec<String>)> {
    let home = lab.home(name);
    home.json(&["init"])?;
    let image = Image::new(10, &[3 << 20, 1 << 20]);
    let file = lab.path(&format!("{name}.tar"));
    fs::write(&file, image.archive())?;
    let push = ["push", &format!("docker-archive:{}", file.display()), "--as", "app:1", "--no-publish"];
    let push: Vec<String> = push.iter().map(|arg| (*arg).to_owned()).collect();
    run(&home, &push)?;
    Ok((home, image, push))
}

fn run(home: &Home<'_>, args: &[String]) -> Result<Value> {
    home.json(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The only pack of a home.
pub(super) fn pack(home: &Home<'_>) -> Result<PathBuf> {
    let mut packs = fs::read_dir(home.dir.join("blocks"))?.collect::<std::io::Result<Vec<_>>>()?;
    require(packs.len() == 1, || format!("{} packs", packs.len()))?;
    Ok(packs.remove(0).path())
}

/// Line 9: damage is found, named, and mended by doing what the hint says.
pub(crate) fn damage(lab: &Lab) -> Result<Figure> {
    let (home, image, push) = filled(lab, "damage")?;
    let whole = lab.path("damage-whole");
    crate::accept::forge::copy(&home.dir, &whole)?;
    let restore = || crate::accept::forge::copy(&whole, &home.dir);
    // A bit of a block.
    flip(&pack(&home)?, None)?;
    home.json(&["check"])?;
    let error = home.fails(5, &["check", "--read-data"])?;
    let message = text(&error, "message")?;
    require(message.contains("block baf") && message.contains("damaged"), || format!("it says {message:?}"))?;
    names_tag(&home)?;
    let out = lab.path("damage-out.tar");
    home.fails(5, &["--offline", "pull", "app:1", "--into", &format!("docker-archive:{}", out.display())])?;
    require(!out.exists(), || "damaged bytes were delivered".into())?;
    mended(&home, &image, &push).map_err(|error| format!("a bit: {error}"))?;
    for (what, begin) in PARTS {
        restore()?;
        small_part(&home, &image, &push, begin).map_err(|error| format!("a bit of {what}: {error}"))?;
    }
    // Packs that lost their end, or are gone.
    for lost in [false, true] {
        restore()?;
        let file = pack(&home)?;
        if lost {
            fs::remove_file(&file)?;
        } else {
            let length = file.metadata()?.len();
            File::options().write(true).open(&file)?.set_len(length / 2)?;
        }
        let error = home.fails(5, &["check"])?;
        require(error.to_string().contains("damaged"), || format!("it says {error}"))?;
        // The registry itself is gone with it, and there is nothing that a push could add to.
        let error = home.fails(5, &push.iter().map(String::as_str).collect::<Vec<_>>())?;
        require(text(&error, "hint")?.contains("check --read-data"), || format!("a push says {error}"))?;
        // Somebody else could have it.
        home.fails(5, &["--timeout", "3", "ls"])?;
    }
    // The index can be made again from the packs, and the error says so.
    for garbage in [Some(&b"no index"[..]), Some(b""), None] {
        restore()?;
        let index = home.dir.join("index.redb");
        match garbage {
            Some(bytes) if !bytes.is_empty() => {
                fs::write(&index, bytes)?;
                let error = home.fails(5, &["check"])?;
                require(error["hint"].as_str().is_some_and(|hint| hint.contains("index.redb")), || format!("{error}"))?;
                home.fails(5, &["ls"])?;
                fs::remove_file(&index)?;
            }
            Some(_) => File::options().write(true).open(&index)?.set_len(index.metadata()?.len() / 2)?,
            None => fs::remove_file(&index)?,
        }
        if garbage == Some(b"") {
            home.fails(5, &["check"])?;
            fs::remove_file(&index)?;
        }
        home.json(&["check", "--read-data"])?;
        home.json(&["gc"])?;
        require(is_listed(&home, "app")?, || "the image is gone".into())?;
        home.json(&["pull", "app:1", "--into", "none"])?;
    }
    restore()?;
    let tables = home.dir.join("tables.redb");
    File::options().write(true).open(&tables)?.set_len(1000)?;
    home.fails(5, &["ls"])?;
    home.fails(5, &["check"])?;
    restore()?;
    home.json(&["check", "--read-data"])?;
    fs::remove_dir_all(whole)?;
    Ok(Figure::ok("named, exit 5, and mended by the next push"))
}

/// A full check finds damage and says which tag it hurts.
fn names_tag(home: &Home<'_>) -> Result {
    home.fails(5, &["check", "--read-data"])?;
    let output = home.output(&["-o", "json", "check", "--read-data"])?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    require(found["problems"].to_string().contains("app:1"), || format!("the tag is not named: {found}"))
}

/// A part of the tag folder is damaged, without which nobody can tell what belongs to the tag: a collection takes nothing of it, and
/// the next push stores that part and nothing else.
fn small_part(home: &Home<'_>, image: &Image, push: &[String], begin: &[u8]) -> Result {
    // Once to take what the registry was before the push.
    home.json(&["gc"])?;
    let blocks = home.dir.join("blocks");
    let before = disk_usage(&blocks)?;
    flip_in(&pack(home)?, begin)?;
    names_tag(home)?;
    for args in [&["gc"][..], &["gc", "--dry-run"]] {
        let error = home.fails(5, args)?;
        require(text(&error, "hint")?.contains("gc --force"), || format!("{args:?} says {error}"))?;
    }
    same("the packs after a collection that was refused", &disk_usage(&blocks)?, &before)?;
    let collected = home.json(&["gc", "--force"])?;
    let (removed, after) = (number(&collected, "/removed_bytes")?, disk_usage(&blocks)?);
    require(removed <= SMALL && after + SMALL >= before, || {
        format!("gc removed {removed} bytes, and the packs have {after} bytes of {before}")
    })?;
    let pushed = mended(home, image, push)?;
    let new = number(&pushed, "/bytes/new")?;
    require(new <= SMALL, || format!("the push stored {new} bytes anew"))
}

/// Changes a bit of the only thing in a file that begins with these bytes.
pub(super) fn flip_in(file: &Path, begin: &[u8]) -> Result {
    let bytes = fs::read(file)?;
    let mut found = bytes.windows(begin.len()).enumerate().filter(|(_, window)| *window == begin);
    let (Some((at, _)), None) = (found.next(), found.next()) else {
        let what = String::from_utf8_lossy(begin);
        return Err(format!("{} does not hold {what:?} exactly once", file.display()).into());
    };
    flip(file, Some(at + begin.len() / 2))
}

/// Pushes again, after which everything is as it should be. Returns what the push says.
fn mended(home: &Home<'_>, image: &Image, push: &[String]) -> Result<Value> {
    let pushed = run(home, push)?;
    same("the image ID", text(&pushed, "image_id")?.as_str(), image.id().as_str())?;
    home.json(&["check", "--read-data"])?;
    home.json(&["pull", "app:1", "--into", "none"])?;
    home.json(&["gc"])?;
    home.json(&["check", "--read-data"])?;
    Ok(pushed)
}

/// Line 9: `gc` gives back what nothing refers to, says so beforehand, and leaves everything else.
pub(crate) fn collection(lab: &Lab) -> Result<Figure> {
    let nothing = lab.home("gc-nothing");
    for args in [&["check"][..], &["check", "--read-data"], &["gc", "--dry-run"], &["gc"]] {
        nothing.json(args)?;
    }
    nothing.fails(2, &["ls"])?;
    nothing.json(&["init"])?;
    let calm = Calm::before(&nothing, &[])?;
    calm.after("nothing at all")?;
    let (home, _, push) = filled(lab, "gc")?;
    let before = disk_usage(&home.dir)?;
    let large = Image::new(11, &[20 << 20, 20 << 20]);
    let file = lab.path("gc-large.tar");
    fs::write(&file, large.archive())?;
    home.json(&["push", &format!("docker-archive:{}", file.display()), "--as", "large:1", "--no-publish"])?;
    run(&home, &push)?;
    require(disk_usage(&home.dir)? > before + (30 << 20), || "the image takes no room".into())?;
    home.json(&["rm", "large", "--all-tags"])?;
    let calm = Calm::before(&nothing, &[])?;
    let planned = home.json(&["gc", "--dry-run"])?;
    require(disk_usage(&home.dir)? > before + (30 << 20), || "a dry run removes".into())?;
    let done = home.json(&["gc"])?;
    for field in ["/removed_blocks", "/removed_bytes", "/kept_blocks"] {
        same(&format!("{field} of a dry run"), &number(&planned, field)?, &number(&done, field)?)?;
    }
    require(number(&done, "/removed_bytes")? > 30 << 20, || format!("gc says {done}"))?;
    require(number(&done, "/freed_bytes")? > 30 << 20, || format!("gc says {done}"))?;
    let after = disk_usage(&home.dir)?;
    require(after <= before + (8 << 20), || format!("{after} bytes are left, and {before} were before"))?;
    same("what is left to remove", &number(&home.json(&["gc"])?, "/removed_blocks")?, &0)?;
    calm.after("a collection elsewhere")?;
    home.json(&["pull", "app:1", "--into", "none"])?;
    home.json(&["check", "--read-data"])?;
    fs::remove_file(file)?;
    Ok(Figure::ok(format!("{} MiB given back", number(&done, "/freed_bytes")? >> 20)))
}

//! Registries whose publisher is wrong, or lies: what is pulled from them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Calm;
use super::archives::layout_cases;
use crate::accept::Figure;
use crate::accept::exchange::Kubo;
use crate::accept::forge::{self, Image, Layout, ZSTD, copy, digest, flip, tar};
use crate::accept::lab::{Home, Lab};
use crate::accept::site::{Proxy, require, same, text};
use crate::shell::Result;

/// Line 9: damage inside a published registry.
pub(crate) fn registries(lab: &Lab) -> Result<Figure> {
    let kubo = Kubo::start(lab, "kubo-wrong")?;
    let proxy = Proxy::start(&lab.engine()?)?;
    let address = kubo.address()?;
    let home = lab.home("wrong").with(&["--peer", &address]).through(&proxy.host());
    let (registry, out) = (lab.path("wrong-registry"), lab.path("wrong-out"));
    let folder = registry.join("app/tags/1");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&out)?;
    let publish =
        || kubo.output(&["add", "-r", "-Q", "--cid-version=1", "--progress=false", &registry.display().to_string()]);
    let image = Image::new(5, &[200_000, 100_000]);
    image.layout(&folder)?.docker_manifest("app:1")?;
    let good = publish()?;
    home.json(&["init"])?;
    let calm = Calm::before(&home, &[&out])?;
    let cases = published_cases();
    for (what, make) in &cases {
        let _ = fs::remove_dir_all(&folder);
        make(&image, &folder)?;
        let reference = format!("ipfs/{}/app:1", publish()?);
        let into_layout = format!("oci:{}", out.join("layout").display());
        let into_archive = format!("docker-archive:{}", out.join("image.tar").display());
        let mut sinks = vec!["docker-daemon:wrong:1", &into_layout, &into_archive];
        if KEEPS_BYTES.contains(what) {
            // Every byte is what the publisher says; only whoever unpacks it can tell that it fits nothing.
            sinks.truncate(1);
        }
        if sinks.len() > 1 {
            // From here on this registry would vouch for it.
            let error = home.fails(5, &["tag", &reference, "mine:1"]);
            error.map_err(|error| format!("{what}, for a tag: {error}"))?;
        }
        proxy.take();
        for sink in sinks {
            let error = home.fails(5, &["pull", &reference, "--into", sink]);
            error.map_err(|error| format!("{what}, into {sink}: {error}"))?;
        }
        calm.after(what)?;
    }
    let pulled = home.json(&["pull", &format!("ipfs/{good}/app:1"), "--as", "wrong:1"])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), image.id().as_str())?;
    lab.docker_output(&["rmi", "-f", &image.id()])?;
    // What is damaged here is fetched again.
    let into_nothing = ["pull", &format!("ipfs/{good}/app:1"), "--into", "none"];
    home.json(&into_nothing)?;
    flip(&largest_pack(&home)?, None)?;
    home.fails(5, &["check", "--read-data"])?;
    home.json(&into_nothing)?;
    home.json(&["check", "--read-data"])?;
    for folder in [registry, out] {
        fs::remove_dir_all(folder)?;
    }
    Ok(Figure::ok(format!("{} registries refused", cases.len())))
}

/// The pack that holds most.
fn largest_pack(home: &Home<'_>) -> Result<PathBuf> {
    let packs = fs::read_dir(home.dir.join("blocks"))?.collect::<std::io::Result<Vec<_>>>()?;
    let largest = packs.into_iter().max_by_key(|pack| pack.metadata().map_or(0, |metadata| metadata.len()));
    Ok(largest.ok_or("a home with blocks has packs")?.path())
}

/// Faults that an image keeps when it is copied byte for byte.
const KEEPS_BYTES: [&str; 3] = ["another diff ID", "513 layers", "a bomb"];

/// Everything that may be wrong with a tag folder.
fn published_cases() -> Vec<(&'static str, super::archives::Make)> {
    let mut cases = layout_cases();
    // Kubo publishes such a link as one, and that it leads out of the registry is seen by nobody but whoever follows it.
    let more: [(&'static str, super::archives::Make); 6] = [
        ("a list that disagrees", |image, dir| {
            let layout = image.layout(dir)?;
            layout.docker_manifest("app:1")?;
            let other = Image::new(6, &[1000]).layout(&dir.with_extension("other"))?;
            copy(&other.blob(&other.config), &layout.blob(&other.config))?;
            copy(&other.blob(&other.layers[0]), &layout.blob(&other.layers[0]))?;
            other.docker_manifest("app:1")?;
            copy(&other.dir.join("manifest.json"), &dir.join("manifest.json"))?;
            Ok(fs::remove_dir_all(other.dir)?)
        }),
        ("a list that is garbage", |image, dir| {
            image.layout(dir)?;
            Ok(fs::write(dir.join("manifest.json"), "[{\"Config\":")?)
        }),
        ("two images in one folder", |image, dir| {
            let layout = image.layout(dir)?;
            let text = fs::read_to_string(dir.join("index.json"))?;
            let mut index: serde_json::Value = serde_json::from_str(&text)?;
            let mut second = index["manifests"][0].clone();
            second["digest"] = json!(layout.config);
            index["manifests"].as_array_mut().ok_or("an index lists manifests")?.push(second);
            Ok(fs::write(dir.join("index.json"), index.to_string())?)
        }),
        ("a folder of 2020 with another layer", |image, dir| {
            unpack(image, dir)?;
            Ok(fs::write(dir.join(&image.members()[0].name), tar(&[]))?)
        }),
        ("a folder of 2020 without a layer", |image, dir| {
            unpack(image, dir)?;
            Ok(fs::remove_file(dir.join(&image.members()[0].name))?)
        }),
        ("a bomb", |_, dir| {
            let plain = vec![0; 200 << 20];
            let layers = vec![(ZSTD, zstd::encode_all(&plain[..], 1)?)];
            let layout = Layout::write(dir, &layers, &forge::config(&[digest(&plain)]), |_| {})?;
            layout.docker_manifest("app:1")
        }),
    ];
    cases.extend(more);
    cases
}

/// The image as `docker save | tar -x` leaves it.
fn unpack(image: &Image, dir: &Path) -> Result {
    for member in image.members() {
        let file = dir.join(&member.name);
        fs::create_dir_all(file.parent().ok_or("members are in a folder")?)?;
        fs::write(file, member.data)?;
    }
    require(dir.join("manifest.json").is_file(), || "the list is there".into())
}

//! Archives and layouts that are cut off, damaged, or made to deceive.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Calm;
use crate::accept::Figure;
use crate::accept::forge::{self, GZIP, Image, Layout, Member, digest, flip, gzip, tar};
use crate::accept::lab::Lab;
use crate::accept::site::{Proxy, require, same, text};
use crate::shell::{Result, output};

/// Line 9: `docker-archive:`, as a file and on standard input.
pub(crate) fn archives(lab: &Lab) -> Result<Figure> {
    let home = lab.home("archives");
    home.json(&["init"])?;
    home.json(&["push", &good(lab)?, "--as", "kept:1", "--no-publish"])?;
    let folder = lab.path("archives-files");
    fs::create_dir_all(&folder)?;
    let file = folder.join("image.tar");
    let source = format!("docker-archive:{}", file.display());
    let push = ["push", &source, "--as", "bad:1", "--no-publish"];
    let image = Image::new(2, &[200_000, 100_000]);
    let whole = image.archive();
    fs::write(&file, &whole)?;
    let calm = Calm::before(&home, &[&folder])?;
    let mut cases = damaged(&image);
    cases.extend(deceptive(&image));
    for (what, bytes) in &cases {
        fs::write(&file, bytes)?;
        home.fails(5, &push).map_err(|error| format!("{what}: {error}"))?;
        home.fails_fed(5, &["push", "-", "--as", "bad:1", "--no-publish"], File::open(&file)?)
            .map_err(|error| format!("{what}, as a stream: {error}"))?;
        calm.after(what)?;
    }
    fs::write(&file, &whole)?;
    same("the image ID", text(&home.json(&push)?, "image_id")?.as_str(), image.id().as_str())?;
    fs::remove_dir_all(folder)?;
    Ok(Figure::ok(format!("{} archives refused", cases.len())))
}

/// The spelling of a good archive.
fn good(lab: &Lab) -> Result<String> {
    let file = lab.path("good.tar");
    fs::write(&file, Image::new(1, &[50_000]).archive())?;
    Ok(format!("docker-archive:{}", file.display()))
}

/// Archives that lost their end, or a bit.
fn damaged(image: &Image) -> Vec<(String, Vec<u8>)> {
    let whole = image.archive();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap_or_default() + 1;
    let mut cases = Vec::new();
    for at in [0, 1, 511, 512, 513, end / 5, end / 3, end / 2, end - end / 4, end - 600, end - 1] {
        cases.push((format!("cut off at {at} of {end}"), whole[..at].to_vec()));
    }
    let mut at = 0;
    for member in image.members() {
        // Its name, and its data.
        for flipped in [at, at + 512 + member.data.len() / 2] {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 0x10;
            cases.push((format!("a bit of {} flipped at {flipped}", member.name), bytes));
        }
        at += 512 + member.data.len().next_multiple_of(512);
    }
    let packed = gzip(&whole).unwrap_or_default();
    cases.push(("gzip, cut off".into(), packed[..packed.len() / 2].to_vec()));
    let mut flipped = packed;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    cases.push(("gzip, a bit flipped".into(), flipped));
    cases
}

/// Archives that are whole and wrong.
fn deceptive(image: &Image) -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    let members = image.members();
    let layer = members[0].name.clone();
    let mut case = |what: &str, change: &mut dyn FnMut(&mut Vec<Member>)| {
        let mut changed = members.clone();
        change(&mut changed);
        cases.push((what.to_owned(), tar(&changed)));
    };
    for name in ["../escaped", "/escaped", "a/../../escaped", ".."] {
        case(&format!("a file {name}"), &mut |all| all.insert(0, Member::file(name, "out")));
    }
    for target in ["/etc/passwd", "../../etc/passwd", "a/../../../etc/passwd", "/proc/self/environ"] {
        case(&format!("a layer that is a link to {target}"), &mut |all| all[0] = Member::symbolic(&layer, target));
        case(&format!("a layer that is a hard link to {target}"), &mut |all| all[0] = Member::hard(&layer, target));
        case(&format!("a configuration that is a link to {target}"), &mut |all| {
            // It lies behind the two layers.
            all[2] = Member::symbolic(&all[2].name.clone(), target);
        });
    }
    case("a link to a link", &mut |all| {
        all[0].name = "real.tar".into();
        all.push(Member::symbolic("hop.tar", "real.tar"));
        all.push(Member::symbolic(&layer, "../hop.tar"));
    });
    case("a link to itself", &mut |all| all[0] = Member::symbolic(&layer, "layer.tar"));
    case("a link to a link that leaves", &mut |all| {
        all[0] = Member::symbolic(&layer, "../hop");
        all.push(Member::symbolic("hop", "../../etc/passwd"));
    });
    case("a link to nothing", &mut |all| all[0] = Member::symbolic(&layer, "../none.tar"));
    case("a layer twice", &mut |all| all.insert(0, Member::file(&layer, tar(&[]))));
    case("a device", &mut |all| all.insert(0, Member { kind: b'3', ..Member::file("device", "") }));
    case("a layer that is another", &mut |all| all[0].data = tar(&[Member::file("other", "bytes")]));
    case("layers in the wrong order", &mut |all| {
        let (first, second) = (all[0].name.clone(), all[1].name.clone());
        all[0].name = second;
        all[1].name = first;
    });
    case("a layer missing", &mut |all| drop(all.remove(0)));
    case("the configuration missing", &mut |all| drop(all.remove(2)));
    case("the list missing", &mut |all| drop(all.pop()));
    let mut list = |what: &str, text: String| {
        case(what, &mut |all| all.last_mut().into_iter().for_each(|list| list.data = text.clone().into_bytes()));
    };
    list("an empty list", "[]".into());
    list("half a list", "[{".into());
    list("no list", "null".into());
    list("a list of nothing", "[{}]".into());
    list("a list that is text", "image".into());
    list("a list without end", "[".repeat(200_000));
    list("a list that leaves", json!([{ "Config": "../../etc/passwd", "RepoTags": null, "Layers": [] }]).to_string());
    let mut configuration = |what: &str, text: Vec<u8>| {
        case(what, &mut |all| {
            all[2].name = format!("{}.json", digest(&text).trim_start_matches("sha256:"));
            all[2].data.clone_from(&text);
            let names: Vec<&str> = vec![&members[0].name, &members[1].name];
            let list = json!([{ "Config": all[2].name, "RepoTags": null, "Layers": names }]);
            all[3].data = list.to_string().into_bytes();
        });
    };
    configuration("a configuration that is text", b"image".to_vec());
    configuration("a configuration without layers", forge::config(&[]));
    let mut large = image.config.clone();
    large.resize(9 << 20, b' ');
    configuration("a configuration of 9 MiB", large);
    let many = Image { layers: vec![tar(&[]); 513], config: forge::config(&vec![digest(&tar(&[])); 513]) };
    cases.push(("513 layers".into(), many.archive()));
    cases.push(("a text".into(), b"This is no archive.\n".repeat(100)));
    cases.push(("zeros".into(), vec![0; 10_240]));
    // 256 MiB of zeros, a thousand times smaller than they become.
    let zeros = std::io::Read::take(std::io::repeat(0), 256 << 20);
    let header = tar(&[Member::file("zeros", "")])[..512].to_vec();
    let bomb = std::io::Read::chain(&header[..], zeros);
    cases.push(("a bomb".into(), zstd::encode_all(bomb, 1).unwrap_or_default()));
    cases
}

/// Line 9: `oci:` and `oci-archive:`.
pub(crate) fn layouts(lab: &Lab) -> Result<Figure> {
    let home = lab.home("layouts");
    home.json(&["init"])?;
    home.json(&["push", &good(lab)?, "--as", "kept:1", "--no-publish"])?;
    let (folder, archive) = (lab.path("layouts-files"), lab.path("layouts-files.tar"));
    let image = Image::new(3, &[200_000, 100_000]);
    image.layout(&folder)?;
    let spelling = format!("oci:{}", folder.display());
    let packed = format!("oci-archive:{}", archive.display());
    let calm = Calm::before(&home, &[])?;
    let cases = layout_cases();
    for (what, make) in &cases {
        make(&image, &folder)?;
        pack(&folder, &archive)?;
        for source in [&spelling, &packed] {
            home.fails(5, &["push", source, "--as", "bad:1", "--no-publish"])
                .map_err(|error| format!("{what}, {source}: {error}"))?;
        }
        calm.after(what)?;
    }
    // A copy refuses the same, and leaves no half of it.
    let out = lab.path("layouts-out");
    let layout = image.layout(&folder)?;
    flip(&layout.blob(&layout.layers[1]), None)?;
    for sink in [format!("oci:{}", out.display()), format!("oci-archive:{}.tar", out.display())] {
        home.fails(5, &["cp", &spelling, &sink])?;
    }
    require(!out.exists() && !out.with_extension("tar").exists(), || "half a copy is there".into())?;
    calm.after("a copy of a damaged layout")?;
    let layout = image.layout(&folder)?;
    pack(&folder, &archive)?;
    for source in [&spelling, &packed] {
        let pushed = home.json(&["push", source, "--as", "good:1", "--no-publish"])?;
        same("the digest", text(&pushed, "digest")?.as_str(), layout.manifest.as_str())?;
        home.json(&["rm", "good", "--all-tags"])?;
    }
    fs::remove_dir_all(folder)?;
    Ok(Figure::ok(format!("{} layouts refused", cases.len())))
}

/// Packs a folder as an archive.
fn pack(folder: &Path, archive: &Path) -> Result {
    output(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(archive).arg(".")).map(drop)
}

/// How a layout is made wrong.
pub(super) type Make = fn(&Image, &Path) -> Result;

/// Everything that may be wrong with a layout, wherever it lies.
pub(super) fn layout_cases() -> Vec<(&'static str, Make)> {
    vec![
        ("a layer with a bit flipped", |image, dir| {
            image.layout(dir).and_then(|it| flip(&it.blob(&it.layers[0]), None))
        }),
        ("a layer cut off", |image, dir| {
            let layout = image.layout(dir)?;
            let bytes = fs::read(layout.blob(&layout.layers[1]))?;
            Ok(fs::write(layout.blob(&layout.layers[1]), &bytes[..bytes.len() - 1])?)
        }),
        ("a layer with bytes behind it", |image, dir| {
            let layout = image.layout(dir)?;
            let bytes = fs::read(layout.blob(&layout.layers[1]))?;
            Ok(fs::write(layout.blob(&layout.layers[1]), [&bytes[..], b"more"].concat())?)
        }),
        ("a layer missing", |image, dir| image.layout(dir).and_then(|it| Ok(fs::remove_file(it.blob(&it.layers[0]))?))),
        ("a manifest with a bit flipped", |image, dir| {
            image.layout(dir).and_then(|it| flip(&it.blob(&it.manifest), None))
        }),
        ("a manifest missing", |image, dir| {
            image.layout(dir).and_then(|it| Ok(fs::remove_file(it.blob(&it.manifest))?))
        }),
        ("a configuration with a bit flipped", |image, dir| {
            image.layout(dir).and_then(|it| flip(&it.blob(&it.config), None))
        }),
        ("an index that is garbage", |image, dir| {
            image.layout(dir).and_then(|_| Ok(fs::write(dir.join("index.json"), "{\"manifests\":[")?))
        }),
        ("an index without end", |image, dir| {
            image.layout(dir).and_then(|_| Ok(fs::write(dir.join("index.json"), "[".repeat(200_000))?))
        }),
        ("an index with a bit flipped", |image, dir| {
            image.layout(dir).and_then(|_| flip(&dir.join("index.json"), Some(0)))
        }),
        ("an empty index", |image, dir| image.layout(dir).and_then(|_| Ok(fs::write(dir.join("index.json"), "")?))),
        ("a marker that is garbage", |image, dir| {
            image.layout(dir).and_then(|_| Ok(fs::write(dir.join("oci-layout"), "{}")?))
        }),
        ("a marker of another version", |image, dir| {
            image.layout(dir)?;
            Ok(fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"9.0.0"}"#)?)
        }),
        ("a manifest of 5 MiB", |image, dir| {
            let mut layout = image.layout(dir)?;
            let mut manifest = fs::read(layout.blob(&layout.manifest))?;
            manifest.resize(5 << 20, b' ');
            layout.name_manifest(&manifest)
        }),
        ("a manifest that is garbage", |image, dir| {
            image.layout(dir).and_then(|mut it| it.name_manifest(b"[\"manifest\"]"))
        }),
        ("a configuration of 9 MiB", |image, dir| {
            let mut config = image.config.clone();
            config.resize(9 << 20, b' ');
            let other = Image { config, ..image.clone() };
            other.layout(dir).map(drop)
        }),
        ("a configuration that is garbage", |image, dir| {
            Image { config: b"{".to_vec(), ..image.clone() }.layout(dir).map(drop)
        }),
        ("indexes ten deep", |image, dir| image.layout(dir).and_then(|mut it| it.nest(10))),
        ("an index of 300 manifests", |image, dir| image.layout(dir).and_then(|mut it| it.widen(300))),
        ("a size that is wrong", |image, dir| {
            let layers = vec![(GZIP, gzip(&image.layers[0])?), (GZIP, gzip(&image.layers[1])?)];
            Layout::write(dir, &layers, &image.config, |manifest| manifest["layers"][0]["size"] = json!(7)).map(drop)
        }),
        ("a digest that leaves the layout", |image, dir| {
            let layers = vec![(GZIP, gzip(&image.layers[0])?), (GZIP, gzip(&image.layers[1])?)];
            let name = json!("sha256:../../../../../../etc/passwd");
            Layout::write(dir, &layers, &image.config, |manifest| manifest["layers"][0]["digest"] = name).map(drop)
        }),
        ("a blob that is a link out of the layout", |image, dir| {
            let layout = image.layout(dir)?;
            let blob = layout.blob(&layout.layers[0]);
            let outside = dir.with_extension("outside");
            fs::rename(&blob, &outside)?;
            Ok(std::os::unix::fs::symlink(outside, blob)?)
        }),
        ("another diff ID", |image, dir| {
            let others = [digest(b"other"), digest(b"another")];
            Image { config: forge::config(&others), ..image.clone() }.layout(dir).map(drop)
        }),
        ("fewer diff IDs than layers", |image, dir| {
            Image { config: forge::config(&[digest(&image.layers[0])]), ..image.clone() }.layout(dir).map(drop)
        }),
        ("513 layers", |_, dir| {
            let layers = vec![tar(&[]); 513];
            Image { config: forge::config(&vec![digest(&tar(&[])); 513]), layers }.layout(dir).map(drop)
        }),
    ]
}

/// Line 9: more layers than an engine takes are copied, and no engine sees anything of them.
pub(crate) fn many_layers(lab: &Lab) -> Result<Figure> {
    let proxy = Proxy::start(&lab.engine()?)?;
    let home = lab.home("many").through(&proxy.host());
    home.json(&["init"])?;
    let image = Image::new(4, &[100; 129]);
    let folder = lab.path("many-files");
    let layout = image.layout(&folder)?;
    let file = lab.path("many.tar");
    fs::write(&file, image.archive())?;
    home.json(&["push", &format!("docker-archive:{}", file.display()), "--as", "many:archive", "--no-publish"])?;
    let pushed = home.json(&["push", &format!("oci:{}", folder.display()), "--as", "many:1", "--no-publish"])?;
    same("the digest", text(&pushed, "digest")?.as_str(), layout.manifest.as_str())?;
    let calm = Calm::before(&home, &[])?;
    proxy.take();
    for name in ["many:1", "many:archive"] {
        let error = home.fails(5, &["pull", name])?;
        require(error.to_string().contains("129"), || format!("the number is not told: {error}"))?;
    }
    let requests = proxy.take();
    require(!requests.iter().any(|line| line.contains("/load")), || format!("a load was begun: {requests:?}"))?;
    calm.after("a pull of 129 layers")?;
    let out = lab.path("many-out");
    for sink in [format!("oci:{}", out.display()), format!("docker-archive:{}.tar", out.display()), "none".into()] {
        home.json(&["pull", "many:1", "--into", &sink])?;
    }
    home.json(&["cp", &format!("docker-archive:{}", file.display()), &format!("oci-archive:{}.oci", out.display())])?;
    for path in [folder, out.clone()] {
        fs::remove_dir_all(path)?;
    }
    for path in [file, out.with_extension("tar"), out.with_extension("oci")] {
        fs::remove_file(path)?;
    }
    Ok(Figure::ok("copied, and refused before anything is sent"))
}

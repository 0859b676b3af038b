//! What happens under load and when an engine dies: several at once, cut connections.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Figure;
use super::faults::Calm;
use super::forge::Image;
use super::lab::Lab;
use super::site::{DOMAIN, Proxy, require, same, text};
use crate::shell::{Result, show};

/// Line 9: an engine that dies while it exports and while it loads.
pub(crate) fn engine(lab: &Lab) -> Result<Figure> {
    let id = lab.image("small:1", super::exchange::SMALL_MIB)?;
    let proxy = Proxy::start(&lab.engine()?)?;
    let home = lab.home("engine").through(&proxy.host());
    home.json(&["init"])?;
    let near = lab.home("near");
    near.json(&["init"])?;
    let read = near.json(&["push", "small:1", "--as", "cut:1"])?;
    for (what, command) in [
        ("an export that was cut off", &["push", "small:1", "--as", "cut:1"][..]),
        ("a load that was cut off", &["pull", "cut:1", "--as", "small:1"]),
    ] {
        if command[0] == "pull" {
            // So that there is something to load.
            lab.forget(&id)?;
        }
        let calm = Calm::before(&home, &[])?;
        proxy.cut_after(Some(4 << 20));
        // It says why and gives a hint, or this is an error.
        let error = home.fails(7, command)?;
        same(&format!("the kind of {what}"), text(&error, "kind")?.as_str(), "engine")?;
        proxy.cut_after(None);
        calm.after(what)?;
        let done = home.json(command).map_err(|error| format!("after {what}: {error}"))?;
        let in_place = format!("the digest after {what}, and where layers are read from the engine's folders");
        same(&in_place, text(&done, "digest")?.as_str(), text(&read, "digest")?.as_str())?;
        same(&format!("the image ID after {what}"), text(&done, "image_id")?.as_str(), id.as_str())?;
        home.json(&["check", "--read-data"])?;
    }
    let loaded = lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", "small:1"])?;
    same("the engine's image ID", loaded.as_str(), id.as_str())?;
    Ok(Figure::ok("exit 7 twice with a hint, nothing is left of it, then both succeed"))
}

/// Commands that run at once.
const AT_ONCE: usize = 8;

/// Line 11: commands that share a home all succeed, also while it is tidied up, and do what they would do alone.
pub(crate) fn several(lab: &Lab) -> Result<Figure> {
    let small = lab.image("small:1", super::exchange::SMALL_MIB)?;
    let (publisher, app) = lab.publisher()?;
    publisher.json(&["push", "small:1", "--no-publish"])?;
    let _site = lab.serve(&publisher)?;
    let home = lab.visitor("several")?;
    home.json(&["init"])?;
    let folder = lab.path("several-archives");
    fs::create_dir_all(&folder)?;
    let archive = |name: &str, image: &Image| -> Result<String> {
        let file = folder.join(name);
        fs::write(&file, image.archive())?;
        Ok(format!("docker-archive:{}", file.display()))
    };
    // Something for the collection to take.
    home.json(&["push", &archive("garbage", &Image::new(109, &[4 << 20]))?, "--as", "garbage:1", "--no-publish"])?;
    home.json(&["rm", "garbage", "--all-tags"])?;
    let images: Vec<Image> = (110..).take(AT_ONCE).map(|seed| Image::new(seed, &[2 << 20, 1 << 20])).collect();
    let mut commands = Vec::new();
    for name in ["app:1", "small:1"].iter().cycle().take(AT_ONCE) {
        commands.push(home.command(&["-o", "json", "pull", &format!("{DOMAIN}/{name}"), "--into", "none"]));
    }
    for (number, image) in images.iter().enumerate() {
        let source = archive(&number.to_string(), image)?;
        commands.push(home.command(&["-o", "json", "push", &source, "--as", &format!("several:{number}")]));
    }
    commands.insert(AT_ONCE, home.command(&["-o", "json", "gc"]));
    let printed = at_once(commands)?;
    let printed =
        printed.iter().map(|object| serde_json::from_str(object)).collect::<serde_json::Result<Vec<Value>>>()?;
    let (pulled, pushed) = (&printed[..AT_ONCE], &printed[AT_ONCE + 1..]);
    for (pulled, id) in pulled.iter().zip([&app, &small].into_iter().cycle()) {
        same(&format!("the image ID of {}", pulled["reference"]), text(pulled, "image_id")?.as_str(), id.as_str())?;
    }
    let listed = home.json(&["ls", "several"])?;
    let tags = listed["images"][0]["tags"].as_array().ok_or("an image has tags")?;
    same("the number of tags", &tags.len(), &AT_ONCE)?;
    for (number, (image, pushed)) in images.iter().zip(pushed).enumerate() {
        let name = format!("several:{number}");
        same(
            &format!("the image ID that was pushed as {name}"),
            text(pushed, "image_id")?.as_str(),
            image.id().as_str(),
        )?;
        let number = number.to_string();
        let tag = tags.iter().find(|tag| tag["tag"].as_str() == Some(&number)).ok_or(format!("no {name}: {listed}"))?;
        same(&format!("the digest of {name}"), text(tag, "digest")?.as_str(), text(pushed, "digest")?.as_str())?;
        let pulled = home.json(&["pull", &name, "--into", "none"])?;
        same(&format!("the image ID of {name}"), text(&pulled, "image_id")?.as_str(), image.id().as_str())?;
    }
    home.json(&["check", "--read-data"])?;
    fs::remove_dir_all(folder)?;
    Ok(Figure::ok(format!("{AT_ONCE} pulls of 2 tags, {AT_ONCE} pushes of {AT_ONCE} images, 1 collection")))
}

/// Line 11: so do commands that share nothing but the machine.
pub(crate) fn homes(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let (publisher, _) = lab.publisher()?;
    publisher.json(&["push", "small:1", "--no-publish"])?;
    let _site = lab.serve(&publisher)?;
    let reference = format!("{DOMAIN}/small:1");
    let homes = (0..AT_ONCE).map(|number| lab.visitor(&format!("home-{number}"))).collect::<Result<Vec<_>>>()?;
    at_once(homes.iter().map(|home| home.command(&["init"])).collect())?;
    at_once(homes.iter().map(|home| home.command(&["push", "small:1", "--as", "own:1"])).collect())?;
    at_once(homes.iter().map(|home| home.command(&["pull", &reference, "--into", "none"])).collect())?;
    for home in &homes {
        home.json(&["check", "--read-data"])?;
        fs::remove_dir_all(&home.dir)?;
    }
    Ok(Figure::ok(format!("{AT_ONCE} homes")))
}

/// Runs commands side by side; all must succeed. What they printed, in their order.
fn at_once(mut commands: Vec<Command>) -> Result<Vec<String>> {
    let started = commands
        .iter_mut()
        .map(|command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
        .collect::<std::io::Result<Vec<_>>>()?;
    let (mut printed, mut failures) = (Vec::new(), Vec::new());
    for (child, command) in started.into_iter().zip(&commands) {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let talk = String::from_utf8_lossy(&output.stderr);
            failures.push(format!("{} ended with {}: {}", show(command), output.status, talk.trim()));
        }
        printed.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    require(failures.is_empty(), || failures.join("; "))?;
    Ok(printed)
}

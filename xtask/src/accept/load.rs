//! What happens under load and when an engine dies: several at once, cut connections.

use std::process::{Command, Stdio};

use super::Figure;
use super::lab::Lab;
use super::site::{DOMAIN, IMAGE_MIB, Proxy, require, same, text};
use crate::shell::{Result, show};

/// Line 9: an engine that dies while it exports and while it loads.
pub(crate) fn engine(lab: &Lab) -> Result<Figure> {
    let id = lab.image("small:1", super::exchange::SMALL_MIB)?;
    let proxy = Proxy::start(&lab.engine()?, lab.path("cut.sock"))?;
    let home = lab.home("engine").through(&proxy.socket);
    home.json(&["init"])?;
    proxy.cut_after(Some(4 << 20));
    home.fails(7, &["push", "small:1", "--as", "cut:1"])?;
    require(home.json(&["ls"])?["images"].as_array().is_some_and(Vec::is_empty), || "the image is listed".into())?;
    home.json(&["check", "--read-data"])?;
    proxy.cut_after(None);
    let pushed = home.json(&["push", "small:1", "--as", "cut:1"])?;
    same("the image ID", text(&pushed, "image_id")?.as_str(), id.as_str())?;
    lab.forget(&id)?;
    proxy.cut_after(Some(4 << 20));
    home.fails(7, &["pull", "cut:1"])?;
    require(lab.docker_output(&["image", "inspect", &id]).is_err(), || "the engine has the image".into())?;
    proxy.cut_after(None);
    let pulled = home.json(&["pull", "cut:1", "--as", "small:1"])?;
    same("the image ID", text(&pulled, "image_id")?.as_str(), id.as_str())?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok("exit 7 twice, then both succeed"))
}

/// Commands that run at once.
const AT_ONCE: usize = 8;

/// Line 11: commands that share a home all succeed.
pub(crate) fn several(lab: &Lab) -> Result<Figure> {
    lab.image("app:1", IMAGE_MIB)?;
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let _site = lab.site()?;
    let home = lab.visitor("several")?;
    home.json(&["init"])?;
    let reference = format!("{DOMAIN}/app:1");
    let names: Vec<String> = (0..AT_ONCE).map(|number| format!("several:{number}")).collect();
    let pulls = (0..AT_ONCE).map(|_| home.command(&["pull", &reference, "--into", "none"]));
    let pushes = names.iter().map(|name| home.command(&["push", "small:1", "--as", name]));
    at_once(pulls.chain(pushes).collect())?;
    let listed = home.json(&["ls", "several"])?;
    let tags = listed["images"][0]["tags"].as_array().map_or(0, Vec::len);
    same("the number of tags", &tags, &AT_ONCE)?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok(format!("{AT_ONCE} pulls and {AT_ONCE} pushes")))
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
        std::fs::remove_dir_all(&home.dir)?;
    }
    Ok(Figure::ok(format!("{AT_ONCE} homes")))
}

/// Runs commands side by side; all must succeed.
fn at_once(mut commands: Vec<Command>) -> Result {
    let started = commands
        .iter_mut()
        .map(|command| command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn())
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut failures = Vec::new();
    for (child, command) in started.into_iter().zip(&commands) {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let talk = String::from_utf8_lossy(&output.stderr);
            failures.push(format!("{} ended with {}: {}", show(command), output.status, talk.trim()));
        }
    }
    require(failures.is_empty(), || failures.join("; "))
}

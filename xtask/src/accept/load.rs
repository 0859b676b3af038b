//! What happens under load and when an engine dies: memory, several at once, cut connections.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::Figure;
use super::lab::{Home, Lab, Process, wait_for};
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

/// Line 10: memory does not grow with the image.
pub(crate) fn memory(lab: &Lab) -> Result<Figure> {
    let folder = lab.path("large");
    fs::create_dir_all(&folder)?;
    let script = format!(
        "head -c 1G /dev/urandom > {0}/noise && tar -C {0} -cf - noise | docker import - large:1 && rm -r {0}",
        folder.display()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env("DOCKER_HOST", format!("unix://{}", lab.engine()?.display()));
    crate::shell::output(shell.env("DOCKER_API_VERSION", "1.41"))?;
    let home = lab.home("large-a");
    home.json(&["init", "--domain", DOMAIN])?;
    let push = peak(&home, &["push", "large:1", "--no-publish"])?;
    lab.docker_output(&["rmi", "-f", "large:1"])?;
    let site = lab.serve(&home)?;
    let pull = peak(&lab.visitor("large-b")?, &["pull", &format!("{DOMAIN}/large:1")])?;
    let serve = high_water(site.process.0.id()).ok_or("the service runs")?;
    lab.docker_output(&["rmi", "-f", &format!("{DOMAIN}/large:1")])?;
    drop(site);
    for home in ["large-a", "large-b"] {
        fs::remove_dir_all(lab.path(home))?;
    }
    let mib = |kib: u32| f64::from(kib) / 1024.0;
    let mut figure = Figure::at_most(mib(push.max(pull).max(serve)), 300.0, "MiB")?;
    figure.found = format!("push {:.0}, pull {:.0}, serve {:.0} MiB", mib(push), mib(pull), mib(serve));
    Ok(figure)
}

/// Runs ipcr to its end; the most memory that it had, in KiB.
fn peak(home: &Home<'_>, args: &[&str]) -> Result<u32> {
    let mut command = home.command(args);
    let line = show(&command);
    let log = home.dir.with_extension("peak.log");
    let mut process = Process::start(command.stdout(Stdio::null()), &log)?;
    let mut peak = 0;
    let id = process.0.id();
    wait_for("the end of ipcr", Duration::from_mins(5), || {
        peak = high_water(id).unwrap_or(peak);
        !matches!(process.0.try_wait(), Ok(None))
    })?;
    let status = process.0.wait()?;
    require(status.success(), || {
        format!("{line} ended with {status}: {}", fs::read_to_string(log).unwrap_or_default())
    })?;
    Ok(peak)
}

/// The most memory that a running process had, in KiB.
fn high_water(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Line 11: commands that share a home all succeed.
pub(crate) fn several(lab: &Lab) -> Result<Figure> {
    lab.image("app:1", IMAGE_MIB)?;
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let _site = lab.site()?;
    let home = lab.visitor("several")?;
    home.json(&["init"])?;
    let reference = format!("{DOMAIN}/app:1");
    let names: Vec<String> = (0..4).map(|number| format!("several:{number}")).collect();
    let mut commands: Vec<_> = (0..4).map(|_| home.command(&["pull", &reference, "--into", "none"])).collect();
    commands.extend(names.iter().map(|name| home.command(&["push", "small:1", "--as", name])));
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
    require(failures.is_empty(), || failures.join("; "))?;
    let listed = home.json(&["ls", "several"])?;
    let tags = listed["images"][0]["tags"].as_array().map_or(0, Vec::len);
    same("the number of tags", &tags, &4)?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok("4 pulls and 4 pushes"))
}

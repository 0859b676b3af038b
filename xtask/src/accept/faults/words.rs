//! What ipcr says when it is used wrongly, and where its words cannot be read.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use super::Calm;
use crate::accept::Figure;
use crate::accept::forge::Image;
use crate::accept::lab::{Home, Lab, check_failure};
use crate::accept::site::require;
use crate::shell::{Result, output, show};

/// Line 9: files and names that make no sense, with exit code, reason and hint, as text and as JSON.
pub(crate) fn words(lab: &Lab) -> Result<Figure> {
    let home = lab.home("words");
    home.json(&["init", "--domain", "hub.test"])?;
    let folder = lab.path("words files");
    fs::create_dir_all(folder.join("sub"))?;
    let image = Image::new(12, &[20_000]);
    fs::write(folder.join("image.tar"), image.archive())?;
    fs::write(folder.join("text"), "no archive\n")?;
    fs::write(folder.join("empty"), "")?;
    let here = |name: &str| folder.join(name).display().to_string();
    let long = "a".repeat(300);
    let cases: Vec<(i32, Vec<String>)> = [
        (3, vec!["push", &format!("docker-archive:{}", here("none.tar")), "--as", "w:1"]),
        (5, vec!["push", &format!("docker-archive:{}", here("sub")), "--as", "w:1"]),
        (5, vec!["push", &format!("docker-archive:{}", here("text")), "--as", "w:1"]),
        (5, vec!["push", &format!("oci-archive:{}", here("empty")), "--as", "w:1"]),
        (5, vec!["push", &format!("oci:{}", here("text")), "--as", "w:1"]),
        (5, vec!["push", &format!("oci:{}", here("sub")), "--as", "w:1"]),
        (3, vec!["push", &format!("oci:{}", here("none")), "--as", "w:1"]),
        (2, vec!["push", &format!("docker-archive:{}", here(&long)), "--as", "w:1"]),
        (2, vec!["push", &format!("docker-archive:{}", here("image.tar"))]),
        (2, vec!["push", &format!("docker-archive:{}", here("image.tar")), "--as", &format!("{long}:1")]),
        (2, vec!["push", &format!("docker-archive:{}", here("image.tar")), "--as", &format!("w:{long}")]),
        (2, vec!["push", &format!("docker-archive:{}", here("image.tar")), "--as", "W:1"]),
        (2, vec!["push", "docker-archive:", "--as", "w:1"]),
        (2, vec!["push", "", "--as", "w:1"]),
        (2, vec!["push", "none", "--as", "w:1"]),
        (3, vec!["push", &format!("docker-archive:{}", here("image.tar")), "--as", "w:1", "--readme", &here("none")]),
        (2, vec!["push", &format!("docker-archive:{}", here("image.tar")), "--as", "w:1", "--readme", &here("sub")]),
        (3, vec!["pull", "w:1", "--into", "none"]),
        (3, vec!["inspect", "w:1"]),
        (3, vec!["rm", "w:1"]),
        (3, vec!["tag", "w:1", "w:2"]),
        (2, vec!["pull", "http://hub.test/w:1"]),
        (2, vec!["ls", "w:1"]),
        (3, vec!["cp", "oci:x", "w:1"]),
        (2, vec!["--network", "mars", "ls"]),
        (2, vec!["--dns", "nobody", "resolve", "hub.test"]),
        (2, vec!["--peer", "nobody", "resolve", "hub.test"]),
        (2, vec!["config", "get", "nonsense"]),
        (2, vec!["trust", "add", "hub.test", "nonsense"]),
        (2, vec!["serve", "--http", "0.0.0.0:0"]),
        (2, vec!["frobnicate"]),
    ]
    .into_iter()
    .map(|(exit, args)| (exit, args.into_iter().map(str::to_owned).collect()))
    .collect();
    let calm = Calm::before(&home, &[&folder])?;
    for (exit, args) in &cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        home.fails(*exit, &args)?;
        said(&home.output(&args)?, *exit, &args.join(" "))?;
    }
    for (file, what) in [("empty", "nothing"), ("text", "a text")] {
        let push = ["push", "-", "--as", "w:1", "--no-publish"];
        home.fails_fed(5, &push, File::open(folder.join(file))?).map_err(|error| format!("{what}: {error}"))?;
    }
    calm.after("all that made no sense")?;
    odd_names(&home, &folder)?;
    Ok(Figure::ok(format!("{} refusals", cases.len() + 2)))
}

/// Text says what JSON says: a reason, and what to do.
fn said(output: &Output, exit: i32, what: &str) -> Result {
    let talk = String::from_utf8_lossy(&output.stderr);
    require(output.status.code() == Some(exit), || format!("ipcr {what} ended with {}: {talk}", output.status))?;
    require(output.stdout.is_empty(), || format!("ipcr {what} printed {:?}", String::from_utf8_lossy(&output.stdout)))?;
    let has = |label: &str| talk.lines().any(|line| line.starts_with(label));
    // The argument parser has hints of its own.
    let hint = has("hint: ") || talk.contains("For more information, try '--help'");
    require(has("error: ") && hint, || format!("ipcr {what} says {talk}"))
}

/// Paths that are unusual and right.
fn odd_names(home: &Home<'_>, folder: &std::path::Path) -> Result {
    let odd = folder.join(OsStr::from_bytes(b"not \xff text.tar"));
    fs::copy(folder.join("image.tar"), &odd)?;
    let mut command = home.command(&["-o", "json", "push"]);
    let mut source = b"docker-archive:".to_vec();
    source.extend_from_slice(odd.as_os_str().as_bytes());
    let output = command.arg(OsStr::from_bytes(&source)).args(["--as", "w:1", "--no-publish"]).output()?;
    check_failure("push of a name that is no text", 2, output.status.code(), &String::from_utf8_lossy(&output.stderr))?;
    for (at, source) in ["docker-archive:../image.tar", "docker-archive:./../sub/.././image.tar"].iter().enumerate() {
        let mut command = home.command(&["-o", "json", "push", source, "--as", &format!("w:{at}"), "--no-publish"]);
        let output = command.current_dir(folder.join("sub")).output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        require(output.status.success(), || format!("{} ended with {}: {talk}", show(&command), output.status))?;
    }
    fs::remove_file(odd)?;
    Ok(())
}

/// Line 9: outputs that nobody reads or that are full, homes in odd places.
pub(crate) fn places(lab: &Lab) -> Result<Figure> {
    let home = lab.home("places");
    home.json(&["init"])?;
    let ipcr = lab.ipcr.display().to_string();
    let shell = |script: &str| -> Result<Output> {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -o pipefail; {script}")]).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("IPCR", &ipcr);
        command.env("IPCR_HOME", &home.dir).env("HOME", lab.path("nobody")).env("IPCR_NETWORK", "loopback");
        Ok(command.output()?)
    };
    for script in
        ["\"$IPCR\" id | true", "\"$IPCR\" --help | true", "\"$IPCR\" ls | true", "\"$IPCR\" completions bash | true"]
    {
        let output = shell(script)?;
        let talk = String::from_utf8_lossy(&output.stderr);
        require(output.status.success() && !talk.contains("panicked"), || {
            format!("{script}: {} {talk}", output.status)
        })?;
    }
    for script in ["\"$IPCR\" id >&-", "\"$IPCR\" id 2>&-", "\"$IPCR\" frobnicate >&- 2>&-"] {
        let output = shell(script)?;
        require(matches!(output.status.code(), Some(0..=2)), || format!("{script}: {}", output.status))?;
    }
    let output = shell("\"$IPCR\" -o json id > /dev/full")?;
    let talk = String::from_utf8_lossy(&output.stderr);
    check_failure("id > /dev/full", 9, output.status.code(), &talk)?;
    // Nowhere to look for a home.
    let mut command = Command::new(&lab.ipcr);
    let output = command.env_clear().args(["-o", "json", "ls"]).output()?;
    let talk = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(2) || !talk.contains("--home") {
        // The user database may know a home where the environment does not.
        require(talk.contains("no registry") || talk.contains("--home"), || format!("without HOME: {talk}"))?;
    }
    deep(lab)?;
    let file = lab.path("a-file");
    fs::write(&file, "x")?;
    for path in [file.clone(), file.join("below")] {
        Home { dir: path, ..home.clone() }.fails(2, &["ls"])?;
    }
    read_only(lab)?;
    forbidden(lab)?;
    asked(lab)?;
    Ok(Figure::ok("closed, full and broken outputs; odd, read-only and forbidden homes"))
}

/// Homes on long paths and on paths with blanks, for two commands at once.
fn deep(lab: &Lab) -> Result {
    let image = lab.path("deep.tar");
    fs::write(&image, Image::new(13, &[200_000]).archive())?;
    let source = format!("docker-archive:{}", image.display());
    for name in ["a home with blanks and 'quotes'", &format!("{0}/{0}/{0}", "d".repeat(60))] {
        let home = Home { dir: lab.path("deep").join(name), ..lab.home("deep") };
        home.json(&["init"])?;
        let commands = (0..4).map(|number| {
            let mut command = home.command(&["push", &source, "--as", &format!("deep:{number}"), "--no-publish"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        });
        for child in commands.collect::<std::io::Result<Vec<_>>>()? {
            let output = child.wait_with_output()?;
            require(output.status.success(), || format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))?;
        }
        home.json(&["check", "--read-data"])?;
    }
    fs::remove_dir_all(lab.path("deep"))?;
    Ok(fs::remove_file(image)?)
}

/// A home on a file system that cannot be written to.
fn read_only(lab: &Lab) -> Result {
    let folder = lab.path("read-only");
    fs::create_dir_all(&folder)?;
    output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&folder))?;
    let home = Home { dir: folder.join("home"), ..lab.home("read-only") };
    let checked = (|| {
        home.json(&["init"])?;
        let image = folder.join("image.tar");
        fs::write(&image, Image::new(15, &[200_000]).archive())?;
        let source = format!("docker-archive:{}", image.display());
        home.json(&["push", &source, "--as", "app:1", "--no-publish"])?;
        output(Command::new("mount").args(["-o", "remount,ro"]).arg(&folder))?;
        home.json(&["id"])?;
        // Looking needs no writing.
        for args in [
            &["ls"][..],
            &["ls", "app"],
            &["inspect", "app:1"],
            &["resolve", "app:1"],
            &["df"],
            &["trust", "ls"],
            &["check", "--read-data"],
            &["gc", "--dry-run"],
            &["rm", "app:1", "--dry-run"],
        ] {
            home.json(args)?;
        }
        let looks = (0..4).map(|_| home.command(&["check", "--read-data"]).stdout(Stdio::null()).spawn());
        for mut child in looks.collect::<std::io::Result<Vec<_>>>()? {
            let status = child.wait()?;
            require(status.success(), || format!("one of several that look at once: {status}"))?;
        }
        for args in [&["gc"][..], &["rm", "app:1"], &["push", &source, "--as", "app:2"], &["pull", "app:1"]] {
            let error = home.fails(6, args)?;
            require(error["hint"].as_str().is_some_and(|hint| hint.contains("--home")), || format!("{error}"))?;
        }
        home.fails(6, &["--home", &folder.join("other").display().to_string(), "init"])?;
        output(Command::new("mount").args(["-o", "remount,rw"]).arg(&folder))?;
        home.json(&["check", "--read-data"]).map(drop)
    })();
    let _ = Command::new("umount").arg(&folder).status();
    let _ = fs::remove_dir(&folder);
    checked
}

/// Questions on a terminal, and what becomes of the answers.
fn asked(lab: &Lab) -> Result {
    let home = lab.home("asked");
    home.json(&["init"])?;
    let image = lab.path("asked.tar");
    fs::write(&image, Image::new(16, &[1000]).archive())?;
    home.json(&["push", &format!("docker-archive:{}", image.display()), "--as", "app:1", "--no-publish"])?;
    let answer = |flags: &str, answer: &str| -> Result<(Option<i32>, String)> {
        let command = home.command(&[]);
        let mut line = format!("{}", lab.ipcr.display());
        command.get_args().for_each(|argument| line += &format!(" '{}'", argument.to_string_lossy()));
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{line} {flags} rm app --all-tags"), "/dev/null"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().ok_or("no input")?, answer.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    for flags in ["", "-q"] {
        let (code, shown) = answer(flags, "n\n")?;
        let right = code == Some(1) && shown.contains("[y/N]") && shown.contains("nothing was removed");
        require(right, || format!("a `no` to rm {flags}: {code:?} {shown}"))?;
        home.json(&["inspect", "app:1"])?;
    }
    let (code, shown) = answer("-q", "y\n")?;
    require(code == Some(0), || format!("a `yes` to rm: {code:?} {shown}"))?;
    home.fails(3, &["inspect", "app:1"])?;
    Ok(fs::remove_file(image)?)
}

/// A home, and files, of somebody else.
fn forbidden(lab: &Lab) -> Result {
    let home = lab.home("forbidden");
    home.json(&["init"])?;
    let folder = lab.path("nobody-files");
    fs::create_dir_all(&folder)?;
    let secret = folder.join("secret.tar");
    fs::write(&secret, Image::new(14, &[1000]).archive())?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    // Where nobody may run it.
    let program = folder.join("ipcr");
    fs::copy(&lab.ipcr, &program)?;
    let as_nobody = |dir: &std::path::Path, args: &[&str]| -> Result<Output> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(["-o", "json"]);
        command.arg("--home").arg(dir).args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok(command.stdin(Stdio::null()).output()?)
    };
    let own = folder.join("own");
    fs::create_dir_all(&own)?;
    std::os::unix::fs::chown(&own, Some(65534), Some(65534))?;
    let says = |output: Output, exit: i32, what: &str| {
        check_failure(what, exit, output.status.code(), &String::from_utf8_lossy(&output.stderr)).map(drop)
    };
    let made = as_nobody(&own, &["--network", "loopback", "init"])?;
    require(made.status.success(), || String::from_utf8_lossy(&made.stderr).into_owned())?;
    says(as_nobody(&home.dir, &["ls"])?, 6, "a home of somebody else")?;
    says(as_nobody(&home.dir, &["id"])?, 6, "keys of somebody else")?;
    let source = format!("docker-archive:{}", secret.display());
    says(as_nobody(&own, &["push", &source, "--as", "s:1", "--no-publish"])?, 6, "a file of somebody else")?;
    let out = format!("oci:{}", lab.path("out-of-reach").display());
    says(as_nobody(&own, &["cp", &source, &out])?, 6, "a copy of a file of somebody else")?;
    Ok(fs::remove_dir_all(folder)?)
}

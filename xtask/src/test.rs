//! `cargo xtask test`: everything that CI runs, with one closing summary.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::accept::lab::Lab;
use crate::peers;
use crate::shell::{self, Result};

/// One step of the run.
struct Step {
    name: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step { name: "format", args: &["fmt", "--all", "--check"], env: &[] },
    Step { name: "build", args: &["build", "--release", "--workspace", "--all-targets", "--locked"], env: &[] },
    Step {
        name: "lints",
        // With what only the fuzz targets need, so that they are looked at, too: in the same run, nothing is compiled twice.
        args: &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--features",
            "ipcr-fuzz/fuzzing",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        env: &[],
    },
    Step { name: "tests", args: &["test", "--release", "--workspace", "--locked", "--no-fail-fast"], env: &[] },
    Step {
        name: "docs",
        // The doc comments of the command line are its help texts, not links.
        args: &["doc", "--release", "--workspace", "--exclude", "ipcr-cli", "--no-deps", "--locked"],
        env: &[("RUSTDOCFLAGS", "-D warnings")],
    },
];

/// Examples that run to their end by themselves.
const EXAMPLES: &[&str] = &["quickstart", "push", "pull", "resolve", "embed"];

/// Runs all steps, also after one has failed. With `install` all peers are installed first, and a skip is a failure.
pub(crate) fn run(root: &Path, install: bool) -> bool {
    let start = Instant::now();
    let mut results: Vec<(String, Result, u64)> = Vec::new();
    let mut step = |name: &str, result: &mut dyn FnMut() -> Result| {
        println!("\n== {name}");
        let begin = Instant::now();
        let outcome = result();
        if let Err(error) = &outcome {
            println!("FAILED: {error}");
        }
        results.push((name.to_owned(), outcome, begin.elapsed().as_secs()));
    };
    if install {
        step("install", &mut || peers::install(root));
    }
    // The tests of the library speak to an engine of their own, so that nothing need be started beforehand.
    let mut engine: Option<Lab> = None;
    for entry in STEPS {
        if install && entry.name == "tests" {
            step("engine", &mut || {
                let lab = Lab::new(root)?;
                lab.engine()?;
                engine = Some(lab);
                Ok(())
            });
        }
        let mut command = cargo(root, entry.args, install);
        if let Some(socket) = engine.as_ref().and_then(|lab| lab.engine().ok()) {
            let endpoint = format!("unix://{}", socket.display());
            command.env("DOCKER_HOST", &endpoint).env("IPCR_TEST_DOCKER", endpoint);
        }
        step(entry.name, &mut || shell::run(command.envs(entry.env.iter().copied())));
    }
    drop(engine);
    // The programs that the build step made: asking for single packages would build everything again with other features.
    let programs = peers::target_dir(root).join("release/examples");
    for example in EXAMPLES.iter().filter(|name| root.join(format!("examples/examples/{name}.rs")).is_file()) {
        step(&format!("example {example}"), &mut || shell::run(Command::new(programs.join(example)).current_dir(root)));
    }
    step("licences", &mut || deny(root, install));
    let flags: &[&str] = if install { &["--require-peers"] } else { &[] };
    step("acceptance", &mut || {
        let passed = crate::accept::run(root, flags, Some(start))?;
        if passed { Ok(()) } else { Err("some checks failed".into()) }
    });
    println!("\n== summary");
    for (name, outcome, seconds) in &results {
        println!("{:>5} s  {}  {name}", seconds, if outcome.is_ok() { "ok    " } else { "FAILED" });
    }
    let failed = results.iter().filter(|(_, outcome, _)| outcome.is_err()).count();
    println!("{} minutes", start.elapsed().as_secs().div_ceil(60));
    println!("{} passed, {failed} failed", results.len() - failed);
    failed == 0
}

fn cargo(root: &Path, args: &[&str], required: bool) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(peers::built_dir(root)).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    if required {
        command.env("IPCR_TEST_REQUIRE_PEERS", "1");
    }
    command
}

/// Bans, licences and sources, where cargo-deny is there.
fn deny(root: &Path, required: bool) -> Result {
    if crate::shell::on_path("cargo-deny").is_none() && !peers::built_dir(root).join("cargo-deny").is_file() {
        if required {
            return Err("cargo-deny is missing".into());
        }
        println!("SKIPPED: cargo-deny is not installed");
        return Ok(());
    }
    shell::run(&mut cargo(root, &["deny", "check", "bans", "licenses", "sources"], required))
}

//! Developer commands of ipcr.
//!
//! * `cargo xtask test [--install]`: everything that CI runs.
//! * `cargo xtask accept [--soak] [NAME…]`: the acceptance checks, one line each.
//! * `cargo xtask bench [images|blocks|swarm|hub] [--quick] [--pair OLD NEW]`: ipcr beside its peers, in one run; with `blocks` only
//!   store and exchange, with `swarm` only many who pull the same, with `hub` only a registry with very many images. `--pair` names two
//!   archives, the layers of two versions of an image, to measure updates with.
//! * `cargo xtask soak`: what is long or large.
//! * `cargo xtask install`: the peers that the tests need.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's command talks to a terminal")]

mod accept;
mod bench;
mod line;
mod measure;
mod peers;
mod shell;
mod splitmix;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [--install] | accept [--soak] [NAME...] | bench [images|blocks|swarm|hub] [--quick] [--pair OLD NEW] | soak | install";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args[..] {
        ["test"] => Ok(test::run(&root, std::env::var("CI").is_ok_and(|ci| ci == "true"))),
        ["test", "--install"] => Ok(test::run(&root, true)),
        ["accept", ref names @ ..] if !names.iter().any(|name| name.starts_with('-') && *name != "--soak") => {
            accept::run(&root, names, None)
        }
        ["bench", ref args @ ..] => bench(&root, args),
        ["soak"] => accept::run(&root, &["--soak"], None),
        ["install"] => peers::install(&root).map(|()| true),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs what is asked for, or all.
fn bench(root: &Path, args: &[&str]) -> shell::Result<bool> {
    let mut options = bench::Options::default();
    let mut part = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--quick" => options.quick = true,
            "--pair" => {
                let (Some(old), Some(new)) = (args.next(), args.next()) else { return Err(USAGE.into()) };
                options.pair = Some((PathBuf::from(old), PathBuf::from(new)));
            }
            name if part.is_none() => part = Some(name),
            _ => return Err(USAGE.into()),
        }
    }
    match part {
        None => bench::run(root, &options),
        Some("images") => bench::run_images(root, &options),
        Some("blocks") => bench::run_blocks(root, options.quick),
        Some("swarm") => bench::run_swarm(root, options.quick),
        Some("hub") => bench::run_hub(root, options.quick),
        Some(_) => Err(USAGE.into()),
    }
}

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

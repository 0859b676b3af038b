//! Developer commands of ipcr.
//!
//! * `cargo xtask test [--install]`: everything that CI runs.
//! * `cargo xtask accept [--soak] [NAME…]`: the acceptance checks, one line each.
//! * `cargo xtask bench [blocks|swarm] [--quick]`: ipcr beside its peers, in one run; with `blocks` only store and exchange, with
//!   `swarm` only many who pull the same.
//! * `cargo xtask soak`: what is long or large.
//! * `cargo xtask install`: the peers that the tests need.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's command talks to a terminal")]

mod accept;
mod bench;
mod line;
mod measure;
mod peers;
mod shell;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str =
    "usage: cargo xtask test [--install] | accept [--soak] [NAME...] | bench [blocks|swarm] [--quick] | soak | install";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args[..] {
        ["test"] => Ok(test::run(&root, std::env::var("CI").is_ok_and(|ci| ci == "true"))),
        ["test", "--install"] => Ok(test::run(&root, true)),
        ["accept", ref names @ ..] => accept::run(&root, names, None),
        ["bench"] => bench::run(&root, false),
        ["bench", "--quick"] => bench::run(&root, true),
        ["bench", "blocks"] => bench::run_blocks(&root, false),
        ["bench", "blocks", "--quick"] => bench::run_blocks(&root, true),
        ["bench", "swarm"] => bench::run_swarm(&root, false),
        ["bench", "swarm", "--quick"] => bench::run_swarm(&root, true),
        ["soak"] => accept::run(&root, &["--soak"], None),
        ["install"] => peers::install(&root).map(|()| true),
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

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

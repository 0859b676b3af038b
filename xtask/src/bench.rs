//! `cargo xtask bench`: ipcr beside its peers, in one run.

use std::path::Path;
use std::process::Command;

use crate::shell::{self, Result};

/// Runs the criterion benches; `quick` takes fewer samples.
pub(crate) fn run_criterion(root: &Path, quick: bool) -> Result {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["bench", "-p", "ipcr-benches"]);
    if quick {
        command.args(["--", "--quick"]);
    }
    shell::run(&mut command)
}

/// Everything that `cargo xtask bench` does.
pub(crate) fn run(root: &Path, quick: bool) -> Result<bool> {
    run_criterion(root, quick).map(|()| true)
}

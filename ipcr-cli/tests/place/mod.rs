//! A hermetic place to run `ipcr` in.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder that is the home of a user of its own.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs ipcr with an empty environment but for `HOME` and these variables.
    pub(crate) fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ipcr"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    /// Exit code, standard output and standard error, with this place's path taken out.
    pub(crate) fn shown(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.run(arguments, variables);
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(self.path().to_str().unwrap(), "HOME")
                .trim_end()
                .to_owned()
        };
        let mut shown = format!("exit {}", output.status.code().unwrap());
        for (name, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
            for line in text(bytes).lines() {
                shown += &format!("\n{name}| {line}").trim_end().replace("| \n", "|\n");
            }
        }
        shown
    }
}

//! Running programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What every step returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs a program with its output shown; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result {
    println!("+ {}", show(command));
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("{}: {error}", show(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", show(command)).into()) }
}

/// Runs a program and returns what it printed; an error, with what it printed on standard error, unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", show(command)))?;
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}: {}", show(command), output.status, talk.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Where a program is found on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Servers lie where a user's path does not lead.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

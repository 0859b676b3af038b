//! `ipcr completions`: the shell's help.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::ui::Ui;

/// Prints a script that completes ipcr's commands and options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr completions bash > ~/.local/share/bash-completion/completions/ipcr")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

pub(crate) fn run(ui: &Ui, args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ipcr", &mut script);
    ui.bytes(&script)
}

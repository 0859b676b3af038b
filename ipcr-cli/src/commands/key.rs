//! `ipcr key`: the registry's keys as a file, and their replacement.

use clap::Subcommand;

/// Exports, imports and replaces the keys of this registry.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  ipcr key export registry.key"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Writes the keys to a file, sealed with a passphrase that is asked for (or `IPCR_PASSPHRASE`)
    #[command(after_help = "Example:
  ipcr key export registry.key")]
    Export {
        /// The file, or `-` for standard output
        #[arg(default_value = "-", value_name = "FILE")]
        file: String,
    },
    /// Replaces this home's keys by those of a file
    #[command(after_help = "Example:
  ipcr key import registry.key")]
    Import {
        /// The file, or `-` for standard input
        #[arg(value_name = "FILE")]
        file: String,
    },
    /// Makes a new key and signs a hand-over to it with the old one
    #[command(after_help = "Example:
  ipcr key rotate --node")]
    Rotate {
        /// Replaces the node's transport key instead, which needs no hand-over
        #[arg(long)]
        node: bool,
    },
}

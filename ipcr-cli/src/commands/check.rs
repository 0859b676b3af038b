//! `ipcr check`: is everything there, and whole?

/// Looks for damage in the store and the registry; changes nothing unless told to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr check --read-data

Damage is exit code 5.")]
pub(crate) struct Args {
    /// Reads and hashes every block
    #[arg(long)]
    pub(crate) read_data: bool,

    /// Fetches damaged blocks from others again
    #[arg(long)]
    pub(crate) repair: bool,
}

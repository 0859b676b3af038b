//! `ipcr publish`: the registry, once more.

/// Signs the registry's record if it has changed, and hands it to the network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr publish")]
pub(crate) struct Args {
    /// Wins over what another home with the same key did to the same tags
    #[arg(long)]
    pub(crate) force: bool,
}

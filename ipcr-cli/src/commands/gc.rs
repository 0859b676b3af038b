//! `ipcr gc`: space given back.

/// Removes blocks that no tag, pin or recent pull needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr gc --dry-run")]
pub(crate) struct Args {
    /// Shows what would be removed, and removes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

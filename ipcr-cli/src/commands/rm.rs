//! `ipcr rm`: tags and manifests taken away.

/// Takes a tag, a manifest or a whole image out of this registry, and publishes the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr rm app:1
  ipcr rm app --all-tags --dry-run

A tag that is taken away leaves its manifest pullable by digest; NAME@DIGEST takes that away too.")]
pub(crate) struct Args {
    /// NAME:TAG, NAME@DIGEST, or with `--all-tags` NAME
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Takes the whole image away
    #[arg(long)]
    pub(crate) all_tags: bool,

    /// Shows what would go, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Does not ask, even on a terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
}

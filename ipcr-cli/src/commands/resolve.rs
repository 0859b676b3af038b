//! `ipcr resolve`: the chain of names.

/// Follows a reference from name to name, and prints each step, where it leads and why it is believed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr resolve some.domain/app:1")]
pub(crate) struct Args {
    /// A registry or an image of one
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
}

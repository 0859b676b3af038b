//! `ipcr tag`: a further name.

/// Gives an image a further name in this registry, and publishes the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr tag app:1 app:stable")]
pub(crate) struct Args {
    /// The image, in this or any other registry
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    /// The further name
    #[arg(value_name = "NAME:TAG")]
    pub(crate) name: String,
}

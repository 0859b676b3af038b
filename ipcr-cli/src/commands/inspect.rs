//! `ipcr inspect`: one image in detail.

/// Shows an image: digests, platforms, layers, where it is found and what refers to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr inspect some.domain/app:1")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    /// Prints the manifest or index, byte for byte
    #[arg(long)]
    pub(crate) raw: bool,
}

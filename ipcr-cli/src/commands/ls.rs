//! `ipcr ls`: images and tags.

/// Lists the images of a registry, or the tags of an image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr ls
  ipcr ls some.domain
  ipcr ls some.domain/app")]
pub(crate) struct Args {
    /// A registry or an image of one [default: this registry]
    #[arg(value_name = "REF")]
    pub(crate) reference: Option<String>,
}

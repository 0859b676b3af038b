//! `ipcr cp`: from any source to any sink.

use ipcr_core::image::platform::Platform;

/// Copies an image between any source and sink; digests are kept where both sides have manifests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr cp docker://registry.example/app:1 oci:./layout:1
  ipcr cp some.domain/app:1 docker-archive:app.tar")]
pub(crate) struct Args {
    /// As for `push`; a name without a prefix is a reference as for `pull`
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,

    /// As for `pull --into`; a name without a prefix is one in this registry
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,

    /// Copies this platform of a source with several [default: all, where the sink can]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
}

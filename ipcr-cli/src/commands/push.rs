//! `ipcr push`: store, tag, publish.

use ipcr_core::dag::compression::Compression;
use ipcr_core::image::platform::Platform;

/// Stores an image in this registry, tags it and publishes the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr push app:1
  ipcr push oci:./layout:1 --as team/app:1 --description 'What it does'
  docker save app:1 | ipcr push - --as app:1

The last line of the output is AUTHORITY/NAME:TAG@DIGEST.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Args {
    /// An image of the engine, or docker-daemon:NAME, podman:NAME, oci:DIR[:REF], oci-archive:FILE[:REF],
    /// docker-archive:FILE[:REF], `docker://HOST/NAME[:TAG|@DIGEST]`, ipcr:REF, or `-` for an archive on standard input
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,

    /// Name in this registry [default: the source's name without its host]
    #[arg(long = "as", value_name = "NAME:TAG")]
    pub(crate) name: Option<String>,

    /// One line that says what the image is
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// File that becomes the image's README.md
    #[arg(long, value_name = "FILE")]
    pub(crate) readme: Option<std::path::PathBuf>,

    /// Pushes this platform of a source with several [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,

    /// Compression of layers that the source has uncompressed: gzip, zstd or none [default: gzip]
    #[arg(long, value_name = "HOW")]
    pub(crate) compression: Option<Compression>,

    /// Compresses again what the source has compressed, which changes digests
    #[arg(long)]
    pub(crate) recompress: bool,

    /// Shows what would be done, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stores and tags only; `ipcr publish` publishes later
    #[arg(long)]
    pub(crate) no_publish: bool,

    /// How long to wait until a mirror or pin service holds the image
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,

    /// Wins over what another home with the same key did to the tag
    #[arg(long)]
    pub(crate) force: bool,

    /// Serves the image afterwards, until interrupted
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) serve: bool,
}

//! `ipcr pull`: resolve, fetch, verify, load.

use ipcr_core::image::platform::Platform;

/// Fetches an image from anybody's registry, verifies it and loads it into the engine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr pull some.domain/app:1
  ipcr pull k51…/team/app --into oci:./layout --all-platforms
  ipcr pull some.domain/app:1 --into - | docker load

The last line of the output is AUTHORITY/NAME:TAG@DIGEST.")]
pub(crate) struct Args {
    /// `some.domain/app:1`, `k51…/app:1`, `did:key:…/app:1`, `ipfs/<CID>`; without an authority: an own image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    /// Where to: docker-daemon:, podman:, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF],
    /// `docker://HOST/NAME[:TAG]`, `-` for an archive on standard output, or none [default: the engine]
    #[arg(long, value_name = "SINK")]
    pub(crate) into: Option<String>,

    /// Which platform of several [default: the engine's]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all_platforms")]
    pub(crate) platform: Option<Platform>,

    /// Everything that the name stands for
    #[arg(long)]
    pub(crate) all_platforms: bool,

    /// Name in the engine or file [default: one that no other registry owns]
    #[arg(long = "as", value_name = "NAME:TAG")]
    pub(crate) name: Option<String>,
}

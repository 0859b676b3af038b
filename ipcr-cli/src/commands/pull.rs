//! `ipcr pull`: resolve, fetch, verify, load.

use ipcr_core::image::platform::Platform;
use ipcr_core::media::spec::ImageSpec;
use ipcr_core::port::engine::EngineKind;
use ipcr_core::reference::Authority;
use ipcr_core::registry::options::PullOptions;
use ipcr_core::registry::outcome::PullOutcome;

use super::chain;
use super::medium;
use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

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

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let text = &args.reference;
    if !text.contains('/') && text.parse::<Authority>().is_ok() {
        return Err(Failure::usage(format!("`{text}` names a registry; say which image: {text}/IMAGE:TAG"))
            .with_hint(format!("`ipcr ls {text}` lists its images")));
    }
    let reference = context.reference(text)?;
    let spec = match &args.into {
        Some(into) => ImageSpec::sink(into).map_err(|error| context.bad_spec(&error))?,
        None => ImageSpec::Engine { kind: EngineKind::Docker, name: None },
    };
    let sink = medium::sink(context.ui, spec)?;
    let mut options = PullOptions::default();
    options.platform.clone_from(&args.platform);
    if options.platform.is_none() && !args.all_platforms {
        options.platform = context.default_platform()?;
    }
    options.all_platforms = args.all_platforms;
    options.name.clone_from(&args.name);
    options.resolve = context.resolving();
    let (outcome, warnings) = context.watch(context.registry.pull(reference, sink, options)).await?;
    context.show(&outcome, &warnings, lines)
}

fn lines(ui: &Ui, outcome: &PullOutcome) -> Result<(), Failure> {
    chain::lines(ui, &outcome.chain, outcome.trust)?;
    let bytes = outcome.bytes;
    let gateways = outcome.gateways.iter().filter(|gateway| gateway.blocks > 0).count();
    let sources = match (outcome.peers.len() as u64, gateways as u64) {
        (0, 0) => String::new(),
        (peers, 0) => format!(" from {}", text::count(peers, "peer")),
        (0, gateways) => format!(" from {}", text::count(gateways, "gateway")),
        (peers, gateways) => {
            format!(" from {} and {}", text::count(peers, "peer"), text::count(gateways, "gateway"))
        }
    };
    let fetched = text::bytes(bytes.fetched);
    ui.detail(format!(
        "image      {}, {fetched} fetched{sources}, {} local",
        text::bytes(bytes.image),
        text::bytes(bytes.local)
    ))?;
    if let Some(platform) = &outcome.platform {
        ui.detail(format!("platform   {platform}"))?;
    }
    if let Some(image_id) = outcome.image_id {
        ui.detail(format!("image id   {image_id}"))?;
    }
    ui.detail(format!("loaded     {}", outcome.sink))?;
    ui.line(&outcome.reference)
}

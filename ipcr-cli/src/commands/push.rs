//! `ipcr push`: store, tag, publish.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ipcr_core::dag::compression::Compression;
use ipcr_core::image::platform::Platform;
use ipcr_core::limits;
use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::options::PushOptions;
use ipcr_core::registry::outcome::{PushOutcome, PushPlan, Recompress};
use serde::Serialize;

use super::publication::Publication;
use super::{medium, serve};
use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// How layers are called that ipcr did not encode.
const OPAQUE: &str = "opaque";

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

    /// Compression of layers that ipcr makes, of sources without a manifest and with --recompress: gzip, zstd or none [default: gzip]
    #[arg(long, value_name = "HOW")]
    pub(crate) compression: Option<Compression>,

    /// Compresses again what the source has compressed, so that updates send only what changed. This changes digests: what signs or
    /// attests the old ones is left out
    #[arg(long)]
    pub(crate) recompress: bool,

    /// Shows what would be done, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stores and tags only; `ipcr publish` publishes later
    #[arg(long)]
    pub(crate) no_publish: bool,

    /// Waits until another node holds what was pushed, at most so long
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_publish")]
    pub(crate) wait: Option<u64>,

    /// Wins over what another home with the same key did to the tag
    #[arg(long)]
    pub(crate) force: bool,

    /// Serves the image afterwards, until interrupted
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) serve: bool,
}

/// A plan as programs read it.
#[derive(Serialize)]
struct DryRun {
    dry_run: bool,
    #[serde(flatten)]
    plan: PushPlan,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let spec = ImageSpec::push_source(&args.source).map_err(|error| context.bad_spec(&error))?;
    let options = options(context, args).await?;
    if args.dry_run {
        return plan(context, args, spec, options).await;
    }
    if args.serve {
        context.set_serving();
    }
    let of_engine = medium::is_of_engine(&spec);
    let pushing = context.registry.push(medium::source(spec)?, options);
    let (outcome, warnings) = context.watch_source(of_engine, pushing).await?;
    context.show(&outcome, &warnings, |ui, outcome| lines(ui, outcome, args.no_publish))?;
    if !args.serve {
        return Ok(());
    }
    let addresses = context.registry.holder().start_node().await.map_err(|error| context.failure(&error))?;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let heading = if addresses.is_empty() {
        "serving at no address; Ctrl-C ends it"
    } else {
        "serving at these addresses; Ctrl-C ends it"
    };
    serve::tell(context.ui, Some(heading), addresses);
    serve::serve(context, args.no_publish).await
}

async fn options(context: &Context<'_>, args: &Args) -> Result<PushOptions, Failure> {
    let mut options = PushOptions::default();
    if let Some(name) = &args.name {
        options.target = Some(context.target(name).await?);
    }
    options.description.clone_from(&args.description);
    options.readme = args.readme.as_deref().map(readme).transpose()?;
    options.platform.clone_from(&args.platform);
    options.compression = args.compression.unwrap_or_default();
    options.recompress = args.recompress;
    options.publish = context.publishing()?;
    options.publish.publish = !args.no_publish;
    options.publish.force = args.force;
    if let Some(wait) = args.wait {
        options.publish.wait = Duration::from_secs(wait);
    }
    Ok(options)
}

fn readme(path: &Path) -> Result<String, Failure> {
    let reading = |error: std::io::Error| Failure::io(format!("reading {} failed", path.display()), &error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(reading)?;
    file.take(limits::README_BYTES + 1).read_to_string(&mut text).map_err(reading)?;
    if text.len() as u64 > limits::README_BYTES {
        return Err(Failure::usage(format!("{} is longer than {}", path.display(), text::bytes(limits::README_BYTES))));
    }
    Ok(text)
}

async fn plan(context: &Context<'_>, args: &Args, spec: ImageSpec, options: PushOptions) -> Result<(), Failure> {
    let (of_engine, streamed) = (medium::is_of_engine(&spec), spec == ImageSpec::Stream);
    let planning = context.registry.plan_push(medium::source(spec)?, options);
    let (mut plan, warnings) = context.watch_source(of_engine, planning).await?;
    // Whether the texts are those that the image has is not looked up.
    plan.unchanged &= args.description.is_none() && args.readme.is_none();
    plan.publish &= !context.is_offline();
    let plan = DryRun { dry_run: true, plan };
    context.show(&plan, &warnings, |ui, DryRun { plan, .. }| {
        let known = plan.layers.iter().filter(|layer| layer.known).count();
        ui.detail(format!("source     {}", plan.source))?;
        ui.detail(if streamed || (plan.layers.is_empty() && plan.digest.is_none()) {
            "layers     not known before it is read".to_owned()
        } else {
            format!("layers     {}, of which {known} are stored already", plan.layers.len())
        })?;
        for layer in &plan.layers {
            let digest = layer.digest.map_or_else(|| "(not known before reading)".into(), |digest| digest.to_string());
            let size = layer.size.map(text::bytes).unwrap_or_default();
            ui.detail(
                format!("           {} {digest} {size}", if layer.known { "known" } else { "new  " }).trim_end(),
            )?;
        }
        if let Some(current) = plan.current {
            ui.detail(format!("replaces   {current}"))?;
        }
        let what = match (plan.unchanged, plan.publish) {
            (true, _) => "would change nothing",
            (false, true) => "would be stored, tagged and published",
            (false, false) => "would be stored and tagged",
        };
        let name = match (&plan.name, &plan.tag) {
            (Some(name), Some(tag)) => format!("{name}:{tag}"),
            (Some(name), None) => name.clone(),
            // What an archive calls its image is found when it is read.
            (None, _) => format!("{}, if it has a name for the image (`--as NAME:TAG` gives one),", plan.source),
        };
        ui.line(format!("{name} {what}"))
    })
}

fn lines(ui: &Ui, outcome: &PushOutcome, withheld: bool) -> Result<(), Failure> {
    let bytes = outcome.bytes;
    let unchanged = if outcome.unchanged { ", unchanged" } else { "" };
    ui.detail(format!("image      {}, {} new{unchanged}", text::bytes(bytes.image), text::bytes(bytes.new)))?;
    for row in &outcome.encodings {
        let (count, bytes) = (row.layers, text::bytes(row.bytes));
        let how = if row.encoding == OPAQUE { "opaque, kept as they came" } else { &row.encoding };
        ui.detail(format!("layers     {count} of {bytes}, {how}"))?;
    }
    if outcome.encodings.iter().any(|row| row.encoding == OPAQUE) {
        ui.detail(match outcome.recompress {
            Some(Recompress { shared }) if shared > 0 => format!(
                "           {} of what is stored now was there in other layers; with `--recompress`, which changes digests, it is shared",
                text::bytes(shared)
            ),
            _ => "           an update sends them whole; with `--recompress`, which changes digests, only what changed".to_owned(),
        })?;
    }
    ui.detail(format!("folder     {}", outcome.cid))?;
    let publication = Publication {
        root: &outcome.root,
        ipns: &outcome.ipns,
        sequence: outcome.sequence,
        published: outcome.published,
        withheld,
        holders: &outcome.holders,
        findable: outcome.findable,
    };
    publication.lines(ui)?;
    ui.line(&outcome.reference)
}

//! `ipcr cp`: from any source to any sink.

use ipcr_core::event::Warning;
use ipcr_core::image::platform::Platform;
use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::options::{CopyOptions, PushOptions};
use ipcr_core::registry::outcome::CopyOutcome;
use ipcr_core::registry::places::Source;

use super::medium;
use crate::context::Context;
use crate::failure::Failure;
use crate::text;

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

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let source = ImageSpec::source(&args.source).map_err(|error| context.bad_spec(&error))?;
    let sink = ImageSpec::sink(&args.sink).map_err(|error| context.bad_spec(&error))?;
    let of_engine = medium::is_of_engine(&source);
    let source = medium::source(source)?;
    let (outcome, warnings) = match sink {
        ImageSpec::Ipcr(name) => into_registry(context, args, (source, of_engine), &name).await?,
        sink => {
            let mut options = CopyOptions::default();
            options.platform.clone_from(&args.platform);
            options.all_platforms = args.platform.is_none();
            let copying = context.registry.copy(source, medium::sink(context.ui, sink)?, options);
            context.watch_source(of_engine, copying).await?
        }
    };
    // As it was given, whatever kind of source it is.
    let outcome = CopyOutcome { source: args.source.clone(), ..outcome };
    context.show(&outcome, &warnings, |ui, outcome| {
        ui.detail(format!("image      {}", text::bytes(outcome.bytes)))?;
        if let Some(image_id) = outcome.image_id {
            ui.detail(format!("image id   {image_id}"))?;
        }
        ui.detail(format!("digest     {}", outcome.digest))?;
        ui.line(&outcome.sink)
    })
}

/// A copy into this registry is a push.
async fn into_registry(
    context: &Context<'_>,
    args: &Args,
    (source, of_engine): (Source, bool),
    name: &str,
) -> Result<(CopyOutcome, Vec<Warning>), Failure> {
    let mut options = PushOptions::default();
    options.target = Some(context.target(name).await?);
    options.platform.clone_from(&args.platform);
    options.publish = context.publishing()?;
    let (pushed, warnings) = context.watch_source(of_engine, context.registry.push(source, options)).await?;
    let (digest, image_id, bytes) = (pushed.digest, pushed.image_id, pushed.bytes.image);
    Ok((CopyOutcome { source: args.source.clone(), sink: pushed.reference, digest, image_id, bytes }, warnings))
}

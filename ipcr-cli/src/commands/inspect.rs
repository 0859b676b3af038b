//! `ipcr inspect`: one image in detail.

use ipcr_core::registry::outcome::Inspection;

use super::chain;
use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

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

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let reference = context.reference(&args.reference)?;
    let (outcome, warnings) = context.watch(context.registry.inspect(reference, context.resolving())).await?;
    if args.raw {
        return context.ui.bytes(&outcome.raw);
    }
    context.show(&outcome, &warnings, lines)
}

fn lines(ui: &Ui, outcome: &Inspection) -> Result<(), Failure> {
    chain::lines(ui, &outcome.chain, outcome.trust)?;
    ui.detail(format!("root       {}", outcome.root))?;
    ui.detail(format!("folder     {}", outcome.cid))?;
    ui.detail(format!("type       {}", outcome.media_type))?;
    for manifest in &outcome.manifests {
        ui.detail("")?;
        ui.detail(format!("platform   {}", manifest.platform.as_deref().unwrap_or("(none)")))?;
        ui.detail(format!("manifest   {}", manifest.digest))?;
        if let Some(image_id) = manifest.image_id {
            ui.detail(format!("image id   {image_id}"))?;
        }
        if let Some(created) = &manifest.created {
            ui.detail(format!("created    {created}"))?;
        }
        for layer in &manifest.layers {
            let encoding = layer.encoding.as_deref().unwrap_or("as it came");
            ui.detail(format!("layer      {} {} ({encoding})", layer.digest, text::bytes(layer.size)))?;
        }
    }
    for referrer in &outcome.referrers {
        ui.detail(format!("referrer   {referrer}"))?;
    }
    ui.line(&outcome.reference)
}

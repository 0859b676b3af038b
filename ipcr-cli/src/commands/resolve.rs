//! `ipcr resolve`: the chain of names.

use ipcr_core::registry::outcome::ResolveOutcome;

use super::chain;
use crate::context::Context;
use crate::failure::Failure;
use crate::ui::Ui;

/// Follows a reference from name to name, and prints each step, where it leads and why it is believed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr resolve some.domain/app:1")]
pub(crate) struct Args {
    /// A registry or an image of one
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let reference = context.registry_or_image(&args.reference)?;
    let (outcome, warnings) = context.watch(context.registry.resolve(reference, context.resolving())).await?;
    context.show(&outcome, &warnings, lines)
}

fn lines(ui: &Ui, outcome: &ResolveOutcome) -> Result<(), Failure> {
    chain::lines(ui, &outcome.chain, outcome.trust)?;
    ui.detail(format!("root       {}", outcome.root))?;
    if let Some(cid) = outcome.cid {
        ui.detail(format!("folder     {cid}"))?;
    }
    ui.line(&outcome.reference)
}

//! `ipcr publish`: the registry, once more.

use super::publication::edit_lines;
use crate::context::Context;
use crate::failure::Failure;

/// Signs the registry's record if it has changed, and hands it to the network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr publish")]
pub(crate) struct Args {
    /// Wins over what another home with the same key did to the same tags
    #[arg(long)]
    pub(crate) force: bool,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let mut options = context.publishing()?;
    options.force = args.force;
    let (outcome, warnings) = context.watch(context.registry.publish(options)).await?;
    context.show(&outcome, &warnings, |ui, outcome| {
        edit_lines(ui, outcome)?;
        ui.line(format!("/ipns/{}", outcome.ipns))
    })
}

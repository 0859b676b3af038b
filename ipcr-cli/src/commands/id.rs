//! `ipcr id`: who this registry is.

use ipcr_core::registry::profile;

use super::identity;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::ui::Ui;

/// Prints this registry's IPNS name, DID, recipient and node, and the TXT records of its domain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr id")]
pub(crate) struct Args {}

pub(crate) fn run(ui: &Ui, settings: &Settings) -> Result<(), Failure> {
    let identity = profile::identity(&settings.home).map_err(|error| Failure::registry(&error, "id"))?;
    if ui.is_json() { ui.object(&identity, None) } else { identity::lines(ui, &identity) }
}

//! `ipcr check`: is everything there, and whole?

use ipcr_core::kind::ErrorKind;
use ipcr_core::registry::outcome::CheckOutcome;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;

/// Looks for damage in the store and the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr check --read-data

Damage is exit code 5. What is damaged no longer counts as stored: pushing or pulling the image again stores it anew.")]
pub(crate) struct Args {
    /// Reads and hashes every block
    #[arg(long)]
    pub(crate) read_data: bool,
}

/// What was found, as programs read it.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    #[serde(flatten)]
    outcome: CheckOutcome,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let (outcome, _) = context.watch(context.registry.check(args.read_data)).await?;
    let checked = Checked { ok: outcome.problems.is_empty(), outcome };
    context.show(&checked, &[], |ui, Checked { outcome, .. }| {
        for problem in &outcome.problems {
            ui.line(format!("damaged: {problem}"))?;
        }
        let read = if args.read_data { format!(", {} read", text::bytes(outcome.bytes_read)) } else { String::new() };
        ui.detail(format!("{} blocks and {} tags checked{read}", outcome.blocks, outcome.tags))
    })?;
    if checked.ok {
        return Ok(());
    }
    let message = match &checked.outcome.problems[..] {
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first}, and {} more problems", rest.len()),
        [] => "something is damaged".into(),
    };
    let hint = "blocks and images: push or pull them again, and `ipcr gc` takes the rest away; keys and settings: bring them back from a backup";
    Err(Failure::new(ErrorKind::Integrity, message).with_hint(hint))
}

//! `ipcr check`: is everything there, and whole?

use ipcr_core::event::Warning;
use ipcr_core::kind::ErrorKind;
use ipcr_core::registry::outcome::{CheckOutcome, RepairOutcome, Used};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Looks for damage in the store and the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr check --read-data
  ipcr check --read-data --repair --peer /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW…

Damage is exit code 5. What is damaged no longer counts as stored: pushing or pulling the image again stores it anew, and so does
`--repair`, which asks those who hold the registry, and the peers that are named. Where nobody can be asked the exit code is 4.")]
pub(crate) struct Args {
    /// Reads and hashes every block
    #[arg(long)]
    pub(crate) read_data: bool,

    /// Makes what is missing or damaged again, or fetches it from others
    #[arg(long)]
    pub(crate) repair: bool,

    /// Shows what `--repair` would fetch or make, and does nothing
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,
}

/// What was found, as programs read it.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    #[serde(flatten)]
    outcome: CheckOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<Repair>,
}

/// What a repair did, as programs read it.
#[derive(Serialize)]
struct Repair {
    dry_run: bool,
    found: Vec<String>,
    lacking: u64,
    lacking_cids: Vec<String>,
    fetched: Used,
    made: u64,
    removed: u64,
    lost: u64,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let (checked, unasked, warnings) =
        if args.repair { repair(context, args).await? } else { check(context, args).await? };
    context.show(&checked, &warnings, |ui, Checked { outcome, repair, .. }| {
        repair.iter().try_for_each(|repair| lines(ui, repair))?;
        for problem in &outcome.problems {
            ui.line(format!("damaged: {problem}"))?;
        }
        let read = if args.read_data { format!(", {} read", text::bytes(outcome.bytes_read)) } else { String::new() };
        let (blocks, tags) = (text::count(outcome.blocks, "block"), text::count(outcome.tags, "tag"));
        ui.detail(format!("{blocks} and {tags} checked{read}"))
    })?;
    if checked.ok {
        return Ok(());
    }
    let message = match &checked.outcome.problems[..] {
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first}, and {}", text::count(rest.len() as u64, "more problem")),
        [] => "something is damaged".into(),
    };
    if unasked {
        let hint = "name a peer that has it with `--peer`, or try again when a holder of the registry is there";
        return Err(Failure::new(ErrorKind::Unavailable, message).with_hint(hint));
    }
    let hint = "blocks and images: `ipcr check --repair` asks others for them, or push or pull them again; keys and settings: bring them back from a backup";
    Err(Failure::new(ErrorKind::Integrity, message).with_hint(hint))
}

/// What is left, whether that is because nobody could be asked, and the warnings on the way.
type Done = (Checked, bool, Vec<Warning>);

async fn check(context: &Context<'_>, args: &Args) -> Result<Done, Failure> {
    let (outcome, warnings) = context.watch(context.registry.check(args.read_data)).await?;
    Ok((Checked { ok: outcome.problems.is_empty(), outcome, repair: None }, false, warnings))
}

async fn repair(context: &Context<'_>, args: &Args) -> Result<Done, Failure> {
    let (done, warnings) = context.watch(context.registry.repair(args.read_data, args.dry_run)).await?;
    let RepairOutcome { found, lacking, lacking_cids, fetched, made, removed, lost, unasked, problems, .. } = done;
    let repair = Repair {
        dry_run: args.dry_run,
        found: found.problems.clone(),
        lacking,
        lacking_cids,
        fetched,
        made,
        removed,
        lost,
    };
    let outcome = CheckOutcome { problems, ..found };
    Ok((Checked { ok: outcome.problems.is_empty(), outcome, repair: Some(repair) }, unasked, warnings))
}

fn lines(ui: &Ui, repair: &Repair) -> Result<(), Failure> {
    for problem in repair.found.iter().filter(|_| !repair.dry_run) {
        ui.detail(format!("found: {problem}"))?;
    }
    if repair.dry_run {
        for cid in &repair.lacking_cids {
            ui.line(format!("would get {cid}"))?;
        }
        return ui.line(match repair.lacking {
            0 => "nothing is lacking".to_owned(),
            lacking => format!("would get {}, and what is missing below", text::count(lacking, "block")),
        });
    }
    let Repair { fetched, made, lost, removed, .. } = repair;
    let bytes = text::bytes(fetched.bytes);
    let blocks = text::count(fetched.blocks, "block");
    ui.line(format!("repaired: {blocks} ({bytes}) fetched, {made} made again, {lost} lost"))?;
    match *removed {
        0 => Ok(()),
        removed => ui.line(format!("removed: {} that nothing needs", text::count(removed, "block"))),
    }
}

//! `ipcr trust`: the keys that are remembered for domains.

use clap::Subcommand;
use ipcr_core::kind::ErrorKind;
use ipcr_core::registry::outcome::TrustEntry;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Shows and changes which key each domain is known to lead to.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  ipcr trust ls

A key is remembered when a domain is first used; a change is refused until it is confirmed here."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists remembered domains
    #[command(after_help = "Example:
  ipcr trust ls")]
    Ls,
    /// Remembers a key for a domain, instead of the one before
    #[command(after_help = "Examples:
  ipcr trust add some.domain k51…
  ipcr trust add some.domain keyless")]
    Add {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// Its registry's key in any spelling, or `keyless` for a domain that points to content
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Forgets a domain
    #[command(after_help = "Example:
  ipcr trust rm some.domain")]
    Rm {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
}

#[derive(Serialize)]
struct Entries {
    domains: Vec<TrustEntry>,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    domain: &'a str,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Ls => {
            let (domains, warnings) = context.watch(context.registry.trusted()).await?;
            context.show(&Entries { domains }, &warnings, |ui, entries| list(ui, &entries.domains))
        }
        Action::Add { domain, key } => {
            let (entry, warnings) = context.watch(context.registry.trust(domain.clone(), key.clone())).await?;
            context.show(&entry, &warnings, |ui, entry| ui.line(format!("{} leads to {}", entry.domain, entry.key)))
        }
        Action::Rm { domain } => {
            let (known, warnings) = context.watch(context.registry.distrust(domain.clone())).await?;
            if !known {
                let failure = Failure::new(ErrorKind::NotFound, format!("no key is remembered for {domain}"));
                return Err(failure.with_hint("`ipcr trust ls` lists the domains that have one"));
            }
            context.show(&Forgotten { domain }, &warnings, |ui, forgotten| {
                ui.line(format!("{} is forgotten", forgotten.domain))
            })
        }
    }
}

fn list(ui: &Ui, entries: &[TrustEntry]) -> Result<(), Failure> {
    let row = |entry: &TrustEntry| {
        let dnssec = if entry.dnssec { "dnssec" } else { "" };
        let since = entry.since.format("%Y-%m-%d %H:%M").to_string();
        [entry.domain.clone(), entry.key.clone(), since, dnssec.to_owned()]
    };
    let mut rows = vec![["DOMAIN", "KEY", "SINCE", "SECURED"].map(str::to_owned)];
    rows.extend(entries.iter().map(row));
    if entries.is_empty() {
        ui.talk("no keys are remembered");
        return Ok(());
    }
    text::table(&rows).iter().try_for_each(|line| ui.line(line))
}

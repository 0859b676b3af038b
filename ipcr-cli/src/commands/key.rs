//! `ipcr key`: the registry's keys as a file, and their replacement.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::Subcommand;
use ipcr_core::kind::ErrorKind;
use ipcr_core::registry::error::{RegistryError, Topic};
use ipcr_core::registry::outcome::Identity;
use ipcr_core::registry::{keys, profile};
use ipcr_core::store::home::Home;
use serde::Serialize;

use super::{identity, init};
use crate::context::Context;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::session::{self, Purpose};
use crate::ui::Ui;

/// Exports, imports and replaces the keys of this registry.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  ipcr key export registry.key"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Writes the keys to a file, sealed with a passphrase that is asked for (or `IPCR_PASSPHRASE`)
    #[command(after_help = "Example:
  ipcr key export registry.key")]
    Export {
        /// The file, or `-` for standard output
        #[arg(default_value = "-", value_name = "FILE")]
        file: String,
    },
    /// Makes a registry of the keys in a file, as `ipcr init --import` does
    #[command(after_help = "Example:
  ipcr key import registry.key")]
    Import {
        /// The file, or `-` for standard input
        #[arg(value_name = "FILE")]
        file: String,
    },
    /// Gives the registry a new key, which the old one hands over to, or the node another peer id
    #[command(after_help = "Examples:
  ipcr key rotate
  ipcr key rotate --node

The registry gets another name. Its old name leads to the new one for as long as it is published, and whoever trusted the old
key for a domain accepts the new one. Enter the new TXT records, and export the new key.")]
    Rotate {
        /// Only the node's transport key; the registry's key and name stay
        #[arg(long)]
        node: bool,
    },
}

impl Action {
    /// Whether it has to hold the home itself.
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Self::Import { .. } | Self::Rotate { .. })
    }
}

#[derive(Serialize)]
struct Exported<'a> {
    ipns: &'a str,
    file: &'a str,
}

/// A new key as programs read it.
#[derive(Serialize)]
struct Rotated {
    #[serde(flatten)]
    identity: Identity,
    previous: Option<String>,
}

/// A registry with a new key as programs read it.
#[derive(Serialize)]
struct HandedOver {
    #[serde(flatten)]
    identity: Identity,
    previous: String,
    root: String,
    sequence: u64,
    published: bool,
}

pub(crate) fn run(purpose: Purpose<'_>, args: &Args) -> Result<(), Failure> {
    let Purpose { ui, settings, .. } = purpose;
    match &args.action {
        Action::Export { file } => export(ui, &settings.home, file),
        Action::Import { file } => init::import(purpose, file),
        Action::Rotate { node: true } => rotate_node(ui, &settings.home),
        Action::Rotate { node: false } => session::run(purpose, rotate),
    }
}

fn export(ui: &Ui, home: &Path, file: &str) -> Result<(), Failure> {
    let ipns = profile::identity(home).map_err(|error| failed(&error))?.ipns;
    let passphrase = match Environment::passphrase() {
        Some(passphrase) => passphrase,
        None => new_passphrase(ui)?,
    };
    let sealed = keys::export(home, passphrase).map_err(|error| failed(&error))?;
    if file == "-" {
        ui.take_stdout();
        ui.bytes(&sealed)?;
    } else {
        write_new(Path::new(file), &sealed).map_err(|error| {
            let failure = Failure::io(format!("writing {file} failed"), &error);
            match error.kind() {
                io::ErrorKind::AlreadyExists => failure.with_hint("choose another file, or remove this one first"),
                _ => failure,
            }
        })?;
    }
    if ui.is_json() {
        return ui.object(&Exported { ipns: &ipns, file }, None);
    }
    ui.talk(format!("the keys of {ipns} are in {file}; without the passphrase nobody can open it, you neither"));
    if file == "-" { Ok(()) } else { ui.line(file) }
}

fn new_passphrase(ui: &Ui) -> Result<String, Failure> {
    let passphrase = ui.passphrase("Passphrase for the keys")?;
    if passphrase.is_empty() {
        return Err(Failure::usage("an empty passphrase protects nothing"));
    }
    if ui.passphrase("The same again")? != passphrase {
        return Err(Failure::usage("the passphrases differ"));
    }
    Ok(passphrase)
}

/// Writes a file that only its owner may read. One that is there is never overwritten.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

async fn rotate(context: &Context<'_>) -> Result<(), Failure> {
    let (previous, changed, warnings) = context.rotate_key().await?;
    let identity = context.registry.identity().await.map_err(|error| context.failure(&error))?;
    let (previous, root) = (previous.to_string(), changed.root.to_string());
    let (sequence, published) = (changed.sequence, changed.published);
    let outcome = HandedOver { identity, previous, root, sequence, published };
    context.show(&outcome, &warnings, |ui, outcome| {
        ui.detail(format!("before     {}", outcome.previous))?;
        identity::lines(ui, &outcome.identity)?;
        ui.hint("`ipcr key export FILE` saves the new key; enter the new TXT records where the domain is kept");
        Ok(())
    })
}

fn rotate_node(ui: &Ui, home: &Path) -> Result<(), Failure> {
    // Without a registry there is nothing to rotate, and this says so.
    profile::identity(home).map_err(|error| failed(&error))?;
    let holder = Home::holder(home).map_err(|error| Failure::of(&error, error.kind(), Topic::Other, "key"))?;
    if let Some(holder) = holder {
        let message = format!("process {} ({}) uses the node's key", holder.pid, holder.command);
        return Err(Failure::new(ErrorKind::Locked, message).with_hint("end it first"));
    }
    let (previous, identity) = keys::rotate_node(home).map_err(|error| failed(&error))?;
    let rotated = Rotated { identity, previous };
    if ui.is_json() { ui.object(&rotated, None) } else { identity::lines(ui, &rotated.identity) }
}

fn failed(error: &RegistryError) -> Failure {
    Failure::registry(error, "key")
}

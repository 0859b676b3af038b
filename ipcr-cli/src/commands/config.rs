//! `ipcr config`: settings and where they come from.

use std::borrow::Cow;
use std::path::Path;

use clap::Subcommand;
use ipcr_core::kind::ErrorKind;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::home;
use crate::settings::{KEYS, Layer, Origin, Settings};
use crate::text;
use crate::ui::Ui;

/// Shows and changes the settings in `config.toml`.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  ipcr config set network lan

Every global option is a setting; the option wins over its IPCR_… variable, and that over the file."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

impl Args {
    /// Whether a file that makes no sense is no obstacle, because this may mend it.
    pub(crate) fn repairs(&self) -> bool {
        matches!(self.action, Action::Set { .. })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Prints one setting, or all with where each comes from
    #[command(after_help = "Example:
  ipcr config get network")]
    Get {
        /// The setting
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    /// Writes a setting to the file; several values of a list are separated by commas
    #[command(after_help = "Examples:
  ipcr config set network lan
  ipcr config set dns 9.9.9.9,149.112.112.112")]
    Set {
        /// The setting
        #[arg(value_name = "KEY")]
        key: String,
        /// Its value; the empty string takes the setting out of the file
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
    },
    /// Prints where the file is
    #[command(after_help = "Example:
  ipcr config path")]
    Path,
}

#[derive(Serialize)]
struct Setting<'a> {
    key: &'a str,
    value: Value,
    source: Origin,
}

#[derive(Serialize)]
struct All<'a> {
    settings: Vec<Setting<'a>>,
}

#[derive(Serialize)]
struct Changed<'a> {
    key: &'a str,
    value: Option<toml::Value>,
    previous: Option<toml::Value>,
    path: Cow<'a, str>,
}

#[derive(Serialize)]
struct Place<'a> {
    path: Cow<'a, str>,
    exists: bool,
}

pub(crate) fn run(ui: &Ui, settings: &Settings, args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Get { key: Some(key) } => get(ui, settings, key),
        Action::Get { key: None } => get_all(ui, settings),
        Action::Set { key, value } => set(ui, settings, key, value),
        Action::Path => {
            let place = Place { path: settings.file.to_string_lossy(), exists: settings.file.exists() };
            if ui.is_json() { ui.object(&place, None) } else { ui.line(place.path) }
        }
    }
}

fn setting<'a>(settings: &Settings, key: &'a str) -> Result<Setting<'a>, Failure> {
    let (value, source) = settings.lookup(key).ok_or_else(|| unknown(key))?;
    Ok(Setting { key, value, source })
}

fn get(ui: &Ui, settings: &Settings, key: &str) -> Result<(), Failure> {
    let setting = setting(settings, key)?;
    if ui.is_json() { ui.object(&setting, None) } else { ui.line(plain(&setting.value)) }
}

fn get_all(ui: &Ui, settings: &Settings) -> Result<(), Failure> {
    let settings = KEYS.iter().map(|key| setting(settings, key)).collect::<Result<Vec<_>, _>>()?;
    if ui.is_json() {
        return ui.object(&All { settings }, None);
    }
    let row = |setting: &Setting<'_>| {
        let source = match setting.source {
            Origin::Flag => "flag",
            Origin::Environment => "environment",
            Origin::File => "file",
            Origin::Default => "default",
        };
        [setting.key.to_owned(), source.to_owned(), plain(&setting.value)]
    };
    let rows: Vec<[String; 3]> = settings.iter().map(row).collect();
    text::table(&rows).iter().try_for_each(|line| ui.line(line))
}

fn set(ui: &Ui, settings: &Settings, key: &str, value: &str) -> Result<(), Failure> {
    let file = &settings.file;
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Failure::io(format!("reading {} failed", file.display()), &error))?,
    };
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| Failure::usage(error.to_string()))?;
    let (value, previous) = match (settings.lookup(key), value) {
        // Whatever else is wrong with the file, this does not make it worse.
        (known, "") => match table.remove(key) {
            None if known.is_none() => return Err(unknown(key)),
            previous => (None, previous),
        },
        (None, _) => return Err(unknown(key)),
        (Some((known, _)), value) => {
            let value = typed(key, value, &known)?;
            let previous = table.insert(key.to_owned(), value.clone());
            check(settings, key, &table)?;
            (Some(value), previous)
        }
    };
    let text = toml::to_string(&table).expect("a table of plain values");
    write(file, &text).map_err(|error| Failure::io(format!("writing {} failed", file.display()), &error))?;
    if ui.is_json() {
        return ui.object(&Changed { key, value, previous, path: file.to_string_lossy() }, None);
    }
    match value {
        Some(value) => ui.line(format!("{key} = {value}")),
        None => ui.line(format!("{key} is no longer set")),
    }
}

/// Refuses a file that the next command could not work with, in which the setting `changed` is new.
fn check(settings: &Settings, changed: &str, table: &toml::Table) -> Result<(), Failure> {
    let file = &settings.file;
    let blame = |key: &str, failure: Failure| {
        if key == changed {
            return failure;
        }
        failure.with_hint(format!("`ipcr config set {key} ''` takes it out of {}", file.display()))
    };
    for (key, value) in table {
        if !KEYS.contains(&key.as_str()) {
            return Err(blame(key, unknown(key)));
        }
        Layer::single(key, value).map_err(|failure| blame(key, failure))?;
        if key == "home" && settings.is_of_home() {
            let message = format!("`home` cannot be `{value}` in {}, which belongs to a home", file.display());
            let hint = "choose a home with `--home DIR` or IPCR_HOME";
            return Err(blame(key, Failure::usage(message).with_hint(hint)));
        }
    }
    let text = toml::to_string(table).expect("a table of plain values");
    let written = Layer::parse(&text, file)?;
    home::check(&settings.of_file(written)).map_err(|(key, failure)| blame(key, failure.of_setting(key)))
}

/// Reads a value as what the setting holds.
fn typed(key: &str, text: &str, known: &Value) -> Result<toml::Value, Failure> {
    let refuse = |what: &str| Failure::usage(format!("`{key}` takes {what}, not `{text}`"));
    Ok(match known {
        Value::Bool(_) => toml::Value::Boolean(text.parse().map_err(|_| refuse("true or false"))?),
        Value::Number(_) => toml::Value::Integer(text.parse().map_err(|_| refuse("a number"))?),
        Value::Array(_) => toml::Value::Array(text.split(',').map(|part| part.trim().into()).collect()),
        _ => toml::Value::from(text),
    })
}

/// Replaces the file in one step. Comments in it are lost, which is why it says so.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let fresh = file.with_extension("toml.new");
    std::fs::write(&fresh, format!("# Written by `ipcr config set`, which keeps no comments.\n{text}"))?;
    std::fs::rename(fresh, file)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn unknown(key: &str) -> Failure {
    Failure::new(ErrorKind::Usage, format!("there is no setting `{key}`")).with_hint("`ipcr config get` lists them all")
}

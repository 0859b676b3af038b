//! The command line of ipcr: options, settings, outputs, progress, hints and exit codes around `ipcr-core`, which does the work.
//!
//! * [`args`] is the command tree, [`commands`] has one file for each command.
//! * [`settings`] merges options, environment and configuration file; [`environment`] is what else is read from outside.
//! * [`ui`] is the only file that prints; [`progress`] shows running operations through it.
//! * [`failure`] and [`hints`] turn errors into messages, advice and exit codes.
//!
//! `--help`, `id` and whatever else needs no node start neither a runtime nor a node.

#![expect(dead_code, unused_variables, reason = "the commands that need a registry are not connected yet")]

mod args;
mod commands;
mod environment;
mod failure;
mod hints;
mod progress;
mod settings;
mod signals;
mod text;
mod ui;

use std::process::ExitCode;

use clap::error::ErrorKind as ClapKind;
use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::ui::Ui;

fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    let environment = Environment::read();
    let http = match &cli.command {
        Command::Serve(args) => args.http.as_deref(),
        _ => None,
    };
    let settings = match Settings::gather(&cli.global, http, &matches, &environment) {
        Ok(settings) => settings,
        Err(failure) => {
            let json = cli.global.output.map_or_else(wants_json, |output| output == args::Output::Json);
            Ui::early(json).failure(&failure);
            return ExitCode::from(failure.exit());
        }
    };
    let ui = Ui::new(&settings);
    match dispatch(&ui, &settings, &environment, &cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.exit())
        }
    }
}

fn dispatch(ui: &Ui, settings: &Settings, environment: &Environment, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Config(args) => commands::config::run(ui, settings, args),
        Command::Completions(args) => commands::completions::run(ui, args),
        _ => Err(Failure::new(ipcr_core::kind::ErrorKind::Failed, format!("{} is not wired yet", command.name()))),
    }
}

/// Answers what the argument parser has to say: help and version are results, anything else is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    let help = matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion);
    if help || !wants_json() {
        // A reader that has gone is no failure.
        let _ = error.print();
        return ExitCode::from(if help { 0 } else { 2 });
    }
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect::<Vec<_>>().join(" ");
    Ui::early(true).failure(&Failure::usage(message).with_hint("`ipcr --help` lists commands and options"));
    ExitCode::from(2)
}

/// Whether JSON is asked for, found without parsing: errors of parsing have to know.
fn wants_json() -> bool {
    let mut previous = String::new();
    for argument in std::env::args().skip(1).take_while(|argument| argument != "--") {
        let value = match previous.as_str() {
            "-o" | "--output" => argument.as_str(),
            _ => argument.strip_prefix("--output=").or_else(|| argument.strip_prefix("-o")).unwrap_or_default(),
        };
        if value.trim_start_matches('=') == "json" {
            return true;
        }
        previous = argument;
    }
    Environment::wants_json()
}

//! The command line of ipcr: options, settings, outputs, progress, hints and exit codes around `ipcr-core`, which does the work.
//!
//! * [`args`] is the command tree, [`commands`] has one file for each command.
//! * [`settings`] merges options, environment and configuration file; [`environment`] is what else is read from outside.
//! * [`ui`] is the only file that prints; [`progress`] shows running operations through it.
//! * [`failure`] and [`hints`] turn errors into messages, advice and exit codes.
//!
//! `--help`, `id` and whatever else needs no node start neither a runtime nor a node.

mod args;
mod commands;
mod context;
mod environment;
mod failure;
mod hints;
mod home;
mod progress;
mod session;
mod settings;
mod signals;
mod text;
mod ui;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use ipcr_core::registry::error::RegistryError;

use crate::args::{Cli, Command};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::session::Purpose;
use crate::settings::Settings;
use crate::ui::Ui;

/// Blocks are made in one thread and dropped in another, all the time. The allocator of glibc keeps the more memory for that, the
/// larger the image is (docs/design/007-where-the-time-goes.md).
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (cli, matches) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    let environment = Environment::read();
    let http = match &cli.command {
        Command::Serve(args) => args.http.as_deref(),
        _ => None,
    };
    let repairing = matches!(&cli.command, Command::Config(args) if args.repairs());
    let settings = match Settings::gather(&cli.global, http, &matches, &environment, repairing) {
        Ok(settings) => settings,
        Err(failure) => {
            let json = cli.global.output.map_or_else(wants_json, |output| output == args::Output::Json);
            let failure = failure.with_general_hint(cli.command.name());
            Ui::early(json).failure(&failure);
            return ExitCode::from(failure.exit());
        }
    };
    let ui = Ui::new(&settings);
    let command = &cli.command;
    let purpose = Purpose {
        ui: &ui,
        settings: &settings,
        environment: &environment,
        command: command.name(),
        remote: command.is_remote(),
        looks: command.looks(),
        holds: command.holds(),
    };
    // None is made to say that there is nothing in it.
    let nowhere = command.needs_home() && matches!(settings.home.try_exists(), Ok(false));
    let done = if nowhere {
        Err(Failure::registry(&RegistryError::NoRegistry, command.name()))
    } else {
        dispatch(purpose, command)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure = failure.with_general_hint(command.name());
            ui.failure(&failure);
            ExitCode::from(failure.exit())
        }
    }
}

/// Reads the command line and the variables of its options.
fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = tree(|_| true).try_get_matches().map_err(blame)?;
    Ok((Cli::from_arg_matches(&matches)?, matches))
}

/// The command tree with those variables of options that are `heeded` and not empty.
fn tree(heeded: impl Fn(&OsStr) -> bool) -> clap::Command {
    Cli::command().mut_args(|argument| {
        let skipped = |variable: &OsStr| !heeded(variable) || Environment::is_empty(variable);
        if argument.get_env().is_some_and(skipped) { argument.env(None::<&'static str>) } else { argument }
    })
}

/// Mends what the argument parser says about variables: a bad value of one is not the option's fault, and none of them is an
/// argument.
fn blame(mut error: clap::Error) -> clap::Error {
    match error.kind() {
        ClapKind::MissingSubcommand => {
            let bare = tree(|_| false).try_get_matches().err();
            bare.filter(|bare| bare.kind() == ClapKind::DisplayHelpOnMissingArgumentOrSubcommand).unwrap_or(error)
        }
        ClapKind::InvalidValue | ClapKind::ValueValidation => {
            if let Some(variable) = culprit(&error) {
                let variable = variable.to_string_lossy().into_owned();
                error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
            }
            error
        }
        _ => error,
    }
}

/// The variable from which a refused value comes; `None` if it comes from the command line.
fn culprit(error: &clap::Error) -> Option<OsString> {
    let Some(ContextValue::String(blamed)) = error.get(ContextKind::InvalidArg) else { return None };
    // Such as `--timeout <SECONDS>`.
    let end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
    let long = blamed.strip_prefix("--")?.split(end).next()?;
    let command = Cli::command();
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(long))?;
    let variable = argument.get_env()?;
    let again = tree(|other| other != variable).try_get_matches().err();
    let same = again.is_some_and(|again| again.get(ContextKind::InvalidArg) == error.get(ContextKind::InvalidArg));
    (!same).then(|| variable.to_owned())
}

fn dispatch(purpose: Purpose<'_>, command: &Command) -> Result<(), Failure> {
    let Purpose { ui, settings, .. } = purpose;
    match command {
        Command::Completions(args) => commands::completions::run(ui, args),
        Command::Config(args) => commands::config::run(ui, settings, args),
        Command::Id(_) => commands::id::run(ui, settings),
        Command::Key(args) => commands::key::run(purpose, args),
        Command::Init(args) => commands::init::run(purpose, args),
        Command::Push(args) => session::run(purpose, async |context| commands::push::run(context, args).await),
        Command::Pull(args) => session::run(purpose, async |context| commands::pull::run(context, args).await),
        Command::Resolve(args) => session::run(purpose, async |context| commands::resolve::run(context, args).await),
        Command::Ls(args) => session::run(purpose, async |context| commands::ls::run(context, args).await),
        Command::Inspect(args) => session::run(purpose, async |context| commands::inspect::run(context, args).await),
        Command::Tag(args) => session::run(purpose, async |context| commands::tag::run(context, args).await),
        Command::Rm(args) => session::run(purpose, async |context| commands::rm::run(context, args).await),
        Command::Publish(args) => session::run(purpose, async |context| commands::publish::run(context, args).await),
        Command::Cp(args) => session::run(purpose, async |context| commands::cp::run(context, args).await),
        Command::Serve(args) => commands::serve::run(purpose, args),
        Command::Trust(args) => session::run(purpose, async |context| commands::trust::run(context, args).await),
        Command::Df(args) => session::run(purpose, async |context| commands::df::run(context, args).await),
        Command::Gc(args) => session::run(purpose, async |context| commands::gc::run(context, args).await),
        Command::Check(args) => session::run(purpose, async |context| commands::check::run(context, args).await),
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
    let mut follows = false;
    for argument in std::env::args_os().skip(1).take_while(|argument| argument != "--") {
        let argument = argument.to_string_lossy();
        let short = short_output(&argument);
        let value = if follows { Some(&*argument) } else { argument.strip_prefix("--output=").or(short) };
        if value.is_some_and(|value| value.trim_start_matches('=') == "json") {
            return true;
        }
        follows = argument == "--output" || short == Some("");
    }
    Environment::wants_json()
}

/// What follows `-o` in one argument, before which other short options may stand.
fn short_output(argument: &str) -> Option<&str> {
    let (before, value) = argument.strip_prefix('-')?.split_once('o')?;
    before.chars().all(|flag| matches!(flag, 'q' | 'v')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_options_are_combined() {
        assert_eq!(short_output("-o"), Some(""));
        assert_eq!(short_output("-qvojson"), Some("json"));
        assert_eq!(short_output("--output"), None);
        assert_eq!(short_output("foo"), None);
    }
}

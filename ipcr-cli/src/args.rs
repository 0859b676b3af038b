//! The command tree: [`Cli`], the options that every command takes ([`Global`]), and [`Command`].
//!
//! Every global option is also an `IPCR_…` variable and a key of `config.toml` under its long name; [`crate::settings`] merges
//! the three.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Pushes and pulls container images over IPFS, without a server.
///
/// A registry is a directory on IPFS, published under a key and found by a domain name. `ipcr push` stores an image of
/// the container engine there, `ipcr pull` fetches one from anybody's registry, checks every byte and loads it.
#[derive(Debug, Parser)]
#[command(
    name = "ipcr",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Examples:
  ipcr init --domain your.domain
  ipcr push app:1 --serve
  ipcr pull some.domain/app:1

`ipcr COMMAND --help` has an example for each command."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch of the command line")]
pub(crate) struct Global {
    /// Where keys, blocks and settings are kept [default: ipcr in the XDG data directory]
    #[arg(long, global = true, value_name = "DIR", env = "IPCR_HOME", hide_env = true)]
    pub(crate) home: Option<PathBuf>,

    /// Prints only the result: no progress, no talk
    #[arg(short, long, global = true, env = "IPCR_QUIET", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) quiet: bool,

    /// Logs what happens inside; twice for more, three times for the libraries as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "IPCR_VERBOSE", hide_env = true)]
    pub(crate) verbose: u8,

    /// Form of the result
    #[arg(short, long, global = true, value_enum, value_name = "FORM", env = "IPCR_OUTPUT", hide_env = true)]
    pub(crate) output: Option<Output>,

    /// How progress is shown on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        env = "IPCR_PROGRESS",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) progress: Option<Progress>,

    /// Colours; `auto` also heeds `NO_COLOR`
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        env = "IPCR_COLOR",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) color: Option<Color>,

    /// Which addresses may be talked to: public, lan, loopback or private:KEYFILE [default: public]
    #[arg(long, global = true, value_name = "MODE", env = "IPCR_NETWORK", hide_env = true)]
    pub(crate) network: Option<String>,

    /// Address at which the node listens, or a relay's with /p2p-circuit (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "MULTIADDR",
        value_delimiter = ',',
        env = "IPCR_LISTEN",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) listen: Vec<String>,

    /// Peer to dial before anybody else (repeatable)
    #[arg(long, global = true, value_name = "MULTIADDR", value_delimiter = ',', env = "IPCR_PEER", hide_env = true)]
    pub(crate) peer: Vec<String>,

    /// Peer through which the network is entered, instead of the built-in ones (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "MULTIADDR",
        value_delimiter = ',',
        env = "IPCR_BOOTSTRAP",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) bootstrap: Vec<String>,

    /// Delegated router, `https://…` (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "IPCR_ROUTER",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) router: Vec<String>,

    /// Trustless gateway that is asked for records and, beside peers, for blocks, `https://…` (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "IPCR_GATEWAY",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) gateway: Vec<String>,

    /// DNS server to use instead of the system's: ADDR[:PORT] or `https://…` (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "SERVER",
        value_delimiter = ',',
        env = "IPCR_DNS",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) dns: Vec<String>,

    /// File with further DNSSEC trust anchors (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        value_delimiter = ',',
        env = "IPCR_DNS_ANCHOR",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) dns_anchor: Vec<PathBuf>,

    /// Uses no network at all
    #[arg(long, global = true, env = "IPCR_OFFLINE", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) offline: bool,

    /// Keeps from others what is fetched, and that it is
    #[arg(long, global = true, env = "IPCR_NO_SHARE", value_parser = BoolishValueParser::new(), hide_env = true, hide_short_help = true)]
    pub(crate) no_share: bool,

    /// How long to wait for a home that another process holds [default: 10]
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        env = "IPCR_LOCK_WAIT",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) lock_wait: Option<u64>,

    /// The longest time without progress in one stage [default: 60]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), env = "IPCR_TIMEOUT", hide_env = true)]
    pub(crate) timeout: Option<u64>,

    /// Accepts a kept record that has expired when nothing newer is found
    #[arg(long, global = true, env = "IPCR_ALLOW_STALE", value_parser = BoolishValueParser::new(), hide_env = true, hide_short_help = true)]
    pub(crate) allow_stale: bool,

    /// How much of what was pulled is kept: bytes (`20GiB`) or a part of the disk (`10%`) [default: 10%, at most 10 GiB]
    #[arg(long, global = true, value_name = "SIZE", env = "IPCR_CACHE_LIMIT", hide_env = true, hide_short_help = true)]
    pub(crate) cache_limit: Option<String>,

    /// The most bytes of blocks that are sent in a second, to all peers together (`500KiB`)
    #[arg(
        long,
        global = true,
        value_name = "BYTES",
        env = "IPCR_UPLOAD_LIMIT",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) upload_limit: Option<String>,

    /// The most bytes of blocks that are taken in a second, from all peers and gateways together
    #[arg(
        long,
        global = true,
        value_name = "BYTES",
        env = "IPCR_DOWNLOAD_LIMIT",
        hide_env = true,
        hide_short_help = true
    )]
    pub(crate) download_limit: Option<String>,

    /// What others get of what is here: all, own (not what was pulled) or nothing [default: all]
    #[arg(long, global = true, value_name = "WHAT", env = "IPCR_SHARE", hide_env = true, hide_short_help = true)]
    pub(crate) share: Option<String>,
}

/// Form of the result on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// One object, see docs/json.md.
    Json,
}

/// How progress is shown on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Progress {
    /// Bars on a terminal; else lines, or nothing with `--output json`.
    #[default]
    Auto,
    /// Bars.
    Tty,
    /// Lines, every few seconds.
    Plain,
    /// One JSON object per event.
    Json,
    /// Nothing.
    None,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Color {
    /// On a terminal that can, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::Args),
    Id(commands::id::Args),
    Key(commands::key::Args),
    Push(commands::push::Args),
    Pull(commands::pull::Args),
    Resolve(commands::resolve::Args),
    Ls(commands::ls::Args),
    Inspect(commands::inspect::Args),
    Tag(commands::tag::Args),
    Rm(commands::rm::Args),
    Publish(commands::publish::Args),
    Cp(commands::cp::Args),
    Serve(commands::serve::Args),
    Trust(commands::trust::Args),
    Df(commands::df::Args),
    Gc(commands::gc::Args),
    Check(commands::check::Args),
    Config(commands::config::Args),
    Completions(commands::completions::Args),
}

impl Command {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Id(_) => "id",
            Self::Key(_) => "key",
            Self::Push(_) => "push",
            Self::Pull(_) => "pull",
            Self::Resolve(_) => "resolve",
            Self::Ls(_) => "ls",
            Self::Inspect(_) => "inspect",
            Self::Tag(_) => "tag",
            Self::Rm(_) => "rm",
            Self::Publish(_) => "publish",
            Self::Cp(_) => "cp",
            Self::Serve(_) => "serve",
            Self::Trust(_) => "trust",
            Self::Df(_) => "df",
            Self::Gc(_) => "gc",
            Self::Check(_) => "check",
            Self::Config(_) => "config",
            Self::Completions(_) => "completions",
        }
    }

    /// Whether it only looks at what is in the home, so that one that cannot be written to will do.
    pub(crate) fn looks(&self) -> bool {
        match self {
            Self::Ls(_) | Self::Resolve(_) | Self::Inspect(_) | Self::Df(_) => true,
            Self::Check(args) => !args.repair || args.dry_run,
            Self::Gc(args) => args.dry_run,
            Self::Rm(args) => args.dry_run,
            Self::Trust(args) => matches!(args.action, commands::trust::Action::Ls),
            _ => false,
        }
    }

    /// Whether it edits the registry of a home, so that there has to be one.
    pub(crate) fn needs_home(&self) -> bool {
        matches!(self, Self::Push(_) | Self::Tag(_) | Self::Rm(_) | Self::Publish(_))
    }

    /// Whether it has to hold the home itself: it makes keys, or goes on serving.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Self::Init(_) | Self::Serve(_) => true,
            Self::Push(args) => args.serve,
            Self::Key(args) => args.action.holds(),
            _ => false,
        }
    }

    /// Whether a source or sink of it is in an OCI registry.
    pub(crate) fn is_remote(&self) -> bool {
        let is_remote = commands::medium::is_remote;
        match self {
            Self::Push(args) => is_remote(&args.source),
            Self::Pull(args) => args.into.as_deref().is_some_and(is_remote),
            Self::Cp(args) => is_remote(&args.source) || is_remote(&args.sink),
            _ => false,
        }
    }
}

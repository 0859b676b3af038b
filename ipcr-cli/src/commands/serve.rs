//! `ipcr serve`: the service.

/// Runs the node: others can pull what this home holds, and other commands work through it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr serve --listen /ip4/0.0.0.0/tcp/4001

One line is printed when it is ready. Ctrl-C or SIGTERM ends it.")]
pub(crate) struct Args {
    /// Where health is answered [default: 127.0.0.1:5050]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<String>,
}

//! The life of a command that needs a registry: runtime, registry, signals, and a graceful end.

use std::sync::atomic::Ordering;

use crate::context::Context;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::ui::Ui;

/// What a session is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) settings: &'a Settings,
    pub(crate) environment: &'a Environment,
    /// The command's name, for hints.
    pub(crate) command: &'static str,
    /// Whether it talks to OCI registries.
    pub(crate) remote: bool,
    /// Whether it only looks at what is in the home.
    pub(crate) looks: bool,
    /// Whether it has to hold the home itself, rather than work through the process that does.
    pub(crate) holds: bool,
}

/// Opens the registry, does the work, and ends gracefully, whether the work succeeded, failed or was interrupted. Interrupted work is
/// dropped, which cancels it.
pub(crate) fn run<F>(purpose: Purpose<'_>, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(&Context<'_>) -> Result<(), Failure>,
{
    purpose.ui.start_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("starting threads failed", &error))?;
    let result = runtime.block_on(session(purpose, work));
    // Whatever still blocks, such as a read of standard input, is not waited for.
    runtime.shutdown_background();
    result
}

async fn session<F>(purpose: Purpose<'_>, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(&Context<'_>) -> Result<(), Failure>,
{
    let mut signals = Signals::catch().map_err(|error| Failure::io("catching signals failed", &error))?;
    let context = tokio::select! {
        biased;
        () = signals.next() => return Err(Failure::interrupted()),
        context = Context::open(purpose) => context?,
    };
    let done = tokio::select! {
        biased;
        () = signals.next() => None,
        result = work(&context) => Some(result),
    };
    let Some(result) = done else {
        signals.end_at_the_next(purpose.ui);
        // What serves until interrupted has done what it was asked for.
        let result = if context.serving.load(Ordering::Relaxed) { Ok(()) } else { Err(Failure::interrupted()) };
        return result.and(context.stop().await);
    };
    // A signal from here on stops the waiting for those who work through this process.
    let waiting = context.close();
    let ended = tokio::select! {
        biased;
        ended = waiting => ended,
        () = signals.next() => Ok(()),
    };
    result.and(ended)
}

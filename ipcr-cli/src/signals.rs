//! Ctrl-C and `SIGTERM`: the first asks for a graceful end, the second ends at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::exit_code;
use crate::ui::Ui;

/// Both signals, caught.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to catch them.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Says that the end has begun, and ends the process when asked once more.
    pub(crate) fn end_at_the_next(mut self, ui: &Ui) {
        ui.talk("stopping; press Ctrl-C again to stop at once");
        tokio::spawn(async move {
            self.next().await;
            let code = exit_code(ipcr_core::kind::ErrorKind::Interrupted);
            std::process::exit(code.into());
        });
    }
}

//! What the programs in the `examples` folder share.
//!
//! * [`home`]: opening homes; [`hub`]: a registry to try things with.
//! * [`zone`]: a DNS server for one's own names.
//! * [`layout`]: making and comparing OCI image layouts.
//!
//! The programs work without arguments, without a network beyond loopback, and leave nothing behind.

pub mod home;
pub mod hub;
pub mod layout;
pub mod zone;

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use ipcr_core::kind::chain;

/// Any failure of an example.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs an example: prints what went wrong with all its causes, and says so in the exit code.
#[expect(clippy::print_stderr, reason = "examples talk to people")]
pub fn run(main: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, one per line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join("\ncaused by: ")
}

/// Bytes for people.
pub fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

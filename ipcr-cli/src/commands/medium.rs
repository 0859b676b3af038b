//! Sources and sinks as the commands take them: the library knows the spellings, the program has the standard streams.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::places::{Output, Sink, Source};

use crate::failure::Failure;
use crate::ui::Ui;

/// A source; `-` is standard input.
pub(crate) fn source(spec: ImageSpec) -> Result<Source, Failure> {
    if spec != ImageSpec::Stream {
        return Ok(Source::Spec(spec));
    }
    if io::stdin().is_terminal() {
        return Err(Failure::usage("standard input is a terminal, not an archive")
            .with_hint("`docker save app:1 | ipcr push -`"));
    }
    Ok(Source::Stream(Box::pin(file(io::stdin())?), "-".into()))
}

/// A sink; `-` is standard output, which then carries nothing else.
pub(crate) fn sink(ui: &Ui, spec: ImageSpec) -> Result<Sink, Failure> {
    if spec != ImageSpec::Stream {
        return Ok(Sink::Spec(spec));
    }
    if io::stdout().is_terminal() {
        let hint = "send it on: `… - | docker load`, or `… - > app.tar`";
        return Err(Failure::usage("an archive does not belong on a terminal").with_hint(hint));
    }
    ui.take_stdout();
    Ok(Sink::Stream(Output::new(file(io::stdout())?), "-".into()))
}

/// A standard stream without the small buffers that the runtime's own have.
fn file(stream: impl AsFd) -> Result<tokio::fs::File, Failure> {
    let descriptor = stream.as_fd().try_clone_to_owned();
    let descriptor = descriptor.map_err(|error| Failure::io("opening a standard stream failed", &error))?;
    Ok(tokio::fs::File::from_std(File::from(descriptor)))
}

/// Whether a source is an image of a container engine.
pub(crate) fn is_of_engine(spec: &ImageSpec) -> bool {
    matches!(spec, ImageSpec::Engine { .. })
}

/// Whether a source or sink is in an OCI registry.
pub(crate) fn is_remote(spelling: &str) -> bool {
    spelling.starts_with("docker://")
}

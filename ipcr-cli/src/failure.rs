//! Why a command failed, as it is shown: message, causes, hint and exit code.

use std::error::Error;
use std::fmt::Display;
use std::io;

use ipcr_core::kind::{ErrorKind, chain};
use ipcr_core::registry::error::{RegistryError, Topic};
use serde::Serialize;

use crate::hints;

/// A failure on its way to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// A failure as a program reads it.
#[derive(Debug, Serialize)]
struct Object<'a> {
    kind: ErrorKind,
    exit: u8,
    message: &'a str,
    causes: &'a [String],
    hint: Option<&'a str>,
}

impl Failure {
    /// A failure of this class, without causes.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// The command line or the configuration makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// The user stopped it.
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
            .with_hint("nothing half done is left; the same command begins again, with what it has stored so far")
    }

    /// There is nowhere to look for settings.
    pub(crate) fn no_home() -> Self {
        Self::usage("neither HOME nor IPCR_HOME is set").with_hint("say where ipcr may keep its data with `--home DIR`")
    }

    /// A file operation failed.
    pub(crate) fn io(message: impl Into<String>, error: &io::Error) -> Self {
        let kind = ErrorKind::of_io(error);
        Self::new(kind, message).caused_by(error)
    }

    /// An error of `command`.
    pub(crate) fn of(error: &(dyn Error + 'static), kind: ErrorKind, topic: Topic, command: &str) -> Self {
        let mut failure = Self::new(kind, error.to_string());
        failure.hint = hints::hint(kind, topic, command);
        match error.source() {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }

    /// An operation of the registry failed during `command`.
    pub(crate) fn registry(error: &RegistryError, command: &str) -> Self {
        Self::of(error, error.kind(), error.topic(), command)
    }

    /// Adds a cause and its causes. A cause that only repeats what has been said is left out.
    pub(crate) fn caused_by(mut self, cause: &(dyn Error + 'static)) -> Self {
        for cause in chain(cause) {
            let text = cause.to_string();
            let last = self.causes.last().unwrap_or(&self.message);
            if !last.ends_with(&text) {
                self.causes.push(text);
            }
            let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
            if self.hint.is_none() && cause.downcast_ref().is_some_and(broken) {
                self.hint = Some(hints::UNREAD.into());
            }
        }
        self
    }

    /// Blames a setting, which makes it a usage error whatever it was.
    pub(crate) fn of_setting(mut self, key: &str) -> Self {
        self.kind = ErrorKind::Usage;
        self.message = format!("`{key}`: {}", self.message);
        self
    }

    /// Adds advice.
    pub(crate) fn with_hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds what generally helps with such a failure of `command`, if nothing better is known.
    pub(crate) fn with_general_hint(mut self, command: &str) -> Self {
        self.hint = self.hint.or_else(|| hints::hint(self.kind, Topic::Other, command));
        self
    }

    /// What the process ends with.
    pub(crate) fn exit(&self) -> u8 {
        exit_code(self.kind)
    }

    /// What failed.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Why, nearest first.
    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The object of `-o json`, without `schema`.
    pub(crate) fn object(&self) -> impl Serialize + '_ {
        Object {
            kind: self.kind,
            exit: self.exit(),
            message: &self.message,
            causes: &self.causes,
            hint: self.hint.as_deref(),
        }
    }
}

/// The exit code of a class of failures.
pub(crate) fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Unavailable => 4,
        ErrorKind::Integrity => 5,
        ErrorKind::Access => 6,
        ErrorKind::Engine => 7,
        ErrorKind::Locked => 8,
        ErrorKind::DiskFull => 9,
        ErrorKind::Interrupted => 130,
        _ => 1,
    }
}

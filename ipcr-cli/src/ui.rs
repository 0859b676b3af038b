//! What reaches the user, and the only file that prints: results on standard output, talk on standard error.
//!
//! Whatever is shown as text goes through [`text::clean`] here, so that no name, description or error message from
//! elsewhere can send control sequences to a terminal. JSON is printed as it is: its readers are programs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressDrawTarget};
use ipcr_core::event::Warning;
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Color, Output, Progress};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::text;

/// The version of everything that `-o json` prints (docs/json.md).
const SCHEMA: u32 = 1;

/// The user's side of a command.
#[derive(Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    verbose: u8,
    color: ColorChoice,
    progress: Progress,
    bars: MultiProgress,
    stdout_taken: AtomicBool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a [Warning]>,
}

#[derive(Serialize)]
struct ErrorEnvelope<T> {
    schema: u32,
    error: T,
}

impl Ui {
    /// As the settings say.
    pub(crate) fn new(settings: &Settings) -> Self {
        let json = settings.output == Output::Json;
        let terminal = io::stderr().is_terminal();
        let progress = match settings.progress {
            _ if settings.quiet && settings.progress != Progress::Json => Progress::None,
            Progress::Auto if terminal => Progress::Tty,
            Progress::Auto if json => Progress::None,
            Progress::Auto => Progress::Plain,
            chosen => chosen,
        };
        let target = match progress {
            Progress::Tty => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        Self {
            json,
            quiet: settings.quiet,
            verbose: settings.verbose,
            color: color_choice(settings.color),
            progress,
            bars: MultiProgress::with_draw_target(target),
            stdout_taken: AtomicBool::new(false),
        }
    }

    /// For failures that occur before there are settings.
    pub(crate) fn early(json: bool) -> Self {
        Self {
            json,
            quiet: false,
            verbose: 0,
            color: color_choice(Color::Auto),
            progress: Progress::None,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            stdout_taken: AtomicBool::new(false),
        }
    }

    /// Whether the result is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether only the shortest result is wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How progress is to be shown; never [`Progress::Auto`].
    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Where bars are drawn; hidden unless progress is [`Progress::Tty`].
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// From now on standard output carries data, and results go to standard error.
    pub(crate) fn take_stdout(&self) {
        self.stdout_taken.store(true, Ordering::Relaxed);
    }

    /// Prints the command's object.
    pub(crate) fn object<T: Serialize>(&self, body: &T, warnings: Option<&[Warning]>) -> Result<(), Failure> {
        let envelope = Envelope { schema: SCHEMA, body, warnings };
        self.result(&serde_json::to_string(&envelope).expect("outcomes are plain data"))
    }

    /// Prints a line of the result.
    pub(crate) fn line(&self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.result(&text::clean(line.as_ref()))
    }

    /// Prints a line of the result that `--quiet` leaves out.
    pub(crate) fn detail(&self, line: impl AsRef<str>) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.line(line) }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
        })
    }

    fn result(&self, line: &str) -> Result<(), Failure> {
        self.bars.suspend(|| {
            if self.stdout_taken.load(Ordering::Relaxed) {
                written(writeln!(io::stderr().lock(), "{line}"))
            } else {
                let mut stdout = io::stdout().lock();
                written(writeln!(stdout, "{line}").and_then(|()| stdout.flush()))
            }
        })
    }

    /// Says something that is not the result.
    pub(crate) fn talk(&self, line: impl Display) {
        if !self.quiet && !self.json {
            self.say(None, &line.to_string());
        }
    }

    /// Prints a line of progress.
    pub(crate) fn progress_line(&self, line: &str) {
        self.say(None, line);
    }

    /// Prints an event for programs.
    pub(crate) fn progress_object(&self, event: &impl Serialize) {
        let line = serde_json::to_string(event).expect("events are plain data");
        self.bars.suspend(|| drop(writeln!(io::stderr().lock(), "{line}")));
    }

    /// Shows a warning as text; [`Ui::object`] and the progress events have it for programs.
    pub(crate) fn warning(&self, warning: &str) {
        if !self.json && self.progress != Progress::Json {
            self.say(Some(("warning", AnsiColor::Yellow)), warning);
        }
    }

    /// Gives advice that does not belong to a failure.
    pub(crate) fn hint(&self, hint: &str) {
        if !self.quiet && !self.json {
            self.say(Some(("hint", AnsiColor::Cyan)), hint);
        }
    }

    /// Shows why the command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            let envelope = ErrorEnvelope { schema: SCHEMA, error: failure.object() };
            return self.progress_object(&envelope);
        }
        self.say(Some(("error", AnsiColor::Red)), failure.message());
        for cause in failure.causes() {
            self.say(Some(("caused by", AnsiColor::Red)), cause);
        }
        if let Some(hint) = failure.hint() {
            self.say(Some(("hint", AnsiColor::Cyan)), hint);
        }
    }

    /// One line on standard error. That it cannot be written is nothing that could be told to anybody.
    fn say(&self, label: Option<(&str, AnsiColor)>, line: &str) {
        let line = text::clean(line);
        self.bars.suspend(|| {
            let mut stderr = AutoStream::new(io::stderr(), self.color).lock();
            let _ = match label {
                Some((label, color)) => {
                    let style = Style::new().bold().fg_color(Some(color.into()));
                    writeln!(stderr, "{style}{label}:{style:#} {line}")
                }
                None => writeln!(stderr, "{line}"),
            };
        });
    }

    /// Asks a question that is answered by yes or no; `None` when nobody can be asked. That little is to be said does not make anybody
    /// less careful. The terminal is read on a thread of its own,
    /// so that Ctrl-C ends the waiting.
    pub(crate) async fn confirm(&self, question: &str) -> Option<bool> {
        if self.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let _ = write!(io::stderr().lock(), "{} [y/N] ", text::clean(question));
        let reading = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).map(|_| answer)
        });
        let answer = reading.await.ok()?.ok()?;
        Some(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Asks for a passphrase on the terminal. Blocks the thread until it is entered, even in async code: whoever stopped waiting and
    /// ended the process would leave the terminal without echo. Ctrl-C arrives as a character meanwhile, and ends it.
    pub(crate) fn passphrase(&self, question: &str) -> Result<String, Failure> {
        let asked = self.bars.suspend(|| rpassword::prompt_password(format!("{}: ", text::clean(question))));
        asked.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Failure::interrupted(),
            _ => Failure::new(
                ipcr_core::kind::ErrorKind::Access,
                "a passphrase is needed and there is no terminal to ask on",
            )
            .caused_by(&error)
            .with_hint("set IPCR_PASSPHRASE"),
        })
    }

    /// Begins to show what the program and, from `-vvv` on, its libraries log.
    pub(crate) fn start_logging(&self) {
        let filter = match self.verbose {
            0 => "off",
            1 => "off,ipcr=info,ipcr_core=info",
            2 => "off,ipcr=debug,ipcr_core=debug,libp2p=info",
            _ => "debug,ipcr=trace,ipcr_core=trace",
        };
        if filter == "off" {
            return;
        }
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(self.color != ColorChoice::Never && io::stderr().is_terminal())
            .with_writer(LogWriter(self.bars.clone()));
        let _ = subscriber.try_init();
    }
}

/// Lets log lines pass between bars.
#[derive(Debug)]
struct LogWriter(MultiProgress);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(&self.0)
    }
}

#[derive(Debug)]
struct LogLine<'a>(&'a MultiProgress);

impl Write for LogLine<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn color_choice(color: Color) -> ColorChoice {
    match color {
        Color::Auto => AutoStream::choice(&io::stderr()),
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
}

/// A reader that has seen enough is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("writing to standard output failed", &error)
                .with_hint("check what standard output leads to, and whether there is room"))
        }
        _ => Ok(()),
    }
}

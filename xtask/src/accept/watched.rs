//! Pulls that are watched: how long they leave their watcher without news, and without bytes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::Home;
use super::site::require;
use crate::shell::{Result, show};

/// The longest time in seconds that a pull may leave its watcher without news, or without bytes while it fetches.
pub(crate) const STALL: f64 = 1.0;

/// A pull that succeeded. Times are in seconds.
pub(crate) struct Watched {
    /// The object that it printed.
    pub(crate) result: Value,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The longest time without any event, from the start of the program to its end.
    pub(crate) silence: f64,
    /// The longest time in which no more bytes came or were worked through, while blocks were fetched.
    pub(crate) stall: f64,
}

/// Runs `ipcr pull` with these arguments and watches its events; an error unless it succeeds and fetches.
pub(crate) fn pull(home: &Home<'_>, args: &[&str]) -> Result<Watched> {
    watch(command(home, args))
}

/// The same to be watched in another thread.
pub(crate) fn command(home: &Home<'_>, args: &[&str]) -> Command {
    let mut command = home.command(&["-o", "json", "--progress", "json", "pull"]);
    command.args(args);
    command
}

/// Runs what [`command`] made.
pub(crate) fn watch(mut command: Command) -> Result<Watched> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut clock = Clock::new(start);
    let mut talk = String::new();
    for line in BufReader::new(child.stderr.take().ok_or("a piped output is there")?).lines() {
        talk = line?;
        clock.line(&talk, Instant::now());
    }
    clock.end(Instant::now());
    let pulled = child.wait_with_output()?;
    let seconds = start.elapsed().as_secs_f64();
    require(pulled.status.success(), || format!("{} ended with {}: {talk}", show(&command), pulled.status))?;
    let result = serde_json::from_slice(&pulled.stdout)?;
    let stall = clock.stall.ok_or_else(|| format!("{} says nothing of fetching", show(&command)))?.as_secs_f64();
    Ok(Watched { result, seconds, silence: clock.silence.as_secs_f64(), stall })
}

/// What is known of the times between events.
struct Clock {
    /// When the last event came.
    news: Instant,
    silence: Duration,
    /// While blocks are fetched: when that began, or when bytes came last.
    bytes: Option<Instant>,
    /// The longest time without more bytes, once fetching has begun.
    stall: Option<Duration>,
    /// The last count of every blob, and of what was received.
    counts: HashMap<String, u64>,
}

impl Clock {
    fn new(start: Instant) -> Self {
        Self { news: start, silence: Duration::ZERO, bytes: None, stall: None, counts: HashMap::new() }
    }

    /// Takes note of a line that came at this time.
    fn line(&mut self, line: &str, now: Instant) {
        self.silence = self.silence.max(now.duration_since(self.news));
        self.news = now;
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let is_stage = event["event"] == "stage";
        if !is_stage && !self.is_more(&event) {
            return;
        }
        self.measure(now);
        if is_stage {
            self.bytes = (event["stage"] == "fetching").then_some(now);
        } else if self.bytes.is_some() {
            self.bytes = Some(now);
        }
    }

    /// The program has ended.
    fn end(&mut self, now: Instant) {
        self.silence = self.silence.max(now.duration_since(self.news));
        self.measure(now);
    }

    fn measure(&mut self, now: Instant) {
        if let Some(last) = self.bytes {
            self.stall = Some(self.stall.unwrap_or_default().max(now.duration_since(last)));
        }
    }

    /// Whether an event counts other bytes than the last one of its kind. A count that begins again is one, too.
    fn is_more(&mut self, event: &Value) -> bool {
        let (what, count) = match event["event"].as_str() {
            Some("received") => ("received", &event["bytes"]),
            Some("blob-progress") => (event["label"].as_str().unwrap_or_default(), &event["done"]),
            _ => return false,
        };
        let Some(count) = count.as_u64() else { return false };
        self.counts.insert(what.to_owned(), count) != Some(count) && count > 0
    }
}

//! Progress as plain lines: each stage at once, figures every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipcr_core::event::{Event, Stage};

use super::stage_name;
use crate::text;
use crate::ui::Ui;

/// The time between two lines of figures.
const PAUSE: Duration = Duration::from_secs(5);

/// The lines of one operation.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    ui: &'a Ui,
    stage: Option<Stage>,
    blobs: BTreeMap<String, Blob>,
    received: u64,
    peers: usize,
    last: Instant,
    last_done: u64,
}

#[derive(Debug)]
struct Blob {
    size: u64,
    done: u64,
    complete: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(ui: &'a Ui) -> Self {
        Self { ui, stage: None, blobs: BTreeMap::new(), received: 0, peers: 0, last: Instant::now(), last_done: 0 }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage } => {
                if *stage == Stage::Exporting {
                    // What was begun before an export begins once more in it.
                    self.blobs.clear();
                }
                self.stage = Some(*stage);
                self.last = Instant::now();
                self.ui.progress_line(stage_name(*stage));
            }
            Event::Name { kind, name, value, source } => {
                self.ui.progress_line(&format!("  {kind} {name}: {value} ({source})"));
            }
            Event::Peer { peer, address, relayed } => {
                let relay = if *relayed { " through a relay" } else { "" };
                self.ui.progress_line(&format!("  peer {peer} at {address}{relay}"));
            }
            Event::Gateway { url } => self.ui.progress_line(&format!("  gateway {url}")),
            Event::BlobStarted { label, size, .. } => {
                self.blobs.insert(label.clone(), Blob { size: *size, done: 0, complete: false });
            }
            Event::BlobProgress { label, done } => {
                if let Some(blob) = self.blobs.get_mut(label) {
                    blob.done = *done;
                }
            }
            Event::BlobDone { label, .. } => {
                if let Some(blob) = self.blobs.get_mut(label) {
                    blob.complete = true;
                    blob.done = blob.done.max(blob.size);
                }
            }
            Event::Received { bytes, peers } => (self.received, self.peers) = (*bytes, *peers),
            Event::Ready { addresses } => {
                for address in addresses {
                    self.ui.progress_line(&format!("  {address}"));
                }
            }
            _ => {}
        }
    }

    pub(super) fn tick(&mut self) {
        let passed = self.last.elapsed();
        if passed < PAUSE {
            return;
        }
        self.last = Instant::now();
        if let Some(line) = self.figures(passed) {
            self.ui.progress_line(&line);
        }
    }

    /// How far it is, `passed` after the last time that this was said.
    fn figures(&mut self, passed: Duration) -> Option<String> {
        let stage = self.stage.filter(|stage| *stage != Stage::Serving)?;
        let done = self.received.max(self.blobs.values().map(|blob| blob.done).fold(0, u64::saturating_add));
        let name = stage_name(stage);
        let mut parts = Vec::new();
        if done > 0 {
            let size = self.blobs.values().map(|blob| blob.size).fold(0, u64::saturating_add);
            let of = if size >= done { format!(" of {}", text::bytes(size)) } else { String::new() };
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
            let speed = done.saturating_sub(self.last_done).saturating_mul(1000) / millis;
            parts.push(format!("{}{of}", text::bytes(done)));
            parts.push(format!("{}/s", text::bytes(speed)));
            self.last_done = done;
        }
        if !self.blobs.is_empty() {
            let complete = self.blobs.values().filter(|blob| blob.complete).count();
            parts.push(format!("{complete} of {} blobs", self.blobs.len()));
        }
        if self.peers > 0 {
            parts.push(format!("{} peers", self.peers));
        }
        Some(if parts.is_empty() { name.to_owned() } else { format!("{name}: {}", parts.join(", ")) })
    }
}

#[cfg(test)]
mod tests {
    use ipcr_core::event::BlobFate;

    use super::*;

    #[test]
    fn figures_say_how_far_and_how_fast() {
        let ui = Ui::early(true);
        let mut lines = Lines::new(&ui);
        assert_eq!(lines.figures(PAUSE), None);
        lines.stage = Some(Stage::Fetching);
        assert_eq!(lines.figures(PAUSE).unwrap(), "fetching");
        for (label, done) in [("a", 1 << 20), ("b", 4 << 20)] {
            lines.event(&Event::BlobStarted { digest: None, label: label.into(), size: 8 << 20 });
            lines.event(&Event::BlobProgress { label: label.into(), done });
        }
        assert_eq!(lines.figures(PAUSE).unwrap(), "fetching: 5.0 MiB of 16.0 MiB, 1.0 MiB/s, 0 of 2 blobs");
        lines.event(&Event::BlobDone { label: "b".into(), fate: BlobFate::Delivered });
        lines.event(&Event::Received { bytes: 2 << 20, peers: 3 });
        assert_eq!(lines.figures(PAUSE).unwrap(), "fetching: 9.0 MiB of 16.0 MiB, 819 KiB/s, 1 of 2 blobs, 3 peers");
    }
}

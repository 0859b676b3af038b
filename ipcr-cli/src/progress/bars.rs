//! Progress on a terminal: one line for the stage, one bar for each blob in the works.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};
use ipcr_core::event::{BlobFate, Event, Stage};

use super::stage_name;
use crate::text;
use crate::ui::Ui;

/// The bars of one operation; dropping them clears them.
#[derive(Debug)]
pub(super) struct Bars<'a> {
    ui: &'a Ui,
    stage: ProgressBar,
    doing: &'static str,
    note: String,
    blobs: BTreeMap<String, ProgressBar>,
    complete: usize,
    skipped: usize,
}

impl<'a> Bars<'a> {
    pub(super) fn new(ui: &'a Ui) -> Self {
        let stage = ui.bars().add(ProgressBar::new_spinner());
        stage.set_style(style("{spinner} {wide_msg}"));
        Self { ui, stage, doing: "starting", note: String::new(), blobs: BTreeMap::new(), complete: 0, skipped: 0 }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage } => {
                self.doing = stage_name(*stage);
                self.note.clear();
                if matches!(stage, Stage::Serving | Stage::Exporting) {
                    // What was begun before an export begins once more in it.
                    self.clear_blobs();
                    (self.complete, self.skipped) = (0, 0);
                }
            }
            Event::Name { name, value, .. } => self.note = format!("{name} → {value}"),
            Event::Peer { peer, relayed, .. } => {
                let relay = if *relayed { " (relayed)" } else { "" };
                self.note = format!("{peer}{relay}");
            }
            Event::Gateway { url } => self.note.clone_from(url),
            Event::BlobStarted { label, size, .. } => self.start(label, *size),
            Event::BlobProgress { label, done } => {
                if let Some(bar) = self.blobs.get(label) {
                    bar.set_position(*done);
                }
            }
            Event::BlobDone { label, fate } => {
                if let Some(bar) = self.blobs.remove(label) {
                    bar.finish_and_clear();
                    self.ui.bars().remove(&bar);
                }
                self.complete += 1;
                self.skipped += usize::from(matches!(fate, BlobFate::Known | BlobFate::Present));
            }
            Event::Received { bytes, peers } => {
                let s = if *peers == 1 { "" } else { "s" };
                self.note = format!("{} from {peers} peer{s}", text::bytes(*bytes));
            }
            Event::Served { bytes, peers } => self.note = format!("{} served, {peers} peers", text::bytes(*bytes)),
            _ => return,
        }
        self.stage.set_message(self.message());
    }

    pub(super) fn tick(&mut self) {
        self.stage.tick();
    }

    fn message(&self) -> String {
        let done = match (self.complete, self.skipped) {
            (0, _) => String::new(),
            (complete, 0) => format!(", {complete} done"),
            (complete, skipped) => format!(", {complete} done ({skipped} were there)"),
        };
        let note = if self.note.is_empty() { String::new() } else { format!(" · {}", self.note) };
        text::clean(&format!("{}{done}{note}", self.doing)).into_owned()
    }

    fn start(&mut self, label: &str, size: u64) {
        let bar = self.ui.bars().add(ProgressBar::new(size));
        bar.set_style(match size {
            0 => style("  {msg:20} {binary_bytes} {binary_bytes_per_sec}"),
            _ => style("  {msg:20} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}"),
        });
        let short: String = text::clean(label).chars().take(20).collect();
        bar.set_message(short);
        self.blobs.insert(label.to_owned(), bar);
    }

    fn clear_blobs(&mut self) {
        for bar in std::mem::take(&mut self.blobs).into_values() {
            bar.finish_and_clear();
            self.ui.bars().remove(&bar);
        }
    }
}

impl Drop for Bars<'_> {
    fn drop(&mut self) {
        self.clear_blobs();
        self.stage.finish_and_clear();
        self.ui.bars().remove(&self.stage);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and right").progress_chars("=> ")
}

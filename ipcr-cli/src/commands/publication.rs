//! What `push`, `tag`, `rm` and `publish` say about the registry after a change.

use cid::Cid;
use ipcr_core::registry::outcome::EditOutcome;

use crate::failure::Failure;
use crate::ui::Ui;

/// The registry after a change.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    pub(crate) root: &'a Cid,
    pub(crate) ipns: &'a str,
    pub(crate) sequence: u64,
    pub(crate) published: bool,
    /// Whether it was not to be published.
    pub(crate) withheld: bool,
    pub(crate) holders: &'a [String],
    pub(crate) findable: Option<bool>,
}

impl Publication<'_> {
    /// Prints it.
    pub(crate) fn lines(&self, ui: &Ui) -> Result<(), Failure> {
        ui.detail(format!("root       {}", self.root))?;
        ui.detail(format!("registry   {}", self.ipns))?;
        ui.detail(match (self.published, self.sequence) {
            (true, sequence) => format!("published  yes, sequence {sequence}"),
            (false, _) if self.withheld => "published  no; `ipcr publish` does that".into(),
            (false, 0) => "published  no".into(),
            (false, sequence) => format!("published  not taken by anyone else yet, sequence {sequence}"),
        })?;
        if !self.holders.is_empty() {
            ui.detail(format!("held by    {}", self.holders.join(", ")))?;
        }
        match self.findable {
            Some(true) => ui.detail("findable   yes"),
            Some(false) => ui.detail("findable   not yet"),
            None => Ok(()),
        }
    }
}

/// Prints what `tag`, `rm` or `publish` did; the last line names what was changed.
pub(crate) fn edit_lines(ui: &Ui, outcome: &EditOutcome) -> Result<(), Failure> {
    let publication = Publication {
        root: &outcome.root,
        ipns: &outcome.ipns,
        sequence: outcome.sequence,
        published: outcome.published,
        withheld: false,
        holders: &outcome.holders,
        findable: outcome.findable,
    };
    publication.lines(ui)?;
    if outcome.unchanged {
        ui.detail("unchanged")?;
    }
    outcome.changed.iter().try_for_each(|changed| ui.line(changed))
}

//! How a chain of names looks.

use ipcr_core::naming::chain::{ChainStep, StepKind, TrustLevel};

use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Prints each step and why the chain is believed.
pub(crate) fn lines(ui: &Ui, chain: &[ChainStep], trust: TrustLevel) -> Result<(), Failure> {
    for step in chain {
        ui.detail(line(step))?;
    }
    ui.detail(format!("trust      {}", reason(trust)))
}

fn line(step: &ChainStep) -> String {
    let kind = match step.kind {
        StepKind::Dnslink => "dnslink",
        StepKind::Ipns => "ipns",
        StepKind::Ipfs => "ipfs",
    };
    let mut notes = Vec::new();
    if let Some(sequence) = step.sequence {
        notes.push(format!("sequence {sequence}"));
    }
    if let Some(until) = step.valid_until {
        notes.push(format!("valid until {}", until.format("%Y-%m-%d %H:%M UTC")));
    }
    if let Some(age) = step.age.filter(|age| *age > 0) {
        notes.push(format!("confirmed {} ago", text::seconds(age)));
    }
    notes.push(format!("from {}", step.source));
    format!("{kind:9}  {} = {} ({})", step.name, step.value, notes.join(", "))
}

/// Why a chain of names is believed, for people.
fn reason(trust: TrustLevel) -> &'static str {
    match trust {
        TrustLevel::Dnssec => "dnssec: the domain's records are signed",
        TrustLevel::Pinned => "pinned: the domain leads to the key that was remembered",
        TrustLevel::FirstUse => "first-use: the domain's key is remembered from now on",
        TrustLevel::Key => "key: the reference names the key itself",
        TrustLevel::Content => "content: the reference names the content itself",
        TrustLevel::DnsOnly => "dns-only: the domain leads to content, without a key",
    }
}

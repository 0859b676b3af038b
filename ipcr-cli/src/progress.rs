//! How a running operation looks: [`watch`] runs it and shows its events as bars, lines or JSON.

mod bars;
mod lines;

use std::time::Duration;

use ipcr_core::event::{Event, Stage, Warning};
use ipcr_core::registry::error::RegistryError;
use ipcr_core::registry::operation::Operation;

use crate::args::Progress;
use crate::text;
use crate::ui::Ui;

/// How often bars move.
const FRAME: Duration = Duration::from_millis(120);

/// Something that shows events.
#[derive(Debug)]
enum Renderer<'a> {
    Bars(bars::Bars<'a>),
    Lines(lines::Lines<'a>),
    Json(&'a Ui),
    Nothing,
}

impl<'a> Renderer<'a> {
    fn new(ui: &'a Ui) -> Self {
        match ui.progress() {
            Progress::Tty => Self::Bars(bars::Bars::new(ui)),
            Progress::Plain => Self::Lines(lines::Lines::new(ui)),
            Progress::Json => Self::Json(ui),
            Progress::Auto | Progress::None => Self::Nothing,
        }
    }

    fn event(&mut self, event: &Event) {
        match self {
            Self::Bars(bars) => bars.event(event),
            Self::Lines(lines) => lines.event(event),
            Self::Json(ui) => ui.progress_object(event),
            Self::Nothing => {}
        }
    }

    fn tick(&mut self) {
        match self {
            Self::Bars(bars) => bars.tick(),
            Self::Lines(lines) => lines.tick(),
            Self::Json(_) | Self::Nothing => {}
        }
    }
}

/// Runs an operation, shows what happens, and returns its result and the warnings on the way. Dropping the future cancels the
/// operation and takes the bars away.
pub(crate) async fn watch<T>(ui: &Ui, operation: Operation<T>) -> Result<(T, Vec<Warning>), RegistryError>
where
    T: Send + 'static,
{
    let (mut events, mut outcome) = operation.watch();
    let mut renderer = Renderer::new(ui);
    let mut warnings = Vec::new();
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut show = |event: Event, renderer: &mut Renderer<'_>| {
        renderer.event(&event);
        if let Event::Warning(warning) = event {
            ui.warning(&sentence(&warning));
            warnings.push(warning);
        }
    };
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => show(event, &mut renderer),
            result = &mut outcome => break result,
            _ = frames.tick() => renderer.tick(),
        }
    };
    while let Ok(event) = events.try_recv() {
        show(event, &mut renderer);
    }
    drop(renderer);
    result.map(|outcome| (outcome, warnings))
}

/// What is being done, for people.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Inspecting => "looking at the source",
        Stage::Resolving => "resolving",
        Stage::Connecting => "connecting",
        Stage::Exporting => "waiting for the first layer",
        Stage::Storing => "storing",
        Stage::Fetching => "fetching",
        Stage::Loading => "loading",
        Stage::Committing => "committing",
        Stage::Publishing => "publishing",
        Stage::Waiting => "waiting for others to hold it",
        Stage::Serving => "serving",
        _ => "working",
    }
}

/// What a sender of blocks is that goes by this name.
fn sender(name: &str) -> &'static str {
    if name.contains("://") { "gateway" } else { "peer" }
}

/// A warning as a sentence.
pub(crate) fn sentence(warning: &Warning) -> String {
    match warning {
        Warning::StaleAnswer { name, found, used } => {
            format!(
                "the network answered with an older record of {name} (sequence {found}); the kept one ({used}) is used"
            )
        }
        Warning::KeptRecord { name, age } => {
            let age = text::seconds(*age);
            format!("no record of {name} was found; the kept one, last confirmed {age} ago, is used")
        }
        Warning::BareDomain { domain } => {
            format!(
                "the DNSLink is at {domain} itself, where other software no longer looks; it belongs at _dnslink.{domain}"
            )
        }
        Warning::HandedOver { domain, from, to } => {
            format!("the key of {domain} has changed: {from} has handed over to {to}, which is remembered now")
        }
        Warning::DigestLost { repo_digest } => {
            format!(
                "the engine does not keep the manifest of {repo_digest}; `ipcr push docker://{repo_digest}` keeps it"
            )
        }
        Warning::Recompressed { from, to, left_out } => {
            let about = match left_out {
                0 => String::new(),
                1 => "; one signature or attestation of the old one was left out".into(),
                count => format!("; {count} signatures and attestations of the old one were left out"),
            };
            format!("the layers were compressed again, so that the digest is {to} instead of {from}{about}")
        }
        Warning::OnlyHolder => {
            "only this machine holds the image; it can be pulled once 'ipcr serve' runs or a mirror or pin holds it"
                .into()
        }
        Warning::NoEarlierRecord { name } => format!(
            "the key of this registry was imported, and no record of {name} was found: if other homes have published, their images are merged once one of them can be reached"
        ),
        Warning::NotPublished { reason } => format!("the record was not handed to anyone: {reason}"),
        Warning::BadPeer { peer, reason } => format!("{} {peer} was dropped: {reason}", sender(peer)),
        Warning::Other { message } => message.clone(),
        other => serde_json::to_string(other).expect("warnings are plain data"),
    }
}

//! `ipcr serve`: the service.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipcr_core::event::{Event, Stage};
use ipcr_core::net::addresses;
use ipcr_core::registry::error::{RegistryError, Topic};
use ipcr_core::serve::{ServeError, Service};
use multiaddr::Multiaddr;
use serde::Serialize;

use crate::args::Progress;
use crate::context::Context;
use crate::failure::Failure;
use crate::home;
use crate::session::{self, Purpose};
use crate::ui::Ui;

/// How often the registry's record is signed anew.
const REFRESH: Duration = Duration::from_secs(4 * 3600);

/// How soon a record that nobody took is handed out again, at first.
const RETRY: Duration = Duration::from_secs(60);

/// Runs the node: others can pull what this home holds, and other commands work through it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr serve --listen /ip4/0.0.0.0/tcp/4001

One line is printed when it is ready. Ctrl-C or SIGTERM ends it.")]
pub(crate) struct Args {
    /// Where health is answered [default: 127.0.0.1:5050]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<String>,

    /// Does not publish what was pushed with `--no-publish`; what is published stays so
    #[arg(long)]
    pub(crate) no_publish: bool,
}

/// The line that says that it is ready, as programs read it.
#[derive(Serialize)]
struct Line<'a> {
    ready: bool,
    http: &'a str,
    ipns: Option<String>,
    node: Node,
    home: Cow<'a, str>,
}

#[derive(Serialize)]
struct Node {
    peer_id: Option<String>,
    addresses: Vec<Multiaddr>,
}

pub(crate) fn run(purpose: Purpose<'_>, args: &Args) -> Result<(), Failure> {
    // Before the home is opened: an address that makes no sense leaves nothing behind.
    let address = home::http(&purpose.settings.place("http"), &purpose.settings.http)?;
    session::run(purpose, async |context| answer(context, address, args.no_publish).await)
}

async fn answer(context: &Context<'_>, address: SocketAddr, only_published: bool) -> Result<(), Failure> {
    context.set_serving();
    let addresses = context.registry.holder().start_node().await.map_err(|error| context.failure(&error))?;
    let ipns = match context.registry.identity().await {
        Ok(identity) => Some(identity.ipns),
        Err(RegistryError::NoRegistry) => None,
        Err(error) => return Err(context.failure(&error)),
    };
    let service = Service::start(Arc::clone(context.registry.holder()), address).await.map_err(|error| {
        let hint = match error {
            ServeError::Remote { .. } => "the service is for this machine alone: use a loopback address",
            _ => "another port: `--http 127.0.0.1:0` takes any that is free",
        };
        Failure::of(&error, error.kind(), Topic::Other, context.command).with_hint(hint)
    })?;
    let http = service.url();
    let mut told: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    told.push(http.clone());
    let peer_id = addresses.iter().find_map(addresses::peer).map(|peer| peer.to_string());
    let home = context.settings.home.to_string_lossy();
    let ready = Line { ready: true, http: &http, ipns, node: Node { peer_id, addresses }, home };
    if context.ui.is_json() {
        context.ui.object(&ready, None)?;
    } else {
        let peer = ready.node.peer_id.as_deref().unwrap_or("offline");
        let registry = ready.ipns.as_deref().unwrap_or("no registry yet");
        context.ui.line(format!("ready: {registry} at {} addresses as {peer}, {http}", ready.node.addresses.len()))?;
    }
    tell(context.ui, None, told);
    serve(context, only_published).await
}

/// Says where is served, on standard error: as lines, or as events for programs.
pub(crate) fn tell(ui: &Ui, heading: Option<&str>, addresses: Vec<String>) {
    if ui.progress() == Progress::Json {
        ui.progress_object(&Event::Stage { stage: Stage::Serving });
        ui.progress_object(&Event::Ready { addresses });
        return;
    }
    if let Some(heading) = heading {
        ui.talk(heading);
    }
    for address in addresses {
        ui.talk(format!("  {address}"));
    }
}

/// Keeps the registry findable, for as long as it is not interrupted; with `only_published`, what is published already.
pub(crate) async fn serve(context: &Context<'_>, only_published: bool) -> Result<(), Failure> {
    let (refreshed, provided) = tokio::join!(keep_fresh(context, only_published), context.keep_provided());
    refreshed.and(provided)
}

/// Keeps the registry's record fresh.
async fn keep_fresh(context: &Context<'_>, only_published: bool) -> Result<(), Failure> {
    let (mut pause, mut told) = (RETRY, false);
    loop {
        let refreshed = context.refresh(only_published).await;
        if let (Err(failure), false) = (&refreshed, told) {
            context.ui.warning(&format!("the registry could not be published again: {}", failure.message()));
        }
        told = refreshed.is_err();
        if refreshed.unwrap_or(false) {
            tokio::time::sleep(REFRESH).await;
            pause = RETRY;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REFRESH);
        }
    }
}

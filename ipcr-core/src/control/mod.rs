//! The home's socket: serving the facade to other processes.
//!
//! Whoever holds a home serves its socket ([`Control::serve`]), whatever its own command is, so that others can work at the
//! same time. Clients are processes of the same user. Each call runs in a task of its own, and ends with its client; store
//! sessions of a vanished client leave their blocks leased. When the holder's own command is done it goes on until no client
//! is left ([`Control::drain`]): those who come meanwhile would otherwise wait for a lock that others keep. A holder that is told
//! to stop lets nobody new in.
//!
//! [`open`] puts the two together: a home is held and served, or worked on through the process that holds it. [`builder`] says
//! how.

pub mod builder;
mod call;
mod client;
pub mod open;
#[cfg(test)]
mod tests;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::kind::ErrorKind;
use crate::limits;
use crate::registry::holder::Holder;
use crate::registry::remote::socket;

/// A home's socket being served. Dropping it turns all clients away; [`Control::drain`] lets them finish first.
#[must_use = "dropping it turns all clients away"]
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    draining: CancellationToken,
    /// Cancelled when nobody new is let in.
    shut: CancellationToken,
    clients: watch::Receiver<usize>,
    serving: JoinHandle<()>,
}

/// Why a home's socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path} failed")]
pub struct ControlError {
    /// The socket.
    pub path: String,
    /// What was being done.
    pub doing: &'static str,
    /// Why.
    pub source: io::Error,
}

impl ControlError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of_io(&self.source)
    }
}

impl Control {
    /// Serves the socket of a home whose lock this process holds: whatever socket is there is a dead one's and is
    /// replaced. Needs a tokio runtime.
    pub fn serve(home: &Path, holder: Arc<dyn Holder>) -> Result<Self, ControlError> {
        let failed = |path: &Path, doing| {
            let path = path.display().to_string();
            move |source| ControlError { path, doing, source }
        };
        let path = socket::path(home).map_err(failed(home, "finding the socket of"))?;
        socket::prepare_folder(&path, home).map_err(failed(&path, "making the directory of"))?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, "removing")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed(&path, "listening on"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed(&path, "protecting"))?;
        let (draining, shut) = (CancellationToken::new(), CancellationToken::new());
        let (count, clients) = watch::channel(0);
        let accepting = Accepting { holder, draining: draining.clone(), shut: shut.clone(), count };
        let serving = tokio::spawn(accepting.run(listener, path.clone()));
        Ok(Self { path, draining, shut, clients, serving })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many clients are attached.
    pub fn clients(&self) -> usize {
        *self.clients.borrow()
    }

    /// Returns when no client is left; new ones are taken for as long as there are others.
    pub async fn drain(mut self) {
        self.drained().await;
    }

    /// Takes no new clients and returns when those attached are gone.
    pub async fn stop(mut self) {
        self.shut.cancel();
        self.drained().await;
    }

    async fn drained(&mut self) {
        self.draining.cancel();
        // It ends by itself; a panic in it has ended the clients too.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if !self.draining.is_cancelled() {
            let _ = fs::remove_file(&self.path);
        }
        self.serving.abort();
    }
}

/// What takes clients in.
struct Accepting {
    holder: Arc<dyn Holder>,
    draining: CancellationToken,
    shut: CancellationToken,
    count: watch::Sender<usize>,
}

impl Accepting {
    async fn run(self, listener: UnixListener, path: PathBuf) {
        let mut clients = JoinSet::new();
        while !(self.shut.is_cancelled() || self.draining.is_cancelled() && clients.is_empty()) {
            tokio::select! {
                () = self.shut.cancelled() => {}
                () = self.draining.cancelled(), if !self.draining.is_cancelled() => {}
                Some(_) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if clients.len() < limits::CONTROL_CLIENTS && is_trusted(&stream) => {
                        clients.spawn(client::serve(stream, self.holder.clone()));
                    }
                    // Turned away by closing: it will find the home locked.
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a client could not be accepted");
                        // Out of file descriptors, most likely: trying again at once would only spin.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                },
            }
            self.count.send_replace(clients.len());
        }
        // First nobody new finds it, then those in the queue are turned away.
        let _ = fs::remove_file(&path);
        drop(listener);
        while clients.join_next().await.is_some() {
            self.count.send_replace(clients.len());
        }
    }
}

fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|other| socket::is_trusted(other.uid()))
}

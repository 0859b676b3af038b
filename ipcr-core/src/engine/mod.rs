//! Container engines: Docker 20.10 to 29 and Podman through its Docker API.
//!
//! * [`discovery`]: where an engine may listen, and which one answers.
//! * [`docker`]: [`docker::DockerEngine`], the [`crate::port::engine::Engine`] behind that socket, and the only file that
//!   names the client library.
//! * `in_place`: images where a Docker on this machine keeps them, for whoever may read its folders.
//!
//! Nothing here looks into an archive: an engine takes and gives byte streams. Facts about what the engines do with them are
//! collected in `docs/design/002-engine-facts.md`.

pub mod discovery;
pub mod docker;

mod answer;
mod in_place;

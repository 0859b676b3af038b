//! What engines say about themselves and about a load, in words of their own.

use crate::port::engine::{EngineStore, Loaded};

/// Collects what a load brought from the lines of the engine's answer.
///
/// Docker writes `Loaded image: NAME` or `Loaded image ID: sha256:…`, one per line; Podman one line with all names, joined by
/// commas.
pub(super) fn loaded(line: &str, loaded: &mut Loaded) {
    for line in line.lines().map(str::trim) {
        if let Some(id) = line.strip_prefix("Loaded image ID:") {
            loaded.ids.push(id.trim().to_owned());
        } else if let Some(names) = line.strip_prefix("Loaded image:").or_else(|| line.strip_prefix("Loaded image(s):"))
        {
            for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let list = if name.starts_with("sha256:") { &mut loaded.ids } else { &mut loaded.names };
                list.push(name.to_owned());
            }
        }
    }
}

/// The engine's words when `chunk` of an export is no archive but the error that ended it: engines append it to the bytes
/// that they have sent already.
pub(super) fn export_error(chunk: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(rename = "errorDetail")]
        detail: Detail,
    }
    #[derive(serde::Deserialize)]
    struct Detail {
        message: String,
    }
    if !chunk.starts_with(br#"{"errorDetail""#) {
        return None;
    }
    serde_json::from_slice::<Line>(chunk).ok().map(|line| line.detail.message)
}

/// Whether a component of that name makes an engine Podman.
pub(super) fn is_podman(component: &str) -> bool {
    component.to_ascii_lowercase().starts_with("podman")
}

/// How Docker keeps images, from the status lines of its storage driver.
pub(super) fn docker_store<'a>(mut driver: impl Iterator<Item = (&'a str, &'a str)>) -> EngineStore {
    if driver.any(|line| line == ("driver-type", "io.containerd.snapshotter.v1")) {
        EngineStore::Containerd
    } else {
        EngineStore::Classic
    }
}

/// Whether the engine reads zstd layers on load: Docker since 23.0, containerd's store and Podman always.
pub(super) fn reads_zstd(store: EngineStore, version: &str) -> bool {
    store != EngineStore::Classic || major(version).is_some_and(|major| major >= 23)
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// The smaller of two API versions, compared as numbers.
pub(super) fn older<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    let number = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    Some(if number(a)? <= number(b)? { a } else { b })
}

/// A name split into repository and tag; `latest` where there is none.
pub(super) fn repository_and_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// Podman's API puts `docker.io/library/` before a name without a host; `podman` itself puts `localhost/` there, and so
/// do we.
pub(super) fn podman_name(name: &str) -> String {
    let host = name.split_once('/').map(|(host, _)| host);
    match host {
        Some(host) if host.contains('.') || host.contains(':') || host == "localhost" => name.to_owned(),
        _ => format!("localhost/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_a_load() {
        let mut all = Loaded::default();
        for line in [
            "Loaded image: app:1\n",
            "Loaded image ID: sha256:12\n",
            "Loaded image: localhost/a:1,localhost/b:2\n",
            "Loaded image: sha256:34",
            "The image app:1 already exists, renaming the old one with ID sha256:56 to empty string\n",
            "Loading layer",
        ] {
            loaded(line, &mut all);
        }
        assert_eq!(all.names, ["app:1", "localhost/a:1", "localhost/b:2"]);
        assert_eq!(all.ids, ["sha256:12", "sha256:34"]);
    }

    #[test]
    fn an_error_behind_an_export() {
        let line = b"{\"errorDetail\":{\"message\":\"no space left\"},\"error\":\"no space left\"}\r\n";
        assert_eq!(export_error(line).as_deref(), Some("no space left"));
        assert_eq!(export_error(b"{\"errorDetail\":{\"mess"), None);
        assert_eq!(export_error(&[0; 512]), None);
    }

    #[test]
    fn stores_by_what_engines_say() {
        let snapshotter = ("driver-type", "io.containerd.snapshotter.v1");
        let overlay = ("Backing Filesystem", "extfs");
        assert_eq!(docker_store([overlay].into_iter()), EngineStore::Classic);
        assert_eq!(docker_store([overlay, snapshotter].into_iter()), EngineStore::Containerd);
        assert!(is_podman("Podman Engine") && !is_podman("Engine") && !is_podman("containerd"));
        assert!(!reads_zstd(EngineStore::Classic, "20.10.24+dfsg1"));
        assert!(reads_zstd(EngineStore::Classic, "23.0.0") && reads_zstd(EngineStore::Podman, "4.3.1"));
        assert!(!reads_zstd(EngineStore::Classic, "dev"));
    }

    #[test]
    fn versions_and_names() {
        assert_eq!(older("1.41", "1.9"), Some("1.9"));
        assert_eq!(older("1.53", "1.41"), Some("1.41"));
        assert_eq!(older("x", "1.41"), None);
        assert_eq!(repository_and_tag("h:5000/a"), ("h:5000/a", "latest"));
        assert_eq!(repository_and_tag("h:5000/a:1"), ("h:5000/a", "1"));
        assert_eq!(podman_name("app:1"), "localhost/app:1");
        assert_eq!(podman_name("team/app:1"), "localhost/team/app:1");
        assert_eq!(podman_name("hub.test/app:1"), "hub.test/app:1");
    }
}

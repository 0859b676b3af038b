//! The peers that the tests run against: which programs there are, and how they are installed.
//!
//! Debian packages are installed with `apt-get`; Kubo is built from its Go module, whose version and checksums are pinned in
//! `xtask/peers/kubo`; Helia and the Node.js that it needs come from npm, pinned in `xtask/peers/helia`. A Docker engine of the
//! tests' own is started on a socket of its own, so that nothing on the machine is touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Result, on_path, run};

/// A program that some test needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The executable.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
}

/// Everything that comes from Debian.
pub(crate) const DEBIAN: &[Peer] = &[
    Peer { program: "dockerd", package: "docker.io" },
    Peer { program: "podman", package: "podman" },
    Peer { program: "skopeo", package: "skopeo" },
    Peer { program: "buildah", package: "buildah" },
    Peer { program: "umoci", package: "umoci" },
    Peer { program: "containerd", package: "containerd" },
    Peer { program: "docker-registry", package: "docker-registry" },
    Peer { program: "dnsmasq", package: "dnsmasq-base" },
    Peer { program: "knotd", package: "knot" },
    Peer { program: "socat", package: "socat" },
    Peer { program: "bsdtar", package: "libarchive-tools" },
    Peer { program: "ip", package: "iproute2" },
    Peer { program: "iptables", package: "iptables" },
    Peer { program: "busybox", package: "busybox-static" },
    Peer { program: "cmake", package: "cmake" },
    Peer { program: "npm", package: "npm" },
];

/// The version of cargo-deny that is built.
const CARGO_DENY: &str = "0.20.2";

/// Where programs built by `install` are kept, relative to the checkout.
const BUILT: &str = ".peers/bin";

/// Where Helia and the scripts that use it are kept, relative to the checkout.
const HELIA: &str = ".peers/helia";
/// What is copied there to install it; the scripts follow when they are run.
const HELIA_PINS: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// The folder of programs that `install` built.
pub(crate) fn built_dir(root: &Path) -> PathBuf {
    root.join(BUILT)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// Finds a program on the path or among those that were built here.
pub(crate) fn find(root: &Path, program: &str) -> Option<PathBuf> {
    let built = built_dir(root).join(program);
    if built.is_file() { Some(built) } else { on_path(program) }
}

/// The Node.js that was installed for Helia, and a script beside its packages, as it is in the checkout.
pub(crate) fn helia(root: &Path, script: &str) -> Result<(PathBuf, PathBuf)> {
    let dir = root.join(HELIA);
    let node = helia_node(&dir).ok_or("SKIPPED: Helia is not installed")?;
    for entry in std::fs::read_dir(root.join("xtask/peers/helia"))? {
        let from = entry?.path();
        if let (Some("mjs"), Some(name)) = (from.extension().and_then(|end| end.to_str()), from.file_name()) {
            std::fs::copy(&from, dir.join(name))?;
        }
    }
    Ok((node, dir.join(script)))
}

/// The Node.js of this machine's processor.
fn helia_node(dir: &Path) -> Option<PathBuf> {
    let programs = ["x64", "arm64"].map(|cpu| dir.join(format!("node_modules/node-linux-{cpu}/bin/node")));
    programs.into_iter().find(|program| program.is_file())
}

/// Installs Helia, unless what is there was installed from the same pins.
fn install_helia(root: &Path) -> Result {
    let (from, dir) = (root.join("xtask/peers/helia"), root.join(HELIA));
    let pinned = |dir: &Path| std::fs::read(dir.join(HELIA_PINS[1])).ok();
    if helia_node(&dir).is_some() && pinned(&dir) == pinned(&from) {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    for name in HELIA_PINS {
        std::fs::copy(from.join(name), dir.join(name))?;
    }
    // Scripts of packages would build or fetch what is not needed here.
    run(Command::new("npm").current_dir(&dir).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
}

/// Installs everything that is missing. Needs root and the package registries.
pub(crate) fn install(root: &Path) -> Result {
    let missing: Vec<&str> =
        DEBIAN.iter().filter(|peer| on_path(peer.program).is_none()).map(|peer| peer.package).collect();
    if !missing.is_empty() {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        run(Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&missing))?;
    }
    if find(root, "ipfs").is_none() {
        let bin = built_dir(root);
        std::fs::create_dir_all(&bin)?;
        run(Command::new("go")
            .current_dir(root.join("xtask/peers/kubo"))
            .env("CGO_ENABLED", "0")
            .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(bin.join("ipfs"))
            .arg("github.com/ipfs/kubo/cmd/ipfs"))?;
    }
    install_helia(root)?;
    if find(root, "cargo-deny").is_none() {
        run(Command::new("cargo")
            .current_dir(root)
            .args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY, "--root"])
            .arg(root.join(".peers")))?;
    }
    Ok(())
}

//! A stock registry.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::lab::{Lab, Process, free_port, wait_for};
use crate::shell::Result;

/// `docker-registry` on loopback, empty when it starts.
pub(crate) struct Registry {
    /// Its address.
    pub(crate) host: String,
    pub(crate) service: Process,
}

impl Registry {
    /// Starts one that keeps what it gets in a folder of the laboratory.
    pub(crate) fn start(lab: &Lab, name: &str) -> Result<Self> {
        let storage = lab.path(name);
        if storage.exists() {
            fs::remove_dir_all(&storage)?;
        }
        let host = format!("127.0.0.1:{}", free_port()?);
        let config = storage.with_extension("yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            storage.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(lab.peer("docker-registry")?);
        command.arg("serve").arg(&config).stdout(Stdio::null());
        let service = Process::start(&mut command, &storage.with_extension("log"))?;
        wait_for("the registry", Duration::from_secs(20), || std::net::TcpStream::connect(&host).is_ok())?;
        Ok(Self { host, service })
    }
}

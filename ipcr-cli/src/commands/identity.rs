//! How a registry's identity looks, and how its keys are read from a file.

use std::io::{self, Read};

use ipcr_core::identity::bundle;
use ipcr_core::limits;
use ipcr_core::registry::outcome::Identity;

use crate::environment::Environment;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Prints who a registry is and what belongs in DNS.
pub(crate) fn lines(ui: &Ui, identity: &Identity) -> Result<(), Failure> {
    if ui.is_quiet() {
        return ui.line(&identity.ipns);
    }
    if let Some(title) = &identity.title {
        ui.line(format!("title      {title}"))?;
    }
    ui.line(format!("registry   {}", identity.ipns))?;
    ui.line(format!("did        {}", identity.did))?;
    ui.line(format!("recipient  {}", identity.recipient))?;
    ui.line(format!("node       {}", identity.node.peer_id))?;
    for address in &identity.node.addresses {
        ui.line(format!("address    {address}"))?;
    }
    let Some(domain) = &identity.domain else {
        ui.hint(&format!(
            "a domain of yours can point here: TXT at _dnslink.your.domain, \"dnslink=/ipns/{}\"",
            identity.ipns
        ));
        return Ok(());
    };
    ui.line("")?;
    ui.line(format!("TXT records for {domain}:"))?;
    let rows: Vec<[String; 2]> =
        identity.txt.iter().map(|record| [record.name.clone(), format!("\"{}\"", record.value)]).collect();
    text::table(&rows).iter().try_for_each(|line| ui.line(line))
}

/// Reads a file of keys, or standard input for `-`, and the passphrase that it needs if any.
pub(crate) fn read_keys(ui: &Ui, file: &str) -> Result<(Vec<u8>, Option<String>), Failure> {
    let bytes = match file {
        "-" => bounded(io::stdin().lock()),
        path => std::fs::File::open(path).and_then(bounded),
    };
    let bytes = bytes.map_err(|error| Failure::io(format!("reading the keys from {file} failed"), &error))?;
    let passphrase = match (bundle::is_encrypted(&bytes), Environment::passphrase()) {
        (false, _) => None,
        (true, Some(passphrase)) => Some(passphrase),
        (true, None) => Some(ui.passphrase(&format!("Passphrase of {file}"))?),
    };
    Ok((bytes, passphrase))
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than the limit, so that the library sees that it is exceeded.
    let bound = u64::try_from(limits::KEY_FILE_BYTES).expect("a small constant") + 1;
    reader.take(bound).read_to_end(&mut bytes)?;
    Ok(bytes)
}

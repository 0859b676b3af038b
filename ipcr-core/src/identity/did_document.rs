//! The DID document of a registry, which lies at `/.well-known/did.json` in its tree.
//!
//! Sources: W3C DID Core 1.0; did:web and did:key methods; Controlled Identifiers 1.0, "Multikey".

use serde::{Deserialize, Serialize};

use super::{Recipient, RegistryKey};
use crate::reference::did;
use crate::reference::domain::Domain;

const CONTEXTS: [&str; 2] = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"];

/// A DID document. Members are written in this order, so that equal keys give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DidDocument {
    /// The JSON-LD contexts.
    #[serde(rename = "@context")]
    pub context: Vec<String>,
    /// `did:web:<domain>`, or the `did:key` where there is no domain.
    pub id: String,
    /// The other spellings: `did:key` and `ipns://<name>`.
    pub also_known_as: Vec<String>,
    /// The registry key.
    pub verification_method: Vec<Method>,
    /// What logs in: the registry key.
    pub authentication: Vec<String>,
    /// What signs: the registry key.
    pub assertion_method: Vec<String>,
    /// What encrypts: the X25519 keys of the encryption identity.
    pub key_agreement: Vec<Method>,
}

/// A public key in a DID document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    /// The document's DID with a fragment.
    pub id: String,
    /// Always `Multikey`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The document's DID.
    pub controller: String,
    /// The key: multicodec-tagged, in base58btc.
    pub public_key_multibase: String,
}

impl DidDocument {
    /// The document of a registry.
    pub fn new(domain: Option<&Domain>, key: &RegistryKey, recipients: &[Recipient]) -> Self {
        let did_key = key.did();
        let id = domain.map_or_else(|| did_key.clone(), |domain| format!("did:web:{domain}"));
        let method = |fragment: String, multibase: String| Method {
            id: format!("{id}#{fragment}"),
            kind: "Multikey".to_owned(),
            controller: id.clone(),
            public_key_multibase: multibase,
        };
        let registry = did::multikey(&key.public()).expect("Ed25519 keys have a multikey");
        let registry = method(registry.clone(), registry);
        let key_agreement = recipients
            .iter()
            .map(|recipient| did::x25519_multikey(&recipient.public_bytes()))
            .map(|multikey| method(multikey.clone(), multikey))
            .collect();
        let also_known_as = domain.map(|_| did_key).into_iter().chain([format!("ipns://{}", key.name())]).collect();
        Self {
            context: CONTEXTS.map(str::to_owned).to_vec(),
            also_known_as,
            authentication: vec![registry.id.clone()],
            assertion_method: vec![registry.id.clone()],
            verification_method: vec![registry],
            key_agreement,
            id,
        }
    }

    /// Its JSON, indented, with a line feed at the end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings serialise");
        text.push('\n');
        text
    }
}

//! The folder names inside a `docker save` archive, computed before the archive is read: [`v1_ids`].
//!
//! Docker up to 24 names each layer's folder by the digest of a small document in the style of its first image format
//! (moby, `image/tarexport/save.go` and `image/v1/imagev1.go`, `CreateID`). Below the top layer that document holds
//! nothing but the chain ID, the folder below and constants; the top layer's also holds the configuration as Go writes it.
//! Since the archive lists layers before it says what they are, knowing the names lets a reader recognise known layers.
//!
//! The result is an expectation, not a promise: an engine whose clock runs in another time zone than UTC writes other
//! names, and a configuration with members that Docker 20.10 does not know gives another name for the top layer. Names
//! that do not occur cost time, nothing else: equal names mean equal layers.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::config::chain_ids;
use super::config::{ConfigError, ImageConfig};
use crate::digest::Digest;

/// The names (64 hex digits) of the folders that `docker save` writes for this image, lowest layer first.
pub fn v1_ids(config: &ImageConfig) -> Result<Vec<String>, ConfigError> {
    let top: V1Image = serde_json::from_slice(&config.bytes).map_err(|source| ConfigError::Malformed { source })?;
    let chain = chain_ids(&config.diff_ids);
    let mut parent: Option<Digest> = None;
    let mut names = Vec::with_capacity(chain.len());
    for (index, layer) in chain.iter().enumerate() {
        let image = if index + 1 == chain.len() { top.clone() } else { V1Image::below() };
        let id = image.id(layer, parent.as_ref());
        names.push(id.hex());
        parent = Some(id);
    }
    Ok(names)
}

/// Docker's `image.V1Image`, with its members in the order in which Go writes a map: by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct V1Image {
    #[serde(rename = "Size", skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    size: i64,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<GoConfig>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    container: String,
    #[serde(deserialize_with = "nullable")]
    container_config: GoConfig,
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    docker_version: String,
    #[serde(skip_deserializing)]
    layer_id: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    os: String,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    variant: String,
}

impl V1Image {
    fn below() -> Self {
        Self { created: Some("1970-01-01T00:00:00Z".into()), ..Self::default() }
    }

    fn id(mut self, layer: &Digest, parent: Option<&Digest>) -> Digest {
        self.layer_id = layer.to_string();
        self.parent = parent.map(Digest::to_string);
        self.created = Some(go_time(self.created.as_deref().unwrap_or("0001-01-01T00:00:00Z")));
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut json, GoText);
        self.serialize(&mut serializer).expect("plain structures are written to memory without failing");
        Digest::sha256(&json)
    }
}

/// Go leaves trailing zeros of a second's fraction out.
fn go_time(text: &str) -> String {
    let Some((seconds, rest)) = text.split_once('.') else { return text.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(end);
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}{zone}"),
        fraction => format!("{seconds}.{fraction}{zone}"),
    }
}

type Empty = BTreeMap<String, serde_json::Value>;

/// Docker 20.10's `container.Config`, in the order of its members.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "the members are Docker's")]
struct GoConfig {
    #[serde(deserialize_with = "nullable")]
    hostname: String,
    #[serde(deserialize_with = "nullable")]
    domainname: String,
    #[serde(deserialize_with = "nullable")]
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "is_empty")]
    exposed_ports: Option<BTreeMap<String, Empty>>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<GoHealth>,
    #[serde(skip_serializing_if = "is_false")]
    args_escaped: bool,
    #[serde(deserialize_with = "nullable")]
    image: String,
    volumes: Option<BTreeMap<String, Empty>>,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_false")]
    network_disabled: bool,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    mac_address: String,
    on_build: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    shell: Vec<String>,
}

/// Docker 20.10's `container.HealthConfig`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct GoHealth {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    super::descriptor::null_is_default(deserializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::ref_option, reason = "serde asks for a reference")]
fn is_empty(map: &Option<BTreeMap<String, Empty>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

/// Writes text as Go's `encoding/json` does: with `<`, `>`, `&` and the two line separators escaped.
struct GoText;

impl serde_json::ser::Formatter for GoText {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let special = rest[at..].chars().next().expect("a character was found here");
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = &rest[at + special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        use serde_json::ser::CharEscape;
        match escape {
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::parse_config;
    use super::*;

    #[test]
    fn the_names_that_docker_20_10_wrote() {
        // `docker build` and `docker save` of three layers, with text that Go escapes in environment, labels and history.
        let saved: &[u8] = include_bytes!("../../testdata/docker-20.10-config.json");
        let config = parse_config(bytes::Bytes::from_static(saved)).unwrap();
        assert_eq!(
            v1_ids(&config).unwrap(),
            [
                "009f405de993c2875bd17d935d2c1fca18ab4e2578279c66bef17b93811fba59",
                "97f6023765081369d9d6bee4efc5610e5133c2b5c2d2e200bcd66b64714895de",
                "7797c172dc4fbe9bb173f8d9a21ef1836446e76a4c7a467d0606205a8c65e9f7",
            ]
        );
    }

    #[test]
    fn times_as_go_writes_them() {
        assert_eq!(go_time("2026-01-02T03:04:05.120000000Z"), "2026-01-02T03:04:05.12Z");
        assert_eq!(go_time("2026-01-02T03:04:05.000Z"), "2026-01-02T03:04:05Z");
        assert_eq!(go_time("2026-01-02T03:04:05.1+01:00"), "2026-01-02T03:04:05.1+01:00");
        assert_eq!(go_time("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn text_as_go_writes_it() {
        let mut json = Vec::new();
        let text = "a<b>&\u{2028}\u{8}\u{c}\n\"\\/\u{1}ü";
        text.serialize(&mut serde_json::Serializer::with_formatter(&mut json, GoText)).unwrap();
        let expected = "\"a\\u003cb\\u003e\\u0026\\u2028\\u0008\\u000c\\n\\\"\\\\/\\u0001ü\"";
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}

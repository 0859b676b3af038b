use super::*;
use crate::digest::Digest;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{HEX}","size":7}}"#)
}

fn manifest(extra: &str) -> String {
    let (config, layer) = (descriptor(media_type::OCI_CONFIG), descriptor(media_type::OCI_LAYER_GZIP));
    format!(r#"{{"schemaVersion":2,{extra}"config":{config},"layers":[{layer}]}}"#)
}

fn index(extra: &str) -> String {
    let entry = descriptor(media_type::OCI_MANIFEST);
    format!(r#"{{"schemaVersion":2,{extra}"manifests":[{entry}]}}"#)
}

fn parse(text: &str, declared: &str) -> Result<Parsed, ManifestError> {
    parse_manifest(Bytes::copy_from_slice(text.as_bytes()), declared)
}

#[test]
fn manifests_of_both_families() {
    for declared in [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST] {
        for inside in [String::new(), format!(r#""mediaType":"{declared}","#)] {
            let text = manifest(&inside);
            let Parsed::Manifest(parsed) = parse(&text, declared).unwrap() else { panic!("a manifest") };
            assert_eq!(parsed.bytes, text.as_bytes());
            assert_eq!(parsed.media_type, declared);
            assert_eq!(parsed.layers.len(), 1);
            assert_eq!(parsed.config.digest, Digest::sha256(b""));
            assert!(parsed.is_image());
        }
    }
}

#[test]
fn indexes_of_both_families() {
    for declared in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
        let parsed = parse(&index(""), declared).unwrap();
        assert!(matches!(&parsed, Parsed::Index(index) if index.manifests.len() == 1));
        assert_eq!(parsed.children().len(), 1);
    }
}

#[test]
fn artifacts_keep_subject_type_and_notes() {
    let subject = descriptor(media_type::OCI_MANIFEST);
    let extra =
        format!(r#""artifactType":"a/b","subject":{subject},"annotations":{{"k":"v"}},"unknown":{{"config":1}},"#);
    let parsed = parse(&manifest(&extra), media_type::OCI_MANIFEST).unwrap();
    assert_eq!(parsed.subject().unwrap().size, 7);
    assert_eq!(parsed.artifact_type(), Some("a/b"));
    assert_eq!(parsed.annotations()["k"], "v");
    let parsed = parse(&index(&extra), media_type::OCI_INDEX).unwrap();
    assert_eq!((parsed.artifact_type(), parsed.subject().is_some()), (Some("a/b"), true));
    // Without a type of its own, a manifest counts as what its configuration is.
    let parsed = parse(&manifest(""), media_type::OCI_MANIFEST).unwrap();
    assert_eq!(parsed.artifact_type(), Some(media_type::OCI_CONFIG));
}

#[test]
fn what_go_writes_for_empty_lists_is_read() {
    let config = descriptor(media_type::OCI_EMPTY);
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":null,"annotations":null}}"#);
    let Parsed::Manifest(parsed) = parse(&text, media_type::OCI_MANIFEST).unwrap() else { panic!("a manifest") };
    assert!(parsed.layers.is_empty() && !parsed.is_image());
}

#[test]
fn parameters_of_the_declared_type_are_ignored() {
    let declared = format!("{}; charset=utf-8", media_type::OCI_INDEX);
    assert_eq!(parse(&index(""), &declared).unwrap().media_type(), media_type::OCI_INDEX);
}

#[test]
fn ambiguous_documents_are_refused() {
    let both = manifest(&format!(r#""manifests":[{}],"#, descriptor(media_type::OCI_MANIFEST)));
    for declared in
        [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_LIST]
    {
        assert!(matches!(parse(&both, declared), Err(ManifestError::Ambiguous { .. })), "{declared}");
    }
    let refused = parse(&manifest(r#""manifests":null,"#), media_type::OCI_MANIFEST);
    assert!(matches!(refused, Err(ManifestError::Ambiguous { member, .. }) if member == "manifests"));
    for member in ["config", "layers"] {
        let refused = parse(&index(&format!(r#""{member}":null,"#)), media_type::OCI_INDEX);
        assert!(matches!(refused, Err(ManifestError::Ambiguous { .. })), "{member}");
    }
    // Other software takes members in any case, and the last of several.
    for member in ["Manifests", "CONFIG", "fslayers", "layers"] {
        let refused = parse(&manifest(&format!(r#""{member}":[],"#)), media_type::OCI_MANIFEST);
        assert!(matches!(refused, Err(ManifestError::Repeated { .. })), "{member}");
    }
}

#[test]
fn schema_1_is_refused() {
    let refused = parse(&manifest(r#""fsLayers":[],"#), media_type::OCI_MANIFEST);
    assert!(matches!(refused, Err(ManifestError::Schema1)));
    let refused = parse(&manifest(""), "application/vnd.docker.distribution.manifest.v1+prettyjws");
    assert!(matches!(refused, Err(ManifestError::Schema1)));
    let refused = parse(r#"{"schemaVersion":1,"config":{},"layers":[]}"#, media_type::OCI_MANIFEST);
    assert!(matches!(refused, Err(ManifestError::Malformed { .. })));
    let refused = parse(&manifest("").replace(":2,", ":1,"), media_type::OCI_MANIFEST);
    assert!(matches!(refused, Err(ManifestError::Version { found: 1 })));
}

#[test]
fn media_types_must_agree() {
    let text = manifest(&format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST));
    assert!(matches!(parse(&text, media_type::DOCKER_MANIFEST), Err(ManifestError::MediaType { .. })));
    let text = index(&format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST));
    assert!(matches!(parse(&text, media_type::OCI_INDEX), Err(ManifestError::MediaType { .. })));
    for declared in ["", "application/json", "text/html", media_type::OCI_CONFIG] {
        assert!(matches!(parse(&manifest(""), declared), Err(ManifestError::Unsupported { .. })), "{declared}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let config = descriptor(media_type::OCI_CONFIG);
    let cases = [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "{\"schemaVersion\":2}".into(),
        index(""),
        format!(r#"{{"schemaVersion":2,"config":{config}}}"#),
        r#"{"schemaVersion":2,"config":null,"layers":[]}"#.to_owned(),
        format!(r#"{{"schemaVersion":"2","config":{config},"layers":[]}}"#),
        format!("{}x", manifest("")),
        manifest("").replace("\"size\":7", "\"size\":-7"),
        manifest("").replace("sha256:", "sha256:../"),
        manifest("").replace("\"size\":7", "\"size\":7,\"size\":8"),
    ];
    for text in cases {
        let refused = parse(&text, media_type::OCI_MANIFEST).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{text}");
    }
    assert!(parse(&manifest(""), media_type::OCI_INDEX).is_err());
}

#[test]
fn limits_hold() {
    let padding = usize::try_from(limits::MANIFEST_BYTES).unwrap();
    let text = format!("{}{}", manifest(""), " ".repeat(padding));
    assert!(matches!(parse(&text, media_type::OCI_MANIFEST), Err(ManifestError::TooLarge { .. })));
    let whole = &text[..padding];
    assert!(parse(whole, media_type::OCI_MANIFEST).is_ok());

    let list = |entry: String, count: usize| vec![entry; count].join(",");
    let layers = |count| {
        let (config, layers) = (descriptor("a"), list(descriptor(media_type::OCI_LAYER), count));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    };
    assert!(parse(&layers(limits::COPY_LAYERS), media_type::OCI_MANIFEST).is_ok());
    let refused = parse(&layers(limits::COPY_LAYERS + 1), media_type::OCI_MANIFEST);
    assert!(matches!(refused, Err(ManifestError::TooMany { what: "layers", .. })));
    let manifests = |count| {
        let entries = list(descriptor(media_type::OCI_MANIFEST), count);
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
    };
    assert!(parse(&manifests(limits::INDEX_NODES), media_type::OCI_INDEX).is_ok());
    let refused = parse(&manifests(limits::INDEX_NODES + 1), media_type::OCI_INDEX);
    assert!(matches!(refused, Err(ManifestError::TooMany { what: "manifests", .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        for declared in [media_type::OCI_MANIFEST, media_type::OCI_INDEX] {
            let _ = parse_manifest(bytes.clone().into(), declared);
        }
    }

    #[test]
    fn no_document_is_both(members in proptest::collection::vec(0..6_usize, 0..6)) {
        let (config, list) = (descriptor("a"), format!("[{}]", descriptor("b")));
        let members: Vec<String> = members
            .into_iter()
            .map(|which| match which {
                0 => "\"schemaVersion\":2".into(),
                1 => format!("\"config\":{config}"),
                2 => format!("\"layers\":{list}"),
                3 => format!("\"manifests\":{list}"),
                4 => format!("\"Manifests\":{list}"),
                _ => "\"other\":0".into(),
            })
            .collect();
        let text = format!("{{{}}}", members.join(","));
        let manifest = parse(&text, media_type::OCI_MANIFEST).is_ok();
        let index = parse(&text, media_type::OCI_INDEX).is_ok();
        proptest::prop_assert!(!(manifest && index), "{text}");
    }
}

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn engine(kind: EngineKind, name: &str) -> ImageSpec {
    ImageSpec::Engine { kind, name: (!name.is_empty()).then(|| name.into()) }
}

fn ipcr(reference: &str) -> ImageSpec {
    ImageSpec::Ipcr(reference.into())
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.into())
}

fn layout(dir: &str, name: &str) -> ImageSpec {
    ImageSpec::OciLayout { dir: dir.into(), name: named(name) }
}

fn registry(host: &str, repository: &str, version: Version) -> ImageSpec {
    ImageSpec::Registry(RegistryRef { host: host.into(), repository: repository.into(), version })
}

fn tag(tag: &str) -> Version {
    Version::Tag(tag.into())
}

#[test]
fn prefixes_mean_the_same_everywhere() {
    let by_digest = Version::Digest(format!("sha256:{HEX}").parse().unwrap());
    let rows = [
        ("docker-daemon:app:1", engine(EngineKind::Docker, "app:1")),
        ("docker:app:1", engine(EngineKind::Docker, "app:1")),
        ("docker:oci:1", engine(EngineKind::Docker, "oci:1")),
        ("docker:host.test:5000/a/b:1", engine(EngineKind::Docker, "host.test:5000/a/b:1")),
        ("podman:localhost/app", engine(EngineKind::Podman, "localhost/app")),
        ("oci:dir", layout("dir", "")),
        ("oci:dir:", layout("dir", "")),
        ("oci:./a/b:v1.0", layout("./a/b", "v1.0")),
        ("oci:/abs:hub.test/app:1", layout("/abs", "hub.test/app:1")),
        ("oci:x:y:z", layout("x", "y:z")),
        ("oci-archive:f.tar:1", ImageSpec::OciArchive { file: "f.tar".into(), name: named("1") }),
        ("docker-archive:f.tar", ImageSpec::DockerArchive { file: "f.tar".into(), name: None }),
        ("docker-archive:f.tar:a/b:1", ImageSpec::DockerArchive { file: "f.tar".into(), name: named("a/b:1") }),
        ("docker://localhost:5000/app", registry("localhost:5000", "app", tag("latest"))),
        ("docker://localhost/app", registry("localhost", "app", tag("latest"))),
        ("docker://127.0.0.1:5000/team/app:v_1.2-x", registry("127.0.0.1:5000", "team/app", tag("v_1.2-x"))),
        ("docker://[::1]:5000/app:1", registry("[::1]:5000", "app", tag("1"))),
        ("docker://docker.io/alpine:3", registry("docker.io", "library/alpine", tag("3"))),
        ("docker://index.docker.io/a/b", registry("docker.io", "a/b", tag("latest"))),
        ("docker://r.test/a__b/c--d.e", registry("r.test", "a__b/c--d.e", tag("latest"))),
        ("-", ImageSpec::Stream),
        ("ipcr:hub.test/app:1", ipcr("hub.test/app:1")),
        ("ipcr:none", ipcr("none")),
    ];
    for (text, spec) in rows {
        assert_eq!(ImageSpec::push_source(text).unwrap(), spec, "{text}");
        assert_eq!(ImageSpec::source(text).unwrap(), spec, "{text}");
        assert_eq!(ImageSpec::sink(text).unwrap(), spec, "{text}");
        assert_eq!(ImageSpec::sink(&spec.to_string()).unwrap(), spec, "{text} and back");
    }
    let text = format!("docker://r.test/app@sha256:{HEX}");
    assert_eq!(ImageSpec::source(&text).unwrap(), registry("r.test", "app", by_digest));
}

#[test]
fn a_bare_name_depends_on_its_position() {
    for name in ["app", "app:1", "team/app:1", "hub.test/app:1", HEX, "r.test:5000/a:1"] {
        assert_eq!(ImageSpec::push_source(name).unwrap(), engine(EngineKind::Docker, name));
        assert_eq!(ImageSpec::source(name).unwrap(), ipcr(name));
        assert_eq!(ImageSpec::sink(name).unwrap(), ipcr(name));
    }
    let id = format!("sha256:{HEX}");
    assert_eq!(ImageSpec::push_source(&id).unwrap(), engine(EngineKind::Docker, &id));
    for reference in ["ipfs://x/app:1", "/ipns/k51/app:1"] {
        assert_eq!(ImageSpec::source(reference).unwrap(), ipcr(reference));
        assert!(ImageSpec::push_source(reference).is_err(), "{reference} is no engine image");
    }
    assert_eq!(ImageSpec::sink("none").unwrap(), ImageSpec::Nowhere);
    assert!(ImageSpec::source("none").is_err() && ImageSpec::push_source("none").is_err());
    for (text, kind) in [("podman:", EngineKind::Podman), ("docker:", EngineKind::Docker)] {
        assert_eq!(ImageSpec::sink(text).unwrap(), engine(kind, ""));
        assert!(ImageSpec::source(text).is_err());
    }
}

#[test]
fn refusals() {
    let both = format!("docker://r.test/app:1@sha256:{HEX}");
    let long = format!("docker://r.test/{}", "a".repeat(250));
    let long_tag = format!("docker://r.test/a:{}", "a".repeat(129));
    for bad in [
        "",
        "oci:",
        "oci::x",
        "oci:dir:not a name",
        "oci:dir:-x",
        "docker-archive:",
        "oci-archive:a:b:",
        "ipcr:",
        "docker://",
        "docker://app",
        "docker://alpine/app",
        "docker://r.test/",
        "docker://r.test/App",
        "docker://r.test/a//b",
        "docker://r.test/../b",
        "docker://r.test/a..b",
        "docker://r.test/a___b",
        "docker://r.test/a:",
        "docker://r.test/a:1:2",
        "docker://r.test/a@sha256:12",
        "docker://r.test:0/a",
        "docker://r.test:99999/a",
        "docker://r.test:+80/a",
        "docker://user@r.test/a",
        "docker://-r.test/a",
        "docker://[::1/a",
        "docker://[::1]x/a",
        "https://r.test/a",
        "docker:../x",
        "docker:a?b",
        "docker:a b",
        "docker:a%2f",
        "docker:-x",
        "docker:a//b",
        "app\u{1b}[0m",
        &both,
        &long,
        &long_tag,
    ] {
        for (position, parsed) in [("source", ImageSpec::source(bad)), ("sink", ImageSpec::sink(bad))] {
            let error = parsed.expect_err(&format!("{bad} as {position}"));
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
        assert!(ImageSpec::push_source(bad).is_err(), "{bad} as source of a push");
    }
}

//! A registry made, filled, listed, edited, checked and cleaned with the `ipcr` program, without any network.

#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod place;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use ipcr_core::digest::Digest;
use place::Place;
use serde_json::{Value, json};

const PASSPHRASE: (&str, &str) = ("IPCR_PASSPHRASE", "correct horse");

/// Runs a command that must succeed, and returns its object.
fn object(place: &Place, arguments: &[&str]) -> Value {
    let arguments = [&["--offline", "-o", "json"], arguments].concat();
    let output = place.run(&arguments, &[PASSPHRASE]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    assert_eq!(error, "", "{arguments:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], 1);
    value
}

/// Runs a command that must fail, and returns its error, whose exit code is also that of the process.
fn error(place: &Place, arguments: &[&str]) -> Value {
    let arguments = [&["--offline", "-o", "json"], arguments].concat();
    let output = place.run(&arguments, &[PASSPHRASE]);
    let value: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(value["error"]["exit"], output.status.code().unwrap(), "{arguments:?}");
    assert!(output.stdout.is_empty());
    value["error"].clone()
}

/// Writes a blob of an OCI layout.
fn blob(folder: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let path = folder.join(digest.layout_path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    digest
}

/// Makes the one image of a layout part of an index, which is the one image then. Returns its digest.
fn wrap(folder: &Path) -> Digest {
    let index = std::fs::read(folder.join("index.json")).unwrap();
    let digest = blob(folder, &index);
    let outer = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": index.len(),
        }],
    });
    std::fs::write(folder.join("index.json"), serde_json::to_vec(&outer).unwrap()).unwrap();
    digest
}

/// Writes an OCI layout with one image of one empty layer, and returns the digests of its manifest and configuration.
fn layout(folder: &Path, label: &str) -> (Digest, Digest) {
    let blob = |bytes: &[u8]| blob(folder, bytes);
    // The end of an archive, and nothing before it.
    let tar = [0; 1024];
    let layer = blob(&tar);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"test": label}},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_digest = blob(&config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": tar.len()}],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let manifest_digest = blob(&manifest);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest.len(),
        }],
    });
    std::fs::write(folder.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (manifest_digest, config_digest)
}

#[test]
fn a_registry_is_made_once() {
    let place = Place::new();
    let made =
        object(&place, &["init", "--domain", "hub.test", "--title", "T", "--announce", "/ip4/192.0.2.1/tcp/4001"]);
    let (ipns, peer) = (made["ipns"].as_str().unwrap(), made["node"]["peer_id"].as_str().unwrap());
    assert!(ipns.starts_with("k51") && peer.starts_with("12D3Koo"), "{made}");
    assert!(made["did"].as_str().unwrap().starts_with("did:key:z6Mk"));
    assert!(made["recipient"].as_str().unwrap().starts_with("age1"));
    let txt = json!([
        {"name": "_dnslink.hub.test", "value": format!("dnslink=/ipns/{ipns}")},
        {"name": "_dnsaddr.hub.test", "value": format!("dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{peer}")},
    ]);
    assert_eq!(made["txt"], txt);
    let id = object(&place, &["id"]);
    for field in ["ipns", "did", "recipient", "node", "txt", "domain", "title"] {
        assert_eq!(id[field], made[field], "{field}");
    }
    let text = place.shown(&["id"], &[]);
    assert!(text.contains(&format!("_dnslink.hub.test  \"dnslink=/ipns/{ipns}\"")), "{text}");
    let again = error(&place, &["init"]);
    assert_eq!((again["exit"].as_u64(), again["kind"].as_str()), (Some(1), Some("failed")));
    assert_eq!(object(&place, &["id"])["ipns"], ipns);
}

#[test]
fn keys_move_to_another_home() {
    let (place, other) = (Place::new(), Place::new());
    let ipns = object(&place, &["init"])["ipns"].clone();
    let file = place.path().join("keys");
    let file = file.to_str().unwrap();
    assert_eq!(object(&place, &["key", "export", file])["ipns"], ipns);
    assert_eq!(object(&other, &["init", "--import", file])["ipns"], ipns);
    let taken = error(&place, &["key", "export", file]);
    assert_eq!((&taken["exit"], &taken["kind"]), (&json!(1), &json!("failed")));
    let wrong = Place::new().run(&["--offline", "init", "--import", file], &[("IPCR_PASSPHRASE", "wrong")]);
    assert_eq!(wrong.status.code(), Some(6), "{}", String::from_utf8_lossy(&wrong.stderr));
    // Nothing is left of what failed.
    let third = Place::new();
    let bad = third.path().join("bad");
    std::fs::write(&bad, "no keys").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, exit) in [
        (&["init", "--import", bad][..], 5),
        (&["key", "import", bad], 5),
        (&["key", "import", "/nowhere"], 3),
        (&["init", "--domain", "a b"], 2),
        (&["serve", "--http", "203.0.113.7:80"], 2),
    ] {
        let failed = third.run(arguments, &[("IPCR_OFFLINE", "1"), ("IPCR_PASSPHRASE", "wrong")]);
        assert_eq!(failed.status.code(), Some(exit), "{arguments:?}");
        assert_eq!(std::fs::read_dir(third.path()).unwrap().count(), 1, "{arguments:?} left something behind");
    }
    let before = object(&place, &["id"])["node"]["peer_id"].clone();
    let rotated = object(&place, &["key", "rotate", "--node"]);
    assert_eq!(rotated["previous"], before);
    assert_ne!(rotated["node"]["peer_id"], before);
    assert_eq!(rotated["ipns"], ipns);
}

#[test]
fn a_registry_gets_another_key() {
    let (place, other) = (Place::new(), Place::new());
    assert_eq!(error(&place, &["key", "rotate"])["exit"], 2);
    let before = object(&place, &["init", "--domain", "hub.test"]);
    let rotated = object(&place, &["key", "rotate"]);
    assert_eq!(rotated["previous"], before["ipns"]);
    assert_eq!((&rotated["published"], &rotated["sequence"]), (&json!(false), &json!(0)));
    assert_ne!(rotated["ipns"], before["ipns"]);
    assert_eq!(rotated["recipient"], before["recipient"]);
    let link = format!("dnslink=/ipns/{}", rotated["ipns"].as_str().unwrap());
    assert_eq!(rotated["txt"][0]["value"], json!(link));
    let id = object(&place, &["id"]);
    assert_eq!((&id["ipns"], &id["did"]), (&rotated["ipns"], &rotated["did"]));
    let again = object(&place, &["key", "rotate"]);
    assert_eq!(again["previous"], rotated["ipns"]);
    assert_eq!(object(&place, &["check", "--read-data"])["ok"], true);
    // The keys before go where the key goes.
    let file = place.path().join("keys");
    object(&place, &["key", "export", file.to_str().unwrap()]);
    object(&other, &["key", "import", file.to_str().unwrap()]);
    let former = |place: &Place| {
        let home = place.path().join(".local/share/ipcr");
        let names = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut former: Vec<_> = names.filter(|name| name.starts_with("former-")).collect();
        former.sort();
        former
    };
    assert_eq!(former(&place).len(), 2);
    assert_eq!(former(&other), former(&place));
}

#[test]
fn nothing_is_published_without_a_network() {
    let place = Place::new();
    object(&place, &["init", "--domain", "hub.test"]);
    let folder = place.path().join("layout");
    layout(&folder, "one");
    let pushed = object(&place, &["push", &format!("oci:{}", folder.display()), "--as", "app:1"]);
    assert_eq!(
        (&pushed["published"], &pushed["findable"], &pushed["sequence"]),
        (&json!(false), &json!(null), &json!(0))
    );
    assert!(pushed["warnings"].to_string().contains("not-published"), "{pushed}");
    for arguments in [
        &["publish"][..],
        &["resolve", "other.test/app:1"],
        &["pull", "k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb/app", "--into", "none"],
    ] {
        let refused = error(&place, arguments);
        assert_eq!((&refused["exit"], &refused["hint"]), (&json!(4), &json!("leave out `--offline`")), "{arguments:?}");
    }
    // The own domain and key are this registry.
    let own = object(&place, &["id"]);
    for authority in ["hub.test", own["ipns"].as_str().unwrap(), own["did"].as_str().unwrap(), "did:web:hub.test"] {
        let resolved = object(&place, &["resolve", &format!("{authority}/app:1")]);
        assert_eq!((&resolved["cid"], &resolved["chain"][0]["source"]), (&pushed["cid"], &json!("own")), "{authority}");
    }
}

#[test]
fn an_image_goes_in_and_comes_out() {
    let place = Place::new();
    let ipns = object(&place, &["init"])["ipns"].as_str().unwrap().to_owned();
    let folder = place.path().join("layout");
    let (manifest, config) = layout(&folder, "one");
    let source = format!("oci:{}", folder.display());

    let plan = object(&place, &["push", &source, "--as", "team/app:1", "--dry-run"]);
    assert_eq!((&plan["dry_run"], &plan["name"], &plan["current"]), (&json!(true), &json!("team/app"), &Value::Null));
    assert_eq!(object(&place, &["ls"])["images"], json!([]));

    let pushed = object(&place, &["push", &source, "--as", "team/app:1", "--no-publish", "--description", "An app"]);
    assert_eq!(pushed["reference"], format!("{ipns}/team/app:1@{manifest}"));
    assert_eq!((&pushed["digest"], &pushed["published"]), (&json!(manifest), &json!(false)));
    let again = object(&place, &["push", &source, "--as", "team/app:1", "--no-publish"]);
    assert_eq!((&again["unchanged"], &again["root"]), (&json!(true), &pushed["root"]));
    assert_eq!(again["bytes"]["new"], 0);

    let listed = object(&place, &["ls"]);
    assert_eq!(listed["images"][0]["name"], "team/app");
    let inspected = object(&place, &["inspect", "team/app:1"]);
    assert_eq!(inspected["manifests"][0]["image_id"], json!(config));
    let raw = place.run(&["--offline", "inspect", "team/app:1", "--raw"], &[]);
    assert_eq!(Digest::sha256(&raw.stdout), manifest);

    let out = place.path().join("out");
    let pulled =
        object(&place, &["pull", "team/app:1", "--into", &format!("oci:{}:1", out.display()), "--all-platforms"]);
    assert_eq!((&pulled["digest"], &pulled["trust"]), (&json!(manifest), &json!("key")));
    for digest in [manifest, config] {
        let bytes = std::fs::read(out.join(digest.layout_path())).unwrap();
        assert!(digest.matches(&bytes));
    }
    let quiet = place.run(&["--offline", "-q", "pull", "team/app:1", "--into", "none"], &[]);
    let line = String::from_utf8(quiet.stdout).unwrap();
    assert_eq!(line, format!("{ipns}/team/app:1@{manifest}\n"));

    // The archive is all that standard output carries.
    let archive = place.run(&["--offline", "pull", "team/app:1", "--into", "-"], &[]);
    assert!(archive.status.success());
    assert!(archive.stdout.len() > 1024 && archive.stdout.len().is_multiple_of(512));
    assert!(String::from_utf8(archive.stderr).unwrap().trim_end().ends_with(&format!("team/app:1@{manifest}")));

    let copied = object(&place, &["cp", &source, "copy:1"]);
    assert_eq!(copied["source"], json!(source));
    assert_eq!((&copied["digest"], &copied["sink"]), (&json!(manifest), &json!(format!("{ipns}/copy:1@{manifest}"))));

    let tagged = object(&place, &["tag", "team/app:1", "team/app:stable"]);
    assert_ne!(tagged["root"], pushed["root"]);
    let doomed = object(&place, &["rm", "team/app", "--all-tags", "--dry-run"]);
    assert_eq!(doomed["changed"].as_array().unwrap().len(), 3, "two tags and the image: {doomed}");
    let used = object(&place, &["df"]);
    assert_eq!(
        (&used["own"]["images"], &used["own"]["tags"], &used["cache"]["images"]),
        (&json!(2), &json!(3), &json!(0))
    );
    let bytes = |used: &Value, part: &str| used[part]["bytes"].as_u64().unwrap();
    // The layer, which all tags share, counts once; directories and documents are what is left.
    assert!(bytes(&used, "own") > 1024 && bytes(&used, "own") < 32 << 10, "{used}");
    assert!(bytes(&used, "metadata") > 0 && used["disk"]["free"].as_u64() <= used["disk"]["size"].as_u64(), "{used}");
    let planned = object(&place, &["gc", "--dry-run"]);
    let reclaimable = json!({"blocks": planned["removed_blocks"], "bytes": planned["removed_bytes"]});
    assert_eq!(used["reclaimable"], reclaimable);
    let text = place.shown(&["--offline", "df"], &[]);
    assert!(text.starts_with("exit 0\nout| own images") && text.contains("2 images, 3 tags"), "{text}");
    object(&place, &["rm", "team/app:stable"]);
    assert_eq!(error(&place, &["inspect", "team/app:stable"])["exit"], 3);
    assert_eq!(object(&place, &["check", "--read-data"])["ok"], true);
    object(&place, &["gc"]);
    assert_eq!(object(&place, &["check", "--read-data"])["ok"], true);
    assert_eq!(object(&place, &["inspect", &format!("team/app@{manifest}")])["digest"], json!(manifest));
}

#[test]
fn what_goes_wrong_says_what_to_do() {
    let empty = Place::new();
    let all: Vec<String> = [vec!["id"], vec!["ls"], vec!["push", "oci:nowhere", "--as", "app:1"]]
        .iter()
        .map(|arguments| {
            format!("$ ipcr {}\n{}", arguments.join(" "), empty.shown(arguments, &[("IPCR_OFFLINE", "1")]))
        })
        .collect();
    insta::assert_snapshot!("no-registry", all.join("\n\n"));

    let place = Place::new();
    object(&place, &["init"]);
    for (arguments, exit) in [
        (&["inspect", "app:1"][..], 3),
        (&["pull", "app:2", "--into", "none"], 3),
        (&["pull", "app:1:2"], 2),
        (&["pull", "localhost:5000/app:1"], 2),
        (&["pull", "app:1", "--into", "nonsense://"], 2),
        (&["push", "oci:nowhere", "--as", "v2/app:1"], 2),
        (&["push", "oci:nowhere", "--as", "_app:1"], 2),
        (&["push", "oci:nowhere", "--as", "app:1"], 3),
        (&["rm", "app"], 2),
        (&["rm", "some.domain/app:1"], 2),
        (&["trust", "rm", "some.domain"], 3),
        (&["--peer", "/ip4/127.0.0.1/tcp/4001", "ls"], 2),
        (&["--network", "moon", "ls"], 2),
        (&["--dns", "not a server", "ls"], 2),
    ] {
        let error = error(&place, arguments);
        assert_eq!(error["exit"], exit, "{arguments:?}: {error}");
        let hint = error["hint"].as_str();
        assert!(hint.is_some_and(|hint| !hint.is_empty()), "{arguments:?}: {error}");
    }
}

#[test]
fn events_are_json_lines() {
    let place = Place::new();
    object(&place, &["init"]);
    let folder = place.path().join("layout");
    layout(&folder, "events");
    let source = format!("oci:{}", folder.display());
    let arguments = ["--offline", "--progress", "json", "-o", "json", "push", &source, "--as", "app:1", "--no-publish"];
    let output = place.run(&arguments, &[]);
    assert!(output.status.success());
    let events: Vec<Value> =
        output.stderr.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(events.len(), String::from_utf8_lossy(&output.stderr).lines().count());
    assert!(events.iter().any(|event| event["event"] == "stage" && event["stage"] == "storing"), "{events:?}");
}

#[test]
fn a_dry_run_of_rm_refuses_what_rm_refuses() {
    let place = Place::new();
    object(&place, &["init"]);
    let nothing = Digest::sha256(b"nothing");
    let refusals = |names: &[&[&str]]| {
        for name in names {
            let (planned, real) = ([&["rm"], *name, &["--dry-run"]].concat(), [&["rm"], *name].concat());
            let (planned, real) = (error(&place, &planned), error(&place, &real));
            for field in ["exit", "kind", "message", "hint"] {
                assert_eq!(planned[field], real[field], "{name:?}: {planned} / {real}");
            }
        }
    };
    let missing = format!("app@{nothing}");
    let all: [&[&str]; 3] = [&["app:1"], &[&missing], &["app", "--all-tags"]];
    refusals(&all);
    let folder = place.path().join("layout");
    let (manifest, _) = layout(&folder, "one");
    let index = wrap(&folder);
    let source = format!("oci:{}", folder.display());
    let pushed = object(&place, &["push", &source, "--as", "app:1", "--no-publish"]);
    assert_eq!(pushed["digest"], json!(index));
    // Part of an index that is there.
    let part = format!("app@{manifest}");
    refusals(&[&["app:2"], &[&missing], &["other", "--all-tags"], &[&part]]);
    assert_eq!(error(&place, &["rm", &part, "--dry-run"])["exit"], 2);
    for name in [&["app:1"][..], &[&format!("app@{index}")], &["app", "--all-tags"]] {
        let planned = object(&place, &[&["rm"], name, &["--dry-run"]].concat());
        assert!(!planned["changed"].as_array().unwrap().is_empty());
        assert_eq!(object(&place, &[&["rm"], name].concat())["changed"], planned["changed"], "{name:?}");
        object(&place, &["push", &source, "--as", "app:1", "--no-publish"]);
    }
}

#[test]
fn settings_that_the_holder_overrules_are_told() {
    let place = Place::new();
    object(&place, &["init"]);
    let mut holder = Command::new(env!("CARGO_BIN_EXE_ipcr"))
        .args(["--offline", "--share", "own", "serve", "--http", "127.0.0.1:0"])
        .env_clear()
        .env("HOME", place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let told = |arguments: &[&str]| object(&place, arguments)["warnings"].clone();
    // What is the same there, and what goes with each request or counts here.
    let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let same = ["--share", "own", "--no-share", "--timeout", "5", "--peer", peer, "--lock-wait", "1", "--allow-stale"];
    let unheard = told(&[&same[..], &["check"]].concat());
    let heard = told(&["--share", "all", "--upload-limit", "1M", "--dns", "127.0.0.1", "check"]);
    let by_variable = place.shown(&["--offline", "ls"], &[("IPCR_GATEWAY", "https://gateway.test")]);
    // The usual ones are nobody's wish.
    let usual = told(&["df"]);
    object(&place, &["config", "set", "cache-limit", "1GiB"]);
    let written = told(&["df"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(ready.starts_with("ready"), "{ready}");
    assert_eq!((unheard, usual), (json!([]), json!([])));
    let message = heard[0]["message"].as_str().unwrap();
    assert!(message.ends_with("`--dns`, `--share` and `--upload-limit` have no effect on it"), "{message}");
    assert_eq!(heard.as_array().unwrap().len(), 1);
    let message = written[0]["message"].as_str().unwrap();
    assert!(message.contains("`cache-limit` in") && message.ends_with("config.toml has no effect on it"), "{message}");
    assert!(by_variable.contains("`IPCR_GATEWAY` has no effect on it"), "{by_variable}");
}

#[test]
fn a_home_may_have_any_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let place = Place::new();
    let home = place.path().join(OsStr::from_bytes(b"h\xff\x1b[2Jme"));
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ipcr"))
            .args(["--offline", "--home"])
            .arg(&home)
            .args(arguments)
            .env_clear()
            .env("HOME", place.path())
            .output()
            .unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {talk}");
        String::from_utf8(output.stdout).unwrap()
    };
    for arguments in [
        &["init"][..],
        &["config", "set", "timeout", "5"],
        &["config", "get"],
        &["-o", "json", "config", "get"],
        &["-o", "json", "config", "set", "timeout", "6"],
        &["-o", "json", "config", "path"],
        &["config", "get", "home"],
        &["-o", "json", "id"],
        &["ls"],
        &["df"],
        &["check"],
    ] {
        let shown = run(arguments);
        assert!(!shown.contains('\u{1b}'), "{arguments:?}: {shown}");
    }
    assert!(home.join("registry.key").exists() && run(&["config", "path"]).contains('\u{fffd}'));
}

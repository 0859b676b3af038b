//! What people and scripts see of the `ipcr` program before any node runs: help, usage errors, settings. The environment of each
//! run is empty but for a home of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod place;

use std::process::Command;

use place::Place;

/// Every command, as `--help` lists them.
const COMMANDS: [&str; 19] = [
    "init",
    "id",
    "key",
    "push",
    "pull",
    "resolve",
    "ls",
    "inspect",
    "tag",
    "rm",
    "publish",
    "cp",
    "serve",
    "trust",
    "df",
    "gc",
    "check",
    "config",
    "completions",
];

fn shown(arguments: &[&str]) -> String {
    Place::new().shown(arguments, &[])
}

#[test]
fn help_of_everything() {
    insta::assert_snapshot!("help", shown(&["--help"]));
    for command in COMMANDS {
        insta::assert_snapshot!(format!("help-{command}"), shown(&[command, "-h"]));
    }
}

#[test]
fn every_help_has_an_example() {
    let actions = [
        ("key", "export"),
        ("key", "import"),
        ("key", "rotate"),
        ("trust", "ls"),
        ("trust", "add"),
        ("trust", "rm"),
        ("config", "get"),
        ("config", "set"),
        ("config", "path"),
    ];
    let place = Place::new();
    let all =
        COMMANDS.iter().map(|command| vec![*command]).chain(actions.map(|(command, action)| vec![command, action]));
    for mut arguments in all {
        let example = format!("  ipcr {}", arguments.join(" "));
        arguments.push("--help");
        let output = place.run(&arguments, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert!(
            text.contains("Example") && text.contains(&example) || text.contains("| ipcr push -"),
            "{arguments:?}:\n{text}"
        );
    }
}

#[test]
fn version() {
    assert_eq!(shown(&["--version"]), format!("exit 0\nout| ipcr {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_errors() {
    let cases: &[&[&str]] = &[
        &["pull"],
        &["push", "app:1", "--compression", "lzma"],
        &["pull", "app:1", "--platform", "linux"],
        &["pull", "app:1", "--platform", "linux/amd64", "--all-platforms"],
        &["frobnicate"],
        &["-o", "json", "pull"],
        &["pull", "--output=json", "--nonsense"],
        &["-ojson", "frobnicate"],
    ];
    let all: Vec<String> =
        cases.iter().map(|arguments| format!("$ ipcr {}\n{}", arguments.join(" "), shown(arguments))).collect();
    insta::assert_snapshot!("usage-errors", all.join("\n\n"));
    assert!(shown(&[]).starts_with("exit 2\nerr| "));
    let json = Place::new().shown(&["frobnicate"], &[("IPCR_OUTPUT", "json")]);
    assert!(json.starts_with("exit 2\nerr| {\"schema\":1,\"error\":{\"kind\":\"usage\",\"exit\":2,"), "{json}");
}

#[test]
fn edits_of_a_registry_that_is_not_there_make_no_home() {
    let place = Place::new();
    let home = place.path().join("mistyped");
    for arguments in [
        &["push", "oci:image", "--as", "image:1"][..],
        &["push", "--dry-run", "oci:image", "--as", "image:1"],
        &["tag", "image:1", "image:2"],
        &["rm", "image:1"],
        &["publish"],
    ] {
        let shown = place.shown(&[&["--home", home.to_str().unwrap()], arguments].concat(), &[]);
        assert!(shown.starts_with("exit ") && !shown.starts_with("exit 0"), "{shown}");
        assert!(shown.contains("there is no registry here yet") && shown.contains("ipcr init"), "{shown}");
        assert!(!home.exists(), "{arguments:?}");
    }
}

#[test]
fn settings_come_from_option_variable_and_file_in_this_order() {
    let place = Place::new();
    let get = |arguments: &[&str], variables: &[(&str, &str)]| {
        let arguments = [arguments, &["config", "get", "network"]].concat();
        place.shown(&arguments, variables)
    };
    assert_eq!(get(&[], &[]), "exit 0\nout| public");
    assert_eq!(place.shown(&["config", "set", "network", "lan"], &[]), "exit 0\nout| network = \"lan\"");
    assert_eq!(get(&[], &[]), "exit 0\nout| lan");
    assert_eq!(get(&[], &[("IPCR_NETWORK", "loopback")]), "exit 0\nout| loopback");
    assert_eq!(get(&["--network", "public"], &[("IPCR_NETWORK", "loopback")]), "exit 0\nout| public");
    let after = place.shown(&["config", "get", "network", "--network", "public"], &[("IPCR_NETWORK", "loopback")]);
    assert_eq!(after, "exit 0\nout| public");
}

#[test]
fn switches_and_lists_are_settings_too() {
    let place = Place::new();
    assert_eq!(place.shown(&["config", "set", "offline", "true"], &[]), "exit 0\nout| offline = true");
    assert_eq!(place.shown(&["config", "get", "offline"], &[("IPCR_OFFLINE", "0")]), "exit 0\nout| false");
    assert_eq!(place.shown(&["config", "get", "offline"], &[]), "exit 0\nout| true");
    let variables = [("IPCR_DNS", "127.0.0.1:53,9.9.9.9")];
    assert_eq!(place.shown(&["config", "get", "dns"], &variables), "exit 0\nout| 127.0.0.1:53,9.9.9.9");
    assert_eq!(place.shown(&["config", "get", "dns", "--dns", "a", "--dns", "b"], &variables), "exit 0\nout| a,b");
    place.run(&["config", "set", "dns", "9.9.9.9,149.112.112.112"], &[]);
    place.run(&["config", "set", "timeout", "5"], &[]);
    insta::assert_snapshot!("settings-all", place.shown(&["config", "get"], &[("IPCR_HTTP", "127.0.0.1:1")]));
    insta::assert_snapshot!("settings-2", place.shown(&["-ojson", "config", "get", "dns"], &[]));
    insta::assert_snapshot!("settings-3", place.shown(&["-ojson", "config", "set", "timeout", ""], &[]));
    insta::assert_snapshot!("settings-4", place.shown(&["config", "set", "timeout", "long"], &[]));
    insta::assert_snapshot!("settings-5", place.shown(&["config", "get", "colour"], &[]));
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let place = Place::new();
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("config.toml"), "network = \"lan\"\nnetwrok = \"lan\"\n").unwrap();
    let variables = [("IPCR_HOME", home.to_str().unwrap())];
    insta::assert_snapshot!("settings-6", place.shown(&["config", "path"], &variables));
    insta::assert_snapshot!("settings-7", place.shown(&["-o", "json", "config", "path"], &variables));
    std::fs::write(home.join("config.toml"), "home = \"/elsewhere\"\n").unwrap();
    insta::assert_snapshot!("settings-8", place.shown(&["config", "path"], &variables));
}

#[test]
fn homes_decide_where_the_file_is() {
    let place = Place::new();
    assert_eq!(place.shown(&["config", "path"], &[]), "exit 0\nout| HOME/.config/ipcr/config.toml");
    assert_eq!(place.shown(&["config", "get", "home"], &[]), "exit 0\nout| HOME/.local/share/ipcr");
    let variables = [("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "/d")];
    assert_eq!(place.shown(&["config", "path"], &variables), "exit 0\nout| /c/ipcr/config.toml");
    assert_eq!(place.shown(&["config", "get", "home"], &variables), "exit 0\nout| /d/ipcr");
    assert_eq!(place.shown(&["--home", "/h", "config", "path"], &variables), "exit 0\nout| /h/config.toml");
}

#[test]
fn completions_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = place.run(&["completions", shell], &[]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    for command in ["completions bash", "config get", "--help", "-o json config get"] {
        let ipcr = env!("CARGO_BIN_EXE_ipcr");
        // The reader is gone before anything is written.
        let script = format!("{{ sleep 0.2; {ipcr} {command}; echo $? >&2; }} | true");
        let output = Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .env("HOME", place.path())
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "0\n", "{command}");
    }
}

#[test]
fn colours_only_where_wanted() {
    let place = Place::new();
    let stderr = |variables: &[(&str, &str)], arguments: &[&str]| {
        String::from_utf8(place.run(&[arguments, &["config", "get", "colour"]].concat(), variables).stderr).unwrap()
    };
    assert!(!stderr(&[], &[]).contains('\u{1b}'));
    assert!(stderr(&[], &["--color", "always"]).contains('\u{1b}'));
    assert!(stderr(&[("IPCR_COLOR", "always")], &[]).contains('\u{1b}'));
    assert!(!stderr(&[("IPCR_COLOR", "always")], &["--color", "never"]).contains('\u{1b}'));
}

#[test]
fn foreign_text_is_shown_harmless() {
    let text = shown(&["config", "get", "\u{1b}[2J\u{202e}x"]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && text.contains("\\u{1b}"), "{text}");
}

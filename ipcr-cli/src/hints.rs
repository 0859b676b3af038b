//! What to do next: one sentence per reason of a failure and command. The library knows nothing of commands and options, so
//! this is the only place that does.

use ipcr_core::kind::ErrorKind;
use ipcr_core::registry::error::Topic;

/// Advice where somebody stopped to read what was written.
pub(crate) const UNREAD: &str = "whoever reads the output ended before all of it was written, and may have said why";

/// Advice for a failure of `command`, where there is any.
pub(crate) fn hint(kind: ErrorKind, topic: Topic, command: &str) -> Option<String> {
    match (by_topic(topic, command).or_else(|| by_kind(kind, command)), kind) {
        (None, ErrorKind::Usage) => Some(format!("`ipcr {command} --help` has an example")),
        (hint, _) => hint.map(str::to_owned),
    }
}

fn by_topic(topic: Topic, command: &str) -> Option<&'static str> {
    let engine_image = "`docker images` lists the images of the engine; other sources need a prefix, such as `oci:DIR`";
    let forces = matches!(command, "push" | "tag" | "rm" | "publish");
    Some(match topic {
        Topic::NoRegistry => "`ipcr init` makes one",
        Topic::AlreadyInitialised => "`ipcr id` shows it; another one needs another `--home DIR`",
        Topic::KeyLost => {
            "bring the key back: `ipcr init --import FILE`, or registry.key from a backup; another registry needs another `--home DIR`"
        }
        Topic::NameNeeded if matches!(command, "push" | "pull") => "name it: `--as NAME:TAG`",
        Topic::NameNeeded => "name it where it goes to, such as `oci:DIR:NAME` or `app:1`",
        Topic::BadName if command == "trust" => {
            "domains look like `some.domain`; keys like `k51…`, `12D3Koo…` or `did:key:z…`, and `keyless` is none"
        }
        Topic::BadName if command == "init" => "domains look like `your.domain`",
        Topic::BadName if command == "push" => {
            "registry names look like `app:1` or `team/app:1`; give one with `--as NAME:TAG`"
        }
        Topic::BadName => {
            "references look like `some.domain/app:1`, `k51…/app:1` or `ipfs/<CID>`; `app:1` is an own image"
        }
        Topic::NoImage => {
            "`ipcr ls` lists own images, `ipcr ls app` the tags of one, `ipcr ls some.domain` another registry"
        }
        Topic::NoSourceImage if command == "push" => engine_image,
        Topic::NoSourceImage => "`docker images` lists the images of the engine, `ipcr ls` own ones",
        Topic::Ambiguous => {
            "choose one of them by appending its name: `oci:DIR:NAME`, `docker-archive:FILE:NAME`; a stream has to hold one image"
        }
        Topic::NoPlatform if matches!(command, "push" | "cp") => {
            "choose one that it has with `--platform`, or leave the option out"
        }
        Topic::NoPlatform if command != "pull" => "`ipcr inspect REF` lists the platforms",
        Topic::NoPlatform => {
            "`ipcr inspect REF` lists the platforms; choose one with `--platform`, or take all with `--all-platforms`"
        }
        Topic::Conflict if forces => "look at both with `ipcr inspect`; `--force` makes ours win",
        Topic::Conflict if command == "cp" => "look at both with `ipcr inspect`; `ipcr push --force` makes ours win",
        Topic::Conflict => "look at both with `ipcr inspect`; `ipcr publish --force` makes ours win",
        Topic::Forgotten if forces => "`--force` publishes without them; then push again what `ipcr ls` lacks",
        Topic::Forgotten => "`ipcr publish --force` publishes without them; then push again what `ipcr ls` lacks",
        Topic::NotMerged => "run `ipcr publish` once another home or mirror that holds it is reachable",
        Topic::NoProvider => {
            "whoever holds it may be offline; if you know an address, add `--peer /ip4/…/tcp/4001/p2p/12D3Koo…`"
        }
        Topic::Stalled => {
            "what has arrived is kept for 24 hours: run the command again to go on; `--timeout` waits longer"
        }
        Topic::Offline => "leave out `--offline`",
        Topic::NoEngine if command == "pull" => {
            "start Docker or Podman, set DOCKER_HOST, or pull into a file: `--into oci-archive:FILE`"
        }
        Topic::NoEngine if command == "cp" => {
            "start Docker or Podman, set DOCKER_HOST, or use another source or sink: `oci:DIR`, `docker-archive:FILE`"
        }
        Topic::NoEngine => {
            "start Docker or Podman, set DOCKER_HOST, or use another source: `oci:DIR`, `docker-archive:FILE`"
        }
        Topic::Engine => "the engine's own log may say more; run the command again once it works",
        Topic::DamagedBlock => {
            "this home is damaged: `ipcr check --read-data` says where; push again what it names, or restore the home from a backup"
        }
        Topic::Torn => {
            "`ipcr check --repair` asks others for what is lacking; `ipcr gc --force` removes what nothing leads to any more"
        }
        Topic::DamagedIndex => {
            "end every ipcr process of this home and delete its index.redb: the next command makes it again from the blocks"
        }
        Topic::DamagedTables => {
            "restore tables.redb from a backup; or save the keys with `ipcr key export` and begin anew with `ipcr --home DIR init --import`"
        }
        Topic::Corrupt if matches!(command, "check" | "gc" | "ls" | "tag" | "rm" | "publish") => {
            "`ipcr check --read-data` says what is damaged"
        }
        Topic::Corrupt if command == "push" => "make or download the source again; nothing was stored under a tag",
        Topic::Corrupt if command == "cp" => "make or download the source again; nothing was delivered",
        Topic::Corrupt => "nothing was delivered; try another peer, or tell the publisher",
        Topic::Limit => "docs/operating.md lists the limits; nothing was delivered",
        Topic::BadHome => "`--home DIR` takes a folder; it is made if it does not exist",
        Topic::ClosedHome => {
            "a home has to belong to the user who works on it, and its file system be writable; `--home DIR` takes another one"
        }
        Topic::Locked => "end the other process, wait longer with `--lock-wait SECONDS`, or use another `--home DIR`",
        Topic::HolderGone => "run the same command again: what it had stored is kept",
        Topic::DiskFull if matches!(command, "pull" | "cp") => {
            "make room where the image goes to; if that is the home's file system, `ipcr gc` may give space back"
        }
        Topic::DiskFull => "`ipcr gc` gives space back; nothing that was acknowledged is lost",
        Topic::Access => {
            "check the owner and mode of the files, whether their file system can be written to, and that this user may use the engine"
        }
        _ => return of_names(topic),
    })
}

/// About names and where they lead.
fn of_names(topic: Topic) -> Option<&'static str> {
    Some(match topic {
        Topic::NoDnslink => {
            "its owner has to add the TXT records that `ipcr id` prints there; meanwhile use the registry's `k51…` name instead of the domain"
        }
        Topic::ManyDnslinks => {
            "the zone must hold exactly one `dnslink=` record at `_dnslink`; ask its owner to remove the others"
        }
        Topic::DnsDown => "check the network, or ask another server with `--dns ADDR`",
        Topic::DnsBogus => {
            "somebody may be forging answers; try another server with `--dns`, or ask the owner of the domain"
        }
        Topic::NoRecord => {
            "its publisher may be offline; if you know an address, add `--peer /ip4/…/tcp/4001/p2p/12D3Koo…`"
        }
        Topic::ExpiredRecord => "its publisher may be offline; `--allow-stale` accepts what was valid last",
        Topic::Rollback => {
            "somebody may be hiding newer versions; try other peers with `--peer`, or ask the publisher to run `ipcr publish`"
        }
        Topic::Fork => "two homes may have published at once; the publisher's next `ipcr publish` settles it",
        Topic::KeyChanged => "if its owner confirms the new key, accept it with `ipcr trust add DOMAIN KEY`",
        Topic::HandedOver => {
            "make a home with the new key: `ipcr key export` where it is, then `ipcr --home DIR init --import FILE` here"
        }
        _ => return None,
    })
}

fn by_kind(kind: ErrorKind, command: &str) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotFound => "check how the file, image or name is spelt",
        ErrorKind::Access => "check the passphrase, the owner and mode of files, and whether they can be written to",
        ErrorKind::Unavailable if command == "serve" => "another address: port 0 takes any that is free",
        ErrorKind::Unavailable if matches!(command, "push" | "cp") => "try again when it can be reached",
        ErrorKind::Unavailable => "try again later, or add an address with `--peer`",
        ErrorKind::Engine => "the engine's own log may say more",
        ErrorKind::Locked => "end the other process, or wait longer with `--lock-wait SECONDS`",
        ErrorKind::DiskFull => "`ipcr gc` gives space back; nothing that was acknowledged is lost",
        ErrorKind::Integrity => "nothing was delivered or changed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_decides_what_helps() {
        let push = hint(ErrorKind::Engine, Topic::NoEngine, "push").unwrap();
        let pull = hint(ErrorKind::Engine, Topic::NoEngine, "pull").unwrap();
        assert!(push.contains("oci:DIR") && pull.contains("--into"), "{push} / {pull}");
    }

    #[test]
    fn a_kind_helps_where_the_reason_is_not_known() {
        assert!(hint(ErrorKind::DiskFull, Topic::Other, "push").unwrap().contains("gc"));
        assert_eq!(hint(ErrorKind::Failed, Topic::Other, "push"), None);
    }

    /// Every reason that there is.
    fn topics() -> Vec<Topic> {
        // What serde expects is the list of all variants.
        let refused = serde_json::from_str::<Topic>("\"?\"").unwrap_err().to_string();
        let (_, expected) = refused.split_once("expected one of").unwrap();
        let names = expected.split('`').skip(1).step_by(2);
        names.map(|name| serde_json::from_value(name.into()).unwrap()).collect()
    }

    /// Whether a command, one of its actions, or the program has the option.
    fn has(command: &clap::Command, option: &str) -> bool {
        command.get_arguments().any(|argument| argument.get_long() == Some(option))
            || command.get_subcommands().any(|action| has(action, option))
    }

    /// The long options that a text names.
    fn options(text: &str) -> impl Iterator<Item = &str> {
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
            .filter_map(|word| word.strip_prefix("--"))
    }

    #[test]
    fn hints_name_options_that_are_there() {
        let all = crate::args::Cli::command();
        let find = |name: &str| all.get_subcommands().find(|command| command.get_name() == name);
        let known = |command: &str, option: &str| {
            all.get_arguments().any(|argument| argument.get_long() == Some(option))
                || find(command).is_some_and(|command| has(command, option))
        };
        let kinds = [
            ErrorKind::Failed,
            ErrorKind::Usage,
            ErrorKind::NotFound,
            ErrorKind::Unavailable,
            ErrorKind::Integrity,
            ErrorKind::Access,
            ErrorKind::Engine,
            ErrorKind::Locked,
            ErrorKind::DiskFull,
            ErrorKind::Interrupted,
        ];
        let topics = topics();
        assert!(topics.len() > 30 && topics.contains(&Topic::ClosedHome), "{topics:?}");
        for command in all.get_subcommands().map(clap::Command::get_name) {
            for hint in topics.iter().flat_map(|topic| kinds.map(|kind| hint(kind, *topic, command))).flatten() {
                // Code in it may name a command of its own.
                for (at, part) in hint.split('`').enumerate() {
                    let named = part.strip_prefix("ipcr ").filter(|_| at % 2 == 1);
                    let other =
                        named.and_then(|rest| rest.split(' ').find(|word| !word.starts_with('-') && *word != "DIR"));
                    if let Some(other) = other {
                        assert!(find(other).is_some(), "{command}: {hint}");
                    }
                    for option in options(part).filter(|option| *option != "help") {
                        assert!(known(other.unwrap_or(command), option), "{command}: --{option} in: {hint}");
                    }
                }
            }
        }
    }
}

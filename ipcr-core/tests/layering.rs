//! The law of the architecture: arrows between modules go one way, and each foreign library has one place.
//!
//! Every file of the library is parsed. A module may name modules of a strictly lower rank only, however it spells them: in
//! `use`, in paths, inside macros, in attributes. Code under `#[cfg(test)]` may reach further, but the libraries that have
//! no place in the core have none there either.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail and tell like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use syn::visit::{self, Visit};

/// The modules by rank, lowest first. `dag` and `reference`: docs/design/001-reference-above-dag.md.
const RANKS: [&[&str]; 13] = [
    &["digest", "kind", "limits"],
    &["dag"],
    &["reference"],
    &["event", "identity", "image", "privacy"],
    &["net", "port"],
    &["engine", "exchange", "media", "naming", "store"],
    &["node", "tree"],
    &["pin", "sealed", "transfer"],
    &["publish", "upkeep"],
    &["registry"],
    &["http"],
    &["control", "distribution", "gateway"],
    &["fuzzing", "serve"],
];

/// Libraries and the only places (files or folders of `src`) that may name them.
const PLACES: [(&str, &[&str]); 10] = [
    ("rust_ipfs", &[]),
    ("libp2p", &[]),
    ("ipcr_swarm", &["node"]),
    ("bollard", &["engine/docker.rs"]),
    ("age", &["identity", "privacy"]),
    ("hickory_resolver", &["naming/dns.rs"]),
    ("reqwest", &["net"]),
    ("axum", &["http", "distribution", "gateway", "control", "serve"]),
    ("redb", &["store"]),
    ("tower_http", &["http", "distribution", "gateway", "control", "serve"]),
];

/// Libraries that have no place in the core: they talk to people.
const NOWHERE: [&str; 4] = ["anyhow", "clap", "indicatif", "rpassword"];

/// Most lines of a file, tests at its end not counted.
const LINES: usize = 600;

/// One file of the library.
struct Source {
    /// Below `src`, with `/`.
    path: String,
    /// The module, from the crate's root.
    module: Vec<String>,
    /// Whether it is compiled for tests only.
    test: bool,
    text: String,
    parsed: syn::File,
}

/// A name that a file uses.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// A module at the crate's root, or something else there.
    Inside(String),
    /// The first component of any other path.
    Outside(String),
}

#[test]
fn arrows_go_one_way() {
    let mut broken = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.test && !source.module.is_empty()) {
        let own = &source.module[0];
        let Some(own_rank) = rank(own) else {
            broken.insert(format!("{}: module `{own}` has no rank", source.path));
            continue;
        };
        for named in names(source, false) {
            let Named::Inside(other) = named else { continue };
            match rank(&other) {
                _ if other == *own => {}
                Some(other_rank) if other_rank < own_rank => {}
                Some(_) => {
                    broken.insert(format!("{} names {other}, which is not below {own}", source.path));
                }
                None => {
                    broken
                        .insert(format!("{} names crate::{other} instead of the module that defines it", source.path));
                }
            }
        }
    }
    report(&broken);
}

#[test]
fn libraries_are_named_in_their_place_only() {
    let mut broken = BTreeSet::new();
    for source in sources() {
        for named in names(&source, source.test) {
            let Named::Outside(library) = named else { continue };
            if NOWHERE.contains(&library.as_str()) {
                broken.insert(format!("{} names {library}", source.path));
            }
            let Some((_, places)) = PLACES.iter().find(|(name, _)| *name == library) else { continue };
            let stays = |place: &&str| {
                source.path == *place
                    || source.path.starts_with(&format!("{place}/"))
                    || source.path == format!("{place}.rs")
                    || place.strip_suffix(".rs").is_some_and(|folder| source.path.starts_with(&format!("{folder}/")))
            };
            if !source.test && !places.iter().any(stays) {
                broken.insert(format!("{} names {library}, which belongs to {}", source.path, places.join(", ")));
            }
        }
    }
    report(&broken);
}

#[test]
fn files_are_short_and_used() {
    let mut broken = BTreeSet::new();
    let sources = sources();
    for source in &sources {
        let lines = untested_lines(&source.text);
        if !source.test && lines > LINES {
            broken.insert(format!("{} has {lines} lines, more than {LINES}", source.path));
        }
        if source.module.iter().any(|name| matches!(name.as_str(), "util" | "utils" | "helpers" | "misc")) {
            broken.insert(format!("{}: a module is named after what it is, not `util`", source.path));
        }
    }
    let used: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    for path in files(&root()) {
        if !used.contains(path.as_str()) {
            broken.insert(format!("{path} belongs to no module"));
        }
    }
    report(&broken);
}

/// The checks above find what they look for.
#[test]
fn the_checks_see_every_spelling() {
    let inside = |text: &str, module: &[&str]| -> Vec<String> {
        let source = Source {
            path: "x.rs".into(),
            module: module.iter().map(|name| (*name).to_owned()).collect(),
            test: false,
            text: text.into(),
            parsed: syn::parse_file(text).unwrap(),
        };
        let inside = |named| match named {
            Named::Inside(name) => Some(name),
            Named::Outside(_) => None,
        };
        names(&source, false).into_iter().filter_map(inside).collect()
    };
    for text in [
        "use crate::store::x;",
        "use crate::{digest::D, store::{self, x}};",
        "use crate::store as s;",
        "use super::super::store::x;",
        "fn f() -> crate::store::X { todo() }",
        "fn f() { super::super::store::x() }",
        "fn f() { assert!(crate::store::x()) }",
        "fn f() { vec![super::super::store::x()] }",
        "#[serde(with = \"crate::store::text\")] struct X;",
        "mod inner { use super::super::super::store; }",
        "pub(in crate::store) fn f() {}",
        "macro_rules! m { () => { $crate::store::x() } }",
    ] {
        let found = inside(text, &["tree", "read"]);
        assert!(found.contains(&"store".to_owned()), "{text}: {found:?}");
    }
    assert_eq!(
        inside("use super::document; use self::x; #[cfg(test)] mod tests { use crate::store; }", &["tree", "read"]),
        ["tree"]
    );
    assert_eq!(untested_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(untested_lines("a\n#[cfg(test)]\nuse x;\nb\n"), 4);
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

fn report(broken: &BTreeSet<String>) {
    let lines: Vec<_> = broken.iter().map(String::as_str).collect();
    assert!(broken.is_empty(), "{} breaches:\n{}", lines.len(), lines.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All Rust files below a folder, relative to `src`.
fn files(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
    out
}

/// Every file that is part of the crate, found as the compiler finds them.
fn sources() -> Vec<Source> {
    let mut out = Vec::new();
    let mut todo = vec![("lib.rs".to_owned(), Vec::new(), false)];
    while let Some((path, module, test)) = todo.pop() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let folder = match path.strip_suffix(".rs").unwrap() {
            "lib" => String::new(),
            stem => format!("{}/", stem.strip_suffix("/mod").unwrap_or(stem)),
        };
        for item in &parsed.items {
            let syn::Item::Mod(item) = item else { continue };
            if item.content.is_some() {
                continue;
            }
            let name = item.ident.to_string();
            let mut inner = module.clone();
            inner.push(name.clone());
            let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let named = path_attribute(&item.attrs).map(|file| format!("{beside}/{file}"));
            let usual = [format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")];
            let candidates = named.into_iter().chain(usual);
            let file = { candidates }.find(|file| root().join(file).is_file());
            let file = file.unwrap_or_else(|| panic!("{path}: module {name} has no file"));
            todo.push((file, inner, test || is_test(&item.attrs)));
        }
        out.push(Source { path, module, test, text, parsed });
    }
    out
}

/// The file of `#[path = "…"]`.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            path,
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) if path.is_ident("path") => Some(text.value()),
        _ => None,
    })
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        syn::Meta::Path(path) => path.segments.last().is_some_and(|segment| segment.ident == "test"),
        _ => false,
    })
}

/// Lines before a test module at the end of the file.
fn untested_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let module = |at: &usize| {
        lines[*at] == "#[cfg(test)]"
            && lines.get(at + 1).is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    (0..lines.len()).find(module).unwrap_or(lines.len())
}

/// What a file names; with `tests` also in its tests.
fn names(source: &Source, tests: bool) -> BTreeSet<Named> {
    let mut finder = Finder { module: source.module.clone(), tests, found: BTreeSet::new(), local: BTreeMap::new() };
    finder.visit_file(&source.parsed);
    let own_modules = finder.local;
    finder
        .found
        .into_iter()
        .filter(|named| !matches!(named, Named::Outside(name) if own_modules.contains_key(name)))
        .collect()
}

struct Finder {
    module: Vec<String>,
    tests: bool,
    found: BTreeSet<Named>,
    /// Modules of the file itself: `age::x` may be one of them.
    local: BTreeMap<String, ()>,
}

impl Finder {
    /// Takes a path down that begins like this.
    fn add(&mut self, path: &[String]) {
        let mut module = self.module.clone();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => {
                module.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|name| name == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            Some(name) => {
                self.found.insert(Named::Outside(name.to_owned()));
                return;
            }
            None => return,
        }
        module.extend(rest.iter().cloned());
        if let Some(top) = module.into_iter().next() {
            self.found.insert(Named::Inside(top));
        }
    }

    fn add_use(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(name.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.add_use(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(before, tree)),
        }
    }

    /// Finds paths in tokens that are not parsed: words joined by `::`.
    fn add_tokens(&mut self, text: &str) {
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        let spaced = text
            .replace("::", " :: ")
            .replace(['"', '(', ')', '[', ']', '{', '}', ',', ';', '&', '$', '<', '>'], " \u{0} ");
        for word in spaced.split_whitespace().chain(["\u{0}"]) {
            if word == "::" {
                joined = true;
                continue;
            }
            let is_word = word.chars().all(|c| c.is_alphanumeric() || c == '_');
            if joined && is_word && !path.is_empty() {
                path.push(word.to_owned());
            } else {
                if path.len() > 1 {
                    self.add(&path);
                }
                path = if is_word { vec![word.to_owned()] } else { Vec::new() };
            }
            joined = false;
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.local.insert(item.ident.to_string(), ());
        if is_test(&item.attrs) && !self.tests {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) || self.tests {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test(&item.attrs) || self.tests {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) || self.tests {
            self.add_use(&[], &item.tree);
        }
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.add_tokens(&item.mac.tokens.to_string());
        visit::visit_item_macro(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.add(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_tokens(&item.tokens.to_string());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        match &attribute.meta {
            syn::Meta::List(list) => self.add_tokens(&list.tokens.to_string()),
            syn::Meta::NameValue(_) | syn::Meta::Path(_) => {}
        }
    }
}

/// A copy of a crate, in which a few statements differ.
struct Copy {
    name: &'static str,
    /// The crate of ipcr on which the copy depends, and the original does not.
    needs: Option<&'static str>,
    /// SHA-256 of its sources, see [`hash_files`].
    digest: &'static str,
}

const COPIES: &[Copy] = &[
    Copy {
        name: "libp2p",
        needs: Some("ipcr-security"),
        digest: "9f10f34f3ac4770a036f88bbd4580002e50141377b174adc3a67fb059ecbad49",
    },
    Copy {
        name: "libp2p-quic",
        needs: Some("ipcr-congestion"),
        digest: "ab91e1bf95e11abf744bd804ff2850fcff0189cd45aee5c7e9de0e8785b4da81",
    },
    Copy {
        name: "libp2p-tls",
        needs: None,
        digest: "97a288af06d7ba7171c6c719d173b7453ec74102f638aa7a6ee8f758a1c8b5ce",
    },
];

/// The copies in `third_party` are what is built (docs/design/016 and 019), and what they were when they were compared with the originals. A patch whose
/// version no longer fits is left out with a warning that nobody reads.
#[test]
fn copies_of_foreign_crates_are_built_as_they_were_changed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    assert!(!lock.contains("[[patch.unused]]"), "a patch is not used");
    for Copy { name, needs, digest } in COPIES {
        let begin = format!("\nname = \"{name}\"\n");
        let packages: Vec<&str> = lock.split("[[package]]").filter(|package| package.starts_with(&begin)).collect();
        let [package] = packages[..] else { panic!("there is one {name}: {packages:?}") };
        assert!(!package.contains("source = "), "{package}");
        assert!(needs.is_none_or(|needs| package.contains(&format!("\"{needs}\""))), "{package}");
        let mut hasher = Sha256::new();
        hash_files(&root.join("third_party").join(name).join("src"), "", &mut hasher);
        assert_eq!(
            hex::encode(hasher.finalize()),
            *digest,
            "the sources of {name} are others: compare them with the original"
        );
    }
    let copies = fs::read_dir(root.join("third_party")).unwrap().map(Result::unwrap);
    assert_eq!(copies.filter(|entry| entry.file_type().unwrap().is_dir()).count(), COPIES.len());
}

/// Hashes all files of a folder by name: path, length and bytes of each.
fn hash_files(folder: &Path, path: &str, hasher: &mut Sha256) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            hash_files(&entry.path(), &path, hasher);
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        hasher.update(format!("{path} {}\n", bytes.len()));
        hasher.update(bytes);
    }
}

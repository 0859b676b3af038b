//! Two homes with one key: a laptop and CI, a restored home.

use std::time::Instant;

use serde_json::Value;

use super::Figure;
use super::lab::{Home, Lab, Process, free_port};
use super::router::{Router, TestKey};
use super::site::{DOMAIN, number, require, same, text};
use crate::shell::Result;

const PUSHES: u64 = 20;

/// The homes, and how they find each other.
struct Pair<'a> {
    lab: &'a Lab,
    router: Router,
    key: TestKey,
    homes: [Home<'a>; 2],
    addresses: [String; 2],
}

impl<'a> Pair<'a> {
    fn new(lab: &'a Lab, name: &str) -> Result<Self> {
        let router = Router::start()?;
        let key = TestKey::new(lab, name)?;
        let home = |which: &str| {
            let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port()?);
            let home = lab.home(&format!("{name}-{which}")).with(&["--router", &router.url, "--listen", &listen]);
            home.json(&["init", "--domain", DOMAIN, "--import", &key.file.display().to_string()])?;
            let peer = text(&home.json(&["id"])?["node"], "peer_id")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((home, format!("{listen}/p2p/{peer}")))
        };
        let ((first, one), (second, other)) = (home("a")?, home("b")?);
        let hints = [&one, &other].map(|address| format!("dnsaddr={address}"));
        let (hint, link) = (format!("_dnsaddr.{DOMAIN}"), format!("dnslink=/ipns/{}", key.name));
        let port = lab.dns(&[(&hint, &hints[0]), (&hint, &hints[1]), (&format!("_dnslink.{DOMAIN}"), &link)])?;
        let homes = [first, second].map(|home| home.with(&["--dns", &format!("127.0.0.1:{port}")]));
        Ok(Self { lab, router, key, homes, addresses: [one, other] })
    }

    /// Serves one of them.
    fn serve(&self, which: usize) -> Result<Process> {
        Ok(self.homes[which].serve(&["serve", "--http", "127.0.0.1:0"])?.0)
    }

    /// What others find under a name of the registry, from these peers.
    fn visit(&self, peers: &[&str], reference: &str) -> Result<Value> {
        let visitor = self.lab.home("pair-visitor").with(&["--router", &self.router.url]);
        let flags: Vec<&str> = peers.iter().flat_map(|peer| ["--peer", *peer]).collect();
        visitor.with(&flags).json(&["resolve", &format!("{}/{reference}", self.key.name)])
    }
}

fn tags(home: &Home<'_>, image: &str) -> Result<Vec<String>> {
    let listed = home.json(&["ls", image])?;
    let tags = listed["images"][0]["tags"].as_array().ok_or_else(|| format!("no tags: {listed}"))?;
    let mut names = tags.iter().map(|tag| text(tag, "tag")).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Line 8: pushes by turns, of different tags and of the same one.
pub(crate) fn alternating(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    lab.child("small:2", "small:1")?;
    let pair = Pair::new(lab, "pair")?;
    let serving = [pair.serve(0)?, pair.serve(1)?];
    let peers = [pair.addresses[0].as_str(), pair.addresses[1].as_str()];

    let began = Instant::now();
    let mut last = 0;
    for number_of in 0..PUSHES {
        let home = &pair.homes[usize::from(number_of % 2 == 1)];
        let pushed = home.json(&["push", "small:1", "--as", &format!("t:{number_of:02}")])?;
        same("published", &pushed["published"], &true.into())?;
        let sequence = number(&pushed, "/sequence")?;
        require(sequence > last, || format!("sequence {sequence} after {last}"))?;
        last = sequence;
    }
    let seconds = began.elapsed().as_secs_f64();
    let expected: Vec<String> = (0..PUSHES).map(|number| format!("{number:02}")).collect();
    same("the tags of the home that pushed last", &tags(&pair.homes[1], "t")?, &expected)?;
    for tag in [0, PUSHES - 2, PUSHES - 1] {
        pair.visit(&peers, &format!("t:{tag:02}"))?;
    }
    // The other home has them all as soon as it publishes.
    pair.homes[0].json(&["publish"])?;
    same("the tags of the other home", &tags(&pair.homes[0], "t")?, &expected)?;

    // The same tag on both sides.
    let ours = text(&pair.homes[0].json(&["push", "small:1", "--as", "same:1", "--no-publish"])?, "digest")?;
    let theirs = text(&pair.homes[1].json(&["push", "small:2", "--as", "same:1"])?, "digest")?;
    require(ours != theirs, || "both images have one digest".into())?;
    let error = pair.homes[0].fails(5, &["publish"])?;
    require(error["hint"].as_str().is_some_and(|hint| hint.contains("--force")), || format!("hint: {error}"))?;
    let error = pair.homes[0].fails(5, &["push", "small:1", "--as", "same:1"])?;
    require(error["message"].as_str().is_some_and(|said| said.contains("same:1")), || format!("message: {error}"))?;
    same("the digest before --force", text(&pair.visit(&peers, "same:1")?, "digest")?.as_str(), theirs.as_str())?;
    pair.homes[0].json(&["publish", "--force"])?;
    same("the digest after --force", text(&pair.visit(&peers, "same:1")?, "digest")?.as_str(), ours.as_str())?;
    // A change of the tag that was seen is none of the other side.
    pair.homes[1].json(&["push", "small:2", "--as", "same:2"])?;
    pair.homes[1].json(&["push", "small:2", "--as", "same:1"])?;
    same("the digest in the end", text(&pair.visit(&peers, "same:1")?, "digest")?.as_str(), theirs.as_str())?;
    same("the tags in the end", &tags(&pair.homes[1], "t")?, &expected)?;

    // A key without a tree.
    let third = lab.home("pair-c").with(&["--router", &pair.router.url, "--peer", peers[0], "--peer", peers[1]]);
    third.json(&["init", "--import", &pair.key.file.display().to_string()])?;
    let before = number(&pair.visit(&peers, "t:00")?, "/chain/0/sequence")?;
    same("what a restored home publishes", &number(&third.json(&["publish"])?, "/sequence")?, &before)?;
    same("the tags of a restored home", &tags(&third, "t")?, &expected)?;
    drop(serving);
    Figure::at_most(seconds, 60.0, "s for 20 pushes")
}

/// Line 8: what the other home published cannot be fetched.
pub(crate) fn unfetched(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let pair = Pair::new(lab, "apart")?;
    let [first, second] = &pair.homes;
    // Nobody serves it afterwards, but the router has the record.
    same("published", &second.json(&["push", "small:1", "--as", "u:second"])?["published"], &true.into())?;
    let began = Instant::now();
    let error = first.with(&["--timeout", "8"]).fails(4, &["push", "small:1", "--as", "u:first"])?;
    let seconds = began.elapsed().as_secs_f64();
    let hint = error["hint"].as_str().unwrap_or_default();
    require(hint.contains("ipcr publish"), || format!("hint: {error}"))?;
    same("what is tagged here", &tags(first, "u")?, &vec!["first".to_owned()])?;
    first.with(&["--timeout", "8"]).fails(4, &["publish"])?;
    let serving = pair.serve(1)?;
    let published = first.json(&["publish"])?;
    same("published", &published["published"], &true.into())?;
    same("the tags of both", &tags(first, "u")?, &vec!["first".to_owned(), "second".to_owned()])?;
    drop(serving);

    // Both have published the same sequence without seeing each other, and both are found.
    let fork = Pair::new(lab, "fork")?;
    let [first, second] = &fork.homes;
    first.json(&["push", "small:1", "--as", "f:first"])?;
    fork.router.say(&fork.key.name, None);
    second.json(&["push", "small:1", "--as", "f:second"])?;
    let serving = fork.serve(0)?;
    let visitor = lab.home("fork-v").with(&["--router", &fork.router.url, "--peer", &fork.addresses[0]]);
    visitor.fails(5, &["resolve", &fork.key.name])?;
    second.json(&["publish"])?;
    same("the tags after a fork", &tags(second, "f")?, &vec!["first".to_owned(), "second".to_owned()])?;
    drop(serving);

    // One has published more often than the other, and of the other's nobody tells any more.
    let uneven = Pair::new(lab, "uneven")?;
    let [first, second] = &uneven.homes;
    first.json(&["push", "small:1", "--as", "e:a"])?;
    first.json(&["push", "small:1", "--as", "e:b"])?;
    uneven.router.say(&uneven.key.name, None);
    let behind = second.json(&["push", "small:1", "--as", "e:z"])?;
    same("published", &behind["published"], &true.into())?;
    uneven.router.say(&uneven.key.name, None);
    let ahead = first.json(&["push", "small:1", "--as", "e:c"])?;
    let (ahead, behind) = (number(&ahead, "/sequence")?, number(&behind, "/sequence")?);
    require(ahead > behind, || format!("sequences {ahead} and {behind}"))?;
    let serving = uneven.serve(0)?;
    second.json(&["publish"])?;
    same("the tags of both", &tags(second, "e")?, &["a", "b", "c", "z"].map(str::to_owned).to_vec())?;
    drop(serving);
    Figure::at_most(seconds, 20.0, "s until exit 4")
}

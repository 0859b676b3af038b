//! Names and what they point to over time; what is refused.

use super::Figure;
use super::lab::{Lab, at};
use super::site::{DOMAIN, number, require, same, text};
use crate::shell::Result;

/// Line 8: a new tag takes the sequence one further, an unchanged one leaves it.
pub(crate) fn sequence(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let home = lab.home("sequence");
    home.json(&["init"])?;
    let first = number(&home.json(&["push", "small:1"])?, "/sequence")?;
    let other = number(&home.json(&["push", "small:1", "--as", "other:1"])?, "/sequence")?;
    same("the sequence after a new tag", &other, &(first + 1))?;
    let again = home.json(&["push", "small:1", "--as", "other:1"])?;
    same("the sequence after a push of the same", &number(&again, "/sequence")?, &other)?;
    same("unchanged", &again["unchanged"], &true.into())?;
    Ok(Figure::ok(format!("{first}, {other}, {other}")))
}

/// Line 8: what a tag named before it moved is still there by its digest.
pub(crate) fn moved_tag(lab: &Lab) -> Result<Figure> {
    let old = lab.image("small:1", super::exchange::SMALL_MIB)?;
    let new = lab.child("small:2", "small:1")?;
    let home = lab.home("moved");
    home.json(&["init", "--domain", DOMAIN])?;
    let before = text(&home.json(&["push", "small:1", "--as", "m:1"])?, "digest")?;
    let after = text(&home.json(&["push", "small:2", "--as", "m:1"])?, "digest")?;
    require(before != after, || format!("both digests are {before}"))?;
    let _site = lab.serve(&home)?;
    let visitor = lab.visitor("moved-b")?;
    for (reference, id) in [(format!("{DOMAIN}/m:1"), new), (format!("{DOMAIN}/m@{before}"), old)] {
        let pulled = visitor.json(&["pull", &reference, "--into", "none"])?;
        same(&format!("the image ID of {reference}"), text(&pulled, "image_id")?.as_str(), id.as_str())?;
    }
    Ok(Figure::ok("both pull"))
}

/// Line 8: this registry's own domain and key before a name change nothing; what is kept back stays so while it is served.
pub(crate) fn own_names(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let home = lab.home("own");
    let ipns = text(&home.json(&["init", "--domain", DOMAIN])?, "ipns")?;
    let did = text(&home.json(&["id"])?, "did")?;
    home.json(&["push", "small:1", "--as", &format!("{DOMAIN}/app:1")])?;
    home.json(&["tag", &format!("{ipns}/app:1"), &format!("{did}/app:2")])?;
    home.json(&["tag", &format!("{DOMAIN}/app:2"), "app:3"])?;
    let tags = |home: &super::lab::Home<'_>| -> Result<Vec<String>> {
        let listing = home.json(&["ls", &format!("{DOMAIN}/app")])?;
        let tags = listing["images"][0]["tags"].as_array().ok_or("a listing of an image has tags")?;
        let mut tags = tags.iter().map(|tag| text(tag, "tag")).collect::<Result<Vec<_>>>()?;
        tags.sort();
        Ok(tags)
    };
    same("the tags", tags(&home)?.as_slice(), &["1", "2", "3"].map(str::to_owned)[..])?;
    home.json(&["rm", &format!("{ipns}/app:2")])?;
    for args in [["rm", "other.test/app:1"], ["tag", "app:1"], ["push", "small:1"]] {
        let mut args = args.to_vec();
        match args[0] {
            "tag" => args.push("other.test/app:4"),
            "push" => args.extend(["--as", "other.test/app:4"]),
            _ => {}
        }
        let error = home.fails(2, &args)?;
        require(error["hint"].is_string(), || format!("no hint for {}: {error}", args.join(" ")))?;
    }
    same("the tags", tags(&home)?.as_slice(), &["1", "3"].map(str::to_owned)[..])?;

    home.json(&["push", "small:1", "--as", "app:5", "--no-publish"])?;
    lab.dns(&[])?;
    let visitor = lab.visitor("own-b")?;
    for (flags, exit) in
        [(&["serve", "--http", "127.0.0.1:0", "--no-publish"][..], 3), (&["serve", "--http", "127.0.0.1:0"], 0)]
    {
        let (_service, ready) = home.serve(flags)?;
        let address = super::site::tcp_address(&ready)?;
        let published = format!("{ipns}/app:1");
        let kept_back = format!("{ipns}/app:5");
        visitor.json(&["--peer", &address, "resolve", &published])?;
        let ask = ["--peer", &address, "resolve", &kept_back];
        if exit == 0 {
            // Publishing begins when the service is ready.
            let found = || visitor.output(&ask).is_ok_and(|output| output.status.success());
            super::lab::wait_for("the image to be published", std::time::Duration::from_secs(20), found)?;
        } else {
            visitor.fails(exit, &ask)?;
        }
    }
    Ok(Figure::ok("own domain, key and DID; kept back until `ipcr serve`"))
}

/// Line 9: what does not exist or makes no sense, with its exit code and a hint.
pub(crate) fn names(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let home = lab.home("names");
    home.json(&["init", "--domain", DOMAIN])?;
    home.json(&["push", "small:1", "--as", "n:1"])?;
    let site = lab.serve(&home)?;
    let link = format!("dnslink=/ipns/{}", site.ipns);
    let hint = format!("dnsaddr={}", site.address);
    lab.dns(&[
        ("_dnslink.hub.test", &link),
        ("_dnsaddr.hub.test", &hint),
        ("_dnslink.two.test", &link),
        ("_dnslink.two.test", "dnslink=/ipfs/bafkqaaa"),
    ])?;
    let visitor = lab.visitor("names-b")?;
    let cases: &[(i32, &[&str])] = &[
        (3, &["pull", "hub.test/none:1", "--into", "none"]),
        (3, &["pull", "hub.test/n:none", "--into", "none"]),
        (2, &["pull", "hub.test/N:1", "--into", "none"]),
        (3, &["pull", "no.test/n:1", "--into", "none"]),
        (5, &["pull", "two.test/n:1", "--into", "none"]),
        (4, &["--dns", "127.0.0.1:9", "--timeout", "10", "resolve", "hub.test/n:1"]),
        (2, &["push", "small:1"]),
    ];
    for (exit, args) in cases {
        let home = if args[0] == "--dns" { lab.home("names-b") } else { visitor.clone() };
        let error = home.fails(*exit, args)?;
        require(error["hint"].is_string(), || format!("no hint for {}: {error}", args.join(" ")))?;
    }
    drop(site);
    let home = lab.home("names");
    for name in ["v2:1", "index.html:1", "_x:1", "a/tags:1", "ipfs/bafkqaaa:1"] {
        home.fails(2, &["push", "small:1", "--as", name])?;
    }
    home.fails(3, &["push", "no-such-image:1"])?;
    for dry in [&["--dry-run"][..], &[]] {
        home.fails(3, &[&["push", "small:1", "--as", "n:9", "--platform", "linux/s390x"], dry].concat())?;
    }
    home.through(&at(&lab.path("nobody.sock"))).fails(7, &["push", "small:1", "--as", "n:2"])?;
    home.json(&["check", "--read-data"])?;
    Ok(Figure::ok(format!("{} refusals", cases.len() + 9)))
}

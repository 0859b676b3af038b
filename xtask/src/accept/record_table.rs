//! What is made of the records that the network has (design, "Records"): every row of the table, from a router and from Kubo.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Figure;
use super::exchange::Kubo;
use super::lab::{Home, Lab};
use super::router::{Router, TestKey};
use super::site::{number, require, same, text, warned};
use crate::shell::Result;

const HOUR: Duration = Duration::from_secs(3600);
/// Long enough to be resolved once on a busy machine, short enough to be waited for.
const SOON: Duration = Duration::from_secs(8);

/// What a visitor makes of the record that the router has.
struct Table<'a> {
    router: &'a Router,
    key: &'a TestKey,
    visitor: &'a Home<'a>,
    /// A whole registry, which the values lead to.
    value: String,
}

impl Table<'_> {
    fn says(&self, sequence: u64, lifetime: Duration) -> Result {
        self.says_value(&self.value, sequence, lifetime)
    }

    fn says_value(&self, value: &str, sequence: u64, lifetime: Duration) -> Result {
        self.router.say(&self.key.name, Some(self.key.record(value, sequence, lifetime)?));
        Ok(())
    }

    fn says_nothing(&self) {
        self.router.say(&self.key.name, None);
    }

    /// Pulls an image by the name, so that the row counts for the whole way.
    fn pull(&self, flags: &[&str]) -> Result<Value> {
        let reference = format!("{}/r:1", self.key.name);
        self.visitor.with(flags).json(&["pull", &reference, "--into", "none"])
    }

    fn refuses(&self, exit: i32, flags: &[&str], row: &str) -> Result<String> {
        let reference = format!("{}/r:1", self.key.name);
        let error = self.visitor.with(flags).fails(exit, &["pull", &reference, "--into", "none"]);
        let error = error.map_err(|error| format!("{row}: {error}"))?;
        Ok(error["hint"].as_str().ok_or_else(|| format!("{row}: no hint: {error}"))?.to_owned())
    }

    /// The record's sequence and validity, as the pull followed it.
    fn followed(&self, row: &str, pulled: &Value, sequence: u64) -> Result<String> {
        same(&format!("{row}: the sequence"), &number(pulled, "/chain/0/sequence")?, &sequence)?;
        same(&format!("{row}: the value"), text(&pulled["chain"][0], "value")?.as_str(), self.value.as_str())?;
        text(&pulled["chain"][0], "valid_until")
    }

    fn text(&self, flags: &[&str]) -> Result<(String, String)> {
        let output = self.visitor.with(flags).output(&["resolve", &self.key.name])?;
        let [out, talk] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok((out, talk))
    }
}

/// Line 8: the table, with records that were signed for it.
pub(crate) fn rows(lab: &Lab) -> Result<Figure> {
    lab.image("small:1", super::exchange::SMALL_MIB)?;
    let host = lab.home("rows-a");
    host.json(&["init"])?;
    let root = text(&host.json(&["push", "small:1", "--as", "r:1"])?, "root")?;
    let site = lab.serve(&host)?;
    let router = Router::start()?;
    let visitor = lab.home("rows-b").with(&["--router", &router.url, "--peer", &site.address]);
    let key = TestKey::new(lab, "rows-key")?;
    let table = Table { router: &router, key: &key, visitor: &visitor, value: format!("/ipfs/{root}") };

    let row = "nothing valid, none kept";
    require(!table.refuses(4, &[], row)?.contains("--allow-stale"), || format!("{row}: a hint that cannot help"))?;
    table.refuses(4, &["--allow-stale"], row)?;
    // Somebody else's record under this name is as good as none.
    let stranger = TestKey::new(lab, "rows-stranger")?;
    router.say(&key.name, Some(stranger.record(&table.value, 9, HOUR)?));
    table.refuses(4, &[], "a forged record")?;
    table.says(5, Duration::ZERO)?;
    table.refuses(4, &[], "an expired record, none kept")?;

    table.says(5, HOUR)?;
    let first = table.pull(&[])?;
    let until = table.followed("a first record", &first, 5)?;
    same("the age of a record just found", &number(&first, "/chain/0/age")?, &0)?;
    let confirmed = Instant::now();

    let row = "older than the highest, kept valid";
    table.says_value("/ipfs/bafkqaaa", 4, HOUR)?;
    let pulled = table.pull(&[])?;
    table.followed(row, &pulled, 5)?;
    let warning = warned(&pulled, "stale-answer").ok_or_else(|| format!("{row}: no warning: {pulled}"))?;
    same("found and used", &(number(warning, "/found")?, number(warning, "/used")?), &(4, 5))?;
    let (_, talk) = table.text(&[])?;
    require(talk.contains("warning:") && talk.contains("older record"), || format!("{row}: {talk}"))?;

    let row = "nothing valid, kept valid";
    table.says_nothing();
    std::thread::sleep(Duration::from_secs(2).saturating_sub(confirmed.elapsed()));
    let pulled = table.pull(&[])?;
    table.followed(row, &pulled, 5)?;
    let age = number(&pulled, "/chain/0/age")?;
    let most = confirmed.elapsed().as_secs() + 2;
    require((1..=most).contains(&age), || format!("{row}: the age is {age}, of at most {most}"))?;
    require(warned(&pulled, "kept-record").is_some_and(|warning| warning["age"] == age), || {
        format!("{row}: {pulled}")
    })?;
    let (out, talk) = table.text(&[])?;
    require(out.contains("confirmed") && talk.contains("last confirmed"), || format!("{row}: {out}{talk}"))?;

    let row = "same sequence, same value, later validity";
    table.says(5, 2 * HOUR)?;
    let later = table.followed(row, &table.pull(&[])?, 5)?;
    require(later > until, || format!("{row}: valid until {later}, before until {until}"))?;

    let row = "same sequence, another value";
    table.says_value("/ipfs/bafkqaaa", 5, 3 * HOUR)?;
    require(table.refuses(5, &[], row)?.contains("ipcr publish"), || format!("{row}: another hint"))?;
    table.says_nothing();
    table.refuses(5, &[], "a fork, and nothing found")?;
    table.says(5, 3 * HOUR)?;
    table.refuses(5, &[], "a fork, and one side of it found")?;
    table.says(6, HOUR)?;
    table.followed("a fork, and a higher sequence", &table.pull(&[])?, 6)?;

    table.says(7, SOON)?;
    let began = Instant::now();
    table.followed("a record that ends soon", &table.pull(&[])?, 7)?;
    std::thread::sleep((SOON + Duration::from_secs(1)).saturating_sub(began.elapsed()));
    let row = "only older ones, kept expired";
    table.says(6, HOUR)?;
    table.refuses(5, &[], row)?;
    table.refuses(5, &["--allow-stale"], row)?;
    let row = "nothing valid, kept expired";
    table.says_nothing();
    require(table.refuses(4, &[], row)?.contains("--allow-stale"), || format!("{row}: no hint of --allow-stale"))?;
    let pulled = table.pull(&["--allow-stale"])?;
    table.followed("--allow-stale", &pulled, 7)?;
    require(warned(&pulled, "kept-record").is_some(), || format!("--allow-stale without a warning: {pulled}"))?;
    let (out, talk) = table.text(&["--allow-stale"])?;
    require(out.contains("sequence 7") && talk.contains("last confirmed"), || format!("--allow-stale: {out}{talk}"))?;
    table.says(8, HOUR)?;
    let pulled = table.pull(&[])?;
    table.followed("a higher sequence after all", &pulled, 8)?;
    same("warnings", &pulled["warnings"], &Value::Array(Vec::new()))?;
    drop(site);
    Ok(Figure::ok("11 rows, and 8 beside them"))
}

/// Line 8: the same from Kubo's DHT, which signs with the registry's own key.
pub(crate) fn from_kubo(lab: &Lab) -> Result<Figure> {
    let key = TestKey::new(lab, "kubo-key")?;
    let newer = Kubo::start(lab, "kubo-newer")?;
    let older = Kubo::start(lab, "kubo-older")?;
    let file = key.file.display().to_string();
    let publish = |kubo: &Kubo<'_>, value: &str, lifetime: &str, sequence: u64| {
        let (lifetime, sequence) = (format!("--lifetime={lifetime}"), format!("--sequence={sequence}"));
        let cid = kubo.add(value)?;
        kubo.output(&["name", "publish", "--allow-offline", "--key=k", &lifetime, &sequence, &format!("/ipfs/{cid}")])?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(format!("/ipfs/{cid}"))
    };
    for kubo in [&newer, &older] {
        kubo.output(&["key", "import", "--format=libp2p-protobuf-cleartext", "k", &file])?;
    }
    let visitor = lab.home("kubo-b");
    let ask = |kubo: &Kubo<'_>| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(visitor.with(&["--peer", &kubo.address()?]))
    };
    let resolve = ["resolve", key.name.as_str()];

    let value = publish(&newer, "newer", "1h", 20)?;
    publish(&older, "older", "1h", 10)?;
    let resolved = ask(&newer)?.json(&resolve)?;
    same("the sequence", &number(&resolved, "/chain/0/sequence")?, &20)?;
    same("the value", text(&resolved["chain"][0], "value")?.as_str(), value.as_str())?;
    let resolved = ask(&older)?.json(&resolve)?;
    same("the sequence beside an older one", &number(&resolved, "/chain/0/sequence")?, &20)?;
    require(warned(&resolved, "stale-answer").is_some(), || format!("no warning of an older record: {resolved}"))?;
    publish(&older, "rival", "1h", 20)?;
    ask(&older)?.fails(5, &resolve)?;
    publish(&newer, "settled", "8s", 21)?;
    let began = Instant::now();
    same("the sequence after a fork", &number(&ask(&newer)?.json(&resolve)?, "/chain/0/sequence")?, &21)?;
    std::thread::sleep((SOON + Duration::from_secs(1)).saturating_sub(began.elapsed()));
    let error = ask(&newer)?.fails(4, &resolve)?;
    require(error["hint"].as_str().is_some_and(|hint| hint.contains("--allow-stale")), || format!("hint: {error}"))?;
    ask(&older)?.fails(5, &resolve)?;
    let resolved = ask(&newer)?.with(&["--allow-stale"]).json(&resolve)?;
    same("the sequence of a stale record", &number(&resolved, "/chain/0/sequence")?, &21)?;
    Ok(Figure::ok("newer, older, rival, expired"))
}

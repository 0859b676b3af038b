//! Peers that lie, each beside one that does not.

use std::fs;
use std::time::Instant;

use super::{Holder, Script};
use crate::accept::Figure;
use crate::accept::lab::Lab;
use crate::accept::site::{number, require, same, text, warned};
use crate::shell::Result;

/// What they do (`xtask/peers/helia/raw.mjs`), and whether that is so wrong that nothing more is asked of them.
const LIES: [(&str, bool); 6] =
    [("wrong", true), ("other", true), ("oversize", false), ("flood", true), ("trickle", false), ("silent", false)];
/// Seconds that a pull may take beyond twice its time without a liar.
const MORE: f64 = 10.0;

/// Line 2: no wrong byte reaches the result, and the pull ends in good time.
pub(crate) fn liars(lab: &Lab) -> Result<Figure> {
    let holder = Holder::start(lab, "liars-a", 331, &[48 << 20, 16 << 20])?;
    let pull = |name: &str, liar: Option<&str>| -> Result<(f64, serde_json::Value)> {
        let mut visitor = lab.home(&format!("liars-{name}"));
        if let Some(liar) = liar {
            visitor = visitor.with(&["--peer", liar]);
        }
        let visitor = visitor.with(&["--peer", &holder.address]);
        let begin = Instant::now();
        let pulled = visitor.json(&["pull", &holder.reference, "--into", "none"])?;
        let seconds = begin.elapsed().as_secs_f64();
        holder.check(&visitor, &pulled)?;
        let fetched = number(&pulled, "/bytes/fetched")?;
        require(fetched >= holder.bytes, || format!("{fetched} bytes of {} were fetched", holder.bytes))?;
        fs::remove_dir_all(&visitor.dir)?;
        Ok((seconds, pulled))
    };
    let (calm, honest) = pull("none", None)?;
    let limit = 2.0 * calm + MORE;
    let mut found = vec![format!("alone {calm:.1}")];
    for (lie, caught) in LIES {
        let liar = Script::start(lab, "raw.mjs", &[lie])?;
        let address = liar.address()?;
        let (seconds, pulled) = pull(lie, Some(&address)).map_err(|error| format!("{lie}: {error}"))?;
        same(&format!("the digest beside {lie}"), &text(&pulled, "digest")?, &text(&honest, "digest")?)?;
        require(seconds <= limit, || format!("{lie}: the pull took {seconds:.1} s, limit {limit:.1} s"))?;
        let told = warned(&pulled, "bad-peer").is_some();
        require(told == caught, || format!("{lie}: a warning of it: {told}; {}", pulled["warnings"]))?;
        found.push(format!("{lie} {seconds:.1}"));
    }
    Ok(Figure { found: format!("{} s", found.join(", ")), limit: format!("<= {limit:.1} s") })
}

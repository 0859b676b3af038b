//! In which steps an image goes into an engine: [`cut`], and what the images are that the steps leave for the next ones.
//!
//! An engine looks at an archive when it has all of it. In steps it unpacks the layers of one while those of the next one come
//! (docs/design/018-loading-in-steps.md).

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::digest::Digest;
use crate::image::platform::Platform;
use crate::port::engine::EngineImage;

/// The label of images that are steps; its value says when the load began (RFC 3339).
pub(crate) const STEP_LABEL: &str = "ipcr.step";
/// Bytes of layers for which a step is worth its calls.
const WORTH: u64 = 24 << 20;
/// Bytes that are to be left for the last step, which names the image.
const REST: u64 = 8 << 20;
/// How long a load may take: what one made before is left over from it.
const FORGOTTEN: TimeDelta = TimeDelta::days(7);

/// A layer that has to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Its number in the image.
    pub(super) at: usize,
    /// Its number where it comes for the last time: an archive has every layer once.
    pub(super) last: usize,
    /// Bytes on their way to the engine, about.
    pub(super) bytes: u64,
}

/// One step of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Which of the layers that are sent it takes.
    pub(super) sent: Range<usize>,
    /// How many of the image's layers the engine has afterwards.
    pub(super) layers: usize,
    /// Whether it is the lowest layer alone, which engines unpack while it comes.
    pub(super) import: bool,
}

/// Cuts a load into steps; the last one takes the image itself, whether there are layers left for it or not. `layers` is how many the
/// image has.
pub(super) fn cut(sent: &[Sent], layers: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut begin = 0;
    if sent.first().is_some_and(|first| first.at == 0 && first.last == 0 && first.bytes >= WORTH) {
        steps.push(Step { sent: 0..1, layers: 1, import: true });
        begin = 1;
    }
    let mut rest: u64 = sent[begin..].iter().fold(0, |sum, layer| sum.saturating_add(layer.bytes));
    let (mut bytes, mut last): (u64, usize) = (0, 0);
    for (at, layer) in sent.iter().enumerate().skip(begin) {
        bytes = bytes.saturating_add(layer.bytes);
        rest = rest.saturating_sub(layer.bytes);
        last = last.max(layer.last);
        if bytes >= WORTH && rest >= REST && last <= layer.at {
            steps.push(Step { sent: begin..at + 1, layers: layer.at + 1, import: false });
            (begin, bytes) = (at + 1, 0);
        }
    }
    steps.push(Step { sent: begin..sent.len(), layers, import: false });
    steps
}

/// Labels of what the steps of a load make that began at `begun`.
pub(super) fn labels(begun: DateTime<Utc>) -> BTreeMap<String, String> {
    BTreeMap::from([(STEP_LABEL.to_owned(), begun.to_rfc3339())])
}

/// The configuration of an image of the lowest layers of another one.
pub(super) fn config(platform: &Platform, diff_ids: &[Digest], begun: DateTime<Utc>) -> Bytes {
    let mut config = serde_json::json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "created": begun.to_rfc3339(),
        "config": { "Labels": labels(begun) },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = variant.as_str().into();
    }
    config.to_string().into()
}

/// Whether a load has made the image for itself.
pub(super) fn is_step(image: &EngineImage) -> bool {
    image.names.is_empty() && image.labels.contains_key(STEP_LABEL)
}

/// Whether the load that began then has made the image for itself.
pub(super) fn is_step_of(image: &EngineImage, begun: DateTime<Utc>) -> bool {
    is_step(image) && image.labels.get(STEP_LABEL) == Some(&begun.to_rfc3339())
}

/// Whether some load has made this image for itself, and it can go once the image of these layers is there: that one has all of its layers, or it is
/// old.
pub(super) fn is_left_over(image: &EngineImage, diff_ids: &[Digest], now: DateTime<Utc>) -> bool {
    let Some(begun) = image.labels.get(STEP_LABEL).filter(|_| is_step(image)) else { return false };
    let old = DateTime::parse_from_rfc3339(begun).is_ok_and(|begun| now.signed_duration_since(begun) > FORGOTTEN);
    old || diff_ids.starts_with(&image.diff_ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sent(layers: &[(usize, u64)]) -> Vec<Sent> {
        layers.iter().map(|(at, mib)| Sent { at: *at, last: *at, bytes: mib * MIB }).collect()
    }

    fn step(sent: Range<usize>, layers: usize, import: bool) -> Step {
        Step { sent, layers, import }
    }

    #[test]
    fn small_loads_take_one_step() {
        assert_eq!(cut(&[], 3), [step(0..0, 3, false)]);
        assert_eq!(cut(&sent(&[(0, 10), (1, 10), (2, 3)]), 3), [step(0..3, 3, false)]);
        // Little is left for a second one.
        assert_eq!(cut(&sent(&[(1, 100), (2, 7)]), 3), [step(0..2, 3, false)]);
    }

    #[test]
    fn the_lowest_layer_is_a_step_of_its_own() {
        assert_eq!(cut(&sent(&[(0, 100)]), 1), [step(0..1, 1, true), step(1..1, 1, false)]);
        let two = sent(&[(0, 100), (1, 1)]);
        assert_eq!(cut(&two, 2), [step(0..1, 1, true), step(1..2, 2, false)]);
        // Only the lowest one of the image can be imported.
        assert_eq!(cut(&sent(&[(1, 100)]), 2), [step(0..1, 2, false)]);
    }

    #[test]
    fn steps_are_of_layers_that_are_worth_it() {
        let many = sent(&[(0, 30), (1, 1), (3, 20), (4, 20), (5, 90), (8, 30)]);
        let steps = [step(0..1, 1, true), step(1..4, 5, false), step(4..5, 6, false), step(5..6, 9, false)];
        assert_eq!(cut(&many, 9), steps);
    }

    #[test]
    fn what_comes_twice_comes_in_one_step() {
        let mut twice = sent(&[(0, 30), (1, 30), (3, 30), (4, 30)]);
        twice[0].last = 2;
        assert_eq!(cut(&twice, 5), [step(0..3, 4, false), step(3..4, 5, false)]);
        twice[0].last = 4;
        assert_eq!(cut(&twice, 5), [step(0..4, 5, false)]);
    }

    #[test]
    fn what_loads_leave_behind() {
        let now = Utc::now();
        let layers = [1u8, 2, 3].map(|layer| Digest::sha256(&[layer]));
        let image = |count: usize, begun: DateTime<Utc>| EngineImage {
            id: Digest::sha256(b"step"),
            names: Vec::new(),
            repo_digests: Vec::new(),
            diff_ids: layers[..count].to_vec(),
            platform: Platform::host(),
            size: 0,
            labels: labels(begun),
        };
        assert!(is_left_over(&image(2, now), &layers, now));
        assert!(!is_left_over(&image(3, now), &layers[..2], now), "it has a layer more");
        assert!(is_left_over(&image(3, now - TimeDelta::days(8)), &layers[..2], now));
        let named = EngineImage { names: vec!["somebody's:1".into()], ..image(2, now) };
        assert!(!is_left_over(&named, &layers, now));
        let other = EngineImage { labels: BTreeMap::new(), ..image(2, now) };
        assert!(!is_left_over(&other, &layers, now));
    }
}

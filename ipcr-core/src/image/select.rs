//! Which manifest of an index serves a platform: [`select_platform`].

use super::descriptor::Descriptor;
use super::manifest::Index;
use super::media_type;
use super::platform::Platform;

/// The entry of `index` that suits `wanted` best, or `None`.
///
/// An entry that serves `wanted` exactly wins; then an older variant of the same CPU family (`linux/arm/v6` on v7,
/// `linux/amd64` on v3), the newest first; the earlier entry among equals. Entries without a platform are taken only when
/// there is exactly one manifest in all. Nested indexes (which carry no platform) are the caller's to follow.
pub fn select_platform<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    if let [only] = index.manifests.as_slice()
        && only.platform.is_none()
        && media_type::is_manifest(&only.media_type)
    {
        return Some(only);
    }
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in &index.manifests {
        let Some(platform) = &entry.platform else { continue };
        let Some(rank) = rank(&platform.platform(), wanted) else { continue };
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

/// How well an image of `found` runs on `wanted`: higher is better, `None` not at all.
fn rank(found: &Platform, wanted: &Platform) -> Option<u32> {
    if found.os != wanted.os || found.architecture != wanted.architecture {
        return None;
    }
    let version = |platform: &Platform, default: u32| match platform.variant.as_deref() {
        None | Some("") => Some(default),
        Some(variant) => variant.strip_prefix('v').and_then(|digits| digits.parse().ok()),
    };
    // What an open variant means (containerd, platforms/database.go); `arm` without one runs on v7 machines.
    let default = match wanted.architecture.as_str() {
        "arm" => 7,
        "arm64" => 8,
        _ => 1,
    };
    match (version(found, default), version(wanted, default)) {
        (Some(found), Some(wanted)) => (found <= wanted).then_some(found),
        _ => (found.variant == wanted.variant).then_some(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::descriptor::PlatformField;
    use crate::image::media_type::{OCI_INDEX, OCI_MANIFEST};

    fn entry(platform: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::new(OCI_MANIFEST, Digest::sha256(platform.unwrap_or("").as_bytes()), 1);
        entry.platform = platform.map(|text| {
            let platform: Platform = text.parse().unwrap();
            PlatformField {
                architecture: platform.architecture,
                os: platform.os,
                os_version: None,
                os_features: Vec::new(),
                variant: platform.variant,
            }
        });
        entry
    }

    fn index(platforms: &[Option<&str>]) -> Index {
        Index {
            media_type: OCI_INDEX.into(),
            bytes: bytes::Bytes::new(),
            manifests: platforms.iter().map(|platform| entry(*platform)).collect(),
            subject: None,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(platforms: &[&str], wanted: &str, expected: Option<&str>) {
        let platforms: Vec<_> = platforms.iter().map(|platform| Some(*platform)).collect();
        let index = index(&platforms);
        let found = select_platform(&index, &wanted.parse().unwrap());
        assert_eq!(found.map(|entry| entry.platform.as_ref().unwrap().platform().to_string()).as_deref(), expected);
    }

    #[test]
    fn the_best_variant_wins() {
        let all = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/amd64", "linux/arm64/v8", "windows/amd64"];
        check(&all, "linux/amd64", Some("linux/amd64"));
        check(&all, "linux/amd64/v3", Some("linux/amd64"));
        check(&all, "linux/arm64", Some("linux/arm64/v8"));
        check(&all, "linux/arm", Some("linux/arm/v7"));
        check(&all, "linux/arm/v6", Some("linux/arm/v6"));
        check(&all, "linux/arm/v8", Some("linux/arm/v7"));
        check(&all, "windows/amd64", Some("windows/amd64"));
        check(&all, "linux/s390x", None);
        check(&["linux/amd64/v2", "linux/amd64/v3"], "linux/amd64", None);
        check(&["linux/amd64", "linux/amd64/v3", "linux/amd64/v4"], "linux/amd64/v3", Some("linux/amd64/v3"));
        check(&["linux/arm64"], "linux/arm64/v8", Some("linux/arm64"));
        check(&["linux/ppc64le/power9"], "linux/ppc64le", None);
        check(&["linux/ppc64le/power9"], "linux/ppc64le/power9", Some("linux/ppc64le/power9"));
    }

    #[test]
    fn without_platforms_only_a_single_manifest_is_clear() {
        let wanted = "linux/amd64".parse().unwrap();
        assert!(select_platform(&index(&[None]), &wanted).is_some());
        assert!(select_platform(&index(&[None, None]), &wanted).is_none());
        assert!(select_platform(&index(&[]), &wanted).is_none());
        let attested = index(&[Some("linux/amd64"), Some("unknown/unknown")]);
        assert_eq!(select_platform(&attested, &wanted), Some(&attested.manifests[0]));
    }
}

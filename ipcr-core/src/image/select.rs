//! Which manifest serves a platform: [`select_platform`].

use super::descriptor::Descriptor;
use super::media_type;
use super::platform::Platform;

/// A manifest below an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub descriptor: Descriptor,
    /// For which platform it is, as far as that is known.
    pub platform: Option<Platform>,
}

/// The one of `candidates` that suits `wanted` best, or `None`.
///
/// One that serves `wanted` exactly wins; then an older variant of the same CPU family (`linux/arm/v6` on v7,
/// `linux/amd64` on v3), the newest first; the earlier one among equals. One without a platform is taken only when
/// there is no other.
pub fn select_platform<'a>(candidates: &'a [Candidate], wanted: &Platform) -> Option<&'a Descriptor> {
    if let [Candidate { descriptor, platform: None }] = candidates
        && media_type::is_manifest(&descriptor.media_type)
    {
        return Some(descriptor);
    }
    let mut best: Option<(u32, &Descriptor)> = None;
    for candidate in candidates {
        let Some(platform) = &candidate.platform else { continue };
        let Some(rank) = rank(platform, wanted) else { continue };
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, &candidate.descriptor));
        }
    }
    best.map(|(_, descriptor)| descriptor)
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
    use crate::image::media_type::OCI_MANIFEST;

    fn candidates(platforms: &[Option<&str>]) -> Vec<Candidate> {
        let candidate = |platform: Option<&str>| Candidate {
            descriptor: Descriptor::new(OCI_MANIFEST, Digest::sha256(platform.unwrap_or("").as_bytes()), 1),
            platform: platform.map(|text| text.parse().unwrap()),
        };
        platforms.iter().copied().map(candidate).collect()
    }

    #[track_caller]
    fn check(platforms: &[&str], wanted: &str, expected: Option<&str>) {
        let candidates = candidates(&platforms.iter().map(|platform| Some(*platform)).collect::<Vec<_>>());
        let found = select_platform(&candidates, &wanted.parse().unwrap()).map(|found| found.digest);
        assert_eq!(found, expected.map(|platform| Digest::sha256(platform.as_bytes())));
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
        assert!(select_platform(&candidates(&[None]), &wanted).is_some());
        assert!(select_platform(&candidates(&[None, None]), &wanted).is_none());
        assert!(select_platform(&candidates(&[]), &wanted).is_none());
        let attested = candidates(&[Some("linux/amd64"), Some("unknown/unknown")]);
        assert_eq!(select_platform(&attested, &wanted), Some(&attested[0].descriptor));
    }
}

//! What every sink does with [`ImageParts`].

use std::collections::HashSet;

use super::place::Place;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Parsed, parse_manifest};
use crate::kind::ErrorKind;
use crate::port::image::{ImageError, ImageParts};

/// Refuses images with more than `most` layers, and those whose parts do not fit together.
pub(crate) fn check(parts: &ImageParts, most: usize, place: &Place) -> Result<(), ImageError> {
    let refuse = |reason| ImageError::Unfit { place: place.to_string(), reason, kind: ErrorKind::Integrity };
    for image in &parts.images {
        let layers = image.layers.len();
        if layers > most {
            return Err(refuse(format!("it has {layers} layers, more than {most}")));
        }
        if !image.diff_ids.is_empty() && image.diff_ids.len() != layers {
            return Err(refuse(format!("it has {layers} layers, and its configuration {}", image.diff_ids.len())));
        }
    }
    Ok(())
}

/// Descriptors of the manifests that are not part of the image but refer to it, as a layout lists them.
pub(crate) fn referrers(parts: &ImageParts) -> Vec<Descriptor> {
    let mut inside: HashSet<Digest> = HashSet::from([parts.root.digest]);
    let mut referrers = Vec::new();
    // The root comes first, and every index before or after its members: so two rounds, the second of which settles it.
    let parsed: Vec<(&Descriptor, Option<Parsed>)> = parts
        .manifests
        .iter()
        .map(|(descriptor, bytes)| (descriptor, parse_manifest(bytes.clone(), &descriptor.media_type).ok()))
        .collect();
    loop {
        let before = inside.len();
        for (descriptor, document) in &parsed {
            if let Some(Parsed::Index(index)) = document
                && inside.contains(&descriptor.digest)
            {
                inside.extend(index.manifests.iter().map(|member| member.digest));
            }
        }
        if inside.len() == before {
            break;
        }
    }
    for (descriptor, document) in parsed {
        if inside.contains(&descriptor.digest) {
            continue;
        }
        let mut referrer = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
        referrer.artifact_type = document.as_ref().and_then(Parsed::artifact_type).map(str::to_owned);
        // The members of a referring index are found through it.
        if let Some(Parsed::Index(index)) = &document {
            inside.extend(index.manifests.iter().map(|member| member.digest));
        }
        referrers.push(referrer);
    }
    referrers
}

//! Serde helpers that write CIDs as strings, as JSON readers expect them.

/// For `#[serde(with = "crate::dag::text::cid")]` on a [`Cid`](::cid::Cid).
pub mod cid {
    use std::borrow::Cow;

    use ::cid::Cid;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the CID in its canonical text form.
    pub fn serialize<S: Serializer>(cid: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cid)
    }

    /// Reads a CID from any of its text forms.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// For `#[serde(with = "crate::dag::text::optional_cid")]` on an `Option<Cid>`.
pub mod optional_cid {
    use std::borrow::Cow;

    use ::cid::Cid;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the CID in its canonical text form, or null.
    pub fn serialize<S: Serializer>(cid: &Option<Cid>, serializer: S) -> Result<S::Ok, S::Error> {
        match cid {
            Some(cid) => serializer.collect_str(cid),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a CID or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
        <Option<Cow<'de, str>>>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(de::Error::custom))
            .transpose()
    }
}

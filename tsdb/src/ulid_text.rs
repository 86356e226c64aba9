//! How ULIDs stand in JSON: as their 26 characters, one or a list of them.

/// A ULID as its 26 characters.
pub mod one {
    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    pub fn serialize<S: Serializer>(ulid: &Ulid, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&ulid.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ulid, D::Error> {
        let text = String::deserialize(d)?;
        Ulid::from_string(&text).map_err(|e| serde::de::Error::custom(format!("{text:?} is not a ULID: {e}")))
    }
}

/// ULIDs as a list of texts.
pub mod list {
    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    pub fn serialize<S: Serializer>(ulids: &[Ulid], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(ulids.iter().map(Ulid::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        let one = |t: &String| {
            Ulid::from_string(t).map_err(|e| serde::de::Error::custom(format!("{t:?} is not a ULID: {e}")))
        };
        texts.iter().map(one).collect()
    }
}

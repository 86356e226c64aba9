//! What a member says of itself to who asks at an address.

use model::tenant::TenantId;

use crate::error::AskError;

/// What a member answers who is asked who it is.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Who {
    pub version: u32,
    pub name: String,
    /// The tenants of whom it has anything, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
}

impl Who {
    /// Reads an answer.
    pub fn read(text: &[u8]) -> Result<Who, AskError> {
        let who: Who = serde_json::from_slice(text).map_err(|e| AskError::Wrong(e.to_string()))?;
        let valid = |tenant: &String| TenantId::new(tenant).is_ok();
        if let Some(bad) = who.tenants.iter().find(|tenant| !valid(tenant)) {
            return Err(AskError::Wrong(format!("{bad:?} is no tenant's name")));
        }
        match who.version == crate::PROTOCOL && !who.name.is_empty() {
            true => Ok(who),
            false => Err(AskError::Wrong(format!(
                "it is {:?}, of version {}, and this process speaks {}: upgrade the older",
                who.name,
                who.version,
                crate::PROTOCOL
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_of_another_version_or_none_is_refused() {
        assert_eq!(Who::read(br#"{"version": 1, "name": "a"}"#).unwrap().name, "a");
        for (text, says) in [
            (&b"<html>"[..], "cannot be used"),
            (br#"{"version": 1, "name": "a", "tenants": ["../b"]}"#, "cannot be used"),
            (br#"{"version": 2, "name": "a"}"#, "version 2"),
            (br#"{"version": 1, "name": ""}"#, "cannot be used"),
        ] {
            let why = Who::read(text).err().unwrap().to_string();
            assert!(why.contains(says), "{why}");
        }
    }
}

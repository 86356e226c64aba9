//! Who owns a series: the tenant, checked once where a request enters.

use std::fmt;
use std::sync::Arc;

/// The name of a tenant: 1 to 150 bytes of `a-z A-Z 0-9 ! - _ . * ' ( )`, as Mimir and Cortex allow, and
/// never `.` or `..`, because it is also a folder in the object store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a tenant name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("tenant {0:?} is not a valid name: use 1 to 150 of the characters a-z A-Z 0-9 ! - _ . * ' ( )")]
pub struct InvalidTenant(pub String);

impl TenantId {
    /// The tenant of everything that names none.
    pub fn single() -> Self {
        TenantId(Arc::from("default"))
    }

    /// Checks and takes a name that came from outside.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        if name.is_empty() || name.len() > 150 || name == "." || name == ".." || !name.bytes().all(fine) {
            return Err(InvalidTenant(name.chars().take(200).collect()));
        }
        Ok(TenantId(Arc::from(name)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_that_could_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a b", "é", &"x".repeat(151)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["default", "team-a", "a.b", "x(1)'*!_"] {
            assert_eq!(TenantId::new(good).unwrap().as_str(), good);
        }
    }
}

//! Who asks, what they may do, and whose data a request is about.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::tenant::TenantId;

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Queries, and whatever else only shows something.
    Read,
    /// Samples.
    Write,
    /// Deletions, rules, and what concerns the process itself.
    Admin,
    /// The process' own metrics, for whoever scrapes it and should see nobody's data.
    Metrics,
}

impl Right {
    pub const ALL: [Right; 4] = [Right::Read, Right::Write, Right::Admin, Right::Metrics];

    /// As files and claims spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
            Right::Metrics => "metrics",
        }
    }

    /// The right of that name.
    pub fn named(name: &str) -> Option<Right> {
        Right::ALL.into_iter().find(|right| right.as_str() == name)
    }
}

/// What an identity may do; none includes another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
    pub admin: bool,
    pub metrics: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Rights = Rights { read: true, write: true, admin: true, metrics: true };

    pub fn allow(self, right: Right) -> bool {
        match right {
            Right::Read => self.read,
            Right::Write => self.write,
            Right::Admin => self.admin,
            Right::Metrics => self.metrics,
        }
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Rights {
        let mut all = Rights::default();
        for right in rights {
            match right {
                Right::Read => all.read = true,
                Right::Write => all.write = true,
                Right::Admin => all.admin = true,
                Right::Metrics => all.metrics = true,
            }
        }
        all
    }
}

/// The tenants that an identity may act for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSet {
    /// All there are and will be.
    All,
    Only(BTreeSet<TenantId>),
}

impl TenantSet {
    pub fn contains(&self, tenant: &TenantId) -> bool {
        match self {
            TenantSet::All => true,
            TenantSet::Only(tenants) => tenants.contains(tenant),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What logs call it, such as `token grafana`; no secret.
    pub name: Arc<str>,
    pub tenants: TenantSet,
    pub rights: Rights,
}

impl Identity {
    /// Of everybody, where nothing is asked for.
    pub fn anybody() -> Identity {
        Identity { name: "anybody".into(), tenants: TenantSet::All, rights: Rights::ALL }
    }
}

/// Whose data a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    One(TenantId),
    /// These together, ascending, each once: only reads have several, and their series say whose they are
    /// (see [`crate::source::federation`]).
    Federated(Arc<[TenantId]>),
    /// All that have anything stored, in the same way.
    Every,
}

impl Tenants {
    /// The one that the work is counted for where it cannot be counted for several.
    pub fn first(&self) -> TenantId {
        match self {
            Tenants::One(tenant) => tenant.clone(),
            Tenants::Federated(tenants) => tenants.first().cloned().unwrap_or_else(TenantId::single),
            Tenants::Every => TenantId::single(),
        }
    }

    /// Whether whoever acts for these may see what was asked about `other`: all of its tenants are among
    /// them.
    pub fn cover(&self, other: &Tenants) -> bool {
        match (self, other) {
            (Tenants::Every, _) => true,
            (_, Tenants::Every) => false,
            (Tenants::One(own), Tenants::One(tenant)) => own == tenant,
            (Tenants::Federated(own), Tenants::One(tenant)) => own.contains(tenant),
            (_, Tenants::Federated(tenants)) => {
                tenants.iter().all(|tenant| self.cover(&Tenants::One(tenant.clone())))
            }
        }
    }

    /// What [`fmt::Display`] wrote; `None` for what it did not.
    pub fn shown_as(text: &str) -> Option<Tenants> {
        if text == "*" {
            return Some(Tenants::Every);
        }
        let tenants: Result<Vec<TenantId>, _> = text.split('|').map(TenantId::new).collect();
        match tenants.ok()?.as_slice() {
            [one] => Some(Tenants::One(one.clone())),
            several => Some(Tenants::Federated(several.into())),
        }
    }

    /// The one tenant, `None` where there are several.
    pub fn one(&self) -> Option<&TenantId> {
        match self {
            Tenants::One(tenant) => Some(tenant),
            Tenants::Federated(_) | Tenants::Every => None,
        }
    }
}

impl fmt::Display for Tenants {
    /// As the header says it: `a`, `a|b` or `*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tenants::One(tenant) => f.write_str(tenant.as_str()),
            Tenants::Federated(tenants) => {
                for (i, tenant) in tenants.iter().enumerate() {
                    if i > 0 {
                        f.write_str("|")?;
                    }
                    f.write_str(tenant.as_str())?;
                }
                Ok(())
            }
            Tenants::Every => f.write_str("*"),
        }
    }
}

/// Who asks and for whom: what the server puts beside every request (as an extension of it) before a route
/// sees it. The tenants are among the identity's.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub tenants: Tenants,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_that_were_named() {
        let rights: Rights = ["read", "metrics"].into_iter().filter_map(Right::named).collect();
        let allowed: Vec<&str> =
            Right::ALL.into_iter().filter(|r| rights.allow(*r)).map(Right::as_str).collect();
        assert_eq!(allowed, ["read", "metrics"]);
        assert_eq!(Right::named("root"), None);
    }

    #[test]
    fn tenants_show_as_the_header_has_them() {
        let id = |name| TenantId::new(name).unwrap();
        assert_eq!(Tenants::One(id("a")).to_string(), "a");
        assert_eq!(Tenants::Federated([id("a"), id("b")].into()).to_string(), "a|b");
        assert_eq!(Tenants::Every.to_string(), "*");
        assert_eq!(Tenants::Federated([id("b"), id("c")].into()).first(), id("b"));
        for text in ["a", "a|b", "*"] {
            assert_eq!(Tenants::shown_as(text).unwrap().to_string(), text);
        }
        assert_eq!(Tenants::shown_as("a||b"), None);
    }

    #[test]
    fn tenants_cover_what_is_asked_about_no_others() {
        let cover = |own: &str, other: &str| {
            let [own, other] = [own, other].map(|text| Tenants::shown_as(text).unwrap());
            own.cover(&other)
        };
        for (own, other) in [("a", "a"), ("a|b", "a"), ("a|b|c", "a|c"), ("*", "a"), ("*", "a|b"), ("*", "*")]
        {
            assert!(cover(own, other), "{own} {other}");
        }
        for (own, other) in [("a", "b"), ("a", "a|b"), ("a|b", "b|c"), ("a", "*"), ("a|b", "*")] {
            assert!(!cover(own, other), "{own} {other}");
        }
    }
}

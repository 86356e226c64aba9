//! Where tenants' own rules are kept: one object per group, so that two who write different groups at once
//! lose nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::tenant::TenantId;

/// The store did not do what was asked of it. It is what the store says, whatever it is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Box<dyn Error + Send + Sync>);

impl StoreError {
    pub fn new(cause: impl Error + Send + Sync + 'static) -> StoreError {
        StoreError(Box::new(cause))
    }
}

/// Boxed, so that the trait can be an object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Texts by namespace and group.
pub type Stored = BTreeMap<String, BTreeMap<String, String>>;

/// A store of groups, as YAML, by tenant, namespace and name.
pub trait RuleStore: Send + Sync + 'static {
    /// Tenants that have rules.
    fn tenants(&self) -> Pending<'_, Vec<TenantId>>;

    /// All groups of a tenant.
    fn list<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Stored>;

    /// Writes a group in the place of one of its name. Durable when it returns.
    fn put<'a>(
        &'a self,
        tenant: &'a TenantId,
        namespace: &'a str,
        group: &'a str,
        text: String,
    ) -> Pending<'a, ()>;

    /// Deletes a group. One that is not there is no error.
    fn delete<'a>(&'a self, tenant: &'a TenantId, namespace: &'a str, group: &'a str) -> Pending<'a, ()>;
}

/// The name of a namespace or a group as a part of an object's path: any text, in letters that every store
/// takes.
pub fn path_part(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// The name again; `None` for what is not one.
pub fn name_of(part: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Longest name of a namespace or a group: a store's key ends at 1 KiB.
pub const MAX_NAME_BYTES: usize = 240;

//! Rules that tenants keep in the bucket, one object for each group.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use model::tenant::TenantId;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rules::api::store::{Pending, RuleStore, StoreError, Stored, name_of, path_part};
use tsdb::{layout, small_object};

use crate::error_chain::error_chain;

/// Objects that are read at once.
const READS: usize = 16;

/// The rules that tenants keep in the bucket.
pub struct BucketRules {
    store: Arc<dyn ObjectStore>,
}

impl BucketRules {
    pub fn new(store: Arc<dyn ObjectStore>) -> BucketRules {
        BucketRules { store }
    }
}

/// The bucket's error, told with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", error_chain(.0))]
struct BucketError(#[source] object_store::Error);

fn failed(e: object_store::Error) -> StoreError {
    StoreError::new(BucketError(e))
}

impl RuleStore for BucketRules {
    fn tenants(&self) -> Pending<'_, Vec<TenantId>> {
        Box::pin(async {
            let listed = self.store.list_with_delimiter(Some(&layout::tenants())).await;
            let listed = listed.map_err(failed)?;
            let name = |path: &object_store::path::Path| TenantId::new(path.filename()?).ok();
            Ok(listed.common_prefixes.iter().filter_map(name).collect())
        })
    }

    fn list<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Stored> {
        Box::pin(async {
            let folder = layout::rules(tenant);
            let objects = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
            let objects = objects.map_err(failed)?;
            let read = |path: object_store::path::Path| async {
                let text = small_object::read_bytes(&*self.store, &path).await.map_err(failed)?;
                // `None`: deleted since it was listed.
                Ok::<_, StoreError>(text.map(|text| (path, String::from_utf8_lossy(&text).into_owned())))
            };
            let mut stored = Stored::new();
            let mut texts =
                futures::stream::iter(objects.into_iter().map(|o| read(o.location))).buffer_unordered(READS);
            while let Some(found) = texts.next().await {
                let Some((path, text)) = found? else { continue };
                let mut parts = path.prefix_match(&folder).into_iter().flatten();
                let (Some(namespace), Some(group), None) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                let group = group.as_ref().strip_suffix(".yaml").and_then(name_of);
                if let (Some(namespace), Some(group)) = (name_of(namespace.as_ref()), group) {
                    stored.entry(namespace).or_default().insert(group, text);
                }
            }
            Ok(stored)
        })
    }

    fn put<'a>(
        &'a self,
        tenant: &'a TenantId,
        namespace: &'a str,
        group: &'a str,
        text: String,
    ) -> Pending<'a, ()> {
        Box::pin(async move {
            let path = layout::rule_group(tenant, &path_part(namespace), &path_part(group));
            self.store.put(&path, PutPayload::from(text)).await.map(|_| ()).map_err(failed)
        })
    }

    fn delete<'a>(&'a self, tenant: &'a TenantId, namespace: &'a str, group: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let path = layout::rule_group(tenant, &path_part(namespace), &path_part(group));
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(failed(e)),
            }
        })
    }
}

//! Small objects read whole: what did not arrive as it was written is asked for again before it counts as
//! damaged.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, Result};

/// How often an object is read that does not arrive whole, and the pause between two reads.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);

/// The object's bytes as `understand` takes them; `None` where there is no such object. A body that is
/// shorter than the store says, or that `understand` refuses, is read again: a connection that broke off
/// looks the same as damage. Damaged is what arrives whole and is refused every time; what never arrives
/// whole is the store's fault.
pub async fn read<T, E>(
    store: &dyn ObjectStore,
    path: &Path,
    understand: impl Fn(&Bytes) -> std::result::Result<T, E>,
) -> Result<Option<std::result::Result<T, E>>> {
    for attempt in 1.. {
        let found = match store.get(path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = found.meta.size;
        let last = attempt >= ATTEMPTS;
        match found.bytes().await {
            Ok(bytes) if bytes.len() as u64 != length => {
                let why = format!("{path} has {length} bytes, of which {} arrived", bytes.len());
                if last {
                    return Err(Error::Generic { store: "small object", source: why.into() });
                }
                tracing::debug!("{why}: it is read again");
            }
            Ok(bytes) => match understand(&bytes) {
                Err(_) if !last => tracing::debug!(%path, "an object is not as expected, it is read again"),
                understood => return Ok(Some(understood)),
            },
            Err(e) if last => return Err(e),
            Err(e) => tracing::debug!(%path, "an object did not arrive whole, it is read again: {e}"),
        }
        tokio::time::sleep(PAUSE * attempt).await;
    }
    unreachable!("the last attempt returns")
}

/// The object's bytes, all of them; `None` where there is no such object.
pub async fn read_bytes(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>> {
    let found = read(store, path, |bytes| Ok::<_, Infallible>(bytes.clone())).await?;
    Ok(found.map(|Ok(bytes)| bytes))
}

//! Every object path of the store, in one place.
//!
//! ```text
//! tenants/<tenant>/catalog/00000000000000000042.json   numbered, immutable snapshots
//! tenants/<tenant>/blocks/<ulid>/meta.json             written last
//! tenants/<tenant>/blocks/<ulid>/series.parquet
//! tenants/<tenant>/blocks/<ulid>/timelines.parquet
//! tenants/<tenant>/blocks/<ulid>/samples.parquet
//! tenants/<tenant>/leases/<name>/00000000000000000001.json   claims on work, see `lease`
//! tenants/<tenant>/imports/<key>.<ulid>.begun.json     which block an import is about to commit, see `bucket`
//! tenants/<tenant>/imports/<key>.done.json             what became of it
//! tenants/<tenant>/exemplars/<ulid>.parquet
//! tenants/<tenant>/metadata/<ulid>.parquet
//! tenants/<tenant>/rules/<namespace>/<group>.yaml      rules that the tenant keeps here, names in base64
//! tenants/<tenant>/seen.json                           the newest snapshot when garbage was last looked for
//! rule-shares/table/00000000000000000042.json          who evaluates which groups of rules
//! rule-shares/state/<member>.json                      how far a process is with its groups
//! probe/<ulid>/…                                       short-lived, see `catalog::probe`
//! staged/<ulid>                                        short-lived, on stores whose commits go through a register
//! writers/<writer>/00000000000000000007.json           the last start of a data folder, see `db::identity`
//! members/<name>.json                                  who takes part, and who owes samples
//! register.json, owner.json                            what decides about commits where the store does not
//! seals/00000000000000000042.json                      only in the local store of a data folder, see `db::local`
//! ```

use object_store::path::Path;
use ulid::Ulid;

use model::tenant::TenantId;

/// The folder that holds one folder per tenant.
pub const TENANTS: &str = "tenants";
/// Names of a block's objects.
pub const META: &str = "meta.json";
pub const SERIES: &str = "series.parquet";
pub const TIMELINES: &str = "timelines.parquet";
pub const SAMPLES: &str = "samples.parquet";

/// The folder of the manifests of local blocks, in the local store of a data folder. (*Seal* was their name.)
pub const LOCAL_MANIFESTS: &str = "seals";

/// The folder of the manifests of local blocks.
pub fn local_manifests() -> Path {
    Path::from(LOCAL_MANIFESTS)
}

/// The manifest of the sealed generation that ends with a segment of the log; named as snapshots are.
pub fn local_manifest(last_segment: u64) -> Path {
    Path::from_iter([LOCAL_MANIFESTS, &format!("{last_segment:020}.json")])
}

/// The last segment of a sealed generation from its manifest's path; `None` for anything else.
pub fn local_manifest_number(path: &Path) -> Option<u64> {
    path.prefix_matches(&local_manifests()).then(|| snapshot_number(path))?
}

/// The parent of every tenant's folder.
pub fn tenants() -> Path {
    Path::from(TENANTS)
}

/// All that belongs to a tenant.
pub fn tenant(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str()])
}

/// The folder of a tenant's catalog snapshots.
pub fn catalog(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "catalog"])
}

/// One snapshot. Twenty digits, so that names sort as numbers.
pub fn snapshot(tenant: &TenantId, number: u64) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "catalog", &format!("{number:020}.json")])
}

/// The number of a snapshot from its path; `None` for anything else that lies in the folder.
pub fn snapshot_number(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Which snapshot was the newest when garbage was last looked for.
pub fn seen(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "seen.json"])
}

/// The folder of a tenant's blocks.
pub fn blocks(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "blocks"])
}

/// The folder of one block.
pub fn block(tenant: &TenantId, ulid: Ulid) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "blocks", &ulid.to_string()])
}

/// One object of a block: [`META`], [`SERIES`], [`TIMELINES`] or [`SAMPLES`].
pub fn block_file(tenant: &TenantId, ulid: Ulid, name: &str) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "blocks", &ulid.to_string(), name])
}

/// The block that an object belongs to; `None` for anything else that lies in the folder of blocks.
pub fn block_of_path(tenant: &TenantId, path: &Path) -> Option<Ulid> {
    let mut rest = path.prefix_match(&blocks(tenant))?;
    Ulid::from_string(rest.next()?.as_ref()).ok()
}

/// The starts of the data folder that has this name.
pub fn writer_epochs(writer: &str) -> Path {
    Path::from_iter(["writers", writer])
}

/// One start; named as snapshots are.
pub fn writer_epoch(writer: &str, number: u64) -> Path {
    Path::from_iter(["writers", writer, &format!("{number:020}.json")])
}

/// The folder of what processes on this bucket say of themselves.
pub fn members() -> Path {
    Path::from("members")
}

/// What one process says of itself, under the name of its data folder or one of its own.
pub fn member(name: &str) -> Path {
    Path::from_iter(["members", &format!("{name}.json")])
}

/// The name of a process from the path of what it says; `None` for anything else that lies there.
pub fn member_of_path(path: &Path) -> Option<String> {
    path.filename()?.strip_suffix(".json").map(str::to_owned)
}

/// The epochs of a lease.
pub fn lease_folder(tenant: &TenantId, name: &str) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "leases", name])
}

/// One epoch of a lease; named as snapshots are.
pub fn lease(tenant: &TenantId, name: &str, number: u64) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "leases", name, &format!("{number:020}.json")])
}

/// The folder of the rules that a tenant keeps here.
pub fn rules(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "rules"])
}

/// The object of one group; both names are encoded already.
pub fn rule_group(tenant: &TenantId, namespace: &str, group: &str) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "rules", namespace, &format!("{group}.yaml")])
}

/// The folder of the tables that say which process evaluates which groups of rules.
pub fn rule_tables() -> Path {
    Path::from_iter(["rule-shares", "table"])
}

/// One table; named as snapshots are.
pub fn rule_table(number: u64) -> Path {
    Path::from_iter(["rule-shares", "table", &format!("{number:020}.json")])
}

/// The folder of what processes say of how far they are with groups of rules.
pub fn rule_states() -> Path {
    Path::from_iter(["rule-shares", "state"])
}

/// How far one process is with its groups; its name is that of its data folder.
pub fn rule_state(writer: &str) -> Path {
    Path::from_iter(["rule-shares", "state", &format!("{writer}.json")])
}

/// The folder of the journal of a tenant's imports, see [`crate::bucket::import_journal`].
pub fn imports(tenant: &TenantId) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "imports"])
}

/// The entry that says which block an import is about to commit.
pub fn import_begun(tenant: &TenantId, key: &str, block: Ulid) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "imports", &format!("{key}.{block}.begun.json")])
}

/// The entry that says that an import is complete.
pub fn import_done(tenant: &TenantId, key: &str) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "imports", &format!("{key}.done.json")])
}

/// The key of an entry of the journal of imports, and the block of one that was begun; `None` for anything
/// else that lies in the folder.
pub fn import_entry(path: &Path) -> Option<(&str, Option<Ulid>)> {
    let name = path.filename()?;
    if let Some(key) = name.strip_suffix(".done.json") {
        return Some((key, None));
    }
    let (key, block) = name.strip_suffix(".begun.json")?.rsplit_once('.')?;
    Some((key, Some(Ulid::from_string(block).ok()?)))
}

/// A file of exemplars.
pub fn exemplars(tenant: &TenantId, ulid: Ulid) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "exemplars", &format!("{ulid}.parquet")])
}

/// A file of what is known of metrics.
pub fn metadata(tenant: &TenantId, ulid: Ulid) -> Path {
    Path::from_iter([TENANTS, tenant.as_str(), "metadata", &format!("{ulid}.parquet")])
}

/// The folders of sidecars, in the order of [`crate::sidecar::Kind::ALL`].
pub fn sidecars(tenant: &TenantId) -> [Path; 2] {
    ["exemplars", "metadata"].map(|folder| Path::from_iter([TENANTS, tenant.as_str(), folder]))
}

/// The name of a sidecar from its path; `None` for anything else that lies there.
pub fn sidecar_of_path(path: &Path) -> Option<Ulid> {
    Ulid::from_string(path.filename()?.strip_suffix(".parquet")?).ok()
}

/// The folder of probes.
pub const PROBE: &str = "probe";

/// Where one run of [`crate::catalog::probe`] writes; it removes it again.
pub fn probe(ulid: Ulid, name: &str) -> Path {
    Path::from_iter([PROBE, &ulid.to_string(), name])
}

/// The folder of objects that wait for their claim, see `catalog::arrange`.
pub const STAGED: &str = "staged";

/// What is to become an object once its claim is decided.
pub fn staged(ulid: Ulid) -> Path {
    Path::from_iter([STAGED, &ulid.to_string()])
}

/// Says which register decides about the commits to this store; absent where its own conditional writes do.
pub fn register() -> Path {
    Path::from("register.json")
}

/// Says which process is the only writer, where that is how the store is used.
pub fn owner() -> Path {
    Path::from("owner.json")
}

/// The tenant, percent-decoding undone, of a folder below [`tenants`].
pub fn tenant_of_folder(path: &Path) -> Option<TenantId> {
    let mut parts = path.as_ref().split('/');
    if parts.next()? != TENANTS {
        return None;
    }
    let raw = parts.next()?.as_bytes();
    let mut name = Vec::with_capacity(raw.len());
    let mut i = 0;
    while i < raw.len() {
        let hex = (raw[i] == b'%').then(|| raw.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok()) {
            Some(byte) => {
                name.push(byte);
                i += 3;
            }
            None => {
                name.push(raw[i]);
                i += 1;
            }
        }
    }
    TenantId::new(std::str::from_utf8(&name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_numbers_and_come_back() {
        let t = TenantId::single();
        assert_eq!(snapshot(&t, 42).as_ref(), "tenants/default/catalog/00000000000000000042.json");
        assert!(snapshot(&t, 9) < snapshot(&t, 10));
        for n in [0, 1, u64::MAX] {
            assert_eq!(snapshot_number(&snapshot(&t, n)), Some(n));
        }
        assert_eq!(snapshot_number(&Path::from("tenants/default/catalog/readme.json")), None);
        let begun = import_begun(&t, "a1", Ulid::nil());
        assert_eq!(import_entry(&begun), Some(("a1", Some(Ulid::nil()))), "{begun}");
        assert_eq!(import_entry(&import_done(&t, "a1")), Some(("a1", None)));
        assert_eq!(import_entry(&Path::from("tenants/default/imports/x.json")), None);
        assert_eq!(
            block_file(&t, Ulid::nil(), META).as_ref(),
            "tenants/default/blocks/00000000000000000000000000/meta.json"
        );
    }

    #[test]
    fn tenant_name_is_one_folder_of_its_own() {
        for name in ["default", "a.b", "x(1)'*!_", "..."] {
            let t = TenantId::new(name).unwrap();
            let p = block(&t, Ulid::nil());
            assert_eq!(p.as_ref().split('/').count(), 4, "{p}");
            assert_eq!(tenant_of_folder(&p), Some(t));
        }
    }
}

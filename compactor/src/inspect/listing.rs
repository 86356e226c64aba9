//! The blocks of a tenant, and one block in detail.

use model::tenant::TenantId;
use serde::Serialize;
use tsdb::block::BlockMeta;
use tsdb::block::inspect::ColumnSize;
use tsdb::bucket::maintenance::BucketMaintenance;
use tsdb::catalog::Snapshot;
use tsdb::sidecar::Kind;
use ulid::Ulid;

use super::InspectError;

/// A block as a line of a list.
#[derive(Clone, Debug, Serialize)]
pub struct BlockLine {
    pub block: String,
    pub level: u32,
    pub resolution_ms: i64,
    /// Windows as another system made them.
    pub approximate: bool,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
    /// All files; 0 for a block without samples.
    pub bytes_per_sample: f64,
    /// Flushed or imported blocks that went into it.
    pub sources: usize,
    pub writer: String,
}

impl BlockLine {
    pub fn of(meta: &BlockMeta) -> BlockLine {
        let (samples, bytes) = (meta.stats.samples, meta.files.bytes());
        BlockLine {
            block: meta.ulid.to_string(),
            level: meta.level,
            resolution_ms: meta.resolution_ms,
            approximate: meta.approximate,
            min_t_ms: meta.min_t_ms,
            max_t_ms: meta.max_t_ms,
            series: meta.stats.series,
            samples,
            bytes,
            bytes_per_sample: per(bytes, samples),
            sources: meta.sources.len(),
            writer: meta.writer.clone(),
        }
    }
}

/// Bytes per sample.
pub fn per(bytes: u64, samples: u64) -> f64 {
    if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 }
}

/// What a tenant has.
#[derive(Clone, Debug, Serialize)]
pub struct TenantListing {
    pub tenant: String,
    /// Number of the newest snapshot of its catalog.
    pub snapshot: u64,
    /// In the order of time, then of resolution.
    pub blocks: Vec<BlockLine>,
    /// Deletions that are not yet physical.
    pub tombstones: usize,
    /// Files beside the blocks.
    pub exemplars: SidecarTotals,
    pub metadata: SidecarTotals,
}

/// Files of one kind beside the blocks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SidecarTotals {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
}

impl SidecarTotals {
    /// All that a snapshot names of a kind.
    pub fn of(snapshot: &Snapshot, kind: Kind) -> SidecarTotals {
        let files = snapshot.sidecars().filter(|(k, _)| *k == kind).map(|(_, f)| f);
        files.fold(SidecarTotals::default(), |sum, f| SidecarTotals {
            files: sum.files + 1,
            rows: sum.rows + f.rows,
            bytes: sum.bytes + f.bytes,
        })
    }
}

/// The blocks that a snapshot names.
pub fn listing(tenant: &TenantId, snapshot: &Snapshot) -> TenantListing {
    let mut blocks: Vec<BlockLine> = snapshot.blocks.iter().map(|b| BlockLine::of(b)).collect();
    blocks.sort_by_key(|b| (b.min_t_ms, b.resolution_ms, b.block.clone()));
    TenantListing {
        tenant: tenant.to_string(),
        snapshot: snapshot.number,
        blocks,
        tombstones: snapshot.tombstones.len(),
        exemplars: SidecarTotals::of(snapshot, Kind::Exemplars),
        metadata: SidecarTotals::of(snapshot, Kind::Metadata),
    }
}

/// One block in detail.
#[derive(Clone, Debug, Serialize)]
pub struct BlockDetail {
    /// Whether the newest snapshot names it.
    pub live: bool,
    pub meta: BlockMeta,
    pub columns: Vec<ColumnSize>,
}

/// Reads a block's description and footers, be it live or not.
pub async fn detail(
    maintenance: &BucketMaintenance,
    tenant: &TenantId,
    snapshot: &Snapshot,
    ulid: Ulid,
) -> Result<BlockDetail, InspectError> {
    let live = snapshot.blocks.iter().find(|b| b.ulid == ulid);
    let meta = match live {
        Some(meta) => BlockMeta::clone(meta),
        None => maintenance.read_meta(tenant, ulid).await?,
    };
    let columns = maintenance.columns(tenant, &meta).await?;
    Ok(BlockDetail { live: live.is_some(), meta, columns })
}

//! Is a tenant's part of a bucket whole: the chain of its catalog, every byte and every sample of its blocks,
//! and what lies beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::sample::is_stale;
use model::source::{SeriesColumns, SeriesCursor};
use model::tenant::TenantId;
use serde::Serialize;
use tsdb::block::{BlockError, BlockMeta, BlockReader, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::BucketMaintenance;
use tsdb::catalog::{Catalog, CatalogError, Snapshot};
use tsdb::deletion::Visibility;
use tsdb::sidecar::Kind;
use ulid::Ulid;

use super::InspectError;
use super::orphans::{Orphan, orphans};
use crate::garbage::Piece;
use crate::plan::sources_of;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; costs space or time, not answers.
    Note,
    /// Data is lost, wrong or unreadable.
    Damage,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub tenant: String,
    /// Empty where it is about no single block. (A file beside the blocks is named in the text.)
    pub block: String,
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub snapshots: u64,
    pub blocks: u64,
    pub bytes: u64,
    pub series: u64,
    pub samples: u64,
    /// Files beside the blocks, and what is in them.
    pub sidecars: u64,
    pub exemplars: u64,
    /// Entries of metrics' metadata.
    pub metadata: u64,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn damaged(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Damage)
    }
}

/// Collects findings of a tenant.
struct Notebook<'a> {
    tenant: &'a TenantId,
    report: &'a mut Report,
}

impl Notebook<'_> {
    fn add(&mut self, severity: Severity, block: Option<Ulid>, what: impl Into<String>) {
        self.report.findings.push(Finding {
            severity,
            tenant: self.tenant.to_string(),
            block: block.map(|b| b.to_string()).unwrap_or_default(),
            what: what.into(),
        });
    }
}

/// Checks the catalog, and says what lies beside the blocks that it names. The snapshot whose blocks are to
/// be checked.
pub async fn check_catalog(
    maintenance: &BucketMaintenance,
    catalog: &Catalog,
    report: &mut Report,
) -> Result<Arc<Snapshot>, InspectError> {
    let tenant = catalog.tenant();
    let mut notes = Notebook { tenant, report };
    let mut before: Option<Snapshot> = None;
    for number in maintenance.snapshots(tenant).await? {
        let snapshot = match catalog.at(number).await {
            // Pruned since it was listed.
            Ok(None) => continue,
            Ok(Some(snapshot)) => snapshot,
            Err(CatalogError::Corrupt { object, what }) => {
                notes.add(Severity::Damage, None, format!("{object}: {what}"));
                before = None;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        notes.report.snapshots += 1;
        if let Some(before) = &before {
            if number != before.number + 1 {
                let what =
                    format!("snapshots {} to {} are missing between others", before.number + 1, number - 1);
                notes.add(Severity::Damage, None, what);
            } else if before.commit().is_none_or(|c| snapshot.commits.iter().rev().nth(1) != Some(&c)) {
                let what =
                    format!("snapshot {number} does not follow from {}: a commit was lost", before.number);
                notes.add(Severity::Damage, None, what);
            }
        }
        before = Some(snapshot);
    }
    let newest = catalog.refresh().await?;
    for (block, what) in overlaps(&newest.blocks) {
        notes.add(Severity::Note, Some(block), what);
    }
    let way_out = "`hearth bucket cleanup` removes";
    // Imports write two entries for each half day: one line for all of them.
    let (mut entries, mut entry_bytes) = (0u64, 0);
    let now_ms = maintenance.clock().now_ms();
    for (orphan, piece) in orphans(maintenance, catalog, Duration::from_secs(24 * 3600), now_ms).await? {
        let Orphan { kind, name, objects, bytes, .. } = orphan;
        match piece {
            Piece::Block(folder) => {
                let what =
                    format!("{objects} objects ({bytes} bytes) that no snapshot names: {way_out} them");
                notes.add(Severity::Note, Some(folder.ulid), what);
            }
            Piece::Sidecar(_) => {
                let what =
                    format!("file of {kind} {name} ({bytes} bytes) that no snapshot names: {way_out} it");
                notes.add(Severity::Note, None, what);
            }
            Piece::Journal(_) => (entries, entry_bytes) = (entries + 1, entry_bytes + bytes),
        }
    }
    if entries > 0 {
        let what = format!(
            "{entries} entries ({entry_bytes} bytes) in the journal of imports that tell nothing any more: {way_out} them"
        );
        notes.add(Severity::Note, None, what);
    }
    Ok(newest)
}

/// Blocks that say the same twice: of one resolution and with a source in common. Queries are right all the
/// same, because samples are joined.
fn overlaps(blocks: &[Arc<BlockMeta>]) -> Vec<(Ulid, String)> {
    let mut holders: BTreeMap<(i64, Ulid), Vec<&BlockMeta>> = BTreeMap::new();
    for block in blocks {
        for source in sources_of(block) {
            holders.entry((block.resolution_ms, source)).or_default().push(block);
        }
    }
    let mut pairs = BTreeSet::new();
    for of in holders.values() {
        for (i, a) in of.iter().enumerate() {
            for b in &of[i + 1..] {
                // Shares of one whole have different series.
                if a.whole() != b.whole() && a.overlaps(b.min_t_ms, b.max_t_ms) {
                    pairs.insert((a.ulid, b.ulid));
                }
            }
        }
    }
    let say = |(a, b)| (a, format!("shares time and sources with block {b}: some samples are stored twice"));
    pairs.into_iter().map(say).collect()
}

/// Checks the files beside the blocks (those in `only`, or all where it is empty): that they are there, their
/// bytes, and that they can be read.
pub async fn check_attachments(
    maintenance: &BucketMaintenance,
    catalog: &Catalog,
    snapshot: &Snapshot,
    only: &[Ulid],
    report: &mut Report,
) -> Result<(), InspectError> {
    let tenant = catalog.tenant();
    let mut notes = Notebook { tenant, report };
    for (kind, file) in snapshot.sidecars().filter(|(_, f)| only.is_empty() || only.contains(&f.ulid)) {
        match maintenance.verify_sidecar(tenant, kind, file).await {
            Ok(()) => {}
            Err(BlockError::Corrupt { object, what }) => {
                // A server may have put another in its place since, and a cleaner removed it.
                if !catalog.refresh().await?.sidecars().any(|(_, now)| now.ulid == file.ulid) {
                    continue;
                }
                notes.add(Severity::Damage, None, format!("{object}: {what}"));
            }
            Err(e) => return Err(e.into()),
        }
        notes.report.sidecars += 1;
        notes.report.bytes += file.bytes;
        match kind {
            Kind::Exemplars => notes.report.exemplars += file.rows,
            Kind::Metadata => notes.report.metadata += file.rows,
        }
    }
    Ok(())
}

/// Checks one block: the bytes of its objects, and with `decode` every series and sample in it. Blocks the
/// thread; `runtime` does the requests.
pub fn check_block(
    maintenance: &BucketMaintenance,
    store: &Arc<BlockStore>,
    runtime: &tokio::runtime::Handle,
    tenant: &TenantId,
    meta: &Arc<BlockMeta>,
    decode: bool,
    report: &mut Report,
) -> Result<(), InspectError> {
    report.blocks += 1;
    report.bytes += meta.files.bytes();
    let mut notes = Notebook { tenant, report };
    match runtime.block_on(maintenance.verify(tenant, meta)) {
        Ok(()) => {}
        Err(BlockError::Corrupt { object, what }) => {
            notes.add(Severity::Damage, Some(meta.ulid), format!("{object}: {what}"));
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    }
    if !decode {
        notes.report.series += meta.stats.series;
        notes.report.samples += meta.stats.samples;
        return Ok(());
    }
    let reader = BlockReader::open(store, tenant, meta, &Visibility::default(), ReadOptions::default());
    let found = reader.and_then(|mut reader| {
        let mut seen = Seen::default();
        while let Some(batch) = reader.next_batch()? {
            batch.iter().for_each(|s| seen.add(meta, s));
        }
        Ok(seen)
    });
    match found {
        Ok(seen) => {
            notes.report.series += seen.series;
            notes.report.samples += seen.samples;
            for what in seen.differences(meta) {
                notes.add(Severity::Damage, Some(meta.ulid), what);
            }
        }
        // Its bytes are what was written, so the fault is in what was written.
        Err(e) => notes.add(Severity::Damage, Some(meta.ulid), format!("cannot be decoded: {e}")),
    }
    Ok(())
}

/// What a block was found to hold.
#[derive(Default)]
struct Seen {
    series: u64,
    samples: u64,
    histograms: u64,
    stale_markers: u64,
    span_ms: Option<(i64, i64)>,
    last: Option<Labels>,
    /// The first of each kind.
    faults: BTreeMap<&'static str, String>,
}

impl Seen {
    fn add(&mut self, meta: &BlockMeta, series: &SeriesColumns) {
        self.series += 1;
        self.samples += series.ts_ms.len() as u64;
        self.histograms += series.histograms.iter().flatten().filter(|h| h.is_some()).count() as u64;
        self.stale_markers += series.values.iter().filter(|v| is_stale(**v)).count() as u64;
        let mut fault = |kind: &'static str| {
            self.faults.entry(kind).or_insert_with(|| series.labels.to_string());
        };
        if self.last.as_ref().is_some_and(|last| last.series_cmp(&series.labels).is_ge()) {
            fault("series are out of order or double");
        }
        if series.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
            fault("timestamps do not ascend");
        }
        if series.values.len() != series.ts_ms.len() {
            fault("values and timestamps differ in number");
        }
        if let (Some(a), Some(b)) = (series.ts_ms.first(), series.ts_ms.last()) {
            if *a < meta.min_t_ms || *b > meta.max_t_ms {
                fault("samples lie outside of the block's time");
            }
            let (min, max) = self.span_ms.unwrap_or((*a, *b));
            self.span_ms = Some((min.min(*a), max.max(*b)));
        }
        self.last = Some(series.labels.clone());
    }

    fn differences(&self, meta: &BlockMeta) -> Vec<String> {
        let mut out: Vec<String> =
            self.faults.iter().map(|(kind, first)| format!("{kind}, first in {first}")).collect();
        // Of a downsampled block's windows some things are told otherwise: their histograms in rows apart,
        // the time of their first samples.
        let raw = meta.resolution_ms == 0;
        let counts = [
            ("series", self.series, meta.stats.series, true),
            ("samples", self.samples, meta.stats.samples, true),
            ("histograms", self.histograms, meta.stats.histograms, raw),
            ("staleness markers", self.stale_markers, meta.stats.stale_markers, raw),
        ];
        for (name, found, said, counts) in counts {
            if counts && found != said {
                out.push(format!("{found} {name} were found, {said} are said to be there"));
            }
        }
        if self.span_ms.is_some_and(|s| s.1 != meta.max_t_ms || (raw && s.0 != meta.min_t_ms)) {
            out.push(format!(
                "samples span {:?} ms, {:?} is said",
                self.span_ms.unwrap_or_default(),
                (meta.min_t_ms, meta.max_t_ms)
            ));
        }
        out
    }
}

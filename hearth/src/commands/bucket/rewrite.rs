//! `hearth bucket rewrite`: blocks written anew without some series or labels.

use super::table::{Table, colour};
use super::{Bucket, print};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::config::Settings;
use crate::{complain, say};
use compactor::job::rewrite::{Rewrite, Rewritten, check_labels, exemplars_left, rewrite, rewrite_exemplars};
use compactor::job::{JobError, JobRunner};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tsdb::catalog::Catalog;
use ulid::Ulid;

impl Bucket {
    pub(super) fn rewrite(
        &self,
        blocks: &[Ulid],
        what: Rewrite,
        all: bool,
        commit: bool,
        settings: &Settings,
    ) -> Result<bool, CommandError> {
        if what.drop_series.is_empty() && what.drop_labels.is_empty() && !all {
            return Err(CommandError::Mend("say what to leave out with --drop-series or --drop-label, or give --all to write blocks anew as they are".into()));
        }
        self.must_be_live(blocks)?;
        let scratch = tempfile_in(&settings.data_dir.0)?;
        let runner = JobRunner {
            maintenance: self.maintenance.clone(),
            store: self.store.clone(),
            settings: Arc::new(compactor::settings::Settings::new(&scratch.0)),
            writer: self.writer.clone(),
            scratch: scratch.0.clone(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let mut lines: Vec<Value> = Vec::new();
        let mut exemplars: Vec<Value> = Vec::new();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            check_labels(&runner, tenant, &catalog.snapshot().blocks, &what).map_err(|e| match e {
                // What was asked for would ruin series: nothing was written.
                JobError::Differs { .. } => CommandError::Mend(e.to_string()),
                e => CommandError::failed(e),
            })?;
            for meta in
                catalog.snapshot().blocks.iter().filter(|b| blocks.is_empty() || blocks.contains(&b.ulid))
            {
                if !all && !what.concerns(&runner, tenant, meta).map_err(CommandError::failed)? {
                    continue;
                }
                let mut line = json!({ "tenant": tenant.as_str(), "block": meta.ulid.to_string(), "bytes": meta.files.bytes(), "samples": meta.stats.samples });
                if commit {
                    let snapshot = catalog.snapshot();
                    let done = self.runtime.block_on(rewrite(&runner, &catalog, &snapshot, meta, &what));
                    let became = done.map(|done| match done {
                        Rewritten::Gone => None,
                        Rewritten::Replaced(new) => Some((new.ulid, new.files.bytes(), new.stats.samples)),
                    });
                    tell_became(&mut line, became);
                }
                lines.push(line);
            }
            let wanted = |ulid| blocks.is_empty() || blocks.contains(&ulid);
            exemplars.extend(self.rewrite_exemplars(&runner, &catalog, wanted, &what, commit)?);
        }
        let fine = lines.iter().chain(&exemplars).all(|l| l["failed"].is_null());
        if self.json {
            print(&json!({ "committed": commit, "blocks": lines, "exemplars": exemplars }));
            return Ok(fine);
        }
        show(lines, exemplars, commit);
        Ok(fine)
    }

    /// Files of exemplars bear the same series as blocks do: what is said of them, a line each.
    fn rewrite_exemplars(
        &self,
        runner: &JobRunner,
        catalog: &Catalog,
        wanted: impl Fn(Ulid) -> bool,
        what: &Rewrite,
        commit: bool,
    ) -> Result<Vec<Value>, CommandError> {
        let (tenant, snapshot) = (catalog.tenant(), catalog.snapshot());
        let mut lines = Vec::new();
        for file in snapshot.exemplars.iter().filter(|f| wanted(f.ulid)) {
            let left = self.runtime.block_on(exemplars_left(runner, tenant, file, what));
            let Some(left) = left.map_err(CommandError::failed)? else { continue };
            let mut line = json!({ "tenant": tenant.as_str(), "file": file.ulid.to_string(), "bytes": file.bytes, "samples": file.rows });
            if commit {
                let done = self.runtime.block_on(rewrite_exemplars(runner, catalog, file, left));
                let became = done.map(|new| new.map(|n| (n.ulid, n.bytes, n.rows)));
                tell_became(&mut line, became);
            }
            lines.push(line);
        }
        Ok(lines)
    }
}

/// Prints what was done or would be, as a table, and what failed.
fn show(mut lines: Vec<Value>, exemplars: Vec<Value>, commit: bool) {
    let of_exemplars = exemplars.len();
    let blocks = lines.len();
    for mut line in exemplars {
        line["block"] = json!(format!("exemplars {}", line["file"].as_str().unwrap_or("")));
        lines.push(line);
    }
    let mut table = Table::new(&["TENANT", "BLOCK", ">SAMPLES", ">SIZE", "BECAME", ">SAMPLES", ">SIZE"]);
    for line in &lines {
        let text = |key: &str| line[key].as_str().unwrap_or("").to_owned();
        let number = |key: &str| line[key].as_u64().map(count).unwrap_or_default();
        let bytes = |key: &str| line[key].as_u64().map(size).unwrap_or_default();
        let became = if line["failed"].is_null() { text("became") } else { "FAILED".into() };
        table.line(vec![
            text("tenant"),
            text("block"),
            number("samples"),
            bytes("bytes"),
            became,
            number("new_samples"),
            bytes("new_bytes"),
        ]);
    }
    if !table.is_empty() {
        say(table.render(colour()));
    }
    for line in lines.iter().filter(|l| !l["failed"].is_null()) {
        complain(format_args!(
            "block {}: {}",
            line["block"].as_str().unwrap_or(""),
            line["failed"].as_str().unwrap_or("")
        ));
    }
    let which = match of_exemplars {
        0 => format!("{blocks} blocks"),
        n => format!("{blocks} blocks and {n} files of exemplars"),
    };
    let done = match (lines.len(), commit) {
        (0, _) => "no block holds anything of it".to_owned(),
        (_, true) => format!("{which} written anew; the old ones are removed as garbage later"),
        (_, false) => format!("{which} are concerned: `--commit` writes them anew"),
    };
    say(format_args!("{done}\n"));
}

/// What became of something that was written anew: its new name, bytes and samples; `None` where nothing was
/// left.
fn tell_became(line: &mut Value, became: Result<Option<(Ulid, u64, u64)>, JobError>) {
    match became {
        Ok(None) => line["became"] = json!("nothing"),
        Ok(Some((ulid, bytes, samples))) => {
            line["became"] = json!(ulid.to_string());
            line["new_bytes"] = json!(bytes);
            line["new_samples"] = json!(samples);
        }
        // Another had it first; what it made is found by the next run.
        Err(JobError::Lost(why)) => line["failed"] = json!(format!("{why}; run it again")),
        Err(e) => line["failed"] = json!(e.to_string()),
    }
}

/// A folder of this run's own, removed at the end.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is found by whoever looks into the data folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile_in(data_dir: &std::path::Path) -> Result<Scratch, String> {
    let folder = data_dir.join("rewrite").join(Ulid::new().to_string());
    std::fs::create_dir_all(&folder).map_err(|e| {
        format!(
            "cannot make a folder for blocks under way, {}: {e}; give another with --data-dir",
            folder.display()
        )
    })?;
    Ok(Scratch(folder))
}

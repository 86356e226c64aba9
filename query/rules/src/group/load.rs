//! Rule files of a server: patterns to groups, all of them or none.

use std::collections::BTreeSet;
use std::path::PathBuf;

use model::tenant::TenantId;

use super::{Defaults, Group};
use crate::file::{self, FileOptions, expand_pattern};

/// Reads all files that the patterns name. The errors are of all files, each with its place.
pub fn load(
    patterns: &[String],
    tenant: &TenantId,
    defaults: &Defaults,
    options: &FileOptions,
) -> Result<Vec<Group>, Vec<String>> {
    let mut errors = Vec::new();
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for pattern in patterns {
        match expand_pattern(pattern) {
            Ok(found) => files.extend(found),
            Err(e) => errors.push(format!("{pattern}: {e}")),
        }
    }
    let mut groups = Vec::new();
    for path in files {
        let shown = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => {
                errors.push(format!("{shown}: {e}"));
                continue;
            }
        };
        match file::parse(&text, options) {
            Ok(specs) => {
                for spec in specs {
                    let name = spec.name.clone();
                    match Group::new(tenant.clone(), &shown.to_string(), spec, defaults, &options.parse) {
                        Ok(group) => groups.push(group),
                        Err(e) => errors.push(format!("{shown}: group {name}: {e}")),
                    }
                }
            }
            Err(found) => errors.extend(found.iter().map(|e| format!("{shown}: {e}"))),
        }
    }
    if errors.is_empty() { Ok(groups) } else { Err(errors) }
}

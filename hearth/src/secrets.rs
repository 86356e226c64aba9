//! Secrets: read from files, as settings never hold them.

use std::path::Path;

/// The text of a file without the white space around it; the error names the option.
pub fn read_secret(option: &str, path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{option}: {} cannot be read: {e}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{option}: {} is empty", path.display())),
        text => Ok(text.to_owned()),
    }
}
